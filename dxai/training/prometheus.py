"""How a training goes, in Prometheus's text format, for a collector of text files."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

EVERY = 5.0
"""Seconds between two writings."""
HELP = {
    "steps": "Steps of the whole training.",
    "steps_done": "Steps that are done.",
    "images_per_second": "Images in a second since it last started.",
    "starts": "How often it started since this process began, after losses too.",
    "seen_timestamp_seconds": "When it last gave a sign of life.",
}


class Metrics:
    """One file, `<title>.prom`, replaced whole every few seconds.

    Parameters
    ----------
    folder : Path
        Where the collector looks (`node_exporter --collector.textfile.directory`).
    title : str
        What is trained; the label `training`. The label `run` is the Prefect run's id, if there is
        one.
    """

    def __init__(self, folder: Path, title: str) -> None:
        self.path = folder / (re.sub(r"[^\w-]+", "-", title) + ".prom")
        self.registry = CollectorRegistry()
        self.labels = {"training": title, "run": os.environ.get("PREFECT__FLOW_RUN_ID", "")}
        self.gauges = {
            name: Gauge(f"dxai_training_{name}", text, [*self.labels], registry=self.registry)
            for name, text in HELP.items()
        }
        self.number = Gauge(
            "dxai_training_number",
            "A number of its history: a loss, or dB on validation images.",
            [*self.labels, "name"],
            registry=self.registry,
        )
        self.written = -EVERY

    def set(self, **values: float) -> None:
        """Set gauges by the names of `HELP`."""
        for name, value in values.items():
            self.gauges[name].labels(**self.labels).set(value)

    def count_start(self) -> None:
        """One more start."""
        self.gauges["starts"].labels(**self.labels).inc()

    def set_row(self, numbers: dict[str, Any]) -> None:
        """Set the numbers of a row of the history."""
        for name, value in numbers.items():
            self.number.labels(**self.labels, name=name).set(float(value))

    def write(self, now: bool = False) -> None:
        """Write the file, unless that was done just before."""
        if not now and time.monotonic() - self.written < EVERY:
            return
        self.written = time.monotonic()
        self.set(seen_timestamp_seconds=time.time())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_to_textfile(str(self.path), self.registry)
