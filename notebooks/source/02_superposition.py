# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 02 · Superposition
#
# **The question:** how do five features live in two dimensions, and what are the mechanisms of the network that puts
# them there?
#
# *After this notebook you can* train a toy model of superposition, read its weights as arrows, predict which features
# disturb each other, and write down the ground-truth mechanisms that every decomposition method will be judged by.
#
# | read | do | run on two cores | before this | difficulty |
# |---|---|---|---|---|
# | 10 minutes | 15 minutes | {{minutes}} | [00 · Start here](00_start_here.ipynb) | gentle |

# %%
import torch
import torch.nn.functional as F

import pd_helpers as pdh
from pd_helpers.course.superposition import plots

# %% [markdown]
# ## Sparse data
#
# The world has more things in it than a layer has dimensions, but few of them are there at once. The toy data say
# exactly that. Each of $m_2$ features is on with a small **feature probability** $p$; when it is on, its value is uniform
# between 0 and 1; otherwise it is exactly zero.

# %%
features = pdh.TMSConfig().features()  # 5 features, p = 0.05
x = features(100_000, torch.Generator().manual_seed(0))  # (100000, 5)
on = x > 0
print("the first ten inputs with something on:")
print(x[on.any(dim=1)][:10])
print(f"\nshare of inputs with nothing on: {(~on.any(dim=1)).float().mean():.3f}, expected {0.95**5:.3f}")
print(f"share with two or more on:       {(on.sum(dim=1) > 1).float().mean():.3f}")

# %% [markdown]
# ## The network
#
# The toy model of superposition (Elhage et al. 2022) reads the features into $m_1 = 2$ hidden dimensions, writes
# them back with the *same* matrix transposed, and cuts off what is negative:
#
# $$\hat x = \mathrm{ReLU}(W^\top W x + b), \qquad W \in \mathbb{R}^{m_1 \times m_2}, \quad m_1 = 2,\; m_2 = 5.$$
#
# It is trained to return its input. Two dimensions can hold two features without any confusion. So:
#
# **Predict before you run.** Will the network keep two features perfectly and drop three, or squeeze in all five?

# %%
config = pdh.TMSConfig()  # the paper's: 5000 steps of AdamW, batches of 1024, learning rate 0.005
target = pdh.make_target(config, seed=0)
W, b = target.embed.weight, target.unembed.bias

fig, axes = pdh.plots.figure(9, 3.3, 1, 2)
pdh.plots.columns(axes[0, 0], W).set_title("columns of W", fontsize=10)
pdh.plots.matrix(axes[0, 1], W.T @ W, limit=1.5).set_title("WᵀW: what output i (row) gets from feature j", fontsize=10)
across, beside, own = (W.T @ W).sort(dim=1).values.mean(dim=0)[[0, 2, 4]].tolist()  # two, two and one in each row
pdh.show(
    fig,
    alt=f"Left: the five columns of W point to the corners of a regular pentagon. Right: the matrix WᵀW, about {own:.2f} on "
    f"the diagonal, {beside:.1f} between neighbouring corners, and {across:.2f} between corners further apart.",
)
print("b =", b.numpy().round(2), " column lengths:", W.norm(dim=0).numpy().round(2))

# %% [markdown]
# All five, as a **regular pentagon**: the five arrows of [notebook 01](01_matrix_decomposition.ipynb) were this network's $W$. Here is why that works:
#
# - on the diagonal of $W^\top W$, a feature reaches its own output with a factor of about 1.28;
# - corners far apart (144°) get about −1.04 from each other, and the ReLU cuts that off at no cost;
# - neighbours (72°) get +0.4 from each other. That is **interference**: a small lie. The bias of about −0.25 removes
#   most of it, which is why the diagonal has to be larger than 1.
#
# While features are rare, two neighbours are seldom on together, and the lie costs little. Is it always a pentagon?
# We trained this network from 100 seeds: every one gave a pentagon, with angles between 70.6° and 73.2°. (The APD paper
# calls training it brittle, though "to a lesser extent" than decomposing it.)

# %% [markdown]
# ## How sparse is sparse enough?
#
# **Predict before you run.** Now let features become more common. What happens to the pentagon at $p = 0.3$? At $p = 1$, when
# everything is always on?
#
# Move the slider. Each value trains a new network, live, in a second or two; moving on cancels it.

# %%
pdh.widgets.SparsityLab(config.replace(target_steps=2000), seed=0)

# %% [markdown]
# <details><summary>What you should have seen</summary>
#
# Up to about $p = 0.2$ the pentagon survives, with a smaller bias. Around 0.3 a feature drops out: its arrow shrinks
# to a point and its bias learns the feature's mean: interference now costs more than forgetting. With everything on no
# pattern is left, but arrows of all lengths. Superposition is a *bet on sparsity*.
# </details>

# %% [markdown]
# ### The map
#
# Two dimensions, as before. **Predict before you run:** with eight very rare features, how many are kept? And at the other
# end, where all eight are on in every input: are two perpendicular arrows left, one for each dimension?
#
# One network for each place of the map, trained beforehand (`python -m tools.ship tms/sparsity` takes some minutes). A
# feature is *kept* if its column is longer than 0.5; on grey ground, some are lost.

