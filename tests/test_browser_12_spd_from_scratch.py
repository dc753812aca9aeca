"""Notebook 12's labs in a real JupyterLab, moved by keyboard."""

from test_browser import serve_cells


def test_the_mask_lab_follows_its_sliders(jupyter):
    serve_cells(
        jupyter,
        "masks",
        "import pd_helpers as pdh\nnet = pdh.make_target(pdh.TMSConfig(target_steps=1500), seed=0)",
        "pdh.widgets.MaskLab(net)",
    )

    def move(label: str, key: str) -> float:
        before = jupyter.text(".pdh-recon"), jupyter.image("img.pdh-picture")
        jupyter.slider(label).press(key)
        jupyter.eventually(lambda: jupyter.text(".pdh-recon") != before[0], "the readout follows")
        jupyter.eventually(lambda: jupyter.image("img.pdh-picture") != before[1], "the picture follows")
        return float(jupyter.text(".pdh-recon"))

    ablated = float(jupyter.text(".pdh-recon"))
    assert move("g of mechanism 0", "End") < ablated / 20
    assert move("feature that is on", "ArrowRight") > ablated / 2
    assert move("g of mechanism 1", "End") < ablated / 20
    jupyter.drive()
    assert jupyter.errors() == []


def test_the_sigmoid_lab_shows_where_gradients_die(jupyter):
    serve_cells(jupyter, "sigmoids", "import pd_helpers as pdh\npdh.widgets.SigmoidLab()")
    assert (jupyter.text(".pdh-hard"), jupyter.text(".pdh-upper-leaky")) == ("-0.50", "-0.50")
    assert float(jupyter.text(".pdh-lower-leaky")) > 0.9
    before = jupyter.image("img.pdh-picture")
    jupyter.slider("the gate Γ at the start").press("End")
    jupyter.eventually(lambda: jupyter.text(".pdh-hard") == "2.00", "the start moves")
    jupyter.page.get_by_role("button", name="minimality pulls g down").press("Enter")
    jupyter.eventually(lambda: float(jupyter.text(".pdh-upper-leaky")) < 1, "the leak lets it fall")
    assert jupyter.text(".pdh-lower-leaky") == "2.00"
    assert jupyter.image("img.pdh-picture") != before
    jupyter.drive()
    assert jupyter.errors() == []
