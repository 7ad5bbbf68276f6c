"""The gradient and the diagonal of the Hessian, for boosting and Newton's method."""

import numpy as np
import pytest
import reference
from cases import REAL, assert_same_bits, one_hot, some_labels, some_logits, some_masses
from scipy import sparse

from cysoftmax import GradHess, cross_entropy_grad, cross_entropy_grad_hess

BOUND = 6  # ulp: of the Hessian, and of the larger part of the gradient
SHAPES = [(37, 2), (37, 10), (18, 33), (6, 130), (3, 1025)]
CLASS_WEIGHT = "class_weight"


def weights(shape, seed=0):
    rng = np.random.default_rng(seed)
    class_weight = rng.uniform(0.2, 3, shape[-1]).astype(np.float32).astype(np.float64)
    return {CLASS_WEIGHT: class_weight, "sample_weight": rng.uniform(0.2, 3, shape[:-1])}


def some_of(options):
    """Each of the four choices of the two options."""
    yield {}
    yield options
    for name, value in options.items():
        yield {name: value}


def test_one_row_by_hand(isa):
    x = np.log(np.array([[1.0, 2, 5]]))  # p = 1/8, 1/4, 5/8
    got = cross_entropy_grad_hess(x, [1], class_weight=[5, 2, 7], sample_weight=[3])
    assert isinstance(got, GradHess)
    grad, hess = got
    assert got.grad is grad
    assert got.hess is hess
    np.testing.assert_allclose(grad, [[6 / 8, -18 / 4, 30 / 8]], rtol=1e-15)
    np.testing.assert_allclose(hess, [[6 * 7 / 64, 6 * 3 / 16, 6 * 15 / 64]], rtol=1e-15)
    grad, hess = cross_entropy_grad_hess(x, [[0, 0.5, 1.5]])
    np.testing.assert_allclose(grad, [[2 / 8, 0, 10 / 8 - 1.5]], rtol=1e-14, atol=1e-16)
    np.testing.assert_allclose(hess, [[2 * 7 / 64, 2 * 3 / 16, 2 * 15 / 64]], rtol=1e-15)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("shape", SHAPES)
