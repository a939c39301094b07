"""Train (or take over) a classifier and score it: DVC stage `classifier`."""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path
from typing import Any

import pandas as pd

from dxai import stages
from dxai.config.schema import JOINT, ClassifierSpec, choose, load_params
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.models.serialization import save_classifier
from dxai.stages.following import followed
from dxai.training.classifier import best_epoch, score
from dxai.training.jobs import ClassifierJob
from dxai.training.runtime.supervisor import launch
from dxai.utils.files import atomic_folder, digest, write_json

ROLES = ("explained", "twin")
"""The twin has another seed and is never trained against: it scores `auc_transfer`."""


def main(dataset: str, classifier: str, role: str) -> None:
    """Write artifacts/classifiers/<dataset>/<classifier>/<role>/."""
    params = load_params()
    choose("role", role, ROLES)
    spec: ClassifierSpec | None = params.classifier_spec(classifier)
    assert spec is not None
    settings, folder = params.classifier_for(dataset), stages.DATA / dataset
    out = stages.CLASSIFIERS / dataset / classifier / role
    if role == "twin":
        spec = twin_of(spec)
    elif spec.arch == JOINT:
        raise ValueError(f"classifier {classifier}: the stage decompose trains it, not this one")
    if spec is None:
        with atomic_folder(out) as temporary:
            write_json(temporary / "metrics.json", {"twin": "an exported program has none"})
        return
    data, test = ShardedDataset(folder, "train"), ShardedDataset(folder, "test")
    validation = ShardedDataset(folder, "validation")
    seed = settings.seed + 1000 * ROLES.index(role)
    title = f"classifier {dataset} {classifier} {role}"
    job = ClassifierJob(str(folder.absolute()), spec, settings, seed)
    network, built = job.network(data)
    began = time.monotonic()
    history: list[dict[str, Any]] = []
    kept = None
    if spec.weights is None:
        name = f"{title.replace(' ', '-')}-{fingerprint(folder, built, settings, seed)}"
        with followed(stages.WORK / name, params.training):
            state, kept = launch(job, title, name, stages.WORK / name, params.training)
        network.load_state_dict(state["best"])
        history = state["history"]
    test_loss, test_accuracy = score(network, test)
    _, validation_accuracy = score(network, validation)
    print(f"{title}: test accuracy {test_accuracy:.4f} on {len(test)} images", flush=True)
    info = built | {"class_names": data.class_names, "profile": params.profile, "seed": seed}
    with atomic_folder(out) as temporary:
        save_classifier(temporary / "model.pt", network, info)
        columns = ["epoch", "train_loss", "train_accuracy", "validation_loss"]
        columns += ["validation_accuracy", "seconds"]
        pd.DataFrame(history, columns=columns).to_csv(temporary / "history.csv", index=False)
        write_json(
            temporary / "metrics.json",
            {
                "test_accuracy": test_accuracy,
                "test_loss": test_loss,
                "test_images": len(test),
                "validation_accuracy": validation_accuracy,
                "epochs": len(history),
                "best_epoch": best_epoch(history) if history else 0,
                "parameters": sum(p.numel() for p in network.parameters()),
                "seconds": time.monotonic() - began,
                "seed": seed,
            },
        )
    if kept is not None:
        kept.remove()
        shutil.rmtree(stages.WORK / name, ignore_errors=True)


def twin_of(spec: ClassifierSpec) -> ClassifierSpec | None:
    """What the twin is built from: the same, untrained; None for an exported program.

    The twin of `joint` is a discriminator trained as a classifier, with the options given.
    """
    if spec.arch == "torch.export":
        return None
    arch = "discriminator" if spec.arch == JOINT else spec.arch
    return dataclasses.replace(spec, arch=arch, weights=None)


def fingerprint(folder: Path, *values: Any) -> str:
    """Names everything that decides a training's result, its data included."""
    return digest([(folder / "manifest.json").read_text(), *map(repr, values)])


if __name__ == "__main__":
    stages.run_stage(main, "dataset", "classifier", "role")
