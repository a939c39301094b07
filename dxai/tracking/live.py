"""Log a running training to MLflow from a separate process.

`python -m dxai.tracking.live FOLDER` reads the events in FOLDER/events.jsonl, so a slow or missing
MLflow cannot delay the training. It exits when its standard input closes; the last word read is the
training's outcome. A resumed training continues the same MLflow run.

Unsent events stay in FOLDER, or in .work/live once a finished training's folder is deleted. The
next logging process sends them first, as does `python -m dxai.tracking.live` alone, which also
closes the runs that a killed process left open.
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

# MLflow reads this when imported. Its retries would outlast the training, and a repeated request
# may take effect twice.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

from dxai.paths import EVENTS, HERE, LIVE_LOCK, LIVE_STATE, PANELS
from dxai.tracking.mlflow_store import Store, open_store
from dxai.utils.errors import is_told, one_line
from dxai.utils.files import locked, read_json, write_json

EXPERIMENT = "dxai-training"
"""Experiment of live trainings; results are in `dxai`."""
BATCH_SECONDS = 5.0
"""Seconds between two batches."""
OUTCOMES = ("FINISHED", "FAILED", "KILLED")


class Follower:
    """Sends the events in a training's folder to MLflow; live.json there records the progress."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key, self.run = "", ""
        self.offset = self.images = self.step = self.panel = 0
        self.open = False
        """Whether MLflow shows the run as running."""
        self.outcome: str | None = None
        """Outcome that MLflow has not recorded yet."""
        if (folder / LIVE_STATE).exists():
            vars(self).update(read_json(folder / LIVE_STATE))

    def catch_up(self, outcome: str | None = None) -> None:
        """Log new events in one batch, and the training's outcome if given."""
        events, offset = self._new()
        self.outcome = outcome or self.outcome
        if not events and not (self.outcome and self.run):
            return
        # A training resumed from a checkpoint repeats its last steps.
        rows = {e["step"]: e for e in events if e["kind"] == "row" and e["step"] > self.step}
        panels = {e["step"]: Path(e["path"]) for e in events if e["kind"] == "panel"}
        with open_store(Path.cwd(), EXPERIMENT) as store:
            self.run = self.run or self._begin(store, events[0]["title"])
            self.open = True
            for event in events:
                self.images = event.get("images", self.images)
            numbers = [(step, self._numbers(e)) for step, e in rows.items()]
            store.log_numbers(self.run, {}, numbers, {s: e["time"] for s, e in rows.items()})
            self.step = max([self.step, *rows])
            for step, path in sorted(panels.items()):
                path = path if path.exists() else self.folder / PANELS / path.name
                if step > self.panel and path.exists():
                    store.log_panels(self.run, {step: path})
                    self.panel = step
                    self._keep()
            self.offset = offset
            # "RUNNING" again if the training was stopped and resumed.
            store.client.update_run(self.run, status=self.outcome or "RUNNING")
            if self.outcome:
                store.client.set_terminated(self.run, self.outcome)
            self.open, self.outcome = self.outcome is None, None
        self._keep()

    def _begin(self, store: Store, title: str) -> str:
        """Open the run, or find it if an earlier answer was lost."""
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
        """Return the complete new lines and the offset of their end."""
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
        """Save the outcome and unsent events; returns the folder that holds them."""
        self.outcome = outcome
        if self.folder.exists():
            self._keep()
        if outcome != "FINISHED" or not (self.folder / EVENTS).exists():
            return self.folder
        self.key = self.key or secrets.token_hex(8)
        unsent = HERE.unsent / f"{self.folder.name}-{self.key}"
        shutil.rmtree(unsent, ignore_errors=True)
        unsent.mkdir(parents=True)
        if (self.folder / PANELS).is_dir():
            shutil.copytree(self.folder / PANELS, unsent / PANELS)
        for name in (EVENTS, LIVE_STATE):  # state last: folders without it are ignored
            shutil.copy(self.folder / name, unsent / name)
        return unsent


def settle() -> int:
    """Send unsent events of trainings that no process follows; returns the number of trainings."""
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
    """Log a training until standard input ends."""
    ended = threading.Event()
    words: list[str] = []
    reported = False

    def listen() -> None:
        words.extend(sys.stdin.read().split())
        ended.set()

    def attempt(call: Callable[[], object], last: bool = False) -> bool:
        nonlocal reported
        try:
            call()
        except Exception as error:  # MLflow and its store raise many types
            if not reported or last:
                reason = one_line(error)[:200]
                print(f"MLflow accepts no live numbers: {reason}", file=sys.stderr, flush=True)
            reported = True
            return False
        return True

    threading.Thread(target=listen, daemon=True).start()
    with locked(folder / LIVE_LOCK) as alone:
        if not alone:
            sys.exit(f"{folder}: another process logs this training")
        follower = Follower(folder)
        follower.outcome = None  # resumed
        attempt(settle)
        while not ended.wait(BATCH_SECONDS):
            attempt(follower.catch_up)
        outcome = words[-1] if words and words[-1] in OUTCOMES else "KILLED"
        unsent = follower.leave(outcome)
        if attempt(lambda: Follower(unsent).catch_up(outcome), last=True) and unsent != folder:
            shutil.rmtree(unsent)


if __name__ == "__main__":
    if sys.argv[1:]:
        follow(Path(sys.argv[1]))
    else:
        try:
            count = settle()
            if HERE.mlflow_runs.exists() and any(HERE.mlflow_runs.iterdir()):
                with open_store(Path.cwd()):
                    pass
        except Exception as error:
            if not is_told(error):
                raise
            sys.exit(f"error: {one_line(error)}")
        if count:
            print(f"sent the live numbers that MLflow had missed, of {count} trainings")
