"""The lab of notebook 13 in a real JupyterLab, moved by keyboard."""

from browser import TRAINING, serve_cells


def test_the_room_lab_trains_at_another_size_and_comes_back_at_once(jupyter):
    code = 'import pd_helpers as pdh\nrun = pdh.shipped("spd/tms_5-2_id")\n'
    serve_cells(jupyter, "room", code, "pdh.widgets.RoomLab(run)")
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
    jupyter.drive()
    assert jupyter.errors() == []
