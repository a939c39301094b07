"""What the accuracy of given weights says about the entry that describes them."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import Tensor

from dxai.config.schema import ClassifierSpec
from dxai.models.accuracy_check import Preprocessing, best_order, is_useless
from dxai.models.classifier_check import check_classifier
from tests.unit.models.test_classifier_check import Brightness, findings

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def row(values: list[float]) -> Tensor:
    return torch.tensor(values)[:, None, None]


@pytest.mark.parametrize(
    ("network", "said"),
    [
        # Each turns what it expects into [-1, 1].
        (Brightness(lambda x: 2 * x - 1), r"with value_range: \[0, 1\] it is 1\.00"),
        (Brightness(lambda x: x / 127.5 - 1), r"with value_range: \[0, 255\] it is 1\.00"),
        (
            Brightness(lambda x: 2 * (x * row(STD) + row(MEAN)) - 1),
            r"with mean: \[0\.485, 0\.456, 0\.406\], std: \[0\.229, 0\.224, 0\.225\] it is 1\.00",
        ),
        (
            Brightness(after=lambda y: y[:, [2, 0, 1]]),
            r"accuracy 0\.00 .* chance \(0\.33\): with class_names: \[white, black, gray\] it is 1",
        ),
        (
            Brightness(lambda x: x / 127.5 - 1, lambda y: y[:, [2, 0, 1]]),
            r"with value_range: \[0, 255\] and class_names: \[white, black, gray\] it is 1\.00",
        ),
        (Brightness(after=lambda y: 0 * y[:, :1] + y.flip(1)), r"class_names: \[white, gray, bl"),
        (Brightness(after=lambda y: torch.stack([y.sum(1) * 0 + 1, *y.T[1:] * 1e-9], 1)), "chance"),
    ],
)
def test_wrong_scaling_or_order_is_an_error_that_names_the_right_one(
    network: Brightness, said: str
) -> None:
    ((text, fatal),) = findings(network)
    assert fatal
    assert re.search(said, text), text
    assert findings(network, trained=False) == []


def test_the_remedy_heals() -> None:
    network = Brightness(lambda x: x / 127.5 - 1, lambda y: y[:, [2, 0, 1]])
    spec = ClassifierSpec(
        arch="nets:Net", value_range=[0.0, 255.0], class_names=["white", "black", "gray"]
    )

    class Adapted(Brightness):
        def forward(self, x: Tensor) -> Tensor:
            return network.eval()((x + 1) * 127.5)[:, [1, 2, 0]]

    assert findings(Adapted(), spec) == []


def test_an_order_that_the_entry_names_wrongly_is_named_in_the_networks_order() -> None:
    spec = ClassifierSpec(arch="nets:Net", class_names=["gray", "white", "black"])
    # The network's order is that of the dataset; the entry says otherwise.
    network = Brightness(after=lambda y: y[:, [2, 0, 1]])
    assert "class_names: [black, gray, white] it is 1.00" in findings(network, spec)[0][0]


def test_few_images_prove_nothing() -> None:
    wrong = Brightness(after=lambda y: y.roll(1, 1))
    assert [bool(findings(wrong, count=count)) for count in (1, 2, 3, 6)] == [False] * 3 + [True]


def test_a_setting_is_preferred_to_a_change_of_code() -> None:
    """Two classes that differ in red and blue fit as well with the channels turned round."""
    images = torch.zeros(60, 3, 8, 8)
    labels = torch.arange(60) % 2
    images[labels == 0, 0], images[labels == 1, 2] = 0.5, 0.5

    class BlueRed(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            means = x.mean((2, 3))
            return torch.stack([means[:, 2], means[:, 0]], 1) * 9

    spec = ClassifierSpec(arch="nets:Net")
    (finding,) = check_classifier(BlueRed(), images, labels, ["red", "blue"], spec, True)
    assert finding.text.endswith("with class_names: [blue, red] it is 1.00")


def test_useless_is_what_chance_explains_and_a_useful_network_does_not() -> None:
    assert is_useless(20, 60, 1 / 3)
    assert is_useless(0, 10, 1 / 3)
    assert not is_useless(0, 3, 1 / 3)  # bad luck
    assert not is_useless(40, 60, 1 / 3)
    assert not is_useless(30, 60, 1 / 3)  # weak, but no chance


def test_best_order() -> None:
    # Rows are labels, columns predictions: output 1 shows class 0.
    assert best_order(np.array([[1, 9, 0], [0, 1, 8], [7, 0, 0]])) == ([2, 0, 1], 24)


def test_scalings_are_undone() -> None:
    images = torch.rand(2, 3, 4, 4) * 2 - 1
    for scaling in (Preprocessing((0.0, 255.0), MEAN), Preprocessing((0.0, 1.0), MEAN, STD)):
        torch.testing.assert_close(scaling.undo(scaling.apply(images)), images)
    assert str(Preprocessing((0.0, 1.0))) == "value_range: [0, 1]"
