"""Reading runs back: finished ones with `load`, unfinished ones with `resume`.

The files may come from anywhere. Their facts are checked, and compared with the header of the tensors, before anything
is built; whatever is wrong ends in a ValueError that names the folder, the file and the field.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from pd_helpers.core.components import decompose
from pd_helpers.core.machine.ranks import agreed, held_by_first, join
from pd_helpers.core.method import Data, Method
from pd_helpers.core.networks.batches import Inputs
from pd_helpers.core.networks.frozen import frozen
from pd_helpers.core.training import compare_stored, generator, pick_device, undisturbed
from pd_helpers.runs import blueprint, files
from pd_helpers.runs.api import after_target
from pd_helpers.runs.blueprint import (
    Unsuitable,
    default_dtype,
    stored_config,
    stored_dtype,
    stored_rank,
    stored_target_config,
    target_tensors,
)
from pd_helpers.runs.circumstances import CIRCUMSTANCES, circumstances, warn_of_differences
from pd_helpers.runs.data import as_source
from pd_helpers.runs.evaluation import check_agreement
from pd_helpers.runs.examples import Example
from pd_helpers.runs.facts import Facts
from pd_helpers.runs.folders import checked_path, claimed, clear_remnants, is_finished
from pd_helpers.runs.inputs import Feed
from pd_helpers.runs.memory import check_layers, check_room
from pd_helpers.runs.presets import Settings
from pd_helpers.runs.recording import Record
from pd_helpers.runs.run import Run
from pd_helpers.runs.selection import Candidate
from pd_helpers.runs.target_stage import TargetStage, run_facts, target_seed
from pd_helpers.runs.validation import batch_fingerprint, check_data, check_repeatable


@undisturbed()
def load(
    folder: str | os.PathLike,
    *,
    target: nn.Module | None = None,
    data: Any = None,
    output: Callable[[Any], Tensor] | None = None,
    inputs: Callable[[Any], Inputs] | None = None,
    output_loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    device: str = "cpu",
) -> Run:
    """Read a run written by `Run.save`.

    Args:
        folder: where it was written.
        target: for a run on a network of your own, a module of the same architecture, whose parameters are overwritten
            by the stored ones.
        data, output, inputs: for such a run, what `fit` was given; data are needed for new measurements only.
        output_loss: the function that compares outputs, if the run has one of your own.
        device: cpu, cuda or mps.

    >>> run = pdh.load("runs/1")

    Raises ValueError for a folder that is not a run, or one that is damaged or was changed after it was written, and
    then leaves `target` as it was.
    """
    path, at = checked_path(folder), pick_device(device)
    _check_target(target)
    own = Own(target, data, output, inputs, output_loss)
    try:
        tensors, facts = files.read_run(path, check=partial(blueprint.check_finished, target=target))
    except Unsuitable as reason:
        raise ValueError(f"the run in {str(path)!r} cannot be read: {reason}") from None
    try:
        with _as_before(target):
            run = _finished(facts, tensors, own, at)
    except Exception as error:  # the file is untrusted
        raise ValueError(f"the run in {str(path)!r} cannot be read: {error}") from error
    run.data = own.feed(run.target) or run.data
    return run


class Own(NamedTuple):
    """What of a run on a network of the user's own is not stored, but given again."""

    target: nn.Module | None
    data: Any
    output: Callable[[Any], Tensor] | None
    inputs: Callable[[Any], Inputs] | None
    output_loss: Callable[[Tensor, Tensor], Tensor] | None

    def feed(self, network: nn.Module) -> Feed | None:
        """The data as the network takes them; None if none were given."""
        return None if self.data is None else Feed(as_source(self.data), network, self.inputs)


def _finished(facts: Facts, tensors: files.Tensors, own: Own, at: torch.device) -> Run:
    """The run that these facts and tensors are."""
    target = own.target
    for layer in facts["layers"]:
        tensors = files.with_factors(layer, tensors)
    _check_finite(tensors, target)
    network = _stored_target(facts, tensors, target, at)
    method = _method(facts, tensors, network, own)
    method.step = method.config.steps
    candidate = Candidate(method, facts["seconds"])
    candidate.record = Record.unpack(tensors, facts, method)
    run = _run(facts, [candidate], tensors)
    run.metrics = facts["metrics"]
    run.mark_measured()
    check_agreement(run.metrics, run.components)
    run.trained = {key: facts[key] for key in CIRCUMSTANCES if key in facts}
    return run


