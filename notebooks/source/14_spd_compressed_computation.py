# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 14 · SPD on compressed computation
#
# **The question:** a network answers 100 functions with 50 neurons. Into what does SPD take it apart, why does one matrix fall
# into 100 pieces and the other into 50, and do these 50 belong together?
#
# *After this notebook you can* read SPD's importance matrices and neuron contributions, say what the price of importance $\beta_3$
# does to each matrix, test with co-activations and ablations whether some pieces are "one mechanism", compare two
# subspaces with one number, and say which part of the answer is SPD's and which is the network's.
#
# | read | do | run on two cores | before this | difficulty |
# |---|---|---|---|---|
# | 35 minutes | 25 minutes | {{minutes}} | [03 · Training the targets](03_training_the_targets.ipynb), [13 · SPD on superposition](13_spd_superposition.ipynb) | moderate |

# %%
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

import pd_helpers as pdh
from pd_helpers import analysis
from pd_helpers.analysis import metrics, output_matrix, subspaces
from pd_helpers.course.compressed_computation import ideas as mixing

variants = {1e-6: "beta1e-06", 3e-6: "beta3e-06", 1e-5: "seed0", 1e-4: "beta1e-04", 1e-3: "beta1e-03"}
runs = {beta_3: pdh.shipped("spd/resid_mlp_1", name) for beta_3, name in variants.items()}
run = runs[1e-5]  # the paper's setting
print(f"trained beforehand, seconds on two cores: {[round(run.seconds) for run in runs.values()]}")

# %% [markdown]
# All five runs decompose the same network and come with the package. To train the middle one yourself takes five
# minutes: `pdh.run("spd/resid_mlp_1", seed=0)`.
#
# ## The network
#
# It is the residual MLP of [notebook 03](03_training_the_targets.ipynb):
#
# $$y = W_U\,\big(s + W_\text{out}\,\mathrm{ReLU}(W_\text{in}\, s)\big), \qquad s = W_E\, x .$$
#
# - 100 features, each on with probability 0.01 and then anywhere in $[-1, 1]$; the network should answer $x_i + \mathrm{ReLU}(x_i)$.
# - $W_E$ gives each feature a random direction of length one in a stream 1,000 wide; $W_U = W_E^\top$. Neither is trained.
# - There are just **50 neurons**. $W_\text{in}$ leads from the stream to them, $W_\text{out}$ back. These two are decomposed, each into
#   $C = 100$ subcomponents $U_c V_c^\top$ of rank one.
#
# (As in notebook 03 the stream is held in the 200 dimensions that are used at all, which changes nothing.)

# %%
net = run.target
W_in, W_out, W_E, W_U = net.mlps[0].W_in.weight, net.mlps[0].W_out.weight, net.W_E, net.W_U
print(f"W_in {tuple(W_in.shape)}, W_out {tuple(W_out.shape)}, both of rank {torch.linalg.matrix_rank(W_out)}")

# %% [markdown]
# **Predict before you run.** Both matrices have rank 50, so at least 50 pieces are needed for each, and 100 are on offer.
#
# 1. How many of $W_\text{in}$'s 100 will be alive: 50, or 100? And of $W_\text{out}$'s?
# 2. With one feature on, how many pieces of each matrix will be important?

# %%
g = analysis.importance_matrix(run)  # use → (100 features, C), each feature alone at 0.75
W_in_use, W_out_use = g
fig = pdh.plots.importance_grid(
    [
        (name, [("", g[use][:, pdh.plots.readable_order(g[use])])])
        for name, use in (("W_in", W_in_use), ("W_out", W_out_use))
    ]
)
alive = {use: int(metrics.alive(values).sum()) for use, values in g.items()}
per_feature = {use: (values > metrics.ALIVE).sum(dim=1).float() for use, values in g.items()}
pdh.show(
    fig,
    alt=f"Importance matrices, a row per feature alone at 0.75. W_in: {alive[W_in_use]} subcomponents, an identity matrix, one for each "
    f"feature. W_out: {alive[W_out_use]} subcomponents, each important for many features; "
    f"{per_feature[W_out_use].min():.0f} to {per_feature[W_out_use].max():.0f} of them for one feature, {per_feature[W_out_use].mean():.1f} on average.",
)

# %% [markdown]
# **$W_\text{in}$: one hundred pieces, one for each feature**, although its rank is only 50. **$W_\text{out}$: fifty pieces**, and each
# feature needs many of them. (An importance above 0.1 counts as important, here as in the paper.)
#
# That is the paper's count. Let us look at both sides in turn.

