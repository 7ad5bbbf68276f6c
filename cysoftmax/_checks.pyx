# cython: language_level=3
"""Arguments: check them, convert them to what the core wants, or raise an error.

Every error names the argument, what was expected and what was given. The core gets arrays in
native byte order, aligned, and with the class axis last.

This is compiled Python. The functions that every call needs are C functions that use NumPy's C
interface: of an ndarray x, x.ndim and x.size cost nothing here, and x.shape is a pointer.
"""

cimport cython
cimport numpy as cnp
from libc.math cimport INFINITY

from cysoftmax._arrays cimport (
    DOUBLE, FLOAT, as_array, class_last, compute_dtype, copy_if_overlapping, is_half, native,
    native_order, overlap, readable_dtype, refuse_mask, shape_of, shape_without)
from cysoftmax._core cimport active
from cysoftmax._kernels cimport fp_enter, fp_leave, fp_mode

import operator
from numbers import Real

import numpy as np

from cysoftmax._arrays import contiguous
from cysoftmax._check_sparse import check_sparse
from cysoftmax._core import DefaultMode

cnp.import_array()

LARGEST = float(np.finfo(np.float64).max)
CHECKED_NUMBERS = 2**14  # of any dtype and layout: as many are converted at a time
# Weights from here to the reciprocal need no exponents of their own in the core.
MODERATE = 2.0**-25
# The smallest float64 that is rounded to an infinite float32.
INFINITE_FLOAT = (2 - 2.0**-24) * 2.0**127
# The largest class weight, by the dtype computed in, from which no exponent is taken out: products
# with masses, factors and all other weights then stay within the range of the dtype.
CLASS_WEIGHTS = {"f": (2.0**-30, 2.0**100), "d": (2.0**-300, 2.0**900)}
# Temperatures from here to the reciprocal: 1 / temperature has all of its digits in a float32, and
# a difference of logits that overflows belongs to an exp that is 0.
LEAST_TEMPERATURE = 2.0**-60


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


cdef as_integer(value):
    """Return ``value`` as an int, or None if it is no integer; a bool is none."""
    if type(value) is int:
        return value
    if isinstance(value, bool | np.bool | np.ma.MaskedArray):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


cdef int check_axis(axis, int ndim) except -1:
    """Return the axis as a number from 0 to ndim - 1."""
    cdef Py_ssize_t position
    index = as_integer(axis)
    if index is None:
        raise TypeError(f"axis must be an integer; got {axis!r}")
    try:
        position = index
    except OverflowError:
        position = ndim
    if not -ndim <= position < ndim:
        raise np.exceptions.AxisError(f"axis must lie in [{-ndim}, {ndim}); got {axis}")
    return <int>(position if position >= 0 else position + ndim)


cdef int check_out(out, tuple shape, cnp.dtype dtype) except -1:
    """Raise an error unless ``out`` is a writeable array of that shape and dtype."""
    if not cnp.PyArray_Check(out):
        raise TypeError(f"out must be an ndarray; got {type(out).__name__}")
    if not cnp.PyArray_CheckExact(out):
        refuse_mask(out, "out", "its .data is a plain array")
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


cdef int copy_overlapping_options(Options options, out) except -1:
    """Replace the arrays among the options that overlap ``out`` by copies."""
    if options is not None:
        options.class_weight = copy_if_overlapping(options.class_weight, out, False)
        options.sample_weight = copy_if_overlapping(options.sample_weight, out)
        options.where = copy_if_overlapping(options.where, out)
    return 0


cdef check_threads(n_threads):
    """Return the bound on the number of threads: None, or an int from 1 to 4096."""
    if n_threads is None:
        return None
    bound = as_integer(n_threads)
    if bound is None:
        raise TypeError(f"n_threads must be None or an integer; got {type(n_threads).__name__}")
    if bound < 1:
        raise ValueError(f"n_threads must be at least 1; got {bound}")
    return min(bound, 4096)


cdef check_number(value, name, low=None, high=None):
    """Return a scalar option as a float. If bounds are given, raise an error outside of them."""
    if cnp.PyArray_Check(value) and value.ndim == 0:
        refuse_mask(value, name, "float() makes a number of it")
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


cdef as_numbers(value, name, bint or_bool=False):
    """Return ``value`` as an array; raise an error unless its dtype is integer or float (or bool,
    with ``or_bool``)."""
    array = as_array(value, name)
    kinds = "biuf" if or_bool else "iuf"
    if array.dtype.kind not in kinds and not is_half(array.dtype):
        expected = "a bool, integer" if or_bool else "an integer"
        raise TypeError(f"{name} must have {expected} or float dtype; got dtype {array.dtype}")
    return array


