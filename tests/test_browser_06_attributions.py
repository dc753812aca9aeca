"""The attribution lab in a real JupyterLab, moved by keyboard."""

from test_browser import serve_cells

LAB = """
import pd_helpers as pdh, torch
target = pdh.TMS(n_features=5, n_hidden=2).requires_grad_(False)
angles = 2 * torch.pi * torch.arange(5) / 5
target.embed.weight.copy_(1.14 * torch.stack([angles.cos(), angles.sin()]))  # a pentagon
target.unembed.bias.fill_(-0.24)
W = target.embed.weight
cuts = {"mechanisms": torch.einsum("ic,cj->cij", W, torch.eye(5)), "halves": torch.stack([W / 2, W / 2])}
lab = pdh.widgets.AttributionLab(target, cuts)
"""


def test_the_attribution_lab_follows_its_sliders(jupyter):
    serve_cells(jupyter, "attributions", LAB, "lab")
    value, component = jupyter.slider("value of feature 2"), jupyter.slider("component of the curves")
    assert value.readout == "0.60"

    def move(slider, key: str) -> float:
        before = jupyter.text(".pdh-ablation"), jupyter.image("img.pdh-picture")
        slider.press(key)
        jupyter.eventually(lambda: jupyter.text(".pdh-ablation") != before[0], "the readout follows")
        jupyter.eventually(lambda: jupyter.image("img.pdh-picture") != before[1], "the picture follows")
        return float(jupyter.text(".pdh-ablation"))

    move(value, "End")
    assert value.value == 1
    move(component, "ArrowRight")
    move(value, "Home")
    assert float(jupyter.text(".pdh-gradient")) == 0  # feature 0 at 0.5 alone uses mechanism 0 alone
    menu = jupyter.page.locator(".widget-dropdown select").first
    menu.press("h")  # the entry that begins with it
    jupyter.eventually(lambda: jupyter.page.get_by_text("With halves").count(), "the components change")
    jupyter.drive()
    assert jupyter.errors() == []
