"""The course in a real JupyterLab: notebooks run without an error, sliders answer to the keyboard."""

from itertools import pairwise

import pytest
from browser import TRAINING, serve_cells

RUN_IN_THE_BROWSER = ["00_start_here"]  # nbmake executes them all; labs have tests of their own

SLIDER = """
import io
import ipywidgets as widgets
from IPython.display import display
from PIL import Image

def picture(value):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (25 * value, 0, 0)).save(buffer, "png")
    return buffer.getvalue()

def answer(change):
    image.value = picture(change.new)
    readout.value = f"<span class='answer'>{change.new ** 2}</span>"

def complain(change):
    raise ValueError("about to be noticed")

slider = widgets.IntSlider(description="steps", min=0, max=10, value=3)
image = widgets.Image(value=picture(3), format="png")
readout = widgets.HTML("<span class='answer'>9</span>")
faulty = widgets.IntSlider(description="step", max=3)
slider.observe(answer, "value")
faulty.observe(complain, "value")
display(slider, image, readout, faulty)
"""


@pytest.mark.parametrize("name", RUN_IN_THE_BROWSER)
def test_run_all_gives_no_error(jupyter, name):
    jupyter.open(name).run_all()
    jupyter.drive()
    assert jupyter.errors() == []


def test_a_slider_is_moved_by_keyboard(jupyter):
    serve_cells(jupyter, "slider", SLIDER)
    slider, before = jupyter.slider("steps"), jupyter.image("img.widget-image")
    assert slider.readout == "3"
    assert slider.press("ArrowRight", times=2).value == 5
    jupyter.eventually(lambda: jupyter.text(".answer") == "25", "the readout follows")
    jupyter.eventually(lambda: jupyter.image("img.widget-image") != before, "the picture changes")
    assert slider.press("Home").value == 0
    assert slider.press("End").value == 10
    jupyter.eventually(lambda: jupyter.text(".answer") == "100", "the readout follows to the end")
    assert jupyter.errors() == []


def test_errors_are_heard_from_cells_and_from_callbacks(jupyter):
    serve_cells(jupyter, "errors", SLIDER, "1 / 0", "print('not reached')")
    assert jupyter.errors() == ["cell 2: ZeroDivisionError: division by zero"]
    jupyter.slider("step").press("ArrowRight")
    jupyter.eventually(lambda: "ValueError: about to be noticed" in jupyter.errors(), "the callback is heard")


def test_a_screenshot_shows_the_whole_notebook(jupyter, tmp_path):
    serve_cells(jupyter, "tall", *(["1"] * 40))
    [picture] = jupyter.screenshot(tmp_path / "tall.png")
    width, height = (int.from_bytes(picture.read_bytes()[at : at + 4]) for at in (16, 20))
    assert width > 1000
    assert height > 40 * 40


def test_a_notebook_that_is_not_served_is_named(jupyter):
    with pytest.raises(FileNotFoundError, match="no notebook '99_missing'"):
        jupyter.open("99_missing")


def test_shrinkage_appears_as_the_slider_moves(jupyter):
    serve_cells(
        jupyter,
        "shrinkage",
        "import pd_helpers as pdh\nrun = pdh.run('apd/tms_5-2', seed=0)",
        "pdh.widgets.ShrinkageLab(run)",
    )
    slider, seen = jupyter.slider("simplicity λ_S"), []

    def trained() -> bool:
        return jupyter.text(".pdh-progress .widget-label") == "trained"

    def settle(value: float) -> float:
        before = jupyter.image("img.pdh-picture")
        slider.press("Home")
        slider.press("ArrowRight", times=round(value / 0.1))
        jupyter.eventually(lambda: not trained(), "training starts")
        jupyter.eventually(trained, "training ends", timeout=TRAINING)
        jupyter.eventually(lambda: jupyter.image("img.pdh-picture") != before, "the picture changes")
        return float(jupyter.text(".pdh-ml2r"))

    for value in (0.0, 0.5, 1.0, 2.0):
        seen.append(settle(value))
        assert slider.readout == f"{value:.1f}"
    assert all(later < earlier for earlier, later in pairwise(seen)), seen
    assert seen[0] - seen[-1] > 0.3, seen

    last, step = jupyter.image("img.pdh-picture"), jupyter.slider("training step")
    step.press("Home")
    jupyter.eventually(lambda: jupyter.image("img.pdh-picture") != last, "the step slider replays history")
    assert jupyter.errors() == []


SPARSITY = """
import pd_helpers as pdh
config = pdh.TMSConfig(target_steps=2000)
target = pdh.make_target(config, seed=0, show_progress=False)
"""


def test_the_sparsity_lab_trains_and_the_last_value_wins(jupyter):
    serve_cells(jupyter, "sparsity", SPARSITY, "pdh.widgets.SparsityLab(config, seed=0, target=target)")
    assert jupyter.text(".pdh-kept") == "5"
    jupyter.drive()
    assert jupyter.text(".pdh-progress .widget-label") == "trained"
    assert int(jupyter.text(".pdh-kept")) < 5
    assert jupyter.errors() == []


