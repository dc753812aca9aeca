"""What a student's function may do: each mistake gets a sentence of its own, and nothing is left behind."""

import contextlib
import random
import re
import signal
import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pd_helpers.checks import CHECKS
from pd_helpers.course.kit.check import draws

ratio = replace(CHECKS["length_ratio"], seconds=60.0)
hasty = replace(ratio, seconds=0.2)


def recursion(p, w):
    return recursion(p, w)


def endless(p, w):
    while True:
        pass


def deaf(p, w):
    """Without an end, and catches whatever it can."""
    while True:
        with contextlib.suppress(Exception):
            w = p + w


def yields(p, w):
    yield p.norm() / w.norm()


def sleeps(p, w):
    time.sleep(2)


def leaves(p, w):
    raise SystemExit(0)


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError


def mute(p, w):
    raise Mute


@pytest.mark.parametrize(
    ("attempt", "sentence"),
    [
        (recursion, "calls itself without an end"),
        (leaves, "your function ends Python"),
        (yields, "your answer is a generator, which is what yield makes"),
        (mute, "your function raised Mute"),
        (lambda p: 1, "cannot be called with the exercise's 2 arguments: too many positional arguments"),
        (lambda p, w, v: 1, "cannot be called with the exercise's 2 arguments: missing a required argument: 'v'"),
        (lambda p, w, *, v: 1, "missing a required"),
        (lambda p, w: p @ torch.ones(3), "your function raised RuntimeError"),
        (lambda p, w: torch.linalg.inv(torch.ones(2, 2, dtype=torch.bool)), "your function raised RuntimeError"),
        (lambda p, w: torch.ones(2, device="meta").tolist(), "your function raised NotImplementedError: Cannot copy"),
        (lambda p, w: torch.nan, "your answer is NaN, which is not a number"),
        (lambda p, w: p / 0, "your answer has shape (2,), but a single number is wanted"),
        (lambda p, w: 1 / p.sum().sub(7), "is an infinite number; look for a division by zero"),
        (lambda p, w: "0.5", "your answer is text, but a single number is wanted"),
        (lambda p, w: lambda: 0.5, "your answer is a function, but a single number is wanted"),
        (lambda p, w: [0.5, None], "your answer is a list with None in it"),
        (lambda p, w: p.max(dim=0), "your answer is a tuple of values and indices"),
        (lambda p, w: print(end=""), "returned None; does it end with a return statement?"),
        (0.5, "that is a number and not a function; hand over the function itself, without calling it"),
        (torch.ones(2), "that is a tensor of shape (2,) and not a function"),
        (None, "that is None and not a function"),
        ("length_ratio", "that is text and not a function"),
    ],
)
def test_a_sentence_says_what_is_the_matter(attempt: Any, sentence: str):
    verdict = ratio.verdict(attempt)
    assert sentence in verdict
    assert "\n" not in verdict
    with pytest.raises(AssertionError, match=re.escape(f"length_ratio: {verdict}")):
        ratio.grade(attempt)


@pytest.mark.parametrize("attempt", [endless, deaf, sleeps])
def test_an_attempt_that_does_not_end_is_stopped(attempt: Any):
    assert hasty.verdict(attempt) == "your function was not done after 0.2 seconds; does a loop in it never end?"


def test_top_k_of_each_row_that_runs_out_of_columns():
    def batch_top_k(A, k):
        return torch.zeros_like(A).scatter(1, A.topk(k, dim=1).indices, 1.0)

    verdict = CHECKS["batch_top_k"].verdict(batch_top_k)
    assert "you take the top of every row; batch top-k takes the top of the whole batch." in verdict


def test_an_error_on_one_input_only_is_shown_with_the_input():
    verdict = CHECKS["batch_top_k"].verdict(
        lambda A, k: ((A.flatten().topk(k).values[-1] <= A) & (A > 0)) * (1.0 if k != 5 else torch.ones(99))
    )
    assert "your function raised RuntimeError" in verdict
    assert "(for A = [[" in verdict
    assert verdict.endswith("and k = 5)")


# --- What is left behind ----------------------------------------------------------------------------------


def test_settings_and_random_states_are_as_before():
    def state():
        return (
            torch.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),
            random.getstate(),
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(),
        )

    def attempt(p, w):
        torch.manual_seed(1)
        torch.rand(3)
        np.random.seed(1)
        random.seed(1)
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.set_grad_enabled(False)
        torch.use_deterministic_algorithms(True)
        return p.norm() / w.norm()

    before, seen = state(), []
    assert ratio.verdict(attempt).startswith("correct")
    assert state() == before
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [torch.get_num_threads()]


def test_settings_of_the_user_do_not_matter():
    torch.set_default_dtype(torch.float64)
    try:
        verdicts = [check.verdict(check.solution) for check in CHECKS.values()]
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device("meta"), torch.no_grad():
        verdicts += [check.verdict(check.solution) for check in CHECKS.values()]
    assert all(verdict.startswith("correct") for verdict in verdicts)


def test_a_loop_without_end_leaves_no_thread_and_no_handler():
    threads, handlers = set(threading.enumerate()), signal.getsignal(signal.SIGINT)
    hasty.verdict(endless)
    assert set(threading.enumerate()) <= threads
    assert signal.getsignal(signal.SIGINT) is handlers


def test_a_check_works_in_any_thread():
    verdicts = []
    thread = threading.Thread(target=lambda: verdicts.extend([ratio.verdict(ratio.solution), hasty.verdict(endless)]))
    thread.start()
    thread.join()
    assert [verdict.split()[0] for verdict in verdicts] == ["correct", "your"]


def test_the_user_can_interrupt_an_attempt():
    def attempt(p, w):
        signal.raise_signal(signal.SIGINT)
        endless(p, w)

    threads = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        ratio.verdict(attempt)
    assert set(threading.enumerate()) <= threads


def test_what_an_attempt_prints_stands_above_the_verdict(capsys):
    def attempt(p, w):
        print(len(p), end="")
        return p.norm() / w.norm()

    ratio(attempt)
    assert capsys.readouterr().out.splitlines() == [*["2"] * 4, "length_ratio: correct on 4 inputs. ✔"]


def test_a_flood_of_prints_does_not_hide_the_verdict(capsys):
    def attempt(p, w):
        while True:
            print("again")

    hasty(attempt)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 300
    assert "was not done after 0.2 seconds" in lines[-1]


def test_draws_are_always_the_same():
    first, second = draws([(2, 3)], [(4,), (1,)]), draws([(2, 3)], [(4,), (1,)])
    assert [[tuple(t.shape) for t in case] for case in first] == [[(2, 3)], [(4,), (1,)]]
    assert all(torch.equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True))
