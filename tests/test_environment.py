"""The floating-point environment is left alone, nothing depends on it, and nothing warns."""

import warnings

import numpy as np
import pytest
from calls import BY_NAME, inputs, over_calls
from cases import REAL, assert_same_results, dtype_of, one_hot, some_logits
from scipy import sparse

import cysoftmax

# Extreme values, each of one option or two.
EXTREME = {
    "weights": {"class_weight": 0.1, "sample_weight": 1e-300},
    "temperature": {"temperature": 1e-3},
    "tiny temperature": {"temperature": 2.0**-60},
    "huge temperature": {"temperature": 2.0**60, "z_loss": 1e-300},
    "z_loss": {"z_loss": 1e300},
    "smoothing": {"label_smoothing": 1e-300},
}


def rows_of(dtype):
    """Logits that make every kind of exception, by name."""
    big, small = np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal
    far = -740 if dtype == np.float64 else -100
    return {
        "nan": [0, np.nan, 1, 2],
        "inf": [0, np.inf, 1, np.inf],
        "minus inf": [-np.inf] * 4,
        "masked": [0, -np.inf, 1, -np.inf],
        "largest": [big, -big, big, 0],
        "overflow": [-big, big, -big, -big],
        "underflow": [0, far, far - 3, 10 * far],
        "denormal": [small, 5 * small, 0, -small],
        "plain": [0.1, 0.2, 0.3, -0.7],
    }


def prepared(name, dtype, options):
    """Yield a name, a call and its inputs, for each of those rows and for extreme options."""
    call, dtype = BY_NAME[name], dtype_of(dtype)
    for (kind, row), n_classes in ((r, n) for r in rows_of(dtype).items() for n in (4, 40)):
        x = np.full((20, n_classes), -np.inf, dtype)
        x[:, :4] = row
        given = inputs(call, x.shape, dtype, options) | {"logits": x}
        labels = np.resize([0, kind != "underflow"], 20)
        matrix = one_hot(labels, n_classes)
        if call.second:
            given["second"] = {
                "labels": labels,
                "one-hot": matrix.astype(bool),
                "distribution": 0.3 * matrix,
                "CSR": sparse.csr_array(0.3 * matrix),
                "vector": np.tile(np.resize(x[0, :4], n_classes), (20, 1)),
            }[call.second]
        some = [("", {})]
        if not options:
            some += EXTREME.items()
        for extreme, values in some:
            if values.keys() <= set(call.takes):
                more = {
                    key: np.full(n_classes, value) if key == "class_weight" else value
                    for key, value in values.items()
                }
                for reduction in call.reductions:
                    words = f"{kind} {n_classes} {extreme} {reduction}"
                    yield words, call, given | more | call.keywords(reduction)


SOME = [("float32", ()), ("float32", "all"), ("float64", ()), ("float64", "all"), ("float16", ())]
every_call = over_calls(lambda call: call.second != "one-hot", SOME)


@every_call
def test_there_are_no_python_warnings(name, dtype, options, isa):
    some = list(prepared(name, dtype, options))
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        for _, call, given in some:
            call(given)


@every_call
def test_mode_and_flags_are_left_as_they_were(name, dtype, options, environment, isa):
    """No floating-point flag is raised, not even inexact, and none is cleared."""
    mode, flags = environment.get()
    changed = {}
    for words, call, given in prepared(name, dtype, options):
        for before in (
            (mode, 0),
            (mode, environment.all_flags),
            (mode | environment.flush, flags),
            (mode | environment.upward, flags),
        ):
            with np.errstate(all="ignore"):
                environment.set(*before)
                call(given)
                after = environment.get()
                environment.set(mode, 0)
            if after != before:
                changed[words] = before, after
    assert not changed


@every_call
def test_nothing_depends_on_a_mode_that_flushes_denormals(name, dtype, options, environment, isa):
    mode, flags = environment.get()
    for words, call, given in prepared(name, dtype, options):
        with np.errstate(all="ignore"):
            want = call(given)
            environment.set(mode | environment.flush, flags)
            got = call(given)
            environment.set(mode, flags)
        assert_same_results(got, want, words)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("scale", [1e-300, 1e300, 0.0, np.inf, np.nan])
def test_there_are_no_python_warnings_of_scale(scale, dtype):
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        for reduction in "mean", "sum", "none":
            for target in np.zeros(20, int), 1e-300 * one_hot(np.zeros(20, int), 4):
                cysoftmax.cross_entropy_grad(
                    some_logits((20, 4), dtype), target, reduction=reduction, scale=scale
                )


def test_there_are_no_python_warnings_of_nothing_or_integers():
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        for reduction in "mean", "sum", "none":
            for shape in (0, 4), (3, 4):
                x = np.full(shape, np.nan)
                cysoftmax.cross_entropy_with_grad(x, np.zeros(shape), reduction=reduction)
        cysoftmax.logsumexp(np.empty((3, 0)))
        cysoftmax.softmax(np.array([2**63, 2**64 - 1], np.uint64))


def test_the_environment_of_these_tests_can_be_set(environment):
    mode, _ = environment.get()
    small = np.full(3, np.finfo(np.float64).tiny)
    environment.set(mode | environment.flush, environment.all_flags)
    flushed = float(small[0]) / 4
    seen = environment.get()
    environment.set(mode, 0)
    assert seen == (mode | environment.flush, environment.all_flags)
    assert flushed == 0
    assert float(small[0]) / 4 > 0
    assert environment.get()[0] == mode


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("flushing", [False, True])
def test_all_threads_keep_denormals(flushing, dtype, environment, isa):
    x = np.zeros((20_000, 10), dtype)
    x[:, 1:] = {np.float32: -95, np.float64: -735}[dtype]
    mode, flags = environment.get()
    want = cysoftmax.softmax(x[:1])
    assert (want > 0).all()
    for n_threads in 1, 2, 3:
        environment.set(mode | (environment.flush if flushing else 0), flags)
        got = cysoftmax.softmax(x, n_threads=n_threads)
        environment.set(mode, flags)
        np.testing.assert_array_equal(got, np.broadcast_to(want, x.shape))
    long = np.zeros((1, 100_000), dtype)
    long[0, 1:] = x[0, 1]
    want = cysoftmax.cross_entropy_grad(long, [0], n_threads=1)
    assert (want != 0).all()
    environment.set(mode | (environment.flush if flushing else 0), flags)
    got = cysoftmax.cross_entropy_grad(long, [0], n_threads=2)
    environment.set(mode, flags)
    np.testing.assert_array_equal(got, want)


def test_labels_that_are_checked_beforehand_leave_the_flags_alone(environment):
    mode, _ = environment.get()
    x, out = np.zeros((4, 3), np.float32), np.empty((4, 3), np.float32)
    for options in {"temperature": 3.0}, {"class_weight": [0.1, 0.2, 0.3]}:
        environment.set(mode, 0)
        cysoftmax.cross_entropy_grad(x, [0, 1, 2, 0], out=out, **options)
        assert environment.get() == (mode, 0)


def test_a_vector_out_of_range_of_the_dtype_gives_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cysoftmax.softmax_vjp(np.float32([0.5, 0.5]), [1e300, 0])