@undisturbed()
def resume(
    folder: str | os.PathLike,
    *,
    target: nn.Module | None = None,
    data: Any = None,
    output: Callable[[Any], Tensor] | None = None,
    inputs: Callable[[Any], Inputs] | None = None,
    output_loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    show_progress: bool = True,
) -> Run:
    """Continue a run that was stopped, from the last checkpoint in the folder it had as `out`.

    On a CPU, with the same versions, number of threads (`torch.set_num_threads`) and instruction set, the result is
    that of a run which was never stopped, bit for bit; where these differ, a warning says so. A finished run is loaded,
    not repeated.

    Args:
        folder: what was `out`.
        target: for a network of your own, one of the same architecture; its parameters are overwritten.
        data: for a network of your own, the same data as before; batches that were drawn already are passed over.
        output, inputs, output_loss: for a network of your own, the same functions as before, if there were any.

    >>> run = pdh.resume("runs/1")

    Several processes, as `torchrun` starts them, can continue a run of any number of processes, all of which must be
    able to read the folder. On another number, the result is the same up to rounding.

    Raises ValueError for a folder without a run, a damaged one, one that another process is training, or a device that
    this machine lacks.
    """
    join()
    path = checked_path(folder)
    _check_target(target)
    own = Own(target, data, output, inputs, output_loss)
    if is_finished(path):
        run = load(path, target=target, data=data, output=output, inputs=inputs, output_loss=output_loss)
        with suppress(OSError):  # what is left if the process ended just then; the folder may be read-only
            files.discard_checkpoint(path)
            clear_remnants(path)
        return run
    if not path.is_dir():
        files.read_checkpoint(path)  # ValueError
    with held_by_first(lambda: claimed(path)):
        return _resume(path, own, show_progress)


def _resume(path: Path, own: Own, show_progress: bool) -> Run:
    """`resume` in a folder that is this run's own."""
    with agreed():
        facts, found = _read_unfinished(path, own)
    if not isinstance(found, Run):
        stage, settings = found
        target, seconds = stage.train(path, show_progress=show_progress)
        with agreed():
            found = after_target(facts["experiment"], facts["seed"], settings, target, seconds, device=facts["device"])
    return found.train_into(path, show_progress=show_progress)


def _read_unfinished(path: Path, own: Own) -> tuple[Facts, Run | tuple[TargetStage, Settings]]:
    """The facts of a checkpoint, and the run where it stood, or the training of its target and what follows."""
    target = own.target

    def check(facts: Facts, header: blueprint.Header) -> None:
        if facts["target_config"] is None and (target is None or own.data is None):
            raise Unsuitable(
                "it decomposes a network of your own, so pdh.resume needs target=, a module of the same architecture, "
                "and data=, what its batches were drawn from"
            )
        blueprint.check_checkpoint(facts, header, target)

    try:
        tensors, facts = files.read_checkpoint(path, check)
    except Unsuitable as reason:
        raise ValueError(f"the run in {str(path)!r} cannot be resumed: {reason}") from None
    try:
        at = pick_device(facts["device"])
    except ValueError as error:
        raise ValueError(
            f"the run in {str(path)!r} was trained on {facts['device']}, which torch does not find here; resume "
            "it where it was, or start it again on another device"
        ) from error
    try:
        _check_room(facts, target, at)
        warn_of_differences(facts, circumstances(facts["device"]))
        if facts["candidates"]:
            with _as_before(target):
                return facts, _unfinished(facts, tensors, own, at)
        stage, settings = _target_stage(facts, tensors, at)
        stage.begin()
    except Exception as error:  # the file is untrusted
        raise ValueError(f"the run in {str(path)!r} cannot be resumed: {error}") from error
    return facts, (stage, settings)


def _check_room(facts: Facts, target: nn.Module | None, at: torch.device) -> None:
    """Raise ValueError for sizes that this machine cannot hold."""
    config, (_, own_config) = stored_target_config(facts), stored_config(facts)
    if config is not None:
        check_room(Settings(config, own_config), at)
    elif target is not None:
        check_layers(target, own_config, facts["layers"], at)


def _unfinished(facts: Facts, tensors: files.Tensors, own: Own, at: torch.device) -> Run:
    """The run that these facts and tensors are, with its candidates where they stood."""
    network = _stored_target(facts, tensors, own.target, at)
    feed = own.feed(network)
    if feed is not None:
        check_repeatable(feed, lambda: generator(facts["seed"], "data", at))
        check_data(network, feed, generator(facts["seed"], "data", at), own.output)
        _check_same_data(feed, facts, at)
    candidates = [
        _candidate(facts, own_facts, _below(f"{i}.", tensors), network, own, feed)
        for i, own_facts in enumerate(facts["candidates"])
    ]
    run = _run(facts, candidates, tensors)
    run.data = feed or run.data
    run.discarded_seconds = facts["discarded_seconds"]
    return run


