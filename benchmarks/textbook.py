"""APD, SPD and VPD straight from the papers in plain batched torch: the oracle of the tests, the yardstick of speed.

    P_c = U_c V_c           a component of the matrix W (d_out, d_in): V_c (R, d_in) reads, U_c (d_out, R) writes

APD with top-k (Braun et al. 2025, section 2 and appendix A.2.2)

    A_c(x) = sqrt( mean over outputs o of ( Σ_{l,i,j} ∂f_o(x)/∂W_{l,i,j} P_{c,l,i,j} )² )
    s_c(x) = 1 for the k·batch largest attributions of the batch, else 0
    L = λ_F mean (W − Σ_c P_c)²  +  λ_M mean (f(x|W) − f(x|Σ_c s_c(x) P_c))²  +  λ_S Σ_c s_c(x) Σ_l ‖P_{c,l}‖_p^p

and for residual MLPs (section D.2) + λ_H mean over layers of mean (h(x|W) − h(x|Σ_c s_c(x) P_c))², h after the ReLU.

SPD (Bushnaq, Braun and Sharkey 2025, section 2)

    g_c = σ(Γ_c(V_c x))                                 x: the layer's input in the target's own forward pass
    m_c = g_c + (1 − g_c) r_c,   r_c ~ U(0, 1)
    W' = Σ_c m_c P_c                                    different for every input of the network
    L = mean (W − Σ_c P_c)²  +  β1 mean (f(x|W) − f(x|W'))²  +  β2 (the same, one layer at a time)  +  β3 Σ g_c^p

VPD (Bushnaq et al. 2026)

    Δ = W − Σ_c P_c
    W' = Σ_c m_c P_c + m_Δ Δ,   m_c = g_c + (1 − g_c) r_c,   m_Δ = r_Δ
    L = β1 mean (f(x|W) − f(x|W'))², r climbing it  +  β2 (the same, r ~ U(0, 1), some of the layers)
        + β3 Σ_c f_c  +  β4 Σ_c f_c log2(1 + a f_c)  +  β5 mean Δ²,   f_c = mean over inputs of g_c^p

Read it beside the papers. It takes the short cuts that public code takes and no others: attributions need one backward
pass for every output, every mask has a forward pass of its own, every row of the batch is computed, and the residual
stream has its full width. It shares nothing with `pd_helpers`, whose core must give the same numbers in less time.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, einsum

Matrices = Mapping[str, Tensor]
"""Layer or use → matrix (d_out, d_in), or with a leading dimension, one for each row of the batch or component."""


class Gate(NamedTuple):
    """The importance MLPs Γ_c of one use, each 1 → d_gate GELU → 1."""

    w_in: Tensor
    """(C, d_gate)."""
    b_in: Tensor
    """(C, d_gate)."""
    w_out: Tensor
    """(C, d_gate)."""
    b_out: Tensor
    """(C,)."""


class LayerGate(NamedTuple):
    """The importance MLP of one use, d_in → d_gate GELU → C."""

    w_in: Tensor
    """(d_gate, d_in)."""
    b_in: Tensor
    """(d_gate,)."""
    w_out: Tensor
    """(C, d_gate)."""
    b_out: Tensor
    """(C,)."""


@dataclass
class Model:
    """A network and its components.

    The network is written as f(linear, x): wherever it multiplies an activation by one of its matrices, it calls
    linear(use, activation). A tied matrix is one layer with several uses.
    """

    f: Callable[[Callable[[str, Tensor], Tensor], Tensor], Tensor]
    """The network as a function of `linear` and of a batch."""
    uses: Mapping[str, tuple[str, bool]]
    """Use → its layer, and whether the layer's matrix acts transposed there."""
    W: Matrices
    """Layer → the target's matrix."""
    U: Mapping[str, Tensor] = field(default_factory=dict)
    """Decomposed layer → (C, d_out, R)."""
    V: Mapping[str, Tensor] = field(default_factory=dict)
    """Decomposed layer → (C, R, d_in)."""
    gates: Mapping[str, Gate | LayerGate] = field(default_factory=dict)
    """Use → importance MLPs, for SPD and VPD."""
    hidden: list[str] = field(default_factory=list)
    """Uses whose inputs are activations after a ReLU, for APD's hidden reconstruction."""
    error: Callable[[Tensor, Tensor], Tensor] = F.mse_loss
    """(output, target's output) → how far the one is off, a number."""

    @property
    def P(self) -> Matrices:
        """Layer → all of its components (C, d_out, d_in)."""
        return {layer: self.U[layer] @ self.V[layer] for layer in self.U}

    @property
    def decomposed(self) -> list[str]:
        """The uses of decomposed layers."""
        return [use for use, (layer, _) in self.uses.items() if layer in self.U]

    @property
    def parameters(self) -> list[Tensor]:
        """All trained parameters."""
        return [*self.U.values(), *self.V.values(), *(p for gate in self.gates.values() for p in gate)]

    def factors(self, use: str) -> tuple[Tensor, Tensor]:
        """The factors that write and that read at a use: U and V, or V and U transposed where the matrix is transposed.

        P_cᵀ = V_cᵀ U_cᵀ, so there V writes and U reads.
        """
        layer, transposed = self.uses[use]
        U, V = self.U[layer], self.V[layer]
        return (V.mT, U.mT) if transposed else (U, V)

    def at_uses(self, matrices: Matrices) -> Matrices:
        """Layer → matrix becomes use → matrix, transposed where it acts transposed."""
        return {
            use: matrices[layer].mT if transposed else matrices[layer]
            for use, (layer, transposed) in self.uses.items()
            if layer in matrices
        }


