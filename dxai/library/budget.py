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
SHORT = 500
"""Steps of the profile's batches below which batches of half the size at twice the rate are better:
at equal times an AUC of .49 instead of .63 (230 steps, 64 px), of .73 instead of .87 (217, 32 px).
Of 1,300 steps they cost 3 dB of fidelity for .05. See docs/trials.md."""


def settings(short: bool = False) -> DecomposeParams:
    """Return the settings of the decomposition, those of `quick`, or of a short training."""
    params = parse(DecomposeParams, load_profile(PROFILE)["decompose"], "decompose")
    if not short:
        return params
    return params.replace(batch_size=params.batch_size // 2, lr=2 * params.lr)


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
