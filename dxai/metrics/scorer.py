"""Score class-distinct parts by how images are classified while they are removed.

All curves are computed in a single pass over the batches. Outcomes are kept per image, so that
tables, intervals and other normalisations need no recomputation.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from dxai.config.schema import EvaluateParams
from dxai.metrics import removal, smoothing
from dxai.metrics.curves import Curve, auc_interval
from dxai.metrics.localisation import GroundTruth, localise
from dxai.models.devices import device_of, exact_float32
from dxai.types import Batch

CURVES = ("beta", "energy", "transfer", "transfer_energy", "blur", "smooth", "deletion")
"""Accuracy against beta; against removed energy; both by the twin; against beta, with psi blurred,
and by the classifier averaged over noise; against the share of deleted pixels."""
Remove = Callable[[Sequence[float]], Iterator[Tensor]]
"""Yields the images (B, C, H, W) of each level."""
BY_TWIN = ("transfer", "transfer_energy")
NO_NOISE = (
    f"no auc_smooth: under noise of {smoothing.DEVIATIONS[0]} the classifier keeps less than "
    f"{smoothing.KEPT:.0%} of its accuracy on validation images"
)
LOCALISATION = ("pointing", "average_precision", "energy_inside", "mask_area", "correlation")
"""Measures against the ground truth (`dxai.metrics.localisation`)."""


class Scorer:
    """Collect outcomes batch by batch.

    Parameters
    ----------
    classifier, twin : nn.Module
        The explained classifier, and one of the same architecture with another seed that was never
        trained against (`auc_transfer`, `auc_transfer_energy`); without a twin they are empty.
        Both are on the device where everything is computed; images and parts may be on any.
    seed : int
        Key of the bootstrap and of tie-breaking between equal pixels.
    curves : sequence of str
        Members of `CURVES` to compute.
    deviation : float, optional
        Of the noise of `auc_smooth` (`dxai.metrics.smoothing`): 0 if the classifier stands none,
        None if it was not measured; then the column is empty.
    """

    def __init__(
        self,
        classifier: nn.Module,
        twin: nn.Module | None,
        class_names: list[str],
        params: EvaluateParams,
        seed: int,
        curves: Sequence[str] = CURVES,
        deviation: float | None = None,
    ) -> None:
        self.wanted = set(curves) - (set(BY_TWIN) if twin is None else set())
        self.wanted -= set() if deviation else {"smooth"}
        self.deviation = deviation
        self.classifier, self.twin = classifier, twin
        self.class_names, self.params, self.seed = class_names, params, seed
        self.betas = torch.linspace(0, 1, params.beta_steps + 1).tolist()
        self._frames: list[pd.DataFrame] = []
        self._images: list[pd.DataFrame] = []

    @torch.no_grad()
    def add(
        self,
        method: str,
        sign: str,
        batch: Batch,
        distinct: Tensor,
        reconstruction: Tensor | None = None,
        heat: Tensor | None = None,
        truth: GroundTruth | None = None,
        extra: dict[str, Tensor] | None = None,
        curves: Sequence[str] = CURVES,
    ) -> None:
        """Score one batch.

        Parameters
        ----------
        method, sign : str
            Row of the table.
        distinct, reconstruction : Tensor
            psi_distinct and, for methods that have one, x_hat; (B, C, H, W).
        heat : Tensor, optional
            (B, 1 or C, H, W): the heatmap after the rule for its sign; default: psi_distinct. It
            ranks pixels and is compared with the ground truth.
        extra : dict, optional
            Further numbers per image: name to (B,).
        curves : sequence of str
            Those of this scorer's curves to compute; `beta` is one of them.
        """
        device = device_of(self.classifier)
        x, distinct = batch.images.to(device), distinct.to(device)
        heat = distinct if heat is None else heat.to(device)
        own = self.classifier
        without = functools.partial(removal.remove, x, distinct)
        without_energy = functools.partial(removal.remove_energy, x, distinct)
        fill, index = self.params.deletion_fill, batch.index
        ways: dict[str, tuple[nn.Module | None, Sequence[float], Remove]] = {
            "beta": (own, self.betas, without),
            "energy": (own, removal.ENERGIES, without_energy),
            "transfer": (self.twin, self.betas, without),
            "transfer_energy": (self.twin, removal.ENERGIES, without_energy),
            "blur": (own, self.betas, lambda b: removal.remove(x, removal.blur(distinct), b)),
            "smooth": (own, smoothing.BETAS, without),
            "deletion": (
                own,
                removal.DELETED,
                functools.partial(removal.delete, x, heat, fill=fill, index=index, seed=self.seed),
            ),
        }
        # All curves begin with the image itself.
        unchanged = functools.cache(lambda network: self._probabilities(network, [x]))
        answers = {}
        for name in [name for name in CURVES if name in self.wanted.intersection(curves)]:
            network, levels, images = ways[name]
            assert network is not None and levels[0] == 0
            if name == "smooth":
                answers[name] = self._smoothed(
                    network, x, batch.index, functools.partial(images, levels)
                )
            else:
                rest = self._probabilities(network, images(levels[1:]))
                answers[name] = torch.cat([unchanged(network), rest])
            self._frames.append(self._frame(method, sign, batch, name, levels, answers[name]))
        last = answers["beta"][-1]
        columns = {
            "psnr_removed_db": removal.psnr(distinct),
            "mean_abs_distinct": distinct.abs().mean((1, 2, 3)),
            "neutrality": removal.neutrality(last),
            **(extra or {}),
        }
        if reconstruction is not None:
            columns["psnr_db"] = removal.psnr(x - reconstruction.to(device))
        if truth is not None:
            columns |= localise(heat, distinct, truth)
        frame = pd.DataFrame({name: value.cpu().numpy() for name, value in columns.items()})
        named = {"id": batch.ids, "group": batch.groups, "label": batch.labels.numpy()}
        named |= {"index": batch.index.numpy(), "method": method, "sign": sign}
        self._images.append(pd.DataFrame(named).join(frame))

    def images(self) -> pd.DataFrame:
        """One row per image, method and sign: the numbers that do not depend on a level."""
        return pd.concat(self._images, ignore_index=True)

    def outcomes(self) -> pd.DataFrame:
        """One row per image, method, sign, curve and level."""
        return pd.concat(self._frames, ignore_index=True)

    def take(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return outcomes and images since the last call, and forget them."""
        found = self.outcomes(), self.images()
        self._frames, self._images = [], []
        return found

    def row(self, method: str, sign: str, seconds_per_image: float | None) -> dict[str, Any]:
        """Summarise one method by what was collected; see `summary`."""
        outcomes = of_method(self.outcomes(), method, sign)
        images = of_method(self.images(), method, sign)
        return self.summary(method, sign, outcomes, images, seconds_per_image)

    def summary(
        self,
        method: str,
        sign: str,
        outcomes: pd.DataFrame,
        images: pd.DataFrame,
        seconds_per_image: float | None,
    ) -> dict[str, Any]:
        """Numbers of one method for the tables, with curves and mean probabilities (Fig. 9).

        `outcomes` and `images` are the rows of this method and sign.
        """
        found = set(outcomes["curve"])
        curves = {name: curve(outcomes, name) for name in CURVES if name in found}
        low, high = auc_interval(curves["beta"], self.params.bootstrap, self.seed)
        deletion = self._deletion(curves.get("deletion"))
        means = images.drop(columns=["id", "group", "label", "index", "method", "sign"]).mean()
        return {
            "method": method,
            "sign": sign,
            "status": "ok",
            "reason": NO_NOISE if self.deviation == 0 else "",
            "images": len(curves["beta"].correct),
            "accuracy": float(curves["beta"].accuracy[0]),
            **_recall(outcomes),
            "auc": curves["beta"].auc,
            "auc_low": low,
            "auc_high": high,
            **{
                f"auc_{name}": curves[name].auc if name in curves else None
                for name in ("energy", *BY_TWIN, "blur", "smooth")
            },
            "smooth_deviation": self.deviation,
            **deletion,
            "psnr_db": _number(means.get("psnr_db")),
            "psnr_removed_db": float(means["psnr_removed_db"]),
            "mean_abs_distinct": float(means["mean_abs_distinct"]),
            "neutrality": float(means["neutrality"]),
            "uncertainty": _number(means.get("uncertainty")),
            **{name: _number(means.get(name)) for name in LOCALISATION},
            "known": int(images.reindex(columns=LOCALISATION).notna().any(axis=1).sum()),
            "seconds_per_image": seconds_per_image,
            "curves": {name: self._curve_row(value) for name, value in curves.items()},
            "probabilities": self._class_means(outcomes),
        }

    def _deletion(self, curve: Curve | None) -> dict[str, float | None]:
        """The area of Table 2 and its interval; not divided by the range, so at most 0.2."""
        names = ("auc_deletion", "auc_deletion_low", "auc_deletion_high")
        if curve is None:
            return dict.fromkeys(names)
        found = (curve.auc, *auc_interval(curve, self.params.bootstrap, self.seed))
        return {n: v * removal.DELETED[-1] for n, v in zip(names, found, strict=True)}

    def _probabilities(self, network: nn.Module, levels: Iterable[Tensor]) -> Tensor:
        """Softmax output (L, B, c) for L times (B, C, H, W), in passes of at most `batch_size`.

        As many levels as fill a pass are in memory at once, or one.
        """
        answers: list[Tensor] = []
        waiting: list[Tensor] = []

        def answer() -> None:
            images = torch.cat(waiting).contiguous(memory_format=torch.channels_last)
            answers.extend(network(x).softmax(1) for x in images.split(self.params.batch_size))
            waiting.clear()

        with exact_float32():
            for images in levels:
                if waiting and (len(waiting) + 1) * len(images) > self.params.batch_size:
                    answer()
                waiting.append(images)
            answer()
        return torch.cat(answers).unflatten(0, (-1, len(images)))

    def _smoothed(
        self, network: nn.Module, x: Tensor, index: Tensor, levels: Callable[[], Iterator[Tensor]]
    ) -> Tensor:
        """Like `_probabilities`: the mean over noises, which all methods and levels share."""
        assert self.deviation is not None
        total = torch.zeros(())
        for draw in range(self.params.smooth):
            noise = self.deviation * smoothing.noise(x, index, self.seed, draw)
            total = total + self._probabilities(network, (images + noise for images in levels()))
        return total / self.params.smooth

    def _frame(
        self, method: str, sign: str, batch: Batch, curve: str, levels: Sequence[float], p: Tensor
    ) -> pd.DataFrame:
        count, size = p.shape[:2]
        flat = p.flatten(0, 1).cpu().numpy()
        frame = pd.DataFrame(
            {
                "id": np.tile(np.asarray(batch.ids, dtype=object), count),
                "group": np.tile(np.asarray(batch.groups, dtype=object), count),
                "label": np.tile(batch.labels.numpy(), count),
                "index": np.tile(batch.index.numpy(), count),
                "method": method,
                "sign": sign,
                "curve": curve,
                # Rounded so that filtering by 0.3 finds 0.3.
                "level": np.repeat(np.round(levels, 6), size),
                "prediction": flat.argmax(1),
            }
        )
        for k in range(flat.shape[1]):
            frame[f"p{k}"] = flat[:, k]
        return frame

    def _curve_row(self, value: Curve) -> dict[str, list[float]]:
        samples = value.resampled(self.params.bootstrap, self.seed)
        low, high = np.percentile(samples, (2.5, 97.5), axis=0)
        return {
            "level": value.levels.tolist(),
            "accuracy": value.accuracy.tolist(),
            "low": low.tolist(),
            "high": high.tolist(),
        }

    def _class_means(self, outcomes: pd.DataFrame) -> dict[str, list[list[float]]]:
        beta = outcomes[outcomes["curve"] == "beta"]
        columns = [f"p{k}" for k in range(len(self.class_names))]
        means = beta.groupby(["label", "level"])[columns].mean()
        return {
            name: means.loc[label].to_numpy(dtype=float).tolist()
            for label, name in enumerate(self.class_names)
            if label in means.index.get_level_values("label")
        }


