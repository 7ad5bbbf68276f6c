"""The public functions: what they are called with, and their documentation."""

from typing import NamedTuple

import numpy as np

from cysoftmax import _calls
from cysoftmax._calls import make_options
from cysoftmax._docs import documented


class CrossEntropy(NamedTuple):
    """The result of `cross_entropy_with_grad`: ``loss, grad = ...``, or by name.

    The loss is a float, or an array of one for each row with ``reduction="none"``.
    """

    loss: float | np.ndarray
    grad: np.ndarray


class GradHess(NamedTuple):
    """The result of `cross_entropy_grad_hess`: ``grad, hess = ...``, or by name."""

    grad: np.ndarray
    hess: np.ndarray


class RowStats(NamedTuple):
    """The result of `row_stats`: arrays of one number for each row.

    `loss` and `target_prob` are None if there was no target.
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
    Accuracy: at most 3 ulp from the exact result (4 with the instruction set ``scalar``),
    for any logits: no difference ``x - max(x)`` is rounded.
    Results below the smallest normal number are denormals, not zeros.

    {order}

    -inf has probability exactly 0. A row with a NaN or +inf in it, or of -inf only, is NaN.

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
    {out}
    {n_threads}

    Returns
    -------
    ndarray
        Of the shape, dtype (float64 for integers) and memory layout of `x`.

    Raises
    ------
    {errors}

    Notes
    -----
    Accuracy: at most 4 ulp, also where the result is close to 0: at the maximum it is
    ``-log1p(rest)``, with `rest` the sum over the other classes relative to the maximum.

    {order}

    -inf gives -inf. A row with a NaN or +inf in it, or of -inf only, is NaN.

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
        Whether `axis` stays in the result, with length 1.
    {where}
    out : ndarray, optional
        Where to put the result: of exactly its shape and dtype.
    {n_threads}

    Returns
    -------
    ndarray
        Of the dtype of `x` (float64 for integers), in nats; of no dimension for 1-D `x`.

    Raises
    ------
    {errors}

    Notes
    -----
    Accuracy: at most 3 ulp of the larger of the result and ``max(x)`` (where these two parts,
    ``max(x)`` and ``log(sum(exp(x - max(x))))``, cancel, float64 can do no better).

    {order}

    +inf in a row gives +inf, a row of -inf only (or of no classes) -inf, a NaN gives NaN.

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
    Return the softmax cross-entropy loss: ``-sum(target * log_softmax(logits))`` of each row.

    Parameters
    ----------
    {logits}
    {axis}
    {class_weight}
    {sample_weight}
    {ignore_index}
    {smoothing}
    {temperature}
    {where}
    {reduction}
    out : ndarray, optional
        With ``reduction="none"``: where to put the losses, of the dtype of the logits
        (float64 for integers) and of their shape without `axis`.
    {n_threads}

    Returns
    -------
    float or ndarray
        In nats. A float, computed in float64, for "mean" and "sum"; for "none" an array of the
        dtype of the logits and of their shape without `axis`. The mean over no rows, or over
        ignored ones only, is NaN.

    Raises
    ------
    {target_errors}

    See Also
    --------
    cross_entropy_with_grad : loss and gradient, for less than the price of both.

    Notes
    -----
    For an index y the loss of a row is ``log1p(rest) - (x[y] - max(x))``, where `rest` is the
    sum of ``exp(x - max(x))`` over all classes but the one with the maximum. Neither part is
    ever negative, so nothing cancels: at most 4 ulp of the dtype of the logits, in confident
    rows too. The rows are added up in float64, in a fixed order and with the errors carried
    along.

    {formula}

    {order}
    {same_targets}

    A target class at logit -inf has loss +inf; classes of no mass count for nothing, at -inf
    too.

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
    {smoothing}
    {temperature}
    {where}
    {reduction}
        The gradient is that of the mean or sum; for "none" that of each row's own loss.
    {n_threads}
    {scale}
    {grad_out}

    Returns
    -------
    ndarray
        Of the shape, dtype (float64 for integers) and memory layout of the logits. Zero if
        there is nothing to take the mean of.

    Raises
    ------
    {target_errors}

    See Also
    --------
    cross_entropy_with_grad : loss and gradient; what is said there holds here.

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

    For logits X of N rows and a 0/1 matrix Y: ``loss = -sum(Y * log(P)) / N`` and
    ``grad = (P - Y) / N`` with ``P = softmax(X)``. While a row fits into the cache, each
    logit is read once from memory and each entry of the gradient written once.

    Parameters
    ----------
    {logits}
    {axis}
    {class_weight}
    {sample_weight}
    {ignore_index}
    {smoothing}
    {temperature}
    {where}
    {reduction}
        The gradient follows: that of the mean or sum; for "none" that of each row's own loss.
    {n_threads}
    {scale}
    {grad_out}

    Returns
    -------
    CrossEntropy
        A named tuple of `loss` and `grad`.
    loss : float or ndarray
        As of `cross_entropy`.
    grad : ndarray
        Of the shape, dtype (float64 for integers) and memory layout of the logits. Zero if
        there is nothing to take the mean of.

    Raises
    ------
    {target_errors}

    Notes
    -----
    A target that sums to `a` has the gradient ``a P - T``. The entry of a class that holds at
    least half of the target is computed as ``-rest / total``, with `rest` the sum over the
    other classes, and never as ``p - 1``; so the gradient of a confident row keeps its relative
    accuracy. Before the factor ``scale / N`` the entry for an index is at most 4 ulp from the
    exact result, those of the other classes 3 ulp (4 with the instruction set ``scalar``).

    {formula}

    {order}
    {same_targets}

    References
    ----------
    J. S. Bridle, "Probabilistic interpretation of feedforward classification network outputs"
    (1990), for the gradient; docs/derivation.md has each step.

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
    return tuple.__new__(CrossEntropy, result)  # what CrossEntropy(*result) does, in half the time


@documented
def cross_entropy_grad_hess(
    logits,
    target,
    /,
    *,
    axis=-1,
    class_weight=None,
    sample_weight=None,
    out=None,
    n_threads=None,
):
    """
    Return gradient and Hessian diagonal of the summed cross-entropy, for boosting.

    For a row of weight w: ``grad = w P - A`` and ``hess = w P (1 - P)``, with P the softmax
    of the row, A its target times `class_weight` and `sample_weight`, and w the sum of A.

    Parameters
    ----------
    {logits}
    {axis}
        Boosting libraries that keep one class after the other have it in front: ``axis=0``
        of a C array (n_classes, n_rows) is read and written where it is.
    {class_weight}
    {sample_weight}
    out : pair of ndarrays, optional
        Where to put gradient and Hessian: each of the shape and dtype of the logits (float64
        for integers), in any layout. One of them may be the logits themselves.
    {n_threads}

    Returns
    -------
    GradHess
        A named tuple of `grad` and `hess`, both of the shape, dtype and memory layout of the
        logits. They belong to the sum of the losses of the rows, not to their mean.

    Raises
    ------
    {target_errors}

    See Also
    --------
    cross_entropy_grad : all options of the loss, without the Hessian.
    softmax_vjp : the whole Hessian times a vector.

    Notes
    -----
    ``1 - P`` is computed as (sum over the other classes) / total, so the diagonal keeps its
    relative accuracy where P is close to 1: at most 6 ulp from the exact result (7 with the
    instruction set ``scalar``) where P is a normal number of the dtype.

    LightGBM's own multiclass objective multiplies the diagonal by ``n_classes / (n_classes -
    1)``, XGBoost's by 2.

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
    return GradHess(
        *_calls.cross_entropy_grad_hess(
            logits, target, axis, class_weight, sample_weight, out, n_threads
        )
    )


