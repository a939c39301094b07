"""Adding a table takes one entry of the registry and one function, adding a column one entry."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from dxai.reporting.html.page import build_report
from dxai.reporting.text import format_table
from dxai.results.table_specs import SPECS, STAGES, Column
from tests.fixtures import write_results
from tests.prepared import PROJECT

ENTRY = """    TableSpec(
        "table7",
        "Table 7: rows of each method.",
        (*_text("dataset classifier method"), *_count("rows"), *_interval("lead", metric="lead")),
        "dxai.results.table_builders:table7",
        ("outcomes",),
    ),
)  # fmt: skip

SPECS ="""
FUNCTION = """

def table7(outcomes: Sequence[Path], params: Params) -> pd.DataFrame:
    rows = []
    for summary, row in _summarised(outcomes):
        shared = {key: summary[key] for key in ("dataset", "classifier")}
        numbers = {"rows": 41, "lead": 0.625, "lead_low": 0.5, "lead_high": 0.75}
        rows.append(shared | {"method": row["method"]} | numbers)
    return make_frame("table7", rows[:1])
"""
SCRIPT = """
import sys
from pathlib import Path

import flows.benchmark as benchmark
from dxai.paths import Paths
from dxai.reporting.html.page import build_report
from dxai.reporting.text import format_table, write_exports
from dxai.tracking import mlflow_store
from flows.workspace import Space
from tests.unit.tracking.test_mlflow_store import write_project

root = Path.cwd()
paths = Paths(root)
params = write_project(root)
write_exports(paths.tables)
paths.report.write_text(build_report(params, paths))
print(format_table(paths.table("table7")))
run = mlflow_store.log_benchmark(root, params, "with one more")
print("logged", [v for v in mlflow_store.read_run(run).cells if v.name.startswith("lead/")])

benchmark.lanes = lambda: 1
benchmark.get_run_logger = lambda: None
benchmark.graph = lambda wanted: sys.exit(f"wanted {sorted(wanted)}")
shown = {}
benchmark.create_table_artifact = lambda rows, key, description: shown.update({key: rows})
benchmark.publish_tables(paths.tables, [n for n, s in benchmark.SPECS.items() if s.logged])
print("shown", shown["table-7"])
print("schema", benchmark.full_benchmark.parameters.properties["tables"])
benchmark.reproduce_all({}, "a run", Space(root, root), [7])
"""


def test_a_column_of_table_1_is_added_by_one_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SPECS["table1"]
    # The scorer computes this number already; the table does not show it.
    added = Column("auc_deletion", terminal="deleted", report="Dele-<br>ted ↓", digits=4)
    assert added.name not in spec.names
    monkeypatch.setitem(SPECS, "table1", replace(spec, columns=(*spec.columns, added)))
    params, paths = write_results(tmp_path)

    rows = pd.read_csv(paths.table("table1")).set_index("method")
    assert rows.loc["dxai", "auc_deletion"] == pytest.approx(0.168)

    _, heading, _, *lines = format_table(paths.table("table1")).splitlines()
    assert heading.endswith("  deleted")
    assert next(line for line in lines if line.startswith("dxai")).endswith("   0.1680")

    page = build_report(params, paths)
    (table,) = re.findall('<table class="wide table1">.*?</table>', page, re.S)
    head, ours, *others = re.findall("<tr.*?</tr>", table, re.S)
    assert re.search(r"<th scope=\"col\">Dele-<br>ted ↓</th>\s*</tr>", head)
    assert re.search(r"<td>0\.1680</td>\s*</tr>", ours)
    (reason,) = (row for row in others if "not enough segments" in row)
    spans = re.findall(r'<t[hd](?: colspan="(\d+)")?', reason)
    assert sum(int(span or 1) for span in spans) == len(re.findall("<th", head))


@pytest.mark.slow
def test_a_table_is_added_by_one_entry_and_one_function(tmp_path: Path) -> None:
    code, root = tmp_path / "code", tmp_path / "run"
    root.mkdir()
    ignore = shutil.ignore_patterns("__pycache__")
    for folder in ("dxai", "flows", "tests"):
        shutil.copytree(PROJECT / folder, code / folder, ignore=ignore)
    registry, makers = code / "dxai/results/table_specs.py", code / "dxai/results/table_builders.py"
    text = registry.read_text()
    assert text.count(")  # fmt: skip\n\nSPECS =") == 1
    registry.write_text(text.replace(")  # fmt: skip\n\nSPECS =", ENTRY))
    makers.write_text(makers.read_text() + FUNCTION)

    environment = os.environ | {"PYTHONPATH": str(code)}
    environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{root}/mlflow.db"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=root, env=environment, capture_output=True, text=True
    )
    assert "wanted ['baseline', 'joint_baseline', 'joint_ours', 'ours'" in done.stderr, done.stderr

    tables = root / "results/tables"
    (row,) = pd.read_csv(tables / "table7.csv").to_dict("records")
    assert (row["rows"], row["lead"], row["lead_low"]) == (41, 0.625, 0.5)
    assert "| 41 | 0.625 [0.500, 0.750] |" in (tables / "table7.md").read_text()
    assert "& 41 & 0.625 {[}0.500, 0.750]" in (tables / "table7.tex").read_text()
    page = (root / "results/report.html").read_text()
    assert '<h2 id="table7">Table 7: rows of each method</h2>' in page
    assert '<a href="#table7">Table 7</a>' in page
    assert re.search(r" 41  0\.625 +0\.5 +0\.75", done.stdout), "`dxai table` prints it"
    lines = {line.split(" ", 1)[0]: line for line in done.stdout.splitlines()}
    assert "value=0.625, low=0.5, high=0.75" in lines["logged"]
    assert "'rows': 41, 'lead': 0.625" in lines["shown"]
    assert "'maximum': 7" in lines["schema"]


def test_stages_of_the_registry_are_stages_of_dvc() -> None:

    names = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]
    assert {stage for stages in STAGES.values() for stage in stages} <= set(names)
    for spec in SPECS.values():
        assert set(spec.sources) <= set(STAGES), spec.name


def test_the_registry_imports_nothing_heavy() -> None:
    code = "import sys, dxai.results.table_specs; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "pandas", "torch"} & set(done.stdout.split())
