"""A distribution whose rows are one-hot is computed as labels are (cysoftmax/_one_hot.pxd).

That nobody notices it, but for the time: what is one-hot gives the bits of labels, and what
nearly is gives what its entries say.
"""

import numpy as np
import pytest
from cases import assert_same_bits, dtype_of, one_hot, some_labels, some_logits
from scipy import sparse

from cysoftmax import cross_entropy_with_grad, row_stats

N_ROWS = 300  # more than are looked at together
CLASSES = [1, 2, 3, 10, 63, 64, 65, 254, 255, 256, 300]
DTYPES = ["?", *"bBhHiIqQ", "float16", "bfloat16", "float32", "float64"]


def layouts(matrix):
    """The same matrix in several places of memory."""
    n_rows, n_classes = matrix.shape
    apart = np.full((n_rows, n_classes + 3), matrix.max(), matrix.dtype)
    apart[:, 1:-2] = matrix
    strided = np.full((2 * n_rows, 2 * n_classes), matrix.max(), matrix.dtype)
    strided[::2, ::2] = matrix
    return {
        "C": np.ascontiguousarray(matrix),
        "F": np.asfortranarray(matrix),
        "rows apart": apart[:, 1:-2],
        "all apart": strided[::2, ::2],
        "backwards": np.ascontiguousarray(matrix[::-1, ::-1])[::-1, ::-1],
    }


@pytest.mark.parametrize("n_classes", CLASSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_entries_of_each_dtype_and_layout_are_labels(dtype, n_classes):
    dtype = dtype_of(dtype)
    logits, labels = some_logits((N_ROWS, n_classes)), some_labels(N_ROWS, n_classes)
    labels[[0, 7, 255, 256, -1]] = -1  # rows of zeros
    want = cross_entropy_with_grad(logits, labels, ignore_index=-1)
    for name, matrix in layouts(one_hot(labels, n_classes, dtype)).items():
        if dtype.kind in "fV":
            matrix[matrix == 0] = -0.0
        got = cross_entropy_with_grad(logits, matrix, n_threads=2)
        assert got.loss == want.loss, name
        assert_same_bits(got.grad, want.grad, name)


def test_any_byte_but_zero_is_true_in_a_bool():
    logits, labels = some_logits((N_ROWS, 5)), some_labels(N_ROWS, 5)
    matrix = (one_hot(labels, 5, np.uint8) * np.uint8(2)).view(bool)
    want, got = (cross_entropy_with_grad(logits, target) for target in (labels, matrix))
    assert got.loss == want.loss
    assert_same_bits(got.grad, want.grad)


def assert_row_is(place, row, labels, logits):
    """Of one-hot rows of which one was replaced, each has what it has alone; with a weight of 1/4,
    a row four times as large is not one-hot, and gives the same bits."""
    matrix = one_hot(labels, logits.shape[1])
    matrix[place] = row
    want = cross_entropy_with_grad(logits, labels, ignore_index=-1, reduction="none")
    alone = cross_entropy_with_grad(
        logits[[place]], 4 * matrix[[place]], sample_weight=[0.25], reduction="none"
    )
    want.loss[place], want.grad[place] = alone.loss[0], alone.grad[0]
    for target in matrix, np.asfortranarray(matrix), sparse.csr_array(matrix):
        got = cross_entropy_with_grad(logits, target, reduction="none")
        assert_same_bits(got.loss, want.loss, (matrix.shape, type(target)))
        assert_same_bits(got.grad, want.grad, (matrix.shape, type(target)))


@pytest.mark.parametrize("place", [0, 17, 255, 256, N_ROWS - 1])
def test_a_row_that_is_not_one_hot_is_what_its_entries_say(place):
    for n_classes in 1, 2, 3, 64, 65, 300:
        logits, labels = some_logits((N_ROWS, n_classes)), some_labels(N_ROWS, n_classes)
        labels[5] = -1
        label = one_hot(labels[place], n_classes)
        for entry in 1, 2, 0.5, 1 - 2**-53, -1, 1e-45, 1e-310, np.nan:
            assert_row_is(place, entry * label, labels, logits)
        for other in 0, n_classes - 1:  # two entries
            assert_row_is(place, label + one_hot(other, n_classes), labels, logits)
            assert_row_is(place, np.maximum(label, one_hot(other, n_classes)), labels, logits)


def test_explicit_zeros_and_empty_rows_of_a_sparse_target_change_nothing():
    logits, labels = some_logits((N_ROWS, 9)), some_labels(N_ROWS, 9)
    labels[::11] = -1
    want = row_stats(logits, labels, ignore_index=-1)
    for index in np.int32, np.int64:
        for dtype in np.float32, np.int8, bool:
            plain = sparse.csr_array(one_hot(labels, 9, dtype))
            plain.indices, plain.indptr = plain.indices.astype(index), plain.indptr.astype(index)
            padded = sparse.csr_array(
                one_hot(labels, 9, dtype) + one_hot(labels, 9, dtype)[:, ::-1]
            )
            padded.data = np.ascontiguousarray(plain.toarray()[padded.nonzero()])
            for target in plain, padded:
                got = row_stats(logits, target)
                for name in got._fields:
                    assert_same_bits(getattr(got, name), getattr(want, name), name)
