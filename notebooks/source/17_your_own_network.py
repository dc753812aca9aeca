# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 17 · Your own network
#
# **The question:** how do I do this to *my* network, where nobody can tell me the right answer?
#
# *After this notebook you can* decompose a trained classifier in ten lines, choose the settings by what goes wrong
# otherwise, test a decomposition against a network you shuffled, a layer you know and a second seed, read, ablate and edit
# a subcomponent, do the same to a convolutional network and a transformer, and say which of your findings you would not
# bet on.
#
# | read | do | run on two cores | before this | difficulty |
# |---|---|---|---|---|
# | 45 minutes | 45 minutes | {{minutes}} | [12 · SPD from scratch](12_spd_from_scratch.ipynb), [13 · SPD on superposition](13_spd_superposition.ipynb) | moderate; the code is short, the judgement is not |

# %%
from collections import OrderedDict

import joblib
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Generator, Tensor, nn

import pd_helpers as pdh
from pd_helpers.analysis import editing, judging, metrics
from pd_helpers.core import losses
from pd_helpers.core.training import progress
from pd_helpers.course.your_own_network import ideas, plots

# %% [markdown]
# ## A network of our own
#
# scikit-learn brings 1,797 handwritten digits, 8 pixels high and 8 wide. We keep 450 of them for testing. The network is about as
# small as a classifier gets: 64 pixels, 32 hidden units with a ReLU, 10 logits. It trains in a second or two.
#
# It stands here for *your* network. Nothing that follows knows that it looks at digits, except for the pictures.

# %%
images, digits = load_digits(return_X_y=True)
x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(digits)  # (1797, 64) in [0, 1], (1797,)
x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=450, stratify=y, random_state=0)


def mlp() -> nn.Sequential:
    """Pixels (images, 64) to logits (images, 10)."""
    return nn.Sequential(OrderedDict(hidden=nn.Linear(64, 32), relu=nn.ReLU(), logits=nn.Linear(32, 10)))


def classifier(seed: int, make=mlp, inputs: Tensor = x_train, steps: int = 1500) -> nn.Module:
    """A trained one."""
    torch.manual_seed(seed)
    network = make()
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.3)
    for _ in range(steps):
        i = torch.randint(len(inputs), (256,))
        optimiser.zero_grad()
        F.cross_entropy(network(inputs[i]), y_train[i]).backward()
        optimiser.step()
    return network.requires_grad_(False).eval()


def accuracy(output: Tensor) -> float:
    """On the test images."""
    return (output.argmax(dim=1) == y_test).double().mean().item()


network, twin = classifier(seed=0), classifier(seed=1)
own_loss = F.cross_entropy(network(x_test), y_test).item()
twin_kl = losses.kl_divergence(twin(x_test), network(x_test)).item()
print(f"test accuracy {accuracy(network(x_test)):.3f}, loss {own_loss:.3f} nats")
print(f"a twin, trained from another seed: {accuracy(twin(x_test)):.3f}; KL between the two {twin_kl:.4f} nats")

# %% [markdown]
# Keep these numbers: they are our yardsticks. (KL, in nats, says how far apart two networks' answers are; *Choice 1* defines it.) One test image is 0.0022 of accuracy, and by chance alone an accuracy of 0.976 on 450
# images moves by about 0.007. Do not take a difference of two or three images for a finding.
#
# The weight decay of 0.3 is large on purpose. Some pixels at the border are always empty, and weights that read them would keep their
# random start for ever. SPD would have to reproduce that junk.

# %% [markdown]
# ## The ten lines
#
# SPD needs three things of you: the **network**, **inputs** for it, and the **names** of the layers to take apart. Our inputs are a
# tensor, from which each step draws 256 images. A `Dataset`, a `DataLoader` or a function that draws a batch works as well. If your
# network is convolutional or a transformer, read on here all the same; it gets its lines in
# [Three networks, the same call](#Three-networks,-the-same-call).

# %%
config = pdh.SPDConfig(
    C=40, steps=1500, batch_size=256, lr=0.003, output_loss="kl",
    faithfulness_coeff=100, importance_coeff=0.01, faithfulness_warmup_steps=200,
)  # fmt: skip
run = pdh.fit(network, config, x_train, layers=["hidden", "logits"], seed=0, device="cpu")
run.metrics["n_alive"], run.metrics["l0"]

# %% [markdown]
# That is all. Each matrix was cut into $C = 40$ subcomponents $U_c V_c^\top$. About half of them are **alive**: important
# ($g > 0.1$) on at least one input. **L0** is how many an input needs on average: three or four in each layer.
#
# It looks like a result. How would you know that it is not nonsense? **Predict before you read on:** which of these
# two numbers would be different if the network had learned nothing?
#
# The rest of this notebook is about that question. First, how the settings came about.

# %% [markdown]
# ## Choice 1 · How to compare outputs
#
# The papers' networks predict numbers, and their losses are mean squared errors. A classifier's output is a *distribution*. If it
# says "8" with 99.9% certainty, nobody cares whether the logit is 9 or 10, and adding 5 to all logits changes nothing at all. So
# we compare distributions, by the **Kullback-Leibler divergence** in nats:
#
# $$\mathrm{KL}\big(p \,\|\, q\big) = \sum_k p_k \log \frac{p_k}{q_k}, \qquad p = \mathrm{softmax}(f(x \mid W)),\;
# q = \mathrm{softmax}(f(x \mid m)).$$
#
# `output_loss="kl"` says so; the default is the papers' `"mse"`.
#
# ## Choice 2 · How faithful
#
# The faithfulness loss is a mean over 2,368 parameters. The others are sums over outputs or subcomponents. With the usual
# weight of 1 it is easily outbid: the pieces then add up to *another* network.
#
# Both choices wrong, one at a time:


# %%
def fit(network: nn.Module, layers: tuple[str, ...] = ("hidden", "logits"), seed: int = 0, **changes) -> pdh.Run:
    """The ten lines with some settings changed."""
    return pdh.fit(
        network, config.replace(**changes), x_train, list(layers), seed=seed, device="cpu", show_progress=False
    )


def fit_all(jobs: dict[str, tuple[nn.Module, dict]]) -> dict[str, pdh.Run]:
    """Several of them, two at a time."""
    workers = joblib.Parallel(n_jobs=min(2, joblib.cpu_count()), return_as="generator")
    runs = workers(joblib.delayed(fit)(net, **settings) for net, settings in jobs.values())
    return dict(zip(jobs, progress(runs, total=len(jobs), description="runs", unit="run"), strict=True))


