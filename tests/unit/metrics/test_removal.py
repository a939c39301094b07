import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter
from scipy.stats import entropy
from skimage.metrics import peak_signal_noise_ratio

from dxai.metrics import removal


def test_part_from_heatmap_is_equation_w_times_x():
    heatmap = torch.tensor([[[[2.0, -4.0], [0.0, 1.0]]]])
    x = torch.tensor([[[[1.0, 0.5], [0.3, -0.8]]]])
    signed = removal.distinct_from_heatmap(heatmap, x, "signed")
    torch.testing.assert_close(signed, torch.tensor([[[[0.5, -0.5], [0, -0.2]]]]))
    relu = removal.distinct_from_heatmap(heatmap, x, "relu")
    torch.testing.assert_close(relu, torch.tensor([[[[1.0, 0], [0, -0.4]]]]))
    with pytest.raises(ValueError, match="signed, relu"):
        removal.distinct_from_heatmap(heatmap, x, "abs")


def test_the_peak_is_over_all_channels_of_an_image_and_of_it_alone():
    heatmap, x = torch.zeros(2, 3, 2, 2), torch.ones(2, 3, 2, 2)
    heatmap[0, 0], heatmap[0, 2], heatmap[1, 1] = 1, 4, 0.5
    part = removal.distinct_from_heatmap(heatmap, x, "relu")
    assert part[0, 0, 0, 0] == 0.25
    assert part[1, 1, 0, 0] == 1


def test_a_zero_or_all_negative_heatmap_removes_nothing():
    x = torch.ones(1, 1, 2, 2)
    assert removal.distinct_from_heatmap(torch.zeros(1, 1, 2, 2), x, "signed").abs().sum() == 0
    assert removal.distinct_from_heatmap(-torch.ones(1, 1, 2, 2), x, "relu").abs().sum() == 0


def test_remove_is_linear_and_not_clipped():
    x, part = torch.full((1, 1, 2, 2), -1.0), torch.ones(1, 1, 2, 2)
    found = torch.stack([*removal.remove(x, part, [0, 0.5, 1])])
    assert found.shape == (3, 1, 1, 2, 2)
    assert found[:, 0, 0, 0, 0].tolist() == [-1, -1.5, -2]


def test_removed_energy_is_what_was_asked_for():
    torch.manual_seed(0)
    x, part = torch.randn(4, 2, 8, 8), torch.randn(4, 2, 8, 8) * 3
    energies = torch.tensor(removal.ENERGIES)
    without = torch.stack([*removal.remove_energy(x, part, removal.ENERGIES)])
    removed = (without - x).square().sum((2, 3, 4)) / x.square().sum((1, 2, 3))
    torch.testing.assert_close(removed, energies[:, None].expand(-1, 4), rtol=1e-4, atol=1e-6)
    for nothing in removal.remove_energy(x, torch.zeros_like(x), removal.ENERGIES):
        torch.testing.assert_close(nothing, x)


def test_blur_is_scipys_uniform_filter():
    part = torch.randn(1, 1, 9, 9)
    expected = uniform_filter(part[0, 0].numpy(), 3, mode="nearest")
    np.testing.assert_allclose(removal.blur(part)[0, 0].numpy(), expected, atol=1e-6)


def test_psnr_is_scikit_images():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (2, 1, 8, 8)).astype(np.float32)
    y = x + 0.1 * rng.standard_normal(x.shape).astype(np.float32)
    expected = [peak_signal_noise_ratio(a, b, data_range=2) for a, b in zip(x, y, strict=True)]
    found = removal.psnr(torch.from_numpy(x - y))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)
    # scikit-image says infinity here, which JSON has no number for.
    assert removal.psnr(torch.zeros(1, 1, 2, 2)) == pytest.approx(120, abs=1e-3)


def ranked(values, shares, seed=0, fill=0.0, index=(5,)):
    """Return the pixels of images of ones deleted at each share: (L, B, pixels), bool."""
    heat = torch.tensor(values, dtype=torch.float32).reshape(len(index), -1, 4, 5)
    images = torch.ones(len(index), 2, 4, 5)
    found = torch.stack([*removal.delete(images, heat, shares, fill, torch.tensor(index), seed)])
    assert found.shape == (len(shares), len(index), 2, 4, 5)
    assert torch.equal(found[:, :, 0], found[:, :, 1])  # all channels of a pixel
    assert set(found.unique().tolist()) <= {1.0, fill}
    return (found[:, :, 0] == fill).flatten(2).numpy()


def test_exactly_the_largest_are_deleted_whatever_their_sign():
    values = np.arange(20.0) * np.where(np.arange(20) % 2, 1, -1)
    deleted = ranked(values, removal.DELETED)
    assert deleted.sum(2)[:, 0].tolist() == [0, 1, 2, 3, 4]
    for k in range(5):
        assert set(np.flatnonzero(deleted[k, 0])) == set(range(20 - k, 20))


@pytest.mark.parametrize("share, count", [(0.0, 0), (0.05, 1), (0.12, 2), (0.13, 3), (1.0, 20)])
def test_a_share_is_rounded_to_whole_pixels(share, count):
    assert ranked(np.arange(20.0), [share]).sum() == count


def test_channels_count_by_the_mean_of_their_absolute_values():
    heat = np.zeros((1, 3, 20))
    heat[0, :, 4] = 2, -2, 0  # its mean is 0
    heat[0, :, 9] = 3, 0, 0
    deleted = ranked(heat, [0.05, 0.1])
    assert np.flatnonzero(deleted[0, 0]).tolist() == [4]
    assert np.flatnonzero(deleted[1, 0]).tolist() == [4, 9]


def test_what_is_filled_in_is_what_was_asked_for():
    assert ranked(np.arange(20.0), [0.2], fill=-1.0).sum() == 4


def test_equal_pixels_are_chosen_by_seed_and_image_and_alike_at_every_share():
    def constant(**options):
        return ranked(np.ones(20), removal.DELETED, **options)

    one = constant()
    assert one.sum(2)[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert (one[1:] >= one[:-1]).all()  # more pixels, never others
    np.testing.assert_array_equal(one, constant())
    assert not np.array_equal(one, constant(seed=1))
    assert not np.array_equal(one, constant(index=(6,)))
    both = ranked(np.ones((2, 20)), removal.DELETED, index=(5, 6))
    np.testing.assert_array_equal(both[:, :1], one)
    np.testing.assert_array_equal(both[:, 1:], constant(index=(6,)))


def test_ties_are_broken_only_between_equals():
    values = np.r_[np.ones(10), np.full(2, 2.0), np.zeros(8)]
    deleted = ranked(values, [0.1, 0.15])
    assert np.flatnonzero(deleted[0, 0]).tolist() == [10, 11]
    (third,) = set(np.flatnonzero(deleted[1, 0])) - {10, 11}
    assert third < 10


def test_neutrality_is_scipys_entropy_over_that_of_an_undecided_answer():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    expected = entropy(logits.softmax(1).numpy(), axis=1) / np.log(4)
    np.testing.assert_allclose(removal.neutrality(logits.softmax(1)), expected, rtol=1e-5)
    assert removal.neutrality(torch.zeros(1, 7).softmax(1)) == pytest.approx(1)
