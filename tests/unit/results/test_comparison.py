"""Differences of two runs: arithmetic, formats, and runs of a real MLflow store."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import mlflow
import pytest

from dxai.cli.main import main
from dxai.reporting.text_comparison import FORMATS, as_text
from dxai.results.comparison import CellChange, LoggedRun, Verdict, compare
from dxai.results.metric_names import MetricValue
from dxai.tracking import mlflow_store
from dxai.tracking.mlflow_records import Record


# ------------------------------------------------------------------------------------ cells
@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        # Half widths 0.03 and 0.04: the noise is 0.05, whatever the position of the interval.
        ((0.80, 0.77, 0.83), (0.849, 0.80, 0.88), Verdict.WITHIN),
        ((0.80, 0.77, 0.83), (0.851, 0.80, 0.88), Verdict.OUTSIDE),
        ((0.80, 0.77, 0.83), (0.749, 0.70, 0.78), Verdict.OUTSIDE),
        ((0.80, 0.77, 0.83), (0.80, 0.70, 0.90), Verdict.SAME),
        ((1.00, 1.00, 1.00), (0.999, 0.999, 0.999), Verdict.OUTSIDE),
        ((0.80, None, None), (0.90, 0.80, 0.95), Verdict.UNKNOWN),
        ((0.80, 0.77, None), (0.10, 0.00, 0.20), Verdict.UNKNOWN),
        ((0.80, 0.77, 0.83), None, Verdict.BEFORE),
        (None, (0.80, 0.77, 0.83), Verdict.AFTER),
    ],
)
def test_a_difference_is_outside_if_it_exceeds_both_intervals_in_quadrature(
    before: tuple[Any, ...] | None, after: tuple[Any, ...] | None, verdict: Verdict
) -> None:
    first, second = (MetricValue("auc", *own) if own else None for own in (before, after))
    assert CellChange("auc", first, second).verdict is verdict


def test_noise_is_that_of_two_independent_samples() -> None:
    """By chance 5% are outside, if two runs draw different images."""
    import numpy as np

    rng = np.random.default_rng(0)
    means = rng.normal(0.8, 0.02, (4000, 2))
    half = 1.96 * 0.02
    pairs = [[MetricValue("auc", m, m - half, m + half) for m in row] for row in means.tolist()]
    outside = [CellChange("auc", *pair).verdict is Verdict.OUTSIDE for pair in pairs]
    assert np.mean(outside) == pytest.approx(0.05, abs=0.01)


def made(name: str, values: dict[str, float], **others: Any) -> LoggedRun:
    cells = [MetricValue(key, value, value - 0.03, value + 0.03) for key, value in values.items()]
    return LoggedRun(f"{name}0123456789", name, cells=cells, **others)


PLAN = {"decompose.steps": "1500", "seeds": "[0]", "gone": "1"}
BEFORE = made(
    "first",
    {"auc/d/c/ig": 0.9, "auc/d/c/lime": 0.9, "auc/d/c/lrp": 0.7, "auc/d/c/naive": 0.3},
    params=PLAN,
    data={"d": "a" * 64, "e": "b" * 64},
    commit="1" * 40,
    dirty=False,
)
AFTER = made(
    "second",
    {"auc/d/c/ig": 0.91, "auc/d/c/lime": 0.8, "auc/d/c/lrp": 0.7, "auc/d/c/dxai": 0.5},
    params={"decompose.steps": "3000", "seeds": "[0]", "new": "x|y"},
    data={"d": "a" * 64, "e": "c" * 64},
    commit="2" * 40,
    dirty=True,
)


def test_what_differs_is_found_and_what_matters_most_stands_first() -> None:
    found = compare(BEFORE, AFTER)
    assert [vars(change) for change in found.params] == [
        {"name": "decompose.steps", "before": "1500", "after": "3000"},
        {"name": "gone", "before": "1", "after": None},
        {"name": "new", "before": None, "after": "x|y"},
    ]
    assert [(change.name, change.after) for change in found.data] == [("e", "c" * 64)]
    assert [(cell.name.rpartition("/")[2], cell.verdict.value) for cell in found.cells] == [
        ("lime", "outside"),
        ("ig", "within"),
        ("naive", "only before"),
        ("dxai", "only after"),
        ("lrp", "same"),
    ]
    assert found.cells[0].difference == pytest.approx(-0.1)
    assert found.cells[0].noise == pytest.approx(0.03 * math.sqrt(2))


def test_a_run_is_the_same_as_itself() -> None:
    found = compare(BEFORE, BEFORE)
    assert not found.params and not found.data and not found.changed
    assert len(found.cells) == 4
    text = as_text(found)
    assert "Code: the same commit, 111111111111" in text
    assert "Parameters: all 3 the same" in text
    assert "Cells: 4 the same" in text
    assert "auc/d/c/ig" not in text
    assert "auc/d/c/ig" in as_text(found, everything=True)


def test_steps_of_a_training_are_cells_of_their_own() -> None:
    early, late = (
        MetricValue("std/d/c/dxai", value, 0.1, 0.2, step) for step, value in ((7, 0.2), (9, 0.1))
    )
    found = compare(LoggedRun("a", "a", cells=[early, late]), LoggedRun("b", "b", cells=[late]))
    assert [(cell.name, cell.verdict.value) for cell in found.cells] == [
        ("std/d/c/dxai@7", "only before"),
        ("std/d/c/dxai@9", "same"),
    ]


# ------------------------------------------------------------------------------------ text
def test_text_says_all_of_it() -> None:
    text = as_text(compare(BEFORE, AFTER))
    for line in (
        "Code: 111111111111 -> 222222222222; with uncommitted changes after",
        "Data: 1 of 2 differs",
        "  e: bbbbbbbbbbbb -> cccccccccccc",
        "Parameters: 3 of 4 differ",
        "  decompose.steps: 1500 -> 3000",
        "  gone: 1 -> (not set)",
        "Cells: 1 outside the noise, 1 within it, 1 only before, 1 only after, 1 the same",
        "OUTSIDE      auc/d/c/lime    0.9000   0.8000  -0.1000   0.0424",
        "within       auc/d/c/ig      0.9000   0.9100  +0.0100   0.0424",
        "only before  auc/d/c/naive   0.3000        -        -        -",
    ):
        assert line in text.splitlines()


def test_text_fits_100_columns_and_leaves_nothing_out() -> None:
    name = "std_normalised/fruits_peppers/discriminator/internal_influence"
    values = [str([f"layer{n}" for n in range(40 + k)]) for k in range(2)]
    first = made("first", {name: 0.5}, params={"methods.gradcam.layers": values[0]})
    second = made("second", {name: 0.9}, params={"methods.gradcam.layers": values[1]})
    text = as_text(compare(first, second))
    assert max(map(len, text.splitlines())) <= 100
    joined = " ".join(text.split())
    assert f"methods.gradcam.layers: {values[0]} -> {values[1]}" in joined
    assert f"OUTSIDE {name} 0.5000 0.9000 +0.4000 0.0424" in joined


def test_markdown_is_tables() -> None:
    text = FORMATS["markdown"](compare(BEFORE, AFTER), False)
    assert "| `new` | (not set) | `x\\|y` |" in text
    assert "| OUTSIDE | `auc/d/c/lime` | 0.9000 | 0.8000 | -0.1000 | 0.0424 |" in text
    rows = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {4, 7}


@pytest.mark.parametrize(("everything", "count"), [(False, 4), (True, 5)])
def test_json_has_the_numbers(everything: bool, count: int) -> None:
    document = json.loads(FORMATS["json"](compare(BEFORE, AFTER), everything))
    assert len(document["cells"]) == count
    assert document["cells"][0]["verdict"] == "outside"
    assert document["cells"][0]["before"]["value"] == 0.9
    assert document["cells"][3]["before"] is None
    assert document["counts"]["outside"] == 1
    assert document["after"]["dirty"] is True
    assert document["parameters"][0]["after"] == "3000"


# ------------------------------------------------------------------------------------ MLflow
def table1(values: dict[str, float]) -> list[dict[str, Any]]:
    case = {"dataset": "d", "classifier": "c", "sign": "part"}
    return [
        case
        | {"method": method, "auc": value, "auc_low": value - 0.03, "auc_high": value + 0.03}
        | {"steps": None}
        for method, value in values.items()
    ]


@pytest.fixture(scope="module")
def logged(
    tmp_path_factory: pytest.TempPathFactory, give_store: Callable[[Path], None]
) -> Iterator[dict[str, str]]:
    """Log runs to a store of their own, by a word for each, and work in that project."""
    uri, here = mlflow.get_tracking_uri(), Path.cwd()
    root = tmp_path_factory.mktemp("project")
    give_store(root)
    ids = {}
    plans: list[tuple[str, str, dict[str, float], bool]] = [
        ("old", "quick", {"dxai": 0.8, "ig": 0.9, "lrp": 0.95, "naive": 0.3}, False),
        ("new", "quick", {"dxai": 0.6, "ig": 0.91, "lrp": 0.95, "lime": 0.99}, False),
        ("broken", "quick", {"dxai": 0.1}, True),
        ("bare", "bare", {}, False),
    ]
    with mlflow_store.open_store(root) as store:
        for word, name, values, failed in plans:
            tags = {"kind": "benchmark", "git_commit": word * 12, "git_dirty": "no"}
            tags |= {"data.d": f"{word}-hash", "data.e": "shared"}
            record = Record(
                name, tags, params={"decompose.steps": word}, tables={"table1": table1(values)}
            )
            with store.run(name, tags, failed) as ids[word]:
                store.fill(ids[word], record)
        store.client.create_run(store.experiment, run_name="child", tags={"kind": "method"})
    os.chdir(root)
    yield ids
    os.chdir(here)
    mlflow.set_tracking_uri(uri)
    os.environ.pop("MLFLOW_TRACKING_URI", None)


def test_compare_prints_what_changed(
    logged: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", logged["old"], logged["new"]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["before", logged["old"][:8], "quick"]
    for line in (
        "Code: oldoldoldold -> newnewnewnew",
        "Data: 1 of 2 differs",
        "  d: old-hash -> new-hash",
        "  decompose.steps: old -> new",
        "Cells: 1 outside the noise, 1 within it, 1 only before, 1 only after, 1 the same",
        "OUTSIDE      auc/d/c/dxai    0.8000   0.6000  -0.2000   0.0424",
        "within       auc/d/c/ig      0.9000   0.9100  +0.0100   0.0424",
        "only before  auc/d/c/naive   0.3000        -        -        -",
        "only after   auc/d/c/lime         -   0.9900        -        -",
    ):
        assert line in lines
    assert not any(line.startswith("same ") for line in lines)
    assert main(["compare", logged["old"], logged["new"], "--all"]) == 0
    assert "same         auc/d/c/lrp" in capsys.readouterr().out


def test_compare_prints_json(logged: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "quick~1", "quick", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["before"]["id"], document["after"]["id"]) == (logged["old"], logged["new"])


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ("{old}", "old"),
        ("{old:.12}", "old"),
        ("{broken:.12}", "broken"),  # by its id even so
        ("quick", "new"),  # not the one that failed
        ("quick~0", "new"),
        ("quick~1", "old"),
        ("latest~1", "new"),
        ("latest~2", "old"),
    ],
)
def test_a_run_is_found(logged: dict[str, str], spec: str, word: str) -> None:
    run = mlflow_store.read_run(spec.format(**logged))
    assert run.id == logged[word]
    assert run.data == {"d": f"{word}-hash", "e": "shared"}


@pytest.mark.parametrize("spec", ["zebra", "quick~2", "quick~x", "latest~9", "child", "", "0" * 32])
def test_an_unknown_run_is_one_line_with_the_latest(
    logged: dict[str, str], spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "quick", spec]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {spec}: no such run") and error.count("\n") == 1
    assert f"{logged['new'][:8]} (quick)" in error
    assert "child" not in error.removeprefix("error: child")


def test_a_run_without_tables_says_so(
    logged: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "bare", "quick"]) == 1
    assert "has no tables; `dxai track`" in capsys.readouterr().err


def test_nothing_is_logged_yet(logged: dict[str, str]) -> None:
    with (
        mlflow_store.open_store(Path.cwd(), "another") as store,
        pytest.raises(ValueError, match=r"latest: no such run .* no run is logged yet"),
    ):
        store.find("latest")


def test_the_beginning_of_two_ids_names_neither() -> None:
    infos = [
        SimpleNamespace(run_id=f"abcd{k}", run_name=f"run-{k}", status="FINISHED") for k in "01"
    ]
    runs = [SimpleNamespace(info=info) for info in infos]
    client = cast(mlflow.MlflowClient, SimpleNamespace(search_runs=lambda *_, **__: runs))
    store = mlflow_store.Store(client, "sqlite://", "1", "here")
    assert store.find("abcd1").info.run_name == "run-1"
    with pytest.raises(
        ValueError, match=r"several runs begin like this: abcd0 \(run-0\), abcd1 \(run-1\)"
    ):
        store.find("abcd")


@pytest.mark.parametrize(
    ("plans", "expected"),
    [
        ([], None),
        ([("a", "p", None), ("b", "p", None)], "b"),
        ([("a", "p", None), ("b", "p", "refused")], "a"),
        ([("a", "p", "accepted"), ("b", "p", None), ("c", "p", "refused")], "a"),
        ([("a", "p", "accepted"), ("b", "p", "accepted"), ("c", "other", "accepted")], "b"),
        ([("a", "p", "refused")], None),
    ],
)
def test_what_a_run_is_judged_by(
    tmp_path: Path,
    give_store: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
    plans: list[tuple[str, str, str | None]],
    expected: str | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    give_store(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/.work/mlflow.db")
    with mlflow_store.open_store(tmp_path) as store:
        for name, profile, gate in [*plans, ("tonight", "p", None)]:
            tags = {"kind": "benchmark", "profile": profile} | ({"gate": gate} if gate else {})
            with store.run(name, tags) as run:
                store.fill(run, Record(name, tags, tables={"table1": table1({"dxai": 0.8})}))
            time.sleep(0.01)  # times have milliseconds
    found = mlflow_store.accepted_before(run)
    assert (found.name if found else None) == expected
