"""The options of the loss: one formula, whatever the target is, in every combination."""

import itertools
import math
import sys
import threading

import numpy as np
import pytest
import reference
from cases import (
    LOSSES,
    REAL,
    REDUCTIONS,
    assert_same_bits,
    assert_same_results,
    many_rows,
    misaligned,
    one_hot,
    read_only,
    results,
    some_labels,
    some_logits,
    some_mask,
    some_masses,
    some_options,
    some_scale,
    strided,
)
from scipy import sparse

import cysoftmax
from cysoftmax import _core, cross_entropy, cross_entropy_grad, cross_entropy_with_grad

BOUND = 6  # ulp of the sum of the magnitudes of what is added up
FUSED_BOUND, SCALAR_BOUND = 2, 3  # of softmax, with and without fused multiply-add
LONG = np.longdouble

# ---------------------------------------------------------------- every combination

# Rows in sixteens and not, whole and broken vecs, more than one block of classes.
SHAPES = [(19, 10, -1), (19, 10, 0), (5, 33, -1), (5, 130, -1), (5, 130, 0), (5, 1025, -1)]
SHAPES_FOR_EACH_ISA = [(19, 10, -1), (5, 33, -1)]
IGNORED = -100


def combinations(n_rows, n_classes):
    """Yield each combination of the options that change the rows, and what comes with it."""
    full = some_options((n_rows, n_classes))
    labels = some_labels(n_rows, n_classes)
    labels[2] = n_classes - 1
    full["where"][np.arange(n_rows - 1), labels[:-1]] = True
    for smoothing, z_loss, temperature, ignoring, *given in itertools.product(
        (0, 0.1, 1), (0, 1e-2), (1, 0.7, 3), (False, True), *[(False, True)] * 3
    ):
        names = itertools.compress(("class_weight", "sample_weight", "where"), given)
        options = {name: full[name] for name in names}
        options |= {"label_smoothing": smoothing, "z_loss": z_loss, "temperature": temperature}
        y = labels.copy()
        if ignoring:
            y[0] = IGNORED
        yield y, {"ignore_index": IGNORED} if ignoring else {}, options


def walk(n_rows, n_classes, axis, dtype):
    """Compare all targets and functions in every combination; return the largest errors.

    These are of losses and gradients, in ulp of the sum of the magnitudes of their terms.
    """
    last = some_logits((n_rows, n_classes), dtype)
    last[2, -1] += 30  # a confident row that is right
    last[3, 0] += 30
    x = np.ascontiguousarray(np.moveaxis(last, -1, axis))
    scales = {"one": 1.0, "rows": some_scale(last.shape)}
    worst_loss = worst_grad = 0
    for y, ignore, options in combinations(n_rows, n_classes):
        matrix = one_hot(y, n_classes, bool)
        rows = reference.cross_entropy(last, matrix, **options)
        turned = np.moveaxis(matrix, -1, axis)
        targets = [turned, turned.astype(np.int8, order="C"), turned.astype(dtype, order="F")]
        if axis == -1:
            targets.append(sparse.csr_array(matrix.astype(float)))
        if "where" in options:
            options = options | {"where": np.moveaxis(options["where"], -1, axis)}
        for reduction in REDUCTIONS:
            given = options | {"axis": axis, "reduction": reduction}
            for scale in scales.values():
                loss, grad = cross_entropy_with_grad(x, y, scale=scale, **given, **ignore)
                exact_loss, exact_grad, size = reference.reduced(rows, reduction, scale)
                error = np.abs(np.asarray(loss, LONG) - exact_loss)
                error = np.max(error / reference.ulp(exact_loss, dtype))
                worst_loss = max(worst_loss, error)
                error = np.abs(np.moveaxis(grad, axis, -1) - exact_grad)
                worst_grad = max(worst_grad, np.max(error / reference.ulp(size, dtype)))
                assert (error[size == 0] == 0).all()

                want_loss, want_grad = np.asarray(loss).tobytes(), grad.tobytes()
                for target in (y, *targets):
                    more = given | (ignore if target is y else {})
                    if target is not y:
                        loss, grad = cross_entropy_with_grad(x, target, scale=scale, **more)
                        assert np.asarray(loss).tobytes() == want_loss, more
                        assert grad.tobytes() == want_grad, more
                    grad = cross_entropy_grad(x, target, scale=scale, **more)
                    assert grad.tobytes() == want_grad, more
            for target in (y, *targets):
                more = given | (ignore if target is y else {})
                loss = cross_entropy(x, target, **more)
                assert np.asarray(loss).tobytes() == want_loss, more
    return float(worst_loss), float(worst_grad)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", SHAPES)
def test_all_targets_give_the_same_bits_and_the_formula_in_every_combination(shape, dtype):
    worst = walk(*shape, dtype)
    assert max(worst) <= BOUND, worst


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", SHAPES_FOR_EACH_ISA)
def test_every_instruction_set_follows_the_formula_in_every_combination(shape, dtype, isa):
    if isa == _core.available_isas()[0]:
        pytest.skip("the one of the test above")
    worst = walk(*shape, dtype)
    assert max(worst) <= BOUND, worst


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("n_classes", [3, 40, 1100])
def test_a_distribution_gets_the_formula_with_all_options(n_classes, axis, dtype, isa):
    x = some_logits((19, n_classes), dtype)
    options = some_options(x.shape)
    target = some_masses(x.shape) * options["where"]
    scale = some_scale(x.shape)
    rows = reference.cross_entropy(x, target, **options)
    options["where"] = np.moveaxis(options["where"], -1, axis)
    turned, turned_target = (np.moveaxis(a, -1, axis).copy() for a in (x, target))
    for reduction in REDUCTIONS:
        got = results(turned, turned_target, axis=axis, reduction=reduction, scale=scale, **options)
        loss, grad, size = reference.reduced(rows, reduction, scale)
        assert reference.error_in_ulp(got["loss"], loss, dtype) <= BOUND
        error = np.abs(np.moveaxis(got["grad"], axis, -1) - grad) / reference.ulp(size, dtype)
        assert error.max() <= BOUND
        assert_same_bits(got["loss alone"], got["loss"])
        assert_same_bits(got["grad alone"], got["grad"])
        if axis == -1:
            of_sparse = results(
                x, sparse.csr_array(target), reduction=reduction, scale=scale, **options
            )
            assert_same_results(of_sparse, got)


def test_the_gradient_is_the_slope_of_the_loss_with_all_options_at_once():
    x = some_logits((4, 6))
    options = some_options(x.shape)
    options["where"][0] = [True, True, False, True, True, True]
    target = some_masses(x.shape, 1) * options["where"]
    labels = [0, 5, 3, -100]
    for given, more in (target, {}), (labels, {"ignore_index": -100}):
        for reduction in "mean", "sum":
            chosen = options | {"reduction": reduction} | more
            chosen["where"] = chosen["where"] | one_hot(labels, 6, bool)
            grad = cross_entropy_grad(x, given, scale=1.7, **chosen)
            slope = np.zeros_like(x)
            for place in np.ndindex(x.shape):
                step = np.zeros_like(x)
                step[place] = 1e-5
                above = cross_entropy(x + step, given, **chosen)
                slope[place] = 1.7 * (above - cross_entropy(x - step, given, **chosen)) / 2e-5
            assert np.abs(grad).max() > 0.1
            np.testing.assert_allclose(grad, slope, rtol=1e-7, atol=1e-9)


