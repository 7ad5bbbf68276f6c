"""What the docstrings of several functions have in common."""

import inspect

SHARED = {
    "x": """\
x : array_like of float32, float64, float16, bfloat16 or integers
        Logits, of any shape with at least one dimension and in any memory layout. Integers
        are converted to float64; float16 and bfloat16 (of the package ml_dtypes) are worked
        on in float32, and the result is rounded back. Anything with ``__array__`` or a CPU
        ``__dlpack__`` will do. Read where it is: copied only if it is byte-swapped, misaligned
        or of integers.""",
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
    "temperature": """\
temperature : float, default 1.0
        What the logits are divided by: finite, greater than 0. The division is carried out in
        two parts, so the result is as accurate as for ``temperature=1.0``.""",
    "where": """\
where : array_like of bool, optional
        Which entries take part; broadcast to the shape of the logits. An entry that does not
        counts as -inf whatever is stored there (NaN too): its probability and gradient are 0.
        A row without any: softmax 0, log_softmax and logsumexp -inf, loss, weight and gradient
        0.""",
    "class_weight": """\
class_weight : array_like of shape (n_classes,), optional
        Factors of the classes of the target, finite and >= 0; rounded to float32 unless the
        logits are float64.""",
    "sample_weight": """\
sample_weight : array_like, optional
        A factor of each row's loss, finite and >= 0; broadcast to the shape of the rows. A row
        of weight 0 is ignored.""",
    "ignore_index": """\
ignore_index : int, optional
        The label of rows to be ignored, inside [0, n_classes) or not; for class indices only.
        An ignored row has loss 0, weight 0 and a gradient of exact zeros; its logits leave no
        trace. No label is ignored by default (PyTorch: -100).""",
    "smoothing": """\
label_smoothing : float, default 0.0
        From 0 to 1: how much of the target is spread evenly over the K classes that take part,
        before `class_weight` is applied.
    z_loss : float, default 0.0
        The factor, finite and >= 0, with which the row's weight times ``logsumexp(logits /
        temperature)**2`` is added to the loss of each row. It keeps the sums of exponentials
        of a language model near 1.""",
    "logits": """\
logits : array_like of float32, float64, float16, bfloat16 or integers
        Of any shape with at least one dimension, in any memory layout; integers are converted
        to float64, float16 and bfloat16 worked on in float32. n_classes below is the length
        along `axis`, a row what runs along it.
    target : array_like
        Either class indices, of the shape of `logits` without `axis`, of any integer dtype
        (an int for 1-D logits); or a distribution for each row, of the shape of `logits`: a
        0/1 matrix of bool, integers or floats, or probabilities; or, for 2-D logits and their
        last axis, such a matrix in SciPy's sparse CSR format, of which nothing but the entries
        is read (unsorted or repeated ones in a sorted copy). It need not sum to one. A
        row of zeros is ignored: no loss, no weight, no gradient. Entries should be >= 0 and
        finite, which is not checked: the formulas are applied to what comes. float64
        distributions are rounded to float32 for float32 logits; float16 and bfloat16 ones are
        read through a copy for float64 logits.""",
    "reduction": """\
reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the sum of the weights of the rows, which is 1 for an index and the
        sum of its entries for a distribution.""",
    "scale": """\
scale : float or array_like, default 1.0
        A factor of the gradient (not of the loss): an upstream gradient, or a loss scale that
        keeps small float16 gradients from underflow, by which the caller divides later, in
        float32. What is too large for the dtype becomes inf. One number, or one for each row
        (broadcast to the shape of the rows).""",
    "formula": """\
With all options, for a row of target T, with ``d = x / temperature - max`` and `lse` the
    logsumexp of ``x / temperature``::

        A    = class_weight * ((1 - label_smoothing) * T + label_smoothing * sum(T) / K)
        w    = sample_weight * sum(class_weight * T)
        loss = sample_weight * sum(A * (log(sum(exp(d))) - d)) + w * z_loss * lse**2
        grad = (sample_weight * (sum(A) * P - A) + 2 * z_loss * w * lse * P) / temperature

    "mean" is the sum of the losses divided by the sum of w. So the weight of a row comes from
    its unsmoothed target: for class indices as in PyTorch, and unlike there a distribution
    that says the same gives the same. docs/coming_from.md compares with PyTorch,
    scikit-learn, SciPy and optax, call by call.

    With options, the loss of a row is at most 6 ulp from the exact result, and an entry of the
    gradient at most 6 ulp of the largest of the three terms that it is made of. Classes more
    than 115 nats (float64: 842) below the maximum count for nothing in the sum.""",
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
    MemoryError
        If there is no memory for a few rows of scratch.""",
    "errors": """\
TypeError
        If an argument has a wrong kind or dtype (bool and complex are refused).
    ValueError
        If an argument has a wrong shape or value; ``AxisError`` is one of these.
    MemoryError
        If there is no memory for a few rows of scratch.""",
    "order": """\
The result of a row depends on that row alone, to the last bit: not on the number of
    threads, the other rows, the memory layout or `axis`, nor on which of the instruction sets
    with fused multiply-add (AVX2, AVX-512, NEON) is in use.""",
    "same_targets": """\
An index, the 0/1 row, the distribution and the sparse row that say the same thing give the
    same bits, whatever the options are.""",
}


def documented(function):
    """Fill the ``{names}`` in a docstring with what is shared."""
    if function.__doc__:
        function.__doc__ = inspect.cleandoc(function.__doc__.format(**SHARED))
    return function
