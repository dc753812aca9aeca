# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 12 · SPD from scratch
#
# **The question:** what is Stochastic Parameter Decomposition made of, and which of its parts does it need?
#
# *After this notebook you can* write SPD yourself in about sixty lines of torch, say why a random mask is a fair test of
# "this piece is not needed", pass a gradient through a random number and check that it is right, explain why there are two
# leaky sigmoids and not one, and predict what breaks when a part of the loss is left out.
#
# | read | do | run on two cores | before this | difficulty |
# |---|---|---|---|---|
# | 35 minutes | 35 minutes | {{minutes}} | [02 · Superposition](02_superposition.ipynb), [07 · APD on superposition](07_apd_superposition.ipynb) | moderate; much code, but short |

# %%
import math
import time
from collections.abc import Callable, Iterator

import joblib
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

import pd_helpers as pdh
from pd_helpers.analysis import metrics
from pd_helpers.core.training import progress

preset = pdh.preset("spd/tms_5-2")  # the paper's settings, and ours
target = pdh.make_target(preset.target, seed=0)  # the network of notebook 02, trained a little longer
W, b = target.embed.weight, target.unembed.bias  # (m1, m2) = (2, 5), and (5,)
data = preset.target.features()  # draws batches: each feature on with probability 0.05, then uniform on [0, 1]

# %% [markdown]
# ## The plan
#
# We take the toy model of superposition apart, $\hat x = \mathrm{ReLU}(W^\top W x + b)$. Five features live in two dimensions,
# and the mechanisms to be found are the five columns of $W$. APD found them too, in notebook 07, but a tenth too short, and
# only after being told how many an input uses.
#
# SPD (Bushnaq, Braun and Sharkey 2025) is another way to the same goal. It has six parts, and this notebook builds
# one after the other:
#
# 1. **pieces**: $W$ as a sum of rank-one matrices;
# 2. **masks**: random ablations that test which pieces an input needs;
# 3. a **gradient** that goes through those random numbers;
# 4. **gates**: tiny networks that predict, for each input, how much a piece matters;
# 5. four **losses**;
# 6. a training **loop**.
#
# At the end we run it next to the package's own SPD, and then take the parts out again, one at a time.

# %% [markdown]
# ## Part 1 · Pieces
#
# $W$ becomes a sum of $C$ **subcomponents**, each an outer product of two vectors:
#
# $$W \;\approx\; \sum_{c=1}^{C} U_c V_c^\top .$$
#
# $V_c$ *reads* a direction of the input, $U_c$ *writes* a direction of the output. We keep all the $U_c$ as rows of one matrix
# `U` (C, m1) and all the $V_c$ as rows of `V` (C, m2). Then the sum is a matrix product, `U.T @ V`.
#
# We take $C = 20$ pieces, as the paper does. That is more than the five we hope for: the method has to find the number.
#
# The first thing to ask of the pieces is that they add up to $W$. That is **faithfulness**, the mean squared error
# between the two. Let us train for it alone.

# %%
C = 20


