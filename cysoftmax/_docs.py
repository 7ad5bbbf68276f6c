"""What the docstrings of several functions have in common."""

import inspect

SHARED = {
    "x": """\
x : array_like of float32, float64 or integers
        Logits, of any shape with at least one dimension and in any memory layout. Integers
        are converted to float64. Anything with ``__array__`` or a CPU ``__dlpack__`` will do.
        Read where it is: copied only if it is byte-swapped, misaligned or of integers.""",
    "axis": """\
axis : int, default -1
        The axis of the classes: one integer.""",
    "out": """\
out : ndarray, optional
        Where to put the result: of exactly its shape and dtype, in any layout. It may be the
        input itself; where it overlaps an input otherwise, that input is copied first. A
        fresh result costs more than its arithmetic when it is large, because of new memory.""",
    "n_threads": """\
n_threads : int, optional
        At most so many threads. The default is what OpenMP offers at this call, within the
        CPU affinity and the cgroup's quota. Small calls use one. It changes no bit of the
        result.""",
    "later": """\
temperature, where
        Not implemented yet: anything but the default raises `NotImplementedError`.""",
    "logits": """\
logits : array_like of float32, float64 or integers
        Of any shape with at least one dimension, in any memory layout; integers are converted
        to float64. n_classes below is the length along `axis`, a row what runs along it.
    target : array_like
        Either class indices, of the shape of `logits` without `axis`, of any integer dtype
        (an int for 1-D logits); or a distribution for each row, of the shape of `logits`: a
        0/1 matrix of bool, integers or floats, or probabilities. It need not sum to one. A
        row of zeros is ignored: no loss, no weight, no gradient. Entries should be >= 0 and
        finite, which is not checked: the formulas are applied to what comes. float64
        distributions are rounded to float32 for float32 logits.""",
    "reduction": """\
reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the sum of the weights of the rows, which is 1 for an index and the
        sum of its entries for a distribution.""",
    "options": """\
class_weight, sample_weight, ignore_index, label_smoothing, z_loss, temperature, where
        Not implemented yet: anything but the default raises `NotImplementedError`.""",
    "scale": """\
scale : float, default 1.0
        A factor of the gradient (not of the loss), for instance an upstream gradient.""",
    "grad_out": """\
out : ndarray, optional
        Where to put the gradient: of the shape and dtype of the logits (float64 for
        integers), in any layout. It may be the logits themselves. Nothing is written to it
        if a label turns out to be wrong.""",
    "target_errors": """\
IndexError
        If a label does not lie in [0, n_classes); negative labels do not wrap around.
    TypeError
        If an argument has a wrong kind or dtype, such as labels of floats or bools.
    ValueError
        If an argument has a wrong shape or value, or if there are no classes.
    NotImplementedError
        If an option is given that is not implemented yet.
    MemoryError
        If there is no memory for a few rows of scratch.""",
    "errors": """\
TypeError
        If an argument has a wrong kind or dtype (bool and complex are refused).
    ValueError
        If an argument has a wrong shape or value; ``AxisError`` is one of these.
    NotImplementedError
        If an option is given that is not implemented yet.
    MemoryError
        If there is no memory for a few rows of scratch.""",
    "order": """\
The result of a row depends on that row alone, to the last bit: not on the number of
    threads, the other rows, the memory layout or `axis`, nor on which of the instruction sets
    with fused multiply-add (AVX2, AVX-512, NEON) is in use.""",
    "same_targets": """\
An index, the 0/1 row and the distribution that say the same thing give the same bits.""",
}


def documented(function):
    """Fill the ``{names}`` in a docstring with what is shared."""
    if function.__doc__:
        function.__doc__ = inspect.cleandoc(function.__doc__.format(**SHARED))
    return function
