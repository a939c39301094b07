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
from pathlib import Path

import pytest

from dxai.config.profiles import select_profile
from dxai.config.settings import ParamsError
from dxai.paths import ROLES
from flows.dvc_runner import (
    Attempt,
    Run,
    graph,
    lanes,
    paths,
    prune_locks,
    reproduce,
    turn_of,
)
from flows.lanes import StageFailed

ROOT = Path(__file__).resolve().parents[3]
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
    """Write a pipeline of three stages, with `report` first in the file and last in the graph."""
    write(tmp_path, COPY)
    for name in ("a", "b"):
        (tmp_path / f"source-{name}").write_text(name)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    return tmp_path


def write(root: Path, command: str) -> None:
    (root / "dvc.yaml").write_text(PIPELINE.replace("COMMAND", json.dumps(command)))


def some(root: Path, *targets: str) -> dict[str, tuple[str, ...]]:
    """Return some items of the graph; what else they need has to be there."""
    found = graph(root)
    return {t: tuple(n for n in found[t] if n in targets) for t in found if t in targets}


def log_of(root: Path, *targets: str, run: Run | None = None, at_once: int = 1) -> list[str]:
    lines: list[str] = []
    reproduce(some(root, *targets), lines.append, root, run=run, at_once=at_once)
    return lines


def assert_ended(pid: int) -> None:
    """Check that a process has ended; its parent may not have reaped it yet."""
    stat = Path(f"/proc/{pid}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_the_graph_is_that_of_dvc_not_the_order_of_the_file(pipeline: Path) -> None:
    found = graph(pipeline)
    assert list(found)[-1] == "report"
    assert sorted(found["report"]) == ["part@a", "part@b"]
    assert found["part@a"] == found["part@b"] == ()


def test_only_the_named_items_are_run_and_every_line_is_passed_on(pipeline: Path) -> None:
    """A stage's `python` is the one that runs the flow."""
    write(pipeline, 'python -c "import sys; print(sys.prefix)" && ' + COPY)
    lines = log_of(pipeline, "part@a")
    assert {"Running stage 'part@a':", sys.prefix, "made a"} <= set(lines)
    assert not any("git add" in line or "autostage" in line for line in lines)
    assert (pipeline / "parts/a").exists()
    assert not (pipeline / "parts/b").exists()


def test_lines_of_a_stage_are_told_apart_and_no_locks_of_a_dead_process_stop_it(
    pipeline: Path, dead: int
) -> None:
    lock_table(pipeline, dead)
    told: list[tuple[str, list[str]]] = []
    targets = ["part@a", "part@b", "report"]
    run = lambda target, attempt: told.append((target, list(attempt())))  # noqa: E731
    rest = log_of(pipeline, *targets, run=run)
    assert f"cleared the DVC locks of process {dead}, which has ended" in rest
    assert (pipeline / "report.txt").read_text() == "ab"
    assert sorted(stage for stage, _ in told[:2]) == targets[:2]
    assert told[2][0] == "report"
    for stage, lines in told[:2]:
        assert f"made {stage[-1]}" in lines
    assert not any("made" in line or "Running" in line for line in rest)
    rest = log_of(pipeline, *targets, run=run)
    assert len(told) == 3  # an up-to-date stage does not begin
    assert {f"Stage '{target}' didn't change, skipping" for target in targets} <= set(rest)


def test_a_failure_is_that_of_its_stage_and_may_be_tried_again(pipeline: Path) -> None:
    """The failure has the stage's error line, which says that its input is wrong."""
    write(pipeline, "if [ ! -e second ]; then echo 'error: no'; exit 1; fi; " + COPY)
    ends: list[str] = []

    def run(target: str, attempt: Attempt) -> None:
        for _ in range(2):
            try:
                ends.append(list(attempt())[-1])
                return
            except StageFailed as error:
                assert (error.stage, error.by_input) == (target, True)
                ends.append(str(error))
                (pipeline / "second").touch()

    log_of(pipeline, "part@b", run=run)
    assert ends[0] == "stage part@b failed: error: no"
    assert (pipeline / "parts/b").exists()


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (["report"], ["part@a", "part@b", "report"]),
        (["part"], ["part@a", "part@b"]),
        ([], []),
    ],
)
def test_only_what_is_wanted_and_what_it_needs(
    pipeline: Path, wanted: list[str], expected: list[str]
) -> None:
    assert sorted(graph(pipeline, wanted)) == expected


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("echo 'ValueError: sums' >&2; exit 1", "ValueError: sums"),
        ("printf unfinished; kill -9 $$", "exited with -9"),
    ],
)
def test_a_failed_stage_is_named_with_its_own_words(
    pipeline: Path, command: str, said: str
) -> None:
    write(pipeline, f'bash -c "{command}"')
    with pytest.raises(StageFailed, match=r"^stage part@a failed: ") as failure:
        log_of(pipeline, "part@a", "part@b")
    assert said in str(failure.value)
    assert not failure.value.by_input


