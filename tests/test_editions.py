"""Editions for a class: what they hold and leave out, that students can run theirs, and that nbgrader can read them."""

import ast
import dis
import re
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import build
import editions
import jsonschema
import nbformat
import pytest
import timetables
from nbformat import NotebookNode

import pd_helpers as pdh

NAMES = build.sources()
every = pytest.mark.parametrize("name", NAMES)

# Version 3 of nbgrader's schema for cell metadata, without its optional parts.
SCHEMA = {
    "type": "object",
    "properties": {
        "schema_version": {"const": 3},
        "grade": {"type": "boolean"},
        "locked": {"type": "boolean"},
        "solution": {"type": "boolean"},
        "task": {"type": "boolean"},
        "grade_id": {"type": "string", "pattern": r"^[a-zA-Z0-9_\-]+$"},
        "points": {"type": "number", "minimum": 0},
    },
    "required": ["schema_version", "grade", "locked", "solution", "grade_id"],
    "additionalProperties": False,
}

HEADER = "# # 01 · Example\n#\n# | read | do | run |\n# |---|---|---|\n# | 5 minutes | 10 minutes | {{minutes}} |\n"
EXERCISE = '''
# %%
def double(x):
    """Twice x."""
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION

# %%
pdh.checks.double(double)
'''


def course(folder: Path, text: str) -> Path:
    """A course of one source, not built."""
    (folder / "source").mkdir(parents=True)
    (folder / "source" / "01_example.py").write_text(f"# %% [markdown]\n{HEADER}\n{text}")
    return folder


def marked(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if "nbgrader" in cell.metadata]


def code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


# --- What an edition holds --------------------------------------------------------------------------------


def test_an_exercise_in_both_editions(tmp_path):
    folder = course(tmp_path, EXERCISE)
    stub, check = editions.student("01_example", folder).cells[1:]
    assert stub.source == 'def double(x):\n    """Twice x."""\n    raise NotImplementedError("not attempted yet")'
    assert check.source == "pdh.checks.double(double)"
    solved, tested = editions.teacher("01_example", folder).cells[1:]
    assert "    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION" in solved.source
    assert tested.source.splitlines()[1:] == [
        "### BEGIN HIDDEN TESTS",
        "pdh.checks.double.grade(double)",
        "### END HIDDEN TESTS",
    ]
    assert solved.metadata == stub.metadata
    assert (stub.metadata.nbgrader.grade_id, stub.metadata.nbgrader.solution) == ("double", True)
    assert check.metadata.nbgrader.locked
    assert check.metadata.nbgrader.points == 1


@pytest.mark.parametrize("edition", [editions.student, editions.teacher])
def test_an_exercise_without_its_check_is_refused(tmp_path, edition):
    folder = course(tmp_path, EXERCISE.replace("checks.double(double)", "checks.double(2)"))
    with pytest.raises(build.BuildError, match="after exercise double a cell with nothing but its check"):
        edition("01_example", folder)


@every
def test_the_student_edition_holds_no_solution(name):
    notebook = editions.student(name)
    everything = "\n".join(cell.source for cell in notebook.cells)
    assert "<summary>Solution</summary>" not in everything
    assert not build.MARKER.search(everything)
    assert "{{" not in everything
    assert everything.count(build.STUB) == len(marked(notebook)) / 2
    assert not any(cell.outputs for cell in code(notebook))


@pytest.mark.slow
@every
@pytest.mark.parametrize("edition", [editions.student, editions.teacher])
def test_nbgrader_can_read_it(name, edition):
    notebook = edition(name)
    cells = marked(notebook)
    for cell in cells:
        jsonschema.validate(cell.metadata.nbgrader, SCHEMA)
        assert cell.cell_type == "code"
        assert cell.metadata.nbgrader.grade == ("points" in cell.metadata.nbgrader)
    ids = [cell.metadata.nbgrader.grade_id for cell in cells]
    assert len(set(ids)) == len(ids)
    for solution, check in zip(cells[::2], cells[1::2], strict=True):
        assert solution.metadata.nbgrader.solution
        assert check.metadata.nbgrader.grade
        assert check.metadata.nbgrader.grade_id == f"{solution.metadata.nbgrader.grade_id}-check"
    nbgrader_refuses = [
        c for c in notebook.cells if c not in cells and re.search("(BEGIN|END) (SOLUT|HIDDEN)", c.source)
    ]
    assert not nbgrader_refuses


