"""What code a model file, an entry and the command line may import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from dxai.config.profiles import load_profile
from dxai.explain.decomposition import DXAI
from dxai.models.classifiers import build_network
from dxai.models.decomposer import Decomposer
from dxai.models.serialization import ModelError, load_classifier, save_classifier, save_decomposer
from dxai.models.user_code import import_network, is_named

NETS = """
import helper_of_nets
from pathlib import Path
from subprocess import getoutput
from torch import nn
from torch.nn import Linear
LIMIT = 3
class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(3 * 16 * 16, 3))
def make():
    return Net()
def fails():
    raise KeyError("depth")
def other():
    return 3
def touch(path):
    Path(path).touch()
    return Path(path)
"""

LAZY = """
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        import sibling_nets
    def forward(self, x):
        from sibling_nets import doubled
        return doubled(x)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "nets_of_mine").mkdir()
    (tmp_path / "nets_of_mine/__init__.py").touch()
    (tmp_path / "nets_of_mine/small.py").write_text(NETS)
    (tmp_path / "helper_of_nets.py").touch()
    (tmp_path / "broken_nets.py").write_text("import torch\nclass Net(torch.nn.Module:\n")
    (tmp_path / "needy_nets.py").write_text("import no_such_package_at_all\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if "nets" in name:
            del sys.modules[name]


def test_the_working_folder_comes_first_for_the_import_and_last_afterwards(folder: Path) -> None:
    before = list(sys.path)
    with pytest.raises(ValueError, match="no module"):
        import_network("nets_of_mine.large:Net", [])
    assert sys.path == before
    for name in ("Net", "make", "Linear"):
        assert callable(import_network(f"nets_of_mine.small:{name}", []))
    assert sys.path == [*before, str(folder)]


def test_a_network_may_import_a_sibling_when_it_is_made_or_runs(folder: Path) -> None:
    (folder / "lazy_nets.py").write_text(LAZY)
    (folder / "sibling_nets.py").write_text("def doubled(x):\n    return 2 * x\n")
    network = build_network("lazy_nets:Net", 3, 3, 16)
    sys.modules.pop("sibling_nets")
    assert network(torch.ones(1)) == 2


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (
            "nets_of_mine.small:Nope",
            "the module has no Nope; it has Linear, Net, make, fails, other, touch",
        ),
        ("nets_of_mine.small:getoutput", "getoutput is neither a subclass of .* nor a function"),
        ("nets_of_mine.small:Path", "Path is neither"),
        ("nets_of_mine.small:LIMIT", "LIMIT is neither"),
        ("nets_of_mine.large:Net", "no module nets_of_mine.large, neither in /.* nor installed"),
        ("broken_nets:Net", "its import fails: SyntaxError: .*broken_nets.py, line 2"),
        ("needy_nets:Net", "its import fails: ModuleNotFoundError: No module named 'no_such_pa"),
        ("subprocess:getoutput", "Python's own subprocess holds no networks"),
        ("os.path:join", r"Python's own os\.path holds no networks"),
        ("nets", "unknown arch 'nets'; valid are simple, or package.module:name"),
    ],
)
def test_what_is_imported_is_a_class_of_networks_or_a_function_of_the_module(
    folder: Path, path: str, said: str
) -> None:
    with pytest.raises(ValueError, match=said) as error:
        import_network(path, ["simple"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [("fails", "KeyError: 'depth'"), ("other", "returns int, not a torch.nn.Module")],
)
def test_a_function_that_fails_is_named(folder: Path, name: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"classifier nets_of_mine.small:{name}: {said}"):
        build_network(f"nets_of_mine.small:{name}", 3, 3, 16)


def test_a_name_covers_a_module_a_package_or_one_import_path() -> None:
    assert is_named("a.b:C", ["a"])
    assert is_named("a.b:C", ["a.b"])
    assert is_named("a.b:C", ["a.b:C"])
    assert not is_named("a.b:C", [])
    assert not is_named("a.b:C", ["a.b:D", "a.c", "b", "a."])
    assert not is_named("ab:C", ["a"])


SETTINGS = {"channels": 3, "classes": 3, "image_size": 16, "branches": 2, "branch_width": 4}
SETTINGS |= {"coarsest": 8, "style_dim": 4, "latent_dim": 4, "mapping_width": 8}


def saved(folder: Path, arch: str, options: dict[str, Any]) -> Path:
    """The model file of a decomposition of the classifier `Net`, which names `arch`."""
    network = import_network("nets_of_mine.small:Net", [])()
    info = {"channels": 3, "class_names": ["a", "b", "c"], "image_size": 16}
    about = {"arch": arch, "options": options, **info, "network_range": [-1.0, 1.0]}
    (folder / "d").mkdir(exist_ok=True)
    (folder / "c").mkdir(exist_ok=True)
    decomposer = Decomposer(**SETTINGS)
    save_decomposer(
        folder / "d/model.pt", decomposer, {"settings": SETTINGS, **info}, network, about
    )
    save_classifier(folder / "c/model.pt", network, about)
    return folder / "d/model.pt"


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("subprocess:getoutput", {"cmd": "touch MARK"}),
        ("os:system", {"command": "touch MARK"}),
        ("evil_nets:make", {}),
    ],
)
def test_a_hostile_model_file_runs_nothing(
    folder: Path, arch: str, options: dict[str, Any]
) -> None:
    (folder / "evil_nets.py").write_text("open('MARK', 'w')\n")
    path = saved(folder, arch, options)
    for load, file in ((DXAI.load, path), (load_classifier, folder / "c")):
        with pytest.raises(
            ModelError, match=rf"its classifier is the code {arch}, which dxai does"
        ):
            load(file)
        with pytest.raises(ModelError, match="which dxai does not import unasked"):
            load(file, modules=["nets_of_mine"])
    assert not (folder / "MARK").exists()


