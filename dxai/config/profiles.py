"""Profiles, and `dxai use` and `dxai add`, which make params.yaml from one of them.

A file of profiles/ holds the differences from the profile that it `extends`: its mappings are
merged over the other's at every depth. Three mappings select what is run and replace the other's:
`datasets`, `classifiers` and `joint`. Each of their entries is merged over the entry of that name
in catalogue.yaml.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dxai.config.params_file import (
    check,
    format_params,
    load_params,
    network_files,
    parse_yaml,
    read_yaml,
)
from dxai.config.schema import JOINT, ClassifierSpec, Params, split_table
from dxai.config.settings import ParamsError, Settings, choose, parse
from dxai.utils.files import atomic

PROFILES = Path(__file__).with_name("profiles")
CATALOGUE = Path(__file__).with_name("catalogue.yaml")
NAMED = {"datasets": "datasets", "classifiers": "classifiers", "joint": "classifiers"}
"""Mappings that select what is run, and the part of the catalogue with their entries."""

ADDING = {
    "datasets": "`dxai add dataset {} PATH`",
    "classifiers": "`dxai add classifier {} package.module:Net`",
}
"""The commands that add an entry."""


def profile_names() -> list[str]:
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def load_profile(name: str) -> dict[str, Any]:
    """Return the values of a profile, ready for params.yaml."""
    own = read_yaml(PROFILES / f"{choose('profile', name, profile_names())}.yaml")
    values = load_profile(own.pop("extends")) if "extends" in own else _papers_values()
    catalogue = read_yaml(CATALOGUE)
    for key in NAMED.keys() & own.keys():
        entries = catalogue[NAMED[key]]
        values[key] = {entry: entries.get(entry, {}) for entry in own[key]}
    values = _merge(values, own) | {"profile": name}
    return values | {"network_files": network_files(values.get("classifiers") or {})}


def select_profile(
    path: Path | str,
    profile: str | None = None,
    datasets: Sequence[str] | None = None,
    classifiers: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    overrides: dict[str, str] | None = None,
) -> list[str]:
    """Change a params file as requested; the format of an earlier version is converted.

    It starts from a profile, or from the values of the file. `datasets`, `classifiers` and
    `methods` are run in this order; the names are those of the start, its profile, the catalogue or
    the file. `overrides` maps a dotted key to a value as YAML, ``{"decompose.steps": "300"}``.

    Returns one line for each changed value. Raises `ParamsError` for an unknown name or key, naming
    the valid ones, or an invalid value. The file is rewritten only if a value changed and the
    result is valid.
    """
    path = Path(path).resolve()
    before = read_yaml(path)
    changes: list[str] = []
    earlier: dict[str, Any] = {}
    if isinstance(before.get("run"), dict):
        earlier, before = before, before["run"]
        changes = [f"{path.name}: converted to the present layout"]
    before, written = _value_range_moved(before), before
    values = dict(before) if profile is None else load_profile(profile)
    base = values.get("profile") if values.get("profile") in profile_names() else None
    own = _value_range_moved(earlier.get("catalogue") or {})
    known = [values, load_profile(base) if base else {}, own, read_yaml(CATALOGUE), before]
    if datasets is not None:
        values["datasets"] = _pick("datasets", datasets, known)
    if classifiers is not None:
        both = [
            {"classifiers": {**source.get("joint", {}), **source.get("classifiers", {})}}
            for source in known
        ]
        picked = _pick("classifiers", classifiers, both)
        values["joint"] = {k: v for k, v in picked.items() if v["arch"] == JOINT}
        values["classifiers"] = {k: v for k, v in picked.items() if v["arch"] != JOINT}
    if methods is not None:
        values["methods"] = _pick("methods", methods, known)
    if seeds is not None:
        values["seeds"] = list(dict.fromkeys(seeds))
    values |= {key: _within(values, key) for key in ("repeat", "ablations") if key in values}
    for key, setting in (overrides or {}).items():
        values = _override(values, key, setting)
    values |= _files_filled(values["classifiers"], before, path.parent)
    values["datasets"] = {k: _with_table(v) for k, v in values["datasets"].items()}
    check(values, path.parent)
    changes += [*_left_out(earlier, values), *_changes(written, values)]
    if changes:
        _write(path, values)
    return changes


def _write(path: Path, values: dict[str, Any]) -> None:
    with atomic(path) as temporary:
        temporary.write_text(format_params(values), encoding="utf-8")


def _value_range_moved(values: dict[str, Any]) -> dict[str, Any]:
    """Return a copy in which `options.value_range` of a classifier stands beside `options`."""
    moved = {}
    for name, entry in (values.get("classifiers") or {}).items():
        options = dict((isinstance(entry, dict) and entry.get("options")) or {})
        if "value_range" in options:
            entry = {**entry, "value_range": options.pop("value_range"), "options": options}
        moved[name] = entry
    return values | ({"classifiers": moved} if moved else {})


def _files_filled(entries: dict[str, Any], before: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return `classifiers` with `files`, and `network_files`.

    They are what a classifier comes from now, and what the user added to that.
    """
    filled = {}
    for name, entry in entries.items():
        spec = parse(ClassifierSpec, entry, f"classifiers.{name}")
        earlier = (before.get("classifiers") or {}).get(name)
        no_longer = (
            parse(ClassifierSpec, earlier, f"classifiers.{name}").sources(folder) if earlier else []
        )
        added = [file for file in spec.files if file not in no_longer]
        filled[name] = {**entry, "files": list(dict.fromkeys([*spec.sources(folder), *added]))}
    return {"classifiers": filled, "network_files": network_files(filled)}


