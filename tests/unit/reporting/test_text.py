"""Tables and claims as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from dxai.reporting.text import format_table

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