# %% [markdown]
# ## $W_\text{in}$: a piece for each feature
#
# Is the piece of feature $i$ really all that the network does for feature $i$? The paper asks neuron by neuron. The
# **contribution** of neuron $n$ to feature $i$ is what it reads of the feature times what it writes to its output:
#
# $$\big(W_{U[i,:]} W_\text{out}\big) \odot \big(W_\text{in} W_{E[:,i]}\big) ,$$
#
# and the contribution of a piece is the same with $U_c V_c^\top$ in place of $W_\text{in}$. For each feature we take the
# **predominant** piece, the one whose contributions are largest in all (sum of squares over neurons).
#
# ### Exercise 1 · The predominant piece
#
# `parts[c, i, n]` is the contribution of piece `c` to feature `i` through neuron `n`. Which piece is predominant for each feature?
# *Difficulty: gentle. Time: 4 minutes.*


# %%
def predominant(parts: Tensor) -> Tensor:
    """(C, n_features, n_neurons) → (n_features,), whole numbers."""
    ### BEGIN SOLUTION
    return parts.square().sum(dim=2).argmax(dim=0)
    ### END SOLUTION


# %%
pdh.checks.predominant(predominant)

# %% [markdown]
# **Predict before you run.** The first ten features, all 50 neurons: the whole of $W_\text{in}$ above, one rank-one piece per feature
# below. Where will the lower dots differ?

# %%
found = analysis.contributions(run)
fig, alt = pdh.plots.contributions_beside(found)
pdh.show(fig, alt)

# %% [markdown]
# You would have to look hard (figure 6 of the SPD paper). One piece carries a feature to *all* the neurons that serve it.
#
# And here are all features and neurons at once (figure 7):

# %%
fig, axes = pdh.plots.figure(9.2, 3.6, 1, 2, width_ratios=[1.1, 1])
pdh.plots.contribution_scatter(axes[0, 0], found)
P_in, W_features = run.first_layer  # subcomponents and W_in, both times W_E: a column for each feature
cosines, ratios = metrics.best_match(P_in, W_features)
axes[0, 1].plot(cosines, "o", ms=4, color=pdh.plots.color(2), label="cosine (MMCS is their mean)")
axes[0, 1].plot(ratios, "^", ms=4, color=pdh.plots.color(1), label="length ratio (ML2R is their mean)")
axes[0, 1].axhline(1, color="0.8", lw=0.8, zorder=0)
axes[0, 1].set(xlabel="feature", ylabel="best match to W_in W_E", ylim=(0.96, 1.06))
axes[0, 1].legend(frameon=False, fontsize=9, loc="lower left")
axes[0, 1].spines[["top", "right"]].set_visible(False)
own_predominant = len(set(found.chosen[:, 0].tolist()))
pdh.show(
    fig,
    alt=f"Left: contributions of one subcomponent per feature against the target's, all on the diagonal, r = {found.r:.4f}; "
    f"{own_predominant} different subcomponents. Right: cosine and length ratio of each column of W_in W_E and its best match; "
    f"cosines from {cosines.min():.4f}, ratios {ratios.min():.3f} to {ratios.max():.3f}.",
)
print(
    f"r = {found.r:.4f} (paper: 1.000); MMCS {cosines.mean():.4f}, ML2R {ratios.mean():.3f}; {own_predominant} pieces for 100 features"
)

# %% [markdown]
# **How can a matrix of rank 50 need 100 pieces?** It does not need them to be faithful: 50 would do. It needs them to be *cheap*. A
# feature $i$ enters as the direction $W_{E[:,i]}$, and the only thing $W_\text{in}$ does with it is to write column $i$ of
# $W_\text{in} W_E$. A piece that reads feature $i$ and nothing else, and writes that column, makes do with *one* important piece per
# feature. With 50 pieces, each would serve several features, and each feature would need several.
#
# That takes 100 directions of which each is blind to all other features. The stream is wide enough for that: 100 random directions in
# 1,000 dimensions are linearly independent. So here, too many pieces for the rank is not a fault. It is the answer.
#
# The lengths are a little above 1, for the reason given in notebook 13: with $p_I = 2$ importances end a little below 1.

# %% [markdown]
# ## The price of importance
#
# SPD does not know that 100 is right. It balances errors against $\beta_3 \sum_c g_c^2$, and $\beta_3$ is ours to choose.
#
# **Predict before you move the slider.** The price goes from a tenth of the paper's to a hundred times as much. What will
# become of the 100? Of the 50?

# %%
pdh.widgets.ImportanceCoefficientLab(runs, 1e-5)

# %% [markdown]
# All five at once (figure 8 of the paper):

# %%
columns = []
for beta_3, each in runs.items():
    matrices = analysis.importance_matrix(each).values()
    ordered = [values[:, pdh.plots.readable_order(values)] for values in matrices]
    columns.append((f"β₃ = {beta_3:.0e}", list(zip(("W_in", "W_out"), ordered, strict=True))))
fig = pdh.plots.importance_grid(columns)
n_alive = {b: [int(metrics.alive(v).sum()) for v in analysis.importance_matrix(r).values()] for b, r in runs.items()}
pdh.show(
    fig,
    alt="Importance matrices of W_in (above) and W_out (below) at five prices. "
    + "; ".join(f"β₃ = {b:g}: {i} and {o} alive" for b, (i, o) in n_alive.items())
    + ". W_in is a full block at the lowest price and an identity from 1e-05 on. W_out is a full block at first and nearly an "
    "identity at 1e-03.",
)

