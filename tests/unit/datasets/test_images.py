from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from dxai.datasets.base import DataError
from dxai.datasets.images import decode, encode, open_image, open_mask, read_image, resize, square


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_gray_is_itu_r_601_luma(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.new("RGB", (4, 4), (200, 100, 50)))
    luma = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    pixels = read_image(path, 4, 1)
    assert pixels.shape == (4, 4)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels, luma, atol=1)


def test_pixels_of_an_image_of_the_right_size_are_untouched(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    path = save(tmp_path / "a.png", Image.fromarray(pixels))
    np.testing.assert_array_equal(read_image(path, 9, 3), pixels)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_16_bit_gray_is_scaled_by_its_full_range(tmp_path: Path, name: str) -> None:
    """Exactly v * 257 is v, and what is nearer to it than to its neighbours as well."""
    wanted = np.arange(256).reshape(16, 16)
    for off in (0, -128, 128):
        stored = (wanted * 257 + off).clip(0, 65535).astype(np.uint16)
        path = save(tmp_path / name, Image.fromarray(stored))
        np.testing.assert_array_equal(read_image(path, 16, 1), wanted)
    np.testing.assert_array_equal(read_image(path, 16, 3)[..., 2], wanted)


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        (Image.new("RGBA", (4, 4), (200, 100, 50, 0)), (0, 0, 0)),
        (Image.new("RGBA", (4, 4), (200, 100, 50, 51)), (40, 20, 10)),
        (Image.new("LA", (4, 4), (250, 102)), (100, 100, 100)),
        (Image.new("RGB", (4, 4), (200, 100, 50)).quantize(4), (200, 100, 50)),
        (Image.new("1", (4, 4), 1), (255, 255, 255)),
        (Image.new("L", (4, 4), 7), (7, 7, 7)),
    ],
    ids=["transparent", "half-transparent", "gray-alpha", "palette", "bilevel", "gray"],
)
def test_modes(tmp_path: Path, image: Image.Image, colour: tuple[int, int, int]) -> None:
    pixels = read_image(save(tmp_path / "a.png", image), 4, 3)
    np.testing.assert_allclose(pixels, np.broadcast_to(colour, (4, 4, 3)), atol=1)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), quality=100)
    np.testing.assert_allclose(read_image(path, 8, 3), np.full((8, 8, 3), (255, 0, 0)), atol=4)


def test_transparent_palette_entry_is_black(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    path = save(tmp_path / "a.png", image, transparency=1)
    assert read_image(path, 4, 3).max() == 0


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 4), value) for value in (10, 200)]
    path = save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_image(path, 4, 1), 10)


# Where the EXIF standard puts the stored quadrants a b / c d, for each orientation tag.
ORIENTATIONS = {
    1: "ab/cd",
    2: "ba/dc",
    3: "dc/ba",
    4: "cd/ab",
    5: "ac/bd",
    6: "ca/db",
    7: "db/ca",
    8: "bd/ac",
}


