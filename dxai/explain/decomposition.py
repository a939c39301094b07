"""Explanation by decomposition: the trained generator applied to images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from dxai.config.settings import choose
from dxai.explain import projection
from dxai.explain.base import Explainer
from dxai.models.decomposer import Decomposer
from dxai.models.devices import choose_device, device_of, exact_float32
from dxai.models.serialization import load_decomposer
from dxai.models.shared_files import file_of
from dxai.types import GENERATED, NEUTRAL, Decomposition
from dxai.utils import keyed_random

KINDS = (NEUTRAL, GENERATED)
"""Kinds of class-distinct part, the default first."""
BASIS_CLASSES = 8
"""Most classes whose parts the projection combines: the explained and the most probable others."""
MOST_ROWS, MOST_PIXELS = 8, 2**13
"""The projection takes so many images at once, or pixels. The number never depends on how many
there are: networks round differently with it, which the optimisation amplifies."""


class DXAI(Explainer):
    """A trained decomposition with the classifier it explains (Section 3 of the paper).

    Parameters
    ----------
    decomposer : Decomposer
        Network with averaged weights.
    info : dict
        Metadata of the model file: `class_names`, `image_size`, `channels`, `value_range`, ...
    classifier : nn.Module
        Frozen, returns logits; on the decomposer's device.
    seed : int
        Key of each image's latent.
    latents : int
        Number of styles per image, whose decompositions are averaged.

    Examples
    --------
    >>> explainer = DXAI.load("artifacts/decompositions/textures/resnet18/0")  # doctest: +SKIP
    >>> distinct = explainer.attribute(images, target=labels)                  # doctest: +SKIP
    """

    name = "dxai"
    kind = "distinct"
    signs: ClassVar[tuple[str, ...]] = ("part",)

    def __init__(
        self,
        decomposer: Decomposer,
        info: dict[str, Any],
        classifier: nn.Module,
        seed: int = 0,
        latents: int = 1,
    ) -> None:
        self.decomposer, self.info, self.classifier = decomposer, info, classifier
        self.seed, self.latents = seed, latents

    @classmethod
    def load(
        cls,
        path: Path | str,
        seed: int = 0,
        latents: int = 1,
        modules: str | Iterable[str] = (),
        device: str | torch.device = "auto",
    ) -> Self:
        """Load a folder, shared or not, or model.pt.

        Only built-in classifiers are built unless `modules`, a name or several, names the user's
        module, package or import path of the classifier in the file; see `load_classifier`. Raises
        `ModelError` if it is something else, or if the file is missing or no decomposition.
        `device` is `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`; `ValueError` if it
        does not exist.
        """
        chosen = choose_device(device)
        decomposer, info, classifier, about = load_decomposer(path, modules)
        explainer = cls(decomposer, info, classifier, seed, latents).to(chosen)
        return explainer.keep((classifier, about), file_of(path).parent)

    def keep(self, stored: tuple[nn.Module, dict[str, Any]], folder: Path) -> Self:
        """Remember the classifier as its file holds it, its info, and the file's folder.

        Explaining needs none of them; an explainer that can be shared does. Returns the explainer.
        """
        return self

    @property
    def device(self) -> torch.device:
        """The device of the networks; images may be on any other."""
        return device_of(self.decomposer)

    def to(self, device: torch.device) -> Self:
        """Move the networks to a device, and return the explainer."""
        self.decomposer.to(device)
        self.classifier.to(device)
        return self

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Ask the classifier: images (B, C, H, W) of any device to logits (B, c) on the same."""
        with exact_float32():
            return self.classifier(images.to(self.device)).to(images.device)

    @torch.no_grad()
    def explain(
        self,
        images: Tensor,
        target: Tensor | None = None,
        index: Tensor | None = None,
        kind: str = NEUTRAL,
    ) -> Decomposition:
        """Decompose images.

        Parameters
        ----------
        images : Tensor
            (B, C, H, W), float32 in [-1, 1], of the model's training size; on any device.
        target : Tensor, optional
            (B,), classes to explain; default: the predicted ones.
        index : Tensor, optional
            (B,), keys each image's latent; default: 0 .. B-1.
        kind : {"neutral", "generated"}
            The class-distinct part: the smallest one without which the classifier is undecided
            (Eq. 2; `neutrality` says how far that was reached), or the generator's psi_1.

        Returns
        -------
        Decomposition
            distinct + agnostic is the image; on the images' device.

        Raises
        ------
        ValueError
            If the images do not have the model's shape or range, or a class or the kind does not
            exist.
        """
        choose("kind", kind, KINDS)
        self._check(images, target)
        samples = list(range(len(images)) if index is None else index.tolist())
        own, home = images.to(self.device), images.device
        if target is not None:
            target = target.to(self.device)
        with exact_float32():
            if kind == GENERATED:
                if target is None:
                    target = self.classifier(own).argmax(1)
                (psi,) = self._branches(own, [target], samples)
                return Decomposition(images, psi.to(home))
            rows = max(1, min(MOST_ROWS, MOST_PIXELS // images[0, 0].numel()))
            found = [
                self._projected(
                    own[part], None if target is None else target[part], samples[part], rows
                )
                for part in (slice(i, i + rows) for i in range(0, len(images), rows))
            ]
        parts = (torch.cat(values).to(home) for values in zip(*found, strict=True))
        return Decomposition(images, *parts)

    def _projected(
        self, images: Tensor, target: Tensor | None, samples: list[int], rows: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Project at most `rows` images, filled up to that number with copies of the last.

        Returns psi, the class-distinct parts and the neutrality without them.
        """
        count = len(images)
        filled = [*range(count), *[count - 1] * (rows - count)]
        images, samples = images[filled], [samples[i] for i in filled]
        target = self.classifier(images).argmax(1) if target is None else target[filled]
        psi, basis = self._basis(images, target, samples)
        found = projection.project(self.classifier, images, target, basis, samples, self.seed)
        return psi[:count], found.distinct[:count], found.neutrality[:count]

    def _branches(
        self, images: Tensor, targets: Sequence[Tensor], samples: Sequence[int]
    ) -> list[Tensor]:
        """psi (B, n, C, H, W) for each of several targets (B,), the mean over `latents` styles."""
        latents = self._latents(samples, self.latents)
        styles = [(target, latent) for target in targets for latent in latents]
        found = self.decomposer.branches(images, styles)

        def mean() -> Tensor:
            psi = torch.zeros(())
            for _ in latents:
                psi = psi + next(found) / self.latents
            return psi

        return [mean() for _ in targets]

    def _basis(
        self, images: Tensor, target: Tensor, samples: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Return psi, and what the projection may subtract, (B, K, C, H, W), psi_1 first.

        For the explained class and the most probable others: psi_1, and the sum of the agnostic
        branches less its mean over those classes; and the image less that mean.
        """
        order = self.classifier(images).scatter(1, target[:, None], torch.inf).argsort(1).flip(1)
        psis = self._branches(images, order[:, :BASIS_CLASSES].unbind(1), samples)
        distinct = torch.stack([found[:, 0] for found in psis], 1)
        agnostic = torch.stack([found[:, 1:].sum(1) for found in psis], 1)
        mean = agnostic.mean(1, keepdim=True)
        return psis[0], torch.cat([distinct, agnostic - mean, images[:, None] - mean], 1)

    @torch.no_grad()
    def spread(self, images: Tensor, target: Tensor, index: Tensor, draws: int) -> Tensor:
        """Deviation (ddof 0) of psi_distinct over `draws` latents, channel mean: (B, 1, H, W)."""
        if not draws:
            return torch.zeros_like(images[:, :1])
        own, target = images.to(self.device), target.to(self.device)
        total, squares = torch.zeros(()), torch.zeros(())
        with exact_float32():
            styles = [(target, latent) for latent in self._latents(index.tolist(), draws)]
            for psi in self.decomposer.branches(own, styles):
                distinct = psi[:, 0].double()
                del psi  # the next is made beside it
                total, squares = total + distinct, squares + distinct.square()
        variance = (squares / draws - (total / draws).square()).clamp_min(0)
        return variance.sqrt().mean(1, keepdim=True).float().to(images.device)

    def _latents(self, samples: Sequence[int], draws: int) -> list[Tensor]:
        """The first latents of these images, each (B, latent_dim), where the networks are."""
        return [self.latent(samples, draw).to(self.device) for draw in range(draws)]

    def latent(self, samples: Any, draw: int = 0) -> Tensor:
        """Latents z ~ N(0, I) of the images with these indices, (B, latent_dim)."""
        size = (self.decomposer.latent_dim,)
        return keyed_random.normal(self.seed, "inference latent", draw, samples, size)

    def attribute(self, inputs: Tensor, target: Tensor, index: Tensor | None = None) -> Tensor:
        """psi_1, (B, C, H, W), with Captum's signature: the part that the tables score."""
        return self.explain(inputs, target, index, GENERATED).distinct

    def _check(self, images: Tensor, target: Tensor | None) -> None:
        size, channels = self.info["image_size"], self.info["channels"]
        for name, value, kind in (
            ("images", images, torch.float32),
            ("target", target, torch.int64),
        ):
            if value is None:
                continue
            found = value.dtype if isinstance(value, Tensor) else type(value).__name__
            if found != kind:
                raise ValueError(f"{name}: found {found}; this model takes a tensor of {kind}")
        if images.ndim != 4 or tuple(images.shape[1:]) != (channels, size, size):
            raise ValueError(
                f"images have shape {tuple(images.shape)}; this model takes "
                f"(B, {channels}, {size}, {size})"
            )
        low, high = images.aminmax()
        if not (low >= -1.001 and high <= 1.001):  # nor NaN
            raise ValueError(
                f"images span [{low:.3g}, {high:.3g}]; this model takes values in [-1, 1]"
            )
        classes = len(self.info["class_names"])
        if target is None:
            return
        if target.shape != images.shape[:1]:
            raise ValueError(
                f"target has shape {tuple(target.shape)}; {len(images)} images take "
                f"({len(images)},), a class each"
            )
        if target.amin() < 0 or target.amax() >= classes:
            raise ValueError(f"target holds classes outside 0 .. {classes - 1}")
