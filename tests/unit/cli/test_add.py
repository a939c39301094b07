"""`dxai add`: entries of params.yaml, links, and one line for everything that does not fit."""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dxai.cli.entries import classifier_entry
from dxai.cli.main import _parser, main
from dxai.config.params_file import format_params, load_params, read_yaml
from dxai.config.profiles import select_profile
from dxai.config.settings import parse
from dxai.datasets.layouts.folder import FolderOptions
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
        assert not said.err and code == 0, said.err
        return said.out

    return run


@pytest.fixture
def refuse(project: Path, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Run `dxai add`, which must change nothing, and return its one line."""

    def files() -> dict[str, bytes]:
        return {
            str(path): path.read_bytes() if path.is_file() else b""
            for path in project.rglob("*")
            if not {".work", "__pycache__"} & {*path.parts} and path.name != "data"
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
    assert list(params.datasets) == ["photos"] and list(params.classifiers) == [
        "resnet18",
        "simple",
    ]
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
    assert any(line.startswith("next: dxai add classifier") for line in lines)


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


def test_folder_is_taken_where_a_release_refuses(project: Path, add: Add, refuse: Refuse) -> None:
    animals = project.parent / "animals"
    draw(animals, {"train": 12, "val": 3, "test": 3}, ("cat", "dog", "wild"))
    said = add("dataset", "animals", "../animals")
    assert load_params().datasets["animals"].layout == "folder"
    assert "it looks like the layout afhq, which refuses it: " in said and "take one" in said
    assert "take one" in refuse("dataset", "animals", "../animals", "--layout", "afhq")
    shutil.rmtree(animals / "test" / "cat")
    shutil.rmtree(animals / "val" / "cat")
    said = refuse("dataset", "animals", "../animals")
    assert "it fits the layout folder, too (--layout folder)" in said


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
    assert list(params.classifiers) == ["resnet18", "simple"] and not params.joint
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


# ------------------------------------------------------------------------------------ classifier
NETS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, classes=3, channels=3):
        super().__init__()
        self.conv = nn.Conv2d(channels, 1, 1, bias=False)
        self.fc = nn.Linear(1, classes)

    def forward(self, x):
        return self.fc(self.conv(x).mean((2, 3)))


class Softmax(Net):
    def forward(self, x):
        return super().forward(x).softmax(1)


class Detached(Net):
    def forward(self, x):
        return super().forward(x.detach())


class Frozen(Net):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)


class Half(Net):
    def __init__(self):
        super().__init__()
        self.half()

    def forward(self, x):
        return super().forward(x.half()).float()


def trained(path):
    network = Net()
    network.load_state_dict(torch.load(path))
    return network


width = 3
"""
LEVELS = (60 / 255, 120 / 255, 180 / 255)
"""The mean of each class, of values in [0, 1]; `Net` tells them apart exactly."""


def weights(order: tuple[int, ...] = (0, 1, 2)) -> dict[str, torch.Tensor]:
    """The classifier of the nearest mean of values in [0, 1], of classes in an order."""
    means = torch.tensor([LEVELS[k] for k in order])
    return {
        "conv.weight": torch.full((1, 3, 1, 1), 1 / 3),
        "fc.weight": 200 * means[:, None],
        "fc.bias": -100 * means**2,
    }


@functools.cache
def params_on_photos() -> str:
    """A params file as `dxai add dataset photos ../photos` writes it."""
    values = read_yaml(PROJECT / "params.yaml")
    options = parse(FolderOptions, {}, "options").model_dump()
    entry = {"layout": "folder", "source": "data/photos", "channels": 3, "options": options}
    return format_params(values | {"datasets": {"photos": entry}})


@pytest.fixture
def networks(project: Path) -> Path:
    """A project on `photos`, with a package of networks in it and files of weights outside."""
    (project / "params.yaml").write_text(params_on_photos())
    (project / "data").mkdir()
    (project / "data" / "photos").symlink_to(project.parent / "photos")
    package = project / f"nets_{project.parent.name}"  # imported once in a process
    package.mkdir()
    (package / "nets.py").write_text(NETS)
    torch.save(weights(), project.parent / "net.pt")
    torch.save(weights((2, 0, 1)), project.parent / "other.pt")
    return package


RANGE = ("--value-range", "0", "1")


def test_a_network_is_tried_linked_tracked_and_run(networks: Path, add: Add) -> None:
    said = add("classifier", "mine", f"{networks.name}.nets:Net", "--weights", "../net.pt", *RANGE)
    lines = said.splitlines()
    assert lines[0] == "classifier mine, photos: accuracy 1.00 on 24 images"
    # It decides by the mean, which grain moves towards mid-gray and hardly across a border.
    assert re.fullmatch(
        r"classifier mine, photos: random grain that only takes contrast away leaves "
        r"(0\.[89]\d|1\.00) of its accuracy on 24 images \(1\.00 if it also adds some\): Table 1 "
        "is valid for it",
        lines[1],
    )
    assert {"classifiers.resnet18: removed", "classifiers.mine: added"} <= set(lines)
    assert lines[-2:] == [
        "next: dvc repro decompose",
        "then: dxai explain --model artifacts/decompositions/photos/mine/0 IMAGE",
    ]
    params = load_params()
    assert list(params.classifiers) == ["mine"] and list(params.datasets) == ["photos"]
    spec = params.classifiers["mine"]
    assert (spec.arch, spec.weights) == (f"{networks.name}.nets:Net", "data/mine.pt")
    assert spec.files == ["data/mine.pt", networks.name]
    assert set(spec.files) <= set(params.network_files)
    assert Path("data/mine.pt").readlink() == networks.parent.parent / "net.pt"
    text = Path("params.yaml").read_bytes()
    again = add("classifier", "mine", f"{networks.name}.nets:Net", "--weights", "../net.pt", *RANGE)
    assert "params.yaml: nothing to change" in again and Path("params.yaml").read_bytes() == text


@pytest.mark.parametrize(
    ("arguments", "entry"),
    [
        (["--mean", "0.5", "--std", "0.2"], {"mean": [0.5], "std": [0.2]}),
        (["--mean", "-1", "0", "1e-1"], {"mean": [-1.0, 0.0, 0.1]}),
        (["--value-range", "0", "255"], {"value_range": [0.0, 255.0]}),
        (["--size", "224"], {"size": 224}),
        (["--classes", "zebra", "apple", "a b"], {"class_names": ["zebra", "apple", "a b"]}),
        (["--outputs", "4", "2"], {"outputs": [4, 2]}),
        (["--activation", "softmax"], {"activation": "softmax"}),
        (["--field", "scores"], {"field": "scores"}),
        (["--field", "1"], {"field": 1}),
        (["--no-train"], {"train": False}),
        (["--no-twin"], {"twin": False}),
        (
            ["--option", "depth=3", "--option", "x={a: [1]}"],
            {"options": {"depth": 3, "x": {"a": [1]}}},
        ),
        ([], {}),
    ],
)
def test_every_option_is_a_key_of_the_entry(arguments: list[str], entry: dict) -> None:
    options = _parser().parse_args(["add", "classifier", "mine", "nets:Net", *arguments])
    found, links = classifier_entry(options, "mine")
    assert found == {"arch": "nets:Net", "options": {}, "weights": None} | entry
    assert links == {}


def test_other_orders_and_values_are_told_and_taken(
    networks: Path, add: Add, refuse: Refuse
) -> None:
    net = ("classifier", "mine", f"{networks.name}.nets:Net")
    said = refuse(*net, "--weights", "../other.pt", *RANGE)
    assert "accuracy 0.00" in said and "class_names: [zebra, apple, cross]" in said
    assert not Path("data/mine.pt").is_symlink()
    add(*net, "--weights", "../other.pt", *RANGE, "--classes", "zebra", "apple", "cross")
    assert load_params().classifiers["mine"].class_names == ["zebra", "apple", "cross"]
    said = refuse("classifier", "soft", f"{networks.name}.nets:Softmax", "--weights", "../net.pt")
    assert "activation: softmax" in said
    said = refuse("classifier", "none", f"{networks.name}.nets:Detached", "--weights", "../net.pt")
    assert "gradient" in said


def test_a_network_without_weights_is_trained_here(networks: Path, add: Add) -> None:
    said = add("classifier", "mine", f"{networks.name}.nets:Net", "--keep")
    assert "classifier mine, photos: trained here from new weights" in said
    params = load_params()
    assert list(params.classifiers) == ["resnet18", "simple", "mine"]
    assert params.classifiers["mine"].trained_here
    add("classifier", "resnet18", "resnet18", "--option", "width=4")
    assert load_params().classifiers["resnet18"].options == {"width": 4}
    assert list(load_params().classifiers) == ["resnet18"]


def test_a_function_that_brings_weights_has_its_file_tracked(networks: Path, add: Add) -> None:
    add(
        *("classifier", "mine", f"{networks.name}.nets:trained", "--option", "path=../net.pt"),
        *("--no-train", "--no-twin", *RANGE),
    )
    spec = load_params().classifiers["mine"]
    assert spec.options == {"path": "data/mine-path.pt"}
    assert (spec.train, spec.twin) == (False, False)
    assert spec.files == [networks.name, "data/mine-path.pt"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["Frozen", "--no-twin"], "all its weights are frozen"),
        (["Half", "--no-twin"], "float16 is too coarse"),
        (["Half", "--weights", "../net.pt", *RANGE], "its twin: float16 is too coarse"),
        (["Net", "--no-train", "--no-twin"], "draws new weights whenever it is made"),
        (
            ["Net", "--weights", "../net.pt", *RANGE, "--twin", "../copy.pt"],
            "holds the weights of the classifier itself",
        ),
        (
            ["Net", "--weights", "../net.pt", *RANGE, "--twin", "../other.pt"],
            "its twin: accuracy",
        ),
    ],
)
def test_what_the_stage_refuses_is_refused_here(
    networks: Path, refuse: Refuse, arguments: list[str], said: str
) -> None:
    shutil.copy("../net.pt", "../copy.pt")
    name, *further = arguments
    assert said in refuse("classifier", "mine", f"{networks.name}.nets:{name}", *further)


