import dataclasses
from pathlib import Path

import pytest
import yaml

from dxai.config.schema import (
    METHODS,
    ClassifierParams,
    DecomposeParams,
    EvaluateParams,
    Params,
    ParamsError,
    PrepareParams,
    _Loader,
    load_params,
    parse,
    profile_names,
)
from dxai.models.classifiers import CLASSIFIERS

FILE = Path(__file__).parents[3] / "params.yaml"
DOCUMENT = yaml.load(FILE.read_text(), Loader=_Loader)


def test_the_file_runs_the_quick_profile():
    assert load_params(FILE).profile == "quick"
    assert {"smoke", "quick", "full", "standard", "paper"} == set(profile_names(FILE))


@pytest.mark.parametrize("name", DOCUMENT["profiles"])
def test_every_profile_is_complete_and_carries_its_name(name):
    params = parse(Params, DOCUMENT["profiles"][name], name)
    assert params.profile == name
    for spec in params.classifiers.values():
        assert spec.arch in CLASSIFIERS


def test_the_paper_profile_is_the_defaults_of_the_dataclasses():
    """The dataclasses document the paper's values; the file must not say otherwise."""
    paper = parse(Params, DOCUMENT["profiles"]["paper"], "paper")
    assert paper.decompose == DecomposeParams()
    assert paper.evaluate == EvaluateParams()
    assert paper.classifier == ClassifierParams()
    assert paper.prepare == PrepareParams()
    assert set(paper.methods) == set(METHODS)


def test_the_papers_loss_weights_are_those_of_equation_14():
    weights = DecomposeParams()
    assert (weights.lambda_adv, weights.lambda_kld, weights.lambda_class) == (2, 1, 2)
    assert (weights.lambda_rec, weights.lambda_dis_rec) == (4, 4)


def changed(tmp_path, **values):
    """The file with values of its run block replaced."""
    document = yaml.load(FILE.read_text(), Loader=_Loader)
    for key, value in values.items():
        *path, last = key.split("__")
        place = document["run"]
        for part in path:
            place[part] = dict(place[part])
            place = place[part]
        if value is None:
            del place[last]
        else:
            place[last] = value
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"stepz": 3},
            r"run: unknown 'stepz'; valid are ablations, classifier, classifiers, .*seeds",
        ),
        ({"decompose__stepz": 3}, r"run\.decompose: unknown 'stepz'; valid are agnostic_skip,"),
        ({"decompose__steps": None}, r"run\.decompose: missing steps"),
        ({"decompose__steps": "many"}, r"run\.decompose\.steps is 'many'; it must be of type int"),
        ({"decompose__steps": True}, r"run\.decompose\.steps is True"),
        ({"decompose__steps": 0}, r"run\.decompose: steps is 0; it must be above 0"),
        ({"decompose__branches": 1}, r"branches is 1; it takes at least 2"),
        ({"decompose__alpha_per": "pixel"}, r"alpha_per: unknown 'pixel'; valid are batch, image"),
        (
            {"decompose__discriminator_heads": "single"},
            r"lambda_kld needs discriminator_heads: class",
        ),
        ({"methods": {"grad_cam": {}}}, r"run\.methods: unknown 'grad_cam'; valid are gradcam, "),
        ({"methods": {}}, r"run\.methods is empty"),
        ({"seeds": 0}, r"run\.seeds is 0; it must be a list"),
        ({"seeds": []}, r"run\.seeds is empty"),
        ({"classifiers": {}}, r"run\.classifiers is empty, and so is run\.joint"),
        ({"datasets__textures__channels": 2}, r"channels is 2; valid are 1 \(gray\) and 3"),
        ({"datasets__textures__encoding": "gif"}, r"encoding: unknown 'gif'; valid are jpeg, png"),
        ({"datasets__textures__release": "2020"}, r"release: unknown '2020'; valid are paper"),
        (
            {"datasets__textures__overrides": {"evaluate": {}}},
            r"overrides: unknown 'evaluate'; valid are classifier, decompose",
        ),
        (
            {"datasets__textures__overrides": {"classifier": {"noize": 0}}},
            r"run\.datasets\.textures\.overrides\.classifier: unknown 'noize'; valid are batch_",
        ),
        (
            {"datasets__textures__overrides": {"decompose": {"steps": 0}}},
            r"run\.datasets\.textures\.overrides\.decompose: steps is 0; it must be above 0",
        ),
        ({"prepare__duplicates": "keep"}, r"duplicates: unknown 'keep'; valid are drop, refuse,"),
        (
            {"classifiers": {"j": {"arch": "joint", "options": {}, "weights": None}}},
            r"run\.classifiers\.j has arch joint; put it in run\.joint",
        ),
    ],
)
def test_what_is_wrong_is_named_with_what_would_be_right(tmp_path, values, message):
    with pytest.raises(ParamsError, match=message):
        load_params(changed(tmp_path, **values))


