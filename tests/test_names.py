"""One name means one thing in a notebook: a cell that runs again, or out of order, shows what its text says.

Cells share their names. So a name belongs to the cell that sets it, and other cells only read it. What a cell draws
and what its loops count is its own affair: such names may return in a cell that sets them before it reads them.
"""

import ast
import dis
from collections import Counter
from collections.abc import Iterator
from inspect import CO_NEWLOCALS
from types import CodeType
from typing import NamedTuple

import build
import pytest

DRAWING = {"fig", "axes", "ax", "alt", "image", "_"}
"""Names for what a cell draws, and for what it does not want."""

CHANGING = {
    *("append", "extend", "insert", "remove", "pop", "clear", "reverse", "update", "setdefault", "discard", "next"),
    *("train", "step", "steps", "backward", "load_state_dict", "manual_seed", "set_state"),
}
"""What changes its owner; so do methods that end with an underscore, as tensors' do."""

FLEETING = {"Generator", "manual_seed", "default_rng", "iter", "zip", "map", "filter", "enumerate", "reversed", "steps"}
"""What gives things that are used up by reading them, such as random numbers."""

RANDOM = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial"}
"""What draws random numbers that all cells share, unless it is given a generator."""


class Cell(NamedTuple):
    """What a cell does to the names of its notebook."""

    made: set[str]
    """Names that it sets."""
    counted: set[str]
    """Those of them that only its loops set."""
    read: set[str]
    """Names that it reads before it sets them, or that its functions read whenever they are called."""
    changed: set[str]
    """Names that it does not set, and whose things it changes."""
    fleeting: set[str]
    """Names that it sets to things which are used up by reading them."""
    copied: set[str]
    """Names of generators that it copies before it draws."""
    unseeded: bool
    """Whether it draws from random numbers that all cells share, and does not seed them."""


