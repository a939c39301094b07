"""Work without servers: `dvc repro`, interrupting it, one's own data and classifiers."""

from __future__ import annotations

import contextlib
import csv
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from dxai.config.params_file import format_params
from dxai.config.profiles import load_profile
from tests.integration.conftest import Project, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def running(output: str) -> set[str]:
    """Return the names of the stages that DVC ran."""
    return set(re.findall(r"Running stage '([^']+)'", output))


PROBE = r"(joint_)?leakage@textures-\w+|randomisation@textures-\w+"
"""Stages that read all `methods` and the first decomposition."""


@pytest.fixture(scope="module")
def project(make_project: Callable[..., Project], finished: Project) -> Project:
    """Copy the finished project, without repetition and servers."""
    project = make_project(finished)
    project.narrow()
    done = project.run("dvc", "repro")
    stages = {stage for stage in running(done.stdout) if not re.fullmatch(PROBE, stage)}
    assert stages == {"tables", "report"}, done.stdout
    return project


def test_dvc_shows_metrics_parameters_and_plots(project: Project) -> None:
    metrics = json.loads(project.run("dvc", "metrics", "show", "--json").stdout)
    table = metrics[""]["data"]["results/metrics.json"]["data"]["table1"]["textures"]
    assert {"dxai-0", "ig-signed", "lime-relu"} <= set(table["simple"])
    changed = json.loads(project.run("dvc", "params", "diff", "--json").stdout)
    steps = changed["params.yaml"]["decompose.steps"]
    assert (steps["old"], steps["new"]) == (1250, 20)
    plots = json.loads(project.run("dvc", "plots", "show", "--json").stdout)
    (curves,) = plots["data"].values()
    assert "accuracy" in json.dumps(curves)


@pytest.mark.parametrize(
    ("wanted", "reruns"),
    [
        (
            {"overrides": {"methods.lime.samples": "25"}},
            rf"(joint_)?baseline@textures-\w+-lime|{PROBE}|tables|report",
        ),
        (
            {"overrides": {"decompose.lambda_rec": "2.5"}},
            rf"(joint_)?(decompose|ours)@textures-\w+-\d|joint_baseline@.*|cross@.*|{PROBE}|tables"
            "|report",
        ),
        (
            {"seeds": [0, 1]},
            r"(joint_)?(decompose|ours)@textures-\w+-1|cross@textures-simple-simple-1|tables|report",
        ),
    ],
)
def test_a_changed_value_reruns_what_depends_on_it_and_nothing_else(
    project: Project, wanted: dict[str, object], reruns: str
) -> None:
    project.select(**wanted)
    done = project.run("dvc", "repro")
    assert done.returncode == 0, done.stdout
    stages = running(done.stdout)
    assert stages
    assert {stage for stage in stages if not re.fullmatch(reruns, stage)} == set()
    assert {"tables", "report"} <= stages
    assert "up to date" in project.run("dvc", "repro").stdout


LONG = {
    "prepare": ["datasets.textures.options.stride=1", "prepare.shard_mb=1"],
    "classifier": ["classifier.epochs=100000", "classifier.patience=100000"],
    "decompose": ["decompose.steps=1000000"],
    "baseline": ["methods.lime.samples=1000000"],
    "score_decomposition": ["evaluate.latents=1000000"],
}
"""Settings with which a stage would take hours (the first: a minute)."""
NAMES = {
    "prepare": ["textures"],
    "classifier": ["textures", "simple", "explained"],
    "decompose": ["textures", "simple", "0"],
    "baseline": ["textures", "simple", "lime"],
    "score_decomposition": ["textures", "simple", "0"],
}


BUSY = 6.0
"""Seconds of processor time after which a stage has imported everything and got to work."""


