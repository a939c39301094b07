"""Whether the tables measure what a classifier uses, how it breaks, or nothing.

Random removes w x with white noise w, which is grain without meaning: w in [0, 1) takes contrast
away, w in [-1, 1) also adds some. A classifier that loses its accuracy by either is *brittle*:
anything breaks it, so its numbers are shown and nothing is claimed. Nor is it of one that is no
better than a network with the same answer for every image, which nothing breaks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dxai.results.io import Row
from dxai.results.methods import RANDOM, best_baseline, label, succeeded
from dxai.results.verdicts import verdict

VALID, BRITTLE, NOT_KNOWN = "valid", "brittle", "not known"
AT_CHANCE = "at chance"
CLAIMLESS = (AT_CHANCE, BRITTLE)
"""Classifiers of which nothing is claimed, the worst first."""
FAINT = 0.15
"""How far the best baseline's AUC must lie below its AUC by the twin, and below that after a blur,
to say that it follows patterns too faint to see."""
NOTHING_CLAIMED = (
    "The numbers show how the network breaks, not what it uses: nothing is claimed, marked as "
    "the best or compared with the paper. Train it with random crops, colour jitter, blur and a "
    "little noise (crop, jitter, blur and noise of classifier)."
)
"""What brittle means for the numbers of a classifier, and what to do."""
LEARNT_NOTHING = (
    "Its balanced accuracy is no better than that of a network with the same answer for every "
    "image, so there is nothing to explain, and nothing is claimed. Train it for longer, or with "
    "less noise."
)
"""What `AT_CHANCE` means, and what to do."""


def validity_of(rows: Iterable[Mapping[str, Any]], least: float) -> str:
    """Return AT_CHANCE, VALID, BRITTLE or NOT_KNOWN for a dataset and classifier in Table 1.

    Parameters
    ----------
    rows : iterable of mapping
        With `method`, `sign`, `status` and `auc`, and, where they are known, `classes` (of the
        scored images) and `balanced_accuracy`.
    least : float
        The least AUC of either of Random's rows with which a classifier is valid: the setting
        `evaluate.valid_auc`.
    """
    rows = list(rows)
    if any(_at_chance(row) for row in rows):
        return AT_CHANCE
    aucs = random_aucs(rows)
    if not aucs:
        return NOT_KNOWN
    return VALID if min(aucs.values()) >= least else BRITTLE


def _at_chance(row: Mapping[str, Any]) -> bool:
    """Whether the classifier tells the classes apart no better than one that has one answer."""
    found, classes = row.get("balanced_accuracy"), row.get("classes") or 0
    return found is not None and classes > 1 and found <= 1 / classes


def random_aucs(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Map the signs of Random's rows to their AUCs; empty if it was not scored."""
    found = {row["sign"]: row.get("auc") for row in succeeded(rows, RANDOM)}
    return {s: float(auc) for s, auc in found.items() if auc is not None and not math.isnan(auc)}


def weakest(found: Iterable[str]) -> str:
    """Return the validity of a number that several classifiers give together."""
    every = set(found)
    return next((name for name in (*CLAIMLESS, NOT_KNOWN) if name in every), VALID)


def judged(claim: Mapping[Any, Any]) -> str:
    """Return the verdict of a row of claims.csv; its validity, which is none, if in CLAIMLESS."""
    if (found := claim.get("validity")) in CLAIMLESS:
        return str(found)
    return verdict(claim["delta_low"], claim["delta_high"])


def meaning(rows: Sequence[Row]) -> list[str]:
    """Say in sentences what the numbers of one dataset and classifier mean, from table1.csv."""
    if not rows:
        return []
    found = rows[0].get("validity")
    aucs = " and ".join(f"{auc:.3f} ({sign})" for sign, auc in random_aucs(rows).items())
    if found == AT_CHANCE:
        said = [f"At chance: {LEARNT_NOTHING}"]
    elif found == BRITTLE:
        said = [
            f"Brittle: Random has {aucs} on the scored images, the lower less than "
            f"evaluate.valid_auc. {NOTHING_CLAIMED}"
        ]
    elif found == VALID:
        said = [
            f"Valid: Random has {aucs} on the scored images, so removing what has no meaning costs "
            "little."
        ]
    else:
        said = [
            "Validity not known: Random was not scored, so the numbers may show how the network "
            "breaks, not what it uses (`dxai use --methods random ..` adds it)."
        ]
    best = best_baseline(rows)
    if best is not None and found != AT_CHANCE and is_faint(best):
        said.append(
            f"It follows patterns too faint to see: removing what {label(best['method'])} finds "
            f"gives an AUC of {best['auc']:.3f}, but {best['auc_transfer']:.3f} by the twin and "
            f"{best['auc_blur']:.3f} after a 3x3 blur. Such a method moves this network, and only "
            "it, by them; compare methods by transfer and blur."
        )
    return said


def is_faint(row: Row) -> bool:
    """Whether a method moves the network by what neither its twin nor a blurred part shows.

    Its AUC is then lower by at least `FAINT` than both `auc_transfer` and `auc_blur`; False if one
    of them is missing.
    """
    guards = [row.get("auc_transfer"), row.get("auc_blur")]
    return all(guard is not None and guard - row["auc"] >= FAINT for guard in guards)
