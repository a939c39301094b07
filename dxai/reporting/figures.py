"""The picture of one explained image, the same bytes for the same numbers.

Pillow draws it, since each image of a folder has one: matplotlib takes ten times as long, most of
it for axes and letters that are the same every time.
"""

from __future__ import annotations

import functools
import importlib.util
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from dxai.reporting import image_tiles
from dxai.reporting.styles import BLACK, COLOURS, GRID

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = 1032, 552
"""Width and height of a picture, pixels; all lengths below are of this size."""
PER_INCH = 120
LARGE, SMALL, SMALLEST = 17, 15, 13
"""Heights of letters."""
MIDDLES, TOP, TILE = (172, 516, 860), 30, (330, 250)
"""Where the three pictures are, and the largest width and height of each."""
LEFT, RIGHT, BASE, FULL = 66, 856, 506, 176
"""The bars' axes: their ends, the line of probability 0, and the height of probability 1."""
MOST = 6
"""Classes whose probabilities are shown."""
LONGEST = 18
"""Letters of a name that are shown."""
HATCHES: tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], ...] = (
    lambda y, x: np.full_like(x, np.inf),
    lambda y, x: ((x + y) % 17 - 8) / 2**0.5,
    lambda y, x: y % 12 - 8,
)
"""Distances of pixels (y, x) from the white lines over successive series: none, slanted, level.
They tell series apart that look alike without colours."""
Box = tuple[float, float, float, float]


def explanation(
    image: np.ndarray,
    agnostic: np.ndarray,
    distinct: np.ndarray,
    probabilities: Mapping[str, Sequence[float]],
    class_names: Sequence[str],
    target: str,
    neutrality: float,
    zoom: int = 1,
) -> Image.Image:
    """Draw one explained image: its parts, and the classifier's probabilities of them.

    `image` is the sum of `agnostic` and `distinct` (of the class `target`), each (C, H, W) for
    images in [-1, 1]. `probabilities` maps the names of up to three classifier inputs to their (c,)
    probabilities; of the c `class_names` the six with the highest probability are shown.
    `neutrality` is the entropy of the answer to `agnostic`, as a share of an undecided one's.
    `zoom` multiplies `SIZE`.
    """
    scale = image_tiles.scale_of(distinct)
    sheet = _Sheet(zoom)
    undecided = f"neutrality {neutrality:.2f} (1: the classifier is undecided)"
    sheet.tile(MIDDLES[0], image_tiles.picture(image), "input =")
    sheet.tile(MIDDLES[1], image_tiles.picture(agnostic), "class-agnostic +", undecided)
    title, note = f"class-distinct: {_text(target)}", f"gray is 0, black and white ±{scale:.2g}"
    sheet.tile(MIDDLES[2], image_tiles.signed(distinct, scale), title, note)
    _bars(sheet, probabilities, class_names)
    return sheet.image


def png(image: Image.Image) -> bytes:
    """Encode a picture."""
    buffer = io.BytesIO()
    # Flat areas take little space at any level, and the highest ones as long as the drawing.
    image.save(buffer, "PNG", compress_level=2)
    return buffer.getvalue()


def figure(image: Image.Image) -> Figure:
    """Return a picture as a figure of matplotlib."""
    from matplotlib.figure import Figure

    found = Figure(figsize=(SIZE[0] / PER_INCH, SIZE[1] / PER_INCH), dpi=PER_INCH)
    axes = found.add_axes((0, 0, 1, 1))
    axes.imshow(image, aspect="auto")
    axes.set_axis_off()
    return found


