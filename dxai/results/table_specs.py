"""The registry of result tables: their files, types, metrics and stages are derived from it.

To add a table, add a `TableSpec` to `_ALL` and write the function that it names. The table is then
made, written as CSV, Markdown and LaTeX, shown in the report, logged to MLflow, published by the
flow and offered by `dxai tables`. A column of Table 1 with headings is also in the terminal and in
the report's table of each case. This module imports nothing heavy, since flows read it.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

STAGES = {
    "outcomes": ("baseline", "ours", "ours_repeat", "joint_baseline", "joint_ours"),
    "ablations": ("ours", "ours_ablation"),
    "cross": ("cross", "cross_repeat"),
    "stability": ("stability",),
    "leakage": ("leakage", "joint_leakage"),
    "randomisation": ("randomisation",),
    "prepared": ("prepare",),
    "classifiers": ("classifier", "joint_twin"),
}
"""Maps a source of a table to the DVC stages that write its folders."""


@dataclass(frozen=True)
class Column:
    """A column of a CSV table.

    Attributes
    ----------
    name : str
        Its heading.
    type : {'text', 'count', 'number', 'truth'}
        str, int, float or bool; a missing value is "" in a text column and None in any other.
    bounds : str
        Prefix of the columns `<bounds>_low` and `<bounds>_high` with its 95% interval.
    metric : str
        First part of its metrics' names in MLflow; not logged as metrics if empty.
    better : {'lower', 'higher'}
        The direction of improvement.
    terminal, report : str
        Heading of a number of Table 1 there (HTML in the report); not shown if empty.
    digits : int
        Decimals of a number there and in a table without a layout.
    """

    name: str
    type: str = "number"
    bounds: str = ""
    metric: str = ""
    better: str = "lower"
    terminal: str = ""
    report: str = ""
    digits: int = 3


@dataclass(frozen=True)
class TableSpec:
    """A table, from the stages it needs to the names of its metrics.

    Attributes
    ----------
    name : str
        Stem of its CSV file; `table<N>` can be selected by number.
    title : str
        One sentence for readers.
    columns : tuple of Column
        Columns of the CSV file.
    make : str
        A `module:function` that is called with a list of folders for each source, then the
        `Params`, and returns a DataFrame with these columns.
    sources : tuple of str
        Keys of `STAGES`.
    key : tuple of str
        Columns whose values complete a metric's name.
    logged : bool
        Whether MLflow and Prefect show it as a table; a large one is only kept as files.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    make: str
    sources: tuple[str, ...] = ("outcomes",)
    key: tuple[str, ...] = ("dataset", "classifier", "method")
    logged: bool = True

    @property
    def names(self) -> list[str]:
        """Return the headings of the CSV file."""
        return [column.name for column in self.columns]

    @property
    def stages(self) -> set[str]:
        """Return the DVC stages whose results the table is made of."""
        return {stage for source in self.sources for stage in STAGES[source]}

    @property
    def maker(self) -> Callable[..., Any]:
        """Return the function that `make` names."""
        found: Callable[..., Any] = pkgutil.resolve_name(self.make)
        return found


def _columns(type: str, names: str) -> Iterable[Column]:
    return (Column(name, type) for name in names.split())


_text, _count, _number = (partial(_columns, type) for type in ("text", "count", "number"))


def _interval(name: str, bounds: str = "", metric: str = "", **shown: Any) -> Iterable[Column]:
    """Return the columns of a number and of both ends of its interval."""
    return Column(name, "number", bounds or name, metric, **shown), *_bounds(bounds or name)


def _bounds(name: str) -> Iterable[Column]:
    return _number(f"{name}_low {name}_high")


_METHOD = (*_text("dataset classifier method sign"), *_count("seed"))

