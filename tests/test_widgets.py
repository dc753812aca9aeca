"""Labs without a front end: what a slider does, what cancels what, and what is left for print."""

import asyncio
import base64
import io
import threading

import matplotlib.image as mpimg
import pandas
import pytest
import torch

import pd_helpers as pdh
from pd_helpers import plots, widgets
from pd_helpers.shipping import end_state
from pd_helpers.widgets import MechanismLab, ResponseLab, ShrinkageLab, SparsityLab

SHORT = {"steps": 120, "starts": 2, "start_steps": 20, "target_steps": 1500, "faithfulness_warmup_steps": 50}


@pytest.fixture(scope="module")
def run():
    return pdh.run("apd/tms_5-2", seed=0, show_progress=False, **SHORT)


GRID = {"simplicity_coeff": [0.0, 0.7, 2.0], "schatten_p": [0.8, 1.0], "top_k": [0.211, 0.361]}


@pytest.fixture(scope="module")
def table(run):
    settings = {**SHORT, "steps": 40, "starts": 1}
    del settings["target_steps"]
    return pdh.sweep("apd/tms_5-2", GRID, target=run, keep=end_state, show_progress=False, n_jobs=1, **settings)


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


def test_training_is_given_up_at_the_press_of_a_button_and_taken_up_by_the_next_move(run):
    lab = ShrinkageLab(run)
    finished = []
    lab._show_all_of = lambda run: finished.append(run.config.simplicity_coeff)

    async def begin_and_stop():
        lab.simplicity_coeff.value = 0.5
        while lab.progress.stop.disabled:
            await asyncio.sleep(0.01)
        lab.progress.stop.click()
        await asyncio.wait([lab._task])
        assert lab._task.cancelled()
        assert (lab.progress.bar.description, lab.progress.stop.disabled) == ("stopped", True)
        lab.simplicity_coeff.value = 1.0
        await lab._task

    asyncio.run(begin_and_stop())
    assert finished == [1.0]
    assert lab.progress.bar.description == "trained"


def test_moves_told_by_other_threads_are_made_on_the_thread_of_the_lab(run):
    seen = []

    async def move_and_stop():
        lab = ShrinkageLab(run)
        prepare = lab._prepare
        lab._prepare = lambda: seen.append((lab.simplicity_coeff.value, threading.current_thread())) or prepare()
        for value in (0.5, 1.0):
            await asyncio.to_thread(setattr, lab.simplicity_coeff, "value", value)
            while lab.progress.bar.description != "training":
                await asyncio.sleep(0.01)
            await asyncio.to_thread(lab.progress.stop.click)
            await asyncio.wait([lab._task])
            assert lab._task.cancelled()
            assert lab.progress.bar.description == "stopped"

    asyncio.run(move_and_stop())
    assert seen == [(0.5, threading.current_thread()), (1.0, threading.current_thread())]


def test_training_that_fails_says_so(run):
    lab = ShrinkageLab(run)

    def fail():
        raise FloatingPointError("the loss blew up at <step> 3")

    lab._prepare = fail
    with pytest.raises(FloatingPointError):
        lab.simplicity_coeff.value = 0.5
    assert lab.progress.bar.description == "failed"
    assert "FloatingPointError: the loss blew up at &lt;step&gt; 3" in lab._numbers.value


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


def readout(lab, name: str) -> str:
    return lab._numbers.value.split(f'pdh-{name}">')[1].split("<")[0]


def test_instant_mode_shows_the_row_of_the_sweep(run, table):
    lab = ShrinkageLab(run, table)
    assert {name: slider.value for name, slider in lab.grid.items()} == {
        name: getattr(run.config, name) for name in GRID
    }
    pictures = {picture(lab)}
    for row in table.itertuples():
        for name in GRID:
            lab.grid[name].value = getattr(row, name)
        assert readout(lab, "ml2r") == f"{row.ml2r:.3f}"
        assert readout(lab, "mmcs") == f"{row.mmcs:.3f}"
        told = f"λ_S = {row.simplicity_coeff:g}, p_S = {row.schatten_p:g}, top-k = {row.top_k:g}"
        assert told in lab.alt
        pictures.add(picture(lab))
    assert len(pictures) == len(table)
    assert lab.run is run  # nothing was trained


