"""The lab of notebook 04 in a real JupyterLab, moved by keyboard."""

from browser import serve_cells

LAB = """
import pd_helpers as pdh
pdh.widgets.MixingLab(*(pdh.shipped_sweep("mlp/mixing", name) for name in ("sigma", "probability")))
"""


def test_stronger_mixing_ends_above_the_naive_loss(jupyter):
    serve_cells(jupyter, "mixing", LAB)
    assert float(jupyter.text(".pdh-loss")) < 0.07
    pictures = [jupyter.image("img.pdh-picture")]
    for slider, key, readout in (
        ("size σ of M", "End", "0.08"),
        ("feature probability p", "End", "1.0"),
        ("size σ of M", "Home", "0.0"),
    ):
        control = jupyter.slider(slider)
        control.press(key)
        jupyter.eventually(lambda c=control, r=readout: c.readout == r, "the slider moves")
        jupyter.eventually(lambda: jupyter.image("img.pdh-picture") not in pictures, "the picture follows")
        pictures.append(jupyter.image("img.pdh-picture"))
        if key == "End" and readout == "0.08":
            assert float(jupyter.text(".pdh-loss")) > 0.09
    assert abs(float(jupyter.text(".pdh-loss")) - 1 / 12) < 1e-3
    assert float(jupyter.text(".pdh-loss-p")) < 0.06
    jupyter.drive()
    assert jupyter.errors() == []
