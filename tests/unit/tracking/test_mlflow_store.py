"""Made-up results, logged to a real MLflow store and read back with MLflow's own tools."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import mlflow
import mlflow.pytorch
import pandas as pd
import pytest
import torch

from dxai.cli.main import main
from dxai.config.schema import Params
from dxai.explain.decomposition import DXAI
from dxai.models.serialization import load_classifier
from dxai.results.table_specs import SPECS
from dxai.tracking import mlflow_store
from dxai.utils.files import read_json, write_json
from tests.fixtures import SIZE, STEPS, VARIANTS, write_results
from tests.repository import git

CELL = Path("textures/resnet18")


def write_project(root: Path, rich: bool = False) -> Params:
    """Write results in the folders of a project."""
    params, _ = write_results(root, rich=rich)
    if not rich:  # a rich one has it
        ours = root / "results/outcomes" / CELL / "dxai-0"
        row = read_json(ours / "summary.json")["rows"][0]
        write_json(ours.with_name("dxai-0-by-resnet18") / "cross.json", {"row": row})
    (root / "dvc.lock").write_text("schema: '2.0'\n")
    return params


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, give_store: Callable[[Path], None]) -> Path:
    """Make a project that has been run and logged twice."""
    root = tmp_path_factory.mktemp("project")
    give_store(root)
    params = write_project(root)
    for name in ("first", "second"):
        mlflow_store.log_benchmark(root, params, name, {"origin": "test"})
    return root


@pytest.fixture(scope="module")
def rich(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params]:
    """Log a project with every table, of which one dataset was run, to the store of `root`."""
    folder = tmp_path_factory.mktemp("rich")
    whole = write_project(folder, rich=True)
    some = {name: whole.methods[name] for name in ("ig", "gradcam")}
    datasets = {"textures": whole.datasets["textures"]}
    params = whole.replace(datasets=datasets, methods=some, joint={})
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{root}/.work/mlflow.db"
    mlflow_store.log_benchmark(folder, params, "rich")
    os.environ.pop("MLFLOW_TRACKING_URI")
    return folder, params


@pytest.fixture(scope="module")
def runs(root: Path, rich: tuple[Path, Params]) -> pd.DataFrame:
    """Return every run, the oldest first."""
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


def table(root: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(root / f"results/tables/{name}.csv")


def test_headline_metrics_are_on_the_parent(root: Path, runs: pd.DataFrame) -> None:
    run = parent(runs)
    rows = table(root, "table1").set_index(["method", "sign"])
    for name, key in (
        ("dxai", ("dxai", "part")),
        ("ig", ("ig", "signed")),
        ("ig-relu", ("ig", "relu")),
    ):
        assert run[f"metrics.auc/textures/resnet18/{name}"] == pytest.approx(rows.loc[key, "auc"])
    assert run["metrics.psnr_db/textures/resnet18"] == pytest.approx(25.8)
    accuracy = read_json(root / f"artifacts/classifiers/{CELL}/explained/metrics.json")
    assert run["metrics.accuracy/textures/resnet18"] == pytest.approx(accuracy["test_accuracy"])
    assert "metrics.auc/textures/resnet18/lime" not in run.dropna()  # it failed
    assert run["params.decompose.steps"] == "1500"
    assert run["params.methods.lime.samples"] == "100"
    assert run["tags.origin"] == "test"
    assert len(run["tags.dvc_lock"]) == 64


def test_the_data_is_a_tag(root: Path, runs: pd.DataFrame) -> None:
    manifest = root / "data/prepared/textures/manifest.json"
    expected = hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert parent(runs)["tags.data.textures"] == expected


@pytest.mark.parametrize(
    ("name", "metric", "keys", "column"),
    [
        ("table1", "auc", ("dataset", "classifier", "method"), "auc"),
        ("table2", "deletion", ("dataset", "classifier", "method"), "auc_deletion"),
        ("table3", "cross", ("dataset", "trained", "scorer"), "auc"),
        ("table6", "accuracy", ("dataset", "classifier"), "test_accuracy"),
    ],
)
def test_each_cell_of_a_table_is_a_metric(
    rich: tuple[Path, Params],
    runs: pd.DataFrame,
    name: str,
    metric: str,
    keys: tuple[str, ...],
    column: str,
) -> None:
    rows = table(rich[0], name).dropna(subset=column)
    if "sign" in rows:  # the first one of each method
        rows = rows[rows["sign"] == rows.groupby(list(keys))["sign"].transform("first")]
    expected = rows.groupby(list(keys))[column].mean()
    assert len(expected) >= 6
    run = parent(runs, "rich").dropna()
    for names, value in expected.items():
        assert run["/".join([f"metrics.{metric}", *names])] == pytest.approx(value)


def test_table_4_is_a_curve_over_the_training(
    rich: tuple[Path, Params], runs: pd.DataFrame
) -> None:
    rows = table(rich[0], "table4")
    rows = rows[(rows["dataset"] == "textures") & (rows["classifier"] == "resnet18")]
    for metric, column in (("std", "std"), ("std_normalised", "normalised")):
        name = f"{metric}/textures/resnet18"
        points = history(parent(runs, "rich")["run_id"], f"{name}/dxai")
        ours = rows[rows["method"] == "dxai"]
        assert [step for step, _ in points] == list(STEPS) == list(ours["step"])
        assert [value for _, value in points] == pytest.approx(list(ours[column]))
        (other,) = history(parent(runs, "rich")["run_id"], f"{name}/gradcam")
        (expected,) = rows[rows["method"] == "gradcam"][column]
        assert other == (0, pytest.approx(expected))


def test_each_claim_is_a_metric(rich: tuple[Path, Params], runs: pd.DataFrame) -> None:
    claims = table(rich[0], "claims")
    assert set(claims["table"]) == {"table1", "table2", "table3", "table4", "definition1"}
    run = parent(runs, "rich").dropna()
    names = [name for name in run.index if name.startswith("metrics.delta/")]
    assert len(names) == len(claims)  # none has the name of another
    for kind in ("delta", "delta_low", "delta_high"):
        values = [run[name.replace("delta", kind, 1)] for name in names]
        assert sorted(values) == pytest.approx(sorted(claims[kind]))
    best = (claims["table"] == "table1") & claims["claim"].str.contains("baseline")
    first = claims[best].iloc[0]
    name = f"delta/table1/{first['dataset']}/{first['classifier']}/best_baseline"
    assert run[f"metrics.{name}"] == pytest.approx(first["delta"])


def test_tables_and_report_are_artifacts_of_the_parent(
    rich: tuple[Path, Params], runs: pd.DataFrame
) -> None:
    run = parent(runs, "rich")["run_id"]
    client = mlflow.MlflowClient()
    names = {item.path for item in client.list_artifacts(run)}
    assert {"metrics.json", "dvc.lock"} <= names
    files = {item.path for item in client.list_artifacts(run, "tables")}
    written = {path.name for path in (rich[0] / "results/tables").iterdir()}
    assert files == {f"tables/{name}" for name in written} and len(written) >= 11
    for name in (spec.name for spec in SPECS.values() if spec.logged):
        logged = mlflow.load_table(f"{name}.json", run_ids=[run])
        rows = table(rich[0], name)
        assert list(logged.columns[: len(rows.columns)]) == list(rows.columns)
        assert len(logged) == len(rows) > 0
        for column in rows.select_dtypes("number"):
            assert logged[column].astype(float).tolist() == pytest.approx(
                rows[column].astype(float).tolist(), nan_ok=True
            )


def test_empty_tables_are_no_error(root: Path, runs: pd.DataFrame) -> None:
    """A quick run has one seed and one classifier: no stability, nothing known of the images."""
    for name in ("table3", "table4", "localisation"):
        assert table(root, name).empty
    run = parent(runs)
    names = {item.path for item in mlflow.MlflowClient().list_artifacts(run["run_id"])}
    assert {"table1.json", "table6.json"} <= names
    assert not {"table3.json", "table4.json", "localisation.json"} & names
    assert not [name for name in run.dropna().index if name.startswith("metrics.std")]


def test_what_goes_beyond_table_1_has_children(
    rich: tuple[Path, Params], runs: pd.DataFrame
) -> None:
    folder, params = rich
    found = children(runs, "rich")
    seeds = {name: len(params.seeds_of(name)) for name in params.classifiers}
    assert dict(found["tags.kind"].value_counts()) == {
        "classifier": 2 * 2,
        "decomposition": sum(seeds.values()) + len(VARIANTS),
        "method": 2 * 3 + 3 * sum(seeds.values()),  # ig has two signs; ours has two controls
        "ablation": len(VARIANTS),
        "cross": 2 * sum(seeds.values()),
        "stability": 1,
    }
    assert set(found["tags.variant"].dropna()) == set(VARIANTS)
    rows = table(folder, "ablations").set_index("variant")
    for variant in VARIANTS:
        child = found.loc[f"{CELL}/dxai-{variant}"]
        for column in ("auc", "delta", "delta_low", "delta_high"):
            assert child[f"metrics.{column}"] == pytest.approx(rows.loc[variant, column], rel=1e-4)
    assert found.loc[f"{CELL}/dxai-two_branches", "params.changed.branches"] == "2"
    assert found.loc[f"{CELL}/decomposition-two_branches", "params.changed.branches"] == "2"
    cross = found.loc["textures/resnet18/dxai-1-by-simple"]
    assert (cross["tags.scorer"], cross["tags.seed"]) == ("simple", "1")
    assert len(history(cross["run_id"], "accuracy_vs_beta")) == 11
    stability = found.loc["textures/resnet18/stability"]["run_id"]
    assert [step for step, _ in history(stability, "std/dxai")] == list(STEPS)


def test_each_training_and_each_row_is_a_child(root: Path, runs: pd.DataFrame) -> None:
    rows = table(root, "table1")
    found = children(runs)
    assert dict(found["tags.kind"].value_counts()) == {
        "classifier": 2,
        "decomposition": 1,
        "method": len(rows),
        "cross": 1,
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


def test_curves_are_logged_by_step(root: Path, runs: pd.DataFrame) -> None:
    found = children(runs)
    ours = found.loc["textures/resnet18/dxai-0-part"]
    points = history(ours["run_id"], "accuracy_vs_beta")
    assert [step for step, _ in points] == list(range(11))
    assert points[0][1] > points[-1][1]
    assert len(history(ours["run_id"], "accuracy_vs_energy")) == 6
    assert ours["params.levels.energy"].startswith("[0.0, 0.01")
    gradcam = found.loc[f"{CELL}/gradcam-relu"]
    assert gradcam["params.layer"] == "layer3.1.conv2"
    training = found.loc["textures/resnet18/decomposition-0"]["run_id"]
    folder = root / "artifacts"
    written = pd.read_csv(folder / f"decompositions/{CELL}/0/history.csv").set_index("step")
    assert history(training, "loss/rec") == [*written["loss/rec"].items()]
    classifier = found.loc["textures/resnet18/explained"]["run_id"]
    written = pd.read_csv(folder / f"classifiers/{CELL}/explained/history.csv").set_index("epoch")
    assert history(classifier, "validation_accuracy") == [*written["validation_accuracy"].items()]


def test_panels_are_images_by_step(root: Path, runs: pd.DataFrame) -> None:
    run = children(runs).loc["textures/resnet18/decomposition-0"]["run_id"]
    names = [item.path for item in mlflow.MlflowClient().list_artifacts(run, "images")]
    panels = (root / "artifacts/decompositions" / CELL / "0/panels").glob("*.png")
    steps = [int(path.stem.removeprefix("step-")) for path in panels]
    assert len(steps) >= 2
    for step in steps:
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


@pytest.mark.slow
def test_mlflow_serves_the_explainer(root: Path, runs: pd.DataFrame) -> None:
    """The command of docs/classifiers.md answers images with their parts, over HTTP."""
    run = children(runs).loc["textures/resnet18/decomposition-0"]
    uri = f"runs:/{run['tags.model_of_run']}/explainer"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{root}/.work/mlflow.db"}
    server = subprocess.Popen(
        [*command, "-m", uri, "--host", "127.0.0.1", "--port", port], env=environment
    )
    images = torch.rand(2, 1, SIZE, SIZE) * 2 - 1
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_until(lambda: urlopen(f"{address}/ping", timeout=5).status == 200, server)
        body = json.dumps({"inputs": images.tolist()}).encode()
        request = Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
        answer = json.load(urlopen(request, timeout=60))
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
    psi = torch.tensor(answer["predictions"])
    explainer = DXAI.load(root / "artifacts/decompositions" / CELL / "0")
    expected = explainer.explain(images, index=torch.zeros(2, dtype=torch.int64))
    torch.testing.assert_close(psi, expected.psi)


def _wait_until(ready: Callable[[], bool], server: subprocess.Popen[bytes]) -> None:
    """Wait for at most two minutes until the server answers; it must not end before."""
    for _ in range(240):
        assert server.poll() is None
        with contextlib.suppress(OSError):
            if ready():
                return
        time.sleep(0.5)
    raise AssertionError("the server did not answer within two minutes")


def test_the_same_model_is_kept_once(runs: pd.DataFrame) -> None:
    first, second = children(runs, "first"), children(runs, "second")
    trained = first["tags.model_of_run"].dropna().index
    assert len(trained) == 3
    assert set(first.loc[trained, "tags.model_of_run"]) == set(first.loc[trained, "run_id"])
    assert list(second.loc[trained, "tags.model_of_run"]) == list(first.loc[trained, "run_id"])
    own = {*first["run_id"], *second["run_id"]}
    logged = mlflow.search_logged_models(output_format="list")
    assert len([model for model in logged if model.source_run_id in own]) == 3


@pytest.mark.parametrize("form", ["{}", "runs:/{}", "runs:/{}/model.pt"])
def test_a_run_names_the_file_that_explains(
    root: Path, runs: pd.DataFrame, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    run = children(runs).loc["textures/resnet18/decomposition-0"]["run_id"]
    path = mlflow_store.download_model(form.format(run))
    assert (
        path.read_bytes() == (root / "artifacts/decompositions" / CELL / "0/model.pt").read_bytes()
    )


def test_a_damaged_model_is_not_used(
    root: Path, runs: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    run = children(runs).loc["textures/resnet18/decomposition-0"]["run_id"]
    assert mlflow_store.download_model(run)
    owner = mlflow.get_run(run).data.tags["model_of_run"]
    stored = urlsplit(mlflow.get_run(owner).info.artifact_uri).path
    path = Path(unquote(stored), "model.pt")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(ValueError, match=f"{run}: its model.pt in MLflow is damaged"):
            mlflow_store.download_model(run)
    finally:
        path.write_bytes(whole)


def test_a_hostile_model_of_a_run_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    content = torch.load(root / "artifacts/decompositions" / CELL / "0/model.pt")
    content["classifier"]["info"]["arch"] = "subprocess:getoutput"
    content["classifier"]["info"]["options"] = {"cmd": f"touch {tmp_path}/MARK"}
    torch.save(content, tmp_path / "model.pt")
    client = mlflow.MlflowClient(f"sqlite:///{root}/.work/mlflow.db")
    experiment = client.create_experiment("sent", artifact_location=(tmp_path / "sent").as_uri())
    run = client.create_run(experiment).info.run_id
    client.log_artifact(run, str(tmp_path / "model.pt"))
    monkeypatch.chdir(root)
    for source in (run, f"runs:/{run}/model.pt"):
        assert main(["explain", "image.png", "--model", source]) == 1
        said = capsys.readouterr().err
        assert "its classifier is the code subprocess:getoutput, which dxai does not" in said
        assert said.count("\n") == 1
    assert not (tmp_path / "MARK").exists()


@pytest.mark.parametrize("source", ["0" * 32, "runs:/" + "0" * 32])
def test_an_unknown_run_is_an_error(
    root: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    with pytest.raises(ValueError, match="no model in MLflow"):
        mlflow_store.download_model(source)


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
            mlflow_store.log_benchmark(root, params, "run")
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
        give_store: Callable[[Path], None],
    ) -> None:
        root, params = project
        give_store(root)

        def stop(*_: object) -> None:
            raise error

        monkeypatch.setattr(mlflow_store.Store, "log_panels", stop)
        with pytest.raises(error):
            mlflow_store.log_benchmark(root, params, "run")
        frame = mlflow.search_runs(experiment_names=["dxai"])
        assert isinstance(frame, pd.DataFrame)
        assert list(frame["status"]) == [status]  # the parent, in its first step

    def test_what_a_killed_process_left_open_is_closed(
        self, project: tuple[Path, Params], give_store: Callable[[Path], None]
    ) -> None:
        root, params = project
        give_store(root)
        with mlflow_store.open_store(root) as store:
            left = store.begin("left", {})
        mlflow_store.log_benchmark(root, params, "next")
        assert mlflow.get_run(left).info.status == "KILLED"


@pytest.fixture
def shared(
    tmp_path: Path, give_store: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Path, Path, Params]]:
    """Make two projects, the first with results, that log to one database outside of both."""
    (tmp_path / "shared").mkdir()
    give_store(tmp_path / "shared")
    database = (tmp_path / "shared/.work/mlflow.db").rename(tmp_path / "shared/mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    before = mlflow.get_tracking_uri()
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    theirs.mkdir()
    yield mine, theirs, write_project(mine)
    mlflow.set_tracking_uri(before)


def state(run: str) -> tuple[str, str | None]:
    found = mlflow.get_run(run)
    return found.info.status, found.data.tags.get("reason")


def test_a_run_is_there_before_its_results_and_has_them_in_the_end(
    shared: tuple[Path, Path, Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, theirs, params = shared
    for command in (["init", "-q"], ["add", "dvc.lock"], ["commit", "-q", "-m", "x"]):
        git(root, *command)
    (root / "params.yaml").write_text("a: 1\n")
    with mlflow_store.benchmark_run(root, params, "early", {"origin": "test"}) as run:
        found = mlflow.get_run(run)
        assert (found.info.status, found.info.run_name) == ("RUNNING", "early")
        assert found.data.params["decompose.steps"] == "1500"
        commit = git(root, "rev-parse", "HEAD").strip()
        assert found.data.tags["git_commit"] == commit
        names = {item.path for item in mlflow.MlflowClient().list_artifacts(run)}
        assert {"params.yaml", "environment.txt"} <= names
        for folder in (root, theirs):  # neither this folder's commands nor another's close it
            with mlflow_store.open_store(folder):
                assert state(run) == ("RUNNING", None)

        def stop(*_: object) -> None:
            raise RuntimeError("MLflow is away")

        with monkeypatch.context() as patch:  # as far as some children
            patch.setattr(mlflow_store.Store, "log_panels", stop)
            with pytest.raises(RuntimeError):
                mlflow_store.log_benchmark(root, params, "early", run=run)
        assert mlflow_store.log_benchmark(root, params, "early", run=run) == run
    assert state(run) == ("FINISHED", None)
    monkeypatch.chdir(root)
    assert mlflow_store.read_run("latest").id == run
    whole = mlflow_store.log_benchmark(root, params, "late")
    with mlflow_store.open_store(root) as store:
        assert len(store.children(run)) == len(store.children(whole)) > 5  # none twice
    first, second = (mlflow.get_run(one).data for one in (run, whole))
    assert first.metrics == second.metrics
    assert first.params == second.params
    assert {"dvc_lock", "data.textures"} <= first.tags.keys()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("no\nsuch file"), ("FAILED", "no such file")),
        (KeyboardInterrupt(), ("KILLED", None)),
    ],
)
def test_a_run_without_results_says_how_it_ended(
    shared: tuple[Path, Path, Params], error: BaseException, expected: tuple[str, str | None]
) -> None:
    root, _, params = shared
    with pytest.raises(type(error)), mlflow_store.benchmark_run(root, params, "early") as run:
        raise error
    assert state(run) == expected
    assert list((root / ".work/mlflow-runs").iterdir()) == []


def test_results_of_other_settings_are_another_run(
    shared: tuple[Path, Path, Params], caplog: pytest.LogCaptureFixture
) -> None:
    root, _, params = shared
    begun = params.replace(seeds=[5])
    with mlflow_store.benchmark_run(root, begun, "early") as run:
        found = mlflow_store.log_benchmark(root, params, "early", run=run)
    assert found != run
    assert state(run) == ("FAILED", "settings changed while it ran: seeds")
    assert state(found) == ("FINISHED", None)
    assert f"MLflow run {run}: settings changed" in caplog.text


def test_results_of_a_deleted_run_are_another_run(
    shared: tuple[Path, Path, Params], caplog: pytest.LogCaptureFixture
) -> None:
    root, _, params = shared
    with mlflow_store.benchmark_run(root, params, "early") as run:
        mlflow.MlflowClient().delete_run(run)
        found = mlflow_store.log_benchmark(root, params, "early", run=run)
    assert found != run
    assert state(found) == ("FINISHED", None)
    assert f"MLflow run {run}: deleted since it was opened" in caplog.text


def test_a_deleted_experiment_is_restored_with_its_runs(
    shared: tuple[Path, Path, Params], caplog: pytest.LogCaptureFixture
) -> None:
    root, _, params = shared
    with mlflow_store.benchmark_run(root, params, "early") as run:
        mlflow.MlflowClient().delete_experiment(mlflow.get_run(run).info.experiment_id)
        found = mlflow_store.log_benchmark(root, params, "early", run=run)
    assert "the experiment dxai had been deleted, and is restored" in caplog.text
    assert state(found) == ("FINISHED", None)


def test_a_shared_store_s_files_are_in_neither_folder(shared: tuple[Path, Path, Params]) -> None:
    root, theirs, params = shared
    with mlflow_store.open_store(theirs) as store:
        left = store.begin("left", {})
    mlflow_store.log_benchmark(root, params, "mine")
    assert state(left) == ("RUNNING", None)  # its folder's business
    assert not (theirs / ".work/mlflow-artifacts").exists()
    assert not (root / ".work/mlflow-artifacts").exists()
    assert list((root.parent / "shared/mlflow-artifacts").rglob("model.pt"))
    shutil.copytree(theirs, root.parent / "copy")
    with mlflow_store.open_store(root.parent / "copy"):
        assert state(left) == ("RUNNING", None)
    with mlflow_store.open_store(theirs):
        assert state(left) == ("KILLED", None)


@pytest.mark.parametrize("kind", ["nobody", "silent", "database", "damaged", "closed"])
def test_a_store_that_cannot_be_used_is_named_in_one_line(
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mlflow_store, "ANSWER_SECONDS", 1.0)
    before = mlflow.get_tracking_uri()
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        dead, mute = other.getsockname()[1], silent.getsockname()[1]
        (tmp_path / "damaged.db").write_bytes(b"no database" * 1000)
        address = {
            "nobody": f"http://me:geheim@127.0.0.1:{dead}",
            "silent": f"http://me:geheim@127.0.0.1:{mute}",
            "database": f"postgresql+psycopg://me:geheim@127.0.0.1:{dead}/mlflow",
            "damaged": f"sqlite:///{tmp_path}/damaged.db?password=geheim",
            "closed": "sqlite:////proc/mlflow.db?password=geheim",
        }[kind]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        began = time.monotonic()
        assert main(["compare", "latest~1", "latest"]) == 1
        assert time.monotonic() - began < 30
    said = capsys.readouterr().err
    assert said.startswith("error: MLflow (") and said.count("\n") == 1
    assert "geheim" not in said and "***" in said
    # Root may write anywhere, so only the attempt tells.
    expected = {"damaged": "not a database", "closed": "unable to open|cannot be written to"}
    assert re.search(expected.get(kind, "nothing answers there"), said)
    mlflow.set_tracking_uri(before)


@pytest.mark.slow
def test_two_processes_make_a_new_store_at_once(tmp_path: Path) -> None:
    code = "from pathlib import Path; from dxai.tracking import mlflow_store\n"
    code += "with mlflow_store.open_store(Path()) as store: print(store.experiment)"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={"PYTHONPATH": str(Path(__file__).parents[3]), "PATH": ""},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    assert [process.communicate()[0].strip() for process in processes] == ["1", "1", "1"]
