"""Sources of batches without memory: a sampling function, a table of rows, a data set of examples."""

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import TensorDataset, default_collate

from pd_helpers.core.config import shown
from pd_helpers.core.networks.batches import Inputs, mapped, tensors
from pd_helpers.runs.randomness import Randomness

A_SAMPLER = "lambda n, generator: torch.rand(n, 8, generator=generator)"
"""What `data` can be, for a network with eight inputs."""


class Source:
    """Data of one kind: source(batch_size, generator) gives the next batch, on the generator's device.

    Attributes: data (what was given); batch_size (the number of inputs in the first batch, for data that have a batch
    size of their own; None for those that give as many inputs as they are asked for); one_pass (whether the data can be
    read only once, so that several initialisations cannot all be trained on them).
    """

    batch_size: int | None = None
    one_pass = False

    def __init__(self, data: Any):
        self.data = data

    def __call__(self, batch_size: int, generator: Generator) -> Inputs:
        """The next batch for this generator."""
        raise NotImplementedError

    def position(self, generator: Generator) -> int:
        """The number of batches that this generator has drawn; always 0 for data without memory."""
        return 0

    def set_position(self, generator: Generator, n: int) -> None:
        """Let the training that draws with this generator continue after n batches, as `position` counted them.

        Data without memory have nothing to skip. Raises ValueError for an iterator that is past this position already,
        or ends before it.
        """
        return

    def begin(self, generator: Generator) -> None:
        """Say that training draws with this generator from now on: an iterator forgets the batches that it has had."""
        return

    def close(self, generator: Generator) -> None:
        """Let go of what is open for this generator, such as the workers of a loader; it can still draw on."""
        return


class Sampler(Source):
    """A function (batch_size, generator) → batch."""

    def __init__(self, data: Callable[[int, Generator], Inputs]):
        super().__init__(data)
        try:
            inspect.signature(data).bind(1, None)
        except TypeError as error:
            raise TypeError(
                f"data must take a batch size and a generator, but there are {error}; {A_SAMPLER} works"
            ) from None
        except ValueError:
            pass  # a function that does not say what it takes

    def __call__(self, batch_size: int, generator: Generator) -> Inputs:
        return moved(self.data(batch_size, generator), generator)


class Table(Source):
    """Tensors or arrays of one length, whose rows belong together: rows are drawn with replacement."""

    def __init__(self, data: Tensor | np.ndarray | tuple | Mapping | TensorDataset):
        super().__init__(data)
        self.table = _table(data)
        if not any(True for _ in tensors(self.table)):
            raise refusal(data)
        lengths = {len(tensor) if tensor.ndim else 0 for tensor in tensors(self.table)}
        if len(lengths) > 1:
            raise TypeError(
                f"data must have as many rows in each of its tensors, but they have {', '.join(map(str, lengths))} in "
                f"{shown(data)}; (torch.rand(100, 8), torch.zeros(100)) works"
            )
        (self.n_rows,) = lengths
        _check_not_empty(self.n_rows, data)

    def __call__(self, batch_size: int, generator: Generator) -> Inputs:
        rows = _drawn(self.n_rows, batch_size, generator)
        return moved(mapped(lambda tensor: tensor[rows.to(tensor.device)], self.table), generator)


class Examples(Source):
    """A map-style Dataset, a list of examples, or whatever else has a length and gives an example for each number.

    Examples are drawn with replacement. What a Dataset draws of its own, such as random crops, is decided by the
    generator too.
    """

    def __init__(self, data: Any):
        super().__init__(data)
        _check_not_empty(len(data), data)
        try:
            with Randomness(0):
                first = self._examples([0])
        except (LookupError, TypeError, NotImplementedError) as error:
            raise TypeError(
                f"data must give an example for each number, but data[0] of {shown(data)} raises {error!r}; a tensor, "
                "a list of examples or a Dataset works"
            ) from error
        collated(first)

    def __call__(self, batch_size: int, generator: Generator) -> Inputs:
        numbers = _drawn(len(self.data), batch_size, generator).tolist()
        seed = _drawn(2**32, 1, generator).item()
        with Randomness(seed):
            return moved(collated(self._examples(numbers)), generator)

    def _examples(self, numbers: list[int]) -> Sequence[Any]:
        at_once = getattr(self.data, "__getitems__", None)  # which torch's loader prefers, too
        return at_once(numbers) if at_once else [self.data[i] for i in numbers]


def collated(examples: Sequence[Any]) -> Inputs:
    """One batch of these examples, as torch's `default_collate` makes it; a list of numbers counts as a tensor.

    Raises ValueError for examples that do not fit together.
    """
    try:
        return default_collate([_with_tensors(example) for example in examples])
    except (TypeError, RuntimeError, ValueError, LookupError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"data must have examples that make a batch together, but torch says: {reason}; a DataLoader with a "
            "collate_fn that pads or picks works"
        ) from error


def _with_tensors(example: Any) -> Any:
    """The example with lists of numbers, as tokens often come, made tensors."""
    if isinstance(example, list) and example and all(isinstance(number, int | float) for number in example):
        return torch.tensor(example)
    if isinstance(example, Mapping):
        return {name: _with_tensors(part) for name, part in example.items()}
    return tuple(map(_with_tensors, example)) if type(example) is tuple else example


def _table(data: Any) -> Any:
    """The data with arrays made tensors; what is no tensor but a setting, such as True, goes along with every batch."""
    if type(data) is TensorDataset:
        return _table(data.tensors)
    if isinstance(data, tuple):
        parts = [_table(part) for part in data]
        return type(data)(*parts) if hasattr(data, "_fields") else tuple(parts)
    if isinstance(data, Mapping):
        return {name: _table(part) for name, part in data.items()}
    if isinstance(data, np.ndarray) and data.dtype.kind in "biufc":
        native = data.astype(data.dtype.newbyteorder("="), copy=False)  # a memory map stays on the disk
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # rows are only read
            return torch.from_numpy(np.ascontiguousarray(native))
    if not isinstance(data, Tensor | bool | int | float | str | None):
        raise refusal(data)
    return data


def _drawn(n: int, how_many: int, generator: Generator) -> Tensor:
    """Whole numbers below n, drawn with replacement."""
    return torch.randint(n, (how_many,), generator=generator, device=generator.device)


def moved(batch: Inputs, generator: Generator) -> Inputs:
    """The batch on the generator's device."""
    return mapped(lambda tensor: tensor.to(generator.device), batch)


def _check_not_empty(n: int, data: Any) -> None:
    if not n:
        raise ValueError(f"data must hold at least one input, but is {shown(data)}; torch.rand(100, 8) works")


def refusal(data: Any) -> TypeError:
    """The error for data of no kind that is known."""
    return TypeError(
        "data must be a function of a batch size and a generator, a tensor, a tuple or dict of tensors, a Dataset, a "
        f"DataLoader or an iterable of batches, but is {shown(data)}; {A_SAMPLER} works"
    )
