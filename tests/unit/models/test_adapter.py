"""What an entry of `classifiers` can say, on networks as users write them."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from dxai.config.schema import ClassifierSpec
from dxai.explain.registry import build_explainer
from dxai.models.adapter import Adapted
from dxai.models.classifiers import build_classifier
from dxai.models.serialization import (
    ModelError,
    adapter_info,
    load_classifier,
    save_classifier,
)

CLASSES = ["apple", "cross", "zebra"]
SIZE = 12
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Net(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, classes)

    def forward(self, x: Tensor) -> Any:
        return self.fc(F.relu(self.conv(x)).mean((2, 3)))


class Fields(NamedTuple):
    hidden: Tensor
    scores: Tensor


@dataclasses.dataclass
class Output:
    logits: Tensor
    hidden: Tensor


def returning(result: Callable[[Tensor], Any]) -> type[Net]:
    class Returning(Net):
        def forward(self, x: Tensor) -> Any:
            return result(super().forward(x))

    return Returning


class LastSoftmax(Net):
    def __init__(self) -> None:
        super().__init__()
        self.softmax = nn.Softmax(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.softmax(super().forward(x))


class SharedSoftmax(LastSoftmax):
    """Reaches the softmax by its second name."""

    def __init__(self) -> None:
        super().__init__()
        self.out = self.softmax

    def forward(self, x: Tensor) -> Tensor:
        return self.out(Net.forward(self, x))


class HiddenSoftmax(LastSoftmax):
    """Reaches the softmax by no name that PyTorch knows."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = [self.softmax]

    def forward(self, x: Tensor) -> Tensor:
        return self.steps[0](Net.forward(self, x))


class Lazy(Net):
    def forward(self, x: Tensor) -> Any:
        import no_such_sibling  # type: ignore[import-not-found]

        return no_such_sibling.scale(super().forward(x))


class Parametrised(Net):
    def __init__(self) -> None:
        super().__init__()
        parametrizations.weight_norm(self.conv)
        parametrizations.spectral_norm(self.fc)


class Frozen(Net):
    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)


class Auxiliary(Net):
    """A head that answers only in training, and one that never does."""

    def __init__(self) -> None:
        super().__init__()
        self.auxiliary, self.unused = nn.Linear(4, 3), nn.Linear(7, 9)

    def forward(self, x: Tensor) -> Any:
        features = F.relu(self.conv(x)).mean((2, 3))
        logits = self.fc(features)
        return (logits, self.auxiliary(features)) if self.training else logits


