"""The course's files: sources, built notebooks, and how long each took to run."""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import nbformat
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


class BuildError(Exception):
    """A notebook that must not be published; the message names it, its cell and what to change."""


class UsageError(BuildError, ValueError):
    """A command, or a file of settings, that cannot be meant; the message is one sentence with what works."""


class Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{' '.join(f'{message}; {self.format_usage()}'.split())}\n")


def exit_code(error: BuildError) -> int:
    """2 for a command that cannot be meant, 1 for one that failed."""
    return 2 if isinstance(error, UsageError) else 1


def chosen(names: Sequence[str], folder: Path = NOTEBOOKS) -> list[str]:
    """The notebooks that a command names, as names or files, or all; UsageError for one that has no source."""
    stems, known = [Path(name).stem for name in names], sources(folder)
    for name in stems:
        if name not in known:
            raise UsageError(f"{name}: there is no source/{name}.py; the sources are: {', '.join(known) or 'none yet'}")
    return stems or known


def check_place(folder: Path, *, empty: bool = False) -> None:
    """UsageError unless files can be written to this folder, which need not be there yet."""
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except OSError as error:
        raise UsageError(f"{str(folder)!r} is no name for a folder ({error.strerror}); a shorter one works") from None
    if "\0" in str(folder):
        raise UsageError(f"{str(folder)!r} is no name for a folder; one without \\0 works")
    if not there.is_dir():
        raise UsageError(f"{folder} cannot be a folder, since {there} is a file; another name works")
    if empty and there == folder and any(folder.iterdir()):
        raise UsageError(f"{folder} is not an empty folder; name one that is new or empty, so that nothing gets lost")
    if not os.access(there, os.W_OK):
        raise UsageError(f"{folder} cannot be written, since {there} is read-only; another name works")


def write(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def sources(folder: Path = NOTEBOOKS) -> list[str]:
    """The course's notebooks by name, in reading order."""
    return sorted(path.stem for path in (folder / "source").glob("*.py"))


def read_source(name: str, folder: Path = NOTEBOOKS) -> str:
    """The text of source/NAME.py."""
    path = folder / "source" / f"{name}.py"
    if not path.exists():
        known = ", ".join(sources(folder)) or "none yet"
        raise BuildError(f"{name}: there is no source/{name}.py; the sources are: {known}")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(f"{name}: source/{name}.py is not a text in UTF-8 ({type(error).__name__})") from None


def read(name: str, folder: Path = NOTEBOOKS) -> NotebookNode | None:
    """The built notebook, or None if there is none yet."""
    path = folder / f"{name}.ipynb"
    if not path.exists():
        return None
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except Exception:  # nbformat raises whatever a malformed file leads to
        raise UsageError(f"{name}: {path.name} is not a notebook; is it half merged?") from None
    if not notebook.cells:
        raise UsageError(f"{name}: {path.name} has no cells; is it half written?")
    return notebook


def read_seconds(folder: Path = NOTEBOOKS) -> dict[str, float]:
    """Measured run times by notebook."""
    seconds = read_json(folder / "minutes.json")
    if not all(isinstance(value, int | float) for value in seconds.values()):
        raise UsageError("minutes.json must map notebooks to seconds; git checkout brings it back")
    return seconds


def read_json(path: Path) -> dict[str, Any]:
    """A file that maps names to what was measured; empty if it is not there."""
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")).items())
    except (OSError, ValueError, AttributeError, RecursionError):
        raise UsageError(f"{path.name} is not a JSON object; git checkout brings it back") from None
