"""How the methods look in pictures that compare them."""

METHODS = {"apd": (0, "o", "APD"), "spd": (1, "s", "SPD"), "vpd": (2, "D", "VPD")}
"""Prefix of a run's name → number of its colour, marker and label."""


def method_of(name: str) -> str:
    """The method of a run, by the name of its preset."""
    return name.split("/")[0]
