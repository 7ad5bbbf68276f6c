"""The functions of one row, called through their addresses, and the examples of their page."""

import ctypes
import re
from functools import cache
from pathlib import Path

import numpy as np

import cysoftmax

PAGE = (Path(__file__).parents[1] / "docs" / "compiled.md").read_text()
POINTER, SIZE = ctypes.c_void_p, ctypes.c_ssize_t
VECTOR = (POINTER, SIZE)  # where numbers begin, and their stride
REAL = {"f32": ctypes.c_float, "f64": ctypes.c_double}
DTYPES = {"f32": np.float32, "f64": np.float64}

# Of each function, whether it returns a number; its arguments after x, n and the stride; and the
# call for an array of one dimension that must give the same bits: number, and output.
FUNCTIONS = {
    "softmax": (False, VECTOR, lambda x: (None, cysoftmax.softmax(x))),
    "log_softmax": (False, VECTOR, lambda x: (None, cysoftmax.log_softmax(x))),
    "logsumexp": (True, (), lambda x: (cysoftmax.logsumexp(x), None)),
    "cross_entropy": (
        True,
        (SIZE,),
        lambda x, y: (cysoftmax.cross_entropy(x, y, reduction="none"), None),
    ),
    "cross_entropy_grad": (
        False,
        (SIZE, *VECTOR),
        lambda x, y: (None, cysoftmax.cross_entropy_grad(x, y, reduction="none")),
    ),
    "cross_entropy_with_grad": (
        True,
        (SIZE, *VECTOR),
        lambda x, y: cysoftmax.cross_entropy_with_grad(x, y, reduction="none"),
    ),
    "softmax_vjp": (False, (*VECTOR, *VECTOR), lambda p, v: (None, cysoftmax.softmax_vjp(p, v))),
}
WITH_OUTPUT = [name for name, (_, after, _) in FUNCTIONS.items() if after[-2:] == VECTOR]
WITH_LABEL = [name for name, (_, after, _) in FUNCTIONS.items() if after[:1] == (SIZE,)]
NAMES = [f"{name}_{kind}" for name in FUNCTIONS for kind in REAL]


@cache
def function(name, kind):
    """A function of one row, as ctypes calls it: without the GIL."""
    returns, after, _ = FUNCTIONS[name]
    prototype = ctypes.CFUNCTYPE(REAL[kind] if returns else None, POINTER, SIZE, SIZE, *after)
    return prototype(cysoftmax.address_of(f"{name}_{kind}"))


def vector(array):
    return array.ctypes.data, array.strides[0] // array.itemsize if array.size else 1


def call(name, x, second=None, out=None):
    """Call a function for the row x, which may be strided, with a label or v, and write into
    `out`. Return the number that it returns, or None."""
    kind = "f32" if x.dtype == np.float32 else "f64"
    start, stride = vector(x)
    arguments = [start, x.size, stride]
    if name == "softmax_vjp":
        arguments += vector(second)
    elif second is not None:
        arguments.append(second)
    if out is not None:
        arguments += vector(out)
    return function(name, kind)(*arguments)


def of_arrays(name, *given):
    """What the function for arrays gives for one row: a number, or None; an output, or None."""
    number, output = FUNCTIONS[name][2](*given)
    return None if number is None else number[()], output


def examples():
    """The files of docs/compiled.md, by their names, which the first line of each has."""
    blocks = re.findall(r"^```[\w+]+\n(?:#|//|/\*) ([\w.]+).*?\n(.*?)^```$", PAGE, re.M | re.S)
    return dict(blocks)
