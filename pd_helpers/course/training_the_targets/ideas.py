"""What decompositions in a narrow stream leave out: components that stick out of it, and meet there (notebook 03)."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from pd_helpers.core.causal_importance import sample_masks
from pd_helpers.core.training import progress
from pd_helpers.runs.run import Run

WRITES, READS = "mlps.0.W_out", "mlps.1.W_in"
"""The only two matrices of a network with two layers of which one can read outside what the other writes there."""

Outside = tuple[Float[Tensor, "C_write n"], Float[Tensor, "C_read n"]]
"""What components of WRITES write, and those of READS read, in n further dimensions of the stream."""


class OutsideParts:
    """Parts of components that stick out of the stream's dimensions in use, in `n` further dimensions.

    They are drawn at random, so that all of WRITES together are about `share` as long as all components there, and
    likewise of READS; and they cancel in the sums over components, so that the decomposition is as faithful as before.

    Attributes: model, the decomposition (ComponentModel, rank one) of a residual MLP with two layers.
    """

    def __init__(self, run: Run, *, n: int = 20, share: float = 1.0, seed: int = 0):
        self.model = run.components
        factors = {
            path: (layer.U[..., 0].detach(), layer.V[:, 0].detach()) for path, layer in self.model.layers.items()
        }
        generator = torch.Generator().manual_seed(seed)
        self._bases, self.free = [], []
        for path, meets, sticks in ((WRITES, 1, 0), (READS, 0, 1)):
            basis = _null_space(factors[path][meets])  # e with Σ_c e_c V_c = 0, or Σ_c f_c U_c = 0
            size = share * factors[path][sticks].norm() / (basis.shape[1] * n) ** 0.5
            self._bases.append(basis)
            self.free.append((size * torch.randn(basis.shape[1], n, generator=generator)).requires_grad_())
        self._factors = factors

    @property
    def outside(self) -> Outside:
        """The parts as they are now."""
        writes, reads = (basis @ free for basis, free in zip(self._bases, self.free, strict=True))
        return writes, reads

    def output(
        self, x: Float[Tensor, "rows n_features"], masks: Mapping[str, Tensor], outside: Outside | None
    ) -> Float[Tensor, "rows n_outputs"]:
        """The network's output with these masks, and with parts that stick out or with none."""
        target = self.model.target
        stream, channel = x @ target.W_E.T, None
        for layer in range(2):
            (U_in, V_in), (U_out, V_out) = (self._factors[f"mlps.{layer}.{name}"] for name in ("W_in", "W_out"))
            read = stream @ V_in.T
            if channel is not None and outside is not None:
                read = read + channel @ outside[1].T
            hidden = F.relu((read * masks[f"mlps.{layer}.W_in"]) @ U_in)
            amounts = (hidden @ V_out.T) * masks[f"mlps.{layer}.W_out"]
            stream = stream + amounts @ U_out
            if layer == 0 and outside is not None:
                channel = amounts @ outside[0]
        return stream @ target.W_U.T


def outside_losses(
    run: Run, *, steps: int = 200, batch_size: int = 256, n_rows: int = 3000, show_progress: bool = True
) -> dict[str, float]:
    """Errors under SPD's random masks, of a decomposition without and with parts that stick out of the narrow stream.

    Returns mean squared errors against the target's output: "none", without such parts; "random"; and "trained", after
    these parts alone were trained to make the error small. And "all on", the largest difference that random parts make
    to an output if no component is masked.
    """
    draw = torch.Generator().manual_seed(0)
    x = run.data(n_rows, draw)
    x = x[x.any(dim=1)]
    importances, target_output = run.importances(x), run.target(x)
    parts = OutsideParts(run)

    def masks(rows: slice | Tensor, generator: Generator) -> dict[str, Tensor]:
        return {path: sample_masks(g[rows], generator) for path, g in importances.items()}

    @torch.no_grad()
    def error(outside: Outside | None) -> float:
        same = torch.Generator().manual_seed(1)
        return F.mse_loss(parts.output(x, masks(slice(None), same), outside), target_output).item()

    with torch.no_grad():
        on = {path: torch.ones_like(g) for path, g in importances.items()}
        difference = (parts.output(x, on, parts.outside) - parts.output(x, on, None)).abs().max().item()
    errors = {"none": error(None), "random": error(parts.outside)}
    optimizer = torch.optim.Adam(parts.free, lr=0.1 * parts.free[0].detach().std().item())
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in progress(range(steps), total=steps, description="parts outside", show=show_progress):
        rows = torch.randint(len(x), (batch_size,), generator=draw)
        loss = F.mse_loss(parts.output(x[rows], masks(rows, draw), parts.outside), target_output[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return errors | {"trained": error(parts.outside), "all on": difference}


def _null_space(vectors: Float[Tensor, "C d"]) -> Float[Tensor, "C free"]:
    """An orthonormal basis of the e (C) with Σ_c e_c vectors_c = 0."""
    svd = torch.linalg.svd(vectors.double())
    rank = int((1e-6 * svd.S[0] < svd.S).sum())
    return svd.U[:, rank:].to(vectors.dtype)