def test_ctrl_c_in_a_stage_leaves_nothing_half_written(project: Project) -> None:
    """All stages run at once, since each spends most of its time on imports."""
    before = (project.root / "params.yaml").read_text()
    settings = [setting.split("=") for of_stage in LONG.values() for setting in of_stage]
    project.select(overrides=dict(settings))
    files = outputs(project.root)
    try:
        started = {stage: project.start(f"dxai.stages.{stage}", *NAMES[stage]) for stage in NAMES}
        for process in started.values():
            wait_for(lambda p=process: p.poll() is not None or seconds_of(p.pid) > BUSY, 180)
        ended = {stage for stage, process in started.items() if process.poll() is not None}
        for process in started.values():
            process.send_signal(signal.SIGINT)
        said = {stage: process.communicate(timeout=60)[0] for stage, process in started.items()}
    finally:
        (project.root / "params.yaml").write_text(before)
    assert not ended, said
    assert {stage: process.returncode for stage, process in started.items()} == dict.fromkeys(
        NAMES, 130
    ), said
    assert "Traceback" not in "".join(said.values())
    # Not `==` of the two, whose difference pytest would print for hours.
    changed = {path for path, _ in outputs(project.root).items() ^ files.items()}
    assert not changed, sorted(changed)[:10]


def seconds_of(pid: int) -> float:
    """Return the processor time of a process and its readers."""
    process, total = psutil.Process(pid), 0.0
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            total += times.user + times.system
    return total


def outputs(root: Path) -> dict[Path, int | None]:
    """Map the files and folders of the stages' outputs to when they were written."""
    return {
        path: path.stat().st_mtime_ns if path.is_file() else None
        for name in ("data", "artifacts", "results")
        for path in (root / name).rglob("*")
    }


def test_a_stage_called_wrongly_says_how(project: Project) -> None:
    done = project.run("dxai.stages.decompose", "textures")
    assert done.returncode == 1
    assert (
        done.stdout.strip()
        == "usage: python -m dxai.stages.decompose DATASET CLASSIFIER DECOMPOSITION"
    )
    done = project.run("dxai.stages.baseline", "textures", "simple", "grad_cam")
    assert re.fullmatch(r"error: method: unknown 'grad_cam'; valid are ig, lime\n", done.stdout)


# ------------------------------------------------------------------------------------ their own
OWN_NETWORK = '''
import torch

def build(width):
    """A factory; images are expected in [0, 1]."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, width, 3, padding=1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(4 * width, 2),
    )
'''
FRUIT = {"layout": "folder", "source": "data/fruit", "channels": 3}
MINE = {
    "arch": "own_network:build",
    "options": {"width": 6},
    "weights": "mine.pt",
    "value_range": [0, 1],
    "files": ["mine.pt", "own_network.py"],
}
OWN = {
    "datasets": {"fruit": FRUIT},
    "classifiers": {"mine": MINE},
    "joint": {},
    "repeat": {"classifiers": [], "seeds": []},
    "ablations": {"datasets": [], "classifiers": [], "variants": {}},
    "methods": {"lrp": {}, "gradcam": {"layer": None}},
}


@pytest.fixture(scope="module")
def own(make_project: Callable[..., Project]) -> Project:
    """Red and green photographs, a network trained elsewhere, and two entries in params.yaml."""
    project = make_project()
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 12)):
        for channel, name in enumerate(["red one", "green <b>"]):
            folder = project.root / "data/fruit" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(60, 120, (20, 24, 3))
                pixels[..., channel] += 100
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    (project.root / "own_network.py").write_text(OWN_NETWORK)
    train = """
import torch, own_network
torch.manual_seed(0)
network = own_network.build(6)
x = torch.rand(64, 3, 16, 16) * 0.3 + 0.2
y = torch.arange(64) % 2
x[y == 1, 0] += 0.4  # classes are sorted by name: green, then red
x[y == 0, 1] += 0.4
adam = torch.optim.Adam(network.parameters(), 0.01)
for _ in range(150):
    loss = torch.nn.functional.cross_entropy(network(x), y)
    adam.zero_grad(); loss.backward(); adam.step()
assert loss < 0.1, loss
torch.save(network.state_dict(), "mine.pt")
"""
    subprocess.run([sys.executable, "-c", train], cwd=project.root, check=True)
    (project.root / "params.yaml").write_text(format_params(load_profile("smoke") | OWN))
    return project


