"""Every table in the paper's own layout, made of the typed rows of the stage `tables`.

Measured values and those of the paper have separate columns.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dxai.config.schema import JOINT
from dxai.results import paper
from dxai.results.io import Row, Tables
from dxai.results.methods import (
    BASELINES,
    NAIVE,
    NEUTRAL,
    ORDER,
    OURS,
    is_contested,
    label,
    rank,
)
from dxai.results.table_specs import SPECS, TableSpec, short_title
from dxai.results.validity import (
    AT_CHANCE,
    BRITTLE,
    CLAIMLESS,
    LEARNT_NOTHING,
    NOT_KNOWN,
    NOTHING_CLAIMED,
    judged,
)
from dxai.results.verdicts import AGAINST_BASELINES, ALIKE, BEST

WORST = 6
"""Number of worst explained images shown for each dataset and classifier."""
NONE = "–"
PAPERS = "The paper's numbers are of other images, at 256 pixels and after 300,000 steps"


@dataclass(frozen=True)
class Number:
    """A number with its count of decimals, and its 95% interval if it has one."""

    value: float | None
    low: float | None = None
    high: float | None = None
    digits: int = 3
    signed: bool = False

    @property
    def text(self) -> str:
        """Format the number alone; a dash if it is missing."""
        return self._shown(self.value)

    @property
    def interval(self) -> str:
        """Format its interval in brackets, or "" without one."""
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

    `name` is its title, `group` the title that it shares with its neighbours. `kind` is 'value'
    (measured here), 'paper' (printed in the paper) or 'text'. `dataset` and `classifier` say what
    its values belong to, unless the line does.
    """

    name: str
    group: str = ""
    kind: str = "value"
    dataset: str = ""
    classifier: str = ""


@dataclass(frozen=True)
class Line:
    """One line.

    Lines of one `kind` belong together: `ours`, `baseline`, `other`, `outside`, or any text.
    `dataset` and `classifier` say what its values belong to, unless the column does. `best` are the
    columns in which it is the lowest of the compared lines.
    """

    cells: Sequence[Cell]
    kind: str = ""
    dataset: str = ""
    classifier: str = ""
    best: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Table:
    """A table as readers see it; the note gives the basis of its numbers."""

    name: str
    title: str
    note: str
    columns: list[Heading]
    lines: list[Line]
    generic: bool = False
    """Whether it lacks a layout of its own."""

    @property
    def spans(self) -> list[tuple[str, int]]:
        """List the titles above columns with their numbers of columns; empty without titles."""
        groups = itertools.groupby(column.group for column in self.columns)
        spans = [(group, len(list(of))) for group, of in groups]
        return spans if any(group for group, _ in spans) else []


# ------------------------------------------------------------------------------------ numbers
def fixed(value: float | None, digits: int = 3) -> str:
    """Format a number with `digits` decimals; a dash if it is missing."""
    return NONE if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 3) -> str:
    """Format like `fixed`, with the sign."""
    text = fixed(value, digits)
    return text.replace("-", "−") if text.startswith(("-", NONE)) else f"+{text}"


BOUNDS = {c.name: c.bounds for spec in SPECS.values() for c in spec.columns if c.bounds}


def measured(row: Row, name: str) -> Number:
    """Return a column of a row with its interval."""
    bounds = BOUNDS.get(name, name)
    return Number(row[name], row.get(f"{bounds}_low"), row.get(f"{bounds}_high"))


def difference(claim: Row) -> Number:
    """Return ours minus the other, with the interval of this paired difference."""
    return replace(measured(claim, "delta"), signed=True)


Validity = Mapping[tuple[str, str], str]
"""Maps dataset and classifier to a word of `dxai.results.validity`, such as `valid`."""


