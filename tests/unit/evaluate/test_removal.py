import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter
from skimage.metrics import peak_signal_noise_ratio

from dxai.evaluate import removal


def test_part_from_heatmap_is_equation_w_times_x():
    heatmap = torch.tensor([[[[2.0, -4.0], [0.0, 1.0]]]])
    x = torch.tensor([[[[1.0, 0.5], [0.3, -0.8]]]])
    signed = removal.part_from_heatmap(heatmap, x, "signed")
    torch.testing.assert_close(signed, torch.tensor([[[[0.5, -0.5], [0, -0.2]]]]))
    relu = removal.part_from_heatmap(heatmap, x, "relu")
    torch.testing.assert_close(relu, torch.tensor([[[[1.0, 0], [0, -0.4]]]]))
    with pytest.raises(ValueError, match="signed, relu"):
        removal.part_from_heatmap(heatmap, x, "abs")


def test_the_peak_is_over_all_channels_of_an_image_and_of_it_alone():
    heatmap, x = torch.zeros(2, 3, 2, 2), torch.ones(2, 3, 2, 2)
    heatmap[0, 0], heatmap[0, 2], heatmap[1, 1] = 1, 4, 0.5
    part = removal.part_from_heatmap(heatmap, x, "relu")
    assert part[0, 0, 0, 0] == 0.25
    assert part[1, 1, 0, 0] == 1


def test_a_zero_or_all_negative_heatmap_removes_nothing():
    x = torch.ones(1, 1, 2, 2)
    assert removal.part_from_heatmap(torch.zeros(1, 1, 2, 2), x, "signed").abs().sum() == 0
    assert removal.part_from_heatmap(-torch.ones(1, 1, 2, 2), x, "relu").abs().sum() == 0


def test_remove_is_linear_and_not_clipped():
    x, part = torch.full((1, 1, 2, 2), -1.0), torch.ones(1, 1, 2, 2)
    found = removal.remove(x, part, torch.tensor([0, 0.5, 1]))
    assert found.shape == (3, 1, 1, 2, 2)
    assert found[:, 0, 0, 0, 0].tolist() == [-1, -1.5, -2]


def test_removed_energy_is_what_was_asked_for():
    torch.manual_seed(0)
    x, part = torch.randn(4, 2, 8, 8), torch.randn(4, 2, 8, 8) * 3
    energies = torch.tensor(removal.ENERGIES)
    without = removal.remove_energy(x, part, energies)
    removed = (without - x).square().sum((2, 3, 4)) / x.square().sum((1, 2, 3))
    torch.testing.assert_close(removed, energies[:, None].expand(-1, 4), rtol=1e-4, atol=1e-6)
    nothing = removal.remove_energy(x, torch.zeros_like(x), energies)
    assert torch.isfinite(nothing).all()
    torch.testing.assert_close(nothing[-1], x)


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
    assert removal.psnr(torch.zeros(1, 1, 2, 2)) == pytest.approx(120, abs=1e-3)
