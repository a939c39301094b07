"""What a fitted explainer is worth, in plain words, and what would make it better."""

from __future__ import annotations

import importlib.util
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dxai.datasets.in_memory import InMemoryImages
from dxai.library import scoring
from dxai.library.explainer import DXAI
from dxai.metrics.removal import UNDECIDED
from dxai.results.methods import NEUTRAL, OURS, RANDOM, best_baseline, label, succeeded
from dxai.results.validity import AT_CHANCE, BRITTLE, is_faint, random_aucs, validity_of
from dxai.utils import keyed_random

FEWEST, USUAL, MOST = 8, 32, 200
"""Validation images that are scored: in any case, where a budget can be planned, and at most."""
AT_ONCE = 8
"""Images that are scored between two looks at the clock."""
PAGE = 16
"""Images that are scored in the time that the page takes, at most: it explains so many classes."""
POOR_DB, GAIN_DB = 22.0, 0.5
"""PSNR of x-hat below which parts are not to be trusted; gain in the last third of the training
with which more of it helps."""
FEW_STEPS = 1000
"""Steps of a training below which the parts still change much (the profile `quick` takes 1,250)."""
ALIKE = 0.2
"""Share of the images of two classes that are taken for one another from which they look alike."""
STRUCTURE = 0.02
"""How far the AUC of ours must lie below that of its own shuffled pixels."""


@dataclass(frozen=True)
class Verdict:
    """Numbers on validation images, and what they mean in sentences.

    Attributes
    ----------
    numbers : dict
        By name; AUCs are those of Table 1, lower is better.
    lines : list of str
        The numbers in words.
    advice : list of str
        What to change; empty if nothing is known to be wrong.
    """

    numbers: dict[str, Any]
    lines: list[str]
    advice: list[str]

    @property
    def text(self) -> list[str]:
        """The lines, and what to change."""
        last = [f"to change: {line}" for line in self.advice] or ["nothing is known to be wrong"]
        return [*self.lines, *last]

    def __str__(self) -> str:
        return "\n".join(["verdict", *(f"  {line}" for line in self.text)])


def judge(
    explainer: DXAI,
    train: InMemoryImages,
    validation: InMemoryImages,
    history: Sequence[Mapping[str, Any]],
    folder: Path,
    until: float = math.inf,
) -> Verdict:
    """Score an explainer on validation images and judge it.

    `history` is that of the training, `folder` gets the outcomes. Until the clock `time.monotonic`
    shows `until`, as many images are scored as leave time for the page. Integrated Gradients is
    compared if Captum is installed.
    """
    subject, methods = _subject(explainer, train, validation), _methods()
    limit = scoring.Limit(until, AT_ONCE, FEWEST, PAGE)
    rows = scoring.score(subject, methods, folder, limit)
    definition = scoring.tables(subject, folder, methods)["definition1"]
    neutral = definition[definition["method"] == NEUTRAL].iloc[0]
    numbers = _numbers(rows, neutral, subject.noise) | {"images": rows[0]["images"]}
    pair = _alike(explainer, validation)
    advice = list(_advice(rows, numbers, history, pair, subject.evaluate.valid_auc))
    return Verdict(numbers, list(_lines(numbers, rows)), advice)


def seconds_for(
    explainer: DXAI, train: InMemoryImages, validation: InMemoryImages
) -> tuple[float, float]:
    """Return the seconds of a verdict and its page, with `USUAL` and with `MOST` images, by trying.

    What an explainer has learnt does not matter for that.
    """
    began = time.monotonic()
    subject = _subject(explainer, train, validation)
    prepared = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        scoring.score(subject, _methods(), Path(folder), scoring.Limit(0.0, AT_ONCE, 0, 0.0))
    each = (time.monotonic() - prepared) / min(AT_ONCE, len(subject.data))
    counts = (min(count, len(subject.data)) + PAGE for count in (USUAL, MOST))
    least, most = (prepared - began + each * count for count in counts)
    return least, most


