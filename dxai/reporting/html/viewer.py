"""A viewer: an image, its class-distinct parts, and the classifier's answers while one is removed.

Shapes: C channels, H x W pixels, L levels of beta, c classes.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from dxai.reporting import image_tiles
from dxai.types import GENERATED, NEUTRAL

BETAS = tuple(np.linspace(0, 1, 21).round(6).tolist())
"""Levels of beta at which the classifier is asked for a page of explanations."""
SIDE = 256
"""Largest side in pixels of a picture in a viewer; larger images are reduced."""
STEPS = 16
"""Fewest steps in which pixels are stored, per gray level (1 / 127.5): errors are at most 1/32."""
FAINT_STEPS = 1024
"""Fewest steps up to a part's largest value, so that a faint part is still shown as it is."""
ROWS = 6
"""Most classes whose probability is shown: those with the largest at any level."""
MEANINGS = {
    NEUTRAL: "takes away as little as leaves the classifier undecided: what it went by.",
    GENERATED: "takes away all that the generator draws for the class, often so much that the rest "
    "looks like another one.",
}
"""What is seen of each kind of part, in a sentence that begins with its name."""


@dataclass(frozen=True)
class Removal:
    """A class-distinct part, and the classifier's answers while it is removed.

    Attributes
    ----------
    class_name : str
        The explained class.
    kind : str
        What the part is: neutral, generated, or the name of a method.
    distinct : ndarray
        psi, (C, H, W), for images in [-1, 1].
    probabilities : ndarray
        (L, c), of x - beta psi at the levels `Explanation.betas`.
    """

    class_name: str
    kind: str
    distinct: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class Explanation:
    """An image with what can be removed from it.

    Attributes
    ----------
    title : str
        Its heading.
    image : ndarray
        x, (C, H, W) in [-1, 1].
    removals : sequence of Removal
        The first is shown first. Each class has the same kinds.
    heatmaps : mapping, optional
        Names to maps, (1 or C, H, W), shown over the image: positive values in vermillion,
        negative ones in blue, each map scaled by its largest absolute value.
    notes : sequence of str
        Short facts under the heading.
    betas : sequence of float
        L levels in ascending order, at which the classifier was asked.
    """

    title: str
    image: np.ndarray
    removals: Sequence[Removal]
    heatmaps: Mapping[str, np.ndarray] = field(default_factory=dict)
    notes: Sequence[str] = ()
    betas: Sequence[float] = BETAS


def make_view(found: Explanation, class_names: Sequence[str], side: int = SIDE) -> dict[str, Any]:
    """Encode an explanation for the template `viewer.html.jinja` and the script `viewer.js`.

    `side` is the largest side in pixels. An image above it is reduced, as are its parts: by a
    linear filter, so what the browser shows is the reduced x - beta psi (but for clipping). Raises
    `ValueError` unless each class has each kind once.
    """
    keys = [(one.class_name, one.kind) for one in found.removals]
    classes, kinds = (list(dict.fromkeys(names)) for names in zip(*keys, strict=True))
    if sorted(keys) != sorted((name, kind) for name in classes for kind in kinds):
        raise ValueError(f"{found.title}: expected each kind once for each class, found {keys}")
    answers = np.stack([one.probabilities for one in found.removals]).astype(float)
    rows = np.argsort(-answers.max((0, 1)), kind="stable")[:ROWS]
    shown = np.sort(np.union1d(rows, [class_names.index(n) for n in classes if n in class_names]))
    image = _reduced(found.image, side)
    return {
        "title": found.title,
        "notes": list(found.notes),
        "picture": image_tiles.encoded(image_tiles.picture(image), side),
        "heatmaps": [
            (name, image_tiles.encoded(_overlay(found.image, heat, side), side))
            for name, heat in found.heatmaps.items()
        ],
        "choices": {"class": classes, "kind": kinds},
        "names": [class_names[k] for k in shown],
        "others": len(class_names) - len(shown),
        "first": _answer(answers[0][0], shown),
        "data": {
            "width": image.shape[2],
            "height": image.shape[1],
            "betas": list(found.betas),
            "image": packed(image + 1, STEPS),
            "steps": STEPS,
            "parts": [
                {
                    "class": one.class_name,
                    "kind": one.kind,
                    "answers": [_answer(level, shown) for level in levels],
                    **_part(_reduced(one.distinct, side)),
                }
                for one, levels in zip(found.removals, answers, strict=True)
            ],
        },
    }


def meanings(views: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return what is seen of each kind of part that a page offers."""
    kinds = {kind for view in views for kind in view["choices"]["kind"]}
    return {kind: words for kind, words in MEANINGS.items() if kind in kinds}


def _part(part: np.ndarray) -> dict[str, Any]:
    scale = image_tiles.scale_of(part)
    steps = max(STEPS, FAINT_STEPS / (127.5 * scale))
    return {"pixels": packed(part, steps), "steps": steps, "scale": scale}


def packed(values: np.ndarray, steps: float) -> str:
    """Encode values as whole steps: 16 bits, all low bytes before all high ones, deflated, base64.

    `steps` is their number per gray level. Bytes of one kind together deflate to about two thirds.
    """
    whole = np.rint(values * (127.5 * steps)).clip(-(2**15), 2**15 - 1).astype("<i2")
    planes = np.ascontiguousarray(whole.reshape(-1, 1).view(np.uint8).T)
    return base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode()


def _answer(probabilities: np.ndarray, shown: np.ndarray) -> list[float]:
    """Return the shown probabilities, that of all other classes, and the neutrality."""
    known = probabilities[probabilities > 0]
    undecided = float(-(known * np.log(known)).sum()) / math.log(len(probabilities))
    rest = max(0.0, 1 - float(probabilities[shown].sum()))
    return [round(float(value), 4) for value in (*probabilities[shown], rest, undecided)]


def _overlay(image: np.ndarray, heat: np.ndarray, side: int) -> np.ndarray:
    weight = heat / image_tiles.scale_of(heat)
    return image_tiles.overlay(_reduced(image, side), _reduced(weight, side))


def _reduced(values: np.ndarray, side: int) -> np.ndarray:
    """Reduce (C, H, W) to a largest side by averaging areas; smaller ones stay as they are."""
    values = np.asarray(values, dtype=np.float32)
    height, width = values.shape[1:]
    ratio = side / max(height, width)
    if ratio >= 1:
        return values
    size = max(1, round(width * ratio)), max(1, round(height * ratio))
    channels = [Image.fromarray(v).resize(size, Image.Resampling.BOX) for v in values]
    return np.stack([np.asarray(channel) for channel in channels])
