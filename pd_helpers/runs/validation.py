"""Checks before any work starts: each error names the argument, its value, and a value that works."""

import warnings
from collections.abc import Callable, Iterable, KeysView, Mapping, Set
from typing import Any

import torch
from torch import Generator, Tensor, nn

from pd_helpers.core.config import shown
from pd_helpers.core.method import Data
from pd_helpers.core.networks.batches import Inputs, call, mapped, n_inputs, select, tensors
from pd_helpers.core.networks.frozen import frozen
from pd_helpers.core.networks.passes import example_output
from pd_helpers.core.networks.uses import an_example, decomposable, named_by
from pd_helpers.core.training import generator
from pd_helpers.runs.data import fingerprint
from pd_helpers.runs.sources import Source


def warn_of_the_pointless(config: Any, target_config: Any = None) -> None:
    """Warn of settings that are allowed and do nothing."""
    if getattr(target_config, "feature_probability", None) == 0:
        warnings.warn("feature_probability is 0, so no feature is ever on, and nothing can be learnt", stacklevel=3)
    coefficients = {name: value for name, value in config.to_dict().items() if name.endswith("_coeff")}
    if coefficients and not any(coefficients.values()):
        warnings.warn(f"{', '.join(coefficients)} are all 0, so nothing will be trained", stacklevel=3)
    share = getattr(config, "warmup_fraction", 0)
    if 0 < share * config.steps < 1 and config.steps >= 100:  # a shorter run is a trial
        warnings.warn(
            f"warmup_fraction is {share:g}, less than one of {config.steps} steps, so there will be no warm-up; "
            f"{1 / config.steps:g} gives one step",
            stacklevel=3,
        )


NO_LAYER = "a network with nn.Linear, nn.Embedding or nn.Conv2d layers works"
N_COMPARED = 64
"""Inputs that are drawn, or computed, twice to see whether they come out the same."""


def check_repeatable(data: Data, new_generator: Callable[[], Generator]) -> None:
    """Raise ValueError unless the generator alone decides what data gives; each call makes it anew."""
    draws = []
    for _ in range(2):
        draw = new_generator()
        draws.append(mapped(torch.clone, data(N_COMPARED, draw)))  # data may use one tensor over and over
        close(data, draw)
    first, again = (list(tensors(x)) for x in draws)
    if len(first) != len(again) or not all(map(_same, first, again)):
        raise ValueError(
            "data gives other inputs for the same generator, so no run could be repeated; draw all numbers from it, as "
            "torch.rand(batch_size, 8, generator=generator) does"
        )


def _same(x: Tensor, y: Tensor) -> bool:
    return torch.equal(x.nan_to_num(), y.nan_to_num())


def first_inputs(data: Data, draw: Generator, n: int = 2) -> Inputs:
    """The first inputs that data gives; ValueError for what is no batch of inputs."""
    x = data(n, draw)
    if n_inputs(x) == 0 and next(tensors(x), None) is not None:
        x = data(N_COMPARED, draw)  # it may give inputs by the dozen
    close(data, draw)
    first = next(tensors(x), None)
    if first is None or first.ndim < (2 if first.is_floating_point() else 1) or not len(first):
        result = f"a tensor of shape {tuple(x.shape)}" if isinstance(x, Tensor) else shown(x)
        raise ValueError(
            f"data({n}, generator) must give a batch, such as a tensor of shape ({n}, d_in), one input per row, but "
            f"gave {result}"
        )
    return select(x, slice(n))


def check_data(target: nn.Module, data: Data, draw: Generator, output: Callable[[Any], Tensor] | None = None) -> None:
    """Raise ValueError unless data gives batches that the target takes and answers with finite numbers."""
    x = first_inputs(data, draw)
    for tensor in tensors(x):
        if tensor.is_floating_point() and tensor.isnan().any():
            raise ValueError("data gives numbers that are not finite; check what it is made from")
        if tensor.requires_grad:
            raise ValueError("data gives inputs that require gradients; return inputs.detach()")
    if isinstance(x, Tensor) and not x.isfinite().all():  # elsewhere, a mask may hold infinities
        raise ValueError("data gives numbers that are not finite; check what it is made from")
    _check_output(frozen(target), x, output)


