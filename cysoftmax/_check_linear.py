"""Arguments of linear_cross_entropy: X, W, bias, `wrt`, `out`, `chunk_rows`.

Those that other functions have as well are checked by check_loss_of_chunks (_calls.pyx).
"""

import numpy as np

from cysoftmax._calls import apart, convert

NAMES = ("W", "bias", "X")  # what gradients there are


def is_sparse(X):
    return hasattr(X, "tocsr") and not isinstance(X, np.ndarray)


def fits_blas(matrix):
    """Return whether BLAS takes a matrix as it lies: one axis side by side, the other in steps."""
    (n, m), (row, column), item = matrix.shape, matrix.strides, matrix.itemsize
    steps = (row, m) if column == item else (column, n) if row == item else (0, 1)
    whole = steps[0] % item == 0 and steps[0] >= steps[1] * item
    return whole and matrix.flags.aligned and matrix.dtype.isnative


def matrix(value, name, ndim):
    array = convert(value, name)
    if array.dtype.kind != "f" or array.itemsize not in (4, 8):
        raise TypeError(f"{name} must be float32 or float64; got dtype {array.dtype}")
    if array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimensions; got shape {array.shape}")
    return array


def features(value):
    if not is_sparse(value):
        return matrix(value, "X", 2)
    if getattr(value, "format", None) != "csr":
        raise TypeError(
            "X must be in CSR format if it is sparse (its method .tocsr() converts it); "
            f"got {type(value).__name__}"
        )
    matrix(value.data, "X's data", 1)
    if len(value.shape) != 2:
        raise ValueError(f"X must have 2 dimensions; got shape {value.shape}")
    return value


def bias(value, W):
    if value is None:
        return None
    bias = convert(value, "bias")
    if isinstance(value, list | tuple) and bias.dtype.kind in "iuf":  # of Python numbers
        bias = bias.astype(W.dtype.newbyteorder("="))
    if bias.dtype.newbyteorder("=") != W.dtype.newbyteorder("="):
        raise TypeError(f"bias must have the dtype of W, {W.dtype}; got {bias.dtype}")
    if bias.shape != W.shape[1:]:
        raise ValueError(
            f"bias must have shape {W.shape[1:]}, one number for each class; got {bias.shape}"
        )
    return bias


def wrt(wrt):
    if not isinstance(wrt, tuple | list | set | frozenset):
        raise TypeError(
            f"wrt must be a tuple of names out of 'W', 'bias' and 'X'; got {type(wrt).__name__}"
        )
    for name in wrt:
        if name not in NAMES:
            raise ValueError(f"wrt must hold no names but 'W', 'bias' and 'X'; got {name!r}")
    return wrt


def outs(out, shapes, dtype):
    """Return the caller's arrays by the names of gradients, which are wanted in these shapes."""
    if out is None:
        return {}
    if not isinstance(out, dict):
        raise TypeError(
            f"out must be a dict of arrays by the names in wrt; got {type(out).__name__}"
        )
    for name, array in out.items():
        if name not in shapes:
            raise ValueError(f"out must hold none but gradients that are wanted; got {name!r}")
        shape, about = shapes[name], f"out[{name!r}]"
        if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
            raise TypeError(f"{about} must be an ndarray; got {type(array).__name__}")
        if array.dtype.newbyteorder("=") != dtype:
            raise TypeError(f"{about} must have dtype {dtype}; got {array.dtype}")
        if array.shape != shape:
            raise ValueError(f"{about} must have shape {shape}; got {array.shape}")
        if not array.flags.writeable:
            raise ValueError(f"{about} must be writeable; got a read-only array")
    arrays = list(out.values())
    for k, array in enumerate(arrays):
        if apart(array, arrays[:k]) is not array:
            raise ValueError("out must be arrays that do not overlap; got overlapping ones")
    return out


def chunk_rows(chunk_rows):
    if chunk_rows is None:
        return None
    if not isinstance(chunk_rows, int | np.integer) or isinstance(chunk_rows, bool):
        raise TypeError(f"chunk_rows must be None or an integer; got {type(chunk_rows).__name__}")
    if chunk_rows < 1:
        raise ValueError(f"chunk_rows must be at least 1; got {chunk_rows}")
    return int(chunk_rows)


def inputs_apart(X, W, bias, outs):
    """Return X, W and the bias as the products want them, apart from the arrays `outs`."""
    others = [array for name, array in outs.items() if name != "X"]
    if is_sparse(X):
        if apart(X.data, outs.values()) is not X.data:
            X = X.copy()
        W = np.ascontiguousarray(W, W.dtype.newbyteorder("="))
    else:
        ours = outs.get("X")
        in_place = ours is not None and same_memory(X, ours)
        X = apart(X, others if in_place else outs.values())
        if not fits_blas(W):
            W = np.array(W, W.dtype.newbyteorder("="), order="C")
    return X, apart(W, outs.values()), bias if bias is None else apart(bias, outs.values())


def same_memory(a, b):
    return a.ctypes.data == b.ctypes.data and a.shape == b.shape and a.strides == b.strides
