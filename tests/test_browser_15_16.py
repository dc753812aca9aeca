"""The labs of notebooks 15 and 16 in a real JupyterLab, moved by keyboard."""

from browser import TRAINING, serve_cells


def test_the_layers_lab_follows_run_and_feature(jupyter):
    code = (
        'import pd_helpers as pdh\nruns = {n: pdh.shipped(f"spd/resid_mlp_{n[0]}") for n in ("2 layers", "1 layer")}\n'
    )
    serve_cells(jupyter, "layers", code, "pdh.widgets.LayersLab(runs, feature=42)")
    run, feature = jupyter.slider("run"), jupyter.slider("feature")

    def move(slider, key: str) -> str:
        before = jupyter.text(".pdh-shares"), jupyter.image("img.pdh-picture")
        slider.press(key)
        jupyter.eventually(lambda: jupyter.text(".pdh-shares") != before[0], "the readout follows")
        jupyter.eventually(lambda: jupyter.image("img.pdh-picture") != before[1], "the picture follows")
        return jupyter.text(".pdh-shares")

    assert move(feature, "End").count("%") == 2
    assert move(feature, "Home").count("%") == 2
    assert move(run, "ArrowRight") == "100%"
    jupyter.drive()
    assert jupyter.errors() == []


GUESS = """
import pd_helpers as pdh
runs = [pdh.shipped(f"{method}/tms_5-2") for method in ("apd", "spd")]
"""
BRIEF_GUESS = """
settings = {"steps": 100, "n_init": 1, "show_progress": False, "device": "cpu"}
brief = [pdh.run(run.name, target=run, **settings) for run in runs]
pdh.widgets.GuessLab(*brief)
"""


def test_the_guess_lab_trains_both_methods_and_the_last_move_wins(jupyter):
    serve_cells(jupyter, "guess", GUESS, "pdh.widgets.GuessLab(*runs)", BRIEF_GUESS)
    slider = jupyter.slider("times the published value")
    assert slider.readout == "1"
    before = jupyter.image("img.pdh-picture")
    slider.press("End")
    jupyter.eventually(lambda: jupyter.image("img.pdh-picture") != before, "the picture follows", timeout=TRAINING)
    slider.press("ArrowLeft")  # what is being trained is given up
    jupyter.eventually(lambda: "0.633" in jupyter.text(".pdh-readout"), "APD takes the second value", timeout=TRAINING)
    jupyter.page.get_by_role("button", name="stop").first.click()
    label = ".pdh-progress .widget-label"
    jupyter.eventually(lambda: jupyter.text(label) == "stopped", "training is given up", timeout=TRAINING)
    _, brief = jupyter.labs
    brief.drive()  # sliders do the same for a short training as for a long one
    assert jupyter.errors() == []
