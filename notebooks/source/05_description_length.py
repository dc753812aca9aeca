# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 05 · Description length
#
# **The question:** a network can be cut into components in endless ways. What makes one decomposition better than another?
#
# *After this notebook you can* state the optimisation problem behind every method of the course, decide whether a component is active by removing it,
# count the bits a decomposition spends on an input, say at which price two components are better merged, and explain what the
# Schatten norm can and cannot do in the place of the rank.
#
# | read | do | run on two cores | before this | difficulty |
# |---|---|---|---|---|
# | 25 minutes | 25 minutes | {{minutes}} | [02 · Superposition](02_superposition.ipynb) | moderate |

# %%
import math

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

import pd_helpers as pdh
from pd_helpers.analysis import ablation
from pd_helpers.core import losses
from pd_helpers.course.description_length import ideas as dl
from pd_helpers.course.description_length import plots

# %% [markdown]
# ## Five cuts of one network
#
# We take a larger sister of the network of [notebook 02](02_superposition.ipynb), $f(x) = \mathrm{ReLU}(W^\top W x + b)$, with 40 features in ten dimensions. It comes
# with the package. Its $W$ is a 10 × 40 matrix. A **decomposition** is a list of matrices $P_1, \dots, P_C$ of that shape, its **components**, that add up to $W$. Here are five of them:
#
# - **whole**: one component, $W$ itself. (That is a decomposition too.)
# - **entries**: 400 components, each with a single number of $W$.
# - **rows**: ten components, one for each hidden dimension.
# - **singular vectors**: the ten terms $\sigma_c u_c v_c^\top$ of the singular value decomposition.
# - **mechanisms**: $Z^{(c)}$, column $c$ of $W$ alone, for each of the 40 features.


# %%
def five_cuts(W: Tensor) -> dict[str, Tensor]:
    """Name → components (C, hidden, features)."""
    hidden, n_features = W.shape
    u, sigma, v = torch.linalg.svd(W, full_matrices=False)
    return {
        "whole": W[None],
        "entries": torch.stack([W * (torch.arange(W.numel()).view_as(W) == i) for i in range(W.numel())]),
        "rows": torch.einsum("ci,ij->cij", torch.eye(hidden).double(), W),
        "singular vectors": torch.einsum("ic,c,cj->cij", u, sigma, v),
        "mechanisms": torch.einsum("ic,cj->cij", W, torch.eye(n_features).double()),
    }


target = pdh.shipped("apd/tms_40-10", "seed0").target.double()  # only the target; we decompose it by hand
cuts = five_cuts(target.embed.weight)
theta = target.embed.weight.flatten()
for name, P in cuts.items():
    vectors = P.flatten(1)  # each component as a vector in the space of all weights
    cosines = torch.cosine_similarity(vectors, theta, dim=1)
    print(
        f"{name:16s} C = {len(P):3d}, sum differs from W by at most {(P.sum(dim=0) - target.embed.weight).abs().max():.0e}; "
        f"longest {vectors.norm(dim=1).max() / theta.norm():.2f} of W, cosine with W at least {cosines.min():.1g}"
    )

