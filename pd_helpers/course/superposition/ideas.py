"""How many features does a toy model represent, for each number of features and each feature probability (notebook 02)?

A feature j counts as represented if ‖W[:, j]‖ > 0.5.
"""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from pd_helpers.core.training import progress
from pd_helpers.runs.sweeps import points_of
from pd_helpers.targets.base import make_target
from pd_helpers.targets.tms import TMSConfig

if TYPE_CHECKING:
    import pandas


LONG = 0.5
"""A feature is represented if its column is longer than this; a feature with a dimension of its own has length 1."""


def represented(W: Float[Tensor, "n_hidden n_features"]) -> int:
    """How many features a toy model represents: the number of columns of W longer than 0.5."""
    return int((W.norm(dim=0) > LONG).sum())


def sweep(grid: Mapping[str, Sequence], *, seed: int = 0, show_progress: bool = True, **settings) -> "pandas.DataFrame":
    """Train a toy model at every point of a grid over fields of `TMSConfig`; `settings` are its other fields.

    Returns one row for each point, with the columns of the grid; `represented`; `seconds`; `error`, always None; and
    `kept`, a dict with W (n_hidden, largest n_features), in which columns that a model does not have are zero.

    >>> sweep({"n_features": [3, 5], "feature_probability": [0.05, 1.0]}, target_steps=2000)
    """
    import pandas

    points = points_of(grid)
    configs = [TMSConfig(**settings | point) for point in points]
    largest, table = max(config.n_features for config in configs), []
    steps = zip(points, configs, strict=True)
    for point, config in progress(steps, total=len(points), description="toy models", show=show_progress, unit="model"):
        began = time.perf_counter()
        weight = make_target(config, seed, show_progress=False).embed.weight
        W = weight.new_zeros(config.n_hidden, largest)
        W[:, : config.n_features] = weight
        seconds = time.perf_counter() - began
        table.append(point | {"represented": represented(weight), "seconds": seconds, "error": None, "kept": {"W": W}})
    return pandas.DataFrame(table)
