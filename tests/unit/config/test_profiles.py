"""Profiles and `dxai use`: the file has the requested values."""

from __future__ import annotations

import functools
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dxai.config.params_file import format_params, load_params, read_yaml
from dxai.config.profiles import CATALOGUE, load_profile, profile_names, select_profile
from dxai.config.settings import ParamsError

PROJECT = Path(__file__).parents[3] / "params.yaml"


NOTHING = {
    "repeat": {"classifiers": [], "seeds": []},
    "ablations": {"datasets": [], "classifiers": [], "variants": {}},
}
"""Nothing is repeated or ablated."""


@pytest.fixture(scope="module")
def selected(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that writes a params file with a profile, once."""

    @functools.cache
    def select(profile: str) -> Path:
        path = tmp_path_factory.mktemp(profile) / "params.yaml"
        shutil.copy(PROJECT, path)
        select_profile(path, profile)
        return path

    return select


@pytest.fixture
def file(selected: Callable[[str], Path], tmp_path: Path) -> Path:
    """Copy a params file with the first profile."""
    return Path(shutil.copy(selected(profile_names()[0]), tmp_path))


@pytest.fixture
def quick(selected: Callable[[str], Path], tmp_path: Path) -> Path:
    """Copy a params file with the profile `quick`."""
    return Path(shutil.copy(selected("quick"), tmp_path))


def read(path: Path) -> dict:
    """Read the document with another YAML reader than the package's."""
    from ruamel.yaml import YAML

    return YAML(typ="safe").load(path.read_text())


@pytest.mark.parametrize("profile", profile_names())
def test_every_profile_is_written_and_read_back(file: Path, profile: str) -> None:
    select_profile(file, profile)
    assert read(file) == load_profile(profile)
    assert load_params(file).profile == profile


def test_a_profile_is_merged_over_the_one_that_it_extends() -> None:
    quick, full, smoke = (load_profile(name) for name in ("quick", "full", "smoke"))
    assert full["decompose"] == quick["decompose"]
    assert full["training"] == quick["training"]
    assert full["repeat"] == quick["repeat"]
    assert smoke["methods"]["naive"] == quick["methods"]["naive"] | {"iterations": 10}
    assert smoke["repeat"] == {"classifiers": ["resnet18"], "seeds": [1]}  # a list is replaced


def test_what_is_run_replaces_that_of_the_other_profile_and_comes_from_the_catalogue() -> None:
    full, catalogue = load_profile("full"), read_yaml(CATALOGUE)
    assert list(load_profile("smoke")["datasets"]) == ["textures"]
    assert load_profile("quick")["joint"] == {}
    assert full["datasets"]["brats"] == catalogue["datasets"]["brats"]
    assert full["datasets"]["dota"] == catalogue["datasets"]["dota"] | {
        "overrides": {"decompose": {"steps": 2500}}
    }
    assert full["joint"]["joint"] == catalogue["classifiers"]["joint"]


@pytest.mark.parametrize("profile", profile_names())
def test_values_can_be_overridden_in_every_profile(file: Path, profile: str) -> None:
    method = next(iter(load_profile(profile)["methods"]))
    select_profile(file, profile, methods=[method, "ig"])
    select_profile(
        file,
        overrides={
            "decompose.steps": "300",
            "decompose.lr": "2e-5",
            "methods.ig.steps": "7",
            "evaluate.images": "20",
            "datasets.textures.options.mark": "[1, 'a: b', {c: null}]",
        },
    )
    params = load_params(file)
    assert (params.decompose.steps, params.decompose.lr) == (300, 2e-5)
    assert (params.methods["ig"], params.evaluate.images) == ({"steps": 7}, 20)
    assert params.datasets["textures"].options["mark"] == [1, "a: b", {"c": None}]
    expected = load_profile(profile)
    assert read(file)["prepare"] == expected["prepare"]
    assert read(file)["decompose"] == expected["decompose"] | {"steps": 300, "lr": 2e-5}


def test_nothing_to_change_leaves_the_file_alone(file: Path) -> None:
    text, stat = file.read_bytes(), file.stat()
    steps = load_params(file).decompose.steps
    assert select_profile(file) == []
    assert select_profile(file, load_params(file).profile) == []
    assert select_profile(file, overrides={"decompose.steps": str(steps)}) == []
    assert file.read_bytes() == text
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)


