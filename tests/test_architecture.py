"""Rules of docs/architecture.md whose breach no single file shows."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from dxai.config.schema import EvaluateParams
from flows.dvc_runner import graph, group_of
from infra.deployments import POOL, PROFILES, QUEUES
from infra.ports import HOST, PORTS
from infra.supervisor import Stack
from tests.stage_dependencies import (
    corrected,
    derived,
    differences,
    has_code,
    module_of,
    modules,
    needed,
    stages,
)

ROOT = Path(__file__).resolve().parents[1]
TABLED = {"valid_auc"}
"""Settings of `evaluate` that only the stage `tables` reads: a change scores nothing again."""
CODE = [path for folder in ("dxai", "flows", "infra") for path in (ROOT / folder).rglob("*.py")]

LOADED = """
import os, sys
import pandas, pyarrow.parquet, scipy.stats, torch
for stage in sys.argv[1:]:
    if os.fork() == 0:
        __import__(stage)
        print(stage, *(name for name in sys.modules if name.split(".")[0] == "dxai"), flush=True)
        os._exit(0)
    os.wait()
"""
"""Prints a line for each stage: its name and the modules of dxai that importing it loads."""


def imports(path: Path) -> set[str]:
    """Return every module that a file imports, anywhere in it, with the names taken from it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(
    "name", ["baseline", "ours", "cross", "stability", "leakage", "randomisation"]
)
def test_a_scoring_stage_depends_on_every_setting_of_evaluate_that_it_reads(name: str) -> None:
    (listed,) = (p["params.yaml"] for p in stages()[name]["params"] if isinstance(p, dict))
    assert set(listed) == {f"evaluate.{key}" for key in EvaluateParams.model_fields.keys() - TABLED}


def test_imports_keep_their_contracts() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_no_module_lies_outside_a_contract() -> None:
    """A contract that is exhaustive names each module and folder directly in its containers."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    covered = [
        container
        for contract in settings["contracts"]
        if contract.get("exhaustive")
        for container in contract["containers"]
    ]
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"benchmarks", "tests"}
    assert set(covered) == set(settings["root_packages"]) == packages


def test_annotations_are_postponed_except_where_prefect_reads_them() -> None:
    for path in CODE:
        postponed = "__future__.annotations" in imports(path)
        if relative(path).startswith("flows/"):
            assert not postponed, f"{relative(path)}: a served flow could not be rebuilt"
        elif any(isinstance(node, ast.FunctionDef) for node in ast.parse(path.read_text()).body):
            assert postponed, relative(path)


# ------------------------------------------------------------------------------------ the pipeline
def test_groups_of_the_flow_are_the_stages_of_dvc() -> None:
    names = list(dict.fromkeys(map(group_of, graph(ROOT))))
    assert set(names) <= set(stages())
    # A stage over an empty list of params.yaml has no items, and so is no group.
    missing = set(stages()) - set(names)
    may_be_empty = re.compile(r"\$\{(joint|repeat|ablations)\b")
    assert all(may_be_empty.search(str(stages()[name]["matrix"])) for name in missing)
    in_order = ["prepare", "classifier", "decompose", "ours", "cross", "tables", "report"]
    assert [name for name in names if name in in_order] == in_order


def test_every_stage_runs_a_module_and_every_module_is_run() -> None:
    commands = " ".join(str(stage["cmd"]) for stage in stages().values())
    run = set(re.findall(r"python -m dxai\.stages\.(\w+)", commands))
    modules = {
        path.stem for path in (ROOT / "dxai/stages").glob("*.py") if "__main__" in path.read_text()
    }
    assert run == modules


def test_stages_depend_on_the_code_that_they_import() -> None:
    assert not differences(), "`python -m tests.stage_dependencies --write` corrects dvc.yaml"


@pytest.mark.slow
def test_dependencies_hold_every_module_that_python_loads() -> None:
    """A fork of a process that has loaded the libraries already imports each stage."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *{module_of(stage) for stage in stages().values()}],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for line in done.stdout.splitlines():
        stage, *loaded = line.split()
        code = {path for name in loaded if has_code(path := modules()[name])}
        assert len(code) > 5
        assert code <= needed(stage), stage


def test_files_beside_and_names_in_strings_are_dependencies() -> None:
    names = {path.relative_to(ROOT / "dxai").as_posix() for path in needed("dxai.stages.report")}
    assert {"reporting/html/page.html.jinja", "reporting/html/style.css.jinja"} <= names
    names = {path.relative_to(ROOT / "dxai").as_posix() for path in needed("dxai.stages.baseline")}
    assert {"explain/captum_baselines/lrp.py", "explain/naive.py"} <= names


def test_dependencies_are_written_after_the_data() -> None:
    text = (ROOT / "dvc.yaml").read_text()
    wrong = re.sub(r"( +- dxai/)types\.py", r"\1typos.py", text)
    assert wrong != text
    lists = {name: derived(stage) for name, stage in stages().items()}
    assert corrected(wrong, lists) == text


def test_git_ignores_what_dvc_keeps() -> None:
    """Otherwise DVC would edit .gitignore, and a run would change the checkout."""
    paths = ["data/prepared/x", "artifacts/x/y", "results/x.csv", ".work/x", ".dvc/cache/x"]
    for stage in stages().values():
        for out in [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]:
            path = next(iter(out)) if isinstance(out, dict) else out
            paths.append(re.sub(r"\$\{[^}]*\}", "x", path))
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", *paths], cwd=ROOT, capture_output=True, text=True
    )
    assert set(ignored.stdout.split()) == set(paths)


# ------------------------------------------------------------------------------------ settings
def test_prefect_s_files_agree_with_the_launcher() -> None:
    settings = tomllib.loads((ROOT / "prefect.toml").read_text())
    port = PORTS["prefect"][1]
    assert settings["server"]["api"]["port"] == port
    # The address comes from `make up` of this folder: a fixed one may be another clone's.
    assert "api" not in settings
    assert settings["profiles_path"] == f"{settings['home']}/{PROFILES}"
    assert settings["home"] == str(Stack(Path()).prefect_home)
    assert settings["server"]["api"]["host"] == HOST
    assert settings["server"]["analytics_enabled"] is False
    for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        pool = deployment["work_pool"]
        assert pool["name"] == POOL
        assert pool.get("work_queue_name", "default") in QUEUES
        file, function = deployment["entrypoint"].split(":")
        assert f"def {function}(" in (ROOT / file).read_text()


def test_make_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == targets
    listing = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {line.split()[0] for line in listing.stdout.splitlines()} == targets
