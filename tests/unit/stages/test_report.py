"""The stage `report` writes its page whatever failed, and then says what did."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from dxai.stages import report
from tests.fixtures import write_results


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    params, folders = write_results(tmp_path, rich=True)
    monkeypatch.setattr(report, "load_params", lambda: params)
    monkeypatch.chdir(tmp_path)
    for path in folders.outcomes.rglob("*.npz"):
        path.unlink()  # pictures take their time
    return folders.results


def test_failed_rows_are_named_by_their_stage_after_the_page_is_written(results: Path) -> None:
    with pytest.raises(ValueError, match="everything else is done") as error:
        report.main()
    assert "<!doctype html>" in (results / "report.html").read_text()
    for dataset in ("textures", "brats"):
        for item in ("resnet18", "simple"):
            assert f" baseline@{dataset}-{item}-lime (RuntimeError: not" in str(error.value)
        assert f"joint_baseline@{dataset}-joint-lime" in str(error.value)
    assert "lrp" not in str(error.value), "unsupported is no failure"


def test_without_a_failed_row_it_ends_well(results: Path) -> None:
    path = results / "tables" / "table1.csv"
    table = pd.read_csv(path)
    table[table["status"] != "failed"].to_csv(path, index=False)
    report.main()
    assert "LRP" in (results / "report.html").read_text()
