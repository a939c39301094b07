"""`dxai fit` and `dxai explain` as a user types them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dxai.cli.main import main
from tests.small_explainer import CLASSES, Colour, FixedTiming, draw

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with images, a network as a module, and its weights."""
    timing = FixedTiming()
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "photos")
    shutil.copy(ROOT / "tests/small_explainer.py", tmp_path / "colour_nets.py")
    torch.save(Colour().state_dict(), tmp_path / "w.pt")
    yield tmp_path
    timing.undo()


def test_from_a_folder_to_a_page(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = ["--model", "colour_nets:Colour", "--weights", "w.pt"]
    assert main(["fit", "photos", *network, "--minutes", "1"]) == 0
    said = capsys.readouterr().out
    assert "fidelity: the generator draws an image at" in said
    assert "neutrality: without the class-distinct part" in said
    assert "next: dxai explain explainer photos" in said
    assert '<input type="range"' in (project / "explainer/index.html").read_text()
    # The code of the network was named here once, and is trusted here from then on.
    (project / "few").mkdir()
    for label in CLASSES:
        shutil.copy(project / f"photos/{label}/00.png", project / f"few/{label}.png")
    assert main(["explain", "explainer/", "few/"]) == 0
    written = [f"{label}.{kind}" for label in CLASSES for kind in ("json", "png")]
    found = sorted(path.name for path in Path("explanations").iterdir())
    assert found == sorted([*written, "index.html"])
    shutil.rmtree(project / ".work")
    assert main(["explain", "explainer/", "few/"]) == 1
    assert "--module colour_nets:Colour" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["explain", "explainer"], "found only explainer; name an explainer and images"),
        (["explain", "explainer", "empty"], "empty: no images (.bmp, "),
        (["fit", "photos", "--model", "simple"], "simple has no trained weights"),
        (["fit", "photos", "--model", "colour_nets:None"], "the module has no None"),
        (["fit", "empty", "--model", "colour_nets:Colour"], "empty: no images of two classes"),
    ],
)
def test_wrong_input_is_one_line(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    (project / "empty").mkdir()
    before = sorted(project.rglob("*"))
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and expected in error
    after = [path for path in sorted(project.rglob("*")) if "__pycache__" not in path.parts]
    assert after == [path for path in before if "__pycache__" not in path.parts]
