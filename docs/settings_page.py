"""docs/settings.md, made from the descriptions of the settings.

`python docs/settings_page.py` writes it.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from dxai.config.profiles import load_profile, profile_names
from dxai.config.schema import (
    AblationParams,
    ClassifierParams,
    ClassifierSpec,
    DatasetParams,
    DecomposeParams,
    EvaluateParams,
    EvaluationParams,
    LeakageParams,
    Params,
    PrepareParams,
    RandomisationParams,
    RepeatParams,
    TrainingParams,
)
from dxai.config.settings import Settings
from dxai.datasets import registry
from dxai.explain.registry import EXPLAINERS, explainer_class

PAGE = Path(__file__).with_name("settings.md")
COMMAND = "python docs/settings_page.py"
HEAD = f"""\
# Settings

Every setting of `params.yaml`, written by `{COMMAND}`
from the classes that check them. The default is the paper's value; the columns beside it show
where a profile has another one.

    dxai use quick --set decompose.steps=3000     # write params.yaml from a profile
    dvc exp run -S decompose.steps=10             # change one line of it, and run
    dvc params diff                               # what differs from the last commit

A profile is a file in `dxai/config/profiles/` that says where it differs from the one that it
`extends`. Mappings are merged at every depth, and lists are replaced. `datasets`, `classifiers` and
`joint` name what is run and are replaced whole; each of their entries is merged over the entry of
that name in `dxai/config/catalogue.yaml`.
"""
BLOCKS: dict[str, type[Settings]] = {
    "datasets.NAME": DatasetParams,
    "classifiers.NAME, joint.NAME": ClassifierSpec,
    "repeat": RepeatParams,
    "ablations": AblationParams,
    "prepare": PrepareParams,
    "classifier": ClassifierParams,
    "decompose": DecomposeParams,
    "training": TrainingParams,
    "evaluate": EvaluateParams,
    "evaluation": EvaluationParams,
    "leakage": LeakageParams,
    "randomisation": RandomisationParams,
}


def _grouped(kinds: dict[str, type[Settings]]) -> dict[str, type[Settings]]:
    """Join the names of those with the same class, and leave out those without settings."""
    names: dict[type[Settings], list[str]] = {}
    for name, kind in sorted(kinds.items()):
        if kind.model_fields:
            names.setdefault(kind, []).append(name)
    return {", ".join(found): kind for kind, found in names.items()}


LAYOUTS = _grouped({name: layout.options for name, layout in registry.LAYOUTS.items()})
METHODS = _grouped({name: explainer_class(name).Settings for name in EXPLAINERS})


def settings_page() -> str:
    """Return the page as Markdown."""
    profiles = {name: load_profile(name) for name in profile_names()}
    lines = [HEAD, "## The file", "", *_table(Params)]
    for name, kind in BLOCKS.items():
        lines += ["", f"## `{name}`", "", _summary(kind), "", *_table(kind, name, profiles)]
    for key, kinds in (("datasets.NAME.options", LAYOUTS), ("methods", METHODS)):
        for name, kind in kinds.items():
            where = f"`{key}` of the layout `{name}`" if kinds is LAYOUTS else f"`{key}`: `{name}`"
            lines += ["", f"### {where}", "", *_table(kind)]
    return "\n".join(lines) + "\n"


def _summary(kind: type[Settings]) -> str:
    return " ".join((kind.__doc__ or "").split())


def _table(
    kind: type[Settings], block: str = "", profiles: dict[str, dict[str, Any]] | None = None
) -> Iterator[str]:
    """The rows of a class; with the values of the profiles if it is one block of the file."""
    names = [n for n in profiles or {} if n != "paper"] if block in Params.model_fields else []
    head = ["setting", "type", "default", *(f"`{name}`" for name in names), "description"]
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for key, field in kind.model_fields.items():
        default = field.get_default()
        cells = [f"`{key}`", _type(field), _value(default)]
        for name in names:
            value = (profiles or {})[name][block][key]
            cells.append("" if value == default else _value(value))
        text = (field.description or "").replace("\n", " ").replace("|", r"\|")
        yield f"| {' | '.join([*cells, text])} |"


def _value(value: Any) -> str:
    """A default as params.yaml spells it; a block has a table of its own."""
    if value is PydanticUndefined or isinstance(value, Settings):
        return ""
    if isinstance(value, dict) and value:
        return ", ".join(f"`{key}`" for key in value)
    if isinstance(value, bool) or value is None:
        return f"`{str(value).lower()}`".replace("none", "null")
    return f"`{value}`"


def _type(field: FieldInfo) -> str:
    """The type or the choices, and the range."""
    limits = [
        f"{sign} {getattr(limit, name)}"
        for limit in field.metadata
        for name, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))
        if getattr(limit, name, None) is not None
    ]
    return ", ".join([_name(field.annotation), *limits])


def _name(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return r" \| ".join(f"`{choice}`" for choice in arguments)
    if origin in (types.UnionType, Union):
        return " or ".join(_name(argument) for argument in arguments)
    if origin is list:
        return f"list of {_name(arguments[0])}"
    if origin is dict or issubclass(kind, Settings):
        return "mapping"
    return {type(None): "null"}.get(kind, kind.__name__)


if __name__ == "__main__":
    PAGE.write_text(settings_page(), encoding="utf-8")
