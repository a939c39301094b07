"""Every table in the paper's own layout, made of the typed rows of the stage `tables`.

Measured values and those that the paper prints stand in separate columns and are never mixed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dxai.config.schema import JOINT
from dxai.results import paper
from dxai.results.io import Row, Tables
from dxai.results.methods import BASELINES, NAIVE, ORDER, OURS, label
from dxai.results.table_specs import SPECS, TableSpec
from dxai.results.verdicts import BEST, verdict

WORST = 6
"""Images of each dataset and classifier that are shown as the worst explained."""
NONE = "–"
PAPERS = "The paper's numbers are of other images, at 256 pixels and after 300,000 steps"


@dataclass(frozen=True)
class Number:
    """A number with so many decimals, and its 95% interval if it has one."""

    value: float | None
    low: float | None = None
    high: float | None = None
    digits: int = 3
    signed: bool = False

    @property
    def text(self) -> str:
        """The number alone; a dash if it is missing."""
        return self._shown(self.value)

    @property
    def interval(self) -> str:
        """Its interval in brackets, or nothing."""
        if self.low is None or self.high is None:
            return ""
        return f"[{self._shown(self.low)}, {self._shown(self.high)}]"

    def __str__(self) -> str:
        return f"{self.text} {self.interval}".rstrip()

    def _shown(self, value: float | None) -> str:
        return (signed if self.signed else fixed)(value, self.digits)


Cell = str | Number


@dataclass(frozen=True)
class Heading:
    """The head of a column.

    Attributes
    ----------
    name, group : str
        Its title, and the one above it and its neighbours.
    kind : {'value', 'paper', 'text'}
        Measured here, printed in the paper, or text.
    dataset, classifier : str
        What its values belong to, where the line does not say so.
    """

    name: str
    group: str = ""
    kind: str = "value"
    dataset: str = ""
    classifier: str = ""


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes
    ----------
    cells : list of str or Number
    kind : str
        Lines of one kind belong together: `ours`, `baseline`, `other`, `outside`, or anything.
    dataset, classifier : str
        What its values belong to, where the column does not say so.
    best : frozenset of int
        Columns in which it is the lowest of those that are compared.
    """

    cells: Sequence[Cell]
    kind: str = ""
    dataset: str = ""
    classifier: str = ""
    best: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Table:
    """A table as readers see it; the note says what its numbers rest on."""

    name: str
    title: str
    note: str
    columns: list[Heading]
    lines: list[Line]
    generic: bool = False
    """Whether it has no layout of its own."""

    @property
    def spans(self) -> list[tuple[str, int]]:
        """Titles above columns, and how many columns each spans; empty without titles."""
        groups = itertools.groupby(column.group for column in self.columns)
        spans = [(group, len(list(of))) for group, of in groups]
        return spans if any(group for group, _ in spans) else []


# ------------------------------------------------------------------------------------ numbers
def fixed(value: float | None, digits: int = 3) -> str:
    """A number with so many decimals; a dash if it is missing."""
    return NONE if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 3) -> str:
    """The same with its sign."""
    text = fixed(value, digits)
    return text.replace("-", "−") if text.startswith(("-", NONE)) else f"+{text}"


def measured(row: Row, name: str, bounds: str = "") -> Number:
    """A column of a row with its interval."""
    bounds = bounds or name
    return Number(row[name], row.get(f"{bounds}_low"), row.get(f"{bounds}_high"))


def difference(claim: Row) -> Number:
    """Ours minus the other, with the interval of this paired difference."""
    return Number(claim["delta"], claim["delta_low"], claim["delta_high"], signed=True)


def ours(claim: Row) -> Number:
    """Our side of a claim: the mean over seeds, with its interval."""
    return measured(claim, "ours_value", "ours")


