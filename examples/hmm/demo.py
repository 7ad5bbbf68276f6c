"""Compare the forward algorithm in Cython with NumPy, and with SciPy's logsumexp in a Python loop.

It ends with an error unless the log likelihoods agree to TOLERANCE, relative to their size, and
the module is MIN_SPEEDUP times as fast as the Python loop, both on one thread.
"""

import argparse
import os
import sys
import time

import numpy as np
from hmm import log_likelihoods
from scipy.special import logsumexp

TOLERANCE = 1e-13
MIN_SPEEDUP = 10


def random_model(n_states, n_symbols, seed=0):
    """Return a model: probabilities of the first state, of transitions (a tenth of them 0), and of
    symbols."""
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.full(n_states, 0.5), n_states)
    transition[rng.random(transition.shape) < 0.1] = 0
    transition += 1e-3 * np.eye(n_states)
    transition /= transition.sum(axis=1, keepdims=True)
    return (
        rng.dirichlet(np.ones(n_states)),
        transition,
        rng.dirichlet(np.ones(n_symbols), n_states),
    )


def by_numpy(sequence, start, transition, emission):
    """Return the log likelihood of a sequence from probabilities that are scaled at each step."""
    total = 0.0
    forward = start * emission[:, sequence[0]]
    for symbol in sequence[1:]:
        scale = forward.sum()
        total += np.log(scale)
        forward = (forward / scale) @ transition * emission[:, symbol]
    return total + np.log(forward.sum())


def by_scipy(sequence, start, transition, emission):
    """Return the log likelihood of a sequence from logarithms, with SciPy's logsumexp."""
    forward = start + emission[:, sequence[0]]
    for symbol in sequence[1:]:
        forward = logsumexp(forward[:, None] + transition, axis=0) + emission[:, symbol]
    return logsumexp(forward)


def seconds(call, repeats):
    """Return the least time of a call, and its result."""
    least = np.inf
    for _ in range(repeats):
        begin = time.perf_counter()
        result = call()
        least = min(least, time.perf_counter() - begin)
    return least, result


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--states", type=int, default=10)
    parser.add_argument("--symbols", type=int, default=20)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--length", type=int, default=500)
    given = parser.parse_args(arguments)

    model = random_model(given.states, given.symbols)
    with np.errstate(divide="ignore"):  # log(0)
        logs = tuple(np.log(part) for part in model)
    shape = given.sequences, given.length
    sequences = np.random.default_rng(1).integers(0, given.symbols, shape)

    numpy_results = np.array([by_numpy(sequence, *model) for sequence in sequences])
    slow, scipy_results = seconds(lambda: np.array([by_scipy(s, *logs) for s in sequences]), 2)
    fast, results = seconds(lambda: log_likelihoods(sequences, *logs), 5)
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    shared, shared_results = seconds(lambda: log_likelihoods(sequences, *logs, threads), 5)

    print(f"{shape[0]} sequences of {shape[1]} symbols, {given.states} states")
    print(f"SciPy's logsumexp in a Python loop: {slow * 1e3:9.2f} ms")
    print(
        f"cysoftmax in Cython, 1 thread:      {fast * 1e3:9.2f} ms, {slow / fast:.0f} times as fast"
    )
    print(f"cysoftmax in Cython, {threads} threads:     {shared * 1e3:9.2f} ms")
    for name, others in ("NumPy", numpy_results), ("SciPy", scipy_results):
        difference = np.max(np.abs(results - others) / np.abs(others))
        print(f"largest relative difference from {name}: {difference:.1e}")
        if not difference <= TOLERANCE:
            sys.exit(f"the log likelihoods differ from those of {name}")
    if not np.array_equal(results, shared_results):
        sys.exit("the number of threads changed a result")
    if not slow >= MIN_SPEEDUP * fast:
        sys.exit(f"not {MIN_SPEEDUP} times as fast as the Python loop")


if __name__ == "__main__":
    main()
