"""The rules of docs/architecture.md that a reader of one file cannot see broken."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

from flows.dvc_runner import groups
from infra import supervisor

ROOT = Path(__file__).resolve().parents[1]
CODE = [path for folder in ("dxai", "flows", "infra") for path in (ROOT / folder).rglob("*.py")]
TESTS = list((ROOT / "tests").rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it, with the names taken from it."""
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
def pipeline() -> dict[str, dict[str, object]]:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return {name: stage.get("do", stage) for name, stage in stages.items()}


def test_groups_of_the_flow_are_the_stages_of_dvc() -> None:
    names = [group.name for group in groups(ROOT)]
    assert set(names) <= set(pipeline())
    # A stage over an empty list of params.yaml has no items, and so is no group.
    missing = set(pipeline()) - set(names)
    may_be_empty = re.compile(r"\$\{(joint|repeat|ablations)\b")
    assert all(may_be_empty.search(str(pipeline()[name]["matrix"])) for name in missing)
    in_order = ["prepare", "classifier", "decompose", "ours", "cross", "tables", "report"]
    assert [name for name in names if name in in_order] == in_order


def test_every_stage_runs_a_module_and_every_module_is_run() -> None:
    commands = " ".join(str(stage["cmd"]) for stage in pipeline().values())
    run = set(re.findall(r"python -m dxai\.stages\.(\w+)", commands))
    modules = {
        path.stem for path in (ROOT / "dxai/stages").glob("*.py") if "__main__" in path.read_text()
    }
    assert run == modules


def test_a_stage_depends_on_its_own_module() -> None:
    for name, stage in pipeline().items():
        module = re.search(r"dxai\.stages\.(\w+)", str(stage["cmd"]))
        assert module is not None
        assert f"dxai/stages/{module[1]}.py" in str(stage["deps"]), name


def test_git_ignores_what_dvc_keeps() -> None:
    """Or DVC would edit .gitignore, and a run would leave the checkout changed."""
    paths = ["data/prepared/x", "artifacts/x/y", "results/x.csv", ".work/x", ".dvc/cache/x"]
    for stage in pipeline().values():
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
    port = supervisor.PORTS["prefect"][1]
    assert settings["server"]["api"]["port"] == port
    assert settings["api"]["url"] == f"http://{supervisor.HOST}:{port}/api"
    assert settings["server"]["analytics_enabled"] is False
    for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        pool = deployment["work_pool"]
        assert pool["name"] == supervisor.POOL
        assert pool.get("work_queue_name", "default") in supervisor.QUEUES
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
