"""Log a training to MLflow while it goes, from a process of its own.

`python -m dxai.live FOLDER` reads what the training writes to FOLDER/events.jsonl, so that neither
a slow nor a missing MLflow can hold the training up. It ends when its standard input does, after a
word on how the training ended. A training that goes on later goes on in the same MLflow run.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

# Read when MLflow is imported: its own patience would outlast the training.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

from dxai.files import read_json, write_json
from dxai.tracking import open_store

EXPERIMENT = "dxai-training"
"""Apart from `dxai`, whose runs are results."""
EVERY = 5.0
"""Seconds between two batches."""
STATE = "live.json"
OUTCOMES = ("FINISHED", "FAILED", "KILLED")


class Follower:
    """What of a training's events is in MLflow.

    Parameters
    ----------
    folder : Path
        Of the training; keeps live.json, the id of the run and how far the events are read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        known = read_json(folder / STATE) if (folder / STATE).exists() else {}
        self.run: str | None = known.get("run")
        self.offset: int = known.get("offset", 0)
        self.images: int = known.get("images", 0)

    def catch_up(self, outcome: str | None = None) -> None:
        """Log what is new, in one batch; and, if given, how the training ended."""
        events, offset = self._new()
        if not events and outcome is None:
            return
        rows = [e for e in events if e["kind"] == "row"]
        panels = {e["step"]: Path(e["path"]) for e in events if e["kind"] == "panel"}
        for event in events:
            self.images = event.get("images", self.images)
        with open_store(Path.cwd(), EXPERIMENT) as store:
            if self.run is None and events:
                tags = {"training": self.folder.name, "title": events[0]["title"]}
                name = events[0]["title"]
                self.run = store.client.create_run(
                    store.experiment, run_name=name, tags=tags
                ).info.run_id
            if self.run is None:
                return
            store.metrics(self.run, [(e["step"], self._numbers(e)) for e in rows])
            store.panels(self.run, {s: p for s, p in panels.items() if p.exists()})
            self.offset = offset
            # "RUNNING" again, if it is one that was stopped and goes on.
            status = outcome or "RUNNING"
            store.client.update_run(self.run, status=status)
            if outcome:
                store.client.set_terminated(self.run, outcome)
        keep = {"run": self.run, "offset": self.offset, "images": self.images}
        write_json(self.folder / STATE, keep)

    def _new(self) -> tuple[list[dict[str, Any]], int]:
        """Whole lines since the last time, and where they end."""
        path = self.folder / "events.jsonl"
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


def follow(folder: Path) -> None:
    """Log until standard input ends."""
    follower = Follower(folder)
    ended = threading.Event()
    words: list[str] = []

    def listen() -> None:
        words.extend(sys.stdin.read().split())
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    told = False
    while True:
        over = ended.wait(EVERY)
        outcome = (words[-1] if words and words[-1] in OUTCOMES else "KILLED") if over else None
        try:
            follower.catch_up(outcome)
        except Exception as error:  # whatever MLflow and its store may raise
            if not told or over:
                reason = " ".join(str(error).split())[:200]
                print(f"MLflow takes no live numbers: {reason}", file=sys.stderr, flush=True)
            told = True
        if over:
            return


if __name__ == "__main__":
    follow(Path(sys.argv[1]))
