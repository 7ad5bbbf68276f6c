# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The forward algorithm of hidden Markov models, for many sequences at a time.

With the logarithms of the probabilities of the first state, of a state after another, and of a
symbol in a state, the sum over all paths that end in state j at time t is

    forward[t, j] = logsumexp over i of (forward[t - 1, i] + transition[i, j]) + emission[j, o_t]

and the log likelihood of a sequence is the logsumexp of its last row (Rabiner, A tutorial on hidden
Markov models and selected applications in speech recognition, 1989, section III.A).
"""

cimport cysoftmax
from cython.parallel cimport prange

import numpy as np


cdef double log_likelihood_of(const Py_ssize_t[::1] sequence, const double[::1] start,
                              const double[:, ::1] arrivals, const double[:, ::1] emission,
                              double[:, ::1] scratch) noexcept nogil:
    """Return the log likelihood of one sequence. Row j of `arrivals` has the transitions that lead
    to state j; `scratch` has three rows of one number for each state."""
    cdef Py_ssize_t n_states = start.shape[0], now = 0, t, i, j
    cdef double *terms = &scratch[2, 0]
    for j in range(n_states):
        scratch[now, j] = start[j] + emission[sequence[0], j]
    for t in range(1, sequence.shape[0]):
        for j in range(n_states):
            for i in range(n_states):
                terms[i] = scratch[now, i] + arrivals[j, i]
            scratch[1 - now, j] = (
                cysoftmax.logsumexp_f64(terms, n_states, 1) + emission[sequence[t], j])
        now = 1 - now
    return cysoftmax.logsumexp_f64(&scratch[now, 0], n_states, 1)


def log_likelihoods(sequences, start, transition, emission, int n_threads=1):
    """Return the log likelihood of each sequence, in nats.

    Parameters
    ----------
    sequences : array_like of int, shape (n_sequences, length)
        Symbols, from 0 to n_symbols - 1; the length is at least 1.
    start : array_like of float64, shape (n_states,)
        The log probability of each state at the beginning.
    transition : array_like of float64, shape (n_states, n_states)
        ``transition[i, j]``: the log probability that state j follows state i. -inf is allowed.
    emission : array_like of float64, shape (n_states, n_symbols)
        ``emission[j, o]``: the log probability of symbol o in state j.
    n_threads : int, default 1
        How many threads share the sequences.

    Returns
    -------
    ndarray of float64, shape (n_sequences,)
    """
    cdef const Py_ssize_t[:, ::1] symbols = np.ascontiguousarray(sequences, np.intp)
    cdef const double[::1] first = np.ascontiguousarray(start, np.float64)
    cdef const double[:, ::1] arrivals = np.ascontiguousarray(np.transpose(transition), np.float64)
    cdef const double[:, ::1] by_symbol = np.ascontiguousarray(np.transpose(emission), np.float64)
    cdef Py_ssize_t n = symbols.shape[0], n_states = first.shape[0], s
    if arrivals.shape[0] != n_states or arrivals.shape[1] != n_states:
        raise ValueError(f"transition must have shape {(n_states, n_states)}")
    if by_symbol.shape[1] != n_states:
        raise ValueError(f"emission must have {n_states} rows, one for each state")
    if n and not (symbols.shape[1] and 0 <= np.min(symbols) <= np.max(symbols) < len(by_symbol)):
        raise ValueError(f"sequences must have symbols from 0 to {len(by_symbol) - 1}")
    cdef double[:, :, ::1] scratch = np.empty((n, 3, n_states))
    result = np.empty(n)
    cdef double[::1] results = result
    for s in prange(n, nogil=True, schedule="static", num_threads=n_threads):
        results[s] = log_likelihood_of(symbols[s], first, arrivals, by_symbol, scratch[s])
    return result
