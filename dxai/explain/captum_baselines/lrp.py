"""Layer-wise relevance propagation (Bach et al. 2015) through Captum, also in residual networks.

Captum's LRP attaches rules to modules, knows few of them, and ignores operations between modules:
on a residual network it counts relevance twice at each sum. So it runs on a prepared copy, which
is traced, with each batch norm folded into the convolution before it, and with each operation on
values (a sum, an activation, a pooling, a division by a constant) a module under the epsilon rule

    R_i = x_i sum_j dz_j/dx_i R_j / (z_j + epsilon sign z_j),

which splits the relevance of a sum in proportion to its terms, passes an activation's relevance
through, and lets biases absorb their share. Without biases the relevance of the image therefore
sums to the logit. For networks of these operations and epsilon to 0, the map equals the gradient
times the image (Ancona et al. 2018).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, ClassVar

import captum.attr
import torch
import torch.nn.functional as F
from captum.attr._utils.lrp_rules import EpsilonRule
from pydantic import Field
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dxai.config.settings import Settings
from dxai.explain.base import BatchExplainer
from dxai.explain.model_surgery import add_module, require_same, traced_copy
from dxai.types import Unsupported

LINEAR = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose2d,
    nn.Linear,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.AvgPool2d,
    nn.MaxPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ReLU6,
    nn.Hardtanh,
    nn.Upsample,
    nn.ZeroPad2d,
    nn.ReflectionPad2d,
    nn.ReplicationPad2d,
    nn.Flatten,
    nn.Unflatten,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.ChannelShuffle,
)
"""Modules under the epsilon rule: (piecewise) linear in their input, or moving values."""

PASSING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
"""Modules that do nothing in eval mode."""

FUNCTIONS: set[Any] = {
    *(operator.add, operator.sub, operator.neg, torch.add, torch.sub, torch.neg),
    *(F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d, F.interpolate),
    *(F.relu6, F.hardtanh, F.pad, torch.mean, torch.sum, torch.amax, torch.max_pool2d),
    *("add", "sub", "neg", "mean", "sum", "amax"),
}
"""Functions and methods that become modules under the epsilon rule."""

MULTIPLIED: set[Any] = {operator.mul, torch.mul, "mul"}
DIVIDED: set[Any] = {operator.truediv, torch.div, "div"}
"""Like `FUNCTIONS`, where all factors but one, or the divisor, are constant."""

MOVING: set[Any] = {
    *(torch.flatten, torch.reshape, torch.cat, torch.concat, torch.permute, torch.transpose),
    *(torch.squeeze, torch.unsqueeze, torch.chunk, torch.split, torch.clone, operator.getitem),
    torch.flip,
    *("flatten", "reshape", "view", "permute", "transpose", "squeeze", "unsqueeze", "chunk"),
    *("split", "contiguous", "clone", "flip"),
}
"""Functions and methods that move values; relevance moves with them."""

CASTS: set[Any] = {"float", "half", "bfloat16", "double", "to", "type", "type_as"}
"""Methods that change the type of values, which the float32 copy leaves as they are."""

SPLITTING: set[Any] = {torch.chunk, torch.split, "chunk", "split"}
"""Members of `MOVING` that return tuples of tensors."""

SIZES: set[Any] = {getattr, "size", "dim", "numel", operator.getitem, operator.floordiv}
"""Operations that compute shapes when applied to images or shapes."""


class LRPSettings(Settings):
    epsilon: float = Field(
        1e-9, gt=0, description="Epsilon of the epsilon rule (Captum's default: 1e-9)."
    )


class LRP(BatchExplainer):
    """Relevance of each input value under the epsilon rule in every layer; see the module."""

    name = "lrp"
    signs: ClassVar[tuple[str, ...]] = ("relu",)
    Settings = LRPSettings

    def prepare(self) -> None:
        """Make the copy that Captum can propagate through."""
        self.prepared = propagatable(self.model)

    def explain(self, inputs: Tensor, target: Tensor, index: Tensor) -> Tensor:
        """Map (B, C, H, W)."""
        require_same(self.prepared, self.model, inputs[:1])
        for module in self.prepared.modules():
            if not list(module.children()):  # Captum drops the rules after every call
                module.rule = EpsilonRule(self.settings.epsilon)
        return captum.attr.LRP(self.prepared).attribute(inputs, target=target)


class Operation(nn.Module):
    """Module that wraps a function of tensors, so that it can have a rule."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.function(*tensors)


