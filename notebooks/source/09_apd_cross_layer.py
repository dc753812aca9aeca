# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 09 · Mechanisms across layers
#
# **The question:** a function is computed partly in one layer and partly in the next. Does APD find it as *one* thing, and does
# it help to forbid components of high rank?
#
# *After this notebook you can* follow an attribution through two layers, say how much of a mechanism lies in which layer, check
# it by ablation, and explain why a component of rank one cannot serve two features.
#
# | read | do | run on two cores | before this | difficulty |
# |---|---|---|---|---|
# | 20 minutes | 25 minutes | {{minutes}} | [08 · APD with fewer neurons than functions](08_apd_compressed_computation.ipynb) | moderate |

# %%
import itertools

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

import pd_helpers as pdh
from pd_helpers import analysis
from pd_helpers.core import apd, attributions, losses
from pd_helpers.core.training import progress
from pd_helpers.runs import shipped

# %% [markdown]
# ## The network
#
# ResidMLP-2 has the same task as the network of notebook 08, doubling every positive one of 100 features. And it has the same number of
# neurons, but 25 in each of two layers:

# %%
fig, axes = pdh.plots.figure(9, 1.5)
pdh.plots.residual_network(axes[0, 0], n_layers=2)
pdh.show(
    fig,
    alt="Diagram, from left to right: x enters the residual stream through W_E; two side branches, one after the other, each read "
    "from the stream through W_in, apply a ReLU and add the result of W_out back to it; y is read off through W_U.",
)

# %%
full = pdh.shipped("apd/resid_mlp_2")
net, config = full.target, full.config
print(f'pdh.run("apd/resid_mlp_2") trained this decomposition in {full.seconds / 60:.0f} minutes on two cores')

# %% [markdown]
# **Predict before you run.** Will the network give 50 features to the first layer and the other 50 to the second? For every feature we
# add up what its helpful neurons contribute, and ask for the share of layer 0.

# %%
contributions = analysis.contributions(full)


def share_of_layer_0(table: Tensor) -> Tensor:
    """(n_features, 50) → share of layer 0 in each feature's positive contributions."""
    helpful = table.clamp(min=0)
    return helpful[:, :25].sum(dim=1) / helpful.sum(dim=1)


in_target = share_of_layer_0(contributions.target)
print(f"share of layer 0: mean {in_target.mean():.2f}, from {in_target.min():.2f} to {in_target.max():.2f}")

# %% [markdown]
# No. **Every** feature is computed in both layers, in proportions from 1:9 to 9:1. A method that decomposes one layer at a time would find two parts for each feature
# and never say that they belong together.
#
# An APD component is a vector over *all* parameters, here four matrices: $P_{\text{in},c}$ and $P_{\text{out},c}$ of either layer. It is on or off as a
# whole. So it can be cross-layer. Will it?
#
# ## What is different in the losses
#
# **Attributions** go through two layers. Moving the first layer changes the stream, and with it what the second layer reads. With $\dot s$ the
# derivative of the stream along $P_c$, starting at 0,
#
# $$\dot h = [z > 0] \odot \big(P_\text{in}\, s + W_\text{in}\, \dot s\big), \qquad
# \dot s \leftarrow \dot s + P_\text{out}\, h + W_\text{out}\, \dot h, \qquad
# s \leftarrow s + W_\text{out}\, h,$$
#
# once for each layer, and $\dot y = W_U\, \dot s$ at the end. We check this on a batch.

# %%
model = full.components
x = full.data(128, Generator().manual_seed(0))
x = x[x.any(dim=1)]  # inputs with something on
P = {path: layer.P.detach() for path, layer in model.layers.items()}  # four matrices for each of the components

