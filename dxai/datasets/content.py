"""Description of a file by its first bytes, for one that is not what its name says."""

from __future__ import annotations

KINDS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "a damaged JPEG image"),
    (0, b"\x89PNG", "a damaged PNG image"),
    (0, b"GIF8", "a damaged GIF image"),
    (0, b"II*\0", "a damaged TIFF image"),
    (0, b"MM\0*", "a damaged TIFF image"),
    (8, b"WEBP", "a damaged WebP image"),
    (4, b"ftyphei", "a HEIC photograph"),
    (4, b"ftypmif1", "a HEIC photograph"),
    (4, b"ftyp", "a video or an image in an MPEG-4 container"),
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"PK\3\4", "a ZIP archive"),
    (0, b"\x1f\x8b", "gzip data"),
    (257, b"ustar", "a tar archive"),
    (0, b"7z\xbc\xaf", "a 7z archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x89HDF", "an HDF5 file"),
    (128, b"DICM", "a DICOM file"),
    (344, b"n+1\0", "a NIfTI volume"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"version https://git-lfs", "a Git LFS pointer, whose file was not fetched"),
    (0, b"md5: ", "a DVC pointer, whose file was not fetched"),
    (0, b"outs:", "a DVC pointer, whose file was not fetched"),
)
"""Offset, bytes found there, and the kind of file that they mark."""


def describe(data: bytes) -> str:
    """Say in a few words what a file seems to be: ``an HTML page that begins with '<html>'``."""
    if not data:
        return "an empty file"
    if not any(data):
        return f"{len(data)} bytes that are all zero"
    for offset, mark, kind in KINDS:
        if data[offset : offset + len(mark)] == mark:
            return kind
    start = data[:400]
    text = start.decode("utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8", "ignore")
    text = text.lstrip("\ufeff \t\r\n")
    if not text or sum(c.isprintable() or c in "\t\r\n" for c in text) < 0.9 * len(text):
        return f"of an unknown kind, beginning with the bytes {data[:8].hex(' ')}"
    lower, word = text.lower(), " ".join(text.split())[:40]
    if lower.startswith(("<!doctype html", "<html")) or "<html" in lower:
        kind = "an HTML page"
    elif "<svg" in lower:
        kind = "an SVG drawing"
    else:
        kind = "text"
    return f"{kind} that begins with {word!r}"


def one_line(error: BaseException) -> str:
    """Put the message of a library's error on one line; its type, if it has none."""
    return " ".join(str(error).split()) or type(error).__name__
