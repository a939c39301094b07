import numpy as np
import pytest
import torch
from scipy.stats import kstest

from dxai.utils import keyed_random


def test_a_draw_is_a_function_of_its_key_alone():
    first = keyed_random.normal(0, "latent", 3, [5, 7], (4,))
    keyed_random.normal(0, "something else", 0, range(100))
    again = keyed_random.normal(0, "latent", 3, [7], (4,))
    assert torch.equal(first[1], again[0])


@pytest.mark.parametrize("other", [(1, "p", 0, 0), (0, "q", 0, 0), (0, "p", 1, 0), (0, "p", 0, 1)])
def test_every_part_of_the_key_matters(other):
    a = keyed_random.generator(0, "p", 0, 0).random(50)
    b = keyed_random.generator(*other).random(50)
    assert np.intersect1d(a, b).size == 0


def test_neighbouring_keys_do_not_overlap():
    """Long draws of a sample share no numbers with the next sample or step."""
    long = keyed_random.generator(0, "p", 0, 0).integers(2**62, size=200_000)
    for step, sample in ((0, 1), (1, 0)):
        near = keyed_random.generator(0, "p", step, sample).integers(2**62, size=1000)
        assert np.intersect1d(long, near).size == 0


@pytest.mark.parametrize(
    ("draw", "law"), [(keyed_random.uniform, "uniform"), (keyed_random.normal, "norm")]
)
def test_distributions_over_samples(draw, law):
    values = draw(0, "p", 0, range(4000)).numpy()
    assert kstest(values, law).pvalue > 0.001


def test_permutations_are_permutations_and_differ():
    first, second = (keyed_random.permutation(0, "order", epoch, 50) for epoch in (0, 1))
    assert sorted(first) == list(range(50))
    assert (first != second).any()


def test_torch_seeds_fit_torch():
    torch.Generator().manual_seed(keyed_random.torch_seed(0, "weights"))
    assert keyed_random.torch_seed(0, "weights") != keyed_random.torch_seed(1, "weights")
