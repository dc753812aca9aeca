"""The tools refuse what cannot be meant: one sentence, exit code 2, no traceback, before they build anything."""

import budget
import build
import editions
import launch
import printed
import pytest

from tools import ship

SOURCE = """\
# %% [markdown]
# # 01 · Example
#
# | read | do | run |
# |---|---|---|
# | 5 minutes | 10 minutes | {{minutes}} |

# %%
1 + 1
"""


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of one notebook, not built; the tests fail where one would be."""
    folder = tmp_path / "notebooks"
    (folder / "source").mkdir(parents=True)
    (folder / "source" / "01_example.py").write_text(SOURCE)
    (tmp_path / "README.md").write_text("# Course\n")
    (tmp_path / "file").write_text("mine")

    def work(*_, **__):
        pytest.fail("it began to work")

    monkeypatch.setattr(build, "execute", work)
    monkeypatch.setattr(budget, "measure", work)
    monkeypatch.setattr(ship, "run", work)
    monkeypatch.setattr(ship, "sweep", work)
    return folder


def refused(capsys, main, *arguments) -> str:
    """The sentence on stderr."""
    try:
        code = main(*arguments)
    except SystemExit as end:
        code = end.code
    written = capsys.readouterr()
    assert (code, written.out, written.err.count("\n")) == (2, "", 1)
    return written.err


UNKNOWN = "nope: there is no source/nope.py; the sources are: 01_example\n"


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (build.main, ["nope"]),
        (build.main, ["--check", "nope"]),
        (build.main, ["--check", "01_example", "notebooks/nope.ipynb"]),
        (build.main, ["--keep-outputs", "nope"]),
        (budget.main, ["nope"]),
        (budget.main, ["--table", "nope"]),
        (editions.main, ["student", "new", "nope"]),
        (editions.main, ["teacher", "new", "nope"]),
        (editions.main, ["slides", "new", "nope"]),
    ],
)
def test_a_notebook_that_is_not_there(main, arguments, course, capsys, monkeypatch):
    monkeypatch.chdir(course.parent)
    assert refused(capsys, main, arguments, course) == UNKNOWN
    assert not (course.parent / "new").exists()


@pytest.mark.parametrize("main", [build.main, budget.main, printed.main, editions.main])
def test_an_option_that_is_not_there(main, course, capsys):
    assert "--bogus" in refused(capsys, main, ["student", "x", "--bogus"], course)


@pytest.mark.parametrize("place", ["file", "file/below", "file/far/below", "n" * 5000, "zero\0byte"])
@pytest.mark.parametrize("tool", ["printed", "student", "slides"])
def test_a_place_where_no_folder_can_be(tool, place, course, capsys, monkeypatch):
    monkeypatch.chdir(course.parent)
    monkeypatch.setattr(printed, "edition", lambda _: pytest.fail("it began to write"))
    main, before = (printed.main, []) if tool == "printed" else (editions.main, [tool])
    message = refused(capsys, main, [*before, place, *(["01_example"] if before else [])], course)
    assert "works" in message
    assert (course.parent / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("[tool]\npd-notebooks = 3", "[tool.pd-notebooks] is 3; "),
        ("[tool.pd-notebooks]\nrepository = 5", 'repository is 5; "owner/name" works'),
        ('[tool.pd-notebooks]\nrepository = ["a/b"]', "repository is ['a/b']; "),
        ('[tool.pd-notebooks]\nrepository = "a/b"\nbranch = 3', 'branch is 3; "main" works'),
        ('[tool.pd-notebooks]\nrepository = "a/b"\nbranch = "x y"', "branch is 'x y'; "),
        ('[tool.pd-notebooks]\nrepository = "a/b"\nbranch = ""', "branch is ''; "),
        ('[tool.pd-notebooks]\nrepository = "a/b"\nbranch = "m\\"); print(1)"', "branch is 'm\"); print(1)'; "),
        ('[tool.pd-notebooks]\nrepository = "a/b"\nbogus = 1', "repository and branch are what it can hold"),
        ("[tool", "pyproject.toml is not TOML: "),
    ],
)
def test_settings_of_who_hosts_the_course(settings, message, course, capsys):
    (course.parent / "pyproject.toml").write_text(settings)
    assert message in refused(capsys, launch.main, course)
    assert message in refused(capsys, build.main, ["--check"], course)
    assert (course.parent / "README.md").read_text() == "# Course\n"


def test_a_course_without_readme(course, capsys):
    (course.parent / "README.md").unlink()
    assert refused(capsys, launch.main, course).startswith("README.md cannot be read")


MALFORMED = {
    "list": "[]",
    "empty": "{}",
    "number": "3",
    "nothing": "",
    "half": '{"nbformat": 4, "cells": [',
    "merged": "<<<<<<< HEAD\n{}",
    "no cells": '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}',
    "cells of another kind": '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [3]}',
    "a cell without source": '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "code"}]}',
    "deep": "[" * 100_000,
    "bytes": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_notebook_that_is_none(case, course, capsys, tmp_path):
    content = MALFORMED[case]
    (course / "01_example.ipynb").write_bytes(content if isinstance(content, bytes) else content.encode())
    for main, arguments in (
        (build.main, (["--keep-outputs"], course)),
        (printed.main, ([str(tmp_path / "new")], course)),
        (editions.main, (["slides", str(tmp_path / "new"), "01_example"], course)),
        (launch.main, (course,)),
    ):
        assert "01_example.ipynb" in refused(capsys, main, *arguments)
    assert build.main(["--check"], course) == 1
    assert "01_example.ipynb" in capsys.readouterr().out
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "text", ["[]", "<<<", "", '{"01_example": "x"}', '{"01_example": null}', '{"01_example": {"2": 3}}']
)
def test_measurements_that_are_none(text, course, capsys, tmp_path):
    (course / "budget.json").write_text(text)
    assert refused(capsys, budget.main, ["--table"], course).startswith("budget.json ")
    (course / "budget.json").unlink()
    (course / "minutes.json").write_text(text)
    assert refused(capsys, build.main, ["--check"], course).startswith("minutes.json ")
    assert refused(capsys, editions.main, ["student", str(tmp_path / "new")], course).startswith("minutes.json ")


def test_a_source_that_is_no_text(course, capsys):
    (course / "source" / "01_example.py").write_bytes(b"\xff\xfe")
    assert build.main([], course) == 1
    assert capsys.readouterr().err == "01_example: source/01_example.py is not a text in UTF-8 (UnicodeDecodeError)\n"


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["apd/tms_5-2", "--device", "tpu"], "device must be auto, cpu, cuda or mps, but is 'tpu'"),
        (["--device", "cuda:999"], "device "),
        (["nope"], "'nope' is not planned"),
        (["apd/tms_5-2", "--bogus"], "--bogus"),
    ],
)
def test_shipping_what_cannot_be(arguments, message, course, capsys):
    assert message in refused(capsys, ship.main, arguments)
