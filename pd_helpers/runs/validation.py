"""Checks before any work starts: each error names the argument, its value, and a value that works."""

import warnings
from typing import Any

import torch
from torch import Generator, Tensor, nn

from pd_helpers.core.method import Data


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
