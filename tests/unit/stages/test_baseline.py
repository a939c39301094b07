"""A method that is unsupported or fails becomes a row; the stage succeeds."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import psutil
import pytest

from dxai.config.params_file import load_params
from dxai.config.profiles import select_profile
from dxai.config.schema import METHODS
from dxai.config.settings import ParamsError
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.explain import controls
from dxai.metrics import smoothing
from dxai.results import table_builders
from dxai.stages import baseline, classifier, scoring
from dxai.stages.pieces import Pieces
from dxai.types import Unsupported
from dxai.utils.files import read_json
from tests.prepared import PROJECT, prepared_textures

MARK = "DXAI_TEST_ACTORS"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Prepare textures, and train two classifiers for an instant."""
    root = tmp_path_factory.mktemp("project")
    prepared_textures(root / "data/prepared")
    (root / "params.yaml").write_text((PROJECT / "params.yaml").read_text())
    select_profile(
        root / "params.yaml",
        "smoke",
        classifiers=["simple"],
        overrides={"classifier.epochs": "1", "evaluate.images": "6", "evaluate.batch_size": "4"},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for role in classifier.ROLES:
            classifier.main("textures", "simple", role)
    return root


@pytest.fixture
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


def rows(folder, method):
    return read_json(folder / f"results/outcomes/textures/simple/{method}/summary.json")["rows"]


@pytest.mark.parametrize(
    ("method", "own", "other"), [("ig", "signed", "relu"), ("random", "relu", "signed")]
)
def test_both_sign_rules_are_printed_the_tables_own_first(inside, method, own, other):
    baseline.main("textures", "simple", method)
    found = rows(inside, method)
    assert [(r["sign"], r["status"], r["images"]) for r in found] == [
        (own, "ok", 6),
        (other, "ok", 6),
    ]
    assert found[0]["seconds_per_image"] > 0
    noise = {row["smooth_deviation"] for row in found}
    assert len(noise) == 1 and noise <= {0.0, *smoothing.DEVIATIONS}
    assert all((row["auc_smooth"] is None) == (noise == {0.0}) for row in found)


def test_both_rows_of_random_are_of_one_draw(inside):
    """w x and (2 w - 1) x of the stored w, each divided by its greatest weight."""
    baseline.main("textures", "simple", "random")
    folder = inside / "results/outcomes/textures/simple/random"
    with np.load(folder / "attributions.npz") as stored:
        maps, index = stored["random"], stored["index"]
    x = ShardedDataset(inside / "data/prepared/textures", "test").batch(index).images.numpy()
    frame = pd.read_parquet(folder / "images.parquet").set_index(["sign", "index"])
    for sign, weights in (("relu", maps), ("signed", 2 * maps - 1)):
        parts = weights / np.abs(weights).max((1, 2, 3), keepdims=True) * x
        found = frame.loc[sign]["mean_abs_distinct"].loc[index]
        assert found.to_numpy() == pytest.approx(np.abs(parts).mean((1, 2, 3)), rel=1e-5)


def content(folder):
    """Return the bytes of an outcome's files, and its summary without times."""
    summary = read_json(folder / "summary.json") | {"seconds": None}
    for row in summary["rows"]:
        row["seconds_per_image"] = None
    files = ("outcomes.parquet", "images.parquet", "attributions.npz")
    return {name: (folder / name).read_bytes() for name in files}, summary


def test_a_killed_stage_goes_on_after_its_last_piece(inside, capsys):
    out, work = inside / "results/outcomes/textures/simple/ig", inside / ".work/scoring"
    select_profile("params.yaml", overrides={"evaluate.batch_size": "1"})
    try:
        baseline.main("textures", "simple", "ig")
        whole = content(out)
        shutil.rmtree(out)
        command = [sys.executable, "-m", "dxai.stages.baseline", "textures", "simple", "ig"]
        process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(PROJECT)})
        while not (kept := {path: path.stat().st_mtime_ns for path in work.rglob("0*.npz")}):
            assert process.poll() is None
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert len(kept) < 6 and not out.exists()
        kept = {path: path.stat().st_mtime_ns for path in work.rglob("0*.npz")}
        capsys.readouterr()
        baseline.main("textures", "simple", "ig")
        assert f"{len(kept)} of 6 images were scored before" in capsys.readouterr().out
        assert content(out) == whole
        assert not list(work.glob("*"))
    finally:
        select_profile("params.yaml", overrides={"evaluate.batch_size": "4"})


ACTOR = "ray::PieceActor"


