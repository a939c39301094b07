"""Log results to MLflow and read them back; the only module that imports mlflow.

A benchmark is a parent run with the claims, the tables and their cells as metrics (named by
`dxai.results.metric_names`), and a child run for each training, evaluated method, ablation and cell
of Table 3. All share the same tags, for searches and the compare page. Stages that DVC skipped are
logged too, since the results depend on them. A flow opens the parent run before it computes
anything (`benchmark_run`), so a store that cannot be used is named at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import logging
import os
import re
import secrets
import socket
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

# MLflow reads this when imported; not every version understands `1`.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("PGCONNECT_TIMEOUT", "10")  # PostgreSQL's client would wait for ever

import mlflow
import mlflow.store.db.utils
from filelock import FileLock
from mlflow.entities import LifecycleStage, Metric, Param, Run, RunTag
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from dxai.config.params_file import load_params
from dxai.config.schema import Params
from dxai.paths import HERE, MODEL, Paths
from dxai.results.comparison import LoggedRun
from dxai.results.io import Tables
from dxai.results.metric_names import metric_values, tables_with_metrics
from dxai.tracking.mlflow_records import Numbers, Record, opening, read_records
from dxai.utils import addresses
from dxai.utils.addresses import redacted
from dxai.utils.errors import one_line
from dxai.utils.files import atomic, locked, read_json, sha256

if TYPE_CHECKING:
    from torch import nn

EXPERIMENT = "dxai"
LONGEST_SETTING = 6000
"""MLflow's limit of the letters of a setting."""
ANSWER_SECONDS = 10.0
"""Time limit in seconds for a server's answer."""
DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306}
# MLflow would try for 102 s to open a database that is damaged, or refuses the password.
mlflow.store.db.utils.MAX_RETRY_COUNT = 5
logger = logging.getLogger(__name__)

for _logger in ("mlflow", "alembic"):  # silence notes on migrations and pickles
    logging.getLogger(_logger).setLevel(logging.ERROR)


def track() -> str:
    """Log the results in the working directory; returns the id of the parent run."""
    params = load_params()
    return log_benchmark(Path.cwd(), params, params.profile)


@contextlib.contextmanager
def benchmark_run(
    root: Path, params: Params, name: str, tags: dict[str, str] | None = None
) -> Iterator[str]:
    """Open the parent run of a benchmark before anything is computed; yields its id.

    It has the settings, the commit and the environment from the first minute, and its state:
    `log_benchmark` adds the results and closes it. If the block ends without that, the run is
    FAILED, with the error as the tag `reason`, or KILLED; as soon as this folder uses the store
    again, if the process was killed. Raises `ValueError`, in one line, if the store cannot be used.
    """
    root = Path(root).resolve()
    record = opening(Paths(root), params)
    with contextlib.ExitStack() as alive:
        with open_store(root) as store:
            run = store.begin(name, record.tags | (tags or {}))
            alive.enter_context(locked(_owner(Paths(root), run)))
            with store.closing(run, "RUNNING"):
                store.fill(run, record)
                store.tags(run, {"benchmark": run})
        status, reason = "KILLED", ""
        try:
            yield run
            status = "FINISHED"
        except Exception as error:
            status, reason = "FAILED", one_line(error)
            raise
        finally:
            # The error of the block matters more; a run left open is closed by the next one.
            with contextlib.suppress(Exception), open_store(root) as store:
                store.close(run, status, reason)
            _owner(Paths(root), run).unlink(missing_ok=True)


