import dataclasses
import shutil

import pytest
import torch
from torch import nn

from benchmarks.step import NONE, contiguous
from dxai.config.schema import DecomposeParams
from dxai.models.classifiers import build_network
from dxai.training.step import ALL, blend, blends, build_networks, draw_inputs, train_step

SMALL = DecomposeParams(
    steps=10,
    batch_size=4,
    branches=3,
    branch_width=3,
    branch_max_width=6,
    coarsest=8,
    mapping_width=8,
    style_dim=8,
    discriminator_width=4,
    lr=1e-3,
    lr_mapping=1e-4,
)


def batch(seed=0, size=4, side=16):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(size, 1, side, side, generator=generator) * 2 - 1
    return x, torch.arange(size) % 3


def networks(params=SMALL, joint=False):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        classifier = None if joint else build_network("simple", 1, 3, 16, width=4)
    return build_networks(params, 1, 3, 16, classifier, seed=0)


def run(params, steps, joint=False, size=4):
    nets = networks(params, joint)
    x, y = batch(size=size)
    for step in range(steps):
        terms = train_step(nets, params, x, y, draw_inputs(params, 0, step, y, 3), step)
    return nets, terms


@pytest.mark.parametrize("side", [17, 33, 100])
@pytest.mark.parametrize("joint", [False, True])
def test_a_step_takes_images_of_any_size(side, joint):
    classifier = None if joint else build_network("simple", 1, 3, side, width=4)
    nets = build_networks(SMALL, 1, 3, side, classifier, seed=0)
    x, y = batch(side=side, size=2)
    terms = train_step(nets, SMALL, x, y, draw_inputs(SMALL, 0, 0, y, 3), 0)
    assert all(torch.isfinite(torch.as_tensor(value)).all() for value in terms.values())
    assert float(terms["r1"]) > 0


def test_identical_branches_give_the_unblended_sum_for_every_alpha():
    psi = torch.randn(2, 4, 1, 8, 8, dtype=torch.float64)
    for alpha in (torch.zeros(2, 3), torch.ones(1, 3), torch.rand(2, 3)):
        blend_y, blend_other = blend(psi, psi, alpha.double())
        torch.testing.assert_close(blend_y, psi.sum(1))
        torch.testing.assert_close(blend_other, psi[:, 1:].sum(1))


def test_blend_is_equation_5_written_out():
    torch.manual_seed(0)
    own, other = torch.randn(2, 1, 3, 1, 2, 2)
    alpha = torch.tensor([[0.25, 0.9]])
    blend_y, blend_other = blend(own, other, alpha, zero_distinction=False)
    expected = (
        own[:, 0] + 0.25 * own[:, 1] + 0.9 * own[:, 2] + 0.75 * other[:, 1] + 0.1 * other[:, 2]
    )
    torch.testing.assert_close(blend_y, expected)
    expected = (
        other[:, 0] + 0.75 * own[:, 1] + 0.1 * own[:, 2] + 0.25 * other[:, 1] + 0.9 * other[:, 2]
    )
    torch.testing.assert_close(blend_other, expected)


def test_zero_distinction_removes_psi_1_of_the_other_class():
    own, other = torch.randn(2, 2, 3, 1, 4, 4)
    other.requires_grad_()
    blend_other = blend(own, other, torch.rand(2, 2))[1]
    blend_other.sum().backward()
    assert other.grad[:, 0].abs().sum() == 0
    assert other.grad[:, 1:].abs().sum() > 0


