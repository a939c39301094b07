"""Table 1 and Definition 1 of an explainer on a user's images, beside other methods."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from dxai.config.schema import METHODS, check_entry_name
from dxai.config.settings import choose
from dxai.datasets.in_memory import InMemoryImages
from dxai.datasets.user_images import find_images, read
from dxai.library import scoring
from dxai.library.explainer import DXAI
from dxai.library.method import Method
from dxai.library.page import write_page
from dxai.library.sharing import SEEN
from dxai.reporting.table_layouts import definition1
from dxai.reporting.text import aligned, decimals, format_table
from dxai.results.io import Row, read_table
from dxai.results.methods import NEUTRAL, ORDER, RANDOM, label
from dxai.results.table_specs import SPECS
from dxai.results.validity import meaning
from dxai.utils.files import atomic_folder, read_json, require_folder

TABLE1, DEFINITION1, PAGE = "table1.csv", "definition1.csv", "index.html"
"""Files of an evaluation, beside the outcomes of each method."""
IMAGES = 100
"""Images that are scored, unless told otherwise."""
FOR_NOISE = 60
"""Further images on which the noise that the classifier stands is measured, if there are some."""
WITHOUT_TWIN = 2
"""Columns of Definition 1 that need a twin, the last ones."""


def evaluate(
    explainer: DXAI | Path | str,
    images: Any,
    methods: Sequence[str | Method] = (),
    *,
    count: int = IMAGES,
    out: Path | str = "evaluation",
    modules: str | Iterable[str] = (),
    device: str = "auto",
) -> dict[str, pd.DataFrame]:
    """Score an explainer and other methods; print Table 1 with its guards and Definition 1.

    Parameters
    ----------
    explainer : DXAI or path
        An explainer, or its folder or model.pt.
    images
        As for `fit`; where there are test images, only those are used. Images that the explainer
        was fitted on are left out.
    methods : sequence of str or Method
        Names of `dxai.config.schema.METHODS`, and functions of your own as `dxai.Method`, which are
        first tried on one image. Random is always scored: it says whether the classifier is valid.
    count : int
        Images that are scored, spread over the classes.
    out : path
        Folder of the tables, the outcomes and the page; an earlier evaluation in it is replaced.
    modules, device
        As for `DXAI.load`, for an explainer that is given by its path.

    Returns
    -------
    dict of str to DataFrame
        The tables `table1` and `definition1`.

    Raises
    ------
    ValueError, OSError
        In one line, for an unknown method or class, unusable images or attributions, or another
        folder `out`.
    """
    out, methods = Path(out), _distinct([RANDOM, *methods])
    if count < 1:
        raise ValueError(f"images is {count}; it must be 1 or more")
    require_folder(out.parent)
    if out.is_mount():
        raise ValueError(f"{out}: a mounted folder cannot be replaced; name one in it")
    if out.exists() and not (out.is_dir() and ((out / TABLE1).is_file() or not any(out.iterdir()))):
        raise ValueError(f"{out}: found something that is no evaluation; name a new folder")
    if isinstance(explainer, DXAI):
        model, where = explainer, str(explainer.folder or "the explainer")
    else:
        model, where = DXAI.load(explainer, modules=modules, device=device), str(explainer)
    data, others = _images(model, where, images, count)
    first = data.batch([0])
    for method in methods:
        if isinstance(method, Method):  # before minutes are spent on the others
            method.attribute(first.images, first.labels, first.index)
    params = scoring.settings()
    noise = scoring.tolerated_noise(model, others if len(others) else data, params)
    subject = scoring.Subject(_title(images), model, data, params, noise)
    with atomic_folder(out) as temporary:
        scoring.score(subject, methods, temporary)
        names = [one if isinstance(one, str) else one.name for one in methods]
        tables = scoring.tables(subject, temporary, names)
        for name, frame in tables.items():
            frame.to_csv(temporary / f"{name}.csv", index=False, float_format="%.6g")
        rows, points = (read_table(temporary / name) for name in (TABLE1, DEFINITION1))
        shown = {"Table 1": _table1_rows(rows), "Definition 1": _definition_rows(points)}
        title = f"{subject.name}: evaluation of {where}"
        write_page(model, data, temporary / PAGE, title, meaning(rows), shown)
        text = format_table(temporary / TABLE1)
    print(f"\n{text}\n\nDefinition 1: images that a method leaves undecided")
    print(f"{aligned(shown['Definition 1'], left=1)}\n\n{out}, its page: {out / PAGE}", flush=True)
    return tables


def _distinct(methods: Sequence[str | Method]) -> list[str | Method]:
    """Return methods without repeated names; raise ValueError for one that cannot be scored."""
    found: dict[str, str | Method] = {}
    for method in methods:
        if isinstance(method, str):
            found[choose("methods", method, METHODS)] = method
        elif not isinstance(method, Method):
            raise ValueError(
                f"methods: found {type(method).__name__}; a function is given as "
                "dxai.Method(name, function)"
            )
        elif check_entry_name("methods", method.name) in {*ORDER, NEUTRAL, *found}:
            raise ValueError(f"methods: {method.name!r} is another method; choose a new name")
        else:
            found[method.name] = method
    return list(found.values())


def _title(images: Any) -> str:
    return Path(images).name if isinstance(images, str | Path) else type(images).__name__


def _images(
    model: DXAI, explainer: str, images: Any, count: int
) -> tuple[InMemoryImages, InMemoryImages]:
    """Read the images to score, and others for the noise; none of those that were fitted on."""
    names, info = model.info["class_names"], model.info
    found = find_images(images, names)
    units = found.split("test") or list(found.units)
    for unit in units:
        if unit.label not in names:
            raise ValueError(
                f"{found.where}: class {unit.label!r} is not among those of {explainer}: "
                f"{', '.join(names)}"
            )
    found = replace(found, class_names=tuple(names))
    data, _ = read(found, units, info["image_size"], info["channels"], "read")
    path = None if model.folder is None else model.folder / SEEN
    seen = set(read_json(path)) if path is not None and path.is_file() else set()
    fresh = [i for i, one in enumerate(data.digests()) if one not in seen]
    if not fresh:
        raise ValueError(
            f"{found.where}: {explainer} was fitted on every image of it; give others, for example "
            "in a folder test/ beside train/"
        )
    if len(fresh) < len(data):
        left = len(data) - len(fresh)
        print(f"images: {left} of {len(data)} are left out, as the explainer was fitted on them")
    data = data.subset(fresh)
    chosen = data.spread(max(1, count // len(set(data.labels.tolist()))))
    rest = data.subset(sorted(set(range(len(data))) - set(chosen)))
    return data.subset(chosen), rest.subset(rest.spread(max(1, FOR_NOISE // len(names))))


def _table1_rows(rows: Sequence[Row]) -> list[list[str]]:
    """Return Table 1 as text, without the columns that no row has."""
    columns = [c for c in SPECS["table1"].columns if c.terminal]
    columns = [c for c in columns if any(row.get(c.name) is not None for row in rows)]
    shown = [["method", "sign", *(c.terminal for c in columns)]]
    for row in rows:
        name = label(row["method"])
        if row["status"] != "ok":
            shown.append([name, f"{row['status']}: {row['reason']}"])
        else:
            numbers = [decimals(row.get(c.name), c.digits) for c in columns]
            shown.append([name, row["sign"], *numbers])
    return shown


def _definition_rows(rows: Sequence[Row]) -> list[list[str]]:
    """Return Definition 1 as text, without what needs a twin."""
    table = definition1(list(rows))
    heads = [column.name for column in table.columns]
    kept = slice(2, len(heads) - WITHOUT_TWIN)
    return [heads[kept], *([*map(str, line.cells)][kept] for line in table.lines)]