# %% [markdown]
# ## One problem, many methods
#
# Think of all $N$ weights of a network as one point $\theta^*$ in a space with $N$ dimensions. Components are vectors in the same space. **Linear parameter decomposition** is a
# constrained optimisation in that space:
#
# $$\min_{P_1, \dots, P_C}\; \Big(\underbrace{\text{number in use}}_{\text{minimal}},\; \underbrace{\text{complexity of those in use}}_{\text{simple}}\Big)
# \qquad \text{subject to} \qquad \underbrace{\textstyle\sum_c P_c = \theta^*}_{\text{faithful}},$$
#
# where both entries are means over inputs. There are two of them, so somebody has to say how much of the one is worth how much of the other.
# Both methods of this course are instances of it. They share the constraint, softened to a loss, and differ in how they decide what is *in use* and how they keep components simple:
#
# | method | in use on an input | simple |
# |---|---|---|
# | Attribution-based Parameter Decomposition (APD, notebooks 06 and 07) | the few with the largest first-order effect on the output | a price on an approximate rank |
# | Stochastic Parameter Decomposition (SPD, notebook 12) | those that may not be turned down at random, which is learned | rank one, in one layer, by construction |
#
# ### Why in the space of weights?
#
# APD's paper (section 2.1) lists what the space must offer if mechanisms are to be found in it:
#
# - **a range from nothing to everything.** The zero vector does nothing, and $\theta^*$ does all that the network does. A mechanism should lie in between: shorter than $\theta^*$, and at an acute angle to it.
#   All components printed above are of that kind, and the whole is one end of the range.
# - **no tie to neurons, heads or layers.** Notebook 03's functions are spread over neurons, and over two layers.
# - **room for superposition.** Notebook 02 has five mechanisms in two dimensions.
# - **room for more than one dimension.** Some mechanisms have a rank above one; you will meet one below.
#
# Neurons fail the second demand, and singular vectors the third. A direction of activations fails the first, since on its own it does nothing at all: something has to read it and write it. Vectors of weights meet all
# four. (That they are *linear* in the weights is an assumption, which [notebook 06](06_attributions.ipynb) tests.)
#
# **Predict before you run.** Being minimal and being simple are each easily had alone. Which of the five cuts is the most minimal? Which are the most simple? Is
# there one that does well at both?
#
# Before we can count, we need to know what "needs" means.
#
# ## Active: what happens without you?
#
# We call a component **active** on an input if removing it changes the output:
#
# $$\Delta_c(x) = f(x \mid W) - f(x \mid W - P_c), \qquad c \text{ is active on } x \iff \text{r.m.s. of } \Delta_c(x) > \varepsilon .$$
#
# The r.m.s. is the root of the mean of the squares over outputs. In theory $\varepsilon$ is 0. In a computer it cannot be, and in a
# network in superposition there is another reason: every mechanism leaks a little into its neighbours (notebook 02).

# %%
data = pdh.TMSConfig(n_features=40, n_hidden=10).features()(2000, torch.Generator().manual_seed(0)).double()


def effects(target: torch.nn.Module, data: Tensor, P: Tensor) -> Tensor:
    """How much removing each component changes the output: (inputs, C)."""
    W, b = target.embed.weight, target.unembed.bias
    output, found = target(data), []
    for part in P:
        rest = W - part
        change = output - F.relu(data @ rest.T @ rest + b)
        found.append(change.square().mean(dim=1).sqrt())
    return torch.stack(found, dim=1)


size = {name: effects(target, data, P) for name, P in cuts.items()}
ranks = {name: torch.linalg.matrix_rank(P) for name, P in cuts.items()}
torch.testing.assert_close(
    size["rows"], ablation.root_mean_square(ablation.ablated(target, data, {"embed": cuts["rows"]}))
)

tolerances = torch.logspace(-4, -0.3, 60).tolist()
fig, axes = pdh.plots.figure(8, 3.3)
ax = axes[0, 0]
for i, (name, values) in enumerate(size.items()):
    counts = [dl.minimality(values > tolerance) for tolerance in tolerances]
    ax.plot(tolerances, counts, ["-", "--", "-.", ":", "-"][i], color=pdh.plots.color(i), lw=2, label=name)
ax.axvline(0.01, color="0.4", lw=1)
ax.set(xscale="log", yscale="log", xlabel="tolerance ε", ylabel="active components per input", ylim=(0.1, 80))
ax.legend(frameon=False, fontsize=9)
ax.spines[["top", "right"]].set_visible(False)
epsilon = 0.01
active = {name: values > epsilon for name, values in size.items()}
told = ", ".join(f"{name} {dl.minimality(on):.2f}" for name, on in active.items())
pdh.show(fig, alt=f"Mean number of active components per input against the tolerance, for five cuts. At 0.01: {told}.")

# %% [markdown]
# On average, two features are on in each of these inputs. And yet at small tolerances more than three mechanisms are active. Where do the others come from? Column
# $c$ of $W$ also *writes* output $c$, and where a neighbour's interference comes out at output $c$, removing $Z^{(c)}$ takes it away. As tolerance grows these small effects are forgiven. For
# $\varepsilon$ up to about 0.03 the order of the cuts is always the same. We take $\varepsilon = 0.01$. (One output that changes by 0.06, and the 39 others not at all: that is an r.m.s. of 0.01.)
#
# (One at a time is not the whole truth: two components may each be unneeded while the other one is there, or cancel one another. That is a story for
# [notebook 06](06_attributions.ipynb).)

