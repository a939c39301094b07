"""Result tables as text: for a terminal (`dxai table`), as Markdown and as LaTeX."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dxai.reporting.table_layouts import Table, all_tables
from dxai.results.io import Row, TableError, read_table, read_tables
from dxai.results.methods import OURS, OUTSIDE, is_contested
from dxai.results.table_specs import SPECS, Column, short_title
from dxai.results.validity import CLAIMLESS, judged, meaning
from dxai.results.verdicts import HOLDS, verdict
from dxai.utils.files import atomic

LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    # After the end of a line LaTeX would read these two as its arguments.
    "[": "{[}", "*": "{*}",
    "↓": r"$\downarrow$", "↑": r"$\uparrow$", "−": "$-$", "–": "--", "·": r"$\cdot$",
    "→": r"$\rightarrow$", "×": r"$\times$", "≥": r"$\geq$", "β": r"$\beta$", "ψ": r"$\psi$",
}  # fmt: skip
MARKDOWN = {c: f"\\{c}" for c in "\\`*_|~$#!{}"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


# ------------------------------------------------------------------------------------ terminal
def format_table(path: Path | str) -> str:
    """Format a CSV table: Table 1 in groups with its claim, claims in short, others in full.

    Raises `TableError` if the table is missing or empty.
    """
    rows = read_table(path)
    if not rows:
        raise TableError(f"{path}: the table is empty")
    if {"claim", "holds"} <= rows[0].keys():
        return _claims(rows)
    if not {"method", "auc", "status"} <= rows[0].keys():
        return aligned([list(rows[0]), *(list(map(_plain_value, r.values())) for r in rows)])
    cases = itertools.groupby(rows, key=lambda row: (row["dataset"], row["classifier"]))
    return "\n\n".join(_table1(dataset, name, list(case)) for (dataset, name), case in cases)


def aligned(
    lines: list[list[str]], left: int = 2, least: Sequence[int] = (), most: int = 1000
) -> str:
    """Align columns under headings: the first `left` to the left, numbers to the right.

    `least` are minimum widths. The cells behind one that is wider than `most` have a new line.
    """
    columns = itertools.zip_longest(*lines, [" " * n for n in least], fillvalue="")
    width = [min(max(map(len, column)), most) for column in columns]
    shown = []
    for line in [lines[0], ["-" * n for n in width], *lines[1:]]:
        text = ""
        for k, (cell, n) in enumerate(zip(line, width, strict=False)):
            text += (cell.ljust(n) if k < left else cell.rjust(n)) + "  "
            if len(cell) > n:
                shown.append(text.rstrip())
                text = "  ".join(" " * n for n in width[: k + 1]) + "  "
        shown.append(text.rstrip())
    return "\n".join(shown)


def decimals(value: float | None, digits: int, signed: bool = False) -> str:
    """Format a number for a terminal with `digits` decimals; `-` if it is missing."""
    return "-" if value is None else f"{value:{'+' if signed else ''}.{digits}f}"


def _plain_value(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _signed_interval(row: Row) -> str:
    return f"[{decimals(row['delta_low'], 3, True)}, {decimals(row['delta_high'], 3, True)}]"


def _claims(rows: list[Row]) -> str:
    lines = [["table", "dataset / classifier", "claim", "against", "ours", "other", "difference"]]
    lines[0] += ["95% interval", "seeds", "classifier", "verdict"]
    for row in rows:
        named = [short_title(row["table"]), f"{row['dataset']} / {row['classifier']}"]
        numbers = [decimals(row[name], 3) for name in ("ours_value", "other_value")]
        numbers += [decimals(row["delta"], 3, True), _signed_interval(row), str(row["seeds"])]
        found = "no claim" if judged(row) in CLAIMLESS else judged(row)
        lines.append(
            [*named, row["claim"], row["other"], *numbers, row.get("validity") or "-", found]
        )
    return aligned(lines, left=4)


def _table1(dataset: str, classifier: str, rows: list[Row]) -> str:
    scored = [row for row in rows if row["auc"] is not None]
    claimless = rows[0].get("validity") in CLAIMLESS
    rivals = [row["auc"] for row in scored if is_contested(row["method"], row["sign"])]
    lowest = None if claimless else min(rivals, default=None)
    about = [f"{dataset} / {classifier}", f"profile {rows[0]['profile']}"]
    if scored:
        about += [f"{scored[0]['images']} images", f"accuracy {scored[0]['accuracy']:.3f}"]
    shown = [column for column in SPECS["table1"].columns if column.terminal]
    heading = [h for c in shown for h in (c.terminal, c.bounds and "95% interval") if h]
    lines = [["method", "sign", *heading], *(_line(row, lowest, shown) for row in rows)]
    notes = ["AUC and its guards: lower is better; * the lowest of ours and the baselines."]
    notes += meaning(rows)
    notes += [f"{r['method']}: {r['status']}: {r['reason']}" for r in rows if r["status"] != "ok"]
    notes += sorted({row["reason"] for row in scored if row["reason"]})
    layers = {row["method"]: row["layer"] for row in rows if row["layer"]}
    notes += [f"{method}: read from the layer {layer}" for method, layer in layers.items()]
    notes += [
        f"{_name(row)} minus the best baseline: 95% interval {_signed_interval(row)}, "
        f"{'' if verdict(row['delta_low'], row['delta_high']) == HOLDS else 'not '}below 0"
        for row in scored
        if row["method"] == OURS and None not in (row["delta_low"], row["delta_high"])
        if not claimless
    ]
    return "\n".join([", ".join(about), aligned(lines), *notes])


def _line(row: Row, lowest: float | None, shown: list[Column]) -> list[str]:
    if row["status"] != "ok":
        return [row["method"], row["sign"], row["status"]]
    outside, contested = row["method"] in OUTSIDE, is_contested(row["method"], row["sign"])
    mark = "*" if contested and row["auc"] is not None and row["auc"] == lowest else " "
    cells = [f"({row['method']})" if outside else _name(row), row["sign"]]
    for c in shown:
        cells.append(decimals(row.get(c.name), c.digits) + (mark if c.name == "auc" else ""))
        if c.bounds:
            ends = (row.get(f"{c.bounds}_{end}") for end in ("low", "high"))
            cells.append("-".join(decimals(end, c.digits) for end in ends))
    return cells


def _name(row: Row) -> str:
    """Return the method, and the seed unless it is the usual one."""
    return row["method"] + (f" (seed {row['seed']})" if row["seed"] else "")


# ------------------------------------------------------------------------------------ files
def write_exports(folder: Path) -> None:
    """Write `<name>.md` and `<name>.tex` beside each CSV table of a folder."""
    for name, tables in all_tables(read_tables(folder)).items():
        for suffix, write in (("md", markdown), ("tex", latex)):
            with atomic(folder / f"{name}.{suffix}") as temporary:
                temporary.write_text("\n".join(map(write, tables)), encoding="utf-8")


def markdown(table: Table) -> str:
    """Format a table with its title and note as GitHub Markdown; the best values are bold."""
    heads = [": ".join(filter(None, (c.group, c.name))) for c in table.columns]
    rules = ["---" if c.kind == "text" else "---:" for c in table.columns]
    rows = [[*map(_markdown, heads)], rules]
    for line in table.lines:
        cells = [_markdown(str(cell)) for cell in line.cells]
        rows.append([f"**{c}**" if k in line.best else c for k, c in enumerate(cells)])
    body = [f"| {' | '.join(row)} |" for row in rows]
    parts = [f"### {_markdown(table.title)}", _markdown(table.note), "\n".join(body)]
    return "\n\n".join(parts) + "\n"


def latex(table: Table) -> str:
    """Format a table for a document with `booktabs` and `graphicx`; the best values are bold."""
    lines = [
        r"\begin{table}",
        rf"\caption{{{_latex(table.title)}. {_latex(table.note)}}}",
        rf"\label{{tab:{table.name}}}",
        r"\resizebox{\linewidth}{!}{%",
        rf"\begin{{tabular}}{{{''.join('l' if c.kind == 'text' else 'r' for c in table.columns)}}}",
        r"\toprule",
    ]
    if spans := table.spans:
        heads = [rf"\multicolumn{{{size}}}{{c}}{{{_latex(group)}}}" for group, size in spans]
        lines.append(" & ".join(heads) + r" \\")
        ends = list(itertools.accumulate(size for _, size in spans))
        lines += [
            rf"\cmidrule(lr){{{end - size + 1}-{end}}}"
            for (group, size), end in zip(spans, ends, strict=True)
            if group
        ]
    lines += [" & ".join(_latex(c.name) for c in table.columns) + r" \\", r"\midrule"]
    for k, line in enumerate(table.lines):
        if k and line.kind != table.lines[k - 1].kind:
            lines.append(r"\midrule")
        cells = [_latex(str(cell)) for cell in line.cells]
        bold = [rf"\textbf{{{c}}}" if k in line.best else c for k, c in enumerate(cells)]
        lines.append(" & ".join(bold) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _markdown(text: str) -> str:
    shown = "".join(MARKDOWN.get(c, c) for c in _plain(text))
    return shown.replace("](", r"\](")


def _latex(text: str) -> str:
    shown = _plain(text).replace("x\u0302", "\0")
    return "".join(LATEX.get(c, c) for c in shown).replace("\0", r"$\hat{x}$")


def _plain(text: str) -> str:
    """Put text on one line, without control characters."""
    return "".join(c if c.isprintable() else " " for c in text)
