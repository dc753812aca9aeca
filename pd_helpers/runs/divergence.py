"""Noticing that training has gone wrong for good, without slowing it down."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from pd_helpers.core.training import compare_stored

FACTOR = 1e6
"""A run has diverged once its loss is above this many times its lowest value so far ..."""
FLOOR = 1e-6
"""... where a lowest value below this one counts as this."""


class DivergenceWatch:
    """Watches the total loss of every step; its state is part of a checkpoint.

    The loss has diverged when it is not finite, or above `FACTOR` · max(lowest value so far, `FLOOR`): training does
    not come back from either. What is seen stays on the training's device and is read only when `check` is called,
    since reading it at every step would stall a GPU.
    """

    def __init__(self):
        self.lowest_loss = torch.tensor(math.inf)
        self.first_bad_step = torch.tensor(math.inf)

    def see(self, total_loss: Float[Tensor, ""], step: int) -> None:
        """Look at the total loss of one step, counted from 0."""
        loss = total_loss.to(torch.float32)
        self.lowest_loss = torch.minimum(self.lowest_loss.to(loss.device), loss)
        is_good = loss.isfinite() & (loss <= FACTOR * self.lowest_loss.clamp(min=FLOOR))
        bad_step = torch.where(is_good, math.inf, float(step))
        self.first_bad_step = torch.minimum(self.first_bad_step.to(loss.device), bad_step)

    def check(self, lr: float) -> None:
        """Raise FloatingPointError, naming the first bad step, if the loss has diverged; `lr` is for the message."""
        if (bad_step := self.first_bad_step.item()) < math.inf:
            raise FloatingPointError(f"the loss blew up at step {bad_step:.0f}; a smaller lr than {lr:g} usually helps")

    def state(self) -> dict[str, Tensor]:
        """What has been seen, by name."""
        return {"first_bad_step": self.first_bad_step, "lowest_loss": self.lowest_loss}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Continue from a state given by `state`; checkpoints of earlier versions lack the lowest loss.

        Raises ValueError, which names the tensor, unless each is one number.
        """
        state = {**self.state(), **tensors}
        compare_stored(self.state(), state)
        self.first_bad_step, self.lowest_loss = state["first_bad_step"], state["lowest_loss"]
