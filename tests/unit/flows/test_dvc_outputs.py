"""Two runs of a small project, and DVC by hand in its folder, which share what they compute."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dxai.paths import Paths
from dxai.tracking import clean
from dxai.utils import dvc_files
from flows import dvc_outputs, workspace
from flows.dvc_runner import graph, reproduce
from tests import s3
from tests.repository import git

ROOT = Path(__file__).resolve().parents[3]
PIPELINE = """
stages:
  one:
    cmd: mkdir -p artifacts && tr a-z A-Z < words > artifacts/one && cat words >> $COUNT
    deps: [words]
    outs: [artifacts/one]
  two:
    cmd: mkdir -p results/two && cp artifacts/one results/two/a && echo ${name} > results/two/b
    deps: [artifacts/one]
    params: [name]
    outs: [results/two]
"""
SETTINGS = "name: first\ndatasets: {}\nclassifiers: {}\n"


def dvc(root: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a repository with a pipeline that counts how often its first stage ran."""
    root = tmp_path / "a project"
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc/config").write_text("[core]\n    analytics = false\n    autostage = false\n")
    (root / "dvc.yaml").write_text(PIPELINE)
    (root / "params.yaml").write_text(SETTINGS)
    (root / "words").write_text("abc\n")
    (root / ".dvcignore").write_text("/.work\n")
    (root / ".dvc/.gitignore").write_text("/cache\n")
    (root / ".gitignore").write_text(
        "/.work/\n/artifacts/\n/results/\n/.dvc/cache/\n/.dvc/tmp/\n/.dvc/config.local\n"
    )
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "start")
    monkeypatch.setenv("COUNT", str(tmp_path / "count"))
    monkeypatch.chdir(root)
    return root


def count(project: Path) -> int:
    """Count how often the first stage has been computed."""
    file = project.parent / "count"
    return len(file.read_text().splitlines()) if file.exists() else 0


def run(
    name: str,
    settings: str | None = None,
    log: Callable[[str], None] = print,
    keep_record: bool = False,
) -> set[str]:
    """Run all of it in a workspace as the flow does; returns what was there before."""
    with workspace.of_run(name, "0" * 36) as space:
        space.keep_record = keep_record
        here, root = Path.cwd(), space.project
        if settings:
            (here / "params.yaml").write_text(settings)
        remote = dvc_outputs.share(root, here)
        needs = graph(here)
        dvc_outputs.recall(here)
        found = dvc_outputs.restore(needs, here, log, pull=remote)
        reproduce(needs, log, here, stale=needs.keys() - found, name=name)
        dvc_outputs.remember(here, root)
        if remote:
            dvc_outputs.push(here, log)
        assert dvc_outputs.hand_over(here, root, log)
    return found


def test_what_a_run_computed_is_there_and_no_tracked_file_has_changed(project: Path) -> None:
    assert run("amber") == set()
    assert git(project, "status", "--short") == ""
    assert (project / "artifacts/one").read_text() == "ABC\n"
    assert (project / "results/two/b").read_text() == "first\n"
    assert not list(Paths(project).runs.iterdir())
    assert run("blue") == {"one", "two"}
    assert run("coral", SETTINGS.replace("first", "second")) == {"one"}
    assert (project / "results/two/b").read_text() == "second\n"
    assert run("denim") == {"one", "two"}  # from the run cache
    assert (project / "results/two/b").read_text() == "first\n"
    assert count(project) == 1
    assert git(project, "status", "--short") == ""


def test_dvc_by_hand_and_a_run_compute_nothing_twice(project: Path) -> None:
    run("amber")
    said = dvc(project, "repro")
    assert "Running" not in said
    assert said.count("is cached - skipping run, checking out outputs") == 2
    assert "up to date" in dvc(project, "status")
    (project / "words").write_text("def\n")
    assert "Running stage 'one'" in dvc(project, "repro")
    assert run("blue") == {"one", "two"}
    assert count(project) == 2


def test_uncommitted_changes_are_part_of_a_run_and_those_during_it_are_not(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "words").write_text("changed\n")
    with workspace.of_run("amber", "0" * 36):
        (project / "words").write_text("later\n")
        assert Path("words").read_text() == "changed\n"
        assert git(Path.cwd(), "status", "--short") == " M words\n"
    assert Path.cwd() == project


def test_a_failed_run_keeps_its_workspace_and_the_next_one_goes_on(project: Path) -> None:
    (project / "dvc.yaml").write_text(PIPELINE.replace("cp artifacts", "false && cp artifacts"))
    with pytest.raises(RuntimeError, match="stage two failed"):
        run("amber")
    (kept,) = Paths(project).runs.iterdir()
    assert kept.name == "amber-00000000"
    assert '"state": "failed"' in (kept / "run.json").read_text()
    assert not (project / "artifacts").exists()
    (project / "dvc.yaml").write_text(PIPELINE)
    assert run("blue") == {"one"}
    assert count(project) == 1


def test_a_workspace_takes_no_space_for_what_the_cache_has(project: Path) -> None:
    run("amber")
    (cached,) = {
        path for path in project.glob(".dvc/cache/files/md5/*/*") if path.read_bytes() == b"ABC\n"
    }
    with workspace.of_run("blue", "1" * 36) as space:
        here = space.folder
        dvc_outputs.share(space.project, here)
        dvc_outputs.recall(here)
        dvc_outputs.restore(graph(here), here, print)
        # A copy-on-write link, or a hard one; tests run where the first is rare.
        assert (here / "artifacts/one").stat().st_ino == cached.stat().st_ino