# ------------------------------------------------------------------------------------ tables
def all_tables(tables: Tables) -> dict[str, list[Table]]:
    """Name of each CSV file to the tables that readers see of it."""
    claims = tables["claims"]
    own = {
        "table1": [table1(tables["table1"], claims), seconds(tables["table1"])],
        "table2": [table2(tables["table2"], claims)],
        "table3": [table3(tables["table3"], claims)],
        "table4": [table4(tables["table4"]), table4_normalised(tables["table4"])],
        "table5": [table5(tables["table5"])],
        "table6": [table6(tables["table6"])],
        "ablations": [ablations(tables["ablations"])],
        "localisation": [localisation(tables["localisation"])],
        "per_class": [per_class(tables["per_class"])],
        "per_image": [per_image(tables["per_image"])],
        "claims": [claimed(claims)],
    }
    return {n: own[n] if n in own else [as_it_is(spec, tables[n])] for n, spec in SPECS.items()}


def as_it_is(spec: TableSpec, rows: list[Row]) -> Table:
    """The rows of a table without a layout of its own, each number beside its interval."""
    ends = {f"{c.bounds}_{end}" for c in spec.columns if c.bounds for end in ("low", "high")}
    shown = [column for column in spec.columns if column.name not in ends]
    lines, columns = [], []
    for row in rows:
        cells: list[Cell] = []
        for c in shown:
            low, high = (row.get(f"{c.bounds}_{end}") for end in ("low", "high"))
            digits = 3 if c.type == "number" else 0
            is_number = c.type in ("number", "count")
            cells.append(Number(row[c.name], low, high, digits) if is_number else str(row[c.name]))
        case = row.get("dataset", ""), row.get("classifier", "")
        lines.append(Line(cells, "/".join(case), *case))
    for c in shown:
        columns.append(Heading(c.name, kind="value" if c.type in ("number", "count") else "text"))
    return Table(spec.name, spec.title.rstrip("."), "Every row of the file.", columns, lines, True)


def table1(rows: list[Row], claims: list[Row]) -> Table:
    """Methods in lines, datasets in columns; C = D, with which the paper's compare, first."""
    note = [
        "Area under accuracy(x − β ψ_distinct) / accuracy(x) for β from 0 to 1, with its 95% "
        "interval over independent groups; ours is the mean over seeds, controls are of the first.",
        *_behind(rows, claims, 1),
        f"{PAPERS}, and, it seems, of C = D.",
    ]
    printed = {(d, m): v for d, methods in paper.TABLE1.items() for m, v in methods.items()}
    scored = [row | {"paper": printed.get((row["dataset"], row["method"]))} for row in rows]
    title = "Table 1: AUC ↓ while the class-distinct part is removed"
    return _areas("table1", title, " ".join(note), scored, _best_claims(claims, 1), "auc")


def table2(rows: list[Row], claims: list[Row]) -> Table:
    """Table 1's layout for the deletion of pixels."""
    note = [
        "Area under accuracy / accuracy(x) while up to 20% of the pixels are deleted, not divided "
        "by that range: 0.2 is no effect. 95% intervals over independent groups; ours is the mean "
        "over seeds, controls are of the first.",
        *_behind(rows, claims, 2),
        f"{PAPERS}.",
    ]
    scored = [{"status": "ok"} | row for row in rows]
    title = "Table 2: area ↓ while pixels are deleted"
    found = _best_claims(claims, 2)
    return _areas("table2", title, " ".join(note), scored, found, "auc_deletion")


def table3(rows: list[Row], claims: list[Row]) -> Table:
    """Lines: the classifier that was explained; columns: the one that scores."""
    scorers = _classifiers(row["scorer"] for row in rows)
    lines = _pivot(
        rows, ("dataset", "trained"), "scorer", scorers, lambda r: measured(r, "auc"), "paper"
    )
    columns = [
        *_texts("Dataset", "Trained for"),
        *(Heading(name, "scored by") for name in scorers),
        *(Heading(name, "paper, scored by", "paper") for name in scorers),
    ]
    trained = [row | {"classifier": row["trained"]} for row in rows]
    note = [
        "AUC of the decomposition of one classifier, scored by each and divided by the accuracy "
        "of the one that scores; the mean over seeds. The diagonal should be the lowest.",
        *_about(rows, "Profile", "profile"),
        *_about(trained, "Steps", "steps"),
        *_about(trained, "Number of seeds", "seeds"),
        _images([claim for claim in claims if claim["table"] == 3]),
        f"{PAPERS}.",
    ]
    lines = [replace(line, kind=line.dataset) for line in lines]
    title = "Table 3: AUC ↓ across classifiers"
    return _without_empty(Table("table3", title, " ".join(filter(None, note)), columns, lines))