# ------------------------------------------------------------------------------------ tables
def all_tables(tables: Tables) -> dict[str, list[Table]]:
    """Map the name of each CSV file to its tables as readers see them."""
    claims, known = tables["claims"], known_validity(tables["table1"])
    own = {
        "table1": [table1(tables["table1"], claims, known), seconds(tables["table1"])],
        "table2": [table2(tables["table2"], claims, known)],
        "table3": [table3(tables["table3"], claims, known)],
        "table4": [table4(tables["table4"]), table4_normalised(tables["table4"])],
        "table5": [table5(tables["table5"])],
        "table6": [table6(tables["table6"])],
        "definition1": [definition1(tables["definition1"])],
        "ablations": [ablations(tables["ablations"])],
        "localisation": [localisation(tables["localisation"])],
        "leakage": [leakage(tables["leakage"])],
        "randomisation": [randomisation(tables["randomisation"])],
        "per_class": [per_class(tables["per_class"])],
        "per_image": [per_image(tables["per_image"])],
        "claims": [claimed(claims)],
    }
    return {n: own[n] if n in own else [as_it_is(spec, tables[n])] for n, spec in SPECS.items()}


def as_it_is(spec: TableSpec, rows: list[Row]) -> Table:
    """Show the rows of a table without a layout of its own, each number beside its interval."""
    ends = {f"{c.bounds}_{end}" for c in spec.columns if c.bounds for end in ("low", "high")}
    digits = {c.name: c.digits for c in spec.columns if c.type == "number"}
    digits |= {c.name: 0 for c in spec.columns if c.type == "count"}
    shown = [name for name in spec.names if name not in ends]
    columns = [Heading(n, kind="value" if n in digits else "text") for n in shown]
    lines = []
    for row in rows:
        cells = [
            replace(measured(row, n), digits=digits[n]) if n in digits else str(row[n])
            for n in shown
        ]
        case = row.get("dataset", ""), row.get("classifier", "")
        lines.append(Line(cells, "/".join(case), *case))
    return Table(spec.name, spec.title.rstrip("."), "Every row of the file.", columns, lines, True)


def table1(rows: list[Row], claims: list[Row], known: Validity) -> Table:
    """Show methods in lines, datasets in columns; first C = D, as in the paper's values."""
    printed = {(d, m): v for d, methods in paper.TABLE1.items() for m, v in methods.items()}
    rows = [row | {"paper": printed.get((row["dataset"], row["method"]))} for row in rows]
    note = [
        "Area under accuracy(x − β ψ_distinct) / accuracy(x) for β from 0 to 1, with its 95% "
        "interval over independent groups; ours is the mean over seeds, controls are of the first.",
        *_behind(rows, claims, "table1"),
        f"{PAPERS}, and, it seems, of C = D.",
        *_validity(rows, known),
    ]
    title = "Table 1: AUC ↓ while the class-distinct part is removed"
    areas = _areas(rows, _best_claims(claims, "table1"), known, "auc")
    return _table("table1", title, note, *areas)


def table2(rows: list[Row], claims: list[Row], known: Validity) -> Table:
    """Show the deletion of pixels in Table 1's layout."""
    note = [
        "Area under accuracy / accuracy(x) while up to 20% of the pixels are deleted, not divided "
        "by that range: 0.2 is no effect. 95% intervals over independent groups; ours is the mean "
        "over seeds, controls are of the first.",
        *_behind(rows, claims, "table2"),
        f"{PAPERS}.",
        *_validity(rows, known),
    ]
    rows = [{"status": "ok"} | row for row in rows]
    title = "Table 2: area ↓ while pixels are deleted"
    areas = _areas(rows, _best_claims(claims, "table2"), known, "auc_deletion")
    return _table("table2", title, note, *areas)


def table3(rows: list[Row], claims: list[Row], known: Validity) -> Table:
    """Show explained classifiers in lines, scoring ones in columns."""
    scorers = _classifiers(row["scorer"] for row in rows)
    lines = _pivot(rows, ("dataset", "trained"), "scorer", scorers, "auc", "paper")
    columns = [
        *_texts("Dataset", "Trained for"),
        *(Heading(name, "scored by") for name in scorers),
        *(Heading(name, "paper, scored by", "paper") for name in scorers),
    ]
    trained = [row | {"classifier": row["trained"]} for row in rows]
    note = [
        "AUC of the decomposition of one classifier, scored by each and divided by the accuracy "
        "of the one that scores; the mean over seeds. The diagonal should be the lowest.",
        *_about(rows, profile="Profile"),
        *_about(trained, steps="Steps", seeds="Number of seeds"),
        *_images([claim for claim in claims if claim["table"] == "table3"]),
        f"{PAPERS}.",
        *_validity(trained, known),
    ]
    lines = [replace(line, kind=line.dataset) for line in lines]
    return _table("table3", "Table 3: AUC ↓ across classifiers", note, columns, lines)