def test_instant_mode_draws_the_curve_of_the_sweep_along_the_coefficient(run, table):
    lab = ShrinkageLab(run, table)
    lab.grid["schatten_p"].value, lab.grid["simplicity_coeff"].value = 0.8, 2.0
    rows = table.query("schatten_p == 0.8 and top_k == 0.211")
    x, y = lab._panels.lines["ml2r"].get_data()
    assert list(x) == GRID["simplicity_coeff"]
    assert list(y) == list(rows["ml2r"])
    assert lab._panels.here.get_data()[0] == [2.0]
    assert lab._panels.here.get_data()[1] == pytest.approx([rows["ml2r"].iloc[-1]])


def test_the_picture_does_not_move_from_one_mode_to_the_other(run, table):
    lab = ShrinkageLab(run, table)
    places = [ax.get_position(original=True).bounds for ax in lab.figure.axes]
    size = lab.figure.canvas.get_width_height()
    lab.mode.value = "live"
    lab.step.value = lab.step.options[0]
    assert [ax.get_position(original=True).bounds for ax in lab.figure.axes] == places
    assert lab.figure.canvas.get_width_height() == size


def test_switching_modes_changes_the_sliders_and_comes_back_to_the_same_picture(run, table):
    lab = ShrinkageLab(run, table)
    instant, shown = picture(lab), lab._stack.children
    assert lab.step not in shown
    lab.mode.value = "live"
    assert lab.step in lab._stack.children
    assert f"after {run.state.step} steps" in lab.alt
    assert lab.run is run
    lab.simplicity_coeff.value = 1.5
    assert lab.run.config.simplicity_coeff == 1.5
    lab.mode.value = "instant"
    assert lab._stack.children == shown
    assert picture(lab) == instant


def test_switching_to_instant_gives_up_the_training_and_returning_takes_it_up_again(run, table):
    lab = ShrinkageLab(run, table)
    instant = picture(lab)

    async def switch_while_training():
        lab.mode.value = "live"
        lab.simplicity_coeff.value = 1.5
        await asyncio.sleep(widgets.lab.SETTLE + 0.05)
        given_up = lab._task
        lab.mode.value = "instant"
        await asyncio.wait([given_up])
        assert given_up.cancelled()
        assert picture(lab) == instant
        assert lab.run is run
        lab.mode.value = "live"
        await lab._task

    asyncio.run(switch_while_training())
    assert lab.run.config.simplicity_coeff == 1.5


def test_the_shipped_sweep_is_of_the_shipped_run_and_fits_the_lab():
    shipped, sweep = pdh.shipped("apd/tms_5-2"), pdh.shipped_sweep("apd/tms_5-2")
    torch.testing.assert_close(sweep["kept"][0]["W.embed"], shipped.target.embed.weight, rtol=0, atol=1e-4)
    lab = ShrinkageLab(shipped, sweep)
    assert {name: slider.value for name, slider in lab.grid.items()} == {
        name: getattr(shipped.config, name) for name in GRID
    }
    assert float(readout(lab, "ml2r")) == pytest.approx(shipped.metrics["ml2r"], abs=0.01)


def test_without_a_sweep_there_is_only_live_mode(run):
    lab = ShrinkageLab(run)
    assert lab.is_live
    assert lab.mode is None


def test_a_sweep_that_does_not_fit_is_refused_with_what_would(run, table):
    works = r"pdh\.shipped_sweep\('apd/tms_5-2'\) works"
    with pytest.raises(ValueError, match=f"keeps the end states .* but lacks top_k, kept; {works}"):
        ShrinkageLab(run, table.drop(columns=["top_k", "kept"]))
    with pytest.raises(ValueError, match="table of pdh.sweep"):
        ShrinkageLab(run, "apd/tms_5-2")
    with pytest.raises(ValueError, match="one run for every combination"):
        ShrinkageLab(run, table.iloc[1:])
    with pytest.raises(ValueError, match="several seeds take one"):
        ShrinkageLab(run, pandas.concat([table, table]))
    with pytest.raises(ValueError, match=f"at \\(0.0, 0.8, 0.211\\) there is no P.embed and W.embed; {works}"):
        ShrinkageLab(run, table.assign(kept=[{}] * len(table)))
    wide = [{"P.embed": one["P.embed"].repeat(1, 2, 1), "W.embed": one["W.embed"]} for one in table["kept"]]
    with pytest.raises(ValueError, match=r"shape \(5, 2, 5\) .* there is P.embed of shape \(5, 4, 5\)"):
        ShrinkageLab(run, table.assign(kept=wide))


