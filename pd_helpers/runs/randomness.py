"""Random numbers that loaders and data sets draw of their own accord: decided by a seed, unnoticed by the caller."""

import random
from collections.abc import Iterable
from threading import RLock
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor


class Randomness:
    """Within `with` blocks, the random numbers of torch, numpy, Python and these generators are those of a seed.

    Each block continues where the last one ended, and after each, all random states are the caller's again.

    >>> randomness = Randomness(seed=3)
    >>> with randomness:
    ...     order = torch.randperm(100)
    """

    _turn = RLock()  # the states belong to all threads, so only one of them may exchange them

    def __init__(self, seed: int, generators: Iterable[Generator] = ()):
        self._generators = (torch.default_generator, *generators)
        with self._turn:
            self._states = self._present()
            for generator in self._generators:
                generator.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)
            self._swap()

    def __enter__(self) -> None:
        self._turn.acquire()
        self._swap()

    def __exit__(self, *_: object) -> None:
        self._swap()
        self._turn.release()

    def _swap(self) -> None:
        """Exchange the states that are kept here and the present ones."""
        (states, numpy_state, python_state), self._states = self._states, self._present()
        for generator, state in zip(self._generators, states, strict=True):
            generator.set_state(state)
        np.random.set_state(numpy_state)
        random.setstate(python_state)

    def _present(self) -> tuple[list[Tensor], Any, Any]:
        return [generator.get_state() for generator in self._generators], np.random.get_state(), random.getstate()