@documented
def row_stats(logits, target=None, /, *, axis=-1, where=None, temperature=1.0, n_threads=None):
    """
    Return what there is to know about each row, in one read of the logits.

    With P the softmax of a row: its logsumexp, its loss against the target, the entropy
    ``-sum(P * log(P))``, the class of the largest probability, that probability, and the
    probability of the target.

    Parameters
    ----------
    {logits}
        Without a target, `loss` and `target_prob` are None.
    {axis}
    {where}
    {temperature}
    {n_threads}

    Returns
    -------
    RowStats
        A named tuple of arrays of the shape of the logits without `axis`, of the dtype of the
        logits (float64 for integers) unless something else is said:
    logsumexp
        Of ``logits / temperature``, in nats.
    loss
        What `cross_entropy` with ``reduction="none"`` gives, in nats.
    entropy
        In nats; ``0 log 0 = 0``.
    argmax
        Of dtype intp: the first class with the largest logit; in a row with a NaN the first
        NaN, as `numpy.argmax` has it; -1 if `where` leaves nothing.
    max_prob
        The largest probability.
    target_prob
        The probability of the label; for a distribution the sum of ``target * P``.

    Raises
    ------
    {target_errors}

    Notes
    -----
    ``loss.mean(dtype=np.float64)`` is the cross-entropy in nats, and its exponential the
    perplexity; ``(argmax == labels).mean()`` is the accuracy; the mean of `max_prob` against
    that is the calibration. (Without the dtype, bfloat16 numbers are added up in bfloat16.)
    Rows that are padding are left out beforehand: ``row_stats(logits[real], labels[real])``.

    Accuracy: `loss` and `logsumexp` as said at `cross_entropy` and `logsumexp`; `max_prob` and
    the probability of a label at most 3 ulp (4 with the instruction set ``scalar``); `entropy`,
    and the `target_prob` of a distribution, at most 6 ulp.

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
    return RowStats(*_calls.row_stats(logits, target, axis, where, temperature, n_threads))


@documented
def softmax_vjp(p, v, /, *, axis=-1, out=None, n_threads=None):
    """
    Return the softmax Jacobian times a vector: ``p * (v - sum(p * v))`` along an axis.

    The Jacobian ``diag(p) - p p^T`` is symmetric. So this is at once the vector-Jacobian
    product (backpropagation through a softmax, such as that of attention), the
    Jacobian-vector product (forward mode), and, times the row's weight, the Hessian-vector
    product of the cross-entropy.

    Parameters
    ----------
    p : array_like of float32, float64, float16, bfloat16 or integers
        Probabilities: the result of `softmax`. They are taken as they come.
    v : array_like
        Vectors, of the shape of `p` and, if an array, of its dtype.
    {axis}
    {out}
    {n_threads}

    Returns
    -------
    ndarray
        Of the shape, dtype and memory layout of `p`.

    Raises
    ------
    {errors}

    Notes
    -----
    The sum is computed in twice the precision of the dtype, and the error is at most 3 ulp of
    ``p * max(|v|, |sum(p * v)|)``.

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

    The Hessian of the mean cross-entropy of N rows times V, with respect to the logits:

    >>> X, V = np.zeros((4, 2)), np.tile([1.0, 0.0], (4, 1))
    >>> cysoftmax.softmax_vjp(cysoftmax.softmax(X), V)[0] / len(X)
    array([ 0.0625, -0.0625])
    """
    return _calls.softmax_vjp(p, v, axis, out, n_threads)
