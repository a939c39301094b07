from pathlib import Path

import pytest
import yaml

from dxai.config import profiles
from dxai.config.params_file import check, load_params, read_yaml
from dxai.config.profiles import load_profile, profile_names
from dxai.config.schema import (
    METHODS,
    ClassifierParams,
    ClassifierSpec,
    DecomposeParams,
    EvaluateParams,
    PrepareParams,
)
from dxai.config.settings import ParamsError, parse
from dxai.models.classifiers import CLASSIFIERS

FILE = Path(__file__).parents[3] / "params.yaml"
CATALOGUE = read_yaml(profiles.CATALOGUE)


def test_the_file_runs_the_quick_profile():
    assert read_yaml(FILE) == load_profile("quick")
    assert {"smoke", "quick", "full", "photo", "standard", "paper"} == set(profile_names())


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_is_complete_and_carries_its_name(name):
    params = check(load_profile(name))
    assert params.profile == name
    for spec in params.classifiers.values():
        assert spec.arch in CLASSIFIERS


def test_the_paper_profile_is_the_defaults():
    """The classes document the paper's values; the profile must not say otherwise."""
    paper = check(load_profile("paper"))
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
    """Write the file with some of its values replaced."""
    document = read_yaml(FILE)
    for key, value in values.items():
        *path, last = key.split("__")
        block = document
        for part in path:
            block[part] = dict(block[part])
            block = block[part]
        if value is None:
            del block[last]
        else:
            block[last] = value
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"stepz": 3},
            r"params\.yaml: unknown 'stepz'; valid are ablations, classifier, classifiers, .*seeds",
        ),
        ({"decompose__stepz": 3}, r"decompose: unknown 'stepz'; valid are agnostic_skip,"),
        ({"decompose__steps": None}, r"missing decompose\.steps"),
        ({"decompose__steps": "many"}, r"decompose\.steps is 'many'; it must be a valid integer"),
        ({"decompose__steps": True}, r"decompose\.steps is True"),
        ({"decompose__steps": 0}, r"decompose\.steps is 0; it must be greater than 0"),
        ({"decompose__branches": 1}, r"branches is 1; it must be greater than or equal to 2"),
        ({"decompose__alpha_per": "pixel"}, r"alpha_per is 'pixel'; it must be 'batch' or 'image'"),
        (
            {"decompose__discriminator_heads": "single"},
            r"lambda_kld needs discriminator_heads: class",
        ),
        ({"methods": {"grad_cam": {}}}, r"methods: unknown 'grad_cam'; valid are gradcam, "),
        ({"methods": {}}, r"methods is empty"),
        ({"seeds": 0}, r"seeds is 0; it must be a valid list"),
        ({"seeds": []}, r"seeds is empty"),
        ({"seeds": [0, -1]}, r"seeds has -1; a seed is 0 or more"),
        ({"classifiers": {}}, r"classifiers is empty, and so is joint"),
        (
            {"datasets__textures__source": "data/mine.csv"},
            r"source is data/mine\.csv; only the layout folder reads a CSV file, name the folder",
        ),
        ({"datasets__textures__channels": 2}, r"channels is 2; valid are 1 \(gray\) and 3"),
        ({"datasets__textures__encoding": "gif"}, r"encoding is 'gif'; it must be 'png' or 'jpeg'"),
        ({"datasets__textures__release": "2020"}, r"release is '2020'; it must be 'paper'"),
        (
            {"datasets__textures__overrides": {"evaluate": {}}},
            r"overrides: unknown 'evaluate'; valid are classifier, decompose",
        ),
        (
            {"datasets__textures__overrides": {"classifier": {"noize": 0}}},
            r"datasets\.textures\.overrides\.classifier: unknown 'noize'; valid are batch_",
        ),
        (
            {"datasets__textures__overrides": {"decompose": {"steps": 0}}},
            r"datasets\.textures\.overrides\.decompose\.steps is 0; it must be greater than 0",
        ),
        (
            {"prepare__duplicates": "keep"},
            r"duplicates is 'keep'; it must be 'report', 'dr",
        ),
        (
            {"classifiers": {"j": {"arch": "joint", "options": {}, "weights": None}}},
            r"classifiers\.j has arch joint; put it in joint",
        ),
    ],
)
def test_what_is_wrong_is_named_with_what_would_be_right(tmp_path, values, message):
    with pytest.raises(ParamsError, match=message):
        load_params(changed(tmp_path, **values))


