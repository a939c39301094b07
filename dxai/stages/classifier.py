"""Train (or take over) a classifier and score it: DVC stage `classifier`."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from dxai import stages
from dxai.datasets.shards import ShardedDataset
from dxai.files import atomic_folder, digest, write_json
from dxai.models.checkpoint import save_classifier
from dxai.models.classifiers import build_classifier
from dxai.params import JOINT, ClassifierSpec, choose, load_params
from dxai.training.classifier import best_epoch, initial_seed, score, train_classifier
from dxai.training.state import Checkpoint

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
    train = ShardedDataset(folder, "train")
    validation, test = (ShardedDataset(folder, split) for split in ("validation", "test"))
    seed = settings.seed + 1000 * ROLES.index(role)
    title = f"classifier {dataset} {classifier} {role}"
    network, built = build(spec, train, seed)
    began = time.monotonic()
    history: list[dict[str, Any]] = []
    checkpoint = Checkpoint(
        stages.WORK / f"{title.replace(' ', '-')}-{fingerprint(folder, built, settings, seed)}"
    )
    if spec.weights is None:
        history = train_classifier(network, settings, train, validation, seed, checkpoint, title)
    test_loss, test_accuracy = score(network, test)
    _, validation_accuracy = score(network, validation)
    print(f"{title}: test accuracy {test_accuracy:.4f} on {len(test)} images", flush=True)
    info = built | {"class_names": train.class_names, "profile": params.profile, "seed": seed}
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
    checkpoint.remove()


def twin_of(spec: ClassifierSpec) -> ClassifierSpec | None:
    """What the twin is built from: the same, untrained; None for an exported program.

    The twin of `joint` is a discriminator trained as a classifier, with the options given.
    """
    if spec.arch == "torch.export":
        return None
    arch = "discriminator" if spec.arch == JOINT else spec.arch
    return dataclasses.replace(spec, arch=arch, weights=None)


def build(
    spec: ClassifierSpec, data: ShardedDataset, seed: int
) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a spec for a dataset, and the part of its info that rebuilds it."""
    options = dict(spec.options)
    network_range = [float(v) for v in options.pop("value_range", (-1.0, 1.0))]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(initial_seed(seed))
        network = build_classifier(
            spec.arch,
            data.channels,
            len(data.class_names),
            data.image_size,
            weights=spec.weights,
            value_range=network_range,
            **options,
        )
    return network, {
        "arch": spec.arch,
        "options": options,
        "channels": data.channels,
        "image_size": data.image_size,
        "value_range": [-1.0, 1.0],
        "network_range": network_range,
    }


def fingerprint(folder: Path, *values: Any) -> str:
    """Names everything that decides a training's result, its data included."""
    return digest([(folder / "manifest.json").read_text(), *map(repr, values)])


if __name__ == "__main__":
    stages.run_stage(main, "dataset", "classifier", "role")