s, ds = x @ net.W_E.T, 0.0  # the stream (rows, 200), and its derivatives (C, rows, 200)
for i, mlp in enumerate(net.mlps):
    z = s @ mlp.W_in.weight.T
    h = F.relu(z)
    dh = torch.einsum("cij,bj->cbi", P[f"mlps.{i}.W_in"], s)
    dh = (dh + (ds @ mlp.W_in.weight.T if i else 0.0)) * (z > 0)
    ds = ds + torch.einsum("cij,bj->cbi", P[f"mlps.{i}.W_out"], h) + dh @ mlp.W_out.weight.T
    s = s + h @ mlp.W_out.weight.T
A = (ds @ net.W_U.T).square().mean(dim=-1).sqrt().T  # (rows, C)

torch.testing.assert_close(A, attributions.attributions(net, x, P), rtol=1e-3, atol=1e-6)
print("attributions", tuple(A.shape), "agree with the core's")

# %% [markdown]
# Note what the middle line says. A component that sits in layer 0 alone is also given credit for what layer 1 makes of its output.
#
# **Simplicity** adds up all four matrices, and **hidden reconstruction** compares the neurons of both layers. The coefficients are now

# %%
print(
    f"minimality {config.minimality_coeff:g}, simplicity {config.simplicity_coeff:g}, hidden {config.hidden_coeff:g}, ",
    end="",
)
print(f"C = {config.C}, top-k {config.top_k}, rank at most {config.rank}")

active = attributions.batch_top_k(A, round(config.top_k * 128))
norms, n_parameters = apd.schatten_norms(model, config.schatten_p)
by_hand = sum(
    (layer.U.norm(dim=1) * layer.V.norm(dim=2)).pow(config.schatten_p).sum(dim=1) for layer in model.layers.values()
)
torch.testing.assert_close(by_hand, norms, rtol=1e-3, atol=1e-4)

with torch.no_grad():
    sparse, whole = model(x, active), model.target_forward(x)
    hidden = [F.mse_loss(sparse.inputs[f"mlps.{i}.W_out"], whole.inputs[f"mlps.{i}.W_out"]) for i in range(2)]
    core = losses.hidden_recon(sparse.inputs, whole.inputs, model.hidden, len(x))
    torch.testing.assert_close((hidden[0] + hidden[1]) / 2, core)

# %% [markdown]
# A price that is added up over layers charges the same for one component in two layers as for its two halves in one layer each. But the one
# component takes one place of the top-k, and the halves take two. **Top-k is what binds layers together.** (That compares two ways
# to cut the *same* weights. Whether a component pays more for being in two layers than in one is another question; see *Are layers privileged?*)
#
# ## Neuron by neuron
#
# **Predict before you run.** Above, the contributions in the target, circles for layer 0 and squares for layer 1. Below, of one component for
# each feature. If components were confined to one layer, what would you see?

# %%
fig, alt = pdh.plots.contribution_pair(contributions)
pdh.show(fig, alt)

# %% [markdown]
# Figure 10 of the paper. In one component there are neurons of both layers, and they are the right ones. As in notebook 08, heights are short, and a row
# is *one* component for the neurons of both layers, while the paper's caption can be read as the largest component for each neuron by itself.
#
# How faithful is the *division* between the layers? Each point below is a feature.

# %%
in_component = share_of_layer_0(contributions.components)


def is_split(run: pdh.Run) -> Tensor:
    """(100,): is the second largest attribution of a feature above 0.3 of the largest?"""
    first, second = analysis.feature_attributions(run).topk(2, dim=1).values.T
    return second > 0.3 * first


split = is_split(full)

