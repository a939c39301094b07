"""A budget in minutes as a number of training steps, by timing some of them."""

from __future__ import annotations

import time

import torch

from dxai.config.profiles import load_profile
from dxai.config.schema import DecomposeParams
from dxai.config.settings import parse
from dxai.training.batch_order import Order
from dxai.training.decomposition import READ_EVERY
from dxai.training.step import Networks, draw_inputs, train_step
from dxai.types import Images

PROFILE = "quick"
"""The profile whose settings of the decomposition are taken; networks grow with the image size."""
FEWEST = 20
"""Steps that are trained in any case."""
TRAINING = 0.8
"""Share of the minutes left after the warm-up that goes to training; the rest scores the result."""
WARM_UP = 0.1
"""Share of the minutes after which no further step is timed."""
MOST_TIMED = 16
CHECKPOINT_SECONDS, ROWS, PANELS = 60.0, 40, 6
"""Seconds between two checkpoints; logged rows and panels of a training."""


def settings() -> DecomposeParams:
    """Return the settings of the decomposition, those of the profile `quick`."""
    return parse(DecomposeParams, load_profile(PROFILE)["decompose"], "decompose")


def with_steps(params: DecomposeParams, steps: int, seconds_per_step: float) -> DecomposeParams:
    """Return settings for so many steps, with logging and checkpoints at a fitting pace."""
    minutely = max(1, round(CHECKPOINT_SECONDS / max(seconds_per_step, 1e-6)))
    return params.replace(
        steps=steps,
        checkpoint_every=min(minutely, steps),
        log_every=max(1, min(25, steps // ROWS)),
        panel_every=max(1, steps // PANELS),
    )


def seconds_per_step(
    networks: Networks, params: DecomposeParams, data: Images, seed: int, seconds: float
) -> float:
    """Time training steps of networks that are thrown away.

    The first steps, which are slower, are run and not counted; timing ends after `MOST_TIMED` steps
    or so many seconds, but at least one period of the R1 penalty is timed.
    """
    device = next(networks.decomposer.parameters()).device
    order, classes = Order.over(data, seed, params.batch_size), len(data.class_names)
    period, done, began, first = params.r1_every, 0, time.monotonic(), 0.0
    while True:
        batch = data.batch(order.indices(done))
        drawn = draw_inputs(params, seed, done, batch.labels, classes, range(len(batch.labels)))
        x, y = batch.images.to(device), batch.labels.to(device)
        train_step(networks, params, x, y, drawn.to(device), done)
        done += 1
        if done % period:
            continue
        if device.type == "cuda":
            torch.cuda.synchronize()
        now = time.monotonic()
        if done == period:
            first = now
        elif done >= MOST_TIMED + period or now - began > seconds:
            return (now - first) / (done - period)


def steps_for(minutes: float, seconds_per_step: float) -> int:
    """Return how many steps fit into the minutes that are left."""
    steps = int(TRAINING * 60 * max(minutes, 0.0) / seconds_per_step)
    return max(FEWEST, steps // READ_EVERY * READ_EVERY)
