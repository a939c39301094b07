from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import dxai
from dxai.library.evaluation import evaluate
from tests.small_explainer import draw

Fitted = tuple[dxai.DXAI, Path]


def test_tables_of_images_that_were_not_fitted_on(
    fitted: Fitted, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "evaluation"
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


def test_wrong_input_is_one_line(fitted: Fitted, photos: Path, tmp_path: Path) -> None:
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