def table4(rows: list[Row]) -> Table:
    """Datasets in lines, steps in columns."""
    own = [row for row in rows if row["method"] == OURS]
    steps = sorted({row["step"] for row in own})
    lines = _pivot(own, CASE, "step", steps, lambda r: measured(r, "std"), "paper")
    columns = [
        *_texts("Dataset", "Classifier"),
        *(Heading(f"{step:,}", "after so many steps") for step in steps),
        *(Heading(f"{step:,}", "paper, at its matching step", "paper") for step in steps),
    ]
    note = [
        "Standard deviation of ψ_distinct over seeds of the decomposition, mean over pixels and "
        "images, with its 95% interval over groups: one frozen classifier, the same z.",
        *_about(own, "Profile", "profile"),
        *_about(own, "Number of seeds", "seeds"),
        *_about(own, "Images", "images"),
        f"{PAPERS}.",
    ]
    title = "Table 4: deviation ↓ over seeds as training goes on"
    return _without_empty(Table("table4", title, " ".join(note), columns, lines))


def table4_normalised(rows: list[Row]) -> Table:
    """The same relative to each image's range, after all steps, beside layer-based maps."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    last = {(*_case(row), row["method"]): row for row in rows}  # the last step comes last
    found = _pivot(
        last.values(),
        CASE,
        "method",
        methods,
        lambda row: measured(row, "normalised"),
        "paper_normalised",
    )
    lines = []
    for line in found:
        of = [last.get((line.dataset, line.classifier, method)) for method in methods]
        constant = ", ".join(str(row["constant"]) for row in of if row)
        lines.append(replace(line, cells=[*line.cells, constant]))
    labels = [label(method) for method in methods]
    columns = [
        *_texts("Dataset", "Classifier"),
        *(Heading(name, "measured") for name in labels),
        *(Heading(name, "paper", "paper") for name in labels),
        *_texts("Constant maps"),
    ]
    note = [
        "The deviation divided by each image's range: ours over seeds after all steps, the others "
        "over three layers in a row. Images whose maps are constant are left out; they are "
        "counted in the last column, in the order of the methods.",
        *_about(rows, "Profile", "profile"),
        *_about(rows, "Number of seeds of ours", "seeds"),
        *_about(rows, "Images", "images"),
        f"{PAPERS}.",
    ]
    title = "Table 4, normalised: deviation ↓ relative to the range"
    return _without_empty(Table("table4-normalised", title, " ".join(note), columns, lines))


def table5(rows: list[Row]) -> Table:
    """Numbers of images."""
    numbers = {
        "classes": "Classes",
        "train": "Training",
        "validation": "Validation",
        "test": "Test",
        "groups_test": "Test groups",
        "paper_train": "training",
        "paper_test": "test",
    }
    columns = _texts("Dataset", "Source")
    for key, name in numbers.items():
        printed = key.startswith("paper")
        columns.append(Heading(name, *(("paper", "paper") if printed else ("", "value"))))
    lines = [
        Line([row["dataset"], row["source"], *(Number(row[k], digits=0) for k in numbers)])
        for row in rows
    ]
    note = (
        "Source: drawn, or where the images come from. Groups: what must not be parted when test "
        "images are resampled. The paper's training images include validation; a drawn set is "
        "smaller on purpose."
    )
    return _without_empty(Table("table5", "Table 5: images of each set", note, columns, lines))


def table6(rows: list[Row]) -> Table:
    """Datasets in lines, classifiers in columns."""
    names = list(dict.fromkeys(row["classifier"] for row in rows))
    lines = _pivot(
        rows,
        ("dataset",),
        "classifier",
        names,
        lambda row: measured(row, "test_accuracy", "accuracy"),
        "paper",
    )
    joint = {"discriminator": JOINT}
    columns = [
        *_texts("Dataset"),
        *(Heading(name, "measured", classifier=joint.get(name, name)) for name in names),
        *(Heading(name, "paper", "paper", classifier=joint.get(name, name)) for name in names),
    ]
    note = [
        "Share of test images, with Wilson's 95% interval; chosen on validation images. "
        "`discriminator` is a discriminator trained as a classifier alone, the twin of C = D.",
        *_about(rows, "Profile", "profile"),
        *_about(rows, "Seeds", "seed"),
        *_about(rows, "Test images", "images"),
        f"{PAPERS.replace(' and after 300,000 steps', '')}.",
    ]
    title = "Table 6: test accuracy ↑ of the classifiers"
    return _without_empty(Table("table6", title, " ".join(note), columns, lines))


def ablations(rows: list[Row]) -> Table:
    """One decomposition with something changed, beside the one in which nothing is."""
    columns = _texts("Dataset", "Classifier", "Variant")
    columns += _values("AUC ↓", "less as it is", "Transfer ↓", "Blur ↓", "PSNR x̂, dB ↑")
    columns += _values("mean |ψ_distinct|", "Neutrality ↑")
    digits = {"auc_transfer": 3, "auc_blur": 3, "psnr_db": 1, "mean_abs_distinct": 3}
    digits |= {"neutrality": 2}
    lines = []
    for row in rows:
        cells: list[Cell] = [
            *_case(row),
            in_words(row["variant"]),
            measured(row, "auc"),
            difference(row),
        ]
        cells += [Number(row[name], digits=n) for name, n in digits.items()]
        lines.append(_line_of(row, cells))
    note = [
        "Figs. 6, 12 and 14 of the paper. 95% intervals over independent groups, of the "
        "difference paired by image.",
        *_about(rows, "Profile", "profile"),
        *_about(rows, "Steps", "steps"),
        *_about(rows, "Seed", "seed"),
        *_about(rows, "Images", "images"),
    ]
    title = "Ablations: what each part is good for"
    return Table("ablations", title, " ".join(note), columns, lines)


def in_words(variant: str) -> str:
    """The name of an ablation in words."""
    return variant.replace("_", " ")


MEASURES = {
    "pointing": "Pointing ↑",
    "average_precision": "Average precision ↑",
    "energy_inside": "Energy inside ↑",
    "mask_area": "Chance",
    "correlation": "Correlation ↑",
}
"""Columns of the table of localisation and their headings."""


def localisation(rows: list[Row]) -> Table:
    """How well maps mark what is known to make the class."""
    columns = _texts("Dataset", "Classifier", "Method")
    columns += _values("Images known", *MEASURES.values())
    lines = []
    for row in rows:
        sign = "" if row["sign"] == "part" else f", {row['sign']}"
        name = label(row["method"]) + sign
        name += f", seed {row['seed']}" if row["method"] == OURS else ""
        numbers = [Number(row["known"], digits=0), *(Number(row[key]) for key in MEASURES)]
        lines.append(_line_of(row, [*_case(row), name, *numbers]))
    note = [
        "Means over the images of which it is known what makes the class. Pointing: the largest "
        "value lies inside; chance for it, for average precision and for the energy inside is the "
        "share of the image that the region covers. Correlation: of the class-distinct part with "
        "what was added to the image.",
        *_about(rows, "Images scored", "images"),
    ]
    title = "Localisation: does it mark what makes the class?"
    return Table("localisation", title, " ".join(note), columns, lines)


def per_class(rows: list[Row]) -> Table:
    """Classes in lines, methods in columns: Table 1 for the images of each class alone."""
    methods = [m for m in ORDER if any(row["method"] == m for row in rows)]
    key = (*CASE, "class")
    first = {tuple(row[name] for name in key): row for row in reversed(rows)}
    lines = []
    for line in _pivot(rows, key, "method", methods, lambda row: measured(row, "auc")):
        row = first[tuple(line.cells[:3])]
        about = [Number(row["images"], digits=0), Number(row["accuracy"])]
        lines.append(_line_of(row, [*line.cells[:3], *about, *line.cells[3:]]))
    columns = _texts("Dataset", "Classifier", "Class")
    columns += _values("Images", "Accuracy", *map(label, methods))
    note = (
        "AUC ↓ with its 95% interval over independent groups; each method under its own rule for "
        "the sign, ours of the first seed. A dash: no image of the class was classified rightly."
    )
    return Table("per-class", "Table 1 for each class alone", note, columns, lines)


def per_image(rows: list[Row]) -> Table:
    """The worst explained images of each dataset and classifier."""
    columns = _texts("Dataset", "Classifier", "Image", "Class")
    columns += [*_values("Ours ↓", "Best baseline ↓"), *_texts("which")]
    columns += _values("p before", "p after", "Uncertainty over z")
    lines = []
    for row in worst(rows):
        best = label(row["best_baseline"]) if row["best_baseline"] else NONE
        cells = [*_case(row), row["id"], row["class"], Number(row["ours"]), Number(row["baseline"])]
        cells += [best, *(Number(row[key]) for key in ("before", "after", "uncertainty"))]
        lines.append(_line_of(row, cells))
    note = (
        f"The {WORST} images of each dataset and classifier with the largest area under the "
        "probability of their own class, mean over seeds; p: that probability before and after "
        "the class-distinct part is removed."
    )
    return Table("per-image", "The worst explained images", note, columns, lines)


def worst(rows: list[Row]) -> list[Row]:
    """The first `WORST` of each dataset and classifier: per_image.csv has the worst first."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault(_case(row), []).append(row)
    return [row for of in found.values() for row in of[:WORST]]


