# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 00 · Start here
#
# **The question:** where am I, does everything run, and where do I go next?
#
# *After this notebook you can* run the course on your machine, say in one sentence what parameter decomposition is,
# and switch off one mechanism of a small network to see what it did.
#
# | read | do | run on two cores | before this | difficulty |
# |---|---|---|---|---|
# | 5 minutes | 5 minutes | {{minutes}} | nothing | gentle |

# %% [markdown]
# ## What this course is about
#
# A trained neural network is a pile of numbers: its **weights**. Somewhere in them sit the things it has learned to
# do, its **mechanisms**. A weight matrix does not say which of its numbers belong to which mechanism.
#
# **Linear parameter decomposition** writes the weights as a sum,
#
# $$W \;\approx\; P_1 + P_2 + \dots + P_C,$$
#
# and asks for **components** $P_c$ that are
#
# - **faithful**: together they add up to the weights;
# - **minimal**: each input needs only a few of them;
# - **simple**: each is as small a piece of machinery as possible, such as a matrix of rank one.
#
# The picture below shows the three. The first is a constraint, and it alone is no help: any vectors that end at $W$ meet
# it. The other two select among them, and they pull against each other.

# %%
import pd_helpers as pdh
from pd_helpers.course.start_here import plots

fig, axes = pdh.plots.figure(9.4, 2.9, 1, 3)
plots.three_demands(axes[0])
pdh.show(
    fig,
    alt="Faithful: four arrows, the components, one after the other from the origin to the tip of the arrow W. Minimal: a table of "
    "five inputs and four components, in which each input has one or two components on. Simple: a column times a row gives a "
    "matrix of rank one.",
)

# %% [markdown]
# Two methods do this, and you will build both. *Attribution-based Parameter Decomposition* (APD) switches on, for each
# input, the few components with the largest effect on the output. *Stochastic Parameter Decomposition* (SPD) learns
# how far each component can be randomly turned down without harm. They answer the same question, and so do the methods
# that will follow them. [Notebook 05](05_description_length.ipynb) states it as an optimisation problem.

# %% [markdown]
# ## Does it run?

# %%
import platform

import torch

