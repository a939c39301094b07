"""Tables and claims as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from dxai.reporting.text import format_table
from tests.fixtures import write_results

COLUMNS = (
    "table,dataset,classifier,claim,other,ours_value,other_value,"
    "delta,delta_low,delta_high,seeds,holds"
)


@pytest.mark.parametrize(
    ("low", "high", "holds", "verdict"),
    [(-0.2, -0.1, True, "holds"), (-0.1, 0.1, False, "undecided"), (0.1, 0.3, False, "reversed")],
)
def test_a_claim_says_how_it_ended(
    tmp_path: Path, low: float, high: float, holds: bool, verdict: str
) -> None:
    row = f"table2,brats,simple,ours is lowest,ig,0.125,0.171,-0.046,{low},{high},3,{holds}"
    (tmp_path / "claims.csv").write_text(f"{COLUMNS}\n{row}\n")
    heading, _, line = format_table(tmp_path / "claims.csv").splitlines()
    assert heading.split()[:2] == ["table", "dataset"]
    assert line.startswith("Table 2  brats / simple")
    assert line.endswith(verdict)
    assert f"[{low:+.3f}, {high:+.3f}]" in line


def test_nothing_is_marked_or_claimed_of_a_brittle_classifier(tmp_path: Path) -> None:
    _, folders = write_results(tmp_path)
    said = format_table(folders.table("table1"))
    assert "0.840*" in said and "minus the best baseline" in said
    assert "Valid: Random has 0.933" in said
    for name, before, after in (
        ("table1", ",valid\n", ",brittle\n"),
        ("claims", ",valid,", ",brittle,"),
    ):
        path = Path(folders.table(name))
        path.write_text(path.read_text().replace(before, after))
    said = format_table(folders.table("table1"))
    assert "0.840 " in said and "0.840*" not in said and "minus the best baseline" not in said
    assert "Brittle: Random has 0.933" in said
    lines = format_table(folders.table("claims")).splitlines()[2:]
    assert lines and all(line.split()[-3:] == ["brittle", "no", "claim"] for line in lines)
