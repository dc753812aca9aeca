"""The lab on matrix decompositions in a real JupyterLab, moved by keyboard."""

from test_browser import serve_cells

LAB = """
import pd_helpers as pdh, torch
angles = 2 * torch.pi * torch.arange(5) / 5
lab = pdh.widgets.TermsLab(torch.stack([angles.cos(), angles.sin()]).double())
"""


def test_fewer_terms_leave_more_out(jupyter):
    serve_cells(jupyter, "terms", LAB, "lab")
    n_terms = jupyter.slider("number of terms")
    assert jupyter.text(".pdh-left") == "0.0%"
    before = jupyter.image("img.pdh-picture")
    n_terms.press("Home")
    jupyter.eventually(lambda: jupyter.text(".pdh-left") == "50.0%", "half of a pentagon is left out")
    jupyter.eventually(lambda: jupyter.image("img.pdh-picture") != before, "the picture follows")
    jupyter.page.locator(".widget-dropdown select").first.press("o")  # the entry that begins with it
    n_terms.press("End")

    def named() -> bool:
        return (jupyter.text(".pdh-left"), jupyter.text(".pdh-used")) == ("0.0%", "1.0")

    jupyter.eventually(named, "every arrow has a term of its own")
    jupyter.drive()
    assert jupyter.errors() == []
