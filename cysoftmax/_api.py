"""The public functions: their signatures and their documentation."""

from typing import NamedTuple

import numpy as np

from cysoftmax import _calls, _linear
from cysoftmax._calls import make_options
from cysoftmax._docs import documented


class CrossEntropy(NamedTuple):
    """
    The loss and its gradient, as returned by `cross_entropy_with_grad`.

    A named tuple, which can be unpacked: ``loss, grad = ...``.

    Attributes
    ----------
    loss : float or ndarray
        The loss in nats: a float, or with ``reduction="none"`` an array with the loss of each row.
    grad : ndarray
        The gradient with respect to the logits, of their shape.
    """

    loss: float | np.ndarray
    grad: np.ndarray


class GradHess(NamedTuple):
    """
    A gradient and the diagonal of the Hessian, as returned by `cross_entropy_grad_hess`.

    A named tuple, which can be unpacked: ``grad, hess = ...``.

    Attributes
    ----------
    grad : ndarray
        The gradient with respect to the logits, of their shape.
    hess : ndarray
        The second derivatives with respect to each logit, of the shape of the logits.
    """

    grad: np.ndarray
    hess: np.ndarray


class LinearCrossEntropy(NamedTuple):
    """
    The loss and the gradients that were wanted, as returned by `linear_cross_entropy`.

    A named tuple. A gradient that was not wanted is None, and so is that of a bias that was not
    given.

    Attributes
    ----------
    loss : float
        The loss in nats.
    grad_W : ndarray or None
        The gradient with respect to the weights, of shape (n_features, n_classes).
    grad_bias : ndarray or None
        The gradient with respect to the bias, of shape (n_classes,).
    grad_X : ndarray or None
        The gradient with respect to the features, of shape (n_rows, n_features).
    """

    loss: float
    grad_W: np.ndarray | None
    grad_bias: np.ndarray | None
    grad_X: np.ndarray | None


class RowStats(NamedTuple):
    """
    Six statistics of each row, as returned by `row_stats`.

    A named tuple of arrays with one number for each row. ``loss`` and ``target_prob`` are None if
    no target was given.

    Attributes
    ----------
    logsumexp : ndarray
        The logsumexp of the logits, in nats.
    loss : ndarray or None
        The loss in nats.
    entropy : ndarray
        The entropy in nats.
    argmax : ndarray of intp
        The class of the largest logit.
    max_prob : ndarray
        The largest probability.
    target_prob : ndarray or None
        The probability of the target.
    """

    logsumexp: np.ndarray
    loss: np.ndarray | None
    entropy: np.ndarray
    argmax: np.ndarray
    max_prob: np.ndarray
    target_prob: np.ndarray | None


@documented
def softmax(x, /, *, axis=-1, temperature=1.0, where=None, out=None, n_threads=None):
    """
    Return the softmax along an axis: ``exp(x) / sum(exp(x))``.

    Parameters
    ----------
    {x}
    {axis}
    {temperature}
    {where}
        Its probability is 0, and so are those of a row that is False throughout (a row of
        logits that are -inf gives NaN).
    {out}
    {n_threads}

    Returns
    -------
    ndarray
        Probabilities of the shape, dtype (float64 for integers) and memory layout of `x`.

    Raises
    ------
    {errors}

    Notes
    -----
    Accuracy: the error is at most 3 ulp (4 with the instruction set ``scalar``) for any
    logits, because no rounding error of ``x - max(x)`` grows with the logits.
    Results below the smallest normal number are denormals, not zeros.

    {order}

    A logit of -inf has probability exactly 0. The result is NaN throughout for a row that
    contains NaN or +inf, or nothing but -inf.

    References
    ----------
    P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax
    functions", IMA J. Numer. Anal. 41 (2021); S. M. Rump, T. Ogita, S. Oishi, "Accurate
    floating-point summation, part I", SIAM J. Sci. Comput. 31 (2008), for the sum.

    Examples
    --------
    >>> import numpy as np
    >>> import cysoftmax
    >>> x = np.log([[1.0, 2.0, 5.0], [4.0, 4.0, 8.0]])
    >>> cysoftmax.softmax(x)
    array([[0.125, 0.25 , 0.625],
           [0.25 , 0.25 , 0.5  ]])
    """
    return _calls.softmax(x, axis, temperature, where, out, n_threads)