def test_going_back_restores_the_file_byte_for_byte(file: Path) -> None:
    text, profile = file.read_bytes(), load_params(file).profile
    changes = select_profile(file, seeds=[3, 1, 3], overrides={"evaluate.images": "9"})
    assert "evaluate.images: " in "\n".join(changes)
    assert load_params(file).seeds == [3, 1]
    select_profile(file, profile)
    assert file.read_bytes() == text


def test_names_come_from_the_file_then_the_profile_then_the_catalogue(file: Path) -> None:
    select_profile(file, "quick", overrides={"classifiers.resnet18.options.width": "12"})
    select_profile(file, classifiers=["discriminator", "simple", "resnet18"])
    params = load_params(file)
    assert list(params.classifiers) == ["discriminator", "simple", "resnet18"]
    assert params.classifiers["resnet18"].options["width"] == 12
    assert params.classifiers["discriminator"].arch == "discriminator"


def test_methods_come_back_with_the_profiles_settings(quick: Path) -> None:
    lime = load_params(quick).methods["lime"]
    select_profile(quick, methods=["random"])
    assert list(load_params(quick).methods) == ["random"]
    select_profile(quick, methods=["lime", "random"])
    assert load_params(quick).methods == {"lime": lime, "random": {}}


def test_what_is_repeated_and_ablated_is_what_the_run_has(file: Path) -> None:
    select_profile(file, "full")
    whole = load_params(file)
    assert whole.repeat.classifiers and whole.repeat.seeds and whole.ablations.datasets
    select_profile(file, "full", datasets=["brats"], classifiers=["simple"], seeds=[2, 5])
    params = load_params(file)
    assert (params.repeat.classifiers, params.repeat.seeds) == ([], [1])
    assert (params.ablations.datasets, params.ablations.classifiers) == ([], [])
    assert params.ablations.variants == whole.ablations.variants
    select_profile(file, "full", datasets=["brats", "textures"], classifiers=["resnet18", "simple"])
    params = load_params(file)
    assert (params.repeat, params.ablations) == (whole.repeat, whole.ablations)


def test_what_is_repeated_may_be_named_at_once(file: Path) -> None:
    select_profile(
        file,
        "quick",
        classifiers=["simple", "resnet18"],
        overrides={
            "repeat": "{classifiers: [simple], seeds: [1, 2]}",
            "ablations.datasets": "[textures]",
            "ablations.classifiers": "[simple]",
            "ablations.variants": "{two_branches: {branches: 2}}",
        },
    )
    params = load_params(file)
    assert params.seeds_of("simple") == [*params.seeds, 1, 2]
    assert params.variants_of("textures", "simple") == ["two_branches"]
    select_profile(file, classifiers=["resnet18"])
    params = load_params(file)
    assert (params.repeat.classifiers, params.ablations.classifiers) == ([], [])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"overrides": {"repeat.classifiers": "[vgg]"}}, ["repeat.classifiers", "vgg", "resnet18"]),
        ({"overrides": {"repeat.seeds": "[0]"}}, ["repeat.seeds", "0"]),
        ({"overrides": {"ablations.datasets": "[cats]"}}, ["ablations.datasets", "textures"]),
        ({"overrides": {"ablations.variants.2b": "{}"}}, ["2b"]),
        ({"profile": "huge"}, ["huge", "quick"]),
        ({"datasets": ["cats"]}, ["cats", "textures"]),
        ({"classifiers": ["vgg"]}, ["vgg", "resnet18"]),
        ({"methods": ["smoothgrad"]}, ["smoothgrad", "gradcam"]),
        ({"methods": []}, ["methods", "empty"]),
        ({"overrides": {"decompose.stepz": "1"}}, ["stepz", "steps"]),
        ({"overrides": {"stages.steps": "1"}}, ["stages", "decompose"]),
        ({"overrides": {"methods.ig.sample": "1"}}, ["sample", "steps"]),
        ({"overrides": {"decompose.steps": "many"}}, ["decompose.steps", "many"]),
        ({"overrides": {"decompose.steps": "0"}}, ["decompose.steps", "greater than 0"]),
        ({"overrides": {"decompose.steps": "[1"}}, ["decompose.steps", "YAML"]),
        ({"overrides": {"decompose.steps.x": "1"}}, ["decompose.steps"]),
        ({"overrides": {"profile": "paper"}}, ["profile"]),
        (
            {"overrides": {"datasets.mine.source": "data/mine"}},
            ["datasets", "mine", "textures", "`dxai add dataset mine PATH` adds one"],
        ),
        (
            {"overrides": {"datasets.dota.source": "data/dota"}},
            ["datasets", "dota", "textures", "`dxai use --datasets dota` runs the catalogue's"],
        ),
        (
            {"overrides": {"classifiers.mine.weights": "w.pt"}},
            ["classifiers", "mine", "`dxai add classifier mine package.module:Net` adds one"],
        ),
        ({"datasets": ["mine"]}, ["datasets", "mine", "`dxai add dataset mine PATH` adds one"]),
        ({"overrides": {"datasets.textures.chanels": "1"}}, ["datasets.textures", "channels"]),
    ],
)
def test_what_does_not_fit_is_named_and_changes_nothing(
    quick: Path, arguments: dict, named: list[str]
) -> None:
    text = quick.read_bytes()
    with pytest.raises(ParamsError) as error:
        select_profile(quick, **arguments)
    assert all(word in str(error.value) for word in named)
    assert quick.read_bytes() == text
    assert [path.name for path in quick.parent.iterdir()] == [quick.name]


