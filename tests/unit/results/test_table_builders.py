import math

import numpy as np
import pandas as pd
import pytest

from dxai.config.params_file import load_params
from dxai.config.schema import METHODS
from dxai.results import claims, methods, paper, table_builders
from dxai.results.table_specs import SPECS
from dxai.utils.files import write_json
from tests.fixtures import small_params
from tests.outcomes import (
    IMAGES,
    RIGHT,
    WRONG,
    beta_area,
    deletion_area,
    write_cross,
    write_outcomes,
    write_stability,
)
from tests.prepared import PROJECT, prepared_textures

PARAMS = small_params()


@pytest.fixture
def folders(tmp_path):
    return [
        write_outcomes(tmp_path, "random", [("random", "relu", 0.0)]),
        write_outcomes(tmp_path, "naive", [("naive", "part", 1.0)]),
        write_outcomes(tmp_path, "ig", [("ig", "signed", 0.2), ("ig", "relu", 0.4)]),
        write_outcomes(tmp_path, "lrp", [("lrp", "unsupported", "no <rule> for it")]),
        write_outcomes(tmp_path, "lime", [("lime", "failed", "broke")]),
        write_outcomes(tmp_path, "dxai-0", [("dxai", "part", 0.8), ("shuffled", "part", 0.9)]),
        write_outcomes(
            tmp_path, "dxai-1", [("dxai", "part", 0.6), ("shuffled", "part", 0.9)], seed=1
        ),
    ]


def test_table1_has_a_row_a_cell_in_the_order_of_the_paper(folders):
    table = table_builders.table1(folders, PARAMS)
    assert list(table.columns) == SPECS["table1"].names
    assert list(table["method"]) == [
        "dxai", "dxai", "lrp", "ig", "ig", "lime", "random", "naive", "shuffled", "shuffled",
    ]  # fmt: skip
    by_method = table.set_index("method")
    assert by_method.loc["lrp", "status"] == "unsupported"
    assert by_method.loc["lime", "reason"] == "broke"
    assert by_method.loc["ig", "steps"].isna().all()
    assert (by_method.loc["dxai", "steps"] == 7).all()


def test_the_best_baseline_is_the_lowest_of_either_sign_but_no_control_and_not_naive(folders):
    table = table_builders.table1(folders, PARAMS)
    best = methods.best_baseline(table.to_dict("records"))
    assert (best["method"], best["sign"]) == ("ig", "relu")


def test_delta_is_the_paired_difference_to_it(folders):
    table = table_builders.table1(folders, PARAMS)
    ours = table[table["method"] == "dxai"]
    # 0.55 (the area behind beta = 0.45) times what is lost more than the best baseline loses.
    for (_, row), expected in zip(ours.iterrows(), (-0.22, -0.11), strict=True):
        assert row["delta_low"] <= expected <= row["delta_high"] < 0
    assert table[table["method"] != "dxai"]["delta_low"].isna().all()


def test_metrics_name_each_number_once(folders):
    table = table_builders.table1(folders, PARAMS)
    sixth = pd.DataFrame([{"dataset": "textures", "classifier": "resnet18", "test_accuracy": 0.9}])
    frames = {"table1": table, "table6": sixth}
    frames["claims"] = claims.all_claims(folders, [], [], PARAMS)
    found = table_builders.headlines(frames)
    cell = found["table1"]["textures"]["resnet18"]
    assert cell["dxai-0"] == pytest.approx(0.56)
    assert cell["dxai-1"] == pytest.approx(0.67)
    assert cell["ig-signed"] == pytest.approx(0.89)
    assert "lrp" not in cell
    assert {"shuffled-0", "shuffled-1"} <= set(cell)
    assert found["table6"] == {"textures": {"resnet18": 0.9}}
    claim = found["claims"]["table1"]["textures/resnet18"]["ours is below the best baseline (ig)"]
    assert claim["delta"] == pytest.approx(-0.165)
    assert claim["delta_low"] < claim["delta"] < claim["delta_high"]


def test_table6_stands_beside_the_papers_accuracies(tmp_path):
    folders = [tmp_path / case for case in ("tomatoes/simple/explained", "mine/joint/twin")]
    for folder in folders:
        metrics = {"test_accuracy": 0.99, "test_images": 1707, "seed": 0}
        write_json(folder / "metrics.json", metrics)
    table = table_builders.table6(folders, PARAMS)
    assert table["classifier"].tolist() == ["simple", "discriminator"]
    assert list(table.columns) == SPECS["table6"].names
    assert table["paper"].tolist()[0] == 0.985
    assert np.isnan(table["paper"].tolist()[1])


