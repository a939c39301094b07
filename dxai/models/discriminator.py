"""The discriminator, which is also a classifier (Table 8)."""

from __future__ import annotations

from torch import Tensor, nn

from dxai.models.blocks import SLOPE, DiscriminatorBlock, ReflectionPadding

MAX_WIDTH = 512


class Discriminator(nn.Module):
    """Residual network down to 4x4 with one output per class.

    `classes` is 1 for a single real/fake head, and `image_size` at least 8. Between two powers of
    two, images are padded so that each block can halve them, and the last map has a side of 5 to 8.
    `width` channels after the stem double at each halving up to 512; 0 takes
    min(512, 16384 / image_size), the paper's 64 at 256 px.
    """

    def __init__(self, channels: int, classes: int, image_size: int, width: int = 0) -> None:
        super().__init__()
        if image_size < 8:
            raise ValueError(
                f"prepare.image_size is {image_size}; the discriminator needs at least 8"
            )
        halvings = image_size.bit_length() - 3
        self.padding = ReflectionPadding(image_size, 1 << halvings)
        inputs = width or min(MAX_WIDTH, 16384 // image_size)
        self.stem = nn.Conv2d(channels, inputs, 3, padding=1)
        blocks = []
        for _ in range(halvings):
            outputs = min(2 * inputs, MAX_WIDTH)
            blocks.append(DiscriminatorBlock(inputs, outputs))
            inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(inputs, inputs, self.padding.padded >> halvings),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(inputs, classes, 1),
            nn.Flatten(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to outputs (B, classes)."""
        return self.head(self.blocks(self.stem(self.padding(x))))
