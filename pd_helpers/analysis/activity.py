"""Which components are active where: tables with a line for each input, position, layer and component.

A component is active on a row in two senses (VPD, section on activity):

    importance   g_c, in [0, 1]          the output needs it: causal importance (SPD), or whether it is active (APD)
    activation   a_c = ‖U_c‖ V_c x       how strongly it reads, with its sign; for rank R > 1 the length ‖U_c V_c x‖ of
                                         what it writes

Where a matrix is used transposed, U reads and V writes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pd_helpers.analysis.decomposed import Decomposed
from pd_helpers.analysis.masking import check_component, check_name
from pd_helpers.core.components import ComponentModel
from pd_helpers.core.config import shown
from pd_helpers.core.networks.batches import Inputs, checked_rows, mapped, n_inputs, select, tensors

if TYPE_CHECKING:
    import pandas

CHUNK, WIDEST = 4096, 2**26
"""Rows, and inner activations of one layer, that are computed at a time."""

Tokens = Callable[[int], str] | Sequence[str] | Mapping[int, str]
"""Token → its text, as a function such as a tokenizer's `decode`, a list or a mapping."""


class Strongest(NamedTuple):
    """The rows on which a component matters most; shown as their table."""

    table: "pandas.DataFrame"
    """A line for each row, the most important first; see `Run.strongest`."""
    inputs: list[Inputs]
    """For each line its input, without the dimension that counts inputs; None for a line that knows of none."""

    def __repr__(self) -> str:
        return repr(self.table)

    def _repr_html_(self) -> str | None:
        return self.table._repr_html_()


class Part(NamedTuple):
    """Some of the inputs of a batch, and how active the components are on them."""

    first: int
    """Number of the first of them in the batch."""
    x: Inputs
    importance: dict[str, Float[Tensor, "*rows _"]]
    """Use → g (*rows, C)."""
    activation: dict[str, Float[Tensor, "*rows _"]]
    """Use → a (*rows, C)."""


class Lines(NamedTuple):
    """Lines of a table that belong to one use, as arrays (n,)."""

    use: int
    """Number of the use among all of them."""
    input: np.ndarray
    place: np.ndarray
    """Where in its input a row is, (n, depth): nothing, a position, or several numbers such as y and x."""
    component: np.ndarray
    importance: np.ndarray
    activation: np.ndarray
    token: np.ndarray | None
    """The tokens that stand there, if the rows are those of the tokens."""