def test_weights_that_a_function_brings_are_trained_on(networks: Path, add: Add) -> None:
    network = ("classifier", "mine", f"{networks.name}.nets:trained", "--option", "path=../net.pt")
    said = add(*network, *RANGE)
    assert "photos: trained here from the weights that it brings; `train: false` takes" in said


def test_a_twin_of_ones_own_is_linked_too(networks: Path, add: Add, refuse: Refuse) -> None:
    net = ("classifier", "mine", f"{networks.name}.nets:Net", "--weights", "../net.pt", *RANGE)
    torch.save(weights() | {"fc.bias": weights()["fc.bias"] + 1}, "../second.pt")
    add(*net, "--twin", "../second.pt")
    spec = load_params().classifiers["mine"]
    assert spec.twin == "data/mine-twin.pt" and "data/mine-twin.pt" in spec.files
    Path("data/mine-twin.pt").unlink()
    assert "same weights" in refuse(*net, "--twin", "../net.pt")
    torch.save({"fc.bias": torch.zeros(3)}, "../half.pt")
    assert "mine-twin.pt" in refuse(*net, "--twin", "../half.pt")


@pytest.mark.parametrize("kind", ["torch.export", "torchscript"])
def test_a_file_with_the_whole_network(
    project: Path, networks: Path, add: Add, refuse: Refuse, kind: str
) -> None:
    space: dict[str, Any] = {}
    exec(NETS, space)
    network = space["Net"]().eval()
    network.load_state_dict(weights())
    file = f"../net.{'pt2' if kind == 'torch.export' else 'ts'}"
    if kind == "torch.export":
        torch.export.save(torch.export.export(network, (torch.zeros(1, 3, 32, 32),)), file)
    else:
        torch.jit.trace(network, torch.zeros(1, 3, 32, 32)).save(file)
    assert "leave --weights out" in refuse("classifier", "mine", file, "--weights", "../net.pt")
    add("classifier", "mine", file, *RANGE)
    spec = load_params().classifiers["mine"]
    assert (spec.arch, spec.weights) == (kind, f"data/mine{Path(file).suffix}")


