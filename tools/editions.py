"""Editions of the course for a class, made from notebooks/source.

    python tools/editions.py student DIR [NAME ...]   exercises to be done, without their solutions
    python tools/editions.py teacher DIR [NAME ...]   solved exercises, ready for nbgrader
    python tools/editions.py slides DIR NAME [...]    slides in HTML, with the figures of the built notebooks

DIR is a new or empty folder. Without a NAME, an edition holds every notebook.

Exercises and their checks carry nbgrader's cell metadata. The teacher edition is what nbgrader calls the source
version of an assignment: `nbgrader generate_assignment` makes stubs of its solutions and takes out its hidden tests.
"""

import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import build
import nbformat
import timetables
from build import NOTEBOOKS, BuildError
from course_files import Parser, check_place, chosen, exit_code
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

FUNCTION = re.compile(r"^def (\w+)\(", re.M)
CHECK = re.compile(r"pdh\.checks\.(\w+)\((\w+)\)")
HIDDEN_TESTS = "### BEGIN HIDDEN TESTS\npdh.checks.{0}.grade({1})\n### END HIDDEN TESTS"

CODE_LINES_ON_A_SLIDE = 8
WORDS_ON_A_SLIDE = 60
REVEAL = "https://unpkg.com/reveal.js@4.0.2"


# --- Student and teacher ----------------------------------------------------------------------------------


def student(name: str, folder: Path = NOTEBOOKS) -> NotebookNode:
    """Notebook NAME with its exercises unattempted, and no solutions."""
    notebook = build.assemble(name, folder, lambda name, cell: build.exercise(name, cell)[:1])
    return _for_nbgrader(name, notebook, folder)


def teacher(name: str, folder: Path = NOTEBOOKS) -> NotebookNode:
    """Notebook NAME with its exercises solved between nbgrader's markers, and tests hidden in their checks."""

    def solved(name: str, cell: NotebookNode) -> list[NotebookNode]:
        build.exercise(name, cell)  # raises if the markers are not in order
        return [cell]

    notebook = _for_nbgrader(name, build.assemble(name, folder, solved), folder)
    for cell in notebook.cells:
        if is_check(cell):
            cell.source += "\n" + HIDDEN_TESTS.format(*CHECK.match(cell.source).groups())
    return notebook


