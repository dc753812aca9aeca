"""Checks against whatever a function may return: what holds the right numbers is correct, anything else is named."""

import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from pd_helpers.checks import CHECKS, Check

every = pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)


def numbers(answer: Any) -> Tensor:
    return torch.as_tensor(answer).detach().double()


def is_short(verdict: str) -> bool:
    """One or two sentences on one line; what is in parentheses or a list is part of a sentence."""
    return "\n" not in verdict and len(re.findall(r"[.?!](?=\s|$)", verdict)) <= 2


def integral(x: Tensor) -> Tensor:
    return x.long() if torch.equal(x, x.round()) else x


def logical(x: Tensor) -> Tensor:
    return x.bool() if torch.isin(x, torch.tensor([0.0, 1.0]).double()).all() else x


# --- Right answers ----------------------------------------------------------------------------------------

HOLDERS: dict[str, Callable[[Tensor], Any]] = {
    "double precision": lambda x: x.double(),
    "single precision": lambda x: x.float(),
    "half precision, where exact": lambda x: x.half() if torch.equal(x.half().double(), x) else x,
    "with a gradient": lambda x: x.clone().requires_grad_(),
    "in a graph": lambda x: x.clone().requires_grad_() * 1,
    "a parameter": torch.nn.Parameter,
    "whole numbers": integral,
    "True and False": logical,
    "an array": lambda x: x.numpy(),
    "an array in single precision": lambda x: x.float().numpy(),
    "an array of objects": lambda x: np.array(x.tolist(), dtype=object),
    "reversed strides": lambda x: x.flip(0).numpy()[::-1] if x.ndim else x.numpy(),
    "Python's numbers": lambda x: x.tolist(),
    "NumPy's numbers": lambda x: list(x.numpy()) if x.ndim else np.float64(x.item()),
    "a list": lambda x: list(x) if x.ndim else x.item(),
    "a tuple": lambda x: tuple(x) if x.ndim else (x.item(),),
    "a list of tuples": lambda x: [tuple(row) for row in x] if x.ndim > 1 else x,
    "a single number in brackets": lambda x: x if x.ndim else x[None],
    "a single number in two brackets": lambda x: x if x.ndim else [[x.item()]],
    "a fraction": lambda x: x if x.ndim else Fraction(x.item()),
    "a decimal": lambda x: x if x.ndim else Decimal(x.item()),
    "complex, without an imaginary part": lambda x: x + 0j,
    "sparse": lambda x: x.to_sparse() if x.ndim else x,
    "not contiguous": lambda x: x.mT.contiguous().mT if x.ndim > 1 else x,
    "off by rounding": lambda x: x * (1 + 1e-7),
}


@every
def test_whatever_holds_the_right_numbers_is_correct(check: Check):
    verdicts = {
        name: check.verdict(lambda *inputs, hold=hold: hold(numbers(check.solution(*inputs))))
        for name, hold in HOLDERS.items()
    }
    assert {name: verdict for name, verdict in verdicts.items() if not verdict.startswith("correct")} == {}


def spoil(value: Any) -> None:
    """Set all numbers to 0 in place."""
    if isinstance(value, Tensor):
        value.zero_()
    elif isinstance(value, dict):
        for key in list(value):
            spoil(value[key])
        value.clear()
    elif isinstance(value, list):
        value.clear()


@every
def test_an_attempt_may_work_in_place(check: Check):
    def attempt(*inputs):
        answer = numbers(check.solution(*inputs))
        for value in inputs:
            spoil(value)
        return answer

    assert check.verdict(attempt).startswith("correct")


@every
def test_to_spoil_the_inputs_does_not_make_an_answer_right(check: Check):
    def attempt(*inputs):
        answer = torch.zeros_like(numbers(check.solution(*inputs)))
        for value in inputs:
            spoil(value)
        return answer

    assert not check.verdict(attempt).startswith("correct")


# --- Wrong answers ----------------------------------------------------------------------------------------

EXTRA = "something else"
MUTATIONS: dict[str, Callable[[Tensor, int], Any]] = {
    "one entry": lambda x, i: x + 2e-3 * (1 + x.abs().max()) * entry(x, i),
    "one entry less": lambda x, i: x - 2e-3 * (1 + x.abs().max()) * entry(x, i),
    "one entry negative": lambda x, i: x * (1 - 2 * entry(x, i)),
    "one entry zero": lambda x, i: x * (1 - entry(x, i)),
    "one entry NaN": lambda x, i: torch.where(entry(x, i) > 0, torch.nan, x),
    "one entry infinite": lambda x, i: torch.where(entry(x, i) > 0, torch.inf, x),
    "scaled": lambda x, i: x * (1 + 1e-3),
    "shifted": lambda x, i: x + 2e-3,
    "negative": lambda x, i: -x,
    "square": lambda x, i: x.square(),
    "rolled": lambda x, i: x.roll(1 + i % 3),
    "reversed": lambda x, i: x.flip(0) if x.ndim else x,
    "sorted": lambda x, i: x.flatten().sort().values.view(x.shape),
    "transposed": lambda x, i: x.mT if x.ndim > 1 else x,
    "cut to whole numbers": lambda x, i: x.long(),
    "cut to bytes": lambda x, i: x.to(torch.uint8),
    "True or False": lambda x, i: x.bool(),
    "rounded": lambda x, i: x.mul(100).round() / 100,
    "one short": lambda x, i: x[1:] if x.ndim else torch.zeros(0),
    "one more": lambda x, i: torch.cat([x, x[:1]]) if x.ndim else torch.stack([x, x]),
    "in brackets": lambda x, i: x[None] if x.ndim else torch.stack([x, x]),
    "flat": lambda x, i: x.flatten() if x.ndim > 1 else x.sum() if x.ndim else x.repeat(3),
    "summed": lambda x, i: x.sum(dim=0) if x.ndim else x.repeat(2),
    "imaginary": lambda x, i: x + 5j,
    "as an imaginary array": lambda x, i: x.numpy() * 1j + 1e-2,
}
OTHER_KINDS: dict[str, Callable[[Tensor, int], Any]] = {
    "as text": lambda x, i: str(x.tolist()),
    "list of text": lambda x, i: [str(v) for v in x.flatten().tolist()],
    "array of text": lambda x, i: np.array([str(v) for v in x.flatten().tolist()]),
    "in a dictionary": lambda x, i: {"answer": x},
    "in a set": lambda x, i: set(x.flatten().tolist()),
    "in a function": lambda x, i: lambda: x,
    "with a second answer": lambda x, i: (x, EXTRA),
    "values and indices": lambda x, i: x.sort(),
    "with None": lambda x, i: [*x.flatten().tolist(), None],
    "ragged": lambda x, i: [x, x.flatten()[:1].repeat(7)],
    "without storage": lambda x, i: x.to("meta"),
    "too large a number": lambda x, i: 10**400,
    "nothing": lambda x, i: None,
    "a kind of number": lambda x, i: float,
    "dots": lambda x, i: ...,
}


