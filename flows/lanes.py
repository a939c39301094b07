"""Lanes, in which items run side by side: a DVC process each, with one item after another."""

import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread

from dxai.utils import processes

GRACE = 5.0
"""Seconds that DVC and its stage get to end after Ctrl-C, and again after SIGTERM."""
PROGRAM = Path(__file__).with_name("dvc_lane.py").absolute()

_END = "\0"  # starts the line after the last one of DVC and its stage
_NOISE = re.compile(
    r"\s*(To track the changes with git|git add |To enable auto staging|dvc config|Use `dvc|$)"
)
"""Lines to drop: DVC's advice after each command."""


class StageFailed(RuntimeError):
    """A stage ended with an error; the text has its name and its error line."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(f"stage {stage} failed: {reason}")
        self.stage = stage
        # The stage rejected its input: retrying cannot help.
        self.by_input = reason.startswith("error:")


class Lane:
    """Runs one target at a time; DVC starts with the first, and anew if it was killed.

    DVC and its stage form a process group, which has always ended when `end` returns.
    """

    def __init__(self, root: Path | str, environment: dict[str, str]) -> None:
        self.root, self.environment = root, environment
        self.process: subprocess.Popen[str] | None = None
        self.busy = self.ended = False
        self._lock = Lock()  # of `process` and `ended`, as `end` comes from another thread

    def run(self, target: str) -> Iterator[str]:
        """Bring a target up to date; yield each line that DVC and the stage print.

        Raises `StageFailed` after the last line, if DVC ended with an error.
        """
        recent = deque[str](maxlen=1000)
        process = self._order(target)
        self.busy = True
        code = ""
        assert process.stdout is not None
        for line in map(str.rstrip, process.stdout):
            if line.startswith(_END):
                code = line.removeprefix(_END)
                break
            if line:
                recent.append(line)
            if not _NOISE.match(line):
                yield line
        self.busy = False
        if code == "0":
            return
        if self.ended:
            raise _stopped(target)
        raise StageFailed(target, _reason(list(recent), code or str(process.wait())))

    def _order(self, target: str) -> "subprocess.Popen[str]":
        """Tell DVC the next target."""
        with self._lock:
            if self.ended:
                raise _stopped(target)
            if self.process is None or self.process.poll() is not None:
                self.close()
                self.process = self._start()
            assert self.process.stdin is not None
            self.process.stdin.write(f"{target}\n")
            self.process.stdin.flush()
            return self.process

    def _start(self) -> "subprocess.Popen[str]":
        # With a pipe, a stage whose flow was killed ends at its next line, not hours later.
        output, pipe = os.pipe()
        process = subprocess.Popen(
            # -P: this folder must not hide modules that DVC imports.
            [sys.executable, "-P", str(PROGRAM)],
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=pipe,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )
        process.stdout = os.fdopen(output, errors="replace")

        def end_with_leader() -> None:
            process.wait()
            processes.end_group(process.pid, grace=GRACE)
            # A program outside the group may hold the pipe open for ever.
            with suppress(BrokenPipeError), os.fdopen(pipe, "w") as last:
                last.write(f"\n{_END}\n")

        # A killed DVC, for example by lack of memory, would leave its stage and the pipe behind.
        Thread(target=end_with_leader, daemon=True).start()
        return process

    def end(self) -> None:
        """End DVC and its stage; no further target runs."""
        with self._lock:
            self.ended, process = True, self.process
        if process is None:
            return
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        if not self.busy:  # it ends by itself
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        processes.end_group(process.pid, grace=GRACE)
        process.wait()

    def close(self) -> None:
        """Close the pipes of a DVC that has ended."""
        for pipe in (self.process.stdin, self.process.stdout) if self.process else ():
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()


def _stopped(target: str) -> StageFailed:
    return StageFailed(target, "error: stopped, as the run ends")


def _reason(lines: list[str], code: str) -> str:
    """Find the error line of a stage, else its last line and DVC's own error."""
    for line in lines:
        if line.startswith("error:"):
            return line
    own = [i for i, line in enumerate(lines) if line.startswith("ERROR:")]
    end = own[0] if own else len(lines)
    failure = lines[end].removeprefix("ERROR:").strip() if own else f"dvc ended with code {code}"
    if failure.endswith("blocked by:"):  # a lock; the next line names its holder
        failure += " ".join(lines[end + 1 : end + 2])
    return f"{lines[end - 1]} ({failure})" if end else failure
