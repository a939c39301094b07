"""Copies compute what the original does, with every activation a module of its own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dxai.explain.model_surgery import ACTIVATIONS, frozen_copy, require_same, traced_copy
from dxai.explain.registry import build_explainer
from dxai.types import Unsupported


class Careless(nn.Module):
    """What users write: in place, functional, one activation for all, sizes read from tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.fc = nn.Linear(4 * 8 * 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv1(x))
        y = F.relu_(self.conv2(x))
        y += x
        y = F.leaky_relu(self.conv2(y), 0.1).relu()
        y = self.act(F.max_pool2d(y, 2))
        return self.fc(y.view(y.size(0), -1))


class Branching(nn.Module):
    """Control flow that depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = -x
        return self.conv(x).mean((2, 3))


@pytest.mark.parametrize("copier", [frozen_copy, traced_copy])
def test_same_output_other_weights_object(copier, images: Tensor) -> None:
    network = Careless()
    copied = copier(network)
    torch.testing.assert_close(copied(images), network(images))
    assert not {id(p) for p in copied.parameters()} & {id(p) for p in network.parameters()}
    assert not any(p.requires_grad for p in copied.parameters())
    assert not any(module.training for module in copied.modules())
    assert all(module.training for module in network.modules()) and network.act.inplace


def test_traced_copy_separates_activations(images: Tensor) -> None:
    copied = traced_copy(Careless())
    calls = [
        node.target
        for node in copied.graph.nodes
        if node.op == "call_module" and isinstance(copied.get_submodule(node.target), ACTIVATIONS)
    ]
    assert len(calls) == len(set(calls)) == 5
    assert not any(getattr(module, "inplace", False) for module in copied.modules())
    kept: list[Tensor] = []
    copied.conv1.register_forward_hook(lambda module, inputs, output: kept.append(output))
    copied(images)
    assert kept[0].min() < 0  # what comes after did not overwrite it


def test_an_activation_shares_its_input_with_nothing() -> None:
    class Preactivated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1)
            self.act = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return x + self.conv(self.act(x))

    copied = traced_copy(Preactivated())
    for node in copied.graph.nodes:
        if node.target == "act":
            assert len(node.all_input_nodes[0].users) == 1


def test_what_cannot_be_traced_is_unsupported() -> None:
    with pytest.raises(Unsupported, match=r"torch\.fx cannot trace"):
        traced_copy(Branching())


class Unassigned(nn.Module):
    """An in-place call whose result nobody takes: the trace cannot show what it does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        F.relu_(x)
        return x.mean((2, 3))


@pytest.mark.parametrize("method", ["lrp", "guided_gradcam"])
def test_a_trace_that_computes_something_else_is_refused(method: str, images: Tensor) -> None:
    network = Unassigned()
    with pytest.raises(Unsupported, match="computes something else"):
        require_same(traced_copy(network), network, images)
    with pytest.raises(Unsupported):
        build_explainer(method, network).attribute(images, torch.zeros(8).long())
    require_same(
        traced_copy(Careless()), Careless(), images * 0 + torch.nan
    )  # NaN is no difference


@pytest.mark.parametrize(
    "wrap",
    [
        torch.nn.utils.parametrizations.weight_norm,
        torch.nn.utils.parametrizations.spectral_norm,
        torch.nn.utils.weight_norm,
        torch.nn.utils.spectral_norm,
    ],
    ids=["weight norm", "spectral norm", "weight norm by hooks", "spectral norm by hooks"],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_parametrised_weights_become_plain_in_the_copy_alone(wrap, images: Tensor) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(784, 3))
    plain = list(dict(network.named_parameters()))
    for layer in (network[0], network[3]):
        wrap(layer)
    network.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    copied = frozen_copy(network)
    assert sorted(dict(copied.named_parameters())) == sorted(plain)
    torch.testing.assert_close(copied(images), network(images))
    assert all(torch.equal(network.state_dict()[name], before[name]) for name in before)
    network.train()(images).sum().backward()  # the original can still be trained
    assert all(parameter.grad is not None for parameter in network.parameters())
