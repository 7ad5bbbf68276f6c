"""The options leave the floating-point environment alone, and do not depend on it."""

import warnings
from functools import partial

import numpy as np
import pytest
from cases import REAL, assert_same_bits, one_hot, some_options, some_scale
from scipy import sparse
from test_special_values import environment  # noqa: F401

import cysoftmax

HALF = [*REAL, np.float16]


def calls(dtype):
    """Calls with logits that make every kind of exception, and with options, by name."""
    big, small = np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal
    rows = {
        "nan": [0, np.nan, 1, 2],
        "inf": [0, np.inf, 1, np.inf],
        "minus inf": [-np.inf] * 4,
        "largest": [big, -big, big, 0],
        "underflow": [0, -100, -103, -1000] if dtype != np.float64 else [0, -740, -743, -7400],
        "denormal": [small, 5 * small, 0, -small],
        "plain": [0.1, 0.2, 0.3, -0.7],
    }
    made = {}
    for (name, row), n_classes in ((r, n) for r in rows.items() for n in (4, 40)):
        x = np.full((20, n_classes), -np.inf, dtype)
        x[:, :4] = row
        options = some_options(x.shape)
        labels = np.resize([0, 1], 20)
        matrix = 0.3 * one_hot(labels, n_classes)
        some = {
            "all": options | {"scale": some_scale(x.shape)},
            "weights": {"class_weight": np.full(n_classes, 0.1), "sample_weight": 1e-300},
            "temperature": {"temperature": 1e-3},
            "tiny temperature": {"temperature": 1e-300},
            "huge temperature": {"temperature": 1e300, "z_loss": 1e-300},
            "z_loss": {"z_loss": 1e300},
            "smoothing": {"label_smoothing": 1e-300},
        }
        for (option, given), target in (
            (o, t) for o in some.items() for t in (labels, matrix, sparse.csr_array(matrix))
        ):
            kind = type(target).__name__ + str(target.ndim)
            for reduction in "mean", "none":
                made[name, n_classes, option, kind, reduction] = partial(
                    cysoftmax.cross_entropy_with_grad, x, target, reduction=reduction, **given
                )
            made[name, n_classes, kind, "hess"] = partial(
                cysoftmax.cross_entropy_grad_hess,
                x,
                target,
                class_weight=options["class_weight"],
                sample_weight=options["sample_weight"],
            )
        for temperature in 0.7, 1e-300, 1e300:
            more = {"where": options["where"], "temperature": temperature}
            for function in cysoftmax.softmax, cysoftmax.log_softmax:
                made[name, n_classes, function.__name__, temperature] = partial(function, x, **more)
            made[name, n_classes, "stats", temperature] = partial(
                cysoftmax.row_stats, x, labels, **more
            )
    return made


@pytest.mark.parametrize("dtype", HALF)
def test_there_are_no_python_warnings(dtype, isa):
    made = calls(dtype)
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        for call in made.values():
            call()


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("all_set", [False, True])
def test_no_floating_point_flag_is_raised_or_cleared(all_set, dtype, environment, isa):  # noqa: F811
    mode, _ = environment.get()
    before = environment.all_flags if all_set else 0
    changed = {}
    with np.errstate(all="ignore"):
        for name, call in calls(dtype).items():
            environment.set(mode, before)
            call()
            after = environment.get()
            if after != (mode, before):
                changed[name] = hex(after[1])
    environment.set(mode, 0)
    assert not changed


@pytest.mark.parametrize("dtype", HALF)
def test_nothing_depends_on_a_mode_that_flushes_denormals(dtype, environment, isa):  # noqa: F811
    mode, flags = environment.get()
    for name, call in calls(dtype).items():
        with np.errstate(all="ignore"):
            want = call()
            environment.set(mode | environment.flush, flags)
            got = call()
            environment.set(mode, flags)
        want, got = (r if isinstance(r, tuple) else (r,) for r in (want, got))
        for a, b in zip(got, want, strict=True):
            assert_same_bits(a, b, str(name))


def test_labels_that_are_checked_beforehand_leave_the_flags_alone(environment):  # noqa: F811
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
