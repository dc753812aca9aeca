"""The notebooks' builder: what it makes of a source, what it publishes, and which disagreements it finds."""

import shutil
from pathlib import Path

import build
import nbformat
import pytest
import timetables
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output

NAME = "01_example"
SOURCE = '''\
# %% [markdown]
# # Example
# It takes {{minutes}} to run.

# %%
x = 2
print("before")

# %% [markdown]
# Write a function that doubles.

# %% tags=["exercise"]
def double(x):
    """Twice x."""
    ### BEGIN SOLUTION
    twice = 2 * x
    return twice
    ### END SOLUTION

# %% [markdown]
# The end.
'''


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A course of one notebook, built once."""
    folder = tmp_path_factory.mktemp("course")
    (folder / "source").mkdir()
    (folder / "source" / f"{NAME}.py").write_text(SOURCE)
    assert build.main([], folder) == 0
    return folder


@pytest.fixture
def course(built, tmp_path) -> Path:
    """A copy of it, to spoil."""
    return Path(shutil.copytree(built, tmp_path / "course"))


def edit_source(folder: Path, old: str, new: str) -> None:
    path = folder / "source" / f"{NAME}.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def edit_notebook(folder: Path, change) -> None:
    notebook = build.read(NAME, folder)
    change(notebook)
    nbformat.write(notebook, folder / f"{NAME}.ipynb")


# --- From source to notebook ------------------------------------------------------------------------------


def test_a_solution_becomes_a_stub_and_a_fold(built):
    _, _, _, stub, fold, _ = build.read(NAME, built).cells
    assert stub.metadata.tags == ["exercise"]
    assert stub.source == ('def double(x):\n    """Twice x."""\n    raise NotImplementedError("not attempted yet")')
    assert fold.cell_type == "markdown"
    assert fold.source == (
        "<details><summary>Solution</summary>\n\n"
        '```python\ndef double(x):\n    """Twice x."""\n    twice = 2 * x\n    return twice\n```\n\n'
        "</details>"
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    ### END SOLUTION\n", "", "needs its solution between"),
        ("    ### BEGIN SOLUTION\n", "", "needs its solution between"),
        ("x = 2\n", "### BEGIN SOLUTION\nx = 2\n### END SOLUTION\n", "outside a function"),
        ("{{minutes}}", "{{minutes:02_unknown}}", "names no notebook"),
    ],
)
def test_a_faulty_source_is_refused(course, old, new, message):
    edit_source(course, old, new)
    [line] = build.check(course)
    assert message in line


def test_markers_may_be_mentioned_in_text(course):
    edit_source(course, "# The end.", "# Teachers: see `### BEGIN SOLUTION`.")
    assert build.assemble(NAME, course).cells[-1].source == "Teachers: see `### BEGIN SOLUTION`."


def test_ids_are_stable_under_edits(course):
    before = [cell.id for cell in build.assemble(NAME, course).cells]
    edit_source(course, "x = 2", "x = 3")
    after = [cell.id for cell in build.assemble(NAME, course).cells]
    assert [a == b for a, b in zip(after, before, strict=True)] == [True, False, True, True, True, True]


def test_equal_cells_have_ids_of_their_own(course):
    edit_source(course, "# The end.", "# Same.\n\n# %% [markdown]\n# Same.")
    ids = [cell.id for cell in build.assemble(NAME, course).cells]
    assert len(set(ids)) == len(ids) == 7
    assert ids == [cell.id for cell in build.assemble(NAME, course).cells]


# --- Building ---------------------------------------------------------------------------------------------


def test_a_built_notebook_holds_outputs_but_nothing_of_this_machine(built):
    text = (built / f"{NAME}.ipynb").read_text()
    notebook = build.read(NAME, built)
    assert [c.execution_count for c in notebook.cells if c.cell_type == "code"] == [1, 2]
    assert notebook.cells[1].outputs == [new_output("stream", name="stdout", text="before\n")]
    assert notebook.cells[0].source == "# Example\nIt takes under a minute to run."
    assert notebook.metadata.language_info == {"name": "python"}
    assert text.endswith("}\n")
    assert "iopub" not in text
    assert str(built) not in text


@pytest.mark.slow
def test_building_again_changes_nothing(course):
    before = (course / f"{NAME}.ipynb").read_bytes(), (course / "minutes.json").read_bytes()
    assert build.main([NAME], course) == 0
    assert before == ((course / f"{NAME}.ipynb").read_bytes(), (course / "minutes.json").read_bytes())


@pytest.mark.slow
def test_a_failed_build_leaves_the_previous_notebook(course, capsys):
    before = (course / f"{NAME}.ipynb").read_bytes()
    edit_source(course, "x = 2", "x = 1 / 0")
    assert build.main([NAME], course) == 1
    assert "x = 1 / 0" in capsys.readouterr().err
    assert (course / f"{NAME}.ipynb").read_bytes() == before
    assert not list(course.glob(".*.tmp"))


def test_outputs_are_kept_when_only_text_changed(course):
    edit_source(course, "# The end.", "# And so it ends.")
    assert build.main(["--keep-outputs"], course) == 0
    assert build.check(course) == []
    assert build.read(NAME, course).cells[1].outputs[0].text == "before\n"


def test_outputs_are_not_kept_when_code_changed(course, capsys):
    edit_source(course, "x = 2", "x = 3")
    assert build.main(["--keep-outputs"], course) == 1
    assert f"its code has changed since it last ran; run: {build.COMMAND} {NAME}" in capsys.readouterr().err


def test_a_quoted_run_time_follows_the_notebook_it_quotes(course):
    (course / "source" / "00_start.py").write_text("# %% [markdown]\n# Example: {{minutes:01_example}}.\n")
    assert build.main(["00_start"], course) == 0
    assert build.read("00_start", course).cells[0].source == "Example: under a minute."
    (course / "minutes.json").write_text('{"00_start": 1, "01_example": 200}')
    assert "00_start: source of cell 1" in build.check(course)[0]
    assert build.main(["--keep-outputs", NAME], course) == 0
    assert build.read("00_start", course).cells[0].source == "Example: about 3 minutes."
    assert build.check(course) == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1, "under a minute"), (59, "under a minute"), (61, "about a minute"), (100, "about 2 minutes")],
)
def test_run_times_in_words(seconds, words):
    assert timetables.in_words(seconds) == words


@pytest.mark.parametrize(
    ("known", "measured", "kept"),
    [(58, 62, True), (20, 50, True), (58, 90, False), (200, 240, True), (200, 100, False)],
)
def test_noise_does_not_change_a_run_time(tmp_path, known, measured, kept):
    build.record_seconds(NAME, known, tmp_path)
    build.record_seconds(NAME, measured, tmp_path)
    assert build.read_seconds(tmp_path) == {NAME: known if kept else measured}


# --- Outputs ----------------------------------------------------------------------------------------------


def cleaned(*outputs: NotebookNode) -> list[NotebookNode]:
    notebook = new_notebook(cells=[new_code_cell("show()", outputs=list(outputs))])
    build.clean_outputs(NAME, notebook)
    return notebook.cells[0].outputs


def shown(data: dict, **metadata) -> NotebookNode:
    return new_output("display_data", data=data, metadata=metadata)


WIDGET = {build.WIDGET: {"model_id": "abc", "version_major": 2}, "text/plain": "Lab()"}
PICTURE = {"image/png": "iVBORw0KGgo="}
ALT = {"image/png": {"alt": "Five arrows in a plane."}}


def test_a_lab_leaves_its_static_figure():
    [output] = cleaned(shown(WIDGET | PICTURE, **ALT))
    assert output.data == {"text/plain": "Lab()"} | PICTURE
    assert output.metadata == ALT


def test_a_widget_without_figure_leaves_nothing():
    assert cleaned(shown(WIDGET)) == []


def test_html_tables_are_kept():
    table = shown({"text/html": "<table></table>", "text/plain": "..."})
    assert cleaned(table) == [table]


@pytest.mark.parametrize(
    "text",
    [
        "\r  0%|          | 0/10 [00:00<?, ?it/s]\r100%|##########| 10/10 [00:02<00:00,  5.00it/s]\n",
        "\rtraining:  50%|█████     | 1.00k/2.00k [00:01<00:01, 800step/s, loss=0.01]\x1b[A",
        "\r0it [00:00, ?it/s]\r12it [01:00:00,  3.10s/it]\n",
    ],
)
def test_progress_bars_are_dropped(text):
    assert cleaned(new_output("stream", name="stderr", text=text)) == []


def test_neighbouring_prints_are_joined_around_what_stands_between():
    one, two, three = (new_output("stream", name="stdout", text=text) for text in ("one\n", "two\n", "three\n"))
    table = shown({"text/plain": "table"})
    assert [output.get("text") for output in cleaned(one, two, table, three)] == [
        "one\ntwo\n",
        None,
        "three\n",
    ]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (new_output("stream", name="stderr", text="UserWarning: 100% wrong\n"), "UserWarning: 100% wrong"),
        (new_output("error", ename="ValueError", evalue="no", traceback=[]), "raised ValueError: no"),
        (shown(PICTURE), "without alt text"),
        (shown(PICTURE, **{"image/png": {"alt": ""}}), "without alt text"),
        (shown(WIDGET | PICTURE), "without alt text"),
    ],
)
def test_what_nobody_should_see_fails_the_build(output, message):
    with pytest.raises(build.BuildError, match=message) as error:
        cleaned(output)
    assert f"{NAME}: cell 1 ('show()')" in str(error.value)


def test_traces_of_the_run_are_removed():
    notebook = new_notebook(cells=[new_code_cell("1")], metadata={"widgets": {"state": {}}})
    notebook.cells[0].metadata["execution"] = {"iopub.status.busy": "2026-01-01"}
    build.clean_outputs(NAME, notebook)
    assert notebook.metadata == {}
    assert notebook.cells[0].metadata == {}


# --- Agreement --------------------------------------------------------------------------------------------


def test_a_built_course_agrees(built, capsys):
    assert build.main(["--check"], built) == 0
    assert capsys.readouterr().out == "notebooks and sources agree\n"


def test_the_committed_notebooks_agree_with_their_sources():
    assert build.check() == []


def test_edited_text_in_the_source_is_found(course, capsys):
    edit_source(course, "# The end.", "# And so it ends.")
    assert build.main(["--check"], course) == 1
    assert capsys.readouterr().out == (
        f"{NAME}: source of cell 6 ('The end.'): not what the source says; run: {build.COMMAND} {NAME}\n"
    )


def test_edited_code_in_the_source_is_found_twice(course):
    edit_source(course, "x = 2", "x = 3")
    text, outputs = build.check(course)
    assert "source of cell 2 ('x = 2')" in text
    assert "outputs are not those of a run of the source's code" in outputs


def replace_text(notebook):
    notebook.cells[0].source += " Quickly."


def replace_tags(notebook):
    notebook.cells[3].metadata.tags = []


def replace_type(notebook):
    notebook.cells[5] = nbformat.v4.new_raw_cell(notebook.cells[5].source, id=notebook.cells[5].id)


def replace_id(notebook):
    notebook.cells[2].id = "another"


def delete_cell(notebook):
    del notebook.cells[2]


def add_cell(notebook):
    notebook.cells.append(new_code_cell("1", execution_count=3))


def stale_hash(notebook):
    notebook.metadata.pd_helpers.source_sha256 = "0"


def clear_outputs(notebook):
    for cell in notebook.cells[1:4:2]:
        cell.outputs, cell.execution_count = [], None


def run_in_jupyterlab(notebook):
    notebook.cells[1].outputs.append(shown(WIDGET))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replace_text, "source of cell 1 ('# Example')"),
        (replace_tags, "metadata of cell 4 ('def double(x):')"),
        (replace_type, "cell_type of cell 6 ('The end.')"),
        (replace_id, "id of cell 3 ('Write a function that doubles.')"),
        (delete_cell, "before cell 3, the source's cell 'Write a function that doubles.' is missing"),
        (add_cell, "cell 7 ('1') is not in the source"),
        (stale_hash, "the outputs are not those of a run of the source's code"),
        (clear_outputs, "the outputs are not those of a run of the source's code"),
        (run_in_jupyterlab, "the outputs hold widgets or progress bars"),
    ],
)
def test_a_changed_notebook_is_found(course, change, message):
    edit_notebook(course, change)
    [line] = build.check(course)
    assert line.startswith(f"{NAME}: {message}")
    assert line.endswith(f"; run: {build.COMMAND} {NAME}")


def test_a_missing_notebook_is_found(course):
    (course / f"{NAME}.ipynb").unlink()
    assert build.check(course) == [f"{NAME}: the notebook has not been built; run: {build.COMMAND} {NAME}"]


def test_a_half_merged_notebook_is_found(course):
    (course / f"{NAME}.ipynb").write_text("<<<<<<< HEAD\n{}\n")
    [line] = build.check(course)
    assert "is it half merged?" in line


def test_a_notebook_without_source_is_found(course):
    shutil.copy(course / f"{NAME}.ipynb", course / "99_orphan.ipynb")
    assert build.check(course) == ["99_orphan: the notebook has no source; run: git rm notebooks/99_orphan.ipynb"]


def test_an_unknown_name_is_refused_with_the_known_ones(course, capsys):
    assert build.main(["02_unknown"], course) == build.main(["--check", "02_unknown"], course) == 2
    assert f"the sources are: {NAME}" in capsys.readouterr().err
