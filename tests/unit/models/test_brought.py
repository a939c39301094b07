"""Each row of the table in docs/classifiers.md is built, saved, loaded and asked."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml

from dxai.config.schema import ClassifierSpec
from dxai.config.settings import parse
from dxai.models.classifiers import build_classifier
from dxai.models.serialization import adapter_info, load_classifier, save_classifier
from dxai.models.takeover import twin_of
from tests.unit.models.brought import BROUGHT, CLASSES, NETS, SIZE

PAGE = Path(__file__).parents[3] / "docs/classifiers.md"
HEAD = "| what | entry |"


def rows() -> list[tuple[str, str]]:
    """Name and entry of each row."""
    found = []
    for line in PAGE.read_text(encoding="utf-8").partition(HEAD)[2].splitlines()[2:]:
        if not line.startswith("|"):
            break
        name, entry = (cell.strip() for cell in line.strip("|").split("|"))
        found.append((name, entry.strip("`")))
    return found


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The user's package and weights, in the working folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("my_package", "weights"):
        (tmp_path / name).mkdir()
    (tmp_path / "my_package/__init__.py").touch()
    (tmp_path / "my_package/nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("my_package.nets")
    torch.manual_seed(2)
    torch.save(module.Net().state_dict(), "weights/net.pt")
    torch.save(module.Net().state_dict(), "weights/twin.pt")
    yield module
    for name in ("my_package.nets", "my_package"):
        del sys.modules[name]


def test_table_and_networks_name_the_same_rows() -> None:
    assert [name for name, _ in rows()] == list(BROUGHT)


@pytest.mark.parametrize(("name", "text"), [pytest.param(*row, id=row[0]) for row in rows()])
def test_what_is_brought_gives_the_logits_that_it_gives_by_hand(
    name: str, text: str, nets: ModuleType, tmp_path: Path
) -> None:
    function = BROUGHT[name](nets)
    spec = parse(ClassifierSpec, yaml.safe_load(text), "entry")
    classes = CLASSES[:2] if "two classes" in name else CLASSES
    network = build_classifier(spec, 3, classes, SIZE)
    images = torch.rand(3, 3, SIZE, SIZE) * 2 - 1
    logits = network(images)
    assert logits.shape == (3, len(classes))
    assert spec.trained_here == (function is None)
    if function is not None:
        tolerance = {"atol": 2e-3, "rtol": 2e-3} if "half" in name else {"atol": 1e-5, "rtol": 1e-4}
        torch.testing.assert_close(logits, function(images), **tolerance)
    info = {"arch": spec.arch, "options": spec.options, "channels": 3, "image_size": SIZE}
    info |= {"class_names": classes, "network_range": list(spec.expected_range)}
    save_classifier(tmp_path / "model.pt", network, info | adapter_info(spec))
    loaded, _ = load_classifier(tmp_path / "model.pt", modules=spec.arch)
    torch.testing.assert_close(loaded(images), logits)
    twin = twin_of(spec)
    if twin is not None:
        assert build_classifier(twin, 3, classes, SIZE)(images).shape == logits.shape
    assert (twin is None) == (spec.twin is False or spec.arch in ("torch.export", "torchscript"))
