"""params.yaml: reading, checking and writing it.

The file is flat, in the format of DVC's own YAML writer, so that `dvc exp run -S
decompose.steps=10` changes one line.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter
from ruamel.yaml.scalarfloat import ScalarFloat

from dxai.config.schema import BUILT_IN, Params
from dxai.config.settings import ParamsError, Settings, parse

HEADER = """\
# What `dvc repro` runs. `dxai use` writes this file and keeps its values, but no comments of yours;
# values may be edited here as well. docs/settings.md describes every setting and its choices.
"""
COLUMN = 32
"""Column where comments begin."""
WIDTH = 80
"""Width beyond which DVC's writer folds lines."""
LONGEST = 100
AFTER_LISTS = ("repeat", "ablations")
"""Blocks after a list: DVC's writer loses an empty line after a list."""


def load_params(path: Path | str = "params.yaml") -> Params:
    """Read and check a params file.

    Raises `ParamsError` for a file that is missing or not YAML, or a missing, unknown or invalid
    setting.
    """
    values = read_yaml(path)
    if "run" in values:
        raise ParamsError(
            f"{path}: this is the layout of an earlier version (`run:`); `dxai use` rewrites it "
            "with the same values"
        )
    try:
        params = check(values, Path(path).resolve().parent)
        for file in network_files(values["classifiers"]):
            if file not in params.network_files:
                raise ParamsError(f"network_files lacks {file}; `dxai use` lists it")
        return params
    except ParamsError as error:
        raise ParamsError(f"{path}: {error}") from None


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a mapping as DVC reads it: 1e-4 is a number.

    Raises `ParamsError` for a file that is missing or does not contain a YAML mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run in the project's folder") from None
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict):
        raise ParamsError(f"{path} is not a mapping of settings; `dxai use quick` writes one")
    return values


def replace_sources(path: Path, sources: Mapping[str, str]) -> None:
    """Write other sources of some datasets into a file, and leave all else in it as it is."""
    yaml = YAML()
    values = yaml.load(path.read_text(encoding="utf-8"))
    for name, source in sources.items():
        values["datasets"][name]["source"] = source
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(values, file)


def parse_yaml(text: str, where: str) -> Any:
    """Parse a YAML value; raise a `ParamsError` if it is not YAML."""
    try:
        return YAML(typ="safe").load(text)
    except YAMLError as error:
        reason = " ".join(str(error).split())
        raise ParamsError(f"{where} is not valid YAML: {reason}") from None


def check(values: dict[str, Any], folder: Path = Path()) -> Params:
    """Check the values of a whole file in `folder`.

    It must name every setting of a stage, and every file that a classifier comes from.
    """
    params = parse(Params, values, "")
    for where, block in {"": params, **dict(params)}.items():
        if isinstance(block, Settings):
            missing = sorted(type(block).model_fields.keys() - block.model_fields_set)
            if missing:
                names = ", ".join(f"{where}.{name}".removeprefix(".") for name in missing)
                raise ParamsError(f"missing {names}; `dxai use PROFILE` writes every setting")
    for name, spec in params.classifiers.items():
        missing = [file for file in spec.sources(folder) if file not in spec.files]
        if missing or "files" not in spec.model_fields_set:
            what = f"lacks {', '.join(missing)}" if missing else "is missing"
            raise ParamsError(f"classifiers.{name}.files {what}; `dxai use` fills it")
    return params


def network_files(classifiers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """List every file that classifiers come from, once: DVC cannot loop over lists in a mapping."""
    files = [file for entry in classifiers.values() for file in entry.get("files") or []]
    return list(dict.fromkeys([BUILT_IN, *files]))


def format_params(values: Mapping[str, Any]) -> str:
    """Format the values of a file, with the descriptions of their fields as comments.

    `network_files` is derived from the other values.
    """
    values = {**values, "network_files": network_files(values["classifiers"])}
    lines = _mapping(values, Params, "", commented=True)
    text = HEADER + "".join(f"{line}\n" for line in lines)
    yaml, stream = YAML(), io.StringIO()
    # The writer's own representer of floats loses the last of 16 digits.
    yaml.representer.add_representer(ScalarFloat, _represent_float)
    yaml.dump(yaml.load(text), stream)
    return stream.getvalue()


def comment(kind: type[Settings], name: str) -> str:
    """Return the comment of a setting: the first line of its description, and its choices."""
    field = kind.model_fields[name]
    text = (field.description or "").partition("\n")[0].removesuffix(".")
    choices = [c for c in get_args(field.annotation) if isinstance(c, str)]
    return f"{text}: {' | '.join(choices)}" if choices else text


def _mapping(values: Mapping[str, Any], kind: Any, indent: str, commented: bool) -> Iterator[str]:
    """Format a mapping: a class of settings, or names to entries of one kind."""
    model = _is_model(kind)
    first = True
    for key in [name for name in kind.model_fields if name in values] if model else values:
        value, line = values[key], f"{indent}{_flow(key)}:"
        inner = kind.model_fields[key].annotation if model else (get_args(kind) or (None, None))[1]
        below: Iterator[str] = iter(())
        if isinstance(value, dict) and value and not _fits(value, inner, line):
            below = _mapping(value, inner, indent + "  ", commented and (model or first))
        elif isinstance(value, list) and value:  # DVC writes every list as a block
            below = iter([f"{indent}- {_flow(item)}" for item in value])
        else:
            line += f" {_flow(value)}"
        if not indent and isinstance(value, dict) and key not in AFTER_LISTS:
            yield ""
        text = f"{line:{COLUMN - 1}} # {comment(kind, key)}" if model and commented else line
        yield text if len(text) <= LONGEST else line
        yield from below
        first = False


def _fits(value: dict[str, Any], kind: Any, line: str) -> bool:
    """Whether a mapping of plain values fits on a line."""
    plain = all(
        not isinstance(item, dict) and not (isinstance(item, str) and ":" in item)
        for item in value.values()
    )
    named = get_origin(kind) is dict and get_args(kind)[1] is not Any
    short = len(f"{line} {_flow(value)}") <= WIDTH
    return plain and short and not named and not _is_model(kind)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Settings)


def _flow(value: Any) -> str:
    """Format a value on one line, as DVC's writer does."""
    yaml, stream = YAML(), io.StringIO()
    yaml.default_flow_style, yaml.width = True, 10**6
    yaml.representer.add_representer(float, _represent_float)
    yaml.representer.add_representer(str, _represent_text)
    yaml.dump(value, stream)
    return stream.getvalue().removesuffix("...\n").strip(" \n")  # a value may begin with \xa0


def _represent_text(representer: RoundTripRepresenter, value: str) -> ScalarNode:
    """Escape line breaks other than \\n, which without quotes are read back as spaces."""
    style = '"' if set(value) & set("\x85\u2028\u2029") else None
    return representer.represent_scalar("tag:yaml.org,2002:str", value, style)


def _represent_float(representer: RoundTripRepresenter, value: float) -> ScalarNode:
    """Write 1.0e-06, not 1e-06, which PyYAML reads as text."""
    text = representer.represent_float(value).value
    text = text if "." in text else text.replace("e", ".0e")
    return representer.represent_scalar("tag:yaml.org,2002:float", text)
