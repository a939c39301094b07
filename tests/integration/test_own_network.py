"""From a folder and a network to a correct explanation, by the commands of the README."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from dxai.cli.main import main
from dxai.reporting import figures
from tests.integration.conftest import ROOT, Project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CLASSES = ("apple", "cross", "zebra")
ORDER = ("zebra", "apple", "cross")
"""The classes in the network's order."""
PREPARED, SIDE = 64, 224
"""Pixels of a prepared image (the README's setting), and of an image that the network takes."""
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
MODULE = '''
from torch import nn


class Net(nn.Module):
    """A network for images of 224 pixels, standardised by ImageNet's mean and deviation."""

    def __init__(self, classes=3, width=16):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 8, 4, 2), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU(),
        )
        self.fc = nn.Linear(2 * width, classes)

    def forward(self, x):
        return self.fc(self.features(x).amax((2, 3)))
'''


def commands() -> list[str]:
    """The README's block of commands that begins with `dxai add`."""
    blocks = re.findall(r"(?:^ {4}.*\n)+", (ROOT / "README.md").read_text(), re.MULTILINE)
    (block,) = [block for block in blocks if "dxai add dataset" in block]
    return re.sub(r"\\\n\s*", "", re.sub(r"^ {4}", "", block, flags=re.MULTILINE)).splitlines()


def picture(name: str, rng: np.random.Generator) -> np.ndarray:
    """A red disk, a white cross or dark stripes on noise: (72, 96, 3), uint8."""
    image = rng.normal(110, 20, (72, 96, 3))
    y, x = np.mgrid[:72, :96]
    cy, cx = rng.integers(25, 47), rng.integers(35, 61)
    if name == "apple":
        image[(y - cy) ** 2 + (x - cx) ** 2 < 15**2] = (200, 40, 40)
    elif name == "cross":
        arms = (abs(y - cy) < 4) & (abs(x - cx) < 17) | (abs(x - cx) < 4) & (abs(y - cy) < 17)
        image[arms] = (240, 240, 240)
    else:
        image[(x + y + cx) % 14 < 5] *= 0.4
    return image.clip(0, 255).astype(np.uint8)


def read(file: Path, side: int) -> Tensor:
    """The centred square of a photograph, as users read it: (1, 3, side, side) in [0, 1]."""
    with Image.open(file) as image:
        left = (image.width - image.height) // 2
        square = image.convert("RGB").crop((left, 0, left + image.height, image.height))
        pixels = np.array(square.resize((side, side), Image.Resampling.BICUBIC))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255


def standardised(x: Tensor) -> Tensor:
    return (x - MEAN[:, None, None]) / STD[:, None, None]


@dataclass
class Own:
    """A project and, in the user's home outside of it, photographs and a trained network."""

    project: Project
    home: Path
    network: nn.Module

    def run(self, command: str) -> str:
        """A line of the shell in the project's folder."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.project.root,
            env=self.project.environment | {"HOME": str(self.home)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def by_hand(self, file: Path) -> dict[str, float]:
        """The probabilities of a photograph, by the network as its author calls it."""
        x = F.interpolate(read(file, PREPARED), (SIDE, SIDE), mode="bilinear")
        with torch.no_grad():
            probabilities = self.network(standardised(x)).softmax(1)[0].tolist()
        return dict(zip(ORDER, probabilities, strict=True))


@pytest.fixture(scope="module")
def own(make_project: Callable[..., Project], tmp_path_factory: pytest.TempPathFactory) -> Own:
    project, home = make_project(), tmp_path_factory.mktemp("home")
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 6)):
        for name in CLASSES:
            folder = home / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(picture(name, rng)).save(folder / f"{i}.jpg", quality=95)
    package = project.root / "my_package"
    package.mkdir()
    (package / "nets.py").write_text(MODULE)
    spec = importlib.util.spec_from_file_location("nets_of_the_author", package / "nets.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = trained(module.Net(), home / "photos")
    torch.save(network.state_dict(), home / "net.pt")
    return Own(project, home, network)


def trained(network: nn.Module, photos: Path) -> nn.Module:
    """Train as an author does who knows nothing of this project."""
    torch.manual_seed(0)
    files = [
        (file, k) for k, name in enumerate(ORDER) for file in (photos / "train" / name).iterdir()
    ]
    x = standardised(torch.cat([read(file, SIDE) for file, _ in files]))
    y = torch.tensor([label for _, label in files])
    adam = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(40):
        pick = torch.randperm(len(x))[:24]
        loss = F.cross_entropy(network(x[pick]), y[pick])
        adam.zero_grad()
        loss.backward()
        adam.step()
    return network.eval()


@pytest.fixture(scope="module")
def said(own: Own) -> list[str]:
    """Run the README's commands and return what each prints."""
    return [own.run(command) for command in commands()]


def test_the_commands_of_the_readme_explain_a_network_correctly(
    own: Own, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, lines = own.project.root, commands()
    assert len(lines) <= 4
    assert "train: 102 (apple 34, cross 34, zebra 34)" in said[0]
    accuracy = re.search(r"photos: accuracy (\d\.\d+) on \d+ images", said[1])
    assert accuracy is not None and float(accuracy[1]) > 0.9
    assert "Running stage 'decompose@photos-mine-0'" in said[2]
    changed = {line[3:] for line in own.run("git status --porcelain").splitlines()}
    written = {"params.yaml", "dvc.lock", "data/photos", "data/mine.pt", "explanations/"}
    assert changed <= written | {"my_package/"}
    assert all(link.is_symlink() for link in (root / "data/photos", root / "data/mine.pt"))
    photos = sorted((own.home / "photos/test/zebra").iterdir())
    right = 0
    for file in photos:
        found = json.loads((root / f"explanations/{file.stem}.json").read_text())
        wanted = own.by_hand(file)
        assert found["probabilities"]["input"] == pytest.approx(wanted, abs=1e-4)
        assert found["predicted_class"] == found["explained_class"] == max(wanted, key=wanted.get)
        right += found["predicted_class"] == "zebra"
    assert right >= 0.9 * len(photos)
    # The picture says the same: it is drawn again, and its words are noted.
    words: list[str] = []
    write = figures._Sheet.text

    def noting(sheet: figures._Sheet, x: float, y: float, text: str, *how: Any) -> figures.Box:
        words.append(text)
        return write(sheet, x, y, text, *how)

    monkeypatch.setattr(figures._Sheet, "text", noting)
    monkeypatch.chdir(root)
    explain = shlex.split(lines[-1])[1:-1]
    assert main([*explain, str(photos[0]), "--out", "again"]) == 0
    drawn = Path("again") / f"{photos[0].stem}.png"
    assert drawn.read_bytes() == Path(f"explanations/{photos[0].stem}.png").read_bytes()
    assert "class-distinct: zebra" in words and {*CLASSES} <= set(words)
    assert {f"{p:.2f}" for p in own.by_hand(photos[0]).values()} <= set(words)


@pytest.mark.usefixtures("said")
def test_edited_code_and_replaced_weights_train_again(own: Own) -> None:
    repro = commands()[2]
    assert "Running stage" not in own.run(repro)
    code = own.project.root / "my_package/nets.py"
    code.write_text(code.read_text() + "\n")
    assert "Running stage 'decompose@photos-mine-0'" in own.run(repro)
    assert "Running stage" not in own.run(repro)
    state = torch.load(own.home / "net.pt")
    state["fc.bias"] += 0.01
    torch.save(state, own.home / "net.pt")
    assert "Running stage 'decompose@photos-mine-0'" in own.run(repro)
