"""The course's files: sources, built notebooks, and how long each took to run."""

import json
import os
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.reader import NotJSONError

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


class BuildError(Exception):
    """A notebook that must not be published; the message names it, its cell and what to change."""


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
    return path.read_text(encoding="utf-8")


def read(name: str, folder: Path = NOTEBOOKS) -> NotebookNode | None:
    """The built notebook, or None if there is none yet."""
    path = folder / f"{name}.ipynb"
    if not path.exists():
        return None
    try:
        return nbformat.read(path, as_version=4)
    except NotJSONError:
        raise BuildError(f"{name}: {path.name} is not a notebook; is it half merged?") from None


def read_seconds(folder: Path = NOTEBOOKS) -> dict[str, float]:
    """Measured run times by notebook."""
    path = folder / "minutes.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