def test_a_dataset_overrides_what_it_needs_otherwise(tmp_path):
    overrides = {"classifier": {"noise": 0.0}, "decompose": {"steps": 7}}
    params = load_params(changed(tmp_path, datasets__textures__overrides=overrides))
    assert params.classifier_for("textures") == params.classifier.replace(noise=0.0)
    assert params.decompose_for("textures", "resnet18") == params.decompose.replace(steps=7)
    assert load_params(FILE).classifier_for("textures") == load_params(FILE).classifier


@pytest.mark.parametrize("name", CATALOGUE["datasets"])
def test_every_dataset_of_the_catalogue_can_be_run(tmp_path, name):
    params = load_params(changed(tmp_path, datasets={name: CATALOGUE["datasets"][name]}))
    assert Path(FILE.parent, params.dataset(name).source).exists()  # or DVC would refuse the stage


def test_names_that_the_run_does_not_have():
    params = load_params(FILE)
    with pytest.raises(ParamsError, match="dataset: unknown 'texture'; valid are textures"):
        params.dataset("texture")
    with pytest.raises(ParamsError, match="classifier: unknown 'vgg'; valid are resnet18"):
        params.classifier_spec("vgg")


def test_numbers_are_read_as_dvc_reads_them(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(FILE.read_text().replace("lr: 0.001", "lr: 1e-3"))
    assert load_params(file).decompose.lr == 1e-3


def test_a_copy_is_checked_too():
    with pytest.raises(ValueError, match="greater than 0"):
        DecomposeParams().replace(steps=0)
    assert DecomposeParams().replace(steps=3).steps == 3


VARIANTS = {"two_branches": {"branches": 2}, "narrow": {"branch_width": 4, "steps": 9}}


def rich(tmp_path, **values):
    """Write a file with two classifiers, further seeds for one, and ablations of the other."""
    catalogue = CATALOGUE["classifiers"]
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
    assert load_params(FILE).seeds_of("simple") == load_params(FILE).seeds
    assert load_params(FILE).seeds_of("resnet18") == [0, 1, 2]


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
    assert settings == plain.replace(branch_width=4, steps=9)
    assert seed == 5  # the first one
    with pytest.raises(ParamsError, match="ablation: unknown 'wide'; valid are narrow, two_bran"):
        params.decomposition("textures", "resnet18", "wide")
    with pytest.raises(ParamsError, match=r"classifier: unknown 'vgg'; valid are .*simple"):
        params.decomposition("textures", "vgg", "0")


def test_a_dataset_a_classifier_and_an_ablation_override_in_this_order(tmp_path):
    spec = CATALOGUE["classifiers"]["simple"]
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
    shared = params.decompose.replace(lr=0.25)
    of = params.decompose_for
    assert of("textures", "resnet18") == shared.replace(steps=7, branches=4)
    assert of("textures", "simple") == shared.replace(steps=8, branches=5)
    assert of("textures", "simple", "two_branches") == shared.replace(steps=8, branches=2)
    assert of("textures", "simple", "narrow") == shared.replace(steps=9, branches=5, branch_width=4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"repeat": {"classifiers": ["vgg"], "seeds": [1]}},
            r"repeat\.classifiers: unknown 'vgg'; valid are resnet18, simple",
        ),
        (
            {"repeat": {"classifiers": ["simple"], "seeds": [7, 5]}},
            r"repeat\.seeds has 5, which seeds has already",
        ),
        ({"repeat": {"classifiers": []}}, r"missing repeat\.seeds"),
        (
            {"ablations__datasets": ["afhq"]},
            r"ablations\.datasets: unknown 'afhq'; valid are textures",
        ),
        (
            {"ablations__classifiers": ["joint"]},
            r"ablations\.classifiers: unknown 'joint'; valid are resnet18, simple",
        ),
        ({"ablations__variants": {"2": {}}}, r"ablations\.variants has '2'; it takes letters"),
        ({"ablations__variants": {"a-b": {}}}, r"ablations\.variants has 'a-b'"),
        (
            {"ablations__variants": {"odd": {"stepz": 1}}},
            r"ablations\.variants\.odd: unknown 'stepz'; valid are agnostic_skip,",
        ),
        (
            {"ablations__variants": {"odd": {"branches": 1}}},
            r"ablations\.variants\.odd\.branches is 1; it must be greater than or equal to 2",
        ),
        (
            {"classifiers__simple__overrides": {"classifier": {"noise": 0.0}}},
            r"classifiers\.simple: overrides: unknown 'classifier'; valid are decompose",
        ),
        (
            {"classifiers__simple__overrides": {"decompose": {"stepz": 1}}},
            r"classifiers\.simple\.overrides\.decompose: unknown 'stepz'; valid are agn",
        ),
        ({"evaluate__uncertainty": 1}, r"uncertainty is 1; it must be 0, or 2 or more"),
        (
            {"evaluate__deletion_fill": 2.0},
            r"deletion_fill is 2\.0; it must be less than or equ",
        ),
    ],
)
def test_what_does_not_fit_the_run_is_named(tmp_path, values, message):
    with pytest.raises(ParamsError, match=message):
        rich(tmp_path, **values)


