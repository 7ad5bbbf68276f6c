"""The parts that the docstrings of several functions share."""

import inspect

MASK = """\
where : array_like of bool, optional
        A mask, broadcast to the shape of the logits. An entry where it is False is treated as
        -inf, whatever its value is (even NaN)."""

ALONE = """\
depends on that row
    alone, to the last bit. It does not depend on the number of threads, the other rows, the memory
    layout or `axis`, or on which of the instruction sets with fused multiply-add (AVX2, AVX-512,
    NEON) is in use."""

LOGITS_AND_TARGET = """\
logits : array_like of float32, float64, float16, bfloat16 or integers
        Logits, of any shape with at least one dimension and in any memory layout. Integers
        are converted to float64; float16 and bfloat16 are computed in float32. A row is a line
        of logits along `axis`, and n_classes is its length.
    target : array_like
        One of three forms. Class indices: of any integer dtype, of the shape of `logits`
        without `axis` (an int for 1-D logits). A distribution for each row: bool, integers or
        floats of the shape of `logits`, such as a 0/1 matrix or probabilities. A sparse
        matrix of distributions, in SciPy's CSR format: for 2-D logits with ``axis=-1``. Only
        its entries are read; unsorted or repeated entries are copied and sorted.

        A distribution need not sum to one. A row of zeros is ignored: {}.
        Entries should be >= 0 and finite. This is not checked; the formulas are applied to any
        entries. A distribution of another dtype is converted to the dtype of computation row by
        row, without a copy of the array."""

