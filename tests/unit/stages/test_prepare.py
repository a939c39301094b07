"""The stage as DVC runs it: a process in the folder of params.yaml."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dxai.config.params_file import format_params, read_yaml
from dxai.config.profiles import select_profile
from dxai.datasets import parallel_reader, shard_writer
from dxai.datasets.base import DataError
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.stages import prepare
from dxai.stages.readers import RayReaders
from dxai.utils import processes

ROOT = Path(__file__).parents[3]
TEXTURES = {"layout": "textures", "source": "data/textures.md", "channels": 1}


def write_params(folder: Path, datasets: dict[str, Any], **prepare: int) -> None:
    values = read_yaml(ROOT / "params.yaml")
    values["datasets"] = datasets
    values["prepare"] |= prepare
    (folder / "params.yaml").write_text(format_params(values))


def start(folder: Path, *names: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "dxai.stages.prepare", *names],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


def photographs(folder: Path, count: int = 4) -> dict[str, Any]:
    """Write a user's tree of JPEG files, and return its entry of params.yaml."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (folder / "raw" / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"raw/{split}/{label}/{i}.jpg")
    return {"layout": "folder", "source": "$PHOTOGRAPHS/raw", "channels": 3, "options": {}}


def test_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOTOGRAPHS", str(tmp_path))
    write_params(tmp_path, {"pets": photographs(tmp_path)}, image_size=16)
    code, out, err = finish(start(tmp_path, "pets"))
    assert (code, err) == (0, "")
    assert "prepare pets [####################] 16/16 files" in out
    assert "prepare pets: train 6 (cat 3, dog 3)" in out
    test = ShardedDataset(tmp_path / "data/prepared/pets", "test")
    assert (len(test), test.image_size, test.class_names) == (8, 16, ["cat", "dog"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cats"], "error: dataset: unknown 'cats'; valid are pets"),
        (["pets"], "error: dataset pets: train/cat/3.jpg: unreadable image"),
        ([], "usage: "),
    ],
)
def test_user_errors_are_one_line_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], message: str
) -> None:
    monkeypatch.setenv("PHOTOGRAPHS", str(tmp_path))
    write_params(tmp_path, {"pets": photographs(tmp_path)}, image_size=16)
    path = tmp_path / "raw/train/cat/3.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    code, _, err = finish(start(tmp_path, *names))
    assert code == 1
    assert err.startswith(message.format(tmp_path))
    assert err.count("\n") == 1
    assert not list(tmp_path.glob("data/prepared/*"))


def small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))


def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: the write itself fails."""
    write_params(tmp_path, {"textures": TEXTURES | {"options": {}}}, image_size=32)
    code, _, err = finish(start(tmp_path, "textures", preexec_fn=small_files))
    assert code == 1
    assert err.startswith("error: dataset textures: data/prepared/textures: could not be written")
    assert "File too large" in err
    assert err.count("\n") == 1
    assert not list(tmp_path.glob("data/prepared/*"))


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_in_the_middle_keeps_the_old_folder_and_goes_on(
    tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    prepared = tmp_path / "data/prepared"
    write_params(tmp_path, {"textures": TEXTURES | {"options": {}}}, image_size=64)
    assert finish(start(tmp_path, "textures"))[0] == 0
    before = {path: path.read_bytes() for path in prepared.rglob("*.*")}
    # A stride of 1 makes 124,000 patches, more than half a minute of work.
    long = TEXTURES | {"options": {"stride": 1}}
    write_params(tmp_path, {"textures": long}, image_size=32, shard_mb=1)
    process = start(tmp_path, "textures")
    wait_for(lambda: any(tmp_path.glob(".work/prepare/textures/*/data/train-00002.parquet")))
    process.send_signal(sent)
    assert finish(process)[0] == code
    assert {path: path.read_bytes() for path in prepared.rglob("*.*")} == before
    code, out, err = finish(start(tmp_path, "textures"))
    assert (code, err) == (0, "")
    assert re.search(r"prepare textures: continuing after \d+ of 192 files", out)
    assert len(ShardedDataset(prepared / "textures", "train")) == 3 * 38 * 33**2


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_is_read_on_ray_and_lost_half_way_is_what_one_process_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("RAY_ADDRESS", "DXAI_CLUSTER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PHOTOGRAPHS", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path, {"pets": photographs(tmp_path, 10)}, image_size=16)
    out = tmp_path / "data/prepared/pets"
    prepare.main("pets")
    whole = files(out)
    shutil.rmtree(out)

    select_profile("params.yaml", overrides={"evaluation.executor": "ray"})
    monkeypatch.setattr(parallel_reader, "ELSEWHERE_BYTES", 0)
    monkeypatch.setattr(parallel_reader, "BATCH_UNITS", 1)
    start_ray, judge = RayReaders.__init__, shard_writer._judge
    started: list[RayReaders] = []
    judged: list[Any] = []

    def noted(self: RayReaders, *arguments: Any) -> None:
        start_ray(self, *arguments)
        started.append(self)

    def lost(reading: Any, *arguments: Any) -> None:
        judged.append(reading)
        if len(judged) == 28:
            processes.end_session(started[0].process.pid)
        judge(reading, *arguments)

    said = (
        r"Ray ended: .* \(full log: .*\.work/prepare/pets/ray\.log\) at .*; run again to continue"
    )
    with monkeypatch.context() as patch:
        patch.setattr(RayReaders, "__init__", noted)
        patch.setattr(shard_writer, "_judge", lost)
        with pytest.raises(DataError, match=said):
            prepare.main("pets")
    assert 28 <= len(judged) < 40 and not out.exists()
    prepare.main("pets")
    printed = capsys.readouterr().out
    assert re.search(r"continuing after 2[0-9] of 40 files", printed)
    assert printed.count("reading on Ray") == 2
    assert files(out) == whole
