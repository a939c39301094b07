from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import dxai
from dxai.library import budget, fitting
from dxai.library.network import adapted, spec_of
from dxai.training import decomposition
from dxai.training.events import Console
from dxai.training.pace import ByTime
from dxai.training.step import train_step
from dxai.types import GENERATED, NEUTRAL
from tests.small_explainer import CLASSES, SIDE, Colour, draw, pixels

Fitted = tuple[dxai.DXAI, Path]


def state(explainer: dxai.DXAI) -> dict[str, torch.Tensor]:
    return explainer.decomposer.state_dict()


def same(one: dxai.DXAI, other: dxai.DXAI) -> bool:
    first, second = state(one), state(other)
    return first.keys() == second.keys() and all(map(torch.equal, first.values(), second.values()))


def test_the_folder_opens_again_without_the_network_s_code(fitted: Fitted) -> None:
    explainer, out = fitted
    again = dxai.DXAI.load(out)
    images = torch.from_numpy(np.stack([pixels("red", 90), pixels("blue", 91)]))
    images = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    torch.testing.assert_close(again.classifier(images), Colour()(images))
    # `neutral` is searched for, which amplifies the rounding of another program of the network.
    for kind, nearly in ((GENERATED, 1e-5), (NEUTRAL, 5e-3)):
        ours, theirs = (each.explain(images, kind=kind) for each in (explainer, again))
        torch.testing.assert_close(ours.distinct, theirs.distinct, rtol=0, atol=nearly)
    assert again.info["class_names"] == list(CLASSES)
    assert again.info["image_size"] == SIDE


def test_the_verdict_is_written(fitted: Fitted) -> None:
    found = json.loads((fitted[1] / "fit.json").read_text())
    numbers = found["verdict"]
    assert found["steps"] == 20
    assert numbers["accuracy"] == 1.0
    # Its mean colour moves by grain as little as by the grain's mean: Random is no rival.
    assert numbers["auc_random_signed"] == pytest.approx(1.0, abs=0.02)
    assert 0 <= numbers["auc"] <= 1
    assert 0.9 < numbers["neutral_share"] <= 1  # a shift of two channels makes it undecided
    assert list((fitted[1] / "training/panels").glob("*.png"))


def test_after_ctrl_c_the_same_call_goes_on(
    fitted: Fitted, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pressed(Console):
        at = 7

        def emit(self, kind: str, **content: Any) -> None:
            super().emit(kind, **content)
            if kind == "step" and content["done"] == self.at:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(fitting, "Console", Pressed)
    with pytest.raises(KeyboardInterrupt):
        dxai.fit(Colour(), photos, steps=20, out=tmp_path / "stopped")
    left = dxai.DXAI.load(tmp_path / "stopped")
    assert not same(left, fitted[0])
    monkeypatch.setattr(fitting, "Console", Console)
    monkeypatch.setattr(fitting, "judge", lambda *_: fitting.Verdict({}, [], []))
    assert same(dxai.fit(Colour(), photos, steps=20, out=tmp_path / "stopped"), fitted[0])
    # More steps go on from there; those behind it are not repeated. Stopped between, the
    # explainer has no verdict: the last one was that of another model.
    assert (tmp_path / "stopped/fit.json").exists()
    monkeypatch.setattr(Pressed, "at", 25)
    monkeypatch.setattr(fitting, "Console", Pressed)
    with pytest.raises(KeyboardInterrupt):
        dxai.fit(Colour(), photos, steps=30, out=tmp_path / "stopped")
    assert not (tmp_path / "stopped/fit.json").exists()
    monkeypatch.setattr(fitting, "Console", Console)
    longer = dxai.fit(Colour(), photos, steps=30, out=tmp_path / "stopped")
    assert not same(longer, fitted[0])
    assert json.loads((tmp_path / "stopped/fit.json").read_text())["steps"] == 30


def test_a_folder_of_something_else_is_refused(
    fitted: Fitted, photos: Path, tmp_path: Path
) -> None:
    other = Colour()
    other.head.weight.data *= 2
    with pytest.raises(ValueError, match="holds an explainer of another network"):
        dxai.fit(other, photos, steps=20, out=fitted[1])
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="a folder with other files; name a new one"):
        dxai.fit(Colour(), photos, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_bad_input_is_one_line_and_writes_nothing(photos: Path, tmp_path: Path) -> None:
    class Wide(Colour):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).repeat(1, 2)

    class Unkept(Colour):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            bright = float(x.detach().mean()) > 5  # what a graph cannot follow
            return super().forward(-x if bright else x)

    out = tmp_path / "explainer"
    few = draw(tmp_path / "few", 1)
    cases: list[tuple[Any, Any, dict[str, Any], str]] = [
        (Colour(), tmp_path / "none", {}, "no such file or folder"),
        (Colour(), few / "red", {}, "no images of two classes; expected"),
        (Colour(), few, {}, "class 'blue': 1 group(s) in train, too few"),
        (Colour(), photos, {"classes": ["blue", "green"]}, "classes lacks red"),
        (Colour(), photos, {"classes": ["red", "blue"]}, "with `classes: [blue, red]`"),
        (Unkept(), photos, {}, "cannot be stored by torch.export"),
        (Wide(), photos, {}, "returns 4 outputs for one image"),
        (Colour(), photos, {"minutes": 0}, "minutes is 0; it must be a number above 0"),
        (Colour(), photos, {"minutes": float("nan")}, "minutes is nan; it must be a number above"),
        (Colour(), photos, {"steps": 0}, "steps is 0; it must be from 1 to"),
        (Colour(), photos, {"device": "gpu"}, "valid are auto, cpu, cuda, cuda:N"),
        (Colour(), 7, {}, "found int; expected a folder, a CSV file, a dataset or a loader"),
        ("nets.py", photos, {}, "nets.py: no such file"),
        ("simple", photos, {}, "simple has no trained weights"),
    ]
    for model, images, settings, expected in cases:
        with pytest.raises((ValueError, OSError)) as caught:
            dxai.fit(model, images, out=out, **settings)
        assert expected.replace("`", "") in str(caught.value).replace("`", "")
        assert "\n" not in str(caught.value)
    assert not out.exists()


