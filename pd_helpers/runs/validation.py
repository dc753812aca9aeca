"""Checks before any work starts: each error names the argument, its value, and a value that works."""

import hashlib
import warnings
from collections.abc import Iterable, KeysView, Mapping, Set
from typing import Any

import torch
from torch import Generator, Tensor, nn

from pd_helpers.core.method import Data
from pd_helpers.core.networks.frozen import frozen
from pd_helpers.core.networks.uses import an_example
from pd_helpers.core.training import generator


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


N_COMPARED = 64
"""Inputs that are drawn, or computed, twice to see whether they come out the same."""


def check_repeatable(data: Data, draw: Generator) -> None:
    """Raise TypeError unless data is a function, and ValueError unless the generator alone decides what it gives."""
    if not callable(data):
        raise TypeError(
            f"data must be a function of a batch size and a generator, but is a {type(data).__name__}; "
            "lambda n, generator: x[torch.randint(len(x), (n,), generator=generator)] draws from a tensor x"
        )
    start = draw.get_state()
    first = data(N_COMPARED, draw)
    first = first.clone() if isinstance(first, Tensor) else first  # data may use one tensor over and over
    draw.set_state(start)
    again = data(N_COMPARED, draw)
    if isinstance(first, Tensor) and isinstance(again, Tensor) and not _same(first, again):
        raise ValueError(
            "data gives other inputs for the same generator, so no run could be repeated; draw all numbers from it, as "
            f"torch.rand(batch_size, {first.shape[-1]}, generator=generator) does"
        )


def _same(x: Tensor, y: Tensor) -> bool:
    return torch.equal(x.nan_to_num(), y.nan_to_num())


def check_data(target: nn.Module, data: Data, draw: Generator) -> None:
    """Raise ValueError unless data gives batches that the target takes and answers with finite numbers."""
    x = data(2, draw)
    if isinstance(x, Tensor) and x.ndim == 2 and not len(x):
        x = data(N_COMPARED, draw)  # it may give inputs by the dozen
    if not isinstance(x, Tensor) or x.ndim != 2 or not len(x):
        result = f"a tensor of shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise ValueError(
            f"data(2, generator) must give a tensor of shape (2, d_in), one input per row, but gave {result}"
        )
    x = x[:2]
    if not x.isfinite().all():
        raise ValueError("data gives numbers that are not finite; check what it is made from")
    if x.requires_grad:
        raise ValueError("data gives inputs that require gradients; return inputs.detach()")
    _check_output(frozen(target), x)


@torch.no_grad()
def _check_output(target: nn.Module, x: Tensor) -> None:
    """Raise ValueError unless the target answers each input with finite numbers, the same ones every time."""
    try:
        output = target(x.clone())
    except RuntimeError as error:
        raise ValueError(f"target does not take what data gives, shape {tuple(x.shape)}: {error}") from error
    if not isinstance(output, Tensor) or not output.is_floating_point() or output.shape[:1] != x.shape[:1]:
        is_tensor = isinstance(output, Tensor)
        result = f"{output.dtype} of shape {tuple(output.shape)}" if is_tensor else f"a {type(output).__name__}"
        raise ValueError(
            f"target must answer {len(x)} inputs with a tensor of real numbers whose first dimension is {len(x)}, but "
            f"gives {result}; wrap it in a module that returns such a tensor"
        )
    bad = [name for name, p in target.named_parameters() if not p.isfinite().all()]
    if bad or not output.isfinite().all():
        which = f"its parameter {bad[0]!r} is" if bad else "its outputs are"
        raise ValueError(f"target is unusable: {which} not finite; train it again, at a smaller learning rate")
    many = x.repeat(N_COMPARED // len(x), 1)
    first, again = target(many.clone()), target(many.clone())
    if first.data_ptr() == again.data_ptr():
        raise ValueError("target gives all its outputs in one and the same tensor; return output.clone() instead")
    if not torch.allclose(first, again, rtol=1e-3, atol=1e-4 * again.abs().max().item()):
        raise ValueError(
            "target gives other outputs for the same inputs, even in evaluation mode, so that nothing can be compared "
            "with them; switch off what is random in it, as F.dropout(x, training=self.training) does"
        )


def batch_fingerprint(data: Data, seed: int, device: str | torch.device = "cpu") -> str:
    """The SHA-256 checksum of the first small batch that data draws for this seed, by which it is known again.

    It covers shape, type and every bit of the numbers. It is the same for the same function on the same kind of device;
    where numbers are computed and not only drawn, another version of torch may round them otherwise.
    """
    x = data(N_COMPARED, generator(seed, "data", device)).detach().cpu().contiguous()
    checksum = hashlib.sha256(f"{tuple(x.shape)} {x.dtype}".encode())
    checksum.update(x.view(torch.uint8).numpy().tobytes())
    return checksum.hexdigest()


def checked_layers(layers: Any, target: nn.Module, C: int) -> dict[str, int]:
    """Path of each layer → its number of components, from any of the forms in which `fit` takes layers.

    Paths without an order of their own, as in a set, come in the order in which the target lists its modules.
    """
    if isinstance(layers, Mapping) and all(isinstance(path, str) for path in layers):
        return dict(layers)
    if isinstance(layers, str):
        raise TypeError(f"layers must be a list of paths, but is the text {layers!r}; [{layers!r}] works")
    paths = list(layers) if isinstance(layers, Iterable) else [layers]
    if not all(isinstance(path, str) for path in paths):
        raise TypeError(f"layers must be a list of paths, but is {layers!r}; {an_example(target)} works")
    if isinstance(layers, Set) and not isinstance(layers, KeysView):
        order = [path for path, _ in target.named_modules()]
        paths.sort(key=lambda path: (order.index(path) if path in order else len(order), path))
    return dict.fromkeys(paths, C)