SHARED = {
    "x": """\
x : array_like of float32, float64, float16, bfloat16 or integers
        Logits, of any shape with at least one dimension and in any memory layout. Integers
        are converted to float64. float16 and bfloat16 (of the package ml_dtypes) are computed
        in float32, and a result of their shape is rounded back. Any object with ``__array__``
        or a CPU ``__dlpack__`` is accepted. The array is copied only if it is byte-swapped,
        misaligned or of integers.""",
    "axis": """\
axis : int, default -1
        The axis of the classes: one integer.""",
    "row_dtype": """\
Its dtype is float32 for logits of float32, float16 or bfloat16, otherwise float64.""",
    "out": """\
out : ndarray, optional
        An array that receives the result. It must have the shape and dtype of the result, in
        any layout. It may be the input itself; an input that it overlaps in another way is
        copied first. For large results, new memory costs more time than the arithmetic, and
        `out` saves it.""",
    "n_threads": """\
n_threads : int, optional
        The largest number of threads. The default is the number that OpenMP offers at this
        call, limited by the CPU affinity and, unless OMP_NUM_THREADS is set, by the cgroup's
        quota. Small calls use one thread.
        The number of threads changes no bit of the result.""",
    "temperature": """\
temperature : float, default 1.0
        The logits are divided by this number, which must lie in [2**-60, 2**60]. The quotient
        is kept in two parts, so the error bounds are the same for any temperature.""",
    "where": MASK,
    "loss_where": f"""\
{MASK}
        Its probability and its gradient are 0. In a row that is False throughout, loss, weight
        and gradient are 0 (a row of logits that are -inf gives NaN). Where the target has mass on
        a masked entry, the loss is inf. Labels of masked rows must be valid all the same. A mask
        of whole rows is a bool `sample_weight`, or ``mask[..., None]``.""",
    "class_weight": """\
class_weight : array_like of shape (n_classes,), optional
        One weight for each class, finite and >= 0, by which the target is multiplied. Weights
        are rounded to float32 unless the logits are float64 or integers.""",
    "sample_weight": """\
sample_weight : array_like, optional
        One weight for each row, finite and >= 0, by which its loss is multiplied; broadcast to
        the shape of the rows. A row of weight 0 is ignored; its label must be valid all the same,
        or be `ignore_index`. Bools count as 0 and 1: True keeps a row, False ignores it.""",
    "ignore_index": """\
ignore_index : int, optional
        Rows with this label are ignored; it may lie in [0, n_classes) or not. It is for
        targets that are class indices. An ignored row has loss 0, weight 0 and a gradient of
        exact zeros, even if its logits are NaN. By default no label is ignored (PyTorch:
        -100). Labels of an unsigned dtype cannot be -100 or -1; for uint8, 255 is usual:
        ``ignore_index=255``.""",
    "label_smoothing": """\
label_smoothing : float, default 0.0
        The part of the target, from 0 to 1, that is spread evenly over the K classes of the
        row that `where` does not mask, before `class_weight` is applied.""",
    "z_loss": """\
z_loss : float, default 0.0
        A number, finite and >= 0. ``z_loss * w * logsumexp(logits / temperature)**2``, with w
        the weight of the row, is added to the loss of each row. In training this keeps the sums
        of exponentials near 1.""",
    "logits": LOGITS_AND_TARGET.format("its loss, weight and gradient are 0"),
    "logits_of_stats": LOGITS_AND_TARGET.format("its `loss` and `target_prob` are 0"),
    "linear_target": """\
target : array_like
        One of three forms. Class indices: of any integer dtype, of shape (n_rows,). A distribution
        for each row: bool, integers or floats of shape (n_rows, n_classes), which need not sum to
        one. A sparse matrix of distributions, in SciPy's CSR format. A row of zeros is ignored.""",
    "linear_smoothing": """\
label_smoothing : float, default 0.0
        The part of the target, from 0 to 1, that is spread evenly over the classes, before
        `class_weight` is applied.""",
    "reduction": """\
reduction : {"mean", "sum", "none"}, default "mean"
        The mean or the sum of the losses of all rows, or the loss of each row. "mean" divides
        by the sum of the weights of the rows, and is NaN if that is 0. Without options, the weight
        of a row is 1 for a class index, and the sum of the entries for a distribution.""",
    "scale": """\
scale : float or array_like, default 1.0
        The gradient, but not the loss, is multiplied by it: one number, or one for each row
        (broadcast to the shape of the rows). It may be an upstream gradient, or a loss scale
        that keeps small float16 gradients from underflow; the caller then divides by it later,
        in float32. Entries too large for the dtype become inf, each by itself.""",
    "formula": """\
With all options, let T be the target of a row, ``d = (x - max(x)) / temperature``, and `lse` the
    logsumexp of ``x / temperature``. Then::

        A    = class_weight * ((1 - label_smoothing) * T + label_smoothing * sum(T) / K)
        w    = sample_weight * sum(class_weight * T)
        loss = sample_weight * sum(A * (log(sum(exp(d))) - d)) + w * z_loss * lse**2
        grad = (sample_weight * (sum(A) * P - A) + 2 * z_loss * w * lse * P) / temperature

    "mean" is the sum of the losses divided by the sum of w, the weight of a row, which depends
    on the unsmoothed target. For class indices this is the mean of PyTorch; unlike in PyTorch,
    an equal distribution gives the same mean. docs/coming_from.md compares cysoftmax with
    PyTorch, scikit-learn, SciPy and optax, call by call. Weights may have any size: neither the
    mean nor its gradient overflows or underflows on the way.

    With options, the error of the loss of a row is at most 6 ulp. The error of an entry of the
    gradient is at most 6 ulp of the largest of its three terms. Classes more than 115 nats
    (float64: 842) below the maximum add nothing to the sum.""",
    "grad_out": """\
out : ndarray, optional
        An array that receives the gradient. It must have the shape and dtype of the logits
        (float64 for integers), in any layout. It may be the logits themselves. If a label is
        invalid, nothing is written to it.""",
    "target_errors": """\
IndexError
        If a label does not lie in [0, n_classes). Negative labels do not wrap around.
    TypeError
        If an argument has a wrong kind or dtype, such as labels that are floats or bools.
    ValueError
        If an argument has a wrong shape or value, or if there are no classes.
    MemoryError
        If scratch memory (at most 1 MiB for each thread, and a few numbers for each row)
        cannot be allocated.""",
    "errors": """\
TypeError
        If an argument has a wrong kind or dtype (bool and complex are refused).
    ValueError
        If an argument has a wrong shape or value; ``AxisError`` is one of these.
    MemoryError
        If scratch memory (at most 1 MiB for each thread, and a few numbers for each row)
        cannot be allocated.""",
    "block_weight": """\
sample_weight : array_like, optional
        One weight for each row, finite and >= 0, by which its loss is multiplied; broadcast to
        the shape of the rows. A bool array keeps the rows where it is True, and so leaves out
        padding, whatever its logits are. For class weights, multiply it by that of each label.""",
    "distributions": """\
distributions : array_like of shape (n, n_classes), optional
        Soft labels. The label of a row of the data is then the number of its distribution here:
        ``np.arange(n)`` if each row has its own. So folds, validation sets and estimators, which
        take rows apart, keep each with its own. At most 2**24; they are not copied, and need not
        sum to one. By default the labels are classes.""",
    "boosting_options": """\
class_weight : array_like of shape (n_classes,), optional
        One weight for each class, finite and >= 0, by which the target is multiplied.
    ignore_index : int, optional
        Rows with this label are ignored, like rows of weight 0. Not with `distributions`.
    label_smoothing : float, default 0.0
        The part of the target, from 0 to 1, that is spread evenly over the classes, before
        `class_weight` is applied.""",
    "boosting_threads": """\
n_threads : int, optional
        The largest number of threads. The default is that of the other functions of cysoftmax. It
        changes no bit of the result.""",
    "boosting_object": """\
It can be pickled, and copying returns the object itself.""",
    "boosting_errors": """\
TypeError, ValueError
        If an option has a wrong kind, shape or value.""",
    "order": f"The result of a row {ALONE}",
    "order_of_loss": f"""\
The result of a row, before a mean divides it by the sum of the weights, {ALONE}""",
    "same_targets": """\
Equal targets give the same bits with any options, whether a target is given as an index, as
    a 0/1 row, as a distribution or as a sparse row.""",
}


def documented(function):
    """Replace the ``{names}`` in the docstring of a function or method by the shared parts, which
    are indented as in that of a function; return it."""
    if function.__doc__:
        parts = {name: part.replace("\n    ", "\n") for name, part in SHARED.items()}
        function.__doc__ = inspect.cleandoc(function.__doc__).format(**parts)
    return function
