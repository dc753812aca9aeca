"""Labs without a front end: what a slider does, what cancels what, and what is left for print."""

import asyncio
import base64
import io
import threading
import time

import matplotlib.image as mpimg
import numpy as np
import pandas
import pytest
import torch

import pd_helpers as pdh
from pd_helpers import plots
from pd_helpers.analysis import metrics
from pd_helpers.course.kit import lab as kit
from pd_helpers.course.kit.lab import Description, LiveLab, Progress, whole
from pd_helpers.runs.sweeps import end_state
from pd_helpers.widgets import MechanismLab, ResponseLab, ShrinkageLab, SparsityLab

SHORT = {"steps": 120, "n_init": 2, "selection_steps": 20, "target_steps": 1500, "faithfulness_warmup_steps": 50}


@pytest.fixture(scope="module")
def run(quick_evaluation):
    return pdh.run("apd/tms_5-2", seed=0, show_progress=False, **SHORT)


GRID = {"simplicity_coeff": [0.0, 0.7, 2.0], "schatten_p": [0.8, 1.0], "top_k": [0.211, 0.361]}


@pytest.fixture(scope="module")
def table(run):
    settings = {**SHORT, "steps": 40, "n_init": 1}
    del settings["target_steps"]
    return pdh.sweep("apd/tms_5-2", GRID, target=run, keep=end_state, show_progress=False, n_jobs=1, **settings)


class CountingLab(LiveLab):
    """Counts to a number instead of training, taking a millisecond for each step; shows how far it is."""

    def __init__(self, n_steps: int = 300):
        self.n_steps, self.step, self.error = n_steps, 0, None
        self.prepared, self.finished = [], []
        self.number = whole("number", 0, 9)
        self.progress = Progress(self.cancel)
        super().__init__([self.number, self.progress], 2, 2)
        [self.point] = self.axes[0, 0].plot([0], [0], "o")
        self.axes[0, 0].set(xlim=(0, 10), ylim=(0, 10))
        self.on_move([self.number], self.train_anew)
        self.update()

    async def retrain(self):
        number = self.number.value
        self.prepared.append((number, threading.current_thread()))
        if self.error:
            raise self.error
        await self.follow(self.count(), self.n_steps)
        self.finished.append(number)

    def count(self):
        for step in range(1, self.n_steps + 1):
            time.sleep(0.001)
            self.step = step
            yield step

    def compute(self):
        return self.number.value, self.step

    def draw(self, values):
        self.point.set_data([values[0]], [5])

    def describe(self, values):
        return Description(f"<b>{values[0]}</b>", f"Counted to {values[1]} for {values[0]}.")


