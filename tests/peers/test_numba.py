"""The example of docs/compiled.md for numba runs, and every function can be called so."""

import numpy as np
import pytest
from row_functions import (
    DTYPES,
    FUNCTIONS,
    WITH_LABEL,
    WITH_OUTPUT,
    examples,
    function,
    of_arrays,
)

numba = pytest.importorskip("numba")
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]


def test_the_example_for_numba_runs():
    exec(compile(examples()["with_numba.py"], "with_numba.py", "exec"), {})


def called_by_numba(name, kind):
    """A compiled function that calls one of ours for x, with a second argument and an output."""
    row_function = function(name, kind)
    if name == "logsumexp":
        return numba.njit(lambda x, y, v, out: row_function(x.ctypes, x.size, 1))
    if name == "softmax_vjp":
        return numba.njit(
            lambda x, y, v, out: row_function(x.ctypes, x.size, 1, v.ctypes, 1, out.ctypes, 1)
        )
    if name not in WITH_LABEL:
        return numba.njit(lambda x, y, v, out: row_function(x.ctypes, x.size, 1, out.ctypes, 1))
    if name not in WITH_OUTPUT:
        return numba.njit(lambda x, y, v, out: row_function(x.ctypes, x.size, 1, y))
    return numba.njit(lambda x, y, v, out: row_function(x.ctypes, x.size, 1, y, out.ctypes, 1))


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_numba_gets_the_bits_of_arrays(name, kind):
    x, v = np.random.default_rng(0).random((2, 30)).astype(DTYPES[kind])
    out = np.zeros_like(x)
    number = called_by_numba(name, kind)(x, 3, v, out)
    second = [3] if name in WITH_LABEL else [v] if name == "softmax_vjp" else []
    want_number, want = of_arrays(name, x, *second)
    assert number == want_number
    if want is not None:
        assert np.array_equal(out, want)