def verdict(run: pdh.Run, labels: Tensor = y_test) -> dict[str, float]:
    """What we look at, on the test images."""
    judged = judging.judge(run, x_test, labels, Generator().manual_seed(0))
    g = run.importances(x_train)
    row = {f"accuracy {k}": judged[k].accuracy for k in ("all", "important", "random")}
    row |= {f"KL {k}": judged[k].kl for k in ("all", "important", "random")}
    row |= {f"alive {use}": int(metrics.alive(values).sum()) for use, values in g.items()}
    return row | {f"L0 {use}": metrics.l0(values) for use, values in g.items()}


# %%
tried = {"as above": run} | fit_all(
    {"squared error": (network, {"output_loss": "mse"}), "faithfulness x 1": (network, {"faithfulness_coeff": 1})}
)
pd.DataFrame({name: verdict(one) for name, one in tried.items()}).T.round(3)

# %% [markdown]
# How to read a row. **all**: every subcomponent on; the network is what their sum computes. **important**: only those with
# $g > 0.1$ on this input, the others *off*. **random**: the important ones on, each other one multiplied by a random number between 0
# and 1. Accuracies are those against the true labels; KL is the divergence from the network's own answers.
#
# - **Squared error**: almost everything stays alive, and an input needs about 25 pieces in each layer. At this price it pays to get
#   logits right that no answer depends on. (A much higher price would help; the two losses are in different units, so $\beta_3$ means
#   something else for each.)
# - **Faithfulness x 1**: look at *all* and *important*. The pieces add up to a visibly different network, and the important ones
#   alone fail on every fifth image. *random* does not notice, because that is what was trained.

# %% [markdown]
# ## Choice 3 · The price of importance
#
# $\beta_3$ decides how many pieces you will see. There is no right answer to look up, so we go through two decades, and ask at each
# price what it costs.
#
# **Predict before you run.** From $\beta_3 = 0.001$ to $0.1$: which of *important* and *random* breaks first?

# %%
prices = {0.01: run} | {
    float(name): one
    for name, one in fit_all({str(b): (network, {"importance_coeff": b}) for b in (0.001, 0.003, 0.03, 0.1)}).items()
}
table = pd.DataFrame({b: verdict(prices[b]) for b in sorted(prices)}).T.rename_axis("β₃")
table.round(3)

# %%
fig = plots.coefficient_curves(table, {"network's own test loss": own_loss, "twin network": twin_kl})
low, high = table.iloc[0], table.iloc[-1]
pdh.show(
    fig,
    alt=f"Three panels against β₃ from 0.001 to 0.1. Accuracy with the important subcomponents only is {low['accuracy important']:.3f}, "
    f"{table.loc[0.01, 'accuracy important']:.3f} at 0.01, and {high['accuracy important']:.3f} at the end; with the others at random it stays "
    f"at {high['accuracy random']:.3f}. The divergence of the important ones grows from {low['KL important']:.3f} to {high['KL important']:.2f} nats. "
    f"Alive subcomponents of the hidden layer fall from {low['alive hidden']:.0f} to {high['alive hidden']:.0f}.",
)

# %% [markdown]
# At $\beta_3 = 0.1$ the *random* test hardly suffers, and with the important pieces alone the network is ruined. A random mask is one half
# on average: a piece can be needed and hide in that. **Test what you are going to claim.** If you want to say "these four pieces
# explain this answer", switch all others off.
#
# ### A rule
#
# We accept a price if, on test images and with the important subcomponents only,
#
# 1. the accuracy drops by at most 0.01, which is about what chance does to it;
# 2. the divergence is below the network's own test loss, 0.1 nats: the decomposition is closer to the network than the network is to
#    the truth.
#
# And of the accepted prices we take the **largest**: the fewest pieces at a loss we called negligible beforehand. That is 0.01.
#
# It is a convention, and a lenient one. The twin network, trained from another seed, is only 0.008 nats away. *By that
# standard no price in the table passes*: not even 34 pieces, of which an input uses 16, describe our network as well as its twin does.

# %% [markdown]
# ### Exercise 1 · Only the important ones
#
# `forward(masks)` runs a network under masks, a dictionary from layer to (rows, C). `g` are importances in the same form. Return the
# accuracy with every subcomponent of importance above 0.1 on, at 1, and all others off. *Difficulty: gentle. Time: 5 minutes.*


# %%
def important_only(forward, g: dict[str, Tensor], labels: Tensor) -> Tensor:
    """A single number."""
    ### BEGIN SOLUTION
    masks = {layer: (values > 0.1).to(values.dtype) for layer, values in g.items()}
    return (forward(masks).argmax(dim=1) == labels).double().mean()
    ### END SOLUTION


# %%
pdh.checks.important_only(important_only)

# %% [markdown]
# ### Exercise 2 · The rule as a function
#
# Given lists of prices $\beta_3$, accuracy drops and divergences, and the two limits, return the largest $\beta_3$ that passes both, or 0.0
# if none does. *Difficulty: gentle. Time: 5 minutes.*


# %%
def largest_coefficient(
    coefficients: list[float], drops: list[float], divergences: list[float], limits: tuple
) -> float:
    """limits = (largest drop, largest divergence), both included."""
    ### BEGIN SOLUTION
    rows = zip(coefficients, drops, divergences, strict=True)
    return max([b for b, drop, kl in rows if drop <= limits[0] and kl <= limits[1]], default=0.0)
    ### END SOLUTION


# %%
pdh.checks.largest_coefficient(largest_coefficient)

# %% [markdown]
# ## Choice 4 · Pieces and steps
#
# - **C**: give more than can come alive. Ours has 40, of which 20 are. If all are alive, or nearly, take more: at $\beta_3 = 0.001$
#   the 34 alive are close enough to 40 to try.
# - **steps**: until the losses stop falling. Look at the history, always.

# %%
fig, axes = pdh.plots.figure(7, 3)
pdh.plots.losses(axes[0, 0], run.history).set_ylim(top=3000)
last = run.history.iloc[-1]
pdh.show(
    fig,
    alt=f"The four losses against training step on a logarithmic axis. They end near {last.faithfulness:.0e} (faithfulness), {last.recon:.3f} "
    f"(recon, in nats), {last.recon_layerwise:.3f} (layerwise) and {last.importance_minimality:.1f} (importance).",
)

