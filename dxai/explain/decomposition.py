"""Explanation by decomposition: the trained generator applied to images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dxai.explain.base import Explainer
from dxai.models.decomposer import Decomposer
from dxai.models.serialization import load_decomposer
from dxai.types import Decomposition
from dxai.utils import keyed_random


class DXAI(Explainer):
    """A trained decomposition with the classifier it explains (Section 3 of the paper).

    Parameters
    ----------
    decomposer : Decomposer
        Network with averaged weights.
    info : dict
        Metadata of the model file: `class_names`, `image_size`, `channels`, `value_range`, ...
    classifier : nn.Module
        Frozen, returns logits.
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
        cls, path: Path | str, seed: int = 0, latents: int = 1, modules: Iterable[str] = ()
    ) -> DXAI:
        """Load a folder or model.pt.

        Only built-in classifiers are built unless `modules` names the user's module, package or
        import path of the classifier in the file. Raises `ModelError` if it is something else, or
        if the file is missing or no decomposition.
        """
        decomposer, info, classifier, _ = load_decomposer(path, modules)
        return cls(decomposer, info, classifier, seed, latents)

    @torch.no_grad()
    def explain(
        self, images: Tensor, target: Tensor | None = None, index: Tensor | None = None
    ) -> Decomposition:
        """Decompose images.

        Parameters
        ----------
        images : Tensor
            (B, C, H, W), float32 in [-1, 1], of the model's training size.
        target : Tensor, optional
            (B,), classes to explain; default: the predicted ones.
        index : Tensor, optional
            (B,), keys each image's latent; default: 0 .. B-1.

        Returns
        -------
        Decomposition
            distinct + agnostic + residual is the image.

        Raises
        ------
        ValueError
            If the images do not have the model's shape or range, or a class does not exist.
        """
        self._check(images, target)
        if target is None:
            target = self.classifier(images).argmax(1)
        samples = range(len(images)) if index is None else index.tolist()
        psi = torch.zeros(())
        for k in range(self.latents):
            latent = self.latent(samples, k)
            psi = psi + self.decomposer(images, target, latent).psi / self.latents
        return Decomposition(images, psi)

    @torch.no_grad()
    def spread(self, images: Tensor, target: Tensor, index: Tensor, draws: int) -> Tensor:
        """Deviation (ddof 0) of psi_distinct over `draws` latents, channel mean: (B, 1, H, W)."""
        total, squares = torch.zeros(()), torch.zeros(())
        for k in range(draws):
            found = self.decomposer(images, target, self.latent(index.tolist(), k))
            distinct = found.distinct.double()
            total, squares = total + distinct, squares + distinct.square()
        if not draws:
            return torch.zeros_like(images[:, :1])
        variance = (squares / draws - (total / draws).square()).clamp_min(0)
        return variance.sqrt().mean(1, keepdim=True).float()

    def latent(self, samples: Any, draw: int = 0) -> Tensor:
        """Latents z ~ N(0, I) of the images with these indices, (B, latent_dim)."""
        size = (self.decomposer.latent_dim,)
        return keyed_random.normal(self.seed, "inference latent", draw, samples, size)

    def attribute(self, inputs: Tensor, target: Tensor, index: Tensor | None = None) -> Tensor:
        """psi_distinct, (B, C, H, W), with Captum's signature."""
        return self.explain(inputs, target, index).distinct

    def _check(self, images: Tensor, target: Tensor | None) -> None:
        size, channels = self.info["image_size"], self.info["channels"]
        if images.ndim != 4 or tuple(images.shape[1:]) != (channels, size, size):
            raise ValueError(
                f"images have shape {tuple(images.shape)}; this model takes "
                f"(B, {channels}, {size}, {size})"
            )
        low, high = images.aminmax()
        if low < -1.001 or high > 1.001:
            raise ValueError(
                f"images span [{low:.3g}, {high:.3g}]; this model takes values in [-1, 1]"
            )
        classes = len(self.info["class_names"])
        if target is not None and (target.amin() < 0 or target.amax() >= classes):
            raise ValueError(f"target holds classes outside 0 .. {classes - 1}")
