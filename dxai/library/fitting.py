"""Fit an explainer to any classifier, in this process and within a budget of minutes."""

from __future__ import annotations

import json
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
from dxai.library import budget
from dxai.library.card import FIT
from dxai.library.explainer import DXAI
from dxai.library.network import Explained, adapted, check, spec_of
from dxai.library.page import write_page
from dxai.library.sharing import SEEN
from dxai.library.verdict import Verdict, judge
from dxai.models.devices import choose_device
from dxai.models.serialization import freeze, save_decomposer
from dxai.paths import MODEL
from dxai.training.checkpoints import Checkpoint
from dxai.training.decomposition import train
from dxai.training.events import Console, Stopped, StopRequest
from dxai.training.run import TrainingRun
from dxai.training.step import Networks, build_networks, generator_settings
from dxai.utils.files import digest, read_json, write_json

OUT = "explainer"
PAGE, TRAINING, PLAN = "index.html", "training", "plan.json"
"""In an explainer's folder, beside `model.pt`: pictures with the slider; its unfinished training,
with the plan."""
SMALLEST, ON_CPU, ON_GPU = 16, 64, 128
"""Sides of the images that are taken apart: the least, and the most unless one is named."""
VALIDATION = 400
"""Most validation images."""


@dataclass(frozen=True)
class Plan:
    """How long an explainer is trained; `key` identifies network, images and settings."""

    key: str
    minutes: float
    steps: int
    seconds_per_step: float


def fit(
    model: nn.Module | str,
    images: Any,
    *,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    minutes: float = 15.0,
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
        For everything: reading, training and the verdict.
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
    began, out = time.monotonic(), Path(out)
    if not minutes > 0:
        raise ValueError(f"minutes is {minutes}; it must be above 0")
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
    work = Fitting(explained, data, validation, seed, on, out)
    plan, state = work.plan(minutes, began)
    networks, history = work.train(plan, state)
    explainer = work.save(networks, plan, history)
    left = max(1.0, minutes * 60 - (time.monotonic() - began))
    verdict = judge(explainer, data, validation, history, left, out / "scores")
    work.conclude(verdict, plan, history)
    page = write_page(explainer, validation, out / PAGE, "What the explainer sees", verdict.text)
    print(f"explainer: {out}, its page: {page}", flush=True)
    return explainer


def _require_own(out: Path) -> None:
    """Raise ValueError unless a folder is new, empty, or that of an explainer."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: a file; name the folder of the explainer")
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

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.out / TRAINING / "checkpoints")

    def networks(self, params: DecomposeParams) -> Networks:
        explained = self.explained
        shape = (explained.channels, len(explained.class_names), explained.image_size)
        return build_networks(params, *shape, explained.network, self.seed, self.device)

    def plan(self, minutes: float, began: float) -> tuple[Plan, dict[str, Any] | None]:
        """Return how far to train, and the state of the last checkpoint, if any.

        Raises `ValueError` if the folder holds an explainer of something else.
        """
        params = budget.settings()
        key = digest([repr(params), self.explained.digest, self.data.digest(), self.seed])
        path = self.out / TRAINING / PLAN
        before = Plan(**read_json(path)) if path.is_file() else None
        if before is not None and before.key != key:
            raise ValueError(
                f"{self.out}: holds an explainer of another network, other images or settings; "
                "name another folder, or delete it"
            )
        state = self.checkpoint.load()
        if before is not None and minutes <= before.minutes:
            return before, state
        print("fit: timing some steps", flush=True)
        networks, most = self.networks(params), budget.WARM_UP * minutes * 60
        seconds = budget.seconds_per_step(networks, params, self.data, self.seed, most)
        if before is not None:
            steps = before.steps + budget.steps_for(minutes - before.minutes, seconds)
        else:
            steps = budget.steps_for(minutes - (time.monotonic() - began) / 60, seconds)
        plan = Plan(key, minutes, steps, seconds)
        write_json(path, vars(plan))
        write_json(self.out / SEEN, sorted(self.data.digests()))
        return plan, state

    def train(
        self, plan: Plan, state: dict[str, Any] | None
    ) -> tuple[Networks, list[dict[str, Any]]]:
        """Train until the planned step; after Ctrl-C save the explainer as it is and end."""
        params = budget.with_steps(budget.settings(), plan.steps, plan.seconds_per_step)
        networks = self.networks(params)
        if state is not None and state["step"] >= plan.steps:
            networks.load_state_dict(state["networks"])
            print(f"fit: all {plan.steps} steps are done; more minutes go on from there")
            return networks, state["history"]
        print(
            f"fit: {plan.steps} steps of {plan.seconds_per_step:.2f} s on {self.device}; Ctrl-C "
            "keeps what is there",
            flush=True,
        )
        with StopRequest() as stop:
            console = Console("fit", self.out / TRAINING, stop)
            run = TrainingRun(self.data, self.validation, self.seed, self.checkpoint, console)
            try:
                return networks, train(networks, params, run)
            except Stopped:
                state = self.checkpoint.load()
                assert state is not None, "a stopped training has saved"
                self.save(networks, plan, state["history"])
                print(
                    f"fit: stopped after step {state['step']} of {plan.steps}; {self.out} holds "
                    "the explainer as it is now, and the same command goes on",
                    flush=True,
                )
                stop.answer()
                raise KeyboardInterrupt from None

    def save(self, networks: Networks, plan: Plan, history: Sequence[Mapping[str, Any]]) -> DXAI:
        """Write the explainer, and return it."""
        # The numbers there are those of the model before; `conclude` writes the new ones.
        (self.out / FIT).unlink(missing_ok=True)
        explained = self.explained
        params = budget.settings()
        info = {
            "settings": {
                "channels": explained.channels,
                "classes": len(explained.class_names),
                "image_size": explained.image_size,
                **generator_settings(params),
            },
            # Copy the strings, or pickle writes equal ones that pydantic shares as references.
            "training": {n: json.loads(json.dumps(v)) for n, v in params.replace(steps=plan.steps)},
            "class_names": explained.class_names,
            "channels": explained.channels,
            "image_size": explained.image_size,
            "value_range": [-1.0, 1.0],
            "dataset": "images",
            "classifier": "network",
            "profile": "fit",
            "seed": self.seed,
        }
        decomposer = freeze(networks.average).cpu()
        explained.network.cpu()
        stored, stored_info = explained.stored
        save_decomposer(self.out / MODEL, decomposer, info, stored, stored_info)
        explainer = DXAI(decomposer, info, explained.network, self.seed).to(self.device)
        return explainer.keep((stored, stored_info), self.out)

    def conclude(self, verdict: Verdict, plan: Plan, history: Sequence[Mapping[str, Any]]) -> None:
        """Print the verdict and write it with the numbers."""
        about = {
            "steps": plan.steps,
            "minutes": plan.minutes,
            "seconds": history[-1]["seconds"] if history else None,
            "verdict": verdict.numbers,
            "lines": verdict.lines,
            "to_change": verdict.advice,
        }
        write_json(self.out / FIT, about)
        print(verdict, flush=True)
