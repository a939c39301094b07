"""Which classifiers are brittle, and that nothing is claimed of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dxai.metrics.scorer import Scorer
from dxai.results.claims import all_claims
from dxai.results.table_builders import headlines, table1, table6
from dxai.results.validity import (
    AT_CHANCE,
    BRITTLE,
    FAINT,
    NOT_KNOWN,
    VALID,
    is_faint,
    judged,
    meaning,
    validity_of,
    weakest,
)
from dxai.types import Batch
from tests.fixtures import small_params
from tests.outcomes import beta_area, write_cross, write_outcomes, write_stability

PARAMS = small_params()
STANDS, BREAKS = 0.2, 0.4
"""Shares lost by Random that leave an AUC of .89 and of .78."""


def row(method: str = "random", status: str = "ok", **values: Any) -> dict[str, Any]:
    return {"method": method, "sign": "relu", "status": status} | values


def outcomes(root: Path, classifier: str, random: float | None) -> list[Path]:
    """Write a case in which ours is clearly below the best baseline, and below its phases."""
    named = {"classifier": classifier}
    ours = [("dxai", "part", 0.9), ("random_phase", "part", 0.1)]
    folders = [
        write_outcomes(root, "ig", [("ig", "relu", 0.5)], **named),
        write_outcomes(root, "dxai-0", ours, **named),
    ]
    if random is not None:
        folders.append(write_outcomes(root, "random", [("random", "relu", random)], **named))
    return folders


# ------------------------------------------------------------------------------------ the test
@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([row(auc=0.85)], VALID),
        ([row(auc=0.849)], BRITTLE),
        ([row("ig", auc=0.2), row(auc=1.01)], VALID),
        ([row(auc=0.89), row(auc=0.85, sign="signed")], VALID),
        ([row(auc=0.89), row(auc=0.74, sign="signed")], BRITTLE),
        ([row(auc=0.84), row(auc=0.96, sign="signed")], BRITTLE),
        ([row("ig", auc=0.99)], NOT_KNOWN),
        ([row(auc=math.nan)], NOT_KNOWN),
        ([row(status="failed", auc=0.9)], NOT_KNOWN),
        ([], NOT_KNOWN),
    ],
)
def test_the_lower_row_of_random_alone_decides(rows: list[dict[str, Any]], found: str) -> None:
    assert validity_of(rows, 0.85) == found


@pytest.mark.parametrize(
    ("recall", "classes", "found"),
    [(1 / 3, 3, AT_CHANCE), (0.34, 3, VALID), (0.0, 2, AT_CHANCE), (1.0, 1, VALID)],
)
def test_a_network_at_chance_is_not_valid(recall: float, classes: int, found: str) -> None:
    """Of images of one class nothing is known."""
    about = {"balanced_accuracy": recall, "classes": classes}
    assert validity_of([row(auc=1.0) | about, row("ig", auc=0.5) | about], 0.85) == found


def test_a_network_with_one_answer_is_at_chance_however_frequent_its_class(
    networks: dict[str, Scorer],
) -> None:
    """Nothing breaks it: Random has 1, as with a network that is right on every image."""
    found = {}
    for name, scorer in networks.items():
        rows = [scorer.row("random", sign, None) for sign in ("relu", "signed")]
        assert [r["auc"] for r in rows] == [1, 1]
        found[name] = (rows[0]["accuracy"], validity_of(rows, 0.85))
    assert found == {"constant": (0.75, AT_CHANCE), "right": (1, VALID)}


@pytest.fixture
def networks() -> dict[str, Scorer]:
    """Score what leaves bright images bright with two networks, on three bright and a dark one."""
    level = torch.tensor([0.5, 0.5, 0.5, -0.5])[:, None, None, None].expand(-1, 1, 4, 4)
    labels, index = torch.tensor([1, 1, 1, 0]), torch.arange(4)
    images = Batch(level.contiguous(), labels, index, list("abcd"), list("abcd"))
    params = PARAMS.evaluate.replace(bootstrap=20)
    scorers = {
        name: Scorer(Bright(bias), None, ["dark", "bright"], params, 0, curves=("beta",))
        for name, bias in (("constant", 10.0), ("right", 0.0))
    }
    for scorer in scorers.values():
        for sign in ("relu", "signed"):
            scorer.add("random", sign, images, 0.1 * images.images)
    return scorers


class Bright(nn.Module):
    """Class 1 where the mean brightness and the bias are above 0."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(self, x: Tensor) -> Tensor:
        found = x.mean((1, 2, 3)) + self.bias
        return torch.stack([-found, found], 1)


def test_several_classifiers_are_as_valid_as_the_weakest() -> None:
    assert weakest([VALID, BRITTLE, NOT_KNOWN]) == BRITTLE
    assert weakest([BRITTLE, AT_CHANCE, VALID]) == AT_CHANCE
    assert weakest([NOT_KNOWN, VALID]) == NOT_KNOWN
    assert weakest([VALID, VALID]) == VALID


