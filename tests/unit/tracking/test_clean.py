"""What `dxai clean` finds, and what it leaves: real processes, a real DVC cache, a real MLflow."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dxai.cli.clean import KINDS
from dxai.cli.main import main
from dxai.paths import RUN
from dxai.tracking import clean, deleted_runs, mlflow_store, unused_objects
from dxai.tracking.clean import Search
from dxai.utils.files import write_json

LONG_AGO = time.time() - 40 * clean.DAY


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def folder(path: str, age: float = LONG_AGO, **about: object) -> Path:
    """Make a folder with a file of 1000 bytes, as old as said."""
    made = Path(path)
    made.mkdir(parents=True)
    (made / "content").write_bytes(b"x" * 1000)
    if about:
        write_json(made / RUN, about)
    for each in (*made.iterdir(), made):
        os.utime(each, (age, age))
    return made


def found(kind: str, days: float = 30) -> dict[str, clean.Item]:
    search = Search(mlflow_store.HERE, days)
    return {item.name: item for item in clean.KINDS[kind](search)}


@pytest.fixture
def sleeper(project: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that works in an old training's folder."""
    used = folder(".work/checkpoints/used")
    with subprocess.Popen(["sleep", "600"], cwd=used) as process:
        yield process
        process.kill()


def test_what_is_old_and_unused_is_found_and_nothing_else(
    project: Path, sleeper: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    folder(".work/checkpoints/old")
    folder(".work/checkpoints/young", time.time() - 86400)
    folder(".work/scoring/old")
    folder(".work/runs/ended", name="brave-cat", state="COMPLETED", pid=sleeper.pid)
    folder(".work/runs/killed", name="lost", state="RUNNING", pid=2**22 + 1)
    folder(".work/runs/computing", name="busy", state="RUNNING", pid=sleeper.pid)
    folder(".work/reproduced/abc")
    told, open_ = folder(".work/checkpoints/told"), folder(".work/checkpoints/open")
    for training, is_open in ((told, False), (open_, True)):
        (training / "events.jsonl").touch()
        write_json(training / "live.json", {"open": is_open, "outcome": None})
        for each in (*training.iterdir(), training):
            os.utime(each, (LONG_AGO, LONG_AGO))
    (project / ".work/mlflow.db").touch()  # neither databases nor secrets are of any kind

    expected = [
        *(".work/runs/ended", ".work/runs/killed", ".work/reproduced/abc"),
        *(".work/checkpoints/old", ".work/checkpoints/told", ".work/scoring/old"),
    ]
    before = sorted(project.rglob("*"))
    assert main(["clean", "workspaces", "unfinished"]) == 0
    said = capsys.readouterr().out
    assert [line.split()[1] for line in said.splitlines() if " 40  " in line] == expected
    assert f"computing is left: process {sleeper.pid} computes in it" in said
    assert f"used is left: process {sleeper.pid} uses it" in said
    assert "open is left: MLflow does not have all of it" in said
    assert "of run brave-cat" in said and "in 6 entries; `--yes` removes them" in said
    assert sorted(project.rglob("*")) == before

    assert main(["clean", "workspaces", "unfinished", "--yes"]) == 0
    assert not any((project / name).exists() for name in expected)
    left = {path.name for path in (project / ".work").glob("*/*")}
    assert left == {"young", "used", "open", "computing"}
    assert not list(project.rglob(f"*{clean.REMOVED}"))


def test_a_removal_that_was_cut_short_is_finished(project: Path) -> None:
    folder(".work/runs/.x.123.removed", time.time())
    (item,) = found("workspaces").values()
    item.remove()
    assert not list((project / ".work/runs").iterdir())


def test_a_run_under_way_keeps_the_cache(project: Path) -> None:
    search = Search(mlflow_store.HERE, 0)
    folder(".work/runs/computing", name="busy", state="running", pid=os.getpid())
    assert list(clean.cache(search)) == []
    (project / ".work/runs/computing" / RUN).unlink()
    assert search.notes == ["DVC's cache is left: a run is under way"]
    (project / ".dvc/tmp").mkdir(parents=True)
    about = {"out": {"write": {"pid": os.getpid(), "cmd": "dvc repro"}}}
    (project / ".dvc/tmp/rwlock").write_text(json.dumps(about))
    assert list(clean.cache(Search(mlflow_store.HERE, 0))) == []


def test_the_command_knows_all_kinds() -> None:
    assert tuple(clean.KINDS) == KINDS


@pytest.mark.parametrize("argument", ["--older=-1", "--older=soon", "everything"])
def test_wrong_arguments_are_refused(
    argument: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["clean", argument])
    assert argument.rpartition("=")[2] in capsys.readouterr().err


STAGES = """
stages:
  make:
    cmd: python make.py
    deps: [x]
    outs: [out.txt, folder]
"""
MAKE = """
from pathlib import Path
x = Path("x").read_text()
Path("out.txt").write_text(f"out {x}")
Path("folder").mkdir()
for name in ("a", "b"):
    Path("folder", name).write_text(f"{name} {x}")
Path("folder/same").write_text("the same in every run")
"""
REPRO = """
import sys
from pathlib import Path
from dvc.repo import Repo
for x in sys.argv[1:]:
    Path("x").write_text(x)
    Repo(".").reproduce()
    Path(f"{x}.lock").write_bytes(Path("dvc.lock").read_bytes())
"""
CHECKOUT = """
import shutil, sys
from pathlib import Path
from dvc.exceptions import CheckoutError
from dvc.repo import Repo
for x in sys.argv[1:]:
    shutil.copy(f"{x}.lock", "dvc.lock")
    shutil.rmtree("folder", ignore_errors=True)
    Path("out.txt").unlink(missing_ok=True)
    try:
        Repo(".").checkout()
    except CheckoutError:
        continue
    print(x)
"""
RUNS = ("committed", "logged", "deleted", "workspace", "nobody", "here")


@pytest.mark.slow
def test_of_the_cache_and_of_mlflow_goes_what_no_kept_run_needs(project: Path) -> None:
    (project / "dvc.yaml").write_text(STAGES)
    (project / "make.py").write_text(MAKE)

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=t", "-c", "user.email=t@t")
        subprocess.run(["git", *who, *arguments], check=True, capture_output=True)

    git("init")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], check=True)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [sys.executable, "-c", REPRO, *RUNS]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PATH": path})
    locks = {name: (project / f"{name}.lock").read_text() for name in RUNS}

    (project / "dvc.lock").write_text(locks["committed"])
    git("add", "dvc.lock", "dvc.yaml")
    git("commit", "-m", "x")
    (project / "dvc.lock").write_text(locks["here"])
    (project / ".work/runs/r").mkdir(parents=True)
    (project / ".work/runs/r/dvc.lock").write_text(locks["workspace"])
    runs = {}
    with mlflow_store.open_store(project) as store:
        for name in ("logged", "deleted"):
            runs[name] = store.begin(name, {"kind": "benchmark", "dvc_lock": name})
            store.client.log_text(runs[name], locks[name], "dvc.lock")
            store.client.set_terminated(runs[name])
        store.client.delete_run(runs["deleted"])
        # Its model is that of a run which is kept.
        runs["owner"] = store.begin("owner", {})
        store.client.log_text(runs["owner"], "weights", "model.pt")
        store.tags(runs["logged"], {"model_of_run": runs["owner"]})
        store.client.delete_run(runs["owner"])

    now, cache = time.time() + 60, unused_objects.cache_folder(project)
    assert unused_objects.find(project, cache, now - 3600) == []  # all are too young
    unused = unused_objects.find(project, cache, now)
    assert len(unused) == 2 * 4  # out.txt, the folder's list, a and b, of two runs
    (project / "artifacts").mkdir()
    os.link(unused[0], project / "artifacts/hard")
    os.symlink(unused[1], project / "artifacts/symbolic")
    assert unused_objects.find(project, cache, now) == unused[2:]
    shutil.rmtree(project / "artifacts")
    (item,) = found("cache", 0).values()
    assert item.name.startswith("8 files in .dvc/cache") and item.size
    item.remove()
    command = [sys.executable, "-c", CHECKOUT, *RUNS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [name for name in RUNS if name not in ("nobody", "deleted")]

    (gone,) = found("mlflow", 0).values()
    assert gone.name == "1 runs in MLflow"
    files = {
        name: list((project / ".work").rglob(f"{run}/artifacts/*")) for name, run in runs.items()
    }
    assert all(files.values())
    assert found("mlflow", 1) == {}
    gone.remove()
    assert {name: all(path.exists() for path in paths) for name, paths in files.items()} == {
        "logged": True,
        "deleted": False,
        "owner": True,
    }
    assert found("mlflow", 0) == {}


def test_a_store_of_others_is_left_alone(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    search = Search(mlflow_store.HERE, 0)
    assert list(clean.mlflow(search)) == []
    assert "a store that others may use" in search.notes[0]
    monkeypatch.setenv(deleted_runs.BACKEND, "postgresql+psycopg://dxai@127.0.0.1/mlflow")
    assert deleted_runs.own_store(mlflow_store.HERE) == os.environ[deleted_runs.BACKEND]
