# cython: language_level=3
"""Arguments: check them, convert them to what the core wants, or raise an error.

Every error names the argument, what was expected and what was given. The core gets arrays in
native byte order, aligned, and with the class axis last.

This is compiled Python. The functions that every call needs are C functions that use NumPy's C
interface: of an ndarray x, x.ndim and x.size cost nothing here, and x.shape is a pointer.
"""

cimport cython
cimport numpy as cnp
from libc.stdint cimport int32_t, int64_t

import operator
from numbers import Real

import numpy as np

from cysoftmax._core import DefaultMode

cnp.import_array()

cdef extern from "numpy/arrayobject.h":
    # A new array with the shape and layout of `prototype`, and its dtype if `dtype` is NULL.
    cnp.ndarray PyArray_NewLikeArray(cnp.ndarray prototype, cnp.NPY_ORDER order, void *dtype,
                                     int subok)

cdef cnp.dtype FLOAT = np.dtype(np.float32)
cdef cnp.dtype DOUBLE = np.dtype(np.float64)
REAL = (FLOAT, DOUBLE)
INDEX = (np.dtype(np.int32), np.dtype(np.int64))

LARGEST = float(np.finfo(np.float64).max)
# Temperatures from here to the reciprocal: 1 / temperature has all of its digits in a float32, and
# a difference of logits that overflows belongs to an exp that is 0.
LEAST_TEMPERATURE = 2.0**-60

# The errors of a conversion to an array: of sequences of unequal length, arrays on a GPU, ...
CONVERSION_ERRORS = (TypeError, ValueError, RuntimeError, BufferError)


@cython.final
@cython.freelist(4)
cdef class Options:
    """The options of a loss: as the caller gave them, until check_options converts them.

    make_options takes them by name and check_options reads them by name, so that no two of them
    can be exchanged. What they are after the check is in _checks.pxd.
    """


def make_options(
    *, class_weight=None, sample_weight=None, ignore_index=None, label_smoothing=0.0, z_loss=0.0,
    temperature=1.0, where=None,
):
    """Return Options that are not checked yet, or None if all of them are the defaults."""
    if (
        class_weight is sample_weight is ignore_index is where is None
        and type(label_smoothing) is type(z_loss) is type(temperature) is float
        and label_smoothing == z_loss == 0
        and temperature == 1
    ):
        return None
    cdef Options options = Options.__new__(Options)
    options.class_weight = class_weight
    options.sample_weight = sample_weight
    options.ignore_index = ignore_index
    options.label_smoothing = label_smoothing
    options.z_loss = z_loss
    options.temperature = temperature
    options.where = where
    return options


cdef bint is_half(cnp.dtype dtype) except -1:
    """Return whether a dtype is float16 or bfloat16 (of the package ml_dtypes)."""
    return dtype.itemsize == 2 and (dtype.kind == c"f" or dtype.name == "bfloat16")


cdef cnp.dtype compute_dtype(cnp.dtype dtype):
    """Return the dtype that logits of ``dtype`` are computed in: float32 or float64."""
    return DOUBLE if dtype.itemsize == 8 else FLOAT


cdef cnp.dtype native_order(cnp.dtype dtype):
    """Return a dtype with this machine's byte order in place of its own."""
    return dtype if cnp.PyDataType_ISNOTSWAPPED(dtype) else dtype.newbyteorder("=")


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
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name} must have no mask; got a masked array (.filled() makes a plain array of it)"
        )
    try:
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        return np.asarray(value)
    except CONVERSION_ERRORS as error:
        # The class itself, since a subclass may not accept a message as its only argument.
        kind = next(kind for kind in CONVERSION_ERRORS if isinstance(error, kind))
        raise kind(f"{name} must be an array; got {type(value).__name__}: {error}") from error


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


cdef cnp.ndarray check_logits(value, name="x"):
    """Return logits as a native array of float32, float64, float16 or bfloat16."""
    cdef cnp.ndarray array = as_array(value, name)
    cdef cnp.dtype dtype = array.descr
    if dtype.kind in b"iu":
        dtype = DOUBLE
    elif dtype.kind == c"f" and dtype.itemsize in (4, 8):
        dtype = compute_dtype(dtype)
    elif is_half(dtype):
        dtype = native_order(dtype)
    else:
        came = "" if array is value else f"{type(value).__name__}, "
        raise TypeError(
            f"{name} must be float32, float64, float16, bfloat16 or integer; "
            f"got {came}dtype {dtype}"
        )
    if array.ndim == 0:
        raise ValueError(f"{name} must have at least one dimension; got a scalar")
    return native(array, dtype)


