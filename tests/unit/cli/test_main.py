"""The command line: fast help, one-line errors, exit codes, the table."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from dxai import __version__
from dxai.cli.main import main
from dxai.config.params_file import load_params
from dxai.config.profiles import profile_names

PROJECT = Path(__file__).parents[3]


def dxai(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-m", "dxai", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_help_lists_the_commands() -> None:
    result = dxai("--help")
    assert result.returncode == 0
    assert all(
        command in result.stdout for command in ("use", "explain", "table", "track", "compare")
    )


@pytest.mark.parametrize(
    "arguments", [["--help"], ["explain", "--help"], ["compare", "--help"], ["--version"]]
)
def test_help_answers_at_once(arguments: list[str]) -> None:
    """It imports little: no package of others, and few modules, on which the time depends."""
    code = (
        "import sys\nbefore = set(sys.modules)\nfrom dxai.cli.main import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        "print('MODULES', *(set(sys.modules) - before))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=60
    )
    marker, *modules = result.stdout.splitlines()[-1].split()
    assert marker == "MODULES" and "dxai.cli.fit" in modules
    assert {m.partition(".")[0] for m in modules} <= sys.stdlib_module_names | {"dxai"}
    assert len(modules) < 120  # 0.05 s of a processor; torch alone imports 1,500 in 2 s


def test_version() -> None:
    assert dxai("--version").stdout == f"dxai {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["dance"], "dance"),
        (["explain", "--model", "m"], "IMAGE"),
        (["use", "quick", "--set", "steps"], "KEY=VALUE"),
        (["use", "--seeds", "a"], "--seeds"),
        (["compare", "latest"], "RUN"),
        (["compare", "latest~1", "latest", "--format", "html"], "markdown"),
    ],
)
def test_wrong_usage(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


def test_use_rewrites_params_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(PROJECT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    main(["use", "quick"])
    capsys.readouterr()
    assert main(["use", "quick", "--set", "decompose.steps=12", "--seeds", "4", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("decompose.steps: ") and line.endswith("12") for line in lines)
    params = load_params()
    assert (params.decompose.steps, params.seeds) == (12, [4, 2])
    assert main(["use"]) == 0
    assert capsys.readouterr().out == "nothing to change\n"
    assert main(["use", "quick", "--methods", "lime", "smoothgrad"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert "smoothgrad" in error and "gradcam" in error


def test_a_package_that_the_core_does_not_bring_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "dxai.config.profiles", None)
    with pytest.raises(ModuleNotFoundError):  # a fault of this project shows where it is
        main(["use", "quick"])
    monkeypatch.delitem(sys.modules, "dxai.config.profiles")
    monkeypatch.delitem(sys.modules, "dxai.config.params_file", raising=False)
    monkeypatch.setitem(sys.modules, "ruamel.yaml", None)
    assert main(["use", "quick"]) == 1
    err = capsys.readouterr().err
    assert err == "error: ruamel is not installed; `pip install 'dxai[pipeline]'` installs it\n"
    assert main(["fit", "photos", "--model", "nets:Net"]) == 1
    err = capsys.readouterr().err
    assert err == "error: ruamel is not installed; `pip install 'dxai[fit]'` installs it\n"


def test_use_outside_of_a_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["use", "quick"]) == 1
    assert "no such file; run in the project's folder" in capsys.readouterr().err


ROWS = [
    {"method": "dxai", "sign": "part", "auc": 0.84, "delta_low": -0.09, "delta_high": -0.02}
    | {"psnr_db": 25.8},
    {"method": "lrp", "sign": "relu", "status": "unsupported", "reason": "no rule"},
    {"method": "gradcam", "sign": "relu", "auc": 0.895},
    {"method": "naive", "sign": "part", "auc": 0.3},
]


@pytest.fixture
def table1(tmp_path: Path) -> Path:
    shared = {"dataset": "textures", "classifier": "resnet18", "seed": 0, "profile": "quick"}
    shared |= {"steps": 1500, "images": 150, "accuracy": 0.98, "auc_low": 0.8, "auc_high": 0.9}
    shared |= dict.fromkeys(("auc_energy", "auc_transfer", "auc_blur", "neutrality"), 0.5)
    shared |= {"auc_transfer_energy": 0.5, "auc_smooth": 0.5, "smooth_deviation": 0.3}
    shared |= dict.fromkeys(("psnr_removed_db", "mean_abs_distinct", "seconds_per_image"), 1.0)
    frame = pd.DataFrame([shared | {"status": "ok", "reason": ""} | row for row in ROWS])
    frame.to_csv(tmp_path / "table1.csv", index=False)
    return tmp_path / "table1.csv"


def test_table_prints_table1(table1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", str(table1)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "textures / resnet18, profile quick, 150 images, accuracy 0.980"
    assert lines[1].split()[:3] == ["method", "sign", "AUC"]
    assert lines[3].split()[:4] == ["dxai", "part", "0.840*", "0.800-0.900"]
    assert lines[4].split() == ["lrp", "relu", "unsupported"]
    assert lines[5].split()[:3] == ["gradcam", "relu", "0.895"]
    assert lines[6].split()[:3] == ["(naive)", "part", "0.300"], "lowest, but outside the claim"
    assert "lrp: unsupported: no rule" in lines
    assert lines[-1].endswith("95% interval [-0.090, -0.020], below 0")
    columns = [line.index("0.8") for line in (lines[3], lines[5])]
    assert columns[0] == columns[1]


def test_table_prints_any_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.csv").write_text("dataset,classifier,accuracy\ntextures,simple,0.98\n")
    assert main(["table", str(tmp_path / "t.csv")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "dataset   classifier  accuracy",
        "--------  ----------  --------",
        "textures  simple          0.98",
    ]


def test_a_table_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", str(tmp_path / "t.csv")]) == 1
    assert "t.csv: no such table" in capsys.readouterr().err
    (tmp_path / "t.csv").write_text("a,b\n")
    assert main(["table", str(tmp_path / "t.csv")]) == 1
    assert "empty" in capsys.readouterr().err


def test_the_help_of_use_lists_every_profile(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["use", "--help"])
    help = capsys.readouterr().out
    assert all(name in help for name in profile_names())


@pytest.mark.parametrize("into", ["mine", "mine/notes.txt", "/proc/x"])
def test_tables_replace_no_folder_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], into: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    assert main(["tables", "1", "--into", into]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "mine/notes.txt").read_text() == "mine"
