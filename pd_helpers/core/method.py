"""What a decomposition method gives to whoever runs it: the one seam between `core` and the rest.

A method is a subclass of `Method` in a file of its own (`apd.py`, `spd.py`, yours). It gives

    parameters()      what is trained, by name, for saving
    state()           what training needs to continue, by name
    train(data)       a loop that yields the unweighted losses of each step
    importances(x)    which components matter for which input

Training, recording, saving, resuming, sweeping and comparing are then the same for every method.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from .components import ComponentModel
from .config import shown
from .machine.ranks import add_up, place
from .networks.batches import Inputs
from .networks.rows import spread
from .shortcuts.empty_rows import Batch
from .shortcuts.parts import Layout, Share, layout, parts, shares
from .shortcuts.threads import threads_for
from .training import adamw, load_generator_state, load_optimizer_state, optimizer_state

Data = Callable[[int, Generator], Inputs]
"""(batch_size, generator) → a batch, as the network takes it (`networks.batches`), on the generator's device."""


@runtime_checkable
class MethodConfig(Protocol):
    """The fields that every method's configuration has."""

    C: int
    """Components per decomposed layer."""
    rank: int | None
    """Largest rank of a component; None means no limit."""
    init_std: float | None
    """Standard deviation of the initial factors; None means `decompose`'s default."""
    batch_size: int
    """Inputs per step."""
    steps: int
    """Training steps."""
    lr: float
    """Learning rate at its highest."""
    n_init: int
    """Initialisations that are tried."""
    selection_steps: int
    """Steps after which they are compared."""
    output_loss: str | Callable[[Tensor, Tensor], Tensor]
    """How outputs are compared: a key of `losses.OUTPUT_LOSSES`, or a function (output, target_output) → mean."""