class Half(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(x)


class Strict(Net):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != (20, 20):
            raise AssertionError(f"input of {x.shape[2]}\nbut 20 is expected")
        return super().forward(x)


NETWORKS: dict[str, Callable[..., Any]] = {
    "Net": Net,
    "Softmax": returning(lambda z: z.softmax(1)),
    "LastSoftmax": LastSoftmax,
    "SharedSoftmax": SharedSoftmax,
    "HiddenSoftmax": HiddenSoftmax,
    "Lazy": Lazy,
    "Sigmoid": returning(torch.sigmoid),
    "Logits": returning(lambda z: Output(z, z[:, :2])),
    "Dictionary": returning(lambda z: {"loss": z.sum(), "out": z, "hidden": z[:, :2]}),
    "Tuple": returning(lambda z: (z.sum(), z)),
    "Named": returning(lambda z: Fields(z * 0, z)),
    "Text": returning(lambda z: {"a": "no tensor"}),
    "Column": returning(lambda z: z[..., None, None]),
    "Flat": returning(lambda z: z[:, 0]),
    "Parametrised": Parametrised,
    "Frozen": Frozen,
    "Auxiliary": Auxiliary,
    "Half": Half,
    "bfloat16": lambda: Net().bfloat16(),
    "float64": lambda: Net().double(),
    "Strict": Strict,
}


@pytest.fixture(autouse=True)
def own_nets() -> Iterator[None]:
    """The module of a user, who wrote these networks."""
    module = types.ModuleType("own_nets")
    for name, made in NETWORKS.items():
        if not isinstance(made, type):

            def factory(made: Callable[[], nn.Module] = made) -> nn.Module:
                return made()

            factory.__module__ = "own_nets"
            made = factory
        setattr(module, name, made)
    sys.modules["own_nets"] = module
    yield
    del sys.modules["own_nets"]


def entry(name: str = "Net", **values: Any) -> ClassifierSpec:
    return ClassifierSpec(arch=f"own_nets:{name}", **values)


def images(count: int = 5) -> Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1


def normalised(x: Tensor) -> Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return ((x + 1) / 2 - mean) / std


RIGHT: dict[str, tuple[ClassifierSpec, Callable[[Tensor], Tensor]]] = {
    "range": (entry(value_range=[0, 255]), lambda x: Net()((x + 1) * 127.5)),
    "mean": (entry(mean=MEAN, std=STD), lambda x: Net()(normalised(x))),
    "gray mean": (entry(mean=[0.5]), lambda x: Net()((x + 1) / 2 - 0.5)),
    "bytes' mean": (
        entry(value_range=[0, 255], mean=[123.0, 117.0, 104.0]),
        lambda x: Net()((x + 1) * 127.5 - torch.tensor([123.0, 117.0, 104.0])[:, None, None]),
    ),
    "larger": (
        entry(size=20),
        lambda x: Net()(F.interpolate(x, (20, 20), mode="bilinear", antialias=True)),
    ),
    "smaller": (
        entry(size=5, mean=MEAN, std=STD),
        lambda x: Net()(normalised(F.interpolate(x, (5, 5), mode="bilinear", antialias=True))),
    ),
    "order": (
        entry(class_names=["zebra", "apple", "cross"]),
        lambda x: Net()(x)[:, [1, 2, 0]],
    ),
    "more classes": (
        entry(options={"classes": 5}, class_names=["zebra", "dog", "apple", "cat", "cross"]),
        lambda x: Net(5)(x)[:, [2, 4, 0]],
    ),
    "outputs": (
        entry(options={"classes": 9}, outputs=[8, 2, 4]),
        lambda x: Net(9)(x)[:, [8, 2, 4]],
    ),
    "outputs of named classes": (
        entry(options={"classes": 9}, outputs=[8, 2, 4], class_names=["zebra", "apple", "cross"]),
        lambda x: Net(9)(x)[:, [2, 4, 8]],
    ),
    "last softmax": (entry("LastSoftmax", activation="softmax"), lambda x: Net()(x)),
    "shared softmax": (entry("SharedSoftmax", activation="softmax"), lambda x: Net()(x)),
    "hidden softmax": (
        entry("HiddenSoftmax", activation="softmax"),
        lambda x: Net()(x) - Net()(x).mean(1, keepdim=True),
    ),
    "sigmoid": (entry("Sigmoid", activation="sigmoid"), lambda x: Net()(x)),
    "logits": (entry("Logits"), lambda x: Net()(x)),
    "only table": (entry("Dictionary"), lambda x: Net()(x)),
    "only table of a tuple": (entry("Tuple"), lambda x: Net()(x)),
    "named field": (entry("Named", field="scores"), lambda x: Net()(x)),
    "field by index": (entry("Named", field=1), lambda x: Net()(x)),
    "fully convolutional": (entry("Column"), lambda x: Net()(x)),
    "parametrised": (entry("Parametrised"), lambda x: Parametrised().eval()(x)),
    "frozen": (
        entry("Frozen", mean=MEAN),
        lambda x: Net()(normalised(x) * torch.tensor(STD)[:, None, None]),
    ),
    "auxiliary head": (entry("Auxiliary", std=[0.5]), lambda x: Net()(x + 1)),
    "half inside": (entry("Half"), lambda x: Half()(x).float()),
    "bfloat16": (
        entry("bfloat16", class_names=CLASSES[::-1]),
        lambda x: Net().bfloat16()(x.bfloat16()).float().flip(1),
    ),
    "float64": (entry("float64"), lambda x: Net().double()(x.double()).float()),
}


@pytest.mark.parametrize("case", RIGHT)
def test_a_network_is_asked_as_it_expects_and_kept_in_a_model_file(
    tmp_path: Path, case: str
) -> None:
    spec, function = RIGHT[case]
    network, x = build_classifier(spec, 3, CLASSES, SIZE), images()
    with torch.no_grad():
        expected = function(x)
    torch.testing.assert_close(network(x), expected, atol=1e-5, rtol=1e-4)
    info = {"arch": spec.arch, "options": spec.options, "channels": 3, "image_size": SIZE}
    info |= {"class_names": CLASSES, "network_range": list(spec.expected_range)}
    save_classifier(tmp_path / "model.pt", network, info | adapter_info(spec))
    with pytest.raises(ModelError, match=r"own_nets:\w+, which dxai does not import unasked"):
        load_classifier(tmp_path)
    read, _ = load_classifier(tmp_path, modules=[spec.arch])
    for copied in (read, copy.deepcopy(network).requires_grad_(False)):
        torch.testing.assert_close(copied(x), network(x))
        inputs = x.clone().requires_grad_()
        copied(inputs)[:, 0].sum().backward()
        assert inputs.grad is not None
        assert inputs.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "case",
    ["mean", "larger", "smaller", "order", "outputs", "last softmax", "logits", "only table"],
)
def test_lrp_of_an_adapted_network_is_the_gradient_times_the_image(case: str) -> None:
    network, x = build_classifier(RIGHT[case][0], 3, CLASSES, SIZE), images(2).requires_grad_()
    target = torch.tensor([2, 0])
    (gradient,) = torch.autograd.grad(network(x).gather(1, target[:, None]).sum(), x)
    found = build_explainer("lrp", network, {}, 0).attribute(x.detach(), target)
    torch.testing.assert_close(found, gradient * x, atol=1e-4, rtol=1e-3)


