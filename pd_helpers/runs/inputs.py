"""What of a batch goes into the network: all of it, or as much as its `forward` asks for.

    data gives          forward            the network is called with
    x                   any                x
    (x,)                (x)                x
    (x, labels)         (x)                x
    (a, b)              (a, b)             a, b
    {"x": …, "m": …}    (x, m=None)        x=…, m=…
    {"a": …, "b": …}    (batch)            the dict itself

What is not clear is refused: for (x, labels) and forward(x, mask=None), `inputs` must say what is meant.
"""

from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Any

from torch import Generator, Tensor, nn

from pd_helpers.core.config import shown
from pd_helpers.core.networks.batches import Inputs
from pd_helpers.runs.sources import Source, moved

WRAPPED = ("_orig_mod", "module")
"""Where torch.compile, and nn.DataParallel and its kin, keep the network that they wrap."""
N_SHOWN = 4
"""Parameters of a forward that a message shows."""


def taken_by(network: nn.Module, inputs: Callable[[Any], Inputs] | None = None) -> Callable[[Any], Inputs]:
    """The function from a batch, as data gives it, to what the network takes: x, or (a, b), or {"x": …}.

    It is `inputs`, if that is given; TypeError if that is no function. Otherwise the names and number of parameters of
    the network's forward decide, and where they cannot, the function raises a ValueError that names them. A network
    that does not say what it takes gets everything.
    """
    if inputs is not None:
        if not callable(inputs):
            raise TypeError(
                f"inputs must be a function from what data gives to what the network takes, but is {shown(inputs)}; "
                "lambda batch: batch[0] works"
            )
        return inputs
    parameters = _parameters(network)

    def taken(batch: Any) -> Inputs:
        if isinstance(batch, Mapping):
            return _by_name(dict(batch), parameters) if parameters else dict(batch)
        if isinstance(batch, tuple | list):
            return _by_order(tuple(batch), parameters) if parameters else tuple(batch)
        return batch

    return taken


def _parameters(network: nn.Module) -> list[Parameter]:
    """The parameters of the network's forward; none if it does not say."""
    try:
        parameters = list(signature(network.forward).parameters.values())
    except (TypeError, ValueError):  # compiled code
        return []
    if any(parameter.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD) for parameter in parameters):
        return parameters
    wrapped = (getattr(network, name, None) for name in WRAPPED)
    return next((_parameters(inner) for inner in wrapped if isinstance(inner, nn.Module)), [])


def _by_order(entries: tuple, parameters: list[Parameter]) -> Inputs:
    """As many entries as there are required parameters."""
    positional = [p for p in parameters if p.kind not in (Parameter.KEYWORD_ONLY, Parameter.VAR_KEYWORD)]
    n_required = sum(_is_required(p) for p in positional)
    n, n_taken = len(entries), max(n_required, 1)
    names = [f"*{p.name}" if p.kind is Parameter.VAR_POSITIONAL else p.name for p in positional]
    if n < n_required:
        raise ValueError(
            f"data gives batches of {n} {'entry' if n == 1 else 'entries'}, but {_shown(parameters)} takes "
            f"{n_required}; data that gives ({', '.join(names[:n_required])}) works"
        )
    if n > n_taken and len(positional) > n_taken:
        raise ValueError(
            f"data gives batches of {n} entries, of which {_shown(parameters)} could take {n_taken}, as "
            f"{', '.join(names[:n_taken])}, or more, as {', '.join(names[: n_taken + 1])}; inputs=lambda batch: "
            f"{'batch[0]' if n_taken == 1 else f'tuple(batch[:{n_taken}])'} works"
        )
    taken = entries[:n_taken]
    return taken[0] if len(taken) == 1 and isinstance(taken[0], Tensor) else taken


def _by_name(batch: dict, parameters: list[Parameter]) -> Inputs:
    """The entries by their names, or as one argument if the forward has a single one of another name."""
    named = {p.name for p in parameters if p.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)}
    required = [p for p in parameters if _is_required(p)]
    known = [name for name in batch if name in named]
    if not known and len(required) == 1 and required[0].kind is not Parameter.KEYWORD_ONLY:
        return (batch,)
    unknown = [name for name in batch if name not in named]
    if unknown and all(p.kind is not Parameter.VAR_KEYWORD for p in parameters):
        example = f"batch[{next(iter(batch))!r}]"
        if known:
            example = "{" + ", ".join(f"{name!r}: batch[{name!r}]" for name in known) + "}"
        raise ValueError(
            f"data gives {', '.join(map(repr, unknown))}, which {_shown(parameters)} does not take; "
            f"inputs=lambda batch: {example} works"
        )
    return batch


def _is_required(parameter: Parameter) -> bool:
    variable = parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return parameter.default is Parameter.empty and not variable


def _shown(parameters: list[Parameter]) -> str:
    """The forward as a sentence can show it."""
    shortened = [str(p.replace(annotation=Parameter.empty)) for p in parameters[:N_SHOWN]]
    return f"forward({', '.join(shortened)}{', ...' if len(parameters) > N_SHOWN else ''})"


class Feed(Source):
    """Data of a network: what a source gives, as the network takes it.

    Attributes: is_picked, whether a function of the user's own says what the network takes.
    """

    def __init__(self, source: Source, network: nn.Module, inputs: Callable[[Any], Inputs] | None = None):
        super().__init__(source.data)
        self.source, self.taken, self.is_picked = source, taken_by(network, inputs), inputs is not None
        self.batch_size, self.one_pass = source.batch_size, source.one_pass

    def __call__(self, batch_size: int, generator: Generator) -> Inputs:
        return moved(self.taken(self.source(batch_size, generator)), generator)

    def position(self, generator: Generator) -> int:
        return self.source.position(generator)

    def set_position(self, generator: Generator, n: int) -> None:
        self.source.set_position(generator, n)

    def begin(self, generator: Generator) -> None:
        self.source.begin(generator)

    def close(self, generator: Generator) -> None:
        self.source.close(generator)
