"""`dxai add`: entries of params.yaml, links, and one line for everything that does not fit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dxai.cli.main import main
from dxai.config.params_file import load_params
from tests.unit.datasets.conftest import draw_few

PROJECT = Path(__file__).parents[3]
CLASSES = ("apple", "cross", "zebra")
Add = Callable[..., str]
Refuse = Callable[..., str]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project beside the folder `photos`; the commands run in it."""
    root = tmp_path / "project"
    root.mkdir()
    shutil.copy(PROJECT / "params.yaml", root)
    monkeypatch.chdir(root)
    draw(tmp_path / "photos", {"train": 8, "test": 3})
    return root


def draw(folder: Path, counts: dict[str, int], classes: tuple[str, ...] = CLASSES) -> None:
    """Write `<split>/<class>/*.png`: noise whose mean is the class."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        for label, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.normal(60 + 60 * label, 10, (20, 20, 3)).clip(0, 255)
                Image.fromarray(pixels.astype("uint8")).save(folder / split / name / f"{i}.png")


@pytest.fixture
def add(project: Path, capsys: pytest.CaptureFixture[str]) -> Add:
    """Run `dxai add`, and return what it printed."""

    def run(*arguments: str) -> str:
        code = main(["add", *arguments])
        said = capsys.readouterr()
        assert (code, said.err) == (0, "")
        return said.out

    return run


@pytest.fixture
def refuse(project: Path, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Run `dxai add`, which must change nothing, and return its one line."""

    def files() -> dict[str, bytes]:
        return {
            str(path): path.read_bytes() if path.is_file() else b""
            for path in project.rglob("*")
            if ".work" not in path.parts and path.name != "data"
        }

    def run(*arguments: str) -> str:
        before = files()
        code = main(["add", *arguments])
        said = capsys.readouterr()
        assert (code, said.out, said.err.count("\n")) == (1, "", 1)
        assert said.err.startswith("error: ")
        assert files() == before
        return said.err

    return run


# ------------------------------------------------------------------------------------ dataset
def test_a_folder_outside_is_recognised_counted_linked_and_run(project: Path, add: Add) -> None:
    said = add("dataset", "photos", "../photos")
    assert (project / "data" / "photos").readlink() == project.parent / "photos"
    params = load_params()
    assert list(params.datasets) == ["photos"] and list(params.classifiers) == ["resnet18"]
    dataset = params.datasets["photos"]
    assert (dataset.layout, dataset.source, dataset.channels) == ("folder", "data/photos", 3)
    assert dataset.options == {
        "validation": 0.15,
        "seed": 0,
        "group": None,
        "classes": None,
        "table": None,
    }
    lines = said.splitlines()
    assert "  train: 21 (apple 7, cross 7, zebra 7)" in lines
    assert "  validation: 3 (apple 1, cross 1, zebra 1)" in lines
    assert "  test: 9 (apple 3, cross 3, zebra 3)" in lines
    assert {"datasets.textures: removed", "datasets.photos: added"} <= set(lines)
    assert any(line.startswith("next: ") for line in lines)


def test_a_folder_inside_is_named_as_it_is(project: Path, add: Add) -> None:
    shutil.copytree(project.parent / "photos", project / "raw" / "a b")
    said = add("dataset", "photos", str(project / "raw" / "a b"))
    assert load_params().datasets["photos"].source == "raw/a b"
    assert not (project / "data").exists() and "leads to" not in said


def test_a_csv_file_outside_is_linked_with_its_folder(project: Path, add: Add) -> None:
    photos = project.parent / "photos"
    rows = [
        f"{path.relative_to(photos)},{path.parent.name},{path.parent.parent.name}"
        for path in sorted(photos.rglob("*.png"))
    ]
    (photos / "list.csv").write_text("\n".join(["path,label,split", *rows]))
    add("dataset", "photos", "../photos/list.csv")
    dataset = load_params().datasets["photos"]
    assert (dataset.layout, dataset.source) == ("folder", "data/photos")
    assert dataset.options["table"] == "list.csv"
    assert (project / "data" / "photos").readlink() == photos


def test_a_layout_of_a_release_goes_before_folder_and_says_so(project: Path, add: Add) -> None:
    draw(project.parent / "animals", {"train": 12, "test": 3}, ("cat", "dog", "wild"))
    said = add("dataset", "animals", "../animals")
    assert load_params().datasets["animals"].layout == "afhq"
    assert "it fits the layout folder, too (--layout folder)" in said
    add("dataset", "animals", "../animals", "--layout", "folder")
    assert load_params().datasets["animals"].layout == "folder"


