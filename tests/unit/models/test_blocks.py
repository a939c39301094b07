import pytest
import torch
import torch.nn.functional as F

from dxai.models.blocks import AdaptiveInstanceNorm, InstanceNorm, ReflectionPadding, normalise

FORMATS = (torch.channels_last, torch.contiguous_format)


def tensors(memory_format=torch.contiguous_format):
    torch.manual_seed(0)
    x = 3 + torch.randn(2, 3, 4, 5, dtype=torch.float64)
    scale, shift = torch.randn(2, 2, 3, dtype=torch.float64)
    x = x.contiguous(memory_format=memory_format)
    return [value.detach().requires_grad_() for value in (x, scale, shift)]


@pytest.mark.parametrize("slope", [1.0, 0.2])
@pytest.mark.parametrize("memory_format", FORMATS)
def test_normalise_is_torchs_instance_norm_and_keeps_the_memory_format(memory_format, slope):
    ours, theirs = tensors(memory_format), tensors()
    found = normalise(*ours, slope)
    x, scale, shift = theirs
    normal = scale[:, :, None, None] * F.instance_norm(x) + shift[:, :, None, None]
    expected = F.leaky_relu(normal, slope)
    torch.testing.assert_close(found, expected)
    assert found.is_contiguous(memory_format=memory_format)
    weights = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    assert ours[0].grad.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("slope", [1.0, 0.2])
def test_gradients_of_normalise_are_finite_differences(slope):
    assert torch.autograd.gradcheck(lambda *inputs: normalise(*inputs, slope), tensors())


def test_instance_norm_is_torchs_and_takes_its_weights():
    torch.manual_seed(0)
    theirs, ours = torch.nn.InstanceNorm2d(3, affine=True), InstanceNorm(3)
    torch.nn.init.normal_(theirs.weight)
    torch.nn.init.normal_(theirs.bias)
    ours.load_state_dict(theirs.state_dict())
    x, weights = torch.randn(2, 2, 3, 8, 8)
    for norm in (theirs, ours):
        (norm(x) * weights).sum().backward()
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    torch.testing.assert_close(ours.bias.grad, theirs.bias.grad)


def test_adaptive_instance_norm_has_the_styles_mean_and_deviation():
    torch.manual_seed(0)
    norm = AdaptiveInstanceNorm(4, 3)
    style = torch.randn(2, 4)
    scale, shift = norm.affine(style).chunk(2, dim=1)
    found = norm(5 + 2 * torch.randn(2, 3, 16, 16), style)
    torch.testing.assert_close(found.mean((2, 3)), shift)
    deviation = found.std((2, 3), correction=0)
    torch.testing.assert_close(deviation, (1 + scale).abs(), rtol=1e-3, atol=1e-4)


def test_normalise_works_in_float32_on_bfloat16():
    x, scale, shift = (value.detach().bfloat16() for value in tensors())
    found = normalise(x, scale, shift)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, normalise(x.float(), scale.float(), shift.float()))


@pytest.mark.parametrize(("side", "multiple"), [(16, 8), (17, 2), (17, 8), (33, 16), (5, 4)])
def test_reflection_padding_is_torchs(side, multiple):
    padding = ReflectionPadding(side, multiple)
    x = torch.randn(2, 3, side, side, dtype=torch.float64, requires_grad=True)
    expected = F.pad(x, (padding.before, padding.after) * 2, mode="reflect")
    assert expected.shape[-1] % multiple == 0 and expected.shape[-1] - side < multiple
    assert torch.equal(padding(x), expected)
    assert torch.equal(padding.crop(padding(x)), x)
    if side == 5:
        assert torch.autograd.gradgradcheck(padding, x)  # for the R1 penalty
