"""`dxai compare`: a comparison of two runs as text, Markdown or JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from typing import Any

from dxai.reporting.text import aligned
from dxai.results.comparison import CellChange, Change, Comparison, LoggedRun, Verdict

WIDTH = 100
NAME = 50
"""Letters of a cell's name that leave room for its numbers; longer names have their own line."""
NOTE = (
    "noise: sqrt(h1^2 + h2^2), h being half the width of each 95% interval over images. By chance "
    "5% of all cells exceed it, fewer where runs share images. What another seed would change is "
    "not in it."
)
UNSET = "(not set)"
HASH = 12
"""Shown digits of a hash."""
WORDS = {
    Verdict.OUTSIDE: "outside the noise",
    Verdict.UNKNOWN: "without an interval",
    Verdict.WITHIN: "within it",
    Verdict.BEFORE: "only before",
    Verdict.AFTER: "only after",
    Verdict.SAME: "the same",
}


def as_text(found: Comparison, everything: bool = False) -> str:
    """Format as plain text of at most 100 columns; `everything` includes unchanged cells."""
    lines = [f"before  {_about(found.before)}", f"after   {_about(found.after)}", ""]
    lines += [f"Code: {_code(found)}", f"Data: {_share(found, 'data')}"]
    lines += [line for change in found.data for line in _wrapped(change, digits=HASH)]
    lines.append(f"Parameters: {_share(found, 'params')}")
    lines += [line for change in found.params for line in _wrapped(change)]
    lines.append(f"Cells: {_counts(found)}")
    shown = found.cells if everything else found.changed
    if shown:
        lines += ["", _table(shown), "", *textwrap.wrap(NOTE, WIDTH)]
    return "\n".join(lines)


def as_markdown(found: Comparison, everything: bool = False) -> str:
    """Format as tables for a pull request or a notebook."""
    lines = [f"- before: {_about(found.before)}", f"- after: {_about(found.after)}"]
    lines.append(f"- code: {_code(found)}")
    for title, changes, digits in (("Data", found.data, HASH), ("Parameter", found.params, None)):
        if changes:
            lines += ["", f"| {title} | before | after |", "|---|---|---|"]
            for change in changes:
                values = [_quoted(v, digits) for v in (change.before, change.after)]
                lines.append(f"| `{change.name}` | {' | '.join(values)} |")
    lines += ["", f"Cells: {_counts(found)}"]
    shown = found.cells if everything else found.changed
    if shown:
        lines += ["", "| | cell | before | after | change | noise |", "|---|---|--:|--:|--:|--:|"]
        lines += [
            f"| {_word(cell)} | `{cell.name}` | {' | '.join(_numbers(cell))} |" for cell in shown
        ]
        lines += ["", NOTE]
    return "\n".join(lines)


def as_json(found: Comparison, everything: bool = False) -> str:
    shown = found.cells if everything else found.changed
    document: dict[str, Any] = {
        side: {key: getattr(run, key) for key in ("id", "name", "started", "commit", "dirty")}
        for side, run in (("before", found.before), ("after", found.after))
    }
    for name, changes in (("data", found.data), ("parameters", found.params)):
        document[name] = [vars(change) for change in changes]
    document["counts"] = {verdict.value: n for verdict, n in found.counts.items()}
    document["cells"] = [
        {"name": cell.name, "verdict": cell.verdict.value}
        | {"difference": cell.difference, "noise": cell.noise}
        | {
            side: {"value": own.value, "low": own.low, "high": own.high} if own else None
            for side, own in (("before", cell.before), ("after", cell.after))
        }
        for cell in shown
    ]
    return json.dumps(document, indent=2)


FORMATS: dict[str, Callable[[Comparison, bool], str]] = {
    "text": as_text,
    "markdown": as_markdown,
    "json": as_json,
}


def _about(run: LoggedRun) -> str:
    return f"{run.id[:8]}  {run.name}  {run.started}".rstrip()


def _code(found: Comparison) -> str:
    before, after = found.before, found.after
    names = [(run.commit or "unknown")[:HASH] for run in (before, after)]
    dirty = [side for side, run in (("before", before), ("after", after)) if run.dirty]
    same = before.commit == after.commit
    text = f"the same commit, {names[0]}" if same else " -> ".join(names)
    return f"{text}; with uncommitted changes {' and '.join(dirty)}" if dirty else text


def _share(found: Comparison, name: str) -> str:
    """Format how many of both runs' settings, or datasets, differ."""
    changed = len(getattr(found, name))
    of = len({*getattr(found.before, name), *getattr(found.after, name)})
    return f"{changed} of {of} differ{'s' * (changed == 1)}" if changed else f"all {of} the same"


def _counts(found: Comparison) -> str:
    counts = [f"{n} {WORDS[verdict]}" for verdict, n in found.counts.items() if n]
    return ", ".join(counts) or "none in either run"


def _wrapped(change: Change, digits: int | None = None) -> list[str]:
    """Format on one line, or more: nothing of a changed value is cut."""
    before, after = (
        UNSET if value is None else value[:digits] for value in (change.before, change.after)
    )
    line = f"  {change.name}: {before} -> {after}"
    if len(line) <= WIDTH:
        return [line]
    lines = [f"  {change.name}:"]
    for first, text in (("     ", before), ("  -> ", after)):
        wrap = textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent="     ")
        lines += wrap or [first]
    return lines


def _table(cells: list[CellChange]) -> str:
    heading = ["", "cell", "before", "after", "change", "noise"]
    lines = [[_word(cell), cell.name, *_numbers(cell)] for cell in cells]
    return aligned([heading, *lines], least=[11, 0, 7, 7, 7, 7], most=NAME)


def _word(cell: CellChange) -> str:
    """Return the verdict, in capitals for the cells that matter most."""
    return cell.verdict.value.upper() if cell.verdict is Verdict.OUTSIDE else cell.verdict.value


def _numbers(cell: CellChange) -> list[str]:
    values = [f"{own.value:.4f}" if own else "-" for own in (cell.before, cell.after)]
    difference = "-" if cell.difference is None else f"{cell.difference:+.4f}"
    return [*values, difference, "-" if cell.noise is None else f"{cell.noise:.4f}"]


def _quoted(value: str | None, digits: int | None = None) -> str:
    return UNSET if value is None else "`" + value[:digits].replace("|", r"\|") + "`"
