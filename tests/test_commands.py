"""Every command in the documentation is one that its program accepts, and the ways in are run."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import itertools
import re
import shlex
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from dvc.cli import DvcParserError
from dvc.cli.parser import get_main_parser
from PIL import Image

from dxai.cli.main import _parser, main
from dxai.config.params_file import format_params
from dxai.config.profiles import load_profile
from tests.operating_manual import commands
from tests.small_explainer import FixedTiming
from tests.test_docs import DEPLOYMENTS, ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MAKEFILE = (ROOT / "Makefile").read_text()
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
CLASSES = ("apple", "cross", "zebra")
NETS = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Linear(1, 1)

    def forward(self, x):
        return self.scale.weight * x.mean((2, 3))
"""
"""A network of a user, which tells classes apart by the channel with the largest mean."""


def parse(accept: Callable[[list[str]], object], words: list[str]) -> None:
    """Let a program's parser read its arguments; what it complains of is the failure."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            accept(words)
    except (SystemExit, DvcParserError) as error:
        if getattr(error, "code", 2):  # but for --version
            pytest.fail(f"{shlex.join(words)}: {said.getvalue()}")


def make(words: list[str]) -> None:
    for word in words:
        assert "=" in word or re.search(rf"^{word}:", MAKEFILE, re.MULTILINE), word


def python(words: list[str]) -> None:
    if words[0] == "-m":
        assert words[1] == "build" or importlib.util.find_spec(words[1]), words  # pip installs it
    else:
        assert (ROOT / words[0]).is_file(), words


def pip(words: list[str]) -> None:
    extras = re.findall(r"\[(.*)\]", " ".join(words))
    assert {name for found in extras for name in found.split(",")} <= EXTRAS.keys()


def prefect(words: list[str]) -> None:
    named = [word for word in words if word.startswith("dxai/")]
    assert named and DEPLOYMENTS.issuperset(named), words


PROGRAMS: dict[str, Callable[[list[str]], None]] = {
    "dxai": lambda words: parse(_parser().parse_args, words),
    "dvc": lambda words: parse(get_main_parser().parse_args, words),
    "make": make,
    "pip": pip,
    "prefect": prefect,
    "python": python,
}

KNOWN = re.compile(rf"^(?:[A-Z_]+=\S* |cd \S+ && )*(?:[\w./]+/)?(?:{'|'.join(PROGRAMS)})\s")
"""How a line begins that runs one of them."""
INLINE = re.compile(r"`dxai ([^`]*)`")


def programs(line: str) -> list[tuple[str, list[str]]]:
    """Return the programs of a line that are known here, and their arguments.

    Variables before a program, and the folder that it is in, are left out.
    """
    if not KNOWN.search(line):
        return []
    found = []
    for ends, words in itertools.groupby(shlex.split(line, comments=True), lambda w: w == "&&"):
        command = list(itertools.dropwhile(lambda word: re.match(r"[A-Z_]+=", word), words))
        if not ends and command and Path(command[0]).name in PROGRAMS:
            found.append((Path(command[0]).name, command[1:]))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_accepted(page: Path) -> None:
    for line in commands(page):
        for program, arguments in programs(line):
            PROGRAMS[program](arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_in_a_sentence_has_its_options(page: Path) -> None:
    for words in INLINE.findall(page.read_text()):
        parser, rest = _parser(), words.split()
        while inner := [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]:
            parser = inner[0].choices[rest.pop(0)] if rest else argparse.ArgumentParser()
        wanted = re.findall(r"--[a-z][\w-]*", words)
        assert [one for one in wanted if one not in parser.format_help()] == [], words


def test_commands_are_found_and_wrong_ones_refused() -> None:
    found = [line for page in PAGES for line in commands(page)]
    for program in PROGRAMS:
        assert any(line.startswith(f"{program} ") for line in found), program
    assert programs("A=b .venv/bin/dxai demo && make up") == [("dxai", ["demo"]), ("make", ["up"])]
    assert programs("dvc: the only executor") == programs("D[dvc repro]") == []
    for program, wrong in (("dxai", "fit photos"), ("dvc", "reproduce"), ("make", "tea")):
        with pytest.raises((pytest.fail.Exception, AssertionError)):
            PROGRAMS[program](wrong.split())


@pytest.fixture(autouse=True)
def other_users_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget modules of the same name that tests before have imported."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: photos/, my_package/, w.pt, and a project's params.yaml."""
    folder, rng = tmp_path_factory.mktemp("user"), np.random.default_rng(0)
    for channel, name in enumerate(CLASSES):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(3):
            image = rng.integers(60, 120, (20, 16, 3), dtype=np.uint8)
            image[..., channel] += 60
            Image.fromarray(image).save(folder / f"photos/{name}/{i:03d}.png")
    (folder / "my_package").mkdir()
    (folder / "my_package/nets.py").write_text(NETS)
    torch.save(
        {"scale.weight": torch.tensor([[9.0]]), "scale.bias": torch.zeros(1)}, folder / "w.pt"
    )
    (folder / "params.yaml").write_text(format_params(load_profile("quick")))
    return folder


RUN = ("start", "sizes", "guards")
"""Pages whose commands run here, in this order, in one folder."""


def test_the_ways_in_are_run(
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    request.addfinalizer(FixedTiming().undo)
    monkeypatch.chdir(photos)
    for name in RUN:
        for line in commands(ROOT / f"docs/{name}.md"):
            program, *words = shlex.split(line, comments=True) or [""]
            if program == "dxai" and words != ["demo"]:  # which has a test of its own
                assert main(words) == 0, (line, capsys.readouterr())
    assert "Table 1" in Path("evaluation/index.html").read_text()
    assert '<input type="range"' in Path("explanations/index.html").read_text()


def test_the_site_begins_with_commands_that_need_nothing() -> None:
    """Those that `docs/start.md` begins with; the last one has a test of its own."""
    first, second = (commands(ROOT / f"docs/{name}.md") for name in ("index", "start"))
    assert first == second[: len(first)] and first[-1] == "dxai demo"


def test_the_code_of_the_first_page(
    photos: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(FixedTiming().undo)
    (photos / "python").mkdir()
    (photos / "python/photos").symlink_to("../photos")
    monkeypatch.chdir(photos / "python")
    monkeypatch.syspath_prepend(photos)
    model = importlib.import_module("my_package.nets").Net()
    model.load_state_dict(torch.load(photos / "w.pt"))
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/start.md").read_text(), re.DOTALL)
    names = {"model": model}
    exec(code, names)
    assert Path("zebra.html").is_file()
    assert names["parts"].explained == "apple"