@documented
def log_softmax(x, /, *, axis=-1, temperature=1.0, where=None, out=None, n_threads=None):
    """
    Return the logarithm of the softmax along an axis: ``x - logsumexp(x)``, in nats.

    Parameters
    ----------
    {x}
    {axis}
    {temperature}
    {where}
        Its result is -inf, and so are those of a row that is False throughout (a row of logits
        that are -inf gives NaN).
    {out}
    {n_threads}

    Returns
    -------
    ndarray
        Logarithms of probabilities, of the shape, dtype (float64 for integers) and memory
        layout of `x`.

    Raises
    ------
    {errors}

    Notes
    -----
    Accuracy: the error is at most 4 ulp, even where the result is close to 0. At the maximum
    the result is computed as ``-log1p(rest)``, where `rest` is the sum of ``exp(x - max(x))``
    over the other classes.

    {order}

    A logit of -inf gives -inf. The result is NaN throughout for a row that contains NaN or
    +inf, or nothing but -inf.

    References
    ----------
    P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax
    functions", IMA J. Numer. Anal. 41 (2021).

    Examples
    --------
    >>> import numpy as np
    >>> import cysoftmax
    >>> cysoftmax.log_softmax(np.array([20, 0, -1], dtype=np.float32))
    array([-2.8194096e-09, -2.0000000e+01, -2.1000000e+01], dtype=float32)
    """
    return _calls.log_softmax(x, axis, temperature, where, out, n_threads)


@documented
def logsumexp(x, /, *, axis=-1, keepdims=False, where=None, out=None, n_threads=None):
    """
    Return the logarithm of the sum of exponentials along an axis: ``log(sum(exp(x)))``.

    Parameters
    ----------
    {x}
    {axis}
    keepdims : bool, default False
        If True, the result keeps `axis`, with length 1.
    {where}
        The result of a row that is False throughout is -inf.
    out : ndarray, optional
        An array that receives the result. It must have the shape and dtype of the result.
    {n_threads}

    Returns
    -------
    ndarray
        In nats, of the shape of `x` without `axis`.
        {row_dtype}
        For 1-D `x` it is a 0-dimensional array.

    Raises
    ------
    {errors}

    Notes
    -----
    Accuracy: the error is at most 3 ulp of the larger of the result and ``max(x)``. The result
    is the sum of ``max(x)`` and ``log(sum(exp(x - max(x))))``; where these cancel, no
    sum of the two in the dtype of the logits is more accurate.

    {order}

    A row that contains NaN gives NaN. Otherwise a row that contains +inf gives +inf, and a row
    of nothing but -inf, or of no classes, gives -inf.

    References
    ----------
    P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax
    functions", IMA J. Numer. Anal. 41 (2021).

    Examples
    --------
    >>> import numpy as np
    >>> import cysoftmax
    >>> cysoftmax.logsumexp(np.array([[1000.0, 1000.0], [0.0, -np.inf]]))
    array([1000.69314718,    0.        ])
    """
    return _calls.logsumexp(x, axis, keepdims, where, out, n_threads)


