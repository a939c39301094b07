"""Explainers that are given away: the same explanations, and no code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

import dxai
from dxai.cli.main import main
from dxai.models.classifiers import build_network
from dxai.models.decomposer import Decomposer
from dxai.models.serialization import ModelError, save_decomposer
from tests.fake_hub import Hub
from tests.servers import serving
from tests.small_explainer import pixels

SETTINGS: dict[str, Any] = {
    "channels": 3, "classes": 2, "image_size": 16, "branches": 2, "branch_width": 2,
    "coarsest": 8, "mapping_width": 8, "style_dim": 8, "latent_dim": 4,
}  # fmt: skip
ABOUT = {"class_names": ["a", "b"], "image_size": 16, "channels": 3, "value_range": [-1.0, 1.0]}
CODE = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, width, 3), nn.Linear(width, 2)
        self.tied = self.fc
    def forward(self, x):
        return self.tied(self.conv(x).relu().mean((2, 3)))
"""
FILES = {"config.json", "model.safetensors", "README.md"}


def written(folder: Path, network: nn.Module, **classifier: Any) -> Path:
    """An explainer with random weights as the pipeline writes it."""
    torch.manual_seed(3)
    info = {"settings": SETTINGS, "dataset": "shapes", "profile": "quick", "seed": 0, **ABOUT}
    decomposer = Decomposer(**SETTINGS)
    save_decomposer(folder / "model.pt", decomposer, info, network, {**ABOUT, **classifier})
    (folder / "metrics.json").write_text('{"psnr_db": 23.456789, "loss": {"rec": 1.0}}')
    return folder


@pytest.fixture
def built_in(tmp_path: Path) -> Path:
    torch.manual_seed(2)
    network = build_network("resnet18", 3, 2, 16, width=4)
    for buffer in network.buffers():  # as after a training
        buffer.copy_(torch.rand_like(buffer.float()) + 0.5)
    return written(tmp_path / "built_in", network, arch="resnet18", options={"width": 4})


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That of a user's own network, whose module lies in the working folder."""
    (tmp_path / "shared_net.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    made: dict[str, Any] = {}
    exec(CODE, made)
    info = {"arch": "shared_net:Net", "options": {"width": 5}, "adapter": {"mean": [0.5]}}
    info["network_range"] = [0.0, 1.0]
    network = made["Net"](width=5)
    state = nn.ModuleDict({"network": network})  # the adapter holds it under this name
    return written(tmp_path / "own", state, **info)


@pytest.fixture
def exported(fitted: tuple[dxai.DXAI, Path]) -> Path:
    return fitted[1]


def images() -> Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(5)) * 2 - 1


def explained(explainer: dxai.DXAI) -> list[Tensor]:
    """All numbers of both kinds of explanation."""
    neutral = explainer.explain(images())
    generated = explainer.explain(images(), kind="generated")
    return [neutral.distinct, neutral.agnostic, generated.psi, explainer.logits(images())]


def equal(first: dxai.DXAI, second: dxai.DXAI) -> bool:
    return all(map(torch.equal, explained(first), explained(second)))


