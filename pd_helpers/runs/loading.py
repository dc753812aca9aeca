"""Reading runs back: finished ones with `load`, unfinished ones with `resume`.

The files may come from anywhere, so whatever is wrong with them ends in a ValueError that names the folder.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from pd_helpers.core.components import decompose
from pd_helpers.core.method import Data, Method, method_named
from pd_helpers.core.training import generator, pick_device
from pd_helpers.runs import files
from pd_helpers.runs.circumstances import circumstances, warn_of_differences
from pd_helpers.runs.recording import Record
from pd_helpers.runs.run import Run, target_tensors
from pd_helpers.runs.selection import Candidate
from pd_helpers.runs.validation import check_data
from pd_helpers.targets.base import TargetConfig, target_config_of


def load(folder: str | os.PathLike, *, target: nn.Module | None = None, device: str = "cpu") -> Run:
    """Read a run written by `Run.save`.

    `target` is needed for a run on a network of your own: a module of the same architecture, whose parameters are
    overwritten by the stored ones. Raises ValueError for a folder that is not a run, or a damaged one.
    """
    folder = Path(folder)
    at = pick_device(device)
    tensors, facts = files.read_run(folder)
    try:
        for path in facts["layers"]:
            tensors = files.with_factors(path, tensors)
        target = _stored_target(facts, tensors, target, at)
        method = _method(facts, tensors, target)
        method.step = method.config.steps
        candidate = Candidate(method, facts["seconds"])
        candidate.record = Record.unpack(tensors, facts, method)
        run = _run(facts, [candidate])
        run.metrics = facts["metrics"]
        run.trained = {key: facts[key] for key in circumstances(run.device) if key in facts}
        return run
    except Exception as error:  # the file is untrusted
        raise ValueError(f"the run in {str(folder)!r} cannot be read: {error}") from error


def resume(
    folder: str | os.PathLike,
    *,
    target: nn.Module | None = None,
    data: Data | None = None,
    show_progress: bool = True,
) -> Run:
    """Continue a run that was stopped, from the last checkpoint in the folder it had as `out`.

    On a CPU, with the same versions and number of threads (`torch.set_num_threads`), the result is that of a run which
    was never stopped, bit for bit; where these differ, a warning says so. A finished run is loaded, not repeated.

    Args:
        folder: what was `out`.
        target: for a network of your own, one of the same architecture; its parameters are overwritten.
        data: for a network of your own, the same function as before.

    >>> run = pdh.resume("runs/1")

    Raises ValueError for a folder without a run, a damaged one, or a device that this machine lacks.
    """
    folder = Path(folder)
    if files.is_finished(folder):
        run = load(folder, target=target)
        files.discard_checkpoint(folder)  # left if the process ended between the two
        run.data = data or run.data
        return run
    tensors, facts = files.read_checkpoint(folder)
    if facts.get("target_config") is None and (target is None or data is None):
        raise ValueError(
            f"the run in {str(folder)!r} decomposes a network of your own, so pdh.resume needs target=, a module of "
            "the same architecture, and data=, the function that draws its batches"
        )
    try:
        at = pick_device(facts.get("device"))
    except ValueError as error:
        raise ValueError(
            f"the run in {str(folder)!r} was trained on {facts.get('device')}, which torch does not find here; resume "
            "it where it was, or start it again on another device"
        ) from error
    try:
        target = _stored_target(facts, tensors, target, at)
        candidates = [
            _candidate(facts, own_facts, _below(f"{i}.", tensors), target)
            for i, own_facts in enumerate(facts["candidates"])
        ]
        run = _run(facts, candidates)
        run.data = data or run.data
        run.discarded_seconds = facts["discarded_seconds"]
        if data is not None:
            check_data(target, data, generator(run.seed, "data", at))
        warn_of_differences(facts, circumstances(run.device))
    except Exception as error:  # the file is untrusted
        raise ValueError(f"the run in {str(folder)!r} cannot be resumed: {error}") from error
    return run.train_into(folder, show_progress=show_progress)


def _run(facts: files.Facts, candidates: list[Candidate]) -> Run:
    """A run of these candidates, with what the facts say of it."""
    target_config = _target_config(facts)
    return Run(
        name=facts["experiment"],
        seed=facts["seed"],
        target_config=target_config,
        data=target_config.features() if target_config else None,
        candidates=candidates,
        target_seconds=facts["target_seconds"],
    )


def _candidate(facts: files.Facts, own_facts: files.Facts, tensors: files.Tensors, target: nn.Module) -> Candidate:
    """A candidate as it was when the checkpoint was written; `facts` are the run's, the rest is its own."""
    candidate = Candidate(_method(facts, tensors, target), own_facts["seconds"])
    candidate.record = Record.unpack(tensors, own_facts, candidate.method)
    candidate.unpack(tensors, own_facts)
    return candidate


def _method(facts: files.Facts, tensors: files.Tensors, target: nn.Module) -> Method:
    """The method with its stored parameters, at step 0."""
    method = method_named(facts["method"])
    config = method.Config(**facts["config"])
    ranks = {tensors[f"U.{path}"].shape[-1] for path in facts["layers"]}  # of a shipped run, lower than the config's
    model = decompose(target, facts["layers"], rank=ranks.pop() if len(ranks) == 1 else config.rank)
    at = model.factors[0].device
    decomposition = method(model, config, init=Generator(), draw=generator(facts["seed"], "data", at))
    _fill(decomposition.parameters(), tensors)
    return decomposition


def _stored_target(facts: files.Facts, tensors: files.Tensors, target: nn.Module | None, at: torch.device) -> nn.Module:
    """The target as it was: one of the papers' networks is built anew, a network of your own gets its weights back."""
    config = _target_config(facts)
    if config is not None:
        target = config.build()
    elif target is None:
        raise ValueError("it decomposes a network of your own; pass one of the same architecture as target=")
    _fill(target_tensors(target), tensors)
    return target.to(at)


def _target_config(facts: files.Facts) -> TargetConfig | None:
    return target_config_of(facts["target_kind"])(**facts["target_config"]) if facts["target_config"] else None


def _below(prefix: str, tensors: files.Tensors) -> files.Tensors:
    """The tensors whose names begin with the prefix, without it."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


@torch.no_grad()
def _fill(named: Mapping[str, Tensor], tensors: files.Tensors) -> None:
    """Overwrite tensors by the stored ones of the same name."""
    for name, tensor in named.items():
        if name not in tensors or tensors[name].shape != tensor.shape:
            raise ValueError(f"{name} is not as in target=, {tuple(tensor.shape)}; pass the same architecture")
        tensor.copy_(tensors[name])
