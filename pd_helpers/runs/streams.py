"""Sources of batches that come one after another: loaders, iterables and iterators.

Each generator reads a stream for itself, from the beginning, over and over. The order of epoch e depends on the
generator's seed and on e only: all readers with one seed get the same batches, none disturbs another, and a reader can
begin anywhere. An iterator can be read only once; what is drawn from it before training is kept, and given again.
"""

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np
import torch
from torch import Generator
from torch.utils.data import DataLoader, IterableDataset, default_convert

from pd_helpers.core.config import shown
from pd_helpers.core.networks.batches import Inputs, mapped, n_inputs
from pd_helpers.runs.randomness import Randomness
from pd_helpers.runs.sources import Source, collated, moved

STARTS_AGAIN = "a DataLoader, or an object whose __iter__ begins anew each time, starts again at its end"
END = object()
"""What `_next` gives at the end."""


class Stream(Source):
    """An object whose `__iter__` begins anew each time, and gives batches."""

    epoch_length: int | None = None
    """Batches in each epoch, where that is certain."""
    generators: tuple[Generator, ...] = ()
    """Generators of its own that the stream draws from."""

    def __init__(self, data: Iterable[Any]):
        super().__init__(data)
        self._positions: WeakKeyDictionary[Generator, int] = WeakKeyDictionary()
        self._readers: WeakKeyDictionary[Generator, Iterator[Inputs]] = WeakKeyDictionary()
        self.batch_size = n_inputs(self(2, Generator())) or None  # ValueError for an empty one

    def __call__(self, batch_size: int, generator: Generator) -> Inputs:
        n = self.position(generator)
        if generator not in self._readers:
            self._readers[generator] = self._batches(n, batch_size, generator.initial_seed())
        try:
            batch = next(self._readers[generator])
        except BaseException:  # a new reader can try again, also after Ctrl-C
            self.close(generator)
            raise
        self._positions[generator] = n + 1
        return moved(batch, generator)

    def position(self, generator: Generator) -> int:
        return self._positions.get(generator, 0)

    def set_position(self, generator: Generator, n: int) -> None:
        self.close(generator)
        self._positions[generator] = n

    def close(self, generator: Generator) -> None:
        self._readers.pop(generator, None)

    def epoch(self, batch_size: int) -> Iterable[Inputs]:
        """The batches of one epoch; `batch_size` is for data that have no batch size of their own."""
        return self.data

    def _batches(self, n: int, batch_size: int, seed: int) -> Iterator[Inputs]:
        """All batches of this seed from number n on, epoch after epoch."""
        e, n_skipped = divmod(n, self.epoch_length) if self.epoch_length else (0, n)
        while True:
            randomness = Randomness(int(np.random.SeedSequence((seed, e)).generate_state(1)[0]), self.generators)
            with randomness:
                batches = iter(self.epoch(batch_size))
            is_empty = True
            while (batch := _next(batches, randomness)) is not END:
                is_empty = False
                if n_skipped:
                    n_skipped -= 1
                else:
                    yield batch
            if is_empty:
                came = "gives none when it starts again" if e else f"{shown(self.data)} is empty"
                raise ValueError(f"data must give batches, but {came}; {STARTS_AGAIN}")
            e += 1


class Loader(Stream):
    """A DataLoader. Its workers begin anew with each epoch, so that what they draw depends on nothing before it."""

    def __init__(self, data: DataLoader):
        samplers = (data.sampler, data.batch_sampler, getattr(data.batch_sampler, "sampler", None))
        own = [getattr(one, "generator", None) for one in (data, *samplers)]
        self.generators = tuple(dict.fromkeys(one for one in own if isinstance(one, Generator)))
        if not isinstance(data.dataset, IterableDataset):
            with suppress(TypeError, NotImplementedError):  # samplers need not know it
                self.epoch_length = len(data)
        super().__init__(data)

    def epoch(self, batch_size: int) -> DataLoader:
        loader = copy.copy(self.data)
        vars(loader)["persistent_workers"] = False  # they would serve one reader only
        return loader


class ExampleStream(Stream):
    """An IterableDataset: its examples in their order, as many in each batch as the reader first asked for."""

    def __init__(self, data: Iterable[Any]):
        super().__init__(data)
        self.batch_size = None

    def epoch(self, batch_size: int) -> DataLoader:
        return DataLoader(self.data, batch_size=batch_size, collate_fn=collated)


class OnePass(Source):
    """An iterator: its batches are kept until the training has had them.

    The first batch is always kept. Whoever draws later than the training, as the evaluation of a finished run does,
    begins with it, and continues where the iterator stands.
    """

    one_pass = True

    def __init__(self, data: Iterable[Any]):
        super().__init__(data)
        self._batches, self._randomness = iter(data), Randomness(0)
        self._kept: deque[Inputs] = deque()
        self._n_forgotten = 0  # batches before the kept ones
        self._positions: WeakKeyDictionary[Generator, int] = WeakKeyDictionary()
        self._training: Callable[[], Generator | None] = lambda: None
        self._first = self._batch(0)
        self.batch_size = n_inputs(self._first) or None

    def __call__(self, batch_size: int, generator: Generator) -> Inputs:
        n = self.position(generator)
        n = max(n, self._n_forgotten) if n else 0
        batch = self._batch(n) if n else self._first
        self._positions[generator] = n + 1
        if generator is self._training():
            self._forget(n + 1)
        return mapped(lambda tensor: tensor.to(generator.device, copy=True), batch)  # it may be given again

    def position(self, generator: Generator) -> int:
        return self._positions.get(generator, 0)

    def set_position(self, generator: Generator, n: int) -> None:
        if n < self._n_forgotten:
            raise ValueError(
                f"data is an iterator that cannot go back to batch {n}, since {self._n_forgotten} have been taken from "
                "it; a new iterator over the same batches works"
            )
        self._forget(n)
        self._positions[generator] = n

    def begin(self, generator: Generator) -> None:
        self._training = ref(generator)

    def _batch(self, n: int) -> Inputs:
        """Batch number n, which is not forgotten."""
        while (n_taken := self._n_forgotten + len(self._kept)) <= n:
            batch = _next(self._batches, self._randomness)
            if batch is END and not n_taken:
                raise ValueError(f"data must give batches, but {shown(self.data)} is at its end; a new one works")
            if batch is END:
                raise ValueError(f"data is an iterator that ended after {n_taken} batches; {STARTS_AGAIN}")
            self._kept.append(mapped(torch.clone, batch))  # some iterators fill one tensor over and over
        return self._kept[n - self._n_forgotten]

    def _forget(self, n: int) -> None:
        """Forget the first n batches, those included that have yet to be taken."""
        while self._n_forgotten < n:
            self._batch(self._n_forgotten)
            self._kept.popleft()
            self._n_forgotten += 1


def _next(batches: Iterator[Any], randomness: Randomness) -> Inputs:
    """The next batch, its arrays made tensors; or END."""
    with randomness:
        return default_convert(next(batches, END))
