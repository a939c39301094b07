"""Train the decomposition of one classifier: DVC stage `decompose`."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pandas as pd
import torch

from dxai.config.params_file import load_params
from dxai.config.schema import JOINT
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.models.serialization import freeze, load_classifier, save_decomposer, write_tensors
from dxai.paths import HERE, HISTORY, METRICS, MODEL, PANELS, SNAPSHOTS
from dxai.stages import run_stage
from dxai.stages.training import trained
from dxai.training.decomposition import DecompositionJob
from dxai.training.step import Networks, generator_settings
from dxai.utils.files import atomic_folder, sha256, write_json


def main(dataset: str, classifier: str, decomposition: str) -> None:
    """Write artifacts/decompositions/<dataset>/<classifier>/<decomposition>/.

    A decomposition is named by its seed or by its variant in the ablation.
    """
    params = load_params()
    settings, seed = params.decomposition(dataset, classifier, decomposition)
    folder = HERE.dataset(dataset)
    data = ShardedDataset(folder, "train")
    frozen, frozen_info, frozen_hash = None, None, JOINT
    modules = (params.classifier_spec(classifier).arch,)
    if params.classifier_spec(classifier).arch != JOINT:
        path = HERE.classifier(dataset, classifier, "explained") / MODEL
        _, frozen_info = load_classifier(path, modules)
        frozen, frozen_hash = path.read_bytes(), sha256(path)
    title = f"decompose {dataset} {classifier} {decomposition}"
    job = DecompositionJob(str(folder.absolute()), settings, frozen, seed, modules)
    decisive = [settings, frozen_hash, seed]
    with trained(job, title, folder, decisive, params.training) as (state, unfinished):
        networks, history = job.networks(data), state["history"]
        networks.load_state_dict(state["networks"])
        explained, explained_info = explained_classifier(networks, frozen_info, settings, data)
        info = {
            "settings": {
                "channels": data.channels,
                "classes": len(data.class_names),
                "image_size": data.image_size,
                **generator_settings(settings),
            },
            # Copy the strings, or pickle writes equal ones that pydantic shares as references.
            "training": {name: json.loads(json.dumps(value)) for name, value in settings},
            "class_names": data.class_names,
            "channels": data.channels,
            "image_size": data.image_size,
            "value_range": [-1.0, 1.0],
            "dataset": dataset,
            "classifier": classifier,
            "profile": params.profile,
            "seed": seed,
        }
        with atomic_folder(HERE.decomposition(dataset, classifier, decomposition)) as temporary:
            model = temporary / MODEL
            save_decomposer(model, networks.average, info, explained, explained_info)
            write_tensors(temporary / SNAPSHOTS, {"kind": "snapshots", "steps": state["snapshots"]})
            pd.DataFrame(history).to_csv(temporary / HISTORY, index=False)
            (temporary / PANELS).mkdir()
            if (unfinished / PANELS).is_dir():  # absent if another machine drew them
                shutil.copytree(unfinished / PANELS, temporary / PANELS, dirs_exist_ok=True)
            write_json(temporary / METRICS, metrics(networks, history, settings, seed))


def explained_classifier(
    networks: Networks, info: dict[str, Any] | None, settings: Any, data: ShardedDataset
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Return the frozen classifier, or for C = D this run's averaged discriminator."""
    if networks.classifier is not None:
        assert info is not None
        return networks.classifier, info
    return freeze(networks.average_discriminator), {
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
    """Return the numbers that `dvc metrics show` prints of a training."""
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


if __name__ == "__main__":
    run_stage(main)
