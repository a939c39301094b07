"""Train or import a classifier and measure its accuracy: DVC stage `classifier`."""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from dxai.config.params_file import load_params
from dxai.config.schema import JOINT
from dxai.config.settings import choose
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.metrics.grain import describe_grain, random_aucs
from dxai.models.classifier_check import check_classifier, spread
from dxai.models.classifiers import CLASSIFIERS
from dxai.models.serialization import save_classifier
from dxai.models.takeover import describe_weights, require_other_weights, twin_of
from dxai.paths import HERE, HISTORY, METRICS, MODEL, ROLES
from dxai.stages import run_stage
from dxai.stages.network import hashes
from dxai.stages.training import trained
from dxai.training.classifier import ClassifierJob, best_epoch, role_seed, score
from dxai.types import Batch
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


CHECKED = 128
"""Most images on which a classifier is checked."""
GRAINED = 256
"""Most validation images to which grain is added."""


def main(dataset: str, classifier: str, role: str) -> None:
    """Write artifacts/classifiers/<dataset>/<classifier>/<role>/."""
    params = load_params()
    choose("role", role, ROLES)
    own = params.classifier_spec(classifier)
    spec = own if role != "twin" else twin_of(own)
    if spec is not None and own.arch == JOINT:  # a twin of the discriminator of these settings
        width = params.decompose_for(dataset, classifier).discriminator_width
        spec = spec.replace(options={"width": width} | spec.options)
    settings, folder = params.classifier_for(dataset), HERE.dataset(dataset)
    out = HERE.classifier(dataset, classifier, role)
    if role != "twin" and own.arch == JOINT:
        raise ValueError(f"classifier {classifier}: the stage decompose trains it, not this one")
    if spec is None:
        with atomic_folder(out) as temporary:
            write_json(temporary / METRICS, {"twin": "none"})
        return
    data, test = ShardedDataset(folder, "train"), ShardedDataset(folder, "test")
    validation = ShardedDataset(folder, "validation")
    seed = role_seed(settings.seed, role)
    title = f"classifier {dataset} {classifier} {role}"
    is_new = role == "twin" and spec.trained_here
    job = ClassifierJob(str(folder.absolute()), spec, settings, seed, is_new)
    try:
        network, built = job.network(data)
        if spec.arch not in CLASSIFIERS or spec.weights is not None:
            take_over(job, network, data, validation, title)
        if role == "twin" and spec.weights is not None:
            ours = ClassifierJob(job.data, own, settings, seed).network(data)[0]
            require_other_weights(network, ours, spec.weights)
    except ValueError as error:
        raise ValueError(f"classifiers.{classifier}: {error}") from None
    began = time.monotonic()
    history: list[dict[str, Any]] = []
    files = {"files": found} if (found := hashes(classifier, own.files)) else {}
    with contextlib.ExitStack() as stack:
        if spec.trained_here:
            decisive = [built | files, settings, seed]
            state, _ = stack.enter_context(trained(job, title, folder, decisive, params.training))
            network.load_state_dict(state["best"])
            history = state["history"]
        test_loss, test_accuracy = score(network, test)
        _, validation_accuracy = score(network, validation)
        print(f"{title}: test accuracy {test_accuracy:.4f} on {len(test)} images", flush=True)
        grained = validation.batch(spread(len(validation), GRAINED))
        aucs = random_aucs(network, grained.images, grained.labels, grained.index, seed)
        grain = {sign: None if math.isnan(auc) else auc for sign, auc in aucs.items()}
        # A printed line alone depends on the threshold, so DVC does not have to watch it.
        said = describe_grain(
            aucs, f"{len(grained.ids)} validation images", params.evaluate.valid_auc
        )
        print(f"{title}: {said}", flush=True)
        info = built | {"class_names": data.class_names, "profile": params.profile, "seed": seed}
        metrics = {
            "test_accuracy": test_accuracy,
            "test_loss": test_loss,
            "test_images": len(test),
            "validation_accuracy": validation_accuracy,
            "random_auc": grain["relu"],
            "random_signed_auc": grain["signed"],
            "epochs": len(history),
            "best_epoch": best_epoch(history) if history else 0,
            "parameters": sum(p.numel() for p in network.parameters()),
            "seconds": time.monotonic() - began,
            "seed": seed,
        }
        with atomic_folder(out) as temporary:
            save_classifier(temporary / MODEL, network, info | files)
            pd.DataFrame(history, columns=COLUMNS).to_csv(temporary / HISTORY, index=False)
            write_json(temporary / METRICS, metrics)


def take_over(
    job: ClassifierJob,
    network: nn.Module,
    data: ShardedDataset,
    validation: ShardedDataset,
    title: str,
) -> None:
    """Say what becomes of a network's weights, and check it; raise ValueError if it is unfit."""
    spec, brings = job.spec, not job.twin and bool(job.brought(network, data))
    print(f"{title}: {describe_weights(network, spec, brings)}", flush=True)
    images, labels = checked_images(data, validation)
    trained = not spec.trained_here
    findings = check_classifier(network, images, labels, data.class_names, spec, trained)
    for finding in findings:
        if not finding.fatal:
            print(f"{title}: warning: {finding.text}", flush=True)
    if fatal := [finding.text for finding in findings if finding.fatal]:
        raise ValueError("; ".join(fatal))


def checked_images(data: ShardedDataset, validation: ShardedDataset) -> tuple[Tensor, Tensor]:
    """Return images of all classes, (B, C, H, W), and their labels, first those of validation."""
    parts: list[Batch] = []
    for split in (validation, data):
        room = CHECKED - sum(len(part.ids) for part in parts)
        parts += split.batches(CHECKED, spread(len(split), room)) if room else []
    return torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts])


if __name__ == "__main__":
    run_stage(main)