# %% [markdown]
# ## How much noise would superposition explain?
#
# With random masks our decomposition is about 0.02 nats off. Is that a lot? Even a *perfect* decomposition would not reach zero if the
# network packs more pieces than dimensions into a layer. They cannot all be orthogonal, so a piece that has nothing to do with an input
# still reads something off it.
#
# How much? A piece that reads a *random* direction of a $d$-dimensional activation $a$ reads about
# $\|a\| \, \|V_c\| \, / \sqrt d$. So we replace what each unimportant piece reads by a random number of that size, keep everything else,
# mask at random, and compare:

# %%
found = {use: judging.noise(run, x_test, use, Generator().manual_seed(0)) for use in run.components.uses}
pd.DataFrame(found, index=["its own directions, nats", "random directions, nats"]).T.round(3)

# %% [markdown]
# The unimportant pieces make a sixth to an eighth of the noise that random directions would make. So what is left could be ordinary interference: it is
# well within what superposition explains. Had it been *more*, unimportant pieces would be reading their inputs on purpose, and the
# importances would be wrong.
#
# It is a weak test, and one-sided: passing it does not show that there *is* superposition.

# %% [markdown]
# ## A mechanism we know
#
# Nobody knows the right pieces of our two matrices. But we can smuggle in a third one whose answer we know: an **identity**,
# between the ReLU and the logits. The network computes exactly the same.
#
# What should come out? The logits read 32 hidden units, but there are just 10 logits, and adding a number to all of them changes nothing.
# So **9 directions** matter, and all inputs need the identity in all nine. A perfect description would be: nine pieces, always on
# together, that pass on everything the logits read.
#
# **Predict before you run.** At the price we accepted, 0.01: how many alive, how many in use per input?

# %%
longer = editing.with_identity(network, before="logits")
three = ("hidden", "identity", "logits")
known = fit_all({f"{b:g}": (longer, {"layers": three, "importance_coeff": b}) for b in (0.001, 0.01, 0.03)})

W = network.logits.weight - network.logits.weight.mean(dim=0)  # what all logits have in common does not count
identities = {}
for price, one in known.items():
    g = one.importances(x_train)["identity"]
    P_alive = one.components.layers["identity"].P.detach()[metrics.alive(g)]
    judged_one = judging.judge(one, x_test, y_test, Generator().manual_seed(0))["important"]
    identities[price] = [len(P_alive), metrics.l0(g), judging.kept(P_alive, W), judged_one.accuracy, judged_one.kl]
columns = [
    "alive in the identity",
    "in use per input",
    "kept of what the logits read",
    "accuracy, important",
    "KL, important",
]
assert torch.equal(longer(x_test), network(x_test))
print(f"directions that matter: {torch.linalg.matrix_rank(W)}")
pd.DataFrame(identities, index=columns).T.rename_axis("β₃").round(2)

# %% [markdown]
# **It fails, at every price, and how it fails is worth more than a pass.**
#
# - At $\beta_3 = 0.03$ the *count* is about right: 8 alive where 9 are expected. But these 8 pass on less than a third of what the logits read,
#   and an input uses fewer than two of them. **A count that fits is no evidence.**
# - At 0.01, fourteen pieces pass on half.
# - At 0.001 they pass on 70%, but it takes 27 of them.
#
# What happens is this. An image of a 3 does not need the identity in all nine directions: to *answer 3*, one or two are
# enough. So SPD does not find "the identity". It finds, for each kind of image, the part of the identity that this answer hangs on.
# In the toy models of notebook 13 the two were the same, because the output there had to be right in every direction at all
# times. Here they are not.
#
# Take this along: **on a classifier, importance means "needed for this answer", not "used by this layer"**. If you want the layer's
# mechanism, ask for a smaller price, or compare something richer than the answer.

# %% [markdown]
# ## Sanity checks: a network of noise, and a second seed
#
# Two questions that every decomposition should have to answer.
#
# 1. **What would it say about nonsense?** We put the entries of each weight matrix into a random order. The shuffled network has the same
#    weights and biases, and computes nothing of interest. (As labels for its accuracy we take its own answers.)
# 2. **Would it say the same again?** We decompose *the same network* from another seed, and pair the alive pieces of the two runs one to
#    one by cosine similarity, so that the sum is largest (`scipy.optimize.linear_sum_assignment`).
#
# **Predict before you run.** How many of our pieces will be found again, at a cosine above 0.9?

# %%
nonsense = editing.shuffled(network, Generator().manual_seed(0))
again = fit_all({"seed 1": (network, {"seed": 1}), "shuffled weights": (nonsense, {})})
pd.DataFrame(
    {"ours": verdict(run), "seed 1": verdict(again["seed 1"])}
    | {"shuffled weights": verdict(again["shuffled weights"], labels=nonsense(x_test).argmax(dim=1))}
).T.round(3)

# %% [markdown]
# Look at the last row. Alive pieces, L0, KL: **a network of nonsense looks as decomposable as ours.** It has inputs that cluster into
# kinds, and an answer that hangs on a few directions for each kind. That is all SPD needs. None of these numbers says
# that the pieces mean anything. (Only the accuracies are lower. Perhaps shuffled weights decide by a hair's breadth, so that little
# is needed to change an answer.)
#
# And the second seed has as many pieces, in use as often, but it would not have passed our rule: with its important pieces only, the
# accuracy drops by 0.025. Are they at least the same pieces?


# %%
def alive_matrices(one: pdh.Run, use: str) -> Tensor:
    """The subcomponents that matter on some training image, (alive, d_out, d_in)."""
    return one.components.layers[use].P.detach()[metrics.alive(one.importances(x_train)[use])]


others = {
    "another seed": again["seed 1"],
    "another price, 0.003": prices[0.003],
    "shuffled weights": again["shuffled weights"],
}
fig, axes = pdh.plots.figure(9, 3.2, 1, 2)
refound = {}
for ax, use in zip(axes[0], ("hidden", "logits"), strict=True):
    cosines = {
        k: judging.matched(alive_matrices(run, use), alive_matrices(one, use)).cosine for k, one in others.items()
    }
    plots.match_curves(ax, cosines).set_title(use, fontsize=10)
    refound[use] = {k: f"{int((c > 0.9).sum())} above 0.9, median {c.median():.2f}" for k, c in cosines.items()}
told = "; ".join(f"{use}: {', '.join(f'{k} {v}' for k, v in row.items())}" for use, row in refound.items())
pdh.show(fig, alt=f"Sorted cosine similarities of matched subcomponents. {told}.")
pd.DataFrame(refound)

