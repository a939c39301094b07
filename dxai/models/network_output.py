"""Results of networks as users write them: a tensor, or logits among other things."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, fx


def pick(result: Any, field: str | int | None) -> Any:
    """Return the logits of a network's result.

    Without a `field` a result other than a tensor, which some networks return only in training,
    holds them as `.logits`, or first.
    """
    if field is None:
        if isinstance(result, Tensor | fx.Proxy):
            return result
        field = "logits" if "logits" in dict(_members(result)) else next(_members(result))[0]
    if isinstance(field, str) and not isinstance(result, Mapping | fx.Proxy):
        return getattr(result, field)
    return result[field]


def _members(result: Any) -> Iterator[tuple[str | int, Any]]:
    """Yield the names or indices of a result's parts, and the parts."""
    if isinstance(result, Mapping):
        yield from result.items()
    elif dataclasses.is_dataclass(result):
        for field in dataclasses.fields(result):
            yield field.name, getattr(result, field.name)
    elif hasattr(result, "_asdict"):
        yield from result._asdict().items()
    elif isinstance(result, tuple | list):
        yield from enumerate(result)
    elif not isinstance(result, Tensor):
        yield from getattr(result, "__dict__", {}).items()


def described(result: Any) -> str:
    """Describe a network's result by its type and the shapes of its parts."""
    if isinstance(result, Tensor):
        return f"a tensor of shape {tuple(result.shape)}"
    parts = [
        f"{name} {tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__}"
        for name, part in _members(result)
    ]
    return f"{type(result).__name__} ({', '.join(parts)})"


def find_field(result: Any, expected: int) -> str | int | None:
    """Find the part of a result for one image that can be the logits; None for a tensor.

    Raises `ValueError` unless there is `.logits`, or one table (1, `expected`), or one table.
    """
    if isinstance(result, Tensor):
        return None
    parts = {name: part for name, part in _members(result) if isinstance(part, Tensor)}
    if "logits" in parts:
        return "logits"
    tables = [name for name, part in parts.items() if part.ndim == 2 and len(part) == 1]
    fitting = [name for name in tables if parts[name].shape[1] == expected] or tables
    if len(fitting) != 1:
        raise ValueError(
            f"it returns {described(result)} for one image; set field to the one that holds "
            "the logits"
        )
    return fitting[0]
