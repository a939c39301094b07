"""Log a training to MLflow while it goes, from a process of its own.

`python -m dxai.tracking.live FOLDER` reads what the training writes to FOLDER/events.jsonl, so that
neither a slow nor a missing MLflow can hold the training up. It ends when its standard input does,
after a word on how the training ended. A training that goes on later goes on in the same MLflow
run.

What MLflow did not take stays in FOLDER, or, since the folder of a finished training goes, in
.work/live. Whoever logs next sends it first; so does `python -m dxai.tracking.live`.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Read when MLflow is imported: its own patience would outlast the training, and what is asked twice
# may be done twice.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

from dxai.paths import EVENTS, HERE, LIVE_LOCK, LIVE_STATE, PANELS
from dxai.tracking.mlflow_store import Store, open_store
from dxai.utils.files import locked, read_json, write_json

EXPERIMENT = "dxai-training"
"""Apart from `dxai`, whose runs are results."""
EVERY = 5.0
"""Seconds between two batches."""
OUTCOMES = ("FINISHED", "FAILED", "KILLED")


class Follower:
    """What of a training's events is in MLflow.

    Parameters
    ----------
    folder : Path
        Of the training; keeps live.json, which says what of the events MLflow has.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        known = read_json(folder / LIVE_STATE) if (folder / LIVE_STATE).exists() else {}
        self.key: str = known.get("key", "")
        self.run: str | None = known.get("run")
        self.offset: int = known.get("offset", 0)
        self.images: int = known.get("images", 0)
        self.step: int = known.get("step", 0)
        self.panel: int = known.get("panel", 0)
        self.open: bool = known.get("open", False)
        """Whether it runs, as far as MLflow knows."""
        self.outcome: str | None = known.get("outcome")
        """How the training ended, if MLflow has not been told yet."""

    def catch_up(self, outcome: str | None = None) -> None:
        """Log what is new, in one batch; and, if given, how the training ended."""
        events, offset = self._new()
        self.outcome = outcome or self.outcome
        if not events and None in (self.outcome, self.run):
            return
        # A training that went on from a checkpoint makes its last steps again.
        rows = {e["step"]: e for e in events if e["kind"] == "row" and e["step"] > self.step}
        panels = {e["step"]: Path(e["path"]) for e in events if e["kind"] == "panel"}
        with open_store(Path.cwd(), EXPERIMENT) as store:
            self.run = self.run or self._begin(store, events[0]["title"])
            self.open = True
            for event in events:
                self.images = event.get("images", self.images)
            numbers = [(step, e["time"], self._numbers(e)) for step, e in rows.items()]
            store.metrics(self.run, numbers)
            self.step = max([self.step, *rows])
            for step, path in sorted(panels.items()):
                path = path if path.exists() else self.folder / PANELS / path.name
                if step > self.panel and path.exists():
                    store.panels(self.run, {step: path})
                    self.panel = step
                    self._keep()
            self.offset = offset
            # "RUNNING" again, if it is one that was stopped and goes on.
            store.client.update_run(self.run, status=self.outcome or "RUNNING")
            if self.outcome:
                store.client.set_terminated(self.run, self.outcome)
            self.open, self.outcome = self.outcome is None, None
        self._keep()

    def _begin(self, store: Store, title: str) -> str:
        """Open the run, or find the one that was opened when the answer was lost."""
        if self.key:
            found = store.client.search_runs([store.experiment], f"tags.follower = '{self.key}'")
            if found:
                return found[0].info.run_id
        self.key = self.key or secrets.token_hex(8)
        self._keep()
        tags = {"training": self.folder.name, "title": title, "follower": self.key}
        return store.begin(title, tags)

    def _keep(self) -> None:
        write_json(self.folder / LIVE_STATE, {k: v for k, v in vars(self).items() if k != "folder"})

    def _new(self) -> tuple[list[dict[str, Any]], int]:
        """Whole lines since the last time, and where they end."""
        path = self.folder / EVENTS
        if not path.exists():
            return [], self.offset
        with path.open("rb") as file:
            file.seek(self.offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        return [json.loads(line) for line in whole.splitlines()], self.offset + len(whole)

    def _numbers(self, event: dict[str, Any]) -> dict[str, float]:
        numbers = {name: float(value) for name, value in event["numbers"].items()}
        rate = event["step"] * self.images / max(numbers.get("seconds", 0.0), 1e-9)
        return numbers | {"images_per_second": rate}

    def leave(self, outcome: str) -> Path:
        """Keep how the training ended, and all that MLflow may not take; returns where."""
        self.outcome = outcome
        if self.folder.exists():
            self._keep()
        if outcome != "FINISHED" or not (self.folder / EVENTS).exists():
            return self.folder
        self.key = self.key or secrets.token_hex(8)
        place = HERE.unsent / f"{self.folder.name}-{self.key}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        if (self.folder / PANELS).is_dir():
            shutil.copytree(self.folder / PANELS, place / PANELS)
        for name in (EVENTS, LIVE_STATE):  # the state last: without one nothing is left
            shutil.copy(self.folder / name, place / name)
        return place


def settle() -> int:
    """Send what MLflow has not taken, of trainings that nobody follows; returns of how many."""
    count = 0
    states = [folder.glob(f"*/{LIVE_STATE}") for folder in (HERE.unsent, HERE.unfinished)]
    for state in sorted(itertools.chain(*states)):
        with locked(state.parent / LIVE_LOCK) as alone:
            follower = Follower(state.parent)
            if alone and (follower.open or follower.outcome):
                follower.catch_up(follower.outcome or "KILLED")
                count += 1
            if alone and state.parent.parent == HERE.unsent:
                shutil.rmtree(state.parent)
    return count


def follow(folder: Path) -> None:
    """Log until standard input ends."""
    ended = threading.Event()
    words: list[str] = []
    told = False

    def listen() -> None:
        words.extend(sys.stdin.read().split())
        ended.set()

    def attempt(call: Callable[[], object], last: bool = False) -> bool:
        nonlocal told
        try:
            call()
        except Exception as error:  # whatever MLflow and its store may raise
            if not told or last:
                reason = " ".join(str(error).split())[:200]
                print(f"MLflow takes no live numbers: {reason}", file=sys.stderr, flush=True)
            told = True
            return False
        return True

    threading.Thread(target=listen, daemon=True).start()
    with locked(folder / LIVE_LOCK) as alone:
        if not alone:
            sys.exit(f"{folder}: another process logs this training")
        follower = Follower(folder)
        follower.outcome = None  # it goes on
        attempt(settle)
        while not ended.wait(EVERY):
            attempt(follower.catch_up)
        outcome = words[-1] if words and words[-1] in OUTCOMES else "KILLED"
        place = follower.leave(outcome)
        if attempt(lambda: Follower(place).catch_up(outcome), last=True) and place != folder:
            shutil.rmtree(place)


if __name__ == "__main__":
    if sys.argv[1:]:
        follow(Path(sys.argv[1]))
    elif count := settle():
        print(f"MLflow has the live numbers of {count} trainings that it had missed")
