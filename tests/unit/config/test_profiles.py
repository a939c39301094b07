"""`dxai use`: the run block says what was asked for, and the rest of the file stays."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dxai.config.profiles import select_profile
from dxai.config.schema import ParamsError, load_params, profile_names

PROJECT = Path(__file__).parents[3] / "params.yaml"
PLAIN = """\
# No anchor anywhere.
profiles:
  only: {}
# above

run: {}
# below the block
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The project's params file, on its first profile."""
    path = tmp_path / "params.yaml"
    shutil.copy(PROJECT, path)
    select_profile(path, profile_names(path)[0])
    return path


def above(path: Path) -> str:
    """The text before the run block."""
    return path.read_text().partition("\nrun:")[0]


def read(path: Path) -> dict:
    """The document as a YAML reader other than ours sees it."""
    from ruamel.yaml import YAML

    return YAML(typ="safe").load(path.read_text())


@pytest.mark.parametrize("profile", profile_names(PROJECT))
def test_every_profile_is_valid_and_run_as_it_stands(file: Path, profile: str) -> None:
    before = above(file)
    select_profile(file, profile)
    document = read(file)
    assert document["run"] == document["profiles"][profile]
    assert load_params(file).profile == profile
    assert above(file) == before


@pytest.mark.parametrize("profile", profile_names(PROJECT))
def test_values_can_be_overridden_in_every_profile(file: Path, profile: str) -> None:
    method = next(iter(read(file)["profiles"][profile]["methods"]))
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
    expected = read(file)["profiles"][profile]
    assert read(file)["run"]["prepare"] == expected["prepare"]
    assert read(file)["run"]["decompose"] == expected["decompose"] | {"steps": 300, "lr": 2e-5}


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
    assert "run.evaluate.images: " in "\n".join(changes)
    assert load_params(file).seeds == [3, 1]
    select_profile(file, profile)
    assert file.read_bytes() == text


def test_names_come_from_the_run_then_the_profile_then_the_catalogue(file: Path) -> None:
    select_profile(file, "quick", overrides={"classifiers.resnet18.options.width": "12"})
    select_profile(file, classifiers=["simple", "resnet18"])
    params = load_params(file)
    assert list(params.classifiers) == ["simple", "resnet18"]
    assert params.classifiers["resnet18"].options["width"] == 12
    assert params.classifiers["simple"].arch == "simple"


def test_methods_come_back_with_the_profiles_settings(file: Path) -> None:
    select_profile(file, "quick")
    lime = load_params(file).methods["lime"]
    select_profile(file, methods=["random"])
    assert list(load_params(file).methods) == ["random"]
    select_profile(file, methods=["lime", "random"])
    assert load_params(file).methods == {"lime": lime, "random": {}}


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
        ({"overrides": {"decompose.steps": "0"}}, ["steps", "above 0"]),
        ({"overrides": {"decompose.steps": "[1"}}, ["decompose.steps", "YAML"]),
        ({"overrides": {"decompose.steps.x": "1"}}, ["decompose.steps"]),
        ({"overrides": {"profile": "paper"}}, ["profile"]),
    ],
)
def test_what_does_not_fit_is_named_and_changes_nothing(
    file: Path, arguments: dict, named: list[str]
) -> None:
    select_profile(file, "quick")
    text = file.read_bytes()
    with pytest.raises(ParamsError) as error:
        select_profile(file, **arguments)
    assert all(word in str(error.value) for word in named)
    assert file.read_bytes() == text
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("source", ["s3://bucket/raw", "file:///a b/c", "~/raw: new, or {old}"])
def test_a_url_can_be_read_by_dvc(file: Path, source: str) -> None:
    select_profile(file, datasets=["shapes"], overrides={"datasets.shapes.source": f"{source!r}"})
    assert read(file)["run"]["datasets"]["shapes"]["source"] == source


def test_without_anchors_and_with_text_below(file: Path) -> None:
    values = read(file)["run"]
    document = yaml.safe_load(PLAIN)
    document["profiles"]["only"] = values | {"profile": "only"}
    text = yaml.safe_dump(document, sort_keys=False).replace("run: {}", "\n# above\nrun: {}\n# end")
    file.write_text(text)
    select_profile(file, "only", overrides={"decompose.steps": "8"})
    assert load_params(file).decompose.steps == 8
    assert file.read_text().endswith("# end\n") and "\n# above\nrun:\n" in file.read_text()


def test_a_file_that_is_missing_or_no_yaml(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="no such file"):
        select_profile(tmp_path / "params.yaml", "quick")
    (tmp_path / "params.yaml").write_text("run: [")
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
@given(st.fixed_dictionaries({}, optional=OVERRIDES), st.sampled_from(profile_names(PROJECT)))
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
