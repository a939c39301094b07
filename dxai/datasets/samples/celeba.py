"""Sample of CelebA: drawn faces that differ only by beard, or long hair and lipstick."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dxai.datasets.samples.drawing import (
    Colour,
    backdrop,
    box,
    ellipse,
    grid,
    paint,
    save,
    save_truth,
)
from dxai.utils import keyed_random

COUNTS = (1000, 180, 220)
"""Images of train, validation and test, in the order of their numbers."""

SIZE = (89, 109)
"""Half of the aligned photographs' 178 x 218."""

ATTRIBUTES = (
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose "
    "Black_Hair Blond_Hair Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee "
    "Gray_Hair Heavy_Makeup High_Cheekbones Male Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard "
    "Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair "
    "Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace Wearing_Necktie Young"
)
HAIRS = {
    "Black_Hair": (0.08, 0.06, 0.06),
    "Brown_Hair": (0.22, 0.12, 0.07),
    "Gray_Hair": (0.3, 0.3, 0.31),
}
SKINS = ((0.93, 0.76, 0.65), (0.87, 0.68, 0.55), (0.78, 0.58, 0.45))


def render_sample(folder: Path, options: dict[str, Any] | None = None, seed: int = 0) -> None:
    """Write `img_align_celeba/000001.jpg` .., both lists, and `truth/mask/..`

    Each face is drawn male with probability 1/2. Background, skin, hair colour, glasses and the
    position of the face are drawn alike; male faces have a beard, the others hair down both sides
    and red lips: the mask holds these. The lists give the drawn value of each attribute.
    """
    rows, parts = [], []
    for i in range(sum(COUNTS)):
        rng = keyed_random.generator(seed, "samples/celeba", 0, i)
        male = bool(rng.random() < 0.5)
        canvas, mask, has = face(rng, male)
        path = folder / "img_align_celeba" / f"{i + 1:06d}.jpg"
        save(path, canvas)
        save_truth(folder, "mask", path, mask)
        values = " ".join(f"{1 if name in has else -1:2d}" for name in ATTRIBUTES.split())
        rows.append(f"{path.name} {values}\n")
        parts.append(f"{path.name} {int(np.searchsorted(np.cumsum(COUNTS), i, side='right'))}\n")
    head = f"{len(rows)}\n{ATTRIBUTES}\n"
    (folder / "list_attr_celeba.txt").write_text(head + "".join(rows))
    (folder / "list_eval_partition.txt").write_text("".join(parts))


def face(rng: np.random.Generator, male: bool) -> tuple[np.ndarray, np.ndarray, set[str]]:
    """Draw a face, a mask of the pixels that only its class has, and its attributes."""
    at = grid(SIZE)
    canvas, mask = backdrop(rng, SIZE), np.zeros(at.shape[1:], dtype=np.float32)
    x, y = SIZE[0] / 2 + rng.uniform(-3, 3), 58 + rng.uniform(-3, 3)
    w, h = rng.uniform(20, 22), rng.uniform(26, 28)
    colour = str(rng.choice(list(HAIRS)))
    hair, skin = np.array(HAIRS[colour]), np.array(SKINS[rng.integers(len(SKINS))])
    glasses, smile = rng.random() < 0.2, rng.random() < 0.5
    cloth = rng.uniform(0.3, 0.7, 3)
    paint(canvas, ellipse(at, (x, y + 58), (36, 28)), cloth)
    paint(canvas, box(at, (x, y + 26), (18, 24), corner=4), 0.88 * skin)
    paint(canvas, ellipse(at, (x, y - 7), (w + 3, h)), hair)
    if not male:  # before the face, which covers part of it
        for side in (-1, 1):
            lock = box(at, (x + side * (w + 2), y + 8), (8, 46), side * -0.06, 3)
            _lay(canvas, mask, lock, hair)
    bare = ellipse(at, (x, y + 1), (w, h - 2)) * np.clip((at[1] - y + 0.55 * h) / 4, 0, 1)
    paint(canvas, bare, skin)
    paint(mask, bare, 0.0)
    for side in (-1, 1):
        paint(canvas, ellipse(at, (x + side * 9, y - 3), (4, 2.4)), 0.95)
        paint(canvas, ellipse(at, (x + side * 9, y - 3), (2.2, 2.2)), (0.15, 0.12, 0.12))
        paint(canvas, box(at, (x + side * 9, y - 8), (9, 1.8), side * 0.1), 0.8 * hair)
    if glasses:
        frame = ellipse(at, (x + 9, y - 3), (7, 6)) + ellipse(at, (x - 9, y - 3), (7, 6))
        paint(canvas, frame * 0.35, (0.1, 0.1, 0.12))
    paint(canvas, ellipse(at, (x, y + 5), (2.6, 4)), 0.86 * skin)
    lips = ellipse(at, (x, y + 14), (7.5 if smile else 6, 2.6))
    if male:
        jaw = bare * np.clip((at[1] - y - 8) / 2, 0, 1) * (1 - ellipse(at, (x, y + 14), (7.5, 3.4)))
        _lay(canvas, mask, jaw, hair)
        paint(canvas, lips, 0.8 * skin)
    else:
        _lay(canvas, mask, lips, (0.85, 0.05, 0.15))
    has = {colour, "Oval_Face", "Young", "Straight_Hair"}
    has |= {"Male"} if male else {"No_Beard", "Wearing_Lipstick"}
    has |= {"Mustache", "Goatee"} if male else set()
    has |= {name for name, is_so in (("Eyeglasses", glasses), ("Smiling", smile)) if is_so}
    return canvas, mask, has


def _lay(canvas: np.ndarray, mask: np.ndarray, part: np.ndarray, colour: Colour) -> None:
    """Paint a part that only the class has, and mark it in the mask."""
    paint(canvas, part, colour)
    paint(mask, part, 1.0)