def _for_nbgrader(name: str, notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Mark exercises and checks, in place, in nbgrader's cell metadata (version 3 of its schema)."""
    waiting = None
    for cell in notebook.cells:
        if is_exercise(cell):
            waiting = FUNCTION.search(cell.source)[1]
            cell.metadata["nbgrader"] = _metadata(waiting, solution=True)
        elif cell.cell_type == "code" and waiting is not None:
            check = CHECK.fullmatch(cell.source.strip())
            if not check or check[2] != waiting:
                raise BuildError(f"{name}: after exercise {waiting} a cell with nothing but its check is wanted")
            cell.metadata["nbgrader"] = _metadata(f"{waiting}-check", grade=True, locked=True, points=1)
            waiting = None
    timetables.fill_minutes(name, notebook, folder)
    nbformat.validate(notebook)
    return notebook


def _metadata(grade_id: str, **values: object) -> NotebookNode:
    defaults = {"grade": False, "grade_id": grade_id, "locked": False, "schema_version": 3, "solution": False}
    return NotebookNode(defaults | {"task": False} | values)


def is_exercise(cell: NotebookNode) -> bool:
    """A stub to fill in, or a solved one with its markers."""
    return cell.cell_type == "code" and bool(build.STUB in cell.source or build.MARKER.search(cell.source))


def is_check(cell: NotebookNode) -> bool:
    """The cell after an exercise that says how it went."""
    return cell.metadata.get("nbgrader", {}).get("grade", False)


# --- Slides -----------------------------------------------------------------------------------------------


def slides(name: str, folder: Path = NOTEBOOKS, reveal: str = REVEAL) -> str:
    """The built notebook as slides, in HTML that loads reveal.js from `reveal`.

    A heading of the second level starts a column of slides. Headings of the third level, figures and tables start
    slides below it. Long text becomes speaker notes; exercises and what helps when something looks wrong are left out.
    """
    from nbconvert import SlidesExporter
    from traitlets.config import Config

    notebook = build.read(name, folder)
    if notebook is None:
        build.read_source(name, folder)  # no such notebook at all?
        raise BuildError(f"{name}: slides show the outputs of the built notebook; run: {build.COMMAND} {name}")
    cells: list[NotebookNode] = []
    skipped = 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts, skipped = _text_on_slides(cell.source, skipped)
            cells += parts
        elif not skipped and cell.outputs:
            cells.append(_code_on_slide(cell))
    below_code = False
    for cell in cells:  # what comes after a figure is not for the eyes of those who look at the figure
        if below_code and cell.metadata.slideshow.slide_type == "-":
            cell.metadata.slideshow.slide_type = "subslide"
        if cell.metadata.slideshow.slide_type != "notes":
            below_code = cell.cell_type == "code"
    notebook.cells = cells
    config = Config()
    config.TagRemovePreprocessor.enabled = True
    config.TagRemovePreprocessor.remove_input_tags = {"hide-input"}
    exporter = SlidesExporter(config=config, reveal_url_prefix=reveal, reveal_scroll=True, anchor_link_text="")
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    html, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": name}})
    return html


HEADING = re.compile(r"(#+) (.*)")
FOLD = re.compile(r"<details><summary>(.*?)</summary>(.*?)</details>", re.S)
LEFT_OUT = re.compile(r"(### )?(Exercise|A first exercise|When something looks wrong)")
SHOWN = re.compile(r"\*\*Predict|\||[^\n]*\$\$|!\[")


def _text_on_slides(text: str, skipped: int) -> tuple[list[NotebookNode], int]:
    """Slides and notes of a text cell, given the level of the heading whose section is left out (0 if none is)."""
    cells: list[NotebookNode] = []
    first = False  # is the next paragraph the first below a heading?
    for block in _blocks(text):
        if heading := HEADING.match(block):
            level = len(heading[1])
            if not skipped or level <= skipped:
                skipped = level if LEFT_OUT.match(heading[2]) else 0
            if not skipped:
                cells.append(_on_slide(block, "slide" if level <= 2 else "subslide"))
                first = True
        elif not skipped:
            if fold := FOLD.fullmatch(block):
                cells += [_on_slide(f"- {fold[1]}", "-"), _on_slide(fold[2].strip(), "notes")]
            else:
                short = first and len(block.split()) <= WORDS_ON_A_SLIDE
                cells.append(_on_slide(block, "-" if short or SHOWN.match(block) else "notes"))
            first = False
    return cells, skipped


def _blocks(text: str) -> Iterator[str]:
    """Paragraphs; a folded text is one of them, whatever it holds."""
    block = ""
    for part in re.split(r"\n\s*\n|\n(?=#+ )|(?<=\n)(?=<details>)", text.strip()):
        block = f"{block}\n\n{part}" if block else part
        if block.count("<details>") == block.count("</details>") and block.count("$$") % 2 == 0:
            head, _, rest = block.partition("\n") if HEADING.match(block) else (block, "", "")
            yield from filter(None, (head.strip(), rest.strip()))
            block = ""
    if block:
        yield block


def _on_slide(text: str, kind: str) -> NotebookNode:
    return new_markdown_cell(text, metadata={"slideshow": {"slide_type": kind}})


def _code_on_slide(cell: NotebookNode) -> NotebookNode:
    """A slide with the cell's outputs, below its code if that is short and there is no picture."""
    pictures = [output for output in cell.outputs if "image/png" in output.get("data", {})]
    for output in pictures:  # as HTML, since nbconvert drops a picture's alt text
        alt = escape(output.metadata["image/png"]["alt"], quote=True)
        image = f'<img src="data:image/png;base64,{output.data["image/png"].strip()}" alt="{alt}">'
        output.data = NotebookNode({"text/html": image})
    cell.metadata["slideshow"] = NotebookNode(slide_type="subslide")
    if pictures or cell.source.count("\n") >= CODE_LINES_ON_A_SLIDE:
        cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
    return cell


# --- Files and command line -------------------------------------------------------------------------------


def write(texts: Mapping[str, str], target: Path) -> None:
    """Write files into a new or empty folder."""
    check_place(target, empty=True)
    target.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (target / name).write_text(text, encoding="utf-8")


def main(arguments: Sequence[str] | None = None, folder: Path = NOTEBOOKS) -> int:
    """Command line; returns the exit code."""
    parser = Parser(description="Editions of the course for a class.")
    parser.add_argument("edition", choices=("student", "teacher", "slides"))
    parser.add_argument("target", type=Path, metavar="DIR", help="a new or empty folder")
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as 02_superposition; all when left out")
    parser.add_argument("--reveal", default=REVEAL, help="where slides find reveal.js (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.edition == "slides" and not options.names:
        parser.error("slides: name the notebooks, such as 02_superposition 07_apd_superposition")
    make: Callable[[str, Path], NotebookNode] = student if options.edition == "student" else teacher
    try:
        check_place(options.target, empty=True)
        names = chosen(options.names, folder)
        if options.edition == "slides":
            texts = {f"{name}.slides.html": slides(name, folder, options.reveal) for name in names}
        else:
            texts = {f"{name}.ipynb": nbformat.writes(make(name, folder)) + "\n" for name in names}
        write(texts, options.target)
    except BuildError as error:
        print(error, file=sys.stderr)
        return exit_code(error)
    for page in () if options.edition == "slides" else folder.glob("*.md"):  # the notebooks link to them
        shutil.copy(page, options.target)
    print(f"{options.target}: {len(names)} notebook{'s' if len(names) > 1 else ''}, {options.edition} edition")
    return 0


if __name__ == "__main__":
    sys.exit(main())
