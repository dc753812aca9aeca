"""Build the course's notebooks: notebooks/source/NAME.py is edited, notebooks/NAME.ipynb is what people open.

    python tools/build.py [NAME ...]                 run the sources, write notebooks and their outputs
    python tools/build.py --keep-outputs [NAME ...]  rewrite the text around the outputs of unchanged code
    python tools/build.py --check [NAME ...]         say where notebooks and sources disagree; run nothing

What building adds to a source:

- A function whose body holds nbgrader's `### BEGIN SOLUTION` ... `### END SOLUTION` becomes an unattempted
  exercise, with the solution folded under it.
- `{{minutes}}` in a text cell becomes the measured run time, and `{{minutes:NAME}}` that of another notebook.
- Between `<!-- minutes 00-02 07 -->` and `<!-- end -->`, a page beside the notebooks (*.md) gets a table of the
  times that they take.
- Cell ids come from what a cell says, so that an edit changes one id and a diff shows one cell.
- Where pyproject.toml says who hosts the course, launch badges and Colab's installation follow the first cell.
- Outputs keep what a reader of the web page can see: a lab's static figure instead of a dead widget, and no
  progress bars. A warning, an error or a picture without alt text is not published: it fails the build.
"""

import hashlib
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from difflib import SequenceMatcher
from itertools import zip_longest
from pathlib import Path

import badges
import jupytext
import nbformat
from course_files import (
    NOTEBOOKS,
    BuildError,
    Parser,
    UsageError,
    chosen,
    exit_code,
    read,
    read_seconds,
    read_source,
    sources,
    write,
)
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook
from timetables import MINUTES, fill_minutes, fill_timetables, in_words, stale_pages

COMMAND = "python tools/build.py"
CELL_TIMEOUT = 900  # seconds; on idle cores a whole notebook takes less than 300, on slow and busy ones far more

STUB = 'raise NotImplementedError("not attempted yet")'
MARKER = re.compile(r"### (?:BEGIN|END) SOLUTION")
SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION[ \t]*\n(.*?)^[ \t]*### END SOLUTION[ \t]*$", re.M | re.S)
PROGRESS_BAR = re.compile(r".*\d\S* \[(\d+:)+\d\d[<,].*\]\s*|\s*")  # tqdm: 10/10 [00:02<00:00, 5.0it/s]
ESCAPE_CODE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
WIDGET = "application/vnd.jupyter.widget-view+json"


# --- From source to notebook ------------------------------------------------------------------------------


