"""What each notebook costs to run: seconds and memory on Binder's one core, and on the two cores of a small laptop.

    python tools/budget.py [NAME ...] [--cores 1]    run them, write budget.json and the table, fail over budget
    python tools/budget.py --table                   run nothing; print the table of what was measured

Memory is the peak of the kernel and its children together; what they share counts once. A slider's move is timed in
the kernel, the slowest of all labs that look their answer up instead of training. With two cores
measured, the run times in the notebooks' headers follow. README.md has the table between <!-- budget --> and
<!-- /budget -->, if these comments are there. Other work on the machine makes the numbers worse: run this alone.
"""

import inspect
import json
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import badges
import build
import psutil
from course_files import Parser, UsageError, chosen, read_json
from nbformat.v4 import new_code_cell

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
SECONDS = {1: 600, 2: 300}
"""The most a notebook may take, by cores."""
MEGABYTES = 1500
"""The most memory it may take."""
MILLISECONDS = 150
"""The most a slider's move may take where nothing is trained."""

Costs = dict[str, dict[str, dict[str, float]]]
"""Notebook, cores (as JSON wants them: "1"), then `seconds`, `megabytes` and, with labs, `milliseconds`."""


class Peak:
    """Watches the memory of this process's children, from another thread, while the `with` block runs."""

    def __init__(self, every: float = 0.2):
        self.megabytes = 0.0
        self._every, self._done = every, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(self._every):
            self.megabytes = max(self.megabytes, footprint(psutil.Process().children(recursive=True)) / 1e6)


def footprint(processes: Iterable[psutil.Process]) -> int:
    """Bytes that these processes take together: what each has to itself, and once what they share, as libraries."""
    own, shared = 0, 0
    for process in processes:
        with suppress(psutil.Error):  # it has just ended
            memory = process.memory_full_info()
            own, shared = own + memory.uss, max(shared, memory.rss - memory.uss)
    return own + shared