def test_items_run_at_once_each_with_its_share_of_the_threads(pipeline: Path) -> None:
    # Each waits for the other: one after the other they would never end.
    other = "touch here-${item}; until [ -e here-a ] && [ -e here-b ]; do sleep 0.1; done"
    write(pipeline, f"{other}; echo $OMP_NUM_THREADS threads; {COPY}")
    lines = log_of(pipeline, "part@a", "part@b", at_once=2)
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
        log_of(pipeline, "part@a", "part@b", at_once=2)
    assert time.monotonic() - began < 60
    assert_ended(int((pipeline / "pid-b").read_text()))
    write(pipeline, COPY)
    assert "made b" in log_of(pipeline, "part@a", "part@b")  # nothing is left locked


CHAIN = """
stages:
  slow: {cmd: "until [ -e two ]; do sleep 0.1; done; touch slow", outs: [slow]}
  one: {cmd: touch one, outs: [one]}
  two: {cmd: touch two, deps: [one], outs: [two]}
  last: {cmd: touch last, deps: [two, slow], outs: [last]}
"""


def test_an_item_starts_as_soon_as_what_it_needs_is_there(pipeline: Path) -> None:
    """`slow`, of the first level of the graph, ends only after an item of the second."""
    (pipeline / "dvc.yaml").write_text(CHAIN)
    order: list[str] = []

    def run(target: str, attempt: Attempt) -> None:
        list(attempt())
        order.append(target)

    log_of(pipeline, *graph(pipeline), run=run, at_once=2)
    assert sorted(order) == ["last", "one", "slow", "two"]
    assert (order[0], order[-1]) == ("one", "last")


def test_what_depends_on_a_changed_item_is_looked_at_too(pipeline: Path) -> None:
    log_of(pipeline, "part@a", "part@b", "report")
    (pipeline / "source-a").write_text("new")
    lines = log_of(pipeline, "part@a", "part@b", "report")
    assert "Stage 'part@b' didn't change, skipping" in lines
    assert {"Running stage 'part@a':", "Running stage 'report':"} <= set(lines)
    assert (pipeline / "report.txt").read_text() == "newb"


def test_the_longest_path_comes_first() -> None:
    """Of what can run at once, the classifier: a decomposition waits for it."""
    needs = {
        "prepare@d": (),
        "network@c": (),
        "baseline@d-other": ("prepare@d",),
        "classifier@d-c": ("prepare@d", "network@c"),
        "decompose_repeat@d-c-1": ("classifier@d-c",),
        "stability@d-c": ("decompose_repeat@d-c-1",),
    }
    found = paths(needs)
    assert found["stability@d-c"] == 70
    assert found["decompose_repeat@d-c-1"] == 70 + 200
    assert found["prepare@d"] == found["network@c"] == 5 + 80 + 200 + 70
    assert max(set(needs) - {"prepare@d", "network@c"}, key=found.get) == "classifier@d-c"


@pytest.mark.parametrize(
    ("cores", "workers", "threads", "expected"),
    [(2, 1, 2, 1), (2, 1, 1, 2), (1, 1, 2, 1), (16, 2, 2, 4), (64, 1, 1, 6)],
)
def test_as_many_items_as_there_is_room_to_train(
    tmp_path: Path, monkeypatch, cores: int, workers: int, threads: int, expected: int
) -> None:
    shutil.copy("params.yaml", tmp_path)
    overrides = {"training.workers": str(workers), "training.cpus_per_worker": str(threads)}
    select_profile(tmp_path / "params.yaml", overrides=overrides)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flows.dvc_runner.NVIDIA", tmp_path / "none")
    assert lanes(cores, memory=13 << 30) == expected
    monkeypatch.setattr("flows.dvc_runner.NVIDIA", tmp_path)
    assert lanes(cores, memory=13 << 30) == min(expected, 4)


def test_a_cluster_may_have_more_room_than_this_machine(monkeypatch) -> None:
    monkeypatch.setenv("DXAI_LANES", "24")
    assert lanes(2) == 24


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5", "²"])
def test_what_is_no_number_of_items_is_named(given: str, monkeypatch) -> None:
    monkeypatch.setenv("DXAI_LANES", given)
    with pytest.raises(ParamsError, match=f"DXAI_LANES is '{given}'"):
        lanes(2)


