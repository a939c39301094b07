"""Attribution functions of others, scored like the built-in methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dxai.config.settings import choose
from dxai.explain.base import MOST_ROWS, Explainer
from dxai.explain.global_draws import keyed_globals
from dxai.models.devices import choose_device, exact_float32

SIGNS = {"heatmap": ("signed", "relu"), "distinct": ("part",)}
"""Rules for the sign of each kind of attribution."""


class Method(Explainer):
    """An attribution function with Captum's signature, for `dxai.evaluate`.

    Parameters
    ----------
    name : str
        Its name in the tables.
    attribute : callable
        ``attribute(inputs, target=target, **arguments)`` of images (B, C, S, S), float32 in
        [-1, 1], and classes (B,), int64, such as that of a class of `captum.attr` made for
        `explainer.classifier`. It returns a heatmap (B, 1 or C, S, S), or psi_distinct
        (B, C, S, S). It is called as in eval mode, with gradients enabled; what it draws from the
        global generators of torch and NumPy is the same in each run.
    kind : {"heatmap", "distinct"}
        What it returns; a heatmap H becomes psi_distinct = w x with w = H / max|H|.
    signs : tuple of str, optional
        Rules for the sign of a heatmap, each of which is a row: ``"signed"`` and ``"relu"``, which
        sets negative values to 0; default: both.
    rows : int
        Most images that it gets at once.
    device : str
        Where it gets them: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.
    seed : int
        Key of what it draws.
    **arguments
        Further arguments of the function.

    Raises
    ------
    ValueError
        For an unknown kind, sign or device.

    Examples
    --------
    >>> saliency = Saliency(explainer.classifier)                            # doctest: +SKIP
    >>> own = dxai.Method("saliency", saliency.attribute, abs=False)         # doctest: +SKIP
    >>> dxai.evaluate(explainer, "photos", methods=["ig", own])              # doctest: +SKIP
    """

    def __init__(
        self,
        name: str,
        attribute: Callable[..., Tensor],
        *,
        kind: str = "heatmap",
        signs: tuple[str, ...] | None = None,
        rows: int = MOST_ROWS,
        device: str = "auto",
        seed: int = 0,
        **arguments: Any,
    ) -> None:
        valid = SIGNS[choose("kind", kind, SIGNS)]
        chosen = tuple(choose("signs", sign, valid) for sign in signs or valid)
        if rows < 1:
            raise ValueError(f"rows is {rows}; it must be 1 or more")
        vars(self).update(name=name, kind=kind, signs=chosen)  # elsewhere they belong to the class
        self.function, self.arguments = attribute, arguments
        self.rows, self.device, self.seed = rows, choose_device(device), seed

    def attribute(self, inputs: Tensor, target: Tensor, index: Tensor | None = None) -> Tensor:
        index = torch.arange(len(inputs)) if index is None else index.cpu()
        maps = []
        with torch.inference_mode(False), torch.enable_grad(), exact_float32():
            for start in range(0, len(inputs), self.rows):
                piece = slice(start, start + self.rows)
                images = inputs[piece].detach().to(self.device, copy=True)
                classes = target[piece].to(self.device, copy=True)
                with keyed_globals(self.seed, self.name, 0, int(index[start]), self.device):
                    found = self.function(images, target=classes, **self.arguments)
                maps.append(self._checked(found, images).to(inputs))
        return torch.cat(maps)

    def _checked(self, found: Any, images: Tensor) -> Tensor:
        """Return an attribution if it is one, else raise ValueError."""
        count, channels, *side = images.shape
        valid = {channels} if self.kind == "distinct" else {1, channels}
        shapes = [(count, n, *side) for n in sorted(valid)]
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        if shape not in shapes:
            expected = " or ".join(map(str, shapes))
            raise ValueError(
                f"{self.name}: found {shape}; expected a tensor {expected}; "
                "captum.attr.LayerAttribution.interpolate enlarges the map of a layer"
            )
        if not torch.isfinite(found).all():
            raise ValueError(f"{self.name}: NaN or infinity in its attributions; expected numbers")
        return found.detach()