@documented
def cross_entropy(
    logits,
    target,
    /,
    *,
    axis=-1,
    class_weight=None,
    sample_weight=None,
    ignore_index=None,
    label_smoothing=0.0,
    z_loss=0.0,
    temperature=1.0,
    where=None,
    reduction="mean",
    out=None,
    n_threads=None,
):
    """
    Return the softmax cross-entropy loss: the mean of ``-sum(target * log_softmax(logits))``.

    Parameters
    ----------
    {logits}
    {axis}
    {class_weight}
    {sample_weight}
    {ignore_index}
    {label_smoothing}
    {z_loss}
    {temperature}
    {loss_where}
    {reduction}
    out : ndarray, optional
        With ``reduction="none"``, an array that receives the losses, of the shape and dtype
        that they have.
    {n_threads}

    Returns
    -------
    float or ndarray
        The loss in nats. For "mean" and "sum" a float: the losses of rows, each
        within its bound, are added up in float64. The mean is NaN if
        there are no rows, or if all rows are ignored. For "none" an array of the shape of the
        logits without `axis`.
        {row_dtype}

    Raises
    ------
    {target_errors}

    See Also
    --------
    cross_entropy_with_grad : loss and gradient, in less time than two calls.

    Notes
    -----
    For an index y, the loss of a row is ``log1p(rest) - (x[y] - max(x))``, where `rest` is the
    sum of ``exp(x - max(x))`` over all classes but the one with the maximum. Neither
    ``log1p(rest)`` nor ``max(x) - x[y]`` is negative, so nothing cancels: the error is at most
    4 ulp of the dtype of the logits, even where the loss is close to 0. The losses of the rows
    are added up in float64, in a fixed order, with the rounding errors in a sum of their own.

    {formula}

    {order_of_loss}
    {same_targets}

    A logit of -inf at the target makes the loss +inf. A class without mass adds nothing to
    the loss, even if its logit is -inf.

    Examples
    --------
    >>> import numpy as np
    >>> import cysoftmax
    >>> logits = np.log([[1.0, 2.0, 5.0], [4.0, 4.0, 8.0]])
    >>> print(f"{{cysoftmax.cross_entropy(logits, [1, 2]):.6f}}")    # (log 4 + log 2) / 2
    1.039721
    """
    options = make_options(
        class_weight=class_weight,
        sample_weight=sample_weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        temperature=temperature,
        where=where,
    )
    return _calls.cross_entropy(logits, target, axis, options, reduction, out, n_threads)


@documented
def cross_entropy_grad(
    logits,
    target,
    /,
    *,
    axis=-1,
    class_weight=None,
    sample_weight=None,
    ignore_index=None,
    label_smoothing=0.0,
    z_loss=0.0,
    temperature=1.0,
    where=None,
    reduction="mean",
    n_threads=None,
    scale=1.0,
    out=None,
):
    """
    Return the gradient of `cross_entropy` with respect to the logits: ``(p - target) / N``.

    Parameters
    ----------
    {logits}
    {axis}
    {class_weight}
    {sample_weight}
    {ignore_index}
    {label_smoothing}
    {z_loss}
    {temperature}
    {loss_where}
    {reduction}
        The gradient is that of the mean or of the sum; for "none", a row of the gradient is that
        of the row's own loss.
    {n_threads}
    {scale}
    {grad_out}

    Returns
    -------
    ndarray
        The gradient, of the shape, dtype (float64 for integers) and memory layout of the
        logits. It is zero if all rows are ignored.

    Raises
    ------
    {target_errors}

    See Also
    --------
    cross_entropy_with_grad : loss and gradient. Its notes on accuracy hold for this function.

    Examples
    --------
    >>> import numpy as np
    >>> import cysoftmax
    >>> logits = np.log([[1.0, 2.0, 5.0], [4.0, 4.0, 8.0]])
    >>> cysoftmax.cross_entropy_grad(logits, [1, 2], reduction="sum")
    array([[ 0.125, -0.75 ,  0.625],
           [ 0.25 ,  0.25 , -0.5  ]])
    """
    options = make_options(
        class_weight=class_weight,
        sample_weight=sample_weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        temperature=temperature,
        where=where,
    )
    return _calls.cross_entropy_grad(
        logits, target, axis, options, reduction, scale, out, n_threads
    )