def broadcast_to(array, name, shape, whose):
    """Return a read-only view of ``array`` with that shape, which is the shape of ``whose``."""
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(
            f"{name} must broadcast to the shape of {whose}, {shape}; got shape {array.shape}"
        ) from None


def check_weights(cnp.ndarray array, name):
    """Raise an error unless all entries of `array` are finite and >= 0; return the smallest, the
    smallest that is not 0 (infinity if there is none), and the largest."""
    cdef ptrdiff_t n = cnp.PyArray_SIZE(array), k = 0
    cdef double[3] found
    cdef double least = INFINITY, above_0 = INFINITY, most = 0
    cdef cnp.ndarray numbers = array if array.ndim == 1 else array.ravel(order="K")
    cdef bint whole = numbers.dtype == DOUBLE and cnp.PyArray_ISCARRAY_RO(numbers), good = True
    while good and k < n:
        piece = numbers if whole else numbers[k : k + CHECKED_NUMBERS].astype(DOUBLE)  # aligned
        good = extent_of(piece, found)
        least, above_0, most = min(least, found[0]), min(above_0, found[1]), max(most, found[2])
        k += cnp.PyArray_SIZE(piece)
    if not good:
        bad = np.argwhere(~((array >= 0) & (array < np.inf)))[0]
        at = f" at index {tuple(int(i) for i in bad)}" if array.ndim else ""
        raise ValueError(f"{name} must be finite and >= 0; got {array[tuple(bad)]}{at}")
    return (least, above_0, most) if n > 0 else (1.0, 1.0, 1.0)


cdef bint extent_of(cnp.ndarray numbers, double *found) noexcept:
    """Find the extent of an aligned contiguous array of float64; return whether it has one."""
    cdef fp_mode mode = fp_enter()
    cdef bint good
    with nogil:
        good = active.doubles.extent(<const double *>cnp.PyArray_DATA(numbers),
                                     cnp.PyArray_SIZE(numbers), found)
    fp_leave(mode)
    return good


def check_class_weight(value, x, axis):
    """Return the weights of the classes as a contiguous array, in the dtype computed in; the
    exponent of the power of two that they are to be multiplied by; whether all are moderate."""
    if isinstance(value, str | dict):
        came = repr(value) if isinstance(value, str) else f"a {type(value).__name__}"
        raise TypeError(f"class_weight must hold one number for each class, in order; got {came}")
    array = as_numbers(value, "class_weight")
    if array.shape != (x.shape[axis],):
        raise ValueError(
            f"class_weight must have shape {(x.shape[axis],)}, one number for each class; "
            f"got shape {array.shape}"
        )
    smallest, _, largest = check_weights(
        array if array.dtype in (FLOAT, DOUBLE) else native(array, DOUBLE), "class_weight")
    weight = contiguous(array, compute_dtype(x.dtype))
    if weight.dtype == FLOAT and largest >= INFINITE_FLOAT:
        raise ValueError(
            f"class_weight must be within the range of {weight.dtype}; got {array.max()}"
        )
    least, most = CLASS_WEIGHTS[weight.dtype.char]
    if least <= largest <= most:
        return weight, 0, MODERATE <= smallest and largest < 1 / MODERATE
    return *without_exponent(array, weight.dtype, most), False


def without_exponent(array, dtype, most):
    """Return class weights divided by a power of two, and its exponent. The largest becomes about
    1 if it is small, and about `most` if it is large: small ones may be beside it."""
    with DefaultMode(), np.errstate(all="ignore"):
        array = array.astype(np.float64)
        exponent = int(np.frexp(array.max(initial=0))[1])
        if exponent > 0:
            exponent -= int(np.log2(most))
        return np.ldexp(array, -exponent).astype(dtype), exponent


cdef per_row(value, name, cnp.ndarray x, int axis, bint or_bool=False):
    """Return an option with one number for each row, as float64 of the shape of the rows."""
    rows = shape_without(x, axis)
    array = native(as_numbers(value, name, or_bool), DOUBLE)
    return broadcast_to(array, name, rows, "the rows")


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
    label = as_integer(value)
    if label is None:
        raise TypeError(f"ignore_index must be None or an integer; got {value!r}")
    if labels is None:
        raise ValueError(
            f"ignore_index must be None unless target holds class indices (in a distribution, a "
            f"row of zeros is ignored); got {value}"
        )
    limits = np.iinfo(labels.dtype)
    return label if limits.min <= label <= limits.max else None


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
            cure = " (.astype(int) converts it)" if dtype.kind == c"f" or is_half(dtype) else ""
            raise TypeError(
                f"target must hold integers if it holds class indices (one dimension less than "
                f"logits); got dtype {dtype}{cure}"
            )
        check_target_shape(target, x, axis)
        return native(target, native_order(dtype)), True
    check_target_shape(target, x, axis)
    if dtype.kind not in b"biuf" and not is_half(dtype):
        raise TypeError(
            f"target must be bool, integer or float if it is a distribution; got dtype {dtype}"
        )
    return class_last(native(target, readable_dtype(dtype)), axis), False


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
        others = [d for d in range(x.ndim) if shape_without(x, d) == shape_of(target)]
        cure = f" (axis={others[0]} would fit)" if others else ""
        raise ValueError(
            f"target must have shape {shape_without(x, axis)} (class indices) or "
            f"{shape_of(x)} (a distribution); got {shape_of(target)}, with axis={axis}{cure}"
        )
    return 0