def test_a_sample_takes_its_layouts_channels_and_overrides(
    add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_few(monkeypatch)
    assert "any split" not in add("dataset", "mri", "sample", "--layout", "brats")
    assert load_params().datasets["mri"].channels == 1
    add("dataset", "noisy", "sample", "--layout", "noise")
    assert load_params().classifier_for("noisy").noise == 0.0


def test_options_settings_and_profile(add: Add) -> None:
    add(
        *("dataset", "photos", "../photos", "--channels", "1", "--option", "validation=0.3"),
        *("--option", "classes=[zebra, apple]", "--profile", "smoke"),
        *("--set", "prepare.image_size=20"),
    )
    params = load_params()
    dataset = params.datasets["photos"]
    assert dataset.channels == 1
    assert dataset.options["validation"] == 0.3 and dataset.options["classes"] == ["zebra", "apple"]
    assert (params.profile, params.prepare.image_size) == ("smoke", 20)
    assert params.decompose.steps == 20
    # What was chosen stays: the profile gives the settings alone.
    assert list(params.classifiers) == ["resnet18"] and not params.joint
    assert params.repeat.classifiers == ["resnet18"] and params.ablations.datasets == []


def test_the_same_name_again_says_what_changed(project: Path, add: Add) -> None:
    add("dataset", "photos", "../photos")
    text = (project / "params.yaml").read_bytes()
    assert "params.yaml: nothing to change" in add("dataset", "photos", "../photos")
    assert (project / "params.yaml").read_bytes() == text
    said = add("dataset", "photos", "../photos", "--channels", "1")
    assert "datasets.photos.channels: 3 -> 1" in said.splitlines()
    add("dataset", "others", "../photos", "--keep")
    assert list(load_params().datasets) == ["photos", "others"]
    said = add("dataset", "photos", "../photos")
    assert "datasets.others: removed" in said.splitlines()
    assert list(load_params().datasets) == ["photos"]


def test_what_is_left_out_is_counted(project: Path, add: Add) -> None:
    (project.parent / "photos" / "train" / "apple" / "notes.txt").write_text("")
    assert "  left out: 1 (" in add("dataset", "photos", "../photos")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a/b", "../photos"], ["'a/b'", "letter"]),
        (["a.b", "../photos"], ["'a.b'", "letter"]),
        (["2024", "../photos"], ["'2024'", "letter"]),
        (["a b", "../photos"], ["'a b'", "letter"]),
        (["a" * 65, "../photos"], ["64"]),
        (["", "../photos"], ["''"]),
        (["prepared", "../photos"], ["data/prepared", "another name"]),
        (["photos", "../nothing"], ["../nothing: no such file or folder"]),
        (["photos", "$NOT_SET_ANYWHERE/x"], ["NOT_SET_ANYWHERE is not set"]),
        (["photos", "params.yaml"], ["params.yaml: a file", "CSV"]),
        (["photos", ".."], ["holds the project"]),
        (["photos", "."], ["holds the project"]),
        (["photos", "../photos/train"], ["looked for", "folder: train/CLASS"]),
        (["photos", "../photos", "--layout", "foldr"], ["'foldr'", "folder"]),
        (["photos", "../photos", "--layout", "afhq"], ["cat"]),
        (["photos", "../photos", "--channels", "4"], ["datasets.photos", "channels is 4"]),
        (["photos", "../photos", "--option", "seeds=1"], ["'seeds'", "seed"]),
        (["photos", "../photos", "--option", "seed=[1"], ["seed", "YAML"]),
        (["photos", "../photos", "--option", "validation=2"], ["validation", "less than 1"]),
        (["photos", "../photos", "--profile", "huge"], ["'huge'", "quick"]),
        (["photos", "../photos", "--set", "decompose.stepz=1"], ["'stepz'", "steps"]),
        (["photos", "../photos", "--option", "classes=[apple, pear]"], ["pear", "zebra"]),
        (["photos", "sample"], ["--layout"]),
        (["photos", "s3://key:secret@bucket/x"], ["credentials"]),
    ],
)
def test_a_dataset_that_does_not_fit(
    refuse: Refuse, arguments: list[str], words: list[str]
) -> None:
    said = refuse("dataset", *arguments)
    assert all(word in said for word in words), said


def test_a_folder_that_the_project_writes_to_is_no_source(project: Path, refuse: Refuse) -> None:
    (project / "data" / "prepared" / "x").mkdir(parents=True)
    assert "data/prepared" in refuse("dataset", "photos", "data/prepared/x")
    assert "data/prepared" in refuse("dataset", "photos", "data")


@pytest.mark.parametrize("taken", ["link", "folder", "dangling"])
def test_no_link_or_folder_is_overwritten(project: Path, refuse: Refuse, taken: str) -> None:
    link = project / "data" / "photos"
    link.parent.mkdir()
    if taken == "folder":
        link.mkdir()
    else:
        link.symlink_to(project.parent if taken == "link" else "nowhere")
    assert "data/photos" in refuse("dataset", "photos", "../photos")


def test_outside_of_a_project(project: Path, refuse: Refuse) -> None:
    (project / "params.yaml").unlink()
    assert "run in the project's folder" in refuse("dataset", "photos", "../photos")


def test_a_file_that_cannot_be_written_leaves_no_link(
    project: Path, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dxai.config.profiles.format_params", full)
    assert "No space" in refuse("dataset", "photos", "../photos")
    assert not (project / "data" / "photos").is_symlink()