def test_an_entry_that_asks_for_nothing_leaves_the_network_as_it_is() -> None:
    network = build_classifier(entry(mean=None, size=SIZE, class_names=CLASSES), 3, CLASSES, SIZE)
    assert type(network) is Net
    wrapped = build_classifier(entry(mean=MEAN), 3, CLASSES, SIZE)
    assert isinstance(wrapped, Adapted)
    assert wrapped.state_dict().keys() == {f"network.{key}" for key in network.state_dict()}
    assert len(list(wrapped.parameters())) == len(list(network.parameters()))


def test_a_softmax_is_undone_up_to_a_constant_and_its_gradient_does_not_vanish() -> None:
    network = build_classifier(entry("Softmax", activation="softmax"), 3, CLASSES, SIZE)
    x = (30 * images()).requires_grad_()
    logits = Net()(x)
    torch.testing.assert_close(network(x).softmax(1), logits.softmax(1))
    centred = logits - logits.mean(1, keepdim=True)
    torch.testing.assert_close(network(x), centred, atol=1e-4, rtol=1e-3)
    (found,) = torch.autograd.grad(network(x)[:, 1].sum(), x)
    torch.testing.assert_close(
        found, *torch.autograd.grad(centred[:, 1].sum(), x), rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize(
    ("values", "sign"),
    [({}, 1), ({"class_names": ["b", "a"]}, -1), ({"class_names": ["a", "b"]}, 1)],
)
@pytest.mark.parametrize("name", ["Net", "Flat"])
def test_a_single_logit_stands_for_the_second_class(
    values: dict[str, Any], sign: int, name: str
) -> None:
    options = {"classes": 1} if name == "Net" else {}
    spec = entry(name, options=options, outputs=[0], **values)
    network = build_classifier(spec, 3, ["a", "b"], SIZE)
    z = sign * Net(1 if name == "Net" else 3)(images())[:, 0]
    torch.testing.assert_close(network(images()), torch.stack([-z / 2, z / 2], 1))
    torch.testing.assert_close(network(images()).softmax(1)[:, 1], z.sigmoid())


def test_an_auxiliary_head_is_left_out_in_training() -> None:
    network = build_classifier(entry("Auxiliary", mean=MEAN), 3, CLASSES, SIZE).train()
    assert network(images()).shape == (5, 3)


WRONG: dict[str, tuple[ClassifierSpec, str]] = {
    "one logit": (
        entry(options={"classes": 1}),
        r"returns 1 outputs for one image; the dataset has 2 classes \(a, b\): a single logit of "
        r"the second class is taken with outputs: \[0\]",
    ),
    "more outputs": (
        entry(),
        "returns 3 outputs .*set outputs to the index of each class, or class_n",
    ),
    "missing name": (
        entry(class_names=["a", "c", "d"]),
        "class_names lacks b; the dataset has a, b, the entry a, c, d",
    ),
    "number of names": (
        entry(class_names=["a", "b"]),
        "returns 3 outputs for one image; class_names has 2 classes",
    ),
    "number of indices": (entry(outputs=[0, 1, 2]), "outputs has 3 indices; .* 2 classes a, b"),
    "index": (entry(outputs=[0, 3]), r"outputs is \[0, 3\]; the network returns 3 outputs"),
    "mean": (entry(mean=[0.5, 0.5]), r"mean has 2 values; the images have 3 channel\(s\)"),
    "ambiguous": (
        entry("Named"),
        r"it returns Fields \(hidden \(1, 3\), scores \(1, 3\)\) for one image; set field",
    ),
    "no table": (entry("Text"), r"it returns dict \(a str\) .*set field"),
    "field": (entry("Named", field="logits"), "field is 'logits'; the network returns Fields"),
    "field of a tensor": (
        entry(field="logits"),
        r"field is 'logits'; the network returns a tensor",
    ),
    "field by index": (entry("Tuple", field=2), "field is 2; the network returns tuple"),
    "missing module": (
        entry("Lazy"),
        "its forward fails: ModuleNotFoundError: No module named 'no_such_sibling'$",
    ),
    "size": (
        entry("Strict"),
        r"refuses an image of shape \(1, 3, 12, 12\): but 20 is expected; .*set size",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_names_the_setting_in_a_line(case: str) -> None:
    spec, said = WRONG[case]
    with pytest.raises(ValueError, match=f"classifier own_nets:\\w+: {said}") as error:
        build_classifier(spec, 3, ["a", "b"], SIZE)
    assert "\n" not in str(error.value)


def test_an_adapted_network_is_pickled_and_moves_with_its_constants() -> None:
    network = build_classifier(entry("Net", size=20, mean=MEAN), 3, CLASSES, SIZE)
    moved = copy.deepcopy(network).to(torch.float64)
    torch.testing.assert_close(moved(images().double()).float(), network(images()))
    sys.modules["own_nets"].Net.__module__ = __name__
    torch.testing.assert_close(pickle.loads(pickle.dumps(network))(images()), network(images()))
