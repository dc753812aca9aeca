"""The core and the papers: `textbook` is the reference for the tests, and `python -m benchmarks` compares speeds."""
