"""The core against the papers: `textbook` is the oracle of the tests, `python -m benchmarks` compares speeds."""
