"""Computing a logged run again after everything around it has changed."""

from __future__ import annotations

import csv
import re
import shlex
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dxai.config.params_file import format_params
from dxai.config.profiles import load_profile
from tests.integration.conftest import Project
from tests.operating_manual import block
from tests.repository import git

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

OWN_NETWORK = """
import torch

def build():
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3, padding=1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(24, 2),
    )
"""
OWN = {
    "datasets": {"fruit": {"layout": "folder", "source": "data/fruit", "channels": 3}},
    "classifiers": {"mine": {"arch": "own_network:build"}},
    "joint": {},
    "repeat": {"classifiers": [], "seeds": []},
    "ablations": {"datasets": [], "classifiers": [], "variants": {}},
    "methods": {"gradcam": {"layer": None}},
}
FIRST = {
    "prepare@fruit",
    "network@mine-dxai/models/classifiers.py",
    "network@mine-own_network.py",
}
STAGES = FIRST | {
    "classifier@fruit-mine-explained",
    "classifier@fruit-mine-twin",
    "decompose@fruit-mine-0",
    "baseline@fruit-mine-gradcam",
    "ours@fruit-mine-0",
    "cross@fruit-mine-mine-0",
    "leakage@fruit-mine",
    "randomisation@fruit-mine",
    "tables",
    "report",
}
PLAIN, CACHED = (shlex.split(line, comments=True) for line in block("Reproduce a run").splitlines())
"""The two commands of docs/operating.md."""


def running(output: str) -> set[str]:
    """Return the names of the stages that DVC ran."""
    return set(re.findall(r"Running stage '([^']+)'", output))


def state(project: Project) -> dict[str, tuple[int, int]]:
    """Map every file of the project outside .work to its size and modification time."""
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in project.root.rglob("*")
        if not path.is_dir()
        and not path.is_relative_to(project.root / ".work")
        # Locks that DVC takes, and what Python compiles, to read where the cache is.
        and not {"tmp", "__pycache__"} & set(path.parts[len(project.root.parts) :])
    }


@pytest.fixture(scope="module")
def logged(
    make_project: Callable[..., Project], tmp_path_factory: pytest.TempPathFactory
) -> Project:
    """Log a tiny run with linked data and a new module, then change all of it."""
    project, raw = make_project(), tmp_path_factory.mktemp("raw")
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 8)):
        for index, name in enumerate(["green", "red"]):
            folder = raw / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(60, 120, (20, 24, 3))
                pixels[..., 1 - index] += 100
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    (project.root / "data/fruit").symlink_to(raw)
    module, params = project.root / "own_network.py", project.root / "params.yaml"
    module.write_text(OWN_NETWORK)
    params.write_text(format_params(load_profile("smoke") | OWN))
    overrides = {"decompose.steps": "5", "decompose.panel_every": "5", "evaluate.bootstrap": "50"}
    project.select(overrides=overrides | {"randomisation.images": "0"})
    done = project.run("dvc", "repro")
    assert done.returncode == 0, done.stdout
    assert running(done.stdout) == STAGES
    done = project.run("dxai", "track")
    assert done.returncode == 0, done.stdout
    module.write_text("raise SystemExit('this is not the code of the run')\n")
    project.select(profile="quick")
    git(project.root, "add", "own_network.py", "params.yaml")
    git(project.root, "commit", "-q", "-m", "otherwise")
    return project


def test_a_run_gives_the_same_numbers_after_a_stop(logged: Project) -> None:
    before = state(logged)
    seen = logged.interrupt("Running stage 'classifier", *PLAIN)
    assert "and its uncommitted changes" in seen
    assert "linked data/fruit, the source of dataset fruit" in seen
    assert not [c for c in logged.processes().values() if "stages" in c or "dvc" in c]
    assert running(seen) >= FIRST

    done = logged.run(*PLAIN)
    assert done.returncode == 0, done.stdout
    assert running(done.stdout) == STAGES - FIRST
    count, of = re.findall(r"Cells: (\d+) of (\d+) are the same", done.stdout)[0]
    assert int(count) == int(of) > 5
    assert re.search(r"Outputs: \d+ of 15 have the same bytes", done.stdout)
    assert state(logged) == before


def test_the_cache_restores_what_is_intact_in_it(logged: Project) -> None:
    objects = logged.root / ".dvc/cache/files/md5"
    page = (logged.root / "results/report.html").read_bytes()
    (report,) = (p for p in objects.glob("*/*") if p.is_file() and p.read_bytes() == page)
    report.chmod(report.stat().st_mode | stat.S_IWUSR)
    report.write_bytes(page.replace(b"a", b"b", 1))
    before = state(logged)
    done = logged.run(*CACHED)
    assert done.returncode == 0, done.stdout
    assert running(done.stdout) == {"report"}
    assert state(logged) == before


def test_another_value_in_a_table_is_named(logged: Project, tmp_path: Path) -> None:
    (path,) = (logged.root / ".work/mlflow-artifacts").glob("*/artifacts/tables/table1.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    row = next(row for row in rows if row["method"] == "gradcam")
    row["auc"] = str(float(row["auc"]) + 0.001)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    done = logged.run("dxai", "reproduce", "latest", "--from-cache", "--into", str(tmp_path / "x"))
    assert done.returncode == 1, done.stdout
    assert re.search(r"^  auc/fruit/mine/gradcam .* -0\.001$", done.stdout, re.MULTILINE)
    assert len(re.findall(r"^  \w+/fruit/mine", done.stdout, re.MULTILINE)) == 1
    assert done.stdout.endswith("not reproduced\n")
