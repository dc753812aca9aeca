"""Exercises on attention (notebook 19): causal attention, scores from pairs, static strength, accuracy, a rotation."""

import math

import torch
from torch import Tensor

from pd_helpers.course.kit.check import Check, draws


def _scores() -> list[tuple[Tensor, Tensor, Tensor]]:
    small = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]), torch.tensor([[1.0, 1.0], [0.0, 1.0], [2.0, 0.0]])
    values = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 3.0]])
    return [(*small, values), *(tuple(case) for case in draws([(4, 3)] * 3, [(6, 5)] * 3))]


def _attention(q: Tensor, k: Tensor, v: Tensor, *, scale: bool = True, mask: bool = True, dim: int = 1) -> Tensor:
    scores = q @ k.T / (q.shape[1] ** 0.5 if scale else 1.0)
    if mask:
        scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -math.inf)
    return scores.softmax(dim=dim) @ v


def _masked_with_zeros(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.T / q.shape[1] ** 0.5).tril().softmax(dim=1) @ v


def _masked_afterwards(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.T / q.shape[1] ** 0.5).softmax(dim=1).tril() @ v


causal_attention = Check(
    "causal_attention",
    _attention,
    _scores,
    {
        "you left out the division by the square root of the width.": lambda q, k, v: _attention(q, k, v, scale=False),
        "every position sees the whole sequence; mask the keys that come after the query.": lambda q, k, v: _attention(
            q, k, v, mask=False
        ),
        "you set the later scores to 0; a softmax gives them weight all the same, so set them to -inf.": (
            _masked_with_zeros
        ),
        "you masked after the softmax, so the rows no longer sum to 1; mask the scores.": _masked_afterwards,
        "the softmax must run over keys, the last dimension of the scores.": lambda q, k, v: _attention(
            q, k, v, dim=0
        ).nan_to_num(0.0),
        "you divided by the width; divide by its square root.": lambda q, k, v: _attention(q / q.shape[1] ** 0.5, k, v),
    },
)


def _factors() -> list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """U_Q (C, d), V_Q (C, d_in), U_K (C', d), V_K (C', d_in), a query's input and a key's input (d_in,)."""
    U, V = torch.tensor([[1.0, 0.0], [2.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 2.0]])
    small = (U, V, torch.tensor([[1.0, -1.0]]), torch.tensor([[3.0, 1.0]]), torch.tensor([1.0, 2.0]), V[1])
    shapes = [(3, 2), (3, 4), (2, 2), (2, 4), (4,), (4,)]
    return [small, *(tuple(case) for case in draws(shapes, [(4, 3), (4, 5), (4, 3), (4, 5), (5,), (5,)]))]