@pytest.mark.parametrize("smallest", [1.0, 0.7])
def test_exact_agnostic_judges_the_image_less_its_class_distinct_part(smallest):
    x, y = batch()
    params = SMALL.replace(exact_agnostic=0.5, exact_beta=smallest)
    drawn = draw_inputs(params, 0, 3, y, 3)
    assert drawn.exact.any() and not drawn.exact.all()
    nets = networks(params)
    mixed, plain = (blends(nets, p, x, y, drawn) for p in (params, SMALL))
    torch.testing.assert_close(mixed.y, plain.y, rtol=0, atol=0)
    beta = drawn.beta.reshape(-1, 1, 1, 1)
    expected = x - beta * plain.distinct  # Definition 2, for a beta of 1
    torch.testing.assert_close(mixed.other[drawn.exact], expected[drawn.exact])
    torch.testing.assert_close(mixed.other[~drawn.exact], plain.other[~drawn.exact])
    everywhere = SMALL.replace(exact_agnostic=1.0)
    found = blends(nets, everywhere, x, y, draw_inputs(everywhere, 0, 3, y, 3)).other
    torch.testing.assert_close(found, x - plain.distinct)


def test_beta_is_drawn_uniformly_from_the_smallest_to_1():
    y = torch.zeros(3000, dtype=torch.long)
    drawn = draw_inputs(SMALL.replace(exact_beta=0.6), 0, 0, y, 3).beta
    assert 0.6 <= float(drawn.min()) < 0.61 and 0.99 < float(drawn.max()) <= 1
    assert float(drawn.mean()) == pytest.approx(0.8, abs=0.01)
    assert (draw_inputs(SMALL, 0, 0, y, 3).beta == 1).all()


def test_the_agnostic_reconstruction_moves_the_agnostic_branches_alone():
    alone = dict.fromkeys(("adv", "kld", "class", "rec", "dis_rec"), 0.0) | {"agnostic_rec": 1.0}
    params = SMALL.replace(r1=0.0, **{f"lambda_{name}": value for name, value in alone.items()})
    nets, terms = run(params, 1)
    assert terms["total"] == terms["agnostic_rec"] > 0
    last = nets.decomposer.generator.last.weight.grad.unflatten(0, (params.branches, -1))
    assert (last[0] == 0).all() and (last[1:] != 0).any()
    for weight in nets.decomposer.generator.encoder[0].parameters():
        own = weight.grad.unflatten(0, (params.branches, -1))
        assert (own[0] == 0).all() and (own[1:] != 0).any()


def test_the_other_class_is_another_one_and_uniform():
    y = torch.arange(3000) % 4
    other = draw_inputs(SMALL, 0, 0, y, 4).other
    assert (other != y).all()
    counts = torch.bincount(4 * y + other, minlength=16)
    assert counts[counts > 0].min() > 200  # 250 expected for each of the 12 pairs
    assert (counts > 0).sum() == 12


def test_draws_depend_on_seed_step_and_sample_alone():
    y = torch.tensor([0, 1, 2, 0])
    whole, half = draw_inputs(SMALL, 5, 7, y, 3), draw_inputs(SMALL, 5, 7, y[:2], 3)
    torch.testing.assert_close(whole.latent_y[:2], half.latent_y)
    torch.testing.assert_close(whole.other[:2], half.other)
    assert not torch.equal(whole.latent_y, whole.latent_other)
    assert not torch.equal(whole.latent_y, draw_inputs(SMALL, 5, 8, y, 3).latent_y)
    assert not torch.equal(whole.latent_y, draw_inputs(SMALL, 6, 7, y, 3).latent_y)


