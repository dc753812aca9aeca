"""The glossary: in order, with links that hold, and no term in a notebook's text before the one that introduces it."""

import re
from collections.abc import Iterator

import build
import pytest

ENTRY = re.compile(r"- \*\*(.+?)\*\*.* \[(\d\d)\]\(((\d\d)_\w+)\.ipynb\)(?: <!-- first: (.+) -->)?")
# Sentences and table rows that say which notebook they speak of may look ahead.
ELSEWHERE = re.compile(r"[Nn]otebooks? \d\d|\d\d_\w+\.ipynb|\| (\d\d(, )?)+ \|")

PAGE = (build.NOTEBOOKS / "glossary.md").read_text(encoding="utf-8")
LINES = [line for line in PAGE.split("## Further reading")[0].splitlines() if line.startswith("- ")]
ENTRIES = [match.groups() for line in LINES if (match := ENTRY.fullmatch(line))]
ORDER = {term: (notebook, pattern) for term, _, notebook, _, pattern in ENTRIES if pattern}


def sentences(text: str) -> Iterator[str]:
    """Sentences of a text cell; a line of a table counts as one, and a folded title as well."""
    for paragraph in re.split(r"\n\s*\n|\n(?=[|#<-])|(?<=\|)\n|</summary>", text):
        yield from [paragraph] if paragraph.startswith("|") else re.split(r"(?<=[.?!:])\s+(?=[^a-z])", paragraph)


def prose(name: str) -> Iterator[str]:
    for cell in build.assemble(name).cells:
        if cell.cell_type == "markdown":
            yield from sentences(re.sub(r"```.*?```", "", cell.source, flags=re.S))


PROSE = {name: list(prose(name)) for name in build.sources()}


def too_early(pattern: str, introduced: str, prose: dict[str, list[str]]) -> list[str]:
    """Sentences with a term in notebooks before the one that introduces it, unless they say where it comes from."""
    return [
        f"{name}: {sentence}"
        for name, sentences in prose.items()
        if name < introduced
        for sentence in sentences
        if re.search(pattern, sentence) and not ELSEWHERE.search(sentence)
    ]


def test_every_line_is_an_entry():
    assert [line for line in LINES if not ENTRY.fullmatch(line)] == []
    assert all(number == prefix for _, number, _, prefix, _ in ENTRIES)
    assert len(ORDER) >= 30


def test_terms_are_in_alphabetical_order():
    terms = [term.casefold() for term, *_ in ENTRIES]
    assert terms == sorted(terms)


def test_links_lead_to_notebooks():
    assert {notebook for _, _, notebook, *_ in ENTRIES} <= set(PROSE)


@pytest.mark.parametrize("term", ORDER)
def test_a_term_is_introduced_before_it_is_used(term):
    introduced, pattern = ORDER[term]
    assert too_early(pattern, introduced, PROSE) == []
    assert any(re.search(pattern, sentence) for sentence in PROSE[introduced])


def test_an_early_use_would_be_found():
    early = {
        "01_a": ["Scrubbing is simple.", "Scrubbing comes in notebook 08.", "| scrubbing | 06, 08 |"],
        "08_b": ["We scrub."],
    }
    assert too_early("[Ss]crub", "08_b", early) == ["01_a: Scrubbing is simple."]


def test_sentences():
    text = "## Title\nOne thing. Another, e.g. this\none: $x$\n\n- item\n- item?\n\n| a? B. C |\n| b |"
    assert list(sentences(text)) == [
        "## Title\nOne thing.",
        "Another, e.g. this\none:",
        "$x$",
        "- item",
        "- item?",
        "| a? B. C |",
        "| b |",
    ]
