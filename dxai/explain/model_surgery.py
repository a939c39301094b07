"""Copies of a classifier, prepared for methods that hook or rewrite it."""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from dxai.models.programs import Program
from dxai.types import Unsupported

RELUS: tuple[Any, ...] = (F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_")
LEAKY_RELUS: tuple[Any, ...] = (F.leaky_relu, F.leaky_relu_)
ACTIVATIONS = (nn.ReLU, nn.LeakyReLU)


def frozen_copy(classifier: nn.Module) -> nn.Module:
    """Copy a classifier in eval mode, without weight gradients or in-place activations.

    An in-place activation would overwrite the layer output captured by a hook. Parametrised weights
    (weight norm, spectral norm) become ordinary ones.
    """
    with torch.no_grad():
        _compute_hooked_weights(classifier)
        # A program has nothing to change, and a copy of it would be read from its bytes again.
        shared = {id(m): m for m in classifier.modules() if isinstance(m, Program)}
        model = copy.deepcopy(classifier, shared)
    for parameter in model.parameters():  # a TorchScript module has no `requires_grad_`
        parameter.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, Program):
            continue
        module.training = False  # not .eval(), which a torch.export module refuses
        if isinstance(module, torch.jit.ScriptModule):
            continue
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
        _to_plain_weights(module)
    return model


def _compute_hooked_weights(classifier: nn.Module) -> None:
    """Set the weights that hooks compute in each forward pass to tensors that can be copied."""
    for module in classifier.modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm):
                setattr(module, hook.name, hook.compute_weight(module))
            elif isinstance(hook, SpectralNorm):
                setattr(module, hook.name, hook.compute_weight(module, do_power_iteration=False))


def _to_plain_weights(module: nn.Module) -> None:
    if is_parametrized(module):
        # `remove_parametrizations` would change the class, which the original has, too.
        names = list(module.parametrizations)  # type: ignore[arg-type]
        weights = {name: getattr(module, name).detach().clone() for name in names}
        del module.parametrizations
        module.__class__ = type(module).__bases__[0]
        for name, weight in weights.items():
            module.register_parameter(name, nn.Parameter(weight, requires_grad=False))
    for key, hook in list(module._forward_pre_hooks.items()):
        if isinstance(hook, WeightNorm | SpectralNorm):
            weight = getattr(module, hook.name).detach().clone()
            del module._forward_pre_hooks[key]
            parts = [hook.name + end for end in ("", "_g", "_v", "_orig", "_u")]
            for part in filter(functools.partial(hasattr, module), parts):
                delattr(module, part)
            module.register_parameter(hook.name, nn.Parameter(weight, requires_grad=False))


def traced_copy(classifier: nn.Module) -> fx.GraphModule:
    """Trace a frozen copy into a graph that calls each module exactly once.

    Methods that change the backward pass work on modules. So activations called as functions become
    modules, a module used twice becomes two, and no activation shares its input tensor, on which
    Captum sets hooks, with other nodes.

    Raises
    ------
    Unsupported
        If torch.fx cannot follow control flow that depends on values.
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in classifier.modules()):
        raise Unsupported("torch.fx cannot trace TorchScript")
    try:
        model = fx.symbolic_trace(frozen_copy(classifier))
    except Exception as error:  # a user's forward, run with proxies, may raise anything
        reason = " ".join(str(error).split())
        raise Unsupported(f"torch.fx cannot trace the classifier: {reason}") from None
    seen: set[Any] = set()
    for node in model.graph.nodes:
        _activation_to_module(model, node)
        if node.op != "call_module":
            continue
        if node.target in seen:
            repeated = copy.deepcopy(model.get_submodule(node.target))
            node.target = add_module(model, node, repeated)
        seen.add(node.target)
        if isinstance(model.get_submodule(node.target), ACTIVATIONS):
            _own_input(model, node)
    model.graph.lint()
    model.recompile()
    return model.eval()


def require_same(copied: nn.Module, original: nn.Module, images: Tensor) -> None:
    """Raise `Unsupported` if a traced copy and its original give different outputs.

    Tracing loses decisions that depend on the number of images, and in-place calls whose result is
    not used.
    """
    with torch.no_grad():
        found, expected = copied(images), original(images)
    if not torch.allclose(found, expected, rtol=1e-2, atol=1e-3, equal_nan=True):
        raise Unsupported("traced by torch.fx, the classifier computes something else")


def add_module(model: fx.GraphModule, node: fx.Node, module: nn.Module) -> str:
    """Add a module to `model` for the call `node`; return its name."""
    name = f"{node.name}_module"
    while hasattr(model, name):
        name += "_"
    model.add_submodule(name, module)
    return name


def _activation_to_module(model: fx.GraphModule, node: fx.Node) -> None:
    if node.op not in ("call_function", "call_method"):
        return
    if node.target in RELUS:
        module: nn.Module = nn.ReLU()
    elif node.target in LEAKY_RELUS:
        slope = node.args[1] if len(node.args) > 1 else node.kwargs.get("negative_slope", 0.01)
        module = nn.LeakyReLU(slope)  # type: ignore[arg-type]
    else:
        return
    tensor = node.args[0] if node.args else node.kwargs["input"]
    node.op, node.target = "call_module", add_module(model, node, module)
    node.args, node.kwargs = (tensor,), {}


def _own_input(model: fx.GraphModule, node: fx.Node) -> None:
    source = node.all_input_nodes[0]
    if len(source.users) > 1:
        with model.graph.inserting_before(node):
            node.replace_input_with(source, model.graph.call_method("clone", (source,)))