@contextmanager
def on_cores(cores: int) -> Iterator[None]:
    """Lend this thread, and what it starts, so many cores; systems without affinities only get fewer threads."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    if len(before) < cores:
        raise build.BuildError(f"--cores {cores} needs as many, and this machine lends {len(before)}")
    os.sched_setaffinity(0, sorted(before)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def slowest_move() -> dict[str, float]:
    """Milliseconds that the slowest slider needs, if there is one, and the seconds this took; runs in the kernel."""
    import gc
    import statistics
    import sys
    import time

    began, slowest = time.perf_counter(), {}

    def sliders(widget):
        if hasattr(widget, "readout"):
            yield widget
        for child in getattr(widget, "children", ()):
            yield from sliders(child)

    if module := sys.modules.get("pd_helpers.course.kit.lab"):
        labs = [one for one in gc.get_objects() if issubclass(type(one), module.Lab)]
        for slider in [s for lab in labs if not lab.is_live for s in sliders(lab.widget)]:
            ends = (slider.options[0], slider.options[-1]) if hasattr(slider, "options") else (slider.min, slider.max)
            took = []
            for value in ends * 3:
                start = time.perf_counter()
                slider.value = value
                took.append(1000 * (time.perf_counter() - start))
            slowest["milliseconds"] = round(max(slowest.get("milliseconds", 0), statistics.median(took)))
    return slowest | {"seconds": time.perf_counter() - began}


def measure(name: str, cores: int, folder: Path = NOTEBOOKS) -> dict[str, float]:
    """Run a source as a reader would, and say what it took."""
    notebook = build.assemble(name, folder)
    probe = f"{inspect.getsource(slowest_move)}\nimport json\nprint(json.dumps(slowest_move()))"
    notebook.cells.append(new_code_cell(probe))
    environment = os.environ | {"OMP_NUM_THREADS": str(cores)}
    with Peak() as peak, on_cores(cores):  # the watcher stays on all cores
        seconds = build.execute(name, notebook, folder, timeout=2 * SECONDS[cores], env=environment)
    labs = json.loads(notebook.cells[-1].outputs[0].text)
    return {"seconds": round(seconds - labs.pop("seconds"), 1), "megabytes": round(peak.megabytes), **labs}


def over(name: str, cores: int, cost: dict[str, float]) -> list[str]:
    """In which ways that is too much, in words."""
    limits = {"seconds": SECONDS[cores], "megabytes": MEGABYTES, "milliseconds": MILLISECONDS}
    where = "one core" if cores == 1 else f"{cores} cores"
    return [
        f"{name}: {cost[what]:g} {what} on {where}, and the budget is {limit}"
        for what, limit in limits.items()
        if cost.get(what, 0) > limit
    ]


def read(folder: Path = NOTEBOOKS) -> Costs:
    """What was measured so far."""
    costs = read_json(folder / "budget.json")
    for measured in costs.values():
        if not isinstance(measured, dict) or not all(
            isinstance(cost, dict) and {"seconds", "megabytes"} <= set(cost) for cost in measured.values()
        ):
            raise UsageError("budget.json must hold the costs of each notebook by cores; git checkout brings it back")
    return costs


def table(costs: Costs) -> str:
    """What was measured, as Markdown; a dash where nothing was."""

    def cell(cost: dict[str, dict[str, float]], cores: int) -> str:
        return f"{cost[str(cores)]['seconds']:.0f} s" if str(cores) in cost else "–"

    lines = ["| notebook | on two cores | on one core | memory at most | a slider's move |", "|---|---|---|---|---|"]
    for name, cost in sorted(costs.items()):
        most = max(measured["megabytes"] for measured in cost.values())
        move = max((measured["milliseconds"] for measured in cost.values() if "milliseconds" in measured), default=None)
        row = cell(cost, 2), cell(cost, 1), f"{most:.0f} MB", "–" if move is None else f"{move:.0f} ms"
        lines.append(f"| [{name}](notebooks/{name}.ipynb) | {' | '.join(row)} |")
    return "\n".join(lines)


def record(name: str, cores: int, cost: dict[str, float], folder: Path = NOTEBOOKS) -> None:
    """Keep a measurement, in the file, in README.md and, for two cores, in the headers."""
    known = {name: costs for name, costs in read(folder).items() if name in build.sources(folder)}
    known[name] = known.get(name, {}) | {str(cores): cost}
    build.write(folder / "budget.json", json.dumps(known, indent=1, sort_keys=True) + "\n")
    readme = folder.parent / "README.md"
    if readme.exists():
        before = readme.read_text(encoding="utf-8")
        if (text := badges.fill_block(before, "budget", table(known))) != before:
            build.write(readme, text)
    if cores == 2:
        build.record_seconds(name, cost["seconds"], folder)


def main(arguments: Sequence[str] | None = None, folder: Path = NOTEBOOKS) -> int:
    """Command line; returns the exit code."""
    parser = Parser(description="Measure what the notebooks cost to run; fail over budget.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as 02_superposition; all when left out")
    parser.add_argument("--cores", type=int, choices=sorted(SECONDS), help="both when left out")
    parser.add_argument("--table", action="store_true", help="run nothing; print what was measured")
    options = parser.parse_args(arguments)

    problems = []
    try:
        names = chosen(options.names, folder)
        read(folder)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    for name in [] if options.table else names:
        for cores in [options.cores] if options.cores else sorted(SECONDS):
            try:
                cost = measure(name, cores, folder)
            except build.BuildError as error:
                problems.append(str(error))
                continue
            record(name, cores, cost, folder)
            problems += over(name, cores, cost)
            print(f"{name}: {cost['seconds']:.0f} s and {cost['megabytes']} MB, cores: {cores}", file=sys.stderr)
    build.requote(folder)
    print(table(read(folder)))
    print("\n".join(problems), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
