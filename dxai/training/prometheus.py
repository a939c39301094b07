"""Training progress in Prometheus's text format, for a textfile collector."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

EVERY = 5.0
"""Seconds between two writes."""
HELP = {
    "steps": "Total steps of the training.",
    "steps_done": "Steps done.",
    "images_per_second": "Images per second since the last start.",
    "starts": "Starts since this process began, restarts included.",
    "seen_timestamp_seconds": "Time of the last event.",
}


class Metrics:
    """The file `<title>.prom`, replaced every few seconds.

    `folder` is the collector's (`node_exporter --collector.textfile.directory`). The label
    `training` is `title`, the label `run` the id of the Prefect run, if any.
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
        self.gauges["starts"].labels(**self.labels).inc()

    def set_row(self, numbers: dict[str, Any]) -> None:
        for name, value in numbers.items():
            self.number.labels(**self.labels, name=name).set(float(value))

    def write(self, now: bool = False) -> None:
        """Write the file, at most once every `EVERY` seconds unless `now`."""
        if not now and time.monotonic() - self.written < EVERY:
            return
        self.written = time.monotonic()
        self.set(seen_timestamp_seconds=time.time())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_to_textfile(str(self.path), self.registry)
