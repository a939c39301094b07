"""Score ours and baselines on the validation images of a dataset, with settings to try.

Run as `python -m benchmarks.experiments.tuning DATASET [--set KEY=VALUE ..]`; see
benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dxai.config.params_file import load_params
from dxai.config.profiles import select_profile
from dxai.config.schema import JOINT, DecomposeParams, Params
from dxai.datasets.prepare import prepare
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.explain.base import Explainer
from dxai.explain.decomposition import DXAI
from dxai.explain.registry import build_explainer
from dxai.metrics import smoothing
from dxai.metrics.scorer import Scorer, chosen_images
from dxai.models.serialization import freeze, load_classifier, save_classifier
from dxai.training.checkpoints import Checkpoint
from dxai.training.classifier import ROLES, ClassifierJob, role_seed, score, train_classifier
from dxai.training.decomposition import train
from dxai.training.events import EventSink
from dxai.training.run import TrainingRun
from dxai.training.step import build_networks
from dxai.types import GENERATED

SHOWN = (
    *("auc", "auc_low", "auc_high", "auc_energy", "auc_transfer", "auc_blur", "auc_smooth"),
    *("neutrality", "psnr_db", "psnr_removed_db"),
)


def main() -> None:
    """Print one JSON line per method, without using any test image."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("dataset", help="of the catalogue")
    parser.add_argument("--profile", default="quick", help="settings (%(default)s)")
    parser.add_argument("--classifier", default="resnet18", help="(%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="(%(default)s)")
    parser.add_argument("--baselines", nargs="*", default=["ig"], help="(%(default)s)")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="in `run`")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="folder to keep and reuse")
    parser.add_argument("--threads", type=int, default=1, help="(%(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        params = _params(args, Path(temporary))
        if not (folder / "data").exists():
            prepare(args.dataset, params, folder / "data", folder / "work")
        wanted = params.decompose_for(args.dataset, args.classifier)
        for seed in args.seeds:
            for found in results(
                params, args.dataset, args.classifier, wanted, seed, folder, args.baselines
            ):
                print(json.dumps({"set": " ".join(args.set), "seed": seed} | found), flush=True)


def _params(args: argparse.Namespace, folder: Path) -> Params:
    path = folder / "params.yaml"
    path.write_text(Path("params.yaml").read_text())
    changed = dict(item.split("=", 1) for item in args.set)
    select_profile(path, args.profile, [args.dataset], [args.classifier], overrides=changed)
    return load_params(path)


def results(
    params: Params,
    dataset: str,
    classifier: str,
    wanted: DecomposeParams,
    seed: int,
    folder: Path,
    baselines: Sequence[str],
) -> Iterator[dict[str, Any]]:
    """Train one decomposition and score it and the baselines, all on validation images.

    Parameters
    ----------
    folder : Path
        Contains the prepared dataset as `data`; the classifier is kept there for the next call.
    baselines : sequence of str
        Methods to compare with ours.

    Yields
    ------
    dict
        `method`, `sign`, the columns `SHOWN`, `accuracy`, and for ours `minutes`.
    """
    data, validation = (ShardedDataset(folder / "data", split) for split in ("train", "validation"))
    shape = (data.channels, len(data.class_names), data.image_size)
    joint = params.classifier_spec(classifier).arch == JOINT
    frozen, twin = (
        None if joint else trained(params, dataset, classifier, role, data, validation, folder)
        for role in ROLES
    )
    networks = build_networks(wanted, *shape, frozen, seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as unfinished:
        train(
            networks,
            wanted,
            TrainingRun(data, validation, seed, Checkpoint(Path(unfinished)), EventSink()),
        )
    minutes = round((time.monotonic() - began) / 60, 1)
    network = frozen or freeze(networks.average_discriminator)
    evaluate = params.evaluate
    info = dict(zip(("channels", "image_size"), (shape[0], shape[2]), strict=True))
    names = {"class_names": data.class_names}
    ours = DXAI(networks.average, info | names, network, evaluate.seed)
    explainers: list[Explainer] = [ours]
    explainers += [build_explainer(b, network, params.methods[b], evaluate.seed) for b in baselines]
    size, some = evaluate.batch_size, chosen_images(len(validation), smoothing.IMAGES)
    batches = functools.partial(validation.batches, size, some)
    deviation = smoothing.tolerated(network, batches, evaluate.seed) if evaluate.smooth else None
    scorer = Scorer(network, twin, data.class_names, evaluate, evaluate.seed, deviation=deviation)
    for explainer in explainers:
        for batch in validation.batches(evaluate.batch_size):
            if explainer is ours:
                parts = ours.explain(batch.images, batch.labels, batch.index, GENERATED)
                scorer.add(ours.name, "part", batch, parts.distinct, parts.reconstruction)
                continue
            found = explainer.attribute(batch.images, batch.labels, batch.index).detach()
            for sign, heat, part in explainer.by_sign(found, batch.images):
                scorer.add(explainer.name, sign, batch, part, heat=heat)
        for sign in explainer.signs:
            row = scorer.row(explainer.name, sign, None)
            numbers = {key: round(row[key], 3) for key in SHOWN if row[key] is not None}
            about = {"method": explainer.name, "sign": sign, "accuracy": round(row["accuracy"], 3)}
            yield about | numbers | ({"minutes": minutes} if explainer is ours else {})


def trained(
    params: Params,
    dataset: str,
    classifier: str,
    role: str,
    data: ShardedDataset,
    validation: ShardedDataset,
    folder: Path,
) -> nn.Module:
    """Return the classifier, or its twin: trained as in the pipeline, once per settings."""
    settings = params.classifier_for(dataset)
    spec, seed = params.classifier_spec(classifier), role_seed(settings.seed, role)
    network, built = ClassifierJob(str(folder / "data"), spec, settings, seed).network(data)
    kept = [classifier, role, settings.noise, settings.contrast, settings.epochs]
    path = folder / ("-".join(map(str, kept)) + ".pt")
    if not path.exists():
        with tempfile.TemporaryDirectory() as unfinished:
            checkpoint = Checkpoint(Path(unfinished))
            train_classifier(
                network,
                settings,
                TrainingRun(data, validation, seed, checkpoint, EventSink()),
            )
            state = checkpoint.load()
        assert state is not None
        network.load_state_dict(state["best"])
        save_classifier(path, network, built | {"class_names": data.class_names})
        print(f"{path}: validation accuracy {score(network, validation)[1]:.4f}", flush=True)
    return load_classifier(path)[0]


if __name__ == "__main__":
    main()
