"""Scoring by another classifier, stability over seeds, and the tables made of both."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from dxai.config.params_file import load_params
from dxai.config.profiles import select_profile
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.explain.decomposition import DXAI
from dxai.explain.projection import distance
from dxai.explain.registry import build_explainer
from dxai.metrics.scorer import chosen_images
from dxai.models.serialization import load_classifier, load_snapshots
from dxai.reporting.html.chart_data import training_charts
from dxai.results import table_builders
from dxai.results.definition import best_points
from dxai.results.methods import CONTROLS
from dxai.stages import (
    baseline,
    classifier,
    cross,
    decompose,
    leakage,
    randomisation,
    score_decomposition,
    scoring,
    stability,
    tables,
)
from dxai.stages.pieces import Pieces
from dxai.training.decomposition import snapshot_steps
from dxai.training.probe import predict, spread_over_classes, train_probe
from dxai.utils import shared_process
from dxai.utils.files import read_json
from tests.fixtures import write_results
from tests.outcomes import write_cross, write_outcomes, write_stability
from tests.prepared import PROJECT, prepared_textures

NAMES = ("simple", "resnet18")
IMAGES, STEPS = 6, 6
CHANGED = {
    "classifier.epochs": "1",
    "decompose.steps": str(STEPS),
    "decompose.batch_size": "4",
    "evaluate.images": str(IMAGES),
    "evaluate.batch_size": "4",
    "evaluate.bootstrap": "50",
    "training.executor": "local",
    "leakage.images": "9",
    "leakage.test_images": "6",
    "leakage.heatmap": "random",
    "randomisation.images": "3",
    "randomisation.steps": str(STEPS),
    "repeat": "{classifiers: [simple, resnet18], seeds: [3]}",
    "ablations.variants": "{two_branches: {branches: 2}}",
}
OUTCOMES = Path("results/outcomes/textures")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train two classifiers and their decompositions with two seeds, for an instant."""
    root = tmp_path_factory.mktemp("project")
    prepared_textures(root / "data/prepared")
    (root / "params.yaml").write_text((PROJECT / "params.yaml").read_text())
    select_profile(root / "params.yaml", "smoke", None, NAMES, ["random"], [0], CHANGED)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name in NAMES:
            classifier.main("textures", name, "explained")
            for seed in ("0", "3"):
                decompose.main("textures", name, seed)
                score_decomposition.main("textures", name, seed)
        for scorer in NAMES:
            for seed in ("0", "3"):
                cross.main("textures", "resnet18", scorer, seed)
        stability.main("textures", "resnet18")
        stability.main("textures", "simple")
        leakage.main("textures", "resnet18")
        randomisation.main("textures", "resnet18")
    return root


@pytest.fixture
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def beta(folder: Path) -> pd.DataFrame:
    """Return the sorted outcomes of ours on the curve of Table 1."""
    outcomes = pd.read_parquet(folder / "outcomes.parquet")
    outcomes = outcomes[(outcomes["method"] == "dxai") & (outcomes["curve"] == "beta")]
    return outcomes.sort_values(["level", "index"]).reset_index(drop=True)


def test_scored_by_its_own_classifier_nothing_changes(inside: Path) -> None:
    same = beta(OUTCOMES / "resnet18/dxai-3-by-resnet18")
    pd.testing.assert_frame_equal(same, beta(OUTCOMES / "resnet18/dxai-3"))


def test_scored_by_another_one(inside: Path) -> None:
    folder = OUTCOMES / "resnet18/dxai-0-by-simple"
    found = beta(folder)
    data = ShardedDataset(Path("data/prepared/textures"), "test")
    batch = data.batch(chosen_images(len(data), IMAGES))
    network, _ = load_classifier("artifacts/classifiers/textures/simple/explained")
    with np.load(OUTCOMES / "resnet18/dxai-0/attributions.npz") as kept:
        assert kept["index"].tolist() == batch.index.tolist()
        part = torch.from_numpy(kept["dxai"])
    for level in (0.0, 0.3, 1.0):
        expected = network(batch.images - level * part).softmax(1)
        rows = found[found["level"] == level]
        np.testing.assert_allclose(rows[["p0", "p1", "p2"]], expected, atol=1e-5)
    about = read_json(folder / "cross.json")
    assert (about["trained"], about["scorer"], about["seed"]) == ("resnet18", "simple", 0)
    assert (about["images"], about["steps"]) == (IMAGES, STEPS)
    accuracy = (found["prediction"] == found["label"]).groupby(found["level"]).mean()
    assert about["row"]["curves"]["beta"]["accuracy"] == pytest.approx(accuracy.tolist())


