import pytest
import torch

from dxai.models.classifiers import CLASSIFIERS, build_network
from dxai.models.default_layers import default_layers

SMALL = {"width": 4}


@pytest.mark.parametrize("arch", CLASSIFIERS)
def test_default_layers_exist_and_are_no_single_pixel(arch):
    network = build_network(arch, 1, 3, 32, **SMALL)
    layers = default_layers(network)
    for name in (layers["gradcam"], layers["internal_influence"]):
        sides = []
        hook = network.get_submodule(name).register_forward_hook(
            lambda _, __, out, sides=sides: sides.append(out.shape[-1])
        )
        network(torch.zeros(1, 1, 32, 32))
        hook.remove()
        assert sides[0] >= 4
