"""A reader for runs stored by earlier versions: what was called otherwise gets its present name."""

from typing import Any

from torch import Tensor

from pd_helpers.core.config import FORMER_NAMES

FORMER_COLUMNS = {"importance": "importance_minimality"}
"""Losses in a history, under the names they had in format 1."""


def present_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts of a stored run or checkpoint of format 1 as the present version writes them."""
    facts = dict(facts)
    if isinstance(facts.get("config"), dict):
        facts["config"] = {FORMER_NAMES.get(name, name): value for name, value in facts["config"].items()}
    if isinstance(facts.get("history"), dict):
        facts["history"] = {FORMER_COLUMNS.get(name, name): values for name, values in facts["history"].items()}
    if "candidates" in facts:
        facts["candidates"] = [present_facts(candidate) for candidate in facts["candidates"]]
        facts.setdefault("discarded_seconds", 0.0)
    if "promise" in facts:
        facts["score"] = facts.pop("promise")
    return facts


def present_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a checkpoint of format 1 under their present names."""
    return {
        name.removesuffix("promises") + "scores" if name.endswith(".promises") else name: tensor
        for name, tensor in tensors.items()
    }