def test_the_minutes_are_kept_on_a_machine_that_slows_down(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    now, ends = [0.0], []

    def slower(*given: Any) -> Any:
        now[0] += 0.5 if given[5] < 20 else 3.0  # seconds; the sixth argument is the step
        return train_step(*given)

    def judge(*given: Any) -> fitting.Verdict:
        ends.append((now[0], given[-1]))
        return fitting.Verdict({}, [], [])

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(decomposition, "train_step", slower)
    monkeypatch.setattr(fitting, "seconds_for", lambda *_: (6.0, 1e6))
    monkeypatch.setattr(fitting, "judge", judge)
    out = tmp_path / "explainer"
    dxai.fit(Colour(), photos, minutes=1, out=out)
    # 0.8 of the minutes train: 20 steps in 10 s, and in 38 s as many of 3 s as end in time.
    assert json.loads((out / "fit.json").read_text())["steps"] == 20 + 12
    assert ends.pop() == (46.0, 60.0)
    said = capsys.readouterr().out
    assert "fit: 0:48 of training on cpu" in said
    totals = [int(found) for found in re.findall(r"/(\d+) steps", said)]
    assert totals[0] > 90 and totals[-1] == 32  # what is foreseen follows the speed
    # The same call finds its training done; more minutes go on, and count what it took.
    dxai.fit(Colour(), photos, minutes=1, out=out)
    assert "fit: 32 steps are done" in capsys.readouterr().out
    assert ends.pop() == (46.0, 60.0)
    dxai.fit(Colour(), photos, minutes=1.5, out=out)
    assert json.loads((out / "fit.json").read_text())["steps"] == 32 + 8
    assert ends.pop() == (70.0, 90.0)


def test_few_steps_take_smaller_batches_at_a_higher_rate(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, used = [0.0], []

    def timed(*given: Any) -> Any:
        now[0] += seconds
        return train_step(*given)

    def noted(*given: Any) -> Any:
        used.append((given[1].batch_size, given[1].lr, len(given[2])))
        return timed(*given)

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(fitting, "train_step", timed)
    monkeypatch.setattr(decomposition, "train_step", noted)
    monkeypatch.setattr(fitting, "seconds_for", lambda *_: (6.0, 1e6))
    monkeypatch.setattr(fitting, "judge", lambda *_: fitting.Verdict({}, [], []))
    usual = budget.settings()
    small = (usual.batch_size // 2, 2 * usual.lr, usual.batch_size // 2)
    whole = (usual.batch_size, usual.lr, usual.batch_size)
    assert (
        small != whole
        and budget.settings(short=True).replace(batch_size=usual.batch_size, lr=usual.lr) == usual
    )
    monkeypatch.setattr(fitting, "SHORT", 12)
    seconds = 5.0  # 48 s are left, too few for 12 steps; what is begun goes on as it was begun
    for minutes, steps in ((1, None), (4, None), (4, 60)):
        dxai.fit(Colour(), photos, minutes=minutes, steps=steps, out=tmp_path / "short")
        assert set(used) == {small}
        used.clear()
    info = torch.load(tmp_path / "short/model.pt", weights_only=False)["info"]
    assert (info["training"]["batch_size"], info["training"]["lr"]) == small[:2]
    seconds = 2.0  # 24 steps fit
    dxai.fit(Colour(), photos, minutes=1, out=tmp_path / "long")
    assert set(used) == {whole}
    used.clear()
    dxai.fit(Colour(), photos, steps=2, out=tmp_path / "counted")  # the same on any machine
    assert set(used) == {whole}


@pytest.mark.parametrize(
    ("minutes", "least", "most", "kept"),
    [
        (10, 60, 900, 120),  # a fifth of the minutes
        (10, 200, 900, 200),  # a slow network needs more
        (10, 400, 900, 300),  # but never more than half
        (60, 60, 300, 300),  # all images are scored by then
    ],
)
def test_the_verdict_gets_its_share(
    minutes: float, least: float, most: float, kept: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    pace = budget.Budget(minutes, 90.0).pace(budget.settings(), least, most)
    assert isinstance(pace, ByTime)
    assert pace.seconds == 60 * minutes - kept - 10


def test_a_network_is_copied_and_gray_ones_are_taken() -> None:
    class Gray(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x).mean((2, 3))

    network = Gray().train()
    found = adapted(network, spec_of(network), CLASSES, SIDE)
    assert found.channels == 1
    assert network.training and next(network.parameters()).requires_grad
    assert not any(p.requires_grad for p in found.network.parameters())