def of_method(frame: pd.DataFrame, method: str, sign: str) -> pd.DataFrame:
    """Return the rows of one method and sign."""
    return frame[(frame["method"] == method) & (frame["sign"] == sign)]


def curve(outcomes: pd.DataFrame, name: str) -> Curve:
    """Build the curve `name` of one method and sign from its outcomes, ordered by `index`."""
    rows = outcomes[outcomes["curve"] == name].sort_values(["index", "level"])
    levels = np.sort(rows["level"].unique())
    correct = (rows["prediction"] == rows["label"]).to_numpy().reshape(-1, len(levels))
    return Curve(levels, correct, rows["group"].tolist()[:: len(levels)])


def _recall(outcomes: pd.DataFrame) -> dict[str, Any]:
    """The mean over classes of the share of their unchanged images that is recognised."""
    beta = outcomes[(outcomes["curve"] == "beta") & (outcomes["level"] == 0)]
    recalls = (beta["prediction"] == beta["label"]).groupby(beta["label"]).mean()
    return {"balanced_accuracy": float(recalls.mean()), "classes": len(recalls)}


def answers_of(outcomes: pd.DataFrame) -> np.ndarray:
    """Return the probabilities of each row of some outcomes, (rows, c), float64."""
    names = [name for name in map(str, outcomes) if re.fullmatch(r"p\d+", name)]
    return outcomes[names].to_numpy(float, copy=True)


def chosen_images(total: int, images: int) -> np.ndarray:
    """Indices of `images` of `total`, spread evenly; all of them for 0."""
    if images <= 0 or images >= total:
        return np.arange(total)
    return np.linspace(0, total - 1, images).round().astype(int)


def _number(value: Any) -> float | None:
    return None if value is None or np.isnan(value) else float(value)