# ---------------------------------------------------------------- options one by one, by hand

# p = (1/8, 1/4, 5/8)
X = np.log(np.array([[1.0, 2, 5]]))
P = np.array([[1 / 8, 1 / 4, 5 / 8]])
MATRIX = np.array([[0, 1, 0]])


@pytest.mark.parametrize(
    ("options", "loss", "grad"),
    [
        ({"class_weight": [5, 2, 7]}, 2 * np.log(4), 2 * (P - MATRIX)),
        ({"sample_weight": [3]}, 3 * np.log(4), 3 * (P - MATRIX)),
        ({"sample_weight": 3}, 3 * np.log(4), 3 * (P - MATRIX)),
        (
            {"label_smoothing": 0.75},
            np.log(8) / 4 + np.log(4) / 2 + np.log(8 / 5) / 4,
            P - [1 / 4, 1 / 2, 1 / 4],
        ),
        (
            {"label_smoothing": 0.75, "class_weight": [4, 1, 0]},
            np.log(8) + np.log(4) / 2,
            1.5 * P - [1, 1 / 2, 0],
        ),
        ({"z_loss": 0.5}, np.log(4) + np.log(8) ** 2 / 2, (1 + np.log(8)) * P - MATRIX),
        ({"temperature": 0.5}, np.log(30 / 4), 2 * (np.array([[1, 4, 25]]) / 30 - MATRIX)),
        ({"where": [True, True, False]}, np.log(3 / 2), [[1 / 3, -1 / 3, 0]]),
        (
            {"where": [True, True, False], "label_smoothing": 0.5},
            0.75 * np.log(3 / 2) + 0.25 * np.log(3),
            [[1 / 3 - 1 / 4, 2 / 3 - 3 / 4, 0]],
        ),
        ({"scale": [-2]}, np.log(4), -2 * (P - MATRIX)),
    ],
)
def test_one_row_by_hand(options, loss, grad, isa):
    for target in [1], MATRIX, sparse.csr_array(MATRIX):
        got = results(X, target, reduction="sum", **options)
        assert got["loss"] == pytest.approx(loss, rel=1e-15)
        np.testing.assert_allclose(got["grad"], grad, rtol=1e-14, atol=1e-16)


def test_the_mean_divides_by_the_weights_of_unsmoothed_targets(isa):
    x, labels = np.repeat(X, 3, axis=0), [1, 1, 2]
    for target in labels, one_hot(labels, 3), sparse.csr_array(one_hot(labels, 3)):
        options = {"class_weight": [9, 2, 5], "sample_weight": [1, 3, 0]}
        loss, grad = cross_entropy_with_grad(x, target, **options)
        assert loss == pytest.approx(np.log(4), rel=1e-15)
        np.testing.assert_allclose(
            grad, np.outer([2 / 8, 6 / 8, 0], [1 / 8, -3 / 4, 5 / 8]), rtol=1e-14
        )
        total = cross_entropy(x, target, label_smoothing=0.3, reduction="sum", **options)
        mean = cross_entropy(x, target, label_smoothing=0.3, **options)
        assert mean == pytest.approx(total / 8, rel=1e-15)


def test_options_that_say_nothing_change_no_bit(isa):
    neutral = {
        "class_weight": np.ones(40),
        "sample_weight": np.ones(20),
        "ignore_index": -1,
        "label_smoothing": 0,
        "z_loss": 0,
        "temperature": 1,
        "where": np.ones((20, 40), bool),
    }
    for dtype in REAL:
        for n_classes in 7, 40:
            x, labels = some_logits((20, n_classes), dtype), some_labels(20, n_classes)
            for reduction in REDUCTIONS:
                want = results(x, labels, reduction=reduction)
                for name, value in neutral.items():
                    if np.ndim(value):
                        value = value[..., :n_classes] if name != "sample_weight" else value
                    got = results(x, labels, reduction=reduction, **{name: value})
                    assert_same_results(got, want, name)
                got = results(x, labels, reduction=reduction, scale=np.ones(20))
                assert_same_results(got, want, "scale")


# ---------------------------------------------------------------- the same bits everywhere

BIT_SHAPES = [(37, 3), (37, 10), (18, 33), (6, 130), (5, 1025)]


def problem(shape, dtype, kind="labels", seed=0):
    """Logits, a target, and all options at once."""
    x, options = some_logits(shape, dtype, seed), some_options(shape, seed)
    if kind == "labels":
        target = some_labels(shape[:-1], shape[-1], seed)
        options["where"] |= one_hot(target, shape[-1], bool)
        if many_rows(shape):
            options["ignore_index"] = int(target.reshape(-1)[0])
            options["where"].reshape(-1, shape[-1])[-1] = False
    else:
        target = some_masses(shape, seed) * options["where"]
        target = target if kind == "masses" else sparse.csr_array(target)
    return x, target, options | {"scale": some_scale(shape, seed)}


