"""One contract for every explainer, and the registry of those beside ours.

`EXPLAINERS` names the rows of Table 1 beside ours; `build_explainer` makes one of them for a
classifier. The modules behind the names are imported when first used, so that a stage pays for
Captum only if it runs it.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from dxai.config.settings import Settings, parse
from dxai.explain.model_surgery import frozen_copy

PIXELS = 2**20
MOST_ROWS = 32
"""The classifier sees at most MOST_ROWS images, or PIXELS pixels, at once: on a CPU an image costs
least at about 32, whose features stay in its caches, and more from 64 on."""


class Explainer(Protocol):
    """What attributes a classifier's output to an image; our decomposition is one, too."""

    @property
    def name(self) -> str:
        """As in `methods` of params.yaml."""
        ...

    @property
    def kind(self) -> str:
        """What `attribute` gives: "heatmap" or "part".

        A heatmap H is to become psi_distinct = w x with w = H / max|H|; a part is psi_distinct.
        """
        ...

    @property
    def signs(self) -> tuple[str, ...]:
        """How H is used: "signed" as it is, or "relu" without its negative values.

        The first is the table's rule, others are printed beside it. A part has ("part",).
        """
        ...

    def attribute(self, inputs: Tensor, target: Tensor, index: Tensor | None = None) -> Tensor:
        """Attribute the logits of `target`.

        Parameters
        ----------
        inputs : Tensor
            (B, C, H, W), images in [-1, 1].
        target : Tensor
            (B,), int64: the class that each image is explained for.
        index : Tensor, optional
            (B,), int64: the place of each image in its split, which keys random draws, so that an
            image has the same map in any batch. Default: 0, 1 .. B - 1.

        Returns
        -------
        Tensor
            (B, 1 or C, H, W): signed, unscaled map, or the part, which has C channels.

        Raises
        ------
        RuntimeError
            If a value is not finite, or the method breaks.
        Unsupported
            If only the images show that the method cannot apply.
        """
        ...


class NoSettings(Settings):
    """A method without settings."""


class BatchExplainer(ABC):
    """An explainer on a private copy of the classifier, working in pieces that fit in memory.

    Subclasses say how one piece is explained. At most `rows` images are in the classifier at once;
    when memory runs out `rows` is halved, for good, and the piece is done again.

    Parameters
    ----------
    classifier : nn.Module
        Returns logits (B, c). It is copied and never changed.
    settings : dict
        The fields of the class's `Settings`; those that are not named keep their defaults.
    seed : int
        Keys random draws.

    Raises
    ------
    ParamsError
        For an unknown or badly typed setting.
    Unsupported
        If the method cannot apply to this classifier.
    """

    name: ClassVar[str]
    kind: ClassVar[Literal["heatmap", "part"]] = "heatmap"
    signs: ClassVar[tuple[str, ...]] = ("signed", "relu")
    Settings: ClassVar[type[Settings]] = NoSettings

    def __init__(self, classifier: nn.Module, settings: dict[str, Any], seed: int) -> None:
        self.settings: Any = parse(self.Settings, settings, f"methods.{self.name}")
        self.seed = seed
        self.model = frozen_copy(classifier)
        self.rows = 0
        self.prepare()

    def prepare(self) -> None:  # noqa: B027 (optional for subclasses)
        """Set up what the method needs besides `self.model`."""

    @abstractmethod
    def explain(self, inputs: Tensor, target: Tensor, index: Tensor) -> Tensor:
        """Explain at most `rows` images; like `attribute`, gradients on."""

    def attribute(self, inputs: Tensor, target: Tensor, index: Tensor | None = None) -> Tensor:
        """Attribute the logits of `target`; see `Explainer.attribute`."""
        index = torch.arange(len(inputs)) if index is None else index.cpu()
        self.rows = self.rows or max(1, min(MOST_ROWS, PIXELS // inputs[0, 0].numel()))
        maps: list[Tensor] = []
        done = 0
        with torch.inference_mode(False), torch.enable_grad(), warnings.catch_warnings():
            # Captum warns of the hooks that it sets, on the copy, and of small internal batches.
            warnings.filterwarnings("ignore", module="captum")
            while done < len(inputs):
                piece = slice(done, done + self.rows)
                images = inputs[piece].detach().clone()
                try:
                    maps.append(self.explain(images, target[piece].clone(), index[piece]).detach())
                    done += len(images)
                except (RuntimeError, MemoryError) as error:
                    if self.rows == 1 or not out_of_memory(error):
                        raise
                    self.rows //= 2
                except ValueError as error:  # no setting's: those were checked before
                    raise RuntimeError(f"{self.name}: {error}") from error
        result = torch.cat(maps)
        if not torch.isfinite(result).all():
            bad = index[~torch.isfinite(result).flatten(1).all(1).cpu()].tolist()
            raise RuntimeError(f"{self.name}: NaN or infinity in the map of images {bad[:10]}")
        return result


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; CPU and GPU allocators say it differently."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(text in str(error).lower() for text in ("out of memory", "can't allocate memory"))
