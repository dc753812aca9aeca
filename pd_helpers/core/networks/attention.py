"""Attention whose four projections are layers of their own, and otherwise PyTorch's `nn.MultiheadAttention`.

    q = W_q x + b_q,    k = W_k y + b_k,    v = W_v z + b_v
    a_h = softmax(q_h k_hᵀ / √d_head + mask)          for each head h
    output = W_o [a_1 v_1, …, a_H v_H] + b_o

(Vaswani et al. 2017, section 3.2.) PyTorch keeps W_q, W_k and W_v in one matrix and multiplies by it outside of any
layer, so that nothing can take the place of one of them. Here each is an `nn.Linear` that is called.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def linear(weight: nn.Parameter, bias: nn.Parameter | None) -> nn.Linear:
    """A linear layer of these very parameters, weight (d_out, d_in) and bias (d_out); nothing is drawn at random."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight, layer.bias = weight, bias
    return layer


def pieces(packed: Tensor | None, widths: list[int], learned: bool = True) -> list[nn.Parameter | None]:
    """New parameters of these widths that hold the values of a packed tensor, cut along its first dimension."""
    if packed is None:
        return [None] * len(widths)
    cut = packed.detach().split(widths)
    return [nn.Parameter(part.clone(memory_format=torch.contiguous_format), requires_grad=learned) for part in cut]