# %%
table = pd.DataFrame(
    {
        "components": [len(P) for P in cuts.values()],
        "active per input (minimal)": [dl.minimality(on) for on in active.values()],
        "rank of each (simple)": [f"{r.double().mean():g}" for r in ranks.values()],
        "active ranks per input": [dl.simplicity(on, ranks[name]) for name, on in active.items()],
    },
    index=list(cuts),
).round(3)
table

# %% [markdown]
# The whole is as minimal as can be, and the entries are simple, and neither is of any use: one explains nothing, the other explains everything by
# naming every number. **Minimal alone merges everything. Simple alone splits everything.** We need to weigh one against the other.

# %% [markdown]
# ## Counting bits
#
# Imagine that you have both the network and the list of its components, and I tell you, input by input, what it did. I have to say *which* components were
# active and *how much* each of them did.
#
# - To name one of $C$ components takes $\log_2 C$ bits.
# - One number takes $\alpha$ bits: as many as you want precision. A component of rank $r$ is like $r$ components of rank one that always go together, so it needs
#   $r$ numbers.
#
# Why send names? I could send a number for *every* component, and a zero for each inactive one. That **dense code** needs no names and takes $C \alpha$ bits. The **sparse code** names
# the active ones, and wins if few of the $C$ are active. The best is a mixture of both: between components a sparse code, and inside a component of rank $r$ a dense one, $r$ numbers without names. Where to put
# the dense blocks, that is, what to call *one* component, is then the whole question.
#
# This is the **description length** (equation 11), and equation 12 sorts it into two terms:
#
# $$L_\text{MDL}(x) = \sum_c [c \text{ active}] \big(\alpha\, \mathrm{rank}(P_c) + \log_2 C\big)
# = \log_2 C \cdot \underbrace{\sum_c [c \text{ active}]}_{\text{minimality}} + \;\alpha \cdot \underbrace{\sum_c [c \text{ active}]\, \mathrm{rank}(P_c)}_{\text{simplicity}} .$$
#
# (With several layers, a component's ranks are added over layers. The course uses $\alpha$ for nothing else.) The best decomposition, by this
# **principle of minimum description length** (MDL), takes the fewest bits on average.
#
# **Predict before you run.** Numbers cost 1 bit each. Does it pay to know the mechanisms, or is it shorter to say "the whole network was on", and ten numbers? And
# at 8 bits?

# %%
alphas = torch.linspace(0, 10, 101).tolist()
bits = {name: [dl.description_length(on, ranks[name], a) for a in alphas] for name, on in active.items()}

whole, mechanisms = active["whole"], active["mechanisms"]
names, numbers = math.log2(40) * dl.minimality(mechanisms), dl.simplicity(mechanisms, ranks["mechanisms"])
crossing = names / (dl.simplicity(whole, ranks["whole"]) - numbers)  # both lines are straight

dense_crossing = names / (40 - numbers)  # where 40 α bits are as many as the sparse code of the mechanisms takes
fig, axes = pdh.plots.figure(9.4, 3.7, 1, 2)
ax = axes[0, 0]
for i, (name, values) in enumerate(bits.items()):
    ax.plot(alphas, values, ["-", "--", "-.", ":", "-"][i], color=pdh.plots.color(i), lw=2, label=name)
ax.plot(alphas, [40 * a for a in alphas], ":", color=pdh.plots.GREY, lw=1.5, label="mechanisms, dense code")
ax.axvline(crossing, color="0.4", lw=1)
ax.annotate(f"α = {crossing:.2f}", (crossing, 2), xytext=(5, 0), textcoords="offset points", fontsize=10)
ax.set(xlabel="bits per number α", ylabel="bits per input", xlim=(0, 10), ylim=(0, 100))
ax.legend(frameon=False, fontsize=8.5, loc="upper left", ncols=2)
ax.spines[["top", "right"]].set_visible(False)
of_each = {
    name: (dl.simplicity(on, ranks[name]), math.log2(len(cuts[name])) * dl.minimality(on))
    for name, on in active.items()
}
plots.trade_off(axes[0, 1], of_each, crossing)
bits_at = {name: (values[10], values[80]) for name, values in bits.items()}
pdh.show(
    fig,
    alt="Left: bits per input against α for five cuts, all straight lines. At α = 1 and 8: "
    + "; ".join(f"{name} {low:.2f} and {high:.2f}" for name, (low, high) in bits_at.items())
    + f". The lines of the whole network and of the mechanisms cross at {crossing:.2f}, those of the mechanisms' sparse and dense codes at "
    f"{dense_crossing:.2f}. Right: each cut as a point, active ranks across and bits for names up. The whole network and the mechanisms are joined by a line of slope "
    f"−{crossing:.2f}, and all other cuts lie above it.",
)

