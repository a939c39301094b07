"""Explanations of image files: a picture and a JSON file of each decomposition."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dxai.config.settings import choose
from dxai.datasets.base import DataError
from dxai.datasets.images import read_image
from dxai.explain.decomposition import DXAI, KINDS
from dxai.metrics.removal import UNDECIDED, neutrality, psnr
from dxai.models.serialization import load_classifier
from dxai.paths import MODEL
from dxai.reporting import figures
from dxai.types import NEUTRAL, Decomposition, to_unit_range
from dxai.utils.files import atomic, sha256, write_json

BATCH = 16


@dataclass(frozen=True)
class Model:
    """A decomposition and its origin."""

    explainer: DXAI
    sha256: str

    @property
    def class_names(self) -> list[str]:
        """Return the classes in the order of the classifier's outputs."""
        return self.explainer.info["class_names"]


def open_model(
    path: Path | str,
    classifier: Path | str | None = None,
    seed: int = 0,
    modules: Iterable[str] = (),
    device: str = "auto",
) -> Model:
    """Load a decomposition.

    Parameters
    ----------
    path : path
        A decomposition's folder or model.pt.
    classifier : path, optional
        The folder or model.pt of a classifier that replaces the decomposition's own.
    seed : int
        Draws the latent z.
    modules : iterable of str
        Modules of the user that may be imported for a classifier; see `load_classifier`.
    device : str
        `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`.

    Raises
    ------
    ValueError
        If the model or the device does not exist, or the classifier is for other images or classes.
    """
    modules = tuple(modules)
    explainer = DXAI.load(path, seed, modules=modules, device=device)
    if classifier is not None:
        explainer.classifier, info = load_classifier(classifier, modules)
        for key in ("class_names", "channels", "image_size"):
            if info[key] != explainer.info[key]:
                raise ValueError(
                    f"{classifier}: {key} is {info[key]}; the decomposition takes "
                    f"{explainer.info[key]}"
                )
        explainer.to(explainer.device)
    path = Path(path)
    return Model(explainer, sha256(path / MODEL if path.is_dir() else path))


def explain_files(
    model: Model,
    images: Sequence[str],
    out: Path,
    class_name: str | None = None,
    kind: str = KINDS[0],
) -> int:
    """Write `<stem>.png` and `<stem>.json` to `out` for each image; returns the number of failures.

    `out` is created if missing. An image that cannot be read is named on stderr and skipped.
    `class_name` is the class to explain, by default each image's predicted class; `kind` is the
    class-distinct part to show, one of `KINDS`. Raises `ValueError` if one does not exist.
    """
    target = None
    if class_name is not None:
        choose("class", class_name, model.class_names)
        target = model.class_names.index(class_name)
    files = list(dict.fromkeys(images))
    names = output_names(files, out)
    readable = _read(files, model)
    done = 0
    while chunk := list(itertools.islice(readable, BATCH)):
        batch = torch.cat([pixels for _, pixels in chunk])
        # The same z for all: an image's explanation must not depend on its neighbours.
        index = torch.zeros(len(batch), dtype=torch.int64)
        wanted = None if target is None else torch.full_like(index, target)
        parts = model.explainer.explain(batch, wanted, index, kind)
        for i, (file, _) in enumerate(chunk):
            _write(model, file, out / names[file], parts[i], target, kind)
            done += 1
    return len(files) - done


def output_names(files: Sequence[str], out: Path) -> dict[str, str]:
    """Map each file to the stem of its outputs' names.

    Equal stems are numbered (ignoring case, as some file systems do), and no input is overwritten.
    """
    taken = {Path(f).stem.casefold() for f in files if Path(f).resolve().parent == out.resolve()}
    names = {}
    for file in files:
        stem = Path(file).stem
        numbers = itertools.count(2)
        name = stem
        while name.casefold() in taken:
            name = f"{stem}-{next(numbers)}"
        taken.add(name.casefold())
        names[file] = name
    return names


def _read(files: Sequence[str], model: Model) -> Iterator[tuple[str, Tensor]]:
    """Yield readable files with their pixels, (1, C, H, W) in [-1, 1]; report the others."""
    info = model.explainer.info
    for file in files:
        try:
            pixels = torch.from_numpy(read_image(file, info["image_size"], info["channels"]).copy())
        except DataError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            continue
        pixels = pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
        yield file, to_unit_range(pixels[None])


@torch.no_grad()
def _write(
    model: Model, file: str, stem: Path, parts: Decomposition, target: int | None, kind: str
) -> None:
    shown = {
        "input": parts.image,
        "class-agnostic": parts.agnostic,
        "reconstruction": parts.reconstruction,
    }
    logits = model.explainer.logits(torch.cat(list(shown.values())))
    probabilities = dict(zip(shown, logits.softmax(1).tolist(), strict=True))
    predicted = int(logits[0].argmax())
    explained = model.class_names[predicted if target is None else target]
    left = float(neutrality(logits[1:2].softmax(1))[0])
    picture = figures.explanation(
        parts.image[0].numpy(),
        parts.agnostic[0].numpy(),
        parts.distinct[0].numpy(),
        probabilities,
        model.class_names,
        explained,
        left,
    )
    with atomic(stem.with_name(stem.name + ".png")) as temporary:
        temporary.write_bytes(picture)
    facts: dict[str, Any] = {
        "image": file,
        "predicted_class": model.class_names[predicted],
        "explained_class": explained,
        "probabilities": {
            name: dict(zip(model.class_names, values, strict=True))
            for name, values in probabilities.items()
        },
        "kind": kind,
        "neutrality": left,
        "psnr_db": float(psnr(parts.error)[0]),
        "mean_abs_distinct": float(parts.distinct.abs().mean()),
        "latent_seed": model.explainer.seed,
        "model_sha256": model.sha256,
    }
    write_json(stem.with_name(stem.name + ".json"), facts)
    sure = probabilities["input"][predicted]
    note = "" if explained == facts["predicted_class"] else f" (explained as {explained})"
    if kind == NEUTRAL and left < UNDECIDED:
        note += f" (the class-agnostic part is not undecided: neutrality {left:.2f})"
    print(f"{file}: {facts['predicted_class']} ({sure:.2f}) -> {stem}.png, .json{note}", flush=True)