def propagatable(classifier: nn.Module) -> fx.GraphModule:
    """Copy a classifier so that each step fits the epsilon rule or only moves values.

    Raises `Unsupported` if torch.fx cannot trace it, or if no rule fits one of its steps.
    """
    model = traced_copy(classifier).float()  # the epsilon of the rule is 0 in float16
    model.graph.eliminate_dead_code()  # a result without a use would have a share of relevance
    _fold_batch_norm(model)
    sizes: set[fx.Node] = set()
    for node in list(model.graph.nodes):
        if node.op == "call_module":
            _module_step(model, node)
        elif node.op in ("call_function", "call_method"):
            if _is_size(node, sizes):
                sizes.add(node)
            else:
                _function_step(model, node, sizes)
        elif node.op == "get_attr":
            raise Unsupported(
                f"LRP needs layers that are modules; {node.target} is used outside one"
            )
    model.delete_all_unused_submodules()
    model.graph.lint()
    model.recompile()
    return model


def _fold_batch_norm(model: fx.GraphModule) -> None:
    for node in list(model.graph.nodes):
        source = node.all_input_nodes[0] if node.op == "call_module" else node
        if node.op != "call_module" or source.op != "call_module" or len(source.users) > 1:
            continue
        convolution, norm = model.get_submodule(source.target), model.get_submodule(node.target)
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            model.set_submodule(source.target, fuse_conv_bn_eval(convolution, norm))
            node.replace_all_uses_with(source)
            model.graph.erase_node(node)


def _module_step(model: fx.GraphModule, node: fx.Node) -> None:
    module = model.get_submodule(str(node.target))
    if isinstance(module, PASSING):
        node.replace_all_uses_with(node.all_input_nodes[0])
        model.graph.erase_node(node)
    elif isinstance(module, nn.ReLU):
        # Captum handles nn.ReLU separately, with hooks that depend on the following module.
        node.target = add_module(model, node, Operation(F.relu))
    elif not isinstance(module, LINEAR):
        raise Unsupported(f"LRP has no rule for {type(module).__name__} ({node.target})")


def _function_step(model: fx.GraphModule, node: fx.Node, sizes: set[fx.Node]) -> None:
    tensors = [source for source in node.all_input_nodes if source not in sizes]
    if _is_linear(node) and len(tensors) == len(node.all_input_nodes):
        _to_operation(model, node)
    elif node.target in MOVING:
        _own_input(model, node)
    elif node.target in (F.dropout, F.dropout2d) or node.target in CASTS:
        node.replace_all_uses_with(tensors[0])
        model.graph.erase_node(node)
    else:
        name = getattr(node.target, "__name__", node.target)
        raise Unsupported(f"LRP has no rule for the operation {name}")


def _is_linear(node: fx.Node) -> bool:
    values = [*node.args, *node.kwargs.values()]
    variable = [isinstance(value, fx.Node) for value in values]
    if node.target in MULTIPLIED:
        return variable.count(True) == 1
    if node.target in DIVIDED:
        numerator = node.args[0] if node.args else node.kwargs.get("input")
        rounded = node.kwargs.get("rounding_mode") is not None
        return isinstance(numerator, fx.Node) and variable.count(True) == 1 and not rounded
    return node.target in FUNCTIONS


def _to_operation(model: fx.GraphModule, node: fx.Node) -> None:
    """Replace a function or method call by a module that takes only its tensors."""
    tensors, target = node.all_input_nodes, node.target
    args, kwargs, is_method = node.args, node.kwargs, node.op == "call_method"

    def function(*values: Tensor) -> Tensor:
        given = dict(zip(tensors, values, strict=True))
        filled, named = fx.node.map_arg((args, kwargs), given.__getitem__)
        if is_method:
            return getattr(filled[0], str(target))(*filled[1:], **named)
        return target(*filled, **named)  # type: ignore[operator]

    node.op, node.target = "call_module", add_module(model, node, Operation(function))
    node.args, node.kwargs = tuple(tensors), {}


def _own_input(model: fx.GraphModule, node: fx.Node) -> None:
    """Insert a cloning module before a step that moves relevance by itself.

    At a tensor with several uses Captum adds the values that come back. Each must be relevance
    per unit of value, which only modules with a rule return.
    """
    for source in node.all_input_nodes:
        if len(source.users) > 1 and source.target not in SPLITTING:
            with model.graph.inserting_before(node):
                name = add_module(model, node, Operation(torch.clone))
                node.replace_input_with(source, model.graph.call_module(name, (source,)))


def _is_size(node: fx.Node, sizes: set[fx.Node]) -> bool:
    if node.target not in SIZES:
        return False
    if node.target is operator.getitem or node.target is operator.floordiv:
        return all(source in sizes for source in node.all_input_nodes)
    return True