# %% [markdown]
# **From another seed, none.** The best pair in the hidden layer has a cosine of 0.67, and the median is about 0.4. That is more than chance
# (the shuffled network), so there is *something* both runs saw. But "subcomponent 25" is not a thing in the network.
#
# From another *price* and the same seed four in five pieces come back above 0.9. So it is mostly the random start that decides which pieces
# you get; the price decides how many survive. If you vary the price alone, as many would, your result looks far more
# stable than it is.
#
# On the toy models the seeds agreed (notebook 13: five of five). There the answer was forced: one piece for each of many independent features.
# Digits have no such features, and there are many ways to share out the work.

# %% [markdown]
# ### Exercise 3 · Match two decompositions
#
# `P` and `Q` are two sets of components, (C, d_out, d_in) each. Pair them one to one so that the *sum* of cosine similarities is
# largest, and return the cosines of the pairs, largest first. *Difficulty: moderate. Time: 10 minutes.*


# %%
def match(P: Tensor, Q: Tensor) -> Tensor:
    """(pairs,), sorted in descending order."""
    ### BEGIN SOLUTION
    from scipy.optimize import linear_sum_assignment

    cosines = F.normalize(P.flatten(1), dim=1) @ F.normalize(Q.flatten(1), dim=1).T
    rows, columns = linear_sum_assignment(cosines.numpy(), maximize=True)
    return cosines[rows, columns].sort(descending=True).values
    ### END SOLUTION


# %%
pdh.checks.match(match)

# %% [markdown]
# ## Dead and duplicate
#
# Two last counts before we look at anything. **Dead**: never important. **Duplicate**: two pieces that are important on nearly the same
# inputs (of the images where one is, both are on 80%). Such a pair is one mechanism of rank two that SPD had to cut, because its pieces
# have rank one.

# %%
g_train = run.importances(x_train)
on = {use: values > metrics.ALIVE for use, values in g_train.items()}
leftovers = {}
for use, is_on in on.items():
    P_use = run.components.layers[use].P.detach()
    dead = ~is_on.any(dim=0)
    share = P_use[dead].sum(dim=0).norm() / run.components.targets[use].norm()
    leftovers[use] = [
        int(dead.sum()),
        share.item(),
        len(judging.duplicates(is_on)),
        len(judging.duplicates(is_on, least=0.5)),
    ]
pd.DataFrame(leftovers, index=["dead", "length of their sum, share of W", "pairs at 80%", "pairs at 50%"]).T.round(2)

# %% [markdown]
# The dead ones are not nothing: together they have a good part of the matrix's length. They hold what SPD judged to be
# needed on no training image. (Duplicates are rare: one pair in both layers.) You may leave them out when you read the answers on *these* images. You may not throw them away.

# %% [markdown]
# ## Reading
#
# With all that said: what is in there? A piece of the hidden layer reads an 8 x 8 image, so we can look at it. Blue pixels speak for
# it, red ones against it. (The sign of $V_c$ alone means nothing, $(-U)(-V)^\top$ is the same piece; we choose it so that it reads a positive number
# where it is important.)
#
# The four hidden pieces that are important on most images, and what is needed of them:

# %%
top = {use: is_on.sum(dim=0).argsort(descending=True).tolist() for use, is_on in on.items()}
fig, alt = plots.reading(run, x_test, y_test, "hidden", top["hidden"][:4], (8, 8), ("pixels", "hidden units"))
pdh.show(fig, alt)

# %% [markdown]
# The right half is easy to like: 3s and 8s and 9s, or 1s and 4s. Most pieces serve two to five digits. The left half is not: can you tell from the
# pixels alone which digits a piece is for? We cannot. Most of what you "see" in such a table you see in the examples, and those were
# chosen by the gate. **Cover the right half before you tell a story**, and look at the shuffled network's table (*Try it* has the line).

# %%
fig, alt = plots.reading(run, x_test, y_test, "logits", top["logits"][:4], (8, 8), ("hidden units", "logits"))
pdh.show(fig, alt)

# %% [markdown]
# A piece of the last layer writes to the ten logits, so its claim can be checked against its own weights: does it write a positive number
# to the digits it is important for? The four above do for the first one or two digits, and they write *against* most others at the same time.
#
# ## Ablating
#
# Stories are cheap; switching off is not. Each row is one piece of the last layer switched off on every test image; each number is the change of
# a digit's accuracy.

# %%
effects = {use: judging.class_effects(run, x_test, y_test, use) for use in on}
most_used = top["logits"][: int(on["logits"].any(dim=0).sum())]
fig, axes = pdh.plots.figure(8, 0.9 + 0.24 * len(most_used))
plots.class_table(axes[0, 0], effects["logits"][most_used], [f"without {c}" for c in most_used]).set_xlabel("digit")
strongest = {use: divmod(int(e.argmin()), 10) for use, e in effects.items()}
c, d = strongest["logits"]
pdh.show(
    fig,
    alt="Change of each digit's accuracy when one of the alive subcomponents of the last layer is off, the most used first. Most changes are near zero; the "
    f"largest is {effects['logits'][c, d]:+.2f} for digit {d} without subcomponent {c}.",
)

# %% [markdown]
# Is that because the pieces are *good*, or would any rank-one piece of that size do as much? Two controls for the strongest one:
# rank-one matrices of the same length in **random** directions, and the piece of the **singular value decomposition** that costs
# the same digit most.

# %%
P = run.components.layers["logits"].P.detach()[c]
W_out = network.logits.weight


def without(change: Tensor) -> Tensor:
    """Test accuracy of each digit when this matrix is taken away from the last layer's weights, for real."""
    return judging.class_accuracy(editing.edited(network, {"logits": -change})(x_test), y_test)


draw = Generator().manual_seed(0)
random = [torch.outer(torch.randn(10, generator=draw), torch.randn(32, generator=draw)) for _ in range(20)]
random = torch.stack([without(R * P.norm() / R.norm()) for R in random]).mean(dim=0)
left, sizes, right = torch.linalg.svd(W_out, full_matrices=False)
singular = torch.stack([without(s * torch.outer(u, v)) for u, s, v in zip(left.T, sizes, right, strict=True)])
singular = singular[singular[:, d].argmin()]
before = judging.class_accuracy(network(x_test), y_test)
removed = {f"subcomponent {c}": without(P), "random, mean of 20": random, "singular piece": singular}
pd.DataFrame(
    {name: {f"digit {d}": (a - before)[d].item(), "other digits, mean": ((a - before).sum() - (a - before)[d]).item() / 9}
     for name, a in removed.items()}
).T.round(3)  # fmt: skip

