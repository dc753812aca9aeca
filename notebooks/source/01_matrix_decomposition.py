# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 01 · Matrix decomposition
#
# **The question:** a network is made of matrices, and there are classical ways to take a matrix apart. Why not use those?
#
# *After this notebook you can* write a matrix as a sum of rank-one terms in four ways, say what each term reads and writes,
# forward and backward, prove that two terms cannot name five arrows, and explain why a matrix alone does not say how it wants to be
# cut.
#
# | read | do | run on two cores | before this | difficulty |
# |---|---|---|---|---|
# | 15 minutes | 20 minutes | {{minutes}} | [00 · Start here](00_start_here.ipynb) | gentle |

# %%
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

import pd_helpers as pdh
from pd_helpers.analysis import metrics
from pd_helpers.course.matrix_decomposition import ideas as fz

# %% [markdown]
# ## Five arrows
#
# Here is a matrix with two rows and five columns. You may recognise it from notebook 00; forget for a while what it came from, and take it as a matrix. Each
# column is a point in the plane, and we draw it as an arrow.

# %%
W = fz.five_arrows()  # (2, 5)
fig, axes = pdh.plots.figure(9, 3.4, 1, 2, width_ratios=[1, 1.3])
pdh.plots.columns(axes[0, 0], W).set_title("columns of W", fontsize=10)
pdh.plots.matrix(axes[0, 1], W, limit=1.5).set_title("W", fontsize=10)
lengths = W.norm(dim=0)
pdh.show(
    fig,
    alt=f"Left: the five columns of W as arrows, with nearly equal lengths of {lengths.min():.2f} to {lengths.max():.2f}, pointing to the corners of a regular pentagon. "
    "Right: W as a table of two rows and five columns.",
)

# %% [markdown]
# Think of $W$ as a machine: it takes five numbers $x$ and gives a point $W x$ in the plane,
#
# $$W x = \sum_j x_j\, W_{:,j} .$$
#
# Number $j$ says how far to go along arrow $j$. A human who looks at the picture sees five things. **Can a method that is given nothing but $W$ see
# them?**
#
# ## Rank-one terms
#
# The simplest matrix is a product of a column and a row, $P = u\,v^\top$. It has **rank one**: all of its columns are multiples of $u$, so all its arrows lie on one line. It does one
# thing:
#
# $$P x = u\,(v^\top x) .$$
#
# First it **reads** one number, $v^\top x$: how much of $v$ is in $x$? Then it **writes** that much of $u$. Every method in this notebook writes $W$ as a sum
# of such terms. The methods differ in the terms that they choose.
#
# ## Singular vectors
#
# The classical choice is the **singular value decomposition** (SVD),
#
# $$W = \sum_{c=1}^{R} \sigma_c\, u_c v_c^\top, \qquad \sigma_1 \ge \sigma_2 \ge \dots > 0,$$
#
# with write directions $u_c$ at right angles to each other, and read directions $v_c$ too. $R$ is the **rank** of $W$. Ours has two rows, so $R = 2$. And it is the best there
# is in one respect: no other sum of as few rank-one terms comes as close to $W$.
#
# **Predict before you run.** Two terms, each with all of its arrows on one line. Will an arrow of $W$ lie on one of these lines?

# %%
u, sigma, v = torch.linalg.svd(W, full_matrices=False)  # (2, 2), (2,), (2, 5)
singular_terms = torch.einsum("ic,c,cj->cij", u, sigma, v)  # (2, 2, 5): term c is σ_c u_c v_cᵀ
print("singular values:", sigma.numpy().round(3))
print(f"largest difference between the sum of both terms and W: {(singular_terms.sum(dim=0) - W).abs().max():.0e}")

fig, axes = pdh.plots.figure(9, 3.1, 1, 3)
for ax, part, title in zip(
    axes[0], (*singular_terms, singular_terms.sum(dim=0)), ("first term", "second term", "both"), strict=True
):
    pdh.plots.columns(ax, W, colors=["0.85"] * 5, width=5)
    pdh.plots.columns(ax, part, labels=False).set_title(title, fontsize=10)
share = metrics.column_shares(singular_terms, W)
pdh.show(
    fig,
    alt="Columns of the first singular term, of the second, and of their sum, over those of W in grey. The columns of each term lie on one line, and the two lines are perpendicular. "
    f"The share of the arrows in the first term: {', '.join(f'{s:.2f}' for s in share[0].tolist())}.",
)

