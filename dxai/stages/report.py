"""Write the page that shows a run's results: DVC stage `report`."""

from __future__ import annotations

import pandas as pd

from dxai.config.params_file import load_params
from dxai.paths import HERE, stage_item
from dxai.reporting.html.page import build_report
from dxai.stages import run_stage
from dxai.utils.files import atomic


def main() -> None:
    """Write results/report.html, then fail if a method did (its row says so; others are valid)."""
    params = load_params()
    page = build_report(params, HERE)
    with atomic(HERE.report) as temporary:
        temporary.write_text(page, encoding="utf-8")
    table = pd.read_csv(HERE.table("table1"))
    failed = table[table["status"] == "failed"]
    if not failed.empty:
        stage = {name: "joint_baseline" for name in params.joint}
        rows = [
            stage_item(
                stage.get(row["classifier"], "baseline"),
                *(row[key] for key in ("dataset", "classifier", "method")),
            )
            + f" ({row['reason']})"
            for _, row in failed.iterrows()
        ]
        raise ValueError(
            f"everything else is done, but these failed: {', '.join(rows)}; "
            "try one again with `dvc repro -f STAGE`"
        )


if __name__ == "__main__":
    run_stage(main)
