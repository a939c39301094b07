"""The files of a small run: trainings are real, what explanations scored is made up here."""

from __future__ import annotations

import contextlib
import functools
import itertools
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from dxai.config.params_file import format_params
from dxai.config.profiles import load_profile, select_profile
from dxai.config.schema import (
    METHODS,
    AblationParams,
    ClassifierParams,
    ClassifierSpec,
    DatasetParams,
    DecomposeParams,
    EvaluateParams,
    Params,
    PrepareParams,
    RepeatParams,
    TrainingParams,
)
from dxai.datasets.base import SPLITS, Listing, Load, Sample, Unit
from dxai.datasets.shard_writer import Target, write_dataset
from dxai.metrics.removal import DELETED, ENERGIES
from dxai.metrics.scorer import CURVES
from dxai.metrics.smoothing import BETAS
from dxai.paths import ROLES, Paths
from dxai.results import table_builders
from dxai.results.table_specs import SPECS, TableSpec
from dxai.utils.files import read_json, write_json

CLASSES = ("brick", "grass", "gravel")
SIZE = 32
LAYERS = {
    "gradcam": "layer3.1.conv2",
    "guided_gradcam": "layer3.1.conv2",
    "internal_influence": "layer4.0.conv1",
}
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
LOCALISED = {
    "pointing": 0.8,
    "average_precision": 0.4,
    "energy_inside": 0.3,
    "mask_area": 0.07,
    "correlation": 0.35,
}


VARIANTS: dict[str, dict[str, Any]] = {
    "two_branches": {"branches": 2},
    "no_distinct_reconstruction": {"lambda_dis_rec": 0.0},
    "no_zero_distinction": {"zero_distinction": False},
}
STEPS = (1, 50, 500, 1500)
"""Steps after which a decomposition is kept."""
TRAINED = {
    "classifier.epochs": "3",
    "decompose.steps": "6",
    "decompose.batch_size": "4",
    "decompose.branch_width": "2",
    "decompose.branch_max_width": "4",
    "decompose.mapping_width": "8",
    "decompose.log_every": "2",
    "decompose.panel_every": "3",
    "prepare.image_size": str(SIZE),
}
"""What the real trainings change of `smoke`."""


def small_params(seeds: Sequence[int] = (0,), rich: bool = False) -> Params:
    """Return the settings of a run with one dataset and one classifier.

    A rich run has two of each, and everything that a run can have besides.
    """
    datasets = {"textures": DatasetParams(layout="textures", source="data/textures.md", channels=1)}
    classifiers = {"resnet18": ClassifierSpec(arch="resnet18")}
    if rich:
        datasets["brats"] = DatasetParams(layout="brats", source="sample", channels=1)
        classifiers["simple"] = ClassifierSpec(arch="simple")
    return Params(
        profile="made-up",
        seeds=list(seeds),
        repeat=RepeatParams(classifiers=["resnet18"], seeds=[max(seeds) + 1])
        if rich
        else RepeatParams(),
        datasets=datasets,
        classifiers=classifiers,
        joint={"joint": ClassifierSpec(arch="joint")} if rich else {},
        methods={name: {} for name in METHODS} | {"lime": {"samples": 100, "segments": 30}},
        ablations=AblationParams(
            datasets=["textures"],
            classifiers=["resnet18"],
            variants=VARIANTS if rich else {},
        ),
        prepare=PrepareParams(image_size=SIZE),
        classifier=ClassifierParams(),
        decompose=DecomposeParams(steps=1500),
        training=TrainingParams(),
        evaluate=EvaluateParams(bootstrap=200),
    )


def write_results(
    root: Path,
    class_names: Sequence[str] = CLASSES,
    channels: int = 1,
    seeds: Sequence[int] = (0,),
    rich: bool = False,
) -> tuple[Params, Paths]:
    """Write everything that the report reads below `root`; LRP is unsupported, LIME has failed.

    A rich run has every table of the paper: two datasets, the second with ground truth, two
    classifiers and C = D, further seeds, ablations and stability. Files are made once a session and
    then copied.
    """
    made = _results(tuple(class_names), channels, tuple(seeds), rich, tuple(SPECS.values()))
    shutil.copytree(made.name, root, dirs_exist_ok=True)
    return small_params(seeds, rich), Paths(root)