# ------------------------------------------------------------------------------------ claims
@pytest.mark.parametrize(
    ("random", "least", "found", "verdict"),
    [
        (STANDS, 0.85, VALID, "holds"),
        (BREAKS, 0.85, BRITTLE, BRITTLE),
        (BREAKS, 0.7, VALID, "holds"),
        (BREAKS, 0.0, VALID, "holds"),
        (None, 0.85, NOT_KNOWN, "holds"),
    ],
)
def test_a_claim_needs_a_classifier_that_is_not_brittle(
    tmp_path: Path, random: float | None, least: float, found: str, verdict: str
) -> None:
    params = PARAMS.replace(evaluate=PARAMS.evaluate.replace(valid_auc=least))
    folders = outcomes(tmp_path, "resnet18", random)
    frames = {"table1": table1(folders, params), "table6": table6([], params)}
    frames["claims"] = all_claims(folders, [], [], params)
    assert set(frames["table1"]["validity"]) == {found}
    claims = frames["claims"].query("table == 'table1'").to_dict("records")
    assert len(claims) == 2 and set(frames["claims"]["validity"]) == {found}
    for claim in claims:
        assert (claim["validity"], judged(claim)) == (found, verdict)
        assert claim["holds"] == (verdict == "holds")
    # Its numbers are shown all the same.
    assert claims[0]["delta"] == pytest.approx(beta_area(0.9) - beta_area(0.5))
    assert frames["table1"]["delta_high"].dropna().item() < 0
    (logged,) = headlines(frames)["claims"]["table1"].values()
    assert all(claim.get("validity") == {BRITTLE: BRITTLE}.get(found) for claim in logged.values())


def test_table_3_needs_both_classifiers_and_table_4_none(tmp_path: Path) -> None:
    folders = outcomes(tmp_path / "a", "one", STANDS) + outcomes(tmp_path / "b", "two", BREAKS)
    folders += outcomes(tmp_path / "c", "six", STANDS)
    names = ("one", "two", "six")
    cross = [write_cross(tmp_path, a, b, 0.9 if a == b else 0.1) for a in names for b in names]
    maps = [write_stability(tmp_path, {20: (0.05, 0.1)}, {"gradcam": (0.01, 0.3)})]
    claims = all_claims(folders, cross, maps, PARAMS)
    third = claims[claims["table"] == "table3"]
    broken = third["classifier"].eq("two") | third["other"].str.contains("two")
    assert (len(third), broken.sum()) == (12, 8)
    assert (third["validity"] == BRITTLE).eq(broken).all()
    assert third["holds"].ne(broken).all()
    fourth = claims[claims["table"] == "table4"].to_dict("records")
    assert [(c["validity"], judged(c)) for c in fourth] == [("", "holds")], "it compares maps"


# ------------------------------------------------------------------------------------ in words
def test_a_network_follows_faint_patterns_if_both_guards_are_far_above() -> None:
    far = {"auc": 0.4, "auc_transfer": 0.4 + FAINT + 1e-9, "auc_blur": 0.9}
    assert is_faint(far)
    assert not is_faint(far | {"auc_transfer": 0.4 + FAINT - 1e-9}), "the twin falls for it, too"
    assert not is_faint(far | {"auc_blur": 0.5}), "it is seen through a blur"
    assert not is_faint(far | {"auc_transfer": None}), "no twin"


def test_numbers_are_put_in_words() -> None:
    # A network trained with flips alone (docs/method.md).
    random = row(auc=0.509, auc_transfer=0.549, auc_blur=0.723, validity=BRITTLE)
    best = row("ig", auc=0.416, auc_transfer=0.79, auc_blur=0.752, validity=BRITTLE)
    signed = random | {"sign": "signed", "auc": 0.4}
    first, second = meaning([best, random, signed])
    assert first.startswith(
        "Brittle: Random has 0.509 (relu) and 0.400 (signed) on the scored images, the lower less"
    )
    assert "nothing is claimed" in first and "noise of classifier" in first
    assert second.startswith("It follows patterns too faint to see: ")
    assert "Integrated Gradients finds gives an AUC of 0.416, but 0.790 by the twin" in second
    (only,) = meaning([row(auc=1.0, auc_transfer=1.0, auc_blur=1.0, validity=AT_CHANCE)])
    assert only.startswith("At chance: ") and "nothing to explain" in only
    (only,) = meaning([row(auc=0.9, auc_transfer=0.9, auc_blur=0.9, validity=VALID)])
    assert only.startswith("Valid: Random has 0.900 (relu) on the scored images, so removing")
    (only,) = meaning([row("lime", auc=0.9, auc_transfer=0.9, auc_blur=0.9, validity=NOT_KNOWN)])
    assert only.startswith("Validity not known: Random was not scored")
    assert meaning([]) == []
