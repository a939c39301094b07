"""What `dxai add` does: entries of params.yaml for a user's dataset and classifier."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dxai.config.params_file import parse_yaml
from dxai.config.profiles import Addition, add_entry, catalogue_entry, is_in_catalogue
from dxai.config.schema import ClassifierSpec, Params, check_entry_name, split_table
from dxai.config.settings import choose, parse
from dxai.datasets.base import SPLITS, DataError, Listing
from dxai.datasets.first_images import first_images
from dxai.datasets.leftovers import find_all
from dxai.datasets.prepare import raw_images
from dxai.datasets.recognise import OWN, recognise
from dxai.datasets.registry import LAYOUTS
from dxai.datasets.source import SAMPLE, expand, open_source
from dxai.metrics.grain import describe_grain, random_aucs
from dxai.models.accuracy_check import confusion_of
from dxai.models.classifier_check import check_classifier
from dxai.models.classifiers import CLASSIFIERS
from dxai.models.file_kinds import arch_of
from dxai.models.takeover import describe_weights, require_other_weights, twin_of
from dxai.paths import HERE
from dxai.training.classifier import ClassifierJob, role_seed
from dxai.utils.links import inside, linked

HELP = "--classes sets class_names, and `dxai add classifier --help` lists the other options"


# ------------------------------------------------------------------------------------ dataset
def add_dataset(options: argparse.Namespace) -> None:
    """Add a dataset, or replace the one of this name."""
    name = check_entry_name("dataset", options.name)
    given, source, table, links = _source(options.source, name)
    if options.layout is not None:
        fitting = [choose("layout", options.layout, LAYOUTS)]
    elif given == SAMPLE:
        raise ValueError(f"source {SAMPLE}: choose what is drawn with --layout")
    else:
        fitting = [OWN] if table else recognise(open_source(given))
    refused: dict[str, DataError] = {}
    for chosen in fitting:
        try:
            addition, listing = _listed(chosen, name, given, source, table, options)
        except DataError as error:
            refused[chosen] = error
        else:
            break
    else:
        hint = "".join(
            f"; it fits the layout {other}, too (--layout {other})" for other in fitting[1:]
        )
        raise DataError(f"{refused[fitting[0]]}{hint}")
    params = addition.params
    channels = params.dataset(name).channels
    with linked(links):
        addition.write(HERE.params)
    print(f"dataset {name}: {given}, layout {chosen}, {channels} channel(s)")
    for other in fitting:
        if other in refused:
            print(f"it looks like the layout {other}, which refuses it: {refused[other]}")
        elif other != chosen:
            print(f"it fits the layout {other}, too (--layout {other})")
    _print_listing(listing)
    _print_changes(addition, links)
    own = [k for k, spec in params.explained.items() if spec.weights or ":" in spec.arch]
    if own:
        _print_next(own, [name], params.seeds)
    else:
        print("next: dxai add classifier NAME package.module:Net --weights FILE --classes ..")
        print(f"  or: dvc repro decompose, which trains {', '.join(params.explained)} here")


def _listed(
    layout_name: str,
    name: str,
    given: str,
    source: str,
    table: str,
    options: argparse.Namespace,
) -> tuple[Addition, Listing]:
    """Return the entry of a dataset in a layout, and its images; raise DataError if it is unfit."""
    layout = LAYOUTS[layout_name]
    entry = {"layout": layout_name, "source": source, **catalogue_entry(layout_name)}
    if options.channels is not None:
        entry["channels"] = options.channels
    values = _values(options.options) | ({"table": table} if table else {})
    entry["options"] = parse(layout.options, values, "options").model_dump()
    addition = _addition("datasets", name, entry, options)
    dataset = addition.params.dataset(name).replace(source=given)
    with raw_images(name, dataset, layout, HERE.unfinished_data) as opened:
        return addition, find_all(layout, opened, dataset, addition.params.prepare)


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


# ------------------------------------------------------------------------------------ classifier
def add_classifier(options: argparse.Namespace) -> None:
    """Add a classifier, or replace the one of this name."""
    name = check_entry_name("classifier", options.name)
    entry, links = classifier_entry(options, name)
    addition = _addition("classifiers", name, entry, options)
    params = addition.params
    with linked(links):  # the entry names the links, and so does the check
        found = _check(params, name)
        addition.write(HERE.params)
    print("\n".join(f"classifier {name}, {line}" for line in found))
    _print_changes(addition, links)
    _print_next([name], list(params.datasets), params.seeds)


def classifier_entry(
    options: argparse.Namespace, name: str
) -> tuple[dict[str, Any], dict[Path, Path]]:
    """Return the entry of params.yaml, and the links that it takes."""
    arch, weights = _network(options.network, options.weights)
    if options.twin is not None and os.path.realpath(options.twin) == os.path.realpath(
        weights or ""
    ):
        raise ValueError(
            f"--twin {options.twin}: the same weights; a twin has others, or --no-twin"
        )
    links: dict[Path, Path] = {}
    entry = {
        "arch": arch,
        "options": _values(options.options),
        "weights": _file(weights, name, links),
        "value_range": options.value_range,
        "mean": options.mean,
        "std": options.std,
        "size": options.size,
        "class_names": options.classes,
        "field": int(options.field) if (options.field or "").isdigit() else options.field,
        "outputs": options.outputs,
        "activation": options.activation,
        "train": False if options.no_train else None,
        "twin": False if options.no_twin else _file(options.twin, f"{name}-twin", links),
    }
    for key, value in entry["options"].items():
        if isinstance(value, str) and os.path.isfile(value):  # read by the constructor
            entry["options"][key] = _file(value, f"{name}-{key}", links)
            entry.setdefault("files", []).append(entry["options"][key])
    needed = ("arch", "options", "weights")
    return {k: v for k, v in entry.items() if v is not None or k in needed}, links


def _network(network: str, weights: str | None) -> tuple[str, str | None]:
    """Return `arch` and `weights` for a network that is named by a module or a file."""
    path = Path(network).expanduser()
    if path.is_file():
        if weights is not None:
            raise ValueError(f"{network} would bring its own weights; leave --weights out")
        return arch_of(path), network
    module, colon, name = network.partition(":")
    if "/" in module or module.endswith(".py"):
        if not colon:
            raise FileNotFoundError(f"{network}: no such file")
        dotted = module.removesuffix(".py").strip("./").replace("/", ".")
        raise ValueError(f"{network}: name it as Python imports it, {dotted}:{name}")
    return network, weights


def _file(path: str | None, name: str, links: dict[Path, Path]) -> str | None:
    """Return a file as params.yaml names it; add to `links` the one that it takes."""
    if path is None:
        return None
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if (within := inside(file, Path.cwd())) is None:
        within = f"data/{name}{file.suffix}"
        links[Path(within)] = file
    return within


def _check(params: Params, name: str) -> list[str]:
    """Try a classifier on some images of each dataset; return lines about what was found.

    Raises `ValueError` for the first thing that must not stay as it is.
    """
    spec, size = params.classifiers[name], params.prepare.image_size
    found: list[str] = []
    for dataset in params.datasets:
        try:
            found += _check_on(dataset, params, spec)
        except ValueError as error:
            remedy = _remedy(dataset, params, spec)
            raise ValueError(f"dataset {dataset}, classifier {name}: {error}{remedy}") from None
    if spec.size is not None and spec.size > size:
        found.append(
            f"size: images are prepared at {size} px and enlarged to {spec.size}; "
            f"--set prepare.image_size={spec.size} keeps their detail, and takes longer"
        )
    return found


def _remedy(dataset: str, params: Params, spec: ClassifierSpec) -> str:
    """Say what would make a dataset fit a classifier, if that is the dataset's part."""
    if is_in_catalogue(dataset):
        return "; `dxai add dataset NAME PATH` brings images of your own"
    entry = params.dataset(dataset)
    channels = 4 - entry.channels
    others = {**params.datasets, dataset: entry.replace(channels=channels)}
    try:
        list(_check_on(dataset, params.replace(datasets=others), spec))
    except ValueError:
        return ""
    return f"; it fits with `dxai use --set datasets.{dataset}.channels={channels}`"


