"""The public explainer: any image in, its parts at its own size out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dxai.config.settings import choose
from dxai.datasets.images import square
from dxai.datasets.pictures import Range, picture
from dxai.explain import decomposition
from dxai.library.parts import Parts, enlarged, shown_to_network
from dxai.library.sharing import Shareable
from dxai.metrics.removal import neutrality
from dxai.types import GENERATED, NEUTRAL, Decomposition, to_unit_range

BATCH = 16


class DXAI(Shareable):
    """A trained explainer with the classifier it explains.

    Examples
    --------
    >>> explainer = DXAI.load("explainer")                          # doctest: +SKIP
    >>> parts = explainer.explain("photos/zebra/7.jpg")             # doctest: +SKIP
    >>> parts.save("zebra.html")                                    # doctest: +SKIP
    """

    def explain(
        self,
        images: Any,
        target: Any = None,
        index: Tensor | None = None,
        kind: str = NEUTRAL,
        value_range: Range | None = None,
    ) -> Any:
        """Take images apart.

        Parameters
        ----------
        images
            A path, a Pillow image, or an array or tensor, (H, W), (H, W, C) or (C, H, W), of any
            size; or several: a sequence of these, or an array or tensor of four dimensions. A
            float32 tensor (B, C, S, S) of the model's own size S is taken as in
            `dxai.explain.decomposition.DXAI.explain`: values in [-1, 1], and a `Decomposition` is
            returned.
        target : str, int or sequence of these, optional
            The class to explain, of all images or of each; default: the predicted one.
        index : Tensor, optional
            (B,), keys each image's latent; default: 0 for each, so that an explanation does not
            depend on the other images (of a tensor of the model's own size: 0 .. B-1).
        kind : {"neutral", "generated"}
            The class-distinct part: the smallest one without which the classifier is undecided, or
            the generator's.
        value_range : (float, float), optional
            Of floating-point values; default: [0, 1], or [-1, 1] for an image with values below 0.

        Returns
        -------
        Parts, list of Parts, or Decomposition
            One image's parts, or those of several, at their own sizes.

        Raises
        ------
        DataError
            In one line, for what is no readable image.
        ValueError
            If a class or the kind does not exist.
        """
        if self._is_own(images):
            return super().explain(images, target, index, kind)
        many, one = _listed(images)
        choose("kind", kind, decomposition.KINDS)
        targets = self._targets(target, len(many))
        channels = self.info["channels"]
        named = [(_name(image, i), image) for i, image in enumerate(many)]
        pictures = [picture(image, channels, value_range, name) for name, image in named]
        found: list[Parts] = []
        for start in range(0, len(many), BATCH):
            rows = slice(start, start + BATCH)
            keys = torch.zeros(len(many), dtype=torch.int64) if index is None else index
            names = [name for name, _ in named[rows]]
            found += self._parts(names, pictures[rows], targets[rows], keys[rows], kind)
        return found[0] if one else found

    def attribute(self, inputs: Tensor, target: Tensor, index: Tensor | None = None) -> Tensor:
        # Strict: an image of another size is an error for the metrics that call this.
        return super().explain(inputs, target, index, GENERATED).distinct

    def _is_own(self, images: Any) -> bool:
        """Whether this is a batch for the network itself."""
        size, channels = self.info["image_size"], self.info["channels"]
        return (
            isinstance(images, Tensor)
            and images.dtype == torch.float32
            and images.ndim == 4
            and tuple(images.shape[1:]) == (channels, size, size)
        )

    def _targets(self, target: Any, count: int) -> list[int | None]:
        """Return the index of the class to explain of each image; None for the predicted one."""
        if isinstance(target, Tensor):
            target = target.tolist()
        if target is None or isinstance(target, str | int):
            target = [target] * count
        if len(target) != count:
            raise ValueError(f"target has {len(target)} classes; {count} images take one each")
        names = self.info["class_names"]
        found: list[int | None] = []
        for one in target:
            if isinstance(one, str):
                one = names.index(choose("target", one, names))
            elif one is not None and not 0 <= one < len(names):
                raise ValueError(f"target is {one}; classes are 0 .. {len(names) - 1}")
            found.append(one)
        return found

    @torch.no_grad()
    def _parts(
        self,
        names: Sequence[str],
        pictures: Sequence[Image.Image],
        targets: Sequence[int | None],
        index: Tensor,
        kind: str,
    ) -> list[Parts]:
        size = self.info["image_size"]
        images = torch.cat([_tensor(square(one, size)) for one in pictures])
        predicted = self.logits(images).argmax(1)
        wanted = torch.tensor(
            [int(p) if t is None else t for p, t in zip(predicted, targets, strict=True)]
        )
        found = super().explain(images, wanted, index, kind)
        assert isinstance(found, Decomposition)
        whole = [_tensor(np.asarray(one))[0] for one in pictures]
        distinct = [
            enlarged(part, image) for part, image in zip(found.distinct, whole, strict=True)
        ]
        left = torch.cat(
            [shown_to_network(w - d, size) for w, d in zip(whole, distinct, strict=True)]
        )
        answers = {
            "input": self.logits(images).softmax(1),
            "class-agnostic": self.logits(left).softmax(1),
        }
        undecided = neutrality(answers["class-agnostic"])
        class_names = self.info["class_names"]
        return [
            Parts(
                name=name,
                image=whole[i],
                distinct=distinct[i],
                decomposition=found[i],
                class_names=class_names,
                predicted=class_names[int(predicted[i])],
                explained=class_names[int(wanted[i])],
                kind=kind,
                probabilities={
                    what: dict(zip(class_names, values[i].tolist(), strict=True))
                    for what, values in answers.items()
                },
                neutrality=float(undecided[i]),
                explainer=self,
            )
            for i, name in enumerate(names)
        ]


def _listed(images: Any) -> tuple[list[Any], bool]:
    """Return the images one by one, and whether it is a single one."""
    if isinstance(images, Tensor | np.ndarray):
        return ([images], True) if images.ndim < 4 else (list(images), False)
    if isinstance(images, str | Path | Image.Image) or not isinstance(images, Sequence):
        return [images], True
    if not images:
        raise ValueError("images is empty; give at least one")
    return list(images), False


def _name(image: Any, i: int) -> str:
    if isinstance(image, str | Path):
        return str(image)
    return str(getattr(image, "filename", "") or f"image {i}")


def _tensor(pixels: np.ndarray) -> Tensor:
    """Return uint8 pixels (H, W) or (H, W, C) as (1, C, H, W), float32 in [-1, 1]."""
    array = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return to_unit_range(torch.from_numpy(np.array(array, order="C")))[
        None
    ]  # Pillow's is read-only
