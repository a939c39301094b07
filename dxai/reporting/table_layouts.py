"""Every table in the paper's own layout, made of the rows that the stage `tables` writes.

What is measured and what the paper prints stand in columns of their own and are never mixed.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dxai.config.schema import JOINT
from dxai.results import paper
from dxai.results.methods import BASELINES, NAIVE, ORDER, OURS, style

Row = dict[str, Any]
Rows = dict[str, list[Row]]
"""Name of a table to its rows, as `read_tables` gives them."""

NAMES = (
    "table1", "table2", "table3", "table4", "table5", "table6", "ablations", "localisation",
    "per_class", "per_image", "claims",
)  # fmt: skip
TEXT = frozenset(
    [
        "dataset", "classifier", "method", "sign", "profile", "status", "reason", "trained",
        "scorer", "source", "variant", "class", "id", "group", "best_baseline", "claim", "other",
        "holds",
    ]
)  # fmt: skip
BEST = "ours is below the best baseline"
WORST = 6
"""Images of each dataset and classifier that are shown as the worst explained."""
NONE = "–"
PAPERS = "The paper's numbers are of other images, at 256 pixels and after 300,000 steps"


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes
    ----------
    name, group : str
        What it is called, and what stands above it and its neighbours.
    kind : str
        `value`; `paper`, what the paper prints; `text`.
    dataset, classifier : str
        What its values are of, where that is not said by the line.
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
    cells : list of str
    kind : str
        Lines of one kind belong together: `ours`, `baseline`, `other`, `outside`, or anything.
    dataset, classifier : str
        What its values are of, where that is not said by the column.
    best : frozenset of int
        Columns in which it is the lowest of those that are compared.
    """

    cells: list[str]
    kind: str = ""
    dataset: str = ""
    classifier: str = ""
    best: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Table:
    """A table as it is read; the note says what stands behind its numbers."""

    name: str
    title: str
    note: str
    columns: list[Column]
    lines: list[Line]


