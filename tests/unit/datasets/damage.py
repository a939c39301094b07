"""Seeded damage to the files of a dataset: what copying, renaming and downloading do to them."""

from __future__ import annotations

import functools
import gzip
import io
import re
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

WORDS = (
    b"", b"nan", b"inf", b"-1", b"0", b"1e400", b"9" * 5000, b"\xb2", "²".encode(), "٣".encode(),
    b"\0", b'"', b",", b";", b"\t", b"\r", b"../x", b"/etc/passwd", b"C:\\x", b"\xff\xfe",
    b"\xef\xbb\xbf", "\u2028".encode(), "\u200b".encode(), b"null", b"True", b"small-vehicle",
)  # fmt: skip
"""Words put into text in place of others."""
ENDINGS = (".png", ".jpg", ".TIF", ".txt", ".csv", ".nii", ".nii.gz", ".jpg.png", "", ".", " .png")
WORDS_OF_TEXT = re.compile(rb"[^\s,;]+")


@functools.cache
def images() -> tuple[bytes, ...]:
    """One small image of each format, depth and compression that cameras and programs write."""
    colour = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    rgb, gray = Image.fromarray(colour), Image.fromarray(colour[..., 0])
    deep = Image.fromarray(colour[..., 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x011A: 72.0, 0x010F: "camera"})
    frames = {"save_all": True, "append_images": [rgb.rotate(90)]}
    kinds: list[tuple[Image.Image, str, dict[str, object]]] = [
        (rgb, "PNG", {"exif": exif}), (gray, "PNG", {}), (deep, "PNG", {}),
        (rgb.convert("RGBA"), "PNG", {}), (gray.convert("LA"), "PNG", {}),
        (rgb.quantize(16), "PNG", {"transparency": b"\0\x80\xff"}), (gray.convert("1"), "PNG", {}),
        (rgb, "PNG", frames), (rgb, "JPEG", {"exif": exif}), (gray, "JPEG", {}),
        (rgb, "JPEG", {"progressive": True}), (rgb.convert("CMYK"), "JPEG", {}),
        (rgb, "GIF", frames), (gray, "GIF", {}), (rgb, "WEBP", {"exif": exif}),
        (rgb, "JPEG2000", {}), (rgb, "AVIF", {}), (rgb, "WEBP", {"lossless": True}),
        (rgb, "WEBP", frames), (rgb, "BMP", {}),
        (gray.convert("1"), "BMP", {}), (rgb.quantize(16), "BMP", {}), (rgb, "PPM", {}),
        (deep.convert("I"), "PPM", {}), (gray, "PPM", {}), (rgb, "TIFF", {"exif": exif}),
        (deep, "TIFF", {}), (gray.convert("I"), "TIFF", {}), (gray.convert("F"), "TIFF", {}),
        *((rgb, "TIFF", {"compression": kind}) for kind in ("tiff_lzw", "jpeg", "tiff_deflate")),
        (gray.convert("1"), "TIFF", {"compression": "group4"}), (rgb, "TIFF", frames),
    ]  # fmt: skip
    found = []
    for image, kind, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        found.append(buffer.getvalue())
    return tuple(found)


def damage(data: bytes, rng: np.random.Generator, others: list[bytes]) -> bytes:
    """Damage a file's content in one to three ways; inside its compression half of the time.

    `others` are the contents of other files, for headers and whole files in the wrong place.
    """
    if data[:2] == b"\x1f\x8b" and rng.random() < 0.5:
        return gzip.compress(damage(gzip.decompress(data), rng, others), 1, mtime=0)
    for _ in range(rng.integers(1, 4)):
        change = DAMAGES[rng.integers(len(DAMAGES))]
        data = change(data, rng, others)
    return data


Change = Callable[[bytes, np.random.Generator, list[bytes]], bytes]


def _cut(data: bytes, rng: np.random.Generator, others: list[bytes]) -> bytes:
    return data[: _position(data, rng)]


def _flip(data: bytes, rng: np.random.Generator, others: list[bytes]) -> bytes:
    """Flip bits; half of the time near the start, where headers are."""
    changed = bytearray(data)
    reach = len(data) if rng.random() < 0.5 else min(len(data), 400)
    for _ in range(rng.integers(1, 9) if reach else 0):
        changed[rng.integers(reach)] ^= 1 << rng.integers(8)
    return bytes(changed)


def _splice(data: bytes, rng: np.random.Generator, others: list[bytes]) -> bytes:
    other = others[rng.integers(len(others))]
    length = min(_position(other, rng), 400)
    return other[:length] + data[length:]


def _swap(data: bytes, rng: np.random.Generator, others: list[bytes]) -> bytes:
    return others[rng.integers(len(others))]


