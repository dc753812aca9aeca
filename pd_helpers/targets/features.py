"""Sparse-feature data: each feature is uniform on [low, high] with probability p, else exactly zero.

The toy models of superposition use [0, 1] with p = 0.05 (APD section 3.1, SPD section 3.1), and the residual MLPs use
[-1, 1] with p = 0.01. Every batch is drawn anew from a seeded generator; no data set is stored.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor


@dataclass(frozen=True)
class SparseFeatures:
    """The data distribution of toy models and residual MLPs; call it to draw a batch.

    Raises ValueError if `feature_probability` is not in [0, 1].

    >>> features = SparseFeatures(n_features=5, feature_probability=0.05)
    >>> x = features(1024, torch.Generator().manual_seed(0))   # (1024, 5)
    """

    n_features: int
    feature_probability: float
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self):
        if not 0 <= self.feature_probability <= 1:
            raise ValueError(
                f"feature_probability must be at least 0 and at most 1, but is {self.feature_probability}; 0.05 works"
            )

    def __call__(self, batch_size: int, generator: Generator) -> Float[Tensor, "batch n_features"]:
        """Draw `batch_size` rows on the generator's device."""
        shape, p = (batch_size, self.n_features), self.feature_probability
        u = torch.rand(shape, generator=generator, device=generator.device)
        on = u < p
        # One draw serves twice: given that u < p, u / p is uniform on [0, 1]. A float32 u has 24 random bits,
        # of which the comparison with p uses up log2(1/p); below p = 0.4% too few remain, so sizes are drawn anew.
        size = u / p if p > 2**-8 else torch.rand(shape, generator=generator, device=generator.device)
        return torch.where(on, self.low + (self.high - self.low) * size, 0.0)


def one_hot(n_features: int, value: float = 1.0) -> Float[Tensor, "n_features n_features"]:
    """One row for each feature, in which that feature is `value` and all others are zero."""
    return value * torch.eye(n_features)
