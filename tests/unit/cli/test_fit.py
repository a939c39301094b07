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
    assert main(["fit", "photos", *network, "--steps", "20"]) == 0
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


NETS = """
from colour_nets import Colour

class Leaves(Colour):
    def __init__(self):
        raise SystemExit(3)

class Complains(Colour):
    def __init__(self):
        raise RuntimeError("no licence\\nfor this machine")

class Words(Colour):
    def forward(self, x):
        return "red"

class Flat(Colour):
    def forward(self, x):
        return super().forward(x).sum(0)
"""
"""Networks as no explainer can take them."""
NETWORK = ["--model", "colour_nets:Colour", "--weights", "w.pt"]
FIT = ["fit", "photos", *NETWORK]


@pytest.fixture
def hostile(project: Path) -> Path:
    """The project with files and folders that are not what a command expects."""
    (project / "empty").mkdir()
    (project / "file").write_text("mine")
    (project / "link").symlink_to("nowhere")
    (project / "odd_nets.py").write_text(NETS)
    (project / "leaving_nets.py").write_text("raise SystemExit(3)")
    torch.save({"head.weight": torch.zeros(5, 3), "head.bias": torch.zeros(5)}, "other.pt")
    (project / "page.pt").write_text("<html>")
    for name, label in (("cut", "red"), ("none", "blue")):
        draw(project / name, 2)
        path = project / name / label / "00.png"
        path.write_bytes(path.read_bytes()[:60] if name == "cut" else b"")
    for name, rows in {
        "heads": "path,label",
        "gone": "path,label\nphotos/red/99.png,red",
        "columns": "file,class\nphotos/red/00.png,red",
        "above": "path,label\n../../etc/passwd,red",
        "unnamed": "path,label\nphotos/red/00.png,",
        "splits": "path,label,split\nphotos/red/00.png,red,most",
    }.items():
        (project / f"{name}.csv").write_text(rows)
    (project / "bytes.csv").write_bytes(b"path,label\n\xff\xfe,red")
    (project / "broken/training").mkdir(parents=True)
    (project / "broken/training/plan.json").write_text("{")
    (project / "strange/training").mkdir(parents=True)
    (project / "strange/training/plan.json").write_text("[1]")
    return project


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # What is explained, or where
        (["explain", "explainer"], "found only explainer; name an explainer and images"),
        (["explain", "explainer", "empty"], "empty: no images (.bmp, "),
        (["explain", "empty", "photos"], "empty/model.pt: no such model file"),
        (["explain", "nowhere", "photos"], "nowhere: no such file or folder"),
        (["explain", "w.pt", "photos"], "w.pt: holds something else, not a decomposition"),
        (["evaluate", "nowhere", "photos"], "nowhere: no such file or folder"),
        (["evaluate", "empty", "photos"], "empty/model.pt: no such model file"),
        (["evaluate", "empty", "photos", "--images", "0"], "images is 0; it must be 1 or more"),
        (["evaluate", "empty", "photos", "--methods", "gradcm"], "methods: unknown 'gradcm'"),
        (["evaluate", "empty", "photos", "--out", "file"], "found something that is no evaluation"),
        (["evaluate", "empty", "photos", "--out", "file/x"], "file is a file; name another folder"),
        (["evaluate", "empty", "photos", "--out", "/proc/x"], "/proc takes no files (No such"),
        # Images
        (["fit", "empty", *NETWORK], "empty: no images of two classes"),
        (["fit", "nowhere", *NETWORK], "nowhere: no such file or folder"),
        (["fit", "file", *NETWORK], "file: a file; expected a folder of class folders, or a CSV"),
        (["fit", "photos/red", *NETWORK], "photos/red: no images of two classes"),
        (["fit", "cut", *NETWORK], "red/00.png: unreadable image (image file is truncated)"),
        (["fit", "none", *NETWORK], "blue/00.png: unreadable image (it is an empty file)"),
        (["fit", "heads.csv", *NETWORK], "heads.csv: no image; expected images of two classes"),
        (["fit", "gone.csv", *NETWORK], "gone.csv, line 2: photos/red/99.png does not exist"),
        (["fit", "columns.csv", *NETWORK], "columns.csv, line 1: no column path, label"),
        (["fit", "above.csv", *NETWORK], "above.csv, line 2: '../../etc/passwd' is not a plain"),
        (["fit", "unnamed.csv", *NETWORK], "unnamed.csv, line 2: no label"),
        (["fit", "splits.csv", *NETWORK], "splits.csv, line 2: unknown split 'most'; valid are"),
        (["fit", "bytes.csv", *NETWORK], "bytes.csv, line 2: not UTF-8; save the table as"),
        # The network
        (["fit", "photos", "--model", "simple"], "simple has no trained weights"),
        (["fit", "photos", "--model", "colour_nets:None"], "the module has no None"),
        (["fit", "photos", "--model", "leaving_nets:Net"], "its import fails: SystemExit: 3"),
        (["fit", "photos", "--model", "odd_nets:Leaves"], "odd_nets:Leaves: SystemExit: 3"),
        (
            ["fit", "photos", "--model", "odd_nets:Complains"],
            "odd_nets:Complains: RuntimeError: no licence for this machine",
        ),
        (["fit", "photos", "--model", "odd_nets:Words", "--weights", "w.pt"], "it returns str"),
        (
            ["fit", "photos", "--model", "odd_nets:Flat", "--weights", "w.pt"],
            "it must return logits of shape (1, 2)",
        ),
        ([*FIT[:-1], "other.pt"], "other.pt: does not fit classifier colour_nets:Colour"),
        ([*FIT[:-1], "page.pt"], "page.pt: not a weights file that loads safely"),
        ([*FIT[:-1], "empty"], "empty: a folder; name the weights file in it"),
        # Settings
        ([*FIT, "--classes", "red", "red"], "classes is ['red', 'red']; each must be there once"),
        ([*FIT, "--classes", "red"], "classes lacks blue"),
        ([*FIT, "--mean", "1", "1"], "mean has 2 values; the images have 3 channel(s)"),
        ([*FIT, "--mean", "nan"], "check `activation`, `value_range`, `mean`, `std`"),
        ([*FIT, "--std", "0", "0", "0"], "std is [0.0, 0.0, 0.0]; each must be above 0"),
        ([*FIT, "--value-range", "1", "0"], "value_range is [1.0, 0.0]; it must be [low, high]"),
        ([*FIT, "--size", "0"], "size is 0; it must be from 1 to 2048"),
        ([*FIT, "--size", "100000"], "size is 100000; it must be from 1 to 2048"),
        ([*FIT, "--image-size", "0"], "image_size is 0; it must be from 8 to 2048"),
        ([*FIT, "--minutes", "nan"], "minutes is nan; it must be a number above 0"),
        ([*FIT, "--steps", "-1"], "steps is -1; it must be from 1 to"),
        ([*FIT, "--seed", "-1"], "seed is -1; it must be from 0 to"),
        ([*FIT, "--seed", "1" + 30 * "0"], "it must be from 0 to 9223372036854775807"),
        ([*FIT, "--device", "cuda:99"], "device is 'cuda:99'"),
        ([*FIT, "--outputs", "0", "7"], "outputs is [0, 7]; the network returns 2 outputs"),
        ([*FIT, "--field", "logits"], "field is 'logits'; the network returns a tensor"),
        # The folder of the result
        ([*FIT, "--out", "photos"], "photos: a folder with other files; name a new one"),
        ([*FIT, "--out", "file"], "file is a file; name another folder"),
        ([*FIT, "--out", "file/x"], "file is a file; name another folder"),
        ([*FIT, "--out", "/proc/x"], "/proc/x: /proc takes no files (No such file or directory)"),
        ([*FIT, "--out", "link"], "link is a link that leads nowhere; name another folder"),
        ([*FIT, "--out", "broken"], "broken/training/plan.json: damaged, no JSON"),
        ([*FIT, "--out", "strange"], "strange/training/plan.json: damaged; delete strange"),
    ],
)
def test_wrong_input_is_one_line(
    hostile: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    before = sorted(hostile.rglob("*"))
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and expected in error
    after = [path for path in sorted(hostile.rglob("*")) if "__pycache__" not in path.parts]
    assert after == [path for path in before if "__pycache__" not in path.parts]


def test_a_table_s_folder_may_hold_anything(hostile: Path) -> None:
    """Such as a link that leads nowhere: only what the table names is looked at."""
    (hostile / "loop").symlink_to(".")
    (hostile / "gone").symlink_to("nowhere")
    rows = [f"Photos/{label}/{i:02d}.png,{label}" for label in CLASSES for i in range(9)]
    (hostile / "list.csv").write_text("\n".join(["path,label", *rows]).replace("Photos", "photos"))
    assert main(["fit", "list.csv", *NETWORK, "--steps", "2"]) == 0
    assert (hostile / "explainer/model.pt").is_file()
