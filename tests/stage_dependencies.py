"""The code that each stage of dvc.yaml depends on, derived from imports.

    python -m tests.stage_dependencies            # list missing and needless paths of dvc.yaml
    python -m tests.stage_dependencies --write    # correct dvc.yaml

A stage depends on its module and on everything that this imports, directly or not:

- Imports inside functions count; imports under `if TYPE_CHECKING` do not.
- Importing `a.b` also runs `a/__init__.py`, but calls none of its functions. An `__init__.py`
  without code does not count.
- A string that names a module counts, since another process may run it. In a module that calls
  `import_module`, so does a name relative to its own package, as in the registry of explainers.
- A file that is not Python, such as a template, counts if a counted file beside it names it.

A folder stands for its files where the stage depends on every one of them that has code.
"""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
OBSERVERS = {"dxai.tracking.live", "dxai.stages.actors", "dxai.stages.readers"}
"""Modules that change nothing in the outputs: they log what is done, or choose where it is done."""


def stages() -> dict[str, dict[str, Any]]:
    """Map each stage of dvc.yaml to its entry, or to the one that its `foreach` repeats."""
    found = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return {name: stage.get("do", stage) for name, stage in found.items()}


def derived(stage: dict[str, Any]) -> list[str]:
    """Return the paths below dxai/ that `deps` of a stage has to name, sorted."""
    return folded(needed(module_of(stage)), ROOT / "dxai")


def module_of(stage: dict[str, Any]) -> str:
    """Return the module that a stage runs."""
    module = re.search(r"python -m (dxai\.stages\.\w+)", stage["cmd"])
    assert module is not None, stage["cmd"]
    return module[1]


@functools.cache
def needed(module: str) -> set[Path]:
    """Return every file that counts for a module."""
    seen = set()
    waiting = [(module, True)]
    while waiting:
        name, called = waiting.pop()
        if name and (name, called) not in seen:
            seen.add((name, called))
            waiting += [(other, True) for other in imports(name, called)]
            waiting.append((name.rpartition(".")[0], False))
    found = {path for name, _ in seen if has_code(path := modules()[name])}
    new = found
    while new:  # templates may include one another
        texts = {path: path.read_text() for path in new}
        new = {
            other
            for path, text in texts.items()
            for other in assets(path.parent)
            if f'"{other.name}"' in text
        } - found
        found = found | new
    return found


def folded(paths: set[Path], folder: Path) -> list[str]:
    """Return the paths below a folder; a folder stands for its files if all of them are there."""
    inside = {path for path in paths if str(path).startswith(f"{folder}/")}
    every = {path for path in counted() if str(path).startswith(f"{folder}/")}
    if inside >= every:
        return [folder.relative_to(ROOT).as_posix()] if inside else []
    found = [path.relative_to(ROOT).as_posix() for path in inside if path.parent == folder]
    for child in folder.iterdir():
        if child.is_dir():
            found += folded(inside, child)
    return sorted(found)


@functools.cache
def counted() -> set[Path]:
    """Return every file of dxai that can count."""
    return {*filter(has_code, modules().values()), *assets(ROOT / "dxai", "**/*")}


@functools.cache
def modules() -> dict[str, Path]:
    """Map the name of each module of dxai to its file."""
    found = {}
    for path in (ROOT / "dxai").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def assets(folder: Path, pattern: str = "*") -> Iterator[Path]:
    """Yield the files in a folder that are not Python."""
    for path in folder.glob(pattern):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            yield path


@functools.cache
def has_code(path: Path) -> bool:
    """Whether a module holds more than a docstring."""
    return any(not isinstance(node, ast.Expr) for node in ast.parse(path.read_text()).body)


@functools.cache
def imports(module: str, called: bool) -> frozenset[str]:
    """Return the modules of dxai that a module names, outside functions unless `called`."""
    path = modules()[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    text = path.read_text()
    relative = "import_module(" in text
    found = set()
    for node in nodes(ast.parse(text), called):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules() else str(node.module) for name in names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {node.value} if "." in node.value else set()
            found |= {f"{package}.{node.value}"} if relative else set()
    return frozenset(found & modules().keys() - OBSERVERS)


def nodes(tree: ast.AST, called: bool) -> Iterator[ast.AST]:
    """Yield a module's nodes but those for type checkers, outside functions unless `called`."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if called or not isinstance(child, ast.FunctionDef):
            yield child
            yield from nodes(child, called)


def named(stage: dict[str, Any]) -> list[str]:
    """Return the paths below dxai/ that `deps` of a stage names."""
    return [path for path in stage["deps"] if path.startswith("dxai/")]


def corrected(text: str, lists: dict[str, Iterable[str]]) -> str:
    """Return the text of dvc.yaml with other code in the `deps` of its stages, after the data."""

    def stage(match: re.Match[str]) -> str:
        return re.sub(
            r"^( +)deps:\n((?:\1- .*\n)+)",
            lambda deps: deps_of(deps[1], deps[2], lists[match[1]]),
            match[0],
            flags=re.MULTILINE,
        )

    return re.sub(r"^  (\w+):.*\n(?:(?:   .*)?\n|\Z)+", stage, text, flags=re.MULTILINE)


def deps_of(indent: str, lines: str, code: Iterable[str]) -> str:
    """Format one `deps:` block."""
    data = [line for line in lines.splitlines() if not line.lstrip("- ").startswith("dxai/")]
    return "\n".join([f"{indent}deps:", *data, *(f"{indent}- {path}" for path in code), ""])


def differences() -> list[str]:
    """List the paths that `deps` of each stage lacks (+) and names needlessly (-)."""
    return [
        f"{name}: {'-' if path in named(stage) else '+'} {path}"
        for name, stage in stages().items()
        for path in sorted(set(derived(stage)) ^ set(named(stage)))
    ]


def main() -> int:
    """Print the differences; `--write` corrects them. The exit code is 1 if there were any."""
    found = differences()
    print("\n".join(found) or "dvc.yaml names the code that each stage imports")
    if "--write" in sys.argv:
        path = ROOT / "dvc.yaml"
        lists = {name: derived(stage) for name, stage in stages().items()}
        path.write_text(corrected(path.read_text(), lists))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
