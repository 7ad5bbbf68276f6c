# cython: language_level=3
"""Sparse targets (CSR): check their three arrays, and bring the classes of each row in order."""

cimport numpy as cnp
from libc.stdint cimport int32_t, int64_t

from cysoftmax._arrays cimport as_array, is_half, readable_dtype

import numpy as np

from cysoftmax._arrays import contiguous

cnp.import_array()

INDEX = (np.dtype(np.int32), np.dtype(np.int64))
PARTS = ("data", "indices", "indptr")


def check_sparse(matrix, x, axis):
    """Return the arrays (data, classes, indptr) of a CSR matrix; classes rise in each row."""
    if getattr(matrix, "format", None) != "csr":
        raise TypeError(
            f"target must be in CSR format if it is sparse (its method .tocsr() converts it); "
            f"got {type(matrix).__name__}"
        )
    if x.ndim != 2 or axis != 1:
        raise ValueError(
            f"target must not be sparse unless logits are 2-D and axis is the last; "
            f"got logits of shape {x.shape}, axis={axis}"
        )
    if matrix.shape != x.shape:
        raise ValueError(f"target must have the shape of logits, {x.shape}; got {matrix.shape}")
    data, classes, indptr = (
        as_array(part, f"target's {name}")
        for part, name in zip((matrix.data, matrix.indices, matrix.indptr), PARTS)
    )
    for part, name in zip((data, classes, indptr), PARTS):
        if part.ndim != 1:
            raise ValueError(f"target's {name} must have one dimension; got shape {part.shape}")
        if name != "data" and part.dtype.kind not in "iu":
            raise TypeError(f"target's {name} must be integers; got dtype {part.dtype}")
    if data.dtype.kind not in "biuf" and not is_half(data.dtype):
        raise TypeError(f"target must be bool, integer or float; got dtype {data.dtype}")
    n_rows, n_classes = x.shape
    if (
        indptr.shape != (n_rows + 1,)
        or indptr[0] != 0
        or np.any(indptr[1:] < indptr[:-1])
        or indptr[-1] > min(len(classes), len(data))
    ):
        raise ValueError(
            f"target must have an indptr of {n_rows + 1} numbers, from 0 to its number of entries "
            f"and never falling; got {np.array2string(indptr, threshold=8)}"
        )
    n_entries = min(int(indptr[-1]), len(classes), len(data))  # read once
    data, classes = data[:n_entries], classes[:n_entries]
    if classes.size and not (classes.min() >= 0 and classes.max() < n_classes):
        at = np.argmax((classes < 0) | (classes >= n_classes))
        row = int(np.searchsorted(indptr, at, side="right")) - 1
        raise IndexError(f"target must lie in [0, {n_classes}); got {classes[at]} in row {row}")
    same = indptr.dtype == classes.dtype and indptr.dtype in INDEX
    index = indptr.dtype if same else INDEX[1]
    classes, indptr = np.ascontiguousarray(classes, index), np.ascontiguousarray(indptr, index)
    if not rises(classes, indptr):
        data, classes, indptr = sort_and_merge(data, classes, indptr)
    return contiguous(data, readable_dtype(data.dtype)), classes, indptr


ctypedef fused index_type:
    int32_t
    int64_t


def rises(const index_type[::1] classes, const index_type[::1] indptr):
    """Return whether the classes of each row rise."""
    cdef Py_ssize_t i, j, end, n = classes.shape[0]
    for i in range(indptr.shape[0] - 1):
        end = min(<Py_ssize_t>indptr[i + 1], n)  # whatever another thread makes of indptr
        for j in range(max(<Py_ssize_t>indptr[i], <Py_ssize_t>0) + 1, end):
            if classes[j] <= classes[j - 1]:
                return False
    return True


def sort_and_merge(data, classes, indptr):
    """Return the arrays of a CSR matrix whose rows have sorted classes, each at most once.

    Entries of the same class are added up in their own dtype, as ``matrix.toarray()`` does.
    """
    rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    order = np.lexsort((classes, rows))
    rows, classes = rows[order], classes[order]
    first = np.append(True, (rows[1:] != rows[:-1]) | (classes[1:] != classes[:-1]))
    sums = np.zeros(np.count_nonzero(first), data.dtype)
    np.add.at(sums, np.cumsum(first) - 1, data[order])  # one by one; reduceat adds pairs
    counts = np.bincount(rows[first], minlength=len(indptr) - 1)
    begins = np.concatenate(([0], np.cumsum(counts))).astype(indptr.dtype)
    return sums, classes[first], begins
