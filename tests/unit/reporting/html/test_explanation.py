"""Pages of explanations: images, parts and answers as they are, and no code that came with data."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dxai.reporting.html import Explanation, Removal, explanation, explanation_page, write_pages
from dxai.reporting.html.viewer import BETAS, ROWS, SIDE, STEPS, make_view

CLASSES = ["brick", "grass", "<script>alert(1)</script>"]


def make(
    shape: tuple[int, ...] = (3, 16, 12), kinds: tuple[str, ...] = ("neutral", "generated")
) -> Explanation:
    """Make an image with random parts of the first two classes."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, shape) / np.float32(127.5) - 1
    removals = [
        Removal(
            name,
            kind,
            rng.normal(0, 0.3, shape).astype(np.float32),
            rng.dirichlet(np.ones(len(CLASSES)), len(BETAS)),
        )
        for name in CLASSES[:2]
        for kind in kinds
    ]
    return Explanation("a.png", image, removals, {"Grad-CAM": rng.normal(0, 1, (1, *shape[1:]))})


def unpacked(text: str, shape: tuple[int, ...], steps: float = STEPS) -> np.ndarray:
    """Decode pixels as the script does, in gray levels."""
    low, high = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(2, -1)
    return (high.view(np.int8).astype(int) * 256 + low).reshape(shape) / steps


def data_of(page: str) -> list[dict[str, Any]]:
    return list(
        map(json.loads, re.findall(r'<script type="application/json">(.*?)</script>', page))
    )


def test_a_faint_part_keeps_its_shape() -> None:
    faint = 1e-4 * make().removals[0].distinct
    one = Explanation("", np.zeros_like(faint), [Removal("brick", "neutral", faint, np.eye(3))])
    (part,) = make_view(one, CLASSES)["data"]["parts"]
    psi = unpacked(part["pixels"], faint.shape, part["steps"])
    assert np.abs(psi - faint * 127.5).max() <= 127.5 * np.abs(faint).max() / 2000


@pytest.mark.parametrize("shape", [(3, 16, 12), (1, 8, 8)])
def test_pixels_are_kept_to_a_fraction_of_a_gray_level(shape: tuple[int, ...]) -> None:
    one = make(shape)
    (view,) = data_of(explanation_page([one], CLASSES))
    assert (view["height"], view["width"]) == shape[1:]
    image = unpacked(view["image"], shape)
    assert np.abs(image - (one.image + 1) * 127.5).max() < 1e-4, "an image of 8 bits is exact"
    assert len(view["parts"]) == len(one.removals)
    for part, removal in zip(view["parts"], one.removals, strict=True):
        assert (part["class"], part["kind"]) == (removal.class_name, removal.kind)
        psi = unpacked(part["pixels"], shape, part["steps"])
        assert np.abs(psi - removal.distinct * 127.5).max() <= 0.5 / STEPS + 1e-4
        assert part["scale"] == pytest.approx(float(np.abs(removal.distinct).max()))


def test_large_images_are_reduced_and_the_parts_still_add_up() -> None:
    one = make((3, 40, 20))
    part = one.removals[0].distinct
    view, without = (
        make_view(Explanation("", image, one.removals), CLASSES, side=10)["data"]
        for image in (one.image, one.image - part)
    )
    assert (view["height"], view["width"]) == (10, 5)
    x, rest = (unpacked(found["image"], (3, 10, 5)) for found in (view, without))
    psi = unpacked(view["parts"][0]["pixels"], (3, 10, 5), view["parts"][0]["steps"])
    assert np.abs(x - psi - rest).max() <= 1.5 / STEPS + 1e-3
    blocks = one.image.reshape(3, 10, 4, 5, 4).mean((2, 4))
    assert np.abs(x - (blocks + 1) * 127.5).max() <= 0.5 / STEPS + 1e-3


