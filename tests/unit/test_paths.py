"""`dxai/paths.py` alone spells paths and names, its parsers undo its builders, dvc.yaml agrees."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from dxai import paths
from dxai.paths import Paths

ROOT = Path(__file__).parents[2]
FILES = {v for v in vars(paths).values() if isinstance(v, str) and re.fullmatch(r"[\w-]+\.\w+", v)}
FILES -= {paths.PARAMS}  # no artifact, and known to every user by this name
FOLDERS = re.compile(r"(artifacts|data/prepared|results/[\w.]+|\.work|panels)(/.*)?")
NAMES = re.compile(r"dxai-|.*-by-|.*-index\.parquet|step-\*\.png")
MAY_SPELL = {
    "dxai/paths.py": "all",
    "dxai/config": r"\.work/checkpoints",  # a default value of params.yaml
    "infra": r"dxai-.*",  # names of images, services and volumes
    "infra/prefect_api.py": r"artifacts(/filter)?",  # of Prefect
    "infra/deployments.py": r"results/table_specs\.py",  # a module, below dxai/
    "dxai/reporting/html/page.py": r"panels",  # of a section of the page, not the folder
    "dxai/cli/demo.py": r"dxai-demo",  # a folder of the user's
    "dxai/utils/own_folder.py": r"dxai-",  # below the system's temporary folder
    "dxai/tracking/live.py": r"dxai-training",  # an experiment of MLflow
}


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each string constant of a module, and its line; without docstrings."""
    tree = ast.parse(path.read_text())
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.lineno, node.value


def test_no_other_module_spells_a_path_or_name() -> None:
    strays = []
    for folder in ("dxai", "flows", "infra", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            allowed = [rule for start, rule in MAY_SPELL.items() if name.startswith(start)]
            for line, text in texts(path) if "all" not in allowed else ():
                spelt = text in FILES or FOLDERS.fullmatch(text) or NAMES.match(text)
                if spelt and not any(re.fullmatch(rule, text) for rule in allowed):
                    strays.append(f"{name}:{line}: {text!r}")
    assert not strays, "\n".join(strays)


def test_names_are_parsed_back() -> None:
    for name in ("0", "12", "without_cc", "by-chance"):
        assert paths.decomposition_of(paths.ours_name(name)) == name
    assert paths.decomposition_of("gradcam") is None
    assert paths.cross_name(0, "simple") == "dxai-0-by-simple"


def test_panels_are_found_by_step(tmp_path: Path) -> None:
    (tmp_path / paths.PANELS).mkdir()
    for step in (250, 1_000_000, 5):
        (tmp_path / paths.PANELS / paths.panel_name(step)).touch()
    assert set(paths.panels(tmp_path)) == {5, 250, 1_000_000}
    assert all(path.name == paths.panel_name(step) for step, path in paths.panels(tmp_path).items())


def test_a_project_elsewhere_has_the_same_paths_below_its_root() -> None:
    elsewhere = Paths(Path("/p"))
    assert elsewhere.classifier("d", "c", "twin") == Path("/p/artifacts/classifiers/d/c/twin")
    assert elsewhere.table("table1") == Path("/p") / paths.HERE.table("table1")
    assert str(paths.HERE.mlflow_database) == ".work/mlflow.db"


# ------------------------------------------------------------------------------------ dvc.yaml
SAMPLES = {"dataset": "D", "classifier": "C", "role": "R", "name": "N", "method": "M"}
SAMPLES |= {"scorer": "S", "source": "data/raw", "file": "F"}
HERE = paths.HERE
OUTPUTS: dict[str, Callable[[], list[Path]]] = {
    "prepare": lambda: [HERE.dataset("D")],
    "network": lambda: [HERE.network("C", "F")],
    "classifier": lambda: [HERE.classifier("D", "C", "R")],
    "decompose": lambda: [HERE.decomposition("D", "C", "N")],
    "baseline": lambda: [HERE.outcome("D", "C", "M")],
    "score_decomposition": lambda: [HERE.ours("D", "C", "N")],
    "cross": lambda: [HERE.cross("D", "C", "N", "S")],
    "stability": lambda: [HERE.stability("D", "C")],
    "leakage": lambda: [HERE.leakage("D", "C")],
    "randomisation": lambda: [HERE.randomisation("D", "C")],
    "tables": lambda: [HERE.tables, HERE.metrics, HERE.curves],
    "report": lambda: [HERE.report],
}


def filled(text: object) -> str:
    """Replace an item's values in a text of dvc.yaml by sample names."""
    if isinstance(text, dict):  # an output with options of its own
        text = next(iter(text))
    text = str(text).replace("${key}", SAMPLES["dataset"])
    text = re.sub(r"\$\{item\.(\w+)\}", lambda match: SAMPLES[match[1]], text)
    return re.sub(r"\$\{[\w.]*seeds\[0\]\}", SAMPLES["name"], text)


STAGES = {
    name: stage.get("do", stage)
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items()
}


@pytest.mark.parametrize("name", STAGES)
def test_dvc_yaml_agrees(name: str) -> None:
    stage = STAGES[name]
    command = shlex.split(filled(stage["cmd"]))
    module = command[2].removeprefix("dxai.stages.")
    outs = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
    assert [Path(filled(out)) for out in outs] == OUTPUTS[module]()
    tree = ast.parse((ROOT / f"dxai/stages/{module}.py").read_text())
    (main,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "main")
    parameters = [a.arg.replace("decomposition", "name") for a in main.args.args]
    assert command[:2] + command[3:] == ["python", "-m", *(SAMPLES[p] for p in parameters)]


@pytest.mark.parametrize("name", STAGES)
def test_dvc_yaml_reads_what_a_stage_writes(name: str) -> None:
    written = {path for outputs in OUTPUTS.values() for path in outputs()}
    written |= {HERE.classifier("D", "C", "explained"), HERE.classifier("D", "S", "explained")}
    written |= {parent for path in written for parent in path.parents}
    read = {Path(filled(dep)) for dep in STAGES[name]["deps"]}
    own = {path for path in read if path.parts[0] in ("artifacts", "results")}
    assert own <= written
