"""The lab of notebook 13 in a real JupyterLab, moved by keyboard."""

from browser import TRAINING, serve_cells


def test_the_room_lab_trains_at_another_size_and_comes_back_at_once(jupyter):
    code = 'import pd_helpers as pdh\nrun = pdh.shipped("spd/tms_5-2_id")\n'
    brief = 'brief = pdh.run("spd/tms_5-2_id", target=run, steps=60, n_init=1, show_progress=False, device="cpu")\n'
    serve_cells(jupyter, "room", code, "pdh.widgets.RoomLab(run)", brief + "pdh.widgets.RoomLab(brief)")
    slider = jupyter.slider("subcomponents offered, C")
    assert slider.readout == "20"
    assert (jupyter.text(".pdh-alive-embed"), jupyter.text(".pdh-alive-identity")) == ("5", "2")
    before = jupyter.image("img.pdh-picture")
    slider.press("Home")
    jupyter.eventually(lambda: "of 5" in jupyter.text(".pdh-readout"), "five are on offer", timeout=TRAINING)
    jupyter.eventually(lambda: jupyter.image("img.pdh-picture") != before, "the picture follows", timeout=TRAINING)
    for _ in range(2):
        slider.press("ArrowRight")  # what is being trained is given up
    jupyter.eventually(lambda: "of 20" in jupyter.text(".pdh-readout"), "the shipped run is back")
    assert jupyter.text(".pdh-alive-identity") == "2"
    _, brief_lab = jupyter.labs
    brief_lab.drive()  # sliders do the same for a short training as for a long one
    assert jupyter.errors() == []
