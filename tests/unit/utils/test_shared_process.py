"""A program that lives as long as its holder, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dxai.utils import shared_process

PROGRAM = """
import os, sys
with open("starts", "a") as file:
    print(os.getpid(), file=file)
print("ready", os.getpid(), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def use(folder: Path, program: str = PROGRAM) -> str:
    return shared_process.use(folder, [sys.executable, "-c", program], dict(os.environ))


def starts() -> list[int]:
    return [int(line) for line in Path("starts").read_text().split()]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while alive(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.02)


def test_all_use_one_program_and_it_ends_with_the_block(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    with shared_process.hold(folder):
        assert not Path("starts").exists()  # nobody needed it yet
        with ThreadPoolExecutor(4) as pool:
            said = set(pool.map(lambda _: use(folder), range(4)))
        (pid,) = starts()
        assert said == {f"ready {pid}"}
        assert alive(pid)
    assert not alive(pid)


def test_a_program_that_was_lost_is_started_again(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    with shared_process.hold(folder):
        use(folder)
        os.kill(starts()[0], signal.SIGKILL)
        wait_until_gone(starts()[0])
        assert use(folder) == f"ready {starts()[1]}"
    assert not alive(starts()[1])


def test_it_ends_when_its_holder_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    holder = (
        "import sys; from pathlib import Path; from dxai.utils import shared_process\n"
        f"with shared_process.hold(Path({str(folder)!r})):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    use(folder)
    process.kill()
    process.communicate()
    wait_until_gone(starts()[0])
    with shared_process.hold(folder):  # what it left is in nobody's way
        assert use(folder) == f"ready {starts()[1]}"


def test_a_program_that_says_nothing_is_an_error_that_names_its_log(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    with shared_process.hold(folder):
        for word in ("no", "never"):
            with pytest.raises(ChildProcessError, match=str(folder / "log")):
                use(folder, f"raise SystemExit({word!r})")
    assert (folder / "log").read_text().split() == ["no", "never"]