KINDS = ["labels", "masses", "sparse"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", [(20_000, 10), (1500, 130), (40, 5000), (2, 70_000)])
def test_any_number_of_threads_gives_the_same_bits(shape, dtype, kind):
    x, target, options = problem(shape, dtype, kind)
    for reduction in REDUCTIONS if shape[0] > 100 else ["none"]:
        want = results(x, target, reduction=reduction, n_threads=1, **options)
        for n_threads in 2, 3, 7, None:
            got = results(x, target, reduction=reduction, n_threads=n_threads, **options)
            assert_same_results(got, want, n_threads)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", BIT_SHAPES)
def test_a_row_alone_has_the_bits_it_has_in_a_batch(shape, dtype, kind, isa):
    x, target, options = problem(shape, dtype, kind)
    want = results(x, target, reduction="none", **options)
    for i in range(0, len(x), 3):
        alone = options | {name: options[name][i] for name in ("sample_weight", "where", "scale")}
        row = target[[i]].toarray()[0] if kind == "sparse" else target[i]
        got = results(x[i], row, reduction="none", **alone)
        for name in want:
            assert_same_bits(got[name], want[name][i], name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", BIT_SHAPES)
def test_in_place_or_not_gives_the_same_bits(shape, dtype, kind, isa):
    x, target, options = problem(shape, dtype, kind)
    for reduction in REDUCTIONS:
        want = results(x, target, reduction=reduction, **options)
        for function in cross_entropy_grad, cross_entropy_with_grad:
            out = np.full_like(x, np.nan)
            for given, into in (x, out), (x.copy(), "the logits"):
                into = given if isinstance(into, str) else into
                got = function(given, target, reduction=reduction, out=into, **options)
                if function is cross_entropy_with_grad:
                    assert_same_bits(got.loss, want["loss"])
                    got = got.grad
                assert got is into
                assert_same_bits(got, want["grad"])
    out = np.full(shape[0], np.nan, dtype)
    loss_options = {name: value for name, value in options.items() if name != "scale"}
    assert cross_entropy(x, target, reduction="none", out=out, **loss_options) is out
    assert_same_bits(out, want["loss"])


LAYOUTS = {
    "fortran": np.asfortranarray,
    "every other": lambda a: strided(a, 2),
    "reversed": lambda a: np.flip(np.flip(a).copy()),
    "misaligned": misaligned,
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "read-only": read_only,
}


@pytest.mark.parametrize("kind", ["labels", "masses"])
@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_of_any_array_gives_the_same_bits(layout, dtype, kind, isa):
    laid_out = LAYOUTS[layout]
    for shape in (19, 10), (5, 130):
        x, target, options = problem(shape, dtype, kind)
        want = results(x, target, reduction="mean", **options)
        names = [name for name, value in options.items() if isinstance(value, np.ndarray)]
        all_of_them = {name: laid_out(options[name]) for name in names}
        for logits, given, more in [
            (laid_out(x), target, {}),
            (x, laid_out(target), {}),
            (laid_out(x), laid_out(target), all_of_them),
            *((x, target, {name: all_of_them[name]}) for name in names),
        ]:
            assert_same_results(results(logits, given, **options | more), want, list(more))


@pytest.mark.parametrize("kind", ["labels", "masses"])
@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", [*BIT_SHAPES, (3, 4, 5)])
def test_any_axis_gives_the_same_bits(shape, dtype, kind, isa):
    x, target, options = problem(shape, dtype, kind)
    want = results(x, target, reduction="none", **options)
    for axis in range(len(shape) - 1):
        turned = {"where": np.moveaxis(options["where"], -1, axis)}
        other = np.moveaxis(target, -1, axis) if kind == "masses" else target
        moved = np.moveaxis(x, -1, axis)
        for logits in moved, moved.copy():
            got = results(logits, other, reduction="none", axis=axis, **options | turned)
            for name in want:
                back = np.moveaxis(got[name], axis, -1) if "grad" in name else got[name]
                assert_same_bits(back, want[name], name)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", BIT_SHAPES)
def test_loss_and_gradient_together_are_what_they_are_alone(shape, dtype, isa):
    for kind in KINDS:
        x, target, options = problem(shape, dtype, kind)
        for reduction in REDUCTIONS:
            got = results(x, target, reduction=reduction, **options)
            assert_same_bits(got["loss alone"], got["loss"])
            assert_same_bits(got["grad alone"], got["grad"])


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_threads", [1, 2, 7])
def test_long_rows_get_the_formula_with_all_options(n_threads, dtype, isa):
    x, labels, options = problem((2, 70_000), dtype)
    scale = options.pop("scale")
    matrix = one_hot(labels, 70_000)
    got = results(x, labels, reduction="none", scale=scale, n_threads=n_threads, **options)
    for target in matrix, sparse.csr_array(matrix):
        assert_same_results(
            results(x, target, reduction="none", scale=scale, n_threads=n_threads, **options), got
        )
    rows = reference.cross_entropy(x, matrix, **options)
    loss, grad, size = reference.reduced(rows, "none", scale)
    assert reference.error_in_ulp(got["loss"], loss) <= BOUND
    assert np.max(np.abs(got["grad"] - grad) / reference.ulp(size, dtype)) <= BOUND


@pytest.fixture
def fused_isas():
    """The names of the instruction sets that multiply and add with one rounding."""
    before = _core.active_isa()
    yield [name for name in _core.available_isas() if name != "scalar"]
    _core.use_isa(before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float16, *REAL])
@pytest.mark.parametrize("shape", [*BIT_SHAPES, (2, 40_000)])
def test_all_fused_instruction_sets_give_the_same_bits(shape, dtype, kind, fused_isas):
    x, target, options = problem(shape, dtype, kind)
    softmax_options = {name: options[name] for name in ("where", "temperature")}
    weights = {name: options[name] for name in ("class_weight", "sample_weight")}
    want = None
    for name in fused_isas:
        _core.use_isa(name)
        got = results(x, target, reduction="none", **options)
        got["softmax"] = cysoftmax.softmax(x, **softmax_options)
        got["log_softmax"] = cysoftmax.log_softmax(x, **softmax_options)
        if "ignore_index" not in options:
            got |= cysoftmax.cross_entropy_grad_hess(x, target, **weights)._asdict()
            got |= cysoftmax.row_stats(x, target, **softmax_options)._asdict()
        want = want or got
        assert_same_results(got, want, name)


# ---------------------------------------------------------------- rows that are ignored

IGNORE_SHAPES = [(40, 5), (40, 50), (6, 1100), (3, 40_000)]


def ways_to_ignore(shape, some):
    """Yield targets and options with which the rows `some` are ignored, and those without."""
    labels = some_labels(shape[0], shape[1])
    ignored = labels.copy()
    ignored[some] = -7
    yield ignored, {"ignore_index": -7}
    matrix = one_hot(ignored, shape[1])
    yield matrix, {}
    yield sparse.csr_array(matrix), {}
    weight = np.ones(shape[0])
    weight[some] = 0
    where = np.ones(shape, bool)
    where[some] = False
    for target in labels, one_hot(labels, shape[1]), sparse.csr_array(one_hot(labels, shape[1])):
        yield target, {"sample_weight": weight}
        yield target, {"where": where}


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", IGNORE_SHAPES)
@pytest.mark.parametrize("z_loss", [0, 0.1])
def test_ignored_rows_leave_no_trace_of_their_logits(z_loss, shape, dtype, isa):
    some = [0, 2] if shape[0] < 10 else [0, 2, 3, 17, 39]
    others = np.delete(np.arange(shape[0]), some)
    clean = some_logits(shape, dtype)
    more = {"z_loss": z_loss, "label_smoothing": z_loss}
    wants = {
        mask: results(clean[others], some_labels(*shape)[others], where=mask, **more)
        for mask in (None, True)
    }
    for target, options in ways_to_ignore(shape, some):
        want = wants[True if "where" in options else None]
        for junk in np.nan, np.inf, -np.inf, np.finfo(dtype).max:
            if shape[1] > 2000 and junk != np.inf:
                continue
            x = clean.copy()
            x[some] = junk
            got = results(x, target, **options, **more)
            for name in "grad", "grad alone":
                assert_same_bits(got[name][some], np.zeros((len(some), shape[1]), dtype), name)
                got[name] = got[name][others]
            assert_same_results(got, want, f"{list(options)} {junk}")
        loss = cross_entropy(x, target, reduction="none", **options, **more)
        assert_same_bits(loss[some], np.zeros(len(some), dtype))
        if shape[1] > 1000:
            continue
        out = x.copy()  # in place and class-major: zeros overwrite what was there
        cross_entropy_grad(out, target, out=out, **options, **more)
        assert_same_bits(out[some], np.zeros((len(some), shape[1]), dtype))
        assert_same_bits(out[others], want["grad"])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64])
@pytest.mark.parametrize("n_classes", [5, 60])
def test_ignore_index_may_be_a_class(n_classes, dtype, isa):
    x, labels = some_logits((30, n_classes)), some_labels(30, n_classes).astype(dtype)
    labels[4] = 2
    kept = labels != 2
    loss, grad = cross_entropy_with_grad(x, labels, ignore_index=2)
    want = cross_entropy_with_grad(x[kept], labels[kept])
    assert loss == want.loss
    assert_same_bits(grad[kept], want.grad)
    assert_same_bits(grad[~kept], np.zeros((np.sum(~kept), n_classes)))


