"""The labs of notebooks 10 and 11 in a real JupyterLab, moved by keyboard."""

from browser import TRAINING, serve_cells

GATED = """
import pandas
import pd_helpers as pdh
pdh.widgets.GatedLab(pandas.concat([pdh.shipped_sweep("apd/gated", name) for name in ("seeds", "coefficients")]))
"""


def test_the_gated_lab_walks_through_seeds_and_coefficients(jupyter):
    serve_cells(jupyter, "gated", GATED)
    seed, coefficient = jupyter.slider("seed"), jupyter.slider("simplicity λ_S")
    assert (seed.readout, coefficient.readout) == ("0", "5.0")
    pictures = [jupyter.image("img.pdh-picture")]
    for slider, key, readout in ((seed, "End", "19"), (coefficient, "Home", "0.5"), (seed, "ArrowLeft", "2")):
        slider.press(key)
        jupyter.eventually(lambda s=slider, r=readout: s.readout == r, "the slider moves")
        jupyter.eventually(lambda: jupyter.image("img.pdh-picture") not in pictures, "the picture follows")
        pictures.append(jupyter.image("img.pdh-picture"))
    assert jupyter.text(".pdh-served") in "01234"
    jupyter.drive()
    assert jupyter.errors() == []


LP = """
import pd_helpers as pdh
gentle = {"unit_norm": False, "lr": 0.03, "batch_size": 512, "attribution_p": 0.5, "device": "cpu"}
gentle |= {"minimality_coeff": 0.3, "simplicity_coeff": 0.1, "show_progress": False}
run = pdh.run("apd/tms_5-2_lp", **gentle)
pdh.widgets.LpLab(run)
"""
BRIEF_LP = """
brief = pdh.run("apd/tms_5-2_lp", target=run, **gentle, steps=100)
pdh.widgets.LpLab(brief)
"""


def test_in_the_lp_lab_one_component_holds_all_columns_until_simplicity_breaks_it_up(jupyter):
    serve_cells(jupyter, "lp", LP, BRIEF_LP)
    # How the processor rounds decides whether one column leaves, and whether a splinter wins one: ML2R is 0.78 to 1.
    assert float(jupyter.text(".pdh-ml2r")) > 0.7
    assert jupyter.text(".pdh-own") in "01"
    jupyter.slider("simplicity λ_S").press("End")
    jupyter.slider("minimality λ_M").press("Home")  # before the first training has ended, which is given up
    jupyter.eventually(lambda: float(jupyter.text(".pdh-ml2r")) < 0.6, "columns are split", timeout=TRAINING)
    jupyter.eventually(lambda: "step 2000" in jupyter.text(".pdh-readout"), "training ends", timeout=TRAINING)
    _, brief = jupyter.labs
    brief.drive()  # sliders do the same for a short training as for a long one
    assert jupyter.errors() == []
