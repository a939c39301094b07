from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import dxai
from dxai.datasets.base import DataError
from dxai.datasets.images import square
from dxai.explain import decomposition
from dxai.library.parts import Parts, enlarged, shown_to_network
from dxai.types import Decomposition
from tests.small_explainer import SIDE, pixels

Fitted = tuple[dxai.DXAI, Path]
TALL = (64, 40)
"""Height and width of a test image."""


@pytest.fixture(scope="module")
def explainer(fitted: Fitted) -> dxai.DXAI:
    return fitted[0]


def in_unit_range(image: np.ndarray) -> torch.Tensor:
    return torch.tensor(image).permute(2, 0, 1).float() / 127.5 - 1


def test_the_parts_have_the_image_s_own_size_and_add_up(explainer: dxai.DXAI) -> None:
    image = pixels("red", 80, TALL)
    parts = explainer.explain(image)
    assert isinstance(parts, Parts)
    assert parts.image.shape == parts.distinct.shape == parts.agnostic.shape == (3, *TALL)
    torch.testing.assert_close(parts.image, in_unit_range(image))
    torch.testing.assert_close(parts.agnostic + parts.distinct, parts.image)
    assert parts.predicted == parts.explained == "red"
    # Outside of the centred square the network sees nothing.
    top = (TALL[0] - TALL[1]) // 2
    assert not parts.distinct[:, :top].any() and not parts.distinct[:, -top:].any()
    assert parts.distinct[:, top:-top].any()


def test_the_network_sees_the_same_parts_at_its_own_size(explainer: dxai.DXAI) -> None:
    parts = explainer.explain(pixels("red", 81, TALL))
    seen = shown_to_network(parts.distinct, SIDE)[0]
    torch.testing.assert_close(seen, parts.decomposition.distinct[0], rtol=0, atol=2e-3)
    left = explainer.classifier(shown_to_network(parts.agnostic, SIDE)).softmax(1)[0]
    assert parts.probabilities["class-agnostic"]["red"] == pytest.approx(float(left[1]), abs=1e-6)
    assert parts.probabilities["class-agnostic"]["red"] == pytest.approx(0.5, abs=0.1)
    assert parts.neutrality > 0.95


def test_images_reach_the_network_as_files_do() -> None:
    image = pixels("blue", 3, TALL)
    read = square(Image.fromarray(image), SIDE)
    seen = shown_to_network(in_unit_range(image), SIDE)[0]
    # Pillow rounds to whole gray levels, after each of two passes.
    assert (seen - in_unit_range(read)).abs().max() < 2.1 / 127.5


def test_an_enlarged_part_is_reduced_to_itself() -> None:
    part = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    for size in ((16, 16), (32, 32), (40, 90), (101, 77)):
        whole = enlarged(part, torch.zeros(3, *size))
        plain = F.interpolate(part[None], (min(size),) * 2, mode="bicubic", align_corners=False)
        error = (shown_to_network(whole, 16)[0] - part).abs().max()
        without = (shown_to_network(plain[0], 16)[0] - part).abs().max()
        assert error < 0.02
        assert error <= without


def test_every_form_of_an_image_gives_the_same_parts(explainer: dxai.DXAI, tmp_path: Path) -> None:
    image = pixels("blue", 82, TALL)
    Image.fromarray(image).save(tmp_path / "a.png")
    chw = torch.from_numpy(image).permute(2, 0, 1)
    forms = [tmp_path / "a.png", Image.fromarray(image), image / 255, chw, chw.float() / 127.5 - 1]
    first = explainer.explain(str(tmp_path / "a.png"))
    many = explainer.explain(forms)
    for parts in [*many, *explainer.explain(chw[None]), explainer.explain(chw.float() / 255)]:
        torch.testing.assert_close(parts.distinct, first.distinct)
    assert many[0].name == first.name == str(tmp_path / "a.png")
    assert many[3].name == "image 3"


def test_classes_and_kinds_are_chosen(explainer: dxai.DXAI) -> None:
    image = pixels("red", 83)
    by_name, by_index = explainer.explain([image, image], ["blue", 0], kind="generated")
    assert by_name.explained == by_index.explained == "blue"
    assert by_name.predicted == "red"
    torch.testing.assert_close(by_name.distinct, by_index.distinct)
    for target in ("green", 2, ["red"]):
        with pytest.raises(ValueError, match="target"):
            explainer.explain([image, image], target)
    with pytest.raises(ValueError, match="kind: unknown 'part'"):
        explainer.explain(image, kind="part")
    with pytest.raises(DataError, match=r"none.png: unreadable image \(.*No such file"):
        explainer.explain("none.png")
    with pytest.raises(ValueError, match="images is empty"):
        explainer.explain([])


def test_the_interface_for_tensors_is_unchanged(explainer: dxai.DXAI) -> None:
    images = torch.stack([in_unit_range(pixels(label, 84)) for label in ("blue", "red")])
    target = torch.tensor([0, 1])
    found = explainer.explain(images, target)
    assert isinstance(found, Decomposition)
    plain = decomposition.DXAI(explainer.decomposer, explainer.info, explainer.classifier)
    assert torch.equal(found.distinct, plain.explain(images, target).distinct)
    assert torch.equal(explainer.attribute(images, target), plain.attribute(images, target))
    with pytest.raises(ValueError, match="this model takes"):
        explainer.attribute(images[:, :, :8], target)


def test_parts_are_kept(explainer: dxai.DXAI, tmp_path: Path) -> None:
    parts = explainer.explain(pixels("red", 85, TALL))
    assert parts.save(tmp_path / "new/a.png").read_bytes() == parts._repr_png_()
    assert Image.open(tmp_path / "new/a.png").size[0] > 800
    assert parts.plot().get_size_inches()[0] > 5
    numbers = json.loads(parts.save(tmp_path / "a.json").read_text())
    assert numbers["predicted_class"] == "red"
    assert numbers["probabilities"] == parts.probabilities
    stored = torch.load(parts.save(tmp_path / "a.pt"), weights_only=True)
    assert torch.equal(stored["agnostic"] + stored["distinct"], parts.agnostic + parts.distinct)
    page = parts.save(tmp_path / "a.html").read_text()
    assert '<input type="range"' in page and "image 0" in page
    with pytest.raises(ValueError, match=r"a.jpg: expected one of the suffixes .png, .json"):
        parts.save(tmp_path / "a.jpg")
    assert repr(parts).startswith("Parts(image 0: 40 x 64 px, 3 channel(s), red 0.9")