# %% [markdown]
# The sum is exact, but the terms are not the arrows. Arrow 0 happens to lie close to one of the two lines; all others are cut in two, and each term holds pieces of several.
#
# Worse, the two singular values are nearly equal. When they are exactly equal, *any* pair of perpendicular directions is as good as any other. The pentagon has no preferred
# axes, so where these two lines point is an accident.

# %% [markdown]
# ### Reading and writing, forward and backward
#
# One thing about singular vectors is worth keeping, whatever becomes of the method. $v$ reads and $u$ writes: that is the **forward** direction, from $x$ to $h = W x$. When a network is
# trained, a gradient comes back: $g$, which says how the loss changes with $h$. It is passed on to $x$ through the same matrix, transposed:
#
# $$W^\top g = \sum_c \sigma_c\, v_c\,(u_c^\top g) .$$
#
# **Backward the roles are swapped.** $u$ reads the gradient, and $v$ writes. And the matrix itself is told to change by
#
# $$\frac{\partial L}{\partial W} = g\, x^\top ,$$
#
# which is of rank one, for one input: its read direction is *what came in*, and its write direction is *where the gradient points*.
#
# A term $u v^\top$ of a sum is pulled the same way, since $\partial L / \partial v = (u^\top g)\, x$ and $\partial L / \partial u = (v^\top x)\, g$. **Read directions are
# pulled towards the inputs, and write directions towards the gradients of the output.** (You may read it the other way round, that right singular vectors *update to
# align with the output* and left ones with the input. That is wrong about directions. The output, through $u^\top g$, only decides *how far* $v$ moves.)
#
# **Predict before you run.** We let one arrow, $x = e_3$, come in, and ask the point $W x$ to be at $(1, 1)$. Which columns of $W$ will the gradient change?

# %%
weight = W.clone().requires_grad_()
x = torch.eye(5).double()[3]
h = weight @ x  # forward
h.retain_grad()
(h - torch.ones(2).double()).square().sum().backward()  # a loss: squared distance from (1, 1)

print("rank of the gradient:", torch.linalg.matrix_rank(weight.grad).item())
print("equal to g xᵀ:", torch.equal(weight.grad, torch.outer(h.grad, x)))

u_1, v_1 = (sigma[0] * u[:, 0]).requires_grad_(), v[0].clone().requires_grad_()  # the first singular term, now trained
both = singular_terms[1] + torch.outer(u_1, v_1)  # W again
(both @ x - torch.ones(2).double()).square().sum().backward()
for name, gradient, direction in (("v, x", v_1.grad, x), ("u, g", u_1.grad, h.grad)):
    print(
        f"{name}: cosine of their gradient and direction {torch.cosine_similarity(gradient, direction, dim=0).abs():.3f}"
    )
weight.grad.numpy().round(3) + 0.0

# %% [markdown]
# Only column 3. Inputs that come one at a time change the arrows one at a time. So *training* does see five arrows, even if the SVD of the result does not. Where does it get
# that from? **From the inputs.** Hold on to this thought.

# %% [markdown]
# ## Nothing negative
#
# The lines of the SVD are perpendicular and have two ends. An arrow has one. **Non-negative matrix factorisation** (NMF) forbids negative numbers in both $u$ and $v$: parts can only be
# added, never subtracted, and that is known to give parts that people recognise, such as the eyes and noses of faces.
#
# Our $W$ has negative entries, so scikit-learn refuses it as it is. The usual way out is to write it as four rows without signs, right, up, left and down:

# %%
from sklearn.decomposition import NMF

stacked = torch.cat([W.clamp(min=0), (-W).clamp(min=0)])  # (4, 5), none negative
try:
    NMF(2).fit(W.numpy())
except ValueError as error:
    print("W itself:", str(error).split(".")[0])

rows = []
for n_terms in range(1, 6):
    nmf_terms = fz.nmf_terms(W, n_terms)  # (n_terms, 2, 5): NMF of the four rows, and back to two
    rows.append([fz.left_over(nmf_terms, W), fz.terms_used(nmf_terms, W).mean().item()])
table = pd.DataFrame(rows, columns=["missing (share of squared length)", "terms used by an arrow"], index=range(1, 6))
table.rename_axis("NMF terms").round(3)

