# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 06 · Attributions
#
# **The question:** which components did this input use, and can you find out without removing them one by one?
#
# *After this notebook you can* compute an attribution with one Jacobian–vector product, say what it estimates and what it
# does not, show an input on which it is badly wrong, check integrated gradients to sixteen digits, and unmask a
# decomposition that looks perfect and means nothing.
#
# | read | do | run on two cores | before this | difficulty |
# |---|---|---|---|---|
# | 30 minutes | 30 minutes | {{minutes}} | [05 · Description length](05_description_length.ipynb) | moderate |

# %%
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

import pd_helpers as pdh
from pd_helpers.analysis import ablation
from pd_helpers.core import attributions
from pd_helpers.course.attributions import plots

# %% [markdown]
# ## Three ways to cut a network
#
# Nothing has been trained to decompose anything yet. So we take the network of
# [notebook 02](02_superposition.ipynb),
#
# $$f(x) = \mathrm{ReLU}(W^\top W x + b), \qquad W \in \mathbb{R}^{2\times 5},$$
#
# and cut its $W$ into **components** $P_1, \dots, P_C$ that add up to it, in three ways:
#
# - **mechanisms**: $Z^{(c)}$, column $c$ of $W$ and zeros elsewhere. Five of them; we believe that these are right.
# - **singular vectors**: $\sigma_c\, u_c v_c^\top$, the terms of the singular value decomposition. Two of them.
# - **random split**: every entry of $W$ is divided among five components at random. Surely wrong.
#
# All numbers here are float64, so that "equal" can mean equal to sixteen digits.

# %%
target = pdh.make_target(pdh.TMSConfig(), seed=0).double()
W, b = target.embed.weight, target.unembed.bias
generator = torch.Generator().manual_seed(0)

Z = torch.einsum("ic,cj->cij", W, torch.eye(5).double())  # (5, 2, 5)
u, sigma, v = torch.linalg.svd(W, full_matrices=False)
S = torch.einsum("ic,c,cj->cij", u, sigma, v)  # (2, 2, 5)
share = torch.rand(5, *W.shape, generator=generator, dtype=torch.float64)
R = W * share / share.sum(dim=0)  # (5, 2, 5)

cuts = {"mechanisms": Z, "singular vectors": S, "random split": R}
for name, P in cuts.items():
    print(f"{name:16s} {len(P)} components; their sum differs from W by at most {(P.sum(dim=0) - W).abs().max():.0e}")

# %%
fig, axes = pdh.plots.figure(9, 3.1, 1, 3)
for ax, (name, P) in zip(axes[0], cuts.items(), strict=True):
    pdh.plots.columns(ax, W, colors=["0.85"] * 5, width=5)
    for c, (part, style) in enumerate(zip(P, ("-", "--", "-.", ":", "-"), strict=False)):
        pdh.plots.columns(ax, part, colors=[pdh.plots.color(c)] * 5, labels=False, style=style, width=1.6)
    ax.set_title(f"{name}: {len(P)} components", fontsize=10)
pdh.show(
    fig,
    alt="The columns of every component as arrows, one colour for each component, over those of W in grey. Mechanisms: each "
    "colour has one whole arrow. Singular vectors: all arrows of one colour lie on one line, and the two lines are "
    "perpendicular. Random split: every colour has five short arrows.",
)

# %% [markdown]
# Every one of these is faithful. What tells them apart is how many components an *input* needs.
#
# ## What "used" means: remove it and look
#
# The honest question to a component is: what happens without you? Write $\theta$ for the weights, here $W$. Then
#
# $$\Delta_c(x) = f(x \mid \theta) - f(x \mid \theta - P_c)$$
#
# is the **effect** of component $c$: one number for each output. In code it is a subtraction.

# %%
x = torch.zeros(1, 5).double()
x[0, 0] = 0.5  # feature 0 is on, all others are off


def effect_of_removing(P: Tensor, x: Tensor) -> Tensor:
    """f(x | W) − f(x | W − P): (inputs, outputs)."""
    rest = W - P
    return target(x) - F.relu(x @ rest.T @ rest + b)


full = torch.stack([effect_of_removing(P, x)[0] for P in Z])  # (components, outputs)
torch.testing.assert_close(full, ablation.ablated(target, x, {"embed": Z})[:, 0])
pd.DataFrame(full).round(3).rename_axis("mechanism").rename_axis("output", axis=1)

# %% [markdown]
# One feature is on; one mechanism matters; and it matters for its own output. That is what we want a decomposition to look like.
#
# This costs one forward pass for each component, which is still affordable. What is not: there are $2^C$ *sets* of
# components, and whether one of them matters may depend on which others are there.
#
# ## The first order: eq. 8
#
# Attribution-based Parameter Decomposition (APD), the method of the next notebook, uses a cheaper estimate. Do not remove $P_c$; only ask in which direction the output *starts*
# to move as the weights move along $P_c$. That is a derivative, and its root mean square over the $d$ outputs $o$ is the
# **attribution**
#
# $$A_c(x) = \sqrt{\frac{1}{d}\sum_o \Big(\sum_{i,j} \frac{\partial f_o(x)}{\partial \theta_{ij}}\, P_{c,ij}\Big)^2} .$$
#
# What does this cost? The paper's section 2.2 speaks of *one* backward pass. Its equation 8 needs more: the square is taken for each
# output $o$ before the sum over outputs, and one backward pass gives the gradient of one number only. So the paper's code works out
# $\partial f_o / \partial \theta$ with **one backward pass for each output**, and multiplies by $P_c$ afterwards. (A single pass is enough where the output is one number,
# or if you attribute to the loss.) There is another way. The inner sum is a **Jacobian–vector product**: the Jacobian of $f$, applied to the
# vector $P_c$. Forward-mode differentiation computes it for all outputs in one go, without the Jacobian ever being
# built: **one forward pass for each component**. Choose whichever there are fewer of, outputs or components.