@documented
def cross_entropy_with_grad(
    logits,
    target,
    /,
    *,
    axis=-1,
    class_weight=None,
    sample_weight=None,
    ignore_index=None,
    label_smoothing=0.0,
    z_loss=0.0,
    temperature=1.0,
    where=None,
    reduction="mean",
    n_threads=None,
    scale=1.0,
    out=None,
):
    """
    Return the softmax cross-entropy loss and its gradient with respect to the logits.

    For N rows of logits X, a 0/1 matrix Y and ``P = softmax(X)``, these are
    ``loss = -sum(Y * log(P)) / N`` and ``grad = (P - Y) / N``. Each logit is read once from
    memory and each entry of the gradient is written once, as long as a row fits into the cache.

    Parameters
    ----------
    {logits}
    {axis}
    {class_weight}
    {sample_weight}
    {ignore_index}
    {label_smoothing}
    {z_loss}
    {temperature}
    {loss_where}
    {reduction}
        The gradient is that of the mean or of the sum; for "none", a row of the gradient is that
        of the row's own loss.
    {n_threads}
    {scale}
    {grad_out}

    Returns
    -------
    CrossEntropy
        A named tuple of `loss` and `grad`.
    loss : float or ndarray
        The loss in nats. For "mean" and "sum" a float: the losses of rows, each
        within its bound, are added up in float64. The mean is NaN if
        there are no rows, or if all rows are ignored. For "none" an array of the shape of the
        logits without `axis`.
        {row_dtype}
    grad : ndarray
        The gradient, of the shape, dtype (float64 for integers) and memory layout of the
        logits. It is zero if all rows are ignored.

    Raises
    ------
    {target_errors}

    Notes
    -----
    A target T that sums to `a` has the gradient ``a P - T``. At a class that holds at least
    half of the target (for an index, ``p - 1``), it is never computed as a difference, but as
    ``-rest / total``, where `total` is the sum of ``exp(x - max(x))`` and `rest` that sum
    without this class. The gradient therefore keeps its relative accuracy where p is close to
    1. Before the multiplication by ``scale / N``, the error is at most 4 ulp at the class of
    an index, and 3 ulp at the other classes (4 with the instruction set ``scalar``).

    {formula}

    {order_of_loss}
    {same_targets}

    References
    ----------
    J. S. Bridle, "Probabilistic interpretation of feedforward classification network outputs"
    (1990), for the gradient. docs/derivation.md derives it step by step.

    Examples
    --------
    >>> import numpy as np
    >>> import cysoftmax
    >>> logits = np.log([[1.0, 2.0, 5.0], [4.0, 4.0, 8.0]])
    >>> loss, grad = cysoftmax.cross_entropy_with_grad(logits, [1, 2])
    >>> print(f"{{loss:.6f}}")
    1.039721
    >>> grad
    array([[ 0.0625, -0.375 ,  0.3125],
           [ 0.125 ,  0.125 , -0.25  ]])
    """
    options = make_options(
        class_weight=class_weight,
        sample_weight=sample_weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        temperature=temperature,
        where=where,
    )
    result = _calls.cross_entropy_with_grad(
        logits, target, axis, options, reduction, scale, out, n_threads
    )
    return tuple.__new__(CrossEntropy, result)  # CrossEntropy(*result) takes twice the time


@documented
def cross_entropy_grad_hess(
    logits,
    target,
    /,
    *,
    axis=-1,
    class_weight=None,
    sample_weight=None,
    ignore_index=None,
    label_smoothing=0.0,
    where=None,
    out=None,
    n_threads=None,
):
    """
    Return the gradient and the Hessian's diagonal of the summed cross-entropy, for boosting.

    For a row with softmax P, let A be its target after `label_smoothing`, times `class_weight`
    and `sample_weight`, and a the sum of A. Then ``grad = a P - A`` and ``hess = a P (1 - P)``.

    Parameters
    ----------
    {logits}
    {axis}
        Boosting libraries store all rows of one class, then all rows of the next. That is
        ``axis=0`` of a C array (n_classes, n_rows), which is read and written without a copy.
    {class_weight}
    {sample_weight}
    {ignore_index}
    {label_smoothing}
    {loss_where}
    out : pair of ndarrays, optional
        Arrays that receive the gradient and the Hessian's diagonal. Each must have the shape
        and dtype of the logits (float64 for integers), in any layout. One of them may be the
        logits themselves. If a label is invalid, nothing is written to them.
    {n_threads}

    Returns
    -------
    GradHess
        A named tuple of `grad` and `hess`, both of the shape, dtype (float64 for integers) and
        memory layout of the logits. They are derivatives of the sum of the losses of the rows,
        not of their mean. Both are 0 in an ignored row and where `where` is False.

    Raises
    ------
    {target_errors}

    See Also
    --------
    cross_entropy_grad : the gradient alone, with all options of the loss.
    softmax_vjp : the product of the whole Hessian and a vector.

    Notes
    -----
    ``1 - P`` is computed as ``rest / total``, where `total` is the sum of ``exp(x - max(x))``
    and `rest` that sum without the class. The diagonal therefore keeps its relative accuracy
    where P is close to 1: its error is at most 6 ulp (7 with the instruction set ``scalar``)
    where P is a normal number of the dtype.

    The multiclass objective of LightGBM multiplies this diagonal by
    ``n_classes / (n_classes - 1)``, that of XGBoost by 2.

    {order}
    {same_targets}

    References
    ----------
    J. Friedman, "Greedy function approximation: a gradient boosting machine", Ann. Statist. 29
    (2001); docs/derivation.md, section 5, for the Hessian.

    Examples
    --------
    >>> import numpy as np
    >>> import cysoftmax
    >>> grad, hess = cysoftmax.cross_entropy_grad_hess(np.log([[1.0, 2.0, 5.0]]), [1])
    >>> grad
    array([[ 0.125, -0.75 ,  0.625]])
    >>> hess
    array([[0.109375, 0.1875  , 0.234375]])
    """
    options = make_options(
        class_weight=class_weight,
        sample_weight=sample_weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        where=where,
    )
    return GradHess(*_calls.cross_entropy_grad_hess(logits, target, axis, options, out, n_threads))


