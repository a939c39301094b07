"""Small result files in the formats that the stages write, with numbers made up here."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dxai.datasets.base import SPLITS, Listing, Load, Sample, Unit
from dxai.datasets.writer import Target, write_dataset
from dxai.evaluate.removal import ENERGIES
from dxai.evaluate.report import Folders
from dxai.evaluate.tables import TABLE1_COLUMNS, TABLE6_COLUMNS
from dxai.files import write_json
from dxai.params import (
    METHODS,
    ClassifierParams,
    ClassifierSpec,
    DatasetParams,
    DecomposeParams,
    EvaluateParams,
    Params,
    PrepareParams,
    TrainingParams,
)

CLASSES = ("brick", "grass", "gravel")
SIZE = 32
SIGNS = {"ig": 2, "gradient_shap": 2, "guided_gradcam": 2}
AREAS = {
    "dxai": 0.84,
    "lrp": 0.93,
    "ig": 0.99,
    "gradient_shap": 0.985,
    "internal_influence": 0.97,
    "guided_gradcam": 1.001,
    "gradcam": 0.895,
    "lime": 0.95,
    "random": 0.93,
    "naive": 0.31,
    "shuffled": 0.64,
    "random_phase": 0.98,
}


def small_params(seeds: Sequence[int] = (0,)) -> Params:
    """A run with one dataset and one classifier."""
    return Params(
        profile="made-up",
        seeds=list(seeds),
        datasets={"textures": DatasetParams("textures", "data/textures.md", 1)},
        classifiers={"resnet18": ClassifierSpec("resnet18")},
        joint={},
        methods={name: {} for name in METHODS} | {"lime": {"samples": 100, "segments": 30}},
        prepare=PrepareParams(image_size=SIZE),
        classifier=ClassifierParams(),
        decompose=DecomposeParams(steps=1500),
        training=TrainingParams(),
        evaluate=EvaluateParams(),
    )


def write_results(
    root: Path, class_names: Sequence[str] = CLASSES, channels: int = 1, seeds: Sequence[int] = (0,)
) -> tuple[Params, Folders]:
    """Everything that the report reads, below `root`; LRP is unsupported, LIME has failed."""
    params = small_params(seeds)
    folders = Folders(
        root / "prepared",
        root / "classifiers",
        root / "decompositions",
        root / "outcomes",
        root / "results",
    )
    table: list[dict[str, Any]] = []
    for dataset in params.datasets:
        images, labels = _dataset(folders.prepared / dataset, dataset, class_names, channels)
        for classifier in params.classifiers:
            place = Path(dataset) / classifier
            for name in [*params.methods, *(f"dxai-{seed}" for seed in seeds)]:
                table += _outcomes(
                    folders.outcomes / place / name, params, images, labels, list(class_names)
                )
            for role in ("explained", "twin"):
                _classifier(folders.classifiers / place / role)
            for seed in seeds:
                _decomposition(folders.decompositions / place / str(seed))
    _tables(folders.results, table, params)
    return params, folders


def _dataset(
    folder: Path, name: str, class_names: Sequence[str], channels: int, count: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """Stripes in a direction of each class; the test images (N, C, H, W) in [-1, 1], and labels."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    samples = []
    for split in SPLITS:
        for k, label in enumerate(class_names):
            angle = np.pi * k / len(class_names)
            for i in range(count):
                waves = np.sin(25 * (x * np.cos(angle) + y * np.sin(angle)) + i)
                pixels = 128 + 60 * waves[..., None] + rng.normal(0, 20, (SIZE, SIZE, channels))
                image = np.clip(pixels, 0, 255).astype(np.uint8)
                place = f"{split}/{label}/{i}"
                image = image[..., 0] if channels == 1 else image
                samples.append(Sample(image, split, label, place, f"{label}{i // 2}", place))
    shutil.rmtree(folder, ignore_errors=True)
    about = {"name": name, "layout": "made", "drawn": True, "channels": channels}
    about |= {"image_size": SIZE, "encoding": "png"}
    units = [Unit(s.id, s.split, label=s.label, group=s.group, about=(s,)) for s in samples]
    target = Target(folder, folder.parent / ".unfinished" / name / "work", about)
    write_dataset(target, Listing(tuple(class_names), units, _sample_of), None, workers=1)
    test = [s for s in samples if s.split == "test"]
    stack = np.stack([s.image.reshape(SIZE, SIZE, channels) for s in test]).transpose(0, 3, 1, 2)
    return stack / 127.5 - 1, np.array([class_names.index(s.label) for s in test])