print(f"Python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
print("GPU:", torch.cuda.get_device_name() if torch.cuda.is_available() else "none, and none is needed")

# %% [markdown]
# Now train a first network. It squeezes **five features** through **two dimensions** and has to get all five back
# out. It is the *toy model of superposition*, $\hat x = \mathrm{ReLU}(W^\top W x + b)$, and the first network that both
# methods were tested on. It takes a few seconds.

# %%
target = pdh.make_target(pdh.TMSConfig(), seed=0)
target

# %% [markdown]
# Its weight matrix $W$ has two rows (dimensions) and five columns (features), so each column is an arrow in a plane.

# %%
W = target.embed.weight
fig, axes = pdh.plots.figure(8, 3, 1, 2)
pdh.plots.columns(axes[0, 0], W).set_title("the columns of W as arrows", fontsize=10)
pdh.plots.matrix(axes[0, 1], W).set(xlabel="feature", ylabel="dimension")
axes[0, 1].set_title("the same numbers", fontsize=10)
pdh.show(fig, alt="The five columns of W as arrows in a plane: they point to the corners of a regular pentagon.")

# %% [markdown]
# ## Turn a mechanism down
#
# What would the mechanism of feature 0 be? A good guess: column 0 of $W$ and nothing else.
#
# **Predict before you run.** Only feature 0 is on. You multiply column 0 of $W$ by a mask $m$ and slide $m$ from 1 to
# 0. Which outputs change? Does output 0 fall in a straight line?

# %%
pdh.widgets.MechanismLab(target)

# %% [markdown]
# <details><summary>What you should have seen</summary>
#
# Output 0 falls, and faster than in a straight line: $W$ is used twice, once reading and once writing, so the
# output carries $m^2$. Below about $m = 0.43$ the negative bias wins and the output is exactly zero. Outputs 1
# and 3 belong to the neighbouring corners of the pentagon; what little they show is *interference*, and it shrinks
# as well, since feature 0 caused it.
#
# Now set *mechanism c* to 2 and leave feature 0 on. Nothing moves: on this input, mechanism 2 was not needed. That
# is minimality, and both methods are built on it.
# </details>

# %% [markdown]
# ## Decompose it
#
# One line trains APD on this very network. The other notebooks take that line apart.

# %%
run = pdh.run("apd/tms_5-2", seed=0, target=target, device="cpu")
fig, alt = pdh.plots.decomposition(run)
pdh.show(fig, alt)

# %% [markdown]
# Each component holds one arrow: APD found the five mechanisms. Look closely at their lengths, though. They are
# about 10% shorter than the target's. That is **shrinkage**. Notebook 07 lets you turn it up and down, and notebook 13
# shows SPD doing without it.
#
# In numbers, next to the paper's:

# %%
import pandas as pd

here = [f"{run.metrics[name]:.3f}" for name in ("mmcs", "ml2r")]
pd.DataFrame(
    {"here": here, "paper": ["0.998", "0.893"]}, index=["MMCS: do directions agree?", "ML2R: do lengths agree?"]
)

# %% [markdown]
# ## A first exercise
#
# ML2R is a mean of length ratios. Write the ratio for one column: the length of the component's column `p`, divided
# by the length of the target's column `w`. Both are vectors with two entries.
#
# *Difficulty: gentle. Time: 2 minutes.* The check below tells you how you did. No later cell depends on your answer.


# %%
def length_ratio(p: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """‖p‖ / ‖w‖, a single number."""
    ### BEGIN SOLUTION
    return p.norm() / w.norm()
    ### END SOLUTION


# %%
pdh.checks.length_ratio(length_ratio)

# %% [markdown]
# ## The map
#
# | notebook | the question it answers | runs in |
# |---|---|---|
# | **00 · Start here** | where am I, does it run, where next? | {{minutes:00_start_here}} |
# | [01 · Matrix decomposition](01_matrix_decomposition.ipynb) | why not take a matrix apart with SVD or NMF? | {{minutes:01_matrix_decomposition}} |
# | [02 · Superposition](02_superposition.ipynb) | how do five features live in two dimensions? | {{minutes:02_superposition}} |
# | [03 · Training the targets](03_training_the_targets.ipynb) | which networks do we decompose, and what have they learned? | {{minutes:03_training_the_targets}} |
# | [04 · Compressed computation](04_compressed_computation.ipynb) | is it computation in superposition at all? | {{minutes:04_compressed_computation}} |
# | [05 · Description length](05_description_length.ipynb) | what makes a decomposition good? | {{minutes:05_description_length}} |
# | [06 · Attributions](06_attributions.ipynb) | which components did this input use? | {{minutes:06_attributions}} |
# | [07 · APD on superposition](07_apd_superposition.ipynb) | does APD find the mechanisms, and why do they shrink? | {{minutes:07_apd_superposition}} |
# | [08 · APD with fewer neurons than functions](08_apd_compressed_computation.ipynb) | what does APD find where functions outnumber neurons? | {{minutes:08_apd_compressed_computation}} |
# | [09 · Mechanisms across layers](09_apd_cross_layer.ipynb) | does it find mechanisms that span two layers? | {{minutes:09_apd_cross_layer}} |
# | [10 · A network whose answer we wrote](10_apd_gated_functions.ipynb) | how often does it find mechanisms that we put in by hand? | {{minutes:10_apd_gated_functions}} |
# | [11 · APD with a penalty instead of top-k](11_apd_lp.ipynb) | could a penalty replace top-k? | {{minutes:11_apd_lp}} |
# | [12 · SPD from scratch](12_spd_from_scratch.ipynb) | what is SPD? Sixty lines | {{minutes:12_spd_from_scratch}} |
# | [13 · SPD on superposition](13_spd_superposition.ipynb) | the same networks with stochastic masks: no shrinkage | {{minutes:13_spd_superposition}} |
# | [14 · SPD on compressed computation](14_spd_compressed_computation.ipynb) | what does SPD find where functions outnumber neurons? | {{minutes:14_spd_compressed_computation}} |
# | [15 · SPD across layers](15_spd_cross_layer.ipynb) | what does it make of mechanisms that span layers? | {{minutes:15_spd_cross_layer}} |
# | [16 · APD against SPD](16_apd_against_spd.ipynb) | which of the two, and why? | {{minutes:16_apd_against_spd}} |
# | [17 · Your own network](17_your_own_network.ipynb) | how do I do this to my network? | {{minutes:17_your_own_network}} |
# | [18 · Can an adversary break it?](18_adversary.ipynb) | is what is called unimportant really so, under attack? | {{minutes:18_adversary}} |
# | [19 · What do the pieces of attention do?](19_attention.ipynb) | which pairs of pieces make an induction head? | {{minutes:19_attention}} |
#
# Read them in this order. Words you meet are in the [glossary](glossary.md), with further reading. Teachers:
# [plans, minutes, labs and grading](teaching.md).
#
# **How the notebooks work.** *Run All* always passes, exercises or not. Before a main result you are asked for a guess:
# make one, it is how the pictures stick. Every number that a paper reports stands beside the paper's.

# %% [markdown]
# ## Questions you might have
#
# <details><summary>Why decompose weights and not activations?</summary>
#
# Activations say what a network computed on some inputs. Weights say how. A dictionary of activation directions
# still leaves open which weights read them, combine them and write them; a component of the weights *is* that
# machinery, and can be switched off to see what it did.
# </details>
#
# <details><summary>Do I need a GPU?</summary>
#
# No. Everything here was made for two processor cores and takes seconds or minutes. With a GPU, the same code uses it.
# </details>
#
# <details><summary>Something failed. What now?</summary>
#
# Restart the kernel and choose *Run All*. If a slider does not appear, the notebook is probably being shown by a
# viewer without a Python kernel: open it in JupyterLab. If `import pd_helpers` fails, install the package as the
# README's first command does, in the environment in which JupyterLab runs.
# </details>