@documented
def row_stats(
    logits,
    target=None,
    /,
    *,
    axis=-1,
    ignore_index=None,
    where=None,
    temperature=1.0,
    n_threads=None,
):
    """
    Return six statistics of each row.

    For a row with softmax P these are its logsumexp, its loss against the target, its entropy
    ``-sum(P * log(P))``, the class of the largest probability, the largest probability, and
    the probability of the target.

    Parameters
    ----------
    {logits_of_stats}
        The target may be None; `loss` and `target_prob` are then None.
    {axis}
    ignore_index : int, optional
        Rows with this label have `loss` 0 and `target_prob` 0; it may lie in [0, n_classes) or
        not. The other statistics of such a row do not need the label, and are those of its
        logits. It is for targets that are class indices. By default no label is ignored.
    {where}
        Its probability is 0. In a row that is False throughout, `logsumexp` is -inf, `argmax` is
        -1, and all else is 0. Where the target has mass on a masked entry, `loss` is inf. Labels
        of masked rows must be valid all the same.
    {temperature}
    {n_threads}

    Returns
    -------
    RowStats
        A named tuple of the six arrays below. Each has the shape and memory layout of the
        logits without `axis`. Their dtype is float32 for logits of float32, float16 or
        bfloat16, otherwise float64, except for `argmax`.
    logsumexp
        The logsumexp of ``logits / temperature``, in nats.
    loss
        The loss, in nats, as returned by `cross_entropy` with ``reduction="none"``. It is 0 in
        a row whose label is `ignore_index`.
    entropy
        The entropy in nats, with ``0 log 0 = 0``.
    argmax
        The first class with the largest logit, of dtype intp. As in `numpy.argmax`, it is the
        first NaN in a row that contains NaN. It is -1 if `where` masks the whole row.
    max_prob
        The largest probability.
    target_prob
        The probability of the label; for a distribution the sum of ``target * P``. It is 0 in
        a row whose label is `ignore_index`.

    Raises
    ------
    {target_errors}

    Notes
    -----
    The mean loss, ``loss.mean(dtype=np.float64)``, is the cross-entropy in nats, and its
    exponential is the perplexity. ``(argmax == labels).mean()`` is the accuracy of the
    predictions; compared with the mean of `max_prob`, it shows how well the model is
    calibrated. Rows that are ignored count in such means, with a loss of 0: leave them out, as
    in ``loss[labels != ignore_index]``.

    Accuracy: the errors of `loss` and `logsumexp` have the bounds of `cross_entropy` and
    `logsumexp`. The error of `max_prob` and of the probability of a label is at most 3 ulp (4
    with the instruction set ``scalar``), that of `entropy` and of the `target_prob` of a
    distribution at most 6 ulp.

    {order}

    Examples
    --------
    >>> import numpy as np
    >>> import cysoftmax
    >>> logits = np.log([[1.0, 2.0, 5.0], [4.0, 4.0, 8.0]])
    >>> stats = cysoftmax.row_stats(logits, [1, 2])
    >>> stats.argmax
    array([2, 2])
    >>> stats.max_prob
    array([0.625, 0.5  ])
    >>> print(f"perplexity {{np.exp(stats.loss.mean()):.6f}}")
    perplexity 2.828427
    """
    options = make_options(ignore_index=ignore_index, where=where, temperature=temperature)
    return RowStats(*_calls.row_stats(logits, target, axis, options, n_threads))