@pytest.mark.parametrize(
    ("dtype", "label", "ignore_index"),
    [
        (np.uint8, 156, -100),
        (np.uint8, 44, 300),
        (np.int8, -1, 255),
        (np.uint16, 2**16 - 1, -1),
        (np.uint32, 2**32 - 1, -1),
        (np.uint64, 2**64 - 1, -1),
        (np.int64, -1, 2**64 - 1),
        (np.int32, 5, 2**32 + 5),
        (np.int64, 5, 2**64 + 5),
        (np.uint64, 5, 2**70),
        (np.int64, 5, -(2**70)),
    ],
)
def test_no_ignore_index_wraps_into_the_labels(dtype, label, ignore_index, isa):
    x = some_logits((20, 4))
    labels = np.zeros(20, dtype)
    want = cross_entropy(x, labels)
    assert cross_entropy(x, labels, ignore_index=ignore_index) == want
    labels[3] = label
    for function in LOSSES:
        with pytest.raises(IndexError, match=rf"^target must lie in \[0, 4\).*; got {label} at"):
            function(x, labels, ignore_index=ignore_index)
    if np.iinfo(dtype).min <= ignore_index <= np.iinfo(dtype).max:
        pytest.fail("this pair cannot show anything")


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint64])
def test_the_ends_of_a_dtype_may_be_ignored(dtype, isa):
    x = some_logits((20, 4))
    for end in {np.iinfo(dtype).min, np.iinfo(dtype).max} - {0}:
        labels = np.zeros(20, dtype)
        labels[3] = end
        want = cross_entropy(np.delete(x, 3, 0), np.zeros(19, int))
        assert cross_entropy(x, labels, ignore_index=end) == want
        assert cross_entropy(x[3], labels[3], ignore_index=end, reduction="sum") == 0


def test_a_label_that_is_not_ignored_is_still_checked(isa):
    x = some_logits((20, 4))
    labels = np.zeros(20, int)
    labels[[2, 5]] = -100, -101
    weight, where = np.ones(20), np.ones((20, 4), bool)
    weight[5], where[5] = 0, False
    for function in LOSSES:
        for more in {}, {"sample_weight": weight}, {"where": where}:
            with pytest.raises(IndexError, match=r"^target must lie in \[0, 4\).* got -101 .*\(5,"):
                function(x, labels, ignore_index=-100, **more)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", [(3, 4), (20, 4), (20, 60), (2, 20_000)])
def test_the_mean_over_ignored_rows_is_nan_with_gradient_zero(shape, dtype, isa):
    x = np.full(shape, np.nan, dtype)
    for target, options in ways_to_ignore(shape, slice(None)):
        for more in {}, {"label_smoothing": 0.1, "z_loss": 0.1, "temperature": 2}:
            got = results(x, target, **options, **more)
            assert type(got["loss"]) is float
            assert math.isnan(got["loss"])
            assert math.isnan(got["loss alone"])
            assert_same_bits(got["grad"], np.zeros_like(x))
            assert_same_bits(got["grad alone"], np.zeros_like(x))
            got = results(x, target, reduction="sum", **options, **more)
            assert got["loss"] == got["loss alone"] == 0
            assert_same_bits(got["grad"], np.zeros_like(x))


@pytest.mark.parametrize("n_classes", [3, 40, 1100])
def test_the_mean_of_rows_without_weight_is_nan_with_gradient_zero(n_classes, isa):
    x, labels, weight = some_logits((20, n_classes)), np.zeros(20, int), np.ones(n_classes)
    weight[0] = 0
    for target in labels, one_hot(labels, n_classes):
        for more in {}, {"label_smoothing": 0.1}:
            got = results(x, target, class_weight=weight, **more)
            assert math.isnan(got["loss"])
            assert math.isnan(got["loss alone"])
            assert (got["grad"] == 0).all()
            assert_same_bits(got["grad alone"], got["grad"])


def test_no_rows_have_no_mean_with_all_options():
    for shape in (0, 4), (3, 0, 4):
        for kind in "labels", "masses":
            x, target = np.empty(shape), np.empty(shape if kind == "masses" else shape[:-1], int)
            options = {
                "class_weight": np.ones(4),
                "sample_weight": np.empty(shape[:-1]),
                "where": np.empty(shape, bool),
                "label_smoothing": 0.1,
                "z_loss": 0.1,
                "temperature": 2,
                "scale": np.empty(shape[:-1]),
            }
            loss, grad = cross_entropy_with_grad(x, target, **options)
            assert math.isnan(loss)
            assert grad.shape == shape
            assert results(x, target, reduction="sum", **options)["loss"] == 0
            assert results(x, target, reduction="none", **options)["loss"].shape == shape[:-1]
    assert math.isnan(cross_entropy(np.empty((0, 4)), sparse.csr_array((0, 4))))


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize("n_classes", [3, 40, 1100])
@pytest.mark.parametrize("dtype", REAL)
def test_a_class_of_weight_zero_has_loss_and_gradient_zero(dtype, n_classes, isa):
    x, weight = some_logits((20, n_classes), dtype), np.ones(n_classes)
    weight[1] = 0
    labels = np.resize([0, 1, 2], 20)
    x[4, 1] = -np.inf  # 0 times inf is 0
    zero = labels == 1
    got = results(x, labels, class_weight=weight, reduction="none", z_loss=0.1)
    for name, result in got.items():
        assert (result[zero] == 0).all(), name
        assert np.isfinite(result).all(), name
    kept = results(x[~zero], labels[~zero], z_loss=0.1)
    got = results(x, labels, class_weight=weight, z_loss=0.1)
    assert got["loss"] == pytest.approx(kept["loss"], rel=1e-6)
    np.testing.assert_allclose(got["grad"][~zero], kept["grad"], rtol=1e-6)


@pytest.mark.parametrize("n_classes", [3, 40])
def test_a_row_whose_class_has_weight_zero_is_not_ignored(n_classes, isa):
    x, weight = some_logits((20, n_classes)), np.ones(n_classes)
    weight[1] = 0
    x[3, 2] = np.nan
    for target in np.ones(20, int), one_hot(np.ones(20, int), n_classes):
        got = results(x, target, class_weight=weight, reduction="none")
        for name, result in got.items():
            assert np.isnan(result[3]).all(), name
            assert (np.delete(result, 3, 0) == 0).all(), name
    smooth = cross_entropy(x, np.ones(20, int), class_weight=weight, label_smoothing=0.5,
                           reduction="sum", where=~np.isnan(x))  # fmt: skip
    assert smooth > 0


@pytest.mark.parametrize("value", [[1, 2, 3], (1.0, 2.0, 3.0), np.array([1, 2, 3], np.uint8),
                                   np.float32([1, 2, 3]), np.float16([1, 2, 3])])  # fmt: skip