# %%
table = pdh.shipped_sweep("tms/sparsity", "phases")
kept = table.pivot(index="n_features", columns="feature_probability", values="represented")

fig, axes = pdh.plots.figure(9, 6.6)
plots.phases(axes[0, 0], table)
pdh.show(
    fig,
    alt="Columns of W as arrows, for 2 to 8 features (up) and feature probabilities from 0.01 to 1 (across), with the "
    f"number kept. Eight features: {', '.join(map(str, kept.loc[8]))}. Five: {', '.join(map(str, kept.loc[5]))}. "
    f"Three: {', '.join(map(str, kept.loc[3]))}.",
)
always_on = [row["W"] for row in table[table.feature_probability == 1].kept]
off_identity = max((W_on @ W_on.T - torch.eye(2)).abs().max().item() for W_on in always_on)
print(f"p = 1, all {len(always_on)} networks: W Wᵀ differs from the identity by at most {off_identity:.3f}")

# %% [markdown]
# Read the upper rows from left to right. Five of eight very rare features are kept, as a pentagon, and this training
# never squeezes in a sixth, however rare they are. At $p = 0.3$ the pentagon gives way to a cross of four, and at 0.75
# the cross gives way to three arrows. Five features in two dimensions, which the papers decompose, are the fullest case
# there is.
#
# Two perpendicular arrows are **not** what is left at $p = 1$, except in the row that has only two features. The arrows
# have all lengths there, so the number kept says little. What the networks of this column share is that
# $W W^\top$ is the identity, which makes $W^\top W$ a projection on a plane. The reason is that the bias can supply the
# mean of a feature that is always on, so only its variation about the mean is left to store. All features vary
# equally and independently, and two dimensions can carry any two variations or any two mixtures of them: every plane is
# as good as every other. Sparse features single out arrows; dense ones do not.

# %% [markdown]
# ## The ground-truth mechanisms
#
# If only feature $c$ is on, then $W x = W_{:,c}\, x_c$: no other column of $W$ is touched. So column $c$, alone in a
# matrix of zeros, is a fair candidate for "the part of the network that handles feature $c$" (equations 1 and 2 of the
# APD paper):
#
# $$Z^{(c)}_{:,j} = \begin{cases} W_{:,c} & j = c \\ 0 & \text{otherwise} \end{cases}
# \qquad\Longleftrightarrow\qquad Z^{(c)} = W_{:,c}\, e_c^\top .$$
#
# They are *faithful* (they add up to $W$) and *simple* (each has rank one). Are they *minimal*: can we throw away all
# the others and keep the output?


# %%
def mechanisms(W: torch.Tensor) -> torch.Tensor:
    """All Z(c) at once: (m2, m1, m2), one matrix per feature."""
    return torch.einsum("ic,cj->cij", W, torch.eye(W.shape[1]))


Z = mechanisms(W)
print("faithful: largest difference between the sum and W is", (Z.sum(dim=0) - W).abs().max().item())
print("simple:   ranks are", [torch.linalg.matrix_rank(z).item() for z in Z])

# %% [markdown]
# **Predict before you run.** On inputs where one feature alone is on, we run the network with $Z^{(c)}$ in the place
# of $W$. By equation 1 output $c$ must come out right. What about the neighbours' outputs?

# %%
values = torch.linspace(0, 1, 101)
changes = torch.zeros(5, 101)
fig, axes = pdh.plots.figure(9, 3.2, 1, 2)
for c in range(5):
    one = values[:, None] * torch.eye(5)[c]  # (101, 5): feature c from 0 to 1
    whole = target(one)
    alone = F.relu(one @ Z[c].T @ Z[c] + b)  # the same network with Z(c) instead of W
    axes[0, 0].plot(values, whole[:, c], color=pdh.plots.color(c), lw=5, alpha=0.3)
    axes[0, 0].plot(
        values, alone[:, c], color=pdh.plots.color(c), ls=["-", "--", "-.", ":", "-"][c], label=f"feature {c}"
    )
    changes[c] = (whole - alone).square().mean(dim=1)
    axes[0, 1].plot(values, changes[c], color=pdh.plots.color(c), ls=["-", "--", "-.", ":", "-"][c])
axes[0, 0].set(xlabel="value of the only feature on", ylabel="its own output")
axes[0, 0].set_title("W (thick) and Z alone (thin)", fontsize=10)
axes[0, 0].legend(frameon=False, fontsize=8)
axes[0, 1].set(xlabel="value of the only feature on", ylabel="mean squared error", ylim=(0, 0.02))
axes[0, 1].set_title("what replacing W by Z changes, over all outputs", fontsize=10)
quiet = values[(changes < 1e-6).all(dim=0)].max()
pdh.show(
    fig,
    alt="Left: each feature's own output against its value, the same with W and with its mechanism alone. Right: the mean "
    f"squared difference over all outputs is zero up to a value of about {quiet:.1f} and reaches about {changes[:, -1].mean():.2f} at 1, "
    "from the interference that the bias does not remove.",
)