# %% [markdown]
# Below the crossing the shortest story is "it was on", and ten numbers. Above it, the mechanisms are. At *no* price are entries, rows or singular vectors the best. (Entries are off
# the top: more than 170 bits.) And the dense code of all forty mechanisms is longer than their sparse code as soon as a number takes more than 0.36 bits.
#
# The right panel shows the same as the optimisation that it is. Every point is faithful. To the left is simpler, and down is more minimal. Bits are names plus $\alpha$ times ranks, so cuts of equal length lie on a line that
# falls with the slope $\alpha$, and the shortest cut is the one that such a line touches first when it comes from the lower left. Only two cuts are ever touched.
#
# So $\alpha$ is a **resolution**. It does not say what is true; it says how finely you want to look. Nothing in the network tells you what it should be.

# %% [markdown]
# ### A network that is too small to tell
#
# **Predict before you run.** The same for the five features in two dimensions of notebook 02. There are five mechanisms and two singular vectors. Who wins?

# %%
small = pdh.make_target(pdh.TMSConfig(), seed=0).double()
few = pdh.TMSConfig().features()(8000, torch.Generator().manual_seed(0)).double()
rows = []
for P in five_cuts(small.embed.weight).values():
    active_few, r = effects(small, few, P) > epsilon, torch.linalg.matrix_rank(P)
    rows.append([len(P), dl.minimality(active_few), *(dl.description_length(active_few, r, a) for a in (1, 8))])
pd.DataFrame(
    rows, index=list(cuts), columns=["components", "active per input", "bits at α = 1", "bits at α = 8"]
).round(3)

# %% [markdown]
# Nobody beats the whole at either price. Most of these inputs have nothing on or one feature, so the whole network, of rank two, wastes at most one number; and by this strict tolerance
# each mechanism is active for its neighbours as well. The bits are right: in two dimensions there is next to nothing to gain. That the pentagon has five mechanisms is true
# for other reasons (notebook 02). **A short description is evidence, and it takes a large enough network to collect it.**

# %% [markdown]
# ## When do two components become one?
#
# Take two components of rank one, active with probabilities $p_1$ and $p_2$, and both at once with $p_{12}$. Apart they cost, per input,
#
# $$(p_1 + p_2)\,(\alpha + \log_2 C) .$$
#
# Merged into one component of rank two they are active where *either* was, one name but always two numbers:
#
# $$(p_1 + p_2 - p_{12})\,(2\alpha + \log_2 C) .$$
#
# Subtract, and the merged pair is cheaper exactly if
#
# $$\alpha\,(p_1 + p_2 - 2 p_{12}) \;<\; p_{12} \log_2 C .$$
#
# Right: what merging saves, one name whenever both are on. Left: what it wastes, a number for a member that was not on. ($C$ is held fixed in this:
# names do not get shorter because one of them is no longer used.)
#
# ### A small world
#
# To see merging happen we need components that do not come alone. Six features, and a network that passes each of them on, $\mathrm{ReLU}(I\,I\,x)$; its six
# mechanisms have rank one and nothing to hide. What is interesting is the world:
#
# - 0 and 1 are **always** on together, on one input in five;
# - 2 and 3 are each on one in five, and **mostly** together;
# - 4 and 5 are each on one in five, and **more than half** of the time together;
# - apart from that, chance.

# %%
draw = torch.Generator().manual_seed(0)


def chance(p: float, n: int = 4000) -> Tensor:
    """True with probability p, for each of n inputs."""
    return torch.rand(n, generator=draw) < p