def _insert(data: bytes, rng: np.random.Generator, others: list[bytes]) -> bytes:
    position = _position(data, rng)
    return data[:position] + rng.bytes(int(rng.integers(1, 40))) + data[position:]


def _remove(data: bytes, rng: np.random.Generator, others: list[bytes]) -> bytes:
    position = _position(data, rng)
    return data[:position] + data[position + int(rng.integers(1, 200)) :]


def _repeat(data: bytes, rng: np.random.Generator, others: list[bytes]) -> bytes:
    position = _position(data, rng)
    return data[:position] + data[max(0, position - int(rng.integers(1, 200))) :]


def _blank(data: bytes, rng: np.random.Generator, others: list[bytes]) -> bytes:
    position, length = _position(data, rng), int(rng.integers(1, 200))
    return data[:position] + bytes(length) + data[position + length :]


def _reword(data: bytes, rng: np.random.Generator, others: list[bytes]) -> bytes:
    """Replace some words of a text."""
    found = list(WORDS_OF_TEXT.finditer(data[:4000]))
    for match in reversed(found):
        if rng.random() < 2 / len(found):
            word = WORDS[rng.integers(len(WORDS))]
            data = data[: match.start()] + word + data[match.end() :]
    return data


def _lines(data: bytes, rng: np.random.Generator, others: list[bytes]) -> bytes:
    """Shuffle the lines of a text, or end them as another system does."""
    if rng.random() < 0.5:
        return data.replace(b"\n", (b"\r\n", b"\r", b"\n\n")[rng.integers(3)])
    lines = data.split(b"\n")
    return b"\n".join(lines[i] for i in rng.permutation(len(lines)))


def _recode(data: bytes, rng: np.random.Generator, others: list[bytes]) -> bytes:
    """Save a text in another encoding."""
    kind = ("utf-16", "utf-8-sig", "utf-32")[rng.integers(3)]
    return data.decode("latin-1").encode(kind)


def _number(data: bytes, rng: np.random.Generator, others: list[bytes]) -> bytes:
    """Replace a number near the start by one that programs trip over."""
    kind = ("<H", ">H", "<I", ">I", "B")[rng.integers(5)]
    largest = 256 ** struct.calcsize(kind) - 1
    values = (*range(14), largest, largest // 2, largest // 2 + 1)
    position = int(rng.integers(min(len(data), 400) + 1))
    number = struct.pack(kind, values[rng.integers(len(values))])
    return data[:position] + number + data[position + len(number) :]


def _tags(data: bytes, rng: np.random.Generator, others: list[bytes]) -> bytes:
    """Put random tags, after an orientation, into a JPEG or PNG file."""
    entries = [struct.pack("<HHII", 0x0112, 3, 1, rng.integers(10))]
    for _ in range(rng.integers(1, 5)):
        tag = (0x010F, 0x011A, 0x8769, 0x8825, 0x927C, 0xA005, int(rng.integers(65536)))
        count = (0, 1, 2, 3, 8, 1000, 2**31)[rng.integers(7)]
        value = rng.bytes(4) if rng.random() < 0.5 else struct.pack("<I", rng.integers(90))
        entries.append(struct.pack("<HHI", tag[rng.integers(7)], rng.integers(14), count) + value)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    block = head + b"".join(entries) + rng.bytes(int(rng.integers(40)))
    if data[:2] == b"\xff\xd8":
        size = struct.pack(">H", len(block) + 8)
        return data[:2] + b"\xff\xe1" + size + b"Exif\0\0" + block + data[2:]
    if data[:4] == b"\x89PNG":
        chunk = b"eXIf" + block
        size, check = struct.pack(">I", len(block)), struct.pack(">I", zlib.crc32(chunk))
        return data[:33] + size + chunk + check + data[33:]
    return data


def _position(data: bytes, rng: np.random.Generator) -> int:
    return int(rng.integers(len(data) + 1))


DAMAGES: tuple[Change, ...] = (
    _cut, _flip, _flip, _flip, _splice, _splice, _swap, _insert, _remove, _repeat, _blank,
    _reword, _reword, _lines, _recode, _number, _number, _tags, _tags,
)  # fmt: skip


def rename(name: str, rng: np.random.Generator) -> str:
    """Give a file another ending, or its name another spelling."""
    folder, slash, last = name.rpartition("/")
    stem, _, _ = last.partition(".")
    spelled = (last.upper(), last.replace("_", "-"), f"{stem} (1){last[len(stem) :]}", f"._{last}")
    kinds = (*(stem + ending for ending in ENDINGS), *spelled)
    return folder + slash + kinds[rng.integers(len(kinds))]
