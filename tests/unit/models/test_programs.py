"""Networks that come whole from a file: any batch, copies, gradients, and hostile files."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dxai.config.schema import ClassifierSpec
from dxai.models import programs
from dxai.models.classifiers import build_classifier
from dxai.models.serialization import ModelError, load_classifier, save_classifier

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]
CLASSES = ["a", "b", "c"]
SIZE = 8


class Net(nn.Module):
    """Convolution, batch norm and a constant tensor, as programs have them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        features = self.norm(self.conv(x)).relu() * torch.tensor([2.0])
        return self.head(features.mean((2, 3)))


class Labelled(Net):
    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        logits = super().forward(x)
        return {"scores": logits, "loss": logits.sum()}


@pytest.fixture(scope="module")
def network() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def exported(network: nn.Module, batch: Any = None, count: int = 4) -> bytes:
    shapes = None if batch is None else ({0: batch},)
    program = torch.export.export(
        network, (torch.zeros(count, 1, SIZE, SIZE),), dynamic_shapes=shapes
    )
    stream = io.BytesIO()
    torch.export.save(program, stream)
    return stream.getvalue()


def scripted(network: nn.Module, traced: bool) -> bytes:
    images, stream = torch.zeros(2, 1, SIZE, SIZE), io.BytesIO()
    made = torch.jit.trace(network, images) if traced else torch.jit.script(network)
    torch.jit.save(made, stream)
    return stream.getvalue()


FILES: dict[str, Callable[[nn.Module], bytes]] = {
    "a dynamic batch": lambda n: exported(n, torch.export.Dim("batch", min=1, max=4096)),
    "a batch of at most 4": lambda n: exported(n, torch.export.Dim("batch", min=1, max=4)),
    "a batch of at least 2": lambda n: exported(n, torch.export.Dim("batch", min=2, max=64)),
    "a batch of any size": lambda n: exported(n, torch.export.Dim.DYNAMIC),
    "a static batch of 1": lambda n: exported(n, count=1),
    "a static batch of 4": exported,
    "a trace": lambda n: scripted(n, traced=True),
    "a script": lambda n: scripted(n, traced=False),
}


def entry(path: Path, **more: Any) -> ClassifierSpec:
    arch = "torchscript" if path.suffix == ".ts" else "torch.export"
    return ClassifierSpec(arch=arch, weights=str(path), **more)


@pytest.fixture(scope="module", params=FILES)
def file(request: pytest.FixtureRequest, network: Net) -> tuple[str, bytes]:
    name = "net.pt2" if "batch" in request.param else "net.ts"
    return name, FILES[request.param](network)


@pytest.fixture
def path(file: tuple[str, bytes], tmp_path: Path) -> Path:
    (tmp_path / file[0]).write_bytes(file[1])
    return tmp_path / file[0]


@pytest.fixture(scope="module")
def content(network: Net) -> bytes:
    """A file of `torch.export` with a static batch."""
    return exported(network)


def test_a_program_takes_any_number_of_images(network: Net, path: Path) -> None:
    loaded = build_classifier(entry(path), 1, CLASSES, SIZE)
    for count in (1, 3, 4, 9):
        images = torch.randn(count, 1, SIZE, SIZE, requires_grad=True)
        expected = network(images)
        torch.testing.assert_close(loaded(images), expected)
        (found,) = torch.autograd.grad(loaded(images)[:, 1].sum(), images)
        torch.testing.assert_close(found, *torch.autograd.grad(expected[:, 1].sum(), images))


def test_a_program_is_copied_and_stands_in_a_model_file(network: Net, path: Path) -> None:
    spec = entry(path, value_range=[0, 1], class_names=["c", "a", "b"])
    loaded = build_classifier(spec, 1, CLASSES, SIZE)
    images = torch.rand(5, 1, SIZE, SIZE) * 2 - 1
    expected = network((images + 1) / 2)[:, [1, 2, 0]]
    info = {"arch": spec.arch, "options": {}, "channels": 1, "class_names": CLASSES}
    info |= {"image_size": SIZE, "network_range": [0.0, 1.0]}
    info |= {"adapter": {"class_names": ["c", "a", "b"]}}
    save_classifier(path.parent / "model.pt", loaded, info)
    path.unlink()
    read, _ = load_classifier(path.parent)
    for copied in (loaded, copy.deepcopy(loaded), pickle.loads(pickle.dumps(loaded)), read):
        torch.testing.assert_close(copied(images), expected)


