"""The stage `report` writes its page despite failures, then names them."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path

import pandas as pd
import pytest

from dxai.paths import CROSS, MANIFEST, OUTCOMES, SUMMARY
from dxai.stages import report, tables
from dxai.utils.files import read_json, write_json
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


@pytest.mark.slow
@pytest.mark.parametrize("case", [".", "textures/simple"], ids=["all", "one"])
def test_a_classifier_that_is_never_right_has_no_area_and_a_report(
    results: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """Its accuracy at the beginning of a curve is 0, by which every area is divided."""
    params = report.load_params()
    monkeypatch.setattr(tables, "load_params", lambda: params)
    for path in (results.parent / "data").rglob(MANIFEST):
        write_json(path, read_json(path) | {"layout": "textures", "options": {}})
    for path in (results / "outcomes" / case).rglob(OUTCOMES):
        frame = pd.read_parquet(path)
        frame["prediction"] = (frame["label"] + 1) % 3
        frame.to_parquet(path)
    for name in (SUMMARY, CROSS):
        for path in results.rglob(name):
            is_wrong = path.is_relative_to(results / "outcomes" / case)
            content = read_json(path)
            for row in content["rows"] if name == SUMMARY else [content["row"]]:
                areas = [key for key in row if key.startswith("auc")]
                if is_wrong:
                    row |= {"accuracy": 0.0} | dict.fromkeys(areas, math.nan)
                row["status"] = row["status"].replace("failed", "unsupported")
            write_json(path, content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tables.main()
        report.main()
    shown = re.sub(r"data:[^\"']+", "", (results / "report.html").read_text())
    assert "LRP" in shown
    assert not re.search(r"\b(nan|None)\b", shown)