def assemble(
    name: str, folder: Path = NOTEBOOKS, split: Callable[[str, NotebookNode], list[NotebookNode]] | None = None
) -> NotebookNode:
    """The notebook that source/NAME.py describes, before it has run; placeholders are still in its text.

    `split` says which cells a solved exercise becomes; by default those of `exercise`.
    """
    split = split or exercise
    cells = []
    for cell in jupytext.reads(read_source(name, folder), fmt="py:percent").cells:
        is_exercise = cell.cell_type == "code" and MARKER.search(cell.source)
        cells += split(name, cell) if is_exercise else [cell]
    seen: Counter[str] = Counter()
    for cell in cells:
        cell.id = _cell_id(cell, seen)
    return new_notebook(
        cells=cells,
        metadata={
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
    )


def exercise(name: str, cell: NotebookNode) -> list[NotebookNode]:
    """Split a solved cell into its unattempted stub and the folded solution."""
    title = f"{name}: the cell that starts {_first_line(cell)!r}"
    regions = SOLUTION.findall(cell.source)
    if len(MARKER.findall(cell.source)) != 2 * len(regions):
        raise BuildError(f"{title} needs its solution between '### BEGIN SOLUTION' and '### END SOLUTION'")
    if not all(indent for indent, _ in regions):
        raise BuildError(
            f"{title} has its solution outside a function: unattempted, it would stop whoever runs all cells"
        )
    solved = SOLUTION.sub(lambda m: m[2].rstrip(), cell.source)
    stub = NotebookNode(cell, source=SOLUTION.sub(lambda m: m[1] + STUB, cell.source))
    folded = f"<details><summary>Solution</summary>\n\n```python\n{solved}\n```\n\n</details>"
    return [stub, new_markdown_cell(folded)]


def _cell_id(cell: NotebookNode, seen: Counter[str]) -> str:
    """An id that depends on the cell alone, and on how many equal cells stand before it."""
    content = f"{cell.cell_type}\n{cell.source}"
    seen[content] += 1
    return hashlib.sha256(f"{content}\n{seen[content]}".encode()).hexdigest()[:12]


def _first_line(cell: NotebookNode) -> str:
    return cell.source.strip().partition("\n")[0][:60]


def source_sha256(notebook: NotebookNode) -> str:
    """Fingerprint of the code that made a notebook's outputs; its text may change without running again."""
    return hashlib.sha256(json.dumps([cell.source for cell in code_cells(notebook)]).encode()).hexdigest()


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells of code that come from the source."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and not badges.added(cell)]


# --- Outputs ----------------------------------------------------------------------------------------------


def clean_outputs(name: str, notebook: NotebookNode) -> None:
    """Keep what a reader sees without a kernel, in place; raise BuildError for what nobody should see."""
    notebook.metadata.pop("widgets", None)
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "code":
            cell.metadata.pop("execution", None)
            where = f"{name}: cell {number} ({_first_line(cell)!r})"
            cell.outputs = list(_publishable(where, _joined_streams(cell.outputs)))


def _joined_streams(outputs: Sequence[NotebookNode]) -> Iterator[NotebookNode]:
    """Join neighbouring prints, whose number otherwise depends on when the kernel flushed."""
    last = None
    for output in outputs:
        if last is not None and output.output_type == "stream" and last.get("name") == output.name:
            last.text += output.text
        else:
            if last is not None:
                yield last
            last = output
    if last is not None:
        yield last


def _publishable(where: str, outputs: Iterator[NotebookNode]) -> Iterator[NotebookNode]:
    for output in outputs:
        if output.output_type == "error":
            raise BuildError(f"{where} raised {output.ename}: {output.evalue}")
        if output.output_type == "stream":
            if output.name == "stdout":
                yield output
            elif not _only_progress(output.text):
                raise BuildError(f"{where} wrote to stderr, which readers would see:\n{output.text.strip()}")
            continue
        if output.data.pop(WIDGET, None) and output.data.keys() <= {"text/plain"}:
            continue  # such as a progress bar: nothing is left of it without a kernel
        output.metadata.pop(WIDGET, None)
        if "image/png" in output.data and not output.metadata.get("image/png", {}).get("alt"):
            raise BuildError(
                f"{where} shows a picture without alt text; show it with a sentence that says what it shows"
            )
        yield output


def _only_progress(text: str) -> bool:
    return all(PROGRESS_BAR.fullmatch(line) for line in re.split(r"[\r\n]+", ESCAPE_CODE.sub("", text)))


# --- Building ---------------------------------------------------------------------------------------------


def execute(
    name: str, notebook: NotebookNode, folder: Path = NOTEBOOKS, *, timeout: float = CELL_TIMEOUT, **kernel
) -> float:
    """Run a notebook in place, in a new kernel started with these options, and return the seconds it took."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--log-level=ERROR"],  # what the kernel says to its terminal, not to the notebook
        record_timing=False,
        store_widget_state=False,
    )
    start = time.perf_counter()
    try:
        client.execute(**kernel)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise BuildError(f"{name}: {ESCAPE_CODE.sub('', str(error)).strip()}") from None
    return time.perf_counter() - start


def build(name: str, folder: Path = NOTEBOOKS) -> float:
    """Run a source from top to bottom, write its notebook, and return the seconds it took."""
    notebook = assemble(name, folder)
    metadata = notebook.metadata.copy()
    elapsed = execute(name, notebook, folder)
    notebook.metadata = metadata  # the kernel has added its exact version, which differs between machines

    clean_outputs(name, notebook)
    record_seconds(name, elapsed, folder)
    _publish(name, notebook, folder)
    return elapsed


def keep_outputs(name: str, folder: Path = NOTEBOOKS) -> None:
    """Write the source's text around the outputs of the last run, if its code is still the code that ran."""
    notebook, old = assemble(name, folder), read(name, folder)
    if old is None or _stored_hash(old) != source_sha256(notebook) or source_sha256(old) != _stored_hash(old):
        raise BuildError(f"{name}: its code has changed since it last ran; run: {COMMAND} {name}")
    for cell, ran in zip(code_cells(notebook), code_cells(old), strict=True):
        cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
    _publish(name, notebook, folder)


def requote(folder: Path = NOTEBOOKS) -> None:
    """Bring notebooks and pages that quote run times up to date; what needs a run or an edit is left to --check."""
    for name in sources(folder):
        with suppress(BuildError):
            if MINUTES.search(read_source(name, folder)) and disagreements(name, folder):
                keep_outputs(name, folder)
    with suppress(BuildError):
        for path in stale_pages(folder):
            write(path, fill_timetables(path.read_text(encoding="utf-8"), folder))


def _publish(name: str, notebook: NotebookNode, folder: Path) -> None:
    """Write a finished notebook, whole or not at all."""
    notebook.metadata["pd_helpers"] = {"source_sha256": source_sha256(notebook)}
    fill_minutes(name, notebook, folder)
    badges.add_cells(name, notebook, folder)
    nbformat.validate(notebook)
    write(folder / f"{name}.ipynb", nbformat.writes(notebook) + "\n")


def record_seconds(name: str, elapsed: float, folder: Path) -> None:
    """Remember a run time, unless it says what was already known: noise must not reach the text."""
    seconds = read_seconds(folder)
    known = seconds.get(name)
    if known is None or (in_words(known) != in_words(elapsed) and abs(elapsed - known) > known / 4):
        seconds[name] = round(elapsed, 1)
        write(folder / "minutes.json", json.dumps(seconds, indent=1, sort_keys=True) + "\n")


# --- Agreement --------------------------------------------------------------------------------------------


def disagreements(name: str, folder: Path = NOTEBOOKS) -> list[str]:
    """Where notebook NAME is not what its source would build, one sentence each; empty when they agree."""
    try:
        expected, actual = assemble(name, folder), read(name, folder)
        if actual is None:
            raise BuildError(f"{name}: the notebook has not been built")
        fill_minutes(name, expected, folder)
        badges.add_cells(name, expected, folder)
        found = [f"{name}: {what}" for what in _differences(expected.cells, actual.cells)]
        if _stored_hash(actual) != source_sha256(expected) or not _has_run(actual):
            found.append(f"{name}: the outputs are not those of a run of the source's code")
        cleaned = deepcopy(actual)
        clean_outputs(name, cleaned)
        if cleaned != actual:
            found.append(f"{name}: the outputs hold widgets or progress bars, as after a run in JupyterLab")
        return found
    except BuildError as error:
        return [str(error)]


def _differences(expected: list[NotebookNode], actual: list[NotebookNode]) -> Iterator[str]:
    """Walk both lists of cells, aligned by id, so that one missing cell is one difference."""
    ids = SequenceMatcher(None, [c.id for c in expected], [c.get("id") for c in actual], autojunk=False)
    for _, i, i_end, j, j_end in ids.get_opcodes():
        pairs = zip_longest(expected[i:i_end], actual[j:j_end])
        for number, (ours, theirs) in enumerate(pairs, j + 1):
            if theirs is None:
                yield f"before cell {number}, the source's cell {_first_line(ours)!r} is missing"
            elif ours is None:
                yield f"cell {number} ({_first_line(theirs)!r}) is not in the source"
            else:
                wrong = [key for key in ("cell_type", "source", "metadata") if ours[key] != theirs.get(key)]
                if ours.id != theirs.get("id") and not wrong:
                    wrong = ["id"]  # otherwise an id that differs is no news: it follows from the rest
                if wrong:
                    differ = f"{' and '.join(wrong)} of cell {number} ({_first_line(theirs)!r})"
                    yield f"{differ}: not what the source says"


def check(folder: Path = NOTEBOOKS) -> list[str]:
    """All disagreements in the course, each followed by the command that mends it."""
    names = sources(folder)
    lines = [f"{what}; run: {COMMAND} {name}" for name in names for what in disagreements(name, folder)]
    orphans = sorted(path.stem for path in folder.glob("*.ipynb") if path.stem not in names)
    try:
        stale = [path.name for path in stale_pages(folder)]
        lines += [f"{page}: its table of times is out of date; run: {COMMAND} --keep-outputs" for page in stale]
    except BuildError as error:
        lines.append(str(error))
    return lines + [f"{name}: the notebook has no source; run: git rm notebooks/{name}.ipynb" for name in orphans]


def _stored_hash(notebook: NotebookNode) -> str | None:
    return notebook.metadata.get("pd_helpers", {}).get("source_sha256")


def _has_run(notebook: NotebookNode) -> bool:
    return all(cell.execution_count for cell in code_cells(notebook) if cell.source.strip())


def main(arguments: Sequence[str] | None = None, folder: Path = NOTEBOOKS) -> int:
    """Command line; returns the exit code."""
    parser = Parser(description="Build the course's notebooks from notebooks/source.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as 02_superposition; all when left out")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="run nothing; exit 1 where notebook and source disagree")
    mode.add_argument("--keep-outputs", action="store_true", help="run nothing; rewrite text around the outputs")
    options = parser.parse_args(arguments)
    try:
        names = chosen(options.names, folder)
        badges.host(folder), read_seconds(folder)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2

    if options.check:
        lines = [line for line in check(folder) if not options.names or line.partition(":")[0] in names]
        print("\n".join(lines) or "notebooks and sources agree")
        return 1 if lines else 0

    code = 0
    for name in names:
        try:
            if options.keep_outputs:
                keep_outputs(name, folder)
                print(f"{name}: text rewritten, outputs kept")
            else:
                print(f"{name}: built in {build(name, folder):.0f} s", flush=True)
        except BuildError as error:
            code = max(code, exit_code(error))
            print(error, file=sys.stderr, flush=True)
    requote(folder)
    return code


if __name__ == "__main__":
    sys.exit(main())