def table4(rows: list[Row]) -> Table:
    """Show datasets in lines, steps in columns."""
    own = [row for row in rows if row["method"] == OURS]
    steps = sorted({row["step"] for row in own})
    lines = _pivot(own, CASE, "step", steps, "std", "paper")
    columns = [
        *_texts("Dataset", "Classifier"),
        *(Heading(f"{step:,}", "after so many steps") for step in steps),
        *(Heading(f"{step:,}", "paper, at its matching step", "paper") for step in steps),
    ]
    note = [
        "Standard deviation of ψ_distinct over seeds of the decomposition, mean over pixels and "
        "images, with its 95% interval over groups: one frozen classifier, the same z.",
        *_about(own, profile="Profile", seeds="Number of seeds", images="Images"),
        f"{PAPERS}.",
    ]
    title = "Table 4: deviation ↓ over seeds as training goes on"
    return _table("table4", title, note, columns, lines)


def table4_normalised(rows: list[Row]) -> Table:
    """Show Table 4 relative to each image's range, after all steps, beside layer-based maps."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    last = {(*_case(row), row["method"]): row for row in rows}  # the last step comes last
    lines = []
    for line in _pivot(last.values(), CASE, "method", methods, "normalised", "paper_normalised"):
        of = [last.get((line.dataset, line.classifier, method)) for method in methods]
        constant = ", ".join(str(row["constant"]) for row in of if row)
        lines.append(replace(line, cells=[*line.cells, constant]))
    columns = [
        *_texts("Dataset", "Classifier"),
        *(Heading(label(method), "measured") for method in methods),
        *(Heading(label(method), "paper", "paper") for method in methods),
        *_texts("Constant maps"),
    ]
    note = [
        "The deviation divided by each image's range: ours over seeds after all steps, the others "
        "over three layers in a row. Images whose maps are constant are left out; they are "
        "counted in the last column, in the order of the methods.",
        *_about(rows, profile="Profile", seeds="Number of seeds of ours", images="Images"),
        f"{PAPERS}.",
    ]
    title = "Table 4, normalised: deviation ↓ relative to the range"
    return _table("table4-normalised", title, note, columns, lines)


def table5(rows: list[Row]) -> Table:
    numbers = {
        "classes": Heading("Classes"),
        "train": Heading("Training"),
        "validation": Heading("Validation"),
        "test": Heading("Test"),
        "groups_test": Heading("Test groups"),
        "paper_train": Heading("training", "paper", "paper"),
        "paper_test": Heading("test", "paper", "paper"),
    }
    lines = [
        Line([row["dataset"], row["source"], *(Number(row[k], digits=0) for k in numbers)])
        for row in rows
    ]
    note = (
        "Source: drawn, or where the images come from. Groups: images that stay together when test "
        "images are resampled. The paper's training images include validation; a drawn set is "
        "smaller on purpose."
    )
    columns = [*_texts("Dataset", "Source"), *numbers.values()]
    return _table("table5", "Table 5: images of each set", [note], columns, lines)


def table6(rows: list[Row]) -> Table:
    """Show datasets in lines, classifiers in columns."""
    names = list(dict.fromkeys(row["classifier"] for row in rows))
    lines = _pivot(rows, ("dataset",), "classifier", names, "test_accuracy", "paper")
    joint = {"discriminator": JOINT}
    columns = [
        *_texts("Dataset"),
        *(Heading(name, "measured", classifier=joint.get(name, name)) for name in names),
        *(Heading(name, "paper", "paper") for name in names),
    ]
    note = [
        "Share of test images, with Wilson's 95% interval; chosen on validation images. "
        "`discriminator` is a discriminator trained as a classifier alone, the twin of C = D.",
        *_about(rows, profile="Profile", seed="Seeds", images="Test images"),
        f"{PAPERS.replace(' and after 300,000 steps', '')}.",
    ]
    return _table("table6", "Table 6: test accuracy ↑ of the classifiers", note, columns, lines)


def definition1(rows: list[Row]) -> Table:
    """Show how many images each method leaves undecided, and what the twin says of them."""
    columns = _texts("Dataset", "Classifier", "Method")
    columns += _values("Images undecided ↑", "Entropy ↑", "β", "d ↓", "PSNR, dB ↑")
    columns += _values("Twin: entropy ↑", "Twin: p_y")
    digits = {"entropy": 3, "beta": 2, "distance": 3, "psnr_db": 1, "twin_entropy": 3}
    digits |= {"twin_own": 3}
    lines = []
    for row in rows:
        kind = ", generated" if row["method"] == OURS else ""
        numbers = [Number(row[name], digits=n) for name, n in digits.items()]
        lines.append(
            _line(row, label(row["method"]) + kind + _ruled(row), measured(row, "share"), *numbers)
        )
    note = [
        "Share of images with a point x − β ψ, 0 ≤ β ≤ 1, at which the classifier's entropy is at "
        "least 0.9 log c, of the levels of β that are scored, with its 95% interval over "
        "independent groups. The rest is at each image's most undecided point: its entropy over "
        "log c, β, the distance d of Eq. 2 and the PSNR to the image, and, by a twin that nothing "
        "was trained against, the entropy and the probability p_y of the image's class. A small d "
        "counts for something only where the share is high. Undecided for this network alone, "
        "with a sure twin, is an adversarial pattern. Generated is ψ₁; neutral solves Eq. 2 within "
        "what the generator has learnt.",
        *_about(rows, profile="Profile"),
        *_about([row for row in rows if row["method"] == OURS], steps="Steps of ours"),
        *_about(rows, images="Images"),
    ]
    title = "Definition 1: images with an undecided point on the way to x − ψ"
    return _table("definition1", title, note, columns, lines)


def ablations(rows: list[Row]) -> Table:
    """Show decompositions with one change beside the unchanged one."""
    columns = _texts("Dataset", "Classifier", "Variant")
    columns += _values("AUC ↓", "change", "Transfer ↓", "Blur ↓", "PSNR x̂, dB ↑")
    columns += _values("mean |ψ_distinct|", "Neutrality ↑")
    digits = {"auc_transfer": 3, "auc_blur": 3, "psnr_db": 1, "mean_abs_distinct": 3}
    digits |= {"neutrality": 2}
    lines = []
    for row in rows:
        variant = row["variant"].replace("_", " ")
        numbers = [Number(row[name], digits=n) for name, n in digits.items()]
        lines.append(_line(row, variant, measured(row, "auc"), difference(row), *numbers))
    note = [
        "Figs. 6, 12 and 14 of the paper. 95% intervals over independent groups, of the "
        "difference paired by image.",
        *_about(rows, profile="Profile", steps="Steps", seed="Seed", images="Images"),
    ]
    return _table("ablations", "Ablations: the effect of each part", note, columns, lines)


MEASURES = {
    "pointing": "Pointing ↑",
    "average_precision": "Average precision ↑",
    "energy_inside": "Energy inside ↑",
    "mask_area": "Chance",
    "correlation": "Correlation ↑",
}
"""Columns of the table of localisation and their headings."""


def localisation(rows: list[Row]) -> Table:
    """Show how well maps mark the parts known to make the class."""
    columns = _texts("Dataset", "Classifier", "Method")
    columns += _values("Images known", *MEASURES.values())
    lines = []
    for row in rows:
        numbers = [Number(row["known"], digits=0), *(Number(row[key]) for key in MEASURES)]
        lines.append(_line(row, label(row["method"]) + _ruled(row), *numbers))
    note = [
        "Means over the images with ground truth. Pointing: the largest "
        "value lies inside; chance for it, for average precision and for the energy inside is the "
        "share of the image that the region covers. Correlation: of the class-distinct part with "
        "what was added to the image.",
        *_about(rows, images="Images scored"),
    ]
    title = "Localisation: does it mark what makes the class?"
    return _table("localisation", title, note, columns, lines)


def leakage(rows: list[Row]) -> Table:
    """Show how well a probe tells the class from what each method leaves of an image."""
    columns = _texts("Dataset", "Classifier", "Left by")
    columns += _values("Accuracy of the probe ↓", "Chance")
    lines = []
    for row in rows:
        sign = f", {row['sign']}" if row["sign"] not in ("", "part") else ""
        named = "The image itself" if row["method"] == "image" else label(row["method"]) + sign
        lines.append(_line(row, named, measured(row, "accuracy"), Number(row["chance"])))
    note = [
        "A fresh network is trained to tell the class from class-agnostic images of the training "
        "set (x less the class-distinct part, for a heatmap (1 − w)·x) and tested on those of the "
        "test set: the mean over classes of the share that it tells, with its 95% interval over "
        "groups. Chance: nothing of the class is left. The image itself: what this network can "
        "find at most with so many images.",
        *_about(rows, train_images="Training images", images="Test images", groups="Groups"),
    ]
    title = "Leakage: what class-agnostic images still say about the class"
    return _table("leakage", title, note, columns, lines)


def randomisation(rows: list[Row]) -> Table:
    """Show how alike maps stay when every layer of the classifier is drawn anew."""
    columns = _texts("Dataset", "Classifier", "Method")
    columns += _values("Rank correlation ↓", "retrained", "SSIM ↓", "Size of the part")
    columns += _texts("Changes")
    lines = []
    for row in [row for row in rows if row["layers"] == row["of_layers"]]:
        size = row["size"] if row["method"] in (OURS, NAIVE) else None  # heatmaps have no unit
        cells = [measured(row, "rank"), Number(row["retrained"]), measured(row, "ssim")]
        cells += [Number(size, digits=2)]
        lines.append(_line(row, label(row["method"]), *cells, row["changes"] or NONE))
    note = [
        "A method whose maps stay alike does not explain the network: 1 is unchanged, 0 without "
        "any likeness. Spearman's rank correlation and SSIM of |map| before and after all layers "
        "of the classifier are drawn anew, means over test images with 95% intervals over groups. "
        "Changes holds where the rank correlation is below "
        f"{ALIKE:g} with its whole interval. Ours: the ordinary decomposition against a short "
        "training for the random classifier, and, as retrained, against an equally short one for "
        "the trained classifier, with the same seed; here changes holds where the former is less "
        "alike than the latter. Size of the part: its mean |ψ| for the random classifier over that "
        "for the trained one. Random never looks at the network.",
        *_about(rows, profile="Profile", images="Images", groups="Groups"),
        *_about([row for row in rows if row["method"] == OURS], steps="Steps of the short ones"),
    ]
    title = "Model randomisation: what is left of the maps when the weights are random"
    return _table("randomisation", title, note, columns, lines)


def per_class(rows: list[Row]) -> Table:
    """Show classes in lines, methods in columns: Table 1 for the images of each class alone."""
    methods = [m for m in ORDER if any(row["method"] == m for row in rows)]
    key = (*CASE, "class")
    first = {tuple(row[name] for name in key): row for row in reversed(rows)}
    lines = []
    for line in _pivot(rows, key, "method", methods, "auc"):
        row = first[tuple(line.cells[:3])]
        about = Number(row["images"], digits=0), Number(row["accuracy"])
        lines.append(_line(row, row["class"], *about, *line.cells[3:]))
    columns = _texts("Dataset", "Classifier", "Class")
    columns += _values("Images", "Accuracy", *map(label, methods))
    note = (
        "AUC ↓ with its 95% interval over independent groups; each method under its own rule for "
        "the sign, ours of the first seed. A dash: no image of the class was classified correctly."
    )
    return _table("per-class", "Table 1 for each class alone", [note], columns, lines)


def per_image(rows: list[Row]) -> Table:
    """Show the worst explained images of each dataset and classifier, first in the file."""
    columns = _texts("Dataset", "Classifier", "Image", "Class")
    columns += [*_values("Ours ↓", "Best baseline ↓"), *_texts("which")]
    columns += _values("p before", "p after", "Uncertainty over z")
    cases = itertools.groupby(rows, _case)
    lines = []
    for row in [row for _, of in cases for row in itertools.islice(of, WORST)]:
        areas = Number(row["ours"]), Number(row["baseline"])
        best = label(row["best_baseline"]) if row["best_baseline"] else NONE
        numbers = [Number(row[key]) for key in ("before", "after", "uncertainty")]
        lines.append(_line(row, row["id"], row["class"], *areas, best, *numbers))
    note = (
        f"The {WORST} images of each dataset and classifier with the largest area under the "
        "probability of their own class, mean over seeds; p: that probability before and after "
        "the class-distinct part is removed."
    )
    return _table("per-image", "The worst explained images", [note], columns, lines)


def seconds(rows: list[Row]) -> Table:
    """Show each method's time for an image."""
    methods = [m for m in (OURS, *BASELINES, NAIVE) if any(r["method"] == m for r in rows)]
    shown = [row | {"seconds": _time(row["seconds_per_image"])} for row in rows]
    lines = _pivot(shown, CASE, "method", methods, "seconds")
    columns = [*_texts("Dataset", "Classifier"), *_values(*map(label, methods))]
    note = ["The attribution alone, in batches, of the first seed.", *_behind(rows, [], "table1")]
    return _table("seconds", "Seconds per image ↓", note, columns, lines)