@pytest.mark.parametrize("kind", ["built_in", "own", "exported"])
def test_a_shared_explainer_gives_the_same_bits(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    modules = "shared_net" if kind == "own" else ()
    old = dxai.DXAI.load(request.getfixturevalue(kind), seed=4, latents=2, modules=modules)
    assert old.save_pretrained(tmp_path / "new") is None
    new = dxai.DXAI.from_pretrained(tmp_path / "new", modules=modules)
    assert (new.seed, new.latents) == (4, 2)
    assert equal(old, new)
    other = dxai.DXAI.from_pretrained(tmp_path / "new", modules=modules, seed=0, latents=1)
    assert (other.seed, other.latents) == (0, 1)
    assert not torch.equal(other.latent([0]), old.latent([0]))
    new.save_pretrained(tmp_path / "again")
    for name in FILES - {"README.md"}:
        assert (tmp_path / "new" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_the_files_are_those_of_the_hub_s_format(built_in: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    old = dxai.DXAI.load(built_in)
    old.save_pretrained(tmp_path / "new")
    assert {path.name for path in (tmp_path / "new").iterdir()} == FILES | {"metrics.json"}
    config = json.loads((tmp_path / "new/config.json").read_text())
    assert config["info"]["settings"] == SETTINGS
    assert config["classifier"]["arch"] == "resnet18"
    with safe_open(tmp_path / "new/model.safetensors", "pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    expected = {f"classifier.{k}": v for k, v in old.classifier.state_dict().items()}
    expected |= {f"decomposer.{k}": v for k, v in old.decomposer.state_dict().items()}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_code_is_refused_unless_it_is_named(own: Path, tmp_path: Path) -> None:
    dxai.DXAI.load(own, modules="shared_net").save_pretrained(tmp_path / "new")
    sys.modules.pop("shared_net")
    with pytest.raises(ModelError, match=r"is the code shared_net:Net, which dxai does not import"):
        dxai.DXAI.from_pretrained(tmp_path / "new")
    assert "shared_net" not in sys.modules
    assert 'modules="shared_net:Net"' in (tmp_path / "new/README.md").read_text()


TAMPERED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "code": (lambda c: c["classifier"].update(arch="evil_net:Net"), "code evil_net:Net"),
    "Python's": (lambda c: c["classifier"].update(arch="os:system"), "code os:system"),
    "modules": (lambda c: c.update(modules="evil_net", classifier={"arch": "evil_net:N"}), "other"),
    "format": (lambda c: c.update(format=2), "format is 2; this version of dxai reads 1"),
    "kind": (lambda c: c.update(kind="classifier"), "holds classifier, not a decomposition"),
    "no classifier": (lambda c: c.pop("classifier"), "lacks info"),
    "settings": (lambda c: c["info"]["settings"].update(branches=3), "written for other settings"),
    "seed": (lambda c: c["explainer"].update(seed="x"), "seed is 'x'"),
}  # fmt: skip


@pytest.mark.parametrize("case", TAMPERED)
def test_a_tampered_config_is_an_error_of_a_line(
    case: str, built_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil_net.py").write_text("open('was_run', 'w')\n" + CODE)
    folder = tmp_path / "new"
    dxai.DXAI.load(built_in).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    change, said = TAMPERED[case]
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=re.escape(said)) as error:
        dxai.DXAI.from_pretrained(folder)
    assert "\n" not in str(error.value)
    assert not Path("was_run").exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_and_damaged_files_are_named(name: str, built_in: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    dxai.DXAI.load(built_in).save_pretrained(folder)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    for opens in (dxai.DXAI.from_pretrained, dxai.DXAI.load):
        with pytest.raises(ModelError, match=re.escape(name)) as error:
            opens(folder)
        assert "\n" not in str(error.value)
    (folder / name).unlink()
    with pytest.raises(ModelError, match=re.escape(name)):
        dxai.DXAI.from_pretrained(folder)


def test_the_card_says_what_is_known(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(pixels("red", 3, (20, 30))).save(tmp_path / "red.png")
    folder = tmp_path / "new"
    fields = {"image": tmp_path / "red.png", "license": "mit", "data": "Forty drawn images."}
    explainer = dxai.DXAI.load(exported)
    explainer.save_pretrained(folder, repo_id="me/colours", model_card_kwargs=fields)
    text = (folder / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head)["license"] == "mit"
    assert yaml.safe_load(head)["library_name"] == "dxai"
    fit = json.loads((folder / "fit.json").read_text())
    assert fit == json.loads((exported / "fit.json").read_text())
    assert all(f"- {line}\n" in body for line in fit["lines"])
    assert f"| auc_blur | {fit['verdict']['auc_blur']:.4g} |" in body
    assert "Forty drawn images." in body and "`blue`, `red`" in body
    assert "![" in body and "(explained.png)" in body
    shown = explainer.explain(tmp_path / "red.png")._repr_png_()
    assert (folder / "explained.png").read_bytes() == shown
    (code,) = re.findall(r"```python\n(.*?)```", body, re.DOTALL)
    (tmp_path / "red.png").rename(tmp_path / "my.jpg")
    monkeypatch.chdir(tmp_path)
    exec(code.replace("me/colours", str(folder)), {})
    # A card that a person has written to is left alone.
    (folder / "README.md").write_text("mine")
    explainer.save_pretrained(folder)
    assert (folder / "README.md").read_text() == "mine"


def test_without_numbers_or_picture_the_card_says_so(built_in: Path, tmp_path: Path) -> None:
    explainer = dxai.DXAI.load(built_in)
    explainer.save_pretrained(tmp_path / "one")
    text = (tmp_path / "one/README.md").read_text()
    assert "| psnr_db | 23.46 |" in text and "loss" not in text
    assert "dataset `shapes`" in text and "explained.png" not in text
    (built_in / "metrics.json").unlink()
    (tmp_path / "one/README.md").unlink()
    explainer.save_pretrained(tmp_path / "one")
    assert "give no numbers" in (tmp_path / "one/README.md").read_text()
    assert not (tmp_path / "one/metrics.json").exists()


def test_bad_input_is_an_error_of_a_line(built_in: Path, tmp_path: Path) -> None:
    explainer = dxai.DXAI.load(built_in)
    byhand = dxai.DXAI(explainer.decomposer, explainer.info, explainer.classifier)
    with pytest.raises(ValueError, match="put together by hand"):
        byhand.save_pretrained(tmp_path / "new")
    with pytest.raises(ValueError, match=r"model_card_kwargs.*licence"):
        explainer.save_pretrained(tmp_path / "new", model_card_kwargs={"licence": "mit"})
    with pytest.raises(ValueError, match="found several"):
        many = {"image": [pixels("red", 1), pixels("red", 2)]}
        explainer.save_pretrained(tmp_path / "new", model_card_kwargs=many)
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    for folder, said in (("file", "file is a file; name"), ("/proc/x", "/proc takes no files")):
        with pytest.raises(OSError, match=said):
            explainer.save_pretrained(tmp_path / folder)
        with pytest.raises(OSError, match=said):
            explainer.explain(pixels("red", 1)).save(tmp_path / folder / "a.png")
    with pytest.raises(ModelError, match="no such folder, and no repository"):
        dxai.DXAI.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"has no model\.safetensors; DXAI\.load opens"):
        dxai.DXAI.from_pretrained(built_in)


def test_the_command_explains_with_a_shared_explainer(
    built_in: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(tmp_path / "my.png")
    dxai.DXAI.load(built_in).save_pretrained(tmp_path / "new")
    found = []
    for model in (built_in, tmp_path / "new"):
        out = tmp_path / f"of_{model.name}"
        assert main(["explain", str(model), str(tmp_path / "my.png"), "--out", str(out)]) == 0
        found.append(json.loads((out / "my.json").read_text()))
    hashes = {one.pop("model_sha256") for one in found}
    assert len(hashes) == 2 and found[0] == found[1]


HUB = """
import sys
import torch
import dxai
from dxai.cli.main import main
folder, out = sys.argv[1:]
explainer = dxai.DXAI.load(folder)
card = {"model_card_kwargs": {"license": "mit"}}
print(explainer.push_to_hub("me/shapes", commit_message="First", token="hf_x", **card))
again = dxai.DXAI.from_pretrained("me/shapes", token=False)
images = torch.rand(2, 3, 16, 16)
found = [e.explain(images) for e in (explainer, again)]
assert torch.equal(found[0].distinct, found[1].distinct)
try:
    dxai.DXAI.from_pretrained("me/nothing")
except OSError as error:
    print(error)
assert main(["explain", "hf://me/shapes", f"{out}/my.png", "--out", out]) == 0
"""


def test_a_hub_takes_and_gives_an_explainer(built_in: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(tmp_path / "my.png")
    with serving(Hub()) as hub:
        hub.repos["me/shapes"] = {"model.pt": b"a pickle", "evil.py": b"1 / 0"}
        environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
        command = [sys.executable, "-c", HUB, str(built_in), str(tmp_path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    files = hub.repos["me/shapes"]
    assert files.keys() == FILES | {"metrics.json", "model.pt", "evil.py"}
    assert (hub.message, hub.token) == ("First", "Bearer hf_x")
    assert hub.cards == [files["README.md"].decode()]
    assert b'from_pretrained("me/shapes")' in files["README.md"]
    address, missing, *_ = done.stdout.splitlines()
    assert address.startswith(f"{hub.url}/me/shapes/commit/")
    assert missing.startswith("me/nothing: the hub refuses, or is not reached: ")
    # Only what is needed is downloaded.
    names = {path.name for path in (tmp_path / "hf").rglob("*") if path.is_symlink()}
    assert names == {"config.json", "model.safetensors", "metrics.json"}


def test_without_huggingface_hub_a_line_says_what_to_install(
    built_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    explainer = dxai.DXAI.load(built_in)
    explainer.save_pretrained(tmp_path / "new")
    assert equal(explainer, dxai.DXAI.from_pretrained(tmp_path / "new"))
    with pytest.raises(ValueError, match=r"not installed; `pip install 'dxai\[hub\]'`"):
        explainer.push_to_hub("me/shapes")