fig, axes = pdh.plots.figure(5.4, 4.2)
ax = axes[0, 0]
ax.plot([0, 1], [0, 1], ":", color="0.4", lw=1)
ax.plot(in_target[~split], in_component[~split], "o", mfc="none", color=pdh.plots.color(0), label="whole")
ax.plot(in_target[split], in_component[split], "X", ms=5, color=pdh.plots.color(1), label="split over two components")
ax.set(xlabel="share of layer 0 in the target", ylabel="share of layer 0 in the component")
ax.legend(frameon=False, fontsize=9)
ax.spines[["top", "right"]].set_visible(False)
r = torch.corrcoef(torch.stack([in_target, in_component]))[0, 1]
both = int(((in_component > 0.1) & (in_component < 0.9)).sum())
pdh.show(
    fig,
    alt=f"Share of layer 0 in each feature's component against that in the target, correlation {r:.2f}. In the target it lies "
    f"between {in_target.min():.2f} and {in_target.max():.2f}, in the components between {in_component.min():.2f} and "
    f"{in_component.max():.2f}; circles, the whole features, lie below the diagonal. The crosses have a share of "
    f"{in_target[split].median():.2f} in the target in the median, the circles {in_target[~split].median():.2f}.",
)
print(f"{both} of 100 components have at least a tenth of their contributions in either layer")

# %% [markdown]
# The order is right (a correlation of 0.96), so the division of a component does reflect that of the feature. Two things stand out.
#
# - Circles lie below the diagonal: **components lean to layer 1.** A feature that has a fifth of its work in layer 0 has none of it in its component.
#   That part has been left to others.
# - Crosses lie on the right: **the features that are split are mostly those of layer 0.**
#
# The section *Are layers privileged?*, further down, takes up one suspect.

# %%
by_feature = pd.DataFrame({"share of layer 0 in the target": in_target, "split": split})
edges = [0.0, 0.25, 0.5, 0.75, 1.0]
groups = by_feature.groupby(pd.cut(by_feature["share of layer 0 in the target"], edges), observed=True)["split"]
groups.agg(["size", "sum"]).set_axis(["features", "of these split"], axis=1).T

# %% [markdown]
# ## Ablate the others
#
# The tests of notebook 08, on two layers. First one feature on, at 1, and ten thousand random halves of all components off (figure 24).

# %%
halves_42 = analysis.ablate_halves(full, 42, 10_000, Generator().manual_seed(0))
fig, alt = pdh.plots.halves(halves_42, 42)
pdh.show(fig, alt)

# %% [markdown]
# In the paper's figure 24 the component alone is close to the target. Ours is again a feature that is split, and more so than in one layer:
# with its component kept, the output depends on which of the others are on. Without it there is almost nothing.
#
# Try other features. **Predict before you move:** the scatter plot above says how many are split. How many features do you expect to look at before you find
# one that is not?

# %%
pdh.widgets.AblationLab(full, feature=42)

# %% [markdown]
# And over the training distribution (figure 25):

# %%
published = pdh.preset("apd/resid_mlp_2").published
data = Generator().manual_seed(3)
scrubbed = analysis.scrub(full, 10_000, data)
fig, alt = pdh.plots.scrub_histograms(scrubbed, published)
pdh.show(fig, alt)

# %% [markdown]
# Two humps again, and again they are the sign of the input: the lower one belongs to inputs without a positive feature.
# ([Notebook 08](08_apd_compressed_computation.ipynb) takes them apart.)

# %%
inputs = full.data(10_000, Generator().manual_seed(3))  # the same ones
positive = (inputs > 0.05).any(dim=1)
low, high = (scrubbed.scrubbed[which].median() for which in ((inputs != 0).any(dim=1) & ~positive, positive))
print(f"median scrubbed error: {low:.1e} without a feature above 0.05, {high:.1e} with one")

names = {"topk": "top-k", "scrubbed": "scrubbed", "monosemantic": "monosemantic", "anti_scrubbed": "anti-scrubbed"}
rank_1 = pdh.shipped("apd/resid_mlp_2_rank1")
scrub_errors = {
    names[kind]: {
        "paper (figure 25, off the plot)": published[f"{kind}_mse"][0],
        "here": getattr(scrubbed, kind).mean().item(),
        "here, rank 1": rank_1.metrics[f"{kind}_mse"],
    }
    for kind in names
}
pd.DataFrame(scrub_errors).T.style.format("{:.2e}")

