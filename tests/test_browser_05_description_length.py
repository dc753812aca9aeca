"""The labs on description length in a real JupyterLab, moved by keyboard."""

from test_browser import serve_cells

LAB = """
import pd_helpers as pdh, torch
rows = [[1, 1]] * 40 + [[1, 0]] * 10 + [[0, 1]] * 10 + [[0, 0]] * 40
lab = pdh.widgets.DescriptionLengthLab(torch.tensor(rows).bool())  # splits at 0.4 / 0.2 = 2
"""


def test_components_split_as_the_slider_moves(jupyter):
    serve_cells(jupyter, "bits", LAB, "lab")
    alpha = jupyter.slider("bits per number α")
    assert jupyter.text(".pdh-groups") == "{0 1}"
    before = jupyter.image("img.pdh-picture")
    alpha.press("End")
    jupyter.eventually(lambda: jupyter.text(".pdh-groups") == "{0} {1}", "the pair splits")
    jupyter.eventually(lambda: jupyter.image("img.pdh-picture") != before, "the picture follows")
    alpha.press("Home")
    jupyter.eventually(lambda: jupyter.text(".pdh-groups") == "{0 1}", "it merges again")
    jupyter.drive()
    assert jupyter.errors() == []


def test_the_schatten_lab_follows_its_sliders(jupyter):
    serve_cells(jupyter, "schatten", "import pd_helpers as pdh", "pdh.widgets.SchattenLab()")
    assert jupyter.text(".pdh-true") != jupyter.text(".pdh-factorised")
    jupyter.slider("turn of the factors, in degrees").press("Home")
    jupyter.eventually(lambda: jupyter.text(".pdh-true") == jupyter.text(".pdh-factorised"), "they agree")
    before = jupyter.text(".pdh-true")
    jupyter.slider("true rank").press("ArrowRight")
    jupyter.eventually(lambda: jupyter.text(".pdh-true") != before, "the rank counts")
    jupyter.drive()
    assert jupyter.errors() == []