def toy_model(W: Tensor, bias: Tensor, identity: Tensor | None = None) -> Model:
    """x̂ = ReLU(Wᵀ W x + b), or ReLU(Wᵀ I W x + b), without components."""

    def f(linear, x):
        hidden = linear("embed", x)
        if identity is not None:
            hidden = linear("identity", hidden)
        return torch.relu(linear("unembed", hidden) + bias)

    if identity is None:
        return Model(f, {"embed": ("embed", False), "unembed": ("embed", True)}, {"embed": W})
    uses = {"embed": ("embed", False), "identity": ("identity", False), "unembed": ("embed", True)}
    return Model(f, uses, {"embed": W, "identity": identity})


def linear_map(W: Tensor) -> Model:
    """y = W x, without components."""
    return Model(lambda linear, x: linear("layer", x), {"layer": ("layer", False)}, {"layer": W})


def residual_mlp(
    W_E: Tensor, W_U: Tensor, W_in: list[Tensor], W_out: list[Tensor], biases: list[Tensor | float]
) -> Model:
    """s ← s + W_out ReLU(W_in s + b) in every layer, from s = W_E x to y = W_U s; without components."""
    layers = range(len(W_in))

    def f(linear, x):
        s = x @ W_E.T
        for i in layers:
            h = torch.relu(linear(f"mlps.{i}.W_in", s) + biases[i])
            s = s + linear(f"mlps.{i}.W_out", h)
        return s @ W_U.T

    W = {}
    for i in layers:
        W |= {f"mlps.{i}.W_in": W_in[i], f"mlps.{i}.W_out": W_out[i]}
    return Model(f, {layer: (layer, False) for layer in W}, W, hidden=[f"mlps.{i}.W_out" for i in layers])


def induction(
    embedding: Tensor, positions: Tensor, blocks: list[Mapping[str, Tensor]], unembedding: Tensor, n_heads: int
) -> Model:
    """Causal attention layers on tokens, whose last position answers; `blocks` hold q, k, v, o. Without components.

    Positions are added to what q and k read. Outputs are logits, and their error is a divergence KL(target ‖ output).
    """

    def f(linear, x):
        s = embedding[x]  # (batch, length, d)
        length = x.shape[1]
        for i in range(len(blocks)):
            placed = s + positions[:length]
            q, k = (linear(f"blocks.{i}.{name}", placed).unflatten(-1, (n_heads, -1)) for name in "qk")
            v = linear(f"blocks.{i}.v", s).unflatten(-1, (n_heads, -1))  # (batch, length, heads, d_head)
            scores = einsum("bqhe,bkhe->bhqk", q, k) / q.shape[-1] ** 0.5
            later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
            pattern = scores.masked_fill(later, -torch.inf).softmax(dim=-1)
            s = s + linear(f"blocks.{i}.o", einsum("bhqk,bkhe->bqhe", pattern, v).flatten(2))
        return s[:, -1] @ unembedding.T

    W = {f"blocks.{i}.{name}": matrix for i, block in enumerate(blocks) for name, matrix in block.items()}
    return Model(f, {layer: (layer, False) for layer in W}, W, error=divergence)


