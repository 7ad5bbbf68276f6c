"""`get_include` and `address_of`: the functions of one row for compiled code of others."""

from pathlib import Path

from cysoftmax import _row_functions


def get_include():
    """Return the folder of `cysoftmax.h`, for a compiler's option ``-I``.

    Returns
    -------
    str
        The path of the folder. It lies in the package that is imported.

    Notes
    -----
    The header is for extension modules in C and C++. It has the functions of one row (softmax,
    log_softmax, logsumexp, the loss of a label, its gradient, both of them, and the
    vector-Jacobian product), for float32 and float64, which run without the GIL, allocate nothing
    and have the bits of the functions for arrays. Cython needs no header: ``cimport cysoftmax``
    has the same functions. docs/compiled.md has an example for each language.

    Examples
    --------
    >>> import cysoftmax
    >>> from pathlib import Path
    >>> (Path(cysoftmax.get_include()) / "cysoftmax.h").is_file()
    True
    """
    return str(Path(__file__).parent / "include")


def address_of(name, /):
    """Return the address of a function of one row, for ctypes, cffi and numba.

    Parameters
    ----------
    name : str
        The name of the function in `cysoftmax.h` without ``cysoftmax_``: ``softmax``,
        ``log_softmax``, ``logsumexp``, ``cross_entropy``, ``cross_entropy_grad``,
        ``cross_entropy_with_grad`` or ``softmax_vjp``, each with ``_f32`` or ``_f64`` for the
        dtype.

    Returns
    -------
    int
        The address, which is valid until the process ends.

    Raises
    ------
    TypeError
        If `name` is not a string.
    ValueError
        If there is no function of that name.

    Notes
    -----
    The arguments are those that `cysoftmax.h` declares. They are not checked: a pointer to
    memory that is not there ends the process. Strides are counted in numbers, not in bytes.

    Examples
    --------
    >>> import ctypes
    >>> import numpy as np
    >>> import cysoftmax
    >>> pointer, size = ctypes.c_void_p, ctypes.c_ssize_t
    >>> prototype = ctypes.CFUNCTYPE(ctypes.c_double, pointer, size, size)
    >>> logsumexp = prototype(cysoftmax.address_of("logsumexp_f64"))
    >>> x = np.array([0.0, 0.0])
    >>> print(f"{logsumexp(x.ctypes.data, x.size, 1):.6f}")    # log 2
    0.693147
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string; got {type(name).__name__}")
    functions = _row_functions.__pyx_capi__
    if name not in functions:
        raise ValueError(f"name must be one of {', '.join(sorted(functions))}; got {name!r}")
    return _row_functions.address_in(functions[name])