def seconds(rows: list[Row]) -> Table:
    """How long each method takes for an image."""
    methods = [m for m in (OURS, *BASELINES, NAIVE) if any(r["method"] == m for r in rows)]
    lines = _pivot(rows, CASE, "method", methods, lambda row: _time(row["seconds_per_image"]))
    columns = [*_texts("Dataset", "Classifier"), *_values(*map(label, methods))]
    note = ["The attribution alone, in batches, of the first seed.", *_behind(rows, [], 1)]
    return Table("seconds", "Seconds per image ↓", " ".join(note), columns, lines)


def _time(value: float | None) -> str:
    return NONE if value is None else f"{value:.1e}" if value < 1e-3 else f"{value:.2g}"


def claimed(claims: list[Row]) -> Table:
    """Every claim: what it says, what was measured, whether it holds."""
    columns = _texts("Table", "Dataset", "Classifier", "Claim", "Against")
    columns += _values("Ours", "Other", "Difference", "Seeds", "Images", "Groups")
    columns += _texts("Verdict")
    lines = []
    for claim in claims:
        cells = [str(claim["table"]), *_case(claim), claim["claim"], against(claim)]
        cells += [ours(claim), Number(claim["other_value"]), difference(claim)]
        cells += [Number(claim[key], digits=0) for key in ("seeds", "images", "groups")]
        cells.append(verdict(claim["delta_low"], claim["delta_high"]))
        lines.append(Line(cells, str(claim["table"]), *_case(claim)))
    note = (
        "Every claim is a difference, ours less the other, that should be below 0. It holds if the "
        "whole 95% interval lies below 0, is reversed if it lies above, else these images do not "
        "decide it."
    )
    return Table("claims", "What the paper claims, tested on this run", note, columns, lines)


