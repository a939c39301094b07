"""
The pipeline
============

What ``dvc repro`` runs, stage by stage, at a size that takes seconds. Its numbers mean nothing at
this size; its files are those of a run of any size. In a clone of the project you type

.. code-block:: text

    dxai use smoke --classifiers simple --methods ig
    dvc repro

and DVC runs what is out of date. This page does by hand what DVC does, in a folder of its own.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pandas as pd

from dxai.cli.main import main as dxai
from dxai.config.params_file import format_params
from dxai.config.profiles import load_profile
from dxai.stages import (
    baseline,
    classifier,
    cross,
    decompose,
    leakage,
    prepare,
    randomisation,
    report,
    score_decomposition,
    stability,
    tables,
)


def files(folder: str) -> None:
    """List the files of a folder."""
    print(*sorted(str(path) for path in Path(folder).rglob("*") if path.is_file()), sep="\n")


# %%
# Settings
# --------
# ``params.yaml`` holds every value that a run depends on; ``dxai use`` writes it from a profile.

Path("params.yaml").write_text(format_params(load_profile("smoke")))  # a clone has the file
settings = {
    "repeat.seeds": [],
    "ablations.variants": {},
    "leakage.images": 0,
    "randomisation.images": 0,
}
command = "use smoke --datasets textures --classifiers simple --methods ig --seeds 0"
dxai([*shlex.split(command), *(f"--set={key}={value}" for key, value in settings.items())])

# %%
# Data
# ----
# Raw images become Parquet shards with a manifest and a data card.

prepare.main("textures")
files("data/prepared")

# %%
# Networks
# --------
# The classifier that is explained, and its twin, which only scores; then the generator.

classifier.main("textures", "simple", "explained")
classifier.main("textures", "simple", "twin")
decompose.main("textures", "simple", "0")
files("artifacts")

# %%
# Scores
# ------
# Each method explains each test image once. A row per image, curve and level is kept, so that
# tables are made without explaining anything again.

baseline.main("textures", "simple", "ig")
score_decomposition.main("textures", "simple", "0")
cross.main("textures", "simple", "simple", "0")
for stage in (stability, leakage, randomisation):
    stage.main("textures", "simple")
outcomes = pd.read_parquet("results/outcomes/textures/simple/ig/outcomes.parquet")
outcomes.head()

# %%
# Tables and report
# -----------------
tables.main()
report.main()
table = pd.read_csv("results/tables/table1.csv")
table[["method", "sign", "auc", "auc_low", "auc_high"]]

# %%
assert {"dxai", "ig"} <= set(table["method"])
assert Path("results/report.html").stat().st_size > 10_000

# %%
# ``results/report.html`` is one page with pictures, verdicts and tables. What follows in a clone:
# ``dvc repro`` again finds everything up to date; a changed value reruns what depends on it and
# nothing else; ``make up`` and Prefect run the same stages every night (see :doc:`../operating`).