# %%
hidden = F.normalize(F.relu((W_in @ W_E).T.detach()), dim=1)  # (100, 50): what the neurons say when one feature is on
by_price = {}
for beta_3, each in runs.items():
    g_each = analysis.importance_matrix(each)
    V_each = each.components.layers[W_out_use].V.detach()[metrics.alive(g_each[W_out_use]), 0]  # (alive, 50)
    patterns = (F.normalize(V_each, dim=1) @ hidden.T).abs().amax(dim=1)  # (alive,)
    by_price[f"{beta_3:.0e}"] = {
        "alive in W_in": int(metrics.alive(g_each[W_in_use]).sum()),
        "W_in, per feature": metrics.l0(g_each[W_in_use]),
        "MMCS": metrics.mmcs(*each.first_layer),
        "r of contributions": analysis.contributions(each).r,
        "alive in W_out": int(metrics.alive(g_each[W_out_use]).sum()),
        "W_out, per feature": metrics.l0(g_each[W_out_use]),
        "V along one neuron": output_matrix.axis_alignment(V_each).median().item(),
        "V along one feature's pattern": patterns.median().item(),
        "error, random masks": each.metrics["recon"],
    }
table = pd.DataFrame(by_price)
table.columns.name = "β₃"
table.map(lambda value: f"{value:.0f}" if value == int(value) else f"{value:.2f}" if value > 0.01 else f"{value:.0e}")

# %% [markdown]
# Read it from left to right.
#
# - **Cheap** ($10^{-6}$): importance costs nearly nothing, so there is no reason to separate features. Just a few more pieces than
#   the rank, each important for many features.
# - **The paper's** ($10^{-5}$): $W_\text{in}$ is separated, $W_\text{out}$ is not.
# - **Dear** ($10^{-4}$ and more): $W_\text{in}$ stays. $W_\text{out}$ now *splits*: about 90 pieces, and at $10^{-3}$ a feature needs hardly more than one.
#   Each reads the *pattern* that one feature leaves on the neurons (the row "V along one feature's pattern": the median over
#   pieces of the cosine with the best-fitting feature).
# - The **error** grows from left to right. At $10^{-3}$ it is twenty times that of the paper's setting.
#
# The paper shows the same: splitting of $W_\text{out}$ at high prices. The authors later noted that it largely disappears with another
# sigmoid, which is clamped and leaks gradients only. Notebook [18](18_adversary.ipynb) tries that here: it does not.
#
# So is the number 50 a fact about the network? It holds for prices from $3 \cdot 10^{-6}$ to $10^{-5}$ among our five, while
# the error is below $2 \cdot 10^{-5}$, less than a fiftieth of what it costs to do without the MLP, as we shall see. Where faithful copying matters more than a short list, it is
# 50. Where the list matters more, it is about 90.

# %% [markdown]
# ## $W_\text{out}$: fifty what?
#
# The usual reading is this: $W_\text{out}$ is *one* mechanism of rank 50. It maps whatever the neurons say back into the
# stream. Nothing can be gained by cutting it, and the 50 pieces are just the least that rank 50 needs. They would then be
# important **all together or not at all**.
#
# That can be tested. Three tests follow.
#
# ### Test 1: are they on together?
#
# Take inputs from the training distribution on which something is on. For pieces $i$ and $j$: *of the inputs on which $i$ is
# important, on what share is $j$ important too?* This is the **co-activation matrix**.
#
# ### Exercise 2 · Co-activation
#
# `g` holds importances (rows, C); important means above 0.1. *Difficulty: moderate. Time: 6 minutes.*


# %%
def co_activation(g: Tensor) -> Tensor:
    """(rows, C) → (C, C): of the rows where i is important, the share where j is too."""
    ### BEGIN SOLUTION
    on = (g > 0.1).float()
    return on.T @ on / on.sum(dim=0)[:, None]
    ### END SOLUTION


# %%
pdh.checks.co_activation(co_activation)

# %% [markdown]
# **Predict before you run.** If the 50 are one mechanism, what number fills the matrix? If each goes its own way, what
# number would you expect then?

# %%
layer = run.components.layers[W_out_use]
fifty = layer.P.detach().norm(dim=(1, 2)).argsort(descending=True)[:50]  # the longest
x = run.data(20_000, torch.Generator().manual_seed(0))
x = x[x.any(dim=1)]
g_out = run.importances(x)[W_out_use][:, fifty]  # (rows, 50)
alone = (x != 0).sum(dim=1) == 1
off = ~torch.eye(50, dtype=torch.bool)


def chance(g: Tensor) -> float:
    """The mean co-activation off the diagonal, were the pieces independent."""
    often = (g > metrics.ALIVE).float().mean(dim=0)
    return often.expand(50, 50)[off].mean().item()