def against(claim: Row) -> str:
    """The method, or the classifier, that a claim compares ours with."""
    if claim["table"] == 3:
        return claim["other"]
    signed_rule = f", {claim['sign']}" if claim["table"] in (1, 2) else ""
    return label(claim["other"]) + ("" if signed_rule == ", part" else signed_rule)


# ------------------------------------------------------------------------------------ parts
CASE = ("dataset", "classifier")


def _case(row: Row) -> tuple[str, str]:
    return row["dataset"], row["classifier"]


def _texts(*names: str) -> list[Heading]:
    return [Heading(name, kind="text") for name in names]


def _values(*names: str) -> list[Heading]:
    return [Heading(name) for name in names]


def _line_of(row: Row, cells: list[Cell]) -> Line:
    return Line(cells, "/".join(_case(row)), *_case(row))


def _pivot(
    rows: Iterable[Row],
    key: Sequence[str],
    across: str,
    names: Sequence[Any],
    cell: Callable[[Row], Cell],
    printed: str = "",
) -> list[Line]:
    """Rows with the same `key` as one line with a cell for each of `names`; the first row counts.

    Parameters
    ----------
    across : str
        Column that holds one of `names`.
    printed : str
        Column with the paper's values, which follow in cells of their own.
    """
    found: dict[tuple[str, ...], dict[Any, Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in key), {}).setdefault(row[across], row)
    lines = []
    for values, members in found.items():
        chosen = [members.get(name) for name in names]
        cells: list[Cell] = [cell(row) if row else NONE for row in chosen]
        if printed:
            cells += [Number(row[printed]) if row else NONE for row in chosen]
        classifier = values[1] if len(values) > 1 else ""
        lines.append(Line([*values, *cells], "", values[0], classifier))
    return lines