class Attention(nn.Module):
    """What an `nn.MultiheadAttention` computes, with layers q, k, v and o.

    The output is the same up to rounding, for all of its options. Attention is always computed by plain matrix products
    and a softmax, without fused kernels, so that it can be differentiated in any mode and as often as one likes.

    The layers q, k, v and o read rows in the order in which the inputs come: (batch, length, d) if `batch_first`,
    (length, batch, d) if not, and (length, d) where there is no batch.

    Parameters that need no cutting, such as those of the output projection, are taken over from `packed`.
    """

    in_proj_weight = in_proj_bias = None
    """`nn.TransformerEncoderLayer` looks for these, and calls its layers one by one where they are None."""
    _qkv_same_embed_dim = False

    def __init__(self, packed: nn.MultiheadAttention):
        super().__init__()
        self.embed_dim, self.kdim, self.vdim = packed.embed_dim, packed.kdim, packed.vdim
        self.num_heads, self.head_dim = packed.num_heads, packed.head_dim
        self.batch_first, self.add_zero_attn = packed.batch_first, packed.add_zero_attn
        self.dropout = packed.dropout
        widths = 3 * [packed.embed_dim]
        weights = [packed.q_proj_weight, packed.k_proj_weight, packed.v_proj_weight]
        if packed.in_proj_weight is not None:
            weights = pieces(packed.in_proj_weight, widths, packed.in_proj_weight.requires_grad)
        learned = packed.in_proj_bias is not None and packed.in_proj_bias.requires_grad
        biases = pieces(packed.in_proj_bias, widths, learned)
        self.q, self.k, self.v = (linear(weight, bias) for weight, bias in zip(weights, biases, strict=True))
        self.o = linear(packed.out_proj.weight, packed.out_proj.bias)
        self.bias_k, self.bias_v = packed.bias_k, packed.bias_v  # (1, 1, embed_dim) each, or None
        self.train(packed.training)

    def forward(
        self,
        query: Float[Tensor, "*query_rows d_query"],
        key: Float[Tensor, "*key_rows d_key"],
        value: Float[Tensor, "*key_rows d_value"],
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Float[Tensor, "*query_rows d_out"], Tensor | None]:
        """The output, and the attention weights or None, as `nn.MultiheadAttention.forward` describes them.

        The masks are True where attention is forbidden, or numbers that are added to the scores: `key_padding_mask`
        (batch, keys), `attn_mask` (queries, keys) or (batch · heads, queries, keys). The weights have shape
        (batch, queries, keys), or (batch, heads, queries, keys) if they are not to be averaged. Without a batch, that
        dimension is missing everywhere. A query that may attend to nothing gets zeros, or NaN with `need_weights`, as
        from PyTorch.

        Raises ValueError for nested tensors, for shapes that do not fit together, for masks that are neither Boolean
        nor floating point, and for `is_causal` without an `attn_mask`.
        """
        self._check(query, key, value)
        if is_causal and attn_mask is None:
            raise ValueError("is_causal says that attn_mask is causal, but attn_mask is None; is_causal=False works")
        q, k, v = self._heads(self.q(query)), self._heads(self.k(key)), self._heads(self.v(value))  # (B, H, length, d)
        (B, H, n_queries, _), n_keys = q.shape, k.shape[2]
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.view(1, H, 1, -1).expand(B, -1, -1, -1)], dim=2)
            v = torch.cat([v, self.bias_v.view(1, H, 1, -1).expand(B, -1, -1, -1)], dim=2)
        if self.add_zero_attn:
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))

        mask = self._mask(key_padding_mask, attn_mask, (B, H, n_queries, n_keys), query.dtype)
        if mask is not None:
            mask = F.pad(mask, (0, k.shape[2] - n_keys))  # what was appended may always be attended to
        if is_causal and key_padding_mask is None and not need_weights:  # PyTorch then takes the promise for the mask
            later = torch.ones(n_queries, k.shape[2], dtype=torch.bool, device=q.device).triu(1)
            mask = _added(later, q.dtype)

        scores = (q * self.head_dim**-0.5) @ k.mT  # (B, H, queries, keys)
        if mask is not None:
            scores = scores + mask
        nowhere = None
        if mask is not None and not need_weights:
            nowhere = scores.isneginf().all(dim=-1, keepdim=True)
            scores = scores.masked_fill(nowhere, 0)  # a softmax of nothing has no derivative
        weights = scores.softmax(dim=-1)
        if nowhere is not None:
            weights = weights.masked_fill(nowhere, 0)
        weights = F.dropout(weights, self.dropout, self.training)
        output = self.o(self._rows(weights @ v, query))
        if not need_weights:
            return output, None
        weights = weights.mean(dim=1) if average_attn_weights else weights
        return output, weights.squeeze(0) if query.dim() == 2 else weights

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, batch_first={self.batch_first}, dropout={self.dropout}"

    def _heads(self, rows: Tensor) -> Tensor:
        """Rows in the order in which they came, as (batch, heads, length, d_head)."""
        if rows.dim() == 2:
            rows = rows.unsqueeze(0)
        elif not self.batch_first:
            rows = rows.transpose(0, 1)
        return rows.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def _rows(self, heads: Tensor, query: Tensor) -> Tensor:
        """Heads put side by side, (batch, heads, length, d_head), as rows in the order of the query."""
        rows = heads.transpose(1, 2).flatten(2)  # (batch, length, embed_dim)
        if query.dim() == 2:
            return rows.squeeze(0)
        return rows if self.batch_first else rows.transpose(0, 1)

    def _check(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        if query.is_nested or key.is_nested or value.is_nested:
            raise ValueError("query, key and value must not be nested tensors; padded ones with key_padding_mask work")
        shapes = tuple(query.shape), tuple(key.shape), tuple(value.shape)
        one_rank = query.dim() in (2, 3) and query.dim() == key.dim() == value.dim()
        batch = slice(0, 0) if query.dim() == 2 else slice(0, 1) if self.batch_first else slice(1, 2)
        fits = one_rank and query.shape[batch] == key.shape[batch] and key.shape[:-1] == value.shape[:-1]
        if not fits:
            order = "(batch, length, d)" if self.batch_first else "(length, batch, d)"
            raise ValueError(
                f"query, key and value must have shapes {order} with one batch, or (length, d), and key and value one "
                f"length, but they have {shapes[0]}, {shapes[1]} and {shapes[2]}"
            )

    def _mask(
        self, padding: Tensor | None, mask: Tensor | None, sizes: tuple[int, int, int, int], dtype: torch.dtype
    ) -> Tensor | None:
        """Both masks as one that is added to the scores and broadcasts against (batch, heads, queries, keys)."""
        B, H, n_queries, n_keys = sizes
        total = None
        if mask is not None:
            if mask.shape not in ((n_queries, n_keys), (B * H, n_queries, n_keys)):
                raise ValueError(
                    f"attn_mask must have shape {(n_queries, n_keys)} or {(B * H, n_queries, n_keys)}, "
                    f"but has {tuple(mask.shape)}"
                )
            mask = mask if mask.dim() == 2 else mask.unflatten(0, (B, H))
            total = _added(mask, dtype, "attn_mask")
        if padding is not None:
            if padding.shape != (B, n_keys) and not (B == 1 and padding.shape == (n_keys,)):
                raise ValueError(f"key_padding_mask must have shape {(B, n_keys)}, but has {tuple(padding.shape)}")
            added = _added(padding, dtype, "key_padding_mask").view(B, 1, 1, n_keys)
            total = added if total is None else total + added
        return total


def _added(mask: Tensor, dtype: torch.dtype, name: str = "mask") -> Tensor:
    """A mask as numbers to be added to scores: −∞ where a Boolean one is True."""
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, -torch.inf)
    if not mask.is_floating_point():
        raise ValueError(f"{name} must be Boolean or floating point, but is {mask.dtype}; {name}.bool() works")
    return mask.to(dtype)
