"""Choosing among several initialisations: each is a candidate, trained for a while, and the best one continues."""

import itertools
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pd_helpers.core.machine.precision import autocast, without_autocast
from pd_helpers.core.method import Data, Method
from pd_helpers.core.shortcuts.threads import threads_for
from pd_helpers.core.training import compare_stored
from pd_helpers.runs.divergence import DivergenceWatch
from pd_helpers.runs.recording import Record, record_steps
from pd_helpers.runs.sources import Source


class Candidate:
    """One initialisation in training, watched and recorded.

    Attributes: method; record (history rows and snapshots); watch (for divergence); seconds (training time so far);
    score (mean of `Method.score` over the last quarter of the `selection_steps`, lower being better; None until then).
    """

    def __init__(self, method: Method, seconds: float = 0.0):
        self.method, self.seconds = method, seconds
        self.record, self.watch = Record(), DivergenceWatch()
        self.scores: list[Tensor] = []  # of every step so far, while candidates compete
        self.score: float | None = None

    def train(self, data: Data) -> Iterator[Any]:
        """Train, one step for each item taken; yields the step's losses.

        Raises FloatingPointError, at the next recorded step, if the loss has diverged.
        """
        method, steps_to_record = self.method, record_steps(self.method.config.steps)
        self.record.begin(method)
        if isinstance(data, Source):
            data.begin(method.generator)
        began = time.perf_counter() - self.seconds
        work = method.config.batch_size * method.model.width
        in_bfloat16 = getattr(method.config, "autocast", False)
        training = method.train(data)
        while True:
            # Entered anew for every step: between two steps, the caller's settings hold.
            with (
                threads_for(work),
                torch.inference_mode(False),
                torch.enable_grad(),
                without_autocast(),
                autocast(method.model, in_bfloat16),
            ):
                losses = next(training, None)
            if losses is None:
                if isinstance(data, Source):
                    data.close(method.generator)
                break
            self.watch.see(method.total_loss, method.step - 1)
            if method.step in steps_to_record:
                self.check()
                self.record.add(method, losses)
            self.seconds = time.perf_counter() - began
            yield losses

    def compete(self, data: Data) -> Iterator[int]:
        """Train until candidates are compared, and find the score; gives the steps done. Divergence scores infinity."""
        n = self.steps_to_compete
        try:
            for losses in itertools.islice(self.train(data), n - self.method.step):
                self.scores.append(self.method.score(losses))
                yield self.method.step
            score = torch.stack(self.scores[-n // 4 :]).mean().item()
        except FloatingPointError:
            score = math.inf
        self.score = score if math.isfinite(score) else math.inf

    def check(self) -> None:
        """Raise FloatingPointError if the loss has diverged."""
        self.watch.check(float(self.method.optimizer.param_groups[0]["lr"]))

    @property
    def steps_to_compete(self) -> int:
        """Steps after which candidates are compared."""
        return min(self.method.config.selection_steps, self.method.config.steps)

    def pack(self, data: Data | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that is needed to continue, as tensors and facts."""
        tensors, facts = self.record.pack()
        tensors |= self.method.parameters() | self.method.state() | self.watch.state()
        if self.scores:
            tensors["scores"] = torch.stack(self.scores)
        facts |= {"seconds": self.seconds, "step": self.method.step, "score": self.score}
        if isinstance(data, Source) and (n := data.position(self.method.generator)):
            facts["batches"] = n
        return tensors, facts

    def unpack(self, tensors: dict[str, Tensor], facts: dict[str, Any], data: Data | None) -> None:
        """Continue from what `pack` packed; the method's parameters are in place already.

        Raises ValueError, which names the tensor, for tensors that such a candidate would not pack.
        """
        at = self.method.model.factors[0].device
        self.method.load_state(tensors, facts["step"])
        self.watch.load_state({name: t.to(at) for name, t in tensors.items() if name in self.watch.state()})
        self.scores = list(tensors["scores"].to(at)) if "scores" in tensors else []
        self.score = facts["score"]
        if isinstance(data, Source):
            data.set_position(self.method.generator, facts.get("batches", 0))
        compare_stored(self.pack(data)[0], {**self.watch.state(), **tensors})
        if self.scores and len(self.scores) != (n := min(facts["step"], self.steps_to_compete)):
            raise ValueError(f"scores has {len(self.scores)} entries, but {n} steps have been scored")


def best(candidates: list[Candidate]) -> Candidate:
    """The candidate with the lowest score; of equals, the first."""
    return min(candidates, key=lambda candidate: candidate.score)