def _areas(
    name: str, title: str, note: str, rows: list[Row], claims: dict[Any, Row], column: str
) -> Table:
    """Methods in lines; a column for each classifier and dataset, and the paper's beside the first.

    Parameters
    ----------
    claims : dict
        Dataset and classifier to the claim that holds the mean of ours over seeds.
    """
    cells: dict[Any, dict[tuple[str, str], Row]] = {}
    own: dict[Any, str] = {}
    for row in rows:  # the first seed, and each method's own rule for the sign, come first
        first = own.setdefault((*_case(row), row["method"]), row["sign"])
        rule = "" if row["sign"] == first else row["sign"]
        cells.setdefault(_case(row), {}).setdefault((row["method"], rule), row)
    order = _classifiers(classifier for _, classifier in cells)
    datasets = list(dict.fromkeys(dataset for dataset, _ in cells))
    columns, cases, told = _texts("Method"), [], set()
    for classifier in order:
        group = f"{classifier} (C = D)" if classifier == JOINT else classifier
        for dataset in (d for d in datasets if (d, classifier) in cells):
            columns.append(Heading(dataset, group, "value", dataset, classifier))
            cases.append(((dataset, classifier), False))
            if dataset not in told and any(
                r.get("paper") is not None for r in cells[dataset, classifier].values()
            ):
                columns.append(Heading("paper", group, "paper", dataset, classifier))
                cases.append(((dataset, classifier), True))
            told.add(dataset)
    lines, lowest = [], _lowest(cells, claims, column)
    for method, sign in _kinds(cells):
        kind = _kind(method, sign)
        shown: list[Cell] = []
        best: list[int] = []
        for case, printed in cases:
            cell = cells[case].get((method, sign))
            if printed:
                shown.append(Number(cell["paper"]) if cell and not sign else NONE)
                continue
            area = _area(cell, claims.get(case) if method == OURS else None, column)
            shown.append(area)
            if kind != "outside" and _value(area) is not None and _value(area) == lowest.get(case):
                best.append(len(shown))
        name_of = label(method) + (f", {sign}" if sign else "")
        lines.append(Line([name_of, *shown], kind, best=frozenset(best)))
    return Table(name, title, note, columns, lines)


def _area(row: Row | None, claim: Row | None, column: str) -> Cell:
    """An area; why there is none."""
    if row is None:
        return NONE
    if row["status"] != "ok":
        return str(row["status"])
    return measured(row, column) if claim is None else ours(claim)


