import pytest

from dxai.utils.progress import Progress, clock, share


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (61, "1:01"), (3599.6, "1:00:00"), (36000, "10:00:00")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_lines_say_how_far_and_how_long(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    progress = Progress("train", 40, start=20, every=5)
    for step in range(21, 41):
        now[0] += 1
        progress.update(step, "loss 1")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4  # every five seconds, and the last step once
    assert lines[0] == "train [############        ] 25/40 steps, 1.00/s, 0:15 left, loss 1"
    assert lines[-1] == "train [####################] 40/40 steps, 1.00/s, 0:00 left, loss 1"


def test_the_last_step_gets_its_line_at_once(capsys):
    Progress("t", 3, every=1000).update(3)
    assert "3/3" in capsys.readouterr().out


@pytest.mark.parametrize("title", ["train", "prepare [x] 3/4", "decompose textures resnet18 0"])
@pytest.mark.parametrize(("done", "total"), [(0, 7), (3, 7), (7, 7), (1, 100000), (0, 0)])
def test_a_line_is_read_back(title, done, total, capsys):
    Progress(title, total, every=0).update(done, "loss 1/2")
    assert share(capsys.readouterr().out) == done / max(total, 1)


@pytest.mark.parametrize("line", ["", "3/4 steps", "error: [###] is no file", "Running stage 'x'"])
def test_other_lines_say_nothing_of_progress(line):
    assert share(line) is None
