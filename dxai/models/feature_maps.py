"""How the output of a layer holds a map of the image: axes, grid and further tokens."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from typing import Any, Literal

import torch
from torch import Tensor, nn

CHANNELS_FIRST = (
    *(nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Upsample),
)
"""Modules whose output is (B, K, h, w) whatever its sizes."""
CHANNELS_LAST = (nn.Linear, nn.LayerNorm)
"""Modules that work on the last axis."""
MOST_EXTRA = 8
"""More tokens than this in front of a grid are no class and register tokens."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """The axes of a layer's output.

    Attributes
    ----------
    axes : {"BKhw", "BhwK", "BNK", "NBK"}
        B images, K channels, h x w positions, N = extra + h w tokens.
    grid : tuple of int
        h and w.
    extra : int
        Number of tokens in front of the grid, such as the class token.
    """

    axes: Literal["BKhw", "BhwK", "BNK", "NBK"]
    grid: tuple[int, int]
    extra: int = 0

    def fits(self, output: Tensor) -> bool:
        """Return whether an output has these axes, as every call of a shared layer need not."""
        if self.axes in ("BKhw", "BhwK"):
            first = 2 if self.axes == "BKhw" else 1
            return output.ndim == 4 and tuple(output.shape[first : first + 2]) == self.grid
        tokens = self.extra + math.prod(self.grid)
        return output.ndim == 3 and output.shape[self.axes.index("N")] == tokens

    def read(self, output: Tensor) -> Tensor:
        """Return the map (B, K, h, w) in a layer's output."""
        if self.axes == "BKhw":
            return output
        if self.axes == "BhwK":
            return output.permute(0, 3, 1, 2)
        tokens = output.transpose(0, 1) if self.axes == "NBK" else output
        return tokens[:, self.extra :].transpose(1, 2).unflatten(2, self.grid)

    def write(self, output: Tensor, map_: Tensor) -> Tensor:
        """Return the output with another map (B, K, h, w)."""
        if self.axes == "BKhw":
            return map_
        if self.axes == "BhwK":
            return map_.permute(0, 2, 3, 1)
        tokens = output.transpose(0, 1) if self.axes == "NBK" else output
        tokens = torch.cat([tokens[:, : self.extra], map_.flatten(2).transpose(1, 2)], 1)
        return tokens.transpose(0, 1) if self.axes == "NBK" else tokens


def find_layout(
    module: nn.Module, output: Tensor, images: Tensor, grids: Collection[tuple[int, int]]
) -> Layout | None:
    """Find how a layer's output holds a map of more than one row and column.

    Parameters
    ----------
    module : nn.Module
        The layer.
    output : Tensor
        Its output for `images`.
    images : Tensor
        (B, C, H, W) with B > 1.
    grids : collection of pair of int
        Sizes h and w of the maps of earlier layers, which tell a grid of tokens from attention.

    Returns
    -------
    Layout or None
        None if the output holds no map.
    """
    count, shape = len(images), tuple(output.shape)
    if output.ndim == 4 and shape[0] == count:
        first, last = (shape[2], shape[3]), (shape[1], shape[2])
        if isinstance(module, CHANNELS_FIRST):
            return _extended(Layout("BKhw", first))
        if isinstance(module, CHANNELS_LAST):
            return _extended(Layout("BhwK", last)) if last in grids or _square(last) else None
        for axes, grid in (("BKhw", first), ("BhwK", last)):
            if grid in grids or (not grids and _square(grid)):
                return _extended(Layout(axes, grid))  # type: ignore[arg-type]
    if output.ndim == 3 and count in shape[:2]:
        axes, tokens = ("BNK", shape[1]) if shape[0] == count else ("NBK", shape[0])
        side = math.isqrt(tokens)
        known = grids or ({(side, side)} if images.shape[-1] % max(side, 1) == 0 else set())
        fitting = [grid for grid in known if 0 <= tokens - math.prod(grid) <= MOST_EXTRA]
        if fitting:
            grid = max(fitting, key=math.prod)
            return _extended(Layout(axes, grid, tokens - math.prod(grid)))  # type: ignore[arg-type]
    return None


def _extended(layout: Layout) -> Layout | None:
    return layout if min(layout.grid) > 1 else None


def _square(grid: tuple[int, int]) -> bool:
    return grid[0] == grid[1]


def main_tensor(output: Any) -> Tensor | None:
    """Return a layer's output, or the first element of a tuple or list, if it is a tensor."""
    if type(output) in (tuple, list) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


def with_main_tensor(output: Any, tensor: Tensor) -> Any:
    """Return a layer's output with another `main_tensor`."""
    return type(output)([tensor, *output[1:]]) if type(output) in (tuple, list) else tensor
