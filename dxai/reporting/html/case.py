"""Everything that the stages wrote about one dataset and classifier, read for the report."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dxai.config.schema import Params
from dxai.metrics.scorer import answers_of
from dxai.paths import ATTRIBUTIONS, IMAGES, OUTCOMES, SUMMARY, Paths, decomposition_of, ours_name
from dxai.results.io import Row, Tables
from dxai.results.methods import OURS, best_baseline
from dxai.utils import npz
from dxai.utils.files import read_json


def read_optional(path: Path) -> dict[str, Any]:
    """Read a JSON file's mapping; empty if the file does not exist."""
    return read_json(path) if path.is_file() else {}


@dataclass(frozen=True)
class Case:
    """All results of one dataset and classifier.

    `tables` has its rows of each table that names both, `seeds` those of its decompositions in
    order, and `folder` is results/outcomes/<dataset>/<classifier>. `summaries` maps the name of a
    folder in it to its summary.json, without ablations and scores by other classifiers.
    """

    dataset: str
    classifier: str
    tables: Tables
    folder: Path
    seeds: list[int]
    summaries: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the case's name on the page."""
        return f"{self.dataset} · {self.classifier}"

    @property
    def rows(self) -> list[Row]:
        """Return its rows of table1.csv."""
        return self.tables["table1"]

    @property
    def first(self) -> Path:
        """Return the folder of the first decomposition's outcomes."""
        return self.folder / ours_name(self.seeds[0])

    def primary(self, method: str) -> str | None:
        """Return the sign of the method's own rule, whose row comes first in the table."""
        return next((row["sign"] for row in self.rows if row["method"] == method), None)

    def ours(self) -> list[Row]:
        """Return the scored rows of the decomposition, one per seed."""
        return [r for r in self.rows if r["method"] == OURS and r["auc"] is not None]

    def best_baseline(self) -> Row | None:
        """Return the row of the baseline with the lowest AUC."""
        return best_baseline(self.rows)

    def curves(self, name: str, seed: int) -> dict[str, dict[str, Any]]:
        """Map methods to accuracy curves, each in its primary sign, ours of the given seed."""
        return {
            row["method"]: row["curves"][name]
            for folder, summary in self.summaries.items()
            for row in summary.get("rows", [])
            if decomposition_of(folder) in (str(seed), None)
            and row["status"] == "ok"
            and row["sign"] == self.primary(row["method"])
            and name in (row.get("curves") or {})
        }


def read_cases(params: Params, paths: Paths, tables: Tables) -> list[Case]:
    """Return one case for each dataset and classifier with rows in table1.csv."""
    cases = []
    for dataset in params.datasets:
        for classifier in params.explained:
            case, seeds = (dataset, classifier), params.seeds_of(classifier)
            own = {
                name: [r for r in rows if (r["dataset"], r.get("classifier")) == case]
                for name, rows in tables.items()
            }
            if not own["table1"]:
                continue
            folder = paths.outcome(dataset, classifier)
            names = [*params.methods, *map(ours_name, seeds)]
            found = {name: read_optional(folder / name / SUMMARY) for name in names}
            summaries = {name: summary for name, summary in found.items() if summary}
            cases.append(Case(*case, own, folder, seeds, summaries))
    return cases


def scored_images(folder: Path) -> np.ndarray:
    """Indices in the test split of the images that a method had to explain; may be empty."""
    path = folder / ATTRIBUTIONS
    if not path.is_file():
        return np.zeros(0, dtype=int)
    with np.load(path) as file:
        return file["index"].astype(int)


class Maps:
    """Attributions of some images, reading each file once.

    `folder` is results/outcomes/<dataset>/<classifier>; `at` are the images' indices in the test
    split.
    """

    def __init__(self, folder: Path, at: Iterable[int]) -> None:
        self.folder, self.at = folder, tuple(sorted(set(at)))
        self._read_maps, self._answers = functools.cache(_read_maps), functools.cache(_answers)

    def of(self, name: str, key: str, index: int) -> np.ndarray | None:
        """An image's array `key` in the folder `name`, float32; None unless it has all images."""
        maps = self._read_maps(self.folder / name, self.at).get(key)
        return None if maps is None else maps[self.at.index(index)]

    def answers(
        self, name: str, method: str, sign: str, index: int, curve: str = "beta"
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Levels of beta (L,), ascending, and the probabilities (L, c) there; None if not measured.

        `curve` is that of the explained classifier, `beta`, or that of its twin, `transfer`.
        """
        return self._answers(self.folder / name, method, sign, curve, self.at).get(index)


def _read_maps(folder: Path, at: tuple[int, ...]) -> dict[str, np.ndarray]:
    index = scored_images(folder)
    if not at or not np.isin(at, index).all():
        return {}
    rows = [int(np.argmax(index == wanted)) for wanted in at]
    found = {}
    for name in npz.names(folder / ATTRIBUTIONS):
        if name != "index":
            with npz.open_rows(folder / ATTRIBUTIONS, name) as maps:
                found[name] = maps[rows].astype(np.float32)
    return found


def _answers(
    folder: Path, method: str, sign: str, curve: str, at: tuple[int, ...]
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Map images to levels (L,) and to the probabilities (L, c) of x - beta psi_distinct there."""
    path = folder / OUTCOMES
    if not path.is_file():
        return {}
    where = [("curve", "=", curve), ("method", "=", method), ("sign", "=", sign)]
    outcomes = pd.read_parquet(path, filters=[*where, ("index", "in", list(at))])
    found: dict[int, dict[float, np.ndarray]] = {}
    for i, level, answer in zip(
        outcomes["index"].tolist(), outcomes["level"].tolist(), answers_of(outcomes), strict=True
    ):
        found.setdefault(i, {})[level] = answer
    return {
        index: (np.array(sorted(p)), np.stack([p[level] for level in sorted(p)]))
        for index, p in found.items()
    }


def read_images(folder: Path, method: str, sign: str) -> pd.DataFrame:
    """Read each image's measurements by one method; empty if the file does not exist."""
    path = folder / IMAGES
    if not path.is_file():
        return pd.DataFrame()
    return pd.read_parquet(path, filters=[("method", "=", method), ("sign", "=", sign)])
