"""Pictures have the colours that their definition says."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from dxai.evaluate import tiles


@pytest.mark.parametrize("channels", [1, 3])
def test_images_fill_their_range_and_are_clipped(channels: int) -> None:
    image = np.stack([np.array([[-2.0, -1.0], [0.0, 1.0]])] * channels)
    shown = tiles.picture(image)
    assert shown.shape == (2, 2, 3) and shown.dtype == np.uint8
    assert shown[..., 0].tolist() == shown[..., 2].tolist() == [[0, 0], [128, 255]]


def test_a_signed_part_is_shown_around_mid_gray() -> None:
    part = np.array([[[-0.3, 0.0, 0.3]]])
    assert tiles.signed(part, tiles.scale_of(part))[0, :, 0].tolist() == [1, 128, 255]
    assert tiles.scale_of(0 * part) == 1


def test_an_overlay_is_vermillion_blue_or_the_image_itself() -> None:
    heat = np.array([[[1.0, -1.0, 0.0]]])
    shown = tiles.overlay(np.zeros((1, 1, 3)), heat)[0].astype(int)
    assert shown[0, 0] > shown[0, 2] + 100
    assert shown[1, 2] > shown[1, 0] + 100
    assert shown[2].tolist() == [128, 128, 128]


def test_png_reads_back_and_large_ones_are_reduced() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(tiles.png(pixels)))), pixels)
    assert Image.open(io.BytesIO(tiles.png(np.zeros((500, 500, 3), np.uint8)))).size == (128, 128)
