"""The lab on the hand-written network, without a front end."""

import pandas
import pytest
import torch

import pd_helpers as pdh
from pd_helpers.analysis import gated_functions
from pd_helpers.runs.sweeps import end_state, restored
from pd_helpers.widgets import GatedLab

SHORT = {"steps": 20, "faithfulness_warmup_steps": 5, "batch_size": 100}


@pytest.fixture(scope="module")
def sweep():
    seeds = pdh.sweep("apd/gated", {"seed": [0, 1]}, keep=end_state, show_progress=False, n_jobs=1, **SHORT)
    grid = {"simplicity_coeff": [0.5], "seed": [0]}
    return pandas.concat([seeds, pdh.sweep("apd/gated", grid, keep=end_state, show_progress=False, n_jobs=1, **SHORT)])


def test_the_lab_shows_the_run_it_is_at(sweep):
    lab = GatedLab(sweep)
    assert (lab.simplicity_coeff.value, lab.seed.value) == (5.0, 0)
    for _, row in sweep.iloc[:2].iterrows():
        lab.seed.value = row["seed"]
        assert (lab.values.simplicity_coeff, lab.values.seed) == (5.0, row["seed"])
        assert lab.values.n_served == row["n_served"]
        alone = gated_functions.alone(restored("apd/gated", row))
        torch.testing.assert_close(lab.values.alone.errors, alone.errors)
        expected = [alone.errors[i, c].item() for i, c in enumerate(alone.served_by.tolist())]
        assert lab.values.errors.tolist() == pytest.approx(expected)
        assert f"Seed {row['seed']}, λ_S = 5" in lab.alt


def test_seeds_follow_the_coefficient(sweep):
    lab = GatedLab(sweep)
    lab.seed.value = 1
    lab.simplicity_coeff.value = 0.5
    assert (lab.seed.max, lab.seed.value) == (0, 0)
    assert (lab.values.simplicity_coeff, lab.values.seed) == (0.5, 0)
    lab.simplicity_coeff.value = 5.0
    assert (lab.seed.max, lab.seed.value) == (1, 0)
    assert (lab.values.simplicity_coeff, lab.values.seed) == (5.0, 0)


def test_seeds_must_be_without_a_gap(sweep):
    with pytest.raises(ValueError, match=r"sweep must have the seeds 0, 1, 2 … at every λ_S, but has \[1\] at 5"):
        GatedLab(sweep.iloc[1:2])


def test_a_restored_run_is_the_one_that_was_kept(sweep):
    run = pdh.run("apd/gated", seed=1, show_progress=False, **SHORT)
    again = restored("apd/gated", sweep.iloc[1])
    errors = gated_functions.alone(run).errors
    assert gated_functions.alone(again).errors.sub(errors).abs().max() < 1e-3
    assert restored("apd/gated", sweep.iloc[2]).config.simplicity_coeff == 0.5
    with pytest.raises(ValueError, match="sweep was made on another network"):
        restored("apd/gated", sweep.iloc[1].replace({1: 3}))


def test_a_table_without_end_states_is_refused(sweep):
    with pytest.raises(ValueError, match="but lacks kept; .* works"):
        GatedLab(sweep.drop(columns="kept"))
