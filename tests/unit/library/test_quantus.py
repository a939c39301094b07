"""Attributions go into the metrics of Quantus as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import quantus
import torch
from scipy.stats import entropy
from torch import nn

from dxai.explain.registry import build_explainer
from dxai.library.explainer import DXAI
from dxai.metrics.localisation import energy_inside, pointing
from tests.small_explainer import CLASSES, SIDE, documented, pixels

LABELS = np.array([0, 1] * 3)
INSIDE = np.zeros((len(LABELS), 1, SIDE, SIDE))
INSIDE[..., SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4] = 1


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Images as Quantus takes them, (6, 3, 16, 16)."""
    drawn = [pixels(CLASSES[label], i) for i, label in enumerate(LABELS)]
    return np.stack(drawn).transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1


@pytest.fixture(scope="module")
def explainer(fitted: tuple[DXAI, object]) -> DXAI:
    return fitted[0]


def explain(explainer: Any) -> Any:
    """Return the `explain_func` of an explainer."""

    def function(model: nn.Module, inputs: Any, targets: Any, **_: Any) -> np.ndarray:
        found = explainer.attribute(torch.as_tensor(inputs), torch.as_tensor(targets))
        return found.numpy()

    return function


def score(metric: Any, explainer: DXAI, images: np.ndarray, **given: Any) -> np.ndarray:
    return np.array(
        metric(model=explainer.classifier, x_batch=images, y_batch=LABELS, device="cpu", **given),
        dtype=float,
    )


def test_localisation_is_ours(explainer: DXAI, images: np.ndarray) -> None:
    """Quantus takes masks, and so attributions, of one channel here."""
    part = explainer.attribute(torch.from_numpy(images), torch.from_numpy(LABELS))
    heat, inside = part.abs().mean(1, keepdim=True), torch.from_numpy(INSIDE)
    given = {"a_batch": heat.numpy(), "s_batch": INSIDE}
    found = score(quantus.RelevanceMassAccuracy(), explainer, images, **given)
    np.testing.assert_allclose(found, energy_inside(heat.sqrt(), inside), rtol=1e-5)
    found = score(quantus.PointingGame(), explainer, images, **given)
    np.testing.assert_array_equal(found, pointing(part, inside > 0))


def test_complexity_is_the_entropy_of_the_part(explainer: DXAI, images: np.ndarray) -> None:
    part = explainer.attribute(torch.from_numpy(images), torch.from_numpy(LABELS)).numpy()
    found = score(quantus.Complexity(), explainer, images, a_batch=part)
    np.testing.assert_allclose(found, entropy(np.abs(part).reshape(len(part), -1).T), rtol=1e-4)


def test_faithfulness_of_the_gradient_of_a_linear_network(
    explainer: DXAI, images: np.ndarray
) -> None:
    """The sum over deleted pixels is what the logit loses, so both are correlated by 1."""
    metric = quantus.FaithfulnessCorrelation(
        nr_runs=20, subset_size=40, perturb_baseline=0.0, abs=False, return_aggregate=False
    )
    ig = build_explainer("ig", explainer.classifier)
    maps = ig.attribute(torch.from_numpy(images), torch.from_numpy(LABELS)).numpy()
    np.testing.assert_allclose(score(metric, explainer, images, a_batch=maps), 1, atol=1e-3)


def test_the_documented_code_runs(explainer: DXAI, images: np.ndarray) -> None:
    """In docs/classifiers.md, word for word; the first block is in test_evaluation.py."""
    names: dict[str, Any] = {"quantus": quantus, "torch": torch, "explainer": explainer}
    names |= {"images": torch.from_numpy(images), "labels": torch.from_numpy(LABELS)}
    for block in documented("Other methods and other metrics")[1:]:
        exec(block, names)
    explained = names["explain"](explainer.classifier, 1.1 * images, LABELS)
    assert explained.shape == images.shape


def test_metrics_that_explain_again(explainer: DXAI, images: np.ndarray) -> None:
    found = [
        score(metric, explainer, images, explain_func=explain(explainer))
        for metric in (
            quantus.MaxSensitivity(nr_samples=2, lower_bound=0.0),  # the same image
            quantus.MaxSensitivity(nr_samples=2, lower_bound=0.02),
            quantus.RandomLogit(num_classes=2),
        )
    ]
    assert (found[0] == 0).all() and (found[1] > 0).all()
    assert (found[2] < 0.999).all()  # the part of the other class is another one
