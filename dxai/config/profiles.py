"""`dxai use`: rewrite the `run` block of params.yaml, and nothing else in it.

The block is text with references (`<<: *quick`) to what stands above it. What is asked for is
worked out on the parsed values, checked, and written back as references plus what differs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dxai.config.schema import JOINT, Params, ParamsError, _Loader, choose, parse
from dxai.utils.files import atomic

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
        known = [value.get("datasets"), base.get("datasets"), catalogue.get("datasets")]
        value["datasets"] = _pick("datasets", datasets, known)
    if classifiers is not None:
        known = [block.get(key) for block in (value, base) for key in ("classifiers", "joint")]
        picked = _pick("classifiers", classifiers, [*known, catalogue.get("classifiers")])
        value["joint"] = {k: v for k, v in picked.items() if v["arch"] == JOINT}
        value["classifiers"] = {k: v for k, v in picked.items() if v["arch"] != JOINT}
    if methods is not None:
        value["methods"] = _pick("methods", methods, [value.get("methods"), base.get("methods")])
    if seeds is not None:
        value["seeds"] = list(dict.fromkeys(seeds))
    value |= {key: _within(value, key) for key in ("repeat", "ablations") if key in value}
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


def _within(value: dict[str, Any], key: str) -> dict[str, Any]:
    """`repeat` or `ablations` without what the run no longer has, or has anyway."""
    block = dict(value[key])
    for names in ("datasets", "classifiers"):
        if names in block:
            block[names] = [name for name in block[names] if name in value[names]]
    if "seeds" in block:
        block["seeds"] = [seed for seed in block["seeds"] if seed not in value["seeds"]]
    return block


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
    lines = ["run:", *_body("run", value, own or anchors, anchors)]
    new = text[:start] + "\n".join(lines) + "\n" + text[end:]
    assert yaml.load(new, Loader=_Loader)["run"] == value, "the written block reads back"
    return new


class _AnchorLoader(_Loader):
    """Remembers which node each anchor names; PyYAML forgets it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.named: dict[str, yaml.Node] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        name = None if isinstance(event, yaml.AliasEvent) else getattr(event, "anchor", None)
        node = super().compose_node(parent, index)
        if name and isinstance(node, yaml.MappingNode):
            self.named[name] = node
        return node


def _anchors(text: str) -> list[Anchor]:
    """Every anchored mapping of a document, with its place and its value."""
    loader = _AnchorLoader(text)
    root = loader.get_single_node()
    names = {id(node): name for name, node in loader.named.items()}
    document = yaml.load(text, Loader=_Loader)
    found: list[Anchor] = []

    def walk(node: yaml.Node | None, path: tuple[str, ...], value: Any) -> None:
        if not isinstance(node, yaml.MappingNode):
            return
        if name := names.pop(id(node), None):
            found.append(Anchor(name, path, value))
        for key, child in node.value:
            if key.value in value:
                walk(child, (*path, key.value), value[key.value])

    walk(root, (), document)
    return found


def _block(key: str, value: Any, anchors: list[Anchor]) -> list[str]:
    """`key: value` as lines: one in flow style where it fits, else a block."""
    line = f"{key}: {_flow(value, key, anchors)}"
    if len(line) <= WIDTH - 4 or not isinstance(value, dict):
        return [line]
    return [f"{key}:", *_body(key, value, anchors, anchors)]


def _body(key: str, value: dict[str, Any], bases: list[Anchor], anchors: list[Anchor]) -> list[str]:
    """The indented lines of a mapping: what it merges, if one of `bases` serves, and the rest."""
    base, rest = _split(value, key, bases)
    lines = [f"<<: *{base.name}"] if base else []
    for name, item in rest.items():
        lines += _block(_scalar(name), item, anchors)
    return ["  " + line for line in lines]


def _flow(value: Any, key: str, anchors: list[Anchor]) -> str:
    """A value on one line, mappings as references to anchors wherever they hold the same."""
    if not isinstance(value, dict):
        return _scalar(value)
    base, rest = _split(value, key, anchors)
    if base and not rest:
        return f"*{base.name}"
    items = [f"<<: *{base.name}"] if base else []
    items += [f"{_scalar(name)}: {_flow(item, name, anchors)}" for name, item in rest.items()]
    return "{" + ", ".join(items) + "}"


def _split(
    value: dict[str, Any], key: str, bases: list[Anchor]
) -> tuple[Anchor | None, dict[str, Any]]:
    """The anchor that leaves least of `value` to be written, and what it leaves."""
    best: tuple[Anchor | None, dict[str, Any]] = (None, value)
    for base in sorted(bases, key=lambda a: a.path[-1:] != (key,)):
        if base.value and base.value.keys() <= value.keys():
            rest = {k: v for k, v in value.items() if k not in base.value or base.value[k] != v}
            if len(rest) < len(best[1]):
                best = (base, rest)
    return best


class _Dumper(yaml.SafeDumper):
    """Quotes what holds a colon: DVC's reader refuses a bare `s3://..` within braces."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = '"' if ":" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _represent_text)


def _scalar(value: Any) -> str:
    """A value without references, as YAML on one line."""
    text = yaml.dump(value, None, _Dumper, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("...\n").strip()