def test_larger_images_than_are_prepared_are_told(networks: Path, add: Add) -> None:
    said = add(
        *("classifier", "mine", f"{networks.name}.nets:Net", "--weights", "../net.pt", *RANGE),
        *("--size", "48"),
    )
    assert "images are prepared at 32 px and enlarged to 48; --set prepare.image_size=48" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.b", "NET"], ["'a.b'", "letter"]),
        (["mine", "NET", "--weights", "../nothing.pt"], ["../nothing.pt: no such file"]),
        (["mine", "NET", "--twin", "../nothing.pt"], ["../nothing.pt: no such file"]),
        (["mine", "resnet50"], ["'resnet50'", "resnet18"]),
        (["mine", "../nothing.pt2"], ["../nothing.pt2: no such file"]),
        (["mine", "../net.pt"], ["../net.pt", "--weights ../net.pt"]),
        (["mine", "PACKAGE/nets.py"], ["PACKAGE.nets:NAME"]),
        (["mine", "PACKAGE/nets.py:Net"], ["name it as Python imports it, PACKAGE.nets:Net"]),
        (["mine", "PACKAGE.nets:Nets"], ["no Nets", "Net"]),
        (["mine", "PACKAGE.nets:width"], ["PACKAGE.nets:width", "torch.nn.Module"]),
        (["mine", "nets_of_nobody:Net"], ["no module nets_of_nobody"]),
        (["mine", "NET", "--weights", "params.yaml"], ["params.yaml"]),
        (["mine", "NET", "--option", "depth=3"], ["depth"]),
        (["mine", "NET", "--option", "classes=4"], ["4 outputs", "3"]),
        (["mine", "NET", "--mean", "0", "0"], ["mean has 2 values"]),
        (["mine", "NET", "--std", "0"], ["std is [0.0]"]),
        (["mine", "NET", "--value-range", "1", "0"], ["value_range"]),
        (["mine", "NET", "--classes", "a", "b", "c"], ["class_names", "apple", "a, b, c"]),
        (["mine", "NET", "--outputs", "0", "1", "7"], ["outputs", "7"]),
        (["mine", "simple", "--no-train"], ["train is false", "simple"]),
        (["mine", "NET", "--set", "decompose.steps=0"], ["decompose.steps", "greater than 0"]),
    ],
)
def test_a_classifier_that_does_not_fit(
    networks: Path, refuse: Refuse, arguments: list[str], words: list[str]
) -> None:
    package = networks.name
    arguments = [
        a.replace("NET", f"{package}.nets:Net").replace("PACKAGE", package) for a in arguments
    ]
    said = refuse("classifier", *arguments)
    assert all(word.replace("PACKAGE", package) in said for word in words), said
    assert not Path("data/mine.pt").is_symlink()


def test_a_dataset_that_does_not_fit_the_network_is_told(
    networks: Path, add: Add, refuse: Refuse
) -> None:
    gray = ("classifier", "mine", f"{networks.name}.nets:Net", "--option", "channels=1")
    assert "it fits with `dxai use --set datasets.photos.channels=1`" in refuse(*gray)
    select_profile("params.yaml", overrides={"datasets.photos.channels": "1"})
    add(*gray)
    select_profile("params.yaml", "quick")
    said = refuse("classifier", "mine", f"{networks.name}.nets:Net")
    assert "dataset textures" in said and "`dxai add dataset NAME PATH`" in said


def test_it_is_tried_on_every_dataset(networks: Path, add: Add, refuse: Refuse) -> None:
    draw(networks.parent.parent / "others", {"train": 8, "test": 3}, ("a", "b"))
    add("dataset", "others", "../others", "--keep")
    said = refuse(
        "classifier", "mine", f"{networks.name}.nets:Net", "--weights", "../net.pt", *RANGE
    )
    assert "dataset others, classifier mine: " in said and "3 outputs" in said