# %% [markdown]
# As in the paper, scrubbing costs more than with one layer, but much less than anti-scrubbing. Ours costs a fifth more than the paper's. We train for
# fewer steps (the table at the end); we do not know whether that is why.
#
# ## One component for one feature?
#
# Inputs with one feature on, and one component allowed (above) or the batch top-k (below): figure 21.
#
# **Predict before you run.** In one layer, 24 features were split. More here, or fewer?

# %%
N = 40_000
errors_full = analysis.single_feature(full, N, Generator().manual_seed(0))
fig, alt = pdh.plots.feature_errors(errors_full, config.top_k)
pdh.show(fig, alt)
print(f"{int(split.sum())} features are split: their second attribution is above 0.3 of the first")

# %% [markdown]
# Nearly half of all features lose much with one component. A mechanism that lies in two layers has a natural seam. Do the two components of a split
# feature part there, one taking layer 0 and the other layer 1?

# %%
two = analysis.feature_attributions(full).topk(2, dim=1).indices  # (100, 2)


@torch.no_grad()
def layer_0_of(run: pdh.Run, c: Tensor) -> Tensor:
    """Share of layer 0 in what component c[i] contributes to feature i."""
    i, net = torch.arange(100), run.target
    parts = [
        (net.W_U @ run.components.layers[f"mlps.{k}.W_out"].P)[c, i]
        * (run.components.layers[f"mlps.{k}.W_in"].P @ net.W_E)[c, :, i]
        for k in range(2)
    ]
    return share_of_layer_0(torch.cat(parts, dim=1))


in_first, in_second = layer_0_of(full, two[:, 0])[split], layer_0_of(full, two[:, 1])[split]
print(
    f"share of layer 0 in first and second component: correlation {torch.corrcoef(torch.stack([in_first, in_second]))[0, 1]:.2f}, ",
    end="",
)
print(f"mean difference {(in_first - in_second).abs().mean():.2f}")

# %% [markdown]
# No. The two have about the *same* division between the layers: the second component is a copy of the first, with the same neurons. The room that
# top-k leaves makes copies, not halves.

# %% [markdown]
# ## Components of rank one
#
# A component of full rank can have up to 25 independent pieces in each matrix. Does it need them? A mechanism for one feature reads *one*
# direction of the stream, that of column $i$ of $W_E$, and switches a few neurons on in fixed proportions. So
# $P_\text{in}$ should be the product of one pattern of neurons and one direction: **rank one**. The same goes for $P_\text{out}$.
#
# What if a component has rank one by force? It reads a single number from the stream and writes a single pattern. If it served two features, it would have to give
# output $i$ when it reads feature $i$, and output $j$ when it reads feature $j$. But **it cannot tell them apart**: all
# it knows is one number. Two features in one component need rank two.
#
# **Predict before you run.** Of each component that comes first for some feature we compare the two largest singular values, $\sigma_2/\sigma_1$, in each
# of its matrices, and take the largest ratio. If it is 0, the component has rank one everywhere. What do you expect for one feature, and what for two? We look at
# two decompositions: that of the one-layer network at top-k 1, where many components are doubled, and the one above.


# %%
@torch.no_grad()
def second_piece(run: pdh.Run) -> Tensor:
    """The largest σ₂/σ₁ of each component in any of its matrices, (C,)."""
    ratios = []
    for layer in run.components.layers.values():
        sigma = torch.linalg.svdvals(layer.P)  # (C, ranks)
        longest = sigma[:, 0].max()
        ratios.append(torch.where(sigma[:, 0] > 0.05 * longest, sigma[:, 1] / sigma[:, 0].clamp(min=1e-9), 0.0))
    return torch.stack(ratios).amax(dim=0)