def test_an_error_while_logging_ends_dvc_and_the_stage(pipeline: Path) -> None:
    write(pipeline, "echo $$ > pid; echo here; sleep 600")

    def log(line: str) -> None:
        if line == "here":
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        reproduce(some(pipeline, "part@a"), log, pipeline)
    assert time.monotonic() - began < 30
    assert_ended(int((pipeline / "pid").read_text()))


@pytest.mark.slow
def test_a_stage_that_ignores_a_polite_stop_is_killed(pipeline: Path, monkeypatch) -> None:
    write(pipeline, "trap '' INT TERM; echo $$ > pid; echo here; sleep 600; sleep 600")
    monkeypatch.setattr("flows.lanes.GRACE", 0.5)

    def log(line: str) -> None:
        if line == "here":
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        reproduce(some(pipeline, "part@a"), log, pipeline)
    assert_ended(int((pipeline / "pid").read_text()))


def test_a_killed_dvc_takes_its_stage_along(pipeline: Path) -> None:
    write(pipeline, "echo $$ > pid; echo $PPID; sleep 600; echo unreachable")
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        if line.isdigit():
            os.kill(int(line), signal.SIGKILL)

    with pytest.raises(StageFailed, match=r"part@a.*code -9") as failure:
        reproduce(some(pipeline, "part@a"), log, pipeline)
    assert not failure.value.by_input
    assert "unreachable" not in lines
    assert_ended(int((pipeline / "pid").read_text()))


def test_a_program_that_a_stage_left_running_is_not_waited_for(pipeline: Path) -> None:
    """The program holds the pipe open, in a session of its own."""
    write(pipeline, "setsid sh -c 'echo $$ > pid; exec sleep 600' & " + COPY)
    began = time.monotonic()
    assert "made a" in log_of(pipeline, "part@a")
    assert time.monotonic() - began < 60
    os.kill(int((pipeline / "pid").read_text()), signal.SIGKILL)


def test_a_stage_that_somebody_else_runs_is_left_to_them(pipeline: Path) -> None:
    write(pipeline, "touch begun; sleep 600")
    command = [sys.executable, "-m", "dvc", "repro", "part@a"]
    with subprocess.Popen(command, cwd=pipeline, start_new_session=True) as other:
        while not (pipeline / "begun").exists():
            time.sleep(0.1)
        with pytest.raises(StageFailed, match=rf"busy.*PID {other.pid}"):
            log_of(pipeline, "part@a")
        os.killpg(other.pid, signal.SIGKILL)


@pytest.mark.slow
def test_lanes_that_come_to_trainings_at_once_all_learn_their_turns(
    pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC's reader of dvc.yaml fails in two threads at once, which a short interval shows."""
    for name in ("dvc.yaml", "params.yaml"):  # with more kinds of stages than the small one
        shutil.copy(ROOT / name, pipeline)
    monkeypatch.chdir(pipeline)  # where DVC looks for a named item
    names = [
        f"classifier@textures-{name}-{role}" for name in ("resnet18", "simple") for role in ROLES
    ]
    found: set[str] = set()
    threads = [
        threading.Thread(target=lambda name=name: found.add(turn_of(name))) for name in names
    ]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert found == set(names)  # nothing is there that they could be trained on


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


@pytest.fixture(scope="module")
def dead() -> int:
    """Return the id of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def lock_table(root: Path, pid: int) -> Path:
    """Write DVC's table of locked paths as a process that runs `report` does."""
    holder = {"pid": pid, "cmd": "dvc repro"}
    path = root / ".dvc/tmp/rwlock"
    path.parent.mkdir(exist_ok=True)
    outs = {str(root / name): holder for name in ("report.txt", "date.txt")}
    path.write_text(json.dumps({"write": outs, "read": {str(root / "parts"): [holder]}}))
    return path


class TestLocks:
    def test_of_a_dead_process_are_dropped(self, pipeline: Path, dead: int) -> None:
        table = lock_table(pipeline, dead)
        assert prune_locks(pipeline) == [dead]
        assert json.loads(table.read_text()) == {"read": {}, "write": {}}
        assert prune_locks(pipeline) == []

    def test_of_a_process_id_given_to_another_program_are_dropped(self, pipeline: Path) -> None:
        with subprocess.Popen(["sleep", "60"]) as other:
            lock_table(pipeline, other.pid)
            assert prune_locks(pipeline) == [other.pid]
            other.kill()

    def test_of_a_running_process_are_kept(self, pipeline: Path) -> None:
        table = lock_table(pipeline, os.getpid())
        before = table.read_text()
        assert prune_locks(pipeline) == []
        assert table.read_text() == before

    def test_cut_off_in_the_middle_are_dropped(self, pipeline: Path) -> None:
        table = lock_table(pipeline, 1)
        table.write_text('{"write": {"/x')
        assert prune_locks(pipeline) == []
        assert not table.exists()
