"""Every exercise: the stub is "not attempted yet", the notebook's solution passes, and each known slip is named."""

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pd_helpers import checks
from pd_helpers.checks import CHECKS, Check

SOURCES = sorted((Path(__file__).parents[1] / "notebooks" / "source").glob("*.py"))


def solutions_in(source: Path) -> dict[str, Callable]:
    """Check → the solved function that a notebook shows its readers for it, which is not the check's own solution."""
    text = source.read_text()
    tree, names, solutions = ast.parse(text), {}, {}
    is_import = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module(is_import, []), str(source), "exec"), names)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and "### BEGIN SOLUTION" in ast.get_source_segment(text, node):
            exec(compile(ast.Module([node], []), str(source), "exec"), names)
            for check in re.findall(rf"pdh\.checks\.(\w+)\({node.name}\)", text):
                solutions[check] = names[node.name]
    return solutions


@pytest.fixture(scope="module")
def solutions() -> dict[str, Callable]:
    return {name: function for source in SOURCES for name, function in solutions_in(source).items()}


def stub(*_):
    raise NotImplementedError("not attempted yet")


every = pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)


@every
def test_it_can_be_had_by_its_name(check: Check):
    assert getattr(checks, check.name) is check


@every
def test_stub_is_not_attempted(check: Check):
    assert "not attempted yet" in check.verdict(stub)


@every
def test_the_notebooks_solution_passes(check: Check, solutions):
    assert "correct" in check.verdict(solutions[check.name])


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


def test_a_judgement_says_why_the_first_wrong_answer_is_wrong():
    kinship = CHECKS["kinship"]
    assert kinship.verdict(lambda statement: 2) == (
        "not yet: circuit discovery is handed a task and a graph of given parts; statement 1 is about one that finds "
        "groups but takes no weights apart."
    )
    assert "statement 2 is about" in kinship.verdict(lambda statement: 3 if statement < 3 else 5)
    assert "Work this case out by hand" in kinship.verdict(lambda statement: 7)
