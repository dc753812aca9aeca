"""Which rows belong to which input: masks of inputs as masks of rows, and a batch a few inputs at a time.

(inputs, positions, d)      one entry of the first dimension for each input
(inputs · positions, d)     several, input by input, where the network flattens its activations
(positions, d), (1, …)      none: all inputs share the rows, as position embeddings do
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .batches import Inputs, n_inputs, select, tensors
from .passes import Forward


def spread(mask: Tensor, rows: tuple[int, ...]) -> Tensor:
    """A mask in a shape that broadcasts against (*rows, C): a mask (inputs, C) holds for all rows of an input.

    Where all inputs share the rows, a mask may have a dimension of inputs more, so that each has rows of its own.
    Raises ValueError for a mask of another shape.
    """
    own = mask.shape[:-1]
    if own == rows:
        return mask
    if len(own) == 1 and len(rows) > 1 and rows[0] in (1, len(mask)):
        return mask.reshape(len(mask), *(1 for _ in rows[1:]), -1)
    shared = rows[1:] if len(own) == len(rows) and rows[0] == 1 else rows
    if len(own) != len(shared) + 1 or any(m not in (1, r) for m, r in zip(own[1:], shared, strict=True)):
        raise ValueError(
            f"a mask must have shape {(*rows, 'C')}, one value per row and component, but has {tuple(mask.shape)}"
        )
    return mask


class Layout(NamedTuple):
    """Which rows of which use belong to which input."""

    entries: dict[str, int]
    """Use → how many entries of the first dimension belong to each input; zero where all inputs share the rows."""
    shared: dict[str, int]
    """Use whose rows all inputs share → how many dimensions these have, but for a first dimension of one."""


class Rows:
    """The rows that the inputs of one network have in its layers.

    `forward(x)` gives the network's own output and activations. What is found out about the network on one batch holds
    for all others.
    """

    def __init__(self, forward: Callable[[Inputs], Forward]):
        self._forward = forward
        self._layout: Layout | None = None
        self._are_independent: bool | None = None

    def layout(self, x: Inputs) -> Layout:
        """How rows belong to inputs; ValueError if that cannot be told."""
        if self._layout is None:
            n, few = n_inputs(x), 3 if n_inputs(x) == 2 else 2
            forward = self._forward(x)
            pairs = compared(forward, self._forward(select(x, [0] * few)))
            entries = {name: _entries(name, a, b, n, few) for name, (a, b) in pairs.items()}
            shared = {name: _dimensions(forward.inputs[name]) for name, k in entries.items() if k == 0}
            self._layout = Layout(entries, shared)
        return self._layout

    def masks(self, mask: Float[Tensor, "inputs C"] | Bool[Tensor, "inputs C"], x: Inputs) -> dict[str, Tensor]:
        """Use → a mask that holds for all rows that an input has there, as `spread` takes it.

        Raises ValueError if it cannot be told which rows belong to which input.
        """
        entries, shared = self.layout(x)

        def of(use: str, k: int) -> Tensor:
            if k == 1:
                return mask
            return mask.repeat_interleave(k, dim=0) if k else mask.reshape(len(mask), *[1] * shared[use], -1)

        return {use: of(use, k) for use, k in entries.items() if use != OUTPUT}

    def chunks(self, x: Inputs, size: int) -> tuple[Inputs, ...]:
        """The inputs, `size` at a time; all at once if the network computes an input from others too."""
        if n_inputs(x) <= size or not self.are_independent(select(x, slice(size))):
            return (x,)
        return tuple(select(x, slice(i, i + size)) for i in range(0, n_inputs(x), size))

    def joined(self, parts: list[dict[str, Tensor]], x: Inputs) -> dict[str, Tensor]:
        """Tables of chunks as tables of all inputs: use → (*rows, …). Rows that all inputs share stay what they are.

        `x` is the first of the chunks.
        """
        if len(parts) == 1:
            return parts[0]
        entries = self.layout(x).entries
        return {use: torch.cat([part[use] for part in parts]) if entries[use] else parts[0][use] for use in parts[0]}

    def are_independent(self, x: Inputs) -> bool:
        """Whether the network computes each input from that one alone, as it does for the first batch with others."""
        if self._are_independent is not None:
            return self._are_independent
        found = independent(self._forward, x)
        if any(tensor.any() for tensor in tensors(x)):
            self._are_independent = found
        return found


OUTPUT = " output"
"""A name for the output that no use has."""


def compared(first: Forward, second: Forward) -> dict[str, tuple[Tensor, Tensor]]:
    """Name → activations of two passes, those of tokens and other whole numbers as numbers."""
    pairs = {OUTPUT: (first.output, second.output)}
    pairs |= {use: (a, second.inputs[use]) for use, a in first.inputs.items()}
    return {name: tuple(t if t.is_floating_point() else t.double() for t in pair) for name, pair in pairs.items()}


def close(a: Tensor, b: Tensor, scale: Tensor) -> bool:
    """Whether two tensors are the same up to rounding, of numbers as large as the largest in `scale`."""
    return bool((a - b).abs().max() <= torch.finfo(a.dtype).eps ** 0.5 * scale.abs().max())  # a NaN is no proof


def _entries(name: str, a: Tensor, b: Tensor, n: int, few: int) -> int:
    """Entries for each input in an activation of `n` inputs, given another of the first input, `few` times over."""
    k = len(a) // n if a.ndim else 0
    if k == 1 and len(a) == n and len(b) == few and a.shape[1:] == b.shape[1:]:
        return 1
    if name != OUTPUT and a.shape == b.shape and close(a, b, a):
        return 0
    if k > 1 and len(a) == k * n and len(b) == k * few and close(a[:k], b[:k], a) and close(b[:k], b[k : 2 * k], a):
        return k
    what = "its output" if name == OUTPUT else f"what enters {name!r}"
    raise ValueError(
        f"a component spans all layers and is switched on or off for an input as a whole, but the network makes "
        f"{n} inputs into {what} of shape {tuple(a.shape)}, and which of it belongs to which input cannot be told; "
        "layers with the inputs as their first dimension work, and so does SPD"
    )


def _dimensions(a: Tensor) -> int:
    """Dimensions of the rows that all inputs share, but for a first one of length one that stands for the inputs."""
    n = a.ndim - a.is_floating_point()  # tokens are rows themselves
    return n - 1 if n > 1 and len(a) == 1 else n


def independent(forward: Callable[[Inputs], Forward], x: Inputs) -> bool:
    """Whether a few inputs give the same by themselves as among all the others, up to rounding.

    An input by itself is computed twice over, because a network may treat a batch of one in another way. Rows that all
    inputs share must be the same.
    """
    first, n = next(tensors(x)), n_inputs(x)
    rows = first.reshape(n, -1).any(dim=1).nonzero().squeeze(1) if first.any() else torch.arange(n)
    together = forward(x)
    for row in {int(rows[i]) for i in (0, len(rows) // 2, -1)}:
        for name, (a, b) in compared(together, forward(select(x, [row, row]))).items():
            shared = name != OUTPUT and len(b) != 2 and a.shape == b.shape
            if not (shared or len(a) == n) or not close(a if shared else a[row], b if shared else b[0], a):
                return False
    return True