def _sample_of(unit: Unit, load: Load) -> Iterator[Sample]:
    yield unit.about[0]


def _outcomes(
    folder: Path, params: Params, images: np.ndarray, labels: np.ndarray, class_names: list[str]
) -> list[dict[str, Any]]:
    """One method's outcomes; returns its rows of table1.csv."""
    folder.mkdir(parents=True)
    ours = folder.name.startswith("dxai-")
    seed = int(folder.name.removeprefix("dxai-")) if ours else params.seeds[0]
    methods = ["dxai", "shuffled", "random_phase"] if ours else [folder.name]
    rows = [
        _row(method, sign, seed, labels, class_names)
        for method in methods
        for sign in _signs(method)
    ]
    frames = [
        _frame(row, labels, class_names)
        for row in rows
        if row["status"] == "ok" and row["method"] in AREAS
    ]
    if frames:
        pd.concat(frames).to_parquet(folder / "outcomes.parquet", index=False)
        np.savez(folder / "attributions.npz", **_attributions(methods, images))
    summary = {
        "dataset": folder.parts[-3],
        "classifier": folder.parts[-2],
        "seed": seed,
        "profile": params.profile,
        "steps": params.decompose.steps,
        "class_names": class_names,
        "images": len(labels),
        "rows": rows,
        "seconds": 12.5 + len(folder.name),
    }
    write_json(folder / "summary.json", summary)
    shared = {k: summary[k] for k in ("dataset", "classifier", "seed", "profile", "steps")}
    delta = {"delta_low": -0.09, "delta_high": -0.02}
    return [shared | row | (delta if row["method"] == "dxai" else {}) for row in rows]


def _signs(method: str) -> tuple[str, ...]:
    if method in ("dxai", "shuffled", "random_phase", "naive"):
        return ("part",)
    return ("signed", "relu") if method in SIGNS else ("relu",)


def _row(
    method: str, sign: str, seed: int, labels: np.ndarray, class_names: list[str]
) -> dict[str, Any]:
    row: dict[str, Any] = {"method": method, "sign": sign, "status": "ok", "reason": ""}
    if method == "lrp":
        return row | {"status": "unsupported", "reason": "no rule for <LeakyReLU> & friends"}
    if method == "lime":
        return row | {"status": "failed", "reason": "RuntimeError: not enough segments"}
    area = AREAS[method] + 0.004 * seed + (0.003 if sign == "relu" else 0)
    return row | {
        "images": len(labels),
        "accuracy": 0.98,
        "auc": area,
        "auc_low": area - 0.03,
        "auc_high": area + 0.025,
        "auc_energy": min(area + 0.05, 1),
        "auc_transfer": area - 0.02 if method == "dxai" else area,
        "auc_blur": 0.97 if method == "naive" else min(area + 0.04, 1.0),
        "psnr_db": 25.8 if method == "dxai" else None,
        "psnr_removed_db": 14.2,
        "mean_abs_distinct": 0.213,
        "neutrality": 0.25,
        "seconds_per_image": 0.004,
        "curves": {name: _curve(name, area) for name in ("beta", "energy", "transfer", "blur")},
        "probabilities": {
            name: [
                _probabilities(k, beta, area, len(class_names)) for beta in np.linspace(0, 1, 11)
            ]
            for k, name in enumerate(class_names)
        },
    }


def _curve(name: str, area: float) -> dict[str, list[float]]:
    level = np.array(ENERGIES) if name == "energy" else np.linspace(0, 1, 11)
    accuracy = 0.98 * np.clip(1 - 2.5 * (1 - area) * (level / level[-1]) ** 1.5, 0.02, 1)
    low, high = np.clip(accuracy - 0.04, 0, 1), np.clip(accuracy + 0.03, 0, 1)
    values = {"level": level, "accuracy": accuracy, "low": low, "high": high}
    return {key: value.tolist() for key, value in values.items()}