def _time(value: float | None) -> str:
    return NONE if value is None else f"{value:.1e}" if value < 1e-3 else f"{value:.2g}"


def claimed(claims: list[Row]) -> Table:
    """Show every claim: its statement, measurements and verdict."""
    columns = _texts("Table", "Dataset", "Classifier", "Claim", "Against")
    columns += _values("Ours", "Other", "Difference", "Seeds", "Images", "Groups")
    columns += _texts("Classifier is", "Verdict")
    lines = []
    for claim in claims:
        cells = [short_title(claim["table"]), *_case(claim), claim["claim"], against(claim)]
        cells += [measured(claim, "ours_value"), Number(claim["other_value"]), difference(claim)]
        cells += [Number(claim[key], digits=0) for key in ("seeds", "images", "groups")]
        found = judged(claim)
        cells += [claim["validity"] or NONE, "no claim" if found in CLAIMLESS else found]
        lines.append(Line(cells, claim["table"], *_case(claim)))
    note = (
        "Every claim is a difference, ours less the other, that should be below 0. It holds if the "
        "whole 95% interval lies below 0, is reversed if it lies above, else these images do not "
        "decide it. There is none where a classifier is brittle or at chance: see Table 1."
    )
    return _table("claims", "What the paper claims, tested on this run", [note], columns, lines)


