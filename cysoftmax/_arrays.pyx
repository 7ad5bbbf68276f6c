# cython: language_level=3
"""Arrays: conversions, views and copies; whether two share memory; the arrays for results.

Knows what a dtype and a layout is, and that the classes lie along one axis. What an argument means,
and which values it may have, is in _checks.pyx.
"""

cimport numpy as cnp
from cpython.ref cimport Py_INCREF

from collections.abc import Iterator, Mapping, Set, ValuesView

import numpy as np

from cysoftmax._core import DefaultMode

cnp.import_array()

cdef extern from "numpy/arrayobject.h":
    # A new array with the shape and layout of `prototype`. Takes a reference to `dtype`.
    cnp.ndarray PyArray_NewLikeArray(cnp.ndarray prototype, cnp.NPY_ORDER order, void *dtype,
                                     int subok)

FLOAT = np.dtype(np.float32)
DOUBLE = np.dtype(np.float64)

# The errors of a conversion to an array: of sequences of unequal length, arrays on a GPU, ...
CONVERSION_ERRORS = (TypeError, ValueError, RuntimeError, BufferError)

# NumPy would make arrays without dimensions of these.
NO_SEQUENCES = (Set, Mapping, ValuesView, Iterator)


# ---------------------------------------------------------------- dtypes


cdef bint is_half(cnp.dtype dtype) except -1:
    """Return whether a dtype is float16 or bfloat16 (of the package ml_dtypes)."""
    return dtype.itemsize == 2 and (dtype.kind == c"f" or dtype.name == "bfloat16")


cdef cnp.dtype compute_dtype(cnp.dtype dtype):
    """Return the dtype that logits of ``dtype`` are computed in: float32 or float64. Results with
    one number for each row have it, too."""
    return DOUBLE if dtype.itemsize == 8 else FLOAT


cdef cnp.dtype native_order(cnp.dtype dtype):
    """Return a dtype with this machine's byte order in place of its own."""
    return dtype if cnp.PyDataType_ISNOTSWAPPED(dtype) else dtype.newbyteorder("=")


cdef cnp.dtype readable_dtype(cnp.dtype dtype):
    """Return the dtype in which the core reads a distribution of that dtype: in native order, and
    float64 for a long double."""
    dtype = native_order(dtype)
    return DOUBLE if dtype.kind == c"f" and dtype.itemsize > 8 else dtype


# ---------------------------------------------------------------- conversions and views


cdef tuple shape_of(cnp.ndarray x):
    return (<object>x).shape


cdef tuple shape_without(cnp.ndarray x, int axis):
    """Return the shape of x without the axis: the shape of the rows."""
    shape = shape_of(x)
    return shape[:axis] + shape[axis + 1 :]


cdef cnp.ndarray as_array(value, name):
    """Return ``value`` as an ndarray; if it is one already, without a Python call."""
    return value if cnp.PyArray_CheckExact(value) else convert(value, name)


def convert(value, name):
    """Return ``value`` as an ndarray: by ``__array__``, or by ``__dlpack__`` without that."""
    refuse_mask(value, name, ".filled() makes a plain array of it")
    has_array = hasattr(value, "__array__")
    if not has_array and isinstance(value, NO_SEQUENCES):
        raise TypeError(f"{name} must be an array or a list; got {type(value).__name__}")
    if not has_array and hasattr(value, "toarray"):  # of scipy.sparse
        raise TypeError(
            f"{name} must be an array; got {type(value).__name__} (.toarray() makes one of it)"
        )
    try:
        if not has_array and hasattr(value, "__dlpack__"):
            return np.from_dlpack(value)
        return np.asarray(value)
    except CONVERSION_ERRORS as error:
        # The class itself, since a subclass may not accept a message as its only argument.
        kind = next(kind for kind in CONVERSION_ERRORS if isinstance(error, kind))
        cure = ""
        if getattr(value, "requires_grad", False):
            cure = " (the functions of cysoftmax.torch keep gradients)"
        elif str(getattr(value, "dtype", None)) == "torch.bfloat16":
            cure = " (.float() converts it)"
        raise kind(f"{name} must be an array; got {type(value).__name__}: {error}{cure}") from error


