"""Every path, module and link that the documentation names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", "data/*.md", "benchmarks/*.md")
    for path in sorted(ROOT.glob(pattern))
]
PRESENT = [page for page in PAGES if page != "CHANGELOG.md"]
"""Pages about the present state; a changelog names files as they were called at the time."""

DEPLOYMENTS = {
    f"dxai/{deployment['name']}"
    for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
}
BUILT = {"docs/_build/html"}
"""What `make docs` writes."""
FOLDERS = "dxai|docs|tests|flows|infra|benchmarks"
PATH = re.compile(rf"(?<![\w/.-])(?:{FOLDERS})/[\w./*-]*[\w*/]")
MODULE = re.compile(rf"(?<![\w/.-])(?:{FOLDERS})(?:\.[A-Za-z_]\w*)+(?![\w/(])")
IMPORT = re.compile(rf"from ((?:{FOLDERS})[\w.]*) import (\w+)")
METHOD = re.compile(r"`([A-Z]\w+)\.(\w+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def is_defined(name: str) -> bool:
    """Return whether a dotted name is a folder, a module, or a name within a module."""
    path = ROOT / name.replace(".", "/")
    if path.is_dir() or path.with_suffix(".py").is_file():
        return True
    files = [path.parent / "__init__.py", path.parent.with_suffix(".py")]
    return any(
        file.is_file() and re.search(rf"\b{path.name}\b", file.read_text()) for file in files
    )


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_pages_are_found() -> None:
    assert {"README.md", "CONTRIBUTING.md", "docs/architecture.md"} <= set(PRESENT)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    file = ROOT / page
    for link in LINK.findall(file.read_text()):
        name, _, anchor = link.partition("#")
        if "://" not in link:
            target = file.parent / name if name else file
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PRESENT)
def test_named_files_exist(page: str) -> None:
    named = set(PATH.findall((ROOT / page).read_text())) - DEPLOYMENTS - BUILT
    assert [path for path in sorted(named) if not list(ROOT.glob(path))] == []


@pytest.mark.parametrize("page", PRESENT)
def test_named_modules_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    named = {*MODULE.findall(text), *(".".join(names) for names in IMPORT.findall(text))}
    assert [name for name in sorted(named) if not is_defined(name)] == []


@pytest.mark.parametrize("page", PRESENT)
def test_named_methods_exist(page: str) -> None:
    code = [path.read_text() for path in (ROOT / "dxai").rglob("*.py")]
    for owner, method in METHOD.findall((ROOT / page).read_text()):
        assert any(
            re.search(rf"class {owner}\b", text) and re.search(rf"def {method}\b", text)
            for text in code
        ), f"{owner}.{method}"