def test_a_dataset_overrides_what_it_needs_otherwise(tmp_path):
    overrides = {"classifier": {"noise": 0.0}, "decompose": {"steps": 7}}
    params = load_params(changed(tmp_path, datasets__textures__overrides=overrides))
    assert params.classifier_for("textures") == dataclasses.replace(params.classifier, noise=0.0)
    assert params.decompose_for("textures", "resnet18") == dataclasses.replace(
        params.decompose, steps=7
    )
    assert load_params(FILE).classifier_for("textures") == load_params(FILE).classifier


@pytest.mark.parametrize("name", DOCUMENT["catalogue"]["datasets"])
def test_every_dataset_of_the_catalogue_can_be_run(tmp_path, name):
    params = load_params(
        changed(tmp_path, datasets={name: DOCUMENT["catalogue"]["datasets"][name]})
    )
    assert Path(FILE.parent, params.dataset(name).source).exists()  # or DVC would refuse the stage


def test_names_that_the_run_does_not_have():
    params = load_params(FILE)
    with pytest.raises(ParamsError, match="dataset: unknown 'texture'; valid are textures"):
        params.dataset("texture")
    with pytest.raises(ParamsError, match="classifier: unknown 'vgg'; valid are resnet18"):
        params.classifier_spec("vgg")


