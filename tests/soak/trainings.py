"""Kill processes of trainings at random, and compare the results with an undisturbed training."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dxai.training.decomposition import DecompositionJob
from tests import s3
from tests.prepared import prepared_textures
from tests.ray_jobs import SETTINGS, TRAINING, Training, wait_for
from tests.soak.plan import evenly

VICTIMS = ("worker", "trainer", "raylet", "gcs_server", "driver", "stage")
PHASES = {"step": 3, "write": 2, "upload": 2, "start": 1}
"""Phases in which to kill, and their relative frequencies."""
UNHURT = 25.0
"""After so many seconds of steps without a restart, a kill counts as survived without one."""
SLOW = 300.0
"""Longest wait, in seconds."""


@dataclass
class Kill:
    """A kill and its consequences.

    Attributes
    ----------
    number, victim, planned
        Its number, the process to kill, and the planned phase.
    phase : str
        The actual phase: a checkpoint may be complete before the kill.
    step, saved : int
        The last reported step, and the last checkpoint on this machine.
    continued : int or None
        The step from which the training continued; None if nothing had to restart.
    seconds : float or None
        From the last step before to the first one after; None if the next kill came first.
    """

    number: int
    victim: str
    planned: str
    round: int = 0
    phase: str = ""
    step: int = 0
    saved: int = 0
    continued: int | None = None
    seconds: float | None = None

    def line(self, kills: int) -> str:
        """Return a line for people."""
        continued = "continued without a restart"
        if self.continued is not None:
            continued = f"continued from step {self.continued}"
        lost = f" after {self.seconds:.1f} s" if self.seconds is not None else ""
        return (
            f"kill {self.number}/{kills}: {self.victim} at step {self.step}, while: {self.phase}; "
            f"{continued}{lost}"
        )


def soak(kills: int, chance: random.Random, steps: int) -> tuple[bool, dict[str, Any]]:
    """Do all kills; returns whether every result was equal, and the content of soak.json."""
    with tempfile.TemporaryDirectory() as folder, s3.moto() as store:
        trainings = Soak(Path(folder), store, chance, kills, steps)
        try:
            trainings.run()
        finally:
            trainings.close()
    summary = trainings.summary()
    for victim, about in summary["victims"].items():
        print(
            f"{victim}: {about['kills']} kills, mean {about['mean_seconds']} s until the next step"
        )
    print(f"{summary['equal']} of {summary['rounds']} trainings ended bit-identical", flush=True)
    return summary["equal"] == summary["rounds"], {"steps": steps} | summary


class Soak:
    """Run trainings, one after the other, until all kills are done.

    Parameters
    ----------
    root : Path
        Folder for all files.
    store : s3.Server
        Receives a copy of each checkpoint.
    chance : random.Random
    kills, steps : int
    """

    def __init__(
        self, root: Path, store: s3.Server, chance: random.Random, kills: int, steps: int
    ) -> None:
        self.root, self.store, self.chance, self.count = root, store, chance, kills
        prepared = prepared_textures(root / "data")
        settings = SETTINGS.replace(steps=steps, panel_every=steps)
        self.job = DecompositionJob(str(prepared), settings, None, 0)
        local = TRAINING.replace(executor="local")
        self.undisturbed = Training(root / "undisturbed", self.job, local).start()
        self.bucket = store.bucket()
        self.made = [self.undisturbed]
        self.done: list[Kill] = []
        self.equal = 0

    def run(self) -> None:
        """Do all kills, and compare the result of each training."""
        expected = self.undisturbed.result(3600)
        plan = self._plan()
        while True:
            training = self._training()
            self.disturb(training, plan)
            same = training.result(3600) == expected
            self.equal += same
            print(f"training {len(self.made) - 1} is {'' if same else 'NOT '}equal", flush=True)
            # Processes that Ray was starting when the stage was killed end within a minute or so.
            wait_for(lambda t=training: not t.leftovers(), "the end of all", SLOW)
            if not plan:
                return

    def close(self) -> None:
        """End processes that a failure left."""
        for training in self.made:
            training.close()

    def summary(self) -> dict[str, Any]:
        """Return the content of soak.json."""
        victims = {}
        for victim in VICTIMS:
            mine = [kill for kill in self.done if kill.victim == victim]
            seconds = [kill.seconds for kill in mine if kill.seconds is not None]
            victims[victim] = {
                "kills": len(mine),
                "mean_seconds": round(statistics.mean(seconds), 1) if seconds else None,
                "without_a_new_start": sum(kill.continued is None for kill in mine),
            }
        kills = [dataclasses.asdict(kill) for kill in self.done]
        rounds = len(self.made) - 1
        return {"rounds": rounds, "equal": self.equal, "victims": victims, "kills": kills}

    def _plan(self) -> list[Kill]:
        """Plan each victim equally often, in random order, in all phases."""
        victims = evenly(VICTIMS, self.count, self.chance)
        phases = self.chance.choices(list(PHASES), weights=list(PHASES.values()), k=self.count)
        return [Kill(i + 1, v, p) for i, (v, p) in enumerate(zip(victims, phases, strict=True))]

    def _training(self) -> Training:
        number = len(self.made)
        params = TRAINING.replace(failures=10 * self.count, storage=f"s3://{self.bucket}/{number}")
        variables = s3.environment(self.store.endpoint)
        variables["DXAI_CACHE"] = str(self.root / f"cache-{number}")
        self.made.append(Training(self.root / f"training-{number}", self.job, params, variables))
        return self.made[-1].start()

    # ----------------------------------------------------------------------------------- kills
    def disturb(self, training: Training, plan: list[Kill]) -> None:
        """Kill as planned, until all kills are done or the training has ended."""
        self._steps(training, 0)
        while plan:
            kill = plan[0]
            if kill.planned == "start":
                if not self._leave(training):  # makes a start to disturb
                    return
                time.sleep(self.chance.uniform(0, 12))
            # Find the process beforehand: listing processes takes longer than writing a checkpoint.
            ended = self._ended(training)
            wait_for(lambda k=kill, e=ended: self._victim(training, k) or e(), "a victim", SLOW)
            victim = self._victim(training, kill)
            if victim is None:
                if ended():
                    return
                continue
            if kill.planned != "start" and not self._moment(training, kill.planned):
                return  # it has ended
            starts = training.starts()
            kill.round, kill.step = len(self.made) - 1, training.step()
            kill.saved = training.saved()
            kill.phase = "write" if training.half_written() else ""
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:  # it ended with a process killed before
                continue
            kill.phase = kill.phase or self._phase(training, kill)
            at = time.time()
            plan.pop(0)
            self.done.append(kill)
            if kill.victim == "stage":
                training.wait()
                training.start()
            self._recover(training, kill, starts, at)
            print(kill.line(self.count), flush=True)

    def _moment(self, training: Training, phase: str) -> bool:
        """Wait for a moment of a phase; return whether it came before the end."""
        wanted = training.step() + self.chance.randint(1, 30)
        saved = None

        def come() -> bool:
            nonlocal saved
            if training.step() < wanted:
                return False
            if phase == "write":
                return bool(training.half_written())
            if phase == "upload":
                now = training.saved()
                saved = now if saved is None else saved
                return now > saved
            return True

        ended = self._ended(training)
        wait_for(lambda: come() or ended(), f"a {phase}", SLOW, pause=0.001)
        return not ended()

    def _leave(self, training: Training) -> bool:
        """Kill the stage process and restart it, unless it has ended; this kill does not count."""
        if self._ended(training)():
            return False
        os.kill(training.pid, signal.SIGKILL)
        training.wait()
        training.start()
        return True

    def _victim(self, training: Training, kill: Kill) -> int | None:
        return training.pid if kill.victim == "stage" else training.find(kill.victim)

    def _phase(self, training: Training, kill: Kill) -> str:
        if kill.planned == "start":
            return "start"
        sent = not kill.saved or f"step-{kill.saved:09d}.json" in self._stored()
        return "step" if sent else "upload"

    def _stored(self) -> set[str]:
        number = len(self.made) - 1
        found = self.store.client().list_objects_v2(Bucket=self.bucket, Prefix=f"{number}/training")
        return {Path(entry["Key"]).name for entry in found.get("Contents", [])}

    def _recover(self, training: Training, kill: Kill, starts: int, at: float) -> None:
        """Wait until the training makes steps again, or evidently never stopped."""
        ended = self._ended(training)

        def again() -> bool:
            unhurt = time.time() - at > UNHURT and self._last(training) > time.time() - 5
            return training.starts() > starts or unhurt or ended()

        wait_for(again, f"a start after the end of the {kill.victim}: {training.said()}", SLOW)
        if training.starts() == starts:
            kill.seconds = 0.0
            return
        begun = training.events("start")[-1]
        kill.continued = begun["step"]
        first: dict[int, float] = {}  # a training that continues reports its last steps again
        for row in training.events("row"):
            first.setdefault(row["step"], row["time"])
        before = max([at, *(seconds for seconds in first.values() if seconds < begun["time"])])
        self._steps(training, begun["time"])
        after = [r["time"] for r in training.events("row") if r["time"] > begun["time"]]
        kill.seconds = after[0] - before if after else 0.0

    def _steps(self, training: Training, since: float) -> None:
        ended = self._ended(training)
        wait_for(lambda: self._last(training) > since or ended(), f"steps: {training.said()}", SLOW)

    def _last(self, training: Training) -> float:
        """Return the time of the last reported step."""
        rows = training.events("row")
        return rows[-1]["time"] if rows else 0.0

    def _ended(self, training: Training) -> Callable[[], bool]:
        return lambda: training.process is None or training.process.poll() is not None