# ------------------------------------------------------------------------------------ reading
def read_table(path: Path) -> list[Row]:
    """The rows of a CSV table: text columns as they are, numbers as float, empty and NaN as None.

    Raises
    ------
    ValueError
        If the file is missing, or a number is none.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [
                {key: _value(key, text, path) for key, text in row.items()}
                for row in csv.DictReader(file)
            ]
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; run the stages before first") from None


def read_tables(folder: Path) -> Rows:
    """Every table of results/tables/."""
    return {name: read_table(folder / f"{name}.csv") for name in NAMES}


def _value(key: str, text: str, path: Path) -> Any:
    if key in TEXT:
        return text or ""
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{path}: {key} is {text!r}, not a number") from None
    return number if math.isfinite(number) else None


# ------------------------------------------------------------------------------------ numbers
def fixed(value: float | None, digits: int = 3) -> str:
    """A number with so many decimals; a dash if there is none."""
    return NONE if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 3) -> str:
    """The same with its sign."""
    text = fixed(value, digits)
    return text.replace("-", "−") if text.startswith(("-", NONE)) else f"+{text}"


def with_interval(row: Row, name: str, digits: int = 3) -> str:
    """`row[name]` with its interval: 0.760 [0.716, 0.802]."""
    return measured(row[name], row.get(f"{name}_low"), row.get(f"{name}_high"), digits)


def measured(value: float | None, low: float | None, high: float | None, digits: int = 3) -> str:
    """A number and, if it has one, its interval."""
    bounds = f" [{fixed(low, digits)}, {fixed(high, digits)}]"
    return fixed(value, digits) + ("" if low is None or high is None else bounds)


def difference(claim: Row, digits: int = 3) -> str:
    """Ours less the other, with the interval of this paired difference."""
    ends = ", ".join(signed(claim[f"delta_{end}"], digits) for end in ("low", "high"))
    return f"{signed(claim['delta'], digits)} [{ends}]"


def verdict(claim: Row) -> str:
    """What the interval of a difference says: it should lie below 0."""
    low, high = claim["delta_low"], claim["delta_high"]
    if low is None or high is None:
        return "unknown"
    if high < 0:
        return "holds"
    return "does not hold" if low > 0 else "undecided"


# ------------------------------------------------------------------------------------ tables
def all_tables(rows: Rows) -> dict[str, list[Table]]:
    """Name of each CSV file to what is read from it."""
    claims = rows["claims"]
    return {
        "table1": [table1(rows["table1"], claims), seconds(rows["table1"])],
        "table2": [table2(rows["table2"], claims)],
        "table3": [table3(rows["table3"], claims)],
        "table4": [table4(rows["table4"]), table4_normalised(rows["table4"])],
        "table5": [table5(rows["table5"])],
        "table6": [table6(rows["table6"])],
        "ablations": [ablations(rows["ablations"])],
        "localisation": [localisation(rows["localisation"])],
        "per_class": [per_class(rows["per_class"])],
        "per_image": [per_image(rows["per_image"])],
        "claims": [claimed(claims)],
    }


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
    """The same for the deletion of pixels."""
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
    cells = {(row["dataset"], row["trained"], row["scorer"]): row for row in rows}
    lines = []
    for dataset, trained in dict.fromkeys((row["dataset"], row["trained"]) for row in rows):
        of = [cells.get((dataset, trained, scorer)) for scorer in scorers]
        values = [with_interval(row, "auc") if row else NONE for row in of]
        values += [fixed(row["paper"]) if row else NONE for row in of]
        lines.append(Line([dataset, trained, *values], dataset, dataset, trained))
    columns = [
        Column("Dataset", kind="text"),
        Column("Trained for", kind="text"),
        *(Column(name, "scored by") for name in scorers),
        *(Column(name, "paper, scored by", "paper") for name in scorers),
    ]
    note = [
        "AUC of the decomposition of one classifier, scored by each and divided by the accuracy "
        "of the one that scores; the mean over seeds. The diagonal should be the lowest.",
        *_about(rows, "Profile", "profile"),
        *_about([r | {"classifier": r["trained"]} for r in rows], "Steps", "steps"),
        *_about([r | {"classifier": r["trained"]} for r in rows], "Number of seeds", "seeds"),
        _images([claim for claim in claims if claim["table"] == 3]),
        f"{PAPERS}.",
    ]
    title = "Table 3: AUC ↓ across classifiers"
    return _without_empty(Table("table3", title, " ".join(filter(None, note)), columns, lines))


def table4(rows: list[Row]) -> Table:
    """Datasets in lines, steps in columns."""
    own = [row for row in rows if row["method"] == OURS]
    steps = sorted({int(row["step"]) for row in own})
    lines = []
    for place in dict.fromkeys((row["dataset"], row["classifier"]) for row in own):
        of = {int(r["step"]): r for r in own if (r["dataset"], r["classifier"]) == place}
        values = [with_interval(of[s], "std") if s in of else NONE for s in steps]
        values += [fixed(of[s]["paper"]) if s in of else NONE for s in steps]
        lines.append(Line([*place, *values], "", *place))
    columns = [
        Column("Dataset", kind="text"),
        Column("Classifier", kind="text"),
        *(Column(f"{step:,}", "after so many steps") for step in steps),
        *(Column(f"{step:,}", "paper, at its matching step", "paper") for step in steps),
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
    lines = []
    for place in dict.fromkeys((row["dataset"], row["classifier"]) for row in rows):
        here = [row for row in rows if (row["dataset"], row["classifier"]) == place]
        last = {row["method"]: row for row in here}  # the last step of ours comes last
        values = [with_interval(last[m], "normalised") if m in last else NONE for m in methods]
        values += [fixed(last[m]["paper_normalised"]) if m in last else NONE for m in methods]
        constant = ", ".join(f"{last[m]['constant']:.0f}" for m in methods if m in last)
        lines.append(Line([*place, *values, constant], "", *place))
    labels = [style(method).label for method in methods]
    columns = [
        Column("Dataset", kind="text"),
        Column("Classifier", kind="text"),
        *(Column(label, "measured") for label in labels),
        *(Column(label, "paper", "paper") for label in labels),
        Column("Constant maps", kind="text"),
    ]
    note = [
        "The deviation divided by each image's range: ours over seeds after all steps, the others "
        "over three layers in a row. Images whose maps are constant have no part in it; they are "
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
    columns = [Column("Dataset", kind="text"), Column("Source", kind="text")]
    for key, name in numbers.items():
        printed = key.startswith("paper")
        columns.append(Column(name, *(("paper", "paper") if printed else ("", "value"))))
    lines = [
        Line([row["dataset"], row["source"], *(fixed(row[k], 0) for k in numbers)], "")
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
    cells = {(row["dataset"], row["classifier"]): row for row in rows}
    lines = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        of = [cells.get((dataset, name)) for name in names]
        values = [_accuracy(row) if row else NONE for row in of]
        values += [fixed(row["paper"]) if row else NONE for row in of]
        lines.append(Line([dataset, *values], "", dataset))
    joint = {"discriminator": JOINT}
    columns = [
        Column("Dataset", kind="text"),
        *(Column(name, "measured", classifier=joint.get(name, name)) for name in names),
        *(Column(name, "paper", "paper", classifier=joint.get(name, name)) for name in names),
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
    columns = [
        Column("Dataset", kind="text"),
        Column("Classifier", kind="text"),
        Column("Variant", kind="text"),
        Column("AUC ↓"),
        Column("less as it is"),
        Column("Transfer ↓"),
        Column("Blur ↓"),
        Column("PSNR x̂, dB ↑"),
        Column("mean |ψ_distinct|"),
        Column("Neutrality ↑"),
    ]
    lines = []
    for row in rows:
        delta = difference(row) if row["delta"] is not None else NONE
        values = [with_interval(row, "auc"), delta, fixed(row["auc_transfer"])]
        values += [fixed(row["auc_blur"]), fixed(row["psnr_db"], 1)]
        values += [fixed(row["mean_abs_distinct"]), fixed(row["neutrality"], 2)]
        place = row["dataset"], row["classifier"]
        lines.append(Line([*place, plain(row["variant"]), *values], "/".join(place), *place))
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


def plain(variant: str) -> str:
    """The name of an ablation in words."""
    return variant.replace("_", " ")


MEASURES = {
    "pointing": "Pointing ↑",
    "average_precision": "Average precision ↑",
    "energy_inside": "Energy inside ↑",
    "mask_area": "Chance",
    "correlation": "Correlation ↑",
}
"""Columns of the table of localisation, and what they are called."""


def localisation(rows: list[Row]) -> Table:
    """How well maps mark what is known to make the class."""
    columns = [
        Column("Dataset", kind="text"),
        Column("Classifier", kind="text"),
        Column("Method", kind="text"),
        Column("Images known"),
        *map(Column, MEASURES.values()),
    ]
    lines = []
    for row in rows:
        place, values = (row["dataset"], row["classifier"]), [fixed(row[k]) for k in MEASURES]
        label = f"{_label(row)}, seed {row['seed']:.0f}" if row["method"] == OURS else _label(row)
        cells = [*place, label, fixed(row["known"], 0), *values]
        lines.append(Line(cells, "/".join(place), *place))
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
    cells: dict[tuple[str, str, str], dict[str, Row]] = {}
    for row in rows:  # the first seed comes first
        place = (row["dataset"], row["classifier"], row["class"])
        cells.setdefault(place, {}).setdefault(row["method"], row)
    lines = []
    for place, of in cells.items():
        first = next(iter(of.values()))
        values = [with_interval(of[m], "auc") if m in of else NONE for m in methods]
        cells_of = [*place, fixed(first["images"], 0), fixed(first["accuracy"]), *values]
        lines.append(Line(cells_of, "/".join(place[:2]), *place[:2]))
    columns = [Column(name, kind="text") for name in ("Dataset", "Classifier", "Class")]
    columns += [Column("Images"), Column("Accuracy"), *(Column(style(m).label) for m in methods)]
    note = (
        "AUC ↓ with its 95% interval over independent groups; each method under its own rule for "
        "the sign, ours of the first seed. A dash: no image of the class was classified rightly."
    )
    return Table("per-class", "Table 1 for each class alone", note, columns, lines)


def per_image(rows: list[Row]) -> Table:
    """The worst explained images of each dataset and classifier."""
    columns = [Column(name, kind="text") for name in ("Dataset", "Classifier", "Image", "Class")]
    columns += [Column("Ours ↓"), Column("Best baseline ↓"), Column("which", kind="text")]
    columns += [Column("p before"), Column("p after"), Column("Uncertainty over z")]
    lines = []
    for row in worst(rows):
        place = row["dataset"], row["classifier"]
        best = style(row["best_baseline"]).label if row["best_baseline"] else NONE
        cells = [*place, row["id"], row["class"], fixed(row["ours"]), fixed(row["baseline"]), best]
        cells += [fixed(row[key]) for key in ("before", "after", "uncertainty")]
        lines.append(Line(cells, "/".join(place), *place))
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
        found.setdefault((row["dataset"], row["classifier"]), []).append(row)
    return [row for of in found.values() for row in of[:WORST]]


def seconds(rows: list[Row]) -> Table:
    """How long each method takes for an image."""
    cells = {(r["dataset"], r["classifier"], r["method"]): r for r in reversed(rows)}
    methods = [m for m in (OURS, *BASELINES, NAIVE) if any(r["method"] == m for r in rows)]
    lines = []
    for place in dict.fromkeys((row["dataset"], row["classifier"]) for row in rows):
        of = [cells.get((*place, method)) for method in methods]
        values = [_time(row["seconds_per_image"]) if row else NONE for row in of]
        lines.append(Line([*place, *values], "", *place))
    columns = [Column("Dataset", kind="text"), Column("Classifier", kind="text")]
    columns += [Column(style(method).label) for method in methods]
    note = ["The attribution alone, in batches, of the first seed.", *_behind(rows, [], 1)]
    return Table("seconds", "Seconds per image ↓", " ".join(note), columns, lines)


def _time(value: float | None) -> str:
    return NONE if value is None else f"{value:.1e}" if value < 1e-3 else f"{value:.2g}"


def claimed(claims: list[Row]) -> Table:
    """Every claim: what it says, what was measured, whether it holds."""
    columns = [Column("Table", kind="text"), Column("Dataset", kind="text")]
    columns += [Column(name, kind="text") for name in ("Classifier", "Claim", "Against")]
    columns += [Column("Ours"), Column("Other"), Column("Difference")]
    columns += [Column("Seeds"), Column("Images"), Column("Groups"), Column("Verdict", kind="text")]
    lines = []
    for claim in claims:
        place = claim["dataset"], claim["classifier"]
        cells = [f"{claim['table']:.0f}", *place, claim["claim"], against(claim)]
        cells += [ours(claim), fixed(claim["other_value"])]
        cells += [difference(claim), *(fixed(claim[k], 0) for k in ("seeds", "images", "groups"))]
        lines.append(Line([*cells, verdict(claim)], f"{claim['table']:.0f}", *place))
    note = (
        "Every claim is a difference, ours less the other, that should be below 0. It holds if the "
        "whole 95% interval lies below 0, does not hold if it lies above, else these images do not "
        "decide it."
    )
    return Table("claims", "What the paper claims, tested on this run", note, columns, lines)


def against(claim: Row) -> str:
    """What a claim compares ours with."""
    if claim["table"] == 3:
        return claim["other"]
    signed_rule = f", {claim['sign']}" if claim["table"] in (1, 2) else ""
    return style(claim["other"]).label + ("" if signed_rule == ", part" else signed_rule)


# ------------------------------------------------------------------------------------ parts
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
        place = row["dataset"], row["classifier"]
        first = own.setdefault((place, row["method"]), row["sign"])
        rule = "" if row["sign"] == first else row["sign"]
        cells.setdefault(place, {}).setdefault((row["method"], rule), row)
    order = _classifiers(classifier for _, classifier in cells)
    datasets = list(dict.fromkeys(dataset for dataset, _ in cells))
    columns, places, told = [Column("Method", kind="text")], [], set()
    for classifier in order:
        group = f"{classifier} (C = D)" if classifier == JOINT else classifier
        for dataset in (d for d in datasets if (d, classifier) in cells):
            columns.append(Column(dataset, group, "value", dataset, classifier))
            places.append(((dataset, classifier), False))
            if dataset not in told and any(
                r.get("paper") is not None for r in cells[dataset, classifier].values()
            ):
                columns.append(Column("paper", group, "paper", dataset, classifier))
                places.append(((dataset, classifier), True))
            told.add(dataset)
    lines, lowest = [], _lowest(cells, claims, column)
    for method, sign in _kinds(cells):
        kind = _kind(method, sign)
        texts, best = [], []
        for place, printed in places:
            cell = cells[place].get((method, sign))
            if printed:
                texts.append(fixed(cell["paper"]) if cell and not sign else NONE)
                continue
            value, text = _area(cell, claims.get(place) if method == OURS else None, column)
            texts.append(text)
            if kind != "outside" and value is not None and value == lowest.get(place):
                best.append(len(texts))
        label = style(method).label + (f", {sign}" if sign else "")
        lines.append(Line([label, *texts], kind, best=frozenset(best)))
    return Table(name, title, note, columns, lines)


def _area(row: Row | None, claim: Row | None, column: str) -> tuple[float | None, str]:
    """A cell's value, and as it is shown."""
    if row is None:
        return None, NONE
    if row["status"] != "ok":
        return None, row["status"]
    if claim is not None:
        return claim["ours_value"], ours(claim)
    return row[column], with_interval(row, column)


