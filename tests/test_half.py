"""float16 and bfloat16: read as they are, computed in float32, rounded once."""

import subprocess
import sys

import numpy as np
import pytest
from calls import CALLS, inputs
from cases import assert_same_bits, cast, dtype_of, some_logits, some_masses

import cysoftmax


@pytest.fixture(params=["float16", "bfloat16"])
def half(request):
    """A dtype of 16 bits."""
    return dtype_of(request.param)


# 0/1 matrices and sparse rows give the bits of labels and distributions: test_same_targets.py.
SOME = [call for call in CALLS if call.second not in ("one-hot", "CSR")]


def every_function(x, options=(), **more):
    """The results of every function for logits of two dimensions, by name."""
    made = {}
    for call in SOME:
        given = inputs(call, x.shape, np.float32, options) | {"logits": x}
        if call.second == "vector":
            given["second"] = np.flip(x, 1)
        for reduction in call.reductions[::2]:
            got = call(given | call.keywords(reduction), **more)
            made |= {f"{call.name}, {reduction}, {name}": part for name, part in got.items()}
    return made


def assert_rounded_once(got, want, half):
    """Arrays with an entry for each logit are those of float32, rounded; all else is the same."""
    for name, exact in want.items():
        if np.ndim(exact) < 2:
            assert_same_bits(got[name], exact, name)
        else:
            assert exact.dtype == np.float32, name
            assert_same_bits(got[name], cast(exact, half), name)


# ---------------------------------------------------------------- one rounding


@pytest.mark.parametrize("n_rows", [3, 20])
def test_results_are_those_of_float32_rounded_once_for_every_tail(n_rows, half, isa):
    for n_classes in range(1, 71):
        x = cast(some_logits((n_rows, n_classes), seed=n_classes), half)
        assert_rounded_once(every_function(x), every_function(x.astype(np.float32)), half)


@pytest.mark.parametrize("shape", [(40, 130), (5, 1025), (3, 5000), (2, 70_000)])
@pytest.mark.parametrize("spread", [1, 20])
def test_results_are_those_of_float32_rounded_once_for_long_rows(spread, shape, half, isa):
    x = cast(spread * some_logits(shape), half)
    want = every_function(x.astype(np.float32))
    for n_threads in 1, 2:
        assert_rounded_once(every_function(x, n_threads=n_threads), want, half)


@pytest.mark.parametrize("shape", [(20, 3), (19, 10), (5, 33), (6, 130), (3, 1025)])
def test_results_are_those_of_float32_with_all_options(shape, half, isa):
    x = cast(some_logits(shape), half)
    want = every_function(x.astype(np.float32), "all")
    assert_rounded_once(every_function(x, "all"), want, half)


def test_large_batches_on_threads_are_those_of_float32(half):
    for shape in (20_000, 10), (3000, 130):
        x = cast(some_logits(shape), half)
        want = every_function(x.astype(np.float32))
        for n_threads in 1, 2, 7, None:
            assert_rounded_once(every_function(x, n_threads=n_threads), want, half)


# ---------------------------------------------------------------- memory


def test_rows_of_odd_lengths_in_odd_places_are_read_and_written(half, isa):
    """Nothing beside a row is read as part of it, or written."""
    for n_classes in (*range(1, 36), 127, 1023):
        memory = np.full((7, n_classes + 3), np.nan, half)
        x = memory[:, 1:-2]
        x[...] = cast(some_logits(x.shape), half)
        want = cysoftmax.softmax(x.copy())
        assert_same_bits(cysoftmax.softmax(x), want)
        cysoftmax.softmax(x, out=x)
        assert_same_bits(x.copy(), want)
        assert np.isnan(memory[:, 0]).all()
        assert np.isnan(memory[:, -2:]).all()


@pytest.mark.parametrize("other", [np.float32, np.float64, np.int16, np.uint16])
def test_the_dtype_of_out_must_be_exact(other, half):
    x = np.zeros((3, 4), half)
    for function, arguments in [
        (cysoftmax.softmax, (x,)),
        (cysoftmax.cross_entropy_grad, (x, [0, 1, 2])),
        (cysoftmax.softmax_vjp, (x, x)),
    ]:
        with pytest.raises(TypeError, match=rf"^out must have dtype {half}; got {np.dtype(other)}"):
            function(*arguments, out=np.zeros((3, 4), other))
    with pytest.raises(TypeError, match=rf"^out must have dtype float32; got {half}"):
        cysoftmax.softmax(x.astype(np.float32), out=x)