def log_benchmark(
    root: Path,
    params: Params,
    parent_name: str,
    tags: dict[str, str] | None = None,
    run: str | None = None,
    patience: float = 0.0,
) -> str:
    """Log everything that `params` selects; `tags` are added to the parent run.

    `run` is a parent run that `benchmark_run` has opened. It keeps the commit of its start. If
    somebody deleted it, or params.yaml was changed since, so that its settings are not those of the
    results, it is closed as failed and another one logged. A server that does not answer is given
    `patience` seconds.

    Returns the parent run's id, which its children carry as the tag `benchmark`. Raises
    `ValueError` if a result is missing; then nothing is logged.
    """
    root = Path(root).resolve()
    whole, parts = read_records(root, params)
    with open_store(root, patience=patience) as store:
        if run is not None and (reason := store.cannot_take(run, whole)):
            logger.warning(f"MLflow run {run}: {reason}; the results are logged as another run")
            store.close(run, "FAILED", reason)
            run = None
        if run is not None:
            whole = dataclasses.replace(whole, texts={})  # the code as it was at the start
        with store.run(parent_name, whole.tags | (tags or {}), run=run) as parent:
            store.fill(parent, whole, params.modules)
            store.tags(parent, {"benchmark": parent})
            family = {"benchmark": parent, "mlflow.parentRunId": parent}
            for record in parts:
                with store.run(record.name, record.tags | family, record.failed) as child:
                    store.fill(child, record, params.modules)
    return parent


def download_model(source: str) -> Path:
    """Download a training run's model.pt, named by `<id>`, `runs:/<id>` or `runs:/<id>/<file>`.

    Raises `ValueError` if the run or the file does not exist.
    """
    run, _, file = source.removeprefix("runs:/").partition("/")
    with open_store(Path.cwd()) as store:
        try:
            tags = store.client.get_run(run).data.tags
            owner, wanted = tags.get("model_of_run", run), tags.get("model_sha256")
            path = Path(store.client.download_artifacts(owner, file or MODEL))
            if path.name == MODEL and wanted not in (None, sha256(path)):
                raise ValueError(f"{source}: its {MODEL} in MLflow is damaged; log the run again")
            return path
        except (mlflow.MlflowException, OSError) as error:
            raise ValueError(
                f"{source}: no model in MLflow ({where()}): {one_line(error)}"
            ) from None


def read_run(spec: str) -> LoggedRun:
    """Read a benchmark from its parent run.

    `spec` is a run's name (its newest finished run) or `latest`, with `~N` for the N-th before it;
    or a run's id, or a unique prefix of at least four letters. Raises `ValueError` if there is no
    such run, or it has no tables.
    """
    with open_store(Path.cwd()) as store:
        return store.logged(store.find(spec))


def accepted_before(run: str) -> LoggedRun | None:
    """Find the older finished run of the same profile to compare with.

    It is the newest that the gate accepted, else the newest that it did not refuse, else None.
    """
    with open_store(Path.cwd()) as store:
        new = store.client.get_run(run)
        older = [
            other
            for other in store.benchmarks()
            if other.info.status == "FINISHED"
            and other.data.tags.get("profile") == new.data.tags.get("profile", "")
            and other.info.start_time < new.info.start_time
            and other.data.tags.get("gate") != "refused"
        ]
        accepted = [other for other in older if other.data.tags.get("gate") == "accepted"]
        found = next(iter(accepted or older), None)
        return store.logged(found) if found else None


def tag(run: str, tags: dict[str, str]) -> None:
    with open_store(Path.cwd()) as store:
        store.tags(run, tags)


def where() -> str:
    """Return the address of the store without its password."""
    return redacted(os.environ.get("MLFLOW_TRACKING_URI") or str(HERE.mlflow_database))


def page(run: str) -> str | None:
    """Return the address of a run's page on the server; None if no server is known.

    The server is DXAI_MLFLOW_URL, else MLFLOW_TRACKING_URI if that is a server.
    """
    server = os.environ.get("DXAI_MLFLOW_URL") or where()
    if not server.startswith("http"):
        return None
    parts = urlsplit(server)
    server = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    with open_store(Path.cwd()) as store:
        return f"{server.rstrip('/')}/#/experiments/{store.experiment}/runs/{run}"


