"""Checks before any work starts: each error names the argument, its value, and a value that works."""

import operator
from typing import Any

import torch
from torch import Generator, Tensor, nn

from pd_helpers.core.method import Data


def checked_seed(seed: Any) -> int:
    """The seed as an int; ValueError unless it is a whole number of at least 0."""
    try:
        whole = operator.index(seed)
    except TypeError:
        whole = -1
    if whole < 0 or isinstance(seed, bool):
        raise ValueError(f"seed must be a whole number of at least 0, but is {seed!r}; 0 works")
    return whole


def check_data(target: nn.Module, data: Data, draw: Generator) -> None:
    """Raise ValueError unless data gives batches that the target takes and answers with finite numbers."""
    x = data(2, draw)
    if not isinstance(x, Tensor) or x.ndim != 2 or len(x) != 2:
        result = f"a tensor of shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise ValueError(
            f"data(2, generator) must give a tensor of shape (2, d_in), one input per row, but gave {result}"
        )
    if not x.isfinite().all():
        raise ValueError("data gives numbers that are not finite; check what it is made from")
    try:
        with torch.no_grad():
            output = target(x)
    except RuntimeError as error:
        raise ValueError(f"target does not take what data gives, shape {tuple(x.shape)}: {error}") from error
    bad = [name for name, p in target.named_parameters() if not p.isfinite().all()]
    if bad or not output.isfinite().all():
        which = f"its parameter {bad[0]!r} is" if bad else "its outputs are"
        raise ValueError(f"target is unusable: {which} not finite; train it again, at a smaller learning rate")
