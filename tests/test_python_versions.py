"""Later versions of Python: the pins are compatible, and code without torch works.

The whole suite runs with one interpreter. A build of torch for the others is not always at hand, so
its own dependencies and the code that imports it are not covered here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.distributions import build
from tests.test_packages import EXTRAS, PROJECT, ROOT, pinned

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LIBRARIES = ["matplotlib", "numpy", "pandas", "pillow", "pydantic", "pytest"]
LIBRARIES += ["pytest-timeout", "pyyaml", "ruamel.yaml"]
"""What TESTS import."""

TESTS = [
    "cli/test_main.py",
    "metrics/test_curves.py",
    "metrics/test_stability.py",
    "reporting/test_figures.py",
    "reporting/test_image_tiles.py",
    "reporting/test_text.py",
    "results/test_io.py",
    "results/test_metric_names.py",
    "test_paths.py",
    "utils/test_files.py",
    "utils/test_progress.py",
]
"""Files of tests/unit that need neither torch nor a large library."""

LEFT_OUT = "not spells_a_path"
"""Checks the text of the code, which no interpreter changes."""


def interpreter(version: str) -> str:
    """Return the path of a Python, of pyenv or on PATH; skip the test where there is none."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for path in root.glob(f"versions/{version}.*/bin/python"):
        return str(path)
    path = shutil.which(f"python{version}")
    if path is None or subprocess.run([path, "-V"], capture_output=True).returncode:
        pytest.skip(f"Python {version} is not installed")
    return path


@pytest.fixture(scope="module", params=["3.12", "3.13"])
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a fresh environment, and return its interpreter."""
    folder = tmp_path_factory.mktemp(f"python-{request.param}")
    subprocess.run([interpreter(request.param), "-m", "venv", folder], check=True)
    return folder / "bin/python"


def install(python: Path, *arguments: str | Path) -> None:
    """Call `pip install`; skip the test where no package index answers.

    Isolated (-I), or pip would find the project in the working folder and call it installed.
    """
    command = [python, "-I", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    command += ["--no-compile"]  # most of it is never imported
    done = subprocess.run([*command, *arguments], capture_output=True, text=True)
    if done.returncode and "connection broken by" in done.stderr:
        pytest.skip("no package index answers")
    assert done.returncode == 0, done.stderr


def conflicts(packages: dict[str, dict[str, Any]], environment: dict[str, str]) -> Iterator[str]:
    """Yield each requirement, direct or not, of the extra `dev` that the pins do not meet."""
    seen = set()
    waiting = [(Requirement("dxai[dev]"), "")]
    while waiting:
        one, asked_by = waiting.pop()
        name = canonicalize_name(one.name)
        if name == "torch":
            continue
        if name not in packages:
            yield f"{asked_by} needs {one}, which is not pinned"
            continue
        package = packages[name]
        if not one.specifier.contains(package["version"], prereleases=True):
            yield f"{asked_by} needs {one}, but {package['version']} is pinned"
        for extra in {"", *one.extras} - {extra for seen_name, extra in seen if seen_name == name}:
            seen.add((name, extra))
            for more in map(Requirement, package.get("requires_dist", [])):
                if more.marker is None or more.marker.evaluate({**environment, "extra": extra}):
                    waiting.append((more, name))


def test_the_pins_resolve(python: Path, tmp_path: Path) -> None:
    """Every pin can be installed, and together they meet every requirement of the project.

    pip looks up each pin by itself, which is fast; following the requirements that it reports is
    then a full resolution, since all packages have to be among the pins.
    """
    pins = {name: version for name, version in pinned().items() if name != "torch"}
    (tmp_path / "pins.txt").write_text("".join(f"{name}=={pins[name]}\n" for name in pins))
    options = ["--dry-run", "--no-deps", "--ignore-installed", "--report", tmp_path / "report.json"]
    install(python, *options, "-r", tmp_path / "pins.txt")
    report = json.loads((tmp_path / "report.json").read_text())
    found = {canonicalize_name(p["metadata"]["name"]): p["metadata"] for p in report["install"]}
    assert len(found) == len(pins)
    own = PROJECT["dependencies"] + [
        f'{line} ; extra == "{extra}"' for extra, lines in EXTRAS.items() for line in lines
    ]
    found["dxai"] = {"version": PROJECT["version"], "requires_dist": own}
    assert not list(conflicts(found, report["environment"]))


def test_what_needs_no_torch_works(python: Path) -> None:
    install(python, "-c", ROOT / "constraints.txt", *LIBRARIES)
    options = ["-q", "-p", "no:cacheprovider", "-m", "not slow", "-k", LEFT_OUT]
    done = subprocess.run(
        [python, "-m", "pytest", *options, *(f"tests/unit/{name}" for name in TESTS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout


def test_the_command_of_the_wheel_answers(python: Path, tmp_path: Path) -> None:
    install(python, "--no-deps", build(tmp_path)[1])
    command = [python.with_name("dxai"), "fit", "--help"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.startswith("usage: dxai fit"), done.stderr
