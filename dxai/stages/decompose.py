"""Train the decomposition of one classifier: DVC stage `decompose`."""

from __future__ import annotations

import dataclasses
import shutil
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from dxai import stages
from dxai.datasets.format import sha256
from dxai.datasets.shards import ShardedDataset
from dxai.files import atomic, atomic_folder, write_json
from dxai.models.checkpoint import freeze, load_classifier, save_decomposer
from dxai.params import JOINT, load_params
from dxai.stages.classifier import fingerprint
from dxai.training.loop import train
from dxai.training.state import Checkpoint, best_device
from dxai.training.step import Networks, build_networks, generator_settings
from dxai.types import Decomposition


def main(dataset: str, classifier: str, seed_text: str) -> None:
    """Write artifacts/decompositions/<dataset>/<classifier>/<seed>/."""
    params, seed = load_params(), int(seed_text)
    spec, settings = params.classifier_spec(classifier), params.decompose_for(dataset)
    folder = stages.DATA / dataset
    data, validation = ShardedDataset(folder, "train"), ShardedDataset(folder, "validation")
    frozen, frozen_info, frozen_hash = None, None, JOINT
    if spec.arch != JOINT:
        path = stages.CLASSIFIERS / dataset / classifier / "explained" / "model.pt"
        frozen, frozen_info = load_classifier(path)
        frozen_hash = sha256(path)
    networks = build_networks(
        settings, data.channels, len(data.class_names), data.image_size, frozen, seed, best_device()
    )
    title = f"decompose {dataset} {classifier} {seed}"
    name = f"{title.replace(' ', '-')}-{fingerprint(folder, settings, frozen_hash, seed)}"
    checkpoint = Checkpoint(stages.WORK / name)
    panels = checkpoint.folder / "panels"

    def save_panel(step: int, decomposition: Decomposition) -> None:
        with atomic(panels / f"step-{step:06d}.png") as temporary:
            panel(decomposition).save(temporary, format="PNG")

    history = train(networks, settings, data, validation, seed, checkpoint, title, save_panel)
    networks.average.cpu()
    explained, explained_info = explained_classifier(networks, frozen_info, settings, data)
    info = {
        "settings": {
            "channels": data.channels,
            "classes": len(data.class_names),
            "image_size": data.image_size,
            **generator_settings(settings),
        },
        "training": dataclasses.asdict(settings),
        "class_names": data.class_names,
        "channels": data.channels,
        "image_size": data.image_size,
        "value_range": [-1.0, 1.0],
        "dataset": dataset,
        "classifier": classifier,
        "profile": params.profile,
        "seed": seed,
    }
    with atomic_folder(stages.DECOMPOSITIONS / dataset / classifier / str(seed)) as temporary:
        save_decomposer(temporary / "model.pt", networks.average, info, explained, explained_info)
        pd.DataFrame(history).to_csv(temporary / "history.csv", index=False)
        shutil.copytree(panels, temporary / "panels")
        write_json(temporary / "metrics.json", metrics(networks, history, settings, seed))
    checkpoint.remove()


def explained_classifier(
    networks: Networks, info: dict[str, Any] | None, settings: Any, data: ShardedDataset
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The frozen classifier, or, for C = D, the averaged discriminator of this run."""
    if networks.classifier is not None:
        assert info is not None
        return networks.classifier.cpu(), info
    return freeze(networks.average_discriminator).cpu(), {
        "arch": "discriminator",
        "options": {"width": settings.discriminator_width},
        "channels": data.channels,
        "class_names": data.class_names,
        "image_size": data.image_size,
        "value_range": [-1.0, 1.0],
    }


def metrics(
    networks: Networks, history: list[dict[str, Any]], settings: Any, seed: int
) -> dict[str, Any]:
    """What `dvc metrics show` says of a training."""
    last = history[-1]
    return {
        "steps": last["step"],
        "seconds": last["seconds"],
        "images_per_second": last["step"] * settings.batch_size / last["seconds"],
        "parameters": sum(p.numel() for p in networks.decomposer.parameters()),
        "seed": seed,
        "psnr_db": last["psnr_db"],
        "loss": {k.removeprefix("loss/"): v for k, v in last.items() if k.startswith("loss/")},
    }


def panel(decomposition: Decomposition, enlarge: int = 2) -> Image.Image:
    """One row an image: x, class-agnostic, class-distinct, x_hat; all shown from -1 to 1."""
    parts = (
        decomposition.image,
        decomposition.agnostic,
        decomposition.distinct,
        decomposition.reconstruction,
    )
    rows = torch.cat([part.clamp(-1, 1) for part in parts], dim=3)
    sheet = rows.permute(0, 2, 3, 1).flatten(0, 1)
    pixels = ((sheet + 1) * 127.5).round().to(torch.uint8).numpy()
    image = Image.fromarray(
        np.ascontiguousarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
    )
    return image.resize((image.width * enlarge, image.height * enlarge), Image.Resampling.NEAREST)


if __name__ == "__main__":
    stages.run_stage(main, "dataset", "classifier", "seed")