def download(run: str, names: Iterable[str], folder: Path) -> dict[str, str]:
    """Copy the named artifacts of a run, if present, into a folder; returns the run's tags.

    Raises `ValueError` if the store lacks a file that it lists.
    """
    with open_store(Path.cwd()) as store:
        kept = {item.path for item in store.client.list_artifacts(run)}
        for name in names:
            if name in kept:
                try:
                    store.client.download_artifacts(run, name, str(folder))
                except (mlflow.MlflowException, OSError) as error:
                    raise ValueError(
                        f"{name} of run {run} is missing in MLflow: {one_line(error)}"
                    ) from None
        return store.client.get_run(run).data.tags


def logged_texts(root: Path, name: str) -> list[str]:
    """Read an artifact of every benchmark that is not deleted; of those with one dvc.lock, once."""
    runs: dict[str, str] = {}
    token = None
    with open_store(root) as store, tempfile.TemporaryDirectory() as folder:
        while True:
            page = store.client.search_runs(
                [store.experiment], "tags.kind = 'benchmark'", page_token=token
            )
            runs |= {r.data.tags.get("dvc_lock", r.info.run_id): r.info.run_id for r in page}
            if not (token := page.token):
                break
        texts = []
        for run in runs.values():
            if name in {item.path for item in store.client.list_artifacts(run)}:
                texts.append(Path(store.client.download_artifacts(run, name, folder)).read_text())
        return texts


