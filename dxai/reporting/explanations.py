"""Explanations of image files: a picture and a JSON file of each, and a page of all of them."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
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
from dxai.metrics.removal import UNDECIDED, neutrality, psnr, remove
from dxai.models.serialization import load_classifier
from dxai.models.shared_files import file_of
from dxai.reporting import figures
from dxai.reporting.html import Explanation, Removal, write_pages
from dxai.reporting.html.viewer import BETAS
from dxai.types import GENERATED, NEUTRAL, Decomposition, to_unit_range
from dxai.utils.files import atomic, require_folder, sha256, write_json
from dxai.utils.progress import Progress

BATCH = 8
"""Images between two looks at what is finished: as many as the projection takes at once."""
CHOICES, FEW = 3, 8
"""Classes to choose from on the page, unless told otherwise, for up to so many images. Each takes
one more explanation, so where there are more images they get their own class alone."""
INDEX = "index.html"
"""The page in the folder of the outputs."""


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
        A decomposition's folder, shared or not, or model.pt.
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
    return Model(explainer, sha256(file_of(path)))


def explain_files(
    model: Model,
    images: Sequence[str],
    out: Path,
    class_name: str | None = None,
    kind: str = KINDS[0],
    choices: int | None = None,
) -> int:
    """Write `<stem>.png` and `<stem>.json` to `out` for each image, and `index.html` of all.

    `out` is created if missing. An image that cannot be read is named on stderr and skipped. The
    page's path is printed last; after Ctrl-C it has the images that were finished.

    Parameters
    ----------
    class_name : str, optional
        The class to explain; default: each image's predicted class.
    kind : {"neutral", "generated"}
        The class-distinct part in the files, and the first on the page.
    choices : int, optional
        Classes to choose from on the page: the explained one, then the most probable others;
        default: `CHOICES` for up to `FEW` images, 1 for more.

    Returns
    -------
    int
        The number of images that could not be read.

    Raises
    ------
    ValueError
        If the class or the kind does not exist.
    FileExistsError
        If `out` has an index.html that is not such a page.
    """
    require_folder(out)
    target = None
    if class_name is not None:
        choose("class", class_name, model.class_names)
        target = model.class_names.index(class_name)
    files = list(dict.fromkeys(images))
    if choices is None:
        choices = CHOICES if len(files) <= FEW else 1
        if choices == 1:
            print(f"{len(files)} images, a class each: --choices {CHOICES} offers others, too")
    done: list[str] = []
    found = _explanations(model, files, out, target, kind, choices, done)
    if write_pages(found, out / INDEX, model.class_names):
        print(out / INDEX, flush=True)
    return len(files) - len(done)


def _explanations(
    model: Model,
    files: Sequence[str],
    out: Path,
    target: int | None,
    kind: str,
    choices: int,
    done: list[str],
) -> Iterator[Explanation]:
    """Write the files of each readable image and yield it for the page; `done` collects them."""
    names, titles = output_names(files, out), Counter(Path(file).name for file in files)
    readable, progress = _read(files, model), Progress("explain", len(files), unit="images")
    while chunk := list(itertools.islice(readable, BATCH)):
        batch = torch.cat([pixels for _, pixels in chunk])
        # The same z for all: an image's explanation must not depend on its neighbours.
        index = torch.zeros(len(batch), dtype=torch.int64)
        wanted = None if target is None else torch.full_like(index, target)
        parts = model.explainer.explain(batch, wanted, index, kind)
        notes = []
        for i, (file, _) in enumerate(chunk):
            notes.append(_write(model, file, out / names[file], parts[i], target, kind))
            done.append(file)
        known = parts if kind == NEUTRAL else None
        removals = find_removals(model.explainer, batch, wanted, index, kind, choices, known)
        for (file, _), image, facts, found in zip(chunk, batch, notes, removals, strict=True):
            title = Path(file).name if titles[Path(file).name] == 1 else file
            yield Explanation(title, image.numpy(), found, notes=facts)
        if len(files) > BATCH:
            progress.update(files.index(chunk[-1][0]) + 1)


@torch.no_grad()
def find_removals(
    explainer: DXAI,
    images: Tensor,
    target: Tensor | None = None,
    index: Tensor | None = None,
    kind: str = KINDS[0],
    choices: int = CHOICES,
    known: Decomposition | None = None,
) -> list[list[Removal]]:
    """Find what can be removed from images, and the classifier's answers meanwhile, for a page.

    Parameters
    ----------
    images, target, index
        As in `DXAI.explain`.
    kind : {"neutral", "generated"}
        The first of each class; the other follows.
    choices : int
        Classes: the explained one, then the most probable others.
    known : Decomposition, optional
        The neutral parts of the explained classes, if they were found already.

    Returns
    -------
    list of list of Removal
        For each image 2 parts for each class, of which there are `choices` or all.
    """
    answers = explainer.logits(images)
    if target is not None:
        answers = answers.scatter(1, target[:, None], torch.inf)
    classes = answers.argsort(dim=1, descending=True, stable=True)[:, :choices]
    found: list[list[Removal]] = [[] for _ in images]
    for k in range(classes.shape[1]):
        parts = known if k == 0 else None
        parts = parts or explainer.explain(images, classes[:, k], index, NEUTRAL)
        both = {NEUTRAL: parts.distinct, GENERATED: parts.psi[:, 0]}
        for name in sorted(both, key=lambda name: name != kind):
            for i in range(len(images)):
                one = slice(i, i + 1)
                levels = torch.cat([*remove(images[one], both[name][one], BETAS)])
                class_name = explainer.info["class_names"][int(classes[i, k])]
                probabilities = explainer.logits(levels).softmax(1).cpu().numpy()
                part = both[name][i].cpu().numpy()
                found[i].append(Removal(class_name, name, part, probabilities))
    return found


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
) -> list[str]:
    """Write the picture and the numbers of one image, and return its notes for the page."""
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
        temporary.write_bytes(figures.png(picture))
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
    notes = [f"predicted {facts['predicted_class']} ({sure:.2f})"]
    if kind == NEUTRAL and left < UNDECIDED:
        notes.append(f"not undecided without its class-distinct part: neutrality {left:.2f}")
    return notes