@every
def test_links_between_notebooks_hold(name):
    text = "\n".join(cell.source for cell in editions.student(name).cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    assert [link for link in links if not (build.NOTEBOOKS / link).exists() or "/" in link] == []


# --- Exercises --------------------------------------------------------------------------------------------


@every
def test_number_of_exercises(name):
    checks = [cell for cell in editions.student(name).cells if editions.is_check(cell)]
    wanted = [1] if name.startswith("00") else [2, 3, 4, 5]
    assert len(checks) in wanted


@every
def test_solutions_in_the_source_pass_and_stubs_do_not(name):
    for edition, verdict in ((editions.teacher(name), "correct"), (editions.student(name), "not attempted yet")):
        scope = imports(edition)
        for cell in marked(edition)[::2]:
            exec(cell.source, scope)
            function = cell.metadata.nbgrader.grade_id
            assert verdict in pdh.checks.CHECKS[function].verdict(scope[function])


def imports(notebook: NotebookNode) -> dict:
    """The namespace that a notebook's imports alone would make."""
    scope: dict = {}
    for cell in code(notebook):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                exec(ast.unparse(node), scope)
    return scope


@every
def test_no_other_cell_depends_on_an_exercise(name):
    notebook = editions.student(name)
    exercises = {cell.metadata.nbgrader.grade_id for cell in marked(notebook)[::2]}
    for cell in code(notebook):
        if "nbgrader" not in cell.metadata:
            assert not set(looked_up(compile(cell.source, name, "exec"))) & exercises


def looked_up(compiled: CodeType) -> Iterator[str]:
    """Names that a cell takes from the notebook, not from within its own functions."""
    yield from (i.argval for i in dis.get_instructions(compiled) if i.opname in ("LOAD_NAME", "LOAD_GLOBAL"))
    for constant in compiled.co_consts:
        if isinstance(constant, CodeType):
            yield from looked_up(constant)


def test_names_that_a_cell_takes_from_the_notebook():
    cell = compile("y = f(x)\ndef h(k):\n    inner = k\n    return g(inner).attribute\n", "cell", "exec")
    assert set(looked_up(cell)) == {"f", "x", "g"}


def test_a_check_has_no_grade_for_a_slip():
    check = pdh.checks.CHECKS["importance_minimality"]
    check.grade(check.solution)
    for slip, wrong in check.slips.items():
        with pytest.raises(AssertionError, match=re.escape(slip)):
            check.grade(wrong)


@pytest.mark.slow
def test_the_student_edition_runs_through():
    from nbclient import NotebookClient

    notebook = editions.student("01_matrix_decomposition")
    resources = {"metadata": {"path": str(build.NOTEBOOKS)}}
    NotebookClient(notebook, timeout=build.CELL_TIMEOUT, kernel_name="python3", resources=resources).execute()
    checks = [cell.outputs[0].text for cell in notebook.cells if editions.is_check(cell)]
    assert len(checks) == 3
    assert all("not attempted yet" in text for text in checks)


# --- Slides -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["02_superposition", "07_apd_superposition"])
def test_slides(name):
    html = editions.slides(name)
    built = build.read(name)
    figures = [o for c in code(built) for o in c.outputs if "image/png" in o.get("data", {})]
    headings = {
        line[3:] for c in built.cells if c.cell_type == "markdown" for line in re.findall("^## .*", c.source, re.M)
    }
    assert "reveal.js/plugin/notes" in html.replace("@4.0.2", "")
    assert "No description has been provided" not in html
    assert html.count("<img alt=") == len(figures) > 0
    assert html.count('<aside class="notes">') > 10
    left_out = {"Exercises", "When something looks wrong"}
    assert left_out < headings
    for heading in headings:
        assert (f">{heading}<" in html) == (heading not in left_out)
    assert "not attempted yet" not in html


def test_paragraphs_on_slides():
    text = (
        "## Title\nShort.\n\nLong text comes second.\n\n**Predict before you run.** What?\n\n$$a = b$$\n\n"
        "<details><summary>Why?</summary>\n\nBecause.\n\nSo.\n</details>\n\n### Exercise 1 · Do\nSomething."
        "\n\n### After\nAnd on."
    )
    cells, skipped = editions._text_on_slides(text, 0)
    assert [(cell.metadata.slideshow.slide_type, cell.source) for cell in cells] == [
        ("slide", "## Title"),
        ("-", "Short."),
        ("notes", "Long text comes second."),
        ("-", "**Predict before you run.** What?"),
        ("-", "$$a = b$$"),
        ("-", "- Why?"),
        ("notes", "Because.\n\nSo."),
        ("subslide", "### After"),
        ("-", "And on."),
    ]
    assert skipped == 0
    assert editions._text_on_slides("## Exercises\nAll.\n\n### 1 · First", 0) == ([], 2)
    assert editions._text_on_slides("More of it.", 2) == ([], 2)


# --- Command line -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("edition", ["student", "teacher"])
def test_an_edition_is_written_with_its_pages(tmp_path, edition, capsys):
    folder = course(tmp_path / "course", EXERCISE)
    (folder / "glossary.md").write_text("terms")
    assert editions.main([edition, str(tmp_path / "out")], folder) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"01_example.ipynb", "glossary.md"}
    nbformat.validate(nbformat.read(tmp_path / "out" / "01_example.ipynb", as_version=4))
    assert capsys.readouterr().out == f"{tmp_path / 'out'}: 1 notebook, {edition} edition\n"