class TestLab:
    def test_a_move_updates_values_picture_numbers_and_description(self):
        lab = CountingLab(n_steps=3)
        first = lab.picture
        lab.number.value = 7
        assert lab.values == (7, 3)
        assert lab.picture != first
        assert (lab.readout, lab.alt) == ("<b>7</b>", "Counted to 3 for 7.")

    def test_without_an_event_loop_a_move_trains_to_the_end(self):
        lab = CountingLab(n_steps=20)
        lab.number.value = 3
        assert (lab.finished, lab.progress.bar.description) == ([3], "trained")
        assert lab.progress.bar.value == lab.progress.bar.max == 20

    def test_a_lab_is_trained_only_when_all_of_its_trainings_are_over(self, monkeypatch):
        """Until then the old picture, or that of the first training, must not be taken for the answer."""
        lab, said, show = CountingLab(n_steps=3), [], Progress.show

        async def train_twice(self):
            await self.follow(self.count(), self.n_steps)
            await self.follow(self.count(), self.n_steps)

        def heard(self, state, *rest):
            said.append(state)
            show(self, state, *rest)

        monkeypatch.setattr(CountingLab, "retrain", train_twice)
        monkeypatch.setattr(Progress, "show", heard)
        lab.number.value = 3
        assert said == ["preparing", "training", "training", "trained"]

    def test_a_move_cancels_the_training_before(self):
        lab = CountingLab()

        async def five_quick_moves():
            for number in (1, 2, 3, 4, 5):
                lab.number.value = number
                await asyncio.sleep(0.02)
            await lab.task

        asyncio.run(five_quick_moves())
        assert lab.finished == [5]
        assert [number for number, _ in lab.prepared] == [5]  # a slider that passes through trains nothing

    def test_the_stop_button_cancels_training_and_the_next_move_trains_again(self):
        lab = CountingLab()

        async def begin_and_stop():
            lab.number.value = 1
            while lab.progress.stop.disabled:
                await asyncio.sleep(0.01)
            shown = lab.picture
            lab.progress.stop.click()
            await asyncio.wait([lab.task])
            assert lab.task.cancelled()
            assert (lab.progress.bar.description, lab.progress.stop.disabled) == ("stopped", True)
            assert lab.picture == shown
            lab.number.value = 2
            await lab.task

        asyncio.run(begin_and_stop())
        assert lab.finished == [2]
        assert lab.progress.bar.description == "trained"

    def test_moves_reported_on_other_threads_are_made_on_the_thread_of_the_lab(self):
        lab = None

        async def move_and_stop():
            nonlocal lab
            lab = CountingLab()
            for number in (1, 2):
                await asyncio.to_thread(setattr, lab.number, "value", number)
                while lab.progress.bar.description != "training":
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(lab.progress.stop.click)
                await asyncio.wait([lab.task])
                assert lab.task.cancelled()
                assert lab.progress.bar.description == "stopped"

        asyncio.run(move_and_stop())
        assert lab.prepared == [(1, threading.current_thread()), (2, threading.current_thread())]

    def test_training_that_fails_says_so(self):
        lab = CountingLab()
        lab.error = FloatingPointError("the loss blew up at <step> 3")
        with pytest.raises(FloatingPointError):
            lab.number.value = 1
        assert lab.progress.bar.description == "failed"
        assert lab.readout == "FloatingPointError: the loss blew up at &lt;step&gt; 3"

    def test_training_gives_way_to_others_and_shows_how_far_it_is(self, monkeypatch):
        monkeypatch.setattr(kit, "REDRAW", 0.05)
        lab, seen = CountingLab(), []

        async def watch():
            lab.number.value = 4
            while not lab.task.done():
                seen.append(lab.values[1])
                await asyncio.sleep(0)

        asyncio.run(watch())
        assert seen == sorted(seen)
        assert len(set(seen)) > 3
        assert lab.values == (4, 300)

    def test_wiped_axes_draw_like_cleared_ones(self):
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

        assert picture(kit.wipe) == picture(lambda ax: ax.clear())


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
    monkeypatch.setattr(kit, "display", lambda data, raw, metadata: shown.append((data, metadata)))
    lab._ipython_display_()
    [(data, metadata)] = shown
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == lab.widget.model_id
    live, static = (mpimg.imread(io.BytesIO(png)) for png in (lab.picture, base64.b64decode(data["image/png"])))
    assert (live == static).all()
    assert metadata["image/png"]["alt"] == lab.alt
    assert len(lab.alt) > 40


