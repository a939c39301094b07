"""Composed pictures contain their inputs; the same input gives the same bytes."""

from __future__ import annotations

import io
import itertools
import math

import numpy as np
import pytest
from PIL import Image

from dxai.reporting import figures, image_tiles
from dxai.reporting.styles import COLOURS

HOSTILE = ["_first", "a$x$b", "<script>", "tab\tand\x07bell", "n" * 200]
INPUTS = ("input", "class-agnostic", "reconstruction")


def explanation(channels: int = 1, classes: int = 3, names: list[str] | None = None) -> np.ndarray:
    image = np.linspace(-1, 1, 64 * channels).reshape(channels, 8, 8)
    probabilities = {name: [1 / classes] * classes for name in INPUTS}
    names = names or [f"class {k}" for k in range(classes)]
    drawn = (image, image / 2, image / 2, probabilities, names, names[0], 0.5)
    png = figures.png(figures.explanation(*drawn))
    assert png == figures.png(figures.explanation(*drawn))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("classes", [2, 30])
def test_pictures_show_the_parts_pixel_by_pixel(channels: int, classes: int) -> None:
    pixels = explanation(channels, classes)
    assert pixels.shape == (*figures.SIZE[::-1], 3)
    image = np.linspace(-1, 1, 64 * channels).reshape(channels, 8, 8)
    shown = (image, image / 2, image / 2)
    tiles = (image_tiles.picture, image_tiles.picture, lambda part: image_tiles.signed(part, 0.5))
    for middle, part, tile in zip(figures.MIDDLES, shown, tiles, strict=True):
        side = figures.TILE[1]  # each pixel of the part becomes a square
        box = pixels[figures.TOP : figures.TOP + side, middle - side // 2 : middle + side // 2]
        at = (np.arange(8) * side / 8 + side / 16).astype(int)
        np.testing.assert_array_equal(box[np.ix_(at, at)], tile(part))


def test_a_wide_image_keeps_its_shape() -> None:
    image = np.full((1, 10, 40), -1.0)
    shown = {"input": [1.0, 0.0]}
    pixels = np.asarray(figures.explanation(image, image, image, shown, ["a", "b"], "a", 1.0))
    column = (pixels[:, figures.MIDDLES[0]] == 0).all(-1)
    row = (pixels[figures.TOP + figures.TILE[1] // 2] == 0).all(-1)
    assert column[: figures.TOP + figures.TILE[1]].sum() == round(figures.TILE[0] / 4)
    assert row[: figures.SIZE[0] // 3].sum() == figures.TILE[0]


def test_names_from_data_are_short_and_printable() -> None:
    assert explanation(1, len(HOSTILE), HOSTILE).std() > 10
    shown = [figures._text(name) for name in HOSTILE]
    assert max(map(len, shown)) <= figures.LONGEST
    assert shown[:2] == HOSTILE[:2]
    assert all(map(str.isprintable, shown))


@pytest.mark.parametrize("letters", [3, 9, 10, 14, 18, 40])
@pytest.mark.parametrize("classes", [2, 3, 6])
def test_class_names_do_not_overlap(letters: int, classes: int) -> None:
    names = [str(k) + "w" * (letters - 1) for k in range(classes)]
    boxes = figures._bars(figures._Sheet(), {"input": [1 / classes] * classes}, names)
    for one, two in itertools.combinations(boxes, 2):
        assert one[2] < two[0] or two[2] < one[0] or one[3] <= two[1] or two[3] <= one[1]
    assert min(box[0] for box in boxes) >= 0
    assert max(box[2] for box in boxes) <= figures.SIZE[0]
    assert max(box[3] for box in boxes) <= figures.SIZE[1]


def test_a_bar_is_as_high_as_its_probability() -> None:
    def heights(p: float) -> list[int]:
        image = np.zeros((1, 8, 8))
        shown = {"input": [p, 1 - p]}
        drawn = figures.explanation(image, image, image, shown, ["a", "b"], "a", 1.0)
        blue = (np.asarray(drawn) == tuple(bytes.fromhex(COLOURS[0][1:]))).all(-1)
        bars = blue[:, figures.LEFT : figures.RIGHT]
        return [int(half.sum(0).max()) for half in np.array_split(bars, 2, axis=1)]

    for p in (0.1, 0.5, 0.9):
        wanted = [p * figures.FULL, (1 - p) * figures.FULL]
        assert heights(p) == pytest.approx(wanted, abs=1.5)


def test_series_differ_by_more_than_their_colour() -> None:
    shares = []
    for series in range(len(INPUTS)):
        sheet = figures._Sheet(zoom=3)
        sheet.bar(series, 0, 0, 100, 100)
        gray = np.asarray(sheet.image.convert("L"))[:300, :300].astype(int)
        shares.append(float((gray > gray.min() + 20).mean()))
    assert shares[0] == 0 and all(0.05 < share < 0.3 for share in shares[1:])
    sheet = figures._Sheet()
    sheet.bar(0, 5, 5, 5, 9)  # a probability of 0 has no bar
    assert np.asarray(sheet.image).min() == 255


def test_a_figure_shows_the_picture_at_any_zoom() -> None:
    image = np.linspace(-1, 1, 64).reshape(1, 8, 8)
    shown = {"input": [0.25, 0.75]}
    drawn = [
        figures.explanation(image, image, image, shown, ["a", "b"], "a", 1.0, zoom)
        for zoom in (1, 2)
    ]
    assert drawn[1].size == tuple(2 * side for side in figures.SIZE)
    reduced = np.asarray(drawn[1].resize(figures.SIZE, Image.Resampling.BOX)).astype(float)
    assert np.abs(reduced - np.asarray(drawn[0])).mean() < 3
    buffer = io.BytesIO()
    figures.figure(drawn[0]).savefig(buffer)
    again = np.asarray(Image.open(buffer).convert("RGB")).astype(float)
    assert again.shape == (*figures.SIZE[::-1], 3)
    assert np.abs(again - np.asarray(drawn[0])).mean() < 1
    assert math.isclose(figures.figure(drawn[1]).get_size_inches()[0], 8.6)
