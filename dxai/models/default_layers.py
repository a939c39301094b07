"""The layers that layer-based methods read when the settings name none."""

from __future__ import annotations

from typing import Any

from torch import nn

from dxai.models.classifiers import ResNet18, Simple
from dxai.models.discriminator import Discriminator


def default_layers(network: nn.Module) -> dict[str, Any]:
    """Layers that layer-based methods use when the settings name none.

    `gradcam` and `internal_influence` are names for `network.get_submodule`; `sequential` lists
    three consecutive layers (Table 4), or none if the network has fewer.
    """
    if isinstance(network, ResNet18):
        return {
            "gradcam": "layer3.1.conv2",
            "internal_influence": "layer4.0.conv1",
            "sequential": ["layer3.1", "layer4.0", "layer4.1"],
        }
    convolutions = [name for name, m in network.named_modules() if isinstance(m, nn.Conv2d)]
    if not convolutions:
        return {"gradcam": None, "internal_influence": None, "sequential": []}
    if isinstance(network, Simple):
        return {"gradcam": "features.3", "internal_influence": "features.3", "sequential": []}
    if isinstance(network, Discriminator):
        # The last convolutions end at a single pixel; the last block still has 4x4.
        last = f"blocks.{len(network.blocks) - 1}.conv2"
        return {"gradcam": last, "internal_influence": last, "sequential": []}
    return {
        "gradcam": convolutions[-1],
        "internal_influence": convolutions[-1],
        "sequential": convolutions[-3:] if len(convolutions) >= 3 else [],
    }