# %%
fig, axes = pdh.plots.figure(9, 3.1, 1, 4)
four_terms = fz.nmf_terms(W, 4)
for c, (ax, term) in enumerate(zip(axes[0], four_terms, strict=True)):
    pdh.plots.columns(ax, W, colors=["0.75"] * 5, width=4, reach=0.35, limit=1.6)
    pdh.plots.columns(ax, term, labels=False, limit=1.6).set_title(f"NMF term {c}", fontsize=10)
    ax.set(xticklabels=[], yticklabels=[])
term_directions = four_terms.sum(dim=2) / four_terms.sum(dim=2).norm(dim=1, keepdim=True)
pdh.show(
    fig,
    alt="The four terms of the non-negative factorisation, over W in grey. Each one's arrows point in one direction: "
    + "; ".join(f"({a:.2f}, {b:.2f})" for a, b in term_directions.tolist())
    + ". Every arrow of W is put together from two of them.",
)

# %% [markdown]
# With four terms it is exact, and what has it found? Right, left, up and down: **the axes of the page**, not the arrows. NMF depends on the coordinates. Turn the pentagon, and it finds other parts
# of other arrows. And a network's hidden coordinates mean nothing: turning the hidden plane changes no output.
#
# It is the same with five terms. There would be enough of them to give every arrow one of its own, that solution is exact too, and the method does not find it. Nothing makes it
# look for it.

# %% [markdown]
# ## Two terms cannot name five arrows
#
# Perhaps we only need a better method with two terms? No.
#
# Let us say that a term **names** an arrow if it makes that arrow all alone: the other terms have nothing in that column. A term of rank one has all its columns on one line. So two
# arrows that are named by the same term must lie on the same line. Our five arrows lie on five different lines, so **five need five terms**. More generally: at most as many directions can be
# named as there are terms, and an exact decomposition with only rank-many terms (two, here) must *mix*.
#
# How badly does it go if we insist? Below, each arrow must be in exactly one term, and we try all ways to group the arrows. Within a group the best line is the group's own first singular
# vector.

# %%
counts = range(1, 6)
svd_error = [fz.left_over(fz.svd_terms(W, n), W) for n in counts]
one_each = [fz.one_term_each(W, n) for n in counts]
one_error = [fz.left_over(terms, W) for terms, _ in one_each]

fig, axes = pdh.plots.figure(9, 3.3, 1, 2, width_ratios=[1.4, 1])
ax = axes[0, 0]
ax.plot(counts, svd_error, "o-", color=pdh.plots.color(0), label="singular vectors: arrows may use all terms")
ax.plot(counts, one_error, "s--", color=pdh.plots.color(1), label="each arrow in one term")
ax.set(xlabel="number of rank-one terms", ylabel="missing share of squared length", xticks=counts, ylim=(-0.02, 0.75))
ax.legend(frameon=False, fontsize=9, loc="upper right")
ax.spines[["top", "right"]].set_visible(False)
two, groups = one_each[1]
pdh.plots.columns(axes[0, 1], W, colors=["0.85"] * 5, width=5)
for c, term in enumerate(two):
    pdh.plots.columns(axes[0, 1], term, colors=[pdh.plots.color(c)] * 5, labels=False, style=["-", "--"][c])
axes[0, 1].set_title("the best with two terms", fontsize=10)
pdh.show(
    fig,
    alt=f"Left: missing share of the squared length against the number of terms. Singular vectors: {svd_error[0]:.2f} with one, zero from two on. One term for each arrow: "
    f"{', '.join(f'{e:.3f}' for e in one_error[:4])}, and zero with five. Right: with two terms, arrows {groups[0]} share one line and {groups[1]} another.",
)

# %% [markdown]
# To *copy* $W$, two terms are enough. To *name* its arrows it takes five. That is more terms than the rank: such a sum is called **overcomplete**. The SVD stops at the rank, so it can never get there.

# %% [markdown]
# ## Overcomplete sums
#
# So let us take five terms. Here the trouble is of the opposite kind: there are far too many ways.
#
# **Predict before you run.** We draw five directions $u_c$ at random. Can you find rows $v_c$ so that $\sum_c u_c v_c^\top$ is *exactly* $W$?

# %%
columns = torch.einsum("ij,cj->cij", W, torch.eye(5).double())  # term c: column c of W, zeros elsewhere
sums = {"its columns": columns}
for seed in (0, 1):
    sums[f"random directions, seed {seed}"] = fz.overcomplete(W, 5, torch.Generator().manual_seed(seed))