# %% [markdown]
# The feature's own output is untouched. What changes is what the network got *wrong*: the neighbours' interference,
# which pokes above the bias once the feature is larger than about 0.6. The paper says that replacing $W$ by $Z^{(c)}$
# leaves the outputs "almost identical". Almost: the mean squared error is zero below 0.6 and about 0.01 at 1.
#
# Keep this in mind. A decomposition that is trained to copy the network's output will be pulled to copy its small
# mistakes too, and no $Z^{(c)}$ makes them.

# %% [markdown]
# How is it over the whole data distribution, with several features on at times? Use exactly the mechanisms of the
# features that are on, and nothing else.

# %%
inputs = features(100_000, torch.Generator().manual_seed(1))
masks = (inputs > 0).float()  # (100000, 5): mechanism c is used where feature c is on
components = pdh.decompose(target, {"embed": 5}, rank=1)
with torch.no_grad():  # hand-set U and V: component c is Z(c)
    components.layers["embed"].U.copy_(W.T[:, :, None])
    components.layers["embed"].V.copy_(torch.eye(5)[:, None, :])
    error = F.mse_loss(components(inputs, masks).output, target(inputs))
    nothing = F.mse_loss(components(inputs, torch.zeros_like(masks)).output, target(inputs))
print(f"mean squared error with only the mechanisms needed: {error:.2e}")
print(f"with no mechanism at all:                           {nothing:.2e}")
print(f"mechanisms used per input: {masks.sum(dim=1).mean():.2f} of 5")

# %% [markdown]
# `pdh.decompose` is the starting point of both methods: it keeps the target, gives each chosen layer its components
# $P_c = U_c V_c$ ($V_c$ reads, $U_c$ writes), and runs the network under any masks. Here we set $U$ and $V$ by hand. APD and SPD have to find them.
#
# One detail matters later. $W$ is *one* matrix used *twice*, as $W$ and as $W^\top$. Masking a component removes it in
# both places at once in APD, where a component is a vector in the space of all parameters; SPD masks each use on its
# own, since there a component belongs to one layer.

# %% [markdown]
# ## Exercises
#
# ### 1 · One mechanism
#
# Write $Z^{(c)}$ for one feature. *Difficulty: gentle. Time: 3 minutes.*


# %%
def mechanism(W: torch.Tensor, c: int) -> torch.Tensor:
    """Z(c): like W (m1, m2), but zero in every column except c."""
    ### BEGIN SOLUTION
    Z = torch.zeros_like(W)
    Z[:, c] = W[:, c]
    return Z
    ### END SOLUTION


# %%
pdh.checks.mechanism(mechanism)

# %% [markdown]
# ### 2 · The network in one line
#
# Write the forward pass for a batch of inputs, one per row. *Difficulty: gentle. Time: 5 minutes.*


# %%
def tms_output(W: torch.Tensor, b: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """x (batch, m2) → ReLU(WᵀW x + b) for every row, (batch, m2)."""
    ### BEGIN SOLUTION
    hidden = x @ W.T  # (batch, m1)
    return F.relu(hidden @ W + b)
    ### END SOLUTION


# %%
pdh.checks.tms_output(tms_output)

# %% [markdown]
# ## Questions a careful reader asks
#
# <details><summary>Why a pentagon, and not five arrows bunched together?</summary>
#
# Interference between two features is the inner product of their columns. A positive one leaks into the other's
# output; a negative one is cut off by the ReLU for free. Spreading the arrows as far apart as possible makes as few
# inner products positive as possible: each corner has only two harmful neighbours.
# </details>
#
# <details><summary>Could a decomposition use the singular vectors of W instead?</summary>
#
# $W$ has rank two, so its singular value decomposition has two terms. Both are faithful and have rank one, but every
# input needs both: not minimal. Five mechanisms in two dimensions need an *overcomplete* sum, with more terms than the
# rank.
# </details>
#
# <details><summary>Where is the bias in all this?</summary>
#
# Biases are not decomposed. Both methods treat them as one component that is always active. Strictly, the mechanism
# of feature $c$ also has a claim on entry $c$ of $b$.
# </details>
#
# <details><summary>Is Z(c) really "the" mechanism, or one choice among many?</summary>
#
# It is a choice that scores well on all three counts. But we saw it make no interference where the real network makes
# some. If you insist on copying the network to the last digit, small amounts of the neighbours' columns belong to
# every mechanism. Which of the two a method should find is a real question; notebook 07 shows APD's answer.
# </details>
#
# ## When something looks wrong
#
# <details><summary>My arrows form a square with one point in the middle</summary>
#
# Then $p$ is too large, or training was too short for all five to find a place. Go back to $p = 0.05$ and 5000 steps.
# </details>
#
# **Next:** [03 · Training the targets](03_training_the_targets.ipynb) trains the other networks that get decomposed; if
# you cannot wait, [07 · APD on superposition](07_apd_superposition.ipynb) looks for these mechanisms without being told.
