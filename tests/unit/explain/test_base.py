"""What holds for every registered explainer, and for building one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dxai.config.schema import METHODS
from dxai.explain.base import Explainer
from dxai.explain.registry import EXPLAINERS, build_explainer

SETTINGS: dict[str, dict[str, Any]] = {
    "ig": {"steps": 5},
    "internal_influence": {"steps": 5},
    "gradient_shap": {"samples": 5, "stdev": 0.1},
    "lime": {"samples": 20, "segments": 8},
    "naive": {"iterations": 5, "lr": 0.1},
}
ONE_CHANNEL = {"internal_influence", "gradcam", "lime", "random"}
BY_GRADIENT = sorted(set(EXPLAINERS) - {"random", "lime"})


def make(method: str, classifier: nn.Module, seed: int = 0) -> Explainer:
    return build_explainer(method, classifier, SETTINGS.get(method, {}), seed)


def test_registry_holds_what_settings_may_name() -> None:
    assert set(EXPLAINERS) == set(METHODS)


@pytest.mark.parametrize("method", EXPLAINERS)
def test_contract(method: str, classifier: nn.Module, images: Tensor, target: Tensor) -> None:
    explainer = make(method, classifier)
    map_ = explainer.attribute(images, target)
    assert explainer.name == method
    assert (explainer.kind, explainer.signs) in {
        ("heatmap", ("signed", "relu")),
        ("heatmap", ("relu",)),
        ("heatmap", ("relu", "signed")),
        ("distinct", ("part",)),
    }
    assert map_.shape == images.shape
    assert map_.dtype == torch.float32 and not map_.requires_grad
    assert torch.isfinite(map_).all()
    assert map_.abs().max() > 0


@pytest.mark.parametrize("method", EXPLAINERS)
def test_parts_by_sign(method: str, classifier: nn.Module, images: Tensor, target: Tensor) -> None:
    explainer = make(method, classifier)
    found = explainer.attribute(images, target)
    by_sign = {sign: (heat, part) for sign, heat, part in explainer.by_sign(found, images)}
    assert tuple(by_sign) == explainer.signs
    for sign, (heat, part) in by_sign.items():
        if sign == "part":
            assert heat is found and part is found
            continue
        weights, peaks = part / images, heat.abs().amax((1, 2, 3), keepdim=True)
        torch.testing.assert_close(weights.abs().amax((1, 2, 3)), (peaks > 0).float().flatten())
        assert (weights.min() < 0) == (sign == "signed")  # Random, too: its draws are centred
        torch.testing.assert_close(weights * peaks, heat)


@pytest.mark.parametrize("method", EXPLAINERS)
def test_image_by_image_gives_the_same(
    method: str, classifier: nn.Module, images: Tensor, target: Tensor
) -> None:
    explainer = make(method, classifier)
    index = torch.arange(8) + 40
    together = explainer.attribute(images, target, index)
    parts = zip(images.split(1), target.split(1), index.split(1), strict=True)
    singly = torch.cat([explainer.attribute(*part) for part in parts])
    rounding = 2e-7 if explainer.kind == "distinct" else 0.0  # of x - agnostic, values near 1
    near = 1e-5 * float(together.abs().max()) + rounding
    torch.testing.assert_close(singly, together, rtol=1e-3, atol=near)


@pytest.mark.parametrize("method", EXPLAINERS)
def test_same_seed_same_map(
    method: str, build: Callable[[str], nn.Module], images: Tensor, target: Tensor
) -> None:
    classifier = build("simple")
    first = make(method, classifier).attribute(images, target)
    torch.rand(1), np.random.rand(1)
    assert torch.equal(make(method, classifier).attribute(images, target), first)
    other_seed = make(method, classifier, seed=1).attribute(images, target)
    drawn = method in ("gradient_shap", "lime", "random")
    assert torch.equal(other_seed, first) is not drawn


@pytest.mark.parametrize("method", ["gradient_shap", "lime", "random"])
def test_draws_belong_to_the_image_not_to_its_position_in_the_batch(
    method: str, build: Callable[[str], nn.Module], images: Tensor, target: Tensor
) -> None:
    explainer = make(method, build("simple"))
    index = torch.tensor([7, 3])
    there = explainer.attribute(images[:2], target[:2], index)
    back = explainer.attribute(images[:2].flip(0), target[:2].flip(0), index.flip(0)).flip(0)
    torch.testing.assert_close(there, back)
    elsewhere = explainer.attribute(images[:2], target[:2], index + 1)
    assert not torch.allclose(there, elsewhere)


@pytest.mark.parametrize("method", EXPLAINERS)
def test_leaves_classifier_images_and_global_draws_alone(
    method: str, classifier: nn.Module, images: Tensor, target: Tensor
) -> None:
    classifier.train()
    before, pictures = copy.deepcopy(classifier.state_dict()), images.clone()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    make(method, classifier).attribute(images, target)
    after = classifier.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(module.training for module in classifier.modules())
    assert all(p.requires_grad and p.grad is None for p in classifier.parameters())
    for module in classifier.modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        assert not any(hooks) and not hasattr(module, "rule")
    assert torch.equal(images, pictures) and not images.requires_grad
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


@pytest.mark.parametrize("method", EXPLAINERS)
def test_works_inside_no_grad_and_inference_mode(
    method: str, build: Callable[[str], nn.Module], images: Tensor, target: Tensor
) -> None:
    explainer = make(method, build("simple"))
    expected = explainer.attribute(images, target)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(explainer.attribute(images.clone(), target.clone()), expected)


@pytest.mark.parametrize("method", EXPLAINERS)
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), RuntimeError("can't allocate memory"), MemoryError()]
)
def test_takes_fewer_images_at_once_when_memory_runs_out(
    method: str,
    error: Exception,
    build: Callable[[str], nn.Module],
    images: Tensor,
    target: Tensor,
) -> None:
    classifier = build("simple")
    expected = make(method, classifier).attribute(images, target)

    def cramped(module: nn.Module, args: tuple[Tensor]) -> None:
        if len(args[0]) > 3:
            raise error

    classifier.features[0].register_forward_pre_hook(cramped)
    explainer = make(method, classifier)
    map_ = explainer.attribute(images, target)
    if method == "gradient_shap":  # draws anew for the smaller groups of samples
        assert torch.isfinite(map_).all()
    else:
        torch.testing.assert_close(map_, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("method", BY_GRADIENT)
def test_other_errors_and_nan_are_not_swallowed(
    method: str, build: Callable[[str], nn.Module], images: Tensor, target: Tensor
) -> None:
    classifier = build("simple")
    with torch.no_grad():
        classifier.head[-1].weight.fill_(torch.nan)
    with pytest.raises(RuntimeError, match=rf"{method}: NaN or infinity.*\[5, 6\]"):
        make(method, classifier).attribute(images[:2], target[:2], torch.tensor([5, 6]))

    def broken(module: nn.Module, args: Any) -> None:
        raise RuntimeError("no such luck")

    classifier.features[0].register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="no such luck"):
        make(method, classifier).attribute(images, target)


def test_nan_in_lime_is_no_wrong_setting(
    build: Callable[[str], nn.Module], images: Tensor, target: Tensor
) -> None:
    """A ValueError would mean that the user set something wrong."""
    classifier = build("simple")
    with torch.no_grad():
        classifier.head[-1].bias.fill_(torch.nan)
    with pytest.raises(RuntimeError, match=r"lime: .*NaN"):
        make("lime", classifier).attribute(images, target)


def test_unknown_names_list_the_valid_ones(build: Callable[[str], nn.Module]) -> None:
    classifier = build("simple")
    with pytest.raises(ValueError, match=r"unknown 'gradcan'; valid are .*gradcam"):
        build_explainer("gradcan", classifier)
    with pytest.raises(ValueError, match=r"methods\.ig: unknown 'step'; valid are steps"):
        build_explainer("ig", classifier, {"step": 5})
    with pytest.raises(ValueError, match=r"methods\.random: unknown 'a'"):
        build_explainer("random", classifier, {"a": 1})
    with pytest.raises(ValueError, match=r"methods\.lime\.samples is 'many'.*int"):
        build_explainer("lime", classifier, {"samples": "many"})
    with pytest.raises(ValueError, match=r"methods\.lrp\.epsilon is 0.* greater than 0"):
        build_explainer("lrp", classifier, {"epsilon": 0})
