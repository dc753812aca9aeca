"""Notebook 19's lab in a real JupyterLab: a sequence is retyped, pieces are switched off, the slider is moved."""

from test_browser import serve_cells

RUN = """
import pd_helpers as pdh
run = pdh.shipped("vpd/induction", "seed0")
"""
TEXT = "input[type='text']"


def test_the_attention_lab_answers_what_is_typed(jupyter):
    serve_cells(jupyter, "attention", RUN, "pdh.widgets.AttentionLab(run)")
    box = jupyter.page.locator(".jp-OutputArea .widget-text").locator(TEXT).first

    def type_in(text: str, answer: str) -> None:
        box.fill(text)
        jupyter.eventually(lambda: jupyter.text(".pdh-answer") == answer, f"the answer to {text}")

    type_in("abcdefgh*Kjklmnopqrstuvwxyzabc", "K")
    type_in("ab*Zefghijkljklmnopqrstuvwxyza", "Z")
    box.fill("abc")
    jupyter.eventually(lambda: "must have 30 characters" in jupyter.text(".pdh-readout"), "a word on what is wrong")
    assert jupyter.text(".pdh-answer") == "Z"
    type_in("abcdefgh*Kjklmnopqrstuvwxyzabc", "K")
    sure = float(jupyter.text(".pdh-probability"))
    assert sure > 0.9
    pieces = jupyter.page.locator(".jp-OutputArea .widget-select-multiple select").first
    labels = pieces.evaluate("list => [...list.options].map(option => option.label.replaceAll('\\u00a0', ' '))")
    pieces.select_option(index=[i for i, label in enumerate(labels) if label.startswith("layer 1, k: all")])
    jupyter.eventually(lambda: float(jupyter.text(".pdh-probability")) < sure / 2, "the answer is lost without keys")
    pieces.select_option(index=[])
    jupyter.eventually(lambda: jupyter.text(".pdh-answer") == "K", "the answer is back")
    jupyter.drive()
    assert jupyter.errors() == []
