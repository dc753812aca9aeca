"""Functions inside functions are checked like all others, the first time and the next."""

import pytest
import torch
import typechecker
from jaxtyping import Float, TypeCheckError, jaxtyped
from torch import Tensor


def inner(width: int):
    @jaxtyped(typechecker=typechecker.check)
    def double(a: Float[Tensor, "rows d"], b: Float[Tensor, " d"], scale: float = 2) -> Float[Tensor, "rows d"]:
        return scale * a * b if width else b

    return double


@pytest.mark.parametrize("again", [0, 1])
def test_arguments_and_results_of_closures_are_checked(again):
    a, b = torch.ones(2, 3), torch.ones(3)
    assert torch.equal(inner(1)(a, b), 2 * a)
    with pytest.raises(TypeCheckError):
        inner(1)(a, torch.ones(4))
    with pytest.raises(TypeCheckError):
        inner(0)(a, b)


def test_one_check_serves_every_closure_of_a_signature():
    before = len(typechecker._checked)
    inner(1), inner(0)
    after = len(typechecker._checked)
    inner(2)
    assert before <= after == len(typechecker._checked)
