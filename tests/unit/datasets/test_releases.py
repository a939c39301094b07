"""Each row of the table of releases in docs/datasets.md: a tree that lies so is prepared."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from dxai.config.params_file import load_params
from dxai.config.schema import DatasetParams, PrepareParams
from dxai.config.settings import parse
from dxai.datasets.base import SPLITS
from dxai.datasets.prepare import prepare
from tests.unit.datasets.releases import RELEASES

ROOT = Path(__file__).parents[3]
HEAD = "| release | as unpacked | entry |"


def rows() -> list[tuple[str, list[str], str]]:
    """Name, patterns of paths, and entry of each row."""
    page = (ROOT / "docs/datasets.md").read_text(encoding="utf-8")
    found = []
    for line in page.partition(HEAD)[2].splitlines()[2:]:
        if not line.startswith("|"):
            break
        name, lies, entry = (cell.strip() for cell in line.strip("|").split("|"))
        found.append((name, re.findall("`([^`]+)`", lies), entry.strip("`")))
    return found


def test_table_and_trees_name_the_same_releases() -> None:
    assert [name for name, _, _ in rows()] == list(RELEASES)


@pytest.mark.parametrize(
    ("name", "patterns", "entry"), [pytest.param(*row, id=row[0]) for row in rows()]
)
def test_release_is_read_as_it_lies(
    name: str, patterns: list[str], entry: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All images become samples of every class in every split; the rest is told and counted."""
    root = tmp_path / "raw"
    RELEASES[name](root)
    for pattern in patterns:
        assert any(root.glob(pattern)), f"{pattern}: nothing in the tree of {name}"
    values = yaml.safe_load(entry)
    values["source"] = str(root / values.get("source", ""))
    dataset = parse(DatasetParams, values, "entry")
    params = load_params(ROOT / "params.yaml").replace(
        datasets={"mine": dataset}, prepare=PrepareParams(image_size=8)
    )
    manifest = prepare("mine", params, tmp_path / "out", tmp_path / "work", 1)
    for split in SPLITS:
        assert all(manifest["counts"][split].values()), manifest["counts"]
    told = capsys.readouterr().out
    for row in manifest["dropped"]:
        assert f"left out {row['images']} ({row['rule']}, first {row['first']})" in told