class WithNone(Net):
    def forward(self, x: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return super().forward(x), None


@pytest.mark.parametrize(("make", "field"), [(Labelled, "scores"), (WithNone, 0)])
def test_a_program_that_returns_more_than_logits_in_pieces(
    tmp_path: Path, make: type[Net], field: str | int
) -> None:
    torch.manual_seed(0)
    network = make().eval()
    (tmp_path / "net.pt2").write_bytes(exported(network))
    loaded = build_classifier(entry(tmp_path / "net.pt2"), 1, CLASSES, SIZE)
    images = torch.randn(6, 1, SIZE, SIZE)
    torch.testing.assert_close(loaded(images), network(images)[field])


def test_a_program_for_another_size_names_the_setting(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(content)
    with pytest.raises(ValueError, match=r"refuses an image of shape \(1, 1, 12, 12\).*size: 8"):
        build_classifier(entry(tmp_path / "net.pt2"), 1, CLASSES, 12)
    loaded = build_classifier(entry(tmp_path / "net.pt2", size=8), 1, CLASSES, 12)
    assert loaded(torch.zeros(2, 1, 12, 12)).shape == (2, 3)


def test_a_program_made_on_a_gpu_is_loaded_and_moves_with_its_constants(
    network: Net, content: bytes, tmp_path: Path
) -> None:
    def on_a_gpu(members: Members, mark: bytes) -> None:
        for name, data in members.items():
            if name.endswith(".json"):
                members[name] = data.replace(
                    b'"device": {"type": "cpu", "index": null}',
                    b'"device": {"type": "cuda", "index": 0}',
                )
        assert b'"cuda"' in members["models/model.json"]
        assert b'"cuda"' in members["data/weights/model_weights_config.json"]

    (tmp_path / "net.pt2").write_bytes(tampered(content, on_a_gpu, tmp_path))
    loaded = build_classifier(entry(tmp_path / "net.pt2"), 1, CLASSES, SIZE)
    images = torch.randn(2, 1, SIZE, SIZE)
    torch.testing.assert_close(loaded(images), network(images))
    assert loaded.to("meta")(images.to("meta")).device.type == "meta"


# -------------------------------------------------------------------------------------- hostile
class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


Members = dict[str, bytes]


def _pickled_weight(members: Members, mark: bytes) -> None:
    config = json.loads(members["data/weights/model_weights_config.json"])
    first = next(iter(config["config"].values()))
    first["use_pickle"] = True
    members["data/weights/" + first["path_name"]] = mark
    members["data/weights/model_weights_config.json"] = json.dumps(config).encode()


def _in_graph(change: Callable[[dict[str, Any]], None]) -> Callable[[Members, bytes], None]:
    def changed(members: Members, mark: bytes) -> None:
        model = json.loads(members["models/model.json"])
        change(model["graph_module"])
        members["models/model.json"] = json.dumps(model).encode()

    return changed


def _target(name: str) -> Callable[[Members, bytes], None]:
    return _in_graph(lambda g: g["graph"]["nodes"][0].update(target=name))


def _signature(**values: Any) -> Callable[[Members, bytes], None]:
    return _in_graph(lambda g: g["module_call_graph"][0]["signature"].update(values))


def _size(text: str) -> Callable[[Members, bytes], None]:
    size = {"as_expr": {"expr_str": text, "hint": None}}
    return _in_graph(
        lambda g: next(iter(g["graph"]["tensor_values"].values()))["sizes"].append(size)
    )


DEFAULTS = {"default_factory_module": "antigravity", "default_factory_name": "x"}
FACTORY = {"type": "collections.defaultdict", "context": json.dumps(DEFAULTS), "children_spec": []}
TAMPERED: dict[str, Callable[[Members, bytes], Any]] = {
    "weight_0 in it is a pickle": _pickled_weight,
    "model.pt in it is a pickle": lambda m, mark: m.update({"data/weights/model.pt": mark}),
    "opaque_obj_0 in it is a pickle": lambda m, k: m.update({"data/constants/opaque_obj_0": k}),
    "model.so in it is a pickle or compiled": lambda m, mark: m.update(
        {"data/aotinductor/model/model.so": mark}
    ),
    "the target 'torch.serialization.os.system'": _target("torch.serialization.os.system"),
    "the target '_operator.attrgetter'": _target("_operator.attrgetter"),
    "the target 'torch.ops.aten.from_file.default'": _target("torch.ops.aten.from_file.default"),
    "the target 'torch.hub.load'": _target("torch.hub.load"),
    'the expr_str "__import__': _size("__import__('os').mkdir('MARK')"),
    "the expr_str 'eval(chr": _size("eval(chr(49))"),
    "the expr_str 's0.func'": _size("s0.func"),
    "the forward_arg_names 'x=print": _signature(forward_arg_names=["x=print(1)"]),
    "the in_spec": _signature(in_spec=json.dumps([1, FACTORY])),
    "the name 'x, y=print": _in_graph(
        lambda g: g["graph"]["inputs"][-1]["as_tensor"].update(name="x, y=print(1)")
    ),
    "a custom object": _in_graph(
        lambda g: g["graph"]["custom_obj_values"].update(x={"name": "x", "class_fqn": "y"})
    ),
}


def tampered(content: bytes, change: Callable[[Members, bytes], Any], mark: Path) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {n.partition("/")[2]: archive.read(n) for n in archive.namelist()}
    payload = io.BytesIO()
    torch.save(Touch(mark), payload)
    change(members, payload.getvalue())
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(f"archive/{name}", data)
    return out.getvalue()


@pytest.mark.parametrize("said", TAMPERED)
def test_a_hostile_program_is_refused_before_it_is_loaded(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    path, mark = tmp_path / "net.pt2", tmp_path / "MARK"
    path.write_bytes(tampered(content, TAMPERED[said], mark))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.export, "load", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(ValueError, match=r"net\.pt2: not usable as a torch\.export file") as error:
        build_classifier(entry(path), 1, CLASSES, SIZE)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert not mark.exists()


def test_a_hostile_program_in_a_model_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path, mark = tmp_path / "net.pt2", tmp_path / "MARK"
    path.write_bytes(content)
    loaded = build_classifier(entry(path), 1, CLASSES, SIZE)
    info = {"arch": "torch.export", "options": {}, "channels": 1, "class_names": CLASSES}
    loaded.register_buffer(
        "program",
        torch.frombuffer(bytearray(tampered(content, _pickled_weight, mark)), dtype=torch.uint8),
    )
    save_classifier(tmp_path / "model.pt", loaded, info | {"image_size": SIZE})
    with pytest.raises(ModelError, match="weight_0 in it is a pickle"):
        load_classifier(tmp_path)
    assert not mark.exists()


def test_sample_inputs_of_a_program_are_never_read(
    network: Net, content: bytes, tmp_path: Path
) -> None:
    path, mark = tmp_path / "net.pt2", tmp_path / "MARK"
    samples = "data/sample_inputs/model.pt"
    content = tampered(content, lambda m, k: m.update({samples: k}), mark)
    path.write_bytes(content)
    with contextlib.suppress(AssertionError, TypeError):
        torch.export.load(io.BytesIO(content))
    assert mark.exists()  # torch itself runs them
    mark.rmdir()
    loaded = build_classifier(entry(path), 1, CLASSES, SIZE)
    images = torch.randn(2, 1, SIZE, SIZE)
    torch.testing.assert_close(loaded(images), network(images))
    assert not mark.exists()


def test_a_name_that_stands_twice_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(content)
    with (
        pytest.warns(UserWarning, match="Duplicate name"),
        zipfile.ZipFile(path, "a") as archive,
    ):
        archive.writestr(archive.namelist()[0], b"")
    with pytest.raises(ValueError, match="a name stands twice"):
        build_classifier(entry(path), 1, CLASSES, SIZE)


SCRIPTS = {
    "save": "torch.save(x, 'FILE')",
    "save after a space": "torch. save(x, 'FILE')",
    "save on another line": "(torch\n      .save)(x, 'FILE')",
    "save of an operator": "ops. aten. save(x, 'FILE')",
    "save of an alias": "t = torch\n    t.save(x, 'FILE')",
    "save of an alias of a library": "t = ops.aten\n    t.save(x, 'FILE')",
    "save of a tensor": "x.save('FILE')",
    "getattr": "getattr(torch, 'save')(x, 'FILE')",
    "getattr of an escaped name": "getattr(torch.autograd, '\\x73ave')(x, 'FILE')",
    "getattr of joined strings": "getattr(torch.autograd, 'sa' 've')(x, 'FILE')",
    "from_file": "x = x + torch.sum(torch.fill_(torch. from_file('FILE', True, 8, dtype=0), 65))",
    "another library": "ops. image. write_file('FILE', x)",
    "a custom object": "__torch__. torch. classes. c10d. Store('FILE')",
    "remote": "ops.prim.rpc_async('FILE', x)",
    "a form feed": "\f torch.relu(x)",
}


def _with_line(content: bytes, line: str) -> bytes:
    """Add a line to the method `forward` of a script."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(out, "w") as copied:
        for name in archive.namelist():
            code = archive.read(name)
            if name.endswith(".py") and b"def forward" in code and b"class Net" in code:
                code = re.sub(rb"(def forward\([^)]*\) -> Tensor:\n)", _inserted(line), code)
            copied.writestr(name, code)
    return out.getvalue()


def _inserted(line: str) -> Callable[[re.Match[bytes]], bytes]:
    return lambda found: found[1] + f"    {line}\n".encode()


@pytest.fixture(scope="module")
def script(network: Net) -> bytes:
    return scripted(network, traced=False)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_that_reaches_files_is_refused(tmp_path: Path, script: bytes, name: str) -> None:
    path, victim = tmp_path / "net.ts", tmp_path / "victim"
    victim.write_bytes(b"#" * 40)
    line = SCRIPTS[name].replace("FILE", str(victim))
    path.write_bytes(_with_line(script, line))
    with pytest.raises(ValueError, match=r"net\.ts: .*it is refused") as error:
        build_classifier(entry(path), 1, CLASSES, SIZE)
    assert "\n" not in str(error.value)
    assert victim.read_bytes() == b"#" * 40


@pytest.mark.parametrize("name", ["save after a space", "getattr", "from_file"])
def test_operators_that_reach_files_are_found_in_what_torch_read(
    tmp_path: Path, script: bytes, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    victim = tmp_path / "victim"
    monkeypatch.setattr(programs, "check_code", lambda code: None)
    (tmp_path / "net.ts").write_bytes(
        _with_line(script, SCRIPTS[name].replace("FILE", str(victim)))
    )
    with pytest.raises(ValueError, match=r"it calls aten::(save|from_file)"):
        build_classifier(entry(tmp_path / "net.ts"), 1, CLASSES, SIZE)
    assert not victim.exists()


def test_a_script_of_numbered_layers_that_speaks_of_files_is_read(
    network: Net, tmp_path: Path
) -> None:
    made = nn.Sequential(nn.Sequential(network, nn.Identity()), Speaks()).eval()
    (tmp_path / "net.ts").write_bytes(scripted(made, traced=False))
    images = torch.randn(2, 1, SIZE, SIZE)
    loaded = build_classifier(entry(tmp_path / "net.ts"), 1, CLASSES, SIZE)
    torch.testing.assert_close(loaded(images), network(images))


class Speaks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > 3:
            raise ValueError("'torch.save' is for \"files\"")
        return x


class Halved(Net):
    def forward(self, x: Tensor) -> Tensor:
        size = (x.shape[2] // 2, x.shape[3] // 2)
        return super().forward(nn.functional.interpolate(x, size=size, mode="bilinear"))


def test_a_program_of_any_height_with_arithmetic_is_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, any_size = Halved().eval(), torch.export.Dim.AUTO
    shapes = ({0: any_size, 2: any_size, 3: any_size},)
    made = torch.export.export(network, (torch.rand(4, 1, SIZE, SIZE),), dynamic_shapes=shapes)
    torch.export.save(made, tmp_path / "net.pt2")
    with zipfile.ZipFile(tmp_path / "net.pt2") as archive:
        model = next(n for n in archive.namelist() if n.endswith("models/model.json"))
        assert json.loads(archive.read(model))["guards_code"]
    loaded = build_classifier(entry(tmp_path / "net.pt2"), 1, CLASSES, SIZE)
    images = torch.rand(2, 1, SIZE, SIZE)
    torch.testing.assert_close(loaded(images), network(images))


def test_a_program_elsewhere_is_pickled_with_bytes_of_the_cpu(content: bytes) -> None:
    class Elsewhere:
        def cpu(self) -> str:
            return "on the cpu"

    program = programs.Exported(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    program._buffers["program"] = Elsewhere()  # type: ignore[assignment]
    assert program.__reduce__() == (programs.Exported, ("on the cpu",))


@pytest.mark.parametrize("name", ["net.pt2", "net.ts"])
@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"PK\x05\x06" + 18 * b"\0"])
def test_other_files_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: not ") as error:
        build_classifier(entry(tmp_path / name), 1, CLASSES, SIZE)
    assert "\n" not in str(error.value)