cdef cnp.ndarray check_labels(value, cnp.ndarray x, int axis):
    """Return the labels of rows of which x has only some of the classes, in their integer dtype."""
    cdef cnp.ndarray labels = as_array(value, "target")
    if labels.descr.kind not in b"iu":
        raise TypeError(f"target must hold integers; got dtype {labels.dtype}")
    if shape_of(labels) != shape_without(x, axis):
        raise ValueError(
            f"target must have shape {shape_without(x, axis)}; got {shape_of(labels)}")
    return native(labels, native_order(labels.descr))


def check_first_class(value):
    """Return the index of the first class of a block as an int."""
    first = as_integer(value)
    if first is None:
        raise TypeError(f"first_class must be an integer; got {value!r}")
    if not 0 <= first < 2**63:
        raise ValueError(f"first_class must lie in [0, 2**63); got {first}")
    return first


def check_reduction(value):
    """Return the reduction of a loss."""
    if not isinstance(value, str) or value not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none'; got {value!r}")
    return value


cdef int check_options(Options options, cnp.ndarray x, int axis, labels) except -1:
    """Check the options and convert them, in place, to what the core wants.

    ``labels`` are the class indices that `ignore_index` is about, or None.
    """
    if options is None:
        return 0
    options.moderate = True
    if options.class_weight is not None:
        options.class_weight, options.class_exponent, options.moderate = check_class_weight(
            options.class_weight, x, axis)
    if options.sample_weight is not None:
        options.sample_weight = per_row(options.sample_weight, "sample_weight", x, axis, True)
        least, above_0, most = check_weights(options.sample_weight, "sample_weight")
        options.sample_may_be_0 = least == 0        # such rows are ignored
        options.moderate &= MODERATE <= above_0 and most < 1 / MODERATE
    if options.ignore_index is not None:
        options.ignore_index = check_ignore_index(options.ignore_index, labels)
    options.label_smoothing = check_number(options.label_smoothing, "label_smoothing", 0.0, 1.0)
    options.z_loss = check_number(options.z_loss, "z_loss", 0.0, LARGEST)
    options.temperature = check_temperature(options.temperature)
    if options.where is not None:
        options.where = check_where(options.where, x, axis)
    return 0


cdef Options options_of_rows(Options options, Py_ssize_t begin, Py_ssize_t end):
    """Return checked options for the rows from `begin` to `end`, where logits have two dimensions
    and no mask."""
    if options is None or options.sample_weight is None:
        return options
    cdef Options some = Options.__new__(Options)
    some.class_weight = options.class_weight
    some.class_exponent = options.class_exponent
    some.sample_weight = options.sample_weight[begin:end]
    some.sample_may_be_0 = options.sample_may_be_0
    some.moderate = options.moderate
    some.ignore_index = options.ignore_index
    some.label_smoothing = options.label_smoothing
    some.z_loss = options.z_loss
    some.temperature = options.temperature
    return some


def raise_bad_label(target, n_classes, Options options):
    """Raise the IndexError for the first label outside [0, n_classes) that is not ignored; or for
    the first that is negative, if `n_classes` is None.

    Another thread may have changed the label since it was found, and may still do so here.
    """
    ignored = None if options is None else options.ignore_index
    expected = "be >= 0" if n_classes is None else f"lie in [0, {n_classes})"
    bad = ()
    if not isinstance(target, tuple):  # check_sparse has checked the classes of a sparse one
        outside = target < 0
        if n_classes is not None:
            outside |= target >= n_classes
        if ignored is not None:
            outside &= target != ignored
        bad = np.argwhere(outside)
    where = tuple(int(i) for i in bad[0]) if len(bad) else ()
    value = int(target[where]) if len(bad) else 0
    if value == ignored or 0 <= value < (2**64 if n_classes is None else n_classes):
        raise IndexError(f"target must {expected}; it was changed during the call")
    at = f" at index {where}" if where else ""
    cure = ""
    if ignored is None and value in (-1, -100):  # which other libraries ignore
        cure = f" (ignore_index={value} ignores such rows)"
    raise IndexError(f"target must {expected}; got {value}{at}{cure}")