# %%
def network(W: Tensor) -> Tensor:
    """The outputs for our input x, as a function of the weights."""
    return F.relu(x @ W.T @ W + b)


first = torch.stack([torch.func.jvp(network, (W,), (P,))[1][0] for P in Z])  # (components, outputs)
A = first.square().mean(dim=1).sqrt()  # (components,)

J = torch.func.jacrev(network)(W)[0]  # (outputs, 2, 5), by backward passes
print("largest difference from the long way:    ", (torch.einsum("oij,cij->co", J, Z) - first).abs().max().item())
print(
    "largest difference from pd_helpers' eq. 8:",
    (attributions.attributions(target, x, {"embed": Z})[0] - A).abs().max().item(),
)
pd.DataFrame({"attribution (eq. 8)": A, "effect, real ablation": full.square().mean(dim=1).sqrt()}).round(
    3
).rename_axis("mechanism")

# %% [markdown]
# The right mechanism, and a number that is three times too large. Two reasons:
#
# - $W$ is used twice. The output grows like the *square* of what is in $W$, and the slope of $s^2$ at $s = 1$ is 2.
# - The bias. Output 0 is $1.3 x_0 - 0.24$ and is cut off at zero; it cannot fall by more than it is.
#
# So an attribution is **not** an amount of output. Even the sum tells you that. The signed first-order effects of all components, added
# up, are the derivative along $W$ itself, since the components add up to $W$:
#
# $$\sum_c \sum_{ij}\frac{\partial f_o}{\partial \theta_{ij}} P_{c,ij} = \sum_{ij}\frac{\partial f_o}{\partial\theta_{ij}} W_{ij}
# = 2\,(W^\top W x)_o \quad\text{where output } o \text{ is on}.$$
#
# **Predict before you run.** Is that also true of the singular vectors? Of the random split? For inputs with several features on?

# %%
draw = generator.clone_state()  # a copy, so that this cell draws the same inputs whenever it runs
data = pdh.TMSConfig().features()(6000, draw).double()
data = data[data.any(dim=1)]  # inputs with something on
along_W = 2 * (data @ W.T @ W) * (target(data) > 0)
for name, P in cuts.items():
    signed = attributions.tangents(target, data, {"embed": P})  # (components, inputs, outputs)
    print(f"{name:16s} largest difference on {len(data)} inputs: {(signed.sum(dim=0) - along_W).abs().max():.0e}")

# %% [markdown]
# True of all of them: derivatives are linear, so any faithful cut shares out the same total. **An identity that every cut satisfies
# cannot tell a good cut from a bad one.** Keep that in mind for later.

# %% [markdown]
# ## Gradient against real ablation
#
# The *order* of the components is what a top-k needs, not their size. So, on all of these inputs: first order against real
# effect, one mark for each pair of an input and a component.

# %%
sizes = {
    name: (
        ablation.root_mean_square(ablation.ablated(target, data, {"embed": P})),
        attributions.attributions(target, data, {"embed": P}),
    )
    for name, P in cuts.items()
}  # name → real effect and attribution, both (inputs, components)


def correlation(real: Tensor, estimate: Tensor) -> float:
    return torch.corrcoef(torch.stack([real.flatten(), estimate.flatten()]))[0, 1].item()


r = {name: correlation(*pair) for name, pair in sizes.items()}
fig, axes = pdh.plots.figure(9, 3.2, 1, 3)
for ax, (name, (real, estimate)) in zip(axes[0], sizes.items(), strict=True):
    groups = (data == 0).int() if name == "mechanisms" else None
    plots.estimates(ax, real[:500], estimate[:500], None if groups is None else groups[:500])
    ax.set_title(f"{name}, correlation {r[name]:.2f}", fontsize=10)
axes[0, 0].plot([], [], "o", color=pdh.plots.color(0), mfc="none", label="its feature is on")
axes[0, 0].plot([], [], "x", color=pdh.plots.color(3), label="its feature is off")
axes[0, 0].legend(frameon=False, fontsize=9, loc="lower right")
pdh.show(
    fig,
    alt="Attribution against the change that real ablation makes, for three cuts; most marks lie well above the diagonal. "
    f"Correlations: {', '.join(f'{name} {value:.2f}' for name, value in r.items())}. Among the mechanisms some crosses, whose "
    f"feature is off, have attributions up to {sizes['mechanisms'][1][data == 0].max():.2f}, and a few dots lie below the diagonal.",
)

