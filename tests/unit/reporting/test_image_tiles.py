"""Pictures have the defined colours."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from dxai.reporting import image_tiles


@pytest.mark.parametrize("channels", [1, 3])
def test_images_fill_their_range_and_are_clipped(channels: int) -> None:
    image = np.stack([np.array([[-2.0, -1.0], [0.0, 1.0]])] * channels)
    shown = image_tiles.picture(image)
    assert shown.shape == (2, 2, 3) and shown.dtype == np.uint8
    assert shown[..., 0].tolist() == shown[..., 2].tolist() == [[0, 0], [128, 255]]


def test_a_signed_part_is_shown_around_mid_gray() -> None:
    part = np.array([[[-0.3, 0.0, 0.3]]])
    assert image_tiles.signed(part, image_tiles.scale_of(part))[0, :, 0].tolist() == [1, 128, 255]
    assert image_tiles.scale_of(0 * part) == 1


def test_an_overlay_is_vermillion_blue_or_the_image_itself() -> None:
    heat = np.array([[[1.0, -1.0, 0.0]]])
    shown = image_tiles.overlay(np.zeros((1, 1, 3)), heat)[0].astype(int)
    assert shown[0, 0] > shown[0, 2] + 100
    assert shown[1, 2] > shown[1, 0] + 100
    assert shown[2].tolist() == [128, 128, 128]


def test_magnitudes_go_from_black_to_white() -> None:
    shown = image_tiles.magnitude(np.array([[[0.0, 0.2, 0.4]], [[0.0, 0.2, 0.4]]]), 0.4)
    assert shown.shape == (1, 3, 3) and shown[0, :, 1].tolist() == [0, 128, 255]


@pytest.mark.parametrize("gray", [True, False])
def test_small_pictures_are_kept_as_they_are(gray: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    pixels = np.repeat(pixels[..., :1], 3, axis=-1) if gray else pixels
    file = image_tiles.encoded(pixels)
    assert file.startswith(b"\x89PNG")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(file)).convert("RGB")), pixels)
    assert len(file) < 1200 if gray else len(file) > 3000, "one channel is kept once"


def test_large_pictures_are_reduced_and_look_alike() -> None:
    y, x = np.mgrid[:256, :256]
    pixels = np.stack([x, y, 255 - x], -1).astype(np.uint8)
    file = image_tiles.encoded(pixels)
    found = Image.open(io.BytesIO(file))
    assert (found.format, found.size) == ("WEBP", (96, 96)) and len(file) < 3000
    assert np.abs(np.asarray(found)[48, 48].astype(int) - [128, 128, 127]).max() < 12
