"""Rows of 2^31 classes and more, of which no copy may be made: views in which all are one number.

Rows of 300,000 classes that differ: test_bits.py. How much memory a long row may need:
test_memory.py.
"""

import json
import subprocess
import sys

import bounds
import numpy as np
import pytest
import reference
from calls import BY_NAME, LARGE, over_calls, room_for
from cases import assert_same_bits, assert_same_results, dtype_of
from scipy import sparse

import cysoftmax
from cysoftmax import _core

N_CLASSES = 2**22 + 11


def constant(value, dtype, shape=(1, N_CLASSES)):
    """A view of one number, of strides 0."""
    return np.broadcast_to(np.array(value, dtype), shape)


def inputs_without_strides(call, dtype, options):
    """The inputs of a call for one row of N_CLASSES; large ones without any strides."""
    given = {"logits": constant(0.75, dtype)} | call.of_rows
    one = np.zeros((1, N_CLASSES), bool)
    one[0, -1] = True
    if call.second:
        given["second"] = {
            "labels": lambda: np.array([N_CLASSES - 1]),
            "one-hot": lambda: one,
            "distribution": lambda: constant(0.375, np.float64),
            "CSR": lambda: sparse.csr_array(one),
            "vector": lambda: constant(-0.625, dtype),
        }[call.second]()
    some = {
        "class_weight": constant(1.25, np.float64, N_CLASSES),
        "sample_weight": np.array([0.3]),
        "ignore_index": -1,
        "label_smoothing": 0.1,
        "z_loss": 1e-2,
        "temperature": 0.7,
        "where": constant(True, bool),
        "scale": np.array([-1.7]),
    }
    return given | {name: some[name] for name in call.takes if options}


def contiguous(given):
    return {
        name: np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value
        for name, value in given.items()
    }


def dense(call):
    """Of the kinds of targets one for each function: for the others see test_same_targets.py."""
    return call.second in ("", "labels", "vector") or call.function == "cross_entropy_with_grad"


@over_calls(dense, LARGE)
def test_a_row_without_strides_has_the_bits_of_its_copy(name, dtype, options):
    call = BY_NAME[name]
    given = inputs_without_strides(call, dtype_of(dtype), options)
    want = call(contiguous(given), n_threads=1)
    got = call(given, n_threads=2)
    assert_same_results(got, want)
    for name in call.about.whole:
        assert got[name].flags.c_contiguous


@over_calls(lambda call: call.out and dense(call), LARGE[:1])
def test_results_of_a_row_without_strides_may_go_anywhere(name, dtype, options):
    call = BY_NAME[name]
    given = inputs_without_strides(call, dtype_of(dtype), options)
    want = call(given)
    out, _ = room_for(call, want, lambda a: np.repeat(a, 2, axis=-1)[..., ::2])
    assert_same_results(call(given, out=out, n_threads=1), want)


@over_calls(lambda call: "where" in call.takes and dense(call), LARGE[1:2])
def test_a_row_of_which_nothing_is_left_is_empty_however_long(name, dtype, options):
    call = BY_NAME[name]
    given = inputs_without_strides(call, dtype_of(dtype), options)
    given |= {"where": constant(False, bool), "logits": constant(np.nan, dtype)}
    want = {"log_p": -np.inf, "logsumexp": -np.inf, "argmax": -1}
    for name, result in call(given).items():
        assert (result == want.get(name, 0)).all(), name


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_a_label_far_along_a_row_without_strides_is_found(dtype):
    x = constant(1, dtype)
    for bad in N_CLASSES, 2**32, -1:
        out = np.full(x.shape, 7, dtype)
        with pytest.raises(IndexError, match=rf"got {bad} at index \(0,\)"):
            cysoftmax.cross_entropy_grad(x, np.array([bad]), out=out)
        assert_same_bits(out, np.full(x.shape, 7, dtype))


# ---------------------------------------------------------------- more than 2**31


@pytest.mark.slow
def test_more_than_two_to_the_31_elements_are_accepted():
    n_rows = 2**31 // 8 + 5
    row = np.float32([0, 1, 2, 3, 4, 5, 6, 7])
    x = np.broadcast_to(row, (n_rows, 8))
    labels = np.broadcast_to(np.int8(3), n_rows)
    want = cysoftmax.cross_entropy(row, 3)
    assert cysoftmax.cross_entropy(x, labels) == pytest.approx(want, rel=1e-14)
    total = cysoftmax.cross_entropy(x, labels, reduction="sum")
    assert total == pytest.approx(n_rows * want, rel=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("n_threads", [1, 2])
def test_one_row_of_more_than_two_to_the_31_classes_is_accepted(n_threads):
    n = 2**31 + 5
    x = np.zeros(n, np.float32)  # pages that are only read take no memory
    x[-1] = 30
    rest = np.log1p((n - 1) * np.exp(-30.0))
    loss = cysoftmax.cross_entropy(x, n - 1, n_threads=n_threads)
    assert loss == pytest.approx(rest, rel=1e-6)
    loss = cysoftmax.cross_entropy(x, n - 2, n_threads=n_threads)
    assert loss == pytest.approx(30 + rest, rel=1e-9)
    lse = cysoftmax.logsumexp(x, n_threads=n_threads)
    assert lse == pytest.approx(30 + rest, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("bad", [2**31 + 5, 2**32, -1])
def test_a_bad_label_of_more_than_two_to_the_31_classes_is_found(bad, n_threads):
    n = 2**31 + 5
    x = np.zeros(n, np.float32)
    with pytest.raises(IndexError, match=rf"^target must lie in \[0, {n}\); got {bad}$"):
        cysoftmax.cross_entropy(x, bad, n_threads=n_threads)


IN_SIX_GIBIBYTES = """
import json, resource, sys
import numpy as np, cysoftmax
resource.setrlimit(resource.RLIMIT_AS, (6 << 30,) * 2)
n, dtype, masked = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "masked"
x = np.broadcast_to(np.array(0.25, dtype), (1, n))
where = np.broadcast_to(np.True_, (1, n)) if masked else None
label = np.array([n - 1])
stats = cysoftmax.row_stats(x, label, where=where)._asdict()
stats["logsumexp alone"] = cysoftmax.logsumexp(x, where=where)
stats["loss alone"] = cysoftmax.cross_entropy(x, label, where=where, reduction="none")
print(json.dumps({name: (float(a[0]), a.dtype.name) for name, a in stats.items()}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("masked", ["masked", "whole"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_a_row_of_more_than_two_to_the_31_classes_needs_no_copy_of_it(dtype, masked):
    n = 2**31 + 11
    done = subprocess.run(
        [sys.executable, "-c", IN_SIX_GIBIBYTES, str(n), dtype, masked],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    entropy, share = np.log(np.longdouble(n)), 1 / np.longdouble(n)
    isa = _core.active_isa()
    for name, exact, bound in (
        ("logsumexp", 0.25 + entropy, bounds.LOGSUMEXP),
        ("logsumexp alone", 0.25 + entropy, bounds.LOGSUMEXP),
        ("loss", entropy, bounds.LOSS),
        ("loss alone", entropy, bounds.LOSS),
        ("entropy", entropy, bounds.ENTROPY),
        ("max_prob", share, bounds.MAX_PROB),
        ("target_prob", share, bounds.LABEL_PROB),
    ):
        value, result = got[name]
        assert reference.error_in_ulp(value, exact, result) <= bound.on(isa), name
    assert got["argmax"] == [0, "int64"]