def _kinds(cells: dict[Any, dict[tuple[str, str], Row]]) -> list[tuple[str, str]]:
    """Methods, and a sign rule that is not their own, in the order of the lines."""
    found = {key for of in cells.values() for key in of}
    places = {kind: place for place, kind in enumerate(("ours", "baseline", "other", "outside"))}
    return sorted(found, key=lambda key: (places[_kind(*key)], ORDER.index(key[0])))


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
    for place, of in cells.items():
        values = [
            _area(row, claims.get(place) if method == OURS else None, column)[0]
            for (method, _), row in of.items()
            if method in (OURS, *BASELINES)
        ]
        if known := [value for value in values if value is not None]:
            lowest[place] = min(known)
    return lowest


def _best_claims(claims: list[Row], table: int) -> dict[Any, Row]:
    return {
        (claim["dataset"], claim["classifier"]): claim
        for claim in claims
        if claim["table"] == table and claim["claim"] == BEST
    }


def ours(claim: Row) -> str:
    """Our side of a claim: the mean over seeds, with its interval."""
    return measured(claim["ours_value"], claim["ours_low"], claim["ours_high"])


def _accuracy(row: Row) -> str:
    return measured(row["test_accuracy"], row["accuracy_low"], row["accuracy_high"])


def _label(row: Row) -> str:
    shown = "" if row["sign"] == "part" else f", {row['sign']}"
    return style(row["method"]).label + shown


