from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from captum.attr import IntegratedGradients
from torch import Tensor

import dxai
from dxai import Method
from dxai.library.evaluation import evaluate
from tests.conftest import Mount
from tests.small_explainer import documented, draw

Fitted = tuple[dxai.DXAI, Path]


def test_tables_of_images_that_were_not_fitted_on(
    fitted: Fitted, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (out := tmp_path / "evaluation").mkdir()  # empty
    tables = evaluate(fitted[1], photos, ["ig", "gradcam"], out=out)
    said = capsys.readouterr().out
    assert "images: 24 of 28 are left out, as the explainer was fitted on them" in said
    assert "Valid: Random has" in said and "Images undecided" in said
    rows = tables["table1"].set_index(["method", "sign"])
    assert (rows["images"] == 4).all()
    # The mean colours decide: shuffled pixels have the same means, so the same answers.
    assert rows.loc[("shuffled", "part"), "auc"] == rows.loc[("dxai", "part"), "auc"]
    assert rows.loc[("random", "signed"), "auc"] == pytest.approx(1.0, abs=0.05)
    # A network that is stored as a program has no layers.
    assert rows.loc[("gradcam", ""), "status"] == "unsupported"
    assert rows["auc_transfer"].isna().all()
    found = tables["definition1"].set_index(["method", "sign"])
    assert found.loc[("neutral", "part"), "share"] > 0.7
    page = (out / "index.html").read_text()
    assert '<input type="range"' in page and "Integrated Gradients" in page
    evaluate(fitted[1], photos, [], out=out, count=2)  # replaces it
    assert not (out / "ig").exists()


def test_functions_of_others_are_scored_like_the_built_in_methods(
    fitted: Fitted, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    explainer = fitted[0]
    captums = IntegratedGradients(explainer.classifier).attribute
    own = Method("by_hand", captums, n_steps=50, method="gausslegendre")
    ours = Method("again", explainer.attribute, kind="distinct")
    tables = evaluate(explainer, photos, ["ig", own, ours], out=tmp_path / "out")
    said = capsys.readouterr().out
    assert "24 of 28 are left out" in said and "by_hand" in said
    for table in tables.values():
        rows = table.set_index(["method", "sign"]).select_dtypes("number")
        pairs = [("by_hand", s, "ig", s) for s in ("signed", "relu")]
        for name, sign, like, other in [*pairs, ("again", "part", "dxai", "part")]:
            scores = [c for c in rows if c.startswith(("auc", "energy", "entropy", "share"))]
            assert scores
            mine, known = rows.loc[(name, sign), scores], rows.loc[(like, other), scores]
            np.testing.assert_allclose(mine, known, rtol=1e-4, atol=1e-6)
    assert (tmp_path / "out/by_hand/outcomes.parquet").is_file()


def test_the_documented_code_runs(
    fitted: Fitted, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(photos)
    exec(documented("Other methods and other metrics")[0], {"dxai": dxai, "explainer": fitted[0]})
    assert "occlusion,relu" in (tmp_path / "evaluation/table1.csv").read_text()


def test_a_function_that_does_not_fit_is_one_line_and_nothing_is_scored(
    fitted: Fitted, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def flat(inputs: Tensor, target: Tensor) -> Tensor:
        return inputs.mean((2, 3))

    for method, expected in (
        (
            Method("flat", flat),
            r"flat: found \(1, 3\); expected a tensor \(1, 1, 16, 16\) or \(1, 3",
        ),
        (Method("ig", flat), "methods: 'ig' is another method"),
        (Method("a b", flat), "methods: the name 'a b' must start with a letter"),
        (flat, r"methods: found function; a function is given as dxai\.Method\(name, function\)"),
    ):
        with pytest.raises(ValueError, match=expected):
            evaluate(fitted[0], photos, [method], out=tmp_path / "out")
    assert "score" not in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_test_images_alone_are_used(
    fitted: Fitted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(tmp_path / "set/train", 14)
    draw(tmp_path / "set/test", 2)
    for path in (tmp_path / "set/test").rglob("*.png"):  # the same as some that were fitted on
        path.write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="was fitted on every image of it; give others"):
        evaluate(fitted[1], tmp_path / "set", out=tmp_path / "out")
    assert "read [####################] 4/4 images" in capsys.readouterr().out


def test_wrong_input_is_one_line(
    fitted: Fitted, photos: Path, tmp_path: Path, mount: Mount
) -> None:
    out = tmp_path / "out"
    other = draw(tmp_path / "other", 2)
    (other / "red").rename(other / "green")
    cases = [
        (photos, ["gradcm"], "methods: unknown 'gradcm'; valid are"),
        (other, [], "class 'green' is not among those of"),
        (tmp_path / "none", [], "no such file or folder"),
    ]
    for images, methods, expected in cases:
        with pytest.raises((ValueError, OSError)) as caught:
            evaluate(fitted[1], images, methods, out=out)
        assert expected in str(caught.value) and "\n" not in str(caught.value)
    assert not out.exists()
    shutil.copytree(photos, out)
    with pytest.raises(ValueError, match="found something that is no evaluation"):
        evaluate(fitted[1], photos, out=out)
    assert (out / "red").is_dir()
    if (mounted := mount("1m")) is not None:  # where tests may mount
        with pytest.raises(ValueError, match="a mounted folder cannot be replaced; name one in it"):
            evaluate(fitted[1], photos, out=mounted)