def _probabilities(label: int, beta: float, area: float, classes: int) -> list[float]:
    """Of class `label`, falling from 0.97 as the area says; the next class takes most of it."""
    values = np.full(classes, 0.03 / max(classes - 1, 1))
    values[label] = 0.97
    moved = min(2.4 * (1 - area) * beta, 0.98) * values[label]
    values[label] -= moved
    values[(label + 1) % classes] += 0.7 * moved
    values[(label + 2) % classes] += 0.3 * moved
    return [float(value) for value in values]


def _frame(row: dict[str, Any], labels: np.ndarray, class_names: list[str]) -> pd.DataFrame:
    lines = []
    for i, label in enumerate(labels):
        for beta, p in zip(
            row["curves"]["beta"]["level"], row["probabilities"][class_names[label]], strict=True
        ):
            line = {"id": f"image {i}", "group": f"g{i // 2}", "label": int(label), "index": i}
            line |= {"method": row["method"], "sign": row["sign"], "curve": "beta", "level": beta}
            line |= {"prediction": int(np.argmax(p))} | {f"p{k}": v for k, v in enumerate(p)}
            lines.append(line)
    return pd.DataFrame(lines)


def _attributions(methods: list[str], images: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(len(methods[0]))
    smooth = images - images.mean((2, 3), keepdims=True)
    maps: dict[str, np.ndarray] = {"index": np.arange(len(images))}
    for method in methods:
        noise = rng.normal(0, 0.1, images.shape)
        maps[method] = 0.4 * smooth + noise if method in ("dxai", "naive") else noise[:, :1]
    if "dxai" in methods:
        maps["agnostic"] = images - maps["dxai"]
        maps["reconstruction"] = images + rng.normal(0, 0.05, images.shape)
    return {k: v if k == "index" else v.astype(np.float16) for k, v in maps.items()}


def _classifier(folder: Path) -> None:
    epoch = np.arange(1, 7)
    rise = 1 - 0.6 * 0.4**epoch
    history = {
        "epoch": epoch,
        "train_loss": 1 / epoch,
        "train_accuracy": rise,
        "validation_loss": 1.1 / epoch,
        "validation_accuracy": rise - 0.03,
        "seconds": 9.0 * epoch,
    }
    folder.mkdir(parents=True)
    pd.DataFrame(history).to_csv(folder / "history.csv", index=False)
    write_json(folder / "metrics.json", {"test_accuracy": 0.98, "seconds": 54.0, "seed": 0})


def _decomposition(folder: Path) -> None:
    step = np.arange(25, 1501, 25)
    rng = np.random.default_rng(0)
    losses = ["adv", "d_real", "d_fake", "r1", "kld", "class", "rec", "dis_rec", "neutral"]
    history = {"step": step, "seconds": 0.3 * step}
    for k, name in enumerate(losses):
        history[f"loss/{name}"] = 0 * step if name in ("kld", "neutral") else (k + 1) / step**0.3
    history["psnr_db"] = 10 + 5 * np.log10(step) + rng.normal(0, 0.2, len(step))
    folder.mkdir(parents=True)
    pd.DataFrame(history).to_csv(folder / "history.csv", index=False)
    write_json(folder / "metrics.json", {"steps": 1500, "seconds": 461.0, "seed": 0})


def _tables(folder: Path, rows: list[dict[str, Any]], params: Params) -> None:
    folder.mkdir(parents=True)
    frame = pd.DataFrame(rows).reindex(columns=list(TABLE1_COLUMNS))
    frame.to_csv(folder / "table1.csv", index=False)
    accuracies = [
        [dataset, classifier, 0, params.profile, 150, 0.98, 0.95, 0.995, None]
        for dataset in params.datasets
        for classifier in params.classifiers
    ]
    pd.DataFrame(accuracies, columns=list(TABLE6_COLUMNS)).to_csv(
        folder / "table6.csv", index=False
    )
    deltas = {f"{r[0]}/{r[1]}": {"delta_low": -0.09, "delta_high": -0.02} for r in accuracies}
    write_json(folder / "metrics.json", {"ours_minus_best_baseline": deltas})