def parts(step: int) -> np.ndarray:
    """Return psi_distinct of both seeds after a step, for the scored images."""
    data = ShardedDataset(Path("data/prepared/textures"), "test")
    batch = data.batch(chosen_images(len(data), IMAGES))
    found = []
    for seed in (0, 3):
        folder = Path(f"artifacts/decompositions/textures/resnet18/{seed}")
        explainer = DXAI.load(folder, seed=0)
        for kept, decomposer in load_snapshots(folder):
            if kept == step:
                explainer.decomposer = decomposer
                found.append(explainer.attribute(batch.images, batch.labels, batch.index))
    return torch.stack(found).double().numpy()


@pytest.mark.parametrize("step", [*snapshot_steps(STEPS), STEPS])
def test_stability_is_the_deviation_over_seeds(inside: Path, step: int) -> None:
    images = pd.read_parquet(OUTCOMES / "resnet18/stability/images.parquet")
    rows = images[(images["method"] == "dxai") & (images["step"] == step)]
    maps = parts(step)
    assert maps.shape == (2, IMAGES, 1, 16, 16)
    half = np.abs(maps[0] - maps[1]) / 2
    np.testing.assert_allclose(rows["std"], half.mean((1, 2, 3)), rtol=1e-3, atol=1e-7)
    reach = maps.max((0, 2, 3, 4)) - maps.min((0, 2, 3, 4))
    np.testing.assert_allclose(rows["normalised"], rows["std"] / reach, rtol=1e-3)
    with np.load(OUTCOMES / "resnet18/stability/maps.npz") as kept:
        np.testing.assert_allclose(kept[f"step-{step}"], half, rtol=1e-3, atol=1e-6)


def test_the_neutral_part_is_scored_as_it_is_explained_in_any_batch(inside: Path) -> None:
    folder = OUTCOMES / "resnet18/dxai-0"
    images = pd.read_parquet(folder / "images.parquet", filters=[("method", "=", "neutral")])
    assert len(images) == IMAGES
    explainer = DXAI.load("artifacts/decompositions/textures/resnet18/0")
    batch = ShardedDataset(Path("data/prepared/textures"), "test").batch(images["index"][1:2])
    found = explainer.explain(batch.images, batch.labels, batch.index)
    size = found.distinct.abs().mean((1, 2, 3))
    np.testing.assert_allclose(images["mean_abs_distinct"][1:2], size, rtol=1e-4)
    points = best_points(folder, "neutral", "part")
    assert (points["entropy"] >= images["neutrality"] - 1e-6).all(), "at beta = 1 or before"
    removed = float(points["beta"][1]) * found.distinct
    expected = distance(batch.images, batch.images - removed)
    np.testing.assert_allclose(points["distance"][1:2], expected, rtol=1e-4, atol=1e-6)


def test_layers_are_compared_after_the_rule_for_the_sign(inside: Path) -> None:
    images = pd.read_parquet(OUTCOMES / "resnet18/stability/images.parquet")
    assert set(images["method"]) == {"dxai", "gradcam", "internal_influence"}
    rows = images[images["method"] == "gradcam"]
    assert len(rows) == IMAGES and rows["step"].isna().all()
    data = ShardedDataset(Path("data/prepared/textures"), "test")
    batch = data.batch(rows["index"].to_numpy())
    network, _ = load_classifier("artifacts/classifiers/textures/resnet18/explained")
    maps = [
        build_explainer("gradcam", network, {"layer": layer}).attribute(batch.images, batch.labels)
        for layer in ("layer3.1", "layer4.0", "layer4.1")
    ]
    expected = np.std(torch.stack(maps).clamp(min=0).double().numpy(), axis=0).mean((1, 2, 3))
    np.testing.assert_allclose(rows["std"], expected, rtol=1e-3, atol=1e-9)