fig, axes = pdh.plots.figure(9, 3.2, 1, 3)
for ax, (name, terms) in zip(axes[0], sums.items(), strict=True):
    pdh.plots.columns(ax, W, colors=["0.85"] * 5, width=5, labels=False)
    for c, term in enumerate(terms):
        pdh.plots.columns(
            ax, term, colors=[pdh.plots.color(c)] * 5, labels=False, style=["-", "--", "-.", ":", "-"][c], width=1.6
        )
    ax.set_title(name, fontsize=10)
pdh.show(
    fig,
    alt="Three sums of five rank-one terms, each term in its colour, over W in grey. Its columns: every colour is one whole arrow. The two random sums: five lines in random "
    "directions, with all five arrows in pieces on each of them.",
)
pd.DataFrame(
    {
        "terms": [len(t) for t in sums.values()],
        "missing": [f"{fz.left_over(t, W):.0e}" for t in sums.values()],
        "terms used by an arrow": [fz.terms_used(t, W).mean().item() for t in sums.values()],
    },
    index=list(sums),
)

# %% [markdown]
# Any five directions will do, unless all lie on one line. From the point of view of $W$ all of these are equally good: exact, five terms, rank one each. What makes the first one special is the last column of the table: an arrow
# needs *one* term, and so an input with one number on needs one.
#
# And that is not a property of $W$. It is a property of $W$ **and of the inputs**. If all five numbers were always on together, every
# input would need every term, and then the two terms of the SVD would be the shortest way to say it.
#
# ## Given data as well
#
# There are classical methods that look at data, so let us give them some: points $W x$ for sparse inputs $x$. **Independent component analysis** (ICA) looks for directions
# whose amounts are independent, as our five numbers are. **Sparse dictionary learning** looks for directions of which each point needs few.
#
# **Predict before you run.** We ask both for five directions. Will they find the five arrows?

# %%
import warnings

from sklearn.decomposition import FastICA, MiniBatchDictionaryLearning
from sklearn.exceptions import ConvergenceWarning

inputs = pdh.TMSConfig().features()(8000, torch.Generator().manual_seed(0)).double()  # each number on with p = 0.05
points = (inputs[inputs.any(dim=1)] @ W.T).numpy()  # (1774, 2)

with warnings.catch_warnings(record=True) as complaints:
    warnings.simplefilter("always")
    ica = FastICA(5, random_state=0).fit(points)
print("ICA says:", complaints[0].message)