# %% [markdown]
# Not bad at all, for one derivative. But look at the left panel:
#
# - **crosses above zero**: mechanisms whose feature is off, and which are attributed something. Column $c$ of $W$ also *writes*
#   output $c$, where the neighbours' interference comes out.
# - **dots below the line or on it**: mechanisms of features that are on, for which the derivative says less than removal does.
#
# And look at the titles: the *worst* cut has the *best* correlation. Each part of the random split holds about a fifth of every weight, so removing one is a small step,
# and small steps are what a derivative describes well. If that is the reason, then a fifth of each mechanism must do better still, and parts of double size worse:

# %%
for name, P in (("a fifth of each mechanism", Z / 5), ("random parts, doubled", 2 * R)):
    effect = ablation.root_mean_square(ablation.ablated(target, data, {"embed": P}))
    print(f"{name}: correlation {correlation(effect, attributions.attributions(target, data, {'embed': P})):.3f}")

# %% [markdown]
# So it is. The correlation says how well the estimate predicts removal for a *given* cut, and nothing about how good the cut is.
#
# How often does the order go wrong? Take inputs on which two features are on. Are the two largest attributions those of the two?

# %%
two = (data > 0).sum(dim=1) == 2
top = {
    how: values[two].topk(2, dim=1).indices.sort(dim=1).values
    for how, values in zip(("real ablation", "first order"), sizes["mechanisms"], strict=True)
}
wanted = (data[two] > 0).nonzero()[:, 1].view(-1, 2)
for how, found in top.items():
    print(
        f"{how:14s} picks the two mechanisms of the two features on {(found == wanted).all(dim=1).float().mean():.0%} of {len(wanted)} inputs"
    )

# %% [markdown]
# Neither is perfect. Small values fall below the bias and change nothing, whichever method asks. But the first order errs
# more often.

# %% [markdown]
# ## Where the first order fails
#
# ### At a kink
#
# Feature 0 stays at 0.5. Feature 2 points almost the other way in the hidden plane, and we turn it up from 0. What it
# does to output 0 is negative, so at some point output 0 is pushed below zero and **switches off**. From there on the derivative
# of output 0 is zero, along every direction.
#
# **Predict before you run.** After the switch, what will first order and real ablation say about mechanism 2's effect on output
# 0? If you took mechanism 2 away, what would output 0 do?

# %%
steps = torch.linspace(0, 1, 201).double()
moving = torch.zeros(201, 5).double()
moving[:, 0], moving[:, 2] = 0.5, steps
estimates = {
    "gradient": attributions.tangents(target, moving, {"embed": Z}),
    "ablation": ablation.ablated(target, moving, {"embed": Z}),
}  # each (components, inputs, outputs)

fig, axes = pdh.plots.figure(9, 3.2, 1, 2)
for ax, c in zip(axes[0], (0, 2), strict=True):
    for (name, effects), style in zip(estimates.items(), ("--", "-"), strict=True):
        ax.plot(steps, effects[c, :, 0], style, color=pdh.plots.color(1 if name == "gradient" else 0), lw=2, label=name)
    ax.plot(steps, target(moving)[:, 0], ":", color="0.3", lw=1.5, label="output 0 itself")
    ax.axhline(0, color="0.2", lw=0.8)
    ax.set(xlabel="value of feature 2", ylabel="effect on output 0")
    ax.set_title(f"mechanism {c}", fontsize=10)
    ax.legend(frameon=False, fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)
switch = steps[(target(moving)[:, 0] > 0).sum()].item()

pdh.show(
    fig,
    alt=f"Effects on output 0 while feature 2 is turned up. Output 0 falls and is zero from {switch:.2f} on. There the gradient of both "
    f"mechanisms drops to zero at once. Real ablation of mechanism 0 goes smoothly to zero; of mechanism 2 it falls to "
    f"{estimates['ablation'][2, -1, 0]:.2f} and stays there.",
)

# %% [markdown]
# Left, mechanism 0: too large before the switch, right after it. Removing the mechanism of something that is off changes nothing.
#
# Right, mechanism 2: as long as output 0 is on, the two agree. Once it is off, the first order says *zero*. But remove mechanism 2, and output 0 comes back to
# $0.42$. **Mechanism 2 is what keeps it off.** A derivative looks at an infinitely small step, and an infinitely small step
# does not reach the kink.
#
# ### Two that cancel
#
# Take any matrix $D$. Add two components, $D$ and $-D$. The sum is what it was.
#
# **Predict before you run.** How large are the attributions of these two? And their real effects, removed one at a time? Both at once?

# %%
D = torch.zeros(2, 5).double()
D[:, 0] = 0.6 * torch.stack([-W[1, 0], W[0, 0]])  # turns column 0 sideways
with_pair = torch.cat([Z, D[None], -D[None]])  # (7, 2, 5)
only_0 = torch.eye(5).double()[:1]  # feature 0 at 1

cancellation = pd.DataFrame(
    {
        "attribution": attributions.attributions(target, only_0, {"embed": with_pair})[0],
        "removed alone": ablation.root_mean_square(ablation.ablated(target, only_0, {"embed": with_pair}))[0],
    },
    index=[*(f"mechanism {c}" for c in range(5)), "D", "−D"],
)
cancellation.loc["D and −D together"] = [
    attributions.attributions(target, only_0, {"embed": (with_pair[5:].sum(dim=0))[None]})[0, 0].item(),
    ablation.root_mean_square(ablation.ablated(target, only_0, {"embed": with_pair[5:].sum(dim=0)[None]}))[0, 0].item(),
]
cancellation.round(3)

