"""Made-up results, logged to a real MLflow store and read back with MLflow's own tools."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import mlflow.pytorch
import pandas as pd
import pytest
import torch
from PIL import Image

from dxai import tracking
from dxai.explain.decomposition import DXAI
from dxai.models.checkpoint import load_classifier, save_classifier, save_decomposer
from dxai.models.classifiers import build_classifier
from dxai.models.decomposer import Decomposer
from dxai.params import Params
from tests.fixtures import CLASSES, SIZE, write_results

CELL = Path("textures/resnet18")


def write_project(root: Path) -> Params:
    """Results in the folders of a project, with small networks that were never trained."""
    params, folders = write_results(root)
    (root / "artifacts").mkdir()
    folders.classifiers.rename(root / "artifacts/classifiers")
    folders.decompositions.rename(root / "artifacts/decompositions")
    folders.outcomes.rename(root / "results/outcomes")
    info = {"arch": "simple", "options": {}, "channels": 1, "image_size": SIZE}
    info |= {"class_names": list(CLASSES), "value_range": [-1.0, 1.0]}
    settings = {"channels": 1, "classes": len(CLASSES), "image_size": SIZE, "branches": 2}
    settings |= {"branch_width": 2, "branch_max_width": 4, "mapping_width": 8}
    torch.manual_seed(0)
    for role in ("explained", "twin"):
        network = build_classifier("simple", 1, len(CLASSES), SIZE)
        path = root / "artifacts/classifiers" / CELL / role / "model.pt"
        save_classifier(path, network, info)
    folder = root / "artifacts/decompositions" / CELL / "0"
    about = info | {"settings": settings}
    save_decomposer(folder / "model.pt", Decomposer(**settings), about, network, info)
    (folder / "panels").mkdir()
    for step in (250, 500):
        Image.new("L", (8, 8), step % 256).save(folder / f"panels/step-{step:06d}.png")
    (root / "dvc.lock").write_text("schema: '2.0'\n")
    return params


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has been run and logged twice."""
    root = tmp_path_factory.mktemp("project")
    params = write_project(root)
    for name in ("first", "second"):
        tracking.log_benchmark(root, params, name, {"origin": "test"})
    return root


@pytest.fixture(scope="module")
def runs(root: Path) -> pd.DataFrame:
    """Every run, the oldest first."""
    frame = mlflow.search_runs(experiment_names=["dxai"], order_by=["attributes.start_time"])
    assert isinstance(frame, pd.DataFrame)
    return frame


def parent(runs: pd.DataFrame, name: str = "second") -> pd.Series:
    return runs[runs["tags.mlflow.runName"] == name].iloc[0]


def children(runs: pd.DataFrame, name: str = "second") -> pd.DataFrame:
    found = runs[runs["tags.mlflow.parentRunId"] == parent(runs, name)["run_id"]]
    return found.set_index("tags.mlflow.runName")


def history(run: str, metric: str) -> list[tuple[int, float]]:
    points = mlflow.MlflowClient().get_metric_history(run, metric)
    return sorted((point.step, point.value) for point in points)


def test_headline_metrics_are_on_the_parent(runs: pd.DataFrame) -> None:
    run = parent(runs)
    assert run["metrics.auc/textures/resnet18/dxai"] == pytest.approx(0.84)
    assert run["metrics.auc/textures/resnet18/ig"] == pytest.approx(0.99)  # signed, not 0.993
    assert run["metrics.delta_high/textures/resnet18"] == pytest.approx(-0.02)
    assert run["metrics.psnr_db/textures/resnet18"] == pytest.approx(25.8)
    assert "metrics.auc/textures/resnet18/lime" not in run.dropna()  # it failed
    assert run["params.decompose.steps"] == "1500"
    assert run["params.methods.lime.samples"] == "100"
    assert run["tags.origin"] == "test"
    assert len(run["tags.dvc_lock"]) == 64


def test_tables_and_report_are_artifacts_of_the_parent(root: Path, runs: pd.DataFrame) -> None:
    run = parent(runs)["run_id"]
    names = {item.path for item in mlflow.MlflowClient().list_artifacts(run)}
    assert {"table1.csv", "table1.json", "table6.csv", "metrics.json", "dvc.lock"} <= names
    table = mlflow.load_table("table1.json", run_ids=[run])
    written = pd.read_csv(root / "results/tables/table1.csv")
    assert list(table["method"]) == list(written["method"])


def test_each_training_and_each_row_is_a_child(root: Path, runs: pd.DataFrame) -> None:
    rows = pd.read_csv(root / "results/tables/table1.csv")
    found = children(runs)
    assert dict(found["tags.kind"].value_counts()) == {
        "classifier": 2,
        "decomposition": 1,
        "method": len(rows),
    }
    assert set(found["tags.benchmark"]) == {parent(runs)["run_id"]}
    assert set(found["tags.dataset"]) == {"textures"}
    methods = found[found["tags.kind"] == "method"]
    for row in rows.itertuples():
        same = (methods["tags.method"] == row.method) & (methods["tags.sign"] == row.sign)
        child = methods[same].iloc[0]
        assert child["tags.result"] == row.status
        assert child["tags.seed"] == str(row.seed)
        if row.status == "ok":
            assert child["metrics.auc_low"] == pytest.approx(row.auc_low)


def test_a_method_that_failed_is_a_failed_run_and_an_unsupported_one_is_not(
    runs: pd.DataFrame,
) -> None:
    found = children(runs)
    lime, lrp = found.loc["textures/resnet18/lime-relu"], found.loc["textures/resnet18/lrp-relu"]
    assert (lime["status"], lime["tags.reason"]) == (
        "FAILED",
        "RuntimeError: not enough segments",
    )
    assert (lrp["status"], lrp["tags.result"]) == ("FINISHED", "unsupported")