@dataclass(frozen=True)
class Store:
    """One experiment in an MLflow store."""

    client: mlflow.MlflowClient
    uri: str
    experiment: str
    workspace: str

    def begin(self, name: str, tags: dict[str, str]) -> str:
        """Open a run, tagged by the project's folder; returns its id."""
        tags = tags | {"workspace": self.workspace}
        return self.client.create_run(self.experiment, run_name=name, tags=tags).info.run_id

    @contextlib.contextmanager
    def run(
        self, name: str, tags: dict[str, str], failed: bool = False, run: str | None = None
    ) -> Iterator[str]:
        """Open a run, or go on with one, and always close it: see `closing`.

        What a run already says of itself stays, and children that it has are deleted: a try to log
        them was cut short.
        """
        if run is None:
            run = self.begin(name, tags)
        else:
            known = self.client.get_run(run).data.tags
            self.tags(run, {key: value for key, value in tags.items() if key not in known})
            self.client.update_run(run, status="RUNNING")
            for child in self.children(run):
                self.client.delete_run(child)
        with self.closing(run, "FAILED" if failed else "FINISHED"):
            yield run

    @contextlib.contextmanager
    def closing(self, run: str, status: str) -> Iterator[None]:
        """Give a run a status when the block ends: FAILED after an error, KILLED after a signal."""
        ended = "KILLED"
        try:
            yield
            ended = status
        except Exception:
            ended = "FAILED"
            raise
        finally:
            if ended != "RUNNING":
                self.client.set_terminated(run, ended)

    def close(self, run: str, status: str, reason: str = "") -> None:
        """Give a run that is still open a status, and a reason if it has none.

        A run that somebody deleted is left alone.
        """
        found = self._active(run)
        if found and found.info.status == "RUNNING":
            self.client.set_terminated(run, status)
            if reason:
                self.tags(run, {"reason": reason})

    def _active(self, run: str) -> Run | None:
        """Return a run; None if it was deleted, or removed for good by `mlflow gc`."""
        try:
            found = self.client.get_run(run)
        except mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return found if found.info.lifecycle_stage == LifecycleStage.ACTIVE else None

    def children(self, run: str) -> list[str]:
        """Return the ids of a parent run's children."""
        found = self.client.search_runs([self.experiment], f"tags.mlflow.parentRunId = '{run}'")
        return [child.info.run_id for child in found]

    def cannot_take(self, run: str, record: Record) -> str:
        """Return why a run that was opened earlier cannot have these results, "" if it can."""
        found = self._active(run)
        if found is None:
            return "deleted since it was opened"
        settings = {key: value[:LONGEST_SETTING] for key, value in record.params.items()}
        changed = sorted(
            key
            for key in settings.keys() | found.data.params.keys()
            if settings.get(key) != found.data.params.get(key)
        )
        return f"settings changed while it ran: {', '.join(changed[:5])}" if changed else ""

    def fill(self, run: str, record: Record, modules: Iterable[str] = ()) -> None:
        self.log_numbers(run, record.params, [(0, record.numbers), *record.curves])
        for path in record.files:
            self.client.log_artifact(run, str(path))
        with tempfile.TemporaryDirectory() as folder:
            for name, content in record.texts.items():
                Path(folder, name).write_bytes(content)
                self.client.log_artifact(run, str(Path(folder, name)))
        for name, source in record.folders.items():
            self.client.log_artifacts(run, str(source), name)
        for name, rows in record.tables.items():
            if rows:
                columns = {column: [row[column] for row in rows] for column in rows[0]}
                self.client.log_table(run, columns, f"{name}.json")
        self.log_panels(run, record.panels)
        if record.model:
            self.log_model(run, *record.model, modules)

    def find(self, spec: str) -> Run:
        """Find the parent run that `spec` names; see `read_run`."""
        runs = self.benchmarks()
        finished = [run for run in runs if run.info.status == "FINISHED"]
        name, _, back = spec.partition("~")
        named = [run for run in finished if name in ("latest", run.info.run_name)]
        if re.fullmatch(r"\d*", back) and int(back or 0) < len(named):
            return named[int(back or 0)]
        known = [run for run in runs if len(spec) >= 4 and run.info.run_id.startswith(spec)]
        if len(known) == 1:
            return known[0]
        if known:
            raise ValueError(f"{spec}: several runs begin like this: {_listed(known)}")
        latest = f"the latest are {_listed(runs)}" if runs else "no run is logged yet"
        raise ValueError(f"{spec}: no such run in MLflow ({redacted(self.uri)}); {latest}")

    def benchmarks(self) -> list[Run]:
        """Return every parent run, the newest first."""
        return self.client.search_runs(
            [self.experiment], "tags.kind = 'benchmark'", order_by=["attributes.start_time DESC"]
        )

    def logged(self, run: Run) -> LoggedRun:
        tags = run.data.tags
        started = datetime.fromtimestamp(run.info.start_time / 1000)
        return LoggedRun(
            run.info.run_id,
            run.info.run_name,
            f"{started:%Y-%m-%d %H:%M}",
            run.data.params,
            {k.removeprefix("data."): v for k, v in tags.items() if k.startswith("data.")},
            tags.get("git_commit"),
            {"yes": True, "no": False}.get(tags.get("git_dirty", "")),
            metric_values(self.tables(run.info.run_id)),
        )

    def tables(self, run: str) -> Tables:
        """Return a run's tables that have metrics, by name."""
        names = {item.path for item in self.client.list_artifacts(run)}
        found = {}
        for name in tables_with_metrics():
            if f"{name}.json" in names:
                table = read_json(self.client.download_artifacts(run, f"{name}.json"))
                rows = table["data"]
                found[name] = [dict(zip(table["columns"], row, strict=True)) for row in rows]
        if not found:
            raise ValueError(f"{run}: this run has no tables; `dxai track` logs a new run")
        return found

    def log_numbers(
        self,
        run: str,
        params: dict[str, str],
        steps: list[tuple[int, Numbers]],
        times: dict[int, float] | None = None,
    ) -> None:
        """Log settings, and numbers by step, in as few calls as MLflow's limits allow.

        A call takes 100 settings of `LONGEST_SETTING` letters and up to 900 numbers. Logging the
        same numbers again with the same times changes nothing.
        """
        now = time.time()
        settings = [Param(key, value[:LONGEST_SETTING]) for key, value in params.items()]
        metrics = [
            Metric(key, value, int((times or {}).get(step, now) * 1000), step)
            for step, values in steps
            for key, value in values.items()
        ]
        for call in range(max(-(-len(settings) // 100), -(-len(metrics) // 900))):
            self.client.log_batch(
                run,
                metrics=metrics[900 * call : 900 * (call + 1)],
                params=settings[100 * call : 100 * (call + 1)],
            )

    def tags(self, run: str, tags: dict[str, str]) -> None:
        self.client.log_batch(run, tags=[RunTag(key, value) for key, value in tags.items()])

    def log_panels(self, run: str, panels: dict[int, Path]) -> None:
        """Log pictures by step; MLflow shows them with a slider."""
        if panels:
            from PIL import Image

            for step, path in panels.items():
                with Image.open(path) as image:
                    self.client.log_image(run, image, key="panel", step=step)

    def log_model(self, run: str, kind: str, path: Path, modules: Iterable[str]) -> None:
        """Log a network, or refer to the run that has already logged the same file.

        The tag `model_of_run` names that run, which has the file as `runs:/<id>/<kind>` for
        MLflow's loaders and as the artifact `model.pt` for `dxai explain`.
        """
        digest = sha256(path)
        same = f"tags.model_sha256 = '{digest}' and tags.model_logged = 'yes'"
        found = self.client.search_runs([self.experiment], same, max_results=1)
        owner = found[0].info.run_id if found else run
        self.tags(run, {"model": kind, "model_sha256": digest, "model_of_run": owner})
        if not found:
            self.client.log_artifact(run, str(path))
            log_network(run, kind, *_load(kind, path, modules))
            self.tags(run, {"model_logged": "yes"})


@contextlib.contextmanager
def open_store(root: Path, name: str = EXPERIMENT, patience: float = 0.0) -> Iterator[Store]:
    """Open an experiment, created or restored if necessary, for one process at a time.

    The store is MLFLOW_TRACKING_URI, by default .work/mlflow.db. Two processes that create the
    database together would break it, hence the lock. An open run of this folder that no running
    process owns was left by a killed one, and is closed; other folders' runs are left alone.

    A server that does not answer is given `patience` seconds. Raises `ValueError`, in one line
    without a password, for whatever MLflow or its database raises, in the block as well.
    """
    paths = Paths(root.resolve())
    paths.work.mkdir(exist_ok=True)
    given = os.environ.get("MLFLOW_TRACKING_URI")
    uri = _address(paths)
    try:
        with FileLock(paths.mlflow_lock):
            workspace = _workspace(paths)
            _check(uri, patience)
            mlflow.set_tracking_uri(uri)
            if not given:  # set by MLflow; the next folder must not use it
                os.environ.pop("MLFLOW_TRACKING_URI", None)
            client = mlflow.MlflowClient(uri)
            experiment = _experiment(client, uri, name)
            mlflow.set_experiment(name)
            store = Store(client, uri, experiment, workspace)
            if name == EXPERIMENT:
                left = f"attributes.status = 'RUNNING' and tags.workspace = '{workspace}'"
                for run in client.search_runs([experiment], left):
                    if not _is_owned(_owner(paths, run.info.run_id)):
                        client.set_terminated(run.info.run_id, "KILLED")
            yield store
    except (mlflow.MlflowException, SQLAlchemyError) as error:
        raise ValueError(f"MLflow ({redacted(uri)}): {one_line(error)}") from error


def _address(paths: Paths) -> str:
    given = os.environ.get("MLFLOW_TRACKING_URI")
    return given or addresses.sqlite(paths.mlflow_database.resolve(), "pysqlite")


def _check(uri: str, patience: float) -> None:
    """Raise `ValueError` if nothing answers at an address, for which MLflow would try minutes."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return _try(uri)
        except OSError as error:
            if time.monotonic() > deadline:
                advice = "start it, or unset MLFLOW_TRACKING_URI to use .work/mlflow.db"
                raise ValueError(
                    f"MLflow ({redacted(uri)}): nothing answers there ({one_line(error)}); {advice}"
                ) from None
        time.sleep(1)


def _try(uri: str) -> None:
    """Raise `OSError` if a server does not answer, or a database's file cannot be written."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="")
        url = bare._replace(path=f"{bare.path.rstrip('/')}/health").geturl()
        # MLflow verifies certificates, by its own settings; this sends no secret.
        context = ssl._create_unverified_context()
        try:
            urllib.request.urlopen(url, timeout=ANSWER_SECONDS, context=context).close()
        except urllib.error.HTTPError:
            pass  # a refusal is an answer
        except http.client.HTTPException as error:
            raise ConnectionError(f"no web server: {error!r}") from None
    elif parts.scheme.startswith("sqlite"):
        if "%" in mlflow.__file__:
            raise ValueError(
                f"MLflow makes no database where its own path has a %: {mlflow.__file__}; make the "
                "environment in another folder"
            )
        database = make_url(uri).database
        folder = Path(database).parent if database else None
        if folder is not None and folder.exists() and not os.access(folder, os.W_OK):
            raise ValueError(f"MLflow ({redacted(uri)}): the folder {folder} cannot be written to")
    elif parts.hostname:
        port = parts.port or DATABASE_PORTS.get(parts.scheme.partition("+")[0])
        if port:
            socket.create_connection((parts.hostname, port), timeout=ANSWER_SECONDS).close()


def _experiment(client: mlflow.MlflowClient, uri: str, name: str) -> str:
    """Return the id of an experiment, which is made, or restored if somebody deleted it."""
    found = client.get_experiment_by_name(name)
    if found is None:
        # By default MLflow would write to ./mlruns. Files of a database that several folders use
        # belong beside it, not to the folder that came first.
        folder = None
        if uri.startswith("sqlite"):
            database = Path(make_url(uri).database or HERE.mlflow_database).resolve()
            folder = (database.parent / HERE.mlflow_artifacts.name).as_uri()
        return client.create_experiment(name, artifact_location=folder)
    if found.lifecycle_stage != LifecycleStage.ACTIVE:
        client.restore_experiment(found.experiment_id)
        logger.warning(f"MLflow: the experiment {name} had been deleted, and is restored")
    return found.experiment_id


def _owner(paths: Paths, run: str) -> Path:
    """Return the file that the process of an open benchmark keeps locked."""
    return paths.mlflow_runs / run


def _is_owned(file: Path) -> bool:
    if not file.exists():
        return False
    with locked(file) as free:
        if free:
            file.unlink()
        return free is None


def _workspace(paths: Paths) -> str:
    """Return a name for this project's folder that is unique among all machines.

    A copy of the folder gets another one.
    """
    here = str(paths.project)
    with contextlib.suppress(FileNotFoundError):
        name, _, folder = paths.workspace.read_text().partition("\n")
        if folder in ("", here):
            return name
    name = secrets.token_hex(8)
    with atomic(paths.workspace) as temporary:
        temporary.write_text(f"{name}\n{here}")
    return name


def _listed(runs: list[Run]) -> str:
    """Format the first five runs as `<id> (<name>)`."""
    return ", ".join(f"{run.info.run_id[:8]} ({run.info.run_name})" for run in runs[:5])


def _load(kind: str, path: Path, modules: Iterable[str]) -> tuple[nn.Module, dict[str, Any]]:
    """Load the network of a model.pt (images to logits or branches) and its info."""
    if kind == "classifier":
        from dxai.models.serialization import load_classifier

        return load_classifier(path, modules)
    from dxai.explain.decomposition import DXAI
    from dxai.models.packaged import PackagedExplainer

    explainer = DXAI.load(path, modules=modules, device="cpu")
    latent = explainer.latent([0])[0]  # as `dxai explain` draws it
    return PackagedExplainer(explainer.decomposer, explainer.classifier, latent), explainer.info


def log_network(run: str, name: str, network: nn.Module, info: dict[str, Any]) -> None:
    """Log an image network for mlflow.pytorch and mlflow.pyfunc."""
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
        # Otherwise MLflow would load the model in a new process to infer them.
        pip_requirements=[f"torch=={torch.__version__}", f"numpy=={np.__version__}"],
        serialization_format="pickle",  # a traced graph (pt2) keeps the batch size of its trace
        metadata={"class_names": info["class_names"]},
    )
