"""The contract of every explainer, and the base class of those that wrap a classifier."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from dxai.config.settings import Settings, parse
from dxai.explain.model_surgery import frozen_copy
from dxai.metrics.removal import distinct_from_heatmap, with_sign
from dxai.models.devices import device_of, exact_float32
from dxai.types import Unsupported

PIXELS = 2**20
MOST_ROWS = 32
"""The classifier sees at most MOST_ROWS images or PIXELS pixels at once: on a CPU the cost per
image is lowest at about 32, whose features fit the caches."""


class Explainer(ABC):
    """Method that attributes a classifier's output to an image.

    Attributes
    ----------
    name : str
        Key in `methods` of params.yaml.
    kind : {"heatmap", "distinct"}
        Result of `attribute`: a heatmap H, which becomes psi_distinct = w x with w = H / max|H|, or
        psi_distinct itself.
    signs : tuple of str
        Rules for the sign of H: "signed" keeps it, "relu" sets negative values to 0. The first is
        the table's; the others are shown beside it. psi_distinct has ("part",).
    layer : str
        Name of the layer that the maps were read from; empty for other methods.
    """

    name: ClassVar[str]
    kind: ClassVar[Literal["heatmap", "distinct"]] = "heatmap"
    signs: ClassVar[tuple[str, ...]] = ("signed", "relu")
    layer: str = ""

    @abstractmethod
    def attribute(self, inputs: Tensor, target: Tensor, index: Tensor | None = None) -> Tensor:
        """Attribute the logits of `target`.

        Parameters
        ----------
        inputs : Tensor
            (B, C, H, W), images in [-1, 1], on any device.
        target : Tensor
            (B,), int64: the class to explain for each image.
        index : Tensor, optional
            (B,), int64: the index of each image in its split. It keys random draws, so that the map
            does not depend on the batch. Default: 0 .. B - 1.

        Returns
        -------
        Tensor
            (B, 1 or C, H, W), on the images' device: the signed, unscaled heatmap, or psi_distinct
            with C channels.

        Raises
        ------
        RuntimeError
            If a value is not finite, or the method fails.
        Unsupported
            If the method does not apply to these images.
        """

    def look_at(self, image: Tensor) -> None:  # noqa: B027 (most methods choose nothing)
        """Choose what depends on the images by one of them, (1, C, H, W), on any device.

        Otherwise the first image that is explained decides, which is another one where a stage
        goes on after an interruption.
        """

    def under(self, heatmap: Tensor, sign: str) -> Tensor:
        """Return a heatmap of `attribute`, (B, 1 or C, H, W), under one of its `signs`."""
        return with_sign(heatmap, sign)

    def by_sign(self, found: Tensor, images: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yield what `attribute` found under each of the `signs`, the table's first.

        Parameters
        ----------
        found : Tensor
            (B, 1 or C, H, W), of these images.
        images : Tensor
            (B, C, H, W) in [-1, 1].

        Yields
        ------
        str, Tensor, Tensor
            The sign; the map that ranks pixels, shaped like `found`; psi_distinct (B, C, H, W).
        """
        for sign in self.signs:
            if self.kind == "distinct":
                yield sign, found, found
            else:
                heat = self.under(found, sign)
                yield sign, heat, distinct_from_heatmap(heat, images, sign)


class BatchExplainer(Explainer):
    """Explainer that works on its own copy of the classifier, in chunks that fit in memory.

    The copy is on the classifier's device, to which each chunk is moved.

    Subclasses explain one chunk of at most `rows` images. When memory runs out, `rows` is halved
    permanently and the chunk is repeated.

    Parameters
    ----------
    classifier : nn.Module
        Returns logits (B, c). It is copied and never changed.
    settings : dict
        Values of the class's `Settings`; missing fields keep their defaults.
    seed : int
        Key of random draws.

    Raises
    ------
    ParamsError
        For an unknown or badly typed setting.
    Unsupported
        If the method cannot apply to this classifier.
    """

    Settings: ClassVar[type[Settings]] = Settings

    def __init__(self, classifier: nn.Module, settings: dict[str, Any], seed: int) -> None:
        self.settings: Any = parse(self.Settings, settings, f"methods.{self.name}")
        self.seed = seed
        self.model = frozen_copy(classifier)
        self.rows = 0
        self.prepare()

    def prepare(self) -> None:
        """Set up anything the method needs besides `self.model`."""

    @abstractmethod
    def explain(self, inputs: Tensor, target: Tensor, index: Tensor) -> Tensor:
        """Explain at most `rows` images, as `attribute` does, with gradients enabled.

        Images and target are on the classifier's device, `index` is on the CPU.
        """

    def attribute(self, inputs: Tensor, target: Tensor, index: Tensor | None = None) -> Tensor:
        index = torch.arange(len(inputs)) if index is None else index.cpu()
        self.rows = self.rows or max(1, min(MOST_ROWS, PIXELS // inputs[0, 0].numel()))
        maps: list[Tensor] = []
        done = 0
        device = device_of(self.model)
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            exact_float32(),
            warnings.catch_warnings(),
        ):
            # Captum warns about its hooks on the copy and about small internal batches.
            warnings.filterwarnings("ignore", module="captum")
            while done < len(inputs):
                piece = slice(done, done + self.rows)
                images = inputs[piece].detach().to(device, copy=True)
                try:
                    found = self.explain(images, target[piece].to(device, copy=True), index[piece])
                    maps.append(found.detach().to(inputs.device))
                    done += len(images)
                except (RuntimeError, MemoryError) as error:
                    if "does not require grad" in str(error):
                        raise Unsupported(
                            "no gradient of the logits reaches the image (torch.no_grad or detach "
                            "in the network)"
                        ) from None
                    if self.rows == 1 or not _out_of_memory(error):
                        raise
                    self.rows //= 2
                except ValueError as error:  # settings were validated earlier
                    raise RuntimeError(f"{self.name}: {error}") from error
        result = torch.cat(maps)
        if not torch.isfinite(result).all():
            bad = index[~torch.isfinite(result).flatten(1).all(1).cpu()].tolist()
            raise RuntimeError(f"{self.name}: NaN or infinity in the map of images {bad[:10]}")
        return result


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(text in str(error).lower() for text in ("out of memory", "can't allocate memory"))