def test_weights_may_be_of_any_real_dtype(value):
    x, labels = some_logits((3, 3)), [0, 2, 1]
    for name in "class_weight", "sample_weight":
        got = results(x, labels, **{name: value})
        assert_same_results(got, results(x, labels, **{name: np.array([1.0, 2, 3])}))
    got = results(x, labels, scale=value)
    assert_same_results(got, results(x, labels, scale=np.array([1.0, 2, 3])))


def test_class_weight_is_rounded_to_the_dtype_of_computation(isa):
    x, labels = some_logits((20, 9), np.float32), some_labels(20, 9)
    weight = np.random.default_rng(0).uniform(0.1, 1, 9)
    for smoothing in 0, 0.1:
        got = results(x, labels, class_weight=weight, label_smoothing=smoothing)
        rounded = weight.astype(np.float32)
        want = results(x, labels, class_weight=rounded, label_smoothing=smoothing)
        assert_same_results(got, want)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("name", ["sample_weight", "scale"])
def test_weights_and_scales_of_rows_are_broadcast(name, axis):
    x = some_logits((3, 4, 5))
    rows = x.shape[:axis] + x.shape[axis + 1 :]
    labels = some_labels(rows, x.shape[axis])
    rng = np.random.default_rng(0)
    for shape in (), (1,), (rows[1],), (rows[0], 1), (1, rows[1]), rows:
        value = rng.uniform(0.1, 2, shape)
        got = results(x, labels, axis=axis, **{name: value})
        want = results(x, labels, axis=axis, **{name: np.broadcast_to(value, rows).copy()})
        assert_same_results(got, want, shape)


@pytest.mark.parametrize("dtype", REAL)
def test_weights_of_rows_and_scale_are_not_rounded_to_float32(dtype, isa):
    x, labels = some_logits((20, 9), dtype), some_labels(20, 9)
    weight = 1 + np.arange(20) / 2**40
    total = cross_entropy(x, labels, sample_weight=weight, reduction="sum")
    rows = cross_entropy(x.astype(np.float64), labels, reduction="none")
    gain = total - cross_entropy(x, labels, reduction="sum")
    assert gain == pytest.approx(np.sum(rows * (weight - 1)), rel=1e-3)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", BIT_SHAPES)
def test_powers_of_two_in_scale_are_exact(shape, dtype, reduction, isa):
    x, target, options = problem(shape, dtype)
    powers = 2.0 ** np.random.default_rng(0).integers(-3, 4, shape[0])
    powers[::3] *= -1
    options["scale"] = 1.0
    plain = results(x, target, reduction=reduction, **options)
    options["scale"] = powers
    got = results(x, target, reduction=reduction, **options)
    assert_same_bits(got["loss"], plain["loss"])
    np.testing.assert_array_equal(got["grad"], plain["grad"] * powers[:, None].astype(dtype))


def test_scale_of_rows_is_that_of_each_row_alone(isa):
    x, labels = some_logits((20, 9), np.float32), some_labels(20, 9)
    scale = some_scale(x.shape)
    got = cross_entropy_grad(x, labels, reduction="sum", scale=scale)
    for i in range(20):
        want = cross_entropy_grad(x[i], labels[i], reduction="sum", scale=scale[i])
        assert_same_bits(got[i], want)


# ---------------------------------------------------------------- smoothing and z_loss


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [1, 3, 40, 1100])
def test_full_smoothing_forgets_the_label(n_classes, dtype, isa):
    x = some_logits((20, n_classes), dtype)
    uniform = reference.cross_entropy(x, np.full(x.shape, LONG(1) / n_classes))
    for labels in some_labels(20, n_classes), np.zeros(20, int):
        loss, grad = cross_entropy_with_grad(x, labels, label_smoothing=1, reduction="none")
        assert reference.error_in_ulp(loss, uniform.loss) <= BOUND
        error = np.abs(grad - uniform.grad) / reference.ulp(uniform.grad_size, dtype)
        assert error.max() <= BOUND


def test_full_smoothing_over_a_masked_label_is_finite(isa):
    x, where = some_logits((20, 5)), np.ones((20, 5), bool)
    where[:, 2] = False
    for target in np.full(20, 2), one_hot(np.full(20, 2), 5):
        loss, grad = cross_entropy_with_grad(x, target, label_smoothing=1, where=where)
        want = cross_entropy_with_grad(np.delete(x, 2, 1), np.zeros(20, int), label_smoothing=1)
        assert loss == pytest.approx(want.loss, rel=1e-15)
        np.testing.assert_allclose(np.delete(grad, 2, 1), want.grad, rtol=1e-13, atol=1e-17)
        assert (grad[:, 2] == 0).all()


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [4, 40, 1100])
def test_one_class_left_has_loss_zero_and_z_loss_beside(n_classes, dtype, isa):
    x, labels = some_logits((20, n_classes), dtype), some_labels(20, n_classes)
    where = one_hot(labels, n_classes, bool)
    for more in {}, {"label_smoothing": 0.3}, {"temperature": 0.1}:
        loss, grad = cross_entropy_with_grad(x, labels, where=where, reduction="none", **more)
        assert (loss == 0).all()
        eps = np.finfo(dtype).eps if "label_smoothing" in more else 0
        assert (np.abs(grad) <= eps * where).all()
    loss, grad = cross_entropy_with_grad(x, labels, where=where, z_loss=0.5, reduction="none")
    logit = x[np.arange(20), labels]
    np.testing.assert_allclose(loss, logit**2 / 2, rtol=1e-6)
    np.testing.assert_allclose(grad, where * logit[:, None], rtol=1e-6)


@pytest.mark.parametrize("dtype", REAL)
def test_one_class_has_loss_zero_with_all_options(dtype, isa):
    for n_rows in 1, 16, 20:
        x = some_logits((n_rows, 1), dtype)
        options = {"class_weight": [2.0], "sample_weight": np.full(n_rows, 3.0),
                   "label_smoothing": 0.2, "temperature": 0.3,
                   "where": np.ones((n_rows, 1), bool)}  # fmt: skip
        for target in np.zeros(n_rows, int), np.ones((n_rows, 1)):
            got = results(x, target, **options)
            assert got["loss"] == got["loss alone"] == 0
            assert not np.signbit(got["loss"])
            assert (np.abs(got["grad"]) <= 20 * np.finfo(dtype).eps).all()


@pytest.mark.parametrize("dtype", REAL)
def test_z_loss_holds_where_logsumexp_is_near_zero(dtype, isa):
    x = np.log(np.arange(1, 10) / 45).astype(dtype)[None].repeat(20, 0)
    rows = reference.cross_entropy(x, one_hot(np.zeros(20, int), 9), z_loss=1)
    loss, grad = cross_entropy_with_grad(x, np.zeros(20, int), z_loss=1, reduction="none")
    assert reference.error_in_ulp(loss, rows.loss) <= BOUND
    assert np.max(np.abs(grad - rows.grad) / reference.ulp(rows.grad_size, dtype)) <= BOUND


