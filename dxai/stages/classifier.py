"""Train or import a classifier and measure its accuracy: DVC stage `classifier`."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pandas as pd

from dxai.config.params_file import load_params
from dxai.config.schema import JOINT, ClassifierSpec
from dxai.config.settings import choose
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.models.serialization import save_classifier
from dxai.paths import HERE, HISTORY, METRICS, MODEL, ROLES
from dxai.stages import run_stage
from dxai.stages.training import trained
from dxai.training.classifier import ClassifierJob, best_epoch, score
from dxai.utils.files import atomic_folder, write_json

COLUMNS = [
    "epoch",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "seconds",
]
"""Columns of history.csv."""


def main(dataset: str, classifier: str, role: str) -> None:
    """Write artifacts/classifiers/<dataset>/<classifier>/<role>/."""
    params = load_params()
    choose("role", role, ROLES)
    spec: ClassifierSpec | None = params.classifier_spec(classifier)
    assert spec is not None
    settings, folder = params.classifier_for(dataset), HERE.dataset(dataset)
    out = HERE.classifier(dataset, classifier, role)
    if role == "twin":
        spec = twin_of(spec)
    elif spec.arch == JOINT:
        raise ValueError(f"classifier {classifier}: the stage decompose trains it, not this one")
    if spec is None:
        with atomic_folder(out) as temporary:
            write_json(temporary / METRICS, {"twin": "an exported program has none"})
        return
    data, test = ShardedDataset(folder, "train"), ShardedDataset(folder, "test")
    validation = ShardedDataset(folder, "validation")
    seed = settings.seed + 1000 * ROLES.index(role)
    title = f"classifier {dataset} {classifier} {role}"
    job = ClassifierJob(str(folder.absolute()), spec, settings, seed)
    network, built = job.network(data)
    began = time.monotonic()
    history: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        if spec.weights is None:
            decisive = [built, settings, seed]
            state, _ = stack.enter_context(trained(job, title, folder, decisive, params.training))
            network.load_state_dict(state["best"])
            history = state["history"]
        test_loss, test_accuracy = score(network, test)
        _, validation_accuracy = score(network, validation)
        print(f"{title}: test accuracy {test_accuracy:.4f} on {len(test)} images", flush=True)
        info = built | {"class_names": data.class_names, "profile": params.profile, "seed": seed}
        metrics = {
            "test_accuracy": test_accuracy,
            "test_loss": test_loss,
            "test_images": len(test),
            "validation_accuracy": validation_accuracy,
            "epochs": len(history),
            "best_epoch": best_epoch(history) if history else 0,
            "parameters": sum(p.numel() for p in network.parameters()),
            "seconds": time.monotonic() - began,
            "seed": seed,
        }
        with atomic_folder(out) as temporary:
            save_classifier(temporary / MODEL, network, info)
            pd.DataFrame(history, columns=COLUMNS).to_csv(temporary / HISTORY, index=False)
            write_json(temporary / METRICS, metrics)


def twin_of(spec: ClassifierSpec) -> ClassifierSpec | None:
    """Return the twin's specification: the same, untrained; None for an exported program.

    The twin of `joint` is a discriminator trained as a classifier, with the same options.
    """
    if spec.arch == "torch.export":
        return None
    arch = "discriminator" if spec.arch == JOINT else spec.arch
    return spec.replace(arch=arch, weights=None)


if __name__ == "__main__":
    run_stage(main)
