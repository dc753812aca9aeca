"""The smallest network that uses attention for something: an induction head.

A sequence is BOS, random tokens with a marker S among them, and S once more at the end; the answer is the token that
followed the first S. Two layers of attention can do it. The first lets every position know which token stands before
it (a previous-token head); the second looks from the last position for the one whose predecessor is S, and copies the
token there (an induction head).

    BOS  t  t  S  M  t  t  S   →  M

Source: the toy model of the authors' public code. Positions are sinusoids, added to what queries and keys read and to
nothing else, so the stream carries tokens alone.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from pd_helpers.core.config import SLOWEST, choice, number, switch, whole
from pd_helpers.core.machine.memory import check_sizes
from pd_helpers.core.training import generator
from pd_helpers.targets.base import TrainedConfig


@dataclass(frozen=True)
class InductionSequences:
    """The task's inputs: (batch_size, generator) → tokens (batch, length).

    Tokens 0 to `vocabulary` − 1 are drawn independently and uniformly; `bos` and `marker` are the two numbers after
    them. The marker stands once at a position from 1 to length − 3, and at the end.
    """

    vocabulary: int
    length: int

    @property
    def bos(self) -> int:
        """The token that begins every sequence."""
        return self.vocabulary

    @property
    def marker(self) -> int:
        """The token S, whose successor is asked for."""
        return self.vocabulary + 1

    def __call__(self, batch_size: int, draw: Generator) -> Int[Tensor, "batch length"]:
        """A batch of sequences."""
        at = draw.device
        x = torch.randint(self.vocabulary, (batch_size, self.length), generator=draw, device=at)
        place = torch.randint(1, self.length - 2, (batch_size, 1), generator=draw, device=at)
        x[:, 0], x[:, -1] = self.bos, self.marker
        return x.scatter(1, place, self.marker)

    def places(self, x: Int[Tensor, "batch length"]) -> Int[Tensor, " batch"]:
        """Position of the first marker of each sequence."""
        return (x == self.marker).int().argmax(dim=1)

    def answers(self, x: Int[Tensor, "batch length"]) -> Int[Tensor, " batch"]:
        """The token after the first marker of each sequence."""
        return x.gather(1, self.places(x).unsqueeze(1) + 1).squeeze(1)

    def accuracy(self, logits: Float[Tensor, "batch vocabulary"], x: Int[Tensor, "batch length"]) -> float:
        """Share of sequences whose largest logit is that of the answer."""
        return (logits.argmax(dim=-1) == self.answers(x)).float().mean().item()


def check_heads(n_heads: int, d_model: int) -> None:
    """Raise ValueError unless the heads can share the width equally."""
    if d_model % n_heads:
        raise ValueError(f"n_heads must divide d_model = {d_model}, but is {n_heads}; 1 works, and so does {d_model}")


def frequencies(d: int) -> Float[Tensor, " half"]:
    """Radians by which each sine and cosine of `sinusoids` turns from one position to the next, ⌈d / 2⌉ of them."""
    return torch.exp(-math.log(10_000) * torch.arange(0, d, 2) / d)


def sinusoids(length: int, d: int) -> Float[Tensor, "length d"]:
    """Positions as sines and cosines of wavelengths from 2π to 10,000 · 2π (Vaswani et al. 2017, section 3.5)."""
    angles = torch.arange(length).unsqueeze(1) * frequencies(d)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :d]


class Attention(nn.Module):
    """Causal attention without biases, whose queries and keys read the stream with positions added to it.

    Attributes: q, k, v, o, `nn.Linear`, d → d; n_heads. Head h has rows h · d / n_heads to (h + 1) · d / n_heads − 1 of
    the weights of q, k and v, and these columns of that of o.
    """

    def __init__(self, d: int, n_heads: int):
        super().__init__()
        self.n_heads = n_heads
        self.q, self.k, self.v, self.o = (nn.Linear(d, d, bias=False) for _ in range(4))

    def forward(self, s: Float[Tensor, "*batch length d"], positions: Float[Tensor, "length d"]) -> Tensor:
        """What the layer adds to the stream."""
        placed = s + positions
        q, k, v = (self.by_head(y) for y in (self.q(placed), self.k(placed), self.v(s)))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (batch, heads, length, d_head)
        return self.o(mixed.transpose(-3, -2).flatten(-2))

    def pattern(
        self, s: Float[Tensor, "*batch length d"], positions: Float[Tensor, "length d"]
    ) -> Float[Tensor, "*batch heads length length"]:
        """How much every query (rows) attends to every key (columns)."""
        q, k = (self.by_head(layer(s + positions)) for layer in (self.q, self.k))
        later = torch.ones(s.shape[-2], s.shape[-2], dtype=torch.bool, device=s.device).triu(1)
        return (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(later, -torch.inf).softmax(dim=-1)

    def by_head(self, y: Float[Tensor, "*batch length d"]) -> Float[Tensor, "*batch heads length d_head"]:
        """The numbers of each head by themselves."""
        return y.unflatten(-1, (self.n_heads, -1)).transpose(-3, -2)


class InductionNetwork(nn.Module):
    """Layers of attention over a stream that begins with tokens; the last position answers.

    Attributes: embed; blocks, the `Attention` layers; unembed, `nn.Linear` without a bias; positions (length, d).

    Raises ValueError for sizes that no memory holds, and for heads that cannot share the width.
    """

    def __init__(self, *, vocabulary: int, length: int, d_model: int, n_heads: int, n_layers: int):
        super().__init__()
        check_sizes(
            lambda vocabulary, length, d_model, n_heads, n_layers: (
                d_model * (2 * vocabulary + length + 4 * n_layers * d_model)
            ),
            vocabulary=vocabulary,
            length=length,
            d_model=d_model,
            n_heads=n_heads,
            n_layers=n_layers,
        )
        check_heads(n_heads, d_model)
        self.embed = nn.Embedding(vocabulary + 2, d_model)
        self.blocks = nn.ModuleList(Attention(d_model, n_heads) for _ in range(n_layers))
        self.unembed = nn.Linear(d_model, vocabulary, bias=False)
        self.register_buffer("positions", sinusoids(length, d_model))

    @property
    def layers(self) -> list[str]:
        """Paths of the matrices that are decomposed: q, k, v and o of every layer."""
        return [f"blocks.{i}.{name}" for i in range(len(self.blocks)) for name in "qkvo"]

    @property
    def sequences(self) -> InductionSequences:
        """The task's inputs for this network."""
        return InductionSequences(self.unembed.out_features, len(self.positions))

    def forward(self, x: Int[Tensor, "batch length"], without: Collection[int] = ()) -> Tensor:
        """Logits of the answer (batch, vocabulary); `without` are numbers of layers that are left out."""
        return self.unembed(self.stream(x, without)[..., -1, :])

    def stream(self, x: Int[Tensor, "batch length"], without: Collection[int] = ()) -> Float[Tensor, "batch length d"]:
        """The residual stream after the last layer, at every position."""
        s = self.embed(x)
        for i, attention in enumerate(self.blocks):
            if i not in without:
                s = s + attention(s, self.positions[: x.shape[-1]])
        return s

    def patterns(self, x: Int[Tensor, "batch length"]) -> Float[Tensor, "layers batch heads length length"]:
        """How much every query attends to every key, in every layer and head."""
        s, patterns = self.embed(x), []
        for attention in self.blocks:
            patterns.append(attention.pattern(s, self.positions[: x.shape[-1]]))
            s = s + attention(s, self.positions[: x.shape[-1]])
        return torch.stack(patterns)


