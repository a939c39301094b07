"""A run in MLflow, from the files that the stages wrote: the only home of `import mlflow`.

What DVC skipped is logged all the same, since its files are what the run's result rests on. One
experiment; a parent run with the headline numbers; a child for each training and for each evaluated
method, tagged alike so that they line up in searches and on the compare page.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import fcntl
import hashlib
import logging
import math
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Both are read when mlflow is imported; `1` would not be understood.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

import mlflow
from mlflow.entities import Metric, Param, RunTag

from dxai.files import read_json
from dxai.params import Params, load_params
from dxai.stages import CLASSIFIERS, DECOMPOSITIONS, OUTCOMES, RESULTS, run_stage

if TYPE_CHECKING:
    from torch import nn

EXPERIMENT = "dxai"
OURS = "dxai"
CURVES = {
    "beta": "accuracy_vs_beta",
    "energy": "accuracy_vs_energy",
    "transfer": "transfer_accuracy_vs_beta",
    "blur": "blurred_accuracy_vs_beta",
}
"""Curve of a summary to the metric that it is logged as, by step."""
OURS_HEADLINES = [
    "accuracy",
    "delta_low",
    "delta_high",
    "psnr_db",
    "auc_energy",
    "auc_transfer",
    "auc_blur",
]
"""Columns of our row that the parent shows beside each method's AUC."""


def track(root: Path | str = ".") -> str:
    """Log the results that are in a project's folder; returns the id of the parent run."""
    params = load_params(Path(root, "params.yaml"))
    return log_benchmark(Path(root), params, params.profile)


def log_benchmark(
    root: Path, params: Params, parent_name: str, tags: dict[str, str] | None = None
) -> str:
    """Log everything that `params` asked for and the stages made.

    Parameters
    ----------
    root : Path
        The project's folder.
    params : Params
        The `run` block that the results were made with.
    parent_name : str
        Name of the parent run.
    tags : dict, optional
        Tags of the parent beside its own.

    Returns
    -------
    str
        Id of the parent run.

    Raises
    ------
    ValueError
        If a result file is missing.
    """
    root = Path(root).resolve()
    with open_store(root) as store, _named_errors(), store.run(parent_name, tags or {}) as parent:
        benchmark = Benchmark(store, root, params, parent)
        benchmark.log_parent()
        benchmark.log_classifiers()
        benchmark.log_decompositions()
        benchmark.log_methods()
    return parent


def download_model(source: str) -> Path:
    """The model.pt that a training run logged.

    Parameters
    ----------
    source : str
        A run's id, `runs:/<id>`, or `runs:/<id>/<file>`.

    Raises
    ------
    ValueError
        If there is no such run, or it trained nothing.
    """
    run, _, file = source.removeprefix("runs:/").partition("/")
    with open_store(Path.cwd()) as store:
        try:
            owner = store.client.get_run(run).data.tags.get("model_of_run", run)
            return Path(store.client.download_artifacts(owner, file or "model.pt"))
        except (mlflow.MlflowException, OSError) as error:
            raise ValueError(f"{source}: no model in MLflow ({store.uri}): {error}") from None


