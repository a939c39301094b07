"""Run Prefect's worker, and another one when it is lost: `python -m infra.worker`.

A worker that is killed leaves its runs behind, with their processes, and nobody to tell the server.
This program ends those, marks the runs as crashed, so that they keep no slot, and starts another
worker. Prefect's own means, a run's heartbeats and an automation that waits for them, take minutes
to see the loss, and end no process. Meanwhile this program rotates the logs of all services, and
tells of a full disk (`infra.alerts`).
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dxai.utils import processes
from dxai.utils.addresses import reach_loopback_directly
from infra import alerts, deployments, log_files
from infra.deployments import POOL
from infra.prefect_api import ApiError, PrefectApi
from infra.supervisor import Stack, python_module

FIRST_SECONDS = 60.0
"""A worker that ends by itself sooner cannot work, so this program ends with it."""
LONGEST_PAUSE = 60.0
"""Between two starts of workers that end again and again."""
FORWARD_SECONDS = 10.0
"""A signal usually reaches the worker too; after this time, in seconds, it gets this one's."""
GRACE = 10.0
"""Seconds for a run's processes to save their state."""
LOOK_SECONDS = 60.0
"""Between two looks at the logs and the disk."""
ALERT_SECONDS = 6 * 3600.0
"""Between two alerts of the same full disk."""
PATIENT = {"PREFECT_CLIENT_RETRY_EXTRA_CODES": "500"}
"""Environment of a worker and its runs: they ask again, for up to a minute, while the server's
database is gone, for which it answers 500."""
logger = logging.getLogger(__name__)


@dataclass
class Keeper:
    """Keeps a program running until a signal asks for its end.

    `recover` is called before it starts again, until it returns True; `look` every minute.
    """

    command: list[str]
    recover: Callable[[], bool]
    look: Callable[[], None]
    asked: float | None = None

    def ask(self, *_: object) -> None:
        """Answer a signal: no further worker starts."""
        self.asked = self.asked or time.monotonic()

    def keep(self) -> int:
        """Run one after another; returns the exit code of the last."""
        pause = 1.0
        while True:
            began = time.monotonic()
            code = self.run()
            lived = time.monotonic() - began
            if self.asked or (code >= 0 and lived < FIRST_SECONDS):
                return code
            logger.warning(f"the worker is gone ({ending(code)}): another one starts")
            processes.end_group(os.getpgrp(), grace=GRACE, spared=os.getpid())
            pause = 1.0 if lived > LONGEST_PAUSE else min(2 * pause, LONGEST_PAUSE)
            while not self.asked and not self.recover():
                time.sleep(pause)
            if self.asked:
                return code
            time.sleep(pause)

    def run(self) -> int:
        """Run it once to its end; returns its exit code."""
        # It inherits the locked pid file too: if this program is killed, the worker is still known.
        worker = subprocess.Popen(self.command, close_fds=False)
        told, looked = False, 0.0
        while (code := worker.poll()) is None:
            if time.monotonic() - looked > LOOK_SECONDS:
                self.look()
                looked = time.monotonic()
            if self.asked and not told and time.monotonic() - self.asked > FORWARD_SECONDS:
                worker.terminate()
                told = True
            time.sleep(0.2)
        return code


def ending(code: int) -> str:
    """Describe an exit code."""
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def close_lost_runs(api: PrefectApi) -> bool:
    """Mark a lost worker's runs as crashed, also in MLflow; False if the server does not answer."""
    try:
        lost = deployments.mark_lost_runs(api)
    except (ApiError, OSError) as error:
        logger.warning(f"Prefect's server does not answer: {error}")
        return False
    if lost:
        subprocess.run(python_module("dxai.tracking.live"))
    return True


@dataclass
class Watch:
    """Rotates the logs of a folder's services, and tells of a full disk."""

    api: PrefectApi
    alerted: float = -ALERT_SECONDS

    def __call__(self) -> None:
        try:
            text = alerts.full_disk(Path.cwd())
            if text and time.monotonic() - self.alerted > ALERT_SECONDS:
                logger.warning(text)
                alerts.tell_full_disk(self.api, text)
                self.alerted = time.monotonic()
            log_files.rotate(Stack(Path.cwd()).log("worker").parent)
        except (ApiError, OSError) as error:  # a full disk, or no server: the worker goes on
            logger.warning(f"watching logs and disk: {error}")


def main(options: list[str]) -> int:
    """Keep a worker for the server of the environment; returns the exit code.

    `options` are those of `prefect worker start`, besides pool and type.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    reach_loopback_directly()
    os.environ.update(PATIENT)
    try:
        alerts.full_disk(Path.cwd())
    except ValueError as error:
        print(f"error: {error}", flush=True)
        return 1
    api = PrefectApi(os.environ["PREFECT_API_URL"], os.environ.get("PREFECT_API_AUTH_STRING", ""))
    start = ("prefect", "worker", "start", "--type", "process", "--pool", POOL, *options)
    keeper = Keeper(python_module(*start), lambda: close_lost_runs(api), Watch(api))
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, keeper.ask)
    return keeper.keep()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
