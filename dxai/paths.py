"""The path of every file of a project, and every name made of dataset, classifier, method and seed.

Only `dvc.yaml` spells paths as well, and a test compares the two. A decomposition is named by its
seed, or by its variant if it belongs to the ablation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# ------------------------------------------------------------------ files in a stage's folder
MANIFEST, CARD = "manifest.json", "card.html"
"""A prepared dataset: hashes, counts and options of its shards; the data card."""
MODEL, SNAPSHOTS = "model.pt", "snapshots.pt"
"""A trained network; the weights of a decomposition at earlier steps."""
HISTORY, PANELS, METRICS = "history.csv", "panels", "metrics.json"
"""A training: numbers of each epoch or logged step, pictures, results."""
OUTCOMES, IMAGES = "outcomes.parquet", "images.parquet"
"""Measurements of each image at each level of a curve, and of each image."""
ATTRIBUTIONS, SUMMARY = "attributions.npz", "summary.json"
"""The maps of the scored images; a method's rows and curves."""
CROSS, STABILITY, MAPS = "cross.json", "stability.json", "maps.npz"
"""Results of the stages `cross` and `stability`; deviations of some images over seeds."""
STABILITY_NAME = "stability"
"""Folder of the stage `stability`, beside those of the methods."""
LEAKAGE, LEAKAGE_NAME = "leakage.json", "leakage"
"""Result and folder of the stage `leakage`, beside those of the methods."""
RANDOMISATION, RANDOMISATION_NAME = "randomisation.json", "randomisation"
"""Result and folder of the stage `randomisation`, beside those of the methods."""
EVENTS, LIVE_STATE, LIVE_LOCK = "events.jsonl", "live.json", "live.lock"
"""A training in progress: its events so far, and the part that MLflow has."""
PARAMS, DVC_LOCK = "params.yaml", "dvc.lock"
RUN = "run.json"
"""What a run's workspace says of its run: `name`, `flow_run`, `pid` and `state`."""

ROLES = ("explained", "twin")
"""The twin has another seed and is never trained against: it scores the guards `auc_transfer*`."""


