"""The image's build steps against the lock file, extras and sources; and its script."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from infra.deployments import POOL, RUNS
from tests import containers
from tests.containers import DOCKERFILE, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = {
    canonicalize_name(name): version
    for name, _, version in (
        line.partition("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
}
TELEMETRY = {
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "OMP_WAIT_POLICY": "PASSIVE",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
}
KNOWN = {"ARG", "FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER"}


def stages(text: str) -> dict[str, list[tuple[str, str]]]:
    """Return the instructions of each stage; the last one, the image, is called ``""``."""
    found: dict[str, list[tuple[str, str]]] = {"arguments": []}
    current = "arguments"
    for word, rest in containers.instructions(text):
        if word == "FROM":
            current = rest.partition(" AS ")[2]
            found[current] = []
        found[current].append((word, rest))
    return found


def sources(text: str) -> list[str]:
    """Return the paths copied from the build's context."""
    lines = [rest.split() for word, rest in containers.instructions(text) if word == "COPY"]
    plain = [words for words in lines if not words[0].startswith("--from")]
    return [word for words in plain for word in words[:-1] if not word.startswith("--")]


def problems(text: str) -> list[str]:
    """List the faults of a Dockerfile."""
    found = [f"unknown: {word}" for word, _ in containers.instructions(text) if word not in KNOWN]
    parts = stages(text)
    arguments = dict(rest.split("=") for _, rest in parts["arguments"])
    if arguments["PYTHON"] not in SpecifierSet(PROJECT["requires-python"]):
        found.append(f"Python {arguments['PYTHON']} is not {PROJECT['requires-python']}")
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for source in sources(text):
        if not (ROOT / source).is_file():
            found.append(f"{source} does not exist")
        if f"!{source}" not in ignored:
            found.append(f"{source} is left out by .dockerignore")
    for name, steps in parts.items():
        for word, rest in steps:
            if word == "RUN" and (install := re.search(r"pip install ([^&]*)", rest)):
                found += installed(install[1])
                if name == "":
                    found.append("the last stage installs with pip")
            if word == "RUN" and re.search(r"\b(gcc|g\+\+|build-essential|make)\b", rest):
                found.append(f"a compiler in stage {name or 'last'}")
            if word == "FROM":
                base = re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], rest.split()[0])
                if base not in parts and base != f"python:{arguments['PYTHON']}-slim-bookworm":
                    found.append(f"{base} is no stage")
    last = dict(parts[""])
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", last.get("USER", "")):
        found.append("the image runs as root")
    return found


def installed(arguments: str) -> Iterator[str]:
    """List the faults of the arguments of `pip install`."""
    words = arguments.split()
    if "-c" not in words or words[words.index("-c") + 1] != "constraints.txt":
        yield "pip is not held to constraints.txt"
    skip = False
    for word in words:
        if skip or word.startswith("-"):
            skip = word in ("-c", "--index-url")
            continue
        word = word.strip("'")
        if match := re.fullmatch(r"\.\[([\w,]+)\]", word):
            for extra in match[1].split(","):
                if extra not in PROJECT["optional-dependencies"]:
                    yield f"{extra} is no extra"
        elif canonicalize_name(word) not in PINS:
            yield f"{word} is not pinned"


def test_the_build_steps_fit_the_project() -> None:
    assert problems(DOCKERFILE.read_text()) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("PYTHON=3.11", "PYTHON=3.10", "Python 3.10"),
        ("COPY constraints.txt", "COPY requirements.txt", "requirements.txt does not exist"),
        ("COPY pyproject.toml", "COPY pyproject.toml Makefile", "left out by .dockerignore"),
        ("-c constraints.txt '.", "'.", "not held to constraints.txt"),
        (".[cluster]", ".[clusters]", "clusters is no extra"),
        ("constraints.txt torch", "constraints.txt torchvision", "torchvision is not pinned"),
        ("git \\", "git gcc \\", "a compiler in stage last"),
        ("USER 1000:1000", "USER 0:0", "runs as root"),
        ("USER 1000:1000", "", "runs as root"),
        ("VARIANT=cpu", "VARIANT=rocm", "torch-rocm is no stage"),
        ("WORKDIR /tmp", "WRKDIR /tmp", "unknown: WRKDIR"),
    ],
)
def test_a_wrong_step_is_found(old: str, new: str, expected: str) -> None:
    text = DOCKERFILE.read_text()
    assert old in text
    assert any(expected in problem for problem in problems(text.replace(old, new)))


def test_both_variants_are_stages() -> None:
    parts = stages(DOCKERFILE.read_text())
    assert {"torch-cpu", "torch-cuda"} <= parts.keys()
    assert any("--no-deps --index-url" in rest for _, rest in parts["torch-cpu"])


def test_nothing_reports_home() -> None:
    assert TELEMETRY.items() <= containers.image_environment().items()


def test_everything_that_comes_along_is_pinned() -> None:
    """The requirements of `.[cluster]` are followed through the packages installed here."""
    wanted = [Requirement("dxai[cluster]")]
    seen: set[tuple[str, frozenset[str]]] = set()
    while wanted:
        one = wanted.pop()
        key = (canonicalize_name(one.name), frozenset(one.extras))
        if key in seen or re.match("nvidia-|cuda-|triton", key[0]):  # of the CUDA build only
            continue
        seen.add(key)
        if key[0] != "dxai":
            assert key[0] in PINS, one
            assert metadata.version(one.name).partition("+")[0] == PINS[key[0]], one
        for line in metadata.requires(one.name) or []:
            more = Requirement(line)
            if any(
                more.marker is None or more.marker.evaluate({"extra": extra})
                for extra in one.extras or {""}
            ):
                wanted.append(more)
    assert len(seen) > 100


@pytest.mark.slow
def test_what_is_copied_is_enough_to_install(tmp_path: Path) -> None:
    """The command `dxai` is installed, without the project's code, which the clone has."""
    for source in sources(DOCKERFILE.read_text()):
        shutil.copy(ROOT / source, tmp_path)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    done = subprocess.run(
        [*pip, "--target", tmp_path / "venv", ".[cluster]"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "venv/bin/dxai").exists()
    assert not (tmp_path / "venv/dxai").exists()


def test_the_script_is_shell() -> None:
    scripts = [source for source in sources(DOCKERFILE.read_text()) if source.endswith(".sh")]
    assert scripts
    for script in scripts:
        done = subprocess.run(["bash", "-n", ROOT / script], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
    cut = (ROOT / scripts[0]).read_text().replace("\nfi\n", "\n")
    assert subprocess.run(["bash", "-n"], input=cut.encode(), capture_output=True).returncode != 0


def test_the_worker_runs_as_many_flows_at_a_time_as_on_one_machine() -> None:
    script = (ROOT / "infra/image/worker.sh").read_text()
    assert f"set-concurrency-limit {POOL} {RUNS} " in script
