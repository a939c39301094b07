"""Fit an explainer to any classifier, in this process and within a budget of minutes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dxai.config.schema import DecomposeParams
from dxai.datasets.in_memory import InMemoryImages
from dxai.datasets.user_images import Scaling, UserImages, find_images, read, with_validation
from dxai.library.budget import SHORT, Budget, settings
from dxai.library.card import FIT
from dxai.library.explainer import DXAI
from dxai.library.network import Explained, adapted, check, spec_of
from dxai.library.page import write_page
from dxai.library.sharing import SEEN
from dxai.library.verdict import Verdict, judge, seconds_for
from dxai.models.devices import choose_device
from dxai.models.serialization import freeze, save_decomposer
from dxai.paths import MODEL
from dxai.training.checkpoints import Checkpoint
from dxai.training.decomposition import train
from dxai.training.events import Console, Stopped, StopRequest
from dxai.training.pace import ByTime, Pace
from dxai.training.run import TrainingRun
from dxai.training.step import (
    Networks,
    build_networks,
    draw_inputs,
    generator_settings,
    train_step,
)
from dxai.utils.files import digest, read_json, require_folder, write_json
from dxai.utils.progress import clock

OUT = "explainer"
PAGE, TRAINING, PLAN = "index.html", "training", "plan.json"
"""In an explainer's folder, beside `model.pt`: pictures with the slider; its unfinished training,
with the plan."""
SMALLEST, ON_CPU, ON_GPU, LARGEST = 16, 64, 128, 2048
"""Sides of the images that are taken apart: the least, and the most on each device, unless one is
named; and the most that can be named."""
VALIDATION = 400
"""Most validation images."""


def fit(
    model: nn.Module | str,
    images: Any,
    *,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    minutes: float = 15.0,
    steps: int | None = None,
    out: Path | str = OUT,
    weights: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
    value_range: tuple[float, float] | None = None,
    field: str | int | None = None,
    outputs: Sequence[int] | None = None,
    activation: str | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    device: str = "auto",
    seed: int = 0,
    began: float | None = None,
) -> DXAI:
    """Fit an explainer to a trained classifier.

    Progress is printed and pictures of the parts are written to ``out/training/panels``. After
    Ctrl-C `out` holds the explainer as it is then, and the same call goes on; a call with more
    minutes goes on from a finished one. At the end a verdict on validation images says what the
    explainer is worth.

    Parameters
    ----------
    model : nn.Module or str
        The classifier, which is copied and never changed; ``package.module:name`` of a module or of
        a function that returns one; or a file of torch.export or TorchScript.
    images
        A folder with a folder for each class (or with `train/` and `validation/`), a CSV file with
        the columns path and label, a dataset like torchvision's ImageFolder, or any dataset or
        loader of (image, label). Test images, if any, are not used.
    classes : sequence of str, optional
        The classes in the order of the network's outputs; default: alphabetical, or the dataset's.
    mean, std : sequence of float, optional
        Of each channel, with which images in `value_range` are normalised for the network.
    size : int, optional
        Side of the images that the network takes, pixels; default: any.
    minutes : float
        For everything: reading, training, the verdict and the page. When they are over, the
        training ends, whatever it has reached.
    steps : int, optional
        Train so many steps instead, however long they take: then the same seed gives the same
        numbers in every call.
    out : path
        Folder of the explainer.
    weights, options
        Of a network that is named by a string: the file of its weights, and the arguments of its
        constructor.
    value_range : (float, float), optional
        Of the images before mean and std; default: [0, 1] with one of these, else [-1, 1].
    field, outputs, activation
        As for `dxai add classifier`: which field of its result holds the logits, the index of each
        class's logit, and what it applies to them.
    image_size : int, optional
        Side at which images are taken apart, pixels; default: `size` or that of the images, at most
        64 on a CPU and 128 on a GPU.
    channels : {1, 3}, optional
        Default: 3, or 1 if the network refuses that.
    device : str
        ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.
    seed : int
        Key of all random draws.
    began : float, optional
        When the minutes began, a time of `time.monotonic`; default: now.

    Returns
    -------
    DXAI
        The explainer; ``DXAI.load(out)`` opens it again.

    Raises
    ------
    ValueError, OSError
        In one line, if the network or the images are unusable, or `out` holds something else.
    KeyboardInterrupt
        After Ctrl-C, once everything is saved.
    """
    began, out = began or time.monotonic(), Path(out)
    if not 0 < minutes < math.inf:
        raise ValueError(f"minutes is {minutes}; it must be a number above 0")
    for name, value, (least, most) in (
        ("steps", steps, (1, 10**9)),
        ("size", size, (1, LARGEST)),
        ("image_size", image_size, (settings().coarsest, LARGEST)),
        ("seed", seed, (0, 2**63 - 1)),
    ):
        if value is not None and not least <= value <= most:
            raise ValueError(f"{name} is {value}; it must be from {least} to {most}")
    _require_own(out)
    on = choose_device(device)
    scaling = Scaling(tuple(mean or ()), tuple(std or ()), value_range or (0.0, 1.0))
    found = with_validation(find_images(images, classes, scaling))
    spec = spec_of(
        model,
        weights,
        options,
        mean=None if mean is None else [float(v) for v in mean],
        std=None if std is None else [float(v) for v in std],
        size=size,
        value_range=None if value_range is None else [float(v) for v in value_range],
        class_names=None if classes is None else list(classes),
        field=field,
        outputs=None if outputs is None else list(outputs),
        activation=activation,
    )
    side = image_size or _side(found, size, on)
    explained = adapted(model, spec, found.class_names, side, channels)
    data, validation = _read(found, explained)
    for line in check(explained, validation, data):
        print(f"network: {line}", flush=True)
    if size is not None and size > side:
        print(f"network: images are taken apart at {side} px and enlarged to {size} for it")
    explained.stored  # noqa: B018 -- a network that cannot be kept is refused before it is trained
    budget = Budget(minutes, began, steps)
    work = Fitting(explained, data, validation, seed, on, out, budget)
    state = work.last_state()
    deadline = budget.deadline(state["seconds"] if state else 0.0)
    networks, history = work.train(state)
    explainer = work.save(networks, history[-1]["step"])
    verdict = judge(explainer, data, validation, history, out / "scores", deadline)
    work.conclude(verdict, history)
    title = "What the explainer sees"
    page = write_page(explainer, validation, out / PAGE, title, verdict.text, until=deadline)
    print(f"explainer: {out}, its page: {page}", flush=True)
    return explainer


def _require_own(out: Path) -> None:
    """Raise ValueError unless a folder is new, empty, or that of an explainer."""
    require_folder(out)
    if out.is_dir() and any(out.iterdir()) and not (out / TRAINING / PLAN).is_file():
        raise ValueError(f"{out}: a folder with other files; name a new one")


def _side(found: UserImages, size: int | None, device: torch.device) -> int:
    """Choose the side at which images are taken apart."""
    most = ON_GPU if device.type == "cuda" else ON_CPU
    return max(SMALLEST, min(size or found.side, most))


def _read(found: UserImages, explained: Explained) -> tuple[InMemoryImages, InMemoryImages]:
    """Read the training and validation images."""
    for note in found.notes:
        print(f"images: {note}", flush=True)
    shape = (explained.image_size, explained.channels)
    units = found.split("validation")
    stride = -(-len(units) // VALIDATION)
    data, left = read(found, found.split("train"), *shape, "read")
    validation, _ = read(found, units[::stride], *shape, "read validation")
    if left:
        print(f"images: {left} of {len(data) + left} are left out, spread over the classes")
    print(
        f"images: {len(data)} to fit, {len(validation)} for the verdict, at "
        f"{explained.image_size} px, {len(explained.class_names)} classes",
        flush=True,
    )
    return data, validation


@dataclass(frozen=True)
class Fitting:
    """One explainer on its way: what it is made from, and where it is written."""

    explained: Explained
    data: InMemoryImages
    validation: InMemoryImages
    seed: int
    device: torch.device
    out: Path
    budget: Budget

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.out / TRAINING / "checkpoints")

    @property
    def key(self) -> str:
        """Identify network, images and settings."""
        given = [repr(settings()), self.explained.digest, self.data.digest(), self.seed]
        return digest(given)

    def networks(self, params: DecomposeParams) -> Networks:
        explained = self.explained
        shape = (explained.channels, len(explained.class_names), explained.image_size)
        return build_networks(params, *shape, explained.network, self.seed, self.device)

    def last_state(self) -> dict[str, Any] | None:
        """Return the state of the last checkpoint, if any.

        Raises `ValueError` if the folder holds an explainer of something else.
        """
        if self._plan.get("key", self.key) != self.key:
            raise ValueError(
                f"{self.out}: holds an explainer of another network, other images or settings; "
                "name another folder, or delete it"
            )
        return self.checkpoint.load()

    @property
    def _plan(self) -> dict[str, Any]:
        """What is trained here and how, and the minutes of the training that is finished."""
        path = self.out / TRAINING / PLAN
        found = read_json(path) if path.is_file() else {}
        if found and not (isinstance(found, dict) and {"key", "minutes"} <= found.keys()):
            raise ValueError(f"{path}: damaged; delete {self.out}, or name another folder")
        return found

    def train(self, state: dict[str, Any] | None) -> tuple[Networks, list[dict[str, Any]]]:
        """Train until the end of the budget; after Ctrl-C save the explainer as it is and end."""
        path, minutes, steps = self.out / TRAINING / PLAN, self.budget.minutes, self.budget.steps
        finished = self._plan.get("minutes", 0.0)
        params = settings(self._plan.get("short", False))
        if state is not None and (state["step"] >= steps if steps else minutes <= finished):
            networks = self.networks(params)
            networks.load_state_dict(state["networks"])
            print(f"fit: {state['step']} steps are done; more minutes go on from there")
            return networks, state["history"]
        needs = () if steps else self._seconds_of_verdict(self.networks(params))
        # What was begun goes on as it was begun.
        tried = state is None and self._is_short(self.budget.pace(params, *needs))
        params = settings(short := self._plan.get("short", tried))
        pace = self.budget.pace(params, *needs)
        networks = self.networks(params)
        plan = {"key": self.key, "short": short}
        write_json(path, plan | {"minutes": finished})
        write_json(self.out / SEEN, sorted(self.data.digests()))
        length = clock(pace.seconds) if isinstance(pace, ByTime) else f"{steps} steps"
        print(f"fit: {length} of training on {self.device}; Ctrl-C keeps what is there", flush=True)
        with StopRequest() as stop:
            console = Console("fit", self.out / TRAINING, stop)
            run = TrainingRun(self.data, self.validation, self.seed, self.checkpoint, console)
            try:
                history = train(networks, params, run, pace)
            except Stopped:
                state = self.checkpoint.load()
                assert state is not None, "a stopped training has saved"
                self.save(networks, state["step"])
                print(
                    f"fit: stopped after step {state['step']}; {self.out} holds the explainer as "
                    "it is now, and the same command goes on",
                    flush=True,
                )
                stop.answer()
                raise KeyboardInterrupt from None
        write_json(path, plan | {"minutes": finished if steps else minutes})
        return networks, history

    def _seconds_of_verdict(self, networks: Networks) -> tuple[float, float]:
        """Time the verdict, with few images and with many, before anything is trained."""
        print("fit: timing the verdict", flush=True)
        explained = self.explained
        tried = DXAI(networks.average, self._info(1), explained.network, self.seed)
        return seconds_for(tried, self.data, self.validation)

    def _is_short(self, pace: Pace) -> bool:
        """Whether fewer than `SHORT` steps fit into a time, by trying two on networks of their own.

        The first has the penalty of the discriminator, as one of `r1_every` has.
        """
        if not isinstance(pace, ByTime):
            return False
        params = settings()
        networks, batch = self.networks(params), self.data.batch(range(params.batch_size))
        drawn = draw_inputs(params, self.seed, 0, batch.labels, len(self.data.class_names))
        given = (batch.images.to(self.device), batch.labels.to(self.device), drawn.to(self.device))
        took = []
        for step in range(2):
            began = time.monotonic()
            losses = train_step(networks, params, *given, step)
            _ = [float(loss) for loss in losses.values()]  # waits for a GPU
            took.append(time.monotonic() - began)
        each = took[1] + (took[0] - took[1]) / params.r1_every
        return each * SHORT > pace.seconds

    def save(self, networks: Networks, steps: int) -> DXAI:
        """Write the explainer after so many steps, and return it."""
        # The numbers there are those of the model before; `conclude` writes the new ones.
        (self.out / FIT).unlink(missing_ok=True)
        explained, info = self.explained, self._info(steps)
        decomposer = freeze(networks.average).cpu()
        explained.network.cpu()
        stored, stored_info = explained.stored
        save_decomposer(self.out / MODEL, decomposer, info, stored, stored_info)
        explainer = DXAI(decomposer, info, explained.network, self.seed).to(self.device)
        return explainer.keep((stored, stored_info), self.out)

    def _info(self, steps: int) -> dict[str, Any]:
        explained = self.explained
        params = settings(self._plan.get("short", False)).replace(steps=steps)
        return {
            "settings": {
                "channels": explained.channels,
                "classes": len(explained.class_names),
                "image_size": explained.image_size,
                **generator_settings(params),
            },
            # Copy the strings, or pickle writes equal ones that pydantic shares as references.
            "training": {name: json.loads(json.dumps(value)) for name, value in params},
            "class_names": explained.class_names,
            "channels": explained.channels,
            "image_size": explained.image_size,
            "value_range": [-1.0, 1.0],
            "dataset": "images",
            "classifier": "network",
            "profile": "fit",
            "seed": self.seed,
        }

    def conclude(self, verdict: Verdict, history: Sequence[Mapping[str, Any]]) -> None:
        """Print the verdict and write it with the numbers."""
        about = {
            "steps": history[-1]["step"],
            "minutes": None if self.budget.steps else self.budget.minutes,
            "seconds": history[-1]["seconds"],
            "verdict": verdict.numbers,
            "lines": verdict.lines,
            "to_change": verdict.advice,
        }
        write_json(self.out / FIT, about)
        print(verdict, flush=True)