@dataclass(frozen=True)
class InductionConfig(TrainedConfig):
    """The induction task, a network for it, and its training; defaults train in a minute on one core.

    The authors' public sizes are vocabulary 128, length 64, 100,000 steps of 1,024 at 1e-3.
    """

    kind = "induction"
    vocabulary: int = whole(64, at_least=2)
    """Number of ordinary tokens; BOS and the marker come on top of them."""
    length: int = whole(32, at_least=4)
    """Positions of a sequence, BOS and both markers included."""
    d_model: int = whole(16, at_least=2)
    """Width of the stream, and of all heads of a layer together."""
    n_heads: int = whole(1)
    """Heads of each layer."""
    n_layers: int = whole(2)
    """Layers of attention."""
    target_steps: int = whole(1000)
    """Training steps."""
    target_batch_size: int = whole(256)
    """Number of sequences per training step."""
    target_lr: float = number(3e-3, open=True, least=SLOWEST)
    """AdamW's learning rate at its highest."""
    target_schedule: str = choice("linear", "constant", "cosine", "linear")
    """Course of the learning rate after its warm-up."""
    target_warmup_fraction: float = number(0.1, high=1.0)
    """Share of the steps over which the learning rate rises."""
    drop: float = number(0.0, high=0.99)
    """Probability with which training leaves out each layer after the first, so that every one of them learns to find
    the marker's successor; needs three layers or more."""
    shuffled: bool = switch(False)
    """Whether training asks for the answer of another sequence, so that there is nothing to learn: a control."""

    def __post_init__(self):
        super().__post_init__()
        if self.drop and self.n_layers < 3:
            raise ValueError(
                f"drop is {self.drop:g}, but with n_layers = {self.n_layers} no second layer could do what is left "
                "out; n_layers=3 works"
            )
        check_heads(self.n_heads, self.d_model)

    @property
    def summary(self) -> str:
        heads = "head" if self.n_heads == 1 else "heads"
        return f"{self.vocabulary} tokens, length {self.length}, {self.n_layers} layers of {self.n_heads} {heads}"

    @property
    def n_floats(self) -> int:
        weights = self.d_model * (2 * self.vocabulary + 4 * self.n_layers * self.d_model)
        return weights + self.target_batch_size * self.n_heads * self.length * (self.length + 4 * self.d_model)

    @property
    def matrices(self) -> list[tuple[int, int, int]]:
        return [(4 * self.n_layers, self.d_model, self.d_model)]

    def features(self) -> Callable[[int, Generator], Tensor]:
        return InductionSequences(self.vocabulary, self.length)

    def build(self) -> InductionNetwork:
        sizes = ("vocabulary", "length", "d_model", "n_heads", "n_layers")
        return InductionNetwork(**{name: getattr(self, name) for name in sizes})

    def new(self, seed: int, device: str | torch.device = "cpu") -> InductionNetwork:
        """An untrained network: embeddings are normal, and matrices uniform as in `nn.Linear`."""
        model, draw = self.build(), generator(seed, "target_init")
        nn.init.normal_(model.embed.weight, std=self.d_model**-0.5, generator=draw)
        for layer in (*(model.get_submodule(path) for path in model.layers), model.unembed):
            nn.init.uniform_(layer.weight, -(self.d_model**-0.5), self.d_model**-0.5, generator=draw)
        return model.to(device)

    def loss(self, model: nn.Module, x: Int[Tensor, "rows length"]) -> Float[Tensor, ""]:
        """Cross-entropy of the answer, in nats; where layers are left out, the exact mean over what may remain of them.

        The case in which no layer but the first remains does not count: nothing could answer there.
        """
        answers = self.features().answers(x)
        if self.shuffled:
            answers = answers.roll(1)
        if not self.drop:
            return F.cross_entropy(model(x), answers)
        later = range(1, self.n_layers)
        cases = [without for n in range(len(later)) for without in combinations(later, n)]
        chances = [self.drop ** len(without) * (1 - self.drop) ** (len(later) - len(without)) for without in cases]
        losses = (
            chance * F.cross_entropy(model(x, without), answers) for chance, without in zip(chances, cases, strict=True)
        )
        return sum(losses, torch.zeros((), device=x.device)) / sum(chances)

    @classmethod
    def sizes(cls, target: nn.Module) -> dict[str, Any] | None:
        if not isinstance(target, InductionNetwork):
            return None
        return {
            "vocabulary": target.unembed.out_features,
            "length": len(target.positions),
            "d_model": target.embed.embedding_dim,
            "n_heads": target.blocks[0].n_heads,
            "n_layers": len(target.blocks),
        }