def test_a_model_of_a_named_module_is_loaded(folder: Path) -> None:
    path = saved(folder, "nets_of_mine.small:make", {})
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    expected = DXAI.load(path, modules=["nets_of_mine.small:make"]).classifier(images)
    path = saved(folder, "nets_of_mine.small:Net", {})
    for name in ("nets_of_mine", "nets_of_mine.small", "nets_of_mine.small:Net"):
        for modules in (name, [name], iter([name])):
            assert DXAI.load(path, modules=modules).classifier(images).shape == expected.shape
        load_classifier(folder / "c", modules=name)


@pytest.mark.parametrize("modules", [["nets_of_mine"], "nets_of_mine.small", ["nets_of_mine.smal"]])
def test_a_function_is_called_only_if_its_import_path_is_named(
    folder: Path, modules: str | list[str]
) -> None:
    path = saved(folder, "nets_of_mine.small:touch", {"path": "MARK"})
    for load, file in ((DXAI.load, path), (load_classifier, folder / "c")):
        with pytest.raises(ModelError) as error:
            load(file, modules=modules)
        assert "name it: `--module nets_of_mine.small:touch`, or modules=['nets" in str(error.value)
    assert not (folder / "MARK").exists()
    with pytest.raises(ModelError, match="returns PosixPath, not a torch"):
        load_classifier(folder / "c", modules="nets_of_mine.small:touch")
    assert (folder / "MARK").exists()


def explained(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the console script, whose path does not have the working folder."""
    script = Path(sys.executable).with_name("dxai")
    command = [script, "explain", "image.png", "--model", "d", *more]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_the_command_imports_what_is_named_on_it_or_in_params_yaml(folder: Path) -> None:
    saved(folder, "nets_of_mine.small:Net", {})
    Image.new("RGB", (16, 16), "red").save(folder / "image.png")
    done = explained(folder)
    assert done.returncode == 1
    assert "which dxai does not import unasked" in done.stderr
    assert "Traceback" not in done.stderr
    assert "`--module nets_of_mine.small:Net`" in done.stderr
    done = explained(folder, "--module", "nets_of_mine")
    assert (done.returncode, done.stderr) == (0, "")
    mine = {"arch": "nets_of_mine.small:Net", "files": ["nets_of_mine"]}
    values = load_profile("smoke") | {"classifiers": {"mine": mine}, "joint": {}}
    values |= {"repeat": {"classifiers": [], "seeds": []}}
    values |= {"ablations": {"datasets": [], "classifiers": [], "variants": {}}}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    assert explained(folder).returncode == 0
    (folder / "params.yaml").write_text("- not a mapping")  # explaining needs no such file
    assert explained(folder, "--module", "nets_of_mine").returncode == 0
