"""The page of `dxai explain` in a real browser: its slider is moved, and its pixels are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dxai.cli.main import main
from dxai.explain.decomposition import DXAI
from dxai.reporting.html.viewer import STEPS
from dxai.types import Decomposition
from tests.browser import Browser, chromium
from tests.unit.reporting.test_explanations import CLASSES, SIZE, save_models

pytestmark = pytest.mark.slow

READ = """(() => {
  const viewer = document.querySelectorAll(".viewer")[K];
  const [removed, distinct, agnostic] = viewer.querySelectorAll("canvas");
  const pixels = (c) => Array.from(c.getContext("2d").getImageData(0, 0, c.width, c.height).data);
  return {
    size: [removed.height, removed.width],
    removed: pixels(removed),
    distinct: pixels(distinct),
    agnostic: pixels(agnostic),
    names: Array.from(viewer.querySelectorAll(".answers span"), (e) => e.textContent),
    answers: Array.from(viewer.querySelectorAll(".answers b"), (e) => Number(e.textContent)),
    widths: Array.from(viewer.querySelectorAll(".share"), (e) => parseFloat(e.style.width)),
    caption: viewer.querySelector(".removed figcaption").textContent,
    neutrality: Number(viewer.querySelector(".neutrality").textContent),
    beta: Number(viewer.querySelector("output").textContent),
    said: viewer.querySelector("input").getAttribute("aria-valuetext"),
    outline: getComputedStyle(document.activeElement).outlineStyle,
    focus: document.activeElement.type,
  };
})()"""


DRAWN = "document.querySelectorAll('.viewer')[K].ariaBusy === 'false'"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DXAI, list[Tensor]]:
    """Return the page of two RGB images, the explainer, and the images in [-1, 1]."""
    root = tmp_path_factory.mktemp("explained")
    folder, _ = save_models(root, channels=3, certainty=100)
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.uint8)
    files = [root / f"{k}.png" for k in range(2)]
    for file, image in zip(files, pixels, strict=True):
        Image.fromarray(image).save(file)
    arguments = ["explain", "--model", str(folder), "--out", str(root / "out"), *map(str, files)]
    assert main(arguments) == 0
    images = [
        torch.tensor(image.transpose(2, 0, 1)[None] / np.float32(127.5) - 1) for image in pixels
    ]
    return root / "out/index.html", DXAI.load(folder), images


@pytest.fixture
def opened(browser: Browser, explained: tuple[Path, DXAI, list[Tensor]]) -> Browser:
    browser.open(explained[0])
    for k in range(2):
        browser.wait(DRAWN.replace("K", str(k)))
    browser.requests.clear()
    return browser


def parts_of(explainer: DXAI, image: Tensor, class_name: str, kind: str) -> Decomposition:
    target, index = torch.tensor([CLASSES.index(class_name)]), torch.tensor([0])
    return explainer.explain(image, target, index, kind)


def check(found: dict[str, Any], explainer: DXAI, parts: Decomposition, beta: float) -> None:
    """Compare what the page shows with x - beta psi and the classifier's answer to it."""
    assert found["beta"] == beta and found["size"] == [SIZE, SIZE]
    wanted = parts.image - beta * parts.distinct
    for name, picture in (("removed", wanted), ("agnostic", parts.agnostic)):
        levels = ((picture[0].numpy() + 1) * 127.5).clip(0, 255).transpose(1, 2, 0)
        shown = np.array(found[name]).reshape(SIZE, SIZE, 4)
        assert (shown[..., 3] == 255).all()
        assert np.abs(shown[..., :3] - levels).max() <= 0.5 + 1 / STEPS
    gray = parts.distinct[0].numpy() / float(parts.distinct.abs().max())
    signed = np.array(found["distinct"]).reshape(SIZE, SIZE, 4)[..., :3]
    assert np.abs(signed - (128 + 127 * gray.transpose(1, 2, 0))).max() <= 0.5 + 127 / 2000
    with torch.no_grad():
        answers = explainer.classifier(wanted).softmax(1)[0].numpy()
    assert found["names"] == CLASSES
    assert found["answers"] == pytest.approx(answers.tolist(), abs=0.0051)
    assert found["widths"] == pytest.approx((100 * answers).tolist(), abs=0.01)
    entropy = -(answers * np.log(answers)).sum() / np.log(len(answers))
    assert found["neutrality"] == pytest.approx(entropy, abs=0.0051)