class TestShrinkageLab:
    def test_moving_a_slider_trains_what_run_trains(self, run):
        lab = ShrinkageLab(run)
        assert lab.is_live
        assert lab.mode is None
        before = lab.picture
        lab.simplicity_coeff.value = 1.5
        again = pdh.run("apd/tms_5-2", 0, target=run, show_progress=False, **{**SHORT, "simplicity_coeff": 1.5})
        P, W = again.first_layer
        assert torch.equal(lab.values.P, P)
        assert torch.equal(lab.values.W, run.target.embed.weight)
        assert lab.values.steps == (120, 120)
        assert (lab.values.mmcs, lab.values.ml2r) == (metrics.mmcs(P, W), metrics.ml2r(P, W))
        assert lab.values.faithfulness == pytest.approx((P.sum(dim=0) - W).square().mean().item())
        assert lab.values.settings["simplicity_coeff"] == 1.5
        assert lab.picture != before
        assert "λ_S = 1.5" in lab.alt
        assert f"{lab.values.ml2r:.3f}" in lab.readout

    def test_settings_without_a_slider_are_kept(self, run):
        lab = ShrinkageLab(run)
        lab.top_k.value = 0.311
        assert lab.run.config == run.config.replace(top_k=0.311)
        assert lab.train(schatten_p=0.9).config == run.config.replace(top_k=0.311, schatten_p=0.9)
        assert lab.values.settings["schatten_p"] == 0.9

    def test_while_it_trains_the_training_is_shown_and_the_run_before_stays(self, run, monkeypatch):
        monkeypatch.setattr(kit, "SLICE", 0.0)
        monkeypatch.setattr(kit, "REDRAW", 0.1)
        lab, steps = ShrinkageLab(run), []

        async def watch():
            lab.simplicity_coeff.value = 0.1
            while lab.training is None:
                await asyncio.sleep(0.01)
            while lab.training is not None:
                assert lab.run is run
                if lab.values.settings["simplicity_coeff"] == 0.1:
                    steps.append(lab.values.steps[0])
                await asyncio.sleep(0.01)
            await lab.task

        asyncio.run(watch())
        assert 0 < steps[0] < 120
        assert lab.run.config.simplicity_coeff == 0.1
        assert lab.values.steps == (120, 120)

    def test_a_cancelled_training_leaves_the_run_before(self, run):
        lab = ShrinkageLab(run)
        shown = lab.picture

        async def begin_and_stop():
            lab.simplicity_coeff.value = 0.1
            while lab.training is None:
                await asyncio.sleep(0.01)
            lab.cancel()
            await asyncio.wait([lab.task])

        asyncio.run(begin_and_stop())
        assert lab.run is run
        assert lab.training is None
        lab.update()
        assert lab.picture == shown

    def test_the_step_slider_replays_the_snapshots(self, run):
        lab = ShrinkageLab(run)
        last = lab.picture
        lab.step.value = lab.step.options[0]
        assert lab.values.steps == (0, 120)
        assert torch.equal(lab.values.P, run.snapshots[0].P("embed"))
        assert lab.picture != last
        lab.step.value = lab.step.options[-1]
        assert lab.picture == last

    def test_instant_mode_shows_the_row_of_the_sweep(self, run, table):
        lab = ShrinkageLab(run, table)
        assert not lab.is_live
        assert {name: slider.value for name, slider in lab.grid.items()} == {
            name: getattr(run.config, name) for name in GRID
        }
        pictures = {lab.picture}
        for row in table.itertuples():
            for name in GRID:
                lab.grid[name].value = getattr(row, name)
            assert torch.equal(lab.values.P, row.kept["P.embed"])
            assert lab.values.ml2r == pytest.approx(row.ml2r)
            assert lab.values.mmcs == pytest.approx(row.mmcs)
            assert lab.values.settings == {name: getattr(row, name) for name in GRID}
            pictures.add(lab.picture)
        assert len(pictures) == len(table)
        assert lab.run is run  # nothing was trained

    def test_instant_mode_draws_the_curve_of_the_sweep_along_the_coefficient(self, run, table):
        lab = ShrinkageLab(run, table)
        lab.grid["schatten_p"].value, lab.grid["simplicity_coeff"].value = 0.8, 2.0
        rows = table.query("schatten_p == 0.8 and top_k == 0.211")
        assert lab.values.curve["ml2r"].to_dict() == dict(zip(rows["simplicity_coeff"], rows["ml2r"], strict=True))
        lines = {line.get_label(): line for line in lab.axes[0, 2].lines}
        assert list(lines["ML2R (length)"].get_ydata()) == list(rows["ml2r"])
        assert list(lines["MMCS (direction)"].get_ydata()) == list(rows["mmcs"])

    def test_the_picture_does_not_move_from_one_mode_to_the_other(self, run, table):
        lab = ShrinkageLab(run, table)
        places = [ax.get_position(original=True).bounds for ax in lab.figure.axes]
        size = lab.figure.canvas.get_width_height()
        lab.mode.value = "live"
        lab.step.value = lab.step.options[0]
        assert [ax.get_position(original=True).bounds for ax in lab.figure.axes] == places
        assert lab.figure.canvas.get_width_height() == size

    def test_switching_modes_changes_the_sliders_and_comes_back_to_the_same_picture(self, run, table):
        lab = ShrinkageLab(run, table)
        instant, sliders = lab.picture, lab.controls.children
        assert lab.step not in sliders
        lab.mode.value = "live"
        assert lab.step in lab.controls.children
        assert lab.values.steps == (run.step, run.config.steps)
        assert lab.run is run
        lab.simplicity_coeff.value = 1.5
        assert lab.run.config.simplicity_coeff == 1.5
        lab.mode.value = "instant"
        assert lab.controls.children == sliders
        assert lab.picture == instant

    def test_switching_to_instant_cancels_the_training_and_returning_begins_it_again(self, run, table):
        lab = ShrinkageLab(run, table)
        instant = lab.picture

        async def switch_while_training():
            lab.mode.value = "live"
            lab.simplicity_coeff.value = 1.5
            await asyncio.sleep(kit.SETTLE + 0.05)
            cancelled = lab.task
            lab.mode.value = "instant"
            await asyncio.wait([cancelled])
            assert cancelled.cancelled()
            assert lab.picture == instant
            assert lab.run is run
            lab.mode.value = "live"
            await lab.task

        asyncio.run(switch_while_training())
        assert lab.run.config.simplicity_coeff == 1.5

    def test_the_shipped_sweep_is_of_the_shipped_run_and_fits_the_lab(self):
        shipped, sweep = pdh.shipped("apd/tms_5-2"), pdh.shipped_sweep("apd/tms_5-2")
        lab = ShrinkageLab(shipped, sweep)
        torch.testing.assert_close(lab.values.W, shipped.target.embed.weight.detach(), rtol=0, atol=1e-4)
        assert lab.values.settings == {name: getattr(shipped.config, name) for name in GRID}
        assert lab.values.ml2r == pytest.approx(shipped.metrics["ml2r"], abs=0.01)

    def test_a_sweep_that_does_not_fit_is_refused_with_what_would(self, run, table):
        works = r"pdh\.shipped_sweep\('apd/tms_5-2'\) works"
        with pytest.raises(ValueError, match=f"keeps the end states .* but lacks top_k, kept; {works}"):
            ShrinkageLab(run, table.drop(columns=["top_k", "kept"]))
        with pytest.raises(TypeError, match="sweep must be a DataFrame or None, but is 'apd/tms_5-2'; .* works"):
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