cdef int check_axis(axis, int ndim) except -1:
    """Return the axis as a number from 0 to ndim - 1."""
    cdef Py_ssize_t position
    try:
        position = axis
    except TypeError:
        raise TypeError(f"axis must be an integer; got {axis!r}") from None
    except OverflowError:
        position = ndim
    if not -ndim <= position < ndim:
        raise np.exceptions.AxisError(f"axis must lie in [{-ndim}, {ndim}); got {axis}")
    return <int>(position if position >= 0 else position + ndim)


cdef cnp.ndarray class_last(cnp.ndarray array, int axis):
    """Return a view of ``array`` with its class axis last."""
    cdef int d
    if axis == array.ndim - 1:
        return array
    return array.transpose([d for d in range(array.ndim) if d != axis] + [axis])


cdef int check_out(out, tuple shape, cnp.dtype dtype) except -1:
    """Raise an error unless ``out`` is a writeable array of that shape and dtype."""
    if not cnp.PyArray_Check(out):
        raise TypeError(f"out must be an ndarray; got {type(out).__name__}")
    if native_order(out.dtype) != dtype:
        raise TypeError(f"out must have dtype {dtype}; got {out.dtype}")
    if out.shape != shape:
        raise ValueError(f"out must have shape {shape}; got {out.shape}")
    if not cnp.PyArray_ISWRITEABLE(out):
        raise ValueError("out must be writeable; got a read-only array")
    return 0


def check_pair(out):
    """Return the two arrays of a pair of outputs, or None twice. check_out checks each later."""
    if out is None:
        return None, None
    if not isinstance(out, tuple | list) or len(out) != 2 or any(a is None for a in out):
        came = ""
        if isinstance(out, tuple | list):
            came = f" of length {len(out)}" if len(out) != 2 else " with None in it"
        raise TypeError(
            f"out must be a pair of arrays (grad, hess); got {type(out).__name__}{came}"
        )
    grad, hess = out
    if cnp.PyArray_Check(grad) and cnp.PyArray_Check(hess) and overlap(grad, hess):
        raise ValueError("out must be two arrays that do not overlap; got overlapping ones")
    return grad, hess


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


cdef int copy_overlapping_options(Options options, out) except -1:
    """Replace the arrays among the options that overlap ``out`` by copies."""
    if options is not None:
        options.class_weight = copy_if_overlapping(options.class_weight, out, False)
        options.sample_weight = copy_if_overlapping(options.sample_weight, out)
        options.where = copy_if_overlapping(options.where, out)
    return 0


cdef cnp.ndarray workspace(cnp.ndarray like, out):
    """Return the array for the core to write: ``out`` if possible, or a new one like ``like``."""
    if out is not None:
        out = np.asarray(out)
        if out.dtype == like.dtype and cnp.PyArray_ISALIGNED(out):
            return out
    return PyArray_NewLikeArray(like, cnp.NPY_KEEPORDER, NULL, False)


cdef copy_to_out(cnp.ndarray work, out):
    """Copy the result into the caller's ``out`` and return that; without ``out``, the result."""
    if out is None:
        return work
    if not same_memory(out, work):
        out[...] = work
    return out


cdef check_threads(n_threads):
    """Return the bound on the number of threads: None, or an int from 1 to 4096."""
    if n_threads is None:
        return None
    try:
        bound = operator.index(n_threads)
    except TypeError:
        bound = None
    if bound is None or isinstance(n_threads, bool):
        raise TypeError(f"n_threads must be None or an integer; got {type(n_threads).__name__}")
    if bound < 1:
        raise ValueError(f"n_threads must be at least 1; got {bound}")
    return min(bound, 4096)


