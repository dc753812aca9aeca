"""A lab on a classifier's decomposition: look at one subcomponent, switch it off, and see what the network confuses."""

from typing import NamedTuple

import ipywidgets as w
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pd_helpers import plots
from pd_helpers.analysis import editing, judging
from pd_helpers.analysis.metrics import ALIVE
from pd_helpers.course.kit.lab import STYLE, Description, Lab, open_frames, reserve_titles, whole
from pd_helpers.course.your_own_network.plots import factors_of, read_vector, show_vector
from pd_helpers.runs.run import Run


class SubcomponentValues(NamedTuple):
    """One subcomponent, and what the network answers with it on or off."""

    layer: str
    c: int
    """The subcomponent's index."""
    is_off: bool
    u: Float[Tensor, " d_out"]
    """What it writes."""
    v: Float[Tensor, " d_in"]
    """What it reads."""
    share: float
    """Share of the inputs on which it is important."""
    class_shares: Float[Tensor, " classes"]
    """The same share for the inputs of each class; 0 for a class without inputs."""
    confusion: Float[Tensor, "classes classes"]
    """Share of each class's inputs (rows) that get each answer (columns)."""
    accuracy: float
    change: Float[Tensor, " classes"]
    """How much the accuracy of each class differs from that with everything on; 0 for a class without inputs."""


