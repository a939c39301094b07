"""The page, put together from its parts."""

from __future__ import annotations

import itertools
import math
from typing import Any

import yaml

from dxai.config.schema import Params
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.paths import LEAKAGE, METRICS, RANDOMISATION, ROLES, SUMMARY, Paths, ours_name
from dxai.reporting.html import svg_charts
from dxai.reporting.html.case import Case, read_cases, read_optional, scored_images
from dxai.reporting.html.chart_data import (
    bar_charts,
    curve_charts,
    randomisation_charts,
    stability_chart,
    training_charts,
)
from dxai.reporting.html.environment import environment
from dxai.reporting.html.panels import Examples, Panel, deviations
from dxai.reporting.html.tables import (
    Anchors,
    View,
    localised,
    make_claim,
    make_groups,
    make_matrix,
    make_view,
    uncertain,
)
from dxai.reporting.html.viewer import meanings
from dxai.reporting.table_layouts import MEASURES, all_tables, fixed, per_class, signed
from dxai.results import paper
from dxai.results.io import Tables, read_tables
from dxai.results.table_specs import SPECS
from dxai.results.validity import FAINT, meaning
from dxai.utils.progress import clock

PICTURES = 3
"""Most images at the top of the page."""
OPEN = 3
"""Largest number of cases whose details are open at first."""


def build_report(params: Params, paths: Paths) -> str:
    """Build the page for the results of a run.

    Raises `ValueError` if a table or a dataset is missing or damaged.
    """
    tables = read_tables(paths.tables)
    cases = read_cases(params, paths, tables)
    anchors = {(c.dataset, c.classifier): f"cell-{k}" for k, c in enumerate(cases, 1)}
    sections = [_section(case, anchors, params, paths) for case in cases]
    times = stage_times(params, paths)
    jinja = environment()
    jinja.filters |= {"fixed": fixed, "signed": signed, "clock": clock}
    pictures = _pictures(sections)
    return jinja.get_template("page.html.jinja").render(
        params=params,
        settings=yaml.safe_dump(params.model_dump(), sort_keys=False, allow_unicode=True),
        matrix=make_matrix(cases, anchors),
        tables=_views(tables, paths, sections, anchors),
        stability=stability_chart(tables["table4"]),
        randomised=randomisation_charts(tables["randomisation"]),
        sections=sections,
        pictures=pictures,
        meanings=meanings(panel.viewer for _, panel in pictures if panel.viewer),
        columns=[column for column in SPECS["table1"].columns if column.report],
        opened=len(sections) <= OPEN,
        measures=MEASURES,
        faint=FAINT,
        hatchings=svg_charts.hatchings(),
        times=times,
        total=math.fsum(seconds for _, seconds in times),
    )


def _pictures(sections: list[View]) -> list[tuple[View, Panel]]:
    """Choose panels for the top, with their sections: one of each case, then the next of each."""
    shown = [[(s, panel) for panel in s["panels"] if panel.viewer] for s in sections]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*shown))
    return list(itertools.islice(filter(None, turns), PICTURES))


def _views(tables: Tables, paths: Paths, sections: list[View], anchors: Anchors) -> dict[str, View]:
    """Make the tables of the page by name, without the empty ones."""
    panels = {s["anchor"] for s in sections if s["panels"] or s["curves"].charts}
    leading = {
        case: f"{anchor}-curves" if anchor in panels else anchor for case, anchor in anchors.items()
    }
    return {
        table.name: make_view(table, paths.table(name), leading)
        for name, found in all_tables(tables).items()
        for table in found
        if table.lines
    }


def _axis(values: list[float]) -> tuple[float, float]:
    """Return whole tenths around the values, at least one tenth apart."""
    high = math.ceil(max(values) * 10)
    return min(math.floor(min(values) * 10), high - 1) / 10, high / 10


def _section(case: Case, anchors: Anchors, params: Params, paths: Paths) -> View:
    data = ShardedDataset(paths.dataset(case.dataset), "test")
    seed, best = case.seeds[0], case.best_baseline()
    ends = [row[k] for row in case.rows for k in ("auc", "auc_low", "auc_high")]
    known = [value for value in ends if value is not None] or [0.0, 1.0]
    names = case.dataset, case.classifier
    seeds = {seed: paths.decomposition(*names, seed) for seed in case.seeds}
    examples = Examples(case, data)
    ablated = case.tables["ablations"]
    return {
        "name": case.name,
        "anchor": anchors[case.dataset, case.classifier],
        "facts": _facts(case, data),
        "claim": make_claim(case),
        "meaning": meaning(case.rows),
        "groups": make_groups(case, params),
        "printed": case.dataset in paper.TABLE1,
        "axis": _axis(known),
        "curves": curve_charts(case, seed, best["method"] if best else None),
        "bars": bar_charts(case, seed),
        "panels": examples.methods(),
        "naive": examples.naive(),
        "uncertainty": examples.uncertainty(),
        "uncertain": uncertain(case, data.class_names, params.evaluate),
        "localised": localised(case, params.evaluate),
        "classes": per_class(case.tables["per_class"]) if case.tables["per_class"] else None,
        "worst": examples.worst(),
        "variants": examples.variants(ablated) if ablated else [],
        "deviations": deviations(case, data),
        "training": training_charts(paths.classifier(*names, "explained"), seeds),
    }


def _facts(case: Case, data: ShardedDataset) -> list[str]:
    """List the basis of a case's numbers: images, accuracy, steps, seeds."""
    row = next((r for r in case.rows if r["images"] is not None), None)
    size = f"{data.image_size}×{data.image_size} pixels"
    facts = [
        f"{len(data.class_names)} classes",
        f"{size}, {'gray' if data.channels == 1 else 'RGB'}",
    ]
    if row is not None:
        scored = scored_images(case.first)
        groups = len({data.groups[i] for i in scored}) or len(set(data.groups))
        facts.append(f"{row['images']} test images in {groups} independent groups")
        facts.append(f"accuracy of the classifier on them {fixed(row['accuracy'])}")
    steps = {r["steps"] for r in case.ours() if r["steps"] is not None}
    facts += [f"{step:,.0f} training steps" for step in sorted(steps)]
    facts.append(f"{'seed' if len(case.seeds) == 1 else 'seeds'} {', '.join(map(str, case.seeds))}")
    return facts


def stage_times(params: Params, paths: Paths) -> list[tuple[str, float]]:
    """List stage items and their seconds in the order of the pipeline, without untimed ones."""
    found: list[tuple[str, dict[str, Any]]] = []
    for dataset in params.datasets:
        for classifier in params.explained:
            case = f"{dataset}/{classifier}"
            for role in ROLES:
                folder = paths.classifier(dataset, classifier, role)
                found.append((f"classifier {case} {role}", read_optional(folder / METRICS)))
            names = [*map(str, params.seeds_of(classifier))]
            names += params.variants_of(dataset, classifier)
            for name in names:
                folder = paths.decomposition(dataset, classifier, name)
                found.append((f"decompose {case} {name}", read_optional(folder / METRICS)))
            for name in [*params.methods, *map(ours_name, names)]:
                summary = read_optional(paths.outcome(dataset, classifier, name) / SUMMARY)
                found.append((f"evaluate {case} {name}", summary))
            probed = read_optional(paths.leakage(dataset, classifier) / LEAKAGE)
            found.append((f"leakage {case}", probed))
            drawn = read_optional(paths.randomisation(dataset, classifier) / RANDOMISATION)
            found.append((f"randomisation {case}", drawn))
    return [(name, values["seconds"]) for name, values in found if values.get("seconds")]
