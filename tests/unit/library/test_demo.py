"""The demo: its page, and where its explainer and its patches come from."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dxai.cli.main import main
from dxai.datasets.layouts.textures import photograph
from dxai.library.demo import FOLDER, PATCHES, make, patches
from dxai.library.explainer import DXAI
from dxai.paths import MODEL
from dxai.reporting.html.explanation import GENERATOR
from dxai.utils.files import sha256

CLASSES = ("brick", "grass", "gravel")
NO_DISPLAY = {"BROWSER": "", "DISPLAY": "", "WAYLAND_DISPLAY": ""}
OPEN = (
    "from pathlib import Path; from dxai.cli.demo import open_page; print(open_page(Path('a b')))"
)


def test_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--no-open", "--out", str(tmp_path / "out")]) == 0
    path = tmp_path / "out/index.html"
    assert capsys.readouterr().out.splitlines()[-1] == str(path)
    page = path.read_text()
    assert GENERATOR in page
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg"}, "nothing is loaded"
    for name in CLASSES:  # the network is right about each patch, and heatmaps explain that class
        assert page.count(f"labelled {name}") == make.PATCHES_PER_CLASS
        for method in ("Grad-CAM", "Integrated Gradients"):
            heading = f"<figcaption>{method}, {name}</figcaption>"
            assert page.count(heading) == make.PATCHES_PER_CLASS


def test_a_file_of_others_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "index.html").write_text("mine")
    assert main(["demo", "--no-open", "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "found a file that dxai did not write" in error and error.count("\n") == 1
    assert (tmp_path / "index.html").read_text() == "mine"


@pytest.mark.parametrize(
    ("out", "expected"),
    [("file/x", "file is a file; name another"), ("/proc/x", "/proc/x: /proc takes no files (")],
)
def test_a_folder_that_takes_no_files_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str, expected: str
) -> None:
    (tmp_path / "file").write_text("mine")
    assert main(["demo", "--no-open", "--out", str(tmp_path / out)]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith("error: ") and expected in said.err


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a display")
def test_the_page_opens_only_where_it_can_be_seen(tmp_path: Path) -> None:
    program, opened = tmp_path / "browser", tmp_path / "opened"
    program.write_text(f'#!/bin/sh\necho "$@" > {opened}\n')
    program.chmod(0o755)
    for browser, expected in (("", "False\n"), (str(program), "True\n")):
        assert not opened.exists()
        found = subprocess.run(
            [sys.executable, "-c", OPEN],
            env=os.environ | NO_DISPLAY | {"BROWSER": browser},
            capture_output=True,
            text=True,
        )
        assert (found.stdout, found.stderr) == (expected, "")
    assert opened.read_text() == f"{(Path.cwd() / 'a b').as_uri()}\n"


def test_patches_are_test_images() -> None:
    """Each shows its place in the photograph, where no other split has a pixel."""
    params = make.recipe()
    size, block = params.prepare.image_size, params.dataset(make.DATASET).options["block"]
    taken = {name: np.zeros_like(photograph(name), dtype=bool) for name in CLASSES}
    for unit in make.listing(params).units:
        row, column = (block * at for at in unit.about)
        if unit.split != "test":
            taken[unit.label][row : row + block, column : column + block] = True
    files = sorted((FOLDER / PATCHES).iterdir())
    assert len(files) == make.PATCHES_PER_CLASS * len(CLASSES)
    for file in files:
        name, row, column = file.stem.split("-")
        box = np.s_[int(row) : int(row) + size, int(column) : int(column) + size]
        np.testing.assert_array_equal(np.asarray(Image.open(file)), photograph(name)[box])
        assert not taken[name][box].any()


def test_the_explainer_is_that_of_the_recipe() -> None:
    params, explainer = make.recipe(), DXAI.load(FOLDER)
    assert explainer.info["image_size"] == params.prepare.image_size
    assert tuple(explainer.info["class_names"]) == CLASSES
    assert patches(explainer).pixels.shape[1:] == (params.prepare.image_size,) * 2
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < 5e6
    text = (FOLDER / "README.md").read_text()
    assert sha256(FOLDER / MODEL) in text
    for line in make.commands():
        assert f"    {line}\n" in text
