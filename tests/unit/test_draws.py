import numpy as np
import pytest
import torch
from scipy.stats import kstest

from dxai import draws


def test_a_draw_is_a_function_of_its_key_alone():
    first = draws.normal(0, "latent", 3, [5, 7], (4,))
    draws.normal(0, "something else", 0, range(100))
    again = draws.normal(0, "latent", 3, [7], (4,))
    assert torch.equal(first[1], again[0])


@pytest.mark.parametrize("other", [(1, "p", 0, 0), (0, "q", 0, 0), (0, "p", 1, 0), (0, "p", 0, 1)])
def test_every_part_of_the_key_matters(other):
    a = draws.generator(0, "p", 0, 0).random(50)
    b = draws.generator(*other).random(50)
    assert np.intersect1d(a, b).size == 0


def test_neighbouring_keys_do_not_overlap():
    """A long draw of one sample must not run into the numbers of the next sample or step."""
    long = draws.generator(0, "p", 0, 0).integers(2**62, size=200_000)
    for step, sample in ((0, 1), (1, 0)):
        near = draws.generator(0, "p", step, sample).integers(2**62, size=1000)
        assert np.intersect1d(long, near).size == 0


@pytest.mark.parametrize(("draw", "law"), [(draws.uniform, "uniform"), (draws.normal, "norm")])
def test_distributions_over_samples(draw, law):
    values = draw(0, "p", 0, range(4000)).numpy()
    assert kstest(values, law).pvalue > 0.001


def test_permutations_are_permutations_and_differ():
    first, second = (draws.permutation(0, "order", epoch, 50) for epoch in (0, 1))
    assert sorted(first) == list(range(50))
    assert (first != second).any()


def test_torch_seeds_fit_torch():
    torch.Generator().manual_seed(draws.torch_seed(0, "weights"))
    assert draws.torch_seed(0, "weights") != draws.torch_seed(1, "weights")