def test_a_users_folder_and_classifier_are_explained_without_an_edit(own: Project) -> None:
    done = own.run("dvc", "repro")
    assert done.returncode == 0, done.stdout
    with (own.root / "results/tables/table1.csv").open(newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert float(rows["dxai"]["accuracy"]) > 0.9  # the given weights are used
    assert rows["lrp"]["status"] == "ok"
    assert rows["gradcam"]["status"] == "ok"
    assert "green <b>" not in (own.root / "results/report.html").read_text()
    image = own.root / "data/fruit/test/red one/3.png"
    model = "artifacts/decompositions/fruit/mine/0"
    done = own.run("dxai", "explain", "--model", model, str(image), "--out", "found")
    assert done.returncode == 0, done.stdout
    found = json.loads((own.root / "found/3.json").read_text())
    assert found["predicted_class"] == "red one"
    with Image.open(own.root / "found/3.png") as picture:
        assert picture.width > 300


def test_edited_code_and_replaced_weights_rerun_what_depends_on_them(own: Project) -> None:
    classifier = "classifier@fruit-mine-explained"
    assert own.run("dvc", "repro", classifier).returncode == 0
    module, weights = own.root / "own_network.py", own.root / "mine.pt"
    edits = {
        "own_network.py": lambda: module.write_text(f"# edited\n{OWN_NETWORK}"),
        "mine.pt": lambda: torch.save({"model": torch.load(weights)}, weights),
    }
    for file, edit in edits.items():
        assert not running(own.run("dvc", "repro", classifier).stdout)
        edit()
        done = own.run("dvc", "repro", classifier)
        assert running(done.stdout) == {f"network@mine-{file}", classifier}, done.stdout
        changed = own.run("dvc", "status", "decompose@fruit-mine-0").stdout
        assert "artifacts/classifiers/fruit/mine/explained" in changed


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("width: 6", "width: 7", r"mine\.pt: does not fit classifier own_network:build"),
        ("own_network:build", "own_network:bild", r"classifier own_network:bild: "),
        ("weights: mine.pt", "weights: yours.pt", r"classifiers\.mine\.files lacks yours\.pt"),
        ("channels: 3", "channels: 1", r"refuses an image of shape \(1, 1, 16, 16\)"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(own: Project, old: str, new: str, said: str) -> None:
    params = own.root / "params.yaml"
    before = params.read_text()
    assert old in before
    params.write_text(before.replace(old, new))
    try:
        done = own.run("dvc", "repro", "classifier@fruit-mine-explained")
    finally:
        params.write_text(before)
    assert done.returncode != 0
    assert re.search("error: .*" + said, done.stdout), done.stdout


def test_images_behind_a_table_are_watched(make_project: Callable[..., Project]) -> None:
    """The table named as the source is refused; `dxai use` makes it an option of its folder."""
    project = make_project()
    folder = project.root / "data/photos"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = ["path;label;split"]
    for split in ("train", "val", "test"):
        for i in range(4):
            pixels = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{split}{i}.png")
            rows.append(f"{split}{i}.png;{'ab'[i % 2]};{split}")
    (folder / "images.csv").write_text("\n".join(rows))
    entry = {"layout": "folder", "source": "data/photos/images.csv", "channels": 3}
    values = load_profile("smoke") | OWN | {"datasets": {"photos": entry}}
    values["classifiers"] = load_profile("smoke")["classifiers"]
    (project.root / "params.yaml").write_text(format_params(values))
    repro = ("dvc", "repro", "prepare@photos")
    assert "and changes of its images would go unnoticed" in project.run(*repro).stdout
    assert (
        "photos.source: data/photos/images.csv -> data/photos" in project.run("dxai", "use").stdout
    )
    assert running(project.run(*repro).stdout) == {"prepare@photos"}
    assert not running(project.run(*repro).stdout)
    Image.new("RGB", (20, 20), "red").save(folder / "train0.png")
    assert running(project.run(*repro).stdout) == {"prepare@photos"}
    (folder / "images.csv").write_text("\n".join(rows).replace("train1.png;b", "train1.png;a"))
    done = project.run(*repro)
    assert "train 4 (a 3, b 1)" in done.stdout, done.stdout
