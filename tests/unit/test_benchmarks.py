import os
import subprocess
import sys
import time

import psutil
import pytest
import torch
from torch import nn

from benchmarks import orchestration
from benchmarks.experiments.tuning import results
from benchmarks.scaling import Link, saved_bytes
from benchmarks.step import Case, Convolutions, convolutions
from dxai.config.params_file import load_params
from dxai.explain.decomposition import DXAI
from dxai.metrics import smoothing
from dxai.types import GENERATED, NEUTRAL
from tests.prepared import PROJECT, prepared_textures


def penalised(network, x):
    (gradient,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
    gradient.square().sum().backward()


def test_every_convolution_of_a_gradient_of_a_gradient_is_counted():
    network, x = nn.Conv2d(2, 4, 3, padding=1), torch.randn(5, 2, 8, 8, requires_grad=True)
    with Convolutions() as seen:
        network(x).sum().backward()
    once = 2 * (5 * 4 * 8 * 8) * (2 * 3 * 3)  # output pixels by the weights that lead to each
    assert seen.operations == 3 * once
    assert sorted(seen.calls.values()) == [1, 1]
    with Convolutions() as seen:
        penalised(network, x)
    # Forward, by the image; and by the gradient and by the weights on R1's way back.
    assert sum(seen.calls.values()) == 4
    assert seen.operations == 4 * once


def test_the_convolutions_alone_are_those_of_the_step():
    network, x = nn.Conv2d(2, 4, 3, padding=1), torch.randn(5, 2, 8, 8, requires_grad=True)
    alone = convolutions(lambda: penalised(network, x), torch.channels_last)
    with Convolutions() as expected:
        penalised(network, x)
    with Convolutions() as found:
        alone()
    assert found.calls == expected.calls


def test_saved_bytes_are_those_of_the_tensors_that_backward_needs():
    x = torch.randn(6, 10, requires_grad=True)
    assert saved_bytes(lambda: x.exp()) == 4 * 60
    assert saved_bytes(lambda: nn.functional.linear(x, nn.Parameter(torch.ones(3, 10)))) == 4 * 60


def test_a_ring_of_two_sends_everything_once_and_a_long_one_twice():
    link = Link("", bandwidth=1e6, latency=0.0)
    assert link.all_reduce(1e6, 1) == 0
    assert link.all_reduce(1e6, 2) == pytest.approx(1)
    assert link.all_reduce(1e6, 10**6) == pytest.approx(2, rel=1e-4)
    assert Link("", 1e6, 0.1).all_reduce(0, 3) == pytest.approx(0.4)


def test_a_case_is_a_profile_a_size_and_perhaps_a_batch():
    assert str(Case.of("quick:32")) == "quick 32 px, 8 images"
    assert Case.of("paper:64:2").params.batch_size == 2


def test_tuning_scores_the_part_that_the_tables_score(tmp_path, monkeypatch):
    """Settings that were chosen by the scores of `neutral` would be chosen by another thing."""
    explain, kinds = DXAI.explain, []

    def watched(self, images, target=None, index=None, kind=NEUTRAL):
        kinds.append(kind)
        return explain(self, images, target, index, kind)

    monkeypatch.setattr(DXAI, "explain", watched)
    monkeypatch.setattr(smoothing, "tolerated", lambda *_: 0.05)  # after one epoch it stands none
    (tmp_path / "data").symlink_to(prepared_textures(tmp_path / "made"))
    params = load_params(PROJECT / "params.yaml")
    params = params.replace(classifier=params.classifier.replace(epochs=1))
    wanted = params.decompose_for("textures", "simple").replace(steps=1)
    (row,) = results(params, "textures", "simple", wanted, 0, tmp_path, [])
    assert row["method"] == "dxai" and 0 <= row["neutrality"] <= 1
    assert {"auc_transfer", "auc_blur", "auc_smooth", "psnr_removed_db"} <= set(row)
    assert kinds and set(kinds) == {GENERATED}


BURN = """
import sys, time
if sys.argv[1] == "ray":
    from ray._raylet import setproctitle  # which takes the environment away
    setproctitle("ray::Worker")
end = time.process_time() + 0.6
while time.process_time() < end: pass
time.sleep(60)
"""


@pytest.mark.slow
def test_orchestration_counts_the_run_by_parts_from_its_first_line_to_its_last():
    """A lane, a worker of Ray, and a process that is not of the run."""
    account, run = orchestration.Account(), os.environ | orchestration.PORTS
    started = [("dvc_lane.py", run), ("ray", run), ("other", dict(os.environ))]
    with account.watching():
        account.begin()
        processes = [
            psutil.Popen([sys.executable, "-c", BURN, word], env=env) for word, env in started
        ]
        try:
            for process in processes:
                while sum(process.cpu_times()[:2]) < 0.5 or process.status() != "sleeping":
                    time.sleep(0.05)
            time.sleep(4 * orchestration.SECONDS)
            used = [sum(process.cpu_times()[:2]) for process in processes]
            account.proceed()
            late = [sys.executable, "-c", BURN.replace("time.sleep(60)", ""), "dvc_lane.py"]
            subprocess.run(late, env=run, check=True)
        finally:
            for process in processes:
                process.kill()
                process.wait()
    account.close()
    lane, worker = account.spent["DVC in its lanes"], account.spent[orchestration.WORK]
    assert lane == pytest.approx(used[0], abs=0.1)
    assert worker == pytest.approx(used[1], abs=0.1)
    assert account.spent.total() == pytest.approx(lane + worker)
    assert account.idle == account.seconds > 0  # none of them is a stage