def cell_of(source: str) -> Cell:
    made: set[str] = set()
    read: set[str] = set()
    for use, name in uses(compile(source, "cell", "exec")):
        if use == "set":
            made.add(name)
        elif use == "later" or name not in made:
            read.add(name)

    nodes = list(ast.walk(ast.parse(source)))
    targets = [
        node for loop in nodes if isinstance(loop, ast.For | ast.comprehension) for node in ast.walk(loop.target)
    ]
    stored = [node for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    fleeting = [node.targets[0] for node in nodes if isinstance(node, ast.Assign) and passes(node.value)]
    drawing = [node for node in nodes if called(node) in RANDOM and owner(node) == "torch"]
    return Cell(
        made=made,
        counted=made & {node.id for node in stored} - {node.id for node in stored if node not in targets} - defined,
        read=read,
        changed={owner(node) for node in nodes if changes(node)} - made - {None},
        fleeting={node.id for node in fleeting if isinstance(node, ast.Name)},
        copied={owner(node) for node in nodes if called(node) == "clone_state"},
        unseeded=any("generator" not in {keyword.arg for keyword in node.keywords} for node in drawing)
        and not any(called(node) == "manual_seed" and owner(node) == "torch" for node in nodes),
    )


def uses(code: CodeType) -> Iterator[tuple[str, str]]:
    """("set", name) and ("read", name) in the order in which they happen, and ("later", name) inside functions."""
    for step in dis.get_instructions(code):
        if step.opname in {"STORE_NAME", "STORE_GLOBAL", "DELETE_NAME"}:
            yield "set", step.argval
        elif step.opname in {"LOAD_NAME", "LOAD_GLOBAL"}:
            yield "read", step.argval
        elif isinstance(step.argval, CodeType) and step.argval.co_flags & CO_NEWLOCALS:
            at_once = step.argval.co_name in {"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"}
            for use, name in uses(step.argval):
                yield ("later" if use == "read" and not at_once else use), name


def called(node: ast.AST) -> str | None:
    """The last name of what is called: "append" for a.b.append(c)."""
    if isinstance(node, ast.Call):
        return getattr(node.func, "attr", getattr(node.func, "id", None))
    return None


def owner(node: ast.AST) -> str | None:
    """Whose this is: "a" for a.b[c].append(d) and next(a); None for what a function has just made."""
    if called(node) == "next":
        return owner(node.args[0])
    node = node.func if isinstance(node, ast.Call) else node
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def changes(node: ast.AST) -> bool:
    """Whether this changes its owner."""
    if isinstance(node, ast.Attribute | ast.Subscript):
        return not isinstance(node.ctx, ast.Load)
    method = called(node) or ""
    in_place = method == "sort" and not node.keywords  # torch's takes `descending` or `dim`, and returns a new tensor
    return in_place or method in CHANGING or (method.endswith("_") and not method.endswith("__"))


def passes(value: ast.AST) -> bool:
    """Whether this value is used up by reading it."""
    return isinstance(value, ast.GeneratorExp) or called(value) in FLEETING


def faults(sources: list[str]) -> list[str]:
    """Where the cells of a notebook give a name two meanings, or its thing two states: a sentence for each."""
    cells = dict(enumerate(map(cell_of, sources), 1))
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    imports = [alias for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names]
    modules = {alias.asname or alias.name.partition(".")[0] for alias in imports}

    found = []
    for name, n in Counter(name for cell in cells.values() for name in cell.made).items():
        makers = [number for number, cell in cells.items() if name in cell.made]
        readers = [number for number, cell in cells.items() if name in cell.read]
        passing = name in DRAWING or all(name in cells[number].counted for number in makers)
        if n > 1 and (readers or not passing):
            found.append(f"{name}: cells {makers} set it" + (f", and cells {readers} read it" if readers else ""))
        if any(name in cells[number].fleeting for number in makers):
            others = [number for number in readers if number not in makers and name not in cells[number].copied]
            found += [f"{name}: cell {number} uses it up" for number in others]
    for number, cell in cells.items():
        found += [f"{name}: cell {number} changes it" for name in sorted(cell.changed & cell.read - modules)]
        found += [f"cell {number} draws other random numbers whenever it runs"] * cell.unseeded
    return found


@pytest.mark.parametrize("name", build.sources())
def test_every_name_means_one_thing(name):
    assert faults([cell.source for cell in build.code_cells(build.assemble(name))]) == []


@pytest.mark.parametrize("name", build.sources())
def test_nothing_but_its_check_reads_an_exercise(name):
    sources = [cell.source for cell in build.code_cells(build.assemble(name))]
    exercises = set().union(*(cell_of(source).made for source in sources if build.STUB in source))
    assert exercises
    readers = [source for source in sources if cell_of(source).read & exercises]
    assert [source for source in readers if not source.startswith("pdh.checks.")] == []


HARMLESS = [
    ("x = 1", "y = x + 1", "z = x + y"),
    ("fig, ax = draw()\nfig", "fig, ax = draw()\nfig"),
    ("for c in range(3):\n    print(c)", "for c in range(5):\n    print(c)", "[c for c in range(2)]"),
    ("x = []\nx.append(1)\nx[0] = 2", "def f(x):\n    x.append(1)\n    return x", "f([])"),
    ("import torch\ntorch.manual_seed(0)\nx = torch.rand(3)", "x.sort(descending=True)"),
    ("draw = torch.Generator()", "copy = draw.clone_state()\ntorch.rand(3, generator=copy)"),
    ("_, a = 1, 2", "_, b = 3, 4"),
]
HARMFUL = {
    "a name of two cells": ("x = 1", "x = 2"),
    "by unpacking": ("P, W = 1, 2", "P, Q = 3, 4"),
    "by a loop": ("x = 1", "for x in range(3):\n    pass"),
    "inside a loop": ("for a in range(2):\n    x = a", "for a in range(2):\n    x = a"),
    "by with": ("x = 1", "with open('a') as x:\n    pass"),
    "by a walrus": ("x = 1", "[x := 2 for _ in range(2)]"),
    "by a definition": ("def f(): ...", "def f(): ..."),
    "by an import": ("x = 1", "import numpy as x"),
    "its own input": ("x = 1", "x += 1"),
    "a loop's variable elsewhere": ("for c in range(3):\n    pass", "for c in range(4):\n    pass", "print(c)"),
    "a loop's variable in a function": (
        "for c in range(3):\n    pass\ndef f():\n    return c",
        "for c in range(4):\n    pass",
        "f()",
    ),
    "a drawing elsewhere": ("fig = draw()", "fig = draw()", "fig.show()"),
    "an entry": ("table = {}", "table['a'] = 1"),
    "an attribute": ("run = make()", "run.metrics['a'] = 1"),
    "a list": ("rows = []", "rows.append(1)"),
    "a sorted list": ("rows = [2, 1]", "rows.sort()"),
    "a tensor": ("x = zeros(3)", "x[0].fill_(1)"),
    "in a function": ("rows = []", "def f():\n    rows.append(1)"),
    "a run": ("run = prepare()", "run.train()"),
    "an iterator": ("steps = run()", "next(steps)"),
    "a generator of random numbers": ("draw = torch.Generator().manual_seed(0)", "torch.rand(3, generator=draw)"),
    "a generator expression": ("jobs = (n for n in range(3))", "list(jobs)"),
    "shared random numbers": ("import torch\nx = torch.rand(3)",),
}


@pytest.mark.parametrize("cells", HARMLESS)
def test_harmless_cells_pass(cells):
    assert faults(list(cells)) == []


@pytest.mark.parametrize("cells", HARMFUL.values(), ids=HARMFUL)
def test_harmful_cells_are_found(cells):
    assert len(faults(list(cells))) == 1
