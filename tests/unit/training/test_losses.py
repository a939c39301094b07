"""Each loss against its closed form."""

import math

import pytest
import torch
import torch.nn.functional as F

from dxai.training import losses


def test_adversarial_losses_at_known_logits():
    assert losses.adversarial_real(torch.zeros(4)) == pytest.approx(math.log(2))
    assert losses.adversarial_fake(torch.zeros(4)) == pytest.approx(math.log(2))
    head = torch.tensor([1.5, -0.5])
    expected = -torch.log(torch.sigmoid(head)).mean()
    torch.testing.assert_close(losses.adversarial_real(head), expected)
    expected = -torch.log(1 - torch.sigmoid(head)).mean()
    torch.testing.assert_close(losses.adversarial_fake(head), expected)


@pytest.mark.parametrize("direction", ["d_c", "c_d"])
def test_kl_is_torch_kl_in_both_directions(direction):
    d, c = torch.randn(5, 3), torch.randn(5, 3)
    first, second = (d, c) if direction == "d_c" else (c, d)
    expected = F.kl_div(
        second.log_softmax(1), first.log_softmax(1), log_target=True, reduction="batchmean"
    )
    torch.testing.assert_close(losses.distribution_kl(d, c, direction), expected)
    assert losses.distribution_kl(d, d + 3) == pytest.approx(0, abs=1e-6)


def test_kl_sends_no_gradient_to_the_classifier():
    d, c = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    losses.distribution_kl(d, c).backward()
    assert c.grad is None
    assert d.grad.abs().sum() > 0


def test_distance_and_reconstruction():
    u = torch.zeros(2, 1, 4, 4)
    assert losses.distance(u, u + 0.5) == pytest.approx(0.75)
    assert losses.reconstruction(u, u + 0.5, u - 1) == pytest.approx(0.75 + 2)


def test_distinct_reconstruction_looks_only_where_psi_1_is_strong():
    x, distinct = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    distinct[0, 0, 0, 0] = -4  # |psi| counts
    blend = torch.full_like(x, 9.0)
    blend[0, 0, 0, 0] = 0.5
    assert losses.distinct_reconstruction(x, blend, distinct) == pytest.approx(0.75)


def test_distinct_reconstruction_of_an_empty_mask_is_zero():
    x = torch.ones(2, 1, 4, 4)
    for over in ("image", "batch"):
        assert losses.distinct_reconstruction(x, x + 1, torch.zeros_like(x), over) == 0


def test_distinct_reconstruction_over_images_does_not_depend_on_the_split():
    torch.manual_seed(0)
    x, blend, distinct = torch.randn(3, 6, 2, 8, 8)
    distinct[0, :, 1:] = 0  # very unequal masks
    whole = losses.distinct_reconstruction(x, blend, distinct)
    halves = [losses.distinct_reconstruction(x[i], blend[i], distinct[i]) for i in _halves()]
    torch.testing.assert_close(whole, torch.stack(halves).mean())
    whole = losses.distinct_reconstruction(x, blend, distinct, "batch")
    halves = [
        losses.distinct_reconstruction(x[i], blend[i], distinct[i], "batch") for i in _halves()
    ]
    assert abs(whole - torch.stack(halves).mean()) > 1e-4


def _halves():
    return slice(0, 3), slice(3, 6)


def test_agnostic_reconstruction_is_the_distance_of_x_and_x_hat_without_moving_psi_1():
    x, distinct, agnostic = torch.randn(3, 2, 1, 4, 4)
    distinct.requires_grad_()
    agnostic.requires_grad_()
    found = losses.agnostic_reconstruction(x, distinct, agnostic)
    torch.testing.assert_close(found, losses.distance(x, distinct + agnostic))
    found.backward()
    assert distinct.grad is None and (agnostic.grad != 0).all()


def test_neutrality_is_zero_exactly_where_undecided():
    assert losses.neutrality(torch.full((2, 4), 7.0)) == pytest.approx(0, abs=1e-6)
    assert losses.neutrality(torch.tensor([[3.0, 0.0]])) > 0.5


def test_r1_of_a_linear_head_is_half_its_squared_weight():
    weight = torch.randn(1, 2, 4, 4)
    x = torch.randn(3, 2, 4, 4, requires_grad=True)
    head = (x * weight).sum((1, 2, 3))
    expected = 0.5 * weight.square().sum()
    torch.testing.assert_close(losses.r1_penalty(head, x), expected)
