"""Arguments: what is accepted, what is made of it, and what is said otherwise.

Every error names the argument, what was expected and what came. The core gets arrays that
are native, aligned and have the class axis last.
"""

import operator
from numbers import Real

import numpy as np

REAL = (np.dtype(np.float32), np.dtype(np.float64))

# What the conversion to an array raises for sequences of unequal length, other devices, ...
CONVERSION_ERRORS = (TypeError, ValueError, RuntimeError, BufferError)


def check_not_yet(**options):
    """Refuse options that are part of the signature but not implemented yet."""
    for name, (value, default) in options.items():
        if value is not default and not (isinstance(value, Real) and value == default):
            raise NotImplementedError(f"{name} is not implemented yet; got {value!r}")


def as_array(value, name):
    """Return ``value`` as an ndarray: by ``__array__``, or by ``__dlpack__`` without that."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must have no mask; got a masked array (see its method filled)")
    if type(value) is np.ndarray:
        return value
    try:
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        return np.asarray(value)
    except CONVERSION_ERRORS as error:
        # A subclass of these may want other arguments than a message.
        kind = next(kind for kind in CONVERSION_ERRORS if isinstance(error, kind))
        raise kind(f"{name} must be an array; got {type(value).__name__}: {error}") from error


def native(array, dtype):
    """Return ``array`` itself if the core can read it as ``dtype``, or else a copy."""
    if array.dtype is dtype and array.flags.aligned:
        return array
    if array.dtype == dtype and array.flags.aligned:
        return array.view(dtype)
    with np.errstate(all="ignore"):
        return array.astype(dtype, order="K")


def check_logits(value, name="x"):
    """Return logits as an array of native float32 or float64."""
    array = as_array(value, name)
    kind = array.dtype.kind
    if kind in "iu":
        dtype = REAL[1]
    elif kind == "f" and array.dtype.itemsize in (4, 8):
        dtype = REAL[array.dtype.itemsize == 8]
    else:
        came = "" if array is value else f"{type(value).__name__}, "
        raise TypeError(
            f"{name} must be float32, float64 or integer; got {came}dtype {array.dtype}"
        )
    if array.ndim == 0:
        raise ValueError(f"{name} must have at least one dimension; got a scalar")
    return native(array, dtype)


def check_axis(axis, ndim):
    """Return the axis as a number from 0 to ndim - 1."""
    try:
        position = operator.index(axis)
    except TypeError:
        raise TypeError(f"axis must be an integer; got {axis!r}") from None
    if not -ndim <= position < ndim:
        raise np.exceptions.AxisError(f"axis must lie in [{-ndim}, {ndim}); got {axis}")
    return position % ndim


def class_last(array, axis):
    """Return a view with the class axis last."""
    return array if axis == array.ndim - 1 else np.moveaxis(array, axis, -1)


def check_out(out, shape, dtype):
    """Check that an array the caller gave can take a result of that shape and dtype."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be an ndarray; got {type(out).__name__}")
    if out.dtype.newbyteorder("=") != dtype:
        raise TypeError(f"out must have dtype {dtype}; got {out.dtype}")
    if out.shape != shape:
        raise ValueError(f"out must have shape {shape}; got {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out must be writeable; got a read-only array")


def same_memory(a, b):
    """Whether two arrays are the same elements in the same places."""
    return a is b or (
        a.__array_interface__["data"] == b.__array_interface__["data"]
        and a.strides == b.strides
        and a.shape == b.shape
    )


def apart_from(array, out):
    """Return ``array``, or a copy if writing ``out`` row by row would change later rows."""
    if out is None or not np.may_share_memory(array, out) or same_memory(array, out):
        return array
    return array.copy()


def workspace(like, out):
    """Return the array to compute into: ``out``, if the core can write it, or a new one."""
    out = None if out is None else np.asarray(out)
    if out is not None and out.dtype == like.dtype and out.flags.aligned:
        return out
    return np.empty_like(like, subok=False)


def delivered(work, out):
    """Return the caller's ``out`` with the result in it, or the new array if there is none."""
    if out is None:
        return work
    if not same_memory(out, work):
        out[...] = work
    return out


def check_threads(n_threads):
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


def check_number(value, name):
    """Return a scalar option as a float."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a real number; got {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} must be within the range of float64; got {value}") from None


def check_target(value, x, axis):
    """Return the target with its class axis last, and whether it holds labels.

    Labels keep their integer dtype; a distribution keeps bool, integers, float32, float64.
    """
    if hasattr(value, "tocsr"):
        raise NotImplementedError("a sparse target is not implemented yet")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise IndexError(f"target must lie in [0, {x.shape[axis]}); got {value}")
    if value is None:
        raise TypeError("target must be class indices or a distribution; got None")
    target = as_array(value, "target")
    kind = target.dtype.kind
    rows = x.shape[:axis] + x.shape[axis + 1 :]
    if target.ndim == x.ndim - 1:
        if target.size == 0 and not isinstance(value, np.ndarray):
            target, kind = target.astype(np.intp), "i"  # of a list, nothing is known
        if kind not in "iu":
            raise TypeError(
                f"target must hold integers if it holds class indices (one dimension less than "
                f"logits); got dtype {target.dtype}"
            )
        if target.shape != rows:
            raise ValueError(
                f"target must have shape {rows} (class indices) or {x.shape} (a distribution); "
                f"got {target.shape}"
            )
        return native(target, target.dtype.newbyteorder("=")), True
    if target.shape != x.shape:
        raise ValueError(
            f"target must have shape {rows} (class indices) or {x.shape} (a distribution); "
            f"got {target.shape}"
        )
    if kind not in "biuf":
        raise TypeError(
            f"target must be bool, integer or float if it is a distribution; "
            f"got dtype {target.dtype}"
        )
    dtype = target.dtype.newbyteorder("=")
    if kind == "f" and dtype not in REAL:
        dtype = REAL[1]
    return class_last(native(target, dtype), axis), False


def raise_bad_label(target, n_classes):
    """Raise the IndexError for the first label outside [0, n_classes)."""
    bad = np.argwhere((target < 0) | (target >= n_classes))
    if len(bad) == 0:
        raise IndexError(f"target must lie in [0, {n_classes}); it was changed while it was read")
    where = tuple(int(i) for i in bad[0])
    value = int(target[where])
    at = f" at index {where}" if where else ""
    raise IndexError(f"target must lie in [0, {n_classes}); got {value}{at}")