def test_files_that_are_none(tmp_path):
    with pytest.raises(ParamsError, match="no such file"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("run: [")
    with pytest.raises(ParamsError, match="not valid YAML"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("profiles: {}")
    with pytest.raises(ParamsError, match="missing run"):
        load_params(tmp_path / "params.yaml")


def test_numbers_are_read_as_dvc_reads_them(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(FILE.read_text().replace("lr: 1.0e-3", "lr: 1e-3"))
    assert load_params(file).decompose.lr == 1e-3


def test_every_field_is_documented():
    for kind in (DecomposeParams, EvaluateParams, ClassifierParams, PrepareParams, Params):
        for field in dataclasses.fields(kind):
            assert field.name in kind.__doc__, f"{kind.__name__}.{field.name}"


VARIANTS = {"two_branches": {"branches": 2}, "narrow": {"branch_width": 4, "steps": 9}}


def rich(tmp_path, **values):
    """The file with two classifiers, further seeds for one of them, and ablations of the other."""
    catalogue = DOCUMENT["catalogue"]["classifiers"]
    settings = {
        "classifiers": {name: catalogue[name] for name in ("resnet18", "simple")},
        "seeds": [5, 0],
        "repeat": {"classifiers": ["simple"], "seeds": [1, 2]},
        "ablations": {
            "datasets": ["textures"], "classifiers": ["resnet18"], "variants": VARIANTS,
        },
    }  # fmt: skip
    return load_params(changed(tmp_path, **(settings | values)))


def test_further_seeds_are_those_of_some_classifiers(tmp_path):
    params = rich(tmp_path)
    assert params.seeds_of("resnet18") == [5, 0]
    assert params.seeds_of("simple") == [5, 0, 1, 2]
    assert load_params(FILE).seeds_of("resnet18") == load_params(FILE).seeds


def test_ablations_are_those_of_some_datasets_and_classifiers(tmp_path):
    params = rich(tmp_path)
    assert params.variants_of("textures", "resnet18") == sorted(VARIANTS)
    assert params.variants_of("textures", "simple") == []
    assert params.variants_of("brats", "resnet18") == []


def test_a_decomposition_goes_by_its_seed_or_by_its_ablation(tmp_path):
    params = rich(tmp_path)
    plain = params.decompose_for("textures", "resnet18")
    assert params.decomposition("textures", "resnet18", "2") == (plain, 2)
    settings, seed = params.decomposition("textures", "resnet18", "narrow")
    assert settings == dataclasses.replace(plain, branch_width=4, steps=9)
    assert seed == 5  # the first one
    with pytest.raises(ParamsError, match="ablation: unknown 'wide'; valid are narrow, two_bran"):
        params.decomposition("textures", "resnet18", "wide")
    with pytest.raises(ParamsError, match=r"classifier: unknown 'vgg'; valid are .*simple"):
        params.decomposition("textures", "vgg", "0")


def test_a_dataset_a_classifier_and_an_ablation_override_in_this_order(tmp_path):
    spec = DOCUMENT["catalogue"]["classifiers"]["simple"]
    params = rich(
        tmp_path,
        datasets__textures__overrides={"decompose": {"steps": 7, "branches": 4, "lr": 0.25}},
        classifiers={
            "simple": spec | {"overrides": {"decompose": {"steps": 8, "branches": 5}}},
            "resnet18": spec,
        },
        ablations={
            "datasets": ["textures"], "classifiers": ["simple"], "variants": VARIANTS,
        },
    )  # fmt: skip
    shared = dataclasses.replace(params.decompose, lr=0.25)
    of = params.decompose_for
    assert of("textures", "resnet18") == dataclasses.replace(shared, steps=7, branches=4)
    assert of("textures", "simple") == dataclasses.replace(shared, steps=8, branches=5)
    assert of("textures", "simple", "two_branches") == dataclasses.replace(
        shared, steps=8, branches=2
    )
    assert of("textures", "simple", "narrow") == dataclasses.replace(
        shared, steps=9, branches=5, branch_width=4
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"repeat": {"classifiers": ["vgg"], "seeds": [1]}},
            r"run\.repeat\.classifiers: unknown 'vgg'; valid are resnet18, simple",
        ),
        (
            {"repeat": {"classifiers": ["simple"], "seeds": [7, 5]}},
            r"run\.repeat\.seeds has 5, which run\.seeds has already",
        ),
        ({"repeat": {"classifiers": []}}, r"run\.repeat: missing seeds"),
        (
            {"ablations__datasets": ["afhq"]},
            r"run\.ablations\.datasets: unknown 'afhq'; valid are textures",
        ),
        (
            {"ablations__classifiers": ["joint"]},
            r"run\.ablations\.classifiers: unknown 'joint'; valid are resnet18, simple",
        ),
        ({"ablations__variants": {"2": {}}}, r"run\.ablations\.variants has '2'; it takes letters"),
        ({"ablations__variants": {"a-b": {}}}, r"run\.ablations\.variants has 'a-b'"),
        (
            {"ablations__variants": {"odd": {"stepz": 1}}},
            r"run\.ablations\.variants\.odd: unknown 'stepz'; valid are agnostic_skip,",
        ),
        (
            {"ablations__variants": {"odd": {"branches": 1}}},
            r"run\.ablations\.variants\.odd: branches is 1; it takes at least 2",
        ),
        (
            {"classifiers__simple__overrides": {"classifier": {"noise": 0.0}}},
            r"run\.classifiers\.simple: overrides: unknown 'classifier'; valid are decompose",
        ),
        (
            {"classifiers__simple__overrides": {"decompose": {"stepz": 1}}},
            r"run\.classifiers\.simple\.overrides\.decompose: unknown 'stepz'; valid are agn",
        ),
        ({"evaluate__uncertainty": 1}, r"uncertainty is 1; it must be 0, or 2 or more"),
        ({"evaluate__deletion_fill": 2.0}, r"deletion_fill is 2\.0; it must lie in \[-1, 1\]"),
    ],
)
def test_what_does_not_fit_the_run_is_named(tmp_path, values, message):
    with pytest.raises(ParamsError, match=message):
        rich(tmp_path, **values)


def test_workers_must_divide_the_batch_of_every_ablation(tmp_path):
    variants = {"odd": {"batch_size": 3}}
    with pytest.raises(ParamsError, match=r"workers is 2; it must divide both .* one is 3"):
        rich(tmp_path, ablations__variants=variants, training__workers=2)