def test_answers_of_many_classes_are_the_most_probable_and_the_rest() -> None:
    names = [f"class {k}" for k in range(100)]
    answers = np.full((len(BETAS), 100), 0.001)
    answers[:, 40:48] = 0.908 / 8
    answers[:, 99] = 0.0
    one = make((1, 8, 8))
    removal = Removal("class 99", "neutral", one.image, answers)
    view = make_view(Explanation("", one.image, [removal]), names)
    assert len(view["names"]) == ROWS + 1 and view["names"][-1] == "class 99"
    assert view["others"] == 100 - ROWS - 1
    *shown, others, neutrality = view["data"]["parts"][0]["answers"][0]
    assert shown == [*[round(0.908 / 8, 4)] * ROWS, 0]
    assert others == pytest.approx(1 - ROWS * 0.908 / 8, abs=1e-4)
    entropy = -8 * 0.1135 * np.log(0.1135) - 91 * 0.001 * np.log(0.001)
    assert neutrality == pytest.approx(entropy / np.log(100), abs=2e-4)


def test_each_class_needs_each_kind() -> None:
    one = make()
    with pytest.raises(ValueError, match=r"a\.png: expected each kind once for each class"):
        explanation_page([Explanation("a.png", one.image, one.removals[:3])], CLASSES)


def test_the_page_runs_its_script_and_nothing_else() -> None:
    hostile = '"><img src=x onerror=alert(1)>'
    page = explanation_page(
        [make(kinds=(hostile, "</script><script>alert(2)</script>"))],
        CLASSES,
        title=hostile,
        verdict=[hostile],
        tables={hostile: [[hostile, "AUC"], ["Grad-CAM", "0.9"]]},
    )
    assert "http:" not in page and "https:" not in page and "<img src=x" not in page
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL)
    assert [kind for kind, _ in scripts] == [' type="application/json"', ""]
    digest = base64.b64encode(hashlib.sha256(scripts[1][1].encode()).digest()).decode()
    policy = unescape(re.findall(r'Content-Security-Policy" content="([^"]*)"', page)[0])
    assert f"script-src 'sha256-{digest}'" in policy and policy.startswith("default-src 'none';")
    assert json.loads(scripts[0][1])["parts"][1]["kind"] == "</script><script>alert(2)</script>"
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 1, "its row"
    assert "<td>0.9</td>" in page


def test_pages_are_bounded_and_lead_to_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = re.findall(r'"(?:image|pixels)": "([^"]*)"', explanation_page([make()], CLASSES))
    size = sum(map(len, texts))
    monkeypatch.setattr(explanation, "PAGE_BYTES", int(2.9 * size))
    out = tmp_path / "index.html"
    assert write_pages((make() for _ in range(5)), out, CLASSES, verdict=["It is so."])
    pages = [out, tmp_path / "index-2.html", tmp_path / "index-3.html"]
    assert sorted(tmp_path.glob("index*")) == sorted(pages)
    texts = [page.read_text() for page in pages]
    assert [len(data_of(text)) for text in texts] == [2, 2, 1]
    assert [text.count("It is so.") for text in texts] == [1, 0, 0]
    assert [re.findall(r'<a href="([^"]+)">', text) for text in texts] == [
        ["index-2.html"],
        ["index.html", "index-3.html"],
        ["index-2.html"],
    ]


def test_a_page_is_written_of_what_was_found_before_an_interruption(tmp_path: Path) -> None:
    def found() -> Iterator[Explanation]:
        yield make()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_pages(found(), tmp_path / "index.html", CLASSES)
    assert len(data_of((tmp_path / "index.html").read_text())) == 1
    assert not write_pages([], tmp_path / "none.html", CLASSES)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_a_page_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    path.write_text("<title>my site</title>")
    with pytest.raises(FileExistsError, match=r"index\.html: found a file that dxai did not write"):
        write_pages([make()], path, CLASSES)
    assert path.read_text() == "<title>my site</title>"
    path.write_text(explanation_page([make()], CLASSES))
    assert write_pages([make()], path, CLASSES), "its own is replaced"


def test_a_large_picture_stays_within_its_share_of_the_page() -> None:
    shape = (3, 2 * SIDE, SIDE)
    one = make(shape, kinds=("neutral",))
    view = make_view(one, CLASSES)
    raw = 3 * SIDE * (SIDE // 2) * 2 * 4 / 3
    sizes = [len(part["pixels"]) for part in view["data"]["parts"]]
    assert max(sizes) <= raw * 1.01, "noise, which does not deflate"
