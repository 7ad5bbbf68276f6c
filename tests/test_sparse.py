"""Targets in the rows of a SciPy sparse array: distributions, never made dense as a whole."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from cases import (
    LOSSES,
    REAL,
    REDUCTIONS,
    assert_same_bits,
    assert_same_results,
    results,
    some_logits,
)
from scipy import sparse

from cysoftmax import (
    cross_entropy,
    cross_entropy_grad_hess,
    cross_entropy_with_grad,
    row_stats,
)

KINDS = [sparse.csr_array, sparse.csr_matrix]
SHAPES = [(20, 7), (18, 33), (5, 130), (3, 1100), (2, 70_000)]


def few_masses(shape, seed=0):
    """Up to four entries in each row, none in some; exact in float32, of many values."""
    rng = np.random.default_rng(seed)
    masses = np.zeros(shape)
    for _ in range(4):
        masses[np.arange(shape[0]), rng.integers(0, shape[1], shape[0])] = rng.integers(
            1, 200, shape[0]
        )
    masses[::3] = 0
    return masses


def indexed(matrix, dtype):
    """The same matrix with indices of that dtype."""
    matrix = matrix.copy()
    matrix.indices, matrix.indptr = matrix.indices.astype(dtype), matrix.indptr.astype(dtype)
    return matrix


def shuffled(matrix):
    """The same matrix with the entries of each row in another order."""
    matrix, rng = matrix.copy(), np.random.default_rng(0)
    for first, end in zip(matrix.indptr, matrix.indptr[1:], strict=False):
        order = first + rng.permutation(end - first)
        matrix.indices[first:end] = matrix.indices[order]
        matrix.data[first:end] = matrix.data[order]
    matrix.has_sorted_indices = False
    return matrix


def doubled(matrix):
    """The same matrix with each entry there twice, as a quarter and three quarters of it."""
    data = np.stack([matrix.data / 4, 3 * matrix.data / 4]).ravel("F")
    parts = data.astype(matrix.dtype), np.repeat(matrix.indices, 2), 2 * matrix.indptr
    return type(matrix)(parts, shape=matrix.shape)


def with_zeros(matrix):
    """The same matrix with a zero stored at each other place of its first four columns."""
    coo = matrix.tocoo()
    row, col = np.nonzero(matrix[:, :4].toarray() == 0)
    rows, columns = np.concatenate([coo.row, row]), np.concatenate([coo.col, col])
    data = np.concatenate([coo.data, np.zeros(len(row), matrix.dtype)])
    stored = type(matrix)((data, (rows, columns)), shape=matrix.shape)
    assert stored.nnz > matrix.nnz
    return stored


# ---------------------------------------------------------------- what a matrix may hold


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("logits_dtype", REAL)
@pytest.mark.parametrize(
    "dtype",
    [bool, np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64, *REAL],
)
def test_entries_and_indices_may_be_of_any_real_dtype(dtype, logits_dtype, index, kind):
    for shape in (20, 7), (5, 130):
        x = some_logits(shape, logits_dtype)
        dense = (few_masses(shape) % 100).astype(dtype)
        matrix = indexed(kind(dense), index)
        assert matrix.dtype == dtype
        assert matrix.indices.dtype == index
        assert_same_results(results(x, matrix), results(x, dense))


@pytest.mark.parametrize("change", [shuffled, doubled, with_zeros])
@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_order_duplicates_and_stored_zeros_do_not_matter(shape, kind, dtype, change, isa):
    x, dense = some_logits(shape, dtype), few_masses(shape)
    changed = change(kind(dense.astype(dtype)))
    np.testing.assert_array_equal(changed.toarray(), dense)
    for reduction in REDUCTIONS:
        want = results(x, dense, reduction=reduction)
        assert_same_results(results(x, changed, reduction=reduction), want)


@pytest.mark.parametrize("change", [shuffled, doubled, with_zeros])
def test_the_matrix_is_left_as_it_was(change):
    x, matrix = some_logits((20, 7)), change(sparse.csr_array(few_masses((20, 7))))
    parts = [part.copy() for part in (matrix.data, matrix.indices, matrix.indptr)]
    for part in matrix.data, matrix.indices, matrix.indptr:
        part.flags.writeable = False
    want = results(x, matrix.toarray())
    assert_same_results(results(x, matrix), want)
    for part, before in zip((matrix.data, matrix.indices, matrix.indptr), parts, strict=True):
        assert_same_bits(part, before)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("stored", [False, True])
def test_a_row_without_entries_or_of_zeros_is_ignored(stored, shape, dtype, isa):
    x, dense = some_logits(shape, dtype), few_masses(shape)
    x[::3] = np.nan
    matrix = sparse.csr_array(dense)
    if stored:
        dense[::3, 2] = 1
        matrix = sparse.csr_array(dense)
        matrix.data[matrix.indptr[:-1][::3]] = 0
    loss, grad = cross_entropy_with_grad(x, matrix, reduction="none")
    assert_same_bits(loss[::3], np.zeros(len(loss[::3]), dtype))
    assert_same_bits(grad[::3], np.zeros_like(grad[::3]))
    assert np.isfinite(grad).all()
    kept = np.arange(shape[0]) % 3 != 0
    assert cross_entropy(x, matrix) == cross_entropy(x[kept], dense[kept])


def test_a_matrix_without_any_entry_has_no_mean(isa):
    x = np.full((20, 7), np.nan)
    got = results(x, sparse.csr_array((20, 7)))
    assert np.isnan(got["loss"])
    assert_same_bits(got["grad"], np.zeros((20, 7)))
    assert cross_entropy(x, sparse.csr_array((20, 7)), reduction="sum") == 0


# ---------------------------------------------------------------- what the logits may be


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("change", [sparse.csr_array.copy, shuffled])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"class_weight": True}])
def test_the_target_is_never_made_dense(options, change, n_threads):
    shape = 100, 100_000
    x = np.broadcast_to(np.float32(1), shape)
    if options.get("class_weight"):
        options = {"class_weight": np.ones(shape[1], np.float32)}
    columns = np.random.default_rng(0).integers(0, shape[1], 200)
    matrix = change(
        sparse.csr_array((np.ones(200), (np.repeat(np.arange(100), 2), columns)), shape)
    )
    tracemalloc.start()
    try:
        loss = cross_entropy(x, matrix, n_threads=n_threads, **options)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert loss == pytest.approx(np.log(shape[1]), rel=1e-6)
    assert peak < shape[0] * shape[1] / 8, peak  # a bit for each entry of the dense matrix


# ---------------------------------------------------------------- errors


def fails(error, message, function, x, target, **options):
    """The call raises that, and changes neither logits nor target."""
    before = x.copy()
    with pytest.raises(error, match=message):
        function(x, target, **options)
    assert_same_bits(x, before)


@pytest.mark.parametrize("function", LOSSES)
@pytest.mark.parametrize("name", ["coo", "csc", "bsr", "dia", "dok", "lil"])
@pytest.mark.parametrize("kind", ["array", "matrix"])
def test_other_formats_are_a_type_error_that_says_what_to_do(kind, name, function):
    target = getattr(sparse, f"{name}_{kind}")(np.eye(4))
    fails(TypeError, rf"^target must .*{name}.*\.tocsr\(\)|^target must .*\.tocsr\(\).*{name}",
          function, np.zeros((4, 4)), target)  # fmt: skip


@pytest.mark.parametrize("function", LOSSES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(4, 3), (3, 5), (2, 4), (1, 4), (3, 1), (12, 1)])
def test_a_matrix_of_another_shape_is_a_value_error(shape, kind, function):
    message = rf"^target must .*\(3, 4\).*got \({shape[0]}, {shape[1]}\)"
    fails(ValueError, message, function, np.zeros((3, 4)), kind(shape))


@pytest.mark.parametrize("function", LOSSES)
@pytest.mark.parametrize("shape", [(4,), (1, 3, 4), (3, 4, 1), (2, 3, 4)])
def test_logits_of_one_or_three_dimensions_are_a_value_error(shape, function):
    fails(ValueError, "^target .*; got ", function, np.zeros(shape),
          sparse.csr_array(np.ones((3, 4))))  # fmt: skip


@pytest.mark.parametrize("function", LOSSES)
@pytest.mark.parametrize("axis", [0, -2])
def test_another_axis_than_the_last_is_a_value_error(axis, function):
    for shape in (4, 4), (4, 3):
        fails(ValueError, r"axis.*; got|axis=-1", function, np.zeros(shape),
              sparse.csr_array(np.ones(shape)), axis=axis)  # fmt: skip


@pytest.mark.parametrize("function", LOSSES)
@pytest.mark.parametrize("dtype", [complex, np.complex64])
def test_entries_that_are_not_real_are_a_type_error(dtype, function):
    target = sparse.csr_array(np.eye(4).astype(dtype))
    fails(TypeError, rf"^target must .*; got .*{np.dtype(dtype)}", function, np.zeros((4, 4)),
          target)  # fmt: skip


@pytest.mark.parametrize("function", LOSSES)
@pytest.mark.parametrize("ignore_index", [-100, 0])
def test_ignore_index_has_no_meaning_for_a_matrix(ignore_index, function):
    fails(ValueError, "^ignore_index .*; got ", function, np.zeros((4, 4)),
          sparse.csr_array(np.eye(4)), ignore_index=ignore_index)  # fmt: skip


def spoil(matrix, part, place, value):
    getattr(matrix, part)[place] = value


MALFORMED = {
    "an index beyond the last class": ("indices", 5, 4),
    "an index far beyond": ("indices", 5, 2**30),
    "a negative index": ("indices", 0, -1),
    "an index at the lowest number": ("indices", 3, -(2**31)),
    "rows that end beyond the entries": ("indptr", -1, 17),
    "rows that end far beyond the entries": ("indptr", 4, 2**30),
    "rows that begin before the entries": ("indptr", 0, -1),
    "a row that ends before it begins": ("indptr", 2, 15),
    "a row that ends at a negative place": ("indptr", 2, -5),
}


@pytest.mark.parametrize("function", LOSSES)
@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("wrong", MALFORMED)
def test_a_malformed_matrix_is_an_error(wrong, index, function, isa):
    target = indexed(sparse.csr_array(np.ones((4, 4))), index)
    spoil(target, *MALFORMED[wrong])
    out = np.full((4, 4), 7.0)
    options = {} if function is cross_entropy else {"out": out}
    for x in np.zeros((4, 4)), np.zeros((4, 4), np.float32):
        options = options if x.dtype == out.dtype else {}
        fails((ValueError, IndexError), "target", function, x, target, **options)
        fails((ValueError, IndexError), "target", function, x, target, label_smoothing=0.1,
              **options)  # fmt: skip
    assert (out == 7).all()


@pytest.mark.parametrize("function", LOSSES)
def test_parts_of_different_lengths_are_an_error(function):
    for part in "indices", "data":
        target = sparse.csr_array(np.ones((4, 4)))
        setattr(target, part, getattr(target, part)[:-3])
        fails((ValueError, IndexError), "target", function, np.zeros((4, 4)), target)
    target = sparse.csr_array(np.ones((4, 4)))
    target.indptr = target.indptr[:-1]
    fails((ValueError, IndexError), "target", function, np.zeros((4, 4)), target)


class Rows:
    """A matrix in CSR format that is not SciPy's."""

    format = "csr"

    def __init__(self, **parts):
        matrix = sparse.csr_array(np.eye(4))
        self.shape = matrix.shape
        self.data, self.indices, self.indptr = matrix.data, matrix.indices, matrix.indptr
        self.__dict__.update(parts)

    def tocsr(self):
        return self


