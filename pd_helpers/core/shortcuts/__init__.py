"""Exact savings: each computes the same numbers as the plain equation in less time, and says why it is exact.

    active_pairs    compute only the entries of a mask that are on
    empty_rows      compute the many all-zero inputs of sparse data once
    gate_kernel     the importance functions' gradient, written by hand
    parts           compute a batch in parts, in less memory or on several devices
    step_graph      record a training step once and replay it, so that a GPU does not wait for Python
    threads         one thread where a second one would only wait

What a particular network knows about itself, such as a closed form of its attributions, stands with that network.
"""
