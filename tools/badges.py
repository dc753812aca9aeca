"""Binder and Colab badges, and the line that installs the course on Colab: what they say, and where they go.

They are there if pyproject.toml names the repository that hosts the course, see `launch`.
"""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from course_files import UsageError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
FIRST = "00_start_here"
TAG = "launch"
"""Marks the cells added here: they depend on who hosts the course, and are no part of the code that ran."""
COLAB_LACKS = ("jaxtyping", "wadler-lindig")
"""What the package needs and Colab does not have; torch, numpy, ipywidgets and the rest stay as Colab ships them."""

PATTERNS = {"repository": (r"[\w.-]+/[\w.-]+", "owner/name"), "branch": (r"[\w.-]+(/[\w.-]+)*", "main")}
"""Setting → what it must look like, and an example."""


@dataclass(frozen=True)
class Host:
    """A repository on GitHub, `owner/name`, and the branch, or tag, that links lead to."""

    repository: str
    branch: str = "main"

    def binder(self, name: str) -> str:
        """Where Binder opens a notebook in JupyterLab."""
        page = quote(f"lab/tree/notebooks/{name}.ipynb", safe="")
        return f"https://mybinder.org/v2/gh/{self.repository}/{quote(self.branch, safe='')}?urlpath={page}"

    def colab(self, name: str) -> str:
        """Where Colab opens a notebook."""
        return f"https://colab.research.google.com/github/{self.repository}/blob/{self.branch}/notebooks/{name}.ipynb"

    def badges(self, name: str) -> str:
        """Both links as badges, in Markdown."""
        return (
            f"[![Open in Binder](https://mybinder.org/badge_logo.svg)]({self.binder(name)})\n"
            f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({self.colab(name)})"
        )

    def colab_line(self) -> str:
        """Code that installs the package on Colab, and does nothing there when run again, or anywhere else."""
        source = f"https://github.com/{self.repository}/archive/{self.branch}.tar.gz"
        install = f"install -q --no-deps {' '.join(COLAB_LACKS)} {source}"
        return (
            "# Google Colab lacks the course's package; elsewhere this cell does nothing.\n"
            f'import sys; "google.colab" in sys.modules and get_ipython().run_line_magic("pip", "{install}");'
        )


def host(folder: Path = NOTEBOOKS) -> Host | None:
    """Who hosts the course, as the pyproject.toml beside the notebooks' folder says; None where it names nobody."""
    path = folder.parent / "pyproject.toml"
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise UsageError(f"pyproject.toml is not TOML: {' '.join(str(error).split())}") from None
    setting = settings.get("tool", {})
    setting = setting.get("pd-notebooks", {}) if isinstance(setting, dict) else {}
    if not isinstance(setting, dict) or set(setting) - set(PATTERNS):
        raise UsageError(f"[tool.pd-notebooks] is {setting!r}; repository and branch are what it can hold")
    if not setting.get("repository"):
        return None
    for name, (pattern, example) in PATTERNS.items():
        value = setting.get(name, example)
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise UsageError(f'[tool.pd-notebooks] {name} is {value!r}; "{example}" works')
    return Host(**setting)


def add_cells(name: str, notebook: NotebookNode, folder: Path = NOTEBOOKS) -> None:
    """Put badges and Colab's line below a notebook's first cell, in place."""
    if here := host(folder):
        tags = {"tags": [TAG]}
        notebook.cells[1:1] = [
            new_markdown_cell(here.badges(name), id="launch-links", metadata=tags),
            new_code_cell(here.colab_line(), id="launch-colab", metadata=tags),
        ]


def added(cell: NotebookNode) -> bool:
    """Whether `add_cells` made this cell."""
    return TAG in cell.metadata.get("tags", [])


def fill_block(text: str, name: str, content: str | None, after: str | None = None) -> str:
    """Markdown with what stands between the comments `<!-- name -->` and `<!-- /name -->` replaced.

    A block that is not there is put below the first line that starts with `after`; content None removes it.
    """
    block = re.compile(rf"\n<!-- {name} -->\n.*?<!-- /{name} -->\n", re.S)
    filled = "" if content is None else f"\n<!-- {name} -->\n{content}\n<!-- /{name} -->\n"
    if block.search(text):
        return block.sub(lambda _: filled, text, count=1)
    if after is None:
        return text
    return re.sub(rf"^{re.escape(after)}.*\n", lambda line: line[0] + filled, text, count=1, flags=re.M)


def readme(text: str, folder: Path = NOTEBOOKS) -> str:
    """README.md with the badges it should have, below its title."""
    here = host(folder)
    return fill_block(text, TAG, here and here.badges(FIRST), after="# ")