# %% [markdown]
# The singular piece costs the digit as well, but takes others with it; a random piece of that length does little to anything. So
# the subcomponent is *specific* in a way that the usual factorisation is not.

# %% [markdown]
# ## Editing
#
# So far "off" was a mask. Now we change the weights themselves, in a plain copy of the network that knows nothing of SPD, and hold it to
# a prediction made with masks.
#
# 1. **Forget**: subtract the piece $U_c V_c^\top$ from the last layer.
# 2. **Redirect**: replace $U_c$ by a copy in which the digit and another one have changed places. The same images, another
#    answer.

# %%
u, v = plots.factors_of(run, x_test, "logits")[c]
e = int(torch.where(torch.arange(10) == d, torch.inf, u).argmin())  # the digit it writes against most
swapped = u.clone()
swapped[[d, e]] = u[[e, d]]
versions = {
    "network": network(x_test),
    "forget, foretold by mask": editing.output_without(run, x_test, "logits", c),
    "forget, edited weights": editing.edited(network, {"logits": -P})(x_test),
    "redirect, edited weights": editing.edited(network, {"logits": torch.outer(swapped - u, v)})(x_test),
}
answered = {
    f"{d}s answered {k}": [(o.argmax(1) == k)[y_test == d].double().mean().item() for o in versions.values()]
    for k in (d, e)
}
rest = [(o.argmax(1) == y_test)[(y_test != d) & (y_test != e)].double().mean().item() for o in versions.values()]
fifth = [(o.argmax(1) == y_test)[y_test == e].double().mean().item() for o in versions.values()]
pd.DataFrame(answered | {f"{e}s right": fifth, "accuracy on other digits": rest}, index=list(versions)).round(3)

# %% [markdown]
# The mask foretold what the edit does, to within two test images. And the edit is surgical: four in five of the digit's images are forgotten,
# and the other digits do not notice. Redirecting half works: no 2 is answered 2 any more, but only half of them are answered 0, and the
# rest are answered otherwise. The new direction has to win against what the other pieces say, and we did not ask them.
#
# Do not be too impressed. In the *last* layer there is a simpler way to forget a digit: lower its bias. What the edit shows is that the piece
# does what its picture says; not that SPD was needed to do it.

# %% [markdown]
# ## The lab
#
# Choose a layer and a subcomponent, switch it off, and watch the confusion matrix (rows: true digits, columns: answers).
#
# 1. In *logits*, switch off the pieces one after the other. Which digits can you knock out, and which survive everything?
# 2. Find a piece that is important for a digit and whose removal costs that digit nothing. Why is that possible? (A question below.)
# 3. Go to the right end of the slider: these are dead. Does switching them off change anything?

# %%
pdh.widgets.SubcomponentLab(run, x_test, y_test, shape=(8, 8))

# %% [markdown]
# ## What not to believe
#
# Importances were learned on upright digits of a certain brightness. Do they hold elsewhere? The same network, the same
# decomposition, other images:

# %%
upright = x_test.view(-1, 8, 8)
elsewhere = {
    "test images": x_test,
    "half as bright": 0.5 * x_test,
    "one pixel to the right": F.pad(upright, (1, 0))[:, :, :8].flatten(1),
    "turned by 90°": upright.rot90(1, (1, 2)).flatten(1),
    "noise": torch.rand(450, 64, generator=Generator().manual_seed(0)),
}
shifted = {}
for name, inputs in elsewhere.items():
    report = judging.judge(run, inputs, y_test, Generator().manual_seed(0))
    shifted[name] = {f"accuracy, {k}": report[k].accuracy for k in ("network", "all", "important")}
    shifted[name] |= {"KL, important": report["important"].kl}
    shifted[name] |= {f"L0 {use}": metrics.l0(g) for use, g in run.importances(inputs).items()}
pd.DataFrame(shifted).T.round(3)

# %% [markdown]
# Dimming the images by half changes nothing for the network: same accuracy. It ruins the *importances*: a gate that learned "important above
# this value" stays shut, and every fifth image is lost. The pieces still add up to the network (column *all*), everywhere. What does not
# carry over is the claim which of them are needed.
#
# Here is what we would and would not say about this network, with the numbers from this page.
#
# | claim | believe it? | because |
# |---|---|---|
# | the pieces add up to the network | yes, on any input | *all* follows the network on every data set above |
# | on digits like these, three or four pieces a layer carry an answer | mostly | accuracy holds on test images; the KL is still several times that of a twin network |
# | switching off this piece makes the network lose this digit | yes | done in the real weights, foretold by masks, controls do something else |
# | the network has about 20 mechanisms in its hidden layer | no | 34 to 8, as the price goes from 0.001 to 0.1 |
# | *this* piece is a mechanism of the network | no | from another seed, none comes back above 0.9 |
# | few alive and low L0 show that the network is modular | no | shuffled weights give the same |
# | the layer does no more than its important pieces | no | of an identity, they keep a half |
# | it works like this on other inputs | no | half the brightness is enough to break it |
# | a price that passed will pass again | no | at the same price the second seed fails our rule |
#
# A decomposition of your network is a *hypothesis generator* with a built-in ablation test. The ablations are evidence. The pictures, the
# counts and the names are not, until you have tested them.

# %% [markdown]
# ## Three networks, the same call
#
# Perhaps your network is not an MLP. Here are two more that read the same digits. A **convolutional network** slides small windows
# over the picture. A **transformer** reads the picture from top to bottom, a line of eight pixels at each of eight **positions**, as a
# language model reads words.
#
# The method does not change. It only needs a word for what a matrix is multiplied with, and the word is **row**. A layer may
# have many rows for one image:
#
# - in the MLP, a row is the image itself;
# - in a convolution, a row is a **patch**: the numbers under the window, at each place to which the window slides;
# - in the transformer, a row is the vector at one position.
#
# So an importance now says which subcomponent is needed on which image, and *where* on it. Here are both networks:


# %%
def conv_net() -> nn.Sequential:
    """Pictures (images, 1, 8, 8) to logits (images, 10)."""
    return nn.Sequential(OrderedDict(
        first=nn.Conv2d(1, 8, kernel_size=3, padding=1), relu=nn.ReLU(),             # 8 x 8 places
        second=nn.Conv2d(8, 16, kernel_size=3, stride=2, padding=1), relu2=nn.ReLU(),  # 4 x 4 places
        flat=nn.Flatten(), logits=nn.Linear(16 * 4 * 4, 10),
    ))  # fmt: skip