def _subject(explainer: DXAI, train: InMemoryImages, validation: InMemoryImages) -> scoring.Subject:
    """Return what is scored: images of each class in turn, so that any first few are a sample."""
    params = scoring.settings()
    names = validation.class_names
    chosen = validation.subset(validation.spread(max(1, MOST // len(names))))
    order = keyed_random.permutation(0, "verdict", 0, len(chosen))
    ranks = [int((chosen.labels[order[:i]] == chosen.labels[k]).sum()) for i, k in enumerate(order)]
    data = chosen.subset(order[np.argsort(ranks, kind="stable")].tolist())
    noise = scoring.tolerated_noise(explainer, train, params)
    return scoring.Subject("validation images", explainer, data, params, noise)


def _methods() -> list[str]:
    return [RANDOM, *(["ig"] if importlib.util.find_spec("captum") else [])]


def _numbers(rows: Sequence[dict[str, Any]], neutral: pd.Series, noise: float) -> dict[str, Any]:
    (ours,) = succeeded(rows, OURS)
    names = ("accuracy", "psnr_db", "auc", "auc_blur", "auc_smooth", "auc_energy", "neutrality")
    (shuffled,) = succeeded(rows, "shuffled")
    found: dict[str, Any] = {name: ours[name] for name in names}
    found["auc_shuffled"] = shuffled["auc"]
    found["smooth_deviation"] = noise
    found["neutral_entropy"] = float(neutral["entropy"])
    found["neutral_share"] = float(neutral["share"])
    for row in rows:
        if row["status"] == "ok" and row["method"] in (RANDOM, "ig"):
            found[f"auc_{row['method']}_{row['sign']}"] = row["auc"]
    return found


def _lines(numbers: Mapping[str, Any], rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    count = numbers["images"]
    yield f"accuracy of the network: {numbers['accuracy']:.2f} on {count} validation images"
    yield (
        f"fidelity: the generator draws an image at {numbers['psnr_db']:.1f} dB "
        f"(PSNR of x-hat; {POOR_DB:g} or more is needed)"
    )
    yield (
        f"neutrality: without the class-distinct part the network is undecided on "
        f"{numbers['neutral_share']:.0%} of the images (mean entropy "
        f"{numbers['neutral_entropy']:.2f} of 1)"
    )
    beside = [
        f"{label(row['method'])} {row['auc']:.2f}{_signed(row)}"
        for row in rows
        if row["status"] == "ok" and row["method"] in (RANDOM, "ig")
    ]
    yield f"AUC while it is removed (lower is better): {numbers['auc']:.2f}; {', '.join(beside)}"
    smooth = numbers["auc_smooth"]
    yield (
        f"guards: blurred {numbers['auc_blur']:.2f}, "
        + ("" if smooth is None else f"network under noise {smooth:.2f}, ")
        + f"its pixels shuffled {numbers['auc_shuffled']:.2f}"
    )


def _signed(row: Mapping[str, Any]) -> str:
    return f" ({row['sign']})"


def _advice(
    rows: Sequence[dict[str, Any]],
    numbers: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    pair: tuple[str, str, float] | None,
    valid_auc: float,
) -> Iterator[str]:
    """Say what to change, the most important first."""
    found = validity_of(rows, valid_auc)
    if found == AT_CHANCE:
        yield (
            "this network is no better than one with the same answer for every image, so there is "
            "nothing to explain; train it first"
        )
    elif found == BRITTLE:
        lowest = min(random_aucs(rows).values())
        yield (
            "this network follows patterns too faint to see: grain without meaning leaves "
            f"{lowest:.2f} of its accuracy, so the AUCs show how it breaks, not what it uses; "
            "train it with random crops, colour jitter, blur and a little noise"
        )
    elif (best := best_baseline(rows)) and is_faint(best | {"auc_transfer": best["auc_blur"]}):
        yield (
            f"this network follows patterns too faint to see: what {label(best['method'])} finds "
            f"moves it (AUC {best['auc']:.2f}), but not after a 3x3 blur ({best['auc_blur']:.2f})"
        )
    gain, steps = _late_gain(history), history[-1]["step"] if history else 0
    if steps < FEW_STEPS:
        yield f"more minutes: {steps} steps are few; the parts settle after {FEW_STEPS:,} or more"
    elif numbers["psnr_db"] < POOR_DB:
        yield f"more minutes: x-hat has {numbers['psnr_db']:.1f} dB, so parts may lack detail"
    elif gain > GAIN_DB:
        yield f"more minutes: x-hat still gained {gain:.1f} dB in the last third of the training"
    if numbers["auc"] > numbers["auc_shuffled"] - STRUCTURE:
        yield (
            "more minutes, or a network that stands more: the part moves the network no more than "
            "its own pixels in random order do"
        )
    if numbers["neutral_share"] < 0.5:
        yield (
            f"more minutes: on {1 - numbers['neutral_share']:.0%} of the images the network keeps "
            f"its mind without the part (entropy below {UNDECIDED:g})"
        )
    if pair is not None:
        first, second, share = pair
        yield (
            f"two classes look alike: the network takes {first} and {second} for one another on "
            f"{share:.0%} of their images, so what tells them apart is small; merge them, or train "
            "it on more images of both"
        )


def _late_gain(history: Sequence[Mapping[str, Any]]) -> float:
    """Return by how many dB x-hat gained in the last third of the training."""
    if not history:
        return 0.0
    last = history[-1]
    earlier = [row for row in history if row["step"] <= last["step"] * 2 / 3]
    return float(last["psnr_db"] - earlier[-1]["psnr_db"]) if earlier else 0.0


def _alike(explainer: DXAI, data: InMemoryImages) -> tuple[str, str, float] | None:
    """Return the two classes that the network confuses most, if they look alike, and how often."""
    names = data.class_names
    confusion = np.zeros((len(names), len(names)))
    for batch in data.batches(64):
        np.add.at(confusion, (batch.labels, explainer.logits(batch.images).argmax(1)), 1)
    taken = confusion + confusion.T
    shown = confusion.sum(1)
    shares = np.triu(taken / np.maximum(shown[:, None] + shown[None], 1), 1)
    first, second = np.unravel_index(shares.argmax(), shares.shape)
    share = float(shares[first, second])
    return (names[first], names[second], share) if share >= ALIKE else None
