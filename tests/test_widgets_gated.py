"""The lab on the hand-written network, without a front end."""

import pandas
import pytest

import pd_helpers as pdh
from pd_helpers import experiments
from pd_helpers.shipping import end_state
from pd_helpers.sweeps import restored
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
    for row in sweep.iloc[:2].to_dict("records"):
        lab.seed.value = row["seed"]
        assert f'pdh-served">{row["n_served"]}<' in lab._numbers.value
        assert f"Seed {row['seed']}, λ_S = 5" in lab.alt


def test_seeds_follow_the_coefficient(sweep):
    lab = GatedLab(sweep)
    lab.seed.value = 1
    lab.simplicity_coeff.value = 0.5
    assert (lab.seed.max, lab.seed.value) == (0, 0)
    assert "Seed 0, λ_S = 0.5" in lab.alt
    lab.simplicity_coeff.value = 5.0
    assert (lab.seed.max, lab.seed.value) == (1, 0)
    assert "Seed 0, λ_S = 5" in lab.alt


def test_seeds_must_be_without_a_gap(sweep):
    with pytest.raises(ValueError, match=r"sweep must have seeds 0, 1, 2 … at every λ_S, but has \[1\] at 5"):
        GatedLab(sweep.iloc[1:2])


def test_a_restored_run_is_the_one_that_was_kept(sweep):
    run = pdh.run("apd/gated", seed=1, show_progress=False, **SHORT)
    again = restored("apd/gated", sweep.iloc[1])
    errors = experiments.alone(run).errors
    assert experiments.alone(again).errors.sub(errors).abs().max() < 1e-3
    assert restored("apd/gated", sweep.iloc[2]).config.simplicity_coeff == 0.5
    with pytest.raises(ValueError, match="sweep was made on another network"):
        restored("apd/gated", sweep.iloc[1].replace({1: 3}))


def test_a_table_without_end_states_is_refused(sweep):
    with pytest.raises(ValueError, match="but lacks kept; .* works"):
        GatedLab(sweep.drop(columns="kept"))
