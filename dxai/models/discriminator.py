"""The discriminator, which is also a classifier (Table 8)."""

from __future__ import annotations

from torch import Tensor, nn

from dxai.models.blocks import SLOPE, DiscriminatorBlock

MAX_WIDTH = 512


class Discriminator(nn.Module):
    """Residual network down to 4x4 with one output per class.

    `classes` is 1 for a single real/fake head, and `image_size` a power of two of at least 8.
    `width` channels after the stem double at each halving up to 512; 0 takes
    min(512, 16384 / image_size), the paper's 64 at 256 px.
    """

    def __init__(self, channels: int, classes: int, image_size: int, width: int = 0) -> None:
        super().__init__()
        if image_size < 8 or image_size & (image_size - 1):
            raise ValueError(f"image_size is {image_size}; the discriminator takes 8, 16, 32, ..")
        inputs = width or min(MAX_WIDTH, 16384 // image_size)
        self.stem = nn.Conv2d(channels, inputs, 3, padding=1)
        blocks = []
        for _ in range(image_size.bit_length() - 3):
            outputs = min(2 * inputs, MAX_WIDTH)
            blocks.append(DiscriminatorBlock(inputs, outputs))
            inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(inputs, inputs, 4),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(inputs, classes, 1),
            nn.Flatten(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to outputs (B, classes)."""
        return self.head(self.blocks(self.stem(x)))