def test_curves_are_one_row_a_level(tmp_path):
    drawn = {"level": [0.0, 1.0], "accuracy": [1.0, 0.5], "low": [1.0, 0.4], "high": [1.0, 0.6]}
    folder = write_outcomes(tmp_path, "ig", [("ig", "unsupported", "no")])
    assert table_builders.curve_points([folder]).empty
    row = {"method": "ig", "sign": "relu", "curves": {"beta": drawn, "blur": drawn}}
    summary = {"dataset": "d", "classifier": "c", "seed": 0, "rows": [row]}
    write_json(folder / "summary.json", summary)
    found = table_builders.curve_points([folder])
    assert list(found["curve"]) == ["beta", "beta", "blur", "blur"]
    assert list(found["accuracy"]) == [1, 0.5, 1, 0.5]


def test_wilsons_interval_is_the_published_one():
    # Newcombe 1998, Table I: 81 of 263, 15 of 148 and 0 of 20 by method 3.
    assert table_builders.wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert table_builders.wilson(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert table_builders.wilson(0, 20) == pytest.approx((0, 0.1611), abs=1e-4)


def test_every_method_has_a_rank_and_a_label():
    assert set(methods.ORDER) == {"dxai", *METHODS, *methods.CONTROLS}
    assert set(methods.LABELS) == {*methods.ORDER, methods.NEUTRAL}
    for row in paper.TABLE1.values():
        assert set(row) <= set(methods.ORDER)


def test_table2_is_beside_the_papers_and_only_where_it_was_measured(tmp_path):
    folders = [
        write_outcomes(tmp_path, "ig", [("ig", "relu", 0.4)], dataset="brats", deletion=[0.2]),
        write_outcomes(tmp_path, "lrp", [("lrp", "failed", "broke")], dataset="brats"),
        write_outcomes(tmp_path, "random", [("random", "relu", 0.1)], dataset="brats"),
        write_outcomes(
            tmp_path, "dxai-0", [("dxai", "part", 0.8)], dataset="brats", deletion=[0.6]
        ),
        write_outcomes(tmp_path, "ig", [("ig", "relu", 0.4)], deletion=[0.4]),
    ]
    table = table_builders.table2(folders, PARAMS)
    assert list(table.columns) == SPECS["table2"].names
    keyed = table.set_index(["dataset", "method"])
    assert list(keyed.index) == [("brats", "dxai"), ("brats", "ig"), ("textures", "ig")]
    assert keyed["auc_deletion"].tolist() == pytest.approx(
        [deletion_area(0.6), deletion_area(0.2), deletion_area(0.4)]
    )
    assert keyed["paper"].tolist() == pytest.approx([0.125, 0.171, math.nan], nan_ok=True)
    assert table_builders.table2([], PARAMS).empty


def test_table3_is_the_mean_over_seeds(tmp_path):
    folders = [
        write_cross(tmp_path, "resnet18", "resnet18", 0.8, dataset="dota"),
        write_cross(tmp_path, "resnet18", "resnet18", 0.4, dataset="dota", seed=1),
        write_cross(tmp_path, "resnet18", "simple", 0.2, dataset="dota"),
    ]
    table = table_builders.table3(folders, PARAMS)
    assert list(table.columns) == SPECS["table3"].names
    keyed = table.set_index(["trained", "scorer"])
    own, other = keyed.loc[("resnet18", "resnet18")], keyed.loc[("resnet18", "simple")]
    assert (own["seeds"], other["seeds"]) == (2, 1)
    assert own["auc"] == pytest.approx(beta_area(0.6))
    assert other["auc"] == pytest.approx(beta_area(0.2))
    assert own["auc_low"] < own["auc"] < own["auc_high"]
    assert (own["paper"], other["paper"]) == (0.793, 0.903)
    assert (own["images"], own["steps"], own["profile"]) == (IMAGES, 7, "quick")


def test_table4_as_training_goes_on_beside_layers(tmp_path):
    ours = {1: (0.3, 0.5), 7: (0.2, 0.4), 70: (0.1, 0.2), 210: (0.05, 0.1)}
    folder = write_stability(tmp_path, ours, {"gradcam": (0.01, 0.3)}, dataset="afhq", constant=6)
    table = table_builders.table4([folder], PARAMS)
    assert list(table.columns) == SPECS["table4"].names
    assert table["step"].tolist() == [1, 7, 70, 210, pd.NA]
    assert table["seeds"].tolist() == [3, 3, 3, 3, pd.NA]
    np.testing.assert_allclose(table["std"], [0.3, 0.2, 0.1, 0.05, 0.01])
    np.testing.assert_allclose(table["normalised"], [0.5, 0.4, 0.2, 0.1, 0.3])
    assert table["constant"].tolist() == [6, 6, 6, 6, 0]
    assert (table["std_low"] < table["std"]).all() and (table["std"] < table["std_high"]).all()
    assert table["paper"].tolist()[:4] == list(paper.TABLE4["afhq"])
    assert np.isnan(table["paper"].tolist()[4])
    # What is relative to the range was printed after all steps, and for the layers.
    assert table["paper_normalised"].isna().tolist() == [True, True, True, False, False]
    assert table["paper_normalised"].tolist()[3:] == [0.05, 0.126]


def test_table4_where_every_map_is_constant(tmp_path):
    folder = write_stability(tmp_path, {1: (0.0, 0.5)}, {}, constant=IMAGES)
    (row,) = table_builders.table4([folder], PARAMS).to_dict("records")
    assert (row["constant"], row["std"]) == (IMAGES, 0)
    assert np.isnan([row["normalised"], row["normalised_low"], row["normalised_high"]]).all()
    assert pd.isna(row["paper"])  # one step is not the paper's four


def test_table5_counts_what_was_prepared(tmp_path):
    params = load_params(PROJECT / "params.yaml")
    textures = params.datasets["textures"].replace(source="somewhere")
    params = params.replace(datasets={"textures": textures})
    folder = prepared_textures(tmp_path)
    (row,) = table_builders.table5([folder], params).to_dict("records")
    assert set(row) == set(SPECS["table5"].names)
    counted = [len(pd.read_parquet(folder / f"{s}-index.parquet")) for s in ("train", "test")]
    assert [row["train"], row["test"]] == counted
    groups = pd.read_parquet(folder / "test-index.parquet")["group"]
    assert 0 < row["groups_test"] == len(set(groups)) <= row["test"]
    assert (row["classes"], row["source"]) == (3, "somewhere")
    assert pd.isna(row["paper_train"])


def test_an_ablation_is_compared_with_what_was_left_as_it_is(tmp_path):
    base = write_outcomes(tmp_path, "dxai-0", [("dxai", "part", 0.8), ("shuffled", "part", 0.1)])
    worse = write_outcomes(tmp_path, "dxai-two_branches", [("dxai", "part", 0.3)], psnr_db=21.0)
    table = table_builders.ablations([base, worse], PARAMS)
    assert list(table.columns) == SPECS["ablations"].names
    assert table["variant"].tolist() == ["as it is", "two_branches"]
    assert table["auc"].tolist() == pytest.approx([beta_area(0.8), beta_area(0.3)])
    first, second = table.to_dict("records")
    assert np.isnan([first["delta"], first["delta_low"], first["delta_high"]]).all()
    assert second["delta"] == pytest.approx(beta_area(0.3) - beta_area(0.8))
    assert 0 < second["delta_low"] < second["delta"] < second["delta_high"]
    assert (second["psnr_db"], second["steps"]) == (21, 7)


def test_localisation_is_where_something_is_known(tmp_path):
    known = {"known": 12, "pointing": 0.75, "mask_area": 0.1, "correlation": None}
    folders = [
        write_outcomes(tmp_path, "ig", [("ig", "signed", 0.4), ("ig", "relu", 0.2)], **known),
        write_outcomes(tmp_path, "random", [("random", "relu", 0.4)], known=0),
        write_outcomes(tmp_path, "lrp", [("lrp", "failed", "broke")]),
    ]
    table = table_builders.localisation(folders, PARAMS)
    assert list(table.columns) == SPECS["localisation"].names
    assert list(zip(table["method"], table["sign"], strict=True)) == [
        ("ig", "signed"),
        ("ig", "relu"),
    ]
    assert (table["known"] == 12).all() and (table["pointing"] == 0.75).all()
    assert table_builders.localisation(folders[1:], PARAMS).empty


def test_a_probe_that_always_answers_the_same_is_at_chance(tmp_path):
    """Whatever the sizes of the classes: 9 test images of one, and 3 of another."""
    labels = np.repeat([0, 1], [9, 3])
    answers = {"image": labels, "dxai": np.zeros(12, int), "naive": labels.copy()}
    answers["naive"][[0, 9]] = [1, 0]
    frames = [
        pd.DataFrame({"method": name, "sign": "", "label": labels, "prediction": found})
        for name, found in answers.items()
    ]
    whole = pd.concat(frames).assign(group=[f"g{i // 3}" for i in range(12)] * 3)
    whole.to_parquet(tmp_path / "images.parquet")
    about = {"dataset": "textures", "classifier": "resnet18", "seed": 0, "profile": "quick"}
    write_json(tmp_path / "leakage.json", about | {"train_images": 30, "images": 12})
    table = table_builders.leakage([tmp_path], PARAMS)
    assert list(table.columns) == SPECS["leakage"].names
    assert table["method"].tolist() == ["dxai", "naive", "image"]
    chance, naive, image = table.to_dict("records")
    for row, accuracy in ((chance, 0.5), (image, 1.0)):
        values = [row[f"accuracy{end}"] for end in ("", "_low", "_high")]
        assert values == [accuracy] * 3
    assert naive["accuracy"] == pytest.approx((8 / 9 + 2 / 3) / 2)
    assert naive["accuracy_low"] < naive["accuracy"] < naive["accuracy_high"]
    assert (naive["chance"], naive["groups"], naive["train_images"]) == (0.5, 4, 30)


def test_likeness_is_judged_where_every_layer_is_drawn_anew(tmp_path):
    """Ours is judged against a short training for the classifier itself, baselines by a limit."""
    shape = {"dxai": {0: 0.4, 9: 0.3}, "ig": {4: 0.9, 9: 0.2}, "lrp": {9: 0.5}, "random": {9: 1.0}}
    noise = np.linspace(-0.05, 0.05, 12)
    frames = [
        pd.DataFrame({"method": name, "layers": layers, "rank": rank + noise, "ssim": 0.1})
        for name, depths in shape.items()
        for layers, rank in depths.items()
    ]
    whole = pd.concat(frames).assign(group=[f"g{i // 3}" for i in range(12)] * 6, size=2.0)
    whole.to_parquet(tmp_path / "images.parquet")
    about = {"dataset": "textures", "classifier": "resnet18", "seed": 0, "profile": "quick"}
    about |= {"steps": 30, "of_layers": 9, "images": 12}
    write_json(tmp_path / "randomisation.json", about)
    table = table_builders.randomisation([tmp_path], PARAMS)
    assert list(table.columns) == SPECS["randomisation"].names
    found = list(zip(table["method"], table["layers"], table["changes"], strict=True))
    assert found == [
        ("dxai", 9, "holds"),
        ("lrp", 9, "undecided"),
        ("ig", 4, ""),
        ("ig", 9, "holds"),
        ("random", 9, "reversed"),
    ]
    ours = table.iloc[0]
    assert (ours["rank"], ours["retrained"]) == pytest.approx((0.3, 0.4))
    assert (ours["delta_low"], ours["delta_high"]) == pytest.approx((-0.1, -0.1))
    assert (ours["steps"], ours["groups"], ours["size"]) == (30, 4, 2)
    assert table["steps"].isna().tolist() == [False, True, True, True, True]


def test_a_map_that_ranks_no_pixel_does_not_count(tmp_path):
    frame = pd.DataFrame({"method": "gradcam", "layers": 9, "rank": [np.nan] * 4, "ssim": 0.1})
    about = {"dataset": "textures", "classifier": "resnet18", "seed": 0, "profile": "quick"}
    write_json(tmp_path / "randomisation.json", about | {"steps": 0, "of_layers": 9, "images": 4})
    for ranked, images in ((0, 0), (2, 2)):
        frame["rank"] = [0.1] * ranked + [np.nan] * (4 - ranked)
        frame.assign(group=list("abcd"), size=1.0).to_parquet(tmp_path / "images.parquet")
        (row,) = table_builders.randomisation([tmp_path], PARAMS).to_dict("records")
        assert row["images"] == images
        assert row["rank"] == pytest.approx(0.1 if ranked else np.nan, nan_ok=True)
        assert row["changes"] == ("holds" if ranked else "unknown")


def test_each_class_has_an_area_of_its_own(tmp_path):
    folders = [
        write_outcomes(tmp_path, "ig", [("ig", "signed", (0.2, 0.6)), ("ig", "relu", 0.9)]),
        write_outcomes(tmp_path, "lrp", [("lrp", "failed", "broke")]),
        write_outcomes(tmp_path, "dxai-0", [("dxai", "part", (1.0, 0.0))]),
    ]
    table = table_builders.per_class(folders, PARAMS)
    assert list(table.columns) == SPECS["per_class"].names
    assert list(zip(table["method"], table["sign"], table["class"], strict=True)) == [
        ("dxai", "part", "a"), ("dxai", "part", "b"), ("ig", "signed", "a"), ("ig", "signed", "b"),
    ]  # fmt: skip
    assert table["auc"].tolist() == pytest.approx([beta_area(x) for x in (1, 0, 0.2, 0.6)])
    assert (table["images"] == IMAGES // 2).all() and (table["accuracy"] == 1).all()
    assert (table["auc_low"] <= table["auc"]).all() and (table["auc"] <= table["auc_high"]).all()


def test_a_class_that_is_never_right_has_no_area(tmp_path):
    folder = write_outcomes(tmp_path, "ig", [("ig", "relu", 0.4)])
    outcomes = pd.read_parquet(folder / "outcomes.parquet")
    outcomes.loc[outcomes["label"] == 1, "prediction"] = 0
    outcomes.to_parquet(folder / "outcomes.parquet")
    first, second = table_builders.per_class([folder], PARAMS).to_dict("records")
    assert first["auc"] == pytest.approx(beta_area(0.4))
    assert second["accuracy"] == 0 and np.isnan(second["auc"])


def test_the_worst_explained_image_comes_first(tmp_path):
    ours = [("dxai", "part", lambda i: i != 40), ("shuffled", "part", 0.0)]
    other = [("dxai", "part", lambda i: i not in (40, 7))]
    folders = [
        write_outcomes(tmp_path, "dxai-0", ours, uncertainty=0.2),
        write_outcomes(tmp_path, "dxai-1", other, seed=1, uncertainty=0.4),
        write_outcomes(tmp_path, "ig", [("ig", "signed", 0.0), ("ig", "relu", 0.4)]),
        write_outcomes(tmp_path, "ig", [("ig", "relu", 0.4)], dataset="afhq"),
    ]
    table = table_builders.per_image(folders, PARAMS)
    assert list(table.columns) == SPECS["per_image"].names
    assert len(table) == IMAGES and set(table["dataset"]) == {"textures"}
    assert table["index"].tolist()[:2] == [40, 7]
    kept, lost = RIGHT, RIGHT - 0.55 * (RIGHT - WRONG)  # areas under an image's own probability
    assert table["ours"].tolist()[:3] == pytest.approx([kept, (kept + lost) / 2, lost])
    assert table["after"].tolist()[:3] == pytest.approx([RIGHT, (RIGHT + WRONG) / 2, WRONG])
    assert table["before"].tolist() == pytest.approx([RIGHT] * IMAGES)
    assert table["class"].tolist()[:2] == ["b", "a"]
    assert table["uncertainty"].tolist() == pytest.approx([0.3] * IMAGES)
    assert set(table["best_baseline"]) == {"ig"} and (table["seeds"] == 2).all()
    keyed = table.set_index("index")
    assert keyed.loc[3, "baseline"] == pytest.approx(lost)  # image 3 of 10 is among the 4 lost
    assert keyed.loc[4, "baseline"] == pytest.approx(kept)
    assert table_builders.per_image(folders[2:], PARAMS).empty


def test_per_image_without_baselines_or_uncertainty(tmp_path):
    folder = write_outcomes(tmp_path, "dxai-0", [("dxai", "part", 0.5)])
    table = table_builders.per_image([folder], PARAMS)
    assert list(table.columns) == SPECS["per_image"].names
    assert table[["baseline", "best_baseline", "uncertainty"]].isna().all(axis=None)
