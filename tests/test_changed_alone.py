"""Notebook 07's settings, each changed alone: the rows, and that the shipped ones are those of the preset's network."""

import pandas as pd
import pytest

import pd_helpers as pdh
from pd_helpers.analysis import metrics
from pd_helpers.course.apd_superposition.ideas import alone

QUICK = {"device": "cpu", "show_progress": False}


def test_a_row_is_the_run_with_this_change_and_no_other(quick_evaluation):
    target = pdh.make_target(pdh.TMSConfig(target_steps=50), seed=0, show_progress=False)
    changes = {"steps": [3, 8], "schedule": ["constant"]}
    table = alone(changes, target=target, seeds=[1], steps=5, n_jobs=1, show_progress=False)
    tried = [("steps", 3, 1), ("steps", 8, 1), ("schedule", "constant", 1)]
    assert list(zip(table["setting"], table["value"], table["seed"], strict=True)) == tried
    assert table["error"].isna().all()
    for row in table.itertuples():
        settings = {"n_init": 1, "steps": 5, row.setting: row.value}
        run = pdh.run("apd/tms_5-2", seed=row.seed, target=target, **settings, **QUICK)
        assert (row.mmcs, row.ml2r) == (run.metrics["mmcs"], run.metrics["ml2r"])
        assert row.own == metrics.own_columns(*run.first_layer)


def test_the_shipped_rows_have_every_change_for_both_seeds():
    table = pdh.shipped_sweep("apd/tms_5-2", "alone")
    assert table["error"].isna().all()
    assert table.groupby(["setting", "value"]).size().eq(2).all()
    assert set(table["setting"]) - {"n_init"} <= set(pdh.preset("apd/tms_5-2").config.to_dict())
    unchanged = table[table["setting"] == "n_init"]
    assert unchanged["own"].tolist() == [5, 5]
    worse = table[table["setting"].isin(["minimality_coeff", "simplicity_coeff", "top_k"])]
    assert (worse["own"] < 5).all()


@pytest.mark.parametrize(("name", "variant"), [("apd/tms_5-2", "lengths"), ("apd/tms_5-2", "rates")])
def test_the_shipped_tables_of_notebook_07_agree_where_their_settings_do(name, variant):
    table = pdh.shipped_sweep(name, variant)
    if variant == "lengths":
        same = table[table["simplicity_coeff"] == pdh.preset(name).config.simplicity_coeff]
    else:
        same = table[(table["n_init"] == 3) & (table["seed"] == 0)]
    known = pdh.shipped(name).metrics
    pd.testing.assert_series_equal(
        same[["mmcs", "ml2r"]].iloc[0], pd.Series(known)[["mmcs", "ml2r"]].astype(float), check_names=False, rtol=0.01
    )