def test_both_are_within_their_bounds(shape, axis, dtype, isa):
    for spread in 1, 10:
        x = spread * some_logits(shape, dtype)
        labels, masses = some_labels(shape[0], shape[1]), some_masses(shape)
        for options in some_of(weights(shape)):
            for target, matrix in (labels, one_hot(labels, shape[1])), (masses, masses):
                rows = reference.cross_entropy(x, matrix, **options)
                turned = target if target.ndim == 1 else np.moveaxis(target, -1, axis)
                logits = np.moveaxis(x, -1, axis).copy()
                got = cross_entropy_grad_hess(logits, turned, axis=axis, **options)
                grad, hess = (np.moveaxis(a, axis, -1) for a in got)
                error = np.abs(grad - rows.grad) / reference.ulp(rows.grad_size, dtype)
                assert error.max() <= BOUND
                error = np.abs(hess - rows.hess) / reference.ulp(rows.hess_size, dtype)
                assert error.max() <= BOUND


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [2, 3, 10, 33, 1000, 40_000])
def test_the_hessian_keeps_its_accuracy_in_confident_rows(n_classes, dtype, isa):
    x = some_logits((16, n_classes), dtype) / 3
    labels = np.full(16, n_classes // 2)
    x[np.arange(16), labels] = np.linspace(10, 80, 16)
    for given in labels, (labels + 1) % n_classes, one_hot(labels, n_classes):
        matrix = given if given.ndim == 2 else one_hot(given, n_classes)
        rows = reference.cross_entropy(x, matrix)
        grad, hess = cross_entropy_grad_hess(x, given)
        assert reference.error_in_ulp(hess, rows.hess) <= BOUND
        assert reference.error_in_ulp(grad, rows.grad) <= BOUND
        assert (hess[:, n_classes // 2] > 0).all()


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_gradient_is_that_of_the_sum_of_the_losses(shape, dtype, isa):
    x, options = some_logits(shape, dtype), weights(shape)
    labels, masses = some_labels(shape[0], shape[1]), some_masses(shape)
    for target in labels, masses, sparse.csr_array(masses):
        want = cross_entropy_grad(x, target, reduction="sum", **options)
        got = cross_entropy_grad_hess(x, target, **options).grad
        unit = np.finfo(dtype).eps * np.max(np.abs(want), axis=-1, keepdims=True)
        assert (np.abs(got - want) <= 4 * unit).all()


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", SHAPES)
def test_all_targets_give_the_same_bits(shape, dtype, isa):
    x, labels = some_logits(shape, dtype), some_labels(shape[0], shape[1])
    x[1, labels[1]] += 30
    matrix = one_hot(labels, shape[1], bool)
    matrices = [matrix, matrix.astype(np.int8), np.asfortranarray(matrix.astype(dtype)),
                sparse.csr_array(matrix), sparse.csr_matrix(matrix.astype(float))]  # fmt: skip
    for options in some_of(weights(shape)):
        want = cross_entropy_grad_hess(x, labels, **options)
        for target in matrices:
            got = cross_entropy_grad_hess(x, target, **options)
            assert_same_bits(got.grad, want.grad)
            assert_same_bits(got.hess, want.hess)
    masses = some_masses(shape)
    want = cross_entropy_grad_hess(x, masses)
    got = cross_entropy_grad_hess(x, sparse.csr_array(masses))
    assert_same_bits(got.grad, want.grad)
    assert_same_bits(got.hess, want.hess)


def layouts(shape, dtype):
    """Yield arrays of that shape in different places of memory."""
    yield np.full(shape, np.nan, dtype)
    yield np.asfortranarray(np.full(shape, np.nan, dtype))
    yield np.full((2 * shape[0], 2 * shape[1]), np.nan, dtype)[::2, ::2]
    yield np.full(shape, np.nan, dtype)[::-1, ::-1]
    yield np.full(shape, np.nan, np.dtype(dtype).newbyteorder())


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_bits_are_the_same_everywhere(shape, dtype, isa):
    x, options = some_logits(shape, dtype), weights(shape)
    for target in some_labels(shape[0], shape[1]), some_masses(shape):
        want = cross_entropy_grad_hess(x, target, **options)
        for logits in (
            np.asfortranarray(x),
            np.flip(np.flip(x).copy()),
            x.astype(x.dtype.newbyteorder()),
        ):
            got = cross_entropy_grad_hess(logits, target, **options)
            assert_same_bits(got.grad, want.grad)
            assert_same_bits(got.hess, want.hess)
        turned = target.T.copy() if target.ndim == 2 else target
        got = cross_entropy_grad_hess(x.T.copy(), turned, axis=0, **options)
        assert_same_bits(got.grad.T, want.grad)
        assert_same_bits(got.hess.T, want.hess)
        for i in 0, shape[0] - 1:
            weight = {"sample_weight": options["sample_weight"][i],
                      "class_weight": options["class_weight"]}  # fmt: skip
            got = cross_entropy_grad_hess(x[i], target[i], **weight)
            assert_same_bits(got.grad, want.grad[i])
            assert_same_bits(got.hess, want.hess[i])


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", SHAPES)
def test_out_is_a_pair_of_arrays_in_any_layout(shape, dtype, isa):
    x, target = some_logits(shape, dtype), some_labels(shape[0], shape[1])
    want = cross_entropy_grad_hess(x, target)
    native = [np.dtype(dtype)]
    for pair in zip(layouts(shape, dtype), list(layouts(shape, dtype))[::-1], strict=True):
        for out in pair, list(pair):
            got = cross_entropy_grad_hess(x, target, out=out)
            assert got.grad is pair[0]
            assert got.hess is pair[1]
            assert_same_bits(pair[0].astype(native[0]), want.grad)
            assert_same_bits(pair[1].astype(native[0]), want.hess)
    for place in 0, 1:
        given = x.copy()
        other = np.full_like(x, np.nan)
        pair = (given, other) if place == 0 else (other, given)
        cross_entropy_grad_hess(given, target, out=pair)
        assert_same_bits(pair[0], want.grad)
        assert_same_bits(pair[1], want.hess)


@pytest.mark.parametrize("dtype", REAL)
def test_an_out_that_overlaps_gives_what_no_overlap_would(dtype, isa):
    for n_classes in 5, 50:
        memory = np.zeros((60, n_classes), dtype)
        x, masses = some_logits((20, n_classes), dtype), some_masses((20, n_classes)).astype(dtype)
        want = cross_entropy_grad_hess(x, masses)
        memory[5:25] = x
        got = cross_entropy_grad_hess(memory[5:25], masses, out=(memory[:20], memory[20:40]))
        assert_same_bits(got.grad, want.grad)
        assert_same_bits(got.hess, want.hess)
        memory[5:25] = masses
        got = cross_entropy_grad_hess(x, memory[5:25], out=(memory[20:40], memory[:20]))
        assert_same_bits(got.grad, want.grad)
        assert_same_bits(got.hess, want.hess)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", [(20_000, 10), (1500, 130), (2, 70_000)])
def test_any_number_of_threads_gives_the_same_bits(shape, dtype):
    x, options = some_logits(shape, dtype), weights(shape)
    for target in some_labels(shape[0], shape[1]), some_masses(shape):
        want = cross_entropy_grad_hess(x, target, n_threads=1, **options)
        for n_threads in 2, 3, 7, None:
            got = cross_entropy_grad_hess(x, target, n_threads=n_threads, **options)
            assert_same_bits(got.grad, want.grad)
            assert_same_bits(got.hess, want.hess)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_any_number_of_dimensions_will_do(axis):
    x, masses = some_logits((3, 4, 5)), some_masses((3, 4, 5))
    last, target = np.moveaxis(x, axis, -1), np.moveaxis(masses, axis, -1)
    n_classes = last.shape[-1]
    want = cross_entropy_grad_hess(last.reshape(-1, n_classes), target.reshape(-1, n_classes))
    got = cross_entropy_grad_hess(x, masses, axis=axis)
    for result, flat in zip(got, want, strict=True):
        assert result.shape == x.shape
        assert_same_bits(np.moveaxis(result, axis, -1), flat.reshape(last.shape))
    one = cross_entropy_grad_hess(x[0, 0], 3)
    assert one.hess.shape == (5,)


def test_results_have_the_layout_and_dtype_of_the_logits():
    for dtype, result in (np.float32, np.float32), (np.float64, np.float64), (int, np.float64):
        x = np.asfortranarray(some_logits((20, 5)).astype(dtype))
        for array in cross_entropy_grad_hess(x, np.zeros(20, int)):
            assert array.dtype == result
            assert array.flags.f_contiguous


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [4, 40, 1100])
def test_rows_of_weight_zero_and_rows_of_zeros_leave_no_trace(n_classes, dtype, isa):
    x = some_logits((20, n_classes), dtype)
    x[[2, 5]] = np.nan
    matrix, weight = one_hot(some_labels(20, n_classes), n_classes), np.ones(20)
    weight[2], matrix[5] = 0, 0
    for target in matrix, sparse.csr_array(matrix):
        for logits in x, np.asfortranarray(x):
            for result in cross_entropy_grad_hess(logits, target, sample_weight=weight):
                assert_same_bits(result[[2, 5]], np.zeros((2, n_classes), dtype))
                assert np.isfinite(result).all()


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [4, 40, 1100])
def test_special_values_are_those_of_the_formula(n_classes, dtype, isa):
    x = some_logits((20, n_classes), dtype)
    x[0, 1], x[1, 2], x[2], x[3, 3] = np.nan, np.inf, -np.inf, -np.inf
    for target in np.zeros(20, int), one_hot(np.zeros(20, int), n_classes):
        for result in cross_entropy_grad_hess(x, target):
            assert np.isnan(result[:3]).all()
            assert np.isfinite(result[3:]).all()
            assert result[3, 3] == 0
    one = cross_entropy_grad_hess(np.full((20, 1), 3, dtype), np.zeros(20, int))
    for result in one:
        assert_same_bits(np.abs(result), np.zeros((20, 1), dtype))
    empty = cross_entropy_grad_hess(np.empty((0, 4), dtype), np.empty(0, int))
    for result in empty:
        assert result.shape == (0, 4)


# ---------------------------------------------------------------- errors

X, Y = np.zeros((3, 4)), np.array([0, 1, 2])


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (TypeError, r"^out must be a pair .*; got ndarray", {"out": np.zeros((3, 4))}),
        (TypeError, r"^out must be a pair .*; got ", {"out": 1.0}),
        (TypeError, r"^out must be a pair .*; got ", {"out": (np.zeros((3, 4)),)}),
        (TypeError, r"^out must be a pair .*; got ", {"out": (np.zeros((3, 4)),) * 3}),
        (ValueError, r"^out.* must have shape \(3, 4\); got .*\(4, 3\)",
         {"out": (np.zeros((3, 4)), np.zeros((4, 3)))}),
        (ValueError, r"^out.* must have shape \(3, 4\); got .*\(3,\)",
         {"out": (np.zeros(3), np.zeros((3, 4)))}),
        (TypeError, r"^out.* must have dtype float64; got float32",
         {"out": (np.zeros((3, 4)), np.zeros((3, 4), np.float32))}),
        (TypeError, r"^out must be .*; got ", {"out": (np.zeros((3, 4)), None)}),
        (TypeError, r"^out must be .*; got ", {"out": ([], np.zeros((3, 4)))}),
        (ValueError, r"^class_weight must .*; got .*\(3,\)", {"class_weight": np.ones(3)}),
        (ValueError, r"^sample_weight must .*; got .*\(4,\)", {"sample_weight": np.ones(4)}),
        (ValueError, r"^sample_weight must .*; got -1", {"sample_weight": [1, -1, 1]}),
        (ValueError, r"^axis must .*; got 2", {"axis": 2}),
        (ValueError, r"^n_threads must .*; got 0", {"n_threads": 0}),
        (TypeError, r"reduction", {"reduction": "sum"}),
        (TypeError, r"where", {"where": None}),
    ],
)  # fmt: skip
def test_a_wrong_argument_has_its_error(error, message, options):
    with pytest.raises(error, match=message):
        cross_entropy_grad_hess(X, Y, **options)


