"""Putting the page together."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml

from dxai.datasets import ShardedDataset
from dxai.evaluate import paper
from dxai.evaluate.names import OURS, STYLES, style
from dxai.evaluate.report.charts import Chart, Drawer, bar_charts, curve_charts, training_charts
from dxai.evaluate.report.inline import data_uri
from dxai.evaluate.report.panels import Panel, build_panels
from dxai.evaluate.report.results import (
    Cell,
    Folders,
    read_cells,
    read_optional,
    read_table,
    scored_images,
)
from dxai.evaluate.report.rows import Claim, Group, make_claim, make_groups
from dxai.params import Params
from dxai.progress import clock

TEMPLATE = "report.html.jinja"
SET_NAMES = {
    "afhq": "AFHQ",
    "celeba": "CelebA",
    "dota": "DOTA",
    "brats": "BraTS",
    "peppers": "Peppers",
    "tomatoes": "Tomatoes",
    "apples": "Apples",
}


@dataclass(frozen=True)
class Section:
    """What the page says of one dataset and classifier."""

    name: str
    anchor: str
    facts: list[str]
    claim: Claim | None
    groups: list[Group]
    axis: tuple[float, float]
    curves: list[Chart]
    bars: list[Chart]
    panels: list[Panel]
    training: list[Chart]


def build_report(params: Params, folders: Folders) -> str:
    """The page for the results of a run.

    Parameters
    ----------
    params : Params
        What was run.
    folders : Folders
        Where the stages wrote.

    Raises
    ------
    ValueError
        If a table or a dataset is missing or damaged.
    """
    drawer = Drawer()
    cells = read_cells(folders, list(params.datasets), list(params.explained))
    times = stage_times(params, folders)
    template = _environment().get_template(TEMPLATE)
    return template.render(
        params=params,
        settings=yaml.safe_dump(dataclasses.asdict(params), sort_keys=False, allow_unicode=True),
        sections=[_section(i, c, params, folders, drawer) for i, c in enumerate(cells, 1)],
        table6=read_table(folders.results / "tables" / "table6.csv"),
        paper1=paper.TABLE1,
        paper6=paper.TABLE6,
        paper_methods=[m for m in STYLES if any(m in row for row in paper.TABLE1.values())],
        set_names=SET_NAMES,
        times=times,
        total=math.fsum(seconds for _, seconds in times),
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = {"fixed": fixed, "signed": signed, "uri": data_uri, "clock": clock, "label": _label}
    environment.filters.update(filters)
    return environment


def fixed(value: float | None, digits: int = 3) -> str:
    """A number with so many decimals; a dash if there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 3) -> str:
    """The same with its sign."""
    text = fixed(value, digits)
    return text.replace("-", "−") if text.startswith(("-", "–")) else f"+{text}"


def _label(method: str) -> str:
    return style(method).label


def _axis(values: list[float]) -> tuple[float, float]:
    """Whole tenths around the values, at least one tenth apart."""
    high = math.ceil(max(values) * 10)
    return min(math.floor(min(values) * 10), high - 1) / 10, high / 10


def _section(number: int, cell: Cell, params: Params, folders: Folders, drawer: Drawer) -> Section:
    data = ShardedDataset(folders.prepared / cell.dataset, "test")
    seed, best = params.seeds[0], cell.best_baseline()
    ends = [row[k] for row in cell.rows for k in ("auc", "auc_low", "auc_high")]
    known = [value for value in ends if value is not None] or [0.0, 1.0]
    place = Path(cell.dataset) / cell.classifier
    seeds = {s: folders.decompositions / place / str(s) for s in params.seeds_of(cell.classifier)}
    return Section(
        name=f"{cell.dataset} · {cell.classifier}",
        anchor=f"cell-{number}",
        facts=_facts(cell, data, seed),
        claim=make_claim(cell),
        groups=make_groups(cell, params),
        axis=_axis(known),
        curves=curve_charts(cell, seed, best["method"] if best else None, drawer),
        bars=bar_charts(cell, seed, drawer),
        panels=build_panels(cell, data, seed),
        training=training_charts(folders.classifiers / place / "explained", seeds, drawer),
    )


def _facts(cell: Cell, data: ShardedDataset, seed: int) -> list[str]:
    """What the numbers of a cell rest on."""
    row = next((r for r in cell.rows if r["images"] is not None), None)
    size = f"{data.image_size}×{data.image_size} pixels"
    facts = [
        f"{len(data.class_names)} classes",
        f"{size}, {'gray' if data.channels == 1 else 'RGB'}",
    ]
    if row is not None:
        scored = scored_images(cell.folder / f"{OURS}-{seed}")
        groups = len({data.groups[i] for i in scored}) or len(set(data.groups))
        facts.append(f"{row['images']:.0f} test images in {groups} independent groups")
        facts.append(f"accuracy of the classifier on them {fixed(row['accuracy'])}")
    return facts


def stage_times(params: Params, folders: Folders) -> list[tuple[str, float]]:
    """Stage items and the seconds they took, in the order of the pipeline; some are not timed."""
    found: list[tuple[str, dict[str, Any]]] = []
    for dataset in params.datasets:
        for classifier in params.explained:
            place = Path(dataset) / classifier
            for role in ("explained", "twin"):
                folder = folders.classifiers / place / role
                found.append((f"classifier {place} {role}", read_optional(folder / "metrics.json")))
            for seed in params.seeds_of(classifier):
                folder = folders.decompositions / place / str(seed)
                found.append((f"decompose {place} {seed}", read_optional(folder / "metrics.json")))
            for name in [
                *params.methods,
                *(f"{OURS}-{seed}" for seed in params.seeds_of(classifier)),
            ]:
                summary = read_optional(folders.outcomes / place / name / "summary.json")
                found.append((f"evaluate {place} {name}", summary))
    return [(name, values["seconds"]) for name, values in found if values.get("seconds")]