def entry(x: Tensor, i: int) -> Tensor:
    """1 at one entry, 0 elsewhere."""
    return torch.eye(x.numel(), dtype=torch.float64)[i % x.numel()].view(x.shape)


def agrees(answer: Any, right: Tensor) -> bool:
    """Whether an answer is right after all, or so nearly right that nobody should be told that it is wrong."""
    try:
        tensor = torch.as_tensor(answer).to(torch.complex128)
    except (TypeError, ValueError, RuntimeError, OverflowError, NotImplementedError):
        return False
    return tensor.shape == right.shape and bool(((tensor - right).abs() <= 5e-4 * right.abs().max()).all())


def verdict_on(check: Check, mutation: str, i: int) -> str | None:
    """The verdict on the solution's answers after a mutation, or None if that leaves them right."""
    right = True

    def attempt(*inputs):
        nonlocal right
        solution = numbers(check.solution(*inputs))
        answer = (MUTATIONS | OTHER_KINDS)[mutation](solution, i)
        right = right and agrees(answer, solution)
        return answer

    verdict = check.verdict(attempt)
    return None if right else verdict


@every
def test_wrong_numbers_get_a_sentence(check: Check):
    verdicts = {mutation: verdict_on(check, mutation, 1) for mutation in MUTATIONS}
    verdicts = {mutation: verdict for mutation, verdict in verdicts.items() if verdict is not None}
    assert len(verdicts) > len(MUTATIONS) / 2
    assert {m: v for m, v in verdicts.items() if v.startswith("correct") or not is_short(v)} == {}


@given(check=st.sampled_from(list(CHECKS)), mutation=st.sampled_from([*OTHER_KINDS, *MUTATIONS]), i=st.integers(0, 50))
@settings(derandomize=True, deadline=None, max_examples=250, database=None)
def test_a_wrong_answer_of_any_kind_gets_a_sentence(check: str, mutation: str, i: int):
    verdict = verdict_on(CHECKS[check], mutation, i)
    assume(verdict is not None)
    assert not verdict.startswith("correct")
    assert is_short(verdict)


@every
def test_an_input_is_no_answer(check: Check):
    for place in range(len(check.inputs()[0])):
        verdict = check.verdict(lambda *inputs, place=place: inputs[place])
        assert not verdict.startswith("correct")
        assert is_short(verdict)


@every
def test_the_first_case_can_be_worked_out_by_hand(check: Check):
    """A mistake that has no name is shown on the first inputs, all of their numbers included."""
    verdict = check.verdict(lambda *inputs: numbers(check.solution(*inputs)) * 1.37 + 0.219)
    assert re.match("not yet: for .* = .* the answer is .*, but yours is .*[.] Work this case out by hand", verdict)
    assert "tensor" not in verdict
    assert len(verdict) < 330


def test_a_case_is_shown_under_the_names_of_the_attempt():
    def relative_error(mine, theirs):
        return (mine - theirs).square().sum()

    verdict = CHECKS["relative_error"].verdict(relative_error)
    assert verdict == (
        "not yet: for mine = [1, 2, 0] and theirs = [1, 0, 2] the answer is 1.6, but yours is 8. "
        "Work this case out by hand and compare."
    )


def test_inputs_without_names_are_numbered():
    check = Check("total", lambda *inputs: sum(inputs), lambda: [(1, 2.5), (3, 4.0)])
    assert "for input 1 = 1 and input 2 = 2.5 the answer is 3.5, but yours is 7" in check.verdict(lambda *_: 7)


def test_numbers_that_differ_look_different():
    ratio = CHECKS["length_ratio"]
    assert "is 0.3846, but yours is 0.3847" in ratio.verdict(lambda p, w: 1.0002 * p.norm() / w.norm())


def test_of_many_numbers_the_worst_is_shown():
    check = Check("twice", lambda x: 2 * x, lambda: [(torch.arange(30.0).view(5, 6),)])
    wrong = check.verdict(lambda x: 2 * x + 3 * (x == 20))
    assert "for x = a tensor of shape (5, 6) the answer is 40 at [3, 2], but yours is 43 at [3, 2]" in wrong