def test_a_network_without_three_layers_in_a_row_has_ours_alone(inside: Path) -> None:
    images = pd.read_parquet(OUTCOMES / "simple/stability/images.parquet")
    assert set(images["method"]) == {"dxai"}
    about = read_json(OUTCOMES / "simple/stability/stability.json")
    assert (about["seeds"], about["layers"]) == ([0, 3], [])
    assert about["steps"] == [*snapshot_steps(STEPS), STEPS]


LEAKED = OUTCOMES / "resnet18/leakage/images.parquet"


def test_the_probe_sees_what_each_method_leaves_of_images(inside: Path) -> None:
    """The class taken away is the predicted one; all images are those of the probe's split."""
    subject = scoring.subject(load_params(), "textures", "resnet18", 0, with_twin=False)
    images = pd.read_parquet(LEAKED)
    index = images["index"].unique()
    assert np.bincount(subject.data.labels[index]).tolist() == [2, 2, 2]
    batch = subject.data.batch(index)
    target = (batch.labels + 1) % 3
    ours = DXAI.load("artifacts/decompositions/textures/resnet18/0", seed=subject.seed)
    noise = build_explainer("random", subject.classifier, {}, subject.seed)
    weight = noise.attribute(batch.images, target, batch.index).clamp(min=0)
    weight = weight / weight.amax((1, 2, 3), keepdim=True)
    left = {
        ("image", ""): batch.images,
        ("dxai", "generated"): batch.images - ours.attribute(batch.images, target, batch.index),
        ("dxai", "neutral"): ours.explain(batch.images, target, batch.index).agnostic,
        ("random", "relu"): (1 - weight) * batch.images,
    }
    found = {(method, sign): removal for method, sign, removal in leakage.removals(subject)}
    assert found.keys() == left.keys(), "naive is not among the methods of this run"
    for name, expected in left.items():
        torch.testing.assert_close(found[name](batch, target), expected)
    named = images[["method", "sign"]].drop_duplicates().itertuples(index=False, name=None)
    assert list(named) == list(left)


def test_the_probe_is_trained_on_training_images(inside: Path) -> None:
    images = pd.read_parquet(LEAKED)
    data = {s: ShardedDataset(Path("data/prepared/textures"), s) for s in ("train", "test")}
    train = data["train"].batch(spread_over_classes(data["train"].labels, 9))
    probe = train_probe(train.images, train.labels, 3, load_params().leakage.epochs, seed=0)
    rows = images[images["method"] == "image"]
    test = data["test"].batch(rows["index"].to_numpy())
    assert rows["prediction"].tolist() == predict(probe, test.images).tolist()
    assert (rows["label"].tolist(), rows["id"].tolist()) == (test.labels.tolist(), test.ids)


FURTHER = {
    "resnet18/dxai-0-by-simple": lambda: cross.main("textures", "resnet18", "simple", "0"),
    "resnet18/stability": lambda: stability.main("textures", "resnet18"),
    "resnet18/leakage": lambda: leakage.main("textures", "resnet18"),
    "resnet18/randomisation": lambda: randomisation.main("textures", "resnet18"),
}


def content(name: str) -> dict[str, Any]:
    """Return an outcome's files, without times."""
    found: dict[str, Any] = {}
    for path in (OUTCOMES / name).iterdir():
        json = path.suffix == ".json"
        found[path.name] = read_json(path) | {"seconds": 0} if json else path.read_bytes()
    return found