# ---------------------------------------------------------------- accuracy


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [2, 10, 33, 1000])
@pytest.mark.parametrize("temperature", [0.7, 1.0, 3.0])
def test_confident_rows_keep_full_relative_accuracy(temperature, n_classes, dtype, isa):
    x = some_logits((16, n_classes), dtype) / 3
    labels = np.full(16, n_classes // 2)
    x[np.arange(16), labels] = temperature * np.linspace(10, 80, 16)
    options = {"class_weight": np.linspace(0.5, 2, n_classes).astype(np.float32),
               "sample_weight": np.linspace(0.3, 3, 16), "temperature": temperature}  # fmt: skip
    rows = reference.cross_entropy(x, one_hot(labels, n_classes), **options)
    for target in labels, one_hot(labels, n_classes):
        loss, grad = cross_entropy_with_grad(x, target, reduction="none", **options)
        assert reference.error_in_ulp(loss, rows.loss) <= BOUND
        assert reference.error_in_ulp(grad, rows.grad) <= BOUND


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("temperature", [0.7, 3, 1 / 3, 1e-3, 1e3])
@pytest.mark.parametrize("shift", [0, 1e4])
def test_a_temperature_costs_no_accuracy(shift, temperature, dtype, isa):
    bound = SCALAR_BOUND if isa == "scalar" else FUSED_BOUND
    for n_classes in 3, 10, 33, 130, 1025:
        x = (temperature * some_logits((19, n_classes)) + shift).astype(dtype)
        labels = some_labels(19, n_classes)
        rows = reference.tempered(x, temperature)
        p = cysoftmax.softmax(x, temperature=temperature)
        assert reference.error_in_ulp(p, rows.e / rows.total) <= bound
        log_p = cysoftmax.log_softmax(x, temperature=temperature)
        assert reference.error_in_ulp(log_p, rows.d - rows.log_total) <= 4
        loss = cross_entropy(x, labels, temperature=temperature, reduction="none")
        exact = reference.cross_entropy(x, one_hot(labels, n_classes), temperature=temperature)
        assert reference.error_in_ulp(loss, exact.loss) <= 4


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("axis", [0, -1])
def test_a_mask_costs_no_accuracy(axis, dtype, isa):
    bound = SCALAR_BOUND if isa == "scalar" else FUSED_BOUND
    for n_classes in 3, 10, 33, 130, 1025:
        x = some_logits((19, n_classes), dtype)
        where = some_mask(x.shape)
        where[-1, 1] = True
        rows = reference.tempered(x, where=where)
        turned, mask = (np.moveaxis(a, -1, axis).copy() for a in (x, where))
        p = np.moveaxis(cysoftmax.softmax(turned, axis=axis, where=mask), axis, -1)
        assert reference.error_in_ulp(p, rows.e / rows.total) <= bound
        log_p = np.moveaxis(cysoftmax.log_softmax(turned, axis=axis, where=mask), axis, -1)
        exact = (rows.d - rows.log_total)[where]
        assert reference.error_in_ulp(log_p[where], exact) <= 4
        lse = cysoftmax.logsumexp(turned, axis=axis, where=mask)
        exact = rows.lse[:, 0]
        larger = np.maximum(np.abs(exact), np.max(np.where(where, np.abs(x), 0), axis=-1))
        assert np.max(np.abs(lse - exact) / reference.ulp(larger, dtype)) <= 2


# ---------------------------------------------------------------- temperature


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [3, 40, 1100])
def test_a_huge_temperature_makes_rows_uniform(n_classes, dtype, isa):
    x, labels = some_logits((20, n_classes), dtype), some_labels(20, n_classes)
    for temperature in 1e30, 1e300, np.finfo(np.float64).max:
        p = cysoftmax.softmax(x, temperature=temperature)
        np.testing.assert_array_equal(p, np.full_like(x, dtype(1) / dtype(n_classes)))
        loss, grad = cross_entropy_with_grad(x, labels, temperature=temperature, reduction="none")
        np.testing.assert_allclose(loss, np.log(n_classes), rtol=1e-6)
        want = (1 / n_classes - one_hot(labels, n_classes)) / temperature
        tiny = float(np.finfo(dtype).smallest_subnormal)
        np.testing.assert_allclose(grad, want, rtol=1e-6, atol=tiny)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [3, 40, 1100])
def test_a_tiny_temperature_leaves_the_largest_logit(n_classes, dtype, isa):
    x = some_logits((20, n_classes), dtype)
    x[0] = 1  # all of them
    x[1, :2] = 77, 77
    largest = (x == x.max(-1, keepdims=True)).astype(np.float64)
    want = largest / largest.sum(-1, keepdims=True)
    labels = np.argmax(x, -1)
    for temperature in 1e-6, 1e-30, 1e-300, 5e-324:
        p = cysoftmax.softmax(x, temperature=temperature)
        np.testing.assert_allclose(p, want, rtol=1e-6, atol=0)
        log_p = cysoftmax.log_softmax(x, temperature=temperature)
        np.testing.assert_allclose(log_p[largest > 0], np.log(want[largest > 0]), rtol=1e-6)
        assert (log_p[largest == 0] < -1e3).all()
        for target in labels, one_hot(labels, n_classes):
            loss, grad = cross_entropy_with_grad(
                x, target, temperature=temperature, reduction="none"
            )
            np.testing.assert_allclose(loss, -np.log(want[np.arange(20), labels]), rtol=1e-6)
            assert (grad[2:] == 0).all()
            assert not np.isnan(grad).any()


@pytest.mark.parametrize("dtype", REAL)
def test_a_temperature_of_two_is_half_the_logits_to_a_few_ulp(dtype, isa):
    close = {"rtol": 4 * np.finfo(dtype).eps, "atol": 0}  # x - max is found in another way
    for n_classes in 3, 40, 1100:
        x, labels = some_logits((20, n_classes), dtype), some_labels(20, n_classes)
        for function in cysoftmax.softmax, cysoftmax.log_softmax:
            np.testing.assert_allclose(function(x, temperature=2), function(x / 2), **close)
        got = results(x, labels, temperature=2, z_loss=0.1)
        want = results(x / 2, labels, z_loss=0.1)
        want["grad"], want["grad alone"] = want["grad"] / 2, want["grad alone"] / 2
        for name in want:
            np.testing.assert_allclose(got[name], want[name], **close, err_msg=name)


def test_a_temperature_may_be_any_real_number():
    x = some_logits((3, 4))
    for two in 2, np.float32(2), np.int8(2), np.array(2.0):
        assert_same_bits(cysoftmax.softmax(x, temperature=two), cysoftmax.softmax(x / 2))


# ---------------------------------------------------------------- masks


def softmaxes(x, where, temperature=1.0, **options):
    return {
        "softmax": cysoftmax.softmax(x, where=where, temperature=temperature, **options),
        "log_softmax": cysoftmax.log_softmax(x, where=where, temperature=temperature, **options),
        "logsumexp": cysoftmax.logsumexp(x, where=where, **options),
    }