pair, mostly, half = chance(0.2), chance(0.17), chance(0.11)
on = torch.stack(
    [pair, pair, mostly | chance(0.036), mostly | chance(0.036), half | chance(0.10), half | chance(0.10)], dim=1
)
world = on * (0.2 + 0.8 * torch.rand(on.shape, generator=draw))  # features are 0, or between 0.2 and 1

relay = pdh.TMS(n_features=6, n_hidden=6).requires_grad_(False)  # ReLU(WᵀW x + b), with W = I and b = 0
relay.embed.weight.copy_(torch.eye(6))
parts = torch.einsum("ic,cj->cij", torch.eye(6), torch.eye(6))  # its mechanisms, (6, 6, 6)
used = ablation.root_mean_square(ablation.ablated(relay, world, {"embed": parts})) > epsilon  # active by ablation
assert torch.equal(used, on)  # as planned: a mechanism is active exactly where its feature is on

p = used.double().mean(dim=0)
together = (used.double().T @ used.double()) / len(used)
pairs = [(0, 1), (2, 3), (4, 5), (0, 2)]
thresholds = {(i, j): dl.merge_threshold(p[i].item(), p[j].item(), together[i, j].item(), C=6) for i, j in pairs}
pd.DataFrame(
    {
        "p₁": [p[i].item() for i, j in pairs],
        "p₂": [p[j].item() for i, j in pairs],
        "p₁₂": [together[i, j].item() for i, j in pairs],
        "merged below α =": thresholds.values(),
    },
    index=[f"{i} and {j}" for i, j in pairs],
).round(3)

# %% [markdown]
# That is what the formula says. Does it hold? The function `dl.shortest` knows no formula. It tries all 203 ways to put six components into groups, counts the
# bits of each by equation 11, and takes the shortest. We ask it about one pair at a time, and halve an interval of $\alpha$ until we know where the pair splits.


# %%
def splits_at(i: int, j: int) -> float:
    """The α at which the shortest description takes a pair apart, by bisection."""
    low, high = 0.0, 100.0
    while high - low > 1e-10:
        middle = (low + high) / 2
        merged = len(dl.shortest(used[:, [i, j]], middle, n_names=6)) == 1
        low, high = (middle, high) if merged else (low, middle)
    return high


for (i, j), threshold in thresholds.items():
    print(
        f"{i} and {j}: closed form {threshold:.6f}, found by counting {splits_at(i, j):.6f}"
        + (" (the end of the search)" if math.isinf(threshold) else "")
    )

# %% [markdown]
# ## The description-length lab
#
# Slide $\alpha$, and components merge and split as the bits say, now all six at once. Members of a group share a frame and a letter.
#
# Things to try:
#
# 1. $\alpha = 0$: numbers are free. Who is merged?
# 2. Find the value where 2 and 3 come apart. Is it the one in the table?
# 3. And 4 and 5?
# 4. $\alpha = 8$, the right end. Which group is left? Would *any* $\alpha$ separate it?

# %%
pdh.widgets.DescriptionLengthLab(used)

# %% [markdown]
# <details><summary>What you should have seen</summary>
#
# 1. All six are one: everything meets everything at some time, by chance, and to name more than one thing is a waste.
# 2. Yes, to the slider's step. By then 2 and 3 have long been apart from the others, so the formula for pairs holds.
# 3. Yes. Lower down, where groups are larger, the formula for pairs is no longer enough. A pair may join a group as a whole.
# 4. 0 and 1. No: nothing is ever wasted by describing them as one, and one name is saved each time.
# </details>

# %% [markdown]
# ### Two limits
#
# The paper describes the limits: with $\alpha = 0$ all components merge, and for $\alpha \to \infty$ all have rank one. Both need a footnote.
#
# - At $\alpha = 0$ components merge if they *ever meet*. Two components that never meet cost the same whether they are merged or not. (If $C$ shrank with each merger, names would get shorter,
#   and these two would merge as well. That is how the paper's sentence is true.)
# - For large $\alpha$ everything comes apart **except what is always together**. For such a pair $p_1 + p_2 - 2p_{12} = 0$, and the left side of the condition is
#   zero whatever $\alpha$ is. And that is as it should be: that a mechanism has rank two *means* that its parts always go together.