_ALL = (
    TableSpec(
        "table1",
        "Table 1: AUC while the class-distinct part is removed, lower is better.",
        (
            *_METHOD, *_text("profile"), *_count("steps images"), *_number("accuracy"),
            *_interval("auc", metric="auc", terminal="AUC", report="AUC ↓"), *_bounds("delta"),
            Column("auc_energy", terminal="energy", report="Equal<br>energy ↓"),
            Column("auc_transfer", terminal="transfer", report="Trans-<br>fer ↓"),
            Column("auc_transfer_energy", terminal="tr. energy",
                   report="Transfer,<br>energy ↓"),
            Column("auc_blur", terminal="blur", report="Blur ↓"),
            Column("auc_smooth", terminal="smooth", report="Smooth ↓"),
            Column("smooth_deviation", terminal="noise", report="its<br>noise", digits=2),
            Column("psnr_db", terminal="PSNR", report="PSNR<br>x̂, dB ↑", digits=1),
            Column("psnr_removed_db", terminal="PSNR x1", report="PSNR<br>x₁, dB", digits=1),
            Column("mean_abs_distinct", terminal="|distinct|",
                   report="Mean<br>|ψ<sub>distinct</sub>|"),
            Column("neutrality", terminal="neutral", report="Neu-<br>trality ↑", digits=2),
            Column("uncertainty"),
            Column("seconds_per_image", terminal="s/image", report="s per<br>image ↓"),
            *_text("layer status reason validity"),
        ),
        "dxai.results.table_builders:table1",
    ),
    TableSpec(
        "table2",
        "Table 2: area while the pixels that matter most are deleted, lower is better.",
        (
            *_METHOD, *_text("profile"), *_count("steps images"),
            *_interval("auc_deletion", metric="deletion"), *_number("paper"),
        ),
        "dxai.results.table_builders:table2",
    ),
    TableSpec(
        "table3",
        "Table 3: AUC, trained for one classifier, scored by each.",
        (
            *_text("dataset trained scorer"), *_count("seeds"), *_text("profile"),
            *_count("steps images"), *_interval("auc", metric="cross"), *_number("paper"),
        ),
        "dxai.results.table_builders:table3",
        ("cross",),
        ("dataset", "trained", "scorer"),
    ),
    TableSpec(
        "table4",
        "Table 4: standard deviation over seeds.",
        (
            *_text("dataset classifier method"), *_count("step seeds"), *_text("profile"),
            *_count("images"), *_interval("std", metric="std"),
            *_interval("normalised", metric="std_normalised"), *_count("constant"),
            *_number("paper paper_normalised"),
        ),
        "dxai.results.table_builders:table4",
        ("stability",),
    ),
    TableSpec(
        "table5",
        "Table 5: images.",
        (
            *_text("dataset source"), *_count("classes train validation test groups_test"),
            *_count("paper_train paper_test"),
        ),
        "dxai.results.table_builders:table5",
        ("prepared",),
    ),
    TableSpec(
        "table6",
        "Table 6: accuracy of the classifiers.",
        (
            *_text("dataset classifier"), *_count("seed"), *_text("profile"), *_count("images"),
            *_interval("test_accuracy", "accuracy", "accuracy", better="higher"), *_number("paper"),
        ),
        "dxai.results.table_builders:table6",
        ("classifiers",),
        ("dataset", "classifier"),
    ),
    TableSpec(
        "definition1",
        "Definition 1: images with an undecided point on the ray x - beta psi, higher is better.",
        (
            *_METHOD, *_text("profile"), *_count("steps images"),
            *_interval("share", metric="undecided", better="higher"),
            *_number("entropy beta distance psnr_db twin_entropy twin_own"),
        ),
        "dxai.results.table_builders:definition1",
    ),
    TableSpec(
        "ablations",
        "Ablations: the decomposition with something changed, beside the unchanged one.",
        (
            *_text("dataset classifier variant"), *_count("seed"), *_text("profile"),
            *_count("steps images"), *_number("accuracy"), *_interval("auc"), *_interval("delta"),
            *_number("auc_transfer auc_blur psnr_db mean_abs_distinct neutrality"),
        ),
        "dxai.results.table_builders:ablations",
        ("ablations",),
    ),
    TableSpec(
        "localisation",
        "Localisation: agreement of the maps with the ground truth.",
        (
            *_METHOD, *_count("images known"),
            *_number("pointing average_precision energy_inside mask_area correlation"),
        ),
        "dxai.results.table_builders:localisation",
    ),
    TableSpec(
        "leakage",
        "Leakage: how well a fresh network tells the class from class-agnostic images.",
        (
            *_METHOD, *_text("profile"), *_count("train_images images groups"),
            *_interval("accuracy", metric="leakage"), *_number("chance"),
        ),
        "dxai.results.table_builders:leakage",
        ("leakage",),
    ),
    TableSpec(
        "randomisation",
        "Model randomisation: likeness to the maps of a classifier with random weights.",
        (
            *_text("dataset classifier method"), *_count("layers of_layers seed steps"),
            *_text("profile"), *_count("images groups"),
            *_interval("rank", metric="likeness"), *_interval("ssim"),
            *_number("size retrained delta_low delta_high"), *_text("changes"),
        ),
        "dxai.results.table_builders:randomisation",
        ("randomisation",),
        ("dataset", "classifier", "method", "layers"),
    ),
    TableSpec(
        "per_class",
        "Table 1 for each class alone.",
        (
            *_METHOD, *_text("class"), *_count("images"), *_number("accuracy"), *_interval("auc"),
        ),
        "dxai.results.table_builders:per_class",
        logged=False,
    ),
    TableSpec(
        "per_image",
        "Every image, the worst explained first.",
        (
            *_text("dataset classifier"), *_count("index"), *_text("id class group"),
            *_count("seeds"), *_number("ours baseline"), *_text("best_baseline"),
            *_number("before after uncertainty"),
        ),
        "dxai.results.table_builders:per_image",
        logged=False,
    ),
    TableSpec(
        "claims",
        "The paper's claims about each table, beside the measured values.",
        (
            *_text("table dataset classifier claim other sign"),
            *_interval("ours_value", "ours"), *_number("other_value"), *_interval("delta"),
            *_count("seeds images groups"), *_text("validity"),
            Column("holds", "truth"),
        ),
        "dxai.results.claims:all_claims",
        ("outcomes", "cross", "stability"),
    ),
)  # fmt: skip

SPECS = {spec.name: spec for spec in _ALL}
"""Every table by name, in the order in which they are made and shown."""

NUMBERED = {int(found[1]): name for name in SPECS if (found := re.fullmatch(r"table(\d+)", name))}
"""Maps the number of a table to its name."""


def short_title(name: str) -> str:
    """Return the beginning of a table's title, such as "Table 1"; an unknown one keeps its name."""
    return SPECS[name].title.split(":")[0] if name in SPECS else name