directions = {"ICA": torch.from_numpy(ica.mixing_.T)}
for seed in (0, 1, 2):
    dictionary = MiniBatchDictionaryLearning(
        5, alpha=0.2, fit_algorithm="cd", positive_code=True, max_iter=20, batch_size=64, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        directions[f"sparse dictionary, seed {seed}"] = torch.from_numpy(dictionary.fit(points).components_)
best_cosines = {}
for name, found in directions.items():
    cosines = F.normalize(found, dim=1) @ F.normalize(W, dim=0)  # of each direction with each arrow
    best_cosines[name] = [len(found), *(cosines.abs() if name == "ICA" else cosines).amax(dim=0).tolist()]
pd.DataFrame(best_cosines, index=["directions", *(f"arrow {j}: best cosine" for j in range(5))]).T.round(3)

# %% [markdown]
# ICA gives two directions, because it first whitens the data and then only turns them: in a plane it can never return more than two. Here one of them lies on an arrow, the other on none, and which
# arrow it is depends on the sample. Sparse dictionary learning is free to be overcomplete, and finds all five. It uses the inputs' sparsity, the very thing the matrix alone lacks.
#
# Sparse autoencoders do this with *activations*, such as the points $W x$. The methods of this course do it with the *weights*: what they return adds up to $W$, so that we know how
# the network makes its output and not only which directions occur in it.
#
# ## The lab: rank and number of terms
#
# Choose a method and a number of terms. Left, the terms in colour and their sum in black; right, which share of each arrow is in which term.
#
# Things to try:
#
# 1. *Singular vectors*, two terms, then three. Where is the third?
# 2. *Non-negative factors* with one term. Why is nearly everything missing?
# 3. *One term for each arrow*, from one to five. When does the table on the right become the identity?
# 4. *Random directions*: with one term, with two, with five. Some shares are negative. What does that mean?

# %%
pdh.widgets.TermsLab(W)

# %% [markdown]
# <details><summary>What you should have seen</summary>
#
# 1. There is none: the rank is two, and two terms are exact.
# 2. One non-negative term of the *four rows* goes right, up, left and down at once. Put together again, right and left cancel.
# 3. With five.
# 4. One cannot be exact; from two on all are. A negative share: that term pushes the arrow back, because others have pushed it too far. Terms work against one another.
# </details>

# %% [markdown]
# ## What we are looking for
#
# Three demands came up, and the rest of the course is about them:
#
# | demand | here | SVD | NMF | random sum | columns |
# |---|---|---|---|---|---|
# | **faithful** | the terms add up to $W$ | yes | from four terms on | yes | yes |
# | **simple** | each term is of low rank | yes | yes | yes | yes |
# | **minimal** | each input needs few terms | no | no | no | **yes** |
#
# The first two can be checked by looking at the matrix. The third needs the inputs, and that is what the two methods of this course, APD and SPD, do: they look for an overcomplete sum by watching what the
# network *does* on its data.

# %% [markdown]
# ## Exercises
#
# ### 1 · The terms of the SVD
#
# Return all terms $\sigma_c u_c v_c^\top$ of a matrix, the largest $\sigma_c$ first. *Difficulty: gentle. Time: 5 minutes.*


# %%
def svd_terms(W: Tensor) -> Tensor:
    """W (d_out, d_in) → terms (rank, d_out, d_in); torch.linalg.svd(W, full_matrices=False) gives u, σ and vᵀ."""
    ### BEGIN SOLUTION
    u, sigma, v = torch.linalg.svd(W, full_matrices=False)
    return torch.stack([sigma[c] * torch.outer(u[:, c], v[c]) for c in range(len(sigma))])
    ### END SOLUTION


# %%
pdh.checks.svd_terms(svd_terms)

# %% [markdown]
# ### 2 · How many terms does an arrow use?
#
# For every column $j$: how many terms have a column $j$ that is longer than `tolerance`? *Difficulty: gentle. Time: 5 minutes.*


# %%
def terms_used(P: Tensor, tolerance: float) -> Tensor:
    """Terms P (C, d_out, d_in) → a count for each column, (d_in,)."""
    ### BEGIN SOLUTION
    lengths = P.norm(dim=1)  # (C, d_in)
    return (lengths > tolerance).sum(dim=0).double()
    ### END SOLUTION


# %%
pdh.checks.terms_used(terms_used)

# %% [markdown]
# ### 3 · The gradient of a matrix
#
# $h = W x$, and $g$ is the derivative of the loss with respect to $h$. What is the derivative with respect to $W$? *Difficulty: gentle. Time: 3 minutes.*


# %%
def weight_gradient(g: Tensor, x: Tensor) -> Tensor:
    """g (d_out,), x (d_in,) → (d_out, d_in)."""
    ### BEGIN SOLUTION
    return torch.outer(g, x)
    ### END SOLUTION


# %%
pdh.checks.weight_gradient(weight_gradient)

# %% [markdown]
# ## Questions a careful reader asks
#
# <details><summary>Can't I see the arrows in the columns? Why is this hard?</summary>
#
# Here you can, because the inputs come in a convenient basis: number $j$ *is* thing $j$. Deep in a network, the inputs of a matrix are hidden activations, and the things it responds to are directions in that space, not
# single coordinates. Nobody tells us which. Then the columns are as arbitrary as the rows.
# </details>
#
# <details><summary>The SVD is the best approximation there is. Isn't that what we want?</summary>
#
# It is best at copying with few terms. We are not short of terms. A description that uses five terms, one at a time, says more about what the matrix does for an input than one with two terms that are both always on.
# </details>
#
# <details><summary>Are read and write directions the right and left singular vectors?</summary>
#
# Yes: $v$, the right ones, read and $u$, the left ones, write, with $W$ acting on columns from the left. For a term of rank one they are fixed up to length and sign. For a sum of such terms they depend on how you cut it.
# </details>
#
# ## When something looks wrong
#
# <details><summary>My singular vectors point the other way</summary>
#
# The sign of a pair is free: $u v^\top = (-u)(-v)^\top$. And with nearly equal singular values, the directions themselves may differ.
# </details>
#
# <details><summary>NMF warns that it has not converged</summary>
#
# Give it more iterations (`max_iter`). The helper used here allows 20,000.
# </details>
#
# **Next:** [02 · Superposition](02_superposition.ipynb) trains the network that the five arrows come from.