# ------------------------------------------------------------------------------------ the store
@dataclass(frozen=True)
class Store:
    """The experiment in an MLflow store."""

    client: mlflow.MlflowClient
    uri: str
    experiment: str

    @contextlib.contextmanager
    def run(self, name: str, tags: dict[str, Any], status: str = "FINISHED") -> Iterator[str]:
        """A run that ends as `status`, or, on an error or a stop, as FAILED or KILLED."""
        tags = {key: str(value) for key, value in tags.items()}
        run = self.client.create_run(self.experiment, run_name=name, tags=tags).info.run_id
        try:
            yield run
        except Exception:
            self.client.set_terminated(run, "FAILED")
            raise
        except BaseException:
            self.client.set_terminated(run, "KILLED")
            raise
        self.client.set_terminated(run, status)

    def metrics(self, run: str, values: dict[str, Any], step: int = 0) -> None:
        """Log the values that are numbers."""
        self.curves(run, [(step, values)])

    def curves(self, run: str, rows: list[tuple[int, dict[str, Any]]]) -> None:
        """Log (step, values) pairs, in few calls."""
        now = int(time.time() * 1000)
        metrics = [
            Metric(key, float(value), now, step)
            for step, values in rows
            for key, value in values.items()
            if _is_number(value)
        ]
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(run, metrics=metrics[start : start + 1000])

    def params(self, run: str, values: dict[str, Any]) -> None:
        """Log settings; nested ones under dotted names."""
        params = [Param(key, str(value)[:6000]) for key, value in _flat(values)]
        for start in range(0, len(params), 100):
            self.client.log_batch(run, params=params[start : start + 100])

    def tags(self, run: str, values: dict[str, Any]) -> None:
        """Set tags."""
        self.client.log_batch(run, tags=[RunTag(k, str(v)) for k, v in values.items()])


@contextlib.contextmanager
def open_store(root: Path) -> Iterator[Store]:
    """The experiment, made if need be, by one process at a time.

    The store is what MLFLOW_TRACKING_URI says, else .work/mlflow.db: two processes that both make
    a new database break it. Runs that a killed process left open are closed.
    """
    work = root / ".work"
    work.mkdir(exist_ok=True)
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{work / 'mlflow.db'}"
    with (work / "mlflow.lock").open("w") as lock, _quiet():
        fcntl.flock(lock, fcntl.LOCK_EX)
        mlflow.set_tracking_uri(uri)
        client = mlflow.MlflowClient(uri)
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            # Without a place of its own MLflow would write to ./mlruns.
            local = (work / "mlflow-artifacts").as_uri() if uri.startswith("sqlite:") else None
            experiment = client.create_experiment(EXPERIMENT, artifact_location=local)
        else:
            experiment = found.experiment_id
        mlflow.set_experiment(experiment_id=experiment)
        if uri.startswith("sqlite:"):  # ours alone, so what is still open is nobody's
            for run in client.search_runs([experiment], "attributes.status = 'RUNNING'"):
                client.set_terminated(run.info.run_id, "KILLED")
        yield Store(client, uri, experiment)