cdef check_number(value, name, low=None, high=None):
    """Return a scalar option as a float. If bounds are given, raise an error outside of them."""
    if cnp.PyArray_Check(value) and value.ndim == 0:
        value = value[()]
    if type(value) is not float and (not isinstance(value, Real) or isinstance(value, bool)):
        raise TypeError(f"{name} must be a real number; got {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"{name} must be within the range of float64; got {value}") from None
    if low is not None and not low <= number <= high:
        bounds = f"lie in [{low}, {high}]" if high < LARGEST else f"be finite and >= {low}"
        raise ValueError(f"{name} must {bounds}; got {value}")
    return number


cdef check_temperature(value):
    """Return the temperature as a float; raise an error if it is out of range."""
    temperature = check_number(value, "temperature")
    if not LEAST_TEMPERATURE <= temperature <= 1 / LEAST_TEMPERATURE:
        raise ValueError(f"temperature must lie in [2**-60, 2**60]; got {value}")
    return temperature


cdef as_numbers(value, name):
    """Return ``value`` as an array; raise an error unless its dtype is integer or float."""
    array = as_array(value, name)
    if array.dtype.kind not in "iuf" and not is_half(array.dtype):
        raise TypeError(f"{name} must have an integer or float dtype; got dtype {array.dtype}")
    return array


def broadcast_to(array, name, shape, whose):
    """Return a read-only view of ``array`` with that shape, which is the shape of ``whose``."""
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(
            f"{name} must broadcast to the shape of {whose}, {shape}; got shape {array.shape}"
        ) from None


def check_weights(array, name):
    """Raise an error unless all entries of ``array`` are finite and >= 0."""
    with DefaultMode(), np.errstate(all="ignore"):
        good = not array.size or (array.min() >= 0 and array.max() < np.inf)
    if not good:
        bad = np.argwhere(~((array >= 0) & (array < np.inf)))[0]
        at = f" at index {tuple(int(i) for i in bad)}" if array.ndim else ""
        raise ValueError(f"{name} must be finite and >= 0; got {array[tuple(bad)]}{at}")


def check_class_weight(value, x, axis):
    """Return the weights of the classes as a contiguous array, in the dtype computed in."""
    array = as_numbers(value, "class_weight")
    if array.shape != (x.shape[axis],):
        raise ValueError(
            f"class_weight must have shape {(x.shape[axis],)}, one number for each class; "
            f"got shape {array.shape}"
        )
    check_weights(native(array, DOUBLE) if array.dtype not in REAL else array, "class_weight")
    weight = contiguous(array, compute_dtype(x.dtype))
    with DefaultMode():
        fits = weight.size == 0 or weight.max() < np.inf
    if not fits:
        raise ValueError(
            f"class_weight must be within the range of {weight.dtype}; got {array.max()}"
        )
    return weight


cdef per_row(value, name, cnp.ndarray x, int axis):
    """Return an option with one number for each row, as float64 of the shape of the rows."""
    rows = shape_without(x, axis)
    return broadcast_to(native(as_numbers(value, name), DOUBLE), name, rows, "the rows")


cdef check_scale(value, cnp.ndarray x, int axis):
    """Return the scale of the gradient: a float, or a float64 array with one for each row."""
    if type(value) is float:  # infinity and NaN are accepted
        return value
    if isinstance(value, Real):
        return check_number(value, "scale")
    array = as_array(value, "scale")
    if array.ndim == 0:
        return check_number(value, "scale")
    return per_row(array, "scale", x, axis)


def check_where(value, x, axis):
    """Return the mask, broadcast to the shape of x, with the class axis last."""
    mask = as_array(value, "where")
    if mask.dtype != bool:
        raise TypeError(f"where must be bool; got dtype {mask.dtype}")
    return class_last(broadcast_to(mask, "where", x.shape, "the logits"), axis)


def check_ignore_index(value, labels):
    """Return the label of ignored rows, or None if the dtype of the labels cannot hold it."""
    try:
        label = operator.index(value)
    except TypeError:
        label = None
    if label is None or isinstance(value, bool | np.bool):
        raise TypeError(f"ignore_index must be None or an integer; got {value!r}")
    if labels is None:
        raise ValueError(
            f"ignore_index must be None unless target holds class indices (in a distribution, a "
            f"row of zeros is ignored); got {value}"
        )
    limits = np.iinfo(labels.dtype)
    return label if limits.min <= label <= limits.max else None


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
    data, classes, indptr = (np.asarray(a) for a in (matrix.data, matrix.indices, matrix.indptr))
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


cdef check_target(value, cnp.ndarray x, int axis):
    """Return the target with its class axis last, and whether it holds class indices.

    Class indices keep their integer dtype, and a distribution keeps bool, integers and floats.
    A sparse target is returned as a tuple of its arrays.
    """
    cdef cnp.ndarray target
    cdef cnp.dtype dtype
    if not cnp.PyArray_CheckExact(value) and hasattr(value, "tocsr"):
        with DefaultMode():  # NumPy changes the floating-point flags; this restores them
            return check_sparse(value, x, axis), False
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise IndexError(f"target must lie in [0, {x.shape[axis]}); got {value}")
    if value is None:
        raise TypeError("target must be class indices or a distribution; got None")
    target = as_array(value, "target")
    dtype = target.descr
    if target.ndim == x.ndim - 1:
        if target.size == 0 and not cnp.PyArray_Check(value):
            target = target.astype(np.intp)  # an empty list says nothing about its dtype
            dtype = target.descr
        if dtype.kind not in b"iu":
            raise TypeError(
                f"target must hold integers if it holds class indices (one dimension less than "
                f"logits); got dtype {dtype}"
            )
        check_target_shape(target, x, axis)
        return native(target, native_order(dtype)), True
    check_target_shape(target, x, axis)
    if dtype.kind not in b"biuf" and not is_half(dtype):
        raise TypeError(
            f"target must be bool, integer or float if it is a distribution; got dtype {dtype}"
        )
    return class_last(native(target, readable_dtype(dtype)), axis), False


cdef cnp.dtype readable_dtype(cnp.dtype dtype):
    """Return the dtype in which the core reads a distribution of that dtype: in native order, and
    float64 for a long double."""
    dtype = native_order(dtype)
    return DOUBLE if dtype.kind == c"f" and dtype.itemsize > 8 else dtype


cdef int check_target_shape(cnp.ndarray target, cnp.ndarray x, int axis) except -1:
    """Raise an error unless target has the shape of the logits, with or without the axis."""
    cdef bint same
    if target.ndim == x.ndim:
        same = cnp.PyArray_CompareLists(target.shape, x.shape, x.ndim)
    else:
        same = (
            target.ndim == x.ndim - 1
            and cnp.PyArray_CompareLists(target.shape, x.shape, axis)
            and cnp.PyArray_CompareLists(target.shape + axis, x.shape + axis + 1, x.ndim - 1 - axis)
        )
    if not same:
        raise ValueError(
            f"target must have shape {shape_without(x, axis)} (class indices) or "
            f"{shape_of(x)} (a distribution); got {shape_of(target)}, with axis={axis}"
        )
    return 0


cdef int check_options(Options options, cnp.ndarray x, int axis, labels) except -1:
    """Check the options and convert them, in place, to what the core wants.

    ``labels`` are the class indices that `ignore_index` is about, or None.
    """
    if options is None:
        return 0
    if options.class_weight is not None:
        options.class_weight = check_class_weight(options.class_weight, x, axis)
    if options.sample_weight is not None:
        options.sample_weight = per_row(options.sample_weight, "sample_weight", x, axis)
        check_weights(options.sample_weight, "sample_weight")
    if options.ignore_index is not None:
        options.ignore_index = check_ignore_index(options.ignore_index, labels)
    options.label_smoothing = check_number(options.label_smoothing, "label_smoothing", 0.0, 1.0)
    options.z_loss = check_number(options.z_loss, "z_loss", 0.0, LARGEST)
    options.temperature = check_temperature(options.temperature)
    if options.where is not None:
        options.where = check_where(options.where, x, axis)
    return 0


def raise_bad_label(target, n_classes, Options options):
    """Raise the IndexError for the first label outside [0, n_classes) that is not ignored."""
    bad = ()
    if not isinstance(target, tuple):  # check_sparse has checked the classes of a sparse one
        outside = (target < 0) | (target >= n_classes)
        if options is not None and options.ignore_index is not None:
            outside &= target != options.ignore_index
        bad = np.argwhere(outside)
    if len(bad) == 0:
        raise IndexError(f"target must lie in [0, {n_classes}); it was changed during the call")
    where = tuple(int(i) for i in bad[0])
    value = int(target[where])
    at = f" at index {where}" if where else ""
    raise IndexError(f"target must lie in [0, {n_classes}); got {value}{at}")
