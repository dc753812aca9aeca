"""Which tensors a stored run must hold: found out from its facts, without the memory that the tensors would take.

A file of a few kilobytes can claim sizes that no memory holds. So the target, its components and the method are first
built on torch's meta device, where a tensor has a shape and a type but no numbers, and the header of the tensors' file
is compared with them. Only then is anything built or read.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.overrides import TorchFunctionMode

from pd_helpers.core.components import ComponentModel
from pd_helpers.core.method import Method, MethodConfig, method_named
from pd_helpers.core.networks.frozen import frozen
from pd_helpers.runs.examples import LARGEST
from pd_helpers.runs.facts import Facts
from pd_helpers.targets.base import TargetConfig, target_config_of

MAKERS = {torch.zeros, torch.ones, torch.empty, torch.full, torch.rand, torch.randn, torch.eye, torch.arange}
"""Functions that make tensors out of nothing."""
FUNCTION = "function "
"""What the stored value of a field begins with that holds a function of the user's own; its name follows."""
UNPACKED = 200
"""Largest ratio of the size of factors to the size in which `factors_to_store` stores them."""


class Entry(NamedTuple):
    """What the header of a file says of one tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} {self.shape}"


class Unsuitable(Exception):
    """A stored run is sound, but cannot be read with the network given or with the methods that are imported."""


Header = Mapping[str, Entry]
"""Name of a tensor → its entry."""


class WithoutMemory(TorchFunctionMode):
    """Within the block, new tensors have shapes and types, but no numbers and no memory."""

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if function in MAKERS:
            kwargs["device"] = "meta"
            kwargs.pop("generator", None)
        elif function is Tensor.to and args[0].is_meta:
            others = [*args[1:], *kwargs.values()]
            dtype = next((other for other in others if isinstance(other, torch.dtype)), args[0].dtype)
            dtype = next((other.dtype for other in others if isinstance(other, Tensor)), dtype)
            return torch.empty_like(args[0], dtype=dtype)
        return function(*args, **kwargs)


def check_finished(facts: Facts, header: Header, target: nn.Module | None = None) -> None:
    """Raise ValueError, which names the tensor or the field, unless a finished run with these facts has these tensors.

    `target` is the network of the user's own that the run is read into, if it decomposes one.
    """
    network, method = _build(facts, header, "", target)
    _compare_network(facts, header, network)
    expected = {**_entries(target_tensors(network)), **_entries(method.parameters()), **_example(facts, header)}
    for path in facts["layers"]:
        if f"used.{path}" in header:
            expected |= _packed(path, header, expected)
    _compare(header, expected | _snapshots(facts, header, method, ""))


def check_checkpoint(facts: Facts, header: Header, target: nn.Module | None) -> None:
    """Raise ValueError, which names the tensor or the field, unless a checkpoint with these facts has these tensors.

    What belongs to a method or an optimiser alone is compared when it is loaded, by `Method.load_state`.
    """
    expected: dict[str, Entry] = {}
    if not facts["candidates"]:
        expected = _entries(target_tensors(_target(facts, header, target, whole=True)))
    for i, candidate in enumerate(facts["candidates"]):
        network, method = _build(facts, header, f"{i}.", target)
        _compare_network(facts, header, network)
        expected |= _entries(target_tensors(network))
        own = {**_entries(method.parameters()), **_snapshots(candidate, header, method, f"{i}.")}
        expected |= {f"{i}.{name}": entry for name, entry in own.items()}
    expected |= _example(facts, header)
    own = tuple(f"{i}." for i in range(len(facts["candidates"]))) or ("generator", "optimizer.")
    _compare({name: header[name] for name in header if name in expected or not name.startswith(own)}, expected)


def target_tensors(target: nn.Module) -> dict[str, Tensor]:
    """The target's parameters, a tied one once, and buffers, under the names they are stored by."""
    return {f"target.{name}": t for name, t in [*target.named_parameters(), *target.named_buffers()]}


