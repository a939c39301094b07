"""The driver and the actors that score pieces on Ray; see `dxai.stages.actors`."""

from __future__ import annotations

import importlib
import os
import pickle
import sys
import threading
from typing import Any

import ray
import torch
from ray.exceptions import RayTaskError
from ray.util import ActorPool

from dxai.stages.actors import ANSWER, Work
from dxai.training.runtime.ray_driver import capacity, connect
from dxai.types import Unsupported
from dxai.utils.files import write_json
from dxai.utils.memory import keep_freed


@ray.remote
class PieceActor:
    """Scores pieces of one item."""

    def __init__(self, work: Work) -> None:
        os.chdir(work.folder)
        keep_freed()
        torch.set_num_threads(work.params.cpus_per_worker)
        module, arguments = work.source
        self.item = importlib.import_module(module).item(*arguments)
        if self.item.pieces.folder != work.pieces.folder:
            raise ValueError("params.yaml, a model or the code changed since the stage began")

    def score(self, k: int) -> None:
        self.item.score(k)


def main() -> None:
    """Score what standard input describes; end when it ends."""
    work: Work = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        run(work)
    except RayTaskError as error:
        _answer(work, error.cause)
    except ValueError as error:
        _answer(work, error)


def _end_with_input() -> None:
    while os.read(0, 1024):  # not `sys.stdin`, whose lock would break the interpreter's end
        pass
    os._exit(1)


def _answer(work: Work, error: BaseException) -> None:
    kinds = [kind for kind in (Unsupported, ValueError) if isinstance(error, kind)]
    found = {"kind": kinds[0].__name__ if kinds else "", "text": str(error)}
    write_json(work.pieces.folder / ANSWER, found)


def run(work: Work) -> None:
    """Let as many actors as wanted score the pieces; Ray replaces one that is lost."""
    params = work.params
    connect(work.address, params.workers * params.cpus_per_worker)
    has, each = capacity(), {"CPU": float(params.cpus_per_worker)}
    gpus = params.gpus_per_worker if work.device != "cpu" else 0
    if gpus and (work.device != "auto" or has.get("GPU", 0) >= gpus):
        each["GPU"] = gpus
    room = min(int(has.get(kind, 0) // share) for kind, share in each.items())
    if not room:
        needs = ", ".join(f"{share:g} {kind}" for kind, share in each.items())
        raise ValueError(f"the cluster has no room for an actor (evaluation), which needs {needs}")
    made: Any = PieceActor.options(  # type: ignore[attr-defined]
        num_cpus=params.cpus_per_worker,
        num_gpus=each.get("GPU", 0),
        max_restarts=params.failures,
        max_task_retries=params.failures,
    )
    count = min(params.workers, len(work.left), room)
    pool = ActorPool([made.remote(work) for _ in range(count)])
    for _ in pool.map_unordered(lambda actor, k: actor.score.remote(k), work.left):
        pass