def divergence(output: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch of KL(target ‖ output) of logits, in nats."""
    log_p, log_q = target.log_softmax(dim=-1), output.log_softmax(dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1).mean()


class Forward(NamedTuple):
    """One pass through the network; a row is an input, or a position of one."""

    output: Tensor
    """(batch, d_output)."""
    inputs: dict[str, Tensor]
    """Use → its input (*rows, d_in)."""
    outputs: dict[str, Tensor]
    """Use → its output (*rows, d_out), before any bias."""


def forward(model: Model, act: Callable[[str, Tensor], Tensor], x: Tensor) -> Forward:
    """f(x), where act(use, a) is the output of a use of a matrix for the input a."""
    inputs, outputs = {}, {}

    def linear(use, a):
        inputs[use] = a
        outputs[use] = act(use, a)
        return outputs[use]

    return Forward(model.f(linear, x), inputs, outputs)


def whole(model: Model, weights: Matrices, x: Tensor) -> Forward:
    """f(x) at the given matrix of each layer."""
    weights = model.at_uses(weights)
    return forward(model, lambda use, a: a @ weights[use].T, x)


def target(model: Model, x: Tensor) -> Forward:
    """f(x|W)."""
    with torch.no_grad():
        return whole(model, model.W, x)


def masked(model: Model, x: Tensor, masks: Mapping[str, Tensor]) -> Forward:
    """f(x|W'), with W' = Σ_c m_c U_c V_c at every use that has masks (*rows, C), and the target's matrix elsewhere.

    Masks (*rows, C + 1) have that of Δ = W − Σ_c U_c V_c last.
    """
    W, P = model.at_uses(model.W), model.at_uses(model.P)

    def act(use, a):
        if use not in masks:
            return a @ W[use].T
        if masks[use].shape[-1] == len(P[use]) + 1:
            components = torch.cat([P[use], (W[use] - P[use].sum(dim=0)).unsqueeze(0)])  # (C + 1, d_out, d_in)
            return einsum("...c,coi,...i->...o", masks[use], components, a)
        writes, reads = model.factors(use)
        inner = einsum("cri,...i->...cr", reads, a) * masks[use].unsqueeze(-1)  # m_c V_c a
        return einsum("cor,...cr->...o", writes, inner)

    return forward(model, act, x)


# Losses of both methods


def faithfulness(model: Model) -> Tensor:
    """Mean over all decomposed parameters of (W − Σ_c P_c)²; a tied matrix counts once per use."""
    layers = [model.uses[use][0] for use in model.decomposed]
    errors = [model.W[layer] - model.P[layer].sum(dim=0) for layer in layers]
    return torch.cat([error.flatten() for error in errors]).square().mean()


def reconstruction(model: Model, x: Tensor, masks: Mapping[str, Tensor]) -> Tensor:
    """The error of f(x|W'), by default mean squared: APD's minimality loss, SPD's stochastic reconstruction."""
    return model.error(masked(model, x, masks).output, target(model, x).output)


# APD


def attributions(model: Model, weights: Matrices, P: Matrices, x: Tensor) -> Tensor:
    """A_c(x) (batch, C) at the given matrix of each layer."""
    return squared_attributions(model, weights, P, x).sqrt()


def squared_attributions(model: Model, weights: Matrices, P: Matrices, x: Tensor) -> Tensor:
    """A_c(x)² (batch, C), with one backward pass for every output.

    The derivative with respect to a matrix is the outer product of the derivative with respect to its output and its
    input a, so that ∂f_o/∂W · P_c = ∂f_o/∂(W a) · P_c a.
    """
    P = model.at_uses(P)
    weights = {layer: W.detach().requires_grad_() for layer, W in weights.items()}
    output, inputs, outputs = whole(model, weights, x)
    effects = {use: einsum("coi,bi->bco", P[use], inputs[use].detach()) for use in P}  # P_c a
    A = 0.0
    for o in range(output.shape[1]):
        grads = torch.autograd.grad(output[:, o].sum(), [outputs[use] for use in P], retain_graph=True)
        along = sum(einsum("bo,bco->bc", grad, effects[use]) for use, grad in zip(P, grads, strict=True))
        A = A + along.square()
    return A / output.shape[1]


def batch_top_k(A: Tensor, k: int) -> Tensor:
    """s_c(x) (batch, C): 1 for the k largest attributions of the whole batch, except where A is 0, and 0 elsewhere."""
    active = torch.zeros_like(A).flatten()
    active[A.flatten().topk(min(k, A.numel())).indices] = 1.0
    return active.view_as(A) * (A > 0)


def simplicity(model: Model, active: Tensor, p: float) -> Tensor:
    """Batch mean of Σ_c s_c(x) Σ_l Σ_r (‖U_clr‖² ‖V_clr‖²)^(p/2), per parameter; a tied matrix counts once per use."""
    total, n_parameters = 0.0, 0
    for layer in (model.uses[use][0] for use in model.decomposed):
        U, V = model.U[layer], model.V[layer]
        squared = U.square().sum(dim=1) * V.square().sum(dim=2)  # (C, R)
        norms = (squared + 1e-16).pow(p / 2).sum(dim=1)  # (C,); the tiny number keeps the gradient finite at zero
        total = total + einsum("bc,c->b", active, norms).mean()
        n_parameters += model.W[layer].numel()
    return total / n_parameters


def top_k(step: int, config) -> float:
    """Active components per input: k, or a number that falls geometrically from k_start to k in half of the steps."""
    k, k_start, half = config.top_k, config.top_k_start, config.steps / 2
    return k if k_start is None or step >= half else k_start * (k / k_start) ** (step / half)


def apd_losses(model: Model, x: Tensor, config, step: int = 0) -> dict[str, Tensor]:
    """The losses of one batch, unweighted."""
    with torch.no_grad():
        P = model.P
    own_sum = {layer: P[layer].sum(dim=0) for layer in P}
    weights = {**model.W, **own_sum} if config.attribute_at == "components" else model.W
    if config.attribution_p:  # the Lp formulation
        s = (squared_attributions(model, weights, model.P, x) + 1e-16) ** (config.attribution_p / 2)
        s = s - 1e-16 ** (config.attribution_p / 2)
        return {
            "faithfulness": faithfulness(model),
            "minimality": s.sum(dim=1).mean(),
            "simplicity": simplicity(model, s, config.schatten_p),
            "hidden": x.new_zeros(()),
        }
    active = batch_top_k(attributions(model, weights, P, x), round(top_k(step, config) * len(x)))
    sparse, dense = masked(model, x, dict.fromkeys(model.decomposed, active)), target(model, x)
    errors = [(dense.inputs[use] - sparse.inputs[use]).square().mean() for use in model.hidden]
    return {
        "faithfulness": faithfulness(model),
        "minimality": (dense.output - sparse.output).square().mean(),
        "simplicity": simplicity(model, active, config.schatten_p),
        "hidden": sum(errors) / len(errors) if config.hidden_coeff else x.new_zeros(()),
    }


# SPD


def importance_logits(model: Model, x: Tensor) -> dict[str, Tensor]:
    """Use → Γ_c(V_c x) (*rows, C), x: the input of the use, before any sigmoid; a transposed use has U_cᵀ for V_c.

    An MLP of a whole use reads x itself.
    """
    logits = {}
    for use, a in target(model, x).inputs.items():
        if use not in model.gates:
            continue
        gate = model.gates[use]
        if isinstance(gate, LayerGate):
            logits[use] = F.gelu(a @ gate.w_in.T + gate.b_in) @ gate.w_out.T + gate.b_out
            continue
        _, reads = model.factors(use)  # (C, 1, d)
        h = a @ reads.squeeze(1).T  # (*rows, C)
        hidden = F.gelu(h.unsqueeze(-1) * gate.w_in + gate.b_in)  # (*rows, C, d_gate)
        logits[use] = (hidden * gate.w_out).sum(dim=-1) + gate.b_out
    return logits


def lower_leaky(x: Tensor) -> Tensor:
    """0.01 x below 0, x from 0 to 1, and 1 above: for the masks."""
    return torch.where(x > 0, x.clamp(max=1), 0.01 * x)


def upper_leaky(x: Tensor) -> Tensor:
    """0 below 0, x from 0 to 1, and 1 + 0.01 (x − 1) above: for the importance loss."""
    return torch.where(x > 1, 1 + 0.01 * (x - 1), x.clamp(min=0))


def stochastic_masks(g: Mapping[str, Tensor], rand_like: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Use → m = g + (1 − g) r."""
    return {use: value + (1 - value) * rand_like(value) for use, value in g.items()}


def importance(logits: Mapping[str, Tensor], p: float) -> Tensor:
    """Mean over rows of Σ_l Σ_c g_c(x)^p."""
    return sum((upper_leaky(value) + 1e-12).pow(p).sum(dim=-1).mean() for value in logits.values())


def spd_losses(model: Model, x: Tensor, config, rand_like=torch.rand_like) -> dict[str, Tensor]:
    """The four losses of one batch, unweighted; `rand_like(g)` draws r of the shape of g, anew for every loss."""
    logits = importance_logits(model, x)
    g = {use: lower_leaky(value) for use, value in logits.items()}
    all_at_once = reconstruction(model, x, stochastic_masks(g, rand_like))
    one_at_a_time = [reconstruction(model, x, stochastic_masks({use: g[use]}, rand_like)) for use in g]
    return {
        "faithfulness": faithfulness(model),
        "recon": all_at_once,
        "recon_layerwise": sum(one_at_a_time) / len(one_at_a_time),
        "importance_minimality": importance(logits, config.importance_p),
    }


# VPD


class StraightThrough(torch.autograd.Function):
    """Clamped to [0, 1]; below 0, gradients that want x to rise pass as if the slope were 0.01."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(0, 1)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        inside = (x > 0) & (x <= 1)
        return grad * inside + 0.01 * grad * ((x <= 0) & (grad < 0))


def adversarial_masks(g: Mapping[str, Tensor], r: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Use → masks (*rows, C + 1) of the subcomponents and, last, of Δ, from sources r (*rows, C + 1)."""
    return {use: torch.cat([g[use] + (1 - g[use]) * r[use][..., :-1], r[use][..., -1:]], dim=-1) for use in g}


Drawn = tuple[dict[str, Tensor], dict[str, Tensor]]
"""Use → sources (*rows, C + 1), and use → whether it is masked at each row."""


def draw(model: Model, x: Tensor) -> Drawn:
    """Sources of stochastic masks, r ~ U(0, 1), and which uses they mask: at each input k of them, k ~ U{1 … L}."""
    uses = model.decomposed
    sizes = {use: len(model.U[model.uses[use][0]]) for use in uses}
    rows = {use: a.shape[:-1] for use, a in target(model, x).inputs.items()}
    r = {use: torch.rand(*rows[use], C + 1).to(model.W[model.uses[use][0]]) for use, C in sizes.items()}
    order = torch.rand(*rows[uses[0]], len(uses), device=x.device).argsort(dim=-1)
    k = torch.randint(1, len(uses) + 1, rows[uses[0]], device=x.device)
    return r, {use: (order == i).int().argmax(dim=-1) < k for i, use in enumerate(uses)}


class AdversarialLosses:
    """VPD's losses with an adversary: a function of the batch that must be called once in each training step.

    It keeps sources r, (*rows, C + 1) or, shared by all rows, (C + 1,), for every use. Adam makes them climb a few
    times before each step, and once more along the gradient of the step itself, which is only known at the next call.
    """

    def __init__(self, model: Model, config, draw: Callable[[Model, Tensor], Drawn] = draw):
        self.model, self.config, self.draw, self.step = model, config, draw, 0
        self.r: dict[str, Tensor] = {}
        self.used: dict[str, Tensor] = {}  # sources of the last training step, for every input

    def begin(self, r: Mapping[str, Tensor]) -> None:
        """Start from these sources."""
        betas = self.config.adversary_beta1, self.config.adversary_beta2
        self.r = {use: value.clone().requires_grad_() for use, value in r.items()}
        self.adam = torch.optim.Adam(list(self.r.values()), betas=betas, maximize=True)

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        """The losses of the next step."""
        if not self.r:
            first, _ = self.draw(self.model, x)
            shared = self.config.adversary == "shared"
            self.begin({use: r.flatten(0, -2)[0] if shared else r for use, r in first.items()})
        self.climb_along_the_last_step()
        for _ in range(self.config.adversary_steps):
            self.climb(ascent(self.model, x, self.everywhere(x)))
        self.used = {use: r.detach().requires_grad_() for use, r in self.everywhere(x).items()}
        return vpd_losses(self.model, x, self.config, self.step, self.used, self.draw(self.model, x))

    def everywhere(self, x: Tensor) -> dict[str, Tensor]:
        """The sources of every row."""
        rows = {use: a.shape[:-1] for use, a in target(self.model, x).inputs.items()}
        return {use: r.expand(*rows[use], -1) for use, r in self.r.items()}

    def climb_along_the_last_step(self) -> None:
        """The step of ascent that uses the gradient of the last training step, unless it has been made."""
        if not self.used:
            return
        weight = self.config.adversarial_coeff  # the error counts in full for each input
        grads = {use: len(r) / weight * r.grad for use, r in self.used.items()}
        self.climb(grads)
        self.used, self.step = {}, self.step + 1

    def climb(self, grads: Mapping[str, Tensor]) -> None:
        """One step of Adam, and back into [0, 1]."""
        config = self.config
        rising = min(1.0, (self.step + 1) / max(1.0, config.adversary_warmup_fraction * config.steps))
        self.adam.param_groups[0]["lr"] = config.adversary_lr * rising
        for use, r in self.r.items():
            r.grad = grads[use].flatten(0, -2).sum(dim=0) if r.ndim == 1 else grads[use]
        self.adam.step()
        with torch.no_grad():
            for r in self.r.values():
                r.clamp_(0, 1)


def ascent(model: Model, x: Tensor, r: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Use → gradient with respect to the sources of Σ over inputs of the error."""
    with torch.no_grad():
        g = {use: value.clamp(0, 1) for use, value in importance_logits(model, x).items()}
    r = {use: value.detach().requires_grad_() for use, value in r.items()}
    error = len(x) * reconstruction(model, x, adversarial_masks(g, r))
    return dict(zip(r, torch.autograd.grad(error, list(r.values())), strict=True))


def vpd_losses(model: Model, x: Tensor, config, step: int, r: Mapping[str, Tensor], drawn: Drawn) -> dict[str, Tensor]:
    """The five losses of one batch, unweighted, with the adversary's sources r and those drawn for stochastic masks."""
    logits = importance_logits(model, x)
    g = {use: StraightThrough.apply(value) for use, value in logits.items()}
    stochastic_r, chosen = drawn
    stochastic = {
        use: torch.where(chosen[use].unsqueeze(-1), mask, torch.ones_like(mask))  # all ones are W
        for use, mask in adversarial_masks(g, stochastic_r).items()
    }
    p = config.importance_p + (config.importance_p_end - config.importance_p) * step / config.steps
    f = torch.cat(
        [(upper_leaky(value) + 1e-12).pow(p).flatten(0, -2).mean(dim=0) for value in logits.values()]
    )  # of all uses
    return {
        "adversarial": reconstruction(model, x, adversarial_masks(g, r)),
        "stochastic": reconstruction(model, x, stochastic),
        "importance_minimality": f.sum(),
        "frequency_minimality": (f * torch.log2(1 + config.frequency_a * f)).sum(),
        "faithfulness": faithfulness(model),
    }


# Training


def learning_rate(step: int, config) -> float:
    """A linear warm-up if the method has one, then constant or half a cosine down to zero."""
    warmup = int(config.steps * getattr(config, "warmup_fraction", 0.0))
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if config.schedule == "constant":
        return config.lr
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (config.steps - warmup)))


def train(
    model: Model, losses: Callable[[Tensor], dict[str, Tensor]], batches: Iterable[Tensor], config
) -> Iterator[dict[str, Tensor]]:
    """One step of Adam in place for every batch, on the weighted sum of the losses; yields the unweighted losses."""
    adam = torch.optim.Adam([p.requires_grad_() for p in model.parameters])
    unit_norm = getattr(config, "unit_norm", False)
    if unit_norm:
        normalise(model)
    for step, x in enumerate(batches):
        terms = losses(x)
        loss = sum(coefficient(config, name) * term for name, term in terms.items())  # λ_F L_F + λ_M L_M + ...
        adam.param_groups[0]["lr"] = learning_rate(step, config)
        adam.zero_grad()
        loss.backward()
        adam.step()
        if unit_norm:
            normalise(model)
        yield {name: term.detach() for name, term in terms.items()}


def coefficient(config, loss: str) -> float:
    """The coefficient of a loss, from the field of the configuration that is named after the loss."""
    return getattr(config, f"{loss.removesuffix('_minimality')}_coeff")


@torch.no_grad()
def normalise(model: Model) -> None:
    """Divide every row of every V_c by its length."""
    for V in model.V.values():
        V /= V.norm(dim=2, keepdim=True)