def test_a_folder_with_something_in_it_is_refused(tmp_path, capsys):
    folder = course(tmp_path / "course", EXERCISE)
    assert editions.main(["student", str(folder)], folder) == 2
    assert "is not an empty folder; name one that is new or empty" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["source"]


@pytest.mark.parametrize("edition", ["student", "teacher", "slides"])
def test_an_unknown_notebook_is_refused_and_nothing_written(tmp_path, edition, capsys):
    folder = course(tmp_path / "course", EXERCISE)
    assert editions.main([edition, str(tmp_path / "out"), "01_example", "99_none"], folder) == 2
    assert capsys.readouterr().err == "99_none: there is no source/99_none.py; the sources are: 01_example\n"
    assert not (tmp_path / "out").exists()


def test_slides_of_a_notebook_that_was_not_built_are_refused(tmp_path, capsys):
    folder = course(tmp_path / "course", EXERCISE)
    assert editions.main(["slides", str(tmp_path / "out"), "01_example"], folder) == 1
    assert "run: python tools/build.py 01_example" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_slides_need_names(tmp_path, capsys):
    with pytest.raises(SystemExit):
        editions.main(["slides", str(tmp_path / "out")])
    assert "name the notebooks" in capsys.readouterr().err


# --- Tables of times --------------------------------------------------------------------------------------


def timed(folder: Path) -> Path:
    course(folder, EXERCISE)
    (folder / "source" / "12_other.py").write_text("# %% [markdown]\n" + HEADER.replace("01 · Example", "12 · Other"))
    (folder / "minutes.json").write_text('{"01_example": 100, "12_other": 100}')
    return folder


def test_a_table_of_times(tmp_path):
    folder = timed(tmp_path)
    assert timetables.timetable("00-02 12", folder).splitlines()[2:] == [
        "| [01 · Example](01_example.ipynb) | 5 minutes | 10 minutes | about 2 minutes |",
        "| [12 · Other](12_other.ipynb) | 5 minutes | 10 minutes | about 2 minutes |",
        "| **together 0.5 hours** | 10 minutes | 20 minutes | about 3 minutes |",
    ]
    assert timetables.timetable("02-11", folder).count("\n") == 2


def test_a_stale_table_is_found_and_mended(tmp_path):
    folder = timed(tmp_path)
    page = folder / "teaching.md"
    page.write_text("before\n<!-- minutes 12 -->\nold\n<!-- end -->\nafter\n")
    message = f"teaching.md: its table of times is out of date; run: {build.COMMAND} --keep-outputs"
    assert message in build.check(folder)
    build.requote(folder)
    assert message not in build.check(folder)
    assert page.read_text().startswith("before\n<!-- minutes 12 -->\n| notebook |")
    assert page.read_text().endswith("| about 2 minutes |\n<!-- end -->\nafter\n")


def test_a_header_without_minutes_is_named(tmp_path):
    folder = timed(tmp_path)
    (folder / "source" / "12_other.py").write_text("# %% [markdown]\n# # 12 · Other\n")
    (folder / "teaching.md").write_text("<!-- minutes 12 -->\n<!-- end -->\n")
    assert any(line.startswith("12_other: its header says no title, or not how") for line in build.check(folder))