# %% [markdown]
# Removed one at a time, both look important. So real ablation fails here too, and not only the first order. Removed together they do
# nothing. A top-k would spend two of its places on them, on every input with feature 0.
#
# No score that is given to *one component at a time* can see this. It takes sets of components. We come back to that with eq. 9.

# %% [markdown]
# ## Integrated gradients
#
# A common remedy for kinks is to add up many small derivatives instead of taking one. Turn the whole network up from nothing,
# $\theta(t) = t\,\theta$ for $t$ from 0 to 1, and integrate on the way:
#
# $$I_{c,o}(x) = \int_0^1 \sum_{ij} \frac{\partial f_o(x)}{\partial \theta_{ij}}\Big|_{t\,\theta} P_{c,ij}\; dt .$$
#
# These are **integrated gradients** (Sundararajan et al. 2017), which the APD paper names as a next step, with weights in the place of
# inputs. They have a property that the plain derivative lacks, **completeness**: added over components they give exactly what the
# output has gained on the way,
#
# $$\sum_c I_{c,o}(x) = f_o(x \mid \theta) - f_o(x \mid 0).$$
#
# (By the chain rule the sum of the integrands is $\frac{d}{dt} f_o(x \mid t\theta)$.)
#
# A computer integrates by summing at points. Between two kinks our integrand is a straight line in $t$, so *one* point in the middle of each
# piece is exact, if we know where the kinks are. On the way the pre-activation is $t^2 (W^\top W x)_o + b_o$, which is zero at
# $t = \sqrt{-b_o / (W^\top W x)_o}$.


# %%
def kinks(x: Tensor) -> list[float]:
    """All t in (0, 1) at which an output of one of these inputs switches, as the weights grow like t."""
    squares = (-b / (x @ W.T @ W)).flatten()
    return squares[(squares > 0) & (squares < 1)].sqrt().tolist()


some, nothing = data[:100], {"embed": torch.zeros_like(W)}
gained = target(some) - F.relu(b)
for name, P in cuts.items():
    exact = ablation.integrated(target, some, {"embed": P}, nothing, kinks=kinks(some), n_points=1)
    coarse = ablation.integrated(target, some, {"embed": P}, nothing, n_points=20)
    violations = [(found.sum(dim=0) - gained).abs().max().item() for found in (exact, coarse)]
    print(
        f"{name:16s} completeness violated by {violations[0]:.0e};  with 20 points that ignore the kinks: {violations[1]:.0e}"
    )

# %% [markdown]
# Complete to the last digit, and only to the second if the kinks are ignored, with twenty points. In a large network nobody knows the kinks.
#
# Does it repair what the derivative got wrong? For this network the integral can be done on paper. Where output $o$ is on, the
# derivative at $t\theta$ is $t$ times the one at $\theta$. So all components have the same profile in $t$, and the integral is
#
# $$I_{c,o} = \big(\text{first-order effect}\big)_{c,o} \times \frac{\text{what output } o \text{ gained}}{\text{sum of first-order effects on it}} .$$
#
# It is the gradient, *rescaled* so that the sum comes out right. The size is repaired; who gets which share of an output is not. And an output
# that is off has gained nothing on the way, so nobody gets anything for keeping it off. Completeness is bookkeeping.
#
# There is another path: turn down *one* component, and leave the others. Then the integral is that component's real ablation, exactly, by
# the fundamental theorem of calculus. But it then takes many derivatives to learn what one subtraction tells.

# %% [markdown]
# ## The attribution lab
#
# One input with two features on. Left: every component by three estimates. Right: one component while feature 2 moves. Dotted lines
# are kinks, where some output switches on or off.
#
# Things to try:
#
# 1. The start: feature 0 at 0.5, feature 2 at 0.6. Which output is on? Which component has the largest attribution, and is
#    *its* feature on? What does ablation say?
# 2. Move feature 2 past 0.62, where its own output comes on. Which of the estimates jump, and which do not?
# 3. *Effect on output* 0. Where does component 2 hold the output down, and which estimate knows?
# 4. Take the *cancelling pair*, components 5 and 6. Is there any input on which ablation shows that they are useless?
# 5. *Random split*: which estimate would tell you that this cut is a bad one?

# %%
pdh.widgets.AttributionLab(target, {**cuts, "mechanisms and a cancelling pair": with_pair})

# %% [markdown]
# <details><summary>What you should have seen</summary>
#
# 1. The two features push each other's outputs below zero. Only output 1 is left on, which should be off: it is interference. And so the first
#    order attributes most to mechanism 1, of a feature that is *off*. Ablation says 0 and 2 matter most: without one, the other's
#    output comes back.
# 2. The gradient jumps at each kink. Ablation never does: the output is a continuous function, and so is a difference of two outputs.
#    Integrated gradients do not jump either.
# 3. From about 0.4 on. Only ablation: gradient and integrated gradients are zero.
# 4. No. One at a time they look busy wherever feature 0 is on and an output that they move is not far below zero.
# 5. None. Everything matters a little everywhere, and that is the sign: not the sizes, but how many there are.
# </details>