# %% [markdown]
# ## From bits to losses
#
# Nobody can train on this. A count has no gradient, and a rank has none either. So APD replaces each term by something with a slope (equations 14, 15, 17, 19):
#
# | idealised | what it counts | in its place | notebook |
# |---|---|---|---|
# | faithful (eq. 14) | parameters that do not add up | mean squared difference between $\theta^*$, the network's parameters, and $\sum_c P_c$ | 07 |
# | $\log_2 C \cdot$ minimality | active components | keep only the few with the largest *attributions*, and ask the output to be right | 06, 07 |
# | $\alpha\,\cdot$ simplicity | their ranks | the *Schatten norm* | here |
#
# The losses then have coefficients, which are no longer called $\log_2 C$ and $\alpha$ but are there to be chosen ($\lambda_M$ and $\lambda_S$ in this course). Their ratio is
# still the resolution.

# %% [markdown]
# ## A rank with a slope
#
# The rank of $P$ is the number of its singular values $\sigma_m$ that are not zero. Raise each to a power and add (equation 19):
#
# $$\lVert P \rVert_{p_S}^{p_S} = \sum_m \sigma_m^{\,p_S} .$$
#
# At $p_S = 2$ this is the squared length of $P$. At $p_S = 1$, the sum of singular values. And for $p_S \to 0$ every $\sigma_m > 0$ becomes 1: the rank. (The paper writes $\lambda_m$; our $\lambda$ are coefficients.)
#
# **Predict before you run.** Below are matrices of rank 1, 2, 3 and 4, **all of the same length**. Where, as $p_S$ goes from 2 to 0, do they begin to differ? What will a
# little noise on the one of rank 1 do?

# %%
exponents = torch.linspace(0.02, 2, 100).tolist()
noise = torch.Generator().manual_seed(0)
left, right = (torch.linalg.qr(torch.randn(4, 4, generator=noise).double()).Q for _ in range(2))
same_length = {f"rank {r}": left[:, :r] @ right[:, :r].T / r**0.5 for r in range(1, 5)}  # r equal singular values
same_length["rank 1 and noise"] = same_length["rank 1"] + 0.01 * torch.randn(4, 4, generator=noise).double()

fig, axes = pdh.plots.figure(8, 3.4)
ax = axes[0, 0]
for i, (name, P) in enumerate(same_length.items()):
    sums = [dl.schatten(P, p).item() for p in exponents]
    ax.plot(
        exponents,
        sums,
        ["-", "--", "-.", ":", "-"][i],
        color=pdh.plots.color(i),
        lw=2,
        label=name,
        marker="x" if i == 4 else "",
        markevery=8,
    )
ax.axvline(0.9, color="0.4", lw=1)
ax.annotate("0.9, as often in APD", (0.9, 3.2), xytext=(5, 0), textcoords="offset points", fontsize=10)
ax.set(xlabel="Schatten exponent $p_S$", ylabel="sum of σ to the power $p_S$", xlim=(0, 2), ylim=(0, 4.2))
ax.legend(frameon=False, fontsize=9, loc="upper right")
ax.spines[["top", "right"]].set_visible(False)
norms_at = {
    name: (dl.schatten(P, 0.02).item(), dl.schatten(P, 0.9).item(), dl.schatten(P, 2.0).item())
    for name, P in same_length.items()
}
pdh.show(
    fig,
    alt="Schatten norm against the exponent, for matrices of equal length. At 0.02, 0.9 and 2: "
    + "; ".join(f"{name} {low:.2f}, {middle:.2f}, {high:.2f}" for name, (low, middle, high) in norms_at.items())
    + ".",
)

# %% [markdown]
# At 2 all are alike: a price on length only. The smaller the exponent, the more clearly rank 1 is the cheapest. But small exponents take noise for rank: at 0.02 the
# noisy matrix is charged for nearly four. And their slope at zero is infinite, which is no fun to train with. APD uses 0.9 or 1.
#
# There is a price for this choice. With an exponent near 1 the loss is not a count; it is a charge on **length**. Whoever is active pays for being long, whatever the rank. In
# [notebook 07](07_apd_superposition.ipynb) you will see components shrink because of it.

