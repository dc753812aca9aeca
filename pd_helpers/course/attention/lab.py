"""A lab on attention: retype a sequence, switch parts off, and see where the network looks and what it answers."""

from typing import NamedTuple

import ipywidgets as w
import torch
from jaxtyping import Float
from torch import Tensor

from pd_helpers import plots
from pd_helpers.analysis import metrics
from pd_helpers.course.attention import ideas
from pd_helpers.course.attention.plots import short
from pd_helpers.course.kit.lab import STYLE, WIDE, Description, Lab, blank_image, buttons, reserve_titles, whole
from pd_helpers.runs.run import Run

N_SEQUENCES = 256
"""Sequences on which a subcomponent must be important somewhere to be shown."""


class AttentionValues(NamedTuple):
    """What the network makes of one sequence with some subcomponents switched off."""

    text: str
    """The sequence, its beginning and both markers included."""
    position: int
    patterns: Float[Tensor, "layers length length"]
    """Attention, the mean over heads."""
    g: Float[Tensor, " n"]
    """Importances at the position, of all alive subcomponents of all matrices, as the target's own pass gives them."""
    is_on: list[bool]
    """Whether each of these subcomponents is on at the position."""
    answer: str
    target_answer: str
    right_answer: str
    probability: float
    """Of the answer that is right."""


