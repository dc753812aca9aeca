"""Notebook 18's lab in a real JupyterLab, moved by keyboard."""

from test_browser import serve_cells

RUNS = """
import pd_helpers as pdh
runs = [pdh.shipped(f"{method}/tms_5-2") for method in ("spd", "vpd")]
"""


def test_the_attack_lab_follows_method_scope_and_sliders(jupyter):
    serve_cells(jupyter, "attack", RUNS, "pdh.widgets.AttackLab(runs)")

    def press(button: str) -> float:
        before = jupyter.image("img.pdh-picture")
        jupyter.page.get_by_role("button", name=button, exact=True).click()
        jupyter.eventually(lambda: jupyter.image("img.pdh-picture") != before, "the picture follows")
        return float(jupyter.text(".pdh-error"))

    spd_shared = float(jupyter.text(".pdh-error"))
    vpd_shared = press("VPD")
    assert vpd_shared < spd_shared
    assert press("per input") > vpd_shared
    assert press("SPD") > spd_shared
    strength = jupyter.slider("strength")
    strength.press("Home")
    jupyter.eventually(lambda: float(jupyter.text(".pdh-error")) < spd_shared / 10, "strength 0 mends it")
    strength.press("End")
    jupyter.drive()
    assert jupyter.errors() == []
