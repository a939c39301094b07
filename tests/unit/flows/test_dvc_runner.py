"""Groups of a small pipeline, and real runs of it by DVC."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dxai.config.profiles import select_profile
from dxai.config.settings import ParamsError
from flows.dvc_runner import Group, StageFailed, groups, lanes, prune_locks, reproduce

PIPELINE = """
stages:
  report:
    cmd: cat parts/a parts/b > report.txt && date > date.txt
    deps:
    - parts
    outs:
    - report.txt
    - date.txt
  part:
    foreach: [a, b]
    do:
      cmd: COMMAND
      deps:
      - source-${item}
      outs:
      - parts/${item}
"""
COPY = "mkdir -p parts && cp source-${item} parts/${item} && echo made ${item}"


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A pipeline of three stages, with `report` first in the file and last in the graph."""
    write(tmp_path, COPY)
    for name in ("a", "b"):
        (tmp_path / f"source-{name}").write_text(name)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    return tmp_path


def write(root: Path, command: str) -> None:
    (root / "dvc.yaml").write_text(PIPELINE.replace("COMMAND", json.dumps(command)))


def log_of(root: Path, *targets: str) -> list[str]:
    lines: list[str] = []
    reproduce(targets, lines.append, root)
    return lines


def assert_ended(pid: int) -> None:
    """The process has ended; it may be a zombie that its parent has not reaped yet."""
    stat = Path(f"/proc/{pid}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_groups_follow_the_graph_not_the_file(pipeline: Path) -> None:
    part, report = groups(pipeline)
    assert part.name == "part"
    assert sorted(part.targets) == ["part@a", "part@b"]
    assert report == Group("report", ("report",))


def test_a_group_is_run_then_skipped_and_every_line_passed_on(pipeline: Path) -> None:
    first = log_of(pipeline, "part@a", "part@b")
    assert {"made a", "made b", "Running stage 'part@b':"} <= set(first)
    assert not any("git add" in line or "autostage" in line for line in first)
    second = log_of(pipeline, "part@a", "part@b")
    assert "Stage 'part@a' didn't change, skipping" in second
    assert not any(line.startswith("Running") for line in second)


def test_what_a_stage_prints_is_told_apart(pipeline: Path) -> None:
    told: list[tuple[str, list[str]]] = []
    rest: list[str] = []
    targets = ["part@a", "part@b", "report"]
    watch = lambda stage, lines: told.append((stage, list(lines)))  # noqa: E731
    reproduce(targets, rest.append, pipeline, watch=watch)
    assert [stage for stage, _ in told] == targets
    assert "made a" in told[0][1]
    assert "made b" in told[1][1]
    assert not any("made" in line or "Running" in line for line in rest)
    reproduce(targets, rest.append, pipeline, watch=watch)
    assert len(told) == 3  # what is up to date does not begin
    assert "Stage 'report' didn't change, skipping" in rest


def test_a_failure_is_that_of_the_stage_that_is_watched(pipeline: Path) -> None:
    write(pipeline, "if [ ${item} = b ]; then echo 'error: no'; exit 1; fi; " + COPY)
    ends: dict[str, str] = {}

    def watch(stage: str, lines: Iterator[str]) -> None:
        try:
            list(lines)
            ends[stage] = "well"
        except StageFailed as error:
            ends[stage] = str(error)
            raise

    with pytest.raises(StageFailed, match="part@b"):
        reproduce(["part@a", "part@b"], lambda line: None, pipeline, watch=watch)
    assert ends == {"part@a": "well", "part@b": "stage part@b failed: error: no"}


@pytest.mark.parametrize(
    ("wanted", "expected"), [(["report"], ["part", "report"]), (["part"], ["part"]), ([], [])]
)
def test_only_what_is_wanted_and_what_it_needs(
    pipeline: Path, wanted: list[str], expected: list[str]
) -> None:
    assert [group.name for group in groups(pipeline, wanted)] == expected


def test_only_the_named_items_are_run(pipeline: Path) -> None:
    log_of(pipeline, "part@a")
    assert (pipeline / "parts/a").exists()
    assert not (pipeline / "parts/b").exists()


@pytest.mark.parametrize(
    ("command", "said", "by_input"),
    [
        ("echo 'error: no such image' >&2; exit 1", "error: no such image", True),
        ("echo 'ValueError: sums' >&2; exit 1", "ValueError: sums", False),
        ("kill -9 $$", "exited with -9", False),
    ],
)
def test_a_failed_stage_is_named_with_its_own_words(
    pipeline: Path, command: str, said: str, by_input: bool
) -> None:
    write(pipeline, f'bash -c "{command}"')
    with pytest.raises(StageFailed, match=r"^stage part@a failed: ") as failure:
        log_of(pipeline, "part@a", "part@b")
    assert said in str(failure.value)
    assert failure.value.by_input == by_input


def test_items_run_at_once_each_with_its_share_of_the_threads(pipeline: Path) -> None:
    # Each waits for the other: one after the other they would never end.
    other = "touch here-${item}; until [ -e here-a ] && [ -e here-b ]; do sleep 0.1; done"
    write(pipeline, f"{other}; echo $OMP_NUM_THREADS threads; {COPY}")
    lines: list[str] = []
    reproduce(["part@a", "part@b"], lines.append, pipeline, at_once=2)
    assert {"made a", "made b"} <= set(lines)
    share = max(1, (os.cpu_count() or 1) // 2)
    assert lines.count(f"{share} threads") == 2
    skipped = log_of(pipeline, "part@a", "part@b")
    assert not any(line.startswith("Running") for line in skipped)


def test_the_first_failure_ends_what_runs_beside_it(pipeline: Path) -> None:
    failing = "if [ ${item} = a ]; then echo 'error: no'; exit 1; fi"
    write(
        pipeline,
        f"echo $$ > pid-${{item}}; until [ -e pid-b ]; do sleep 0.1; done; {failing}; sleep 600",
    )
    began = time.monotonic()
    with pytest.raises(StageFailed, match="stage part@a failed: error: no"):
        reproduce(["part@a", "part@b"], lambda line: None, pipeline, at_once=2)
    assert time.monotonic() - began < 60
    assert_ended(int((pipeline / "pid-b").read_text()))
    write(pipeline, COPY)
    assert "made b" in log_of(pipeline, "part@a", "part@b")  # nothing is left locked


@pytest.mark.parametrize(
    ("cores", "workers", "threads", "expected"),
    [(2, 1, 2, 1), (2, 1, 1, 2), (1, 1, 2, 1), (16, 2, 2, 4), (64, 1, 1, 4)],
)
def test_as_many_items_as_there_is_room_to_train(
    tmp_path: Path, monkeypatch, cores: int, workers: int, threads: int, expected: int
) -> None:
    shutil.copy("params.yaml", tmp_path)
    overrides = {"training.workers": str(workers), "training.cpus_per_worker": str(threads)}
    select_profile(tmp_path / "params.yaml", overrides=overrides)
    monkeypatch.chdir(tmp_path)
    assert lanes(cores) == expected


def test_a_cluster_may_have_more_room_than_this_machine(monkeypatch) -> None:
    monkeypatch.setenv("DXAI_LANES", "24")
    assert lanes(2) == 24


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5", "²"])
def test_what_is_no_number_of_items_is_named(given: str, monkeypatch) -> None:
    monkeypatch.setenv("DXAI_LANES", given)
    with pytest.raises(ParamsError, match=f"DXAI_LANES is '{given}'"):
        lanes(2)


def test_python_in_a_stage_is_the_one_that_runs_the_flow(pipeline: Path) -> None:
    write(
        pipeline,
        'python -c "import sys; print(sys.prefix)" && mkdir -p parts && touch parts/${item}',
    )
    assert sys.prefix in log_of(pipeline, "part@a")


def test_an_error_while_logging_ends_dvc_and_the_stage(pipeline: Path) -> None:
    write(pipeline, "echo $$ > pid; echo here; sleep 600")

    def log(line: str) -> None:
        if line == "here":
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        reproduce(["part@a"], log, pipeline)
    assert time.monotonic() - began < 30
    assert_ended(int((pipeline / "pid").read_text()))
    write(pipeline, COPY)
    assert "made a" in log_of(pipeline, "part@a")  # nothing is left locked


def test_a_stage_that_ignores_a_polite_stop_is_killed(pipeline: Path, monkeypatch) -> None:
    write(pipeline, "trap '' INT TERM; echo $$ > pid; echo here; sleep 600; sleep 600")
    monkeypatch.setattr("flows.dvc_runner.GRACE", 0.5)

    def log(line: str) -> None:
        if line == "here":
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        reproduce(["part@a"], log, pipeline)
    assert_ended(int((pipeline / "pid").read_text()))


def test_a_killed_dvc_takes_its_stage_along(pipeline: Path) -> None:
    write(pipeline, "echo $$ > pid; echo $PPID; sleep 600; echo unreachable")
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        if line.isdigit():
            os.kill(int(line), signal.SIGKILL)

    with pytest.raises(StageFailed, match=r"part@a.*code -9") as failure:
        reproduce(["part@a"], log, pipeline)
    assert not failure.value.by_input
    assert "unreachable" not in lines
    assert_ended(int((pipeline / "pid").read_text()))


def test_a_stage_that_somebody_else_runs_is_left_to_them(pipeline: Path) -> None:
    write(pipeline, "touch begun; sleep 600")
    command = [sys.executable, "-m", "dvc", "repro", "part@a"]
    with subprocess.Popen(command, cwd=pipeline, start_new_session=True) as other:
        while not (pipeline / "begun").exists():
            time.sleep(0.1)
        with pytest.raises(StageFailed, match=rf"busy.*PID {other.pid}"):
            log_of(pipeline, "part@a")
        os.killpg(other.pid, signal.SIGKILL)


def test_items_of_two_runs_at_once_wait_for_each_other(pipeline: Path) -> None:
    write(pipeline, "sleep 1; mkdir -p parts; cp source-${item} parts/${item}")
    failures: list[Exception] = []

    def run(item: str) -> None:
        try:
            log_of(pipeline, item)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(f"part@{item}",)) for item in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert (pipeline / "parts/b").exists()


class TestLocks:
    @pytest.fixture
    def dead(self) -> int:
        process = subprocess.Popen(["true"])
        process.wait()
        return process.pid

    def table(self, root: Path, pid: int) -> Path:
        holder = {"pid": pid, "cmd": "dvc repro"}
        path = root / ".dvc/tmp/rwlock"
        path.parent.mkdir(exist_ok=True)
        outs = {str(root / name): holder for name in ("report.txt", "date.txt")}
        path.write_text(json.dumps({"write": outs, "read": {str(root / "parts"): [holder]}}))
        return path

    def test_of_a_dead_process_are_dropped(self, pipeline: Path, dead: int) -> None:
        table = self.table(pipeline, dead)
        assert prune_locks(pipeline) == [dead]
        assert json.loads(table.read_text()) == {"read": {}, "write": {}}
        assert prune_locks(pipeline) == []

    def test_of_a_process_id_given_to_another_program_are_dropped(self, pipeline: Path) -> None:
        with subprocess.Popen(["sleep", "60"]) as other:
            self.table(pipeline, other.pid)
            assert prune_locks(pipeline) == [other.pid]
            other.kill()

    def test_of_a_running_process_are_kept(self, pipeline: Path) -> None:
        table = self.table(pipeline, os.getpid())
        before = table.read_text()
        assert prune_locks(pipeline) == []
        assert table.read_text() == before

    def test_cut_off_in_the_middle_are_dropped(self, pipeline: Path) -> None:
        table = self.table(pipeline, 1)
        table.write_text('{"write": {"/x')
        assert prune_locks(pipeline) == []
        assert not table.exists()

    def test_do_not_stop_the_next_run(self, pipeline: Path, dead: int) -> None:
        self.table(pipeline, dead)
        lines = log_of(pipeline, "part@a", "part@b", "report")
        assert f"cleared the DVC locks of process {dead}, which has ended" in lines
        assert (pipeline / "report.txt").read_text() == "ab"