def _check_same_data(data: Data, facts: Facts, at: torch.device) -> None:
    """Raise ValueError unless data draws the inputs that the run began with; with other versions, warn."""
    if facts.get("first_batch") in (None, batch_fingerprint(data, facts["seed"], at)):
        return
    message = "data gives other inputs than the function that the run was started with; that function works"
    if facts["versions"] == circumstances(at.type)["versions"]:
        raise ValueError(message)
    warnings.warn(f"{message}, unless another version of torch only rounds them otherwise", stacklevel=2)


@contextmanager
def _as_before(target: nn.Module | None) -> Iterator[None]:
    """If the block fails, a network of the user's own gets the numbers back that it had."""
    before = {} if target is None else {name: t.clone() for name, t in target_tensors(target).items()}
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for name, tensor in before.items():
                target_tensors(target)[name].copy_(tensor)
        raise


def _check_target(target: object) -> None:
    if target is not None and not isinstance(target, nn.Module):
        raise TypeError(
            f"target must be a network of the same architecture, but is a {type(target).__name__}; what you would give "
            "to pdh.fit works"
        )


def _target_stage(facts: Facts, tensors: files.Tensors, at: torch.device) -> tuple[TargetStage, Settings]:
    """The training of a target, where it stood, and the settings of the run that follows."""
    config = stored_target_config(facts)
    method, own_config = stored_config(facts)
    settings = Settings(config, own_config)
    if facts["target_step"] > settings.target.target_steps:
        raise ValueError(f"target_step is {facts['target_step']}, but target_steps is {settings.target.target_steps}")
    name, seed = facts["experiment"], facts["seed"]
    own_facts = run_facts(name, method.name, seed, settings.config, config, at.type)
    return TargetStage(own_facts, config, target_seed(config, seed), at, stored=(tensors, facts)), settings


def _check_finite(tensors: files.Tensors, target: nn.Module | None) -> None:
    """Raise ValueError for numbers that are not finite, but in buffers of a network of one's own: masks hold -inf."""
    buffers = {} if target is None else {f"target.{name}" for name, _ in frozen(target).named_buffers()}
    for name, tensor in tensors.items():
        if name not in buffers and not name.startswith("example.") and not tensor.isfinite().all():
            raise ValueError(f"{files.TENSORS}: {name} holds numbers that are not finite")


def _run(facts: Facts, candidates: list[Candidate], tensors: files.Tensors) -> Run:
    """A run of these candidates, with what the facts say of it; ValueError if its network answers otherwise."""
    example = Example.unpack(tensors, facts["example"]) if "example" in facts else None
    if example is not None:
        example.check(candidates[0].method.model)
    target_config = stored_target_config(facts)
    return Run(
        name=facts["experiment"],
        seed=facts["seed"],
        target_config=target_config,
        data=target_config.features() if target_config else None,
        candidates=candidates,
        target_seconds=facts["target_seconds"],
        example=example,
        first_batch=facts.get("first_batch"),
        shipped=facts.get("shipped"),
    )


def _candidate(
    facts: Facts, own_facts: Facts, tensors: files.Tensors, target: nn.Module, own: Own, feed: Feed | None
) -> Candidate:
    """A candidate as it was when the checkpoint was written; `facts` are the run's, the rest is its own."""
    candidate = Candidate(_method(facts, tensors, target, own), own_facts["seconds"])
    candidate.record = Record.unpack(tensors, own_facts, candidate.method)
    candidate.unpack(tensors, own_facts, feed)
    return candidate


def _method(facts: Facts, tensors: files.Tensors, target: nn.Module, own: Own) -> Method:
    """The method with its stored parameters, at step 0."""
    method, config = stored_config(facts)
    if own.output_loss is not None:
        config = config.replace(output_loss=own.output_loss)
    rank = stored_rank(facts, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, "", config.rank)
    model = decompose(target, facts["layers"], rank=rank, output=own.output)
    at = model.factors[0].device
    decomposition = method(model, config, init=Generator(), draw=generator(facts["seed"], "data", at))
    _fill(decomposition.parameters(), tensors)
    return decomposition


def _stored_target(facts: Facts, tensors: files.Tensors, target: nn.Module | None, at: torch.device) -> nn.Module:
    """The target as it was: one of the papers' networks is built anew, a network of your own gets its weights back."""
    config = stored_target_config(facts)
    if config is not None:
        with default_dtype(stored_dtype({name: tensor.dtype for name, tensor in tensors.items()})):
            target = config.build()
    _fill(target_tensors(target), tensors)
    return frozen(target, at)


def _below(prefix: str, tensors: files.Tensors) -> files.Tensors:
    """The tensors whose names begin with the prefix, without it."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


@torch.no_grad()
def _fill(named: Mapping[str, Tensor], tensors: files.Tensors) -> None:
    """Overwrite tensors by the stored ones of the same name."""
    compare_stored(named, {name: tensor for name, tensor in tensors.items() if name in named})
    for name, tensor in named.items():
        tensor.copy_(tensors[name])
