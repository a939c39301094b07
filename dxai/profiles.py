"""`dxai use`: rewrite the `run` block of params.yaml, and nothing else in it.

The block is text with references (`<<: *quick`) to what stands above it. What is asked for is worked
out on the parsed values, checked, and written back as references plus the values that differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dxai.files import atomic
from dxai.params import Params, ParamsError, _Loader, choose, parse

WIDTH = 100
RUN_BLOCK = re.compile(r"^run:.*\n?(?:(?:[ \t]*\n|#.*\n)*[ \t]+\S.*(?:\n|\Z))*", re.MULTILINE)
"""`run:` and its indented lines; blank lines and comments only between those."""


@dataclass(frozen=True)
class Anchor:
    """A value of params.yaml that can be referred to as `*name`."""

    name: str
    path: tuple[str, ...]
    value: Any


def select_profile(
    path: Path | str,
    profile: str | None = None,
    datasets: Sequence[str] | None = None,
    classifiers: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    overrides: dict[str, str] | None = None,
) -> list[str]:
    """Make the `run` block of a params file say what is asked for.

    Parameters
    ----------
    path : Path or str
        The params file. Its text above (and, if any, below) the block stays as it is.
    profile : str, optional
        Start from this profile; None starts from the block as it stands.
    datasets, classifiers, methods : sequence of str, optional
        What to run over: names from the start, its profile or the catalogue, in this order.
    seeds : sequence of int, optional
        Seeds of the decomposition.
    overrides : dict of str to str, optional
        Dotted key within the block to value as YAML, ``{"decompose.steps": "300"}``.

    Returns
    -------
    list of str
        One line for each value that changed; empty, and the file untouched, if none did.

    Raises
    ------
    ParamsError
        For an unknown name or key, naming the valid ones, or a value that does not fit. The file
        is then as it was: the result is checked before it replaces the old one.
    """
    path = Path(path).resolve()
    text, document = _read(path)
    before = document["run"]
    value = dict(_start(document, profile))
    base = document["profiles"].get(value.get("profile"), {})
    catalogue = document.get("catalogue") or {}
    if datasets is not None:
        known = [value["datasets"], base.get("datasets"), catalogue.get("datasets")]
        value["datasets"] = _pick("datasets", datasets, known)
    if classifiers is not None:
        known = [value["classifiers"], base.get("classifiers"), catalogue.get("classifiers")]
        value["classifiers"] = _pick("classifiers", classifiers, known)
    if methods is not None:
        value["methods"] = _pick("methods", methods, [value["methods"], base.get("methods")])
    if seeds is not None:
        value["seeds"] = list(dict.fromkeys(seeds))
    for key, setting in (overrides or {}).items():
        value = _override(value, key, setting)
    parse(Params, value, "run")
    changes = list(_changes(before, value))
    if changes:
        new = _replace(text, value)
        with atomic(path) as temporary:
            temporary.write_text(new, encoding="utf-8")
    return changes


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        document = yaml.load(text, Loader=_Loader)
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run in the project's folder") from None
    except yaml.YAMLError as error:
        raise ParamsError(f"{path} is not valid YAML: {error}") from None
    for key in ("profiles", "run"):
        if not isinstance(document, dict) or not isinstance(document.get(key), dict):
            raise ParamsError(f"{path}: missing {key}")
    return text, document


def _start(document: dict[str, Any], profile: str | None) -> dict[str, Any]:
    if profile is None:
        return document["run"]
    return document["profiles"][choose("profile", profile, document["profiles"])]


def _pick(what: str, names: Iterable[str], known: list[dict[str, Any] | None]) -> dict[str, Any]:
    """The named entries, each from the first of `known` that has it."""
    merged: dict[str, Any] = {}
    for entries in reversed(known):
        merged |= entries or {}
    return {name: merged[choose(what, name, merged)] for name in names}


def _override(value: dict[str, Any], key: str, setting: str) -> dict[str, Any]:
    """A copy of `value` with one dotted key set; only below `options` may it be a new one."""
    if key == "profile":
        raise ParamsError("profile is chosen by its name, not overridden")
    try:
        new = yaml.load(setting, Loader=_Loader)
    except yaml.YAMLError:
        raise ParamsError(f"{key}: {setting!r} is not a YAML value") from None
    parts = key.split(".")
    result = inner = dict(value)
    for depth, part in enumerate(parts):
        where = ".".join(["run", *parts[:depth]])
        if part not in inner and "options" not in parts[:depth]:
            choose(where, part, inner)
        if depth == len(parts) - 1:
            inner[part] = new
        elif isinstance(inner.get(part), dict):
            inner[part] = inner = dict(inner[part])
        else:
            raise ParamsError(f"{where}.{part} is a value; nothing is below it")
    return result


def _changes(before: Any, after: Any, where: str = "run") -> Iterable[str]:
    """Lines that say how `after` differs from `before`."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            if key not in after:
                yield f"{where}.{key}: removed"
            elif key not in before:
                yield f"{where}.{key}: added"
            else:
                yield from _changes(before[key], after[key], f"{where}.{key}")
    elif before != after:
        yield f"{where}: {_scalar(before)} -> {_scalar(after)}"


def _replace(text: str, value: dict[str, Any]) -> str:
    """`text` with a `run` block that parses to `value`."""
    blocks = list(RUN_BLOCK.finditer(text))
    if len(blocks) != 1:
        raise ParamsError("the params file needs one `run:` block at the start of a line")
    start, end = blocks[0].span()
    anchors = _anchors(text[:start])
    own = [a for a in anchors if a.path == ("profiles", value["profile"])]
    lines = _block("run", value, own or anchors, anchors)
    new = text[:start] + "\n".join(lines) + "\n" + text[end:]
    assert yaml.load(new, Loader=_Loader)["run"] == value, "the written block reads back"
    return new


def _anchors(text: str) -> list[Anchor]:
    """Every anchored mapping of a document, with its value."""
    loader = _Loader(text)
    root = loader.get_single_node()
    named = {id(node): name for name, node in _named_nodes(text, root)}
    found: list[Anchor] = []

    def walk(node: yaml.Node, path: tuple[str, ...]) -> None:
        if not isinstance(node, yaml.MappingNode):
            return
        if id(node) in named:
            found.append(Anchor(named.pop(id(node)), path, {}))
        for key, child in node.value:
            walk(child, (*path, key.value))

    walk(root, ())
    document = yaml.load(text, Loader=_Loader)
    return [Anchor(a.name, a.path, _at(document, a.path)) for a in found]