# ------------------------------------------------------------------------------------ the runs
@dataclass(frozen=True)
class Benchmark:
    """One run of the pipeline, being logged."""

    store: Store
    root: Path
    params: Params
    parent: str

    def log_parent(self) -> None:
        """Settings, headline numbers, tables and report."""
        store, parent = self.store, self.parent
        about = {"kind": "benchmark", "profile": self.params.profile, "benchmark": parent}
        store.tags(parent, about | _version(self.root))
        store.params(parent, dataclasses.asdict(self.params))
        rows = _read_csv(self.root / RESULTS / "table1.csv")
        store.metrics(parent, _headlines(rows))
        table = {column: [row[column] for row in rows] for column in rows[0]}
        store.client.log_table(parent, table, "table1.json")
        for name in ("table1.csv", "table6.csv", "metrics.json", "report.html"):
            if (self.root / RESULTS / name).exists():
                store.client.log_artifact(parent, str(self.root / RESULTS / name))
        for name in ("params.yaml", "dvc.lock"):
            if (self.root / name).exists():
                store.client.log_artifact(parent, str(self.root / name))

    def log_classifiers(self) -> None:
        """A child for each training of a classifier."""
        for dataset, name in self._pairs():
            if self.params.classifiers[name].arch == "joint":
                continue  # trained by the decomposition
            for role in ("explained", "twin"):
                folder = self.root / CLASSIFIERS / dataset / name / role
                metrics = read_json(folder / "metrics.json")
                tags = {"kind": "classifier", "role": role, "seed": metrics["seed"]}
                with self._child(f"{dataset}/{name}/{role}", dataset, name, tags) as run:
                    self.store.metrics(run, metrics)
                    self.store.curves(run, _history(folder / "history.csv", "epoch"))
                    self._log_model(run, folder / "model.pt", "classifier", _classifier)

    def log_decompositions(self) -> None:
        """A child for each training of a decomposition, with the panels along the way."""
        for dataset, name in self._pairs():
            for seed in self.params.seeds:
                folder = self.root / DECOMPOSITIONS / dataset / name / str(seed)
                tags = {"kind": "decomposition", "method": OURS, "seed": seed}
                with self._child(f"{dataset}/{name}/training-{seed}", dataset, name, tags) as run:
                    self.store.metrics(run, dict(_flat(read_json(folder / "metrics.json"))))
                    self.store.curves(run, _history(folder / "history.csv", "step"))
                    self._log_panels(run, folder / "panels")
                    self._log_model(run, folder / "model.pt", "explainer", _explainer)

    def log_methods(self) -> None:
        """A child for each evaluated method and sign rule."""
        for dataset, name in self._pairs():
            items = [*self.params.methods, *(f"{OURS}-{seed}" for seed in self.params.seeds)]
            for item in items:
                folder = self.root / OUTCOMES / dataset / name / item
                summary = read_json(folder / "summary.json")
                for row in summary["rows"]:
                    self._log_row(dataset, name, summary, row)

    def _log_row(
        self, dataset: str, name: str, summary: dict[str, Any], row: dict[str, Any]
    ) -> None:
        tags = {"kind": "method", "method": row["method"], "sign": row["sign"]}
        tags |= {"seed": summary["seed"], "result": row["status"]}
        if row.get("reason"):
            tags["reason"] = row["reason"]
        status = "FAILED" if row["status"] == "failed" else "FINISHED"
        title = f"{dataset}/{name}/{row['method']}-{row['sign']}"
        with self._child(title, dataset, name, tags, status) as run:
            self.store.metrics(run, row)
            curves = row.get("curves") or {}
            for curve, metric in CURVES.items():
                if curve in curves:
                    accuracy = curves[curve]["accuracy"]
                    self.store.curves(run, [(i, {metric: v}) for i, v in enumerate(accuracy)])
            self.store.params(run, {f"levels/{name}": c["level"] for name, c in curves.items()})

    def _pairs(self) -> Iterator[tuple[str, str]]:
        for dataset in self.params.datasets:
            for name in self.params.classifiers:
                yield dataset, name

    def _child(
        self, title: str, dataset: str, name: str, tags: dict[str, Any], status: str = "FINISHED"
    ) -> contextlib.AbstractContextManager[str]:
        common = {"mlflow.parentRunId": self.parent, "benchmark": self.parent}
        common |= {"dataset": dataset, "classifier": name, "profile": self.params.profile}
        return self.store.run(title, common | tags, status)

    def _log_panels(self, run: str, folder: Path) -> None:
        from PIL import Image

        for path in sorted(folder.glob("step-*.png")):
            step = int(path.stem.removeprefix("step-"))
            with Image.open(path) as image:
                self.store.client.log_image(run, image, key="panel", step=step)

    def _log_model(
        self,
        run: str,
        path: Path,
        name: str,
        load: Callable[[Path], tuple[nn.Module, dict[str, Any]]],
    ) -> None:
        """Log a network, or point to the run that logged the very same file.

        The tag `model_of_run` says in which run it is, in two forms: `runs:/<that>/<name>` for
        MLflow, and the artifact `model.pt`, which `dxai explain` reads.
        """
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        same = f"tags.model_sha256 = '{digest}' and tags.model_logged = 'yes'"
        found = self.store.client.search_runs([self.store.experiment], same, max_results=1)
        owner = found[0].info.run_id if found else run
        self.store.tags(run, {"model_sha256": digest, "model_of_run": owner, "model": name})
        if not found:
            self.store.client.log_artifact(run, str(path))
            _log_network(run, name, *load(path))
            self.store.tags(run, {"model_logged": "yes"})


