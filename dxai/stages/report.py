"""Write the page that shows a run's results: DVC stage `report`."""

from __future__ import annotations

from dxai import stages
from dxai.evaluate.report import Folders, build_report
from dxai.files import atomic
from dxai.params import load_params

FOLDERS = Folders(
    prepared=stages.DATA,
    classifiers=stages.CLASSIFIERS,
    decompositions=stages.DECOMPOSITIONS,
    outcomes=stages.OUTCOMES,
    results=stages.RESULTS,
)


def main() -> None:
    """Write results/report.html."""
    page = build_report(load_params(), FOLDERS)
    with atomic(stages.RESULTS / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    stages.run_stage(main)