def against(claim: Row) -> str:
    """Name the method or classifier that a claim compares ours with."""
    if claim["table"] == "table3":
        return claim["other"]
    ruled = claim["table"] in AGAINST_BASELINES and claim["sign"] != "part"
    return label(claim["other"]) + (f", {claim['sign']}" if ruled else "")


# ------------------------------------------------------------------------------------ parts
CASE = ("dataset", "classifier")


def _case(row: Row) -> tuple[str, str]:
    return row["dataset"], row["classifier"]


def _ruled(row: Row) -> str:
    """Return what tells a method's rows apart, behind its name: its rule for the sign, or seed."""
    sign = "" if row["sign"] == "part" else f", {row['sign']}"
    return sign + (f", seed {row['seed']}" if row["method"] in (OURS, NEUTRAL) else "")


def _texts(*names: str) -> list[Heading]:
    return [Heading(name, kind="text") for name in names]


def _values(*names: str) -> list[Heading]:
    return [Heading(name) for name in names]


def _line(row: Row, *cells: Cell) -> Line:
    """Make a line that begins with a row's dataset and classifier."""
    return Line([*_case(row), *cells], "/".join(_case(row)), *_case(row))


def _table(
    name: str, title: str, note: Sequence[str], columns: list[Heading], lines: list[Line]
) -> Table:
    """Make a table, without the paper's columns in which it prints nothing for any line."""
    kept = [
        k
        for k, column in enumerate(columns)
        if column.kind != "paper" or any(str(line.cells[k]) != NONE for line in lines)
    ]
    shown = [
        replace(
            line,
            cells=[line.cells[k] for k in kept],
            best=frozenset(new for new, old in enumerate(kept) if old in line.best),
        )
        for line in lines
    ]
    return Table(name, title, " ".join(note), [columns[k] for k in kept], shown)


