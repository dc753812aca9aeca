"""The package as a plan: its files as rooms on floors, and its imports as arrows, read from the source.

python tests/house.py      prints the rooms and arrows of every floor
"""

import ast
from collections import Counter
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "pd_helpers"
FLOORS = ("core", "targets", "analysis", "runs", "plots", "course")
"""From the ground up."""


@cache
def modules() -> dict[str, Path]:
    """Dotted name, without the package's own → file."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imported(path: Path) -> set[str]:
    """The modules that a file imports anywhere in it, functions and type checking included."""
    known = modules()
    inside = path.relative_to(PACKAGE).parent.parts
    targets = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(("pd_helpers", *inside[: len(inside) + 1 - node.level])) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        else:
            continue
        ours = [name.removeprefix("pd_helpers").lstrip(".") for name in names if name.split(".")[0] == "pd_helpers"]
        exact = {name for name in ours[1:] if name in known}  # `from package import module`
        targets |= exact or {name for name in ours[:1] if name in known}
    return targets


@cache
def arrows() -> set[tuple[str, str]]:
    """(importing module, imported module), of all that import one another."""
    return {(name, other) for name, path in modules().items() for other in imported(path) if other != name}


def floor(name: str) -> int:
    """The floor of a module, from 1 for the core; what stands outside of the floors is above them all."""
    first = name.split(".")[0]
    return FLOORS.index(first) + 1 if first in FLOORS else len(FLOORS) + 1


def circles() -> list[set[str]]:
    """Groups of modules that import each other in a loop."""
    below: dict[str, set[str]] = {}
    for name, other in arrows():
        below.setdefault(name, set()).add(other)

    def reachable(start: str) -> set[str]:
        seen, left = set(), [start]
        while left:
            for other in below.get(left.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    left.append(other)
        return seen

    loops = [frozenset(n for n in reachable(name) if name in reachable(n)) for name in modules()]
    return [set(loop) for loop in set(loops) if loop]


if __name__ == "__main__":
    for i, name in reversed(list(enumerate(FLOORS, 1))):
        rooms = [module for module in modules() if floor(module) == i]
        lines = sum(len(modules()[room].read_text().splitlines()) for room in rooms)
        to = Counter(FLOORS[floor(b) - 1] for a, b in arrows() if floor(a) == i and floor(b) < i)
        print(f"{i} {name:9} {len(rooms):3} modules {lines:5} lines   imports from " + (str(dict(to)) if to else "-"))
