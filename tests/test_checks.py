"""Every exercise: the stub is "not attempted yet", the solution passes, and each known slip is named."""

import pytest
import torch

from pd_helpers.checks import CHECKS, Check


def stub(*_):
    raise NotImplementedError("not attempted yet")


every = pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)


@every
def test_stub_is_not_attempted(check: Check):
    assert "not attempted yet" in check.verdict(stub)


@every
def test_solution_passes(check: Check):
    assert "correct" in check.verdict(check.solution)


@every
def test_each_slip_is_named(check: Check):
    assert check.slips
    for slip, wrong in check.slips.items():
        assert slip in check.verdict(wrong)


@every
def test_other_answers_are_not_accepted(check: Check):
    assert "None" in check.verdict(lambda *_: None)
    assert "correct" not in check.verdict(lambda *_: torch.zeros(()))
    assert "raised ZeroDivisionError" in check.verdict(lambda *_: 1 / 0)


def test_inputs_of_an_exercise_are_safe_from_the_attempt():
    def spoils_its_input(g, p):
        answer = g.pow(p).sum(dim=1).mean()
        g.zero_()
        return answer

    assert "correct" in CHECKS["importance_minimality"].verdict(spoils_its_input)