class _Sheet:
    """A white picture to draw on, in the lengths of `SIZE`."""

    def __init__(self, zoom: int = 1) -> None:
        self.zoom = zoom
        self.image = Image.new("RGB", (SIZE[0] * zoom, SIZE[1] * zoom), "white")
        self._draw = ImageDraw.Draw(self.image)

    def text(self, x: float, y: float, text: str, height: int, anchor: str) -> Box:
        """Write a line, and return its box; `anchor` is Pillow's."""
        at, font = (x * self.zoom, y * self.zoom), _font(height * self.zoom)
        self._draw.text(at, text, BLACK, font, anchor)
        left, top, right, bottom = self._draw.textbbox(at, text, font, anchor)
        return left / self.zoom, top / self.zoom, right / self.zoom, bottom / self.zoom

    def line(self, *ends: float, colour: str = BLACK) -> None:
        self._draw.line([end * self.zoom for end in ends], colour, self.zoom)

    def bar(self, series: int, left: float, top: float, right: float, bottom: float) -> None:
        """Fill a box with the colour and the hatch of a series."""
        x0, y0, x1, y1 = (round(end * self.zoom) for end in (left, top, right, bottom))
        if x1 <= x0 or y1 <= y0:
            return
        y, x = np.mgrid[y0:y1, x0:x1] / self.zoom
        white = (1.1 - np.abs(HATCHES[series](y, x))).clip(0, 1)[..., None]
        colour = np.array(ImageColor.getrgb(COLOURS[series]))
        pixels = np.rint(colour + (255 - colour) * white).astype(np.uint8)
        self.image.paste(Image.fromarray(pixels), (x0, y0))

    def tile(self, middle: float, picture: np.ndarray, title: str, note: str = "") -> None:
        """Show a picture (H, W, 3) with a title above and a note below it."""
        height, width = picture.shape[:2]
        ratio = min(TILE[0] / width, TILE[1] / height)
        size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
        shown = Image.fromarray(picture).resize(
            (size[0] * self.zoom, size[1] * self.zoom), Image.Resampling.NEAREST
        )
        left, top = middle - size[0] / 2, TOP + (TILE[1] - size[1]) / 2
        self.image.paste(shown, (round(left * self.zoom), round(top * self.zoom)))
        self.text(middle, top - 8, title, SMALL, "ms")
        self.text(middle, top + size[1] + 6, note, SMALL, "ma")


def _bars(
    sheet: _Sheet, probabilities: Mapping[str, Sequence[float]], class_names: Sequence[str]
) -> list[Box]:
    """Draw the bars with their axes and a legend; returns the boxes of the classes' names."""
    values = np.asarray(list(probabilities.values()), dtype=float)
    shown = np.sort(np.argsort(-values.max(0), kind="stable")[:MOST])
    for level in (0.5, 1.0):
        sheet.line(LEFT, BASE - level * FULL, RIGHT, BASE - level * FULL, colour=GRID)
    for level in (0.0, 0.5, 1.0):
        sheet.text(LEFT - 8, BASE - level * FULL, f"{level:.1f}", SMALL, "rm")
    sheet.text(LEFT - 40, BASE - FULL - 22, "probability", SMALL, "ls")
    slot = (RIGHT - LEFT) / len(shown)
    width = 0.84 * slot / len(values)
    middles = [LEFT + (k + 0.5) * slot for k in range(len(shown))]
    for k, row in enumerate(values):
        for middle, value in zip(middles, row[shown], strict=True):
            left, top = middle + (k - len(values) / 2) * width, BASE - value * FULL
            sheet.bar(k, left, top, left + width - 1, BASE)
            sheet.text(left + width / 2, top - 3, f"{value:.2f}", SMALLEST, "ms")
    sheet.line(LEFT, BASE, RIGHT, BASE)
    for k, name in enumerate(probabilities):
        y = BASE - FULL / 2 + 24 * (k - (len(probabilities) - 1) / 2)
        sheet.bar(k, RIGHT + 16, y - 5, RIGHT + 44, y + 5)
        sheet.text(RIGHT + 52, y, name, SMALL, "lm")
    names = [_text(class_names[i]) for i in shown]
    font = _font(LARGE)
    below = 20 if any(font.getlength(name) > slot - 8 for name in names) else 0  # in two lines
    return [
        sheet.text(middle, BASE + 5 + below * (k % 2), name, LARGE, "ma")
        for k, (middle, name) in enumerate(zip(middles, names, strict=True))
    ]


@functools.cache
def _font(height: int) -> ImageFont.FreeTypeFont:
    """Return the letters that come with matplotlib, which are the same on every machine."""
    found = importlib.util.find_spec("matplotlib")
    assert found is not None and found.origin is not None, "the core has it"
    path = Path(found.origin).with_name("mpl-data") / "fonts/ttf/DejaVuSans.ttf"
    return ImageFont.truetype(path, height, layout_engine=ImageFont.Layout.BASIC)


def _text(name: str) -> str:
    """Make a short, printable label of a name."""
    shown = "".join(c if c.isprintable() else "\ufffd" for c in name)
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"