# %% [markdown]
# ## Without a singular value decomposition
#
# Singular values of every component in every step are slow to compute. APD stores components as products anyway, $P = U V = \sum_r U_r V_r$, with columns $U_r$ and
# rows $V_r$. So it takes the lengths of the **factors** instead (equations 21 and 22):
#
# $$\sum_r \big(\lVert U_r \rVert\,\lVert V_r\rVert\big)^{p_S} .$$
#
# If the factors are the singular vectors, these lengths *are* the singular values. But the same $P$ has many factors: put any invertible $G$ in between, $U G$ and
# $G^{-1} V$.
#
# **Predict before you run.** Mix the first two singular vectors: turn them by some angle, $G$ a rotation, with $U$ and $V$ made equally long before. $P$ does not change.
# What happens to the sum, at $p_S = 0.5$, at 1, at 1.5?

# %%
rank_2 = left @ torch.diag(torch.tensor([1.0, 0.5, 0.0, 0.0]).double()) @ right.T  # singular values 1, 0.5
angles = torch.linspace(0, 90, 91).tolist()
fig, axes = pdh.plots.figure(8, 3.2)
ax, differences = axes[0, 0], []
for i, p_S in enumerate((0.5, 1.0, 1.5)):
    paid = []
    for angle in angles:
        U, V = dl.turned_factors(rank_2, angle)
        assert torch.allclose(U @ V, rank_2)
        paid.append(losses.schatten(U[None], V[None], p_S).item() - dl.schatten(rank_2, p_S).item())
    ax.plot(angles, paid, ["-", "--", "-."][i], color=pdh.plots.color(i), lw=2, label=f"$p_S$ = {p_S:g}")
    differences.append(f"{paid[45]:+.3f} at exponent {p_S:g}")
ax.set(xlabel="turn of the factors, in degrees", ylabel="factors pay more by", xticks=range(0, 91, 15))
ax.axhline(0, color="0.2", lw=0.8)
ax.legend(frameon=False, fontsize=9)
ax.spines[["top", "right"]].set_visible(False)
pdh.show(
    fig,
    alt=f"How much more the factors pay than the singular values, against their turn. At 45 degrees: {', '.join(differences)}. At 0 and 90 degrees all are zero.",
)

# %% [markdown]
# Below 1 mixing costs, so training is pushed towards singular vectors, as the paper says. **At exactly 1 mixing is free.** Above 1 it even pays. Why: turned factors have lengths that are
# *averages* of the singular values, $\cos^2\!\varphi\,\sigma_1 + \sin^2\!\varphi\,\sigma_2$. An average of $\sigma^{p}$ is less than the average to the power $p$ below 1, equal at 1, and more
# above.
#
# So with $p_S = 1$, which the paper uses for its smallest network, nothing pushes factors to be singular vectors. It does no harm: the *sum* is then right for any such factors.
#
# ## The Schatten lab
#
# At the start: rank 2, singular values 1 and 0.8, and factors turned by 45°. Grey lines in the bars are the values before the power is taken.
#
# 1. Turn back to 0°. At rank 3, which exponent brings the sum within 0.1 of the rank? At rank 4?
# 2. Rank 1, noise 0.05: which exponent tells rank 1 from noise best? Why not the smallest?
# 3. Rank 1, no noise, turn 45°: two factors for one singular value. What do they pay at 0.5, and at 1?

# %%
pdh.widgets.SchattenLab()

# %% [markdown]
# <details><summary>What you should have seen</summary>
#
# 1. 0.1 at rank 3, where 0.15 just misses, and 0.05 at rank 4: singular values below 1, here down to 0.4, need very small exponents to count as 1.
# 2. Somewhere in the middle. At 2 the noise hardly counts, but neither would a second rank; near 0 noise counts as much as anything.
# 3. At 0.5 they pay $2 \cdot \sqrt{0.5} = 1.41$ instead of 1; at 1 exactly 1.
# </details>

# %% [markdown]
# ## Exercises
#
# ### 1 · Count the bits
#
# Equation 11, averaged over inputs. *Difficulty: gentle. Time: 5 minutes.*


# %%
def description_length(active: Tensor, ranks: Tensor, alpha: float) -> Tensor:
    """active (inputs, C) of 0. and 1., ranks (C,) → mean bits per input."""
    ### BEGIN SOLUTION
    C = active.shape[1]
    bits_each = alpha * ranks + math.log2(C)  # (C,)
    return (active @ bits_each).mean()
    ### END SOLUTION