@dataclass
class _ImagesAndClasses:
    """What a network is built for."""

    channels: int
    class_names: list[str]
    image_size: int


def _check_on(dataset: str, params: Params, spec: ClassifierSpec) -> Iterator[str]:
    """Try a classifier and its twin, as the stage makes them, on some images of one dataset."""
    folder, work = HERE.dataset(dataset), HERE.unfinished_data
    images, labels, class_names = first_images(dataset, params, folder, work)
    data = _ImagesAndClasses(images.shape[1], class_names, params.prepare.image_size)
    settings = params.classifier_for(dataset)
    job = ClassifierJob("", spec, settings, settings.seed)
    network, _ = job.network(data)
    said = describe_weights(network, spec, bool(job.brought(network, data)))
    yield from _findings(network, spec, images, labels, class_names, dataset)
    if spec.trained_here:
        yield f"{dataset}: {said}"
    else:
        hits = confusion_of(network, images, labels, len(class_names)).trace()
        yield f"{dataset}: accuracy {hits / len(labels):.2f} on {len(labels)} images"
        aucs = random_aucs(network, images, labels, torch.arange(len(images)), settings.seed)
        said = describe_grain(aucs, f"{len(images)} images", params.evaluate.valid_auc)
        yield f"{dataset}: {said}"
    twin = twin_of(spec)
    if twin is None or (twin.weights is None and twin.arch in CLASSIFIERS):
        return
    try:
        job = ClassifierJob("", twin, settings, role_seed(settings.seed, "twin"), twin.trained_here)
        other, _ = job.network(data)
        describe_weights(other, twin, brings=False)
        if twin.weights is not None:
            require_other_weights(other, network, twin.weights)
        yield from _findings(other, twin, images, labels, class_names, f"{dataset}, twin")
    except ValueError as error:
        raise ValueError(f"its twin: {error}") from None


def _findings(
    network: nn.Module,
    spec: ClassifierSpec,
    images: Tensor,
    labels: Tensor,
    class_names: list[str],
    title: str,
) -> Iterator[str]:
    """Yield what should be known about a network; raise ValueError if it is unfit."""
    trained = not spec.trained_here
    for finding in check_classifier(network, images, labels, class_names, spec, trained):
        if finding.fatal:
            raise ValueError(f"{finding.text} ({HELP})")
        yield f"{title}: {finding.text}"


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
    # network_files only repeats the files of the classifiers.
    changes = [line for line in addition.changes if not line.startswith("network_files:")]
    print("\n".join(changes) if changes else "params.yaml: nothing to change")


def _print_next(classifiers: list[str], datasets: list[str], seeds: list[int]) -> None:
    print("next: dvc repro decompose")
    for dataset in datasets:
        for classifier in classifiers:
            model = HERE.decomposition(dataset, classifier, seeds[0])
            print(f"then: dxai explain --model {model} IMAGE")