class Transformer(nn.Module):
    """Lines of pixels (images, 8, 8) to logits (images, 10)."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.position = nn.Parameter(nn.init.normal_(torch.empty(8, 32), std=0.1))
        self.block = nn.TransformerEncoderLayer(d_model=32, nhead=4, dim_feedforward=64, dropout=0.0, batch_first=True)
        self.logits = nn.Linear(32, 10)

    def forward(self, lines: Tensor) -> Tensor:
        vectors = self.block(self.embed(lines) + self.position)  # (images, 8 positions, 32)
        return self.logits(vectors.mean(dim=1))


train_pictures, test_pictures = x_train.view(-1, 1, 8, 8), x_test.view(-1, 1, 8, 8)
train_lines, test_lines = x_train.view(-1, 8, 8), x_test.view(-1, 8, 8)
conv = classifier(0, conv_net, train_pictures, steps=400)
transformer = classifier(0, Transformer, train_lines, steps=400)
print(
    f"test accuracy: conv net {accuracy(conv(test_pictures)):.3f}, transformer {accuracy(transformer(test_lines)):.3f}"
)

# %% [markdown]
# Now what `pdh.fit` is given, first for the **conv net**. Compare it with the ten lines at the top. What is different?

# %%
smaller = config.replace(steps=1000, batch_size=64, faithfulness_coeff=1000)
of_conv = {
    "target": conv, "config": smaller.replace(importance_coeff=0.003), "data": train_pictures,
    "layers": {"first": 16, "second": 40, "logits": 40},
}  # fmt: skip

# %% [markdown]
# Only the shape of its inputs: the tensor holds pictures, as the network takes them. (The dictionary gives each layer a number of
# subcomponents. The first matrix has only 8 rows and 9 columns, so 16 are plenty. A list works, too.)
#
# The **transformer** needs one word more. `nn.TransformerEncoderLayer` keeps the matrices of queries, keys and values in one, and
# multiplies with it by hand. A subcomponent of that matrix would mix the three. `pdh.unpack(transformer)` is a copy that computes
# the same and has a layer for each: `q`, `k` and `v`, and `o` for what attention writes.

# %%
unpacked = pdh.unpack(transformer)
of_transformer = {"target": unpacked, "config": smaller, "data": train_lines, "layers": ["block.*"]}

workers = joblib.Parallel(n_jobs=min(2, joblib.cpu_count()), return_as="generator")  # pdh.fit(**of_conv), and the other
calls = [joblib.delayed(pdh.fit)(**given, device="cpu", show_progress=False) for given in (of_conv, of_transformer)]
conv_run, transformer_run = progress(workers(calls), total=2, description="runs", unit="run")
list(transformer_run.components.layers)

# %% [markdown]
# The name `"block.*"` stands for all layers in the block: these four and the two of its MLP.
#
# The settings follow the choices above. The batches are smaller, because an image has up to 64 rows. Faithfulness weighs more, because
# it is a mean over parameters and the transformer has more of them. And each network needs a price of its own: at 0.01 the conv net
# loses about two images in a hundred with its important pieces only, so it gets the next lower price.
#
# **Predict before you run.** The price is paid per row. Which of the three networks needs the most pieces per row, and which needs
# the most different pieces for one image?


# %%
def side_by_side(one: pdh.Run, inputs: Tensor, row: str) -> dict[str, str]:
    """How big a decomposition is, and how good, on the test images."""
    g, judged = one.importances(inputs), judging.judge(one, inputs, y_test, Generator().manual_seed(0))

    def of_each(number) -> str:
        return ", ".join(f"{number(values):.3g}" for values in g.values())

    return {
        "layers": ", ".join(use.rpartition(".")[2] for use in g),
        "a row is": row,
        "rows for an image": of_each(lambda values: values[0, ..., 0].numel()),
        "subcomponents": of_each(lambda values: values.shape[-1]),
        "alive": of_each(lambda values: int(metrics.alive(values).sum())),
        "L0, per row": of_each(metrics.l0),
        "different ones per image": of_each(ideas.subcomponents_per_input),
        "accuracy: network": f"{judged['network'].accuracy:.3f}",
        "accuracy: all on": f"{judged['all'].accuracy:.3f}",
        "accuracy: important only": f"{judged['important'].accuracy:.3f}",
        "KL: important only": f"{judged['important'].kl:.3f}",
        "network's own loss": f"{F.cross_entropy(one.target(inputs), y_test).item():.3f}",
    }


kinds = {
    "MLP": (run, x_test, "an image"),
    "conv net": (conv_run, test_pictures, "a patch, a patch, an image"),
    "transformer": (transformer_run, test_lines, "a position"),
}
pd.DataFrame({kind: side_by_side(*of_kind) for kind, of_kind in kinds.items()})

# %% [markdown]
# It is the conv net, both times. Its last layer needs eleven pieces. A patch of the first layer needs fewer than four, but an image needs
# twelve of the thirteen that are alive *somewhere*. A position of the transformer needs three or four pieces in most layers, as many as
# the MLP needs for a whole image.
#
# Compare the two lines, *L0* and *different ones*. Where they are close, all places of an image need the same pieces: so it is in `o`, and in `q`,
# where a single piece does everything. Where the second is much larger, the places share out the work: three pieces for a position in
# `v`, and ten different ones for an image.
#
# Now our rule. The divergences pass: both are below the network's own loss. The accuracies stand on the edge: 0.01 allows four images of 450,
# and in our builds the conv net lost three to five, and the transformer six or more. How a machine rounds its sums is enough to move an image or two.
# A rule is worth something only if it may say no. So we say: *nearly* all that is needed, and before we claimed more we would lower the prices or
# train for longer.

# %% [markdown]
# ### Where on the image?
#
# **Predict before you run.** Part of every image is empty, and the first layer's matrix passes over the empty patches like over
# all others. Will its subcomponents be important there? And the transformer's `v` writes what a line has to tell the others:
# which of the eight lines will need most of it?

# %%
at_patches = conv_run.importances(test_pictures)["first"]  # (images, 8, 8, C)
at_lines = transformer_run.importances(test_lines)["block.self_attn.v"]  # (images, 8, C)
by_use = (at_patches > metrics.ALIVE).sum(dim=(0, 1, 2)).argsort(descending=True).tolist()
examples = [int((y_test == k).nonzero()[0]) for k in (0, 4, 7)]
fig = plots.places(test_lines[examples], at_patches[examples], at_lines[examples], by_use[:8:2], ("first", "v"))

empty = F.max_pool2d(test_pictures, 3, stride=1, padding=1)[:, 0] == 0  # (images, 8, 8): patches without ink
n_at_patches = (at_patches > metrics.ALIVE).sum(dim=-1).double()
n_at_lines = (at_lines > metrics.ALIVE).sum(dim=-1).double().mean(dim=0)
busiest, calmest = int(n_at_lines.argmax()), int(n_at_lines.argmin())
pdh.show(
    fig,
    alt="A 0, a 4 and a 7. On the left, four subcomponents of the conv net's first layer are important on the strokes, "
    f"each on other parts of them. On test images {n_at_patches[~empty].mean():.1f} are important on a patch with ink, "
    f"and {n_at_patches[empty].mean():.1f} on an empty one ({empty.double().mean():.0%} of patches). On the right, "
    "importances in the transformer's layer v for each line: on average "
    f"{n_at_lines[busiest]:.1f} subcomponents on line {busiest}, {n_at_lines[calmest]:.1f} on line {calmest}.",
)

# %% [markdown]
# Nobody told SPD where the ink is. An empty patch is nine zeros, of which no subcomponent can read or write anything, so an
# importance there would have been a plain error of the gate. There is none. Piece 14 is needed on nearly all ink, and each of the
# others only on some of it. It is tempting to call one of them an edge detector. That is a story like those above, and it needs the same
# tests: its nine numbers, and what happens without it.
#
# In the transformer it is the middle of the image that has something to say, line 3 above all. Had every line needed the same number, positions
# would have told us nothing. A warning: we look at the *first* block, where the vector at a position knows only its own line. In a
# second block it would hold what other lines have told it, and an importance at line 3 would no longer be about line 3.
#
# `run.active(inputs)` gives the same as a table, with an entry for everything that is important somewhere. What does line 3 of our 7 need?

# %%
seven = transformer_run.active(test_lines[examples[2:]])
seven[(seven.position == 3) & seven.layer.isin(["block.self_attn.v", "block.linear1"])].round(2)

# %% [markdown]
# ### One piece less
#
# `run.edited({layer: {c: 0.0}})` is a plain copy of the network without subcomponent c. From a convolution it disappears at all places,
# from the transformer at all positions. For every piece that is alive we ask what each digit loses, and we show the greatest loss in each of the
# three networks.
#
# **Predict before you run.** A piece of a convolution acts on every patch of every image. Will its removal hurt one digit, or all of them?

# %%
lost = {}
for kind, (one, inputs, _) in kinds.items():
    costs = ideas.ablation_costs(one, inputs, y_test)  # (layer, c) -> change of each digit's accuracy
    layer, number = min(costs, key=lambda piece: costs[piece].min().item())
    lost[f"{kind} without {layer.rpartition('.')[2]} {number}"] = costs[layer, number]
fig, axes = pdh.plots.figure(8, 1.7)
plots.class_table(axes[0, 0], torch.stack(list(lost.values())), list(lost)).set_xlabel("digit")
worst = "; ".join(f"{name}, digit {int(changes.argmin())}: {changes.min():+.2f}" for name, changes in lost.items())
pdh.show(
    fig,
    alt="Change of each digit's accuracy without one subcomponent, the one that costs a digit most in each network. "
    f"{worst}.",
)

# %% [markdown]
# In the MLP, the piece is one of a single digit; the rest hardly notice. (Several pieces come close to the greatest loss, so on your
# machine it may be another one, of another digit.) The conv net's piece is the one that is needed on nearly all ink, and several digits
# go with it. The transformer's piece is the only one of its queries that is ever important, and almost every digit is lost.
#
# Is a loss that is spread over many digits a bad sign? No. It says that this piece is shared: the digits do not each have a mechanism of their
# own there. But mind how we chose. The piece with the greatest loss is easily one that everything rests on, and
# `ideas.ablation_costs` lists the others, many of which cost nobody anything.
#
# ### What each kind of network needs
#
# | your network has | write | and a row is |
# |---|---|---|
# | `nn.Linear` layers | the ten lines | an input, or every vector of a sequence |
# | convolutions | the same | a patch |
# | `nn.MultiheadAttention` or torch's transformer layers | `pdh.unpack(network)` | a position |
# | a model of Hugging Face's transformers | `pip install pd-helpers[hf]`, and `output=lambda out: out.logits` | a token's position |
# | labels in its data | the `DataLoader` or `Dataset` as it is; only as much goes in as the network takes | |
#
# The project's README has a longer table, *Use it on your own network*, of what works, what does not, and the sentence that you get then.
# `help(pdh.unpack)` says what else can be unpacked, such as queries, keys and values in one `nn.Linear`.

# %% [markdown]
# ### Exercise 4 · How many pieces does an input need?
#
# L0 is a mean over rows. A piece that is needed at ten places of an image counts ten times, and a piece that is needed at one place of 64
# hardly counts. `g` are importances (inputs, *places*, C), with any number of dimensions for places, also none. Return the mean number of *different*
# subcomponents that an input needs: those with importance above 0.1 at one of its places or more. (Your function should find the
# table's line *different ones per image*.) *Difficulty: moderate. Time: 10 minutes.*


# %%
def subcomponents_per_input(g: Tensor) -> Tensor:
    """A single number."""
    ### BEGIN SOLUTION
    rows = (g > 0.1).reshape(len(g), -1, g.shape[-1])  # (inputs, places, C); without places, one
    return rows.any(dim=1).sum(dim=1).double().mean()
    ### END SOLUTION


# %%
pdh.checks.subcomponents_per_input(subcomponents_per_input)

# %% [markdown]
# ## Try it
#
# Not part of *Run All*; a decomposition takes ten seconds. Make a guess before each one.
#
# ```python
# pdh.show(*plots.reading(again["shuffled weights"], x_test, y_test, "hidden", range(4), (8, 8)))
# verdict(fit(network, steps=6000))                              # is it only a matter of patience?
# verdict(fit(network, n_init=5, selection_steps=500))               # or of a better start?
# verdict(fit(network, C=80, importance_coeff=0.001))            # were 40 too few at the low price?
# verdict(fit(network, init_std=0.03, faithfulness_warmup_steps=0))  # small beginnings
# transformer_run.strongest("block.self_attn.v", 27, test_lines)     # the lines on which one piece matters most
# pdh.fit(conv, smaller, train_pictures)                             # all layers, at the price of the MLP
# ```

# %% [markdown]
# ## Now yours
#
# The same lines, with gaps. Your network may be any `nn.Module` whose layers are called as modules, each once in a forward pass; the
# table above says which need a word more.
#
# ```python
# import pandas as pd
# import torch
# import pd_helpers as pdh
# from pd_helpers import judging
#
# network = ...                                     # trained; it stays as it is
# x_train, x_test, y_test = ...                     # inputs as the network takes them, and labels
#
# config = pdh.SPDConfig(C=40, steps=1500, batch_size=256, lr=0.003, output_loss="kl",   # "mse" for regression
#                        faithfulness_coeff=100, importance_coeff=0.01, faithfulness_warmup_steps=200)
# run = pdh.fit(network, config, x_train, layers=["your.first", "blocks.*.mlp"], out="runs/mine")   # or all, without layers=
# judging.judge(run, x_test, y_test, torch.Generator().manual_seed(0))
# ```
#
# **Save, stop and continue.** With `out=`, checkpoints are written on the way. After Ctrl-C or a crash,
# `pdh.resume("runs/mine", target=network, data=x_train)` continues from the last of them. `pdh.load("runs/mine", target=network)` reads a finished run, and
# `run.save("folder")` writes one that had no `out`.
#
# **Sweep.** `fit_all` above is a sweep in four lines: `joblib.Parallel` over `pdh.fit`, any setting, any seed. (`pdh.sweep` does the same for
# the papers' networks, with a table.) Sweep **seeds first**: they tell you how much of what you see is worth reading.
#
# **On a GPU, or larger.** `device="auto"`, the default, takes CUDA where there is one and decomposes a copy of your network there, on batches that
# are moved there too. Afterwards `x_test`, `y_test` and the generator that you give to `judge` must be there as well:
# `x_test.to(run.device)`, `torch.Generator(run.device)`. Then raise `batch_size` (the GPU is idle otherwise) and `C`; cost grows with batch x C x layers. `layers` may be a dictionary with a
# number of components for each. Lower `lr` if the loss blows up: deeper networks need it.
#
# **A checklist**
#
# 1. Write down what *negligible* means before you look: accuracy, divergence, and against which yardstick.
# 2. Do all pieces add up to the network (*all*)? If not, raise `faithfulness_coeff`.
# 3. Is anything alive in every layer, and not everything? Else change `C` or $\beta_3$.
# 4. Sweep $\beta_3$ over two decades; take the largest that passes with the important ones *only*.
# 5. A second and third seed. Match the pieces. Report the cosines.
# 6. Shuffled weights. Do not report any number that the shuffled network has too.
# 7. A mechanism you know: insert an identity. Look at what is kept, not at the count.
# 8. Read; then ablate what you read, with controls; then edit the real weights.
# 9. Inputs from elsewhere.
# 10. Say what you would not bet on.

# %% [markdown]
# ## Questions a careful reader asks
#
# <details><summary>A piece is important for a digit, but switching it off costs that digit nothing. How?</summary>
#
# Three ways. *Important* means that the divergence grows, not that the answer flips: the network may be less sure and still right. Second, importance
# is about *this piece and others at random at the same time*; alone, its loss may be made up for by another. And third, the
# gate may simply be wrong: it sees one number, $V_c^\top a$, and opens for every input that reads as high.
# </details>
#
# <details><summary>If seeds disagree, is SPD broken, or is the network?</summary>
#
# Neither needs to be. Where two descriptions are equally cheap and equally faithful, a method that looks for *a* cheap faithful description may return
# either. On the toy models one was much better than all others. Whether digits *have* one best description, and SPD misses it, or
# there are many, these runs cannot tell. A lower loss in the best of many seeds would be a hint; `n_init=5` in the configuration
# tries five starts and keeps the best.
# </details>
#
# <details><summary>Why test on held-out images? SPD never sees a label.</summary>
#
# It sees inputs, and the gates learn from them which pieces are needed. On images they were trained on they do a little better. And the network itself
# is sure of its answers on training images, which makes any divergence small.
# </details>
#
# <details><summary>Why not choose β₃ by the total loss?</summary>
#
# The total loss contains $\beta_3$: a smaller price always gives a smaller loss. Comparing prices by it is like comparing shopping bills by
# making everything cheaper. You need a yardstick outside the loss.
# </details>
#
# <details><summary>A piece is needed at one patch of 64. Does it cost as much as one that is needed at all of them?</summary>
#
# No, a sixty-fourth. The price is a mean over rows, and the piece is important on one row of 64. The same $\beta_3$ is therefore a lower price
# for an image that has many rows, and L0 of a convolution cannot be compared with L0 of a layer that sees the image once. Compare a layer
# with itself at another price, and ask how many *different* pieces an image needs.
# </details>
#
# <details><summary>Could I decompose one layer only?</summary>
#
# Yes: name one. The others stay as they are, and the divergence is caused by that layer alone. It is cheaper, and a good start. You lose what
# happens when both layers are ablated at once, and how their pieces go together.
# </details>

# %% [markdown]
# ## When something looks wrong
#
# <details><summary>Everything is alive, L0 is large</summary>
#
# The price is too low for your loss. With squared errors on outputs of size 10, 0.01 is next to nothing. Go up by factors of 10.
# </details>
#
# <details><summary>Nothing is alive, or "important" has chance accuracy</summary>
#
# The price is too high, or the faithfulness weight too low: look at *all*. If *all* is bad too, raise `faithfulness_coeff`.
# </details>
#
# <details><summary>"the forward pass never called ..." or "takes inputs of width ..."</summary>
#
# The layer is used by hand, as `F.linear(x, layer.weight)`, or not at all. Call it as a module. Attention in one fused call is such a case;
# `pdh.unpack(network)` gives a network that calls all of its layers.
# </details>
#
# <details><summary>The network cannot run on what the data give</summary>
#
# A batch must be what your network takes: here pixels in a row for the MLP, (images, 1, 8, 8) for the convolutions, (images, 8, 8) for the
# transformer. Reshape the tensor, or name what belongs to the network: `inputs=lambda batch: batch["image"]`.
# </details>
#
# <details><summary>My numbers differ a little from those on this page</summary>
#
# Another version of torch or another processor rounds differently, and 1,500 steps of training make much of little. Counts move by one or two; the
# conclusions should not. If they do, that is a finding: seeds matter.
# </details>
#
# **Next:** [18 · Can an adversary break it?](18_adversary.ipynb) attacks what you have just found.
