"""Making runs: of the papers' experiments with `run`, of a network of your own with `fit`.

    run("apd/tms_5-2", seed=0)                    train a preset's target and decompose it
    prepare("apd/tms_5-2", seed=0)                the same, up to step 0
    fit(network, SPDConfig(...), data, layers)    decompose a network of your own

All arguments are checked before any work starts.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pd_helpers.core.components import ComponentModel, decompose
from pd_helpers.core.config import shown
from pd_helpers.core.losses import output_loss
from pd_helpers.core.machine.precision import autocast
from pd_helpers.core.machine.ranks import agreed, join
from pd_helpers.core.method import Data, Method, MethodConfig, method_of
from pd_helpers.core.networks.batches import Inputs
from pd_helpers.core.networks.frozen import frozen
from pd_helpers.core.training import checked_seed, generator, pick_device, undisturbed
from pd_helpers.runs.calls import checked
from pd_helpers.runs.data import as_source
from pd_helpers.runs.examples import example_of
from pd_helpers.runs.folders import how_to_go_on, shared_folder
from pd_helpers.runs.inputs import Feed
from pd_helpers.runs.interrupts import one_line
from pd_helpers.runs.memory import check_layers, check_settings
from pd_helpers.runs.presets import Preset, Settings, preset
from pd_helpers.runs.run import Run
from pd_helpers.runs.scaling import resized
from pd_helpers.runs.selection import Candidate
from pd_helpers.runs.target_stage import TargetStage, run_facts, target_seed
from pd_helpers.runs.validation import (
    batch_fingerprint,
    check_data,
    check_loss,
    check_repeatable,
    checked_layers,
    first_inputs,
    warn_of_the_pointless,
)
from pd_helpers.targets.base import TargetConfig


@undisturbed()
def begin(
    target: nn.Module,
    config: MethodConfig,
    data: Data,
    layers: Mapping[str, int] | Iterable[str] | None,
    *,
    seed: int = 0,
    device: str | torch.device = "auto",
    output: Callable[[Any], Tensor] | None = None,
    name: str | None = None,
    target_config: TargetConfig | None = None,
    warm_up: bool = True,
) -> Run:
    """A run at step 0: initial components are drawn and, unless `warm_up` is False, warmed up.

    `fit` says what the arguments are.
    """
    at, seed, method = pick_device(device), checked_seed(seed), method_of(config)
    target = frozen(target, at)
    C = checked_layers(layers, target, config.C)
    if method.spans_layers and len(set(C.values())) > 1:
        raise ValueError(
            f"layers gives {C}, but a component of {method.name.upper()} spans all layers; the same C for each works"
        )
    if target_config is None:  # otherwise `prepare` has checked them
        check_layers(target, config, C, at)
    warn_of_the_pointless(config, target_config)
    check_data(target, data, generator(seed, "data", at), output)
    init = generator(seed, "init")

    def initialise() -> Candidate:
        began = time.perf_counter()
        model = decompose(target, C, rank=config.rank, std=config.init_std, generator=init, output=output).to(at)
        x = first_inputs(data, generator(seed, "data", at))
        check_loss(output_loss(config.output_loss), model.target_forward(x).output)  # ValueError for an uncalled layer
        decomposition = method(model, config, init=init, draw=generator(seed, "data", at))
        if target_config is None:
            _try(decomposition, x)
        if warm_up:
            decomposition.warm_up()
        return Candidate(decomposition, seconds=time.perf_counter() - began)

    run = Run(name, seed, target_config, data, [initialise() for _ in range(config.n_init)])
    if target_config is None:
        run.first_batch = batch_fingerprint(data, seed, at)
        run.example = example_of(run.components, first_inputs(data, generator(seed, "data", at)))
    return run


@torch.no_grad()
def _try(decomposition: Method, x: Inputs) -> None:
    """Raise ValueError where the method cannot compute what it needs of this network."""
    try:
        masks = decomposition.importances(x)
    except NotImplementedError as error:
        raise ValueError(
            f"{decomposition.name.upper()} cannot differentiate the network's forward pass: "
            f"{str(error).splitlines()[0]}; pdh.SPDConfig(C=30), which does without, may work"
        ) from error
    decomposition.model(x, masks)
    if getattr(decomposition.config, "autocast", False):
        _try_autocast(decomposition.model, x, masks)


def _try_autocast(model: ComponentModel, x: Inputs, masks: Mapping[str, Tensor]) -> None:
    """Raise ValueError where a network that works does not work in mixed precision."""
    try:
        with autocast(model, enabled=True):
            model.target_forward(x)
            model(x, masks)
    except RuntimeError as error:
        raise ValueError(
            f"autocast is True, but the network does not compute in bfloat16: {str(error).splitlines()[0]}; "
            "autocast=False works"
        ) from error


def _check_method(config: Any) -> None:
    """Raise TypeError for what is no configuration of a method."""
    try:
        method_of(config)
    except TypeError as error:
        what = f"config must be an object, but is {shown(config)}" if isinstance(config, type) else error
        raise TypeError(f"{what}; pdh.SPDConfig(C=30) works") from None


@checked("layers", "seed", "device", "data", "output", "inputs")
@undisturbed()
def fit(
    target: nn.Module,
    config: MethodConfig,
    data: Any,
    layers: Mapping[str, int] | Iterable[str] | None = None,
    *,
    output: Callable[[Any], Tensor] | None = None,
    inputs: Callable[[Any], Inputs] | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    show_progress: bool = True,
    out: str | os.PathLike | None = None,
) -> Run:
    """Decompose a network of your own.

    Args:
        target: any trained network, which stays as it is. What is decomposed is `run.target`, a frozen copy in
            evaluation mode on the device, which shares its parameters where it can: train it further only as a copy.
        config: `APDConfig` or `SPDConfig`, or that of a method of your own; says which method.
        data: its inputs: a tensor (n, …), a Dataset, a DataLoader or an iterable of batches, which may hold labels
            besides; or a function, called as data(batch_size, generator), that draws a batch on the generator's device,
            the same for the same seed of the generator. A loader's batches come in the loader's own size.
        layers: paths of layers, or patterns such as "blocks.*.mlp" for all layers at or below, each with `config.C`
            components; or path → number of components. None means every layer of the network that can be decomposed,
            but for embeddings, which must be named.
        output: what is compared, from what the network returns, as in `lambda out: out.logits[:, -1]`; None for a
            network that returns one tensor.
        inputs: what the network takes, from a batch as data give it, as in `lambda batch: batch["image"]`; None where
            the network's forward says it: a tensor, the first entries of a tuple, or the entries of a dict by name.
        seed: seed of initial factors, data and masks.
        device: auto, cpu, cuda or mps.
        out: a new folder, for checkpoints on the way (see `resume`) and the finished run.

    >>> run = pdh.fit(network, pdh.SPDConfig(C=30, steps=5000), data, ["fc1", "fc2"])

    In a script that `torchrun --nproc-per-node N` starts, or wherever torch.distributed is initialised, the N processes
    make one run, the same that one of them alone would make, up to rounding: each draws every batch and computes its
    share of it, on a GPU of its own where there are GPUs, and rank 0 writes and shows the progress. All of them need
    the same network and data: seed what makes them, and leave out a DistributedSampler. Each gets the run.

    Raises ValueError or TypeError, before any work starts, for arguments that cannot work; FloatingPointError if
    the loss blows up.
    """
    join()
    with agreed():
        _check_method(config)
        _check_picker("output", output, "lambda out: out.logits")
        feed = Feed(as_source(data), target, inputs)
        if feed.one_pass and config.n_init > 1:
            raise ValueError(
                f"n_init is {config.n_init}, but data is an iterator, which can be read only once; n_init=1 works, or "
                "a DataLoader"
            )
        if feed.batch_size is not None:
            config = config.replace(batch_size=feed.batch_size)
    with shared_folder(out) as folder, one_line(lambda: how_to_go_on(folder, own_network=True)):
        with agreed():
            at, seed = pick_device(device), checked_seed(seed)
            check_repeatable(feed, lambda: generator(seed, "data", at))
            run = begin(target, config, feed, layers, seed=seed, device=device, output=output)
        return run.train_into(folder, show_progress=show_progress)


def _check_picker(name: str, function: Any, works: str) -> None:
    if function is not None and not callable(function):
        raise TypeError(f"{name} must be a function or None, but is {shown(function)}; {works} works")


@checked("seed", "device", name="'apd/tms_5-2'", target="pdh.make_target(pdh.TMSConfig())")
@undisturbed()
def prepare(
    name: str | Preset,
    seed: int = 0,
    *,
    paper: bool = False,
    target: nn.Module | Run | None = None,
    device: str | torch.device = "auto",
    show_progress: bool = True,
    warm_up: bool = True,
    **overrides: Any,
) -> Run:
    """`run` up to step 0: the preset's target is trained (or given), and the initial components are drawn.

    `warm_up` False leaves out the steps on the faithfulness loss, for components that will be replaced anyway.
    """
    return _prepare(
        name,
        seed,
        overrides,
        None,
        paper=paper,
        target=target,
        device=device,
        show_progress=show_progress,
        warm_up=warm_up,
    )


def _prepare(
    name: str | Preset,
    seed: int,
    overrides: Mapping[str, Any],
    folder: Path | None,
    *,
    paper: bool,
    target: nn.Module | Run | None,
    device: str,
    show_progress: bool,
    warm_up: bool = True,
) -> Run:
    """`prepare`, with checkpoints of the target's training in a folder that is this run's own."""
    join()
    with agreed():
        at, seed = pick_device(device), checked_seed(seed)
        settings, target = settle(name, target, overrides, paper=paper)
        check_settings(preset(name), settings, at)
    name, seconds = preset(name).name, 0.0
    if target is None:
        facts = run_facts(name, method_of(settings.config).name, seed, settings.config, settings.target, at.type)
        with one_line(lambda: how_to_go_on(folder)):
            stage = TargetStage(facts, settings.target, target_seed(settings.target, seed), at)
            target, seconds = stage.train(folder, show_progress=show_progress)
    with agreed():
        return after_target(name, seed, settings, target, seconds, device=device, warm_up=warm_up)


def after_target(
    name: str,
    seed: int,
    settings: Settings,
    target: nn.Module,
    target_seconds: float,
    *,
    device: str,
    warm_up: bool = True,
) -> Run:
    """The run at step 0 of a target that is trained, or given."""
    network = settings.target.reduce(target)
    run = begin(
        network,
        settings.config,
        settings.target.features(),
        network.layers,
        seed=seed,
        device=device,
        name=name,
        target_config=settings.target,
        warm_up=warm_up,
    )
    run.target_seconds = target_seconds
    return run


def settle(
    name: str | Preset, target: nn.Module | Run | None, overrides: Mapping[str, Any], *, paper: bool = False
) -> tuple[Settings, nn.Module | None]:
    """The preset's settings with these overrides, and the target if one is given.

    Raises ValueError or TypeError for an override or a target that does not fit.
    """
    experiment = preset(name)
    settings = experiment.paper_settings if paper else experiment.settings
    if isinstance(target, Run):
        made = target.target_config
        if made is not None:
            origin = target.seed if made.target_seed is None else made.target_seed
            overrides = {**made.to_dict(), "target_seed": origin, **overrides}
        target = target.target
    if target is not None:
        shape = settings.target.sizes(target)
        if shape is None:
            with torch.device("meta"):  # which draws no random numbers
                model = type(settings.target.build()).__name__
            raise TypeError(
                f"target must be a {model} or a Run with one, but is a {type(target).__name__}; fit() takes any"
            )
        overrides = {**shape, **overrides}
        for key, size in shape.items():
            if overrides[key] != size:
                raise ValueError(f"{key} is {overrides[key]}, but the target given has {size}; leave {key} out")
    return resized(settings, overrides), target


@checked("seed", "device", name="'apd/tms_5-2'", target="pdh.make_target(pdh.TMSConfig())")
@undisturbed()
def run(
    name: str | Preset,
    seed: int = 0,
    *,
    paper: bool = False,
    target: nn.Module | Run | None = None,
    device: str | torch.device = "auto",
    show_progress: bool = True,
    out: str | os.PathLike | None = None,
    **overrides: Any,
) -> Run:
    """Train a preset's target and decompose it.

    Args:
        name: a preset such as "apd/tms_5-2", of which `python -m pd_helpers list` shows all; or a `Preset` of your own.
        seed: seed of the target, unless `target_seed` says otherwise, and of everything else.
        paper: use the paper's own settings, without the changes that make a run quicker or more reliable.
        target: decompose this network of the preset's kind, or this run's, instead of training one.
        device: auto, cpu, cuda or mps.
        out: a new folder, for checkpoints on the way (see `resume`) and the finished run.
        overrides: any field of the preset, sizes included: `n_features=8, n_hidden=3, simplicity_coeff=0.1`. C and the
            coefficients that are not among them follow the sizes, see `runs.scaling`.

    Several processes, as `torchrun` starts them, make one run, as for `fit`.

    Raises ValueError or TypeError, before any work starts, for arguments that cannot work; FloatingPointError if
    the loss blows up.
    """
    join()
    with shared_folder(out) as folder, one_line(lambda: how_to_go_on(folder)):
        run = _prepare(
            name, seed, overrides, folder, paper=paper, target=target, device=device, show_progress=show_progress
        )
        return run.train_into(folder, show_progress=show_progress)