@functools.cache
def _results(
    class_names: tuple[str, ...],
    channels: int,
    seeds: tuple[int, ...],
    rich: bool,
    specs: tuple[TableSpec, ...],
) -> tempfile.TemporaryDirectory[str]:
    """Make the files once for all equal arguments; `specs` is the registry of tables."""
    made = tempfile.TemporaryDirectory()
    params, folders = small_params(seeds, rich), Paths(Path(made.name))
    real = Paths(Path(_trainings().name))
    for dataset in params.datasets:
        data = _dataset(folders.prepared / dataset, dataset, class_names, channels)
        for classifier in params.explained:
            case = Path(dataset) / classifier
            ours = params.seeds_of(classifier)
            names = [*params.methods, *(f"dxai-{seed}" for seed in ours)]
            variants = params.variants_of(dataset, classifier)
            names += [f"dxai-{variant}" for variant in variants]
            for name in names:
                _outcomes(folders.outcomes / case / name, params, *data, list(class_names))
            shutil.copytree(real.classifiers / "textures/simple", folders.classifiers / case)
            for seed in (*ours, *variants):
                shutil.copytree(
                    real.decompositions / "textures/simple/0",
                    folders.decompositions / case / str(seed),
                )
        if rich:
            for trained, scorer in itertools.product(params.classifiers, repeat=2):
                for seed in params.seeds_of(trained):
                    _cross(folders.outcomes / dataset / trained / f"dxai-{seed}", scorer)
            for classifier in params.repeat.classifiers:
                _stability(folders.outcomes / dataset / classifier / "stability", params, data[0])
            for classifier in params.explained:
                _leakage(folders.outcomes / dataset / classifier / "leakage", params, data[1])
            for classifier in params.classifiers:
                _randomisation(folders.outcomes / dataset / classifier / "randomisation", params)
    _tables(folders, params)
    return made


@functools.cache
def _trainings() -> tempfile.TemporaryDirectory[str]:
    """Train a classifier, its twin and a decomposition for some steps, by the stages themselves."""
    from dxai.stages import classifier, decompose

    made = tempfile.TemporaryDirectory()
    folders = Paths(Path(made.name))
    _dataset(folders.prepared / "textures", "textures", CLASSES, 1)
    folders.params.write_text(format_params(load_profile("smoke")))
    select_profile(folders.params, classifiers=["simple"], overrides=TRAINED)
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with contextlib.chdir(made.name):
        for role in ROLES:
            classifier.main("textures", "simple", role)
        decompose.main("textures", "simple", "0")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    return made


def _dataset(
    folder: Path, name: str, class_names: Sequence[str], channels: int, count: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """Prepare stripes, whose direction is the class.

    Returns the test images, (N, C, H, W) in [-1, 1], and their labels.
    """
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
                key = f"{split}/{label}/{i}"
                image = image[..., 0] if channels == 1 else image
                samples.append(Sample(image, split, label, key, f"{label}{i // 2}", key))
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
) -> None:
    """Write the files of a stage `baseline` or `ours`."""
    folder.mkdir(parents=True)
    ours = folder.name.startswith("dxai-")
    name = folder.name.removeprefix("dxai-")
    seed = int(name) if ours and name.isdigit() else params.seeds[0]
    methods = ["dxai", "shuffled", "random_phase"] if ours else [folder.name]
    rows = [
        _row(method, sign, seed, labels, class_names, folder.parts[-3])
        for method in methods
        for sign in _signs(method)
    ]
    scored = [row for row in rows if row["status"] == "ok"]
    if scored:
        frames = [_frame(row, labels, class_names) for row in scored]
        if ours:
            beta = frames[0][frames[0]["curve"] == "beta"]
            frames.append(beta.assign(curve="transfer"))
            frames += [beta.assign(method="neutral", curve=c) for c in ("beta", "transfer")]
        pd.concat(frames).to_parquet(folder / "outcomes.parquet", index=False)
        pd.concat([_images(row, labels) for row in scored]).to_parquet(
            folder / "images.parquet", index=False
        )
        np.savez(folder / "attributions.npz", **_attributions(methods, images))
    summary = {
        "dataset": folder.parts[-3],
        "classifier": folder.parts[-2],
        "seed": seed,
        "profile": params.profile,
        "steps": params.decompose.steps if ours else None,
        "class_names": class_names,
        "images": len(labels),
        "rows": rows,
        "seconds": 12.5 + len(folder.name),
    }
    write_json(folder / "summary.json", summary)


