"""Small result files in the formats that the stages write, without the work that makes them real.

`python -m tests.fakes STAGE NAMES...` stands in for `python -m dxai.stages.STAGE NAMES...`.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dxai.files import atomic, atomic_folder, write_json

CLASSES = ["brick", "grass", "gravel"]
SIZE = 16
BETAS = [0.0, 0.5, 1.0]
COLUMNS = [
    *("dataset", "classifier", "method", "sign", "seed", "profile", "steps", "images", "accuracy"),
    *("auc", "auc_low", "auc_high", "delta_low", "delta_high", "auc_energy", "auc_transfer"),
    *("auc_blur", "psnr_db", "psnr_removed_db", "mean_abs_distinct", "neutrality"),
    *("seconds_per_image", "status", "reason"),
]


def prepare(dataset: str, root: Path = Path()) -> None:
    """A manifest without shards."""
    with atomic_folder(root / "data/prepared" / dataset) as folder:
        write_json(folder / "manifest.json", {"name": dataset, "class_names": CLASSES})


def classifier(dataset: str, name: str, role: str, root: Path = Path()) -> None:
    """An untrained network and the history of a training that it never had."""
    import torch

    from dxai.models.checkpoint import save_classifier

    torch.manual_seed(len(role))
    network, info = small_classifier()
    with atomic_folder(root / "artifacts/classifiers" / dataset / name / role) as folder:
        save_classifier(folder / "model.pt", network, info)
        rows = [
            {"epoch": epoch, "train_loss": 1 / epoch, "train_accuracy": 0.9}
            | {"validation_loss": 1.1 / epoch, "validation_accuracy": 0.8, "seconds": 1.5}
            for epoch in (1, 2, 3)
        ]
        write_csv(folder / "history.csv", rows)
        write_json(
            folder / "metrics.json",
            {
                "test_accuracy": 0.875,
                "validation_accuracy": 0.9,
                "epochs": 3,
                "best_epoch": 2,
                "parameters": sum(p.numel() for p in network.parameters()),
                "seconds": 4.5,
                "seed": 0,
            },
        )


def decompose(dataset: str, name: str, seed: str, root: Path = Path()) -> None:
    """An untrained decomposition, its history and two panels."""
    import torch
    from PIL import Image

    from dxai.models.checkpoint import save_decomposer
    from dxai.models.decomposer import Decomposer

    torch.manual_seed(int(seed))
    network, info = small_classifier()
    settings = {
        "channels": 1,
        "classes": len(CLASSES),
        "image_size": SIZE,
        "branches": 2,
        "branch_width": 2,
        "coarsest": 8,
        "mapping_width": 8,
    }
    decomposer = Decomposer(**settings)
    with atomic_folder(root / "artifacts/decompositions" / dataset / name / seed) as folder:
        about = {"settings": settings, "seed": int(seed), "class_names": CLASSES}
        about |= {"channels": 1, "image_size": SIZE, "value_range": [-1.0, 1.0]}
        save_decomposer(folder / "model.pt", decomposer, about, network, info)
        losses = ("adv", "d_real", "d_fake", "r1", "kld", "class", "rec", "dis_rec", "neutral")
        write_csv(
            folder / "history.csv",
            [
                {"step": step, "seconds": step / 50}
                | {f"loss/{loss}": 1 / step for loss in losses}
                | {"psnr_db": 20 + step / 100}
                for step in (25, 50)
            ],
        )
        for step in (25, 50):
            (folder / "panels").mkdir(exist_ok=True)
            Image.new("L", (8, 8), step).save(folder / f"panels/step-{step:06d}.png")
        write_json(
            folder / "metrics.json",
            {"steps": 50, "seconds": 1.0, "images_per_second": 400, "seed": int(seed)}
            | {"parameters": 1234, "psnr_db": 20.5},
        )


def small_classifier() -> tuple[Any, dict[str, Any]]:
    """A network of few weights, and the info that a checkpoint carries."""
    from dxai.models.classifiers import build_classifier

    info = {"arch": "simple", "options": {}, "channels": 1, "class_names": CLASSES}
    info |= {"image_size": SIZE, "value_range": [-1.0, 1.0], "profile": "smoke"}
    return build_classifier("simple", 1, len(CLASSES), SIZE), info


def baseline(dataset: str, name: str, method: str, root: Path = Path()) -> None:
    """The scores of one method, under one sign rule or two; LRP cannot apply."""
    rows = [row(method, sign, 0.9) for sign in ("signed", "relu")]
    if method == "lrp":
        rows = [{"method": "lrp", "sign": "relu", "status": "unsupported", "reason": "no rule"}]
    summary(root, dataset, name, method, 0, rows)


def ours(dataset: str, name: str, seed: str, root: Path = Path()) -> None:
    """The scores of the decomposition and its controls."""
    methods = {"dxai": 0.5, "shuffled": 0.6, "random_phase": 0.8}
    rows = [row(method, "part", auc) | {"psnr_db": 25.0} for method, auc in methods.items()]
    summary(root, dataset, name, f"dxai-{seed}", int(seed), rows)


def row(method: str, sign: str, auc: float) -> dict[str, Any]:
    """One row of a summary, whose accuracy falls in a straight line."""
    accuracy = [0.9, 0.9 * auc, 0.9 * (2 * auc - 1)]
    curve = {"level": BETAS, "accuracy": accuracy, "low": accuracy, "high": accuracy}
    return {
        "method": method,
        "sign": sign,
        "status": "ok",
        "reason": None,
        "images": 30,
        "accuracy": 0.9,
        "auc": auc,
        "auc_low": auc - 0.05,
        "auc_high": auc + 0.05,
        "auc_energy": auc,
        "auc_transfer": auc,
        "auc_blur": auc,
        "psnr_db": None,
        "psnr_removed_db": 12.0,
        "mean_abs_distinct": 0.1,
        "neutrality": 0.5,
        "seconds_per_image": 0.01,
        "curves": {name: curve for name in ("beta", "energy", "transfer", "blur")},
        "probabilities": {label: [[1 / 3] * 3] * 3 for label in CLASSES},
    }


def summary(root: Path, dataset: str, name: str, item: str, seed: int, rows: list[Any]) -> None:
    """results/outcomes/<dataset>/<classifier>/<item>/summary.json."""
    with atomic_folder(root / "results/outcomes" / dataset / name / item) as folder:
        about = {"dataset": dataset, "classifier": name, "seed": seed, "profile": "smoke"}
        about |= {"steps": 50, "class_names": CLASSES, "images": 30, "seconds": 1.0}
        write_json(folder / "summary.json", about | {"rows": rows})


def tables(root: Path = Path()) -> None:
    """table1.csv and metrics.json from the summaries."""
    from dxai.files import read_json

    rows = []
    for path in sorted((root / "results/outcomes").glob("*/*/*/summary.json")):
        content = read_json(path)
        rows += [{**content, **entry} for entry in content["rows"]]
    for entry in rows:
        if entry["method"] == "dxai":
            entry |= {"delta_low": -0.4, "delta_high": -0.3}
    write_csv(root / "results/table1.csv", rows, COLUMNS)
    write_json(root / "results/metrics.json", {"table1": {}})


def report(root: Path = Path()) -> None:
    """A page with a title."""
    with atomic(root / "results/report.html") as path:
        path.write_text("<!doctype html><title>dxai</title>\n")


def write_csv(path: Path, rows: list[dict[str, Any]], columns: list[str] | None = None) -> None:
    """Rows as CSV, missing cells empty."""
    with atomic(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns or list(rows[0]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


STAGES: dict[str, Callable[..., None]] = {
    "prepare": prepare,
    "classifier": classifier,
    "decompose": decompose,
    "baseline": baseline,
    "ours": ours,
    "tables": tables,
    "report": report,
}


def main(stage: str, *names: str) -> None:
    """Run one stage; files named `fail-<stage>` and `slow-<stage>` make it fail or take long."""
    title = " ".join([stage, *names])
    if Path(f"fail-{stage}").exists():
        sys.exit(f"error: {title} was told to fail")
    for second in range(60 if Path(f"slow-{stage}").exists() else 0):
        print(f"{title} [{'#' * (second // 3):<20}] {second}/60 steps, 1.00/s", flush=True)
        time.sleep(1)
    STAGES[stage](*names)
    print(f"{title} done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