def start(seed: int) -> tuple[Tensor, Tensor, torch.Generator]:
    """U (C, m1) and V (C, m2), random, and the random numbers that come after them."""
    draw = torch.Generator().manual_seed(seed)
    U, V = torch.randn(C, 2, generator=draw) / C**0.5, torch.randn(C, 5, generator=draw) / 2**0.5
    U, V = U.requires_grad_(), V.requires_grad_()
    optimiser = torch.optim.AdamW([U, V], lr=0.01, weight_decay=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        (W - U.T @ V).square().mean().backward()
        optimiser.step()
    return U, V, draw


U_start, V_start, _ = start(seed=0)
print(f"largest |W - sum| after 200 steps: {(W - U_start.T @ V_start).abs().max():.4f}")

# %% [markdown]
# Faithful to two decimals, in 200 steps. **Predict before you look:** what do the twenty pieces look like?


# %%
def pieces(U: Tensor, V: Tensor) -> Tensor:
    """All pieces as matrices, (C, m1, m2)."""
    return (U[:, :, None] * V[:, None, :]).detach()


P_start = pieces(U_start, V_start)
longest = P_start.norm(dim=(1, 2)).argsort(descending=True)
fig, axes = pdh.plots.figure(9.2, 2.4, 1, 5)
at_start = {"W": W, "sum of all 20": P_start.sum(dim=0)} | {f"piece {c}": P_start[c] for c in longest[:3].tolist()}
for ax, (name, M) in zip(axes[0], at_start.items(), strict=True):
    pdh.plots.columns(ax, M, limit=1.7, reach=0.38, labels="piece" not in name).set_title(name, fontsize=10)
lengths = P_start.norm(dim=(1, 2)).sort(descending=True).values
pdh.show(
    fig,
    alt="Columns in the hidden plane. W and the sum of all twenty pieces are the same pentagon. Each of the three longest pieces "
    f"has all its columns on one line. The twenty lengths run from {lengths[0]:.2f} to {lengths[-1]:.2f}: none stands out.",
)

# %% [markdown]
# Twenty arbitrary pieces. Each has rank one, so all its columns lie on one line, but they belong to several features. No
# piece is a mechanism, and there is nothing wrong with that as far as faithfulness can tell: there are infinitely many ways
# to write a matrix as a sum.
#
# We keep these 200 steps as a start, as later versions of the authors' code do. Everything that follows is about choosing
# among the faithful sums.

# %% [markdown]
# ### Exercise 1 · Faithfulness over several matrices
#
# Our network has one matrix. A network with several has *one* faithfulness loss: the mean squared error over **all
# parameters of all matrices together**. Why not the mean of one error per matrix? A matrix with 10 parameters would then weigh as
# much as one with 10,000.
#
# Write it. `targets` and `sums` are dictionaries, from a layer's name to its matrix. *Difficulty: gentle. Time: 5 minutes.*


# %%
def faithfulness(targets: dict[str, Tensor], sums: dict[str, Tensor]) -> Tensor:
    """A single number."""
    ### BEGIN SOLUTION
    squares = sum((targets[name] - sums[name]).square().sum() for name in targets)
    return squares / sum(W.numel() for W in targets.values())
    ### END SOLUTION


# %%
pdh.checks.faithfulness(faithfulness)

# %% [markdown]
# ## Part 2 · Masks
#
# What makes a sum a good one? We would like **each input to need few pieces**. "Need" is meant literally: if a piece
# is not needed on an input, you can take it away, and the output stays.
#
# But taking pieces away one at a time is not a fair test. Cut one mechanism into two halves that do the same, and each half
# looks dispensable as long as the other is there. And taking *all* the unneeded ones away at once is not fair either: two
# junk pieces that cancel each other pass it.
#
# SPD's test is random. A piece gets an **importance** $g$ (the paper: *causal importance*) between 0 and 1, a claim: *you may turn me down as far as $g$, at any
# time, together with all the others.* The test draws a **mask**
#
# $$m \sim \mathcal{U}(g, 1)$$
#
# for every piece, and multiplies the piece with it.
#
# - $g = 1$ claims: I am needed. The mask is 1.
# - $g = 0$ claims: I do not matter. The mask may be anything from 0 to 1, and the output had better stay.
#
# ### Try it: the mask lab
#
# Here the pieces are the *true* mechanisms, the five columns of $W$. Feature 0 is on, at 0.75. You set the five
# importances; the lab draws 400 masks and shows the outputs, and their errors.
#
# Each piece is used twice, for reading ($W$) and for writing ($W^\top$). It gets a mask of its own for each.
#
# 1. All importances start at 0. Which output is in trouble?
# 2. **Predict:** which slider do you have to push up? How many?
# 3. Push up another one. What does it buy, and what does it cost? (The price is $\beta_3 = 0.003$ for every unit of importance.)
# 4. Find the setting with the lowest sum of the two.

# %%
pdh.widgets.MaskLab(target)

# %% [markdown]
# Without the lab: the same masks, one importance moved at a time, the others at their best. Each importance pays for
# both uses.

# %%
lab = pdh.widgets.MaskLab(target)
best, grid = torch.tensor([1.0, 0, 0, 0, 0]), torch.linspace(0, 1, 41)
neighbour = (W.T @ W)[0, 1:].argmax().item() + 1  # the feature whose output is disturbed most by feature 0
apart = (W.T @ W)[0, 1:].argmin().item() + 1  # and the one that points away most
wanted = lab.masked_outputs(torch.ones(5), 0)

fig, axes = pdh.plots.figure(9.2, 3.1, 1, 3)
cheapest = {}
roles = {0: "its own", neighbour: "the nearest feature's", apart: "the most distant one's"}
for ax, (c, role) in zip(axes[0], roles.items(), strict=True):
    errors = []
    for value in grid:
        importances = best.clone()
        importances[c] = value
        errors.append((lab.masked_outputs(importances, 0) - wanted).square().mean())
    error, price = torch.stack(errors), 2 * 0.003 * grid
    together = error + price
    cheapest[c] = grid[together.argmin()].item()
    ax.plot(grid, error, color=pdh.plots.color(0), lw=2, label="reconstruction")
    ax.plot(grid, price, "--", color=pdh.plots.color(1), lw=2, label="price 2 β₃ g")
    ax.plot(grid, together, color="0.1", lw=2.5, label="together")
    ax.plot([cheapest[c]], [together.min()], "o", color="0.1", ms=8)
    ax.set(xlabel=f"importance g of piece {c}", ylim=(0, None))
    ax.set_title(f"piece {c}: {role}", fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
axes[0, 0].set_ylabel("loss, feature 0 on")
axes[0, 0].legend(frameon=False, fontsize=9, loc="upper right")
pdh.show(
    fig,
    alt="Reconstruction loss, price and their sum against the importance of one piece, with feature 0 on. For piece 0 the "
    f"reconstruction loss falls steeply and the sum is lowest at g = {cheapest[0]:.2f}. For pieces {neighbour} and {apart}, the nearest and "
    f"the most distant one, the reconstruction loss is nearly flat and the sum is lowest at {cheapest[neighbour]:.2f} and {cheapest[apart]:.2f}.",
)

# %% [markdown]
# This is the whole idea of SPD in one picture. (Mind the scales: the first panel's is more than ten times the others'.)
#
# - **Reconstruction pushes $g$ up**, steeply, where the piece is needed.
# - **The price pushes $g$ down** everywhere, gently. It wins where reconstruction does not care.
#
# And it needs no list of what is needed: the two slopes decide, for every input and every piece.

# %% [markdown]
# ## Part 3 · A gradient through a random number
#
# To follow those slopes we need $\partial / \partial g$ of the mean loss, where the mean is over masks drawn from
# $\mathcal{U}(g, 1)$. But how does one differentiate a random draw?
#
# **Reparametrise.** Draw a number $r$ that knows nothing of $g$, and *compute* the mask from both:
#
# $$m = g + (1 - g)\, r, \qquad r \sim \mathcal{U}(0, 1).$$
#
# For fixed $r$ this is an ordinary function of $g$, with slope $\partial m / \partial g = 1 - r$. So for every single draw
# autograd has a gradient, and their mean is the gradient of the mean.
#
# Is that so? Check it where the truth is known. With a loss $\ell(m)$ for a single mask, the mean is an integral:
#
# $$\bar\ell(g) = \frac{1}{1-g} \int_g^1 \ell(m)\, dm
# \qquad\Longrightarrow\qquad
# \bar\ell'(g) = \frac{\bar\ell(g) - \ell(g)}{1-g}.$$
#
# Read the right side: moving $g$ up a little takes away the draws at $g$ and spreads them over the rest.
#
# Two wrong ways, for comparison. One draws $m$ and *detaches* it. The other uses the score function, "mean of $\ell(m)$
# times the slope of $\log$ density"; the density here is $1/(1-g)$, so its log has the slope $1/(1-g)$ at every $m$.
#
# **Predict before you run.** Which of the four rows will agree with the exact value?


# %%
def loss_of_mask(m: Tensor) -> Tensor:
    """Feature 0 at 0.75; piece 0 reads and writes under the same mask m (draws,), all others are on. → (draws,)"""
    x = 0.75 * torch.eye(5)[0]
    masks = torch.cat([m[:, None], torch.ones(len(m), 4)], dim=1)
    return (F.relu(masks * ((masks * x) @ W.T @ W) + b) - target(x)).square().mean(dim=1)


g, r = torch.tensor(0.3, requires_grad=True), torch.rand(200_000, generator=torch.Generator().manual_seed(0))
m = g + (1 - g) * r
(reparametrised,) = torch.autograd.grad(loss_of_mask(m).mean(), g)

with torch.no_grad():
    evenly = (torch.arange(200_000) + 0.5) / 200_000  # the integral, by the midpoint rule
    mean_loss = loss_of_mask(g + (1 - g) * evenly).mean()
    exact = (mean_loss - loss_of_mask(g[None])[0]) / (1 - g)
    up, down = (loss_of_mask(g + d + (1 - g - d) * r).mean() for d in (0.01, -0.01))
    score_function = loss_of_mask(m).mean() / (1 - g)
pd.Series(
    {
        "exact, from the integral": exact.item(),
        "reparametrised, autograd, 200,000 draws": reparametrised.item(),
        "finite difference, same draws": ((up - down) / 0.02).item(),
        "mask detached from g": 0.0,
        "score function": score_function.item(),
    },
    name="d(mean loss)/dg at g = 0.3",
).to_frame().round(5)

# %% [markdown]
# The reparametrised gradient is right. A detached mask has *no* gradient: no path leads from the loss to $g$. And the
# score function is wrong, even in sign. It assumes that the range of the draws stays where it is, but here $g$ *is* the
# end of the range. The lost term is the $-\ell(g)/(1-g)$ above.
#
# In training there is one draw per input and step, not 200,000. That is enough, because many inputs and steps average it out.

# %% [markdown]
# ## Part 4 · Gates
#
# So far we set $g$ by hand, for one input. SPD *learns* a function that gives it for any input. It sees one number, what
# the piece reads, and answers with another:
#
# $$h_c(x) = V_c^\top a(x), \qquad g_c(x) = \sigma\big(\Gamma_c(h_c(x))\big).$$
#
# $a(x)$ is what enters the layer in the target network. $\Gamma_c$ is a tiny network that belongs to piece $c$ alone: one
# number in, 16 hidden units with a GELU, one number out. (The paper writes $\gamma_c$.) $\sigma$ squeezes it into $[0, 1]$.
#
# ### Exercise 2 · The gates
#
# Compute all $C$ gates for a batch: `h` is (rows, C); `w_in`, `b_in` and `w_out` are (C, d), one row of hidden units per piece;
# `b_out` is (C,). No loop is needed. (Our own version is in the *sixty lines*, further down.)
# *Difficulty: moderate. Time: 8 minutes.*


# %%
def gate(h: Tensor, w_in: Tensor, b_in: Tensor, w_out: Tensor, b_out: Tensor) -> Tensor:
    """Γ_c(h_c) = Σ_d w_out GELU(w_in h_c + b_in) + b_out, as (rows, C)."""
    ### BEGIN SOLUTION
    hidden = F.gelu(h[:, :, None] * w_in + b_in)  # (rows, C, d)
    return (hidden * w_out).sum(dim=2) + b_out
    ### END SOLUTION


# %%
pdh.checks.gate(gate)

# %% [markdown]
# ### Where gradients die: the sigmoid lab
#
# The plain choice for $\sigma$ is the **hard sigmoid**: 0 below 0, then $\Gamma$ itself, then 1. But where it is flat, its slope
# is 0, and a slope of 0 stops learning. So SPD lets it *leak*, with a slope of 0.01. On which side?
#
# - **Lower-leaky** (leaks below 0) goes into the masks, where reconstruction pulls $g$ up.
# - **Upper-leaky** (leaks above 1) goes into the importance loss, which pulls $g$ down.
#
# The lab starts one gate at a value of your choice, and lets Adam pull.
#
# 1. Start at −0.5 and pull up. Which of the three moves?
# 2. **Predict** what happens at 1.5, pulled down, before you set it.
# 3. A slope of 0.01 is a hundredth of 1. Is the leaky gate a hundred times slower? Look at the last panel near −0.5 and above 0.

# %%
pdh.widgets.SigmoidLab()

# %% [markdown]
# The answer to the third question: hardly slower at all. Adam divides each gradient by its usual size, so a small
# gradient moves as fast as a large one, as long as it is not zero.
#
# And here is all of it as a table: where 200 steps take a gate from each start. Dead ends are where nothing changes.

# %%
from pd_helpers.course.spd_from_scratch.lab import SIGMOIDS, descend

starts = (-0.5, 0.5, 1.5)
ends = {
    (pull, f"from {start:g}"): [round(descend(name, start, pull == "pulled up")[-1], 2) for name in SIGMOIDS]
    for pull in ("pulled up", "pulled down")
    for start in starts
}
pd.DataFrame(ends, index=list(SIGMOIDS))

# %% [markdown]
# - **Pulled up**, only the lower-leaky one leaves −0.5. Above 1 two of them stay, and they should: the piece is fully on.
# - **Pulled down**, only the upper-leaky one leaves 1.5. Below 0 it stays, and it should: nothing is left to save.
# - The lower-leaky one, pulled down from −0.5, runs off, and would not stop. That is why it has no place in the importance
#   loss: below 0 its importance is *negative*, and a negative price is a reward.
#
# **Why not one sigmoid that leaks on both sides?** In the importance loss it would run off like that. In the masks it would go
# above 1, and then $m$ is no longer between $g$ and 1. Each leaks only on the side where it may.

# %% [markdown]
# ### Exercise 3 · The upper-leaky sigmoid
#
# Write it: 0 below 0, slope 1 up to 1, slope 0.01 after that. *Difficulty: gentle. Time: 3 minutes.*


# %%
def upper_leaky(gate: Tensor) -> Tensor:
    """Elementwise; the result has the shape of `gate`."""
    ### BEGIN SOLUTION
    return torch.where(gate > 1, 1 + 0.01 * (gate - 1), gate.clamp(min=0))
    ### END SOLUTION


# %%
pdh.checks.upper_leaky(upper_leaky)

# %% [markdown]
# ## Part 5 · Losses
#
# One thing is special about this network: $W$ is used **twice**. SPD treats each use as a layer of its own, with its own gates
# and masks. The pieces are shared.
#
# | use | matrix | its input $a$ | piece $c$ reads with | and writes with |
# |---|---|---|---|---|
# | `embed` | $W$ | $x$ | $V_c$ | $U_c$ |
# | `unembed` | $W^\top$ | $Wx$ | $U_c$ | $V_c$ |
#
# The four losses, with $\beta_1 = \beta_2 = 1$ and $\beta_3 = 0.003$ as in the paper:
#
# $$L = L_\text{faithfulness} + \beta_1 L_\text{recon} + \beta_2 L_\text{layerwise} + \beta_3 L_\text{importance}$$
#
# - **faithfulness**: the mean squared error between $W$ and the sum of pieces;
# - **recon**: the mean squared error of the output with *all* uses masked at random;
# - **layerwise**: the same with *one* use masked and the others as in the target, mean over uses;
# - **importance**: the sum of $g_c(x)^{p_I}$ over pieces and uses, mean over inputs. Here $p_I = 1$.
#
# ### Exercise 4 · Layerwise reconstruction
#
# For any network: `forward(masks)` gives the output when the uses named in the dictionary `masks` are masked, and all others
# are the target's own. `masks` has one entry per use, and `y` is the target's output. *Difficulty: gentle. Time: 5 minutes.*


# %%
def recon_layerwise(forward: Callable[[dict], Tensor], masks: dict[str, Tensor], y: Tensor) -> Tensor:
    """A single number."""
    ### BEGIN SOLUTION
    errors = [(forward({use: m}) - y).square().mean() for use, m in masks.items()]
    return sum(errors) / len(errors)
    ### END SOLUTION


# %%
pdh.checks.recon_layerwise(recon_layerwise)

# %% [markdown]
# ## SPD in sixty lines
#
# Now everything together. First the parts. Both uses have their gates side by side, 40 columns: the first 20 for `embed`,
# the rest for `unembed`.


# %%
def gate_weights(draw: torch.Generator) -> list[Tensor]:
    """w_in, b_in, w_out (2C, 16) and b_out (2C,) for the pieces of both uses."""
    w_in, w_out = 2**0.5 * torch.randn(2 * C, 16, generator=draw), torch.randn(2 * C, 16, generator=draw) / 16**0.5
    return [w.requires_grad_() for w in (w_in, torch.zeros(2 * C, 16), w_out, torch.zeros(2 * C))]


def gates(x: Tensor, U: Tensor, V: Tensor, weights: list[Tensor]) -> Tensor:
    """Γ for all pieces of both uses, (rows, 2C)."""
    w_in, b_in, w_out, b_out = weights
    h = torch.cat([x @ V.T, (x @ W.T) @ U.T], dim=1)  # what the pieces read in the *target*
    return (F.gelu(h[:, :, None] * w_in + b_in) * w_out).sum(dim=2) + b_out


def leak_below(gate: Tensor) -> Tensor:
    return torch.where(gate < 0, 0.01 * gate, gate.clamp(max=1))


def leak_above(gate: Tensor) -> Tensor:
    return torch.where(gate > 1, 1 + 0.01 * (gate - 1), gate.clamp(min=0))


def sample_masks(g: Tensor, r: Tensor) -> Tensor:
    return g + (1 - g) * r


def output(x: Tensor, U: Tensor, V: Tensor, m_embed: Tensor | None, m_unembed: Tensor | None) -> Tensor:
    """The network under masks (rows, C); None keeps the target's own W in that use."""
    hidden = x @ W.T if m_embed is None else (m_embed * (x @ V.T)) @ U  # (rows, m1)
    z = hidden @ W if m_unembed is None else (m_unembed * (hidden @ U.T)) @ V
    return F.relu(z + b)


# %% [markdown]
# A mask multiplies what a piece has read, before it writes. So nothing of the size (rows, C, m1) is ever built.
#
# Then the losses of one batch. 77% of the inputs have no feature on. They are all the same, so one of them is kept, and
# counts as many. (With $x = 0$ nothing is read, and reconstruction is perfect; only its importance can cost something.)

# %%
n = 1024  # inputs in a batch


def losses(U, V, weights, draw, sample=sample_masks, low=leak_below, high=leak_above) -> dict[str, Tensor]:
    """The four losses on a fresh batch."""
    x = data(n, draw)
    x = torch.cat([x[x.any(dim=1)], torch.zeros(1, 5)])
    counts = torch.ones(len(x))
    counts[-1] = n - (len(x) - 1)
    y, gate = target(x), gates(x, U, V, weights)
    r = torch.rand(2, *gate.shape, generator=draw)  # fresh masks for either reconstruction loss
    (e, u), (e_alone, u_alone) = (m.split(C, dim=1) for m in sample(low(gate), r))

    def mse(masked: Tensor) -> Tensor:
        return (masked - y).square().sum() / (n * 5)

    return {
        "faithfulness": (W - U.T @ V).square().mean(),
        "recon": mse(output(x, U, V, e, u)),
        "layerwise": (mse(output(x, U, V, e_alone, None)) + mse(output(x, U, V, None, u_alone))) / 2,
        "importance": counts @ high(gate).sum(dim=1) / n,
    }


# %% [markdown]
# And the loop. It is a generator: each item taken from it is one step. That lets us stop, compare, and continue.

# %%
steps, coefficients = 1600, {"faithfulness": 1.0, "recon": 1.0, "layerwise": 1.0, "importance": 0.003}


def spd(seed: int, coefficients=coefficients, **parts) -> Iterator[tuple[dict[str, float], tuple]]:
    """Train; after each step, the losses and U, V, gate weights."""
    U, V, draw = start(seed)
    weights = gate_weights(draw)
    optimiser = torch.optim.Adam([U, V, *weights])
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 0.02 * (1 + math.cos(math.pi * step / steps)) / 2  # cosine
        found = losses(U, V, weights, draw, **parts)
        optimiser.zero_grad()
        sum(coefficients[name] * loss for name, loss in found.items()).backward()
        optimiser.step()
        yield {name: loss.item() for name, loss in found.items()}, (U, V, weights)


# %% [markdown]
# That is SPD. Not counting blank lines and descriptions, it is about sixty lines, `start` included.

# %% [markdown]
# ## Train it
#
# Now and then a start goes wrong: two features end up in one piece. It shows in the loss. So we train three starts for 500
# steps each, keep the one with the lowest loss, and finish that one. A few seconds each.
#
# **Predict before you run.** How many of the twenty pieces will be left with any length? Will they be a tenth short, as APD's?


# %%
def total(history: list[dict[str, float]], last: int = 125) -> float:
    """The weighted loss, mean over the last steps."""
    return sum(coefficients[name] * found[name] for found in history[-last:] for name in found) / last


def best_of(seeds: range, first: int = 500) -> tuple[list[dict[str, float]], tuple]:
    """Train all of them for a while, and the best to the end: its losses, and its U, V and gate weights."""
    candidates = []
    for seed in seeds:
        run, history = spd(seed), []
        for _ in range(first):
            history.append(next(run)[0])
        print(f"seed {seed}: loss after {first} steps {total(history):.5f}")
        candidates.append((total(history), run, history))
    _, run, history = min(candidates, key=lambda candidate: candidate[0])
    rest = list(run)
    return history + [found for found, _ in rest], rest[-1][1]


began = time.perf_counter()
history, (U, V, weights) = best_of(range(3))
seconds = time.perf_counter() - began
P = pieces(U, V)
with torch.no_grad():  # alive: importance above 0.1 on some input, in either use
    alive = metrics.alive(
        torch.stack(gates(data(4096, torch.Generator().manual_seed(1)), U, V, weights).split(C, dim=1))
    )
print(f"all 20 pieces: MMCS {metrics.mmcs(P, W):.4f}, ML2R {metrics.ml2r(P, W):.4f}, after {seconds:.0f} seconds")
print(f"{int(alive.sum())} alive pieces: MMCS {metrics.mmcs(P[alive], W):.4f}, ML2R {metrics.ml2r(P[alive], W):.4f}")

# %%
order = P.norm(dim=(1, 2)).argsort(descending=True)
five = sorted(order[:5].tolist(), key=lambda c: int(P[c].norm(dim=0).argmax()))
fig, axes = pdh.plots.figure(9.2, 3.9, 2, 4, width_ratios=[1, 1, 1, 1])
panels = {"W": W, "sum of all 20": P.sum(dim=0)} | {f"piece {c}": P[c] for c in five}
for ax, (name, M) in zip(axes.flatten(), panels.items(), strict=False):
    pdh.plots.columns(ax, M, limit=1.7, reach=0.38).set_title(name, fontsize=10)
sizes = P.norm(dim=(1, 2)).sort(descending=True).values
axes[1, 3].bar(range(20), sizes, color=[pdh.plots.color(0)] * 5 + [pdh.plots.GREY] * 15)
axes[1, 3].set(xlabel="pieces, longest first", ylabel="length ‖P‖", xticks=[0, 4, 9, 14, 19])
axes[1, 3].spines[["top", "right"]].set_visible(False)
pdh.show(
    fig,
    alt="Columns of W, of the sum of all twenty pieces, and of the five longest: each is one column of W at full length, with next to "
    f"nothing in the other columns. Bars: the lengths of all twenty; the five longest are {sizes[4]:.2f} to {sizes[0]:.2f}, the "
    f"sixth is {sizes[5]:.3f}.",
)

# %% [markdown]
# The two scores are those of notebook 07: MMCS compares directions, ML2R lengths. Read the **second** line. Both scores take, for
# each column of $W$, the piece with the best *cosine*, and a cosine ignores length. So in the first line a leftover less than a
# hundredth as long as a column has won by pointing within a degree of it, and ML2R says that a whole column is missing. The second
# line asks only the pieces that are **alive**, those with an importance above 0.1 on some input. The paper's definition is the
# first; notebook 13 looks at the difference more closely.
#
# Five pieces of twenty, each *one column* of $W$. The other fifteen are gone, although no loss puts a price on length. Why?
# A spare piece claims $g = 0$, so it is masked at random on every input. Whatever it writes is noise. The only way to make
# no noise is to be short.
#
# How did the losses get there?

# %%
record = pd.DataFrame(history).rolling(20, min_periods=1).mean()
fig, axes = pdh.plots.figure(9.2, 3.2, 1, 2, width_ratios=[1.2, 1])
for k, name in enumerate(record):
    axes[0, 0].plot(record[name], color=pdh.plots.color(k), ls=["-", "--", "-.", ":"][k], lw=1.8, label=name)
axes[0, 0].set(xlabel="training step", ylabel="loss (unweighted), mean of 20 steps", yscale="log", ylim=(None, 300))
axes[0, 0].legend(frameon=False, fontsize=9, ncols=2)
x = 0.75 * torch.eye(5)
with torch.no_grad():
    g_embed, g_unembed = gates(x, U, V, weights).clamp(0, 1).split(C, dim=1)
pdh.plots.importances(axes[0, 1], g_embed, order=pdh.plots.greedy_order(g_embed), title="embed")
axes[0, 1].set(xlabel="piece (permuted)", yticks=range(5), xticks=[0, 5, 10, 15])
spoilt = metrics.identity_ci_error(g_embed) + metrics.identity_ci_error(g_unembed)
last = record.iloc[-1]
pdh.show(
    fig,
    alt=f"Left: the four losses against the training step. At the end faithfulness is {last.faithfulness:.0e}, recon {last.recon:.0e}, "
    f"layerwise {last.layerwise:.0e} and importance {last.importance:.2f}. Right: importances in embed for each feature alone at 0.75, "
    f"a row per feature: one piece each, and nothing else. Entries that spoil the pattern, in both uses: {spoilt}.",
)

# %% [markdown]
# The importances are an identity matrix: with feature $j$ on, the piece that holds column $j$ is important, and no other. Nobody
# told SPD what the features are, how many there are, or how many an input uses.
#
# Look at the dotted line, the importance loss. It *rises* at first: reconstruction asks for more. Then the pieces sort
# themselves out, fewer are needed for the same output, and it falls to about 0.4 per input.

# %% [markdown]
# ## Is it the same as the package's?
#
# The package has an SPD of its own, `pd_helpers.core.spd`, for networks of any shape. It is quicker and it is the one that
# the following notebooks use. Does it do what these sixty lines do?
#
# The sharpest test: give both the same pieces, the same gates and the same random numbers, and compare losses step by step.

# %%
library = pdh.prepare("spd/tms_5-2", seed=0, target=target, device="cpu", n_init=1)
layer, mlps = library.components.layers["embed"], library.importance.mlps.values()
U_0, V_0 = layer.U[:, :, 0].detach().clone().requires_grad_(), layer.V[:, 0].detach().clone().requires_grad_()
parameters = zip(*(mlp.parameters() for mlp in mlps), strict=True)  # w_in, b_in, w_out, b_out of both uses
weights_0 = [torch.cat(both).detach().clone().requires_grad_() for both in parameters]
draw = torch.Generator()
draw.set_state(library.method.generator.get_state())

optimiser, gaps = torch.optim.Adam([U_0, V_0, *weights_0]), []
theirs = library.method.train(library.data)
for step in range(100):
    optimiser.param_groups[0]["lr"] = 0.02 * (1 + math.cos(math.pi * step / steps)) / 2
    ours, found = losses(U_0, V_0, weights_0, draw), next(theirs)
    optimiser.zero_grad()
    sum(coefficients[name] * loss for name, loss in ours.items()).backward()
    optimiser.step()
    gaps.append([abs(a.item() / t.item() - 1) for a, t in zip(ours.values(), found, strict=True)])
gaps = pd.DataFrame(gaps, columns=list(coefficients))
gaps.iloc[[0, 9, 99]].rename(index=lambda i: f"step {i + 1}").map("{:.0e}".format)

# %% [markdown]
# Those are relative differences between our losses and the package's. They begin at the rounding error of 32-bit numbers, and
# rounding errors grow from step to step, since each step builds on the one before. It is the same algorithm.
#
# And the results, each from starts of its own:

# %%
run = pdh.run("spd/tms_5-2", seed=0, target=target, device="cpu")
sample = data(4096, torch.Generator().manual_seed(1))
with torch.no_grad():
    g_ours = gates(sample, U, V, weights).clamp(0, 1)


def scores(P: Tensor, g: dict[str, Tensor]) -> dict[str, object]:
    """A column of the table, from the pieces and the importances on a sample."""
    some = P[metrics.alive(torch.stack(list(g.values())))]
    return {
        "MMCS": f"{metrics.mmcs(P, W):.3f}",
        "ML2R": f"{metrics.ml2r(P, W):.3f}",
        "MMCS, alive pieces only": f"{metrics.mmcs(some, W):.3f}",
        "ML2R, alive pieces only": f"{metrics.ml2r(some, W):.3f}",
        **{f"alive in {use}": int(metrics.alive(values).sum()) for use, values in g.items()},
        **{f"L0 in {use}": f"{metrics.l0(values):.2f}" for use, values in g.items()},
    }


table = pd.DataFrame(
    {
        "sixty lines": scores(P, dict(zip(("embed", "unembed"), g_ours.split(C, dim=1), strict=True))),
        "the package": scores(run.first_layer[0], run.importances(sample)),
        "paper": {"MMCS": "1.000 ± 0.000", "ML2R": "0.993 ± 0.002"},
    }
)
table.loc["seconds on this machine"] = [f"{seconds:.0f}", f"{run.seconds:.0f}", "–"]
table.fillna("–")

# %% [markdown]
# Directions and lengths of alive pieces agree with each other and with the paper. An input has 0.25 features on, on average. L0, the mean
# number of pieces with an importance above 0.1, is 0.25 in `unembed` and 0.19 in `embed`. Notebook 13 looks at the curves behind these numbers.

# %% [markdown]
# ## Take one part out at a time
#
# Which parts does SPD need? We leave out one after the other, and train again, from two starts each; every start counts,
# there is no picking. With `spd` as a function this is one line per experiment:

# %%
variants = {
    "as it is": {},
    "no faithfulness": {"coefficients": coefficients | {"faithfulness": 0.0}},
    "no recon": {"coefficients": coefficients | {"recon": 0.0}},
    "no layerwise": {"coefficients": coefficients | {"layerwise": 0.0}},
    "no importance loss": {"coefficients": coefficients | {"importance": 0.0}},
    "masks not random: m = g": {"sample": lambda g, r: g + 0 * r},
    "masks detached": {"sample": lambda g, r: sample_masks(g, r).detach()},
    "hard sigmoid twice": {"low": lambda gate: gate.clamp(0, 1), "high": lambda gate: gate.clamp(0, 1)},
}

# %% [markdown]
# **Predict before you run.** Write down for each line: will it still find five pieces of full length? Which one will surprise
# you most?


# %%
def outcome(name: str, seed: int, parts: dict) -> dict[str, float]:
    """Train this variant to the end, and look at what it found."""
    torch.set_num_threads(1)
    *_, (_, (U, V, weights)) = spd(seed, **parts)
    P = pieces(U, V)
    with torch.no_grad():
        g = gates(sample, U, V, weights).clamp(0, 1)
        recon = (output(sample, U, V, *g.split(C, dim=1)) - target(sample)).square().mean().item()
    alive = metrics.alive(g).view(2, C).any(dim=0)
    MMCS, ML2R = (score(P[alive], W) if alive.any() else math.nan for score in (metrics.mmcs, metrics.ml2r))
    return {
        "variant": name,
        "alive": int(alive.sum()),
        "longer than 0.1": int((P.norm(dim=(1, 2)) > 0.1).sum()),
        "MMCS, alive": MMCS,
        "ML2R, alive": ML2R,
        "faithfulness": (W - U.T @ V).square().mean().item(),
        "error with masks at g": recon,
    }


jobs = (joblib.delayed(outcome)(name, seed, parts) for name, parts in variants.items() for seed in range(2))
trained = joblib.Parallel(n_jobs=min(2, joblib.cpu_count()), return_as="generator")(jobs)
outcomes = pd.DataFrame(progress(trained, total=2 * len(variants), description="variants", unit="run"))


def span(values: pd.Series) -> str:
    """The two starts in short: smallest to largest."""
    digits = {"alive": ".0f", "longer than 0.1": ".0f", "MMCS, alive": ".3f", "ML2R, alive": ".3f"}
    low, high = (f"{value:{digits.get(values.name, '.0e')}}" for value in (values.min(), values.max()))
    if low == "nan":
        return "–"
    return low if low == high else f"{low} to {high}"


outcomes.groupby("variant", sort=False).agg(span)

# %% [markdown]
# Each cell gives the smaller and the larger value of two starts. *Alive* counts pieces with an importance above 0.1 on some
# of 4,096 inputs, in either use. The last column is the error when every mask is exactly $g$.
#
# - **No faithfulness.** Pieces may be anything that gives the right outputs. They no longer add up to $W$, so they say nothing
#   about $W$.
# - **No recon, no layerwise.** Either of the two is enough here. Each asks the same question, and with only one of them the
#   price weighs more, so that the error is larger. With one use masked at a time, a piece's error is not mixed up with that of
#   all other uses. One would expect this to matter more in deeper networks; we did not measure it here.
# - **No importance loss.** Nearly every piece is important. Nothing is wrong, and nothing has been found.
# - **Masks not random.** A piece with $g = 0$ is simply gone, whatever its length. Nobody tests the leftovers, so most of them keep
#   a length, and together with the others they hold parts of the columns.
# - **Masks detached.** Part 3's mistake in action. Only the price reaches $g$: every importance sinks to 0, and nothing is
#   alive.
# - **Hard sigmoid twice.** One start comes out right and one does not. A gate that is dead on one input still learns from others,
#   so the leaks are no matter of life and death here. With them both starts came out right.
#
# Which of these results surprised you?

# %% [markdown]
# ## What we do differently from the paper
#
# Losses, coefficients, $C$, gates and sigmoids are the paper's. These settings of the preset are not, and the sixty lines use
# them too.

# %%
settings = preset.config.to_dict()
rows = {field: {"here": settings[field], "the paper's, and why not here": why} for field, why in preset.differs.items()}
pd.DataFrame(rows).T.style.set_properties(**{"text-align": "left", "white-space": "normal"})

# %% [markdown]
# The package does three things that the sixty lines do not: it takes any network with any number of layers; it computes the gradient of the gates
# by a formula written by hand, which is several times faster for large networks; and it stores checkpoints, snapshots and finished runs. `pd_helpers/core/spd.py` reads in the
# same order as this notebook. You will find every line again.

# %% [markdown]
# ## Try it
#
# Not part of *Run All*; each takes 4 to 10 seconds. Make a guess first.
#
# ```python
# *_, (last, (U, V, weights)) = spd(3, coefficients=coefficients | {"importance": 0.03})      # a high importance coefficient
# *_, (last, (U, V, weights)) = spd(3, sample=lambda g, r: g + (1 - g) * (r > 0.5))  # masks g or 1
# *_, (last, (U, V, weights)) = spd(3, high=leak_below)                                      # the leak on the wrong side
# pieces(U, V).norm(dim=(1, 2)).sort(descending=True).values[:8], last
# ```
#
# <details><summary>What we saw</summary>
#
# - **A high importance coefficient**, $\beta_3 = 0.03$: the five pieces stay, but grow to 1.17 to 1.29, ML2R 1.09, and the error is ten times as
#   large. Small features are given up: the importance loss is half of what it was.
# - **Masks g or 1, nothing between**: the same five pieces, ML2R 0.999. On this network a coin will do.
# - **The leak on the wrong side**: the importance loss ends near −750. It pays to push gates far below 0, where
#   nothing else holds them; two pieces are left, and the error is fifty times as large.
# </details>

# %% [markdown]
# ## Questions a careful reader asks
#
# <details><summary>Why masks from g to 1, and not just g or 1?</summary>
#
# On this network it makes no difference (*Try it* has the line). But the range asks for more: the output has to be right for
# every mixture of masks, not just for the corners. And it makes a claim that can be read: *any* factor from $g$ to 1 will do.
# </details>
#
# <details><summary>If two pieces only matter together, is either one important?</summary>
#
# If the output needs *both*, yes: both have to claim 1. It is another matter if it needs at least *one* of the two. If both
# claimed 0, both would be scaled down at random together, and now and then both are small: that is an error, which is paid
# for. If one claims 1, the other may claim 0. So the cheapest answer is one of them, and which one is chance.
# </details>
#
# <details><summary>Why does a piece with g = 0 not simply stay long? Its mask is random, but so what?</summary>
#
# Because its random contribution is an error in the output, on every input where it reads something. The error's mean square
# grows with the square of the piece's length, so shortening it always helps. What it loses, the important pieces take over:
# faithfulness sees to that. In the table above, the row with masks that are not random shows what happens otherwise.
# </details>
#
# <details><summary>Why does the gate see only one number?</summary>
#
# To keep the claim local and cheap. A gate that saw the whole input could know things that the piece cannot: it could
# compute *which feature is on* by itself and hand out importances for pieces that have nothing to do with it. With
# $h_c$ alone, a piece is important because of what it reads. The price: a piece whose need depends on *other* pieces cannot say so.
# </details>
#
# <details><summary>Could the gates cheat, and signal something to the output?</summary>
#
# A gate's output reaches the network's only as a mask, and a mask only scales what a piece has read anyway. With $g = 1$
# everywhere, the full sum gives the target's output exactly. So *reconstruction alone* holds no prize for a clever mask.
# The importance loss does hold one: every importance that can be lowered without an error is money saved. A gate that guesses
# from its one number which feature is on, and claims 0 where it can get away with it, is rewarded, and that is the purpose of the
# loss. The prize goes too far where getting away with it is a matter of luck: a gate may claim 0 on a rare input that needs the
# piece. Such a mistake shows up as a reconstruction error on that input, and only if such inputs occur in training.
# </details>

# %% [markdown]
# ## When something looks wrong
#
# <details><summary>ML2R is near 0.8 or 0.6, but the arrows look right</summary>
#
# A leftover that is less than a hundredth as long as a column has won the cosine. Read the line for alive pieces.
# </details>
#
# <details><summary>Four or six pieces are alive</summary>
#
# All three starts went wrong. Try `best_of(range(3, 9))`. If you changed $\beta_3$: much larger merges features, much smaller leaves
# several pieces on one.
# </details>
#
# <details><summary>All importances are 0, and stay there</summary>
#
# The gradient does not reach $g$. Look for `.detach()`, `torch.no_grad()` or a comparison such as `r < g` between the gates and
# the masks.
# </details>
#
# <details><summary>My importance loss is negative</summary>
#
# The sigmoid that leaks below 0 has got into the importance loss. It belongs to the masks.
# </details>
#
# <details><summary>The lab's sliders do nothing</summary>
#
# The page you read may be a printed one, or the kernel has not run the cell. Run it, then move a slider.
# </details>
#
# **Next:** [13 · SPD on superposition](13_spd_superposition.ipynb) asks what SPD finds, with the package's version: how
# gates look as curves, why lengths come out right, and what becomes of a hidden layer that does nothing.