@documented
def softmax_vjp(p, v, /, *, axis=-1, out=None, n_threads=None):
    """
    Return the softmax Jacobian times a vector: ``p * (v - sum(p * v))`` along an axis.

    The Jacobian ``diag(p) - p p^T`` is symmetric, so this one product has three uses. It is
    the vector-Jacobian product (backpropagation through a softmax, such as that of attention),
    the Jacobian-vector product (forward mode), and, multiplied by the weight of the row, the
    Hessian-vector product of the cross-entropy.

    Parameters
    ----------
    p : array_like of float32, float64, float16, bfloat16 or integers
        Probabilities, as returned by `softmax`. This is not checked.
    v : array_like
        One vector for each row, of the shape of `p`. An array must have the dtype of `p`; a
        list is converted to it.
    {axis}
    {out}
    {n_threads}

    Returns
    -------
    ndarray
        The product, of the shape, dtype (float64 for integers) and memory layout of `p`.

    Raises
    ------
    {errors}

    Notes
    -----
    The sum is computed with twice the precision of the dtype. The error of the result is at
    most 3 ulp of ``p * max(|v|, |sum(p * v)|)``.

    For ``p = softmax(x, temperature=t, where=m)`` the gradient is this product divided by t; `v`
    must be finite where m is False, since 0 times NaN is NaN.

    {order}

    References
    ----------
    T. Ogita, S. M. Rump, S. Oishi, "Accurate sum and dot product", SIAM J. Sci. Comput. 26
    (2005), for the sum; B. A. Pearlmutter, "Fast exact multiplication by the Hessian" (1994).

    Examples
    --------
    >>> import numpy as np
    >>> import cysoftmax
    >>> cysoftmax.softmax_vjp(np.array([0.25, 0.75]), np.array([1.0, 3.0]))
    array([-0.375,  0.375])

    The product of V and the Hessian of the mean cross-entropy of N rows, with respect to the
    logits:

    >>> X, V = np.zeros((4, 2)), np.tile([1.0, 0.0], (4, 1))
    >>> cysoftmax.softmax_vjp(cysoftmax.softmax(X), V)[0] / len(X)
    array([ 0.0625, -0.0625])
    """
    return _calls.softmax_vjp(p, v, axis, out, n_threads)


