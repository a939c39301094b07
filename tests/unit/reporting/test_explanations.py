"""`dxai explain`: files for readable images, and messages about the others."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import entropy
from torch import Tensor, nn

from dxai.cli.main import main
from dxai.explain.decomposition import KINDS
from dxai.models.classifiers import build_network
from dxai.models.decomposer import Decomposer
from dxai.models.serialization import load_classifier, save_classifier, save_decomposer
from dxai.reporting.explanations import explain_files, find_removals, open_model, output_names

CLASSES = ["bright", "dark", "striped"]
SIZE = 16


def save_models(root: Path, channels: int = 1, certainty: float = 1.0) -> tuple[Path, Path]:
    """Save an untrained decomposition with its classifier, and that classifier alone.

    `certainty` multiplies the last weights of the classifier.
    """
    torch.manual_seed(0)
    classifier = build_network("simple", channels, len(CLASSES), SIZE).eval()
    with torch.no_grad():
        [*classifier.parameters()][-2].mul_(certainty)
    info = {"arch": "simple", "options": {}, "channels": channels, "class_names": CLASSES}
    info |= {"image_size": SIZE, "value_range": [-1.0, 1.0]}
    sizes = {"channels": channels, "classes": len(CLASSES), "image_size": SIZE}
    settings = sizes | {"branches": 2, "branch_width": 2, "coarsest": 8, "mapping_width": 8}
    decomposer = Decomposer(**settings)
    folder = root / "decomposition"
    folder.mkdir(parents=True)
    about = {"settings": settings, "class_names": CLASSES, "channels": channels}
    about |= {"image_size": SIZE, "value_range": [-1.0, 1.0], "seed": 0}
    save_decomposer(folder / "model.pt", decomposer, about, classifier, info)
    save_classifier(root / "classifier.pt", classifier, info)
    return folder, root / "classifier.pt"


def save_image(path: Path, seed: int = 0, size: int = 20) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_models(tmp_path_factory.mktemp("models"))[0]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_and_the_numbers_of_each_image(
    tmp_path: Path, channels: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, classifier = save_models(tmp_path, channels)
    images = [save_image(tmp_path / f"in/{name}.png", i) for i, name in enumerate("ab")]
    out = tmp_path / "out"
    assert main(["explain", "--model", str(folder), "--out", str(out), *map(str, images)]) == 0
    names = ["a.json", "a.png", "b.json", "b.png", "index.html"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert capsys.readouterr().out.splitlines()[-1] == str(out / "index.html")
    assert Image.open(out / "a.png").size[0] > 800
    found = json.loads((out / "a.json").read_text())
    # The same, worked out without the command.
    network, _ = load_classifier(classifier)
    pixels = Image.open(images[0]).convert("L" if channels == 1 else "RGB").resize((SIZE, SIZE), 3)
    x = torch.tensor(np.asarray(pixels, dtype=np.float32) / 127.5 - 1).reshape(SIZE, SIZE, -1)
    model = open_model(str(folder))
    parts = model.explainer.explain(x.permute(2, 0, 1)[None])
    for name, shown in {
        "input": parts.image,
        "class-agnostic": parts.agnostic,
        "reconstruction": parts.reconstruction,
    }.items():
        expected = dict(zip(CLASSES, network(shown).softmax(1)[0].tolist(), strict=True))
        assert found["probabilities"][name] == pytest.approx(expected, abs=1e-5)
    predicted = max(CLASSES, key=found["probabilities"]["input"].get)
    assert found["predicted_class"] == found["explained_class"] == predicted
    assert found["kind"] == "neutral"
    answer = np.array(list(found["probabilities"]["class-agnostic"].values()))
    assert found["neutrality"] == pytest.approx(entropy(answer) / np.log(len(CLASSES)), abs=1e-5)
    mse = float((parts.error**2).mean())
    assert found["psnr_db"] == pytest.approx(10 * np.log10(4 / mse), abs=1e-3)
    assert found["mean_abs_distinct"] == pytest.approx(float(parts.distinct.abs().mean()), abs=1e-6)
    digest = hashlib.sha256((folder / "model.pt").read_bytes()).hexdigest()
    assert (found["model_sha256"], found["latent_seed"]) == (digest, 0)


def test_an_explanation_does_not_depend_on_its_neighbours(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dxai.reporting.explanations.BATCH", 2)
    images = [str(save_image(tmp_path / f"{i}.png", i)) for i in range(4)]
    model = open_model(str(folder))
    explain_files(model, images, tmp_path / "all")
    explain_files(model, images[-1:], tmp_path / "one")
    together = json.loads((tmp_path / "all/3.json").read_text())
    alone = json.loads((tmp_path / "one/3.json").read_text())
    for name, values in alone["probabilities"].items():
        assert together["probabilities"][name] == pytest.approx(values, abs=1e-5)
    assert together["psnr_db"] == pytest.approx(alone["psnr_db"], abs=1e-3)
    assert len(list((tmp_path / "all").glob("?.*"))) == 8


def test_the_class_and_the_latent_can_be_chosen(folder: Path, tmp_path: Path) -> None:
    image = str(save_image(tmp_path / "a.png"))
    options = ["--model", str(folder), "--class", "striped", image]
    found = []
    for seed in ("0", "1"):
        assert main(["explain", "--out", str(tmp_path / seed), "--seed", seed, *options]) == 0
        found.append(json.loads((tmp_path / seed / "a.json").read_text()))
    assert [f["explained_class"] for f in found] == ["striped", "striped"]
    assert found[0]["mean_abs_distinct"] != found[1]["mean_abs_distinct"]


def test_an_unknown_class_lists_the_valid_ones(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(save_image(tmp_path / "a.png"))
    out = tmp_path / "out"
    code = main(["explain", "--model", str(folder), "--class", "cat", "--out", str(out), image])
    assert code == 1 and not out.exists()
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and all(name in error for name in ["'cat'", *CLASSES])


def test_unreadable_images_are_named_and_the_others_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = save_image(tmp_path / "good.png")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:60])
    files = [str(tmp_path / name) for name in ("text.png", "good.png", "cut.png", "absent.png")]
    out = tmp_path / "out"
    assert main(["explain", "--model", str(folder), "--out", str(out), *files]) == 1
    names = sorted(path.name for path in out.iterdir())
    assert names == ["good.json", "good.png", "index.html"]
    page = (out / "index.html").read_text()
    assert page.count("<h2>") == page.count("<h2>good.png</h2>") == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    for name, line in zip(("text.png", "cut.png", "absent.png"), errors, strict=True):
        assert line.startswith("error: ") and name in line


def test_names_never_clash_and_no_input_is_overwritten(folder: Path, tmp_path: Path) -> None:
    names = ["a/x.png", "b/x.jpg", "b/X.png", "a/x-2.png", "out/y.png"]
    files = [str(save_image(tmp_path / name)) for name in names]
    before = Path(files[-1]).read_bytes()
    stems = output_names(files, tmp_path / "out")
    assert [stems[file] for file in files] == ["x", "x-2", "X-3", "x-2-2", "y-2"]
    assert explain_files(open_model(str(folder)), files, tmp_path / "out") == 0
    assert Path(files[-1]).read_bytes() == before
    assert len(list((tmp_path / "out").glob("*.json"))) == len(files)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", [None, 2])
def test_what_can_be_removed_is_asked_at_every_level(
    tmp_path: Path, kind: str, target: int | None
) -> None:
    explainer = open_model(str(save_models(tmp_path, certainty=100)[0])).explainer
    images = torch.rand(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    index = torch.tensor([0, 0])
    wanted = None if target is None else torch.tensor([target, target])
    found = find_removals(explainer, images, wanted, index, kind, choices=2)
    with torch.no_grad():
        order = explainer.classifier(images).argsort(1).flip(1).tolist()
    other = [name for name in KINDS if name != kind]
    for i, removals in enumerate(found):
        first = order[i][0] if target is None else target
        classes = [first, next(k for k in order[i] if k != first)]
        assert [(one.class_name, one.kind) for one in removals] == [
            (CLASSES[k], name) for k in classes for name in [kind, *other]
        ]
        for one in removals:
            label = torch.tensor([CLASSES.index(one.class_name)])
            parts = explainer.explain(images[i : i + 1], label, index[:1], one.kind)
            np.testing.assert_allclose(one.distinct, parts.distinct[0], atol=1e-4)
            for beta, answer in ((0, one.probabilities[0]), (0.35, one.probabilities[7])):
                rest = images[i : i + 1] - beta * torch.tensor(one.distinct)
                with torch.no_grad():
                    alone = explainer.classifier(rest)
                np.testing.assert_allclose(answer, alone.softmax(1)[0], atol=1e-4)
            assert one.probabilities.shape == (21, len(CLASSES))


def test_a_page_of_someone_else_stops_before_any_work(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(save_image(tmp_path / "a.png"))
    (tmp_path / "index.html").write_text("my site")
    assert main(["explain", "--model", str(folder), "--out", str(tmp_path), image]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "index.html: found a file that dxai did not write" in error
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "index.html"}


def test_a_folder_that_takes_no_files_stops_before_any_work(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(save_image(tmp_path / "a.png"))
    for out, said in ((image, "is a file; name"), ("/proc/x", "/proc takes no files (")):
        assert main(["explain", "--model", str(folder), "--out", out, image]) == 1
        found = capsys.readouterr()
        assert found.out == "" and found.err.count("\n") == 1 and said in found.err
    # What stands in the way of a file is named, too.
    (tmp_path / "out/a.json").mkdir(parents=True)
    assert main(["explain", "--model", str(folder), "--out", str(tmp_path / "out"), image]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path}/out/a.json: Is a directory\n"


def test_another_classifier_can_be_asked(folder: Path, tmp_path: Path) -> None:
    class Sure(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([0.0, 0.0, 9.0]).expand(len(x), 3)

    image = str(save_image(tmp_path / "a.png"))
    torch.manual_seed(5)
    info = {"arch": "simple", "options": {}, "channels": 1, "class_names": CLASSES}
    other = build_network("simple", 1, 3, SIZE)
    save_classifier(tmp_path / "other.pt", other, info | {"image_size": SIZE})
    model = open_model(str(folder), str(tmp_path / "other.pt"))
    explain_files(model, [image], tmp_path / "out")
    found = json.loads((tmp_path / "out/a.json").read_text())
    explain_files(open_model(str(folder)), [image], tmp_path / "own")
    own = json.loads((tmp_path / "own/a.json").read_text())
    assert found["probabilities"]["input"] != own["probabilities"]["input"]
    model.explainer.classifier = Sure()
    explain_files(model, [image], tmp_path / "out")
    assert json.loads((tmp_path / "out/a.json").read_text())["predicted_class"] == "striped"


@pytest.mark.parametrize(
    ("key", "value"), [("class_names", ["cat", "dog", "cow"]), ("image_size", 32), ("channels", 3)]
)
def test_a_classifier_for_other_images_is_refused(
    folder: Path, tmp_path: Path, key: str, value: object
) -> None:
    info = {"arch": "simple", "options": {}, "channels": 1, "class_names": CLASSES}
    info |= {"image_size": SIZE, key: value}
    size, channels = int(str(info["image_size"])), int(str(info["channels"]))
    save_classifier(tmp_path / "c.pt", build_network("simple", channels, 3, size), info)
    with pytest.raises(ValueError, match=rf"c\.pt: {key}"):
        open_model(str(folder), str(tmp_path / "c.pt"))


@pytest.mark.parametrize("source", ["nowhere", "a/b.pt"])
def test_a_model_that_is_not_there_is_named(
    source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", "--model", source, "a.png"]) == 1
    assert capsys.readouterr().err == (
        f"error: {source}: no such file or folder, MLflow run id, runs:/ URI or hf://owner/name\n"
    )


def test_a_file_that_is_no_decomposition_is_named(tmp_path: Path) -> None:
    _, classifier = save_models(tmp_path)
    with pytest.raises(ValueError, match=r"classifier\.pt.*not a decomposition"):
        open_model(str(classifier))