@pytest.mark.parametrize(("tag", "shown"), ORIENTATIONS.items())
def test_exif_orientation(tmp_path: Path, tag: int, shown: str) -> None:
    levels = dict(zip("abcd", (10, 80, 150, 220), strict=True))
    stored = np.array([[levels["a"], levels["b"]], [levels["c"], levels["d"]]], dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = tag
    path = save(tmp_path / "a.png", Image.fromarray(stored), exif=exif)
    expected = [[levels[name] for name in row] for row in shown.split("/")]
    np.testing.assert_array_equal(read_image(path, 2, 1), expected)


@pytest.mark.parametrize("tall", [False, True])
def test_largest_centred_square_is_taken(tmp_path: Path, tall: bool) -> None:
    pixels = np.full((20, 40), 255, dtype=np.uint8)
    pixels[:, 10:30] = 60
    path = save(tmp_path / "a.png", Image.fromarray(pixels.T if tall else pixels))
    np.testing.assert_array_equal(read_image(path, 20, 1), 60)
    np.testing.assert_array_equal(read_image(path, 5, 1), 60)


def test_reduction_is_antialiased(tmp_path: Path) -> None:
    """A one-pixel checkerboard has nothing but its mean below the new Nyquist frequency."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    pixels = read_image(save(tmp_path / "a.png", Image.fromarray(board)), 8, 1)
    np.testing.assert_allclose(pixels, 127.5, atol=2)


def test_reduction_of_a_ramp_is_the_mean_of_its_cells(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(64) * 4, (64, 64)).astype(np.uint8)
    pixels = read_image(save(tmp_path / "a.png", Image.fromarray(ramp)), 16, 1)
    cells = ramp.reshape(16, 4, 16, 4).mean((1, 3))
    np.testing.assert_allclose(pixels[:, 2:-2], cells[:, 2:-2], atol=1)


def jpeg(size: int = 40) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def saved(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 100, 50)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG2000", "AVIF", "WEBP", "TIFF", "BMP", "PPM"])
def test_content_decides_the_format(tmp_path: Path, kind: str) -> None:
    """Web servers send other formats than the name says."""
    (tmp_path / "a.jpg").write_bytes(saved(kind))
    pixels = read_image(tmp_path / "a.jpg", 8, 3)
    np.testing.assert_allclose(pixels, np.broadcast_to((200, 100, 50), (8, 8, 3)), atol=6)


BROKEN = {
    "empty.jpg": (b"", "an empty file"),
    "text.png": (b"no image", "text that begins with 'no image'"),
    "page.jpg": (b"<!DOCTYPE html>\n<p>404", "an HTML page that begins with '<!DOCTYPE html>"),
    "truncated.jpg": (jpeg()[:-200], "truncated"),
    "truncated.png": (encode(np.zeros((40, 40), np.uint8))[:-20], "truncated"),
    "header.png": (encode(np.zeros((40, 40), np.uint8))[:20], ""),
    "header.jpg": (jpeg()[:30], ""),
    "program.png": (saved("EPS"), "a PostScript document"),
}
"""Content that is not a whole image, and what the message says of it."""


@pytest.mark.parametrize("name", BROKEN)
def test_broken_file_is_named_with_what_it_seems_to_be(tmp_path: Path, name: str) -> None:
    content, found = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: unreadable image \(.*{found}") as error:
        read_image(tmp_path / name, 8, 3)
    assert "\n" not in str(error.value)
    assert "BytesIO" not in str(error.value)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_values_without_a_range_are_refused(tmp_path: Path, kind: type) -> None:
    image = Image.fromarray(np.full((4, 4), 70000, dtype=kind))
    with pytest.raises(DataError, match=r"a\.tif.*no defined range"):
        read_image(save(tmp_path / "a.tif", image), 4, 1)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.png"):
        read_image(tmp_path / "nothing.png", 8, 3)


@pytest.mark.filterwarnings("ignore")  # Pillow warns of odd tags
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kind=st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "BMP"]),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=8),
)
def test_damaged_bytes_give_an_image_or_a_data_error(
    tmp_path: Path, kind: str, flips: list[tuple[float, int]]
) -> None:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(jpeg(16))).save(buffer, kind)
    data = bytearray(buffer.getvalue())
    for position, bits in flips:
        data[int(position * len(data))] ^= bits
    (tmp_path / "damaged").write_bytes(data)
    try:
        assert read_image(tmp_path / "damaged", 8, 3).shape == (8, 8, 3)
    except DataError as error:
        assert "damaged" in str(error)


@given(arrays(np.uint8, st.sampled_from([(1, 1), (5, 5), (5, 5, 3)])))
def test_encoding_is_lossless_and_repeatable(pixels: np.ndarray) -> None:
    data = encode(pixels)
    np.testing.assert_array_equal(decode(data), pixels)
    assert encode(pixels.copy(order="F")) == data


@given(
    arrays(
        np.uint8, st.sampled_from([(4, 4), (8, 8), (12, 12)]), elements=st.sampled_from([0, 255])
    ),
    st.sampled_from([1, 2, 4]),
)
def test_a_smaller_mask_is_the_covered_share(mask: np.ndarray, size: int) -> None:
    side = mask.shape[0] // size
    share = mask.reshape(size, side, size, side).mean((1, 3))
    np.testing.assert_allclose(resize(mask, size, is_mask=True), share, atol=1)  # rounded twice


def test_a_mask_is_not_sharpened() -> None:
    """A bicubic filter overshoots beside an edge; a share lies between 0 and 255."""
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 30:] = 255
    found = resize(mask, 16, is_mask=True)
    np.testing.assert_array_equal(found, np.broadcast_to([0] * 7 + [128] + [255] * 8, (16, 16)))


@pytest.mark.parametrize("is_mask", [False, True])
@pytest.mark.parametrize("shape", [(6, 6), (6, 6, 3)])
def test_an_image_of_the_right_size_is_not_resized(shape: tuple[int, ...], is_mask: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(resize(pixels, 6, is_mask), pixels)


@pytest.mark.parametrize("size", [5, 20])
@pytest.mark.parametrize("is_mask", [False, True])
def test_square_takes_the_centre(size: int, is_mask: bool) -> None:
    pixels = np.full((20, 41), 255, np.uint8)
    pixels[:, 10:30] = 60
    np.testing.assert_array_equal(square(Image.fromarray(pixels), size, is_mask), 60)


def test_enlarged_constant_stays_constant() -> None:
    for is_mask in (False, True):
        np.testing.assert_array_equal(resize(np.full((3, 3), 77, np.uint8), 10, is_mask), 77)


@pytest.mark.parametrize("shape", [(40, 40), (40, 40, 3)])
def test_jpeg_is_near_and_smaller(shape: tuple[int, ...]) -> None:
    """A smooth image within a few levels; colours keep their full resolution."""
    y, x = np.mgrid[:40, :40]
    waves = 128 + 80 * np.sin(x / 6) * np.cos(y / 7)
    pixels = (waves if len(shape) == 2 else np.stack([waves, 255 - waves, waves.T], -1)).astype(
        np.uint8
    )
    data = encode(pixels, "jpeg")
    assert data == encode(pixels.copy(order="F"), "jpeg")
    assert data[:3] == b"\xff\xd8\xff"
    assert decode(data).shape == shape
    assert abs(decode(data).astype(int) - pixels).max() <= 8
    with Image.open(io.BytesIO(data)) as image:
        layers = getattr(image, "layer", [])
        assert all(layer[1:3] == (1, 1) for layer in layers)  # sampling factors: 4:4:4


@pytest.mark.parametrize("kind", ["GIF", "EPS", "TIFF"])
def test_an_image_of_another_format_in_a_shard_is_refused(kind: str) -> None:
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, kind)
    with pytest.raises(DataError, match="damaged image"):
        decode(buffer.getvalue())


def test_png_is_the_default() -> None:
    assert encode(np.zeros((2, 2), np.uint8))[:4] == b"\x89PNG"


def test_open_image_keeps_the_whole_picture() -> None:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    image = open_image(buffer.getvalue(), "a.png", 3)
    assert (image.size, image.mode) == ((7, 3), "RGB")
    np.testing.assert_array_equal(np.asarray(image), pixels)
    assert open_image(buffer.getvalue(), "a.png", 1).mode == "L"


def test_image_too_large_to_be_meant(tmp_path: Path) -> None:
    """A small file whose header claims a billion pixels."""
    data = bytearray(encode(np.zeros((4, 4), np.uint8)))
    data[16:24] = struct.pack(">II", 40000, 25000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(DataError, match=r"bomb\.png: .*decompression bomb"):
        read_image(tmp_path / "bomb.png", 8, 1)


# ------------------------------------------------------------------------------- damaged tags
@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.jpg", "a.tif"])
def test_exif_orientation_of_every_format(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.zeros((8, 16), np.uint8)
    stored[:, :8] = 255
    lossless = {"lossless": True} if name == "a.webp" else {}
    path = save(tmp_path / name, Image.fromarray(stored).convert("RGB"), exif=exif, **lossless)
    shown = np.asarray(open_image(path.read_bytes(), path, 1))
    assert shown.shape == (16, 8)
    assert shown[:7].min() > 240 and shown[9:].max() < 15


def exif_block(*entries: bytes, directory: int = 8) -> bytes:
    """EXIF of raw directory entries, little-endian."""
    head = b"Exif\0\0II*\0" + struct.pack("<IH", directory, len(entries))
    return head + b"".join(entries) + struct.pack("<I", 0)


TURN = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
ODD_EXIF = {
    "text for a ratio": (exif_block(TURN, struct.pack("<HHI4s", 0x011A, 2, 3, b"72\0\0")), True),
    "ratio beyond the end": (exif_block(TURN, struct.pack("<HHII", 0x011A, 5, 1, 9999)), True),
    "unknown type": (exif_block(TURN, struct.pack("<HHII", 0x9000, 77, 1, 0)), True),
    "pointer to nothing": (exif_block(TURN, struct.pack("<HHII", 0x8769, 4, 1, 9999)), True),
    "huge count": (exif_block(TURN, struct.pack("<HHII", 0x010E, 2, 2**31, 0)), True),
    "cut off after the tag": (exif_block(TURN, TURN)[:-14], True),
    "no directory": (exif_block(TURN, directory=5000), False),
    "no header": (b"Exif\0\0XX", False),
    "nothing": (b"Exif\0\0", False),
    "orientation 99": (exif_block(struct.pack("<HHIHH", 0x0112, 3, 1, 99, 0)), False),
    "orientation as text": (exif_block(struct.pack("<HHI4s", 0x0112, 2, 4, b"six\0")), False),
}
"""Blocks of tags that are damaged, and whether an orientation of 6 can still be read in them."""


@pytest.mark.parametrize("fault", ODD_EXIF)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_does_not_spoil_the_picture(fault: str, kind: str) -> None:
    block, turned = ODD_EXIF[fault]
    stored = np.zeros((8, 16, 3), np.uint8)
    stored[:, :8] = 255
    buffer = io.BytesIO()
    Image.fromarray(stored).save(buffer, kind, exif=block, quality=100)
    shown = np.asarray(open_image(buffer.getvalue(), "a", 1))
    expected = np.rot90(stored[..., 0], -1) if turned else stored[..., 0]
    np.testing.assert_allclose(shown, expected, atol=8)


# ---------------------------------------------------------------------------- depths of pixels
def tiff(values: np.ndarray, order: str = "<", bits: int = 16, photometric: int = 1) -> bytes:
    """Uncompressed gray TIFF, which Pillow does not write in every form."""
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    height, width = values.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1}
    tags |= {278: height, 279: len(data), 339: kind}
    entries = b"".join(struct.pack(f"{order}HHII", k, 4, 1, v) for k, v in tags.items())
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(data))
    return head + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


RAMP = np.arange(256).reshape(16, 16)


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_tiff_of_either_byte_order(order: str) -> None:
    values = (RAMP * 257).astype(np.uint16)
    np.testing.assert_array_equal(np.asarray(open_image(tiff(values, order), "a.tif", 1)), RAMP)


def test_tiff_whose_zero_is_white() -> None:
    values = (RAMP * 257).astype(np.uint16)
    shown = open_image(tiff(values, photometric=0), "a.tif", 1)
    np.testing.assert_array_equal(np.asarray(shown), 255 - RAMP)


def test_12_bit_tiff_is_scaled_by_its_own_range() -> None:
    pairs = (np.arange(256) * 4095 // 255).reshape(-1, 2).astype(np.uint32)
    packed = pairs[:, 0] << 12 | pairs[:, 1]
    data = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], 1).astype(np.uint8)
    written = bytearray(tiff(data.reshape(16, 24), bits=12))
    start = 8 + data.size + 2  # of the first tag, the width
    written[start + 8 : start + 12] = struct.pack("<I", 16)
    shown = np.asarray(open_image(bytes(written), "a.tif", 1))
    np.testing.assert_allclose(shown, RAMP, atol=1)


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.uint32, np.float32])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("largest", [1, 100])
def test_signed_and_32_bit_pixels_are_refused_whatever_their_values(
    kind: type, order: str, largest: int
) -> None:
    data = tiff(np.full((4, 4), largest, kind), order, bits=8 * np.dtype(kind).itemsize)
    with pytest.raises(DataError, match=r"a\.tif: unreadable image"):
        open_image(data, "a.tif", 1)


def test_transparent_value_of_16_bit_gray(tmp_path: Path) -> None:
    values = np.full((4, 4), 40000, np.uint16)
    values[0] = 50000
    path = save(tmp_path / "a.png", Image.fromarray(values), transparency=50000)
    pixels = read_image(path, 4, 1)
    assert pixels[0].max() == 0
    assert pixels[1:].min() == round(40000 / 257)


@pytest.mark.parametrize(("mode", "clear"), [("L", 7), ("RGB", (7, 7, 7))])
def test_transparent_value_is_black(tmp_path: Path, mode: str, clear: object) -> None:
    path = save(tmp_path / "a.png", Image.new(mode, (4, 4), clear), transparency=clear)
    assert read_image(path, 4, 3).max() == 0


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.tif"])
def test_first_frame_or_page(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (8, 8), (value,) * 3) for value in (10, 200)]
    lossless = {"lossless": True} if name == "a.webp" else {}
    path = save(tmp_path / name, frames[0], save_all=True, append_images=frames[1:], **lossless)
    np.testing.assert_array_equal(read_image(path, 8, 1), 10)


def with_size(pixels: np.ndarray, width: int, height: int) -> bytes:
    """PNG of these pixels whose header claims another size."""
    data = bytearray(encode(pixels))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_image_without_pixels_is_named(size: tuple[int, int]) -> None:
    with pytest.raises(DataError, match=r"none\.png: unreadable image"):
        open_image(with_size(np.zeros((5, 5), np.uint8), *size), "none.png", 3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1)])
def test_image_of_one_pixel_or_line(tmp_path: Path, shape: tuple[int, int]) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(np.full(shape, 9, np.uint8)))
    np.testing.assert_array_equal(read_image(path, 4, 1), np.full((4, 4), 9))


def test_large_image_is_no_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Aerial photographs exceed Pillow's limit, which stays as it is for the user's own code."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 60), dtype=np.uint8)
    monkeypatch.setattr("dxai.datasets.images.LARGE", 100)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = open_image(encode(pixels), "a.png", 1)
        np.testing.assert_array_equal(square(image, 60), pixels)
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(DataError, match=r"a\.png: .*decompression bomb"):
        open_image(encode(np.zeros((400, 400), np.uint8)), "a.png", 1)


# --------------------------------------------------------------------------------------- masks
def masks() -> dict[str, Image.Image]:
    """The same mask, in every form that programs write."""
    inside = np.tri(8, dtype=bool)
    one = inside.astype(np.uint8)
    colours = np.stack([255 * one] * 3, 2)
    white, opaque = np.full_like(colours, 255), np.full((8, 8, 1), 255, np.uint8)
    palette = Image.new("P", (8, 8))
    palette.putdata(one.ravel().tolist())
    palette.putpalette([0, 0, 0, 128, 0, 0])
    return {
        "0 and 1": Image.fromarray(one),
        "0 and 2": Image.fromarray(2 * one),
        "0 and 255": Image.fromarray(255 * one),
        "boolean": Image.fromarray(inside),
        "0 and 1 of 16 bits": Image.fromarray(inside.astype(np.uint16)),
        "0 and 255 of 16 bits": Image.fromarray(255 * inside.astype(np.uint16)),
        "0 and 65535": Image.fromarray(65535 * inside.astype(np.uint16)),
        "RGB": Image.fromarray(colours),
        "RGB of 0 and 1": Image.fromarray(colours // 255),
        "RGBA": Image.fromarray(np.concatenate([colours, opaque], 2)),
        "transparent outside": Image.fromarray(np.concatenate([white, colours[..., :1]], 2)),
        "palette": palette,
    }


@pytest.mark.parametrize("name", masks())
def test_mask_of_every_form(name: str) -> None:
    buffer = io.BytesIO()
    masks()[name].save(buffer, "PNG")
    found = open_mask(buffer.getvalue(), "mask.png")
    np.testing.assert_array_equal(np.asarray(found), 255 * np.tri(8))


def test_mask_of_0_and_1_in_32_bits() -> None:
    found = open_mask(tiff(np.tri(8, dtype=np.int32), bits=32), "mask.tif")
    np.testing.assert_array_equal(np.asarray(found), 255 * np.tri(8))


def test_soft_empty_and_full_masks_are_kept() -> None:
    soft = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)
    for mask in (soft, np.zeros((8, 8), np.uint8), np.full((8, 8), 255, np.uint8)):
        np.testing.assert_array_equal(np.asarray(open_mask(encode(mask), "mask.png")), mask)


def test_mask_of_class_numbers_is_refused() -> None:
    """No pixel of it would count as inside."""
    numbers = np.arange(64, dtype=np.uint8).reshape(8, 8)
    with pytest.raises(DataError, match=r"mask\.png: .*largest value is 63 of 255"):
        open_mask(encode(numbers), "mask.png")