@torch.no_grad()
def _check_output(target: nn.Module, x: Inputs, pick: Callable[[Any], Tensor] | None) -> None:
    """Raise ValueError unless the target answers each input with finite numbers, the same ones every time."""
    output, n = _answer(target, x, pick), n_inputs(x)
    per_input = isinstance(output, Tensor) and output.ndim > 0 and len(output) >= n and len(output) % n == 0
    if not isinstance(output, Tensor) or not output.is_floating_point() or not per_input:
        is_tensor = isinstance(output, Tensor)
        result = f"{output.dtype} of shape {tuple(output.shape)}" if is_tensor else shown(output)
        remedy = f"{example_output(output)} works" if not is_tensor else "output= can pick another"
        raise ValueError(
            f"target must answer {n} inputs with a tensor of real numbers whose first dimension is {n}, but gives "
            f"{result}; {remedy}, or wrap it in a module that returns such a tensor"
        )
    bad = [name for name, p in target.named_parameters() if not p.isfinite().all()]
    if bad or not output.isfinite().all():
        which = f"its parameter {bad[0]!r} is" if bad else "its outputs are"
        raise ValueError(f"target is unusable: {which} not finite; train it again, at a smaller learning rate")
    many = select(x, [i % n for i in range(N_COMPARED // n * n)])
    first, again = _answer(target, many, pick), _answer(target, many, pick)
    if first.data_ptr() == again.data_ptr():
        raise ValueError("target gives all its outputs in one and the same tensor; return output.clone() instead")
    if not torch.allclose(first, again, rtol=1e-3, atol=1e-4 * again.abs().max().item()):
        raise ValueError(
            "target gives other outputs for the same inputs, even in evaluation mode, so that nothing can be compared "
            "with them; switch off what is random in it, as F.dropout(x, training=self.training) does"
        )


def _answer(target: nn.Module, x: Inputs, pick: Callable[[Any], Tensor] | None) -> Any:
    """What is compared of the target's answer; ValueError if it does not take the inputs, or nothing can be picked."""
    try:
        answer = call(target, mapped(torch.clone, x))
    except Exception as error:  # a network may raise anything
        shapes = ", ".join(f"{str(t.dtype).removeprefix('torch.')} of shape {tuple(t.shape)}" for t in tensors(x))
        dtypes = {p.dtype for p in target.parameters() if p.is_floating_point()}
        other = [t.dtype for t in tensors(x) if len(dtypes) == 1 and t.dtype not in dtypes]
        hint = (
            f"; inputs=lambda batch: batch.to({next(iter(dtypes))}) may work" if other and "dtype" in str(error) else ""
        )
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ValueError(f"target does not take what data gives, {shapes}: {reason}{hint}") from error
    if pick is None:
        return answer
    try:
        picked = pick(answer)
    except Exception as error:
        raise ValueError(
            f"output cannot pick from what the network returns, {shown(answer)}: {error!r}; "
            f"{example_output(answer)} works"
        ) from error
    if not isinstance(picked, Tensor):
        raise TypeError(
            f"output must pick one tensor from what the network returns, but gives {shown(picked)}; "
            f"{example_output(answer)} works"
        )
    return picked


def check_loss(loss: Callable[[Tensor, Tensor, int | None], Tensor], output: Tensor) -> None:
    """Raise ValueError for outputs that the loss cannot compare, and for a loss that gives more than one number."""
    value = loss(output, output, None)
    if not isinstance(value, Tensor) or value.ndim or not value.isfinite():
        result = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) and value.ndim else shown(value)
        raise ValueError(
            f"output_loss must give one finite number for a batch, but gives {result}; "
            "lambda output, target_output: (output - target_output).abs().mean() works"
        )


def batch_fingerprint(data: Data, seed: int, device: str | torch.device = "cpu") -> str:
    """The checksum of the first small batch that data draws for this seed, by which it is known again.

    It covers shapes, types and every bit of the numbers. It is the same for the same data on the same kind of device;
    where numbers are computed and not only drawn, another version of torch may round them otherwise.
    """
    draw = generator(seed, "data", device)
    batch = data(N_COMPARED, draw)
    close(data, draw)
    return fingerprint(batch)


def close(data: Data, draw: Generator) -> None:
    """Let go of what data have open for this generator."""
    if isinstance(data, Source):
        data.close(draw)


def checked_layers(layers: Any, target: nn.Module, C: int) -> dict[str, int]:
    """Path of each layer → its number of components, from any of the forms in which `fit` takes layers.

    They are None, for all that can be decomposed but embeddings; a list of paths and of patterns, such as
    `blocks.*.mlp`; or a mapping from these to numbers of components. Paths without an order of their own, as in a set,
    come in the order in which the target lists its modules.
    """
    if layers is None:
        paths = decomposable(target)
        if not paths:
            raise ValueError(f"layers is None, but the network has no layer that can be decomposed; {NO_LAYER}")
        return dict.fromkeys(paths, C)
    if isinstance(layers, str):
        raise TypeError(f"layers must be a list of paths, but is the text {layers!r}; [{layers!r}] works")
    if isinstance(layers, Mapping) and all(isinstance(path, str) for path in layers):
        return {path: n for pattern, n in layers.items() for path in _expanded(pattern, target)}
    paths = list(layers) if isinstance(layers, Iterable) else [layers]
    if not all(isinstance(path, str) for path in paths):
        raise TypeError(f"layers must be a list of paths, but is {layers!r}; {an_example(target)} works")
    if isinstance(layers, Set) and not isinstance(layers, KeysView):
        order = [path for path, _ in target.named_modules()]
        paths.sort(key=lambda path: (order.index(path) if path in order else len(order), path))
    return dict.fromkeys((path for pattern in paths for path in _expanded(pattern, target)), C)


def _expanded(pattern: str, target: nn.Module) -> list[str]:
    """The paths that a pattern names; a path names itself."""
    return named_by(target, pattern) if any(sign in pattern for sign in "*?[") else [pattern]
