from __future__ import annotations

import gzip
import io
import tarfile
import zipfile

import nibabel
import numpy as np
import pytest
from PIL import Image

from dxai.datasets.content import describe, one_line


def image(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, kind)
    return buffer.getvalue()


def archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.addfile(tarfile.TarInfo("a"))
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a", "b")
    return buffer.getvalue()


def array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "an empty file"),
        (bytes(500), "500 bytes that are all zero"),
        (image("JPEG"), "a damaged JPEG image"),
        (image("PNG"), "a damaged PNG image"),
        (image("GIF"), "a damaged GIF image"),
        (image("TIFF"), "a damaged TIFF image"),
        (image("WEBP"), "a damaged WebP image"),
        (b"\0\0\0\x24ftypheic\0\0", "a HEIC photograph"),
        (b"\0\0\0\x20ftypisom\0\0", "a video or an image in an MPEG-4 container"),
        (image("PDF"), "a PDF document"),
        (image("EPS"), "a PostScript document"),
        (zipped(), "a ZIP archive"),
        (gzip.compress(b"a"), "gzip data"),
        (archive(), "a tar archive"),
        (array(), "a NumPy array"),
        (nibabel.Nifti1Image(np.ones((2, 2, 2)), np.eye(4)).to_bytes(), "a NIfTI volume"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
        (b"<!DOCTYPE html>\n<title>Sign in</title>", "an HTML page that begins with '<!DOCTYPE"),
        (b"\n <html>404</html>", "an HTML page that begins with '<html>404</html>'"),
        (b'<?xml version="1.0"?><svg>', "an SVG drawing"),
        (b'{"error": "quota"}', 'text that begins with \'{"error": "quota"}\''),
        ("Größe".encode("utf-16"), "text that begins with 'Größe'"),
        ("ä\r\nb".encode(), "text that begins with 'ä b'"),
        (bytes(range(1, 30)), "of an unknown kind, beginning with the bytes 01 02 03"),
    ],
    # Some of the data hold the time, so that two workers would name the tests differently.
    ids=lambda value: value if isinstance(value, str) else "data",
)
def test_kinds(data: bytes, kind: str) -> None:
    found = describe(data)
    assert found.startswith(kind)
    assert "\n" not in found and len(found) < 90


def test_reason_is_one_line() -> None:
    assert one_line(ValueError("a\n  b")) == "a b"
    assert one_line(MemoryError()) == "MemoryError"
