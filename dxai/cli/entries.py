"""What `dxai add` does: entries of params.yaml for a user's dataset and classifier."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dxai.config.params_file import parse_yaml
from dxai.config.profiles import Addition, add_entry, catalogue_entry
from dxai.config.schema import check_name, split_table
from dxai.config.settings import choose, parse
from dxai.datasets.base import SPLITS, Listing
from dxai.datasets.leftovers import find_all
from dxai.datasets.prepare import raw_images
from dxai.datasets.recognise import OWN, recognise
from dxai.datasets.registry import LAYOUTS
from dxai.datasets.source import SAMPLE, expand, open_source
from dxai.paths import HERE
from dxai.utils.links import inside, linked


# ------------------------------------------------------------------------------------ dataset
def add_dataset(options: argparse.Namespace) -> None:
    """Add a dataset, or replace the one of this name."""
    name = check_name("dataset", options.name)
    given, source, table, links = _source(options.source, name)
    if options.layout is not None:
        fitting = [choose("layout", options.layout, LAYOUTS)]
    elif given == SAMPLE:
        raise ValueError(f"source {SAMPLE}: choose what is drawn with --layout")
    else:
        fitting = [OWN] if table else recognise(open_source(given))
    layout = LAYOUTS[fitting[0]]
    entry = {"layout": fitting[0], "source": source, **catalogue_entry(fitting[0])}
    if options.channels is not None:
        entry["channels"] = options.channels
    values = _values(options.options) | ({"table": table} if table else {})
    entry["options"] = parse(layout.options, values, "options").model_dump()
    addition = _addition("datasets", name, entry, options)
    params = addition.params
    dataset = params.dataset(name).replace(source=given)
    with raw_images(name, dataset, layout, HERE.unfinished_data) as opened:
        listing = find_all(layout, opened, dataset, params.prepare)
    with linked(links):
        addition.write(HERE.params)
    print(f"dataset {name}: {given}, layout {fitting[0]}, {dataset.channels} channel(s)")
    for other in fitting[1:]:
        print(f"it fits the layout {other}, too (--layout {other})")
    _print_listing(listing)
    _print_changes(addition, links)
    if any(spec.weights is not None for spec in params.explained.values()):
        _print_next([next(iter(params.explained))], [name], params.seeds)
    else:
        print(f"next: dvc repro decompose, which trains {', '.join(params.explained)} here")


def _source(text: str, name: str) -> tuple[str, str, str, dict[Path, Path]]:
    """Return a source as it can be read, as params.yaml names it, its table, and its links."""
    if "://" in text or text == SAMPLE:
        url, name = split_table(text)
        return url, url, name, {}
    path = Path(expand(text))
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.is_file() and path.suffix.lower() != ".csv":
        raise ValueError(
            f"{path}: a file; name the folder that it is unpacked into, or a CSV file that lists "
            "images"
        )
    folder, table = (path, "") if path.is_dir() else (path.parent, path.name)
    if inside(Path.cwd(), folder) is not None:
        raise ValueError(f"{folder} holds the project; name the folder of the images in it")
    for output in (HERE.prepared, HERE.artifacts, HERE.results, HERE.work):
        if inside(folder, output.absolute()) is not None or inside(output, folder) is not None:
            raise ValueError(f"{folder}: the project writes to {output}, so it cannot be a source")
    links = {}
    if (within := inside(folder, Path.cwd())) is None:
        within = f"data/{name}"
        links = {Path(within): folder}
        if Path(within) == HERE.prepared:
            raise ValueError(f"dataset: the project writes to {within}; choose another name")
    return str(folder), str(within), table, links


def _print_listing(listing: Listing) -> None:
    """Print the images of each split and class, and what was left out."""
    counts = Counter((unit.split, unit.label) for unit in listing.units)
    for split in (*SPLITS, ""):
        units = sum(n for (of, _), n in counts.items() if of == split)
        classes = [f"{name} {counts[split, name]}" for name in listing.class_names]
        known = not counts[split, ""]  # else the images within a unit have different classes
        if units:
            what = ", ".join(classes) if known else "files of " + " and ".join(listing.class_names)
            print(f"  {split or 'any split'}: {units} ({what})")
    for rule in listing.dropped:
        where = f"{rule.split} {rule.label}".strip()
        example = f", first {rule.files[0]}" if rule.files else ""
        print(f"  left out: {rule.count} ({rule.rule}{example}) {where}".rstrip())
    for note in listing.notes:
        print(f"  {note}")


# ------------------------------------------------------------------------------------ both
def _values(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Read the values of options as YAML."""
    return {key: parse_yaml(text, f"{key}: {text!r}") for key, text in pairs}


def _addition(
    kind: str, name: str, entry: Mapping[str, Any], options: argparse.Namespace
) -> Addition:
    overrides = dict(options.overrides)
    return add_entry(HERE.params, kind, name, entry, options.keep, options.profile, overrides)


def _print_changes(addition: Addition, links: Mapping[Path, Path]) -> None:
    for link, target in links.items():
        print(f"{link} leads to {os.path.abspath(target)}")
    print("\n".join(addition.changes) if addition.changes else "params.yaml: nothing to change")


def _print_next(classifiers: list[str], datasets: list[str], seeds: list[int]) -> None:
    print("next: dvc repro decompose")
    for dataset in datasets:
        for classifier in classifiers:
            model = HERE.decomposition(dataset, classifier, seeds[0])
            print(f"then: dxai explain --model {model} IMAGE")
