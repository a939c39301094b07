"""One image's parts at its own size, to look at and to keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dxai.metrics.removal import psnr, remove
from dxai.reporting import figures
from dxai.reporting.html import Explanation, Removal, write_pages
from dxai.reporting.html.viewer import BETAS
from dxai.types import Decomposition
from dxai.utils.files import atomic, require_folder, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

    from dxai.explain.decomposition import DXAI

CORRECTIONS = 8
"""Times that an enlarged part is corrected by what the network would miss of it."""


@dataclass(frozen=True, repr=False)
class Parts:
    """An image as the sum of a class-agnostic and a class-distinct part, exactly.

    The network looks at the largest centred square; outside of it the class-distinct part is 0.

    Attributes
    ----------
    name : str
        The image's path, or its number.
    image, distinct : Tensor
        (C, H, W) at the image's own size, for values in [-1, 1].
    decomposition : Decomposition
        The parts at the model's size, as a batch of one.
    class_names : sequence of str
        The classes of `probabilities`.
    predicted, explained : str
        The most probable class, and the one that was explained.
    kind : {"neutral", "generated"}
        What the class-distinct part is.
    probabilities : dict
        Of each class, by the classifier, for the `input` and its `class-agnostic` part.
    neutrality : float
        Entropy of the answer to the class-agnostic part over log c: 1 is undecided.
    """

    name: str
    image: Tensor
    distinct: Tensor
    decomposition: Decomposition
    class_names: Sequence[str]
    predicted: str
    explained: str
    kind: str
    probabilities: dict[str, dict[str, float]]
    neutrality: float
    explainer: DXAI = field(compare=False)

    @property
    def agnostic(self) -> Tensor:
        """The class-agnostic part, image - distinct, (C, H, W)."""
        return self.image - self.distinct

    def __repr__(self) -> str:
        sure = self.probabilities["input"][self.predicted]
        left = self.probabilities["class-agnostic"][self.predicted]
        channels, height, width = self.image.shape
        return (
            f"Parts({self.name}: {width} x {height} px, {channels} channel(s), {self.predicted} "
            f"{sure:.2f}, {left:.2f} without the class-distinct part of {self.explained})"
        )

    def plot(self) -> Figure:
        """Draw the parts and the probabilities; returns a figure of matplotlib that shows them.

        It has twice the pixels of the picture that `save` writes.
        """
        return figures.figure(self._picture(zoom=2))

    def _repr_png_(self) -> bytes:
        return figures.png(self._picture())

    def _picture(self, zoom: int = 1) -> Image.Image:
        answers = {what: list(of.values()) for what, of in self.probabilities.items()}
        return figures.explanation(
            self.image.numpy(),
            self.agnostic.numpy(),
            self.distinct.numpy(),
            answers,
            self.class_names,
            self.explained,
            self.neutrality,
            zoom,
        )

    def save(self, path: Path | str) -> Path:
        """Write the parts to a file, by its suffix, and return its path.

        ``.png`` is the picture of `plot`, ``.json`` the numbers, ``.pt`` both parts as tensors, and
        ``.html`` a page with a slider that takes the class-distinct part away.

        Raises
        ------
        ValueError, OSError
            For any other suffix, or a folder that takes no files.
        """
        path = Path(path)
        writers = {
            ".png": lambda: self._save_picture(path),
            ".json": lambda: write_json(path, self.numbers),
            ".pt": lambda: self._save_tensors(path),
            ".html": lambda: self._save_page(path),
        }
        if path.suffix not in writers:
            raise ValueError(f"{path}: expected one of the suffixes {', '.join(writers)}")
        require_folder(path.parent)
        writers[path.suffix]()
        return path

    @property
    def numbers(self) -> dict[str, Any]:
        """Everything but the pixels, as plain values."""
        return {
            "image": self.name,
            "predicted_class": self.predicted,
            "explained_class": self.explained,
            "kind": self.kind,
            "probabilities": self.probabilities,
            "neutrality": self.neutrality,
            "psnr_db": float(psnr(self.decomposition.error)[0]),
            "mean_abs_distinct": float(self.distinct.abs().mean()),
        }

    def _save_picture(self, path: Path) -> None:
        with atomic(path) as temporary:
            temporary.write_bytes(self._repr_png_())

    def _save_tensors(self, path: Path) -> None:
        with atomic(path) as temporary, temporary.open("wb") as file:
            torch.save({"agnostic": self.agnostic, "distinct": self.distinct}, file)

    @torch.no_grad()
    def _save_page(self, path: Path) -> None:
        size = int(self.explainer.info["image_size"])
        steps = remove(self.image, self.distinct, BETAS)
        seen = torch.cat([shown_to_network(step, size) for step in steps])
        answers = self.explainer.logits(seen).softmax(1).numpy()
        removal = Removal(self.explained, self.kind, self.distinct.numpy(), answers)
        shown = Explanation(Path(self.name).name, self.image.numpy(), [removal])
        write_pages([shown], path, list(self.class_names), f"{self.explained} explained")


def shown_to_network(image: Tensor, size: int) -> Tensor:
    """Return what the network sees of an image (C, H, W): its centred square, (1, C, size, size).

    The filter is that of the files' reading, bicubic with a support that grows as images shrink,
    without its rounding to whole gray levels.
    """
    top, left, side = _square(image)
    cut = image[None, :, top : top + side, left : left + side]
    return _resized(cut, size)


def enlarged(part: Tensor, image: Tensor) -> Tensor:
    """Bring a part (C, S, S) of what the network sees of an image (C, H, W) to the image's size.

    Of all parts that the network sees as this one, a smooth one: it is enlarged and corrected by
    what is missing when it is reduced again (Irani and Peleg 1991). It is 0 outside of the centred
    square. An image smaller than S cannot hold the whole part.
    """
    top, left, side = _square(image)
    whole = torch.zeros_like(image)
    found = _resized(part[None], side)
    if side > part.shape[-1]:
        for _ in range(CORRECTIONS):
            found = found + _resized(part[None] - _resized(found, part.shape[-1]), side)
    whole[:, top : top + side, left : left + side] = found[0]
    return whole


def _square(image: Tensor) -> tuple[int, int, int]:
    """Return top, left and side of the largest centred square."""
    height, width = image.shape[-2:]
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side


def _resized(images: Tensor, size: int) -> Tensor:
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, (size, size), mode="bicubic", antialias=True, align_corners=False)
