"""Checks of exercises: a check runs an attempt, and compares its answers with the solution and with usual mistakes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Solution = Callable[..., Any]


@dataclass(frozen=True)
class Check:
    """One exercise: its solution, inputs on which an attempt is tried, and functions that make usual mistakes."""

    name: str
    """Name of the exercise, which is that of the function to write."""
    solution: Solution
    """A function that gives the right answers."""
    inputs: Callable[[], tuple[tuple, ...]]
    """Returns the tuples of arguments on which an attempt is tried, drawn from a fixed seed."""
    slips: Mapping[str, Solution] = field(default_factory=dict)
    """A sentence that says what is wrong → a function that makes this mistake."""

    def __call__(self, attempt: Solution) -> None:
        """Print the verdict on the attempt."""
        print(f"{self.name}: {self.verdict(attempt)}")

    def grade(self, attempt: Solution) -> None:
        """Raise AssertionError with the verdict unless the attempt is correct, as graders such as nbgrader need it."""
        verdict = self.verdict(attempt)
        if not verdict.startswith("correct"):
            raise AssertionError(f"{self.name}: {verdict}")

    def verdict(self, attempt: Solution) -> str:
        """One or two sentences: "not attempted yet …", "correct …", or what is wrong."""
        cases = self.inputs()
        answers = []
        for arguments in cases:
            try:
                answers.append(attempt(*(a.clone() if isinstance(a, Tensor) else a for a in arguments)))
            except NotImplementedError:
                return "not attempted yet. Write the function above, run its cell, then run this one again."
            except Exception as error:  # an error in the student's function is part of the verdict, not a failure here
                return f"your function raised {type(error).__name__}: {error}"
        expected = [self.solution(*arguments) for arguments in cases]
        for answer, solution in zip(answers, expected, strict=True):
            if answer is None:
                return "your function returned None; does it end with a return statement?"
            if isinstance(solution, Tensor) and getattr(answer, "shape", None) != solution.shape:
                shape = tuple(getattr(answer, "shape", ()))
                return f"your answer has shape {shape}, but it should have shape {tuple(solution.shape)}."
        if all(map(_same, answers, expected)):
            return f"correct on {len(cases)} random inputs. ✔"
        for message, slip in self.slips.items():
            if all(_same(answer, slip(*arguments)) for answer, arguments in zip(answers, cases, strict=True)):
                return f"not yet: {message}"
        largest = max(map(_distance, answers, expected))
        return (
            f"not yet: on one input the largest difference is {largest:.3g}. "
            "Work out one small case by hand and compare."
        )


def _same(answer: Any, solution: Any) -> bool:
    return _distance(answer, solution) < 1e-5


def _distance(answer: Any, solution: Any) -> float:
    """The largest difference; infinite for NaN, other shapes, or answers that are not numbers."""
    try:
        answer, solution = (torch.as_tensor(v).detach().to(torch.float64) for v in (answer, solution))
    except (TypeError, ValueError, RuntimeError):
        return float("inf")
    if answer.shape != solution.shape:
        return float("inf")
    gap = (answer - solution).abs().max().item()
    return gap if gap == gap else float("inf")


def draws(*shapes: tuple[int, ...], times: int = 3, uniform: bool = False) -> list[tuple[Tensor, ...]]:
    """`times` tuples of random tensors of these shapes, normal or uniform on [0, 1], always the same ones."""
    draw, sample = torch.Generator().manual_seed(0), torch.rand if uniform else torch.randn
    return [tuple(sample(shape, generator=draw) for shape in shapes) for _ in range(times)]