# ------------------------------------------------------------------------------------ models
def _classifier(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    from dxai.models.checkpoint import load_classifier

    return load_classifier(path)


def _explainer(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    from dxai.explain.decomposition import DXAI
    from dxai.models.packaged import PackagedExplainer

    explainer = DXAI.load(path)
    latent = explainer.latent([0])[0]
    return PackagedExplainer(explainer.decomposer, explainer.classifier, latent), explainer.info


def _log_network(run: str, name: str, network: nn.Module, info: dict[str, Any]) -> None:
    """Log a network that takes images, so that mlflow.pytorch and mlflow.pyfunc load it."""
    import mlflow.pytorch
    import numpy as np
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    images = (-1, info["channels"], info["image_size"], info["image_size"])
    mlflow.pytorch.log_model(
        network,
        name=name,
        run_id=run,
        signature=ModelSignature(inputs=Schema([TensorSpec(np.dtype(np.float32), images)])),
        # Named, or MLflow would load the model in a new process to find out.
        pip_requirements=[f"torch=={torch.__version__}", f"numpy=={np.__version__}"],
        # Traced graphs (`pt2`) keep the batch size that they were traced with.
        serialization_format="pickle",
        metadata={"class_names": info["class_names"]},
    )


# ------------------------------------------------------------------------------------ files
def _headlines(rows: list[dict[str, str]]) -> dict[str, float]:
    """The numbers that the parent shows: the table's first sign rule, seeds averaged."""
    cells: dict[str, list[float]] = {}
    signs: dict[str, str] = {}
    for row in rows:
        place = f"{row['dataset']}/{row['classifier']}"
        method = f"{place}/{row['method']}"
        if signs.setdefault(method, row["sign"]) != row["sign"]:
            continue
        names = {f"auc/{method}": "auc"}
        if row["method"] == OURS:
            names |= {f"{column}/{place}": column for column in OURS_HEADLINES}
        for name, column in names.items():
            if _is_number(row[column]):
                cells.setdefault(name, []).append(float(row[column]))
    return {name: sum(values) / len(values) for name, values in cells.items()}


def _history(path: Path, step: str) -> list[tuple[int, dict[str, Any]]]:
    return [
        (int(float(row[step])), {key: value for key, value in row.items() if key != step})
        for row in _read_csv(path)
    ]


def _read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _version(root: Path) -> dict[str, str]:
    """Which code and which data: the commit, whether files differ from it, dvc.lock's hash."""
    tags = {"mlflow.source.name": EXPERIMENT}
    lock = root / "dvc.lock"
    if lock.exists():
        tags["dvc_lock"] = hashlib.sha256(lock.read_bytes()).hexdigest()
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        commit = _git(root, "rev-parse", "HEAD")
        tags |= {"git_commit": commit, "mlflow.source.git.commit": commit}
        tags["git_dirty"] = "yes" if _git(root, "status", "--porcelain") else "no"
    return tags


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=root, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as dotted names that MLflow accepts."""
    for key, value in values.items():
        name = prefix + re.sub(r"[^\w./ -]", "_", str(key))
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _is_number(value: Any) -> bool:
    """Whether a value, or a cell of a CSV file, is a finite number."""
    try:
        return value not in (None, "") and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


@contextlib.contextmanager
def _named_errors() -> Iterator[None]:
    """A missing file is the user's: some stage has not run."""
    try:
        yield
    except FileNotFoundError as error:
        raise ValueError(f"{error.filename}: no such result; run `dvc repro` first") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow's and Alembic's notes on migrations and pickles out of the log."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def main() -> None:
    """`python -m dxai.tracking`: log what is in this folder, for who runs `dvc repro` by hand."""
    print(f"MLflow run {track()}")


if __name__ == "__main__":
    run_stage(main)