@torch.no_grad()
def active(run: Decomposed, x: Inputs, threshold: float = 0.1, tokens: Tokens | None = None) -> "pandas.DataFrame":
    """A table of the components whose importance is above the threshold; `Run.active` says what its columns are.

    Raises TypeError or ValueError for a batch without inputs, a threshold outside of [0, 1], and texts for tokens where
    there are no tokens.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be a number from 0 to 1, but is {threshold}; 0.1 works")
    check_tokens(tokens, checked_rows(x, "batch"))
    lines = []
    for part in parts(run, x):
        for i, (use, g) in enumerate(part.importance.items()):
            where = (g > threshold).nonzero()
            lines.append(_lines(i, part, use, where, n_inputs(x)))
    return _table(list(run.components.uses), lines, _by_place, tokens)


@torch.no_grad()
def strongest(
    run: Decomposed, layer: str, component: int, batches: Iterable[Inputs], n: int = 10, tokens: Tokens | None = None
) -> Strongest:
    """The n rows of these batches with the largest importance of one component of a use; see `Run.strongest`.

    Rows of the same importance are ordered by |activation|. Inputs are numbered from one batch to the next.
    """
    uses = run.components.uses
    check_name("layer", layer, uses)
    c = check_component("component", component, run.components.layers[uses[layer].layer].C)
    if n < 1:
        raise ValueError(f"n must be at least 1, but is {n}; 10 works")
    best: list[tuple[Lines, Inputs]] = []  # single lines with their inputs
    n_seen = 0
    for x in batches:
        check_tokens(tokens, checked_rows(x, "batch"))
        for part in parts(run, x):
            g = part.importance[layer]
            rows = g.new_ones(g.shape[:-1], dtype=torch.bool).nonzero()
            where = torch.cat([rows, torch.full_like(rows[:, :1], c)], dim=1)
            lines = _lines(list(uses).index(layer), part, layer, where, n_inputs(x))
            for line in _split(lines, np.lexsort((-abs(lines.activation), -lines.importance))[:n]):
                i = line.input.item()
                taken = None if i < 0 else _one(part.x, i - part.first)
                best.append((line._replace(input=line.input + n_seen if i >= 0 else line.input), taken))
        best.sort(key=lambda entry: (-entry[0].importance.item(), -abs(entry[0].activation.item())))
        best, n_seen = best[:n], n_seen + n_inputs(x)
    table = _table(list(uses), [line for line, _ in best], _as_they_are, tokens)
    return Strongest(table.drop(columns=["layer", "component"]), [taken for _, taken in best])


def parts(run: Decomposed, x: Inputs) -> Iterator[Part]:
    """A batch in pieces of a few thousand rows, so that what is computed on the way does not fill the memory.

    Components that span layers compete for all inputs of a batch, so their importances are computed at once.
    """
    model = run.components
    model.target_forward(select(x, slice(2)))  # after which the model knows how many rows an input has
    n = n_inputs(x)
    of_all = run.method.importances(x) if run.method.spans_layers else None
    first = 0
    for piece in model.chunks(x, min(CHUNK, max(1, WIDEST // model.width))):
        here = slice(first, first + n_inputs(piece))
        if of_all is None:
            g = run.method.importances(piece)
        else:
            g = {use: table[here] if len(table) == n else table for use, table in of_all.items()}
        yield Part(first, piece, g, activations(model, piece))
        first = here.stop


@torch.no_grad()
def activations(model: ComponentModel, x: Inputs) -> dict[str, Float[Tensor, "*rows _"]]:
    """Use → a (*rows, C): ‖U_c‖ V_c x with its sign for components of rank one, ‖U_c V_c x‖ for others."""
    found = {}
    for use, inner in model.inner(model.entering(x)).items():  # (*rows, C, R)
        layer, transposed = model.uses[use]
        components = model.layers[layer]
        writes = components.V.mT if transposed else components.U  # (C, d, R)
        if components.rank == 1:
            found[use] = inner.squeeze(-1) * writes.flatten(1).norm(dim=1)
        else:
            exact = torch.promote_types(writes.dtype, torch.float32)
            triangle = torch.linalg.qr(writes.to(exact), mode="r").R  # (C, min(d, R), R), as long on every vector
            found[use] = torch.einsum("...cr,csr->...cs", inner.to(exact), triangle).norm(dim=-1)
    return found


def _lines(use_number: int, part: Part, use: str, where: Tensor, n: int) -> Lines:
    """Lines for the entries (n_lines, n_dimensions) of the tables of one use, of a batch of n inputs.

    What is the same for all inputs, as the embedding of positions is, has a line for each of them. Where a network
    flattens inputs and positions before a layer, nobody knows which row is whose: the input is then −1.
    """
    g, a = part.importance[use], part.activation[use]
    n_here, n_rows = n_inputs(part.x), len(g)
    if len(a) != n_rows:  # the same for all inputs, in one of the two
        n_rows = max(len(a), n_rows)
        g, a = (table.expand(n_rows, *table.shape[1:]) for table in (g, a))
    at = tuple(where.to(g.device).T)
    importance, activation = _numbers(g[at]), _numbers(a[at])
    ids = token_ids(part.x)
    of_tokens = ids is not None and ids.shape == g.shape[:-1]
    token = _numbers(ids[tuple(index.to(ids.device) for index in at[:-1])]) if of_tokens else None
    where = where.cpu().numpy()
    input, place, component = where[:, 0], where[:, 1:-1], where[:, -1]
    if n_rows == n_here:
        input = input + part.first
    elif n_rows == 1:
        repeat = np.tile(np.arange(len(where)), n_here)
        input = np.repeat(np.arange(part.first, part.first + n_here), len(where))
        place, component, importance, activation = (v[repeat] for v in (place, component, importance, activation))
    else:
        place = where[:, :-1]
        input = np.full(len(where), 0 if n == 1 else -1)
    return Lines(use_number, input, place, component, importance, activation, token)


def _split(lines: Lines, which: np.ndarray) -> list[Lines]:
    """Some of the lines, each by itself."""
    return [Lines(lines.use, *(None if column is None else column[i : i + 1] for column in lines[1:])) for i in which]


def _numbers(values: Tensor) -> np.ndarray:
    values = values.detach().cpu()
    return (values.float() if values.dtype in (torch.bfloat16, torch.float16) else values).numpy()


def _one(x: Inputs, i: int) -> Inputs:
    """One of the inputs, without the dimension that counts them."""
    n = n_inputs(x)
    return mapped(lambda tensor: tensor[i] if tensor.ndim and len(tensor) == n else tensor, x)


# Tables


def _by_place(input: np.ndarray, place: np.ndarray, use: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """The order by input, position, layer and falling importance."""
    return np.lexsort((-importance, use, *place.T[::-1], input))


def _as_they_are(input: np.ndarray, *_: np.ndarray) -> np.ndarray:
    return np.arange(len(input))


def _table(
    uses: list[str], lines: list[Lines], order: Callable[..., np.ndarray], tokens: Tokens | None
) -> "pandas.DataFrame":
    """The lines as a table, in an order that is found from input, place, use and importance."""
    import pandas

    depth = max(one.place.shape[1] for one in lines)
    n_lines = [len(one.input) for one in lines]
    use = np.repeat([one.use for one in lines], n_lines)
    depths = np.repeat([one.place.shape[1] for one in lines], n_lines)
    place = np.concatenate(
        [np.pad(one.place, ((0, 0), (0, depth - one.place.shape[1])), constant_values=-1) for one in lines]
    )
    input, component, importance, activation = (
        np.concatenate([getattr(one, name) for one in lines])
        for name in ("input", "component", "importance", "activation")
    )
    rows = order(input, place, use, importance)
    columns: dict[str, Any] = {"input": input[rows]}
    if depth:
        columns["position"] = _positions(place[rows], depths[rows], {one.place.shape[1] for one in lines})
    if any(one.token is not None for one in lines):
        tokens_or_0 = (np.zeros(len(one.input), int) if one.token is None else one.token for one in lines)
        token = np.concatenate(list(tokens_or_0))
        known = np.repeat([one.token is not None for one in lines], n_lines)
        columns["token"] = _token_column(token[rows], known[rows], tokens)
    columns["layer"] = pandas.Categorical.from_codes(use[rows], categories=uses)
    columns |= {"component": component[rows], "importance": importance[rows], "activation": activation[rows]}
    return pandas.DataFrame(columns)


def _positions(place: np.ndarray, depths: np.ndarray, kinds: set[int]) -> Any:
    """The column of positions: whole numbers, tuples where a row has a y and an x, and nothing where it is an input."""
    if kinds == {1}:
        return place[:, 0]
    if max(kinds) == 1:
        return _missing(place[:, 0], depths == 1)
    column = np.empty(len(place), dtype=object)
    for i, (at, depth) in enumerate(zip(place.tolist(), depths.tolist(), strict=True)):
        column[i] = tuple(at[:depth]) if depth > 1 else at[0] if depth else None
    return column


def _missing(numbers: np.ndarray, known: np.ndarray) -> Any:
    """Whole numbers, some of which are missing."""
    import pandas

    return pandas.arrays.IntegerArray(numbers.astype("int64"), ~known)


def token_ids(x: Inputs) -> Tensor | None:
    """The tokens (inputs, positions) of a batch: its `input_ids`, or its first tensor, if that has whole numbers."""
    ids = x.get("input_ids") if isinstance(x, Mapping) else None
    ids = next(tensors(x), None) if ids is None else ids
    if not isinstance(ids, Tensor) or ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        return None
    return ids if ids.ndim in (1, 2) else None


def check_tokens(tokens: Tokens | None, x: Inputs) -> None:
    """Raise TypeError for texts that are none, and ValueError for texts without tokens."""
    if tokens is None:
        return
    is_list = isinstance(tokens, Sequence) and not isinstance(tokens, str)
    if not (callable(tokens) or is_list or isinstance(tokens, Mapping)):
        raise TypeError(
            f"tokens must be a function, a list or a mapping from tokens to texts, but is {shown(tokens)}; "
            "tokenizer.decode works"
        )
    if token_ids(x) is None:
        raise ValueError(
            "tokens is given, but batch holds no tokens, which are whole numbers (inputs, positions); tokens=None works"
        )


def _token_column(token: np.ndarray, known: np.ndarray, tokens: Tokens | None) -> Any:
    """The tokens, or their texts; missing where a layer's rows are not those of the tokens."""
    if tokens is None:
        return token if known.all() else _missing(token, known)
    texts = {}
    for i in np.unique(token[known]).tolist():
        try:
            texts[i] = tokens(i) if callable(tokens) else tokens[i]
        except LookupError:
            raise ValueError(f"tokens must have a text for token {i}, but has none; tokens=None works") from None
    column = [texts[i] if is_known else None for i, is_known in zip(token.tolist(), known, strict=True)]
    return np.array(column, dtype=object)
