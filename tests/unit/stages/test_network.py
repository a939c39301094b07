"""The stage `network` in a real DVC: what reruns when a file of a classifier changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dxai.config.params_file import format_params, load_params
from dxai.config.profiles import load_profile, select_profile
from dxai.config.settings import ParamsError
from dxai.paths import Paths
from dxai.stages import network

ROOT = Path(__file__).parents[3]
MINE = {"arch": "my_package.nets:Net", "weights": "weights/my best=1.pt"}
FILES = ["dxai/models/classifiers.py", "weights/my best=1.pt", "my_package"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the classifier `mine`, a built-in one, and their files."""
    (tmp_path / "my_package/__pycache__").mkdir(parents=True)
    (tmp_path / "my_package/nets.py").write_text("Net = 1\n")
    (tmp_path / "my_package/__pycache__/nets.pyc").write_text("1")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/my best=1.pt").write_text("1")
    (tmp_path / "dxai").symlink_to(ROOT / "dxai")
    (tmp_path / "params.yaml").write_text(format_params(load_profile("smoke")))
    monkeypatch.chdir(tmp_path)
    params = yaml.safe_load((tmp_path / "params.yaml").read_text())
    params["classifiers"] |= {"mine": MINE}
    (tmp_path / "params.yaml").write_text(format_params(params))
    select_profile("params.yaml", classifiers=["simple", "mine"])
    return tmp_path


def test_use_lists_the_files(project: Path) -> None:
    params = load_params()
    assert params.classifiers["mine"].files == FILES[1:]
    assert params.network_files == FILES


def test_a_file_that_is_not_listed_is_named(project: Path) -> None:
    file = project / "params.yaml"
    before = file.read_text()
    file.write_text(before.replace("- my_package\n", "", 1))
    with pytest.raises(ParamsError, match="network_files lacks my_package; `dxai use` lists it"):
        load_params()
    file.write_text(before.replace("weights: weights/my best=1", "weights: weights/my best"))
    with pytest.raises(ParamsError, match=r"classifiers\.mine\.files lacks weights/my best\.pt"):
        load_params()


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("a@b.pt", "DVC allows no @ in it"),
        ("../w.pt", "make a link to it within the project"),
        (
            "a$(touch x).pt",
            r"classifiers\.mine.* names 'a\$\(touch x\)\.pt'; a shell would not read",
        ),
        ("a`touch x`.pt", "its '`'"),
        ('a"; touch x; ".pt', "its '\"'"),
        ("a\\.pt", r"its '\\\\'"),
        ("a\nb.pt", r"names 'a\\nb\.pt'.* its '\\n'"),
    ],
    ids=ascii,
)
def test_a_file_that_cannot_be_watched_is_refused(project: Path, file: str, said: str) -> None:
    with pytest.raises(ParamsError, match=said):
        select_profile("params.yaml", overrides={"classifiers.mine.weights": json.dumps(file)})


def test_the_list_that_dvc_reads_is_checked_by_itself(project: Path) -> None:
    values = yaml.safe_load((project / "params.yaml").read_text())
    values["network_files"].append("a$(touch x).pt")
    (project / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ParamsError, match=r"network_files names 'a\$\(touch x\)\.pt'"):
        load_params()


def test_hashes_are_those_of_the_classifiers_own_files(project: Path) -> None:
    for name in ("mine", "simple"):
        for file in FILES:
            network.main(name, file)
    classifiers = load_params().classifiers
    assert network.hashes("simple", classifiers["simple"].files) == {}
    found = network.hashes("mine", classifiers["mine"].files)
    assert list(found) == ["my_package/nets.py", "weights/my best=1.pt"]
    assert found["weights/my best=1.pt"].startswith("6b86b273ff34")  # SHA-256 of "1"


def test_what_was_written_about_files_of_before_goes(project: Path) -> None:
    """As in a fresh clone: `classifier` depends on the whole folder."""
    for file in FILES:
        network.main("mine", file)
    (project / "weights/new.pt").write_text("2")
    select_profile("params.yaml", overrides={"classifiers.mine.weights": "weights/new.pt"})
    files = load_params().classifiers["mine"].files
    assert list(network.hashes("mine", files)) == ["my_package/nets.py"]  # without the old weights
    network.main("mine", "weights/new.pt")
    folder = project / "artifacts/networks/mine"
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert found == ["dxai/models/classifiers.py.json", "my_package.json", "weights/new.pt.json"]
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["network"]
    assert "network_files" in stage["params"]  # so that it reruns when a file is no longer listed


@pytest.mark.slow
def test_dvc_reruns_what_depends_on_a_changed_file(project: Path) -> None:
    """`classifier` is replaced by a stand-in that does nothing but depend on the same."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    watched = stages["network"]
    assert "artifacts/networks/${item.classifier}" in stages["classifier"]["deps"]
    reader = {
        "matrix": {"classifier": "${classifiers}"},
        "cmd": "cp -r artifacts/networks/${item.classifier} ${item.classifier}",
        "deps": ["artifacts/networks/${item.classifier}"],
        "outs": ["${item.classifier}"],
    }
    text = yaml.safe_dump({"stages": {"network": watched, "reader": reader}}, sort_keys=False)
    (project / "dvc.yaml").write_text(text)
    (project / ".dvcignore").write_text((ROOT / ".dvcignore").read_text())
    dvc("init", "--no-scm")
    assert dvc("repro").count("Running stage 'network@") == 6
    assert "Running" not in dvc("repro")
    (project / "my_package/__pycache__/nets.pyc").write_text("2")
    assert "Running" not in dvc("repro")
    for file in ("my_package/nets.py", "weights/my best=1.pt"):
        (project / file).write_text("other\n")
        done = dvc("repro")
        assert "Running stage 'reader@mine'" in done
        assert "Running stage 'reader@simple'" not in done
    (project / "weights/my best=1.pt").unlink()
    assert "weights/my best=1.pt" in dvc("repro", fails=True)


def dvc(*arguments: str, fails: bool = False) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [sys.executable, "-m", "dvc", *arguments]
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "true"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode != 0) is fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_paths_stay_below_the_folder_of_networks() -> None:
    assert str(Paths().network("mine", "/data/w.pt")) == "artifacts/networks/mine/data/w.pt.json"