def test_curves_are_logged_by_step(runs: pd.DataFrame) -> None:
    found = children(runs)
    ours = found.loc["textures/resnet18/dxai-0-part"]
    points = history(ours["run_id"], "accuracy_vs_beta")
    assert [step for step, _ in points] == list(range(11))
    assert points[0][1] > points[-1][1]
    assert len(history(ours["run_id"], "accuracy_vs_energy")) == 6
    assert ours["params.levels.energy"].startswith("[0.0, 0.01")
    training = found.loc["textures/resnet18/decomposition-0"]["run_id"]
    losses = history(training, "loss/rec")
    assert losses[0][0] == 25
    assert losses[-1][0] == 1500
    classifier = found.loc["textures/resnet18/explained"]["run_id"]
    assert [step for step, _ in history(classifier, "validation_accuracy")] == [*range(1, 7)]


def test_panels_are_images_by_step(runs: pd.DataFrame) -> None:
    run = children(runs).loc["textures/resnet18/decomposition-0"]["run_id"]
    names = [item.path for item in mlflow.MlflowClient().list_artifacts(run, "images")]
    for step in (250, 500):
        assert any(f"step+{step}+" in name and name.endswith(".png") for name in names)


def test_the_classifier_loads_back(root: Path, runs: pd.DataFrame) -> None:
    run = children(runs).loc["textures/resnet18/explained"]
    loaded = mlflow.pytorch.load_model(f"runs:/{run['tags.model_of_run']}/classifier")
    original, _ = load_classifier(root / "artifacts/classifiers" / CELL / "explained")
    images = torch.rand(5, 1, SIZE, SIZE) * 2 - 1
    assert torch.equal(loaded(images), original(images))


def test_the_explainer_loads_back(root: Path, runs: pd.DataFrame) -> None:
    run = children(runs).loc["textures/resnet18/decomposition-0"]
    uri = f"runs:/{run['tags.model_of_run']}/explainer"
    images = torch.rand(5, 1, SIZE, SIZE) * 2 - 1
    psi = mlflow.pytorch.load_model(uri)(images)
    original = DXAI.load(root / "artifacts/decompositions" / CELL / "0")
    expected = original.explain(images, index=torch.zeros(5, dtype=torch.int64))
    torch.testing.assert_close(psi, expected.psi)
    served = mlflow.pyfunc.load_model(uri).predict(images.numpy())
    torch.testing.assert_close(torch.from_numpy(served), expected.psi)


def test_the_same_model_is_kept_once(runs: pd.DataFrame) -> None:
    first, second = children(runs, "first"), children(runs, "second")
    trained = first["tags.model_of_run"].dropna().index
    assert len(trained) == 3
    assert set(first.loc[trained, "tags.model_of_run"]) == set(first.loc[trained, "run_id"])
    assert list(second.loc[trained, "tags.model_of_run"]) == list(first.loc[trained, "run_id"])
    assert len(mlflow.search_logged_models(output_format="list")) == 3


@pytest.mark.parametrize("form", ["{}", "runs:/{}", "runs:/{}/model.pt"])
def test_a_run_names_the_file_that_explains(
    root: Path, runs: pd.DataFrame, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    run = children(runs).loc["textures/resnet18/decomposition-0"]["run_id"]
    path = tracking.download_model(form.format(run))
    assert (
        path.read_bytes() == (root / "artifacts/decompositions" / CELL / "0/model.pt").read_bytes()
    )


@pytest.mark.parametrize("source", ["0" * 32, "runs:/" + "0" * 32])
def test_an_unknown_run_is_an_error(
    root: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    with pytest.raises(ValueError, match="no model in MLflow"):
        tracking.download_model(source)


class TestErrors:
    @pytest.fixture
    def project(self, tmp_path: Path) -> Iterator[tuple[Path, Params]]:
        before = mlflow.get_tracking_uri()
        yield tmp_path, write_project(tmp_path)
        mlflow.set_tracking_uri(before)
        os.environ.pop("MLFLOW_TRACKING_URI", None)

    def test_a_missing_result_is_named_and_nothing_is_logged(
        self, project: tuple[Path, Params]
    ) -> None:
        root, params = project
        (root / "results/outcomes" / CELL / "ig/summary.json").unlink()
        with pytest.raises(ValueError, match=r"ig/summary\.json: no such result"):
            tracking.log_benchmark(root, params, "run")
        assert not (root / ".work").exists()

    @pytest.mark.parametrize(
        ("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")]
    )
    def test_no_run_stays_open(
        self,
        project: tuple[Path, Params],
        error: type[BaseException],
        status: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        root, params = project

        def stop(*_: object) -> None:
            raise error

        monkeypatch.setattr(tracking.Store, "panels", stop)
        with pytest.raises(error):
            tracking.log_benchmark(root, params, "run")
        frame = mlflow.search_runs(experiment_names=["dxai"])
        assert isinstance(frame, pd.DataFrame)
        assert list(frame["status"]) == [status]  # the parent, in its first step

    def test_what_a_killed_process_left_open_is_closed(self, project: tuple[Path, Params]) -> None:
        root, params = project
        with tracking.open_store(root) as store:
            left = store.client.create_run(store.experiment).info.run_id
        tracking.log_benchmark(root, params, "next")
        assert mlflow.get_run(left).info.status == "KILLED"


@pytest.mark.slow
def test_two_processes_make_a_new_store_at_once(tmp_path: Path) -> None:
    code = "from pathlib import Path; from dxai import tracking\n"
    code += "with tracking.open_store(Path()) as store: print(store.experiment)"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    assert [process.communicate()[0].strip() for process in processes] == ["1", "1", "1"]
