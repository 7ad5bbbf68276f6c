"""Public functions called with arrays of any bits: `make fuzz`, on the build with sanitizers.

Hypothesis draws calls until the time is over: `functions.py MINUTES`. Each call returns, or raises
a Python error that the documentation names; it writes to no input, and the number of threads and
the instruction set change no bit of its results. AddressSanitizer watches the memory.

With `functions.py MINUTES threads`, arrays are so large that a call uses several threads, for
ThreadSanitizer: `make test-tsan`.
"""

import sys
import time
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from scipy import sparse

sys.path.insert(0, str(Path(__file__).parents[1]))

from calls import CALLS

import cysoftmax
from cysoftmax import _core

DTYPES = ["float32", "float64", "float16", "bfloat16", "int8", "uint64", "bool", ">f4"]
THREADS = sys.argv[2:] == ["threads"]
ISAS = [name for name in _core.available_isas() if name != "scalar"] or ["scalar"]
EXPECTED = (TypeError, ValueError, IndexError, OverflowError)
COUNT = {"returned": 0, "refused": 0}


@st.composite
def arrays(draw, shape, dtypes):
    """Draw an array of any bits, of odd strides at times."""
    name = draw(st.sampled_from(dtypes))
    if name == "bfloat16":
        import ml_dtypes  # noqa: F401  NumPy knows the name from now on
    dtype = np.dtype(name)
    steps = [draw(st.sampled_from([1, 1, 1, 2, -1])) for _ in shape]
    offset = draw(st.sampled_from([0, 0, 0, 1]))
    size = int(np.prod([n * abs(step) for n, step in zip(shape, steps, strict=True)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    memory = rng.integers(0, 256, size * dtype.itemsize + offset, np.uint8)
    if draw(st.booleans()):  # many bits of a few kinds: zeros, infinities, NaNs, denormals
        pattern = draw(st.binary(min_size=1, max_size=32))
        memory[:] = np.resize(np.frombuffer(pattern, np.uint8), memory.size)
    if dtype.kind == "b" and draw(st.booleans()):
        memory &= 1
    view = memory[offset:].view(dtype)
    view = view.reshape([n * abs(step) for n, step in zip(shape, steps, strict=True)])
    view = view[(..., *(slice(None, None, step) for step in steps))]  # an array without axes, too
    if draw(st.booleans()) and dtype.kind == "f":
        with np.errstate(all="ignore"):
            view[...] = 3 * rng.standard_normal(shape)
    return view.T.copy().T if draw(st.integers(0, 4)) == 0 else view


@st.composite
def labels(draw, rows, n_classes):
    if draw(st.booleans()):
        return draw(arrays(rows, ["int64", "int32", "uint8", "uint64", "int8", "float64"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    got = rng.integers(0, max(n_classes, 1), rows)
    if got.size and draw(st.integers(0, 3)) == 0:
        got.flat[draw(st.integers(0, got.size - 1))] = draw(
            st.sampled_from([-1, n_classes, n_classes - 1, 2**62, -(2**63), -100])
        )
    return got


@st.composite
def matrices(draw, shape):
    """Draw a matrix in CSR format, of which anything may be wrong."""
    n_rows, n_classes = shape
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    matrix = sparse.random_array(shape, density=0.2, format="csr", rng=rng)
    for name in draw(st.lists(st.sampled_from(["data", "indices", "indptr"]), max_size=2)):
        array = getattr(matrix, name).copy()
        if array.size:
            wrong = [-1, n_classes, n_classes - 1, 2**31 - 1, -(2**31), 0, n_rows]
            array[draw(st.integers(0, array.size - 1))] = draw(st.sampled_from(wrong))
        setattr(matrix, name, array)
    if draw(st.integers(0, 5)) == 0:
        matrix.indices = matrix.indices[: draw(st.integers(0, matrix.indices.size))]
    return matrix


numbers = st.one_of(st.floats(), st.sampled_from([0.0, 1.0, 2.0**-60, 0.5, -1.0, 1e300]))


@st.composite
def problems(draw):
    """Draw a call and all of its arguments."""
    call = draw(st.sampled_from(CALLS))
    n_classes = draw(st.one_of(st.integers(0, 40), st.sampled_from([64, 130, 1030, 4100, 70000])))
    rows = (draw(st.integers(0, 2 if n_classes > 4000 else 70)),)
    if THREADS:  # one more thread is worth while for each 65536 logits
        n_classes = draw(st.sampled_from([2, 3, 10, 40, 130, 1030, 4100, 70000, 150000]))
        rows = (200000 // n_classes + draw(st.integers(1, 40 if n_classes < 5000 else 2)),)
    elif call.second != "CSR" and draw(st.integers(0, 4)) == 0:
        rows = draw(st.sampled_from([(), (2, 3), (5, 0), (3, 1, 2)]))
    shape = (*rows, n_classes)
    inputs = {"logits": draw(arrays(shape, DTYPES))}
    if call.second == "labels":
        inputs["second"] = draw(labels(rows, n_classes))
    elif call.second == "CSR":
        inputs["second"] = draw(matrices(shape))
    elif call.second:
        kinds = {"one-hot": ["bool", "uint8", "int64"], "vector": [str(inputs["logits"].dtype)]}
        inputs["second"] = draw(arrays(shape, kinds.get(call.second, DTYPES[:6])))
    makers = {
        "class_weight": arrays((n_classes,), ["float32", "float64", "int64"]),
        "sample_weight": arrays(rows, ["float32", "float64", "bool", "int8"]),
        "scale": arrays(rows, ["float32", "float64"]),
        "where": arrays(shape, ["bool"]),
        "ignore_index": st.sampled_from([-1, 0, -100, 2**63 - 1, n_classes]),
        "label_smoothing": numbers,
        "z_loss": numbers,
        "temperature": numbers,
    }
    for name in draw(st.lists(st.sampled_from(call.takes), unique=True)) if call.takes else ():
        inputs[name] = draw(makers[name])
    if call.about.reduces:
        inputs["reduction"] = draw(st.sampled_from(["mean", "sum", "none"]))
    return call, inputs


def bits(results):
    """Return the bytes of results, any NaN alike."""
    kept = []
    for name, result in sorted(results.items()):
        array = np.array(result)
        if array.dtype.kind in "fV":
            array = array.astype(np.float64)
            array[np.isnan(array)] = np.nan
        kept.append((name, array.shape, array.tobytes()))
    return kept


def bytes_of(value):
    parts = [value.data, value.indices, value.indptr] if sparse.issparse(value) else [value]
    return [part.tobytes() for part in parts if isinstance(part, np.ndarray)]


def attempt(call, inputs, **more):
    """Return the results, or the type and the message of the error."""
    try:
        with np.errstate(all="ignore"):
            return bits(call(inputs, **more))
    except EXPECTED as error:
        return type(error), str(error)


@given(problems(), st.sampled_from([1, 2, 3]))
def check(problem, n_threads):
    call, inputs = problem
    before = {name: bytes_of(value) for name, value in inputs.items()}
    want = attempt(call, inputs, n_threads=1)
    COUNT["returned" if isinstance(want, list) else "refused"] += 1
    for isa in ISAS:
        _core.use_isa(isa)
        assert attempt(call, inputs, n_threads=n_threads) == attempt(call, inputs, n_threads=1)
        if isa == ISAS[0]:
            first = attempt(call, inputs)
        assert attempt(call, inputs) == first, f"{isa} has other bits"
    _core.use_isa("scalar")
    attempt(call, inputs, n_threads=n_threads)
    _core.use_isa(ISAS[0])
    assert before == {name: bytes_of(value) for name, value in inputs.items()}, "an input changed"


def main(minutes):
    print(cysoftmax.__file__, ISAS)
    end = time.monotonic() + 60 * minutes
    run = settings(
        max_examples=50,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )(check)
    while time.monotonic() < end:
        run()
    print(f"calls: {COUNT['returned']} returned, {COUNT['refused']} were refused with an error")
    print(f"{sum(COUNT.values())} passed, 0 failed")
    if min(COUNT.values()) == 0:
        sys.exit("all calls had one outcome: this tested nothing")


if __name__ == "__main__":
    main(float(sys.argv[1]))