def test_workers_must_divide_the_batch_of_every_ablation(tmp_path):
    variants = {"odd": {"batch_size": 3}}
    with pytest.raises(ParamsError, match=r"workers is 2; it must divide both .* one is 3"):
        rich(tmp_path, ablations__variants=variants, training__workers=2)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"options": {"value_range": [0, 1]}}, "options.value_range is now value_range"),
        ({"value_range": [1, 0]}, r"value_range is \[1.0, 0.0\]; it must be \[low, high\]"),
        ({"value_range": [0]}, "value_range"),
        ({"mean": [0.5, 0.5, 0.5], "std": [0.2]}, "mean has 3 values and std 1"),
        ({"std": [0.2, 0.0]}, "each must be above 0"),
        ({"size": 0}, "greater than 0"),
        ({"class_names": ["a", "a"]}, "each must be there once"),
        ({"outputs": [0, -1]}, "indices count from 0"),
        ({"activation": "tanh"}, "'none', 'softmax' or 'sigmoid'"),
        ({"arch": "torch.export"}, "weights is empty; arch torch.export needs the file"),
        ({"arch": "torchscript"}, "weights is empty; arch torchscript needs the file"),
        ({"weights": "w.pt", "train": True, "files": ["w.pt"]}, "train is true although weights"),
        ({"train": False}, "arch simple brings no weights"),
        ({"arch": "joint", "mean": [0.5]}, "mean has no use with arch joint"),
    ],
)
def test_an_unusable_entry_of_a_classifier_is_refused_in_a_line(entry, said):
    with pytest.raises(ParamsError, match=said) as error:
        parse(ClassifierSpec, {"arch": "simple"} | entry, "classifiers.mine")
    assert str(error.value).startswith("classifiers.mine")
    assert "\n" not in str(error.value)


def test_a_network_expects_the_range_of_its_mean():
    assert ClassifierSpec(arch="simple").expected_range == (-1, 1)
    assert ClassifierSpec(arch="simple", std=[0.5]).expected_range == (0, 1)
    caffe = ClassifierSpec(arch="simple", mean=[117.0], value_range=[0, 255])
    assert caffe.expected_range == (0, 255)


def test_a_network_is_trained_here_unless_it_brings_its_weights():
    assert ClassifierSpec(arch="simple").trained_here
    assert not ClassifierSpec(arch="simple", weights="w.pt").trained_here
    assert not ClassifierSpec(arch="my.nets:pretrained", train=False).trained_here


def test_every_file_of_a_classifier_is_named(tmp_path):
    (tmp_path / "nets.py").touch()
    entry = {"arch": "nets:Net", "weights": "w.pt", "twin": "t.pt"}
    once = {"classifiers": [], "seeds": []}
    for files, missing in ((["w.pt"], "t.pt, nets.py"), (["w.pt", "t.pt"], "nets.py")):
        document = changed(tmp_path, repeat=once, classifiers={"mine": entry | {"files": files}})
        with pytest.raises(
            ParamsError, match=rf"classifiers\.mine\.files lacks {missing}; `dxai use`"
        ):
            load_params(document)
    document = changed(tmp_path, repeat=once, classifiers={"mine": {"arch": "simple"}})
    with pytest.raises(ParamsError, match=r"classifiers\.mine\.files is missing"):
        load_params(document)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"prepare": {"image_size": 7}}, r"prepare\.image_size is 7; it must be at least 8"),
        (
            {"decompose": {"coarsest": 33}},
            r"decompose\.coarsest is 33; it must be at most prepare\.image_size \(32\)",
        ),
        (
            {"datasets": {"textures": {"overrides": {"decompose": {"coarsest": 64}}}}},
            r"decompose\.coarsest is 64",
        ),
    ],
)
def test_sizes_that_are_too_small_are_known_from_the_settings(changed, message):
    whole = load_profile("quick")
    for block, values in changed.items():
        if block == "datasets":
            whole[block]["textures"] |= values["textures"]
        else:
            whole[block] |= values
    with pytest.raises(ParamsError, match=message):
        check(whole)