# %% [markdown]
# ## Batch top-k: from numbers to a choice
#
# APD needs a *choice*: these components are on, those are off. It takes a batch of $B$ inputs and keeps the $k B$
# largest attributions of all of them, so that an input with three features may get three and an empty one none. (Picking the $k$ best for
# *every* input would give them all the same number.)

# %%
A_data = attributions.attributions(target, data, {"embed": Z})  # (inputs, components)
B, k = len(data), 1.1
mask = attributions.batch_top_k(A_data, round(k * B))
threshold = A_data[mask].min()
assert torch.equal(mask, threshold <= A_data)
counts = pd.DataFrame({"features on": (data > 0).sum(dim=1), "components kept": mask.sum(dim=1)})
counts.groupby("features on")["components kept"].agg(["size", "mean", "min", "max"]).round(2)

# %% [markdown]
# With the choice made, run the network with only these components. The error against the full network is APD's *minimality* loss.
#
# **Predict before you run.** For which of the three cuts does the error fall fastest as more components are allowed? With real ablation in
# the place of attributions, how much better will the choice be?

# %%
allowed = torch.linspace(0.1, 5, 50)


def errors(P: Tensor, scores: Tensor) -> list[float]:
    """Mean squared error with the batch top-k by these scores, for every number allowed per input."""
    found = []
    for k in allowed[allowed <= len(P)].tolist():
        kept = attributions.batch_top_k(scores, round(k * B))
        found.append((ablation.masked(target, data, {"embed": P}, kept.double()) - target(data)).square().mean().item())
    return found


fig, axes = pdh.plots.figure(8, 3.6)
ax, at_one = axes[0, 0], {}
for i, (name, P) in enumerate(cuts.items()):
    by_ablation, by_attribution = sizes[name]
    for scores, style, how in ((by_attribution, "--", "attribution"), (by_ablation, "-", "ablation")):
        error_curve = errors(P, scores)
        ax.plot(
            allowed[: len(error_curve)], error_curve, style, color=pdh.plots.color(i), lw=1.8, label=f"{name}, by {how}"
        )
        at_one[name, how] = error_curve[(allowed - 1.1).abs().argmin()]
ax.set(xlabel="components kept per input (k)", ylabel="mean squared error", xlim=(0, 4), ylim=(1e-5, 0.1), yscale="log")
ax.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0.42, 0))
ax.spines[["top", "right"]].set_visible(False)
told = "; ".join(f"{name} by {how} {value:.4f}" for (name, how), value in at_one.items())
pdh.show(
    fig,
    alt=f"Error against the number of components kept per input, for three cuts, chosen by attribution and by ablation. At 1.1: {told}.",
)

# %% [markdown]
# On these inputs 1.1 features are on, on average. With 1.1 components per input, chosen by attribution, the mechanisms have a third of the singular
# vectors' error, and a fiftieth of the random split's: they are the most **minimal** cut of the three. And 1.1 of the two singular
# vectors is more than half of all there is, while 1.1 of the five mechanisms is less than a quarter.
# (That is also why the two meet at about 1.3: by then hardly any input lacks a singular vector that it needs.)
#
# Choosing by attribution instead of real ablation costs something, a half more error for the mechanisms at $k = 1.1$ and twice the error for the singular vectors. On these data most
# inputs have one feature on, and those are far from any trouble.
#
# In a larger network the cuts differ more. Here are forty features in ten dimensions, and inputs with exactly two features on. For each we keep
# the $k$ components with the largest attributions.

# %%
large = pdh.shipped("apd/tms_40-10", "seed0").target.double()  # only its target: we decompose nothing yet
W_large = large.embed.weight
u_large, sigma_large, v_large = torch.linalg.svd(W_large, full_matrices=False)
large_cuts = {
    "mechanisms, of 40": torch.einsum("ic,cj->cij", W_large, torch.eye(40).double()),
    "singular vectors, of 10": torch.einsum("ic,c,cj->cij", u_large, sigma_large, v_large),
}
pairs = pdh.TMSConfig(n_features=40, n_hidden=10).features()(1000, draw.clone_state()).double()
pairs = pairs[(pairs > 0).sum(dim=1) == 2]
large_errors = pd.DataFrame(index=pd.Index([1, 2, 5, 8, 10], name="components kept"))
for name, P in large_cuts.items():
    order = attributions.attributions(large, pairs, {"embed": P}).argsort(dim=1, descending=True)
    masks = [torch.zeros(len(pairs), len(P)).scatter(1, order[:, :k], 1.0) for k in large_errors.index]
    large_errors[name] = [
        (ablation.masked(large, pairs, {"embed": P}, m) - large(pairs)).square().mean().item() for m in masks
    ]
large_errors.style.format("{:.1e}")

# %% [markdown]
# Two features, two mechanisms. The singular vectors need more than eight of their ten for the same error: they are shared by everything, so everything needs
# nearly all of them.

