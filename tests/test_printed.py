"""The printed edition: its links lead somewhere, its pictures have alt texts, and nothing in it is folded."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import build
import nbformat
import printed
import pytest
from nbformat.v4 import new_output

HEADER = "# %% [markdown]\n# # {}\n#\n# **The question:** why\n# {}?\n#\n# *After this* you can.\n\n"
SOURCES = {
    "01_first": HEADER.format("01 · First", "here")
    + "# %%\nprint(1 + 1)\n\n# %% [markdown]\n"
    + "# On to [the second](02_second.ipynb), [its end](02_second.ipynb#The-end).\n",
    "02_second": HEADER.format("02 · Second", "there")
    + "# %% [markdown]\n# A sum $a_1 + b$, alone:\n#\n# $$\\frac{1}{2} < x$$\n#\n# and `$code$`.\n\n"
    + "# %% [markdown]\n# ## The end\n# <details><summary>Solution</summary>\n#\n# Back: [first](01_first.ipynb).\n"
    "#\n# </details>\n",
}
ALT = 'Two "arrows" in a plane, |a| < |b|.'


class Page(HTMLParser):
    """What a page links to, the ids it has, the alt texts of its pictures, and its folds."""

    def __init__(self, text: str):
        super().__init__()
        self.links, self.ids, self.alts, self.folded, self.math, self.fetched = [], set(), [], 0, [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids |= {given[key] for key in ("id", "name") if given.get(key)}
        self.links += [given["href"]] if tag == "a" and given.get("href") else []
        self.alts += [given.get("alt")] if tag == "img" else []
        self.folded += tag == "details" and "open" not in given
        self.math += [given.get("display")] if tag == "math" else []
        self.fetched += [given["src"]] if "src" in given and not given["src"].startswith("data:") else []
        self.fetched += [tag] if tag == "script" else []


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    """Two notebooks; the first has run, and shows a picture."""
    folder = tmp_path_factory.mktemp("course")
    (folder / "source").mkdir()
    for name, text in SOURCES.items():
        (folder / "source" / f"{name}.py").write_text(text)
        notebook = build.assemble(name, folder)
        for cell in build.code_cells(notebook):
            cell.outputs = [
                new_output("stream", name="stdout", text="2\n"),
                new_output(
                    "display_data", {"image/png": "iVBORw0KGgo="}, metadata={"image/png": {"alt": ALT, "width": 1}}
                ),
            ]
        nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder


@pytest.fixture(scope="module")
def pages(course, tmp_path_factory) -> dict[str, Page]:
    directory = tmp_path_factory.mktemp("edition") / "new"
    assert printed.main([str(directory)], course) == 0
    return {path.name: Page(path.read_text()) for path in directory.iterdir()}


def test_a_page_for_each_notebook_and_one_of_contents(pages):
    assert sorted(pages) == ["01_first.html", "02_second.html", "index.html"]


def test_every_link_leads_to_a_page_and_a_place_on_it(pages):
    followed = 0
    for name, page in pages.items():
        for link in page.links:
            file, place = urldefrag(link)
            assert file or place
            target = pages[file or name]
            assert not place or {place, unquote(place)} & target.ids, (name, link)
            followed += 1
    assert followed > 8
    assert {"02_second.html", "02_second.html#The-end", "index.html"} <= set(pages["01_first.html"].links)
    assert {"01_first.html", "02_second.html"} <= set(pages["index.html"].links)


def test_pictures_keep_their_alt_texts(pages):
    assert [page.alts for _, page in sorted(pages.items())] == [[ALT], [], []]


def test_formulas_are_set_without_scripts(course, pages):
    assert pages["02_second.html"].math == ["inline", "block"]
    text = printed.edition(course)["02_second.html"]
    assert re.search(r"<mfrac>\W*(mrow)?\W*mn\W*1\W*/mn\W*(/mrow)?\W*(mrow)?\W*mn\W*2\W", text)
    assert "<code>$code$</code>" in text
    assert [page.fetched for page in pages.values()] == [[], [], []]


def test_nothing_is_folded(pages):
    assert [page.folded for page in pages.values()] == [0, 0, 0]


def test_the_contents_say_what_each_notebook_asks(course):
    text = printed.edition(course)["index.html"]
    assert "why here?" in text
    assert "02 · Second" in text
    assert "After this" not in text


def test_a_dead_link_is_refused(course, tmp_path, capsys, monkeypatch):
    notebook = build.read("01_first", course)
    notebook.cells[-1].source += " [Gone](03_gone.ipynb)."
    monkeypatch.setattr(build, "read", lambda *_: notebook)
    assert printed.main([str(tmp_path / "edition")], course) == 1
    assert "links to 03_gone.ipynb" in capsys.readouterr().err
    assert not (tmp_path / "edition").exists()