@dataclass(frozen=True)
class Addition:
    """A params file with one more entry, checked and not yet written."""

    params: Params
    values: dict[str, Any]
    changes: list[str]

    def write(self, path: Path | str) -> None:
        """Write the file, if a value changed."""
        if self.changes:
            _write(Path(path).resolve(), self.values)


def add_entry(
    path: Path | str,
    kind: str,
    name: str,
    entry: Mapping[str, Any],
    keep: bool = False,
    profile: str | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Addition:
    """Return a params file with an entry of `datasets` or `classifiers` that is run.

    It replaces the others of its kind (and `joint`), or stands beside them with `keep`; an entry of
    this name is replaced in any case. The other settings are those of the file or of a profile,
    with `overrides` as for `select_profile`. Raises `ParamsError` as that does.
    """
    path = Path(path).resolve()
    load_params(path)
    before = read_yaml(path)
    values = dict(before)
    if profile is not None:
        values = load_profile(profile) | {block: before[block] for block in NAMED}
    values[kind] = (dict(values[kind]) if keep else {}) | {name: dict(entry)}
    if kind == "classifiers":
        values["joint"] = {k: v for k, v in values["joint"].items() if keep and k != name}
    values |= {key: _within(values, key) for key in ("repeat", "ablations")}
    for key, setting in (overrides or {}).items():
        values = _override(values, key, setting)
    values |= _files_filled(values["classifiers"], before, path.parent)
    return Addition(check(values, path.parent), values, [*_changes(before, values)])


def catalogue_entry(layout: str) -> dict[str, Any]:
    """Return the channels and overrides of the catalogue's first dataset of a layout."""
    entries = read_yaml(CATALOGUE)["datasets"].values()
    first: dict[str, Any] = next((entry for entry in entries if entry["layout"] == layout), {})
    return {key: first[key] for key in ("channels", "overrides") if key in first}


def _with_table(entry: dict[str, Any]) -> dict[str, Any]:
    """Return a dataset's entry whose source is a folder, with its CSV file as an option.

    DVC watches a source: with the table alone it would not see that an image changes.
    """
    if not isinstance(entry, dict) or entry.get("layout") != "folder":
        return entry
    folder, table = split_table(str(entry.get("source", "")))
    if not (table and folder):
        return entry
    return entry | {"source": folder, "options": {**(entry.get("options") or {}), "table": table}}


def is_in_catalogue(dataset: str) -> bool:
    """Whether the catalogue has a dataset of this name."""
    return dataset in read_yaml(CATALOGUE)["datasets"]


def _left_out(earlier: dict[str, Any], values: dict[str, Any]) -> Iterator[str]:
    """List what a user added to a file of an earlier version and `values` lacks."""
    for name in earlier.get("profiles") or {}:
        if name not in (*profile_names(), values["profile"]):
            yield f"profiles.{name}: left out; a profile of your own is a file in {PROFILES}"
    shipped = read_yaml(CATALOGUE)
    for kind, entries in (earlier.get("catalogue") or {}).items():
        chosen = values.get(kind, {}) | (values.get("joint", {}) if kind == "classifiers" else {})
        for name, entry in (entries or {}).items():
            named = {key: value for key, value in entry.items() if value is not None}
            known = shipped.get(kind, {}).get(name, {})
            if name not in chosen and named != {k: v for k, v in known.items() if v is not None}:
                yield f"catalogue.{kind}.{name}: left out; to keep it, add it to {CATALOGUE}"


def _papers_values() -> dict[str, Any]:
    """Return the default of every setting that has one."""
    fields = Params.model_fields.items()
    return {k: f.default.model_dump() for k, f in fields if isinstance(f.default, Settings)}


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge two mappings at every depth; `above` wins."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(below.get(key), dict)
        merged[key] = _merge(below[key], value) if both else value
    return merged


def _pick(what: str, names: Iterable[str], known: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the named entries, each from the first of `known` that has it."""
    merged: dict[str, Any] = {}
    for source in reversed(known):
        merged |= source.get(what) or {}
    return {name: merged[_known(what, name, merged)] for name in names}


def _within(values: dict[str, Any], key: str) -> dict[str, Any]:
    """Return `repeat` or `ablations` without entries that the run no longer has, or has anyway."""
    block = dict(values[key])
    for names in ("datasets", "classifiers"):
        if names in block:
            block[names] = [name for name in block[names] if name in values[names]]
    if "seeds" in block:
        block["seeds"] = [seed for seed in block["seeds"] if seed not in values["seeds"]]
    return block


def _override(values: dict[str, Any], key: str, setting: str) -> dict[str, Any]:
    """Return a copy with a dotted key set; entries, options and overrides accept new keys."""
    if key == "profile":
        raise ParamsError("profile is chosen by its name, not overridden")
    new = parse_yaml(setting, f"{key}: {setting!r}")
    parts = key.split(".")
    result = inner = dict(values)
    for depth, part in enumerate(parts):
        where = ".".join(parts[:depth])
        may_be_new = parts[0] in NAMED and depth >= 2
        if part not in inner and not may_be_new:
            _known(where or "params.yaml", part, inner)
        if depth == len(parts) - 1:
            inner[part] = new
        elif isinstance(inner.get(part, {}), dict):
            inner[part] = inner = dict(inner.get(part, {}))
        else:
            raise ParamsError(f"{where}.{part}".removeprefix(".") + " is a value, not a mapping")
    return result


def _known(where: str, name: str, valid: Iterable[str]) -> str:
    """Like `choose`; for the name of an entry, say how to bring it."""
    try:
        return choose(where, name, valid)
    except ParamsError as error:
        if where not in NAMED:
            raise
        if name in read_yaml(CATALOGUE)[NAMED[where]]:
            raise ParamsError(
                f"{error}; `dxai use --{NAMED[where]} {name}` runs the catalogue's"
            ) from None
        raise ParamsError(f"{error}; {ADDING[NAMED[where]].format(name)} adds one") from None


def _changes(before: Any, after: Any, where: str = "") -> Iterator[str]:
    """Describe, one line a value, how `after` differs from `before`."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            name = f"{where}.{key}".removeprefix(".")
            if key not in after:
                yield f"{name}: removed"
            elif key not in before:
                yield f"{name}: added"
            else:
                yield from _changes(before[key], after[key], name)
    elif before != after:
        yield f"{where}: {before} -> {after}"
