"""A budget in minutes: how much of it trains, and how much says what the result is worth."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from dxai.config.profiles import load_profile
from dxai.config.schema import DecomposeParams
from dxai.config.settings import parse
from dxai.training.pace import PANELS, ROWS, BySteps, ByTime, Pace

PROFILE = "quick"
"""The profile whose settings of the decomposition are taken; networks grow with the image size."""
FEWEST = 20
"""Steps that are trained in any case."""
VERDICT, MOST_OF_IT = 0.2, 0.5
"""Shares of the minutes for the verdict and the page: what they get, and the most where they need
more."""


def settings() -> DecomposeParams:
    """Return the settings of the decomposition, those of the profile `quick`."""
    return parse(DecomposeParams, load_profile(PROFILE)["decompose"], "decompose")


@dataclass(frozen=True)
class Budget:
    """What a fit may take: minutes, which began at a time of `time.monotonic`, or training steps.

    Minutes are for everything, and count the training of earlier calls, too.
    """

    minutes: float
    began: float
    steps: int | None = None

    def deadline(self, trained: float) -> float:
        """Return when the minutes end, after `trained` seconds of training in earlier calls."""
        return math.inf if self.steps else self.began + 60 * self.minutes - trained

    def pace(self, params: DecomposeParams, least: float = 0.0, most: float = math.inf) -> Pace:
        """Return how to train now; then `least` to `most` seconds are left for verdict and page."""
        if self.steps:
            rows, panels = (max(1, self.steps // count) for count in (ROWS, PANELS))
            every = {"log_every": rows, "checkpoint_every": rows, "panel_every": panels}
            return BySteps(params.replace(steps=self.steps, **every))
        whole = 60 * self.minutes
        kept = min(max(VERDICT * whole, least), most, MOST_OF_IT * whole)
        return ByTime(max(1.0, self.began + whole - kept - time.monotonic()), FEWEST)
