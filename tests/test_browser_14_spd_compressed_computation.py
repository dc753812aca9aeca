"""Notebook 14's lab in a real JupyterLab, moved by keyboard."""

from test_browser import serve_cells

RUNS = """
import pd_helpers as pdh
variants = {1e-6: "beta1e-06", 1e-5: "seed0", 1e-3: "beta1e-03"}
runs = {beta_3: pdh.shipped("spd/resid_mlp_1", name) for beta_3, name in variants.items()}
"""


def test_the_price_lab_follows_its_slider(jupyter):
    serve_cells(jupyter, "price", RUNS, "pdh.widgets.ImportanceCoefficientLab(runs, 1e-5)")
    slider = jupyter.slider("importance coefficient β₃")
    assert slider.readout == "1e-05"

    def move(key: str) -> tuple[int, int]:
        before = jupyter.text(".pdh-W_out"), jupyter.image("img.pdh-picture")
        slider.press(key)
        jupyter.eventually(lambda: jupyter.text(".pdh-W_out") != before[0], "the readout follows")
        jupyter.eventually(lambda: jupyter.image("img.pdh-picture") != before[1], "the picture follows")
        return int(jupyter.text(".pdh-W_in")), int(jupyter.text(".pdh-W_out"))

    assert move("ArrowLeft")[0] < 70
    assert move("ArrowRight") == (100, 50)
    assert move("End")[1] > 80
    jupyter.drive()
    assert jupyter.errors() == []
