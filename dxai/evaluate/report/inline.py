"""Pictures as part of a page: charts that follow its theme, photographs as data."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET

from markupsafe import Markup

from dxai.evaluate.names import BLACK

SVG = "{http://www.w3.org/2000/svg}"
XLINK = "{http://www.w3.org/1999/xlink}"
REFERENCE = re.compile(r"(^|url\()#([\w-]+)")
NUMBER = re.compile(r"-?\d+\.\d+")


def inline_svg(svg: bytes, label: str, prefix: str) -> Markup:
    """A chart of `figures` as an element of an HTML page.

    The ink becomes the page's text colour and the white ground transparent; metadata and style
    sheets go, coordinates are rounded, ids get `prefix`, so that charts do not share any.

    Parameters
    ----------
    svg : bytes
        The chart.
    label : str
        What it shows, for those who cannot see it.
    prefix : str
        Unique within the page.
    """
    root = ET.fromstring(svg)
    viewbox = root.get("viewBox", "")
    _remove(root, "metadata", "style")
    background = root.find(f".//{SVG}g[@id='patch_1']/{SVG}path")
    if background is not None:
        background.set("style", "fill: none")
    used = {name for e in root.iter() for value in e.attrib.items() for name in _names(*value)}
    for element in root.iter():
        element.tag = element.tag.removeprefix(SVG)
        named = {key.removeprefix(XLINK): value for key, value in element.attrib.items()}
        element.attrib = {
            key: _attribute(key, value, prefix)
            for key, value in named.items()
            if key != "id" or value in used
        }
    root.attrib = {"class": "chart", "viewBox": viewbox, "role": "img", "aria-label": label}
    return Markup(ET.tostring(root, encoding="unicode"))


def data_uri(png: bytes) -> str:
    """A PNG as the address of itself."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _remove(root: ET.Element, *tags: str) -> None:
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in {SVG + tag for tag in tags}:
                parent.remove(child)


def _names(key: str, value: str) -> list[str]:
    """The ids that an attribute refers to."""
    return [match[2] for match in REFERENCE.finditer(value)] if _refers(key, value) else []


def _refers(key: str, value: str) -> bool:
    return key.removeprefix(XLINK) == "href" or "url(#" in value


def _attribute(key: str, value: str, prefix: str) -> str:
    if key == "id":
        return prefix + value
    if _refers(key, value):
        value = REFERENCE.sub(rf"\1#{prefix}\2", value)
    if key == "style":
        return value.replace(BLACK, "currentColor")
    if key in ("d", "points"):
        return NUMBER.sub(lambda match: f"{float(match[0]):.1f}", value)
    return value
