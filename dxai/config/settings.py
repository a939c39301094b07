"""The base class of settings, and the one-line errors of their checks.

Nothing here reads a file, so that explaining an image needs no YAML reader.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

M = TypeVar("M", bound="Settings")


class ParamsError(ValueError):
    """An unusable setting; the message names it and the valid choices."""


class Settings(BaseModel):
    """Immutable settings, checked when they are made: no type is converted, no key is unknown.

    The description of a field is its documentation: the first line becomes the comment in
    params.yaml, and docs/settings.md has all of it.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _know_every_key(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for key in values:
                if key not in cls.model_fields:
                    valid = ", ".join(sorted(cls.model_fields)) or "none"
                    raise ParamsError(f"unknown {key!r}; valid are {valid}")
        return values

    def replace(self, **changes: Any) -> Self:
        """Return a copy with other values, which are checked too."""
        return type(self)(**(dict(self) | changes))


def parse(kind: type[M], values: Any, where: str) -> M:
    """Make settings from a mapping; omitted fields keep their defaults.

    `where` is the dotted name of the mapping, for messages; empty for a whole file. Raises
    `ParamsError` for an unknown or missing key, or a value of the wrong type or out of range.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ParamsError(_first_problem(error, where)) from None


def choose(what: str, name: str, valid: Iterable[str]) -> str:
    """Return `name` if it is one of `valid`, else raise a `ParamsError` that lists them."""
    if name not in valid:
        raise ParamsError(f"{what}: unknown {name!r}; valid are {', '.join(sorted(valid))}")
    return name


def _first_problem(error: ValidationError, where: str) -> str:
    problem = error.errors(include_url=False)[0]
    parts = [where, *(str(part) for part in problem["loc"] if part != "[key]")]
    name = ".".join(filter(None, parts))
    if problem["type"] == "value_error":
        return f"{name}: {problem['ctx']['error']}" if name else str(problem["ctx"]["error"])
    if problem["type"] == "missing":
        return f"{name}: missing"
    if problem["type"] in ("model_type", "dict_type"):
        return f"{name} is {problem['input']!r}; it must be a mapping"
    wanted = problem["msg"].replace("Input should be", "it must be")
    return f"{name} is {problem['input']!r}; {wanted}"