@pytest.mark.parametrize("name", ["resnet18/stability", "resnet18/leakage"])
def test_a_stage_that_is_killed_goes_on_after_its_last_piece(
    inside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    whole, save, saved = content(name), Pieces.save, []

    def killed(pieces: Pieces, k: int, *values: Any) -> None:
        if len(saved) == 2:
            raise KeyboardInterrupt
        saved.append(k)
        save(pieces, k, *values)

    with monkeypatch.context() as patch:
        patch.setattr(Pieces, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            FURTHER[name]()
    assert content(name) == whole
    again = []
    monkeypatch.setattr(Pieces, "save", lambda p, k, *v: (again.append(k), save(p, k, *v)))
    FURTHER[name]()
    assert "images were scored before" in capsys.readouterr().out
    assert saved == [0, 1] and again[0] == 2
    assert content(name) == whole
    assert not list(Path(".work/scoring").glob("*"))


@pytest.mark.slow
def test_two_actors_write_the_files_of_one_process(
    inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_ADDRESS", "DXAI_CLUSTER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.setattr(scoring, "SHORT", 0)
    # One cluster for all, as in the flow.
    monkeypatch.setenv("DXAI_CLUSTER", str(inside / ".work/ray"))
    select_profile("params.yaml", overrides={"evaluation.executor": "ray"})
    try:
        with shared_process.hold(inside / ".work/ray"):
            for name, stage in FURTHER.items():
                whole = content(name)
                stage()
                assert content(name) == whole, name
    finally:
        select_profile("params.yaml", overrides={"evaluation.executor": "local"})


def test_the_probe_can_be_switched_off(inside: Path, tmp_path: Path) -> None:
    for name in ("data", "artifacts"):
        (tmp_path / name).symlink_to(inside / name)
    select_profile(inside / "params.yaml", overrides={"leakage.images": "0"})
    try:
        params = load_params()
        (tmp_path / "params.yaml").write_text(Path("params.yaml").read_text())
    finally:
        select_profile(inside / "params.yaml", overrides={"leakage.images": "9"})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        leakage.main("textures", "resnet18")
    table = table_builders.leakage([tmp_path / OUTCOMES / "resnet18/leakage"], params)
    assert table.empty


def test_a_short_training_for_another_classifier_alone_gives_another_map(inside: Path) -> None:
    """As long as the ordinary one, that for the same classifier repeats it; Random never looks."""
    folder = OUTCOMES / "resnet18/randomisation"
    images = pd.read_parquet(folder / "images.parquet")
    about = read_json(folder / "randomisation.json")
    data = ShardedDataset(Path("data/prepared/textures"), "test")
    assert images["index"].unique().tolist() == chosen_images(len(data), 3).tolist()
    found = dict(iter(images.groupby(["method", "layers"])))
    last = about["of_layers"]
    assert set(found) == {("dxai", 0), ("dxai", last), ("random", last // 2), ("random", last)}
    for key in (("dxai", 0), ("random", last // 2), ("random", last)):
        np.testing.assert_allclose(found[key][["rank", "ssim", "size"]], 1, rtol=1e-5)
    assert found["dxai", last]["rank"].max() < 0.9999
    assert (about["steps"], about["images"]) == (STEPS, 3)


def test_no_weights_are_drawn_without_images(inside: Path, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(inside / "data")
    (tmp_path / "artifacts").symlink_to(inside / "artifacts")
    (tmp_path / "params.yaml").write_text(Path("params.yaml").read_text())
    select_profile(tmp_path / "params.yaml", overrides={"randomisation.images": "0"})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        randomisation.main("textures", "resnet18")
        params = load_params()
    folder = tmp_path / OUTCOMES / "resnet18/randomisation"
    assert table_builders.randomisation([folder], params).empty


def test_the_report_draws_every_loss_that_a_training_logs(inside: Path) -> None:
    folder = Path("artifacts/decompositions/textures/resnet18/0")
    history = pd.read_csv(folder / "history.csv")
    losses = {name for name in history if name.startswith("loss/") and "total" not in name}
    drawn = set()
    for chart in training_charts(Path("artifacts/classifiers/textures/resnet18"), {0: folder}):
        drawn |= set(re.findall(r"</svg>([a-z_0-9]+)", str(chart.legend).replace(" ", "")))
    assert {"adv_real", "adv_fake"} <= drawn
    assert drawn >= {name.removeprefix("loss/") for name in losses if history[name].any()}


@pytest.mark.slow
def test_an_ablation_is_trained_with_what_it_changes_and_goes_by_its_name(inside: Path) -> None:
    decompose.main("textures", "simple", "two_branches")
    score_decomposition.main("textures", "simple", "two_branches")
    explainer = DXAI.load("artifacts/decompositions/textures/simple/two_branches")
    assert explainer.info["training"]["branches"] == 2
    assert explainer.info["seed"] == 0
    summary = read_json(OUTCOMES / "simple/dxai-two_branches/summary.json")
    assert summary["rows"][0]["method"] == "dxai"
    for name in NAMES:
        baseline.main("textures", name, "random")
        for scorer in NAMES:
            for seed in ("0", "3"):
                cross.main("textures", name, scorer, seed)
    leakage.main("textures", "simple")
    randomisation.main("textures", "simple")
    tables.main()
    read = {path.stem: pd.read_csv(path) for path in Path("results/tables").glob("*.csv")}
    assert len(read["table1"]) == 2 * (2 * 3 + 2)
    assert len(read["table3"]) == 4 and (read["table3"]["seeds"] == 2).all()
    assert len(read["table4"]) == 2 * 3 + 2
    assert len(read["leakage"]) == 2 * 4
    assert len(read["randomisation"]) == 2 * 3
    assert read["ablations"]["variant"].tolist() == ["as it is", "two_branches"]
    claimed = {"table1", "table2", "table3", "table4", "definition1"}
    assert set(read["claims"]["table"]) == claimed
    assert set(read["definition1"]["method"]) == {"dxai", "neutral", *CONTROLS, "random"}
    assert len(read["per_image"]) == 2 * IMAGES
    assert set(read_json(Path("results/metrics.json"))["claims"]) == claimed


# ------------------------------------------------------------------------------------ fixtures
@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the made-up results that tests of later stages use."""
    root = tmp_path_factory.mktemp("made")
    write_results(root, rich=True)
    return root


@pytest.mark.parametrize(
    "name",
    [
        *(f"dxai-0/{file}" for file in ("images.parquet", "outcomes.parquet", "summary.json")),
        *(f"dxai-0-by-simple/{file}" for file in ("outcomes.parquet", "cross.json")),
        *(f"stability/{file}" for file in ("images.parquet", "stability.json")),
        *(f"leakage/{file}" for file in ("images.parquet", "leakage.json")),
        *(f"randomisation/{file}" for file in ("images.parquet", "randomisation.json")),
    ],
)
def test_made_up_results_have_the_form_of_real_ones(inside: Path, made: Path, name: str) -> None:
    path = OUTCOMES / "resnet18" / name
    assert form(made / path) == form(path)


def test_synthetic_results_have_the_form_of_real_ones(inside: Path, tmp_path: Path) -> None:
    """Those of tests/outcomes.py, which have fewer columns."""
    folders = {
        "dxai-0": write_outcomes(tmp_path, "dxai-0", [("dxai", "part", 0.5)], deletion=[0.1]),
        "dxai-0-by-simple": write_cross(tmp_path, "resnet18", "simple", 0.5),
        "stability": write_stability(tmp_path, {1: (0.2, 0.1)}, {"gradcam": (0.1, 0.1)}),
    }
    for name, folder in folders.items():
        for path in folder.iterdir():
            assert is_part(form(path), form(OUTCOMES / "resnet18" / name / path.name)), path


def form(path: Path) -> Any:
    """Return the names in a file, and the kinds of its columns."""
    if path.suffix == ".parquet":
        return {name: dtype.kind for name, dtype in pd.read_parquet(path).dtypes.items()}
    return names(read_json(path))


def is_part(some: Any, whole: Any) -> bool:
    """Return whether `whole` has everything in `some`, at every depth."""
    if not isinstance(some, dict) or not isinstance(whole, dict):
        return some == whole
    return all(key in whole and is_part(some[key], whole[key]) for key in some)


def names(value: Any) -> Any:
    """Return the keys of nested values, but not of curves, which depend on the scores."""
    if isinstance(value, list):
        return names(value[0]) if value else None
    if not isinstance(value, dict):
        return None
    return {key: names(item) if key != "curves" else None for key, item in value.items()}
