"""How much memory a decomposition needs at least, computed from its settings alone, before anything is built.

What counts is U and V and SPD's importance functions, each with its gradient and Adam's two moments, for every
initialisation; the inputs of all layers; and a mask for every component and every input that is not all zero. How many
rows an input has, such as positions or patches, shows only when the network runs: here it counts as one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from pd_helpers.core.config import shown
from pd_helpers.core.machine.memory import check_memory
from pd_helpers.core.method import MethodConfig, method_of
from pd_helpers.core.networks.layers import EmbeddingLayer, kind_of, refusal
from pd_helpers.runs.calls import fits
from pd_helpers.runs.presets import Preset, Settings

Matrix = tuple[int, int, int]
"""How many of a kind there are, d_out and d_in."""


def check_settings(experiment: Preset, settings: Settings, device: torch.device) -> None:
    """Raise ValueError if this machine cannot hold a target and its decomposition, or if no matrix has such a rank.

    The experiment's own rank may stand where matrices were made smaller.
    """
    if settings.config.rank not in (experiment.config.rank, experiment.paper.rank):
        _check_rank(settings.config, settings.target.matrices)

    check_room(settings, device)


def check_room(settings: Settings, device: torch.device) -> None:
    """Raise ValueError if this machine cannot hold a target and its decomposition."""

    def floats(target: Any, config: Any) -> int:
        share = 1 - (1 - target.feature_probability) ** target.n_features if hasattr(target, "n_features") else 1
        return target.n_floats + _floats(config, target.matrices, config.C, int(share * config.batch_size))

    check_memory(settings, floats, device)


def check_layers(target: nn.Module, config: MethodConfig, C: Mapping[str, int], device: torch.device) -> None:
    """The same for layers of any network, with C[path] components each."""
    layers = {path: module for path, module in target.named_modules() if fits(C.get(path), int)}
    kinds = {path: kind_of(module)(module) for path, module in layers.items() if refusal(path, module) is None}
    shapes = {path: (1, *kind.matrix.shape) for path, kind in kinds.items()}
    if not shapes:
        return  # `decompose` says what is wrong with them
    _check_rank(config, list(shapes.values()))

    def floats(config: Any) -> int:
        total = 0
        for path, kind in kinds.items():
            rows = 0 if isinstance(kind, EmbeddingLayer) else config.batch_size  # positions are rows of all inputs
            width = shapes[path][2] if kind.reads_vectors else 0  # patches are never made
            total += _floats(config, [shapes[path]], min(C[path], config.C), rows, [width])
        return total

    check_memory([config.replace(C=max(1, *(C[path] for path in shapes)))], floats, device)


def _check_rank(config: MethodConfig, matrices: Sequence[Matrix]) -> None:
    largest = max((min(shape) + 1 for _, *shape in matrices), default=config.rank)
    if config.rank is not None and config.rank > largest:
        raise ValueError(
            f"rank must be at most min(d_out, d_in) + 1 = {largest} for the largest matrix, but is "
            f"{shown(config.rank)}; {largest} works, and so does None"
        )


def _floats(config: Any, matrices: Sequence[Matrix], C: int, rows: int, widths: Sequence[int] | None = None) -> int:
    """Number of floats that training takes at least; `widths` says how many a row has that enters, if not d_in."""
    method = method_of(config)
    rank = [min(d_out, d_in) + 1 if config.rank is None else config.rank for _, d_out, d_in in matrices]
    gates = 0 if method.spans_layers else 3 * getattr(config, "d_gate", 0)
    parameters = sum(n * C * (R * (d_out + d_in) + gates) for R, (n, d_out, d_in) in zip(rank, matrices, strict=True))
    widths = [d_in for _, _, d_in in matrices] if widths is None else widths
    inputs = sum(n * width for (n, _, _), width in zip(matrices, widths, strict=True))
    masks = C * (1 if method.spans_layers else sum(n for n, *_ in matrices))
    return 4 * config.n_init * parameters + rows * (inputs + masks)