def test_a_pair_that_is_read_only_or_the_same_array_twice_is_a_value_error():
    read_only, array = np.zeros((3, 4)), np.zeros((3, 4))
    read_only.flags.writeable = False
    for pair in (read_only, array), (array, read_only):
        with pytest.raises(ValueError, match=r"^out.* must be writeable; got a read-only array"):
            cross_entropy_grad_hess(X, Y, out=pair)
    memory = np.zeros((5, 4))
    for pair in (array, array), (array, array[:]), (memory[:3], memory[2:]):
        with pytest.raises(ValueError, match=r"^out must .*"):
            cross_entropy_grad_hess(X, Y, out=pair)


@pytest.mark.parametrize("bad", [4, -1])
def test_a_bad_label_leaves_both_arrays_as_they_were(bad):
    for n_rows, n_classes in (3, 4), (20, 4), (5, 60):
        x, labels = np.zeros((n_rows, n_classes)), np.zeros(n_rows, int)
        labels[2] = n_classes if bad > 0 else bad
        pair = np.full_like(x, 7), np.full_like(x, 8)
        with pytest.raises(IndexError, match=rf"^target must lie .*got {labels[2]} at index \(2,"):
            cross_entropy_grad_hess(x, labels, out=pair)
        assert (pair[0] == 7).all()
        assert (pair[1] == 8).all()


def test_logits_without_classes_are_a_value_error():
    with pytest.raises(ValueError, match=r"^logits must have at least one class; got shape \(3, 0"):
        cross_entropy_grad_hess(np.empty((3, 0)), Y)


def test_outputs_that_alternate_in_memory_do_not_overlap():
    x, labels = np.random.default_rng(1).standard_normal((20, 5)), np.arange(20) % 5
    both = np.empty((20, 5, 2))
    grad, hess = cross_entropy_grad_hess(x, labels, out=(both[..., 0], both[..., 1]))
    want = cross_entropy_grad_hess(x, labels)
    np.testing.assert_array_equal(grad, want.grad)
    np.testing.assert_array_equal(hess, want.hess)
