"""The labs of notebooks 08 and 09 in a real JupyterLab, moved by keyboard."""

from browser import serve_cells

RUNS = """
import torch
import pd_helpers as pdh
from pd_helpers.analysis import scrubbing

size = {"n_features": 8, "d_resid": 30, "d_mlp": 4, "feature_probability": 0.2, "target_steps": 300, "target_seed": 0}
brief = {"C": 9, "steps": 40, "batch_size": 64, "lr": 0.01, "init_std": None, "show_progress": False, "device": "cpu"}
losses = {"top_k": 1.28, "top_k_start": 4.0, "simplicity_coeff": 7.0}
runs = {rank: pdh.run("apd/resid_mlp_2", rank=rank, **size, **brief, **losses) for rank in (1, 2, 3)}
found = {rank: scrubbing.single_feature(run, 2000, torch.Generator().manual_seed(0)) for rank, run in runs.items()}
"""


def press(jupyter, slider, key: str) -> bytes:
    """Press a key, wait until the picture has changed, give it."""
    before = jupyter.image("img.pdh-picture")
    slider.press(key)
    jupyter.eventually(lambda: jupyter.image("img.pdh-picture") != before, "the picture follows")
    return jupyter.image("img.pdh-picture")


def test_the_feature_lab_follows_both_sliders(jupyter):
    serve_cells(jupyter, "feature", RUNS, "pdh.widgets.FeatureLab(runs[3], feature=5)")
    feature, on = jupyter.slider("feature"), jupyter.slider("components on")
    assert (feature.readout, on.readout) == ("5", "1")
    one = jupyter.text(".pdh-adds")
    press(jupyter, on, "End")
    assert on.readout == "9"
    jupyter.eventually(lambda: jupyter.text(".pdh-adds") != one, "the number follows")
    press(jupyter, feature, "Home")
    assert feature.value == 0
    jupyter.drive()
    assert jupyter.errors() == []


def test_the_ablation_lab_follows_sliders_and_buttons(jupyter):
    serve_cells(jupyter, "ablation", RUNS, "pdh.widgets.AblationLab(runs[3], feature=5)")
    feature, half = jupyter.slider("feature that is 1"), jupyter.slider("random half")
    press(jupyter, half, "ArrowRight")
    kept, shown = jupyter.text(".pdh-adds"), jupyter.image("img.pdh-picture")
    button = jupyter.page.get_by_role("button", name="ablate it too")
    button.focus()
    jupyter.page.keyboard.press("Enter")
    jupyter.eventually(lambda: jupyter.image("img.pdh-picture") != shown, "the picture follows")
    jupyter.eventually(lambda: jupyter.text(".pdh-adds") != kept, "the number follows")
    press(jupyter, feature, "ArrowLeft")
    assert (feature.value, half.value) == (4, 1)
    jupyter.drive()
    assert jupyter.errors() == []


def test_the_sharing_lab_follows_its_slider(jupyter):
    serve_cells(jupyter, "sharing", RUNS, "pdh.widgets.SharingLab(runs, found, 'rank', 1)")
    rank = jupyter.slider("rank")
    pictures = [jupyter.image("img.pdh-picture"), press(jupyter, rank, "ArrowRight"), press(jupyter, rank, "End")]
    assert rank.readout == "3"
    assert len(set(pictures)) == 3
    assert jupyter.text(".pdh-doubled").isdigit()
    jupyter.drive()
    assert jupyter.errors() == []