def test_training_is_given_up_at_the_press_of_a_button(jupyter):
    hours = "pdh.widgets.SparsityLab(config.replace(target_steps=10_000_000), seed=0, target=target)"
    serve_cells(jupyter, "stop", SPARSITY, hours)
    label, stop = ".pdh-progress .widget-label", jupyter.page.get_by_role("button", name="stop")
    assert stop.is_disabled()
    jupyter.slider("feature probability p").press("End")
    jupyter.eventually(lambda: jupyter.text(label) == "training", "training starts")
    stop.click()
    jupyter.eventually(lambda: jupyter.text(label) == "stopped", "training is given up")
    assert stop.is_disabled()
    jupyter.slider("feature probability p").press("Home")
    jupyter.eventually(lambda: jupyter.text(label) == "training", "a move trains again")
    stop.press("Enter")
    jupyter.eventually(lambda: jupyter.text(label) == "stopped", "training is given up by keyboard")
    assert jupyter.errors() == []


INSTANT = """
import pd_helpers as pdh
from pd_helpers.runs.sweeps import end_state

brief = {"steps": 200, "n_init": 1}
run = pdh.run("apd/tms_5-2", seed=0, show_progress=False, **brief)
grid = {"simplicity_coeff": [0.0, 0.7, 1.4, 2.0], "schatten_p": [0.8, 1.0], "top_k": [0.211, 0.361]}
table = pdh.sweep("apd/tms_5-2", grid, target=run, keep=end_state, show_progress=False, **brief)
"""


def test_the_shrinkage_lab_looks_up_a_sweep_instantly_and_trains_on_request(jupyter):
    serve_cells(jupyter, "instant", INSTANT, "pdh.widgets.ShrinkageLab(run, table)")
    slider = jupyter.slider("simplicity λ_S")
    assert slider.readout == "0.7"

    def move(key: str) -> tuple[str, bytes]:
        before = jupyter.text(".pdh-ml2r"), jupyter.image("img.pdh-picture")
        slider.press(key)
        jupyter.eventually(lambda: jupyter.text(".pdh-ml2r") != before[0], "the readout follows")
        jupyter.eventually(lambda: jupyter.image("img.pdh-picture") != before[1], "the picture follows")
        return jupyter.text(".pdh-ml2r"), jupyter.image("img.pdh-picture")

    shown = [move("ArrowLeft"), move("ArrowRight"), move("ArrowRight"), move("End")]
    assert slider.value == 2
    assert len(set(shown)) == 4
    assert float(shown[-1][0]) < float(shown[1][0])
    assert jupyter.page.locator(".pdh-progress").count() == 0

    def height() -> float:
        return jupyter.page.locator("img.pdh-picture").evaluate("image => image.getBoundingClientRect().top")

    top = height()
    jupyter.page.get_by_role("button", name="live: train one").click()
    jupyter.eventually(lambda: jupyter.image("img.pdh-picture") != shown[-1][1], "live mode shows its own run")
    assert jupyter.slider("training step").readout == "200"
    assert height() == top
    live = jupyter.image("img.pdh-picture")
    jupyter.slider("simplicity λ_S").press("ArrowRight")
    jupyter.eventually(lambda: jupyter.image("img.pdh-picture") != live, "it trains", timeout=TRAINING)
    jupyter.page.get_by_role("button", name="instant: look up a run").click()
    jupyter.eventually(lambda: jupyter.text(".pdh-ml2r") == shown[-1][0], "the row of the sweep is back")
    jupyter.drive()
    assert jupyter.errors() == []


def test_the_response_lab_follows_both_sliders(jupyter):
    serve_cells(
        jupyter,
        "response",
        "import pd_helpers as pdh\nnet = pdh.make_target(pdh.ResidualMLPConfig(target_steps=100), seed=0)",
        "pdh.widgets.ResponseLab(net, feature=42)",
    )
    feature, value = jupyter.slider("feature that is on"), jupyter.slider("its value")
    assert (feature.readout, value.readout) == ("42", "1.00")

    def move(slider, key: str) -> float:
        before = jupyter.text(".pdh-output"), jupyter.image("img.pdh-picture")
        slider.press(key)
        jupyter.eventually(lambda: jupyter.text(".pdh-output") != before[0], "the readout follows")
        jupyter.eventually(lambda: jupyter.image("img.pdh-picture") != before[1], "the picture follows")
        return float(jupyter.text(".pdh-output"))

    assert move(value, "ArrowLeft") > 0
    assert move(value, "Home") < 0
    move(feature, "ArrowRight")
    assert (feature.value, value.value) == (43, -1)
    jupyter.drive()
    assert jupyter.errors() == []
