"""A lab on a classifier's decomposition: look at one subcomponent, switch it off, and see what the network confuses."""

from typing import TYPE_CHECKING

import ipywidgets as w
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pd_helpers import judging, plots
from pd_helpers.metrics import ALIVE
from pd_helpers.widgets.lab import STYLE, WIDE, Lab

if TYPE_CHECKING:
    from pd_helpers.runs import Run


class SubcomponentLab(Lab):
    """Choose a layer and a subcomponent: what it reads and writes, for which classes; switch it off; instant.

    Subcomponents are numbered by rank, the one that is important on most inputs first; the title tells its index.
    Works on any run whose network answers with one number for each class.

    >>> SubcomponentLab(run, x_test, y_test, shape=(8, 8))
    """

    def __init__(
        self,
        run: "Run",
        x: Float[Tensor, "rows d_in"],
        labels: Int[Tensor, " rows"],
        shape: tuple[int, int] | None = None,
    ):
        if run.importance is None:
            raise ValueError("run must be an SPD run, whose subcomponents have importances; pdh.fit with an SPDConfig")
        self.run, self.x, self.labels, self.shape = run, x, labels, shape
        with torch.no_grad():
            self.on = {use: g > ALIVE for use, g in run.importances(x).items()}
            self.full = run.components(x).output
        self._factors = {use: plots.factors_of(run, x, use) for use in self.on}
        self.n_classes = self.full.shape[1]
        self.before = judging.class_accuracy(self.full, labels)
        self.order = {use: on.sum(dim=0).argsort(descending=True).tolist() for use, on in self.on.items()}
        self.layer = w.ToggleButtons(description="layer", options=list(self.on), style=STYLE)
        self.rank = w.IntSlider(description="subcomponent, by use", min=1, max=1, style=STYLE, layout=WIDE)
        self.off = w.ToggleButton(description="switch it off", tooltip="remove it on every input")
        super().__init__([self.layer, self.rank, self.off], 9.2, 2.9, 1, 4)
        served, confusion = self.axes[0, 2:]
        served.set(xlabel="class", ylabel="share of inputs", ylim=(0, 1.05), xticks=range(self.n_classes))
        self._shares = served.bar(range(self.n_classes), np.ones(self.n_classes), color=plots.color(0))
        blank = np.zeros((self.n_classes, self.n_classes))
        self._confusion = confusion.imshow(blank, cmap="Blues", vmin=0, vmax=1)
        confusion.set(xlabel="answer", ylabel="class", yticks=range(self.n_classes))
        served.spines[["top", "right"]].set_visible(False)
        for ax in (served, confusion):
            ax.set_title(" ", fontsize=9, y=1)
            ax.tick_params(labelsize=7)
        self._choose_layer()
        self.on_move([self.layer], self._choose_layer)
        self.on_move([self.rank, self.off], self.draw)

    @property
    def c(self) -> int:
        """The chosen subcomponent's index."""
        return self.order[self.layer.value][self.rank.value - 1]

    def _choose_layer(self) -> None:
        use = self.layer.value
        with self.rank.hold_trait_notifications():
            self.rank.max, self.rank.value = len(self.order[use]), min(self.rank.value, len(self.order[use]))
        u, v = self._factors[use][self.c]
        self._pictures = []
        for ax, vector, shape in zip(self.axes[0], (v, u), (self.shape, None), strict=False):
            ax.clear()
            ax.set_title(" ", fontsize=9, y=1)
            plots.read_vector(ax, vector, shape).tick_params(labelsize=7)
            self._pictures.append(ax.images[0] if ax.images else ax.containers[0])
        self.draw()

    def draw(self) -> None:
        """Show this subcomponent, and what the network answers with it on or off."""
        use, c, off = self.layer.value, self.c, self.off.value
        u, v = self._factors[use][c]
        for ax, picture, vector, verb in zip(self.axes[0], self._pictures, (v, u), ("reads", "writes"), strict=False):
            plots.show_vector(picture, vector)
            if not ax.images:
                limit = 1.1 * vector.abs().max().item() or 1.0
                ax.set_ylim(-limit, limit)
            ax.title.set_text(f"{c} {verb}")
        served, confusion = self.axes[0, 2:]
        on = self.on[use][:, c].double()
        shares = torch.stack([on[self.labels == k].mean() for k in range(self.n_classes)]).nan_to_num()
        for bar, share in zip(self._shares, shares.tolist(), strict=True):
            bar.set_height(share)
        served.title.set_text(f"important on {on.mean():.0%} of inputs")
        output = judging.output_without(self.run, self.x, use, c) if off else self.full
        answers = output.argmax(dim=1)
        pairs = torch.bincount(self.labels * self.n_classes + answers, minlength=self.n_classes**2)
        table = pairs.view(self.n_classes, -1) / pairs.view(self.n_classes, -1).sum(dim=1, keepdim=True).clamp(min=1)
        self._confusion.set_data(np.asarray(table.cpu()))
        accuracy = (answers == self.labels).double().mean().item()
        confusion.title.set_text(f"accuracy {accuracy:.3f}")
        change = (judging.class_accuracy(output, self.labels) - self.before).nan_to_num()
        worst = int(change.argmin())
        self.off.description = "switch it on again" if off else "switch it off"
        state = "off" if off else "on"
        most = f"on {on.mean():.0%} of the inputs, most for class {int(shares.argmax())} ({shares.max():.0%})"
        lost = f"class {worst} loses most, {change[worst]:+.2f}" if change[worst] < 0 else "no class loses"
        self.refresh(
            f'{use}, subcomponent <span class="pdh-c">{c}</span> {state} · accuracy '
            f'<span class="pdh-accuracy">{accuracy:.3f}</span> · {lost}',
            f"Subcomponent {c} of {use}, switched {state}. It is important {most if on.any() else 'on no input'}. "
            f"Accuracy {accuracy:.3f}; {lost}.",
        )
