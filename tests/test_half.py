"""float16 and bfloat16: read as they are, computed in float32, rounded once."""

import subprocess
import sys

import numpy as np
import pytest
from cases import (
    assert_same_bits,
    every_other,
    misaligned,
    oddly_strided,
    one_hot,
    read_only,
    some_labels,
    some_logits,
    some_masses,
    some_options,
    some_scale,
)
from scipy import sparse

import cysoftmax


@pytest.fixture(params=["float16", "bfloat16"])
def half(request):
    """A dtype of 16 bits."""
    if request.param == "bfloat16":
        return np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    return np.dtype(np.float16)


def cast(array, dtype):
    with np.errstate(all="ignore"):
        return array.astype(dtype)


def every_function(x, options=None, **more):
    """The results of every function for logits of two dimensions, by name."""
    n_rows, n_classes = x.shape
    labels, masses = some_labels(n_rows, n_classes), some_masses(x.shape)
    options = options or {}
    where = {name: options[name] for name in options.keys() & {"where"}}
    shared = where | {name: options[name] for name in options.keys() & {"temperature"}}
    made = {
        "softmax": cysoftmax.softmax(x, **shared, **more),
        "log_softmax": cysoftmax.log_softmax(x, **shared, **more),
        "logsumexp": cysoftmax.logsumexp(x, **where, **more),
        "vjp": cysoftmax.softmax_vjp(x, np.flip(x, 1), **more),
    }
    for name, target in ("labels", labels), ("masses", masses):
        for reduction in "mean", "none":
            loss, grad = cysoftmax.cross_entropy_with_grad(
                x, target, reduction=reduction, scale=some_scale(x.shape), **options, **more
            )
            made[f"loss, {name}, {reduction}"] = loss
            made[f"grad, {name}, {reduction}"] = grad
        made[f"loss alone, {name}"] = cysoftmax.cross_entropy(
            x, target, reduction="none", **options, **more
        )
        made[f"grad alone, {name}"] = cysoftmax.cross_entropy_grad(x, target, **options, **more)
        weights = {k: options[k] for k in options.keys() & {"class_weight", "sample_weight"}}
        pair = cysoftmax.cross_entropy_grad_hess(x, target, **weights, **more)
        made |= {f"{part}, {name}": array for part, array in pair._asdict().items()}
        stats = cysoftmax.row_stats(x, target, **shared, **more)
        made |= {f"stats, {part}, {name}": array for part, array in stats._asdict().items()}
    return made


def assert_rounded_once(got, want, half):
    """Arrays are those of float32, rounded; numbers and integers are the same."""
    for name, exact in want.items():
        if isinstance(exact, float) or exact.dtype == np.intp:
            assert_same_bits(got[name], exact, name)
        else:
            assert exact.dtype == np.float32, name
            assert_same_bits(got[name], cast(exact, half), name)


def assert_same(got, want):
    for name in want:
        assert_same_bits(got[name], want[name], name)


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
    options = some_options(shape)
    want = every_function(x.astype(np.float32), options)
    assert_rounded_once(every_function(x, options), want, half)
    masses = sparse.csr_array(some_masses(shape))
    want = cysoftmax.cross_entropy_with_grad(x.astype(np.float32), masses, **options)
    got = cysoftmax.cross_entropy_with_grad(x, masses, **options)
    assert got.loss == want.loss
    assert_same_bits(got.grad, cast(want.grad, half))


def test_large_batches_on_threads_are_those_of_float32(half):
    for shape in (20_000, 10), (3000, 130):
        x = cast(some_logits(shape), half)
        want = every_function(x.astype(np.float32))
        for n_threads in 1, 2, 7, None:
            assert_rounded_once(every_function(x, n_threads=n_threads), want, half)


# ---------------------------------------------------------------- memory


