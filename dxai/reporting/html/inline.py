"""What a page carries in itself: pictures, and files to save."""

from __future__ import annotations

import base64


def picture_uri(image: bytes) -> str:
    """A PNG or WebP as the address of itself."""
    kind = "png" if image.startswith(b"\x89PNG") else "webp"
    return f"data:image/{kind};base64," + base64.b64encode(image).decode()


def file_uri(text: str, kind: str) -> str:
    """A text file as the address of itself, `kind` being its media type."""
    return f"data:{kind};charset=utf-8;base64," + base64.b64encode(text.encode()).decode()