@pytest.mark.parametrize("source", ["s3://bucket/raw", "file:///a b/c", "~/raw: new, or {old}"])
def test_a_url_can_be_read_by_dvc(file: Path, source: str) -> None:
    select_profile(file, datasets=["shapes"], overrides={"datasets.shapes.source": f"{source!r}"})
    assert read(file)["datasets"]["shapes"]["source"] == source


def test_an_entry_of_ones_own_stays_and_can_be_named_with_a_profile(file: Path) -> None:
    own = {"layout": "folder", "source": "data/mine"}
    values = read(file)
    values["datasets"] = {"mine": own, **values["datasets"]}
    file.write_text(format_params(values))
    select_profile(file, seeds=[7])
    assert read(file)["datasets"]["mine"] == own
    select_profile(file, "quick", datasets=["mine"])
    assert read(file)["datasets"] == {"mine": own}
    select_profile(file, overrides={"datasets.mine.overrides.decompose.steps": "9"})
    assert load_params(file).decompose_for("mine", "resnet18").steps == 9


def test_a_table_as_the_source_becomes_its_folder_and_an_option(file: Path) -> None:
    """DVC watches a source: with the table alone it would not see that an image changes."""
    values = read(file)
    values["datasets"] = {
        "mine": {"layout": "folder", "source": "data/my.photos/List.CSV", "options": {"seed": 3}}
    }
    file.write_text(format_params(values))
    with pytest.raises(ParamsError, match=r"set source: data/my.photos and options: {table: List"):
        load_params(file)
    select_profile(file)
    mine = load_params(file).dataset("mine")
    assert mine.source == "data/my.photos"
    assert mine.options == {"seed": 3, "table": "List.CSV"}
    select_profile(file, overrides={"datasets.mine.source": "s3://bucket/raw/images.csv"})
    mine = load_params(file).dataset("mine")
    assert (mine.source, mine.options["table"]) == ("s3://bucket/raw", "images.csv")


def test_names_that_would_give_two_stages_one_name_are_refused(file: Path) -> None:
    """DVC would run one of them only."""
    values = read(file)
    entry, network = (
        values["datasets"]["textures"],
        load_profile("quick")["classifiers"]["resnet18"],
    )
    values["datasets"] = {"a": entry, "a-b": entry}
    file.write_text(
        format_params(values | {"classifiers": {"b-c": network}, "joint": {}} | NOTHING)
    )
    load_params(file)
    file.write_text(
        format_params(
            values | {"classifiers": {"b-c": network, "c": network}, "joint": {}} | NOTHING
        )
    )
    with pytest.raises(ParamsError, match=r"dataset a-b with classifier c, .*@a-b-c; rename"):
        load_params(file)