def write_unseen(path: Path, text: str) -> None:
    """Change a file so that only its content tells."""
    before = path.stat()
    with path.open("r+") as file:
        file.write(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("place", ["data/photos", "../photos"])
def test_raw_files_are_read_once_and_not_in_each_workspace(project: Path, place: str) -> None:
    (project / place).mkdir(parents=True)
    photo = project / place / "1.png"
    photo.write_text("abc")
    needs = "[words, '${datasets.photos.source}']"
    (project / "dvc.yaml").write_text(PIPELINE.replace("[words]", needs))
    photos = f"datasets: {{photos: {{source: {place}}}}}"
    (project / "params.yaml").write_text(SETTINGS.replace("datasets: {}", photos))
    (project / ".git/info/exclude").write_text("/data/photos\n")
    run("amber")
    write_unseen(photo, "def")
    assert run("blue") == {"one", "two"}
    # DVC takes the path as a part of what the stage is.
    assert ("Running stage 'one'" in dvc(project, "repro")) == place.startswith("..")
    os.utime(photo)
    assert run("coral") == set()


def test_what_a_run_of_tables_made_stays_in_the_cache_with_its_record(project: Path) -> None:
    run("amber", keep_record=True)
    run("blue", SETTINGS.replace("first", "second"))  # its outputs replace the others
    (record,) = Paths(project).runs.iterdir()
    assert {path.name for path in record.iterdir()} == {"run.json", "params.yaml", "dvc.lock"}
    assert dvc_files.stages(record / "dvc.lock").keys() == {"one", "two"}
    (item,) = clean.workspaces(clean.Search(Paths(project), 0))
    assert "of run amber" in item.why
    item.remove()
    assert not list(Paths(project).runs.iterdir())


ANOTHER = """
import sys
from tests.unit.flows.test_dvc_outputs import SETTINGS, run
run(sys.argv[1], SETTINGS.replace("first", sys.argv[2]), lambda line: print(line, flush=True))
"""


def start(project: Path, name: str, value: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", ANOTHER, name, value],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("end", ["itself", "killed"])
def test_two_runs_side_by_side_compute_once_what_they_have_in_common(
    project: Path, end: str
) -> None:
    (project / "dvc.yaml").write_text(PIPELINE.replace("&& tr", "&& sleep 3 && tr"))
    first = start(project, "amber", "one")
    assert first.stdout is not None
    while "Running stage 'one'" not in first.stdout.readline():
        pass
    with first, start(project, "blue", "two") as second:
        if end == "killed":
            first.kill()
        said, _ = second.communicate(timeout=120)
    assert second.returncode == 0, said
    assert (project / "artifacts/one").read_text() == "ABC\n"
    if end == "itself":
        assert first.returncode == 0
        assert "Running stage 'one'" not in said
        assert count(project) == 1
        assert run("coral", SETTINGS.replace("first", "one")) == {"one", "two"}
    assert run("denim", SETTINGS.replace("first", "two")) == {"one", "two"}
    assert (project / "results/two/b").read_text() == "two\n"
    assert git(project, "status", "--short") == " M dvc.yaml\n"


def test_results_wait_for_a_dvc_that_uses_the_folder(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dvc_outputs, "PATIENCE_SECONDS", 0.0)
    run("amber")
    (project / "dvc.yaml").write_text(PIPELINE.replace("tr a-z A-Z", "echo started && sleep 60 &&"))
    command = [sys.executable, "-m", "dvc", "repro", "one"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0) as process:
        assert process.stdout is not None
        while "sleep" not in process.stdout.readline():
            pass
        said: list[str] = []
        with workspace.of_run("blue", "1" * 36) as space:
            here = space.folder
            dvc_outputs.share(space.project, here)
            git(here, "checkout", "-q", "dvc.yaml")
            dvc_outputs.recall(here)
            dvc_outputs.restore(graph(here), here, print)
            assert not dvc_outputs.hand_over(here, space.project, said.append)
        os.killpg(process.pid, 9)
    assert f"the results stay in {project}/.work/runs/blue-11111111" in said[0]


@pytest.fixture(scope="module")
def store() -> Iterator[s3.Server]:
    with s3.rclone() as server:
        yield server


def test_a_fresh_clone_pulls_from_the_remote(
    project: Path, store: s3.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.use(monkeypatch, store.endpoint)
    remote = f"s3://{store.bucket()}/dvc"
    monkeypatch.setenv("DXAI_REMOTE", remote)
    run("amber")
    clone = project.parent / "clone"
    git(project, "clone", "-q", str(project), str(clone))
    monkeypatch.chdir(clone)
    assert run("blue") == {"one", "two"}
    assert (clone / "artifacts/one").read_text() == "ABC\n"
    assert count(project) == 1
    by_hand = project.parent / "by hand"
    git(project, "clone", "-q", str(project), str(by_hand))
    dvc(by_hand, "remote", "add", "--local", "--default", "dxai", remote)
    said = dvc(by_hand, "repro", "--pull", "--allow-missing")
    assert count(project) == 1, said