MASK_SHAPES = [(37, 3), (20, 10), (18, 33), (6, 130), (3, 1025), (2, 20_000)]


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", MASK_SHAPES)
def test_masked_entries_leave_no_trace(shape, dtype, isa):
    x, target, options = problem(shape, dtype)
    where = options["where"]
    clean = np.where(where, x, 0).astype(dtype)
    wants = results(clean, target, **options) | softmaxes(clean, where, 0.7)
    for junk in "all", np.nan, np.inf, -np.inf, np.finfo(dtype).max, np.finfo(dtype).min:
        if shape[1] > 2000 and junk != "all":
            break
        dirty = clean.copy()
        dirty[~where] = (
            np.resize([np.nan, np.inf, -np.inf, 1e30], np.sum(~where)) if junk == "all" else junk
        )
        for layout in np.ascontiguousarray, np.asfortranarray:
            given = layout(dirty)
            got = results(given, target, **options) | softmaxes(given, where, 0.7)
            assert_same_results(got, wants, junk)
        cysoftmax.softmax(dirty, where=where, temperature=0.7, out=dirty)
        assert_same_bits(dirty, wants["softmax"])
    assert (wants["grad"][~where] == 0).all()
    assert (wants["softmax"][~where] == 0).all()
    assert (wants["log_softmax"][~where] == -np.inf).all()


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", MASK_SHAPES[:-1])
@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
def test_masked_entries_are_zero_even_in_a_row_that_is_nan(spoilt, shape, dtype, isa):
    x, _, options = problem(shape, dtype)
    where = np.ones(shape, bool)
    where[:, 1] = False
    x[:, 1], x[:, 2] = 5, spoilt
    options |= {"where": where, "sample_weight": 1.0, "ignore_index": None}
    for logits in x, np.asfortranarray(x):
        got = results(logits, np.zeros(shape[0], int), reduction="none", **options)
        got |= softmaxes(logits, where)
        for name in "grad", "grad alone", "softmax":
            assert (got[name][:, 1] == 0).all(), name
            assert np.isnan(np.delete(got[name], 1, 1)).all(), name
        assert (got["log_softmax"][:, 1] == -np.inf).all()
        assert np.isnan(np.delete(got["log_softmax"], 1, 1)).all()
        assert np.isnan(got["loss"]).all()
        np.testing.assert_array_equal(got["logsumexp"], np.full(shape[0], spoilt))


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", MASK_SHAPES)
def test_a_row_of_false_is_empty(shape, dtype, isa):
    x = some_logits(shape, dtype)
    for junk in 1.0, np.nan, np.inf:
        x[0] = junk
        where = np.ones(shape, bool)
        where[0] = False
        for logits in x, np.asfortranarray(x):
            got = softmaxes(logits, where)
            assert_same_bits(got["softmax"][0], np.zeros(shape[1], dtype))
            assert (got["log_softmax"][0] == -np.inf).all()
            assert got["logsumexp"][0] == -np.inf
            for name, result in softmaxes(x[1:], None).items():
                assert_same_bits(got[name][1:], result, name)
    nothing = np.zeros(shape, bool)
    assert (cysoftmax.softmax(x, where=nothing) == 0).all()
    assert (cysoftmax.logsumexp(x, where=nothing) == -np.inf).all()


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [3, 40, 1100])
def test_a_row_of_minus_inf_where_it_counts_is_nan(n_classes, dtype, isa):
    x = some_logits((20, n_classes), dtype)
    where = np.ones_like(x, bool)
    where[:, 0] = False
    x[3, 1:] = -np.inf
    got = softmaxes(x, where) | results(x, np.ones(20, int), where=where, reduction="none")
    assert got["logsumexp"][3] == -np.inf
    assert np.isnan(got["loss"][3])
    for name in "softmax", "grad":
        assert got[name][3, 0] == 0
        assert np.isnan(got[name][3, 1:]).all()


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [4, 40, 1100])
@pytest.mark.parametrize("smoothing", [0, 0.1])
def test_a_label_on_a_masked_class_has_loss_inf(smoothing, n_classes, dtype, isa):
    x, where = some_logits((20, n_classes), dtype), np.ones((20, n_classes), bool)
    where[:, 2] = False
    x[:, 2] = np.nan
    labels = np.resize([2, 1, 0], 20)
    masked = labels == 2
    options = {"where": where, "label_smoothing": smoothing}
    matrix = one_hot(labels, n_classes)
    rows = reference.cross_entropy(x, matrix, **options)
    for target in labels, matrix, sparse.csr_array(matrix):
        got = results(x, target, reduction="none", **options)
        for name in "loss", "loss alone":
            np.testing.assert_array_equal(got[name] == np.inf, masked, name)
        for name in "grad", "grad alone":
            error = np.abs(got[name] - rows.grad) / reference.ulp(rows.grad_size, dtype)
            assert error.max() <= BOUND
            assert (got[name][:, 2] == 0).all()
        assert results(x, target, **options)["loss"] == np.inf


def test_a_mask_is_broadcast(isa):
    x, labels = some_logits((3, 4, 5)), some_labels((3, 4), 5)
    rng = np.random.default_rng(0)
    for shape in (5,), (1, 5), (4, 5), (4, 1), (3, 1, 1), (3, 1, 5), (1, 1, 1), ():
        where = rng.random(shape) < 0.7
        whole = np.broadcast_to(where, x.shape).copy()
        assert_same_results(softmaxes(x, where), softmaxes(x, whole), shape)
        got = results(x, labels, where=where, label_smoothing=0.1)
        assert_same_results(got, results(x, labels, where=whole, label_smoothing=0.1), shape)
    assert_same_results(softmaxes(x, [True, False, True, True, False]),
                        softmaxes(x, np.array([True, False, True, True, False])))  # fmt: skip


@pytest.mark.parametrize("dtype", REAL)
def test_a_mask_gives_what_the_other_classes_alone_would(dtype, isa):
    for n_classes in 3, 10, 33, 130:
        x, labels = some_logits((20, n_classes), dtype), np.zeros(20, int)
        for n_left in {1, 2, n_classes // 2, n_classes - 1}:
            where = np.arange(n_classes) < n_left
            options = {"label_smoothing": 0.2, "z_loss": 0.1, "reduction": "none"}
            got = results(x, labels, where=where, **options) | softmaxes(x, where)
            few = np.ascontiguousarray(x[:, :n_left])
            want = results(few, labels, **options) | softmaxes(few, None)
            for name in want:
                left = got[name][:, :n_left] if got[name].ndim == 2 else got[name]
                scale = 1 + np.abs(want[name])
                close = np.abs(left - want[name]) <= 8 * np.finfo(dtype).eps * scale
                assert close.all(), name


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", MASK_SHAPES)
def test_the_softmaxes_of_a_mask_have_the_same_bits_everywhere(shape, dtype, isa):
    x, where = some_logits(shape, dtype), some_mask(shape)
    want = softmaxes(x, where, 0.7, n_threads=1)
    assert_same_results(softmaxes(x, where, 0.7, n_threads=7), want)
    assert_same_results(softmaxes(np.asfortranarray(x), where, 0.7), want)
    assert_same_results(softmaxes(x, np.asfortranarray(where), 0.7), want)
    assert_same_results(softmaxes(np.flip(np.flip(x).copy()), where, 0.7), want)
    got = softmaxes(x.T.copy(), where.T, 0.7, axis=0)
    assert_same_results(got | {"softmax": got["softmax"].T, "log_softmax": got["log_softmax"].T},
                        want)  # fmt: skip
    for i in 0, shape[0] - 1:
        row = softmaxes(x[i], where[i], 0.7)
        assert_same_results(row, {name: result[i] for name, result in want.items()})
    for function, name in (cysoftmax.softmax, "softmax"), (cysoftmax.log_softmax, "log_softmax"):
        given = x.copy()
        function(given, where=where, temperature=0.7, out=given)
        assert_same_bits(given, want[name])


# ---------------------------------------------------------------- special values


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [4, 40, 1100])
def test_minus_inf_without_mass_contributes_nothing_with_all_options(n_classes, dtype, isa):
    x = some_logits((20, n_classes), dtype)
    x[:, 1] = -np.inf
    options = {"class_weight": np.linspace(1, 2, n_classes).astype(np.float32),
               "sample_weight": np.linspace(0.1, 2, 20), "z_loss": 0.1,
               "temperature": 0.7}  # fmt: skip
    matrix = one_hot(np.full(20, 2), n_classes)
    rows = reference.cross_entropy(x, matrix, **options)
    for target in np.full(20, 2), matrix, sparse.csr_array(matrix):
        loss, grad = cross_entropy_with_grad(x, target, reduction="none", **options)
        assert reference.error_in_ulp(loss, rows.loss) <= BOUND
        assert np.max(np.abs(grad - rows.grad) / reference.ulp(rows.grad_size, dtype)) <= BOUND
        assert_same_bits(grad[:, 1], np.zeros(20, dtype))