def _pivot(
    rows: Iterable[Row],
    key: Sequence[str],
    across: str,
    names: Sequence[Any],
    value: str,
    printed: str = "",
) -> list[Line]:
    """Make a line of rows with the same `key`, with a cell for each of `names`.

    The first row counts. `across` is the column that holds one of `names`, `value` the column of
    the cells (text, or numbers shown with their intervals), and `printed` the column of the paper's
    values, which follow in cells of their own.
    """
    found: dict[tuple[str, ...], dict[Any, Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in key), {}).setdefault(row[across], row)
    lines = []
    for values, members in found.items():
        cells: list[Cell] = []
        for column in filter(None, (value, printed)):
            for member in map(members.get, names):
                text = NONE if member is None else member[column]
                cells.append(text if isinstance(text, str) else measured(member or {}, column))
        classifier = values[1] if len(values) > 1 else ""
        lines.append(Line([*values, *cells], "", values[0], classifier))
    return lines


def _areas(
    rows: list[Row], claims: dict[Any, Row], known: Validity, column: str
) -> tuple[list[Heading], list[Line]]:
    """Put methods in lines, classifiers and datasets in columns, the paper's beside the first.

    `claims` maps dataset and classifier to the claim with the mean of ours over seeds. In the
    column of a brittle classifier, or one at chance, nothing is the best.
    """
    found: dict[Any, dict[tuple[str, str], tuple[Cell, Number]]] = {}
    own: dict[Any, str] = {}
    for row in rows:  # the first seed, and each method's own rule for the sign, come first
        case, method, sign = _case(row), row["method"], row["sign"]
        rule = "" if own.setdefault((*case, method), sign) == sign else sign
        area: Cell = measured(row, column)
        if row["status"] != "ok":
            area = str(row["status"])
        elif method == OURS and case in claims:
            area = measured(claims[case], "ours_value")
        printed = Number(None if rule else row["paper"])
        found.setdefault(case, {}).setdefault((method, rule), (area, printed))
    columns, cases = _texts("Method"), []
    for classifier in _classifiers(classifier for _, classifier in found):
        group = f"{classifier} (C = D)" if classifier == JOINT else classifier
        for case in (case for case in found if case[1] == classifier):
            mark = f" ({known[case]})" if known.get(case) in CLAIMLESS else ""
            columns.append(Heading(case[0] + mark, group, "value", *case))
            columns.append(Heading("paper", group, "paper", *case))
            cases.append(case)
    lowest = {}
    for case, areas in found.items():
        rivals = [
            area.value
            for (method, rule), (area, _) in areas.items()
            if is_contested(method, rule) and isinstance(area, Number) and area.value is not None
        ]
        lowest[case] = None if known.get(case) in CLAIMLESS else min(rivals, default=None)
    first = {case[0]: case for case in reversed(cases)}
    lines = []
    for method, rule in sorted({k for of in found.values() for k in of}, key=_line_order):
        kind = _kind(method, rule)
        cells: list[Cell] = [label(method) + (f", {rule}" if rule else "")]
        best = []
        for case in cases:
            area, printed = found[case].get((method, rule), (NONE, Number(None)))
            low = lowest[case]
            if is_contested(method, rule) and isinstance(area, Number) and low is not None:
                best += [len(cells)] if area.value == low else []
            cells += [area, printed if first[case[0]] == case else NONE]
        lines.append(Line(cells, kind, best=frozenset(best)))
    return columns, lines


