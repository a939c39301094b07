"""The check of a classifier: each fault is one line that names the setting; the rest is let be."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dxai.config.schema import ClassifierSpec
from dxai.models.adapter import adapt
from dxai.models.classifier_check import check_classifier

NAMES = ["black", "gray", "white"]
SPEC = ClassifierSpec(arch="nets:Net")


def picture_set(count: int = 60) -> tuple[Tensor, Tensor]:
    """Images (count, 3, 8, 8) in [-1, 1] of three brightnesses with some noise, and labels."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    images = (labels - 1)[:, None, None, None] * 0.6 + 0.2 * torch.randn(
        count, 3, 8, 8, generator=rng
    )
    return images.clamp(-1, 1), labels


class Brightness(nn.Module):
    """Right on every image if `before` gives the images in [-1, 1]."""

    def __init__(
        self,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Tensor] = lambda y: y,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)
        nn.init.constant_(self.conv.weight, 1 / 27)
        with torch.no_grad():  # -(v - c)^2 / 2 without the part that all classes share
            self.head.weight.copy_(torch.tensor([-0.6, 0.0, 0.6])[:, None].expand(3, 4) * 5)
            self.head.bias.copy_(torch.tensor([-0.36, 0.0, -0.36]) / 2 * 20)
        self.before, self.after = before, after

    def features(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(self.before(x))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.head(self.features(x)))


class NoGradBackbone(Brightness):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.features(x)
        return self.head(features)


class NoGrad(Brightness):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class NormalisedInPlace(Brightness):
    def forward(self, x: Tensor) -> Tensor:
        x -= 0.01
        return super().forward(x)


class BatchStatistics(Brightness):
    def forward(self, x: Tensor) -> Tensor:
        self.norm.train()
        self.norm.momentum = 0.0
        return super().forward(x)


def scripted_in_training() -> nn.Module:
    buffer = io.BytesIO()
    network = Brightness()
    network.norm.momentum = 0.0
    torch.jit.save(torch.jit.trace(network.train(), torch.zeros(2, 3, 8, 8)), buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


def one_blind_logit(y: Tensor) -> Tensor:
    return torch.cat([y[:, :2], y[:, 2:].detach()], 1)


FAULTS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "dropout that is always on": (
        lambda: Brightness(after=lambda y: F.dropout(y, 0.2)),
        r"other logits for the same image .* make its forward follow `network\.eval\(\)`",
    ),
    "statistics of the batch": (BatchStatistics, "for an image alone than in a batch of 8"),
    "traced in training mode": (scripted_in_training, "and name that file in `weights`"),
    "normalised in place": (NormalisedInPlace, "changes the image .* set `mean` and `std`"),
    "not finite": (lambda: Brightness(after=lambda y: y / 0), "not finite.*`activation`"),
    "no_grad": (NoGrad, "every logit has no gradient by the image.* `torch.no_grad`"),
    "no_grad in the backbone": (NoGradBackbone, "every logit has no gradient by the image"),
    "one logit without": (
        lambda: Brightness(after=one_blind_logit),
        "the logits of white have a gradient of zero",
    ),
    "rounded images": (
        lambda: Brightness(lambda x: (x * 127).round() / 127),
        "every logit has a gradient of zero",
    ),
    "softmax": (lambda: Brightness(after=lambda y: y.softmax(1)), "set `activation: softmax`"),
    "sigmoid": (lambda: Brightness(after=torch.sigmoid), "set `activation: sigmoid`"),
    "softmax, reordered": (
        lambda: Brightness(after=lambda y: y.softmax(1)[:, [0, 1, 2]].float()),
        "set `activation: softmax`",
    ),
    "sigmoid of one logit": (
        lambda: Brightness(after=lambda y: torch.stack([-(p := y[:, 0].sigmoid()), p, p], 1)),
        "set `activation: sigmoid`",
    ),
    "tanh": (lambda: Brightness(after=torch.tanh), "values of a tanh, not logits"),
}


def findings(
    network: nn.Module,
    spec: ClassifierSpec = SPEC,
    count: int = 60,
    names: Sequence[str] = NAMES,
    trained: bool = True,
) -> list[tuple[str, bool]]:
    images, labels = picture_set(count)
    found = check_classifier(network.eval(), images, labels, names, spec, trained)
    return [(finding.text, finding.fatal) for finding in found]


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("trained", [True, False])
def test_a_fault_is_one_line_that_names_what_to_do(name: str, trained: bool) -> None:
    make, said = FAULTS[name]
    ((text, fatal),) = findings(make(), trained=trained)
    assert fatal
    assert "\n" not in text
    assert re.search(said, text), text


@pytest.mark.parametrize(
    "network",
    [
        Brightness(),
        Brightness().requires_grad_(False),
        Brightness(after=lambda y: y.log_softmax(1)),  # log-probabilities are logits
        Brightness(after=lambda y: y * torch.sigmoid(10 * y)),  # SiLU
        Brightness(lambda x: x.half().float()),
        Brightness(after=lambda y: y - y[:, :1]),  # one logit is always 0
    ],
)
def test_a_good_network_has_no_findings(network: nn.Module) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.random.get_rng_state()
    assert findings(network) == []
    assert torch.equal(state, torch.random.get_rng_state())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    ("after", "activation", "said"),
    [
        (lambda y: y.softmax(1), "softmax", ""),
        (torch.sigmoid, "sigmoid", ""),
        (lambda y: y.softmax(1), "sigmoid", "of a softmax, .* `activation: softmax`"),
        (torch.sigmoid, "softmax", "of a sigmoid, .* `activation: sigmoid`"),
        (lambda y: y, "softmax", "are not those of a softmax: set `activation: none`"),
        (lambda y: y[:, [2, 0, 1]].softmax(1), "none", "of a softmax"),
    ],
)
def test_outputs_are_compared_with_what_the_entry_says(
    after: Callable[[Tensor], Tensor], activation: Any, said: str
) -> None:
    """Of the network itself, whatever the adapter makes of them."""
    names = ["white", "black", "gray"] if said == "of a softmax" else None
    spec = SPEC.replace(activation=activation, class_names=names)
    network = adapt(Brightness(after=after).eval(), spec, 3, NAMES, 8)
    found = findings(network, spec)
    assert len(found) == bool(said)
    assert re.search(said, "".join(text for text, _ in found))


def test_a_last_layer_that_starts_at_zero_is_no_fault_of_an_untrained_network() -> None:
    network = Brightness()
    nn.init.zeros_(network.head.weight)
    assert findings(network, trained=False) == []
    assert "gradient of zero" in findings(network, trained=True)[0][0]
    assert network.head.weight.eq(0).all()