def test_masking_a_mechanism_changes_its_own_output_only():
    target = pdh.make_target(pdh.TMSConfig(target_steps=1500), seed=0, show_progress=False)
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


@pytest.fixture(scope="module")
def two_layers():
    config = pdh.ResidualMLPConfig(n_features=8, d_resid=60, d_mlp=4, n_layers=2, target_steps=300)
    return pdh.make_target(config, seed=0, show_progress=False)


def test_the_response_lab_shows_outputs_and_what_neurons_add(two_layers):
    lab = ResponseLab(two_layers, feature=5)
    for feature, value in ((5, 1.0), (5, -0.5), (2, 0.35)):
        before = picture(lab)
        lab.feature.value, lab.value.value = feature, value
        x = value * torch.eye(8)[[feature]]
        y, skip = two_layers(x)[0], (x @ two_layers.W_E.T @ two_layers.W_U.T)[0]
        assert readout(lab, "output") == f"{y[feature]:.3f}"
        assert lab._others.get_ydata().tolist() == pytest.approx(y.tolist(), abs=1e-5)
        added = [segment[1, 1] for segment in lab._added.get_segments()]
        assert sum(added) == pytest.approx((y - skip)[feature].item(), abs=1e-5)
        assert f"output {feature} is {y[feature]:.2f}" in lab.alt
        assert (feature, value) == (5, 1.0) or picture(lab) != before


def test_in_one_layer_a_neuron_adds_its_contribution_at_value_1_or_nothing():
    config = pdh.ResidualMLPConfig(n_features=8, d_resid=60, d_mlp=4, target_steps=300)
    net = pdh.make_target(config, seed=0, show_progress=False)
    lab, mlp = ResponseLab(net), net.mlps[0]
    read, write = mlp.W_in.weight @ net.W_E[:, 0], net.W_U[0] @ mlp.W_out.weight
    assert lab._contributions.get_ydata().tolist() == pytest.approx((read * write).tolist(), abs=1e-5)
    added = [segment[1, 1] for segment in lab._added.get_segments()]
    assert added == pytest.approx((write * read.clamp(min=0)).tolist(), abs=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda run, table: ShrinkageLab(run),
        lambda run, table: ShrinkageLab(run, table),
        lambda run, table: MechanismLab(run.target),
        lambda run, table: ResponseLab(pdh.ResidualMLPConfig(n_features=5, d_resid=9, d_mlp=3).new(seed=0)),
    ],
)
def test_a_lab_leaves_a_static_figure_with_alt_text(run, table, make, monkeypatch):
    lab, shown = make(run, table), []
    monkeypatch.setattr(widgets.lab, "display", lambda data, raw, metadata: shown.append((data, metadata)))
    lab._ipython_display_()
    [(data, metadata)] = shown
    assert "application/vnd.jupyter.widget-view+json" in data
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert metadata["image/png"]["alt"] == lab.alt
    assert len(lab.alt) > 40


def test_the_picture_on_the_page_is_the_static_one(run):
    lab = ShrinkageLab(run)
    live, static = (mpimg.imread(io.BytesIO(data)) for data in (picture(lab), plots.png(lab.figure)))
    assert (live == static).all()


def test_labs_refuse_what_they_cannot_draw(run):
    wide = pdh.prepare("apd/tms_5-2", n_features=6, n_hidden=3, target_steps=5, show_progress=False)
    with pytest.raises(ValueError, match="two hidden dimensions"):
        ShrinkageLab(wide)
    with pytest.raises(ValueError, match="two hidden dimensions"):
        MechanismLab(wide.target)
    with pytest.raises(ValueError, match="ResidualMLP with as many outputs as inputs"):
        ResponseLab(pdh.make_target(pdh.GatedConfig(), seed=0))


def test_wiped_axes_draw_like_cleared_ones():
    def picture(clean):
        figure, axes = plots.figure(3, 2)
        ax = axes[0, 0]
        for heights, top in (([1.0, -2.0], 30.0), ([0.1, 0.3], 0.5)):
            clean(ax)
            ax.bar([0, 1], heights, label="bars")
            ax.plot([0, 1], [0.0, top], label="line")
            ax.imshow([[0.0, 1.0]], extent=(0, 1, 0, 1))
            ax.text(0.5, 0.5, f"{top}")
            ax.set(xlim=(-1, 2), xlabel="x")
            ax.legend()
        figure.canvas.draw()
        return bytes(figure.canvas.buffer_rgba())

    assert picture(widgets.lab.wipe) == picture(lambda ax: ax.clear())