class SubcomponentLab(Lab):
    """Choose a layer and a subcomponent: what it reads and writes, for which classes; switch it off; instant.

    Subcomponents are numbered by rank, the one that is important on most inputs first; the title gives its index.
    Works on any run whose network answers with one number for each class.

    >>> SubcomponentLab(run, x_test, y_test, shape=(8, 8))

    Args:
        run: an SPD run on a classifier.
        x: inputs on which it is judged.
        labels: their classes.
        shape: that of an input as an image; None where inputs are no images.
    """

    def __init__(
        self,
        run: Run,
        x: Float[Tensor, "rows d_in"],
        labels: Int[Tensor, " rows"],
        shape: tuple[int, int] | None = None,
    ):
        if run.importance is None:
            raise ValueError("run must be an SPD run, whose subcomponents have importances; pdh.fit with an SPDConfig")
        if len(labels) != len(x) or not len(x):
            raise ValueError(f"labels must hold one class for each input, but has {len(labels)}, and x has {len(x)}")
        self.run, self.x, self.labels, self.shape = run, x, labels, shape
        try:
            run.target(x)
        except RuntimeError:
            shape = tuple(x.shape)
            raise ValueError(
                f"x must hold inputs that the network takes, but is of shape {shape}; run.data draws some"
            ) from None
        with torch.no_grad():
            self.on = {use: g > ALIVE for use, g in run.importances(x).items()}
            """Use → the inputs (rows, C) on which each subcomponent is important."""
            self.output = run.components(x).output
            """The output with everything on."""
        self._factors = {use: factors_of(run, x, use) for use in self.on}
        self.order = {use: on.sum(dim=0).argsort(descending=True).tolist() for use, on in self.on.items()}
        """Use → indices of its subcomponents, by rank."""
        n_classes = self.output.shape[1]
        if labels.min() < 0 or labels.max() >= n_classes:
            raise ValueError(
                f"labels must be from 0 to {n_classes - 1}, as the network has {n_classes} outputs, but are from "
                f"{labels.min()} to {labels.max()}; the classes that it was trained on work"
            )
        self.layer = w.ToggleButtons(description="layer", options=list(self.on), style=STYLE)
        self.rank = whole("subcomponent, by use", 1, len(self.order[self.layer.value]), low=1)
        self.off = w.ToggleButton(description="switch it off", tooltip="remove it on every input")
        super().__init__([self.layer, self.rank, self.off], 9.2, 2.9, 1, 4)
        self._pictured: str | None = None
        """The layer for which the first two panels were made."""
        served, confusion = self.axes[0, 2:]
        served.set(xlabel="class", ylabel="share of inputs", ylim=(0, 1.05), xticks=range(n_classes))
        self._shares = served.bar(range(n_classes), np.ones(n_classes), color=plots.color(0))
        self._confusion = confusion.imshow(np.zeros((n_classes, n_classes)), cmap="Blues", vmin=0, vmax=1)
        confusion.set(xlabel="answer", ylabel="class", yticks=range(n_classes))
        open_frames([served])
        reserve_titles((served, confusion), fontsize=9)
        for ax in (served, confusion):
            ax.tick_params(labelsize=7)
        self.on_move([self.layer], lambda: self.offer(self.rank, len(self.order[self.layer.value])))
        self.on_move([self.rank], self.update)
        self.on_move([self.off], self._switch)
        self.update()

    @property
    def c(self) -> int:
        """The chosen subcomponent's index."""
        return self.order[self.layer.value][self.rank.value - 1]

    def _switch(self) -> None:
        """Switch the subcomponent off or on, and let the button offer the way back."""
        self.off.description = "switch it on again" if self.off.value else "switch it off"
        self.update()

    def compute(self) -> SubcomponentValues:
        """Run the network with this subcomponent on or off."""
        layer, c, is_off, labels = self.layer.value, self.c, self.off.value, self.labels
        n_classes, on = self.output.shape[1], self.on[layer][:, c].double()
        class_shares = torch.stack([on[labels == k].mean() for k in range(n_classes)]).nan_to_num()
        output = editing.output_without(self.run, self.x, layer, c) if is_off else self.output
        answers = output.argmax(dim=1)
        counts = torch.bincount(labels * n_classes + answers, minlength=n_classes**2).view(n_classes, -1)
        change = judging.class_accuracy(output, labels) - judging.class_accuracy(self.output, labels)
        return SubcomponentValues(
            layer,
            c,
            is_off,
            *self._factors[layer][c],
            share=on.mean().item(),
            class_shares=class_shares,
            confusion=(counts / counts.sum(dim=1, keepdim=True).clamp(min=1)).cpu(),
            accuracy=(answers == labels).double().mean().item(),
            change=change.nan_to_num(),
        )

    def draw(self, values: SubcomponentValues) -> None:
        """Show what the subcomponent reads and writes, its classes, and the confusions."""
        if values.layer != self._pictured:
            self._make_vector_panels(values)
        vectors = zip(self.axes[0], self._vectors, (values.v, values.u), ("reads", "writes"), strict=False)
        for ax, picture, vector, verb in vectors:
            show_vector(picture, vector)
            if not ax.images:
                limit = 1.1 * vector.abs().max().item() or 1.0
                ax.set_ylim(-limit, limit)
            ax.title.set_text(f"{values.c} {verb}")
        served, confusion = self.axes[0, 2:]
        for bar, share in zip(self._shares, values.class_shares.tolist(), strict=True):
            bar.set_height(share)
        served.title.set_text(f"important on {values.share:.0%} of inputs")
        self._confusion.set_data(np.asarray(values.confusion))
        confusion.title.set_text(f"accuracy {values.accuracy:.3f}")

    def _make_vector_panels(self, values: SubcomponentValues) -> None:
        """Make the panels of what a layer's subcomponents read and write: images or bars, of the layer's width."""
        self._pictured, self._vectors = values.layer, []
        for ax, vector, shape in zip(self.axes[0], (values.v, values.u), (self.shape, None), strict=False):
            ax.clear()
            reserve_titles([ax], fontsize=9)
            read_vector(ax, vector, shape).tick_params(labelsize=7)
            self._vectors.append(ax.images[0] if ax.images else ax.containers[0])

    def describe(self, values: SubcomponentValues) -> Description:
        """The accuracy, and the class that loses most of it."""
        state, best, worst = "off" if values.is_off else "on", values.class_shares.argmax(), values.change.argmin()
        loss = values.change[worst]
        lost = f"class {worst} loses most, {loss:+.2f}" if loss < 0 else "no class loses"
        use = "on no input"
        if values.share:
            use = f"on {values.share:.0%} of the inputs, most for class {best} ({values.class_shares[best]:.0%})"
        return Description(
            f'{values.layer}, subcomponent <span class="pdh-c">{values.c}</span> {state} · accuracy '
            f'<span class="pdh-accuracy">{values.accuracy:.3f}</span> · {lost}',
            f"Subcomponent {values.c} of {values.layer}, switched {state}. It is important {use}. Accuracy "
            f"{values.accuracy:.3f}; {lost}.",
        )