def stored_target_config(facts: Facts) -> TargetConfig | None:
    """How the target was made; None for a network of the user's own."""
    if facts["target_config"] is None:
        return None
    try:
        kind = target_config_of(facts["target_kind"])
    except ValueError as error:
        raise Unsuitable(str(error)) from error
    try:
        return kind(**facts["target_config"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"target_config: {error}") from error


def stored_config(facts: Facts) -> tuple[type[Method], MethodConfig]:
    """The method, and its configuration."""
    try:
        method = method_named(facts["method"])
    except ValueError as error:
        raise Unsuitable(str(error)) from error
    try:
        return method, method.Config(**{name: _own_function(name, v) for name, v in facts["config"].items()})
    except (TypeError, ValueError) as error:
        raise ValueError(f"config: {error}") from error


def _own_function(name: str, value: Any) -> Any:
    """A stand-in for a function of the user's own, of which only the name is stored; other values as they are."""
    if not isinstance(value, str) or not value.startswith(FUNCTION):
        return value

    def missing(*_: Any) -> Any:
        raise ValueError(
            f"the run has a function of your own, {value.removeprefix(FUNCTION)!r}, as its {name}, which is not "
            f"stored; pdh.load(..., {name}=...) takes it"
        )

    missing.__name__ = value.removeprefix(FUNCTION)
    return missing


def _compare_network(facts: Facts, header: Header, network: nn.Module) -> None:
    """Raise `Unsuitable` for a network of the user's own that is not of the stored one's architecture."""
    if facts["target_config"] is not None:
        return
    for name, entry in _entries(target_tensors(network)).items():
        if header.get(name) != entry:
            stored = f"is {header[name]}" if name in header else "is missing"
            raise Unsuitable(
                f"{name} {stored} in it, but {entry} in target=; a network of the same architecture and type works"
            )


def _target(facts: Facts, header: Header, target: nn.Module | None, *, whole: bool = False) -> nn.Module:
    """The target without memory; `whole` is the network that is trained, in place of the one that is decomposed."""
    config = stored_target_config(facts)
    if config is None:
        if target is None:
            raise Unsuitable("it decomposes a network of your own; pass one of the same architecture as target=")
        return frozen(target)
    n_layers = getattr(config, "n_layers", 1)  # each is a module, and modules take time even without memory
    if n_layers > len(header):
        raise ValueError(f"target_config.n_layers is {n_layers}, but there are only {len(header)} tensors")
    with WithoutMemory(), default_dtype(stored_dtype({name: entry.dtype for name, entry in header.items()})):
        return config.build_whole() if whole else config.build()


def stored_dtype(dtypes: Mapping[str, torch.dtype]) -> torch.dtype:
    """The type of the stored target's numbers, whatever torch's default is here."""
    of_target = [dtype for name, dtype in dtypes.items() if name.startswith("target.") and dtype.is_floating_point]
    return of_target[0] if of_target else torch.float32


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Within the block, new tensors have this type unless another is asked for."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _build(facts: Facts, header: Header, prefix: str, target: nn.Module | None) -> tuple[nn.Module, Method]:
    """The target and the method without memory."""
    network = _target(facts, header, target)
    cls, config = stored_config(facts)
    if len(facts["layers"]) > len(header):
        raise ValueError(f"layers has {len(facts['layers'])} entries, but there are only {len(header)} tensors")
    for path, C in facts["layers"].items():
        if facts["target_config"] is not None and "shipped" not in facts and C != config.C:
            raise ValueError(f"layers.{path} is {C}, but config.C is {config.C}")
    rank = stored_rank(facts, {name: entry.shape for name, entry in header.items()}, prefix, config.rank)
    for path in facts["layers"]:
        if path not in dict(network.named_modules()):
            raise ValueError(f"layers names {path!r}, which the network does not have")
    with WithoutMemory():
        model = ComponentModel(network, facts["layers"], rank)
        return network, cls(model, config, init=Generator(), draw=Generator())


def stored_rank(facts: Facts, shapes: Mapping[str, tuple[int, ...]], prefix: str, rank: int | None) -> int | None:
    """The rank of the stored factors, which for a shipped run is lower than the configuration's."""
    if "shipped" not in facts:
        return rank
    ranks = set()
    for path in facts["layers"]:
        name = f"{prefix}used.{path}" if f"{prefix}used.{path}" in shapes else f"{prefix}U.{path}"
        if name not in shapes:
            raise ValueError(f"{name} is missing, though layers names {path!r}")
        ranks.add(shapes[name][-1] if shapes[name] else 0)
    return ranks.pop() if len(ranks) == 1 else rank


def _entries(tensors: Mapping[str, Tensor]) -> dict[str, Entry]:
    return {name: Entry(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def _example(facts: Facts, header: Header) -> dict[str, Entry]:
    """Entries of the example, which may be of any type and shape."""
    stored = (
        {name: entry for name, entry in header.items() if name.startswith("example.")} if "example" in facts else {}
    )
    if sum(math.prod(entry.shape) for entry in stored.values()) > LARGEST:
        raise ValueError(f"example has more than {LARGEST} numbers")
    return stored


def _packed(path: str, header: Header, expected: Mapping[str, Entry]) -> dict[str, Entry]:
    """Entries of a layer of which only the columns of U and the rows of V are stored that are not zero."""
    dtype, (C, d_out, R) = expected[f"U.{path}"]
    d_in = expected[f"V.{path}"].shape[-1]
    stored = header.get(f"U.{path}")
    n_used = stored.shape[0] if stored and stored.shape else 0
    if C * R * (d_out + d_in) > UNPACKED * (C * R + n_used * (d_out + d_in)):
        raise ValueError(f"used.{path} marks {n_used} of {C * R} columns, too few to be a decomposition")
    return {
        f"used.{path}": Entry(torch.bool, (C, R)),
        f"U.{path}": Entry(dtype, (n_used, d_out)),
        f"V.{path}": Entry(dtype, (n_used, d_in)),
    }


def _snapshots(record: Facts, header: Header, method: Method, prefix: str) -> dict[str, Entry]:
    """Entries of the snapshots, which a shipped run may hold in half precision, and in the sizes before it was cut."""
    entries, n = {}, len(record["snapshot_steps"])
    for path, layer in method.model.layers.items() if n else ():
        dtype, C, R = layer.U.dtype, layer.C, layer.rank
        stored = header.get(f"{prefix}snapshots.U.{path}")
        if "shipped" in record and stored is not None:
            dtype = torch.float16 if stored.dtype == torch.float16 else dtype
            whole = method.config.rank or min(layer.d_out, layer.d_in) + 1
            C, R = (method.config.C, whole) if stored.shape[1::2] == (method.config.C, whole) else (C, R)
        entries[f"snapshots.U.{path}"] = Entry(dtype, (n, C, layer.d_out, R))
        entries[f"snapshots.V.{path}"] = Entry(dtype, (n, C, R, layer.d_in))
    return entries


def _compare(header: Header, expected: Mapping[str, Entry]) -> None:
    for name, entry in expected.items():
        if name not in header:
            raise ValueError(f"{name} is missing, and must be {entry}")
        if header[name] != entry:
            raise ValueError(f"{name} is {header[name]}, but must be {entry}")
    for name in header:
        if name not in expected:
            raise ValueError(f"{name!r} is not a tensor of this run")
