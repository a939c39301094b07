"""Kill anything at random while two runs of the benchmark compute side by side.

After each kill comes `make up`, which the manual names as the remedy in every case, and a run that
the kill ended is started again, with the same parameters. In the end each has to have the results
of one that nothing disturbed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import re
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil

from dxai.paths import RUN
from dxai.utils.files import read_json
from infra import supervisor
from infra.deployments import POOL
from infra.prefect_api import FINAL, ApiError
from tests.faults import Cluster, kill_all
from tests.integration.conftest import served
from tests.ray_jobs import wait_for
from tests.soak.plan import evenly, next_of
from tests.soak.results import differing, digests, forget

VICTIMS = {
    "worker": r"-m prefect worker start",
    "keeper": r"-m infra\.worker",
    "flow": r"prefect\.engine",
    "lane": r"dvc_lane\.py",
    "stage": r"-m dxai\.stages\.",
    "driver": r"ray_(driver|actors|readers) import main",
    "trainer": r"^ray::TrainController",
    "actor": r"^ray::(RayTrainWorker|PieceActor)",
    "raylet": r"raylet/raylet ",
    "gcs_server": r"gcs/gcs_server ",
    "live": r"-m dxai\.tracking\.live",
}
"""A process, which dies alone, by its command."""
MACHINE = "machine"
"""All processes at once. The other victims are services of `make up`, with all their processes."""
SETTINGS: dict[str, Any] = {
    "profile": "smoke",
    "classifiers": ["simple"],
    "methods": ["ig"],
    "overrides": {
        "repeat": "{classifiers: [], seeds: []}",
        "ablations.variants": "{}",
        "classifier.epochs": "20",
        "decompose.steps": "800",
        "decompose.checkpoint_every": "50",
        "decompose.log_every": "25",
        "decompose.panel_every": "400",
        "decompose.discriminator_width": "32",
        "training.executor": "ray",
        "evaluation.executor": "ray",
    },
}
"""Minutes of work for a run, most of it in processes of Ray."""
METHODS = (["ig", "lime"], ["gradient_shap", "naive"])
RESTED = (3.0, 15.0)
"""Seconds, at least and at most, that both runs compute before a kill."""
DOWN = 10.0
"""Seconds, at most, from a kill to `make up`."""
SLOW = 600.0
"""Longest wait for two runs that compute."""
LAST = 1800.0
"""Longest wait for the end of the last runs."""


@dataclass
class Wanted:
    """A run with its parameters, however often it has to be started."""

    parameters: dict[str, Any]
    runs: list[str] = field(default_factory=list)
    completed: bool = False
    lost: bool = False
    """Whether it has to be started, and could not be yet."""


@dataclass
class Kill:
    """A kill and its consequences.

    Attributes
    ----------
    number, victim, command
        Its number, what was killed, and the command of the process, if it was one.
    running : list of str
        The stages under way.
    ended : list of str
        The runs that ended without results, and their states.
    seconds : float or None
        From the kill until two runs computed again.
    """

    number: int
    victim: str
    command: str
    running: list[str]
    ended: list[str] = field(default_factory=list)
    seconds: float | None = None

    def line(self, kills: int) -> str:
        """Return a line for people."""
        ended = ", ".join(self.ended) or "no run ended"
        during = ", ".join(self.running) or "nothing"
        return (
            f"kill {self.number}/{kills}: {self.victim} while {during} ran; {ended}; "
            f"two runs computed after {self.seconds or 0:.0f} s"
        )


def wanted(number: int) -> Wanted:
    """Return the parameters of the next run; no two are the same."""
    return Wanted({"seeds": [number], "methods": METHODS[number % 2]})


def soak(kills: int, chance: random.Random, cluster: bool) -> tuple[bool, dict[str, Any]]:
    """Do all kills; returns whether every result was equal, and the content of runs.json."""
    options = ["--cluster"] if cluster else []
    with served(*options) as project:
        project.select(**SETTINGS)
        disturbed = Soak(Cluster(project, cluster), chance, kills)
        disturbed.run()
        found = [disturbed.results(each) for each in disturbed.all]
        disturbed.check_records()
    with served(*options) as project:
        project.select(**SETTINGS)
        undisturbed = Cluster(project, cluster)
        expected = [results(undisturbed, each.parameters)[0] for each in disturbed.all]
    others = [differing(*pair) for pair in zip(found, expected, strict=True)]
    for each, names in zip(disturbed.all, others, strict=True):
        same = f"NOT equal: {', '.join(names)}" if names else "equal"
        print(f"{each.parameters}, {len(each.runs)} starts: {same}", flush=True)
    summary = {
        "kills": [dataclasses.asdict(kill) for kill in disturbed.done],
        "runs": [
            {"parameters": each.parameters, "starts": len(each.runs), "differs_in": names}
            for each, names in zip(disturbed.all, others, strict=True)
        ],
        "files": [len(each) for each in expected],
        "seconds": round(disturbed.seconds),
    }
    return not any(others), summary


def results(cluster: Cluster, parameters: dict[str, Any]) -> tuple[dict[str, str], str]:
    """Run this alone, and return digests of its results, and its log."""
    forget(cluster.project.root)
    run = cluster.run(parameters)
    state = cluster.ends(run, LAST)
    assert state["type"] == "COMPLETED", state
    return digests(cluster.project.root), cluster.project.log(run)


class Soak:
    """Keep two runs going until all kills are done, and then until they have their results."""

    def __init__(self, cluster: Cluster, chance: random.Random, kills: int) -> None:
        self.cluster, self.chance, self.count = cluster, chance, kills
        kinds = [*VICTIMS, MACHINE, *(n for n in cluster.services() if n not in VICTIMS)]
        self.plan = evenly(chance.sample(kinds, len(kinds)), kills, chance)
        self.all: list[Wanted] = []
        self.done: list[Kill] = []
        self.seconds = 0.0

    def run(self) -> None:
        """Do all kills, and wait for the ends of the runs."""
        began = time.monotonic()
        while self.plan:
            self.keep_two()
            time.sleep(self.chance.uniform(*RESTED))
            if self.kill_next():
                killed = time.monotonic()
                time.sleep(self.chance.uniform(0, DOWN))
                self.cluster.up()
                self.keep_two()
                self.done[-1].seconds = time.monotonic() - killed
                print(self.done[-1].line(self.count), flush=True)
        wait_for(self.all_completed, self.cluster.said, LAST, 1.0)
        self.seconds = time.monotonic() - began

    # ------------------------------------------------------------------------------------- runs
    def keep_two(self) -> None:
        """Wait until two runs compute, which are started anew where they have ended."""
        wait_for(self.two_compute, lambda: f"two runs that compute: {self.cluster.said()}", SLOW, 1)

    def two_compute(self) -> bool:
        self.look()
        while len([each for each in self.all if not each.completed]) < 2:
            self.all.append(wanted(len(self.all)))
            self.start(self.all[-1])
        return all(each.completed or self.computes(each) for each in self.all)

    def all_completed(self) -> bool:
        self.look()
        return all(each.completed for each in self.all)

    def look(self) -> None:
        """Look which runs have ended, and start those again that have no results."""
        for each in self.all:
            if each.lost:
                self.start(each)
            state = None if each.completed or each.lost else self.cluster.state(each.runs[-1])
            if state is None or state["type"] not in FINAL:
                continue
            if state["type"] == "COMPLETED":
                each.completed = True
                continue
            said = f"run {each.parameters['seeds'][0]} {state['name']}: {state['message']}"
            print(said, flush=True)
            if self.done:
                self.done[-1].ended.append(said[:300])
            self.start(each)

    def start(self, each: Wanted) -> None:
        """Start a run, now or at the next look, if the server does not answer."""
        each.lost = True
        with contextlib.suppress(OSError, ApiError):
            each.runs.append(self.cluster.run(each.parameters))
            each.lost = False

    def computes(self, each: Wanted) -> bool:
        """Whether a run is Running, and its process lives, with DVC at work."""
        state = None if each.lost else self.cluster.state(each.runs[-1])
        if state is None or state["type"] != "RUNNING":
            return False
        run, runs = each.runs[-1], self.cluster.project.root / ".work/runs"
        for file in runs.glob(f"*-{run[:8]}/{RUN}"):
            with contextlib.suppress(psutil.NoSuchProcess, OSError):
                flow = psutil.Process(read_json(file)["pid"])
                return any("dvc_lane" in " ".join(each.cmdline()) for each in flow.children())
        return False

    # ------------------------------------------------------------------------------------ kills
    def kill_next(self) -> bool:
        """Kill the first of the plan that is there; returns whether one was."""
        found = self.cluster.processes()
        alone = {
            name: [pid for pid, command in found.items() if re.search(pattern, command)]
            for name, pattern in VICTIMS.items()
        }
        present = {name for name, pids in alone.items() if pids} | {MACHINE}
        stack = self.cluster.stack
        present |= {name for name in self.cluster.services() if supervisor.running(stack, name)}
        if (place := next_of(self.plan, present)) is None:
            return False
        victim = self.plan[place]
        pid = self.chance.choice(alone[victim]) if victim in alone else 0
        try:
            if victim == MACHINE:
                while left := self.cluster.processes():
                    kill_all(left)
            elif pid:
                os.kill(pid, signal.SIGKILL)
            else:
                self.cluster.kill(victim)
        except ProcessLookupError:  # it has just ended
            return False
        self.plan.pop(place)
        about = Kill(len(self.done) + 1, victim, found.get(pid, ""), stages(list(found.values())))
        self.done.append(about)
        return True

    # ---------------------------------------------------------------------------------- the end
    def results(self, each: Wanted) -> dict[str, str]:
        """Start a completed run once more, which computes nothing, and return digests."""
        found, log = results(self.cluster, each.parameters)
        assert "Running stage" not in log, log
        return found

    def check_records(self) -> None:
        """Nothing still runs in Prefect or MLflow, which has every number once."""
        states = ("SCHEDULED", "PENDING", "RUNNING", "CANCELLING")
        assert not self.cluster.project.api.unfinished(POOL, states)
        self.cluster.up()  # sends what was missed
        runs = self.cluster.in_mlflow()
        open_ = [run for run in runs if run["status"] not in ("FINISHED", "FAILED", "KILLED")]
        assert not open_, open_
        for run in (run for run in runs if run["experiment"] == "dxai-training"):
            for name, steps in run["steps"].items():
                assert len(steps) == len(set(steps)), (run["run"], name)
        complete = [r for r in runs if r["experiment"] == "dxai" and r["status"] == "FINISHED"]
        assert len(complete) >= len(self.all)


def stages(commands: Sequence[str]) -> list[str]:
    """Return the stage items among commands, like `decompose textures simple 0`."""
    found = (re.search(r"-m dxai\.stages\.(.+)", command) for command in commands)
    return sorted({match[1].strip() for match in found if match})