def _classifiers(names: Iterable[str]) -> list[str]:
    """Each once, C = D first."""
    return sorted(dict.fromkeys(names), key=lambda name: name != JOINT)


def _without_empty(table: Table) -> Table:
    """Without columns in which the paper prints nothing for any line."""
    kept = [
        place
        for place, column in enumerate(table.columns)
        if column.kind != "paper" or any(line.cells[place] != NONE for line in table.lines)
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
    shown = [
        claim | {"shown": f"{claim['images']:.0f} ({claim['groups']:.0f})"} for claim in claims
    ]
    return " ".join(_about(shown, "Images (independent groups)", "shown"))


def _about(rows: Sequence[Row], title: str, key: str) -> list[str]:
    """What a column holds as a sentence: once if it is the same for all, else by what differs."""
    known = [row for row in rows if row.get(key) is not None and row.get(key) != ""]
    if not known:
        return []
    for names in ((), ("dataset",), ("classifier",), ("dataset", "classifier")):
        found: dict[str, dict[str, None]] = {}
        every: dict[str, dict[tuple[str, str], dict[str, None]]] = {}
        for row in known:
            place = " ".join(row[name] for name in names)
            found.setdefault(place, {})[_shown(key, row[key])] = None
            whole = (row.get("dataset", ""), row.get("classifier", ""))
            every.setdefault(place, {}).setdefault(whole, {})[_shown(key, row[key])] = None
        if all(len({tuple(v) for v in of.values()}) == 1 for of in every.values()):
            break
    texts = [f"{place} {', '.join(values)}".strip() for place, values in found.items()]
    return [f"{title}: {'; '.join(texts)}."]


def _shown(key: str, value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if key == "seed" else f"{value:,.0f}"
