"""What a check is: it runs an attempt beside the solution, and beside the usual slips."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Solution = Callable[..., Any]


@dataclass(frozen=True)
class Check:
    """One exercise: its solution, inputs to try it on, and what the usual slips would answer."""

    name: str
    solution: Solution
    inputs: Callable[[], tuple[tuple, ...]]
    """Makes the argument tuples to try, from a fixed seed."""
    slips: Mapping[str, Solution] = field(default_factory=dict)
    """What went wrong → a function that gets it wrong in that way."""

    def __call__(self, attempt: Solution) -> None:
        """Print how the attempt did."""
        print(f"{self.name}: {self.verdict(attempt)}")

    def grade(self, attempt: Solution) -> None:
        """Raise AssertionError with the verdict unless the attempt is correct: what graders such as nbgrader run."""
        verdict = self.verdict(attempt)
        if not verdict.startswith("correct"):
            raise AssertionError(f"{self.name}: {verdict}")

    def verdict(self, attempt: Solution) -> str:
        """One or two sentences: "not attempted yet", "correct …", or what is wrong."""
        cases = self.inputs()
        answers = []
        for arguments in cases:
            try:
                answers.append(attempt(*(a.clone() if isinstance(a, Tensor) else a for a in arguments)))
            except NotImplementedError:
                return "not attempted yet. Write the function above, run its cell, then run this one again."
            except Exception as error:  # whatever a student's function raises is an answer, not our failure
                return f"your function raised {type(error).__name__}: {error}"
        expected = [self.solution(*arguments) for arguments in cases]
        for answer, wanted in zip(answers, expected, strict=True):
            if answer is None:
                return "your function returned None; does it end with a return statement?"
            if isinstance(wanted, Tensor) and getattr(answer, "shape", None) != wanted.shape:
                shape = tuple(getattr(answer, "shape", ()))
                return f"your answer has shape {shape}, but {tuple(wanted.shape)} is wanted."
        if all(map(_same, answers, expected)):
            return f"correct on {len(cases)} random inputs. ✔"
        for slip, wrong in self.slips.items():
            if all(_same(answer, wrong(*arguments)) for answer, arguments in zip(answers, cases, strict=True)):
                return f"not yet: {slip}"
        worst = max(range(len(cases)), key=lambda i: _distance(answers[i], expected[i]))
        return (
            f"not yet: on one input the largest difference is {_distance(answers[worst], expected[worst]):.3g}. "
            "Work one small case by hand and compare."
        )


def _same(answer: Any, wanted: Any) -> bool:
    return _distance(answer, wanted) < 1e-5


def _distance(answer: Any, wanted: Any) -> float:
    try:
        answer, wanted = (torch.as_tensor(v).detach().to(torch.float64) for v in (answer, wanted))
    except (TypeError, ValueError, RuntimeError):
        return float("inf")
    if answer.shape != wanted.shape:
        return float("inf")
    gap = (answer - wanted).abs().max().item()
    return gap if gap == gap else float("inf")


def draws(*shapes: tuple[int, ...], times: int = 3, uniform: bool = False) -> list[tuple[Tensor, ...]]:
    draw, make = torch.Generator().manual_seed(0), torch.rand if uniform else torch.randn
    return [tuple(make(shape, generator=draw) for shape in shapes) for _ in range(times)]