def test_the_mechanism_lab_masks_one_column_where_it_reads_and_where_it_writes():
    target = pdh.TMSConfig(target_steps=10).new(seed=0)
    lab = MechanismLab(target)
    W, b = target.embed.weight.detach(), target.unembed.bias.tolist()
    overlaps = (W.T @ W).tolist()
    for feature, component, mask in ((0, 0, 0.0), (0, 0, 0.5), (1, 3, 0.25), (1, 3, 1.0)):
        lab.feature.value, lab.component.value, lab.mask.value = feature, component, mask
        masks = [mask if c == component else 1.0 for c in range(5)]
        expected = [max(0.0, masks[j] * masks[feature] * overlaps[j][feature] + b[j]) for j in range(5)]
        assert lab.values.output.tolist() == pytest.approx(expected, abs=1e-6)
        assert lab.values.target_output.tolist() == pytest.approx(target(torch.eye(5))[feature].tolist(), abs=1e-6)
    lab.feature.value, lab.component.value, lab.mask.value = 0, 0, 0.5
    heights = [bar.get_height() for bar in lab.axes[0, 1].containers[0]]
    assert heights == pytest.approx(lab.values.output.tolist())
    assert f"output 0 is {lab.values.output[0]:.2f}" in lab.alt


def test_the_sparsity_lab_trains_at_the_chosen_probability():
    config = pdh.TMSConfig(target_steps=800)
    lab = SparsityLab(config, seed=0)
    assert lab.values.n_represented == 5
    for probability in (1.0, 0.1):
        lab.probability.value = probability
        chosen = config.replace(feature_probability=probability)
        target = pdh.make_target(chosen, seed=0, show_progress=False)
        assert torch.equal(lab.values.W, target.embed.weight)
        assert lab.values.n_represented == sum(column.norm() > 0.5 for column in target.embed.weight.T)
        x = chosen.features()(2**14, torch.Generator().manual_seed(1))  # other inputs than the lab's
        error = (target(x) - x).square().mean().item() / probability
        assert lab.values.error == pytest.approx(error, rel=0.1)
        assert f"{lab.values.n_represented} of 5 features" in lab.alt


