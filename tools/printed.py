"""The printed edition: the whole course as pages of HTML, to read without Jupyter, to print or to save as PDF.

    python tools/printed.py DIRECTORY

writes index.html and a page for each built notebook, with their committed outputs; nothing is run. Links between
notebooks lead to pages, what is folded in a notebook is open, each page leads on to the next, and formulas are MathML:
a page needs no script and no network.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import badges
import build
from course_files import Parser, check_place, exit_code
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbformat.v4 import new_markdown_cell, new_notebook

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
COURSE = "Parameter Decomposition Notebooks"
QUESTION = re.compile(r"\*\*The question:\*\*\s*(.+?)(?:\n\n|$)", re.S)
LINK = re.compile(r"\]\((\w+)\.ipynb(#[^)\s]*)?\)")
MATH = re.compile(
    r"(?P<code>```.*?```|`[^`\n]*`)|\$\$(?P<block>.+?)\$\$|(?<![\\$])\$(?P<inline>[^\s$][^$]*?)(?<!\s)\$", re.S
)
TEMPLATE = """\
{% extends 'lab/index.html.j2' %}
{% block html_head_js_requirejs %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block html_head_css %}
<style>
  main { max-width: 60rem; margin: auto; padding: 1rem; }
  main img { max-width: 100%; height: auto; }
  main .highlight pre { white-space: pre-wrap; }
  @media print { h2, h3 { break-after: avoid; } img, table { break-inside: avoid; } }
</style>
{% endblock %}
{% block data_png scoped %}
<div class="jp-RenderedImage jp-OutputArea-output {{ extra_class }}">
<img src="data:image/png;base64,{{ output.data['image/png'] }}"
  width="{{ output | get_metadata('width', 'image/png') }}"
  alt="{{ output | get_metadata('alt', 'image/png') | escape_html }}">
</div>
{% endblock %}
"""
"""JupyterLab's page, but without scripts, and with the pictures' alt texts, which it drops."""


def exporter() -> HTMLExporter:
    """Notebook to page. Made once: it compiles its template."""
    return HTMLExporter(raw_template=TEMPLATE, anchor_link_text="")


def formulas(text: str) -> str:
    """Markdown with MathML in place of its LaTeX; code stays as it is."""

    def to_mathml(match: re.Match[str]) -> str:
        if match["code"]:
            return match["code"]
        return convert(match["block"] or match["inline"], display="block" if match["block"] else "inline")

    return MATH.sub(to_mathml, text)


def title(text: str) -> str:
    """The first heading of Markdown, which says which notebook it is."""
    return text.partition("\n")[0].removeprefix("# ").strip()


def neighbours(name: str, names: Sequence[str]) -> str:
    """Links to the page before, to the contents and to the page after, in Markdown."""
    place = names.index(name)
    before = [f"[← {names[place - 1]}]({names[place - 1]}.html)"] if place else []
    after = [f"[{names[place + 1]} →]({names[place + 1]}.html)"] if place + 1 < len(names) else []
    return " · ".join([*before, "[all notebooks](index.html)", *after])


def edition(folder: Path = NOTEBOOKS) -> dict[str, str]:
    """All pages, by file name."""
    names = build.sources(folder)
    to_html, pages, rows = exporter(), {}, []

    def page(heading: str, cells: list) -> str:
        return to_html.from_notebook_node(new_notebook(cells=cells), {"metadata": {"name": heading}})[0]

    for name in names:
        notebook = build.read(name, folder)
        if notebook is None:
            raise build.BuildError(f"{name}: the notebook has not been built; run: {build.COMMAND} {name}")

        def to_page(link: re.Match[str], name: str = name) -> str:
            if link[1] not in names:
                raise build.BuildError(f"{name}: it links to {link[1]}.ipynb, which is not there")
            return f"]({link[1]}.html{link[2] or ''})"

        cells = [cell for cell in notebook.cells if not badges.added(cell)]
        for cell in cells:
            if cell.cell_type == "markdown":
                cell.source = LINK.sub(to_page, cell.source).replace("<details>", "<details open>")
                cell.source = formulas(cell.source)
        header = cells[0].source
        question = " ".join(found[1].split()) if (found := QUESTION.search(header)) else ""
        rows.append(f"| [{title(header)}]({name}.html) | {question} |")
        links = neighbours(name, names)
        cells = [new_markdown_cell(links), *cells, new_markdown_cell(links)]
        pages[f"{name}.html"] = page(f"{title(header)} – {COURSE}", cells)

    contents = "\n".join([f"# {COURSE}", "", "| notebook | the question it answers |", "|---|---|", *rows])
    return {"index.html": page(COURSE, [new_markdown_cell(contents)]), **pages}


def main(arguments: Sequence[str] | None = None, folder: Path = NOTEBOOKS) -> int:
    """Command line; returns the exit code."""
    parser = Parser(description="Write the course as pages of HTML.")
    parser.add_argument("directory", type=Path, metavar="DIRECTORY", help="made if need be; pages in it are replaced")
    directory = parser.parse_args(arguments).directory
    try:
        check_place(directory)
        pages = edition(folder)
    except build.BuildError as error:
        print(error, file=sys.stderr)
        return exit_code(error)
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        build.write(directory / name, text)
    print(f"{len(pages)} pages; open {directory / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