cdef int refuse_mask(value, name, cure) except -1:
    """Raise an error if ``value`` is a masked array; ``cure`` is the way out."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must have no mask; got a masked array ({cure})")
    return 0


cdef cnp.ndarray native(cnp.ndarray array, cnp.dtype dtype):
    """Return ``array`` as an aligned array of ``dtype``, copied only if it is not one already."""
    if not cnp.PyArray_ISALIGNED(array):
        return cast(array, dtype)
    if array.descr is dtype:
        return array
    return array.view(dtype) if array.dtype == dtype else cast(array, dtype)


def cast(array, dtype, order="K"):
    """Return a copy of ``array`` with another dtype; numbers beyond its range become infinite."""
    with DefaultMode(), np.errstate(all="ignore"):
        return array.astype(dtype, order=order)


def contiguous(array, dtype):
    """Return ``array`` as a contiguous array of ``dtype``, copied only if it is not one already."""
    array = native(array, dtype)
    return array if array.flags.c_contiguous else array.copy(order="C")


cdef cnp.ndarray class_last(cnp.ndarray array, int axis):
    """Return a view of ``array`` with its class axis last."""
    cdef int d
    if axis == array.ndim - 1:
        return array
    return array.transpose([d for d in range(array.ndim) if d != axis] + [axis])


# ---------------------------------------------------------------- memory


cdef bint overlap(cnp.ndarray a, cnp.ndarray b) except -1:
    """Return whether two arrays share memory; True if that would take long to find out."""
    cdef char *a_begin
    cdef char *a_end
    cdef char *b_begin
    cdef char *b_end
    find_bounds(a, &a_begin, &a_end)
    find_bounds(b, &b_begin, &b_end)
    if a_end <= b_begin or b_end <= a_begin:
        return False
    try:
        return np.shares_memory(a, b, max_work=10_000)
    except np.exceptions.TooHardError:
        return True


cdef void find_bounds(cnp.ndarray array, char **begin, char **end) noexcept:
    """Set ``begin`` and ``end`` to the first byte of an array, and to the one after its last."""
    cdef ptrdiff_t last
    cdef int d
    begin[0] = end[0] = cnp.PyArray_BYTES(array)
    if array.size == 0:
        return
    end[0] += cnp.PyArray_ITEMSIZE(array)
    for d in range(array.ndim):
        last = (array.shape[d] - 1) * array.strides[d]
        if last < 0:
            begin[0] += last
        else:
            end[0] += last


cdef bint same_memory(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Return whether two arrays have the same address, shape and strides."""
    return a is b or (
        cnp.PyArray_BYTES(a) == cnp.PyArray_BYTES(b)
        and a.ndim == b.ndim
        and cnp.PyArray_CompareLists(a.strides, b.strides, a.ndim)
        and cnp.PyArray_CompareLists(a.shape, b.shape, a.ndim)
    )


cdef copy_if_overlapping(array, out, bint by_row=True):
    """Return ``array``, or a copy if writing ``out`` row by row would change what is read later.

    An array that is read ``by_row`` may be the same memory as ``out``: each row is read before it
    is written. Class weights and the parts of a sparse target are read in another order.
    """
    if out is None:
        return array
    if isinstance(array, tuple):  # the parts of a sparse target
        return tuple([copy_if_overlapping(part, out, False) for part in array])
    if not cnp.PyArray_Check(array) or (by_row and same_memory(array, out)):
        return array
    return array.copy() if overlap(array, out) else array


cdef cnp.ndarray workspace(cnp.ndarray like, cnp.dtype dtype, out):
    """Return the array for the core to write: ``out`` if it has that dtype and is aligned, or a new
    one with the shape and layout of ``like``."""
    if out is not None:
        out = np.asarray(out)
        if out.dtype == dtype and cnp.PyArray_ISALIGNED(out):
            return out
    Py_INCREF(dtype)  # NumPy takes this reference
    return PyArray_NewLikeArray(like, cnp.NPY_KEEPORDER, <void *>dtype, False)


cdef copy_to_out(cnp.ndarray work, out):
    """Copy the result into the caller's ``out`` and return that; without ``out``, the result."""
    if out is None:
        return work
    if not same_memory(out, work):
        out[...] = work
    return out
