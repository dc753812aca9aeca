"""What a network's maker called a layer is text on the page, never HTML."""

from html.parser import HTMLParser

import ipywidgets
import pytest
import torch
from torch import nn

import pd_helpers as pdh
from pd_helpers.course.kit.lab import Description, LiveLab, Progress, markup

pytestmark = pytest.mark.usefixtures("quick_evaluation")
NAME = '<img src=x onerror=alert(1)>"&amp;'


class Page(HTMLParser):
    """The tags and the text of a piece of HTML, as a browser would see them."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.text = set(), ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        assert all(name in ("class", "style") for name, _ in attributes)

    def handle_data(self, data):
        self.text += data


def pages(lab) -> list[Page]:
    """All HTML that a lab shows."""

    def below(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from below(child)

    return [Page(widget.value) for widget in below(lab.widget) if isinstance(widget, ipywidgets.HTML)]


def test_a_layer_with_a_name_of_html_is_shown_as_it_is_called():
    network = nn.Sequential()
    network.add_module(NAME, nn.Linear(3, 4))
    network.add_module("relu", nn.ReLU())
    network.add_module("out", nn.Linear(4, 2))
    config = pdh.SPDConfig(C=3, steps=2, batch_size=8)
    run = pdh.fit(network, config, lambda n, g: torch.rand(n, 3, generator=g), [NAME, "out"], show_progress=False)
    lab = pdh.widgets.SubcomponentLab(run, torch.rand(6, 3), torch.tensor([0, 1] * 3))
    shown = pages(lab)
    assert any(NAME in page.text for page in shown)
    assert set().union(*(page.tags for page in shown)) <= {"b", "br", "p", "span"}


def test_a_cut_with_a_name_of_html_is_shown_as_it_is_called():
    target = pdh.make_target(pdh.TMSConfig(target_steps=2), show_progress=False)
    lab = pdh.widgets.AttributionLab(target, {NAME: target.embed.weight.detach().unsqueeze(0)})
    assert set().union(*(page.tags for page in pages(lab))) <= {"b", "br", "p", "span"}


def test_an_error_in_training_is_text():
    class Failing(LiveLab):
        def __init__(self):
            self.progress = Progress(self.cancel)
            super().__init__([self.progress], 2, 2)

        async def retrain(self):
            raise ValueError(NAME)

        def describe(self, values):
            return Description("", "")

    lab = Failing()
    with pytest.raises(ValueError, match="onerror"):
        lab.train_anew()
    [page, _] = pages(lab)
    assert (page.tags, page.text) == (set(), f"ValueError: {NAME}")


@pytest.mark.parametrize(
    ("line", "tags", "text"),
    [
        ('<b>3</b> of <span class="pdh-own">5</span><br>more', {"b", "span", "br"}, "3 of 5more"),
        ('<b class="pdh-alive-out">4</b>', {"b"}, "4"),
        ("a < b & c > d", set(), "a < b & c > d"),
        ("<script>alert(1)</script>", set(), "<script>alert(1)</script>"),
        ('<span onclick="x()">1', set(), '<span onclick="x()">1'),
        ('<span class="pdh-" onclick="x()">1', set(), '<span class="pdh-" onclick="x()">1'),
        ("<b onclick=x()>1", set(), "<b onclick=x()>1"),
        ("<B>1", set(), "<B>1"),
    ],
)
def test_only_the_marks_of_labs_are_html(line, tags, text):
    page = Page(markup(line))
    assert (page.tags, page.text) == (tags, text)
