"""Partitions of a small set, for topics that try every way to put components, or columns, into groups."""

from collections.abc import Iterator
from functools import cache

Groups = tuple[tuple[int, ...], ...]
"""A partition of 0 … n − 1: each group is a tuple of the numbers that belong together."""


@cache
def partitions(n: int) -> tuple[Groups, ...]:
    """Every way to put n components into groups, from all separate to all together; for six there are 203 ways."""

    def partitions_from(first: int) -> Iterator[list[list[int]]]:
        if first == n:
            yield []
            return
        for rest in partitions_from(first + 1):
            yield [[first], *rest]
            for i in range(len(rest)):
                yield [*rest[:i], [first, *rest[i]], *rest[i + 1 :]]

    ways = [tuple(sorted(tuple(sorted(group)) for group in groups)) for groups in partitions_from(0)]
    return tuple(sorted(ways, key=lambda groups: (-len(groups), groups)))
