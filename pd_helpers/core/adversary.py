"""An adversary that chooses masks: persistent sources that climb the reconstruction error from step to step (VPD).

    m_c = g_c + (1 - g_c) r_c,   m_Δ = r_Δ          r ∈ [0, 1], the sources
    r ← clamp(r + Adam(∂ error / ∂r), 0, 1)         ascent, before and with every training step

There is a source for every subcomponent and every Δ, and of these one set for each place in the batch, or a single set
that all inputs share. Sources are kept from step to step, so that each batch is attacked by what was learned on others.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from .training import load_optimizer_state, optimizer_state


class Adversary:
    """Sources and the optimiser that moves them; they are made when the first batch says what shapes they need.

    Attributes: sources (use → r (*rows, C + 1), whose last column is that of Δ; or (C + 1,) where all inputs share it).
    """

    def __init__(self, widths: Mapping[str, int], *, shared: bool, betas: tuple[float, float]):
        self.widths, self.shared, self.betas = widths, shared, betas
        self.sources: dict[str, Tensor] = {}
        self.optimizer: torch.optim.Optimizer | None = None

    def begin(self, rows: Mapping[str, tuple[int, ...]], generator: Generator, like: Tensor) -> None:
        """Draw the first sources, r ~ U(0, 1), for a batch whose uses have these rows; nothing if there are some.

        They have the device and the type of `like`.

        Raises ValueError for a batch whose rows are not those of the batch before.
        """
        shapes = {use: (width,) if self.shared else (*rows[use], width) for use, width in self.widths.items()}
        if not self.sources:
            of = {"generator": generator, "device": like.device, "dtype": like.dtype}
            self._set({use: torch.rand(shape, **of) for use, shape in shapes.items()})
        for use, shape in shapes.items():
            if (before := tuple(self.sources[use].shape)) != shape:
                raise ValueError(
                    f"adversary is 'per input', which keeps a source for each row of a batch, but {use} had rows "
                    f"{before[:-1]} before and now has {shape[:-1]}; batches of one shape work, or adversary='shared'"
                )

    def _set(self, sources: dict[str, Tensor]) -> None:
        self.sources = {use: source.requires_grad_() for use, source in sources.items()}
        sources = list(self.sources.values())
        fused = sources[0].device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.Adam(sources, betas=self.betas, maximize=True, fused=fused)

    def taken(self, rows: Int[Tensor, " rows"] | None = None) -> dict[str, Float[Tensor, "*rows _"]]:
        """Use → the present sources, as leaves of a new graph: all of them, or some rows and then a row of zeros."""
        taken = {}
        for use, source in self.sources.items():
            r = source.detach()
            if rows is not None and not self.shared:
                r = torch.cat([r[rows], r.new_zeros(1, r.shape[-1])])
            taken[use] = r.clone().requires_grad_()
        return taken

    @torch.no_grad()
    def climb(self, grads: Mapping[str, Tensor], lr: float, rows: Int[Tensor, " rows"] | None = None) -> None:
        """One step of ascent along the gradients of what `taken` gave for the same rows."""
        for use, source in self.sources.items():
            grad = grads[use]
            if rows is not None and not self.shared:
                grad = torch.zeros_like(source).index_copy_(0, rows, grad[:-1])
            source.grad = grad
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.step()
        for source in self.sources.values():
            source.clamp_(0, 1)
            source.grad = None

    def state(self) -> dict[str, Tensor]:
        """What is needed to continue, by name; nothing before the first batch."""
        if self.optimizer is None:
            return {}
        sources = {f"adversary.source.{use}": source.detach() for use, source in self.sources.items()}
        return sources | {f"adversary.{name}": value for name, value in optimizer_state(self.optimizer).items()}

    def load_state(self, tensors: Mapping[str, Tensor], step: int, like: Tensor) -> None:
        """Continue from what `state` gave, with the device and the type of `like`.

        Raises ValueError, which names the tensor, unless they are sources and moments of such an adversary.
        """
        stored = {name.removeprefix("adversary."): t for name, t in tensors.items() if name.startswith("adversary.")}
        if not stored and not step:
            return
        sources = {}
        for use, width in self.widths.items():
            r = stored.get(f"source.{use}")
            if r is None or r.dtype != like.dtype or r.shape[-1:] != (width,) or (self.shared and r.ndim != 1):
                raise ValueError(f"adversary.source.{use} must hold numbers of {like.dtype} in {width} columns")
            if not bool(((r >= 0) & (r <= 1)).all()):
                raise ValueError(f"adversary.source.{use} must hold numbers from 0 to 1")
            sources[use] = r.to(like.device).clone()
        self._set(sources)
        load_optimizer_state(self.optimizer, stored, step)
