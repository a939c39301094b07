"""Tables are read with the types of the registry."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from dxai.results.io import TableError, read_history, read_table
from dxai.results.table_specs import SPECS


def write(path: Path, name: str, **values: object) -> Path:
    """Write a table with one row."""
    row = dict.fromkeys(SPECS[name].names) | values
    pd.DataFrame([row]).to_csv(path, index=False)
    return path


def test_values_have_the_types_of_their_columns(tmp_path: Path) -> None:
    values = {"dataset": "NA", "classifier": "007", "class": "nan", "seed": 7.0, "auc": 1}
    (row,) = read_table(write(tmp_path / "per_class.csv", "per_class", **values))
    assert (row["dataset"], row["classifier"], row["class"]) == ("NA", "007", "nan")
    assert row["seed"] == 7 and isinstance(row["seed"], int)
    assert row["auc"] == 1 and isinstance(row["auc"], float)
    assert (row["sign"], row["images"], row["auc_low"]) == ("", None, None)
    (claim,) = read_table(write(tmp_path / "claims.csv", "claims", table="table1", holds=True))
    assert claim["holds"] is True


def test_a_renamed_table_is_known_by_its_columns_and_any_other_file_is_text(tmp_path: Path) -> None:
    (row,) = read_table(write(tmp_path / "before.csv", "table6", images="12"))
    assert row["images"] == 12
    (tmp_path / "t.csv").write_text("a,images\n7,12\n")
    assert read_table(tmp_path / "t.csv") == [{"a": "7", "images": "12"}]


def test_columns_that_an_earlier_version_did_not_write_are_missing_values(tmp_path: Path) -> None:
    path = write(tmp_path / "table1.csv", "table1", method="ig", auc=0.5)
    complete = read_table(path)
    pd.read_csv(path).drop(columns=["layer", "auc_blur"]).to_csv(path, index=False)
    assert read_table(path) == [complete[0] | {"layer": "", "auc_blur": None}]


@pytest.mark.parametrize(
    ("column", "text", "type"),
    [("auc", "0,9", "number"), ("images", "many", "count"), ("images", "inf", "count")],
)
def test_a_damaged_value_is_named(tmp_path: Path, column: str, text: str, type: str) -> None:
    path = write(tmp_path / "table1.csv", "table1", **{column: text})
    with pytest.raises(TableError, match=f"table1.csv: {column} is '{text}', not a {type}"):
        read_table(path)


def test_a_missing_table_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"table1.csv: no such table; `dvc repro`"):
        read_table(tmp_path / "table1.csv")


def test_a_history_leaves_out_what_was_not_logged(tmp_path: Path) -> None:
    rows = [{"step": 1, "loss/adv": 0.5, "psnr_db": None}, {"step": 2, "psnr_db": 20.0}]
    pd.DataFrame(rows).to_csv(tmp_path / "history.csv", index=False)
    expected = [{"step": 1.0, "loss/adv": 0.5}, {"step": 2.0, "psnr_db": 20.0}]
    assert read_history(tmp_path / "history.csv") == expected
