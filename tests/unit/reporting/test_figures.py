"""Composed pictures contain their inputs; the same input gives the same bytes."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from dxai.reporting import figures

HOSTILE = ["_first", "a$x$b", "<script>", "tab\tand\x07bell", "n" * 200]


def explanation(channels: int = 1, classes: int = 3, names: list[str] | None = None) -> np.ndarray:
    image = np.linspace(-1, 1, 64 * channels).reshape(channels, 8, 8)
    shown = ("input", "class-agnostic", "reconstruction")
    probabilities = {name: [1 / classes] * classes for name in shown}
    names = names or [f"class {k}" for k in range(classes)]
    png = figures.png(
        figures.explanation(image, image / 2, image / 2, probabilities, names, names[0], 0.5)
    )
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("classes", [2, 30])
def test_explanations_are_pictures_and_do_not_change(channels: int, classes: int) -> None:
    pixels = explanation(channels, classes)
    assert pixels.shape[0] > 400 and pixels.shape[1] > 800
    assert pixels.std() > 10
    assert np.array_equal(pixels, explanation(channels, classes))


def test_names_from_data_are_short_and_never_mathematics() -> None:
    pixels = explanation(1, len(HOSTILE), HOSTILE)
    assert pixels.std() > 10
    shown = [figures._text(name, 18) for name in HOSTILE]
    assert max(map(len, shown)) <= 19
    assert shown[0] == "\u200b_first" and shown[1] == "a$x$b"
    assert all(character.isprintable() or character == "\u200b" for character in "".join(shown))


@pytest.mark.parametrize("letters", [3, 9, 10, 14, 18, 40])
@pytest.mark.parametrize("classes", [2, 3, 6])
def test_class_names_do_not_overlap(letters: int, classes: int) -> None:
    image, names = np.zeros((1, 8, 8)), [str(k) + "w" * (letters - 1) for k in range(classes)]
    shown = {"input": [1 / classes] * classes}
    figure = figures.explanation(image, image, image, shown, names, names[0], 1.0)
    figure.draw_without_rendering()
    axes = next(axes for axes in figure.axes if axes.get_ylabel() == "probability")
    labels = axes.get_xticklabels()
    boxes = [label.get_window_extent() for label in labels]
    rows = [label.get_text().startswith("\n") for label in labels]
    for one, two in itertools.combinations(range(classes), 2):
        if rows[one] == rows[two]:
            assert boxes[one].x1 < boxes[two].x0
    assert min(box.x0 for box in boxes) >= 0


def test_a_higher_probability_is_a_higher_bar() -> None:
    def inked(p: float) -> int:
        image = np.zeros((1, 8, 8))
        shown = {"input": [p, 1 - p]}
        png = figures.png(figures.explanation(image, image, image, shown, ["a", "b"], "a", 1.0))
        pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
        bars = pixels[pixels.shape[0] // 2 :, : pixels.shape[1] // 2]
        return int((np.abs(bars - [0x00, 0x72, 0xB2]).sum(-1) < 30).sum())

    assert inked(0.9) > 2 * inked(0.3) > 0
