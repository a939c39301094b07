import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import nn

from dxai import DXAI
from dxai.explain.decomposition import BASIS_CLASSES, KINDS, MOST_ROWS
from dxai.metrics.removal import UNDECIDED
from dxai.models.classifiers import build_network
from dxai.models.decomposer import Decomposer
from dxai.models.serialization import ModelError, freeze, save_decomposer

SETTINGS = {
    "channels": 1, "classes": 3, "image_size": 16, "branches": 3, "branch_width": 3,
    "coarsest": 8, "mapping_width": 8, "style_dim": 8, "latent_dim": 4,
}  # fmt: skip
INFO = {
    "settings": SETTINGS,
    "class_names": ["a", "b", "c"],
    "image_size": 16,
    "channels": 1,
    "value_range": [-1.0, 1.0],
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    torch.manual_seed(0)
    classifier = freeze(build_network("simple", 1, 3, 16, width=4))
    described = {"arch": "simple", "options": {"width": 4}} | INFO
    file = tmp_path_factory.mktemp("model") / "model.pt"
    save_decomposer(file, freeze(Decomposer(**SETTINGS)), INFO, classifier, described)
    return file


@pytest.fixture
def images():
    return torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_three_lines_in_the_manner_of_captum(path, images):
    explainer = DXAI.load(path.parent)
    distinct = explainer.attribute(images, target=torch.tensor([0, 1, 2, 0]))
    assert distinct.shape == images.shape
    assert not distinct.requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_are_the_image(path, images, kind):
    found = DXAI.load(path).explain(images, kind=kind)
    whole = found.distinct + found.agnostic
    torch.testing.assert_close(whole, images, rtol=0, atol=1e-6)


def test_without_a_target_the_predicted_class_is_explained(path, images):
    explainer = DXAI.load(path)
    predicted = explainer.classifier(images).argmax(1)
    torch.testing.assert_close(
        explainer.explain(images).psi, explainer.explain(images, predicted).psi
    )
    other = explainer.explain(images, (predicted + 1) % 3)
    assert not torch.allclose(explainer.explain(images).psi, other.psi)


def test_an_image_is_explained_alike_in_any_batch(path, images):
    explainer, target = DXAI.load(path), torch.tensor([0, 1, 2, 0])
    index = torch.tensor([7, 3, 9, 1])
    whole = explainer.explain(images, target, index).psi
    for i in range(4):
        alone = explainer.explain(images[i : i + 1], target[i : i + 1], index[i : i + 1]).psi
        torch.testing.assert_close(alone, whole[i : i + 1], rtol=1e-4, atol=1e-5)


class Sharp(nn.Module):
    """A classifier that is surer of its answers, which untrained ones are not."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return 50 * self.network(x)


def test_a_neutral_part_is_to_the_bit_the_same_in_any_batch(path, images):
    images = torch.cat([images, images.flip(3), images.flip(2)])
    explainer, index = DXAI.load(path), torch.arange(12)
    target = index % 3
    whole = explainer.explain(images, target, index)
    for part in (slice(3, 4), slice(2, 11)):
        alone = explainer.explain(images[part], target[part], index[part])
        assert torch.equal(alone.projected, whole.projected[part])
        assert torch.equal(alone.neutrality, whole.neutrality[part])


def test_a_neutral_part_leaves_the_classifier_less_decided(path, images):
    explainer, target = DXAI.load(path), torch.tensor([0, 1, 2, 0])
    explainer.classifier = Sharp(explainer.classifier)
    neutral, generated = (explainer.explain(images, target, kind=kind) for kind in KINDS)
    answers = [explainer.classifier(found.agnostic) for found in (neutral, generated)]
    found, plain = (entropy(a.softmax(1).numpy(), axis=1) / np.log(3) for a in answers)
    np.testing.assert_allclose(neutral.neutrality, found, rtol=1e-4)
    assert (found > plain).all()
    assert generated.neutrality is None
    torch.testing.assert_close(generated.distinct, explainer.attribute(images, target))


def test_one_image_of_many(path, images):
    found = DXAI.load(path).explain(images)
    torch.testing.assert_close(found[2].agnostic, found.agnostic[2:3])
    assert found[2].neutrality.shape == (1,)


def test_a_kind_that_does_not_exist_is_refused(path, images):
    with pytest.raises(ValueError, match=r"kind: unknown .*neutral"):
        DXAI.load(path).explain(images, kind="nought")


def test_several_latents_are_averaged(path, images):
    target = torch.zeros(4, dtype=torch.long)
    several, one = DXAI.load(path, latents=3), DXAI.load(path)
    psi = [one.decomposer(images, target, several.latent(range(4), draw)).psi for draw in range(3)]
    torch.testing.assert_close(several.explain(images, target).psi, torch.stack(psi).mean(0))


@pytest.mark.parametrize("draws", [2, 5])
def test_the_spread_is_numpys_deviation_over_the_latents(path, images, draws):
    explainer, target = DXAI.load(path), torch.tensor([0, 1, 2, 0])
    index = torch.tensor([7, 3, 9, 1])
    found = explainer.spread(images, target, index, draws)
    assert found.shape == (4, 1, 16, 16) and found.dtype == torch.float32
    parts = [
        explainer.decomposer(images, target, explainer.latent(index.tolist(), k)).psi[:, 0]
        for k in range(draws)
    ]
    expected = np.std(torch.stack(parts).double().numpy(), axis=0).mean(1, keepdims=True)
    assert expected.max() > 1e-6
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-8)


def test_the_first_latent_is_the_one_that_explains(path, images):
    explainer, target, index = DXAI.load(path), torch.zeros(4, dtype=torch.long), torch.arange(4)
    first = explainer.decomposer(images, target, explainer.latent(index.tolist(), 0)).distinct
    torch.testing.assert_close(explainer.attribute(images, target, index), first)


def test_without_spread(path, images):
    explainer, target = DXAI.load(path), torch.zeros(4, dtype=torch.long)
    assert explainer.spread(images, target, torch.arange(4), 0).abs().max() == 0
    one = explainer.spread(images, target, torch.arange(4), 1)
    assert one.abs().max() < 1e-6  # a single draw agrees with itself


def test_the_spread_of_an_image_does_not_depend_on_its_batch(path, images):
    explainer, target, index = DXAI.load(path), torch.tensor([0, 1, 2, 0]), torch.arange(4) + 3
    whole = explainer.spread(images, target, index, 3)
    alone = explainer.spread(images[2:3], target[2:3], index[2:3], 3)
    torch.testing.assert_close(alone, whole[2:3], rtol=1e-3, atol=1e-6)


def test_the_seed_chooses_the_latent(path):
    first, again, other = DXAI.load(path), DXAI.load(path), DXAI.load(path, seed=1)
    assert torch.equal(first.latent([5]), again.latent([5]))
    assert not torch.equal(first.latent([5]), other.latent([5]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.expand(-1, 3, -1, -1), r"\(4, 3, 16, 16\); this model takes \(B, 1, 16, 16\)"),
        (lambda x: x[0], r"shape \(1, 16, 16\)"),
        (lambda x: (x + 1) * 127.5, r"this model takes values in \[-1, 1\]"),
        (lambda x: x * torch.nan, r"span \[nan, nan\]; this model takes values in \[-1, 1\]"),
        (
            lambda x: x.double(),
            r"images: found torch.float64; this model takes a tensor of torch.fl",
        ),
        (lambda x: x.numpy(), r"images: found ndarray; this model takes a tensor of torch.float32"),
    ],
)
def test_images_that_do_not_fit_are_refused(path, images, change, message):
    with pytest.raises(ValueError, match=message):
        DXAI.load(path).attribute(change(images), torch.zeros(4, dtype=torch.long))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (1, "target: found int; this model takes a tensor of torch.int64"),
        (torch.zeros(4), "target: found torch.float32; this model takes a tensor of torch.int64"),
        (torch.tensor([0, 1, 2]), r"target has shape \(3,\); 4 images take \(4,\), a class each"),
    ],
)
def test_targets_that_do_not_fit_are_refused(path, images, target, message):
    with pytest.raises(ValueError, match=message):
        DXAI.load(path).attribute(images, target)


def test_classes_that_do_not_exist_are_refused(path, images):
    with pytest.raises(ValueError, match=r"classes outside 0 \.\. 2"):
        DXAI.load(path).attribute(images, torch.tensor([0, 1, 2, 3]))


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"model\.pt: no such model file"):
        DXAI.load(tmp_path)


class Parts(nn.Module):
    """A constructed decomposition: psi_1 is the image's share of the pattern of a class."""

    latent_dim = 1

    def __init__(self, patterns):
        super().__init__()
        self.patterns = patterns

    def branches(self, images, styles):
        for labels, _ in styles:
            wanted = self.patterns[labels]
            part = (images * wanted).sum((1, 2, 3), keepdim=True) * wanted
            yield torch.stack([part, images - part], 1)


class Patterns(nn.Module):
    """A classifier whose logits are how much of each class's pattern is in the image."""

    def __init__(self, patterns):
        super().__init__()
        self.patterns, self.largest = patterns, 0

    def forward(self, x):
        self.largest = max(self.largest, len(x))
        return 10 * torch.einsum("bchw,kchw->bk", x, self.patterns)


def hundred(present):
    """Return an explainer of 100 classes, and 20 images with so many classes' patterns."""
    draw = torch.Generator().manual_seed(0)
    patterns = torch.linalg.qr(torch.randn(256, 100, generator=draw))[0].T.view(100, 1, 16, 16)
    plain = 0.02 * torch.randn(20, 1, 16, 16, generator=draw)
    plain -= torch.einsum("bchw,kchw,kdef->bdef", plain, patterns, patterns)
    info = INFO | {"class_names": [f"c{k}" for k in range(100)]}
    images = plain + 0.8 * patterns[:present].sum(0)
    return DXAI(Parts(patterns), info, Patterns(patterns)), images, plain


def test_of_a_hundred_classes_those_in_question_are_removed():
    explainer, images, plain = hundred(3)
    target = torch.arange(20) % 3
    found = explainer.explain(images, target)
    assert explainer.classifier.largest <= 2 * MOST_ROWS, "memory does not grow with the images"
    assert (found.neutrality > UNDECIDED).all()
    assert (explainer.classifier(images).softmax(1).max(1).values > 0.3).all()
    assert (found.agnostic - plain).abs().max() < 0.15 < (images - plain).abs().max()


def test_more_classes_than_the_basis_has_are_not_neutral_and_it_says_so():
    explainer, images, _ = hundred(BASIS_CLASSES + 12)
    found = explainer.explain(images, torch.arange(20) % 3)
    answer = explainer.classifier(found.agnostic).softmax(1)
    assert (found.neutrality < UNDECIDED).all()
    np.testing.assert_allclose(found.neutrality, entropy(answer, axis=1) / np.log(100), rtol=1e-4)