class AttentionLab(Lab):
    """Retype a sequence, move along its positions, and switch subcomponents off; everything follows at once.

    Left and middle: attention of both layers, with the chosen position framed. Right: all subcomponents that are
    alive, a row for each matrix: those that are important at this position, those that are not, and those that are
    switched off.

    >>> AttentionLab(pdh.shipped("vpd/induction"))
    """

    def __init__(self, run: Run, text: str | None = None):
        self.run, self.sequences = run, ideas.sequences_of(run)
        if self.sequences.vocabulary != len(ideas.ALPHABET) or len(run.target.blocks) != 2:
            raise ValueError(
                f"run must decompose a network of two layers with {len(ideas.ALPHABET)} tokens, one for each letter "
                f"and digit, but its network has {len(run.target.blocks)} and {self.sequences.vocabulary}; "
                "pdh.shipped('vpd/induction') works"
            )
        x = self.sequences(N_SEQUENCES, torch.Generator().manual_seed(0)).to(run.components.factors[0].device)
        self.default = ideas.text(x[0])[1:-1]
        groups = ideas.carriers(run, x)
        self.alive = {use: metrics.alive(g).nonzero().flatten().tolist() for use, g in run.importances(x).items()}
        self.subcomponents = [(use, c) for use, numbers in self.alive.items() for c in numbers]
        job = {(use, c): name for name, group in groups.items() for use, numbers in group.items() for c in numbers}
        options = [
            (f"{short(use)}: all {len(numbers)} that carry {_mechanism(name)}", (use, tuple(numbers)))
            for name, group in groups.items()
            for use, numbers in group.items()
        ]
        options += [
            (f"{short(use)} {c}" + (f" ({_mechanism(job[use, c])})" if (use, c) in job else ""), (use, (c,)))
            for use, c in self.subcomponents
        ]
        self.input = w.Text(
            description="tokens",
            value=self._valid(text) or self.default,
            style=STYLE,
            layout=WIDE,
            continuous_update=True,
        )
        self.position = whole("position", x.shape[1] - 1, x.shape[1] - 1)
        self.others = buttons([("all other pieces on", "all"), ("only important pieces on", "important")])
        self.off = w.SelectMultiple(
            description="switched off", options=options, value=(), rows=6, style=STYLE, layout=WIDE
        )
        controls = [self.input, self.position, self.others, self.off]
        super().__init__(controls, 9.4, 3.6, 1, 3)
        length = x.shape[1]
        self._maps, self._frames = [], []
        for ax in self.axes[0, :2]:
            self._maps.append(blank_image(ax, length, length))
            [frame] = ax.plot(
                [-0.5, length - 0.5, length - 0.5, -0.5, -0.5], [0] * 5, color=plots.color(3), lw=1.2, clip_on=False
            )
            self._frames.append(frame)
            ax.set(xlabel="key position", xticks=[0, 15, 30], yticks=[])
        self.axes[0, 0].set(ylabel="query position", yticks=[0, 15, 30])
        right = self.axes[0, 2]
        self._places = [(c, row) for row, numbers in enumerate(self.alive.values()) for c in range(len(numbers))]
        styles = {"needed": ("o", 5, plots.color(0)), "idle": (".", 4, "0.75"), "off": ("x", 5, plots.color(3))}
        self._dots = {
            state: right.plot([], [], marker, ls="", ms=size, color=color)[0]
            for state, (marker, size, color) in styles.items()
        }
        right.set(xlim=(-1, max(map(len, self.alive.values()))), ylim=(len(self.alive) - 0.5, -0.5), xticks=[])
        right.set_yticks(range(len(self.alive)), [f"{use.split('.')[1]}{use[-1]}" for use in self.alive])
        right.set_xlabel("blue: important; cross: off")
        reserve_titles(self.axes[0])
        self.on_move(controls, self.update)
        self.update()

    def _valid(self, text: str | None) -> str | None:
        """The text, if it is one that the network can read; ValueError otherwise."""
        if text is None:
            return None
        ideas.tokens(text)
        if len(text) != self.sequences.length - 2 or ideas.BOS in text or ideas.MARKER not in text[:-1]:
            raise ValueError(
                f"text must have {self.sequences.length - 2} characters, among them {ideas.MARKER}, but is {text!r}; "
                f"{self.default!r} works"
            )
        return text

    def readable(self) -> str | None:
        """What is wrong with the characters that were typed; None if the network can read them."""
        try:
            self._valid(self.input.value)
        except ValueError as error:
            return str(error)
        return None

    @property
    def switched_off(self) -> set[tuple[str, int]]:
        """Matrix and number of the subcomponents that the reader has switched off."""
        return {(use, c) for use, numbers in self.off.value for c in numbers}

    @torch.no_grad()
    def compute(self) -> AttentionValues:
        """Run the network with some subcomponents off; where the text cannot be read, with the last one that could."""
        if self.readable() is None:
            self._typed = self.input.value
        text = ideas.BOS + self._typed + ideas.MARKER
        x = ideas.tokens(text).unsqueeze(0).to(self.run.components.factors[0].device)
        importances = self.run.importances(x)
        least = metrics.ALIVE if self.others.value == "important" else -1.0
        masks = {use: (g > least).to(g.dtype) for use, g in importances.items()}
        for use, c in self.switched_off:
            masks[use][..., c] = 0
        with self.run.masked(masks) as network:
            logits, patterns = network(x)[0], network.patterns(x)[:, 0].mean(dim=1)
        target = self.run.target(x)[0]
        t, right = self.position.value, int(self.sequences.answers(x)[0])
        characters = ideas.ALPHABET + ideas.BOS + ideas.MARKER
        return AttentionValues(
            text,
            t,
            patterns.cpu(),
            torch.stack([importances[use][0, t, c] for use, c in self.subcomponents]).cpu(),
            [bool(masks[use][0, t, c]) for use, c in self.subcomponents],
            characters[int(logits.argmax())],
            characters[int(target.argmax())],
            characters[right],
            float(logits.softmax(dim=0)[right]) if right < len(logits) else 0.0,
        )

    def draw(self, values: AttentionValues) -> None:
        """Move maps, frames and dots."""
        t = values.position
        for layer, (image, frame, pattern) in enumerate(zip(self._maps, self._frames, values.patterns, strict=True)):
            image.set_data(pattern.numpy())
            frame.set_ydata([t - 0.5, t - 0.5, t + 0.5, t + 0.5, t - 0.5])
            self.axes[0, layer].title.set_text(f"layer {layer}: '{values.text[t]}' looks at {looks_at(values, layer)}")
        off = self.switched_off
        states = [
            "off" if one in off else "needed" if g > metrics.ALIVE else "idle"
            for one, g in zip(self.subcomponents, values.g, strict=True)
        ]
        for state, dots in self._dots.items():
            chosen = [self._places[i] for i, other in enumerate(states) if other == state]
            dots.set_data([x for x, _ in chosen], [y for _, y in chosen])
        self.axes[0, 2].title.set_text(f"pieces at position {t}")

    def describe(self, values: AttentionValues) -> Description:
        """The sequence with the chosen position marked, and the answer."""
        t, problem = values.position, self.readable()
        marked = f"{values.text[:t]}[<b>{values.text[t]}</b>]{values.text[t + 1 :]}"
        verdict = "right" if values.answer == values.right_answer else f"wrong, {values.right_answer} is right"
        return Description(
            f'{marked}<br><b>answer <span class="pdh-answer">{values.answer}</span></b> ({verdict}; probability of '
            f'{values.right_answer} <span class="pdh-probability">{values.probability:.2f}</span>) · the whole network '
            f"answers {values.target_answer}" + (f"<br><b>{problem}</b>" if problem else ""),
            f"The sequence {values.text} at position {t}. Layer 0 looks at {looks_at(values, 0)}, layer 1 at "
            f"{looks_at(values, 1)}. {int((values.g > metrics.ALIVE).sum())} pieces are important there. The answer is "
            f"{values.answer}, with {values.probability:.2f} for {values.right_answer}, which is right.",
        )


def looks_at(values: AttentionValues, layer: int) -> str:
    """The position that gets most attention, its token, and how much."""
    row = values.patterns[layer, values.position]
    s = int(row.argmax())
    return f"'{values.text[s]}' at {s} ({row[s]:.2f})"


def _mechanism(name: str) -> str:
    """A mechanism in a few words."""
    return {"previous token": "the previous token"}.get(name, name)