def kill_an_actor(killed):
    """Kill the first actor that appears with this test's mark in its environment."""
    while not killed:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                mine = ACTOR in " ".join(process.cmdline()) and MARK in process.environ()
                if mine and not killed:
                    process.kill()
                    killed.append(process.pid)
        time.sleep(0.05)


@pytest.mark.slow
def test_two_actors_of_which_one_is_killed_write_the_files_of_one_process(inside, monkeypatch):
    out = inside / "results/outcomes/textures/simple/ig"
    for name in ("RAY_ADDRESS", "DXAI_CLUSTER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(MARK, "1")
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.setattr(scoring, "SHORT", 0)
    select_profile("params.yaml", overrides={"evaluate.batch_size": "1"})
    try:
        baseline.main("textures", "simple", "ig")
        whole = content(out)
        shutil.rmtree(out)
        select_profile("params.yaml", overrides={"evaluation.executor": "ray"})
        killed = []
        threading.Thread(target=kill_an_actor, args=(killed,), daemon=True).start()
        baseline.main("textures", "simple", "ig")
        assert killed
        assert content(out) == whole
    finally:
        changed = {"evaluate.batch_size": "4", "evaluation.executor": "local"}
        select_profile("params.yaml", overrides=changed)


def test_pieces_of_other_code_or_settings_are_not_used(inside, monkeypatch, capsys):
    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Pieces, "write", stopped)
        with pytest.raises(KeyboardInterrupt):
            baseline.main("textures", "simple", "ig")
    select_profile("params.yaml", overrides={"methods.ig": "{steps: 4}"})
    try:
        baseline.main("textures", "simple", "ig")
    finally:
        select_profile("params.yaml", overrides={"methods.ig": "{steps: 5}"})
    assert "scored before" not in capsys.readouterr().out


@pytest.mark.parametrize(("kept", "dtype"), [("float16", np.float16), ("none", None)])
def test_maps_take_half_the_space_or_none(inside, kept, dtype):
    folder = inside / "results/outcomes/textures/simple/random"
    baseline.main("textures", "simple", "random")
    (_, summary), maps = content(folder), dict(np.load(folder / "attributions.npz"))
    select_profile("params.yaml", overrides={"evaluate.maps": kept})
    try:
        baseline.main("textures", "simple", "random")
    finally:
        select_profile("params.yaml", overrides={"evaluate.maps": "float32"})
    found = dict(np.load(folder / "attributions.npz"))
    assert content(folder)[1] == summary
    np.testing.assert_array_equal(found["index"], maps["index"])
    if dtype is None:
        assert set(found) == {"index"}
    else:
        assert found["random"].dtype == dtype
        np.testing.assert_array_equal(found["random"], maps["random"].astype(dtype))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_explains_and_is_scored(inside, method):
    baseline.main("textures", "simple", method)
    for row in rows(inside, method):
        assert (row["status"], row["images"]) == ("ok", 6), row
        assert row["auc"] > 0


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (Unsupported("it has no layers"), "unsupported", "it has no layers"),
        (RuntimeError("cuDNN said no"), "failed", "RuntimeError: cuDNN said no"),
    ],
)
def test_what_goes_wrong_becomes_the_rows_reason(inside, monkeypatch, error, status, reason):
    def broken(*_):
        raise error

    monkeypatch.setattr(controls, "RandomMap", broken)
    baseline.main("textures", "simple", "random")
    (row,) = rows(inside, "random")
    assert row == {"method": "random", "sign": "", "status": status, "reason": reason}
    baseline.main("textures", "simple", "ig")
    folders = [inside / f"results/outcomes/textures/simple/{m}" for m in ("random", "ig")]
    table = table_builders.table1(folders, load_params())
    assert table.set_index("method").loc["random", "status"] == status
    assert (table["status"] == "ok").sum() == 2


def test_a_wrong_setting_is_the_users_to_mend_and_no_row(inside):
    select_profile("params.yaml", overrides={"methods.ig": "{stepz: 3}"})
    try:
        with pytest.raises(ParamsError, match="stepz"):
            baseline.main("textures", "simple", "ig")
    finally:
        select_profile("params.yaml", overrides={"methods.ig": "{steps: 5}"})


def test_a_classifier_of_other_images_is_refused(inside):
    manifest = inside / "data/prepared/textures/manifest.json"
    before = manifest.read_text()
    content = json.loads(before)
    content["class_names"] = ["brick", "grass", "sand"]
    manifest.write_text(json.dumps(content))
    try:
        with pytest.raises(ValueError, match="trained for other classes or images than textures"):
            baseline.main("textures", "simple", "ig")
    finally:
        manifest.write_text(before)