LAYOUTS = {
    "fortran": np.asfortranarray,
    "every other": every_other,
    "reversed": lambda a: np.flip(np.flip(a).copy()),
    "misaligned": misaligned,
    "oddly strided": oddly_strided,
    "read-only": read_only,
    "one row after another": lambda a: np.concatenate([a, a], axis=1)[:, : a.shape[1]],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_gives_the_same_bits(layout, half, isa):
    for shape in (20, 3), (19, 10), (5, 33), (4, 131), (2, 1027):
        x = cast(some_logits(shape), half)
        laid_out = LAYOUTS[layout](x)
        before = laid_out.copy()
        assert_same(every_function(laid_out), every_function(x))
        assert_same_bits(laid_out, before)


def test_byte_swapped_float16_is_read(isa):
    x = some_logits((20, 10)).astype(np.float16)
    assert_same(every_function(x.astype(x.dtype.newbyteorder())), every_function(x))


def test_any_axis_gives_the_same_bits(half, isa):
    for shape in (20, 3), (19, 10), (5, 33), (4, 131), (2, 1027):
        x, labels = cast(some_logits(shape), half), some_labels(shape[0], shape[1])
        loss, grad = cysoftmax.cross_entropy_with_grad(x, labels, reduction="none")
        for turned in x.T, x.T.copy():
            got = cysoftmax.cross_entropy_with_grad(turned, labels, axis=0, reduction="none")
            assert_same_bits(got.loss, loss)
            assert_same_bits(got.grad.T, grad)
            assert_same_bits(cysoftmax.softmax(turned, axis=0).T, cysoftmax.softmax(x))
            assert_same_bits(cysoftmax.logsumexp(turned, axis=0), cysoftmax.logsumexp(x))


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


@pytest.mark.parametrize("shape", [(20, 3), (19, 10), (18, 33), (4, 131), (2, 1027), (2, 70_000)])
def test_in_place_or_not_gives_the_same_bits(shape, half, isa):
    x, labels = cast(some_logits(shape), half), some_labels(shape[0], shape[1])
    calls = {
        "softmax": cysoftmax.softmax,
        "log_softmax": cysoftmax.log_softmax,
        "grad": lambda x, **out: cysoftmax.cross_entropy_grad(x, labels, **out),
        "with_grad": lambda x, **out: cysoftmax.cross_entropy_with_grad(x, labels, **out).grad,
        "vjp": lambda x, **out: cysoftmax.softmax_vjp(x, np.flip(x, 1).copy(), **out),
    }
    for name, call in calls.items():
        want = call(x)
        assert want.dtype == half
        for out in x.copy(), np.asfortranarray(np.zeros_like(x)), every_other(x):
            assert call(x, out=out) is out
            assert_same_bits(out, want, name)
        for given in x.copy(), np.asfortranarray(x), every_other(x):
            call(given, out=given)
            assert_same_bits(given, want, name)
    out = np.zeros(shape[0], half)
    cysoftmax.logsumexp(x, out=out)
    assert_same_bits(out, cysoftmax.logsumexp(x))
    pair = np.zeros_like(x), x.copy()
    want = cysoftmax.cross_entropy_grad_hess(x, labels)
    got = cysoftmax.cross_entropy_grad_hess(pair[1], labels, out=pair)
    assert_same_bits(got.grad, want.grad)
    assert_same_bits(got.hess, want.hess)


def test_results_have_the_dtype_and_layout_of_the_logits(half):
    x = np.asfortranarray(cast(some_logits((20, 5)), half))
    for name, result in every_function(x).items():
        if "mean" in name and "loss" in name:
            assert type(result) is float, name
        elif "argmax" in name:
            assert result.dtype == np.intp, name
        else:
            assert result.dtype == half, name
            assert result.ndim == 1 or result.flags.f_contiguous, name


def test_a_row_alone_has_the_bits_it_has_in_a_batch(half, isa):
    for shape in (20, 3), (19, 10), (18, 33), (4, 131):
        x, labels = cast(some_logits(shape), half), some_labels(shape[0], shape[1])
        loss, grad = cysoftmax.cross_entropy_with_grad(x, labels, reduction="none")
        for i in range(0, shape[0], 3):
            row = cysoftmax.cross_entropy_with_grad(x[i], labels[i], reduction="none")
            assert_same_bits(row.loss, loss[i])
            assert_same_bits(row.grad, grad[i])
            assert_same_bits(cysoftmax.softmax(x[i]), cysoftmax.softmax(x)[i])


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
            assert got.dtype == half
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


def test_sums_beyond_the_largest_number_are_inf(isa):
    x = np.full((20, 5), 65504, np.float16)
    x[:, 1:] = -65504
    assert_same_bits(cysoftmax.logsumexp(x), np.full(20, 65504, np.float16))
    loss = cysoftmax.cross_entropy(x, np.ones(20, int), reduction="none")
    assert (loss == np.inf).all()
    assert cysoftmax.cross_entropy(x, np.ones(20, int)) == 2 * 65504


def test_a_distribution_may_be_of_float16(isa):
    x, masses = some_logits((20, 7)).astype(np.float16), some_masses((20, 7))
    want = cysoftmax.cross_entropy_with_grad(x, masses)
    got = cysoftmax.cross_entropy_with_grad(x, masses.astype(np.float16))
    assert got.loss == want.loss
    assert_same_bits(got.grad, want.grad)


def test_all_targets_give_the_same_bits(half, isa):
    for shape in (20, 7), (18, 33), (4, 130):
        x, labels = cast(some_logits(shape), half), some_labels(shape[0], shape[1])
        options = some_options(shape)
        matrix = one_hot(labels, shape[1], bool)
        options["where"] |= matrix
        want = cysoftmax.cross_entropy_with_grad(x, labels, **options)
        for target in matrix, matrix.astype(np.float32), sparse.csr_array(matrix):
            got = cysoftmax.cross_entropy_with_grad(x, target, **options)
            assert got.loss == want.loss
            assert_same_bits(got.grad, want.grad)


def test_a_label_out_of_range_leaves_out_as_it_was(half):
    x, out = np.zeros((20, 5), half), np.full((20, 5), 7, half)
    with pytest.raises(IndexError, match=r"^target must lie in \[0, 5\); got 5 at index \(19,\)"):
        cysoftmax.cross_entropy_grad(x, [0] * 19 + [5], out=out)
    assert (out == 7).all()


def test_no_rows_and_no_classes_are_accepted(half):
    assert cysoftmax.softmax(np.empty((0, 4), half)).dtype == half
    assert cysoftmax.softmax(np.empty((4, 0), half)).shape == (4, 0)
    lse = cysoftmax.logsumexp(np.empty((4, 0), half))
    assert_same_bits(lse, np.full(4, -np.inf, half))
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
