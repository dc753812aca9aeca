"""Checks of exercises: a check runs an attempt, and compares its answers with the solution and with usual mistakes."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pd_helpers.course.kit.answers import UnreadableError, case, compared, kind, numbers, same
from pd_helpers.course.kit.attempts import FailedError, NotAttemptedError, call, settings_kept

Solution = Callable[..., Any]


@dataclass(frozen=True)
class Check:
    """One exercise: its solution, inputs on which an attempt is tried, and functions that make usual mistakes."""

    name: str
    """Name of the exercise, which is that of the function to write."""
    solution: Solution
    """A function that gives the right answers."""
    inputs: Callable[[], Sequence[tuple]]
    """Returns the tuples of arguments on which an attempt is tried, always the same; the first one is small enough to
    be worked out by hand."""
    slips: Mapping[str, Solution] = field(default_factory=dict)
    """A sentence that says what is wrong → a function that makes this mistake."""
    seconds: float = 5.0
    """Time after which an attempt at one input is stopped."""

    def __call__(self, attempt: Any) -> None:
        """Print the verdict on the attempt."""
        print(f"{self.name}: {self.verdict(attempt)}")

    def grade(self, attempt: Any) -> None:
        """Raise AssertionError with the verdict unless the attempt is correct, as graders such as nbgrader need it."""
        verdict = self.verdict(attempt)
        if not verdict.startswith("correct"):
            raise AssertionError(f"{self.name}: {verdict}")

    def verdict(self, attempt: Any) -> str:
        """One or two sentences: "not attempted yet …", "correct …", or what is wrong.

        Whatever holds the right numbers is right: tensors and arrays of any type, Python's numbers, lists and tuples.
        The attempt gets copies of the inputs, and global settings and random states are as before after it.
        """
        if not callable(attempt):
            return f"that is {kind(attempt)} and not a function; hand over the function itself, without calling it."
        with settings_kept(), torch.device("cpu"):
            torch.set_default_dtype(torch.float32)
            return self._verdict(attempt)

    def _verdict(self, attempt: Solution) -> str:
        cases = self.inputs()
        wanted = [numbers(self.solution(*deepcopy(arguments))) for arguments in cases]
        answers: dict[int, Tensor] = {}
        problems = []
        for i, arguments in enumerate(cases):
            try:
                answers[i] = _read(call(attempt, arguments, self.seconds), wanted[i])
            except NotAttemptedError:
                return "not attempted yet. Write the function above, run its cell, then run this one again."
            except FailedError as error:
                if error.final:
                    return str(error)
                problems.append((i, str(error)))
        wrong = [i for i, answer in answers.items() if not same(answer, wanted[i])]
        if wrong:
            message = self._mistake(cases, answers, wrong)
            if message:
                return f"not yet: {message}"
        if problems:
            i, sentence = problems[0]
            return sentence + (f" (for {case(attempt, self.solution, cases[i])})" if answers else "")
        if wrong:
            i = wrong[0]
            return _difference(answers[i], wanted[i], case(attempt, self.solution, cases[i]))
        return f"correct on {len(cases)} inputs. ✔"

    def _mistake(self, cases: Sequence[tuple], answers: Mapping[int, Tensor], wrong: Sequence[int]) -> str | None:
        """The sentence of the usual mistake that leads to all of these answers, if there is one."""
        for message, slip in self.slips.items():
            if all(_gives(slip, cases[i], answer) for i, answer in answers.items()):
                return message
        return None


@dataclass(frozen=True)
class Judgement(Check):
    """An exercise in which each of some statements, numbered from 1, is given one of some numbered answers.

    The slips are made from `why`: each is right but for one statement. Of an attempt with several wrong answers, the
    first one is named.
    """

    why: Mapping[int, Mapping[int, str]] = field(default_factory=dict)
    """Statement → wrong answer → a sentence that says why it is wrong."""

    def _mistake(self, cases: Sequence[tuple], answers: Mapping[int, Tensor], wrong: Sequence[int]) -> str | None:
        (statement,) = cases[wrong[0]]
        choice = answers[wrong[0]]
        return self.why[statement].get(choice.item()) if choice.ndim == 0 else None


def judgement(name: str, right: Mapping[int, int], why: Mapping[int, Mapping[int, str]]) -> Judgement:
    """A check of a function from a statement's number to that of the answer, of which `right` has the right ones."""

    def given(statement: int) -> int:
        return right[statement]

    def with_one_wrong(place: int, choice: int) -> Solution:
        return lambda statement: choice if statement == place else right[statement]

    slips = {
        sentence: with_one_wrong(statement, choice)
        for statement, sentences in why.items()
        for choice, sentence in sentences.items()
    }
    return Judgement(name, given, lambda: [(statement,) for statement in right], slips, why=why)


def _read(answer: Any, wanted: Tensor) -> Tensor:
    """An answer's numbers; a single number may have any shape if a single number is wanted."""
    if answer is None:
        raise FailedError("your function returned None; does it end with a return statement?")
    try:
        tensor = numbers(answer)
    except UnreadableError as error:
        raise FailedError(f"your answer is {error}, but {_wanted(wanted)} is wanted.") from None
    except Exception:  # an object may raise anything when it is asked for its numbers
        raise FailedError(f"your answer is {kind(answer)}, but its numbers cannot be read.") from None
    return tensor.reshape(()) if wanted.ndim == 0 and tensor.numel() == 1 else tensor


def _wanted(wanted: Tensor) -> str:
    return f"a tensor of shape {tuple(wanted.shape)}" if wanted.ndim else "a single number"


def _gives(slip: Solution, arguments: tuple, answer: Tensor) -> bool:
    """Whether a usual mistake leads to this answer."""
    try:
        return same(answer, numbers(slip(*deepcopy(arguments))))
    except Exception:  # a mistake may be one that cannot be made on every input
        return False


def _difference(answer: Tensor, wanted: Tensor, inputs: str) -> str:
    """What is wrong with an answer, in one or two sentences."""
    if answer.shape != wanted.shape:
        return f"your answer has shape {tuple(answer.shape)}, but {_wanted(wanted)} is wanted (for {inputs})."
    verb = "contains" if answer.ndim else "is"
    if answer.isnan().any():
        source = "0 / 0, or the root or the logarithm of a negative number"
        return f"not yet: for {inputs} your answer {verb} NaN, which is not a number; look for {source}."
    if answer.isinf().any():
        return f"not yet: for {inputs} your answer {verb} an infinite number; look for a division by zero."
    yours, right = compared(answer, wanted)
    step = "Work out a smaller case of this kind" if "tensor of shape" in inputs else "Work this case out by hand"
    return f"not yet: for {inputs} the answer is {right}, but yours is {yours}. {step} and compare."


def draws(*cases: Sequence[tuple[int, ...]], uniform: bool = False) -> list[tuple[Tensor, ...]]:
    """For each sequence of shapes a tuple of random tensors, normal or uniform on [0, 1], always the same ones."""
    draw, sample = torch.Generator().manual_seed(0), torch.rand if uniform else torch.randn
    return [tuple(sample(shape, generator=draw) for shape in shapes) for shapes in cases]
