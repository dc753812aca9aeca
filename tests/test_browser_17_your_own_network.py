"""Notebook 17's lab in a real JupyterLab, moved by keyboard."""

from test_browser import serve_cells

BY_HAND = """
import torch
import pd_helpers as pdh

net = torch.nn.Sequential(torch.nn.Linear(6, 4))  # without its pieces it answers 3, which no input is
net[0].weight.data, net[0].bias.data = 9 * torch.eye(4, 6), torch.eye(4)[3]
config = pdh.SPDConfig(C=6, steps=1, batch_size=8)
run = pdh.fit(net, config, lambda n, g: torch.rand(n, 6, generator=g), ["0"], device="cpu", show_progress=False)
run.components.layers["0"].assign_(9 * torch.stack([torch.diag(row)[:4] for row in torch.eye(6)]))
gate = run.importance.mlps["0"]
gate.w_out.data.zero_()
gate.b_out.data = torch.tensor([1.0, 1, 1, 0, 0, 0])  # three are always important
x = torch.eye(6)[:3].repeat(20, 1)
"""


def test_the_subcomponent_lab_switches_pieces_off(jupyter):
    serve_cells(jupyter, "own", BY_HAND, "pdh.widgets.SubcomponentLab(run, x, x.argmax(dim=1), shape=(2, 3))")
    assert jupyter.text(".pdh-accuracy") == "1.000"
    first, before = jupyter.text(".pdh-c"), jupyter.image("img.pdh-picture")
    jupyter.page.get_by_role("button", name="switch it off").press("Enter")
    jupyter.eventually(lambda: jupyter.text(".pdh-accuracy") == "0.667", "one class is lost")
    jupyter.eventually(lambda: jupyter.image("img.pdh-picture") != before, "the picture follows")
    jupyter.slider("subcomponent, by use").press("End")
    jupyter.eventually(lambda: jupyter.text(".pdh-accuracy") == "1.000", "the last one does nothing")
    assert jupyter.text(".pdh-c") != first
    jupyter.drive()
    assert jupyter.errors() == []
