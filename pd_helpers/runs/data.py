"""Data as people have them: whatever is given becomes a source of batches, and a generator alone decides what it gives.

    given                                          a batch
    a function (batch_size, generator) → batch     what the function returns
    a tensor or array, or a tuple or dict of them  rows, drawn with replacement
    a Dataset, or a list of examples               examples, drawn with replacement and collated
    a DataLoader                                   the next one of the loader, in its own size and collation
    an IterableDataset                             the next examples, collated
    an object whose __iter__ begins anew           its next item, and after the last one the first again
    an iterator, such as a generator               its next item, and after the last one a ValueError

A list is a list of examples, and never one of batches. Examples are collated by torch's `default_collate`.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from pd_helpers.core.networks.batches import Inputs
from pd_helpers.runs.sources import Examples, Sampler, Source, Table, refusal
from pd_helpers.runs.streams import ExampleStream, Loader, OnePass, Stream


def as_source(data: Any) -> Source:
    """The source that gives batches of these data; a source is returned itself.

    The first batch of loaders, iterables and iterators is drawn at once. Raises TypeError for what gives no batches,
    and ValueError for what is empty, or for examples that cannot be collated.

    >>> source = as_source(DataLoader(images, batch_size=64, shuffle=True))
    >>> x, labels = source(source.batch_size, torch.Generator().manual_seed(0))
    """
    if isinstance(data, Source):
        return data
    if isinstance(data, type | nn.Module | str | bytes | set | frozenset):
        raise refusal(data)
    if isinstance(data, Tensor | np.ndarray | tuple | Mapping) or type(data) is TensorDataset:
        return Table(data)
    if isinstance(data, DataLoader):
        return Loader(data)
    if isinstance(data, IterableDataset):
        return ExampleStream(data)
    if callable(data) and not isinstance(data, Dataset):
        return Sampler(data)
    if hasattr(data, "__len__") and hasattr(data, "__getitem__"):
        return Examples(data)
    if isinstance(data, Iterable):
        return OnePass(data) if iter(data) is iter(data) else Stream(data)
    raise refusal(data)


def fingerprint(batch: Inputs) -> str:
    """The SHA-256 checksum of a batch of any structure: the names and numbers of its parts, shapes, types and all bits.

    It is the same on every device, and for a tuple and a list of the same parts.
    """
    checksum = hashlib.sha256()
    for piece in _pieces(batch):
        checksum.update(piece)
    return checksum.hexdigest()


def _pieces(batch: Inputs) -> Iterator[bytes]:
    if isinstance(batch, Tensor):
        yield f"{tuple(batch.shape)} {batch.dtype}".encode()
        yield batch.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    elif isinstance(batch, tuple | list | Mapping):
        parts = batch if isinstance(batch, Mapping) else dict(enumerate(batch))
        yield f"{list(parts)}".encode()
        for part in parts.values():
            yield from _pieces(part)
    else:
        is_plain = isinstance(batch, bool | int | float | str | None)
        yield (repr(batch) if is_plain else type(batch).__name__).encode()
