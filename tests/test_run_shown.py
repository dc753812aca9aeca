"""What a run says of itself, as text and in a notebook."""

from functools import cache
from html.parser import HTMLParser

import pytest
import torch
from networks import MLP
from torch import nn

import pd_helpers as pdh

pytestmark = pytest.mark.usefixtures("one_thread", "quick_evaluation", "as_a_user")

SPD = pdh.SPDConfig(C=4, d_gate=3, steps=6, batch_size=16)
APD = pdh.APDConfig(C=4, steps=3, batch_size=16, top_k=2.0)
BOTH = pytest.mark.parametrize("config", [SPD, APD], ids=["spd", "apd"])
VOID = {"br", "hr", "img", "input", "link", "meta"}


class Page(HTMLParser):
    """The texts of a page by the element they stand in; AssertionError where elements do not close in order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.texts, self.attributes, self.kinds = [], {}, [], set()
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.kinds.add(tag)
        self.attributes += attributes
        assert tag not in VOID
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.setdefault(self.open[-1], []).append(text)


@cache
def fitted(config):
    torch.manual_seed(0)
    return pdh.fit(MLP(6, 5, 4), config, torch.rand(40, 6), show_progress=False, device="cpu")


@BOTH
def test_a_network_of_ones_own(config):
    run = fitted(config)
    text, measured = repr(run), run.metrics
    assert text.startswith(f"{run.method.name.upper()} decomposition of MLP, a network of your own (seed 0).")
    for use in ("fc1", "fc2"):
        alive, l0 = measured["n_alive"][use], measured["l0"][use]
        assert f"{use} (4 components, {alive} alive, L0 {l0:.3g})" in text
    assert f"Reconstruction error {measured['recon']:.3g}" in text
    assert f"faithfulness error {measured['faithfulness']:.3g}" in text
    assert f"Trained for {config.steps} steps in {run.seconds:.3g} s on cpu." in text
    assert str(run) == text
    assert "\n" not in text


def test_a_preset():
    text = repr(pdh.shipped("spd/tms_5-2"))
    assert text.startswith("SPD decomposition of TMS, preset spd/tms_5-2 (seed 0). Layers: embed (20 components, 5 ")
    assert "1,600 steps" in text


def test_an_unfinished_run():
    run = pdh.prepare("spd/tms_5-2", show_progress=False, target_steps=2, batch_size=16, n_init=2, steps=1000)
    assert "Unfinished: at step 0 of 1,000" in repr(run)
    assert "with 2 initialisations to choose from, not measured yet." in repr(run)
    assert "alive" not in repr(run)
    page = Page(run._repr_html_())
    assert page.texts["td"] == ["embed", "20", "unembed", "20"]


def test_every_run_fits_in_a_paragraph():
    layers = {f"a_layer_of_a_name_that_is_rather_long_{i}": nn.Linear(3, 3) for i in range(20)}
    network = nn.Sequential()
    for name, layer in layers.items():
        network.add_module(name, layer)
    network.__class__ = type("N" * 300, (nn.Sequential,), {})
    run = pdh.fit(network, SPD, torch.rand(40, 3), show_progress=False, device="cpu")
    run.metrics["n_alive"] = dict.fromkeys(run.metrics["n_alive"], 10**9)
    run.name = "x" * 300
    assert len(repr(run)) <= 600
    assert "name_that_is_rather_long_2 (4" in repr(run)
    assert "and 17 more" in repr(run)
    page = Page(run._repr_html_())
    assert "and 8 more layers" in page.texts["p"]
    assert len(page.texts["td"]) == 4 * 12


@BOTH
def test_the_page(config):
    run = fitted(config)
    page, measured = Page(run._repr_html_()), run.metrics
    assert page.texts["th"] == ["layer", "components", "alive", "L0"]
    rows = [[use, "4", str(measured["n_alive"][use]), f"{measured['l0'][use]:.3g}"] for use in ("fc1", "fc2")]
    assert page.texts["td"] == [text for row in rows for text in row]
    assert all(sentence in repr(run) for sentence in page.texts["p"])
    assert page.kinds == {"div", "p", "table", "thead", "tbody", "tr", "th", "td"}
    assert page.attributes == []  # no colours, no addresses


def test_names_are_escaped():
    network = nn.Sequential()
    network.add_module("<b>&amp;", nn.Linear(3, 3))
    network.__class__ = type("<script>", (nn.Sequential,), {})
    run = pdh.fit(network, SPD, torch.rand(40, 3), show_progress=False, device="cpu")
    page = Page(run._repr_html_())
    assert "script" not in page.kinds
    assert "<script>" in page.texts["p"][0]
    assert page.texts["td"][0] == "<b>&amp;"


def test_metrics_that_are_none_are_shown_all_the_same():
    run = pdh.fit(MLP(6, 5, 4), SPD, torch.rand(40, 6), show_progress=False, device="cpu")
    run.metrics = {"recon": "good", "n_alive": None, "l0": {"fc1": None}}
    assert "fc1 (4 components, L0 unknown), fc2 (4 components)" in repr(run)
    assert "Reconstruction error unknown." in repr(run)