@pytest.mark.parametrize("function", [*LOSSES, cross_entropy_grad_hess, row_stats])
def test_whatever_has_the_parts_of_a_csr_matrix_is_a_target(function):
    x = some_logits((4, 4))
    want = function(x, np.eye(4))
    for index in np.int8, np.uint64:
        rows = Rows()
        rows.indices, rows.indptr = rows.indices.astype(index), rows.indptr.astype(index)
        np.testing.assert_equal(function(x, rows), want)
        rows.indices, rows.indptr = rows.indices.tolist(), rows.indptr.tolist()
        np.testing.assert_equal(function(x, rows), want)


@pytest.mark.parametrize("dtype", [float, np.float32, bool, object])
@pytest.mark.parametrize("part", ["indices", "indptr"])
@pytest.mark.parametrize("function", [*LOSSES, cross_entropy_grad_hess, row_stats])
def test_indices_that_are_no_integers_are_a_type_error(function, part, dtype):
    target = Rows(**{part: getattr(Rows(), part).astype(dtype)})
    message = rf"^target's {part} must be integers; got dtype {np.dtype(dtype)}$"
    fails(TypeError, message, function, np.zeros((4, 4)), target)


@pytest.mark.parametrize("part", ["data", "indices", "indptr"])
@pytest.mark.parametrize("function", [*LOSSES, cross_entropy_grad_hess, row_stats])
def test_parts_that_are_masked_or_of_two_dimensions_are_an_error(function, part):
    array = getattr(Rows(), part)
    fails(TypeError, rf"^target's {part} must have no mask", function, np.zeros((4, 4)),
          Rows(**{part: np.ma.masked_array(array)}))  # fmt: skip
    fails(ValueError, rf"^target's {part} must have one dimension; got shape", function,
          np.zeros((4, 4)), Rows(**{part: array[:, None]}))  # fmt: skip


