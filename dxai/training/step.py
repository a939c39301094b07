"""One training step of the decomposition: random inputs, blending, both updates. No I/O.

Shapes: B images, n branches, C channels, c classes, K AdaIN blocks, S style size.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import shutil
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dxai.config.schema import DecomposeParams
from dxai.models.blocks import channels_last
from dxai.models.decomposer import OPTIONS, Decomposer
from dxai.models.discriminator import Discriminator
from dxai.models.generator import Generator
from dxai.models.serialization import freeze
from dxai.training import losses
from dxai.training.distributed import SINGLE_PROCESS, ProcessGroup
from dxai.utils import keyed_random


@dataclass
class Networks:
    """The networks and optimisers of a training.

    `classifier` is None for C = D ("joint"): then the discriminator's own heads classify, and its
    averaged weights, `average_discriminator`, are the explained classifier.
    """

    decomposer: Decomposer
    discriminator: Discriminator
    average: Decomposer
    average_discriminator: Discriminator
    classifier: nn.Module | None
    optimiser: torch.optim.Optimizer
    optimiser_d: torch.optim.Optimizer

    def state_dict(self) -> dict[str, Any]:
        """Return the state of everything but the classifier, which never changes."""
        return {name: getattr(self, name).state_dict() for name in _STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in _STATE:
            getattr(self, name).load_state_dict(state[name])


_STATE = (
    "decomposer",
    "discriminator",
    "average",
    "average_discriminator",
    "optimiser",
    "optimiser_d",
)


def build_networks(
    params: DecomposeParams,
    channels: int,
    classes: int,
    image_size: int,
    classifier: nn.Module | None,
    seed: int,
    device: torch.device | str = "cpu",
) -> Networks:
    """Build networks and optimisers; the initial weights depend on `seed`, not on the device.

    Raises
    ------
    ValueError
        For a joint classifier with a single-head discriminator, or `compile` without a C++
        compiler.
    """
    if classifier is None and params.discriminator_heads != "class":
        raise ValueError("classifier joint: needs decompose.discriminator_heads: class")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(keyed_random.torch_seed(seed, "decompose/initial weights"))
        decomposer = Decomposer(channels, classes, image_size, **generator_settings(params))
        heads = classes if params.discriminator_heads == "class" else 1
        discriminator = Discriminator(channels, heads, image_size, params.discriminator_width)
    decomposer.to(device)
    channels_last(discriminator).to(device)
    adam: dict[str, Any] = {
        "lr": params.lr,
        "betas": (params.beta1, params.beta2),
        "weight_decay": params.weight_decay,
        "fused": True,
    }
    groups: list[dict[str, Any]] = [
        {"params": decomposer.generator.parameters()},
        {"params": decomposer.mapping.parameters(), "lr": params.lr_mapping},
    ]
    if classifier is not None:
        channels_last(freeze(classifier)).to(device)
    networks = Networks(
        decomposer,
        discriminator,
        freeze(copy.deepcopy(decomposer)),
        freeze(copy.deepcopy(discriminator)),
        classifier,
        torch.optim.Adam(groups, **adam),
        torch.optim.Adam(discriminator.parameters(), **adam),
    )
    if params.compile:  # the averaged copies run too rarely to gain
        _compile(decomposer.generator, device)
    return networks


def _compile(generator: Generator, device: torch.device | str) -> None:
    if torch.device(device).type == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
        raise ValueError("decompose.compile: found no C++ compiler (g++, or what CXX names)")
    generator.pair = torch.compile(generator.pair)  # type: ignore[method-assign]


def generator_settings(params: DecomposeParams) -> dict[str, Any]:
    """Return the settings that are arguments of `Decomposer`."""
    return {name: getattr(params, name) for name in OPTIONS}


@dataclass(frozen=True)
class RandomInputs:
    """The random numbers of one step, keyed by (seed, step, sample, purpose).

    Attributes
    ----------
    other : Tensor
        (B,), classes drawn uniformly from all but y.
    latent_y, latent_other : Tensor
        (B, latent_dim).
    alpha : Tensor
        (B, n - 1), or (1, n - 1) if shared by the batch.
    exact : Tensor
        (B,), bool: the images whose blend of the other class is x - beta psi_distinct.
    beta : Tensor
        (B,), in [exact_beta, 1].
    """

    other: Tensor
    latent_y: Tensor
    latent_other: Tensor
    alpha: Tensor
    exact: Tensor
    beta: Tensor

    def to(self, device: torch.device) -> RandomInputs:
        return RandomInputs(*(getattr(self, f.name).to(device) for f in dataclasses.fields(self)))


def draw_inputs(
    params: DecomposeParams,
    seed: int,
    step: int,
    y: Tensor,
    classes: int,
    samples: range | None = None,
) -> RandomInputs:
    """Draw for the labels y (B,) of a step.

    `samples` are the images' positions in the global batch; default: the whole batch.
    """
    samples = samples or range(len(y))
    shift = (keyed_random.uniform(seed, "other class", step, samples) * (classes - 1)).long()
    per = samples if params.alpha_per == "image" else [0]
    size = (params.latent_dim,)
    far = keyed_random.uniform(seed, "beta", step, samples)
    return RandomInputs(
        (y + 1 + shift) % classes,
        keyed_random.normal(seed, "latent", step, samples, size),
        keyed_random.normal(seed, "latent of the other class", step, samples, size),
        keyed_random.uniform(seed, "alpha", step, per, (params.branches - 1,)),
        keyed_random.uniform(seed, "exact", step, samples) < params.exact_agnostic,
        params.exact_beta + (1 - params.exact_beta) * far,
    )


def blend(
    psi_y: Tensor, psi_other: Tensor, alpha: Tensor, zero_distinction: bool = True
) -> tuple[Tensor, Tensor]:
    """Return the alpha-blended images of Eq. 5.

    Parameters
    ----------
    psi_y, psi_other : Tensor
        (B, n, C, H, W), branches under the styles of the image's class and of the other class.
    alpha : Tensor
        (B, n - 1) or (1, n - 1), in [0, 1].
    zero_distinction : bool
        Whether psi_distinct of the other class is replaced by 0.

    Returns
    -------
    tuple of Tensor
        x_hat^y and x_hat^y~, each (B, C, H, W).
    """
    alpha = alpha[:, :, None, None, None]
    own, other = psi_y[:, 1:], psi_other[:, 1:]
    blend_y = psi_y[:, 0] + (alpha * own + (1 - alpha) * other).sum(1)
    blend_other = ((1 - alpha) * own + alpha * other).sum(1)
    if not zero_distinction:
        blend_other = blend_other + psi_other[:, 0]
    return blend_y, blend_other


@dataclass(frozen=True)
class Savings:
    """Optimisations that change no loss; switched off only in benchmarks/step.py.

    Attributes
    ----------
    one_pass : bool
        Use one generator pass for both updates and one encoder pass for both styles.
    real_once : bool
        Pass each real image through the discriminator once, not once per blend.
    frozen : bool
        Compute no gradients of the discriminator's weights while the generator is updated.
    """

    one_pass: bool = True
    real_once: bool = True
    frozen: bool = True


ALL = Savings()


class Blended(NamedTuple):
    """psi_distinct^y, the sum of the agnostic branches under y, and the two blends of Eq. 5.

    Each is (B, C, H, W).
    """

    distinct: Tensor
    agnostic: Tensor
    y: Tensor
    other: Tensor


class _Batch(NamedTuple):
    """Images x (B, C, H, W), labels y (B,), and the classes (2B,) of the two blends of each."""

    x: Tensor
    y: Tensor
    targets: Tensor


def train_step(
    networks: Networks,
    params: DecomposeParams,
    x: Tensor,
    y: Tensor,
    drawn: RandomInputs,
    step: int,
    group: ProcessGroup = SINGLE_PROCESS,
    savings: Savings = ALL,
) -> dict[str, Tensor]:
    """Update discriminator, generator, mapping network and averages with one batch.

    Parameters
    ----------
    networks : Networks
        Changed in place.
    params : DecomposeParams
        Weights of the losses and other settings of the training.
    x, y : Tensor
        (B, C, H, W) in [-1, 1] and (B,): this worker's share of the batch.
    drawn : RandomInputs
        The step's random inputs.
    step : int
        Counted from 0.
    group : ProcessGroup
        The workers that share the batch; gradients are averaged over it.
    savings : Savings
        All, except in a benchmark.

    Returns
    -------
    dict of Tensor
        Unweighted losses by name, `total` and `total_d`: scalars on this worker's share.
    """
    with torch.set_grad_enabled(savings.one_pass):
        blended = blends(networks, params, x, y, drawn, savings)
    batch = _Batch(x, y, torch.cat([y, drawn.other]))
    penalise = params.r1 > 0 and step % params.r1_every == 0
    logged = _update_discriminator(networks, params, batch, blended, penalise, group, savings)
    if not savings.one_pass:
        blended = blends(networks, params, x, y, drawn, savings)
    logged |= _update_generator(networks, params, batch, blended, group, savings)
    average(networks, params, step)
    return {name: value.detach() for name, value in logged.items()}


def blends(
    networks: Networks,
    params: DecomposeParams,
    x: Tensor,
    y: Tensor,
    drawn: RandomInputs,
    savings: Savings = ALL,
) -> Blended:
    """Decompose a batch under both classes and blend; in float32.

    The blend of the other class is that of Eq. 5, or, where `drawn.exact`, x - beta psi_distinct:
    for a beta of 1, the class-agnostic part of Definition 2.
    """
    mapping, generator = networks.decomposer.mapping, networks.decomposer.generator
    styles = mapping(drawn.latent_y, y), mapping(drawn.latent_other, drawn.other)
    with _precision(params, x):
        if savings.one_pass:
            psi_y, psi_other = generator.pair(x, *styles)
        else:
            psi_y, psi_other = generator(torch.cat([x, x]), torch.cat(styles)).chunk(2)
    psi_y, psi_other = _exact(psi_y), _exact(psi_other)
    distinct = psi_y[:, 0]
    blend_y, blend_other = blend(psi_y, psi_other, drawn.alpha, params.zero_distinction)
    if params.exact_agnostic:
        # What x_hat misses must not keep the class: judge what is left of the image itself, too.
        exact, beta = (value[:, None, None, None] for value in (drawn.exact, drawn.beta))
        blend_other = torch.where(exact, x - beta * distinct, blend_other)
    return Blended(distinct, psi_y[:, 1:].sum(1), blend_y, blend_other)


def _precision(params: DecomposeParams, x: Tensor, exact: bool = False) -> torch.autocast:
    """Autocast to `params.precision`, or, if `exact`, to float32.

    Outputs go through `_exact`: losses, blends and averages are always float32.
    """
    wanted = params.precision == "bf16" and not exact
    return torch.autocast(x.device.type, torch.bfloat16, enabled=wanted)


def _exact(values: Tensor) -> Tensor:
    """Convert bf16 to float32; keep float64, used to compare runs."""
    return values.float() if values.dtype == torch.bfloat16 else values


def _head(params: DecomposeParams, heads: Tensor, y: Tensor) -> Tensor:
    """Select the output for class y, (B,)."""
    if params.discriminator_heads == "single":
        return heads[:, 0]
    return heads.gather(1, y[:, None])[:, 0]


def _update_discriminator(
    networks: Networks,
    params: DecomposeParams,
    batch: _Batch,
    blended: Blended,
    penalise: bool,
    group: ProcessGroup,
    savings: Savings,
) -> dict[str, Tensor]:
    x, y, targets = batch
    if not savings.real_once:
        x, y = torch.cat([x, x]), torch.cat([y, y])
    real = x.detach().requires_grad_(penalise)
    with _precision(params, x, exact=penalise):  # second derivatives need the precision
        heads = _exact(networks.discriminator(real))
    with _precision(params, x):
        fake = _exact(networks.discriminator(torch.cat([blended.y, blended.other]).detach()))
    fake = _head(params, fake, targets)
    terms = {
        "adv_real": losses.adversarial_real(_head(params, heads, y)),
        "adv_fake": losses.adversarial_fake(fake),
    }
    total = params.lambda_adv * (terms["adv_real"] + terms["adv_fake"])
    if params.lambda_kld:
        if networks.classifier is None:
            terms["kld"] = losses.class_fake(heads, y)
        else:
            with torch.no_grad(), _precision(params, x):
                logits = _exact(networks.classifier(x))
            terms["kld"] = losses.distribution_kl(heads, logits, params.kld_direction)
        total = total + params.lambda_kld * terms["kld"]
    if penalise:
        terms["r1"] = losses.r1_penalty(_head(params, heads, y), real)
        total = total + params.r1 * params.r1_every * terms["r1"]
    networks.optimiser_d.zero_grad(set_to_none=True)
    total.backward()
    group.average_gradients(networks.discriminator.parameters())
    networks.optimiser_d.step()
    return terms | {"total_d": total}


def _update_generator(
    networks: Networks,
    params: DecomposeParams,
    batch: _Batch,
    blended: Blended,
    group: ProcessGroup,
    savings: Savings,
) -> dict[str, Tensor]:
    x, _, targets = batch
    distinct, agnostic, blend_y, blend_other = blended
    both = torch.cat([blend_y, blend_other])
    # Gradients pass through both networks, but their weights need none.
    networks.discriminator.requires_grad_(not savings.frozen)
    classify = networks.classifier or networks.discriminator
    with _precision(params, x):
        heads = _exact(networks.discriminator(both))
        logits = heads if networks.classifier is None else _exact(classify(both))
    terms = {
        "adv": losses.adversarial_real(_head(params, heads, targets)),
        "class": losses.class_fake(logits, targets),
        "rec": losses.reconstruction(x, blend_y, blend_other),
        "dis_rec": losses.distinct_reconstruction(
            x, blend_y, distinct, params.dis_rec_over, group.mean
        ),
    }
    total = (
        params.lambda_adv * terms["adv"]
        + params.lambda_class * terms["class"]
        + params.lambda_rec * terms["rec"]
        + params.lambda_dis_rec * terms["dis_rec"]
    )
    if params.lambda_agnostic_rec:
        terms["agnostic_rec"] = losses.agnostic_reconstruction(x, distinct, agnostic)
        total = total + params.lambda_agnostic_rec * terms["agnostic_rec"]
    if params.lambda_neutral:
        with _precision(params, x):
            undecided = _exact(classify(x - distinct))
        terms["neutral"] = losses.neutrality(undecided)
        total = total + params.lambda_neutral * terms["neutral"]
    networks.optimiser.zero_grad(set_to_none=True)
    total.backward()
    group.average_gradients(networks.decomposer.parameters())
    networks.optimiser.step()
    networks.discriminator.requires_grad_(True)
    return terms | {"total": total}


@torch.no_grad()
def average(networks: Networks, params: DecomposeParams, step: int) -> None:
    """Update the exponential moving average of the weights after step `step`."""
    decay = min(params.ema, (1 + step) / (10 + step)) if params.ema_warmup else params.ema
    pairs = (
        (networks.average, networks.decomposer),
        (networks.average_discriminator, networks.discriminator),
    )
    for average, current in pairs:
        torch._foreach_lerp_(
            list(average.parameters()), [p.detach() for p in current.parameters()], 1 - decay
        )
