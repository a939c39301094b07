"""Pieces of a stage item scored on Ray: what the stage does, which is to start, watch and restart.

Ray's driver dies with its cluster, so it runs in a process of its own, `dxai.stages.ray_actors`.
All that counts is in the files of the pieces: whatever is killed, the next start scores those
that are missing.

Actors, not Ray Data: an actor loads the networks once, and a piece is a number in and a file out,
so that nothing of an image passes through Ray's memory.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import time
from collections.abc import Callable

from dxai.config.schema import EvaluationParams
from dxai.stages.pieces import Pieces, Source
from dxai.training.runtime.supervisor import environment, ray_address
from dxai.types import Unsupported
from dxai.utils import processes
from dxai.utils.files import read_json
from dxai.utils.own_folder import python_without_space

ON_RAY = "scoring on Ray"
"""Printed by a stage whose work takes longer than the start of Ray."""
WAIT = 0.5
"""Seconds between two looks at the pieces."""
LOG, ANSWER = "ray.log", "answer.json"
ERRORS: dict[str, type[Exception]] = {"Unsupported": Unsupported, "ValueError": ValueError}


@dataclasses.dataclass(frozen=True)
class Work:
    """Input of the driver; `folder` is the project's, `pieces` are those of the item."""

    source: Source
    left: list[int]
    params: EvaluationParams
    device: str
    pieces: Pieces
    address: str | None
    folder: str = dataclasses.field(default_factory=os.getcwd)


def score(
    source: Source,
    params: EvaluationParams,
    device: str,
    pieces: Pieces,
    left: Callable[[], list[int]],
) -> None:
    """Score the pieces that are left; `left` lists them, and reports progress.

    Raises what explaining raised: `Unsupported`, `ValueError` or `RuntimeError`. Raises
    `ChildProcessError` if Ray was lost more often than allowed.
    """
    print(ON_RAY, flush=True)
    for again in range(params.failures, -1, -1):
        waiting = left()
        if not waiting:
            return
        work = Work(source, waiting, params, device, pieces, ray_address())
        if _attempt(work, left):
            return
        log = pieces.folder / LOG
        if not again:
            raise ChildProcessError(f"Ray ended {params.failures + 1} times (full log: {log})")
        print(f"Ray ended (full log: {log}); restarting ({again} restarts left)", flush=True)


def _attempt(work: Work, left: Callable[[], list[int]]) -> bool:
    """Run one driver; return whether everything is scored."""
    answer = work.pieces.folder / ANSWER
    answer.unlink(missing_ok=True)
    with (work.pieces.folder / LOG).open("ab") as log:
        process = subprocess.Popen(
            [python_without_space(), "-c", "from dxai.stages.ray_actors import main; main()"],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    assert process.stdin is not None
    try:
        # It stays open: the driver ends with this process, however that ends.
        process.stdin.write(pickle.dumps(work))
        process.stdin.flush()
        while process.poll() is None:
            left()
            time.sleep(WAIT)
    except BrokenPipeError:
        process.wait()
    finally:
        processes.end_session(process.pid)
        process.wait()
    if answer.exists():
        found = read_json(answer)
        raise ERRORS.get(found["kind"], RuntimeError)(found["text"])
    return not left()
