"""The importance functions Γ_c of many subcomponents at once, with their gradient written by hand.

    Γ_c(h) = Σ_d w_out,cd GELU(h w_in,cd + b_in,cd) + b_out,c

This saving is exact because it is the chain rule and approximates nothing; a test compares it with autograd.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor


def gates(
    h: Float[Tensor, "rows C"],
    w_in: Float[Tensor, "C d_gate"],
    b_in: Float[Tensor, "C d_gate"],
    w_out: Float[Tensor, "C d_gate"],
    b_out: Float[Tensor, " C"],
) -> Float[Tensor, "rows C"]:
    """Γ_c(h_c) = Σ_d w_out GELU(h w_in + b_in) + b_out, in the type of the weights: autocast may have changed h's."""
    return _Gates.apply(h.T.to(w_in.dtype), w_in, b_in, w_out).T + b_out


class _Gates(torch.autograd.Function):
    """Σ_d w_out GELU(h w_in + b_in), h (C, rows) → (C, rows), with its gradient written by hand.

    Autograd would spend most of a training step here, in a dozen passes over new arrays (rows, C, d_gate). With rows
    as the last dimension, all sums, over d_gate in the forward and over rows in the backward pass, are matrix products
    with GELU(z) or GELU'(z). These are computed for a few subcomponents at a time, and again in the backward pass
    instead of being stored, so that they stay in the processor's cache.
    """

    @staticmethod
    def forward(ctx, h: Tensor, w_in: Tensor, b_in: Tensor, w_out: Tensor) -> Tensor:
        h = h.contiguous()
        ctx.save_for_backward(h, w_in, b_in, w_out)
        out = torch.empty_like(h).unsqueeze(1)  # (C, 1, rows)
        for block, _, gelu, _ in _blocks(h, w_in, b_in):
            torch.bmm(w_out[block].unsqueeze(1), gelu, out=out[block])
        return out.squeeze(1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, ...]:
        h, w_in, b_in, w_out = ctx.saved_tensors
        grads = torch.stack([grad * h, grad], dim=1)  # (C, 2, rows)
        along_h = torch.empty_like(h).unsqueeze(1)
        into_z, into_gelu = (h.new_empty(len(h), 2, w_in.shape[1]) for _ in range(2))
        for block, z, gelu, spare in _blocks(h, w_in, b_in):
            torch.bmm(grads[block], gelu.mT, out=into_gelu[block])
            slope = torch.ops.aten.gelu_backward.grad_input(gelu.fill_(1), z, grad_input=spare)  # GELU'(z)
            torch.bmm(grads[block], slope.mT, out=into_z[block])
            torch.bmm((w_in * w_out)[block].unsqueeze(1), slope, out=along_h[block])
        grad_in, grad_bias = (into_z * w_out.unsqueeze(1)).unbind(1)
        return grad * along_h.squeeze(1), grad_in, grad_bias, into_gelu[:, 1]


BLOCK = {"cpu": 2**19}
"""Type of a device → the largest number of entries in each array of `_blocks`: 2 MB on a CPU, so that they stay in its
cache."""
LARGEST_BLOCK = 2**27
"""The same on all other devices, where blocks only limit the memory."""


def _blocks(
    h: Float[Tensor, "C rows"], w_in: Float[Tensor, "C d_gate"], b_in: Float[Tensor, "C d_gate"]
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """A few subcomponents at a time: their indices, z = h w_in + b_in, GELU(z), and a spare array of the same shape.

    All three arrays are (n, d_gate, rows), and every block reuses their memory.
    """
    (C, rows), d_gate = h.shape, w_in.shape[1]
    n = min(C, max(1, BLOCK.get(h.device.type, LARGEST_BLOCK) // (rows * d_gate)))
    arrays = h.new_empty(3, n, d_gate, rows)
    for start in range(0, C, n):
        block = slice(start, min(start + n, C))
        z, gelu, spare = arrays[:, : block.stop - start]
        torch.mul(h[block].unsqueeze(1), w_in[block].unsqueeze(-1), out=z).add_(b_in[block].unsqueeze(-1))
        torch.ops.aten.gelu.out(z, out=gelu)
        yield block, z, gelu, spare