@pytest.mark.parametrize("n_classes", [4, 40, 1100])
def test_minus_inf_with_smoothed_mass_has_loss_inf(n_classes, isa):
    x = some_logits((20, n_classes))
    x[3, 1] = -np.inf
    weight = np.ones(n_classes)
    for target in np.full(20, 2), one_hot(np.full(20, 2), n_classes):
        loss = cross_entropy(x, target, label_smoothing=0.1, reduction="none")
        assert loss[3] == np.inf
        assert np.isfinite(np.delete(loss, 3)).all()
        weight[1] = 0  # 0 times inf is 0
        loss = cross_entropy(x, target, label_smoothing=0.1, class_weight=weight, reduction="none")
        assert np.isfinite(loss).all()


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [3, 40, 1100])
@pytest.mark.parametrize("junk", [np.nan, np.inf])
def test_nan_and_inf_spoil_their_row_alone_with_all_options(junk, n_classes, dtype, isa):
    x, target, options = problem((20, n_classes), dtype)
    clean = results(x, target, reduction="none", **options)
    options["where"][5, 0] = True
    target[5], options["sample_weight"][5] = (options["ignore_index"] + 1) % n_classes, 1
    x[5, 0] = junk
    for logits in x, np.asfortranarray(x):
        got = results(logits, target, reduction="none", **options)
        for name, result in got.items():
            assert_same_bits(np.delete(result, 5, 0), np.delete(clean[name], 5, 0), name)
            spoilt = result[5][options["where"][5]] if result.ndim == 2 else result[5]
            assert np.isnan(spoilt).all(), name


@pytest.mark.parametrize("dtype", REAL)
def test_huge_logits_are_like_others_with_options(dtype, isa):
    big = np.finfo(dtype).max
    for n_classes in 3, 40, 1100:
        for value in big, -big, 1e30:
            x = np.full((20, n_classes), value, dtype)
            for temperature in 0.5, 1, 3:
                p = cysoftmax.softmax(x, temperature=temperature)
                np.testing.assert_allclose(p, 1 / n_classes, rtol=1e-6)
                loss, grad = cross_entropy_with_grad(
                    x, np.zeros(20, int), temperature=temperature, label_smoothing=0.5,
                    class_weight=np.ones(n_classes), where=np.ones(n_classes, bool),
                )  # fmt: skip
                assert loss == pytest.approx(np.log(n_classes), rel=1e-6)
                np.testing.assert_allclose(
                    20 * temperature * grad[:, 1:], 0.5 / n_classes, rtol=1e-5
                )


# ---------------------------------------------------------------- targets changed meanwhile


@pytest.mark.parametrize("shape", [(3000, 8), (400, 64), (1, 70_000)])
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("kind", ["labels", "sparse"])
def test_a_label_changed_during_the_call_never_leads_outside(kind, n_threads, shape):
    x, labels, options = problem(shape, np.float64)
    options["where"] = np.ones(shape, bool)
    row, good = shape[0] // 2, int(labels[shape[0] // 2])
    target, changed = labels, labels
    if kind == "sparse":
        options.pop("ignore_index", None)
        parts = np.ones(shape[0]), labels, np.arange(shape[0] + 1)
        target = sparse.csr_array(parts, shape=shape)
        target.indices = changed = labels.astype(np.int64)
    want = results(x, target, **options)
    # One label in many places: a copy, which needs no GIL, makes it bad and good in turn.
    many = np.lib.stride_tricks.as_strided(changed[row:], (2**16,), (0,))
    flips = np.resize([-(2**45), good, shape[1] * (shape[0] - row) + 3, good], many.shape)
    done = threading.Event()

    def flip():
        while not done.is_set():
            np.copyto(many, flips)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread = threading.Thread(target=flip)
    thread.start()
    try:
        for _ in range(40):
            try:
                got = results(x, target, n_threads=n_threads, **options)
            except IndexError as error:
                assert str(error).startswith(f"target must lie in [0, {shape[1]}); ")  # noqa: PT017
            else:
                assert_same_results(got, want)
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(interval)
    changed[row] = good
    assert_same_results(results(x, target, **options), want)


def test_a_small_share_keeps_its_gradient_where_z_loss_takes_away_what_multiplies_p():
    """b is nearly 0, and s A much smaller still: neither may stand for the other."""
    x = np.array([[-4.9999999995, -34.9999999995]])
    target = np.array([[1 - 1e-9, 1e-9]])
    wide = x.astype(np.longdouble)
    e = np.exp(wide - wide.max())
    p = e / e.sum()
    lse = wide.max() + np.log(e.sum())
    mass = target.astype(np.longdouble).sum()
    exact = (mass + 2 * np.longdouble(0.1) * mass * lse) * p - target
    for same in target, sparse.csr_array(target):
        grad = cysoftmax.cross_entropy_grad(x, same, z_loss=0.1, reduction="none")
        assert abs(grad[0, 1] - exact[0, 1]) <= 1e-15 * target[0, 1]


def test_a_large_scale_or_a_small_weight_changes_the_gradient_by_no_other_factor():
    x, y = np.array([[0.0, 1.0]]), [0]
    plain = cysoftmax.cross_entropy_grad(x, y)
    np.testing.assert_allclose(
        cysoftmax.cross_entropy_grad(x, y, scale=1e308), plain * 1e308, rtol=1e-15
    )
    np.testing.assert_allclose(
        cysoftmax.cross_entropy_grad(x, y, sample_weight=1e-307), plain, rtol=1e-13
    )
    assert np.all(np.isinf(cysoftmax.cross_entropy_grad(x, y, scale=np.inf)))


def test_a_loss_beyond_the_largest_number_is_inf_and_not_nan():
    x = np.array([[2.847899241491691e303, -3.9341813956458016e304]])
    for target in ([1], [[0.5, 0.5]]):
        assert cysoftmax.cross_entropy(x, target, temperature=1e-30) == np.inf