def test_the_slider_moves_the_image_and_the_answers(
    opened: Browser, explained: tuple[Path, DXAI, list[Tensor]]
) -> None:
    _, explainer, images = explained
    with torch.no_grad():
        predicted = CLASSES[int(explainer.classifier(images[0]).argmax())]
    parts = parts_of(explainer, images[0], predicted, "neutral")
    found = opened.run(READ.replace("K", "0"))
    check(found, explainer, parts, 0.0)
    assert found["caption"] == "the image x"
    image = np.array(found["removed"]).reshape(SIZE, SIZE, 4)[..., :3]
    assert np.array_equal(image, ((images[0][0].numpy() + 1) * 127.5).round().transpose(1, 2, 0))
    while opened.run("document.activeElement.type") != "range":
        opened.press("Tab")
    for key, times, beta in (("ArrowRight", 7, 0.35), ("End", 1, 1.0), ("ArrowLeft", 2, 0.9)):
        opened.press(key, times)
        found = opened.run(READ.replace("K", "0"))
        check(found, explainer, parts, beta)
        assert found["outline"] == "solid", "the focus is visible"
        assert found["caption"] == ("x − ψ" if beta == 1 else f"x − {beta:.2f} ψ")
        assert found["said"].startswith(f"{beta:.2f}: {CLASSES[0]} {found['answers'][0]:.2f}, ")
    assert opened.run(READ.replace("K", "1"))["beta"] == 0, "the other image stays"
    assert opened.requests == [] and opened.errors == []


def test_what_both_kinds_take_away_is_said_before_the_first_picture(opened: Browser) -> None:
    first = "document.querySelector('.viewer').compareDocumentPosition(e) & 2"
    said = opened.run(
        f"[...document.querySelectorAll('.meanings li')].map(e => [!!({first}), "
        "e.checkVisibility(), e.querySelector('strong').textContent, "
        "e.textContent.split('.').length])"
    )
    assert said == [[True, True, "Neutral", 2], [True, True, "Generated", 2]], "a sentence each"


def test_class_and_kind_are_chosen_by_mouse_and_keyboard(
    opened: Browser, explained: tuple[Path, DXAI, list[Tensor]]
) -> None:
    _, explainer, images = explained
    second = "form.viewer:not(section:first-of-type .viewer)"
    opened.click(f"{second} input[type=range]")
    assert opened.run(READ.replace("K", "1"))["beta"] == 0.5, "a click in the middle"
    for name in CLASSES:
        opened.click(f"{second} input[value={name}]")
        parts = parts_of(explainer, images[1], name, "neutral")
        opened.wait(DRAWN.replace("K", "1"))
        check(opened.run(READ.replace("K", "1")), explainer, parts, 0.5)
    opened.press("Tab")
    assert opened.run("document.activeElement.value") == "neutral"
    opened.press("ArrowRight")
    opened.wait(DRAWN.replace("K", "1"))
    found = opened.run(READ.replace("K", "1"))
    check(found, explainer, parts_of(explainer, images[1], CLASSES[-1], "generated"), 0.5)
    assert found["focus"] == "radio" and opened.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_fits_the_screen_in_both_schemes(
    browser: Browser, explained: tuple[Path, DXAI, list[Tensor]], width: int, scheme: str
) -> None:
    browser.open(explained[0], width, scheme=scheme)
    assert browser.run("document.documentElement.scrollWidth") == width
    outside = (
        "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right >"
        " innerWidth || e.getBoundingClientRect().left < 0).map(e => e.outerHTML.slice(0, 80))"
    )
    assert browser.run(outside) == []
    ground = browser.run("getComputedStyle(document.body).backgroundColor")
    dark = sum(map(int, ground[4:-1].split(","))) < 3 * 50
    assert dark == (scheme == "dark")
    reach = "(() => { const [a, b] = ['.removed', '.slide'].map(s => document.querySelector(s)"
    reach += ".getBoundingClientRect()); return b.bottom - a.top; })()"
    assert browser.run(reach) < 400, "picture and slider are seen together"