def _cross(ours: Path, scorer: str) -> None:
    """Write the files of a stage `cross`; another classifier never changes its prediction."""
    folder = ours.with_name(f"{ours.name}-by-{scorer}")
    folder.mkdir()
    outcomes = pd.read_parquet(ours / "outcomes.parquet")
    outcomes = outcomes[(outcomes["method"] == "dxai") & (outcomes["curve"] == "beta")]
    if scorer != ours.parent.name:
        outcomes["prediction"] = outcomes["label"]
    outcomes.to_parquet(folder / "outcomes.parquet", index=False)
    summary = read_json(ours / "summary.json")
    row = summary["rows"][0]
    shared = {key: summary[key] for key in ("dataset", "seed", "steps", "profile", "images")}
    about = {"trained": ours.parent.name, "scorer": scorer, "row": row}
    write_json(folder / "cross.json", shared | about)


def _stability(folder: Path, params: Params, images: np.ndarray) -> None:
    """Write the files of a stage `stability`."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    frames, maps = [], {}
    for method, step in [("dxai", s) for s in STEPS] + [("gradcam", 0), ("internal_influence", 0)]:
        std = (0.35 / (1 + step) ** 0.3 if step else 0.02) + rng.uniform(0, 0.02, len(images))
        frame = {"method": method, "step": step or None, "index": np.arange(len(images))}
        frame |= {"id": [f"image {i}" for i in range(len(images))]}
        frame |= {"group": [f"g{i // 2}" for i in range(len(images))]}
        frame |= {"std": std, "normalised": std / 2 if step else 8 * std}
        frames.append(pd.DataFrame(frame).astype({"step": "Int64"}))
        if step:
            shown = rng.uniform(0, 2 * std.mean(), images[:6].shape)
            maps[f"step-{step}"] = shown.astype(np.float32)
    pd.concat(frames, ignore_index=True).to_parquet(folder / "images.parquet", index=False)
    np.savez_compressed(folder / "maps.npz", **maps)
    about = {"dataset": folder.parts[-3], "classifier": folder.parts[-2]}
    about |= {"profile": params.profile, "layers": ["layer3.1", "layer4.0", "layer4.1"]}
    seeds = params.seeds_of(folder.parts[-2])
    about |= {"seeds": seeds, "images": len(images), "steps": list(STEPS)}
    write_json(folder / "stability.json", about)


def _leakage(folder: Path, params: Params, labels: np.ndarray) -> None:
    """Write the files of a stage `leakage`; the probe tells the images themselves, but no other."""
    folder.mkdir()
    frames = []
    for method, sign in (("image", ""), ("dxai", "generated"), ("dxai", "neutral"), ("ig", "relu")):
        frame = {"method": method, "sign": sign, "index": np.arange(len(labels))}
        frame |= {"id": [f"image {i}" for i in range(len(labels))]}
        frame |= {"group": [f"g{i // 2}" for i in range(len(labels))], "label": labels}
        prediction = labels if method == "image" else np.zeros_like(labels)
        frames.append(pd.DataFrame(frame | {"prediction": prediction}))
    pd.concat(frames, ignore_index=True).to_parquet(folder / "images.parquet", index=False)
    about = {"dataset": folder.parts[-3], "classifier": folder.parts[-2], "seed": params.seeds[0]}
    about |= {"profile": params.profile, "train_images": 30, "images": len(labels), "seconds": 4.5}
    write_json(folder / "leakage.json", about)


def _randomisation(folder: Path, params: Params) -> None:
    """Write the files of a stage `randomisation`; Random stays, the others fade with depth."""
    folder.mkdir()
    frames = []
    shape = {"gradcam": (20, 41), "random": (20, 41), "naive": (41,), "dxai": (0, 41)}
    for method, layers in [(name, depth) for name, depths in shape.items() for depth in depths]:
        rank = np.ones(6) if method == "random" else 0.5 - layers / 82 + np.arange(6) / 100
        frame = {"method": method, "layers": layers, "index": np.arange(6)}
        frame |= {"id": [f"image {i}" for i in range(6)], "group": [f"g{i // 2}" for i in range(6)]}
        frames.append(pd.DataFrame(frame | {"rank": rank, "ssim": rank, "size": np.full(6, 0.7)}))
    pd.concat(frames, ignore_index=True).to_parquet(folder / "images.parquet", index=False)
    about = {"dataset": folder.parts[-3], "classifier": folder.parts[-2], "seed": params.seeds[0]}
    about |= {"profile": params.profile, "steps": 6, "of_layers": 41, "images": 6, "seconds": 3.5}
    write_json(folder / "randomisation.json", about)


def _signs(method: str) -> tuple[str, ...]:
    if method in ("dxai", "shuffled", "random_phase", "naive"):
        return ("part",)
    if method == "random":
        return ("relu", "signed")
    return ("signed", "relu") if method in SIGNS else ("relu",)


def _row(
    method: str, sign: str, seed: int, labels: np.ndarray, class_names: list[str], dataset: str
) -> dict[str, Any]:
    row: dict[str, Any] = {"method": method, "sign": sign, "status": "ok", "reason": ""}
    if method == "lrp":
        return row | {"status": "unsupported", "reason": "no rule for <LeakyReLU> & friends"}
    if method == "lime":
        return row | {"status": "failed", "reason": "RuntimeError: not enough segments"}
    area = AREAS[method] + 0.004 * seed + (0.003 if sign == "relu" else 0)
    known = dataset == "brats" and method not in ("shuffled", "random_phase")
    if method in METHODS:
        row["layer"] = LAYERS.get(method, "")
    return row | {
        "images": len(labels),
        "accuracy": 0.98,
        "balanced_accuracy": 0.98,
        "classes": 3,
        "auc": area,
        "auc_low": area - 0.03,
        "auc_high": area + 0.025,
        "auc_energy": min(area + 0.05, 1),
        "auc_transfer": area - 0.02 if method == "dxai" else area,
        "auc_transfer_energy": min(area + 0.03, 1),
        "auc_blur": 0.97 if method == "naive" else min(area + 0.04, 1.0),
        "auc_smooth": min(area + 0.02, 1),
        "smooth_deviation": 0.3,
        "auc_deletion": 0.2 * area,
        "auc_deletion_low": 0.2 * (area - 0.03),
        "auc_deletion_high": 0.2 * (area + 0.025),
        "psnr_db": 25.8 if method == "dxai" else None,
        "psnr_removed_db": 14.2,
        "mean_abs_distinct": 0.213,
        "neutrality": 0.25,
        "uncertainty": 0.08 if method == "dxai" else None,
        **{name: value if known else None for name, value in LOCALISED.items()},
        "known": len(labels) if known else 0,
        "seconds_per_image": 0.004,
        "curves": {name: _curve(name, area) for name in CURVES},
        "probabilities": {
            name: [
                _probabilities(k, beta, area, len(class_names)) for beta in np.linspace(0, 1, 11)
            ]
            for k, name in enumerate(class_names)
        },
    }


def _curve(name: str, area: float) -> dict[str, list[float]]:
    level = np.array(
        {"energy": ENERGIES, "transfer_energy": ENERGIES, "smooth": BETAS, "deletion": DELETED}.get(
            name, np.linspace(0, 1, 11)
        )
    )
    accuracy = 0.98 * np.clip(1 - 2.5 * (1 - area) * (level / level[-1]) ** 1.5, 0.02, 1)
    low, high = np.clip(accuracy - 0.04, 0, 1), np.clip(accuracy + 0.03, 0, 1)
    values = {"level": level, "accuracy": accuracy, "low": low, "high": high}
    return {key: value.tolist() for key, value in values.items()}


def _probabilities(label: int, beta: float, area: float, classes: int) -> list[float]:
    """Return probabilities for class `label` that fall from 0.97 as far as the area says."""
    values = np.full(classes, 0.03 / max(classes - 1, 1))
    values[label] = 0.97
    moved = min(2.4 * (1 - area) * beta, 0.98) * values[label]
    values[label] -= moved
    values[(label + 1) % classes] += 0.7 * moved
    values[(label + 2) % classes] += 0.3 * moved
    return [float(value) for value in values]


def _frame(row: dict[str, Any], labels: np.ndarray, class_names: list[str]) -> pd.DataFrame:
    """Make the outcomes of a row; as many images are misclassified as its curves say."""
    lines = []
    for curve in ("beta", "deletion"):
        drawn = row["curves"][curve]
        for i, label in enumerate(labels):
            shown = row["probabilities"][class_names[label]]
            for k, level in enumerate(drawn["level"]):
                right = k == 0 or (i * 7 % len(labels)) < drawn["accuracy"][k] * len(labels)
                line = {"id": f"image {i}", "group": f"g{i // 2}", "label": int(label), "index": i}
                line |= {"method": row["method"], "sign": row["sign"], "curve": curve}
                line |= {"level": level, "prediction": int(label if right else 1 - min(label, 1))}
                lines.append(line | {f"p{j}": v for j, v in enumerate(shown[k])})
    return pd.DataFrame(lines)


def _images(row: dict[str, Any], labels: np.ndarray) -> pd.DataFrame:
    """Make the measurements of each image, around those of the row."""
    size = len(labels)
    about = {
        "id": [f"image {i}" for i in range(size)],
        "group": [f"g{i // 2}" for i in range(size)],
    }
    about |= {"label": labels, "index": np.arange(size)}
    about |= {"method": row["method"], "sign": row["sign"]}
    names = ("psnr_removed_db", "mean_abs_distinct", "neutrality", "psnr_db", *LOCALISED)
    wanted = [*names, "uncertainty"] if row["method"] == "dxai" else names
    vary = np.linspace(0.9, 1.1, size)
    values = {k: np.full(size, np.nan) if row[k] is None else row[k] * vary for k in wanted}
    return pd.DataFrame(about | values)


def _attributions(methods: list[str], images: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(len(methods[0]))
    smooth = images - images.mean((2, 3), keepdims=True)
    maps: dict[str, np.ndarray] = {"index": np.arange(len(images))}
    for method in methods:
        noise = rng.normal(0, 0.1, images.shape)
        maps[method] = 0.4 * smooth + noise if method in ("dxai", "naive") else noise[:, :1]
    if "dxai" in methods:
        maps["neutral"] = 0.6 * maps["dxai"]
        maps["reconstruction"] = images + rng.normal(0, 0.05, images.shape)
        maps["spread"] = np.abs(rng.normal(0, 0.02, images[:, :1].shape))
    return {k: v if k == "index" else v.astype(np.float16) for k, v in maps.items()}


def _tables(folders: Paths, params: Params) -> None:
    """Write the files of the stage `tables`, made by its own functions."""
    cases = [folders.outcomes / d / c for d in params.datasets for c in params.explained]
    sources = {
        "outcomes": [
            case / name
            for case in cases
            for name in [*(f"dxai-{s}" for s in params.seeds_of(case.name)), *params.methods]
        ],
        "cross": sorted(folders.outcomes.glob("*/*/dxai-*-by-*")),
        "stability": sorted(folders.outcomes.glob("*/*/stability")),
        "leakage": sorted(folders.outcomes.glob("*/*/leakage")),
        "randomisation": sorted(folders.outcomes.glob("*/*/randomisation")),
        "prepared": [folders.prepared / dataset for dataset in params.datasets],
    }
    trained = [(d, c, "explained") for d in params.datasets for c in params.classifiers]
    trained += [(d, c, "twin") for d in params.datasets for c in params.joint]
    sources["classifiers"] = [folders.classifiers.joinpath(*names) for names in trained]
    case = folders.outcomes / "textures" / "resnet18"
    changed = [params.seeds[0], *params.variants_of("textures", "resnet18")]
    sources["ablations"] = [case / f"dxai-{name}" for name in changed]
    frames = {
        name: _counts(folders, params)
        if name == "table5"
        else spec.maker(*(sources[source] for source in spec.sources), params)
        for name, spec in SPECS.items()
    }
    folders.tables.mkdir(parents=True)
    for name, frame in frames.items():
        path = folders.results / "tables" / f"{name}.csv"
        frame.to_csv(path, index=False, float_format="%.6g")
    write_json(folders.results / "metrics.json", table_builders.headlines(frames))


def _counts(folders: Paths, params: Params) -> pd.DataFrame:
    """Make Table 5 for datasets whose layout is not in the registry."""
    rows = []
    for name, dataset in params.datasets.items():
        manifest = read_json(folders.prepared / name / "manifest.json")
        sums = {split: sum(counts.values()) for split, counts in manifest["counts"].items()}
        about = {"dataset": name, "source": dataset.source, "groups_test": sums["test"] // 2}
        rows.append(about | {"classes": len(manifest["class_names"])} | sums)
    return pd.DataFrame(rows).reindex(columns=SPECS["table5"].names)
