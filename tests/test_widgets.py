"""Labs without a front end: what a slider does, what cancels what, and what is left for print."""

import asyncio
import base64

import pytest

import pd_helpers as pdh
from pd_helpers import widgets
from pd_helpers.widgets import MechanismLab, ShrinkageLab, SparsityLab

SHORT = {"steps": 120, "starts": 2, "start_steps": 20, "target_steps": 1500, "faithfulness_warmup_steps": 50}


@pytest.fixture(scope="module")
def run():
    return pdh.run("apd/tms_5-2", seed=0, show_progress=False, **SHORT)


def picture(lab) -> bytes:
    return lab._image.value


def test_moving_a_slider_without_an_event_loop_trains_to_the_end(run):
    lab = ShrinkageLab(run)
    before = picture(lab)
    lab.simplicity_coeff.value = 1.5
    assert lab.run.config.simplicity_coeff == 1.5
    assert lab.run.state.step == 120
    assert picture(lab) != before
    assert "λ_S = 1.5" in lab.alt


def test_the_lab_trains_what_run_trains(run):
    lab = ShrinkageLab(run)
    lab.train(simplicity_coeff=1.0)
    again = pdh.run("apd/tms_5-2", 0, target=run, show_progress=False, **{**SHORT, "simplicity_coeff": 1.0})
    assert (lab.run.first_layer[0] == again.first_layer[0]).all()


def test_a_slider_that_moves_again_cancels_the_training_before(run):
    lab = ShrinkageLab(run)
    finished = []
    lab._show_all_of = lambda run: finished.append(run.config.simplicity_coeff)

    async def five_quick_moves():
        for value in (0.1, 0.3, 0.5, 1.0, 2.0):
            lab.simplicity_coeff.value = value
            await asyncio.sleep(0.02)
        await lab._task

    asyncio.run(five_quick_moves())
    assert finished == [2.0]


def test_training_gives_way_to_others(run):
    lab, turns = ShrinkageLab(run), 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def both():
        counting = asyncio.create_task(count())
        lab.schatten_p.value = 0.8
        await lab._task
        counting.cancel()

    asyncio.run(both())
    assert turns > 3


def test_the_step_slider_replays_the_snapshots(run):
    lab = ShrinkageLab(run)
    last = picture(lab)
    lab.step.value = lab.step.options[0]
    assert "step 0" in lab._numbers.value
    assert picture(lab) != last
    lab.step.value = lab.step.options[-1]
    assert picture(lab) == last


def test_settings_of_the_run_are_kept(run):
    lab = ShrinkageLab(run)
    lab.top_k.value = 0.311
    assert lab.run.config.replace(top_k=run.config.top_k) == run.config
    assert (lab.run.target.embed.weight == run.target.embed.weight).all()


def test_masking_a_mechanism_changes_its_own_output_only():
    target = pdh.train_tms(pdh.TMSConfig(target_steps=1500), seed=0, show_progress=False)
    lab = MechanismLab(target)
    whole = lab._numbers.value
    lab.mask.value = 0.0
    assert 'pdh-output">0.000<' in lab._numbers.value
    lab.feature.value, lab.component.value = 1, 3
    lab.mask.value = 1.0
    at_one = lab._numbers.value
    lab.component.value = 4
    assert lab._numbers.value == at_one
    assert whole != at_one


def test_sparsity_lab_trains_at_the_chosen_probability():
    lab = SparsityLab(pdh.TMSConfig(target_steps=800), seed=0)
    assert 'pdh-kept">5<' in lab._numbers.value
    lab.probability.value = 1.0
    kept = int(lab._numbers.value.split('pdh-kept">')[1].split("<")[0])
    assert kept < 5


@pytest.mark.parametrize("make", [lambda run: ShrinkageLab(run), lambda run: MechanismLab(run.target)])
def test_a_lab_leaves_a_static_figure_with_alt_text(run, make, monkeypatch):
    lab, shown = make(run), []
    monkeypatch.setattr(widgets, "display", lambda data, raw, metadata: shown.append((data, metadata)))
    lab._ipython_display_()
    [(data, metadata)] = shown
    assert "application/vnd.jupyter.widget-view+json" in data
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert metadata["image/png"]["alt"] == lab.alt
    assert len(lab.alt) > 40


def test_labs_refuse_what_they_cannot_draw(run):
    wide = pdh.prepare("apd/tms_5-2", n_features=6, n_hidden=3, target_steps=5, show_progress=False)
    with pytest.raises(ValueError, match="two hidden dimensions"):
        ShrinkageLab(wide)
    with pytest.raises(ValueError, match="two hidden dimensions"):
        MechanismLab(wide.target)
