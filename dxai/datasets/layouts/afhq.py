"""Layout `afhq`: Animal Faces-HQ, `train,val/{cat,dog,wild}/*.jpg` (v1), `train,test/..` (v2).

Release v1 calls its test set val.
"""

from __future__ import annotations

from dxai.config.schema import DatasetParams, PrepareParams
from dxai.config.settings import parse
from dxai.datasets.base import Layout, Listing
from dxai.datasets.layouts.class_folders import Files, classes_of, train_and_test
from dxai.datasets.samples import afhq
from dxai.datasets.source import Source
from dxai.datasets.splits import HoldOutOptions

FOLDERS = {"train": ("train",), "test": ("val", "test")}
CLASSES = {"cat": ("cat",), "dog": ("dog",), "wild": ("wild",)}


def find(source: Source, dataset: DatasetParams, prepare: PrepareParams) -> Listing:
    """List the images; a missing split or class raises `DataError`."""
    options = parse(HoldOutOptions, dataset.options, "options")
    return train_and_test(Files(source), dataset, prepare, FOLDERS, CLASSES, options)


LAYOUT = Layout(
    find,
    afhq.render_sample,
    "AFHQ v1, Choi et al. 2020 (StarGAN v2), https://github.com/clovaai/stargan-v2",
    "CC BY-NC 4.0",
    lambda options: (14630, 1500),
    exact=True,
    options=HoldOutOptions,
    fits=lambda names: classes_of(names, FOLDERS["train"]) == set(CLASSES),
    looks_for="train/ with the folders cat, dog and wild, and no other",
)
