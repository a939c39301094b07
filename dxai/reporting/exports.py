"""Tables as Markdown and LaTeX, for a page or a paper."""

from __future__ import annotations

import itertools
from pathlib import Path

from dxai.reporting.table_layouts import Table, all_tables, read_tables
from dxai.utils.files import atomic

LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    # After the end of a line these two would be read as its arguments.
    "[": "{[}", "*": "{*}",
    "↓": r"$\downarrow$", "↑": r"$\uparrow$", "−": "$-$", "–": "--", "·": r"$\cdot$",
    "→": r"$\rightarrow$", "×": r"$\times$", "≥": r"$\geq$", "β": r"$\beta$", "ψ": r"$\psi$",
}  # fmt: skip
MARKDOWN = {c: f"\\{c}" for c in "\\`*_|~$#!{}"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def write_exports(folder: Path) -> None:
    """Write `<name>.md` and `<name>.tex` beside each table of a folder.

    Parameters
    ----------
    folder : Path
        That of the CSV files, results/tables/.
    """
    for name, tables in all_tables(read_tables(folder)).items():
        for suffix, write in (("md", markdown), ("tex", latex)):
            with atomic(folder / f"{name}.{suffix}") as temporary:
                temporary.write_text("\n".join(map(write, tables)), encoding="utf-8")


def markdown(table: Table) -> str:
    """A table with its title and note, as GitHub reads it; the best values are bold."""
    heads = [": ".join(filter(None, (c.group, c.name))) for c in table.columns]
    rules = ["---" if c.kind == "text" else "---:" for c in table.columns]
    rows = [[*map(_markdown, heads)], rules]
    for line in table.lines:
        cells = [_markdown(cell) for cell in line.cells]
        rows.append([f"**{c}**" if k in line.best else c for k, c in enumerate(cells)])
    body = [f"| {' | '.join(row)} |" for row in rows]
    parts = [f"### {_markdown(table.title)}", _markdown(table.note), "\n".join(body)]
    return "\n\n".join(parts) + "\n"


def latex(table: Table) -> str:
    """A table for a document with `booktabs` and `graphicx`; the best values are bold."""
    spans = [
        (group, len(list(of))) for group, of in itertools.groupby(c.group for c in table.columns)
    ]
    lines = [
        r"\begin{table}",
        rf"\caption{{{_latex(table.title)}. {_latex(table.note)}}}",
        rf"\label{{tab:{table.name}}}",
        r"\resizebox{\linewidth}{!}{%",
        rf"\begin{{tabular}}{{{''.join('l' if c.kind == 'text' else 'r' for c in table.columns)}}}",
        r"\toprule",
    ]
    if any(group for group, _ in spans):
        heads = [rf"\multicolumn{{{size}}}{{c}}{{{_latex(group)}}}" for group, size in spans]
        lines.append(" & ".join(heads) + r" \\")
        ends = list(itertools.accumulate(size for _, size in spans))
        lines += [
            rf"\cmidrule(lr){{{end - size + 1}-{end}}}"
            for (group, size), end in zip(spans, ends, strict=True)
            if group
        ]
    lines += [" & ".join(_latex(c.name) for c in table.columns) + r" \\", r"\midrule"]
    for place, line in enumerate(table.lines):
        if place and line.kind != table.lines[place - 1].kind:
            lines.append(r"\midrule")
        cells = [_latex(cell) for cell in line.cells]
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
    """On one line, without control characters."""
    return "".join(c if c.isprintable() else " " for c in text)