# %% [markdown]
# ## The pathological decomposition
#
# So is a decomposition good if it adds up to the network, and if a few components do the work of all? APD's authors point out
# that this is not enough (equation 10). Take any set of **experts** $P'_1, \dots, P'_C$: weights that can do one task each, but have
# nothing to do with how *this* network does it. Spread what their sum lacks evenly:
#
# $$P_c = P'_c + \frac{1}{C}\Big(\theta^* - \sum_{c'} P'_{c'}\Big).$$
#
# These add up to $\theta^*$, the target's weights, by construction. If $C$ is large, the second term is small, and each $P_c$ is nearly its expert.
#
# Where do we get experts that are not parts of $W$? Turn column $c$ of $W$ in the hidden plane by some angle, 60° to 120°, left or right. Since
# the same matrix reads and writes, $\lVert w\rVert^2$ is all that matters, and the turned column alone does feature
# $c$ exactly as well. But it points where the network has nothing of the kind. We make eight experts for each feature, and mirror half of them, so
# that their sum stays short and there is little to spread.


# %%
def turned(w: Tensor, degrees: float) -> Tensor:
    """A vector in the plane, turned to the left."""
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos * w[0] - sin * w[1], sin * w[0] + cos * w[1]])


turns, experts = torch.Generator().manual_seed(0), []
for c in range(5):
    for angle in (60 + 60 * torch.rand(4, generator=turns)).tolist():
        for side in (angle, -angle):
            expert = torch.zeros_like(W)
            expert[:, c] = turned(W[:, c], side)
            experts.append(expert)
experts = torch.stack(experts)  # (40, 2, 5)

pathological = ablation.pathological({"embed": experts}, {"embed": W})[
    "embed"
]  # eq. 10; you will write it in exercise 2
spread = pathological[0] - experts[0]
print(
    f"{len(pathological)} components; an expert has length {experts[0].norm():.2f}, what is added to each {spread.norm():.3f}"
)

# %% [markdown]
# Now the tests.
#
# **1. Faithful?**

# %%
print("the sum differs from W by at most", f"{(pathological.sum(dim=0) - W).abs().max():.0e}")

# %% [markdown]
# **2. Minimal?** On every input with one feature on, we keep *one* component of the forty: that with the largest attribution.

# %%
alone = data[(data > 0).sum(dim=1) == 1]
contenders = {"mechanisms": Z, "pathological": pathological, "singular vectors": S, "random split": R}


def best_one(P: Tensor) -> Tensor:
    """Masks (inputs, components) with a one at the largest attribution of each input."""
    A = attributions.attributions(target, alone, {"embed": P})
    return torch.zeros_like(A).scatter(1, A.argmax(dim=1, keepdim=True), 1.0)


verdicts = pd.DataFrame(index=list(contenders))
verdicts["components"] = [len(Q) for Q in contenders.values()]
verdicts["sum − W"] = [(Q.sum(dim=0) - W).abs().max().item() for Q in contenders.values()]
verdicts["one component: error"] = [
    (ablation.masked(target, alone, {"embed": Q}, best_one(Q)) - target(alone)).square().mean().item()
    for Q in contenders.values()
]
verdicts.style.format({"sum − W": "{:.0e}", "one component: error": "{:.4f}"})

# %% [markdown]
# With nothing at all the error would be 0.06. **One pathological component reconstructs the output about as well as one true mechanism**, and it is nearly of rank one. By these tests we
# would have to accept it. Yet we know what it is: forty vectors that have nothing to do with the network.
#
# ### Ablation curves
#
# The way out is equation 9. If the other 39 components are really *unused*, then it must not matter how far they are
# ablated. Fade them out together, from 1 to 0: on the whole way, the output must stay what it is,
#
# $$\gamma_c(t) = 1 - t\,(1 - s_c(x)), \qquad f\Big(x \,\Big|\, \sum_c \gamma_c(t)\, P_c\Big) \approx f(x \mid \theta^*) \quad\text{for all } t .$$
#
# Here $s_c(x)$ is 1 for components in use and 0 for others. And not only on this straight way: *any* curve on which every
# component goes down at its own pace has to pass.
#
# **Predict before you run.** At $t = 0$ everything is on, and at $t = 1$ only the best one. At both ends the pathological
# decomposition is right. What happens half way? And if components go one after the other, in random order?

# %%
t = torch.linspace(0, 1, 41).double()
others = torch.Generator().manual_seed(1)


def curve(P: Tensor, pace: Tensor) -> Tensor:
    """Error along an ablation curve: one number for each t."""
    outputs = ablation.ablation_curve(target, alone[:300], {"embed": P}, best_one(P)[:300], pace)
    return (outputs - target(alone[:300])).square().mean(dim=(1, 2))


def one_after_the_other(C: int) -> Tensor:
    """How far each component is ablated at each t (41, C), in random order."""
    start = torch.rand(C, generator=others, dtype=torch.float64)
    return ((1.2 * t[:, None] - start) / 0.2).clamp(0, 1)


straight = {name: curve(Q, t) for name, Q in contenders.items()}
random = {
    name: torch.stack([curve(Q, one_after_the_other(len(Q))) for _ in range(12)]) for name, Q in contenders.items()
}

# %%
fig, axes = pdh.plots.figure(9, 3.6, 1, 2)
for i, (name, style) in enumerate(zip(contenders, ("-", "--", "-.", ":"), strict=True)):
    axes[0, 0].plot(t, straight[name], style, color=pdh.plots.color(i), lw=2, label=name)
    if i < 2:
        axes[0, 1].plot(t, random[name].T, style, color=pdh.plots.color(i), lw=1, alpha=0.7)