def test_alpha_is_one_vector_a_batch_or_one_an_image():
    y = torch.zeros(5, dtype=torch.long)
    assert draw_inputs(SMALL, 0, 0, y, 3).alpha.shape == (1, 2)
    per_image = SMALL.replace(alpha_per="image")
    alpha = draw_inputs(per_image, 0, 0, y, 3).alpha
    assert alpha.shape == (5, 2)
    assert ((alpha >= 0) & (alpha <= 1)).all()


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"discriminator_heads": "single", "lambda_kld": 0.0, "alpha_per": "image"},
        {"lambda_neutral": 1.0, "kld_direction": "c_d", "agnostic_skip": True},
        {"last_norm": False},
        {"zero_distinction": False, "dis_rec_over": "batch", "normalise_input": True},
        {"r1_every": 2, "ema_warmup": True},
    ],
)
def test_every_setting_trains_and_leaves_the_classifier_alone(changed):
    params = SMALL.replace(**changed)
    before = {k: v.clone() for k, v in networks(params).classifier.state_dict().items()}
    start = [p.clone() for p in networks(params).decomposer.parameters()]
    nets, terms = run(params, 3)
    assert all(torch.isfinite(v) for v in terms.values())
    for name, value in nets.classifier.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None and not p.requires_grad for p in nets.classifier.parameters())
    assert not nets.classifier.training
    # Every weight moves, the mapping network's included.
    moved = [
        not torch.equal(a, b) for a, b in zip(start, nets.decomposer.parameters(), strict=True)
    ]
    assert sum(moved) > 0.9 * len(moved)


def test_joint_classifies_with_the_discriminators_own_heads():
    nets, terms = run(SMALL, 2, joint=True)
    assert nets.classifier is None
    assert terms["kld"] > 0  # cross-entropy on real images
    single = SMALL.replace(discriminator_heads="single", lambda_kld=0.0)
    with pytest.raises(ValueError, match="discriminator_heads"):
        networks(single, joint=True)


def test_joint_learns_to_classify():
    """After some steps D's heads tell bright, middle and dark images apart."""
    nets = networks(SMALL, joint=True)
    y = torch.arange(12) % 3
    x = (y.float() - 1)[:, None, None, None] * 0.8 + 0.05 * torch.randn(12, 1, 16, 16)
    for step in range(60):
        train_step(nets, SMALL, x, y, draw_inputs(SMALL, 0, step, y, 3), step)
    assert (nets.discriminator(x).argmax(1) == y).float().mean() == 1


def test_generator_update_leaves_no_gradient_in_the_discriminator():
    nets = networks()
    x, y = batch()
    train_step(nets, SMALL, x, y, draw_inputs(SMALL, 0, 0, y, 3), 0)
    held = [p.grad.clone() for p in nets.discriminator.parameters()]
    # Those are of D's own update; weights would differ had G's pass added to them.
    again = networks()
    lone = SMALL.replace(lambda_class=0.0, lambda_rec=0.0, lambda_dis_rec=0.0)
    train_step(again, lone, x, y, draw_inputs(SMALL, 0, 0, y, 3), 0)
    for a, p in zip(held, again.discriminator.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad)
    assert all(p.requires_grad for p in nets.discriminator.parameters())


def test_same_seed_same_weights():
    first, second = run(SMALL, 3)[0], run(SMALL, 3)[0]
    for a, b in zip(first.average.parameters(), second.average.parameters(), strict=True):
        assert torch.equal(a, b)


def test_average_starts_from_a_copy_and_follows_its_closed_form():
    params = SMALL.replace(ema=0.9)
    nets = networks(params)
    start = next(nets.decomposer.parameters()).detach().clone()
    torch.testing.assert_close(next(nets.average.parameters()), start)
    x, y = batch()
    train_step(nets, params, x, y, draw_inputs(params, 0, 0, y, 3), 0)
    expected = 0.9 * start + 0.1 * next(nets.decomposer.parameters()).detach()
    torch.testing.assert_close(next(nets.average.parameters()), expected)


def test_the_mapping_network_has_its_own_learning_rate():
    groups = networks().optimiser.param_groups
    assert [g["lr"] for g in groups] == [1e-3, 1e-4]
    assert groups[1]["params"][0].shape == (8, 16)


