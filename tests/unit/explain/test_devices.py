"""Explaining and scoring on another device: answers come back, and the numbers are the CPU's.

Tensors of `tests.elsewhere` stand for those of a GPU, which is tried where there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dxai.config.schema import EvaluateParams
from dxai.explain import controls, projection
from dxai.explain.captum_baselines import layers
from dxai.explain.decomposition import DXAI, KINDS
from dxai.explain.registry import EXPLAINERS, build_explainer
from dxai.metrics import removal, smoothing
from dxai.metrics.localisation import GroundTruth
from dxai.metrics.scorer import Scorer
from dxai.models.classifiers import build_network
from dxai.models.decomposer import Decomposer
from dxai.models.default_layers import sequential_layers
from dxai.models.devices import choose_device, device_of
from dxai.models.randomised import cascade, drawn_layers
from dxai.models.serialization import freeze
from dxai.training.probe import predict, train_probe
from dxai.types import Batch
from tests.elsewhere import another_device
from tests.unit.explain.conftest import CLASSES, SIZE, stirred

SETTINGS: dict[str, dict[str, Any]] = {
    "ig": {"steps": 2},
    "internal_influence": {"steps": 2},
    "gradient_shap": {"samples": 2},
    "lime": {"samples": 6, "segments": 4},
    "naive": {"iterations": 2, "lr": 0.1},
}
NAMES = ["a", "b", "c"]
Found = dict[str, Tensor]


def network(arch: str, seed: int = 5) -> nn.Module:
    torch.manual_seed(seed)
    return freeze(stirred(build_network(arch, 1, CLASSES, SIZE, width=4)))


@pytest.fixture
def batch(images: Tensor, target: Tensor) -> Batch:
    return Batch(images[:2], target[:2], torch.arange(2) + 4, ["x", "y"], ["x", "y"])


def compared(batch: Batch, device: torch.device) -> Found:
    """Explain images of the CPU by each of the other methods, whose network is on a device."""
    there = network("resnet18").to(device)
    assert sequential_layers(there, batch.images.to(device))
    found = {}
    for name in EXPLAINERS:
        explainer = build_explainer(name, there, SETTINGS.get(name, {}), 3)
        found[name] = explainer.attribute(batch.images, batch.labels, batch.index)
        for sign in explainer.signs if explainer.kind == "heatmap" else ():
            found[f"{name} {sign}"] = explainer.under(found[name], sign)
    return found


def decomposed(batch: Batch, device: torch.device) -> Found:
    """Decompose images of the CPU by networks on a device."""
    ours, found = decomposition(network("simple"), device), {}
    for kind in KINDS:
        parts = ours.explain(batch.images, None, batch.index, kind)
        found |= {f"{kind} distinct": parts.distinct, f"{kind} agnostic": parts.agnostic}
    found["own"] = ours.attribute(batch.images, batch.labels, batch.index)
    found["spread"] = ours.spread(batch.images, batch.labels, batch.index, 3)
    found["logits"] = ours.logits(batch.images)
    return found


def decomposition(classifier: nn.Module, device: torch.device) -> DXAI:
    torch.manual_seed(6)
    small: dict[str, Any] = {"branch_width": 3, "coarsest": 8, "mapping_width": 8}
    decomposer = freeze(Decomposer(1, CLASSES, SIZE, 4, style_dim=8, **small))
    info = {"class_names": NAMES, "image_size": SIZE, "channels": 1}
    return DXAI(decomposer, info, classifier, 3).to(device)


def scored(batch: Batch, device: torch.device) -> Found:
    """Score a part of the images, its controls, and what the stages ask of a network."""
    there, twin = (network("simple", seed).to(device) for seed in (5, 6))
    deviation = smoothing.tolerated(there, lambda: [batch], 3)
    params = EvaluateParams(batch_size=16, smooth=2, bootstrap=10)
    scorer = Scorer(there, twin, NAMES, params, 3, deviation=max(deviation, 0.01))
    part = batch.images * 0.3
    truth = GroundTruth((batch.images > 0).float(), batch.images * 0.2)
    for name, distinct in (
        ("part", part),
        ("shuffled", controls.shuffled(part.to(device), batch.index, 3)),
        ("random_phase", controls.random_phase(part.to(device), batch.index, 3)),
    ):
        extra = {"uncertainty": distinct.abs().mean((1, 2, 3))}
        scorer.add(name, "part", batch, distinct, part, truth=truth, extra=extra)
    numbers = scorer.images().select_dtypes("number").to_numpy(float)
    answers = scorer.outcomes().filter(regex=r"level|p\d").to_numpy(float)
    found = {"images": torch.from_numpy(numbers), "outcomes": torch.from_numpy(answers)}
    probe = train_probe(batch.images, batch.labels, CLASSES, 1, 3, device)
    found["probe"] = torch.from_numpy(predict(probe, batch.images))
    drawn = drawn_layers(there, batch.images[:1])
    for count, changed in cascade(there, drawn, 2, 3):
        assert device_of(changed) == device
        found[f"drawn {count}"] = changed(batch.images.to(device)).cpu()
    return found


Work = Callable[[Batch, torch.device], Found]


@pytest.mark.parametrize("work", [compared, decomposed, scored])
def test_every_tensor_is_on_the_networks_device(work: Work, batch: Batch) -> None:
    expected = work(batch, torch.device("cpu"))
    with another_device() as device:
        found = work(batch, device)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert type(value) is Tensor, f"{name} did not come back"
        assert_near(name, value, expected[name])


def test_answers_go_to_the_device_of_the_images(batch: Batch) -> None:
    cpu, classifier = torch.device("cpu"), network("simple")
    with another_device() as device:
        ours, gradcam = decomposition(classifier, cpu), build_explainer("gradcam", classifier)
        images, labels = batch.images.to(device), batch.labels.to(device)
        for kind in KINDS:
            parts = ours.explain(images, labels, batch.index, kind)
            assert {parts.distinct.device, parts.agnostic.device, parts.psi.device} == {device}
        assert gradcam.attribute(images, labels).device == device
        assert ours.spread(images, labels, batch.index, 2).device == device
        assert ours.device == cpu


@pytest.mark.parametrize(
    ("place", "name", "work"),
    [
        (layers, "resized", compared),
        (projection, "_noise", decomposed),
        (projection, "_tolerated", decomposed),
        (removal, "blur", scored),
        (smoothing, "noise", scored),
    ],
)
def test_a_tensor_left_on_the_cpu_is_found(
    place: Any, name: str, work: Work, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = getattr(place, name)
    monkeypatch.setattr(place, name, lambda *args: right(*args).cpu())
    with another_device() as device, pytest.raises(RuntimeError, match="of two devices"):
        work(batch, device)


@pytest.mark.parametrize("work", [compared, decomposed, scored])
def test_a_gpu_gives_the_numbers_of_the_cpu(work: Work, batch: Batch) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU: the same is tried on a device that only looks like one")
    expected = work(batch, torch.device("cpu"))
    for name, value in work(batch, torch.device("cuda", 0)).items():
        assert_near(name, value, expected[name])


def assert_near(name: str, found: Tensor, expected: Tensor) -> None:
    """Compare; the same sum rounds differently even on one CPU, by where its numbers lie."""
    # The search for the neutral part amplifies rounding.
    near = 2e-2 if name.startswith("neutral") else 1e-3
    torch.testing.assert_close(found, expected, rtol=near, atol=near, equal_nan=True)


def test_the_choice_of_a_device() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    has = torch.cuda.device_count()
    assert choose_device("auto").type == ("cuda" if has else "cpu")
    with pytest.raises(ValueError, match=r"here is 'gpu'; valid are auto, cpu, cuda, cuda:N"):
        choose_device("gpu", "here")
    with pytest.raises(ValueError, match=rf"here is 'cuda:{has}', but .*; valid are auto, cpu"):
        choose_device(f"cuda:{has}", "here")
