import pytest
import torch
from torch import nn

from dxai.models.classifiers import CLASSIFIERS, build_network
from dxai.models.default_layers import built_in_layers, default_layer, sequential_layers
from tests.unit.explain.zoo import ShortcutLast, ViT, stirred

SMALL = {"width": 4}


PUBLISHED = {
    "resnet18": ("layer3.1.conv2", "layer4.0.conv1", ["layer3.1", "layer4.0", "layer4.1"]),
    "simple": ("features.3", "features.3", []),
    "discriminator": ("blocks.2.conv2", "blocks.2.conv2", []),
}


@pytest.mark.parametrize("arch", CLASSIFIERS)
@pytest.mark.parametrize("wrapped", [False, True])
def test_built_in_networks_have_fixed_layers(arch, wrapped):
    network = build_network(arch, 1, 3, 32, **SMALL)
    prefix = "1." if wrapped else ""
    if wrapped:
        network = nn.Sequential(nn.Identity(), network)
    gradcam, influence, sequential = PUBLISHED[arch]
    image = torch.rand(1, 1, 32, 32)
    for role, name in (("gradcam", gradcam), ("internal_influence", influence)):
        layer = default_layer(network, image, role)
        assert layer.name == prefix + name
        assert min(layer.layout.grid) >= 4
    assert sequential_layers(network, image) == [prefix + name for name in sequential]
    assert built_in_layers(ViT()) is None


def test_three_consecutive_layers_leave_out_shortcuts():
    torch.manual_seed(0)
    image = torch.rand(1, 3, 32, 32)
    names = sequential_layers(stirred(ShortcutLast()), image)
    assert names == ["layer1.1.conv2", "layer2.conv1", "layer2.conv2"]
    names = sequential_layers(stirred(ViT()), image)
    assert names == ["blocks.0.mlp", "blocks.0", "blocks.1.norm1"]


def test_the_network_keeps_no_hooks():
    network = build_network("simple", 1, 3, 32, **SMALL)
    default_layer(network, torch.rand(1, 1, 32, 32), "gradcam")
    assert not any(module._forward_hooks for module in network.modules())