one_layer = pdh.shipped("apd/resid_mlp_1_rank4", "top_k1")
fig, axes = pdh.plots.figure(9, 3.1, 1, 2, sharex=True)
medians = []
for ax, run, title in zip(axes[0], (one_layer, full), ("one layer, top-k 1", "two layers, top-k 1.28"), strict=True):
    owner, ratio = analysis.feature_components(run), second_piece(run)
    doubled = torch.tensor(list(analysis.doubled(owner)))
    single = torch.tensor([c for c in owner.unique().tolist() if c not in doubled])
    ax.hist(ratio[single], bins=30, range=(0, 1), color=pdh.plots.color(0), alpha=0.7, label="first for one feature")
    ax.plot(
        ratio[doubled],
        torch.full((len(doubled),), 3.0),
        "v",
        ms=8,
        color=pdh.plots.color(1),
        mec="0.1",
        label="first for two",
    )
    ax.set(xlabel="second largest singular value over the largest", ylabel="components", yscale="log")
    ax.set_title(title, fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
    medians.append(f"{title}: {ratio[single].median():.2f} and {ratio[doubled].median():.2f}")
axes[0, 0].legend(frameon=False, fontsize=9)
pdh.show(
    fig,
    alt="Histograms of the largest ratio of second to first singular value in components that come first for one feature, and marks "
    f"for those that come first for two. Medians for one feature and for two, {'; '.join(medians)}.",
)

# %% [markdown]
# Most components for one feature have rank one by themselves, or nearly: that is what the Schatten norm is for. Those for two have a second piece. With one layer it is almost as large as the
# first. So a limit of one should leave the former alone, and make the latter impossible. That is the paper's appendix C.4.
#
# ## The rank lab
#
# The slider moves over the decompositions of this network that come with the package. Watch the squares in the third panel, and the
# number in bold.

# %%
at_top_k = [
    pdh.shipped(entry["name"], entry["variant"])
    for entry in shipped.manifest()["runs"]
    if entry["name"] in ("apd/resid_mlp_2", "apd/resid_mlp_2_rank1") and entry["config"].get("top_k", 1.28) == 1.28
]
by_rank = sorted(at_top_k, key=lambda run: run.config.rank)
runs = {"full" if run.config.rank == config.rank else run.config.rank: run for run in by_rank}  # rank → run
errors = {"full": errors_full} | {
    key: analysis.single_feature(run, N, Generator().manual_seed(0))
    for key, run in progress(runs.items(), total=len(runs), description="single features", unit="run")
    if key != "full"
}

pdh.widgets.SharingLab(runs, errors, "rank", "full")

# %%
rows = {}
for key, run in runs.items():
    rows[key] = {
        "components first for two features": run.metrics["n_doubled"],
        "features with a component of their own": run.metrics["n_own"],
        "features split over two": int(is_split(run).sum()),
        "error, one component": f"{errors[key].top_1.mean():.1e}",
        "error, batch top-k": f"{errors[key].batch_top_k.mean():.1e}",
        "training, minutes": f"{run.seconds / 60:.0f}",
    }
pd.DataFrame(rows).rename_axis("rank", axis=1)

# %% [markdown]
# **At rank one nothing is doubled**: 100 features, 100 components, as the argument said. It also takes a third of the time. Rank two is the worst of the
# three here: it has room for a second feature, and uses it more often than full rank does. We have one run of each.
#
# The paper claims a second benefit, that features are hardly split any more. We see less of it. There are fewer split features, but
# not few; the error with one component is smaller, but not small. The argument does not promise it either: a rank-one mechanism can be copied like any other.
# Here our run differs from the paper's, and we do not know why. The paper's other remedy is a smaller top-k. With rank one that should be safe:
# the price for too small a top-k was doubling, and doubling is now out.
#
# ### Do the split ones part at the seam now?

# %%
pair = analysis.feature_attributions(rank_1).topk(2, dim=1)
split_1 = is_split(rank_1)
in_first_1, in_second_1 = (layer_0_of(rank_1, pair.indices[:, k])[split_1] for k in range(2))
print(f"{int(split_1.sum())} split features; share of layer 0 in first and second component: ", end="")
print(
    f"correlation {torch.corrcoef(torch.stack([in_first_1, in_second_1]))[0, 1]:.2f}, mean difference {(in_first_1 - in_second_1).abs().mean():.2f}"
)

# %% [markdown]
# Many of them, yes. At full rank the second component was a copy. At rank one it often takes the other layer: the mean difference of the two shares is almost one half.
# **These are the cross-layer mechanisms that APD did break in two.** Why this happens at rank one and not at full rank we do not know.
#
# ## Who gets more components?
#
# Figure 23: the mean number of active components against the error with only one.

# %%
fig, axes = pdh.plots.figure(9, 3.4, 1, len(runs), sharex=True, sharey=True)
for c, (ax, key) in enumerate(zip(axes[0], runs, strict=True)):
    pdh.plots.active_components(ax, errors[key], look="o^sX"[c % 4], c=c).set_title(f"rank: {key}", fontsize=10)
    if c:
        ax.set_ylabel("")
    if c != len(runs) // 2:
        ax.set_xlabel("")
correlation = {key: torch.corrcoef(torch.stack([errors[key].top_1, errors[key].n_active]))[0, 1].item() for key in runs}
pdh.show(
    fig,
    alt="Mean number of active components against the error with one component, a point for each feature: "
    + "; ".join(
        f"rank {key}, from {errors[key].n_active.min():.2f} to {errors[key].n_active.max():.2f} components, correlation "
        f"{correlation[key]:.2f}"
        for key in runs
    )
    + ".",
)

# %% [markdown]
# ## Trained at top-k 1
#
# Figure 22 is the picture of figure 21 for a decomposition that was trained at top-k 1. **Predict before you run:** notebook 08 saw
# features come to share components at top-k 1. Here as well?

# %%
at_1 = pdh.shipped("apd/resid_mlp_2", "top_k1")
fig, alt = pdh.plots.feature_errors(analysis.single_feature(at_1, N, Generator().manual_seed(0)), 1.0)
pdh.show(fig, alt)
for name, each in (("1.28", full), ("1", at_1)):
    print(
        f"top-k {name}: {int(is_split(each).sum())} features split, {each.metrics['n_doubled']} components first for two, "
        f"{each.metrics['n_own']} features with a component of their own"
    )

# %% [markdown]
# Fewer features are split, and one component alone does better: that is the paper's result. But its price, more components that serve two
# features, is not there. A guess why: our preset begins with room for four components an input (`top_k_start`) and comes down to top-k 1
# by half of training, when most features have found one.

# %% [markdown]
# ## Are layers privileged?
#
# The authors wish for a method that does not care about layers, and say that APD is not one (section 4.2.4). Its simplicity is about ranks and lengths
# of matrices, and matrices belong to layers. So a mechanism that is spread over two layers may cost more than the same computation in one. They offer this
# as a cause of imperfections, and expect that it costs most where something is in a layer *on its own*.
#
# How much more? Take a component with vectors $u$ and $v$ in one layer, and put half of its neurons into another. Each layer then has a $u$ that is shorter by
# $\sqrt 2$, and the price, a sum of $(\lVert u \rVert \lVert v \rVert)^{p_S}$, is $2 \cdot 2^{-p_S/2} = 2^{1 - p_S/2}$ times the old one. That is a surcharge of 46%
# at $p_S = 0.9$, and of nothing at $p_S = 2$. The other way round: we can take each trained component and put its two layers side by side as one.
#
# **Predict before you run.** If this surcharge did the damage, which features would be split, and whose share of which layer would be trimmed?


# %%
def surcharge(run: pdh.Run) -> Tensor:
    """Price of each feature's component over the price with all of its neurons in one layer, (100,)."""

    def price(M: Tensor) -> Tensor:  # the Schatten norm, by true singular values
        return torch.linalg.svdvals(M).clamp(min=1e-9).pow(run.config.schatten_p).sum(dim=-1)

    P = {path: layer.P.detach() for path, layer in run.components.layers.items()}
    reads = torch.cat([P["mlps.0.W_in"], P["mlps.1.W_in"]], dim=1)  # (C, 50, 200): more neurons
    writes = torch.cat([P["mlps.0.W_out"], P["mlps.1.W_out"]], dim=2)
    return (sum(price(M) for M in P.values()) / (price(reads) + price(writes)))[analysis.feature_components(run)]


by_share, summary = {}, {}
even = 1 - (2 * in_target - 1).abs()  # 1 where the target has half of a feature in each layer, 0 where all is in one
for name, each in (("full rank", full), ("full rank, top-k 1", at_1), ("rank 1", rank_1)):
    extra, whole_ones = surcharge(each), ~is_split(each)
    found_share = share_of_layer_0(analysis.contributions(each).components)
    r_split = torch.corrcoef(torch.stack([even, (~whole_ones).float()]))[0, 1].item()
    summary[name] = {"surcharge, median": f"{extra.median() - 1:.0%}", "evenness and being split, r": f"{r_split:.2f}"}
    for lower, upper in itertools.pairwise(edges):
        here = (in_target > lower) & (in_target <= upper) & whole_ones
        by_share[name, f"{lower:g} to {upper:g}"] = {
            "whole features": int(here.sum()),
            "share of layer 0 in the target": in_target[here].mean().item(),
            "in the component": found_share[here].mean().item(),
        }
pd.DataFrame(summary).T

# %%
pd.DataFrame(by_share).T.rename_axis(["run", "share of layer 0"]).style.format("{:.2f}").format(
    "{:.0f}", subset=["whole features"]
)

# %% [markdown]
# **They are privileged.** The price of a trained component is a sixth to a fifth higher than with all of its neurons in one layer. (Less than 46%, since
# features are not all spread evenly, and a component need not read and write the same in both layers.) Is that the cause of anything that we saw?
#
# - **Of splitting: no.** By the formula, features that are spread evenly pay the highest surcharge. They are not split more often. The correlations are near 0.
# - **Of trimming: in part.** With $p_S$ near 1 a small part is the worst bargain, since it costs much for the little that it does. So the surcharge should remove a feature's *minor* layer, whichever that is. It does
#   where the minor one is layer 0 (first rows of each run): a fifth of the work in the target, and next to nothing in the component. Where it is layer 1 (last rows) the parts survive. And in the middle rows, where
#   the surcharge favours neither, components lean to layer 1 all the same.
#
# So something else pulls towards layer 1. One asymmetry there is: whatever layer 0 writes, layer 1 reads, so what a component does in layer 0 disturbs more. We have not tested that.
# Nor is there an easy way out: at $p_S = 2$ no layer is privileged, but then the price does not care about rank either.
#
# ## Beside the paper

# %%
alone, in_all = (halves_42[kind][0, 42].item() for kind in ("topk", "target"))
beside = [
    [
        "figure 10",
        "neurons of both layers, the right ones",
        f"correlation {contributions.r:.2f} over all features",
        "–",
    ],
    ["figure 21", "some features need two components", f"{int(split.sum())} are split", "–"],
    [
        "figure 22",
        "fewer split, more doubled",
        f"{int(is_split(at_1).sum())} split, {at_1.metrics['n_doubled']} doubled",
        "a guess, above",
    ],
    ["figure 23", "more error, more components", f"correlation {correlation['full']:.2f}", "–"],
    ["figure 24", "component 42 alone is nearly the target", f"{alone:.2f} of {in_all:.2f}", "our 42 is split"],
    [
        "figure 25",
        "9.1e-5, 4.0e-4, 8.3e-4, 1.55e-3",
        ", ".join(f"{getattr(scrubbed, kind).mean():.2e}" for kind in names),
        "scrubbed: unknown",
    ],
    ["C.4, doubled at rank 1", "none", str(rank_1.metrics["n_doubled"]), "–"],
    ["C.4, split at rank 1", "almost none", str(int(split_1.sum())), "unknown"],
    [
        "4.2.4, layers",
        "slightly privileged",
        f"surcharge of {summary['full rank']['surcharge, median']}",
        "measured here",
    ],
]
pd.DataFrame(beside, columns=["", "paper", "here", "why different"]).set_index("")

# %% [markdown]
# Everything in which our settings differ from the paper's:

# %%
from IPython.display import Markdown

preset = pdh.preset("apd/resid_mlp_2")
lines = "\n".join(f"| `{name}` | {getattr(preset.config, name)} | {why} |" for name, why in preset.differs.items())
Markdown(f"| setting | here | the paper's, and why not here |\n|---|---|---|\n{lines}")

# %% [markdown]
# ## Exercises
#
# ### 1 · Which layer does the work?
#
# `contributions` (features, neurons) has the neurons of `n_layers` layers side by side. For each feature, which share of the *positive* contributions
# is in each layer? *Difficulty: gentle. Time: 8 minutes.*


# %%
def layer_shares(contributions: Tensor, n_layers: int) -> Tensor:
    """Shares that add up to 1 for each feature, (features, n_layers)."""
    ### BEGIN SOLUTION
    positive = contributions.clamp(min=0).unflatten(1, (n_layers, -1)).sum(dim=2)
    return positive / positive.sum(dim=1, keepdim=True)
    ### END SOLUTION


# %%
pdh.checks.layer_shares(layer_shares)

# %% [markdown]
# ### 2 · How much does a rank keep?
#
# Which share of the squared length $\lVert P \rVert^2$ (the sum of all squared entries) does the best approximation of `P` by a matrix of this rank keep? It is made of the largest
# singular values. *Difficulty: gentle. Time: 5 minutes.*


# %%
def kept_by_rank(P: Tensor, rank: int) -> Tensor:
    """A number between 0 and 1."""
    ### BEGIN SOLUTION
    squared = torch.linalg.svdvals(P).square()
    return squared[:rank].sum() / squared.sum()
    ### END SOLUTION


# %%
pdh.checks.kept_by_rank(kept_by_rank)

# %% [markdown]
# ## Questions a careful reader asks
#
# <details><summary>Could a component of rank one not serve two features of opposite sign? It reads one number, but that number has a sign.</summary>
#
# It could try: it reads feature i as positive and feature j as negative. But then the ReLU lets only one of the two through in each neuron.
# A neuron that reads +1 of feature i and −1 of feature j is silent for positive j, and positive is where j needs it. With neurons of either sign it could switch on
# different neurons for i and j; but P_out of rank one still writes one pattern. (In notebook 07 the lines with a feature at either end were just
# such components, and they were poor ones.)
# </details>
#
# <details><summary>If rank one works better and is cheaper, why not always?</summary>
#
# Because real mechanisms need not have rank one. A layer that rotates a plane has rank two, and a rank-one method finds two parts that are only ever used
# together. SPD makes this choice all the same: its components (notebook 12) have rank one, and which of them belong together is left for afterwards.
# </details>
#
# <details><summary>Why should the two layers' parts be one component and not two that happen to be on together?</summary>
#
# For this network it is a matter of description: two parts that are always on together and one part that spans both compute the same. Top-k decides for one part,
# since that takes one place. SPD decides for two, one for each matrix.
# </details>
#
# <details><summary>What does "mechanism" mean if half of the features have two copies of it?</summary>
#
# The sum of the copies. What the copies show is that APD's losses do not single out one way to cut the weights: a feature in one component, or
# in two with the same neurons, costs nearly the same once there is room in the top-k.
# </details>
#
# ## When something looks wrong
#
# <details><summary>My component has one layer only</summary>
#
# Look at the target: if nine tenths of the feature are in that layer, the rest may have been trimmed. If not, look for a second component with a large attribution.
# </details>
#
# <details><summary>Many features share components, even at rank one</summary>
#
# Then they do so in name only: for some features the largest attribution belongs to somebody else's component, since they have none. Look at the error with the batch
# top-k. Our preset begins with a larger top-k (`top_k_start`) so that fewer features end up like this.
# </details>
#
# **Next:** [10 · A network whose answer we wrote](10_apd_gated_functions.ipynb) counts how often APD succeeds.