def _line_order(line: tuple[str, str]) -> tuple[int, int]:
    return ("ours", "baseline", "other", "outside").index(_kind(*line)), rank(line[0])


def _kind(method: str, rule: str) -> str:
    """Return the kind of a line; `other` is a baseline with a sign rule not its own."""
    if method not in BASELINES:
        return "ours" if method == OURS else "outside"
    return "other" if rule else "baseline"


def _best_claims(claims: list[Row], table: str) -> dict[Any, Row]:
    chosen = [c for c in claims if c["table"] == table and c["claim"] == BEST]
    return {_case(claim): claim for claim in chosen}


def _classifiers(names: Iterable[str]) -> list[str]:
    """Return each name once, C = D first."""
    return sorted(dict.fromkeys(names), key=lambda name: name != JOINT)


# ------------------------------------------------------------------------------------ notes
def known_validity(rows: list[Row]) -> Validity:
    """Collect the validity of each dataset and classifier from the rows of table1.csv."""
    return {_case(row): row["validity"] or NOT_KNOWN for row in rows}


def _validity(rows: Iterable[Row], known: Validity) -> list[str]:
    """Name the classifiers behind some rows that are not known to be valid."""
    cases: dict[str, list[str]] = {}
    for case in dict.fromkeys(map(_case, rows)):
        cases.setdefault(known.get(case, NOT_KNOWN), []).append(" ".join(case))
    said = []
    if untaught := cases.get(AT_CHANCE):
        said.append(f"At chance: {', '.join(untaught)}. {LEARNT_NOTHING}")
    if brittle := cases.get(BRITTLE):
        named = ", ".join(brittle)
        said.append(
            f"Brittle (a row of Random is below evaluate.valid_auc): {named}. {NOTHING_CLAIMED}"
        )
    if unknown := cases.get(NOT_KNOWN):
        said.append(f"Validity not known (Random was not scored): {', '.join(unknown)}.")
    return said