def _pairs(U_Q: Tensor, V_Q: Tensor, U_K: Tensor, V_K: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return (V_Q @ a)[:, None] * (U_Q @ U_K.T) * (V_K @ b)[None, :] / U_Q.shape[1] ** 0.5


pair_scores = Check(
    "pair_scores",
    _pairs,
    _factors,
    {
        "that is the whole score; return one number for each pair (c, c').": lambda *args: _pairs(*args).sum(),
        "you left out the division by the square root of the head's width.": lambda *args: (
            _pairs(*args) * args[0].shape[1] ** 0.5
        ),
        "you left out U_Q · U_K, the part that says whether the two pieces speak the same language.": (
            lambda U_Q, V_Q, U_K, V_K, a, b: (V_Q @ a)[:, None] * (V_K @ b)[None, :] / U_Q.shape[1] ** 0.5
        ),
        "the table is turned around: queries are rows, keys are columns.": lambda *args: _pairs(*args).T,
        "queries read a and keys read b; you used a for both.": lambda U_Q, V_Q, U_K, V_K, a, b: _pairs(
            U_Q, V_Q, U_K, V_K, a, a
        ),
    },
)


def _static_cases() -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    U, V = torch.tensor([[1.0, 0.0], [2.0, 1.0]]), torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    small = (U, V, torch.tensor([[1.0, -1.0]]), torch.tensor([[0.0, 2.0]]))
    shapes = [(3, 2), (3, 4), (2, 2), (2, 4)]
    return [small, *(tuple(case) for case in draws(shapes, [(4, 3), (4, 5), (3, 3), (3, 5)]))]


def _static(U_Q: Tensor, V_Q: Tensor, U_K: Tensor, V_K: Tensor) -> Tensor:
    return V_Q.norm(dim=1)[:, None] * (U_Q @ U_K.T) * V_K.norm(dim=1)[None, :] / U_Q.shape[1] ** 0.5


static_strength = Check(
    "static_strength",
    _static,
    _static_cases,
    {
        "you left out the lengths of V; U alone can have any length, since V can undo it.": (
            lambda U_Q, V_Q, U_K, V_K: U_Q @ U_K.T / U_Q.shape[1] ** 0.5
        ),
        "you multiplied by V_Q · V_K; what two pieces read need not be alike, only its size counts.": (
            lambda U_Q, V_Q, U_K, V_K: (V_Q @ V_K.T) * (U_Q @ U_K.T) / U_Q.shape[1] ** 0.5
        ),
        "you left out the division by the square root of the head's width.": lambda U_Q, V_Q, U_K, V_K: (
            _static(U_Q, V_Q, U_K, V_K) * U_Q.shape[1] ** 0.5
        ),
        "you squared the lengths of V.": lambda U_Q, V_Q, U_K, V_K: (
            V_Q.square().sum(dim=1)[:, None] * (U_Q @ U_K.T) * V_K.square().sum(dim=1)[None, :] / U_Q.shape[1] ** 0.5
        ),
        "you took the absolute value; a pair may also push attention away.": lambda *args: _static(*args).abs(),
    },
)


def _outputs() -> list[tuple[Tensor, Tensor, int]]:
    """Logits (n, vocabulary), tokens (n, length) whose answer follows the first marker, and the marker's number."""
    x = torch.tensor([[5, 1, 6, 3, 0, 6], [5, 6, 4, 4, 2, 6]])
    by_hand = torch.tensor([[0.0, 0.1, 0.2, 0.9, 0.3], [0.7, 0.1, 0.2, 0.3, 0.6]])
    draw = torch.Generator().manual_seed(3)
    cases = [(by_hand, x, 6)]
    for n, length, vocabulary in ((8, 7, 5), (12, 9, 4)):
        tokens = torch.randint(vocabulary, (n, length), generator=draw)
        place = torch.randint(1, length - 2, (n, 1), generator=draw)
        tokens[:, 0], tokens[:, -1] = vocabulary, vocabulary + 1
        tokens = tokens.scatter(1, place, vocabulary + 1)
        answers = tokens.gather(1, place + 1).squeeze(1)
        logits = torch.randn(n, vocabulary, generator=draw)
        logits[: n // 2].scatter_(1, answers[: n // 2, None], 5.0)
        cases.append((logits, tokens, vocabulary + 1))
    return cases


def _accuracy(logits: Tensor, x: Tensor, marker: int, shift: int = 1) -> Tensor:
    place = (x == marker).int().argmax(dim=1)
    answers = x.gather(1, place[:, None] + shift).squeeze(1)
    return (logits.argmax(dim=1) == answers).double().mean()


def _after_the_last(logits: Tensor, x: Tensor, marker: int) -> Tensor:
    return (logits.argmax(dim=1) == x[:, -2]).double().mean()


induction_accuracy = Check(
    "induction_accuracy",
    _accuracy,
    _outputs,
    {
        "the answer is the token after the first marker, not the marker.": lambda logits, x, marker: _accuracy(
            logits, x, marker, 0
        ),
        "the answer is the token after the first marker, not the one before it.": lambda logits, x, marker: _accuracy(
            logits, x, marker, -1
        ),
        "you took the last token before the final marker.": _after_the_last,
        "that is the share of wrong answers.": lambda logits, x, marker: 1 - _accuracy(logits, x, marker),
        "that is the number of right answers; divide by the number of sequences.": lambda logits, x, marker: (
            _accuracy(logits, x, marker) * len(x)
        ),
    },
)