for ax, title in zip(axes[0], ("all others fade together", "one after the other, 12 random orders"), strict=True):
    ax.set(xlabel="t: 0 everything on, 1 one component on")
    ax.set_title(title, fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
axes[0, 0].set(ylabel="mean squared error", ylim=(0, 0.07))
axes[0, 1].set_yscale("symlog", linthresh=0.01)
axes[0, 1].set(ylabel="mean squared error (log above 0.01)", ylim=(0, 20))
axes[0, 0].legend(frameon=False, fontsize=9, loc="upper left")
axes[0, 1].text(0.5, 0.0035, "mechanisms", color=pdh.plots.color(0), ha="center", fontsize=9)
axes[0, 1].text(0.5, 9, "pathological", color=pdh.plots.color(1), ha="center", fontsize=9)
peak = {name: values.max().item() for name, values in straight.items()}
worst = {name: values.max().item() for name, values in random.items()}
pdh.show(
    fig,
    alt=f"Left: errors along the straight ablation curve. Mechanisms rise to {peak['mechanisms']:.4f} and stay; the pathological decomposition "
    f"rises to {peak['pathological']:.4f} half way and comes down to {straight['pathological'][-1]:.4f}; the two others end at {straight['singular vectors'][-1]:.3f} and "
    f"{straight['random split'][-1]:.3f}. Right: in random orders the mechanisms stay below {worst['mechanisms']:.4f}, while the pathological ones reach "
    f"{worst['pathological']:.1f}.",
)

# %%
on_the_way = pd.DataFrame({"straight curve: worst": peak, "random orders: worst": worst})
all_verdicts = verdicts.join(on_the_way)
all_verdicts.style.format(dict.fromkeys(all_verdicts.columns[2:], "{:.4f}") | {"sum − W": "{:.0e}"})

# %% [markdown]
# Exposed. Half way the error is more than ten times that of the mechanisms, and in random order it gets far *larger than with no network at all*
# (0.06). The reason is
# simple: the other seven experts of the same feature were not unused. They were large, and they **cancelled**.
#
# The mechanisms pass: they go up to 0.001, which is the interference that they leave out (notebook 02), and stay there along every path. That
# is what the $\approx$ in equation 9 has to allow. The other two decompositions already fail at the end of the curve: they were never minimal.
#
# | what is asked of the pathological decomposition | verdict |
# |---|---|
# | adds up to the target | passes, to rounding |
# | one component of forty is enough | passes |
# | each is simple | passes, nearly of rank one |
# | others may be ablated part of the way, in any order (eq. 9) | **fails** |
#
# APD does not check equation 9 while it trains; it would be far too expensive. It hopes that training does not stumble into such solutions, and the paper tests afterwards, by random
# ablations (you will draw its figure 7 in notebook 08). SPD, from notebook 12 on, makes random partial ablation *the training loss*.
#
# ### The assumption of parameter linearity
#
# Equation 9 asks something of the *network* as well. Both methods write the weights as a **sum** of mechanisms, in which the unused ones can be taken out in any combination. A network need not be
# built like that. The paper calls this the **assumption of parameter linearity** (its appendix A.1) and finds it approximately true of the networks that it studies. A footnote says how well networks that compute in superposition
# should meet it: up to the errors that they make anyway, because their features are in superposition.
#
# We can test it without training anything. Take the forty features in ten dimensions. On each input a component is in use if removing it alone changes the output by more than 0.01 (root mean square, as in
# notebook 05). Of all *others* we ablate a random half, ten times.
#
# **Predict before you run.** Each of these components changes the output by less than 0.01 when it is removed alone. Does that hold for half of them together? In which cut?

# %%
coins = torch.Generator().manual_seed(2)
crowd = pdh.TMSConfig(n_features=40, n_hidden=10).features()(1500, draw.clone_state()).double()
crowd = crowd[crowd.any(dim=1)]
own_error = (large(crowd) - crowd).square().mean().sqrt().item()
share_large = torch.rand(40, *W_large.shape, generator=coins, dtype=torch.float64)
linearity = {}
for name, P in {**large_cuts, "random split, of 40": W_large * share_large / share_large.sum(dim=0)}.items():
    in_use = ablation.root_mean_square(ablation.ablated(large, crowd, {"embed": P})) > 0.01

    def change(keep: Tensor, P: Tensor = P) -> float:
        return (ablation.masked(large, crowd, {"embed": P}, keep.double()) - large(crowd)).square().mean().sqrt().item()

    heads = [torch.rand(in_use.shape, generator=coins) < 0.5 for _ in range(10)]
    halves = [change(in_use | kept) for kept in heads]
    linearity[name] = {
        "in use": in_use.sum(dim=1).double().mean().item(),
        "half of the others ablated": sum(halves) / len(halves),
        "worst of ten": max(halves),
        "all others ablated": change(in_use),
        "half of those in use, too": sum(map(change, heads)) / len(heads),
    }
print(f"the network's own error, root mean square: {own_error:.3f}")
pd.DataFrame(linearity).T.style.format("{:.4f}").format("{:.1f}", subset="in use")

# %% [markdown]
# Read the row of the mechanisms. Ablating a random half of the unused ones changes the output by less than a tenth of the network's own error, and so does ablating all of them. On this network
# **linearity holds, up to the noise of superposition**, as the footnote says. If half of those in use go as well, the change is larger than the network's own error.
#
# The random split fails. Each unused part is harmless alone and half of them together are not, for their small effects add up. And the singular vectors pass, but at a price: with half of all
# components in use there is little left to ablate. So linearity is a statement about a network *and* a cut of it. Networks of the size of a language model
# are an open question, and one that you can put to any decomposition: it is this very table.

# %% [markdown]
# ## Exercises
#
# ### 1 · The honest effect
#
# Compute what removing $P$ from $W$ does to the output for one input $x$ (a vector): the root mean square over outputs. *Difficulty: gentle. Time: 5
# minutes.*


# %%
def ablation_effect(W: Tensor, b: Tensor, P: Tensor, x: Tensor) -> Tensor:
    """Root mean square over outputs of f(x | W) − f(x | W − P), for f = ReLU(WᵀW x + b)."""
    ### BEGIN SOLUTION
    rest = W - P
    change = F.relu(W.T @ W @ x + b) - F.relu(rest.T @ rest @ x + b)  # W is used twice, and so is what is left
    return change.square().mean().sqrt()
    ### END SOLUTION


# %%
pdh.checks.ablation_effect(ablation_effect)

# %% [markdown]
# ### 2 · Make anything faithful
#
# Equation 10. *Difficulty: gentle. Time: 5 minutes.*


# %%
def eq_10(experts: Tensor, W: Tensor) -> Tensor:
    """experts (C, d_out, d_in) → components (C, d_out, d_in) that add up to W (d_out, d_in)."""
    ### BEGIN SOLUTION
    lacking = W - experts.sum(dim=0)
    return experts + lacking / len(experts)
    ### END SOLUTION


# %%
pdh.checks.eq_10(eq_10)

# %% [markdown]
# ### 3 · A point on the ablation curve
#
# The weights $\sum_c \gamma_c(t) P_c$ at some $t$, for one input whose components in use are marked in $s$. *Difficulty: moderate. Time: 10
# minutes.*


# %%
def on_the_curve(P: Tensor, s: Tensor, t: float) -> Tensor:
    """P (C, d_out, d_in), s (C,) of 0. and 1. → the weights at t, (d_out, d_in)."""
    ### BEGIN SOLUTION
    gamma = 1 - t * (1 - s)  # (C,): stays 1 where s is 1, falls to 0 where s is 0
    return torch.einsum("c,cij->ij", gamma, P)
    ### END SOLUTION


# %%
pdh.checks.on_the_curve(on_the_curve)

# %% [markdown]
# ## Questions a careful reader asks
#
# <details><summary>If ablation is the truth, why does anyone use gradients?</summary>
#
# Here there is no good reason: five forward passes are nothing. But one derivative along each of $C$ components can share most of its work with the others, and for
# these small networks has a closed form that costs about as much as one pass; and real ablation one at a time is not the whole truth either, as the cancelling
# pair shows. The whole truth is about sets, and there are $2^C$ of those.
# </details>
#
# <details><summary>Two components do the same thing, and either one is enough. What do the three methods say?</summary>
#
# Say that the output is $\min(1, a + b)$, and both $a$ and $b$ are 1. Remove one: nothing changes. The derivative is zero too, since the output is saturated. By both
# measures neither component matters, and yet the output falls to zero without both. Integrated gradients do better here: on the way up from zero both contributed
# before saturation, and each gets one half. This is the mirror image of the cancelling pair, where one at a time said "important" and together said "useless".
# </details>
#
# <details><summary>Does the starting point of integrated gradients matter?</summary>
#
# Yes, and there is no right one. We started at zero weights. Starting at the mean network over a data set, or leaving the bias out, would share out another
# total. What does not depend on it is completeness, which is why completeness alone is no proof of quality.
# </details>
#
# <details><summary>Is complete robustness to ablation even desirable?</summary>
#
# Equation 9 asks that unused components can be removed *in any combination*, half way too. Suppose a network really does store two large weights that cancel, and nothing
# ever separates them. Then the cancelling pair is part of how it works, and equation 9 simply says: call the two *one* component. That seems right. But real networks
# are noisy, and each of a thousand unused components may leave a little, as the random split showed. How much is $\approx$? The paper says: up to the noise that superposition itself makes. That is a
# judgement, not a theorem.
# </details>
#
# <details><summary>Do you need forty components to be pathological?</summary>
#
# Two are enough here. Turn the whole of $W$ by 60° to the left, and by 60° to the right. Each of these is a complete network with *exactly* the target's
# output for *every* input, and since $\cos 60° = \tfrac12$ they add up to $W$. Nothing is left to spread. Half way along the ablation curve the columns have lost a
# quarter of their squared length.
# </details>
#
# ## When something looks wrong
#
# <details><summary>My attributions are all zero</summary>
#
# Either the input is, or every output is off for it: with a bias of −0.24 a feature below about 0.18 does not reach its own output.
# </details>
#
# <details><summary>My Jacobian–vector product is half of what it should be</summary>
#
# The weights are tied. The function you differentiate has to use its argument in *both* places.
# </details>
#
# <details><summary>Completeness fails in the third digit</summary>
#
# You are integrating across kinks. Either find them, as above, or take many more points: the error falls only like one over their number.
# </details>
#
# **Next:** [07 · APD on superposition](07_apd_superposition.ipynb) uses attributions and batch top-k to *train* components.
