"""The teachers' page: what it quotes from checks and says of labs is still so."""

import re

import build
import timetables

from pd_helpers.checks import CHECKS

PAGE = (build.NOTEBOOKS / "teaching.md").read_text(encoding="utf-8")
SLIPS = {slip for check in CHECKS.values() for slip in check.slips}


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its first two lines."""
    table = re.search(r"(\|.*\|\n)+", PAGE.split(f"\n## {heading}\n")[1])[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_quoted_slips_are_what_checks_say():
    quoted = [
        cells[1].strip("*").replace(r"\*", "*")
        for cells in rows("What students get wrong, and the question that helps")
    ]
    assert len(quoted) > 10
    assert [quote for quote in quoted if not any(slip.startswith(quote) for slip in SLIPS)] == []


def test_labs_are_in_the_notebooks_they_are_said_to_be_in():
    labs = rows("Labs for the projector")
    assert len(labs) > 5
    for lab, notebook, _ in labs:
        name = re.search(r"\((\w+)\.ipynb\)", notebook)[1]
        assert f"pdh.widgets.{lab.strip('`')}(" in build.read_source(name)


def test_sections_of_the_class_exist():
    plan = rows("A class of 90 minutes")
    assert sum(int(minutes) for minutes, *_ in plan) == 90
    for *_, where in plan:
        for name, sections in re.findall(r"\]\((\w+)\.ipynb\): ([^\[]*)", where):
            source = build.read_source(name)
            for section in re.findall(r"\*(.+?)\*", sections):
                assert re.search(rf"^# ##+ {re.escape(section)}", source, re.M), f"{name}: {section}"


def test_links_lead_to_pages_and_notebooks():
    for target in re.findall(r"\]\(([\w.]+)\)", PAGE):
        assert (build.NOTEBOOKS / target).exists()


def test_every_plan_has_its_table_of_times():  # whether they are current is for `build.py --check` to say
    assert len(timetables.TIMETABLE.findall(PAGE)) == 6