together = {
    "one feature alone at 0.75": g[W_out_use][:, fifty],
    "training inputs, one feature on": g_out[alone],
    "training inputs, anything on": g_out,
}
co_activations = {}
for name, values in together.items():
    C_values = output_matrix.co_activation(values)[off]
    co_activations[name] = {
        "important per input, of 50": (values > metrics.ALIVE).sum(dim=1).float().mean().item(),
        "co-activation, mean": C_values.mean().item(),
        "smallest": C_values.min().item(),
        "largest": C_values.max().item(),
        "if independent": chance(values),
        "if one mechanism": 1.0,
    }
pd.DataFrame(co_activations).T.round(2)

# %%
fig, axes = pdh.plots.figure(9.2, 3.4, 1, 2, width_ratios=[1, 1.15])
image = axes[0, 0].imshow(output_matrix.co_activation(g_out), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
axes[0, 0].set(xlabel="piece j", ylabel="piece i", title="share with j, given i")
fig.colorbar(image, ax=axes[0, 0], shrink=0.85)
counts = (g_out[alone] > metrics.ALIVE).sum(dim=1).float()
axes[0, 1].hist(counts, bins=torch.arange(0, 52) - 0.5, color=pdh.plots.color(0))
axes[0, 1].axvline(50, color=pdh.plots.color(3), ls="--", label="all 50: one mechanism")
axes[0, 1].set(xlabel="important pieces of W_out, one feature on", ylabel="inputs", xlim=(-1, 52))
axes[0, 1].legend(frameon=False, fontsize=9, loc="upper center")
axes[0, 1].spines[["top", "right"]].set_visible(False)
off_diagonal = output_matrix.co_activation(g_out)[off]
pdh.show(
    fig,
    alt=f"Left: co-activation matrix of the fifty; off the diagonal all values lie between {off_diagonal.min():.2f} and {off_diagonal.max():.2f}. "
    f"Right: histogram of how many are important on inputs with one feature on: {counts.min():.0f} to {counts.max():.0f}, mean "
    f"{counts.mean():.1f}, never near 50.",
)

# %% [markdown]
# They are **not** on together. With one feature on at 0.75, about a third of them matters, a different third for each
# feature, and two meet about as often as chance would have it. (On training inputs it is more,
# 0.32 against 0.24 with one feature on, presumably since small values need few pieces and large ones many.)
#
# The SPD paper takes the 50 as belonging together, and a review of it says that all are active on every input. In this run, with
# these settings, they are not. On the training distribution the count per input cannot exceed $50\,(1 - 0.99^{100}) = 31.7$, if they always were; it is:

# %%
print(
    f"W_out's L0 on the training distribution: {run.metrics['l0'][W_out_use]:.1f}; at most {50 * (1 - 0.99**100):.1f}"
)

# %% [markdown]
# ### Test 2: a few or all
#
# If the 50 were one mechanism, switching off a few should hurt nearly as much as switching off all. So let us switch them off, on
# each input in three orders: at random, the least important first, and the most important first.
#
# **Predict before you run.** What does it cost to switch off 25 of the 50, the least important half?

# %%
some = x[:4000]
g_some, noise = g_out[:4000], torch.Generator().manual_seed(0)
orders = {
    "most important first": fifty[g_some.argsort(dim=1, descending=True)],
    "at random": fifty[torch.rand(g_some.shape, generator=noise).argsort(dim=1)],
    "least important first": fifty[g_some.argsort(dim=1)],
}
ks = [0, 1, 2, 5, 10, 15, 20, 25, 30, 35, 40, 45, 48, 50]
errors = {name: output_matrix.errors_without(run, some, {W_out_use: order}, ks) for name, order in orders.items()}

fig, axes = pdh.plots.figure(9.2, 3.4, 1, 2)
for k, (name, values) in enumerate(errors.items()):
    look = {
        "color": pdh.plots.color((3, 7, 0)[k]),
        "marker": "^so"[k],
        "ls": ["--", ":", "-"][k],
        "ms": 4,
        "label": name,
    }
    axes[0, 0].plot(ks, [value / values[-1] for value in values], **look)
    axes[0, 1].plot(ks, values, **look)
axes[0, 0].plot([0, 1, 50], [0, 1, 1], color="0.6", lw=1, label="if all or nothing")
axes[0, 0].set(xlabel="pieces switched off, of 50", ylabel="error, as share of all off")
axes[0, 1].axhline(run.metrics["recon"], color="0.6", lw=1, label="random masks")
axes[0, 1].set(xlabel="pieces switched off, of 50", ylabel="mean squared error", yscale="log")
axes[0, 0].legend(axes[0, 0].lines[-1:], ["if all or nothing"], frameon=False, fontsize=9, loc=(0.22, 0.05))
axes[0, 1].legend(frameon=False, fontsize=8)
for ax in axes[0]:
    ax.spines[["top", "right"]].set_visible(False)
half = {name: values[ks.index(25)] / values[-1] for name, values in errors.items()}
pdh.show(
    fig,
    alt="Error against the number of W_out's pieces switched off, as a share of the error with all off, and on a logarithmic axis. "
    f"With 25 off the share is {half['least important first']:.3f} if the least important go first, {half['at random']:.2f} at random, and "
    f"{half['most important first']:.2f} if the most important go first.",
)
pd.DataFrame(errors, index=pd.Index(ks, name="pieces off")).loc[[1, 5, 25, 45, 50]].map("{:.1e}".format)

# %% [markdown]
# The least important half of each input can go at almost no cost. One random piece costs about a thirtieth of what all of them
# cost. And the most important one alone costs nearly half. That is not *all or nothing*. It is fifty pieces of which each
# input needs some.

# %% [markdown]
# ### Test 3: what does a piece read?
#
# $V_c$ of a piece of $W_\text{out}$ is a direction in the space of the 50 neurons. **Predict:** will it mix many neurons,
# or follow one?

# %%
reads = layer.V.detach()[fifty, 0]  # (50 pieces, 50 neurons)
aligned = output_matrix.axis_alignment(reads)
order = reads.abs().argmax(dim=1).argsort()
random_reads = torch.randn(1000, 50, generator=torch.Generator().manual_seed(0))
writes = (
    F.normalize(layer.U.detach()[fifty, :, 0], dim=1) * F.normalize(W_out, dim=0).T[reads.abs().argmax(dim=1)]
).sum(dim=1)

fig, axes = pdh.plots.figure(9.2, 3.3, 1, 2, width_ratios=[1, 1.2])
image = axes[0, 0].imshow(F.normalize(reads, dim=1)[order].abs(), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
axes[0, 0].set(xlabel="neuron", ylabel="piece (sorted by neuron)", title="|V|, rows of length one")
fig.colorbar(image, ax=axes[0, 0], shrink=0.85)
bins = torch.linspace(0, 1, 41)
axes[0, 1].hist(
    output_matrix.axis_alignment(random_reads),
    bins=bins,
    weights=torch.full((1000,), 0.05),
    color="0.7",
    label="random directions",
)
axes[0, 1].hist(aligned, bins=bins, color=pdh.plots.color(0), label="SPD's fifty")
axes[0, 1].set(xlabel="largest |cosine| of V with a neuron", ylabel="pieces")
axes[0, 1].legend(frameon=False, fontsize=9, loc="upper center")
axes[0, 1].spines[["top", "right"]].set_visible(False)
pdh.show(
    fig,
    alt=f"Left: what each piece of W_out reads, as a heat map over neurons: a diagonal, one neuron each. Right: the largest cosine "
    f"with a neuron is at least {aligned.min():.3f} for all fifty, and around {output_matrix.axis_alignment(random_reads).mean():.2f} for "
    "random directions.",
)
print(
    f"neurons read: {len(reads.abs().argmax(dim=1).unique())} of 50; |cosine| of U with that neuron's column of W_out: at least {writes.abs().min():.3f}"
)

# %% [markdown]
# **The fifty pieces are the fifty neurons.** Each reads one neuron and writes that neuron's column of $W_\text{out}$. This
# explains the first two tests: a piece matters when its neuron is on, and does not when it is off, since then there is
# nothing to be masked.
#
# Why neurons? Faithfulness allows any basis: for an orthonormal $Q$, the 50 pieces $(W_\text{out}\, q_c)\, q_c^\top$ add up to
# $W_\text{out}$ too. But a ReLU is often *exactly* zero. A piece that reads a single neuron has nothing to say where that neuron
# is silent, and needs no importance there. A piece that mixes neurons nearly always reads something.
#
# If that is the reason, then in other bases more pieces should be needed per input. Let us count: on each input, drop the pieces with
# the smallest output, and look at the error.
#
# **Predict before you run.** Neurons, the right singular vectors of $W_\text{out}$, and a random rotation: which needs the fewest
# pieces? By how much?

# %%
with torch.no_grad():
    h = F.relu(some @ (W_in @ W_E).T)  # (rows, 50 neurons)
rotation = torch.linalg.qr(torch.randn(50, 50, generator=torch.Generator().manual_seed(1))).Q
bases = {
    "neurons": torch.eye(50),
    "singular vectors of W_out": torch.linalg.svd(W_out.detach()).Vh.T[:, :50],
    "random rotation": rotation,
}


def kept(Q: Tensor, n: int) -> float:
    """The error of the output with only the n largest pieces (W_out q) qᵀ h of each input."""
    read, write = h @ Q, (W_U @ W_out.detach()) @ Q  # (rows, 50), (100, 50)
    size = read.abs() * write.norm(dim=0)
    lost = torch.where(size.argsort(dim=1, descending=True).argsort(dim=1) < n, 0.0, read)
    return (lost @ write.T).square().mean().item()


ns = [1, 3, 5, 8, 10, 12, 15, 18, 20, 25, 30, 35, 40, 45]
fig, axes = pdh.plots.figure(7.5, 3.4)
for k, (name, Q) in enumerate(bases.items()):
    axes[0, 0].plot(
        ns,
        [kept(Q, n) for n in ns],
        marker="os^"[k],
        ms=4,
        ls=["-", "--", ":"][k],
        color=pdh.plots.color((0, 1, 7)[k]),
        label=name,
    )
axes[0, 0].axhline(run.metrics["recon"], color="0.6", lw=1, label="SPD's error under random masks")
axes[0, 0].set(xlabel="pieces kept on each input", ylabel="mean squared error", yscale="log", ylim=(1e-7, None))
axes[0, 0].legend(frameon=False, fontsize=9)
axes[0, 0].spines[["top", "right"]].set_visible(False)
needed = {name: next(n for n in range(1, 51) if kept(Q, n) < run.metrics["recon"]) for name, Q in bases.items()}
pdh.show(
    fig,
    alt="Error of the output against the number of pieces of W_out kept on each input, in three bases; neurons are lowest. To get below "
    "SPD's error: " + ", ".join(f"{n} for {name}" for name, n in needed.items()) + ".",
)
print(needed)

# %% [markdown]
# The neurons are the cheapest of the three by far: 22 pieces, against 41 and 42. SPD was not told about neurons. That their silence is free would explain why it found them.
#
# So the sentence "$W_\text{out}$ is one mechanism" needs care. What *is* true: $W_\text{out}$ does not fall into one piece per feature, as long as
# importance is not too expensive; the fifty pieces are shared by all features. What is *not* true in this run: that they
# act as one.

# %% [markdown]
# ### 100 against 50, then
#
# Why can $W_\text{in}$ be cut by features and $W_\text{out}$ not?
#
# - $W_\text{in}$ reads the stream, where each feature has a direction of its own, nearly at right angles to all others.
#   100 features in 1,000 dimensions can be told apart by linear readers.
# - $W_\text{out}$ reads the neurons. There 100 features leave 100 patterns in 50 dimensions. No 100 directions in 50
#   dimensions can each be blind to all other patterns. A piece for feature $i$ would also speak when others are on. At a high price SPD
#   does it anyway, and its error is what that costs.
#
# APD's components (notebook 08) span both matrices, so what belongs to a feature in $W_\text{in}$ brings its part of $W_\text{out}$ along.

# %% [markdown]
# ## What the fifty span: the mixing matrix
#
# There is another account of this network, that of [notebook 04](04_compressed_computation.ipynb). The output of the skip connection is
# not $x$ but $W_U W_E\, x = W_E^\top W_E\, x$. With unit-norm columns its diagonal is 1, and off the diagonal there is noise of size
# $1/\sqrt{1000}$. What it leaves to the MLP, besides the wanted functions, is the **mixing matrix**:
#
# $$\mathrm{MLP}(x) \;\overset{!}{=}\; \mathrm{ReLU}(x) + M x, \qquad M = I - W_E^\top W_E .$$
#
# *Compressed Computation is (probably) not Computation in Superposition* (Bhagat et al.) finds that the network does the second: the
# product $W_\text{out} W_\text{in}$ acts like a projection on the top 50 eigenvectors of $M$. The gain over the naive solution comes from there,
# as notebook 04 measured.
#
# Mind the sign: some code has $M$ with the other one, and then these are its *bottom* eigenvectors. Ours has eigenvalues between
# about −0.7 and +0.55.

# %%
M = subspaces.mixing_matrix(W_E)  # (100, 100)
directions = torch.linalg.eigh(M).eigenvectors.flip(1)  # columns, that of the largest eigenvalue first
B = (W_U @ W_out @ W_in @ W_E).detach()  # what W_out W_in does to features, ReLU left out
strengths, cosine, gain = subspaces.along_directions(B, M)  # eigenvalues; cosine of v and B v; vᵀ B v
print(
    f"eigenvalues of M: {strengths[0]:.2f} to {strengths[-1]:.2f}; diagonal of W_out W_in: {B.diag().mean():.2f} on average"
)

# %% [markdown]
# **Predict before you run.** For each eigenvector $v$ of $M$, strongest first: does $W_\text{out} W_\text{in}$ leave its direction as it
# is (cosine 1)? Where does that end?

# %%
fig, axes = pdh.plots.figure(9.2, 3.3, 1, 3)
axes[0, 0].plot(range(1, 101), cosine, "o", ms=3.5, color=pdh.plots.color(0))
axes[0, 0].set(ylabel="cosine of v and W_out W_in v", ylim=(-0.05, 1.05))
axes[0, 1].plot(range(1, 101), gain, "o", ms=3.5, color=pdh.plots.color(0), label="vᵀ W_out W_in v")
axes[0, 1].plot(range(1, 101), strengths, "-", color=pdh.plots.color(1), lw=2, label="eigenvalue of M")
axes[0, 1].set(ylabel="strength")
axes[0, 1].legend(frameon=False, fontsize=9)
for ax in axes[0, :2]:
    ax.axvline(50.5, color="0.6", ls=":", lw=1)
    ax.set(xlabel="eigenvector v of M, top first")
entries = ~torch.eye(100, dtype=torch.bool)
a, c = M[entries], B[entries]
slope, _ = mixing.line(a, c)
axes[0, 2].plot(a, c, ".", ms=2, alpha=0.3, color=pdh.plots.color(0))
axes[0, 2].plot([a.min(), a.max()], [slope * a.min(), slope * a.max()], color="0.1", lw=1.2)
axes[0, 2].set(xlabel="entry of M", ylabel="entry of W_out W_in")
axes[0, 2].text(0.05, 0.92, f"slope {slope:.2f}", transform=axes[0, 2].transAxes)
for ax in axes[0]:
    ax.spines[["top", "right"]].set_visible(False)
pdh.show(
    fig,
    alt=f"Left: cosine of each eigenvector of M and what W_out W_in makes of it: at least {cosine[:40].min():.2f} for the first forty, "
    f"{cosine[55:].max():.2f} at most from number 56 on. Middle: the strength along them, {gain[0]:.2f} falling to {gain[45]:.2f} at number 46 and "
    f"near 0 after that, above the eigenvalues of M. Right: entries of W_out W_in off the diagonal against those of M, slope {slope:.2f}.",
)

# %% [markdown]
# The published account holds here too: cosine near 1 for the first forty, then a fall around number 50, and little after it. (Published: near 1 for
# about 40, then 0 to 0.2 after 50. Slope off the diagonal 1.86, read off a plot; ours is in the figure.)
#
# Up to about number 45 the strength along $v$ is roughly the diagonal's part, 0.7, plus twice the eigenvalue of $M$. Why twice? The
# linear part of the labels is $\tfrac12 I + M$ and that of the MLP $\tfrac12 W_\text{out} W_\text{in}$: notebook 04 works it out.
#
# ### Are SPD's fifty these directions?
#
# Two questions hide in this one. Do the fifty *together* span the space of the top 50 eigenvectors? And is each of them *one* of
# the eigenvectors?
#
# ### Exercise 3 · Two subspaces
#
# The columns of `A` and of `B`, both (d, k), span two subspaces. Their **overlap** is $\lVert Q_A^\top Q_B \rVert^2 / k$, the mean squared
# cosine of the angles between them, where $Q_A$ and $Q_B$ are orthonormal bases (`torch.linalg.qr` makes one). It is 1 if they are the same and
# $k/d$ on average if they are random. *Difficulty: moderate. Time: 6 minutes.*


# %%
def subspace_overlap(A: Tensor, B: Tensor) -> float:
    """Between 0 and 1."""
    ### BEGIN SOLUTION
    Q_A, Q_B = torch.linalg.qr(A).Q, torch.linalg.qr(B).Q
    return ((Q_A.T @ Q_B).square().sum() / A.shape[1]).item()
    ### END SOLUTION


# %%
pdh.checks.subspace_overlap(subspace_overlap)

# %% [markdown]
# **Predict before you run.** Fill in the two columns before you look: near 1, near chance, or between?

# %%
top = directions[:, :50]
random_50 = torch.randn(100, 50, generator=torch.Generator().manual_seed(2))
spans = {
    "SPD's fifty: what they write, W_U U": (W_U @ layer.U[fifty, :, 0].T).detach(),
    "W_out, whole: W_U W_out": (W_U @ W_out).detach(),
    "W_in, whole: what it reads, (W_in W_E)ᵀ": (W_in @ W_E).T.detach(),
    "fifty random directions": random_50,
}
overlaps = {
    name: {
        "overlap of the span with the top 50": subspaces.subspace_overlap(A, top),
        "best |cosine| with one eigenvector, mean": (directions.T @ F.normalize(A, dim=0))
        .abs()
        .amax(dim=0)
        .mean()
        .item(),
    }
    for name, A in spans.items()
}
pd.DataFrame(overlaps).T.round(3)

# %% [markdown]
# - **Together: yes.** Their span overlaps with the top 50 by about 0.95, where 0.5 is chance.
# - **One by one: no.** The best cosine of a piece with a single eigenvector is not far above that of random directions.
#
# The first answer is not SPD's doing. $W_\text{out}$ as a whole has the same overlap, and any faithful decomposition of it must. The
# second is: *within* the space that training has chosen, SPD names the **neurons**, and neurons mix eigenvectors.
#
# What have we learned about the network? The 50 directions in which it writes are mostly those in which the skip's noise can be
# cancelled best. SPD's list of 100 + 50 pieces does not say so. It says which pieces are needed when, not what for.

# %% [markdown]
# ## Ours and the paper's

# %%
beside = [
    ("figure 6: contributions, ten features", "one piece per feature copies all neurons", "the same"),
    ("figure 7: correlation r", f"{found.r:.4f}", "1.000"),
    ("figure 8, β₃ = 1e-05: alive in W_in", n_alive[1e-5][0], "100"),
    ("figure 8, β₃ = 1e-05: alive in W_out", n_alive[1e-5][1], "50"),
    (
        "figure 8, β₃ = 1e-04 and 1e-03: alive in W_out",
        f"{n_alive[1e-4][1]}, {n_alive[1e-3][1]}",
        "splits; no count known to us",
    ),
    (
        "W_out's 50 important together",
        f"{per_feature[W_out_use].mean():.1f} of 50 for one feature",
        "described as all together",
    ),
    ("figure 8, β₃ = 1e-05: entries off the pattern", run.metrics["identity_ci_error"], "an identity, as drawn"),
]
pd.DataFrame(beside, columns=["what", "here", "paper"]).set_index("what")

# %% [markdown]
# Losses, coefficients and $C$ are the paper's. These settings are not:

# %%
preset = pdh.preset("spd/resid_mlp_1")
settings = preset.config.to_dict()
differences = {
    field: {"here": settings[field], "the paper's, and why not here": why} for field, why in preset.differs.items()
}
pd.DataFrame(differences).T.style.set_properties(**{"text-align": "left", "white-space": "normal"})

# %% [markdown]
# We do not know whether these differences, or the words of the description, are behind the different finding about $W_\text{out}$. The authors'
# own runs would tell; a single number, the mean count of important pieces per feature, is enough.

# %% [markdown]
# ## Try it
#
# The first lines take a second, the last one five minutes. Make a guess first.
#
# ```python
# analysis.importance_matrix(run, value=-0.75)[W_out_use].gt(0.1).sum(dim=1).float().mean()  # a negative feature
# analysis.importance_matrix(run, value=0.25)[W_out_use].gt(0.1).sum(dim=1).float().mean()   # a small one
# output_matrix.axis_alignment(runs[1e-6].components.layers[W_out_use].V[:, 0]).sort().values    # neurons when cheap?
# pdh.run("spd/resid_mlp_1", seed=1).metrics                                                   # another network
# ```
#
# <details><summary>What we saw</summary>
#
# - At −0.75 about 17 pieces of $W_\text{out}$ are important: other neurons are on, and they too must be copied.
# - At 0.25 there are about 13. A weaker feature moves the output less, and less is worth its price.
# - At $\beta_3 = 10^{-6}$ only some of the pieces follow a neuron. Where importance is nearly free, silence saves nothing.
# </details>

# %% [markdown]
# ## Questions a careful reader asks
#
# <details><summary>If two pieces only matter together, is either one important?</summary>
#
# Yes, both are: take one away and the output changes. That is also how one would recognise a mechanism made of several pieces:
# each is important exactly when the others are. Test 1 looks for that, and does not find it here.
# </details>
#
# <details><summary>Co-activation is 0.3 and not 0. Does that not mean that they belong together a little?</summary>
#
# Compare it with chance, not with 0. A piece that is important on 30% of the inputs co-activates with *anything* on 30% of them, if it pays no
# attention to it. A mechanism would be far above chance.
# </details>
#
# <details><summary>Could the threshold of 0.1 hide a common mechanism?</summary>
#
# One could fear that all 50 have small importances below 0.1. Test 2 does not use the threshold: the least important half costs next to
# nothing when switched off altogether.
# </details>
#
# <details><summary>Does a penalty on importance not cause feature splitting?</summary>
#
# At $\beta_3 = 10^{-3}$ it does, in $W_\text{out}$: fifty neurons are replaced by one piece per feature. But splitting is not free.
# The pieces disturb each other, the error is twenty times as large, and you see it in the numbers. In $W_\text{in}$ every
# price from $10^{-5}$ on gives one piece per feature; whether more would split further these runs cannot say, since they had just 100 to give.
# </details>
#
# <details><summary>Is this network a good example of computation in superposition?</summary>
#
# Doubtful. A large part of what the MLP does is to clean up after the skip connection, and that is linear. The
# decomposition is fine either way: it copies the network as it is. But a perfect decomposition of a network does not make the
# network a good example of what you wanted to study.
# </details>

# %% [markdown]
# ## When something looks wrong
#
# <details><summary>My own run has fewer than 100 alive in W_in</summary>
#
# Some features share pieces. Too low a price does that (see the lab), and so do too few steps or too low a learning rate.
# </details>
#
# <details><summary>W_out has a piece or two more than 50 alive</summary>
#
# On the evaluation set a short leftover now and then exceeds 0.1. Compare lengths: the leftovers are ten times shorter.
# </details>
#
# <details><summary>The overlap with the top 50 is near 0.05 and not 0.95</summary>
#
# You have the other sign of $M$: take the eigenvectors at the other end.
# </details>
#
# <details><summary>MMCS is 0.5 although the importance matrix looks fine</summary>
#
# MMCS compares with the columns of $W_\text{in} W_E$, not of $W_\text{in}$. `run.first_layer` gives both already multiplied.
# </details>
#
# **Next:** [15 · SPD across layers](15_spd_cross_layer.ipynb) does the same to two layers and to three.