# ---------------------------------------------------------------- SciPy stays optional


def test_scipy_is_not_imported():
    code = """
import sys
import numpy, cysoftmax
x = numpy.zeros((3, 4))
cysoftmax.cross_entropy_with_grad(x, [0, 1, 2], label_smoothing=0.1, where=x == 0)
cysoftmax.softmax(x)
try:
    cysoftmax.cross_entropy(x, "sparse")
except (TypeError, ValueError):
    pass
print(sorted(name for name in sys.modules if name.split(".")[0] in ("scipy", "ml_dtypes")))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "[]\n"


@pytest.mark.parametrize("dtype", [bool, np.int8, np.float32, np.float64])
def test_duplicates_add_up_as_they_do_when_the_matrix_is_written_out(dtype):
    rng = np.random.default_rng(4)
    data = (rng.random(60) * 3).astype(dtype)
    places = rng.integers(0, 5, 60), rng.integers(0, 7, 60)
    by_row = np.argsort(places[0], kind="stable")
    starts = np.searchsorted(places[0][by_row], np.arange(6))
    matrix = sparse.csr_array((data[by_row], places[1][by_row], starts), shape=(5, 7))
    x = rng.standard_normal((5, 7)).astype(np.float32)
    got, want = cross_entropy_with_grad(x, matrix), cross_entropy_with_grad(x, matrix.toarray())
    assert got.loss == want.loss
    np.testing.assert_array_equal(got.grad, want.grad)