class Method(ABC):
    """One decomposition by one method: its parameters, and where its training stands.

    Args:
        model: the target and its components, on the device where training will run.
        config: a configuration of the method's own class.
        init: source of whatever initial parameters the method has besides U and V.
        draw: source of batches and masks.
    """

    name: ClassVar[str]
    """What stored runs call the method."""
    Config: ClassVar[type[MethodConfig]]
    """Class of its configurations; the configuration given to a run says which method it is."""
    spans_layers: ClassVar[bool]
    """Whether a component spans all layers, so that one mask switches it off everywhere (APD), or every use of every
    matrix has subcomponents and masks of its own (SPD)."""
    importance: nn.Module | None
    """A network that predicts importances, if the method trains one; else None."""

    def __init__(self, model: ComponentModel, config: MethodConfig, *, init: Generator, draw: Generator):
        self.model, self.config, self.generator = model, config, draw
        self.step = 0
        self.total_loss = torch.full((), torch.nan)
        """Weighted sum of the latest step's losses, without gradients."""
        self._layout: Layout | None = None  # found out when a batch is computed in parts
        self.build(init)
        self.optimizer = self.build_optimizer()

    # What a method has to say

    def build(self, init: Generator) -> None:
        """Make the parameters that the method has besides U and V, drawing them from `init`; by default none."""
        self.importance = None

    @abstractmethod
    def build_optimizer(self) -> torch.optim.Optimizer:
        """The optimiser of all trained parameters."""

    @abstractmethod
    def train(self, data: Data) -> Iterator[Any]:
        """Train in place, one step for each item taken; yields a NamedTuple of the step's unweighted losses.

        A caller may stop at any time: a new iterator continues where training stands.
        """

    @abstractmethod
    def batch_losses(self, x: Inputs, generator: Generator, step: int | None = None) -> Any:
        """The unweighted losses of one batch, with gradients, as a training step would compute them.

        `generator` draws masks, if there are any; `step` is the training step for settings that change, by default
        the present one.
        """

    @abstractmethod
    def importances(self, x: Inputs, n_inputs: int | None = None) -> dict[str, Float[Tensor, "*rows _"]]:
        """Use → importance (*rows, C) in [0, 1] of every component for every row that enters the use.

        `n_inputs` is the number of inputs that the inputs given stand for, where empty ones were merged.
        """

    @abstractmethod
    def sample_masks(
        self, importances: dict[str, Float[Tensor, "*rows _"]], generator: Generator
    ) -> dict[str, Float[Tensor, "*rows _"]]:
        """Use → masks (*rows, C) under which the method promises that the output stays as it is."""

    @property
    def n_sources(self) -> dict[str, int]:
        """Use → number of its sources, from which `masks` makes masks: one for each component."""
        return {use: self.model.layers[layer].C for use, (layer, _) in self.model.uses.items()}

    def masks(
        self, importances: Mapping[str, Float[Tensor, "*rows C"]], sources: Mapping[str, Float[Tensor, "*_ n"]]
    ) -> dict[str, Float[Tensor, "*rows n"]]:
        """Use → masks m = g + (1 - g) r of sources r in [0, 1], (*rows, n), (inputs, n) or one for all, (n,).

        These are all the masks under which the method promises that the output stays as it is.
        """
        masks = {}
        for use, g in importances.items():
            r = sources[use] if sources[use].ndim == 1 else spread(sources[use], g.shape[:-1])
            masks[use] = r + (1 - r) * g
        return masks

    def score(self, losses: Any) -> Float[Tensor, ""]:
        """Score of one step for choosing an initialisation, lower being better: the weighted sum of its losses."""
        return self.total_loss

    def attributions(self, x: Inputs) -> Float[Tensor, "inputs C"]:
        """A_c(x), for methods that have attributions; others raise TypeError."""
        raise TypeError(
            f"run must be an APD run, but is one of {self.name.upper()}, whose components have importances and no "
            "attributions; importances(x) works"
        )

    # What is the same for all

    def merged(self, x: Inputs) -> Batch:
        """The inputs of a batch that must be computed; all of them where the user's own function compares outputs."""
        return Batch.whole(x) if callable(self.config.output_loss) else self.model.merge_empty_rows(x)

    def parts(self, batch: Batch) -> Iterator[Batch]:
        """What this process computes of a batch, in as many parts as `micro_batches` says; see `shortcuts.parts`.

        Each part begins with the same state of the generator, since what it draws is drawn for the whole batch.
        """
        own = parts(batch, self.config.micro_batches, *place())
        state = self.generator.get_state() if len(own) > 1 else None
        for i, part in enumerate(own):
            if i:
                self.generator.set_state(state)
            yield part

    def shares(self, part: Batch) -> dict[str, Share]:
        """Use → which rows of it belong to this part of a batch; none for a whole batch."""
        if part.n_rows is None:
            return {}
        if self._layout is None:
            self._layout = layout(self.model, part.rows)
        return shares(part, self._layout)

    def added_up(self, values: list[Float[Tensor, " terms"]]) -> Float[Tensor, " terms"]:
        """The sum of these over all parts of a batch, on all ranks; gradients are added up over ranks with them."""
        total = sum(values[1:], start=values[0])
        if place()[1] > 1:
            parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
            for parameter in parameters:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            add_up([total, *(parameter.grad for parameter in parameters)])
        return total

    def warm_up(self) -> None:
        """What happens before step 0: some steps on the faithfulness loss alone, as `faithfulness_warmup_steps` says.

        They use AdamW with the learning rate 0.01 and weight decay 0.1 of public SPD configurations.
        """
        optimizer = adamw(self.model.factors, lr=0.01, weight_decay=0.1)
        with threads_for(sum(factor.numel() for factor in self.model.factors)):
            for _ in range(getattr(self.config, "faithfulness_warmup_steps", 0)):
                optimizer.zero_grad(set_to_none=True)
                self.model.faithfulness().backward()
                optimizer.step()

    def split(self, table: Float[Tensor, "*rows n"]) -> dict[str, Float[Tensor, "*rows _"]]:
        """Use → its columns of a table with one column for each component, numbered over all uses.

        The rows of all uses must be the same, as those of inputs that are vectors are.

        A component that spans layers has one column, which all uses share.
        """
        uses = self.model.uses
        if self.spans_layers:
            return dict.fromkeys(uses, table)
        return dict(zip(uses, table.split(self._sizes, dim=-1), strict=True))

    def join(self, by_use: dict[str, Float[Tensor, "*rows _"]]) -> Float[Tensor, "*rows n"]:
        """The table that `split` takes apart."""
        return next(iter(by_use.values())) if self.spans_layers else torch.cat(list(by_use.values()), dim=-1)

    @property
    def n_components(self) -> int:
        """Number of columns of such a table."""
        return self._sizes[0] if self.spans_layers else sum(self._sizes)

    @property
    def _sizes(self) -> list[int]:
        return [self.model.layers[use.layer].C for use in self.model.uses.values()]

    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by name: `U.<layer>`, `V.<layer>`, and whatever else a method adds."""
        named = {}
        for path, layer in self.model.layers.items():
            named |= {f"U.{path}": layer.U, f"V.{path}": layer.V}
        return named

    def state(self) -> dict[str, Tensor]:
        """What training needs to continue, by name, besides the parameters and the number of the step."""
        return {"generator": self.generator.get_state(), **optimizer_state(self.optimizer)}

    def load_state(self, tensors: dict[str, Tensor], step: int) -> None:
        """Continue from a state given by `state`, after this many steps.

        Raises ValueError, which names the tensor, unless the state is one of such a method; see `load_optimizer_state`.
        """
        load_generator_state(self.generator, tensors)
        load_optimizer_state(self.optimizer, tensors, step)
        self.step = step


def methods() -> dict[str, type[Method]]:
    """Name → method, of all methods whose files have been imported."""

    def below(base: type[Method]) -> Iterator[type[Method]]:
        for method in base.__subclasses__():
            yield method
            yield from below(method)

    return {method.name: method for method in below(Method)}


def method_named(name: str) -> type[Method]:
    """The method that stored runs call by this name; ValueError if its file has not been imported."""
    known = methods()
    if name not in known:
        raise ValueError(f"method is {name!r}, which is not imported here; {', '.join(map(repr, known))} are")
    return known[name]


def method_of(config: Any) -> type[Method]:
    """The method that this configuration belongs to; TypeError for anything else."""
    for method in methods().values():
        if type(config) is method.Config:
            return method
    names = " or ".join(f"a {method.Config.__name__}" for method in methods().values())
    raise TypeError(f"config must be {names}, but is {shown(config)}")
