"""Can a mask be found that breaks a decomposition? Attacks by gradient ascent and by enumeration (VPD, evaluation).

    m_c = g_c + (1 - g_c) r_c,  r ∈ [0, 1]     every mask under which the method promises the same output
    r ← clamp(r + η sign(∂ error / ∂r), 0, 1)   sign-gradient ascent on the sources r

For APD, g is 1 for active components and 0 for others, and one source scales a component in all layers; SPD's masks lie
in [g, 1]; VPD has a source for every Δ too. The error is that of the output, as `config.output_loss` compares it.

A *shared* attack chooses one source for each component, for all inputs and positions: it finds systematic faults. One
*per input* chooses anew for every input and position: it can pick, each time, those components whose small effects add
up, so it asks for more than that a component does not matter on average.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from pd_helpers.analysis.decomposed import Decomposed
from pd_helpers.core.config import shown
from pd_helpers.core.networks.batches import Inputs, checked_rows, n_inputs, select
from pd_helpers.core.training import generator, progress

REACH, SMALLEST_STEP = 2.0, 0.1
"""Steps times their size that reach every corner, with room for a detour; and the size of steps of a long attack."""
ROWS = 4096
"""Inputs that are attacked at a time."""
MOST_FREE = 20
"""Largest number of sources of which all corners are tried."""
RUNGS = (0, 1, 5, 20, 80, 320, 1280)
"""Numbers of steps of the attacks that make a ladder."""
JOINT = ""
"""Name of the sources of components that span layers."""

Sources = dict[str, Tensor]


class Attack(NamedTuple):
    """The worst masks that were found."""

    error: float
    """Mean error over inputs under these masks."""
    errors: Float[Tensor, " inputs"]
    """The error of every input."""
    masks: dict[str, Float[Tensor, "*rows n"]]
    """Use → m, as the components take them; with n = C + 1 columns, the last of which is that of Δ, for VPD."""
    trajectory: Float[Tensor, " passes"]
    """Mean over inputs of the largest error so far, at the random start and after every step; restarts follow."""
    sources: Sources
    """Use → r, one for all inputs, (n,), or one for each row; of components that span layers, "" → r."""


class _Part(NamedTuple):
    """Some of the inputs, and what the run says of them."""

    x: Inputs
    output: Tensor
    importances: dict[str, Tensor]


def attack(
    run: Decomposed,
    x: Inputs,
    steps: int = 20,
    scope: str = "shared",
    *,
    step_size: float | None = None,
    restarts: int = 1,
    seed: int = 0,
    show_progress: bool = True,
) -> Attack:
    """Search for the masks that change the output most although the decomposition says that they change nothing.

    Args:
        run: a finished run of any method, on any network.
        x: inputs, as the network takes them.
        steps: number of steps of sign-gradient ascent; with 0, random masks are measured.
        scope: "shared", one source for each component; or "per input", one for each input and position.
        step_size: η; None means 0.1, or 2 / steps where that is more.
        restarts: number of random beginnings, of which the worst counts: of each input, or of all if shared.
        seed: decides the random beginnings.
        show_progress: whether to show a progress bar.

    >>> pdh.attack(run, x, steps=320).error

    Raises ValueError or TypeError, before any work starts, for arguments that cannot work.
    """
    for name, value, least in (("steps", steps, 0), ("restarts", restarts, 1)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, but is {shown(value)}; 20 works")
    if scope not in ("shared", "per input"):
        raise ValueError(f"scope must be 'shared' or 'per input', but is {shown(scope)}; 'shared' works")
    number = isinstance(step_size, int | float) and not isinstance(step_size, bool)
    if step_size is not None and not (number and 0 < step_size <= 1):
        raise ValueError(f"step_size must be above 0 and at most 1, but is {shown(step_size)}; 0.1 works")
    step_size = step_size or max(SMALLEST_STEP, min(1.0, REACH / max(1, steps)))
    parts, draw = _parts(run, x), generator(seed, "evaluation", run.components.factors[0].device)
    shared = scope == "shared"
    if not shared:
        _check_rows(parts, scope)
    sweeps = range(restarts * (steps + 1))
    bar = progress(sweeps, total=len(sweeps), description="attack", show=show_progress)
    worst: list[tuple[Tensor, Sources]] = []  # of every part: errors (inputs,), sources
    trajectory = []
    for _ in range(restarts):
        sources = [_random(run, part, shared, draw) for part in (parts[:1] if shared else parts)]
        for _ in range(steps + 1):
            next(bar)
            now = sources * len(parts) if shared else sources
            errors, grads = zip(*(_uphill(run, part, r) for part, r in zip(parts, now, strict=True)), strict=True)
            worst = _worse(worst, list(zip(errors, now, strict=True)), shared)
            trajectory.append(torch.cat([errors for errors, _ in worst]).mean())
            if shared:
                grads = [{key: sum(of_part[key] for of_part in grads) for key in grads[0]}]
            sources = [
                {key: (r[key] + step_size * grad[key].sign()).clamp(0, 1) for key in r}
                for r, grad in zip(sources, grads, strict=True)
            ]
    next(bar, None)
    return _result(run, x, parts, worst, torch.stack(trajectory).cpu())


def worst_corner(run: Decomposed, x: Inputs, n_free: int = 10, found: Attack | None = None) -> Attack:
    """The worst of all corners, r ∈ {0, 1}, of those sources of each input that have most to move; enumerated.

    Args:
        run: a finished run on a network whose rows are the inputs.
        x: inputs.
        n_free: number of sources that are tried in all 2^n_free combinations. The others keep the value that `found`
            gives them, so the result is never better than that attack's.
        found: an attack per input on the same inputs; None means one of 40 steps.

    Where the error is convex in every source, and `n_free` covers all of them, this is the true maximum.
    """
    n = sum(_widths(run).values())
    if not isinstance(n_free, int) or not 0 < n_free <= MOST_FREE:
        raise ValueError(f"n_free must be a whole number from 1 to {MOST_FREE}, but is {shown(n_free)}; 10 works")
    n_free, found = min(n_free, n), found or attack(run, x, 40, "per input", show_progress=False)
    parts = _parts(run, x)
    _check_rows(parts, "corners", vectors=True)
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * n_free).view(-1, n_free)  # (2^n_free, n_free)
    worst, first = [], 0
    for part in parts:
        keys = list(found.sources)
        table = torch.cat([found.sources[key][first : first + len(part.output)] for key in keys], dim=1)  # (inputs, n)
        first += len(part.output)
        which = _freedom(run, part).topk(n_free, dim=1).indices  # (inputs, n_free)
        best = _uphill(run, part, _split(run, table))[0], table
        for corner in corners.to(table):
            tried = table.scatter(1, which, corner.expand(len(table), -1))
            errors = _errors(run, part, _split(run, tried)).detach()
            better = errors > best[0]
            best = torch.where(better, errors, best[0]), torch.where(better.unsqueeze(1), tried, best[1])
        worst.append((best[0], _split(run, best[1])))
    return _result(run, x, parts, worst, torch.cat([errors for errors, _ in worst]).mean().view(1).cpu())


def _parts(run: Decomposed, x: Inputs) -> list[_Part]:
    """The inputs, a few thousand at a time where they can be told apart."""
    n = n_inputs(checked_rows(x))
    g = run.importances(x)
    apart = n > ROWS and all(len(values) == n for values in g.values()) and run.components.has_independent_rows(x)
    bounds = [slice(start, start + ROWS) for start in range(0, n, ROWS)] if apart else [slice(None)]
    parts = []
    for own in bounds:
        rows = select(x, own) if apart else x
        output = run.components.target_forward(rows).output
        parts.append(_Part(rows, output, {use: values[own].detach() for use, values in g.items()} if apart else g))
    return parts


def _check_rows(parts: list[_Part], what: str, vectors: bool = False) -> None:
    """Raise ValueError unless every use has the rows of each input apart from others."""
    for part in parts:
        for use, g in part.importances.items():
            if len(g) != len(part.output) or (vectors and g.ndim != 2):
                remedy = "an attack" if vectors else "scope='shared'"
                raise ValueError(
                    f"{what} needs {'one row' if vectors else 'rows of its own'} for each input, but {use} has rows of "
                    f"shape {tuple(g.shape[:-1])} for {len(part.output)} outputs; {remedy} works"
                )


def _widths(run: Decomposed) -> dict[str, int]:
    """Name → number of sources."""
    n = run.method.n_sources
    return {JOINT: next(iter(n.values()))} if run.method.spans_layers else n


def _random(run: Decomposed, part: _Part, shared: bool, draw: Generator) -> Sources:
    """Sources r ~ U(0, 1): (n,) if shared, else one for each row."""
    sources = {}
    for key, n in _widths(run).items():
        g = next(iter(part.importances.values())) if key == JOINT else part.importances[key]
        rows = () if shared else (len(part.output),) if key == JOINT else g.shape[:-1]
        sources[key] = torch.rand(*rows, n, generator=draw, device=g.device, dtype=g.dtype)
    return sources


def masks_of(run: Decomposed, importances: dict[str, Tensor], sources: Sources) -> dict[str, Tensor]:
    """Use → the masks (*rows, n) that these sources give inputs with these importances, as `Attack.masks` has them."""
    by_use = dict.fromkeys(importances, sources[JOINT]) if JOINT in sources else sources
    return run.method.masks(importances, by_use)


def _errors(run: Decomposed, part: _Part, sources: Sources) -> Float[Tensor, " inputs"]:
    """The error of every input under the masks of these sources."""
    output = run.components(part.x, masks_of(run, part.importances, sources)).output
    return _of_each(run.method.config.output_loss)(output, part.output)


def _of_each(which: str | Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Float[Tensor, " inputs"]]:
    """The loss that a configuration names, of every input by itself."""

    def mse(output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().flatten(1).mean(dim=1)

    def kl(output: Tensor, target: Tensor) -> Tensor:
        log_q, log_p = output.log_softmax(dim=-1), target.log_softmax(dim=-1)
        return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=-1).view(len(output), -1).mean(dim=1)

    def own(output: Tensor, target: Tensor) -> Tensor:
        return torch.stack([which(*pair) for pair in zip(output.split(1), target.split(1), strict=True)])

    return own if callable(which) else {"mse": mse, "kl": kl}[which]


def _uphill(run: Decomposed, part: _Part, sources: Sources) -> tuple[Tensor, Sources]:
    """The error of every input, and the gradient of their sum with respect to the sources."""
    with torch.enable_grad():
        leaves = {key: r.detach().requires_grad_() for key, r in sources.items()}
        errors = _errors(run, part, leaves)
        grads = torch.autograd.grad(errors.sum(), list(leaves.values()), allow_unused=True, materialize_grads=True)
    return errors.detach(), dict(zip(leaves, grads, strict=True))


def _worse(
    before: list[tuple[Tensor, Sources]], now: list[tuple[Tensor, Sources]], shared: bool
) -> list[tuple[Tensor, Sources]]:
    """Of every part the larger errors with their sources: input by input, or as a whole if sources are shared."""
    if not before:
        return now
    if shared:
        means = [torch.cat([errors for errors, _ in of]).mean() for of in (before, now)]
        return now if means[1] > means[0] else before
    merged = []
    for (old_errors, old), (errors, sources) in zip(before, now, strict=True):
        worse = errors > old_errors
        chosen = {
            key: torch.where(worse.view(-1, *(1 for _ in r.shape[1:])), r, old[key]) for key, r in sources.items()
        }
        merged.append((torch.maximum(errors, old_errors), chosen))
    return merged


def _split(run: Decomposed, table: Float[Tensor, "inputs n"]) -> Sources:
    """Sources as the columns of one table."""
    widths = _widths(run)
    return dict(zip(widths, table.split(list(widths.values()), dim=1), strict=True))


@torch.no_grad()
def _freedom(run: Decomposed, part: _Part) -> Float[Tensor, "inputs n"]:
    """How far each source can move the output of its matrix: (1 - g_c) ‖P_c x‖, and ‖Δ x‖; added up over layers."""
    model, method = run.components, run.method
    forward = model.target_forward(part.x)
    by_use = {}
    for use, h in model.inner(forward.inputs).items():  # (inputs, C, R)
        layer, transposed = model.uses[use]
        writes = model.layers[layer].V if transposed else model.layers[layer].U.mT  # (C, R, d2)
        free = (1 - part.importances[use]) * torch.einsum("bcr,crd->bcd", h, writes).norm(dim=-1)
        if method.n_sources[use] > free.shape[1]:
            delta = model.targets[layer] - model.layers[layer].weight
            left = model.kinds[use].read(forward.inputs[use], delta.T if transposed else delta)
            free = torch.cat([free, left.norm(dim=-1, keepdim=True)], dim=1)
        by_use[use] = free
    return sum(by_use.values()) if method.spans_layers else torch.cat(list(by_use.values()), dim=1)


def _result(
    run: Decomposed, x: Inputs, parts: list[_Part], worst: list[tuple[Tensor, Sources]], trajectory: Tensor
) -> Attack:
    errors = torch.cat([errors for errors, _ in worst])
    of_parts: Iterator[dict[str, Tensor]] = (
        masks_of(run, p.importances, r) for p, (_, r) in zip(parts, worst, strict=True)
    )
    masks = _together([{use: mask.detach() for use, mask in of_part.items()} for of_part in of_parts])
    sources = worst[0][1]
    if next(iter(sources.values())).ndim > 1:  # not one for all inputs
        sources = _together([of_part for _, of_part in worst])
    return Attack(errors.mean().item(), errors, masks, trajectory, sources)


def _together(tables: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {key: torch.cat([table[key] for table in tables]) for key in tables[0]}
