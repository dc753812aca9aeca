"""Run times in words and in tables: what `{{minutes}}` and `<!-- minutes 00-02 07 -->` stand for; see `build`."""

import re
from pathlib import Path

from course_files import NOTEBOOKS, BuildError, read_seconds, read_source, sources
from nbformat import NotebookNode

MINUTES = re.compile(r"\{\{minutes(?::(\w+))?\}\}")
TITLE = re.compile(r"^# # (.+)$", re.M)
PLANNED = re.compile(r"^# \| (\d+) minutes \| (\d+) minutes \| \{\{minutes\}\} \|", re.M)
TIMETABLE = re.compile(r"(<!-- minutes ([\d -]+) -->\n)(.*?)(<!-- end -->)", re.S)


def fill_minutes(name: str, notebook: NotebookNode, folder: Path = NOTEBOOKS) -> None:
    """Replace the placeholders for run times by the recorded ones, in place."""
    seconds, names = read_seconds(folder), sources(folder)

    def measured(match: re.Match[str]) -> str:
        other = match[1] or name
        if other not in names:
            raise BuildError(f"{name}: {match[0]} names no notebook; the sources are: {', '.join(names)}")
        return in_words(seconds[other]) if other in seconds else "a time not measured yet"

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = MINUTES.sub(measured, cell.source)


def in_words(seconds: float) -> str:
    """A run time as one would say it: to the minute, since machines differ by more than that."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return "under a minute"
    return "about a minute" if minutes == 1 else f"about {minutes} minutes"


def timetable(numbers: str, folder: Path = NOTEBOOKS) -> str:
    """A table of the times that notebooks take, such as "00-02 07": as planned in their headers, and as measured."""
    ranges = [(first, last or first) for first, _, last in (token.partition("-") for token in numbers.split())]
    names = [name for name in sources(folder) if any(first <= name[:2] <= last for first, last in ranges)]
    lines = ["| notebook | read | do | runs on two cores |", "|---|---|---|---|"]
    seconds, total = read_seconds(folder), [0, 0]
    for name in names:
        source = read_source(name, folder)
        title, planned = TITLE.search(source), PLANNED.search(source)
        if not (title and planned):
            raise BuildError(f"{name}: its header says no title, or not how many minutes it takes to read and to do")
        read, do = int(planned[1]), int(planned[2])
        total = [total[0] + read, total[1] + do]
        run = in_words(seconds[name]) if name in seconds else "not measured yet"
        lines.append(f"| [{title[1]}]({name}.ipynb) | {read} minutes | {do} minutes | {run} |")
    if len(names) > 1:
        run = in_words(sum(seconds.get(name, 0) for name in names))
        lines.append(f"| **together {sum(total) / 60:.1f} hours** | {total[0]} minutes | {total[1]} minutes | {run} |")
    return "\n".join(lines) + "\n"


def fill_timetables(page: str, folder: Path = NOTEBOOKS) -> str:
    """The text of a page with its tables of times brought up to date."""
    return TIMETABLE.sub(lambda m: m[1] + timetable(m[2], folder) + m[4], page)


def stale_pages(folder: Path = NOTEBOOKS) -> list[Path]:
    """Pages beside the notebooks whose tables of times are not those of today."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.md"))}
    return [path for path, text in texts.items() if fill_timetables(text, folder) != text]
