import numpy as np
import pandas as pd
import pytest

from dxai.evaluate import names, paper, tables
from dxai.files import write_json
from dxai.params import METHODS, EvaluateParams

PARAMS = EvaluateParams(bootstrap=200)
LEVELS = np.linspace(0, 1, 11).round(6)
IMAGES = 60


def outcomes(method, sign, lost):
    """All right at beta 0; the share `lost` of the images is wrong from 0.5 on."""
    rows = [
        {
            "id": f"i{i}", "group": f"g{i // 3}", "label": 0, "index": i, "method": method,
            "sign": sign, "curve": "beta", "level": level,
            "prediction": int(level >= 0.5 and i % 10 < 10 * lost),
        }
        for i in range(IMAGES)
        for level in LEVELS
    ]  # fmt: skip
    return pd.DataFrame(rows)


def write(root, name, rows, seed=0):
    """A folder of results/outcomes; rows are (method, sign, lost) or (method, status, reason)."""
    folder = root / "textures" / "resnet18" / name
    folder.mkdir(parents=True)
    ok = [row for row in rows if isinstance(row[2], float)]
    if ok:
        pd.concat([outcomes(*row) for row in ok]).to_parquet(folder / "outcomes.parquet")
    summary = {
        "dataset": "textures", "classifier": "resnet18", "seed": seed, "profile": "quick",
        "steps": 7, "images": IMAGES, "class_names": ["a", "b"], "seconds": 1.0,
        "rows": [
            {"method": m, "sign": s, "status": "ok", "reason": "", "auc": 1 - 0.55 * x}
            if isinstance(x, float)
            else {"method": m, "sign": "", "status": s, "reason": x}
            for m, s, x in rows
        ],
    }  # fmt: skip
    write_json(folder / "summary.json", summary)
    return folder


@pytest.fixture
def folders(tmp_path):
    return [
        write(tmp_path, "random", [("random", "relu", 0.0)]),
        write(tmp_path, "naive", [("naive", "part", 1.0)]),
        write(tmp_path, "ig", [("ig", "signed", 0.2), ("ig", "relu", 0.4)]),
        write(tmp_path, "lrp", [("lrp", "unsupported", "no <rule> for it")]),
        write(tmp_path, "lime", [("lime", "failed", "broke")]),
        write(tmp_path, "dxai-0", [("dxai", "part", 0.8), ("shuffled", "part", 0.9)]),
        write(tmp_path, "dxai-1", [("dxai", "part", 0.6), ("shuffled", "part", 0.9)], seed=1),
    ]


def test_table1_has_a_row_a_cell_in_the_order_of_the_paper(folders):
    table = tables.table1(folders, PARAMS)
    assert tuple(table.columns) == tables.TABLE1_COLUMNS
    assert list(table["method"]) == [
        "dxai", "dxai", "lrp", "ig", "ig", "lime", "random", "naive", "shuffled", "shuffled",
    ]  # fmt: skip
    by_method = table.set_index("method")
    assert by_method.loc["lrp", "status"] == "unsupported"
    assert by_method.loc["lime", "reason"] == "broke"
    assert by_method.loc["ig", "steps"].isna().all()
    assert (by_method.loc["dxai", "steps"] == 7).all()


def test_the_best_baseline_is_the_lowest_of_either_sign_but_no_control_and_not_naive(folders):
    table = tables.table1(folders, PARAMS)
    best = tables.best_baseline(table)
    assert (best["method"], best["sign"]) == ("ig", "relu")


def test_delta_is_the_paired_difference_to_it(folders):
    table = tables.table1(folders, PARAMS)
    ours = table[table["method"] == "dxai"]
    # 0.55 (the area behind beta = 0.45) times what is lost more than the best baseline loses.
    for (_, row), expected in zip(ours.iterrows(), (-0.22, -0.11), strict=True):
        assert row["delta_low"] <= expected <= row["delta_high"] < 0
    assert table[table["method"] != "dxai"]["delta_low"].isna().all()


def test_the_claim_is_on_the_mean_of_the_seeds(folders):
    table = tables.table1(folders, PARAMS)
    (claim,) = tables.claims(table, folders, PARAMS)
    assert claim["delta"] == pytest.approx(-0.165)
    assert claim["seeds"] == [0, 1]
    assert claim["better"]
    nothing = tables.claims(table[table["method"] != "dxai"], folders, PARAMS)
    assert nothing == []


def test_metrics_name_each_number_once(folders):
    table = tables.table1(folders, PARAMS)
    sixth = pd.DataFrame([{"dataset": "textures", "classifier": "resnet18", "test_accuracy": 0.9}])
    found = tables.metrics(table, sixth, tables.claims(table, folders, PARAMS))
    cell = found["table1"]["textures"]["resnet18"]
    assert cell["dxai-0"] == pytest.approx(0.56)
    assert cell["dxai-1"] == pytest.approx(0.67)
    assert cell["ig-signed"] == pytest.approx(0.89)
    assert "lrp" not in cell
    assert {"shuffled-0", "shuffled-1"} <= set(cell)
    assert found["table6"] == {"textures": {"resnet18": 0.9}}


def test_table6_stands_beside_the_papers_accuracies(tmp_path):
    write_json(tmp_path / "metrics.json", {"test_accuracy": 0.99, "test_images": 1707, "seed": 0})
    table = tables.table6([tmp_path, tmp_path], [("tomatoes", "simple"), ("mine", "simple")], "q")
    assert tuple(table.columns) == tables.TABLE6_COLUMNS
    assert table["paper"].tolist()[0] == 0.985
    assert np.isnan(table["paper"].tolist()[1])


def test_curves_are_one_row_a_level(tmp_path):
    drawn = {"level": [0.0, 1.0], "accuracy": [1.0, 0.5], "low": [1.0, 0.4], "high": [1.0, 0.6]}
    folder = write(tmp_path, "ig", [("ig", "unsupported", "no")])
    assert tables.curves([folder]).empty
    row = {"method": "ig", "sign": "relu", "curves": {"beta": drawn, "blur": drawn}}
    summary = {"dataset": "d", "classifier": "c", "seed": 0, "rows": [row]}
    write_json(folder / "summary.json", summary)
    found = tables.curves([folder])
    assert list(found["curve"]) == ["beta", "beta", "blur", "blur"]
    assert list(found["accuracy"]) == [1, 0.5, 1, 0.5]


def test_wilsons_interval_is_the_published_one():
    # Newcombe 1998, Table I: 81 of 263, 15 of 148 and 0 of 20 by method 3.
    assert tables.wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert tables.wilson(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert tables.wilson(0, 20) == pytest.approx((0, 0.1611), abs=1e-4)


def test_every_method_has_its_place():
    assert set(names.ORDER) == set(names.STYLES) == {"dxai", *METHODS, *names.CONTROLS}
    for row in paper.TABLE1.values():
        assert set(row) <= set(names.ORDER)