# %%
pdh.checks.description_length(description_length)

# %% [markdown]
# ### 2 · Where to merge
#
# The $\alpha$ below which a pair of rank-one components is cheaper as one (suppose they are not always together). *Difficulty: gentle. Time: 5 minutes.*


# %%
def merge_threshold(p1: float, p2: float, p12: float, C: int) -> float:
    """Active with probabilities p1 and p2, both at once with p12, among C components."""
    ### BEGIN SOLUTION
    saved = p12 * math.log2(C)  # one name, whenever both are on
    wasted = p1 + p2 - 2 * p12  # one number, whenever exactly one is on
    return saved / wasted
    ### END SOLUTION


# %%
pdh.checks.merge_threshold(merge_threshold)

# %% [markdown]
# ### 3 · The true Schatten norm
#
# $\sum_m \sigma_m^{p}$ from the singular values of one matrix. *Difficulty: gentle. Time: 3 minutes.*


# %%
def true_schatten(P: Tensor, p: float) -> Tensor:
    """P (d_out, d_in) → ‖P‖_p^p."""
    ### BEGIN SOLUTION
    return torch.linalg.svdvals(P).pow(p).sum()
    ### END SOLUTION


# %%
pdh.checks.true_schatten(true_schatten)

# %% [markdown]
# ## Questions a careful reader asks
#
# <details><summary>Why don't I have to send you the components themselves?</summary>
#
# A full description would: first the list of components, then, for each input, who was active. The list is sent once and costs about as much as the network's
# parameters for any of our cuts, and with many inputs its share per input vanishes. So this is a description of the network's *behaviour, given its parts*. But be warned: a cut with very many components that is
# trained on few inputs could hide the inputs in the list.
# </details>
#
# <details><summary>If two components only matter together, is either one important?</summary>
#
# By ablation both are active, on the same inputs: removing either breaks the output. They are always together, so the bits say: call them one. This is what makes the merged component, and not its halves, the natural unit.
# </details>
#
# <details><summary>How many components can there be?</summary>
#
# The entries are the extreme: $C = N$, one component for each parameter. The paper expects that no network has more mechanisms than about its number of parameters, $C = O(N)$, since $N$ numbers cannot
# store more than about $N$ independent things. Bits do not forbid it, because a name costs only $\log_2 C$. Computing does: $C$ components, each as large as the network, are $C N$ numbers, in the worst case of the order of
# $N^2$. This is why methods for larger networks store components of low rank in single layers.
# </details>
#
# <details><summary>Isn't a penalty on frequency bound to split features?</summary>
#
# Splitting a component into rarer special cases makes each of them rarer, but not the sum: if exactly one of the two is on whenever the old one was, the *number* of active components stays. And
# what a split cannot reduce, it can increase: a larger $C$ makes every name longer. With sparse autoencoders the gain comes from a better reconstruction with more special directions. Here the components must add up to fixed weights, so there is no such
# gain for free.
# </details>
#
# <details><summary>Who decides on α?</summary>
#
# You do. If numbers are cheap, "the network was on" is the shortest story. If you want precise ones, every wasted number hurts, and you split. A range of $\alpha$ over which the groups do
# not change is a sign of real structure: in the lab, the long stretch on the right. Report what you find over a range, not at one value.
# </details>
#
# <details><summary>Are fewer bits the same as being easier to understand?</summary>
#
# It is a bet that they are. A mechanism that is used often and of rank one may still compute something that no human has a word for. What the principle buys you is that the number of things you must look at for one input is
# as small as it can be.
# </details>
#
# ## When something looks wrong
#
# <details><summary>My whole network is cheaper at every α</summary>
#
# Look at the share of active inputs. If your features are on most of the time ($p$ near 1), everything is together nearly always, and merging is right.
# </details>
#
# <details><summary>The bits do not change when I merge two components that never meet</summary>
#
# They should, unless $\alpha = 0$. The names cost the same, but the merged pair sends two numbers each time where one was needed.
# </details>
#
# <details><summary>My factors pay less than the singular values</summary>
#
# Your exponent is above 1. Below 1 that is impossible.
# </details>
#
# **Next:** [06 · Attributions](06_attributions.ipynb): how to guess which components are active without removing each of them.