def _value(cell: Cell) -> float | None:
    return cell.value if isinstance(cell, Number) else None


def _kinds(cells: dict[Any, dict[tuple[str, str], Row]]) -> list[tuple[str, str]]:
    """Methods, and a sign rule that is not their own, in the order of the lines."""
    found = {key for of in cells.values() for key in of}
    kinds = ("ours", "baseline", "other", "outside")
    return sorted(found, key=lambda key: (kinds.index(_kind(*key)), ORDER.index(key[0])))


def _kind(method: str, sign: str) -> str:
    if method == OURS:
        return "ours"
    if method not in BASELINES:
        return "outside"
    return "other" if sign else "baseline"


def _lowest(
    cells: dict[Any, dict[tuple[str, str], Row]], claims: dict[Any, Row], column: str
) -> dict[Any, float]:
    """The lowest value of ours and the baselines of each dataset and classifier."""
    lowest = {}
    for case, found in cells.items():
        areas = [
            _value(_area(row, claims.get(case) if method == OURS else None, column))
            for (method, _), row in found.items()
            if method in (OURS, *BASELINES)
        ]
        if known := [area for area in areas if area is not None]:
            lowest[case] = min(known)
    return lowest


def _best_claims(claims: list[Row], table: int) -> dict[Any, Row]:
    return {
        _case(claim): claim
        for claim in claims
        if claim["table"] == table and claim["claim"] == BEST
    }


def _classifiers(names: Iterable[str]) -> list[str]:
    """Each once, C = D first."""
    return sorted(dict.fromkeys(names), key=lambda name: name != JOINT)


def _without_empty(table: Table) -> Table:
    """Leave out columns in which the paper prints nothing for any line."""
    kept = [
        k
        for k, column in enumerate(table.columns)
        if column.kind != "paper" or any(str(line.cells[k]) != NONE for line in table.lines)
    ]
    lines = [
        Line([line.cells[k] for k in kept], line.kind, line.dataset, line.classifier)
        for line in table.lines
    ]
    columns = [table.columns[k] for k in kept]
    return Table(table.name, table.title, table.note, columns, lines)


# ------------------------------------------------------------------------------------ notes
def _behind(rows: list[Row], claims: list[Row], table: int) -> list[str]:
    """Profile, steps, seeds, images and groups behind a table of methods."""
    found = [claim for claim in claims if claim["table"] == table and claim["claim"] == BEST]
    own = [row for row in rows if row["method"] == OURS]
    images = [_images(found)] if found else _about(rows, "Images", "images")
    about = [*_about(rows, "Profile", "profile"), *_about(own, "Steps of ours", "steps")]
    return [*about, *_about(own, "Seeds of ours", "seed"), *images]


def _images(claims: list[Row]) -> str:
    shown = [claim | {"shown": f"{claim['images']} ({claim['groups']})"} for claim in claims]
    return " ".join(_about(shown, "Images (independent groups)", "shown"))


def _about(rows: Sequence[Row], title: str, key: str) -> list[str]:
    """A column's values as a sentence: once if they are all the same, else by what differs."""
    known = [row for row in rows if row.get(key) is not None and row.get(key) != ""]
    if not known:
        return []
    for names in ((), ("dataset",), ("classifier",), ("dataset", "classifier")):
        found: dict[str, dict[str, None]] = {}
        every: dict[str, dict[tuple[str, str], dict[str, None]]] = {}
        for row in known:
            case = " ".join(row[name] for name in names)
            found.setdefault(case, {})[_shown(key, row[key])] = None
            whole = (row.get("dataset", ""), row.get("classifier", ""))
            every.setdefault(case, {}).setdefault(whole, {})[_shown(key, row[key])] = None
        if all(len({tuple(v) for v in of.values()}) == 1 for of in every.values()):
            break
    texts = [f"{case} {', '.join(values)}".strip() for case, values in found.items()]
    return [f"{title}: {'; '.join(texts)}."]


def _shown(key: str, value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and key != "seed" else str(value)