def _behind(rows: list[Row], claims: list[Row], table: str) -> list[str]:
    """List profile, steps, seeds, images and groups behind a table of methods."""
    found = list(_best_claims(claims, table).values())
    own = [row for row in rows if row["method"] == OURS]
    return [
        *_about(rows, profile="Profile"),
        *_about(own, steps="Steps of ours", seed="Seeds of ours"),
        *(_images(found) if found else _about(rows, images="Images")),
    ]


def _images(claims: list[Row]) -> list[str]:
    shown = [claim | {"shown": f"{claim['images']} ({claim['groups']})"} for claim in claims]
    return _about(shown, shown="Images (independent groups)")


def _about(rows: Sequence[Row], **titles: str) -> list[str]:
    """Describe columns by titles: a value once if all rows agree, else by what differs."""
    sentences = []
    for key, title in titles.items():
        known = [row for row in rows if row.get(key) is not None and row.get(key) != ""]
        if not known:
            continue
        for names in ((), ("dataset",), ("classifier",), CASE):
            found: dict[str, dict[tuple[str, str], dict[str, None]]] = {}
            for row in known:
                about = " ".join(row[name] for name in names)
                case = (row.get("dataset", ""), row.get("classifier", ""))
                value = row[key]
                text = f"{value:,}" if isinstance(value, int) and key != "seed" else str(value)
                found.setdefault(about, {}).setdefault(case, {})[text] = None
            if all(len({tuple(texts) for texts in of.values()}) == 1 for of in found.values()):
                break
        texts = [
            f"{about} {', '.join(next(iter(of.values())))}".strip() for about, of in found.items()
        ]
        sentences.append(f"{title}: {'; '.join(texts)}.")
    return sentences
