"""The course as text: headings in order, links that lead somewhere and say where, and a list of those that lead out."""

import json
import re
from itertools import pairwise
from pathlib import Path

import badges
import build
import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = re.compile(r"^```.*?^```[ \t]*$|`[^`\n]*`", re.M | re.S)
FENCE = re.compile(r"^```.*?^```[ \t]*$", re.M | re.S)
HEADING = re.compile(r"^(#+) +(.+?)\s*#*$", re.M)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
ADDRESS = re.compile(r"https?://[^\s)>\]\"'`]+")
VAGUE = {"here", "this", "link", "click here", "this link", "more", "see", "notebook"}
WIDEST = 940
"""Pixels of a figure at most: letters of 10 points have 9 when a page shows it 600 pixels wide."""


def texts() -> dict[str, str]:
    """The Markdown that readers see, by path; of notebooks as it is built, with solutions folded in."""
    notebooks = {
        f"notebooks/{name}.ipynb": "\n\n".join(
            c.source for c in build.assemble(name).cells if c.cell_type == "markdown"
        )
        for name in build.sources()
    }
    written = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return notebooks | {str(path.relative_to(ROOT)): path.read_text() for path in written}


TEXTS = texts()


def places(path: str) -> set[str]:
    """What stands behind # in links to the headings of a text: as JupyterLab makes them, or as GitHub does."""
    headings = [re.sub(r"[*`]", "", text) for _, text in HEADING.findall(FENCE.sub("", TEXTS[path]))]
    if path.endswith(".ipynb"):
        return {heading.replace(" ", "-") for heading in headings}
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", TEXTS)
def test_headings_are_in_order(path):
    levels = [len(marks) for marks, _ in HEADING.findall(FENCE.sub("", TEXTS[path]))]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert [(a, b) for a, b in pairwise(levels) if b > a + 1] == []


@pytest.mark.parametrize("path", TEXTS)
def test_links_lead_somewhere(path):
    dead = []
    for _, _, link in LINK.findall(CODE.sub("", TEXTS[path])):
        file, _, place = link.partition("#")
        if ADDRESS.match(link):
            continue
        target = (ROOT / path).parent / file if file else ROOT / path
        if not target.exists() or (place and place not in places(str(target.resolve().relative_to(ROOT)))):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("path", TEXTS)
def test_links_say_where_they_lead_and_pictures_what_they_show(path):
    links = LINK.findall(CODE.sub("", TEXTS[path]))
    assert [text for _, text, _ in links if not text.strip() or text.strip().lower() in VAGUE] == []


def test_the_list_of_external_links_is_complete():
    listed = re.findall(r"^\| (https?://\S+) \| (.+) \|$", (ROOT / "docs" / "links.md").read_text(), re.M)
    assert len({address for address, _ in listed}) == len(listed)
    assert all(purpose.strip() for _, purpose in listed)
    sources = [ROOT / "README.md", *(ROOT / "notebooks" / "source").glob("*.py")]
    sources += [*(ROOT / "pd_helpers").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    written = (badges.fill_block(path.read_text(), badges.TAG, None) for path in sources)  # without launch badges
    used = {address.rstrip(".,;:") for text in written for address in ADDRESS.findall(text)}
    assert used == {address for address, _ in listed}


@pytest.mark.parametrize("name", build.sources())
def test_figures_are_narrow_enough_to_read(name):
    # that each has an alt text is checked by build.py --check
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())["cells"]
    figures = [o for cell in cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert figures
    assert [f["metadata"]["image/png"]["width"] for f in figures if f["metadata"]["image/png"]["width"] > WIDEST] == []