@pytest.mark.parametrize("name", ["a/b", "a.b", "1a", "a b", "", "ä", "a" * 65])
@pytest.mark.parametrize("kind", ["datasets", "classifiers"])
def test_a_name_that_dvc_cannot_take_is_refused(file: Path, kind: str, name: str) -> None:
    select_profile(file, "quick")
    values = read(file)
    values[kind] = {name: next(iter(values[kind].values()))}
    file.write_text(format_params(values))
    with pytest.raises(ParamsError, match=rf"{kind}: the name .* must start with a letter"):
        load_params(file)


def test_a_file_of_an_earlier_version_is_converted(file: Path) -> None:
    values = read(file) | {"profile": "only"}
    del values["profile"]
    document = "profiles:\n  only: &only\n" + textwrap.indent(yaml.safe_dump(values), "    ")
    file.write_text(document + "run:\n  <<: *only\n  profile: only\n  seeds: [4]\n")
    with pytest.raises(ParamsError, match=r"layout of an earlier version .*`dxai use` rewrites"):
        load_params(file)
    assert select_profile(file) == ["params.yaml: converted to the present layout"]
    assert read(file) == values | {"profile": "only", "seeds": [4]}


def test_what_a_user_added_to_an_earlier_file_is_kept_if_chosen_and_else_named(file: Path) -> None:
    own = {"layout": "folder", "source": "data/mine", "release": None}
    afhq = read_yaml(CATALOGUE)["datasets"]["afhq"]
    catalogue = {"datasets": {"mine": own, "other": own, "afhq": afhq | {"release": None}}}
    run = read(file)
    document = {"catalogue": catalogue, "profiles": {"nightly": run, "quick": run}, "run": run}
    file.write_text(yaml.safe_dump(document))
    changes = select_profile(file, datasets=["mine"])
    assert read(file)["datasets"]["mine"]["source"] == "data/mine"
    named = [line.partition(":")[0] for line in changes if "left out" in line]
    assert named == ["profiles.nightly", "catalogue.datasets.other"]


def test_a_file_that_is_missing_or_no_yaml(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="no such file"):
        select_profile(tmp_path / "params.yaml", "quick")
    (tmp_path / "params.yaml").write_text("seeds: [")
    with pytest.raises(ParamsError, match="not valid YAML"):
        select_profile(tmp_path / "params.yaml", "quick")


OVERRIDES = {
    "decompose.steps": st.integers(1, 10**7),
    "decompose.lambda_rec": st.floats(0, 1e6, allow_subnormal=False),
    "decompose.flip": st.booleans(),
    "evaluate.images": st.integers(0, 10**4),
    "datasets.textures.source": st.text(min_size=1),
}


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=10
)
@given(st.fixed_dictionaries({}, optional=OVERRIDES), st.sampled_from(profile_names()))
@example({"datasets.textures.source": "\xa0raw\xa0"}, "quick")
@example({"datasets.textures.source": "\x85"}, "quick")
@example({"datasets.textures.source": "a\u2028b"}, "quick")
def test_any_values_read_back(file: Path, values: dict, profile: str) -> None:
    dumped = {key: yaml.safe_dump(value) for key, value in values.items()}
    select_profile(file, profile, overrides=dumped)
    params = load_params(file)
    for key, value in values.items():
        group, *path = key.split(".")
        found = getattr(params, group)
        for name in path:
            found = found[name] if isinstance(found, dict) else getattr(found, name)
        assert found == value


def test_the_files_of_a_classifier_are_filled_in_and_those_of_the_user_kept(file: Path) -> None:
    (file.parent / "nets").mkdir()
    mine = {"arch": "nets.small:Net", "options": {"width": 4, "value_range": [0, 1]}}
    mine |= {"weights": "old.pt", "files": ["old.pt", "extra.json"]}
    values = read_yaml(file) | {"classifiers": {"mine": mine}, "joint": {}}
    values["repeat"] = {"classifiers": [], "seeds": []}
    values["ablations"] = {"datasets": [], "classifiers": [], "variants": {}}
    file.write_text(format_params(values))
    changes = select_profile(file, overrides={"classifiers.mine.weights": "new.pt"})
    found = load_params(file).classifiers["mine"]
    assert found.files == ["new.pt", "nets", "extra.json"]
    assert (found.options, found.value_range) == ({"width": 4}, [0, 1])
    assert "classifiers.mine.options.value_range: removed" in changes
    assert "classifiers.mine.value_range: added" in changes
    assert select_profile(file) == []
