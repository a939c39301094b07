"""Copies of a classifier, prepared for methods that hook or rewrite it."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from dxai.types import Unsupported

RELUS: tuple[Any, ...] = (F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_")
LEAKY_RELUS: tuple[Any, ...] = (F.leaky_relu, F.leaky_relu_)
ACTIVATIONS = (nn.ReLU, nn.LeakyReLU)


def frozen_copy(classifier: nn.Module) -> nn.Module:
    """Copy a classifier in eval mode, without weight gradients or in-place activations.

    An in-place activation would overwrite the layer output captured by a hook.
    """
    model = copy.deepcopy(classifier).requires_grad_(False)
    for module in model.modules():
        module.training = False  # not .eval(), which a torch.export module refuses
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    return model


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
    try:
        model = fx.symbolic_trace(frozen_copy(classifier))
    except Exception as error:  # a user's forward, run with proxies, may raise anything
        raise Unsupported(f"torch.fx cannot trace the classifier: {error}") from None
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