def test_the_two_dtypes_of_sixteen_bits_are_not_taken_for_each_other():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    for a, b in (np.float16, bfloat16), (bfloat16, np.float16):
        x = np.zeros((3, 4), a)
        with pytest.raises(TypeError, match=r"^out must have dtype .*16; got .*16"):
            cysoftmax.softmax(x, out=np.zeros((3, 4), b))
        with pytest.raises(TypeError, match=r"^v must have the dtype of p, .*16; got .*16"):
            cysoftmax.softmax_vjp(x, x.astype(b))


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("n_threads", [1, 2])
def test_seventy_thousand_equal_logits_have_their_share(n_threads, half, isa):
    for n_rows in 1, 3:
        x = np.full((n_rows, 70_000), 3, half)
        share = np.array(1 / 70_000).astype(half)
        assert share > 0
        p = cysoftmax.softmax(x, n_threads=n_threads)
        assert_same_bits(p, np.full_like(x, share))
        loss, grad = cysoftmax.cross_entropy_with_grad(
            x, np.zeros(n_rows, int), reduction="sum", n_threads=n_threads
        )
        assert loss == pytest.approx(n_rows * np.log(70_000), rel=1e-6)
        assert_same_bits(grad[:, 1:], np.full((n_rows, 69_999), share))


def every_value(half):
    return np.arange(2**16, dtype=np.uint16).view(half)


def test_every_value_is_a_logit(half, isa):
    values = every_value(half)
    x = np.stack([values, np.zeros_like(values), np.ones_like(values)], axis=1)
    assert_rounded_once(every_function(x), every_function(cast(x, np.float32)), half)
    finite = values[np.isfinite(cast(values, np.float32))]
    wide = finite[: len(finite) // 64 * 64].reshape(-1, 64)
    assert_rounded_once(every_function(wide), every_function(cast(wide, np.float32)), half)
    turned = np.asfortranarray(wide)
    assert_rounded_once(every_function(turned), every_function(cast(wide, np.float32)), half)


def test_every_value_can_be_a_result(half, isa):
    """The logarithm of a sum of one is that number, whatever it is."""
    values = every_value(half)
    for n_classes in 1, 2, 40:
        x = np.full((len(values), n_classes), -np.inf, half)
        x[:, -1] = values
        for logits in x, np.asfortranarray(x):
            got = cysoftmax.logsumexp(logits)
            assert got.dtype == np.float32
            np.testing.assert_array_equal(cast(got, np.float32), cast(values, np.float32))


def test_subnormal_probabilities_are_not_flushed(half, isa):
    for n_classes in 3, 20, 40:
        x = np.zeros((20, n_classes), half)
        x[:, 1:] = -np.linspace(8, 17, n_classes - 1) if half == np.float16 else -89
        p = cysoftmax.softmax(x)
        assert (p > 0).all()
        assert (p.astype(np.float32) < np.finfo(np.float16).tiny).any()
        assert_same_bits(p, cast(cysoftmax.softmax(x.astype(np.float32)), half))


def test_infinities_and_nan_are_those_of_float32(half, isa):
    for n_classes in range(2, 40):
        x = cast(some_logits((20, n_classes)), half)
        x[0, 0], x[1, 1], x[2, -1], x[3] = np.nan, np.inf, -np.inf, -np.inf
        x[4, 0], x[5, 0] = np.inf, np.nan
        for logits in x, np.asfortranarray(x):
            assert_rounded_once(every_function(logits), every_function(x.astype(np.float32)), half)


def test_a_loss_may_be_beyond_the_largest_number_of_float16(isa):
    x = np.full((20, 5), 65504, np.float16)
    x[:, 1:] = -65504
    assert_same_bits(cysoftmax.logsumexp(x), np.full(20, 65504, np.float32))
    loss = cysoftmax.cross_entropy(x, np.ones(20, int), reduction="none")
    assert_same_bits(loss, np.full(20, 2 * 65504, np.float32))
    assert cysoftmax.cross_entropy(x, np.ones(20, int)) == 2 * 65504


def test_a_distribution_may_be_of_float16(isa):
    x, masses = some_logits((20, 7)).astype(np.float16), some_masses((20, 7))
    want = cysoftmax.cross_entropy_with_grad(x, masses)
    got = cysoftmax.cross_entropy_with_grad(x, masses.astype(np.float16))
    assert got.loss == want.loss
    assert_same_bits(got.grad, want.grad)


def test_no_rows_and_no_classes_are_accepted(half):
    assert cysoftmax.softmax(np.empty((0, 4), half)).dtype == half
    assert cysoftmax.softmax(np.empty((4, 0), half)).shape == (4, 0)
    lse = cysoftmax.logsumexp(np.empty((4, 0), half))
    assert_same_bits(lse, np.full(4, -np.inf, np.float32))
    loss, grad = cysoftmax.cross_entropy_with_grad(np.empty((0, 4), half), np.empty(0, int))
    assert np.isnan(loss)
    assert grad.dtype == half


def test_other_extension_dtypes_are_a_type_error():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for name in "float8_e4m3fn", "float8_e5m2", "int4":
        x = np.zeros((3, 4), getattr(ml_dtypes, name))
        with pytest.raises(TypeError, match=rf"^x must be .*; got dtype {name}"):
            cysoftmax.softmax(x)


def test_scratch_is_for_threads_that_have_a_row():
    """64 threads would want as many rows of it, 50 MB; the limit leaves room for a few."""
    code = """
import resource, numpy, cysoftmax
x = numpy.zeros((1, 200_000), numpy.float16)
cysoftmax.softmax(x, n_threads=64, out=x)
x[...] = 0
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 16_000_000,) * 2)
cysoftmax.softmax(x, n_threads=64, out=x)
print(x[0, 0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