@documented
def linear_cross_entropy(
    X,
    W,
    target,
    /,
    *,
    bias=None,
    class_weight=None,
    sample_weight=None,
    ignore_index=None,
    label_smoothing=0.0,
    z_loss=0.0,
    temperature=1.0,
    reduction="mean",
    scale=1.0,
    wrt=("W", "bias"),
    out=None,
    chunk_rows=None,
    n_threads=None,
):
    """
    Return the softmax cross-entropy of the logits ``X @ W + bias``, and its gradients.

    The logits are computed, and turned into their gradient, a chunk of rows at a time; they never
    are all in memory. With G for the gradient of the loss with respect to them, the gradients are
    ``X.T @ G`` for W, ``G.sum(axis=0)`` for the bias and ``G @ W.T`` for X.

    Parameters
    ----------
    X : array_like of float32 or float64, shape (n_rows, n_features)
        Features, in any memory layout, such as a memory-mapped file; or a sparse matrix in SciPy's
        CSR format. A chunk is copied if BLAS cannot read it as it lies.
    W : array_like of the dtype of X, shape (n_features, n_classes)
        Weights, in C or Fortran order (so that ``weight.T`` of PyTorch or ``coef_.T`` of
        scikit-learn is read in place). In another layout it is copied; with a sparse X, unless it
        is in C order.
    {linear_target}
    bias : array_like of the dtype of X, shape (n_classes,), optional
        Added to each row of ``X @ W``.
    {class_weight}
    {sample_weight}
    {ignore_index}
    {linear_smoothing}
    {z_loss}
    {temperature}
    reduction : {{"mean", "sum"}}, default "mean"
        The mean or the sum of the losses of all rows. "mean" divides by the sum of the weights of
        the rows: of `sample_weight` times, for a class index, its class weight, or for a
        distribution the sum of ``class_weight * target``, before label smoothing. (So with class
        weights, a distribution smoothed by hand has another mean.)
    scale : float or array_like, default 1.0
        The gradients, but not the loss, are multiplied by it: one number, or one for each row.
    wrt : tuple of str, default ("W", "bias")
        The names of the gradients that are wanted, out of "W", "bias" and "X". With none, the
        loss alone is computed. If there is no bias, it has no gradient: "bias" then gives None.
    out : dict of ndarrays, optional
        Arrays that receive gradients, by the names in `wrt`; not all need be there. Each must
        have the shape and dtype of its gradient, in any layout. They may be the inputs
        themselves; inputs that they overlap are copied first, except for an X that is ``out["X"]``
        itself. If an argument is wrong, nothing is written to them.
    chunk_rows : int, optional
        The number of rows of a chunk. By default it is chosen for speed: at least 512 rows, and
        about 2**22 logits if these are more; fewer for a dense X if W has at most 2048 entries.
    n_threads : int, optional
        The largest number of threads, apart from those of BLAS, for which its own settings hold
        (OPENBLAS_NUM_THREADS, threadpoolctl); those may change the last bits of a product. The
        default is the number that OpenMP offers at this call, so OMP_NUM_THREADS counts. It changes
        no bit of the result.

    Returns
    -------
    LinearCrossEntropy
        A named tuple of `loss`, `grad_W`, `grad_bias` and `grad_X`. A gradient is None if `wrt`
        does not name it, and that of the bias also if there is no bias.
    loss : float
        In nats. The mean is NaN if there are no rows, or if all rows are ignored; the gradients
        are then 0.
    grad_W, grad_bias, grad_X : ndarray
        Of the shape, dtype and memory layout of W, bias and X. That of a sparse X is dense.

    Raises
    ------
    {target_errors}

    See Also
    --------
    cross_entropy_with_grad : loss and gradient of logits that are in memory.

    Notes
    -----
    Memory: besides the results, a call needs one chunk of logits and at most one array of the
    shape of W; if W has at most 2048 entries and X is dense, up to 32 arrays of its shape, and a
    chunk for each thread. With a sparse X, a chunk is a matrix of its own.

    Accuracy: loss and gradient of a row of logits are those of `cross_entropy_with_grad`, to the
    last bit. Products, and sums over rows, are rounded as NumPy rounds them; the bias's
    gradient is added up in float64 from chunk to chunk, the losses exactly. Another `chunk_rows`
    gives other last bits.

    An ignored row adds nothing, unless its features are infinite or NaN: 0 times these is NaN.

    References
    ----------
    P.-L. Hsu et al., "Liger Kernel: efficient Triton kernels for LLM training" (2024), for loss
    and gradients by chunks of rows.

    Examples
    --------
    >>> import numpy as np
    >>> import cysoftmax
    >>> X = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> W = np.log([[1.0, 1.0], [1.0, 3.0]])
    >>> result = cysoftmax.linear_cross_entropy(X, W, [0, 1, 1], reduction="sum")
    >>> print(f"{{result.loss:.6f}}")    # log 2 + 2 log(4/3)
    1.268511
    >>> result.grad_W
    array([[-0.25,  0.25],
           [ 0.5 , -0.5 ]])
    """
    options = make_options(
        class_weight=class_weight,
        sample_weight=sample_weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        temperature=temperature,
    )
    result = _linear.linear_cross_entropy(
        X, W, target, bias, options, reduction, scale, wrt, out, chunk_rows, n_threads
    )
    return LinearCrossEntropy(*result)
