import pytest
import torch
import torch.nn.functional as F

from dxai.config.profiles import load_profile
from dxai.models.blocks import Convolution, DecoderBlock
from dxai.models.decomposer import OPTIONS, Decomposer
from dxai.models.generator import Generator, MappingNetwork


def tiny(**settings):
    torch.manual_seed(0)
    return Generator(
        channels=2,
        image_size=16,
        branches=3,
        branch_width=4,
        branch_max_width=8,
        coarsest=8,
        **settings,
    )


def test_branches_do_not_see_each_other():
    generator = tiny()
    x, style = torch.randn(2, 2, 16, 16), torch.randn(2, generator.styles, 64)
    generator(x, style)[:, 1].sum().backward()
    for name, weight in generator.named_parameters():
        by_branch = weight.grad.unflatten(0, (-1, 3, weight.shape[0] // 3 // _halves(name)))
        assert by_branch[:, 1].abs().sum() > 0 or "bias" in name, name
        assert by_branch[:, [0, 2]].abs().sum() == 0, name


def _halves(name):
    return 2 if "affine" in name else 1  # AdaIN's layer holds all scales, then all shifts


@pytest.mark.parametrize("agnostic_skip", [False, True])
def test_pair_is_two_plain_passes(agnostic_skip):
    generator = tiny(agnostic_skip=agnostic_skip)
    x = torch.randn(3, 2, 16, 16)
    style_a, style_b = torch.randn(2, 3, generator.styles, 64)
    pair = generator.pair(x, style_a, style_b)
    for found, style in zip(pair, (style_a, style_b), strict=True):
        torch.testing.assert_close(found, generator(x, style), rtol=1e-4, atol=1e-5)


def test_agnostic_skip_starts_near_the_image():
    x = torch.rand(2, 2, 16, 16) * 2 - 1
    generator = tiny(agnostic_skip=True)
    psi = generator(x, torch.randn(2, generator.styles, 64))
    assert (psi[:, 1:].sum(1) - x).abs().mean() < 0.2
    assert psi[:, 0].abs().mean() < 0.2


def test_normalising_the_input_forgets_brightness():
    x, brighter = torch.randn(1, 2, 16, 16), None
    brighter = x + 0.5
    style = torch.randn(1, 2, 64)
    for normalise, same in ((True, True), (False, False)):
        generator = tiny(normalise_input=normalise)
        # Zero padding is what still tells the brightness of an unnormalised image.
        near = torch.allclose(generator(x, style), generator(brighter, style), atol=1e-4)
        assert near is same


@pytest.mark.parametrize("upsampling", ["nearest", "bilinear"])
@pytest.mark.parametrize(("padding", "flat"), [("zeros", False), ("replicate", True)])
def test_replicate_padding_keeps_a_flat_image_flat(padding, flat, upsampling):
    generator = tiny(padding=padding, upsampling=upsampling).double()  # norms amplify rounding
    for block in generator.modules():  # fresh biases are so small that they would hide the border
        if isinstance(block, torch.nn.InstanceNorm2d):
            torch.nn.init.constant_(block.bias, 0.5)
    style = torch.randn(1, generator.styles, 64, dtype=torch.float64)
    psi = generator(torch.full((1, 2, 16, 16), 0.3, dtype=torch.float64), style)
    assert torch.allclose(psi, psi[..., :1, :1].expand_as(psi), atol=1e-6) is flat


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("channels", "groups"), [(6, 3), (1, 1)])
def test_replicate_padding_is_pytorchs(channels, groups, memory_format):
    torch.manual_seed(0)
    layer = Convolution(channels, 9, groups, replicate=True).double()
    images = torch.randn(2, channels, 5, 7, dtype=torch.float64)
    images = images.to(memory_format=memory_format)
    ours, theirs = images.clone().requires_grad_(), images.clone().requires_grad_()
    padded = F.pad(theirs, (1, 1, 1, 1), mode="replicate")
    expected = F.conv2d(padded, layer.weight, layer.bias, groups=groups)
    found = layer(ours)
    torch.testing.assert_close(found, expected)
    if channels > 1 or memory_format == torch.contiguous_format:  # one channel has both formats
        assert found.is_contiguous(memory_format=memory_format)
    weights = torch.randn_like(found)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert ours.grad.is_contiguous(memory_format=memory_format)


def test_bilinear_upsampling_keeps_a_ramp_straight():
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    for upsampling, straight in (("bilinear", True), ("nearest", False)):
        block = DecoderBlock(1, 1, 1, 4, up=True, upsampling=upsampling)
        inside = block._double(ramp)[0, 0, 4, 1:-1].diff()
        assert torch.allclose(inside, torch.full_like(inside, 0.5)) is straight


@pytest.mark.parametrize("norm", [True, False])
def test_the_last_norm_forgets_how_strong_the_features_are(norm: bool) -> None:
    x, style = torch.rand(1, 2, 16, 16) * 2 - 1, torch.randn(1, 2, 64)
    generator = tiny(last_norm=norm)
    psi = generator(x, style)
    generator.last_norm.register_forward_pre_hook(lambda module, inputs: (3 * inputs[0],))
    assert torch.allclose(psi, generator(x, style), atol=1e-3) is norm


def test_no_bias_stands_directly_before_an_instance_norm():
    names = [n for n, _ in tiny().named_parameters()]
    assert not [n for n in names if n.endswith("conv1.bias")]


def test_coarsest_is_at_most_the_image():
    with pytest.raises(ValueError, match=r"decompose\.coarsest is 33.* prepare\.image_size \(32\)"):
        Generator(1, 32, coarsest=33)
    assert len(Generator(1, 32, branches=2, branch_width=2, coarsest=12).encoder) == 1


@pytest.mark.parametrize("size", [16, 17, 33, 96, 100, 299])
def test_any_size_is_padded_inside(size):
    torch.manual_seed(0)
    generator = Generator(1, size, branches=2, branch_width=2, branch_max_width=2, coarsest=8)
    assert 8 <= generator.padding.padded >> len(generator.encoder) <= 16
    image, style = torch.randn(1, 1, size, size), torch.randn(1, generator.styles, 64)
    psi = generator(image, style)
    assert psi.shape == (1, 2, 1, size, size)
    # The mirrored image, explained at the padded size, is the same in the middle.
    sides = (generator.padding.before, generator.padding.after)
    mirrored = F.pad(image, sides * 2, mode="reflect") if any(sides) else image
    whole = Generator(
        1, mirrored.shape[-1], branches=2, branch_width=2, branch_max_width=2, coarsest=8
    )
    whole.load_state_dict(generator.state_dict())
    middle = whole(mirrored, style)[..., sides[0] :, sides[0] :][..., :size, :size]
    torch.testing.assert_close(psi, middle, rtol=1e-3, atol=1e-4)


def test_mapping_uses_the_head_of_the_class():
    torch.manual_seed(0)
    mapping = MappingNetwork(latent_dim=4, classes=3, styles=2, style_dim=5, width=8)
    z = torch.randn(1, 4).expand(3, 4)
    styles = mapping(z, torch.tensor([0, 1, 2]))
    assert styles.shape == (3, 2, 5)
    assert not torch.allclose(styles[0], styles[1])
    torch.testing.assert_close(mapping(z[:1], torch.tensor([2]))[0], styles[2])


def test_parts_sum_to_the_image():
    torch.manual_seed(0)
    decomposer = Decomposer(1, 3, 16, branches=4, branch_width=3, coarsest=8, mapping_width=8)
    x = torch.rand(5, 1, 16, 16) * 2 - 1
    found = decomposer(x, torch.tensor([0, 1, 2, 0, 1]), torch.randn(5, 16))
    assert found.psi.shape == (5, 4, 1, 16, 16)
    torch.testing.assert_close(found.psi[:, 0] + found.psi[:, 1:].sum(1), found.reconstruction)
    torch.testing.assert_close(found.distinct + found.agnostic, x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("profile", ["quick", "paper"])
@torch.no_grad()
def test_branches_of_several_styles_are_those_of_each_alone(profile):
    torch.manual_seed(0)
    settings = load_profile(profile)["decompose"] | {"coarsest": 8}
    decomposer = Decomposer(1, 3, 16, **{name: settings[name] for name in OPTIONS})
    x, seen = torch.rand(2, 1, 16, 16) * 2 - 1, []
    decomposer.generator.stem.register_forward_hook(lambda *_: seen.append(1))
    styles = [(torch.tensor(labels), torch.randn(2, 16)) for labels in ([0, 1], [2, 0], [1, 1])]
    found = list(decomposer.branches(x, styles))
    assert len(seen) == 1, "the encoder runs once"
    for psi, style in zip(found, styles, strict=True):
        assert torch.equal(psi, decomposer(x, *style).psi)
    assert not torch.equal(found[0], found[2])


def test_paper_preset_has_the_widths_of_the_paper():
    generator = Generator(channels=3, image_size=256, branches=5, branch_width=7, coarsest=16)
    outputs = [block.conv2.out_channels // 5 for block in generator.encoder]
    assert outputs == [14, 28, 56, 64]
    assert generator.last.out_channels == 15