def test_gradients_of_one_shared_forward_equal_two_separate_ones():
    """The saving must not change the mathematics: G's gradient through the shared pass against
    autograd on a fresh graph of the same loss."""
    params = SMALL.replace(lambda_adv=0.0, lambda_kld=0.0)
    nets, reference = networks(params).decomposer, networks(params).decomposer
    x, y = batch()
    drawn = draw_inputs(params, 0, 0, y, 3)
    style_y, style_o = (
        nets.mapping(drawn.latent_y, y),
        nets.mapping(drawn.latent_other, drawn.other),
    )
    shared = blend(*nets.generator.pair(x, style_y, style_o), drawn.alpha)
    (shared[0].square().mean() + shared[1].abs().mean()).backward()
    style_y = reference.mapping(drawn.latent_y, y)
    style_o = reference.mapping(drawn.latent_other, drawn.other)
    separate = blend(reference.generator(x, style_y), reference.generator(x, style_o), drawn.alpha)
    (separate[0].square().mean() + separate[1].abs().mean()).backward()
    for a, b in zip(nets.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("switched", ["one_pass", "real_once", "frozen", "NCHW", "all"])
def test_savings_leave_losses_and_weights_as_they_are(switched):
    params = SMALL.replace(lambda_neutral=1.0)
    fast, slow = networks(params), networks(params)
    savings = ALL
    if switched in ("NCHW", "all"):
        contiguous(slow)
    if switched == "all":
        savings = NONE
        slow.classifier.requires_grad_(True)
    elif switched != "NCHW":
        savings = dataclasses.replace(ALL, **{switched: False})
    x, y = batch()
    for step in range(2):
        drawn = draw_inputs(params, 0, step, y, 3)
        expected = train_step(slow, params, x, y, drawn, step, savings=savings)
        found = train_step(fast, params, x, y, drawn, step)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    # Adam divides by the size of the gradient: where that is rounding, the sign is chance.
    pairs = zip(fast.average.parameters(), slow.average.parameters(), strict=True)
    apart = torch.cat([(a - b).abs().flatten() for a, b in pairs])
    assert apart.quantile(0.99) < 1e-6


def layout(tensor):
    """Return the strides that say where values lie: those of more than one."""
    return tuple(s for s, n in zip(tensor.stride(), tensor.shape, strict=True) if n > 1)


def test_gradients_and_adams_memory_lie_as_their_weights_do():
    """Fused Adam on a CPU goes through memory without looking at strides."""
    nets, _ = run(SMALL, 2)  # the first step has R1
    resumed = networks()
    resumed.load_state_dict(nets.state_dict())
    for each in (nets, resumed):
        for optimiser in (each.optimiser, each.optimiser_d):
            for weight, state in optimiser.state.items():
                memory = (state["exp_avg"], state["exp_avg_sq"])
                grown = memory if weight.grad is None else (*memory, weight.grad)
                assert {layout(tensor) for tensor in grown} == {layout(weight)}
    assert all(p.grad is not None for p in nets.decomposer.parameters())


def test_bf16_changes_the_digits_and_leaves_r1_alone():
    half = SMALL.replace(precision="bf16")
    exact, rounded = run(SMALL, 1)[1], run(half, 1)[1]
    assert torch.equal(rounded["r1"], exact["r1"])
    assert not torch.equal(rounded["rec"], exact["rec"])
    for name, value in exact.items():
        assert rounded[name].dtype == torch.float32
        torch.testing.assert_close(rounded[name], value, rtol=0.02, atol=0.02)
    assert all(p.dtype == torch.float32 for p in networks(half).decomposer.parameters())


def test_compiling_without_a_compiler_says_so(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match="no C\\+\\+ compiler"):
        networks(SMALL.replace(compile=True))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
def test_a_compiled_generator_gives_the_same_losses():
    plain, compiled = run(SMALL, 2)[1], run(SMALL.replace(compile=True), 2)[1]
    torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=1e-5)


def test_a_classifier_in_training_mode_is_put_into_eval():
    classifier = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(256, 3)).train()
    nets = build_networks(SMALL, 1, 3, 16, classifier, 0)
    assert not nets.classifier.training