class _Below:
    """A fixed path below the root."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __get__(self, paths: Paths, owner: type) -> Path:
        return paths.root / self.path


@dataclass(frozen=True)
class Paths:
    """The paths of one project; relative to the current folder by default."""

    root: Path = Path()

    prepared = _Below("data/prepared")
    artifacts = _Below("artifacts")
    networks = _Below("artifacts/networks")
    classifiers = _Below("artifacts/classifiers")
    decompositions = _Below("artifacts/decompositions")
    results = _Below("results")
    outcomes = _Below("results/outcomes")
    tables = _Below("results/tables")
    metrics = _Below("results/metrics.json")
    curves = _Below("results/curves.csv")
    report = _Below("results/report.html")
    params = _Below(PARAMS)
    dvc_lock = _Below(DVC_LOCK)

    # No stage may output to it: DVC deletes outputs before a stage runs.
    work = _Below(".work")
    unfinished = _Below(".work/checkpoints")
    unfinished_data = _Below(".work/prepare")
    unfinished_scores = _Below(".work/scoring")
    unsent = _Below(".work/live")
    trusted = _Below(".work/trusted.json")
    some_tables = _Below(".work/tables")
    prometheus = _Below(".work/metrics")
    ray = _Below(".dvc/tmp/cluster")
    ray_token = _Below(".work/ray-token")
    runs = _Below(".work/runs")
    runs_known = _Below(".work/computed.json")
    slots = _Below(".work/slots")
    turns = _Below(".work/turns")
    at_work = _Below(".work/at-work")
    notices = _Below(".work/notices")
    reproduced = _Below(".work/reproduced")
    original = _Below(".work/original")
    reproduce_lock = _Below(".work/reproduce.lock")
    mlflow_database = _Below(".work/mlflow.db")
    mlflow_artifacts = _Below(".work/mlflow-artifacts")
    mlflow_lock = _Below(".work/mlflow.lock")
    mlflow_runs = _Below(".work/mlflow-runs")
    workspace = _Below(".work/workspace")

    def dataset(self, dataset: str) -> Path:
        """Return the folder of the stage `prepare`."""
        return self.prepared / dataset

    def network(self, classifier: str, file: str) -> Path:
        """Return the file of the stage `network` on one file that a classifier may come from."""
        return Path(f"{self.networks / classifier}/{file}.json")  # an absolute path stays below

    def classifier(self, dataset: str, classifier: str, role: str) -> Path:
        """Return the folder of the stage `classifier`."""
        return self.classifiers / dataset / classifier / role

    def decomposition(self, dataset: str, classifier: str, name: str | int) -> Path:
        """Return the folder of the stage `decompose`."""
        return self.decompositions / dataset / classifier / str(name)

    def outcome(self, dataset: str, classifier: str, *name: str) -> Path:
        """Return the folder of one scored method, or the common folder of all."""
        return self.outcomes.joinpath(dataset, classifier, *name)

    def ours(self, dataset: str, classifier: str, name: str | int) -> Path:
        """Return the folder of the stage `ours`."""
        return self.outcome(dataset, classifier, ours_name(name))

    def cross(self, dataset: str, classifier: str, name: str | int, scorer: str) -> Path:
        """Return the folder of the stage `cross`."""
        return self.outcome(dataset, classifier, cross_name(name, scorer))

    def stability(self, dataset: str, classifier: str) -> Path:
        """Return the folder of the stage `stability`."""
        return self.outcome(dataset, classifier, STABILITY_NAME)

    def leakage(self, dataset: str, classifier: str) -> Path:
        """Return the folder of the stage `leakage`."""
        return self.outcome(dataset, classifier, LEAKAGE_NAME)

    def randomisation(self, dataset: str, classifier: str) -> Path:
        """Return the folder of the stage `randomisation`."""
        return self.outcome(dataset, classifier, RANDOMISATION_NAME)

    def table(self, name: str) -> Path:
        return self.tables / f"{name}.csv"

    @property
    def project(self) -> Path:
        """Return the project's folder, whose .work the workspaces of its runs share."""
        return self.work.resolve().parent

    def training(self, name: str) -> Path:
        """Return the folder of an unfinished training's files."""
        return self.unfinished / name

    def scoring(self, title: str) -> Path:
        """Return the folder of what an unfinished stage item has scored, by its title."""
        return self.unfinished_scores / title.replace(" ", "-")


HERE = Paths()


def ours_name(decomposition: str | int) -> str:
    """Return the folder name of a scored decomposition."""
    return f"dxai-{decomposition}"


def cross_name(decomposition: str | int, scorer: str) -> str:
    """Return the folder name of a decomposition's scores by another classifier."""
    return f"{ours_name(decomposition)}-by-{scorer}"


def decomposition_of(ours: str) -> str | None:
    """Return the decomposition in a name made by `ours_name`; None for another method's."""
    return ours.removeprefix(ours_name("")) if ours.startswith(ours_name("")) else None


def index_name(split: str) -> str:
    """Return the name of a prepared dataset's list of the images of one split."""
    return f"{split}-index.parquet"


def panel_name(step: int) -> str:
    """Return the name of a training's picture at a step."""
    return f"step-{step:06d}.png"


def panels(folder: Path) -> dict[int, Path]:
    """Return a training's pictures by step."""
    found = sorted((folder / PANELS).glob("step-*.png"))
    return {int(path.stem.removeprefix("step-")): path for path in found}


def training_name(title: str, fingerprint: str) -> str:
    """Return the name of a training, `title` being its stage and the stage's arguments."""
    return f"{title.replace(' ', '-')}-{fingerprint}"


def stage_item(stage: str, *over: str) -> str:
    """Return DVC's name of one item of a stage."""
    return f"{stage}@{'-'.join(over)}"