@pytest.fixture(scope="module")
def two_layers():
    config = pdh.ResidualMLPConfig(n_features=8, d_resid=60, d_mlp=4, n_layers=2, target_steps=300)
    return pdh.make_target(config, seed=0, show_progress=False)


def test_the_response_lab_shows_outputs_and_what_neurons_add(two_layers):
    lab = ResponseLab(two_layers, feature=5)
    pictures = {lab.picture}
    for feature, value in ((5, -0.5), (2, 0.35)):
        lab.feature.value, lab.value.value = feature, value
        x = value * torch.eye(8)[[feature]]
        y, skip = two_layers(x)[0], (x @ two_layers.W_E.T @ two_layers.W_U.T)[0]
        values, lines = lab.values, {line.get_label(): line for line in lab.axes[0, 0].lines}
        assert values.outputs.tolist() == pytest.approx(y.tolist(), abs=1e-5)
        assert lines["output"].get_ydata().tolist() == values.outputs.tolist()
        assert values.labels.tolist() == pytest.approx((x + x.clamp(min=0))[0].tolist())
        assert values.added.sum().item() == pytest.approx((y - skip)[feature].item(), abs=1e-5)
        assert f"output {feature} is {y[feature]:.2f}" in lab.alt
        pictures.add(lab.picture)
    assert len(pictures) == 3


def test_in_one_layer_a_neuron_adds_its_contribution_at_value_1_or_nothing():
    config = pdh.ResidualMLPConfig(n_features=8, d_resid=60, d_mlp=4, target_steps=300)
    net = pdh.make_target(config, seed=0, show_progress=False)
    lab, mlp = ResponseLab(net), net.mlps[0]
    read, write = mlp.W_in.weight @ net.W_E[:, 0], net.W_U[0] @ mlp.W_out.weight
    assert lab.values.contributions.tolist() == pytest.approx((read * write).tolist(), abs=1e-5)
    assert lab.values.added.tolist() == pytest.approx((write * read.clamp(min=0)).tolist(), abs=1e-5)
    stems = {lines.get_label(): lines.get_segments() for lines in lab.axes[0, 1].collections}
    heights = [segment[1, 1] for segment in stems["added at this value"]]
    np.testing.assert_allclose(heights, lab.values.added, rtol=1e-6)


def test_labs_refuse_what_they_cannot_draw(run):
    wide = pdh.prepare("apd/tms_5-2", n_features=6, n_hidden=3, target_steps=5, show_progress=False)
    with pytest.raises(ValueError, match="two hidden dimensions"):
        ShrinkageLab(wide)
    with pytest.raises(ValueError, match="two hidden dimensions"):
        MechanismLab(wide.target)
    with pytest.raises(ValueError, match="ResidualMLP with as many outputs as inputs"):
        ResponseLab(pdh.make_target(pdh.GatedConfig(), seed=0))
