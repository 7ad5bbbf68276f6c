"""Softmax cross-entropy for XGBoost and LightGBM: objectives, and metrics beside them.

* ``xgboost_objective``, ``lightgbm_objective``: in place of "multi:softprob" and "multiclass", with
  soft labels, label smoothing and weights of the classes.
* ``xgboost_metric``, ``lightgbm_metric``: the mean of the loss that these objectives minimize.

This module imports neither library: they call what it returns, ``train`` as ``(scores, data)`` and
the estimators for scikit-learn as ``(labels, scores, weights)``.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

import cysoftmax
from cysoftmax._docs import documented
from cysoftmax._threads import default_thread_count

__all__ = ["lightgbm_metric", "lightgbm_objective", "xgboost_metric", "xgboost_objective"]

# Scores that a thread takes at a time. The float64 results for LightGBM are rounded to float32
# while they are in the L2 cache: two arrays of half a MiB.
BLOCK_ELEMENTS = 2**16
# The libraries keep labels as float32, which has every integer up to here.
MOST_DISTRIBUTIONS = 2**24


class Arguments(NamedTuple):
    """What a library gives: scores (n_rows, n_classes), labels as they came, weights or None."""

    scores: Any
    labels: Any
    weight: Any
    flat: bool  # whether the scores came in one dimension


class Loss:
    """The options of the loss, and how scores and labels are read. It never changes."""

    def __init__(
        self, library: str, distributions: Any, n_threads: int | None, **options: Any
    ) -> None:
        self.library, self.n_threads, self.options = library, n_threads, options
        self.distributions = None
        if distributions is not None:
            self.distributions = check_distributions(distributions)
            if options["ignore_index"] is not None:
                raise ValueError(
                    "ignore_index is for labels that are classes; with distributions, a row of "
                    "zeros is ignored"
                )
        # What is wrong with an option is said here, before the first round.
        weight = options["class_weight"]
        logits = np.zeros((1, 2 if weight is None else max(1, np.size(weight))))
        cysoftmax.cross_entropy(logits, [0], n_threads=n_threads, **options)

    def __copy__(self) -> "Loss":
        return self

    def __deepcopy__(self, memo: object) -> "Loss":
        # The libraries and scikit-learn copy it with their parameters, as often as they like.
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        given = {"distributions": self.distributions, "n_threads": self.n_threads, **self.options}
        return make, (type(self), self.library, given)

    def __repr__(self) -> str:
        given = [] if self.distributions is None else ["distributions=..."]
        given += [f"{k}={v}" for k, v in self.options.items() if v is not None and np.any(v)]
        return f"{self.library}_{type(self).__name__.lower()}({', '.join(given)})"

    def read(self, first: Any, second: Any, weight: Any) -> Arguments:
        """Return what a library calls with: ``(scores, data)`` or ``(labels, scores, weight)``."""
        labels, scores = first, second
        if hasattr(second, "get_label"):
            labels, scores, weight = second.get_label(), first, second.get_weight()
        if weight is not None and len(weight) == 0:  # what XGBoost has for no weights
            weight = None
        labels, scores = np.asarray(labels), np.asarray(scores)
        if weight is not None and np.shape(weight) != np.shape(labels)[:1]:
            raise ValueError(
                f"weights must have shape {np.shape(labels)[:1]}, one for each row; got "
                f"{np.shape(weight)}"
            )
        if scores.dtype != np.float32:
            scores = scores.astype(np.float64, copy=False)
        n_rows = len(labels) if labels.ndim else 0
        flat = scores.ndim == 1
        if flat and n_rows and scores.size % n_rows == 0 and self.library == "lightgbm":
            # LightGBM before version 4: the scores of class 0, then those of class 1, ...
            scores = scores.reshape(n_rows, -1, order="F")
        if scores.ndim != 2 or scores.shape[1] < 2:
            raise ValueError(
                f"scores must have shape (n_rows, n_classes), with 2 classes or more; got "
                f"{scores.shape} (the parameter num_class is the number of classes)"
            )
        if n_rows != len(scores):
            raise ValueError(f"there must be {len(scores)} labels, one for each row; got {n_rows}")
        return Arguments(scores, self.check_labels(labels, *scores.shape), weight, flat)

    def check_labels(self, labels: Any, n_rows: int, n_classes: int) -> Any:
        """Return labels of shape (n_rows,), or a distribution for each row."""
        table = self.distributions
        if labels.ndim == 2 and labels.shape[1] == n_classes and table is None:
            return labels
        if labels.size != n_rows:
            raise ValueError(
                f"labels must have shape ({n_rows},)"
                + (f" or ({n_rows}, {n_classes})" if table is None else "")
                + f"; got {labels.shape}"
            )
        labels = labels.reshape(n_rows)
        if table is None:
            return labels
        if table.shape[1] != n_classes:
            raise ValueError(
                f"distributions must have shape (n, {n_classes}), a column for each class; got "
                f"{table.shape} (estimators that are classifiers take row numbers for classes: use "
                f"a regressor, with num_class={table.shape[1]})"
            )
        if min(len(table), n_rows) > n_classes > labels.max():
            raise ValueError(
                f"labels must be row numbers of distributions, such as np.arange({n_rows}); got "
                f"numbers below {n_classes}, like classes"
            )
        return labels

    def target(self, labels: Any, begin: int) -> Any:
        """Return the target of the rows that have these labels and begin with row `begin`."""
        if labels.ndim == 2:
            return labels
        with np.errstate(invalid="ignore"):  # of NaN or 1e10, which are found below
            indices = labels.astype(np.int32)
        wrong = indices.astype(labels.dtype) != labels
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(
                f"labels must be integers of 32 bits; got {labels[row]} in row {begin + row}"
            )
        table = self.distributions
        if table is None:
            return indices
        if indices.size and not (indices.min() >= 0 and indices.max() < len(table)):
            raise IndexError(
                f"labels must be row numbers of distributions, in [0, {len(table)}); got "
                f"numbers in [{indices.min()}, {indices.max()}]"
            )
        return table[indices]


class Objective(Loss):
    """What a library calls in each round for the gradient and the Hessian's diagonal."""

    def __init__(
        self, library: str, distributions: Any, n_threads: int | None,
        hessian_factor: float | None, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(library, distributions, n_threads, **options)
        if hessian_factor is not None and not 0 < hessian_factor < np.inf:
            raise ValueError(
                f"hessian_factor must be positive and finite, or None; got {hessian_factor!r}"
            )
        self.hessian_factor = hessian_factor
        self.kept = threading.local()  # the results of each thread's last call

    def __reduce__(self) -> tuple[Any, ...]:
        made, (kind, library, given) = super().__reduce__()
        return made, (kind, library, {**given, "hessian_factor": self.hessian_factor})

    def __call__(self, first, second, sample_weight=None):  # type: ignore[no-untyped-def]
        """Return gradient and Hessian, in arrays that the next call of this thread overwrites."""
        given = self.read(first, second, sample_weight)
        n_rows, n_classes = given.scores.shape
        grad, hess = self.results(given.scores)
        n = max(1, BLOCK_ELEMENTS // n_classes)
        begins = range(0, n_rows, n)
        n_threads = default_thread_count() if self.n_threads is None else self.n_threads
        n_threads = max(1, min(n_threads, len(begins)))

        def share(k: int) -> None:
            wide = None
            if given.scores.dtype != np.float32:
                wide = [np.empty((n_classes, n)).T for _ in ("grad", "hess")]
            for begin in begins[k::n_threads]:
                self.fill(given, slice(begin, begin + n), grad, hess, wide)

        if n_threads == 1:
            share(0)
        else:
            # These threads end with their work. Those of GNU OpenMP would spin for a while, and
            # keep the threads of the library from the cores.
            with ThreadPoolExecutor(n_threads - 1) as executor:
                others = [executor.submit(share, k) for k in range(1, n_threads)]
                share(0)
                for other in others:
                    other.result()
        if given.flat:
            return grad.ravel(order="F"), hess.ravel(order="F")
        return grad, hess

    def results(self, scores: Any) -> Any:
        """Return two arrays of float32 in the shape and layout of the scores."""
        kept = getattr(self.kept, "pair", None)
        if kept is None or kept[0].size < scores.size:
            kept = self.kept.pair = [np.empty(scores.size, np.float32) for _ in ("grad", "hess")]
        order = "C" if scores.flags.c_contiguous else "F"
        return [array[: scores.size].reshape(scores.shape, order=order) for array in kept]

    def factor(self, n_classes: int) -> float:
        """Return what the Hessian's diagonal is multiplied by."""
        if self.hessian_factor is not None:
            return self.hessian_factor
        return 2.0 if self.library == "xgboost" else n_classes / (n_classes - 1)

    def fill(self, given, rows, grad, hess, wide):  # type: ignore[no-untyped-def]
        """Write the derivatives of a block of rows, by way of two float64 arrays or None."""
        scores, grad, hess = given.scores[rows], grad[rows], hess[rows]
        weight = None if given.weight is None else given.weight[rows]
        target = self.target(given.labels[rows], rows.start)
        out = (grad, hess) if wide is None else tuple(array[: len(scores)] for array in wide)
        try:
            cysoftmax.cross_entropy_grad_hess(
                scores, target, sample_weight=weight, out=out, n_threads=1, **self.options
            )
        except IndexError as error:
            if rows.start == 0:
                raise
            raise IndexError(f"{error}, counted from row {rows.start} on") from None
        np.multiply(out[1], self.factor(scores.shape[1]), out=out[1])
        if wide is not None:
            np.copyto(grad, out[0], casting="same_kind")
            np.copyto(hess, out[1], casting="same_kind")
        if self.library == "xgboost":
            np.maximum(hess, np.float32(1e-16), out=hess)  # as XGBoost does


class Metric(Loss):
    """What a library calls after each round for the loss of a data set."""

    __name__ = "cross_entropy"  # which XGBoost's estimators ask for

    def __call__(self, first, second, sample_weight=None):  # type: ignore[no-untyped-def]
        """Return the loss in the form that the caller takes: with its name, or alone."""
        scores, labels, weight, _ = self.read(first, second, sample_weight)
        loss = cysoftmax.cross_entropy(
            scores, self.target(labels, 0), sample_weight=weight, n_threads=self.n_threads,
            **self.options,
        )  # fmt: skip
        if self.library == "lightgbm":
            return self.__name__, loss, False  # False: a larger one is not better
        return (self.__name__, loss) if hasattr(second, "get_label") else loss


def make(kind: Any, library: str, given: dict[str, Any]) -> Any:
    """Return an object again that was pickled."""
    return kind(library, **given)


def check_distributions(distributions: Any) -> Any:
    """Return the distributions as an array; raise an error unless it is a matrix of numbers."""
    table = np.asarray(distributions)
    if table.dtype.kind not in "biuf":
        raise TypeError(f"distributions must be an array of numbers; got dtype {table.dtype}")
    if table.ndim != 2 or table.shape[1] < 2:
        raise ValueError(
            f"distributions must have shape (n, n_classes), with 2 classes or more; got "
            f"{table.shape}"
        )
    if len(table) > MOST_DISTRIBUTIONS:
        raise ValueError(
            f"distributions must have at most {MOST_DISTRIBUTIONS} rows, as labels are float32; "
            f"got {len(table)}"
        )
    return table


@documented
def xgboost_objective(
    distributions: Any = None,
    *,
    class_weight: Any = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    hessian_factor: float | None = None,
    n_threads: int | None = None,
) -> Objective:
    """
    Return an objective for XGBoost, in place of "multi:softprob" or "multi:softmax".

    It is the argument `obj` of ``xgboost.train`` and ``xgboost.cv``, and the parameter `objective`
    of ``XGBClassifier``, ``XGBRegressor`` and their random forests. The labels of the data are
    classes, rows of `distributions`, or distributions themselves: a DMatrix takes labels of shape
    (n_rows, n_classes). The weights of the data are applied.

    Parameters
    ----------
    {distributions}
    {boosting_options}
    hessian_factor : float, optional
        The Hessian's diagonal ``w p (1 - p)`` is multiplied by it. The default is XGBoost's own
        factor, 2; 1 gives the exact diagonal. In each case no entry is less than 1e-16, as in
        XGBoost.
    {boosting_threads}

    Returns
    -------
    Objective
        A function ``(scores, dmatrix)`` or ``(labels, scores, sample_weight=None)`` that returns
        the gradient and the Hessian's diagonal as float32 arrays of shape (n_rows, n_classes).
        {boosting_object}

    Raises
    ------
    {boosting_errors}

    Notes
    -----
    Labels that are classes give the predictions of "multi:softprob", to the last digits of
    float32, if both start from the same scores: with ``base_score=0``, say. By default
    "multi:softprob" starts from the frequencies of the classes, and an objective that is a function
    from zero or another constant.

    Tested with XGBoost 3.2, whose custom objectives return matrices.

    Examples
    --------
    >>> import numpy as np
    >>> from cysoftmax.boosting import xgboost_objective
    >>> objective = xgboost_objective()
    >>> labels, scores = np.float32([1]), np.float32([[0, 0]])
    >>> grad, hess = objective(labels, scores)
    >>> grad
    array([[ 0.5, -0.5]], dtype=float32)
    >>> hess
    array([[0.5, 0.5]], dtype=float32)
    """
    return Objective(
        "xgboost", distributions, n_threads, hessian_factor, class_weight=class_weight,
        ignore_index=ignore_index, label_smoothing=label_smoothing,
    )  # fmt: skip


@documented
def lightgbm_objective(
    distributions: Any = None,
    *,
    class_weight: Any = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    hessian_factor: float | None = None,
    n_threads: int | None = None,
) -> Objective:
    """
    Return an objective for LightGBM, in place of "multiclass".

    It is the parameter "objective" of ``lightgbm.train`` and ``lightgbm.cv``, with "num_class"
    beside it, and the parameter `objective` of ``LGBMClassifier`` and ``LGBMRegressor``. The labels
    of the data are classes, or rows of `distributions`. The weights of the data are applied.

    Parameters
    ----------
    {distributions}
    {boosting_options}
    hessian_factor : float, optional
        The Hessian's diagonal ``w p (1 - p)`` is multiplied by it. The default is LightGBM's own
        factor, ``n_classes / (n_classes - 1)``; 1 gives the exact diagonal.
    {boosting_threads}

    Returns
    -------
    Objective
        A function ``(scores, dataset)`` or ``(labels, scores, sample_weight=None)`` that returns
        the gradient and the Hessian's diagonal as float32 arrays in the shape and layout of the
        scores: (n_rows, n_classes), class by class.
        {boosting_object}

    Raises
    ------
    {boosting_errors}

    Notes
    -----
    Labels that are classes give the predictions of "multiclass" with ``boost_from_average=False``,
    to the last digits. By default "multiclass" starts from the logarithms of the frequencies of
    the classes, and an objective that is a function from zero, or from the `init_score` of the
    data.

    Derivatives are computed from LightGBM's float64 scores in float64, and rounded to float32.

    Examples
    --------
    >>> import numpy as np
    >>> from cysoftmax.boosting import lightgbm_objective
    >>> objective = lightgbm_objective([[0.75, 0.25]])  # the one row of data has these chances
    >>> labels, scores = np.float32([0]), np.float64([[0, 0]])
    >>> grad, hess = objective(labels, scores)
    >>> grad
    array([[-0.25,  0.25]], dtype=float32)
    >>> hess
    array([[0.5, 0.5]], dtype=float32)
    """
    return Objective(
        "lightgbm", distributions, n_threads, hessian_factor, class_weight=class_weight,
        ignore_index=ignore_index, label_smoothing=label_smoothing,
    )  # fmt: skip


@documented
def xgboost_metric(
    distributions: Any = None,
    *,
    class_weight: Any = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    n_threads: int | None = None,
) -> Metric:
    """
    Return a metric for XGBoost: the mean of the loss that `xgboost_objective` minimizes.

    It is the argument `custom_metric` of ``xgboost.train`` and ``xgboost.cv``, and the parameter
    `eval_metric` of the estimators. It takes the scores that XGBoost gives beside an objective that
    is a function; beside one of XGBoost's own objectives it would be given probabilities, which
    cannot be told from scores.

    Parameters
    ----------
    {distributions}
    {boosting_options}
    {boosting_threads}

    Returns
    -------
    Metric
        A function ``(scores, dmatrix)`` that returns ``("cross_entropy", loss)``, and as ``(labels,
        scores, sample_weight=None)`` the loss alone, in nats. The mean divides by the sum of the
        weights. {boosting_object}

    Raises
    ------
    {boosting_errors}

    Examples
    --------
    >>> import numpy as np
    >>> from cysoftmax.boosting import xgboost_metric
    >>> loss = xgboost_metric()(np.float32([1]), np.float32([[0, 0]]))
    >>> print(f"{{loss:.4f}}")
    0.6931
    """
    return Metric(
        "xgboost", distributions, n_threads, class_weight=class_weight,
        ignore_index=ignore_index, label_smoothing=label_smoothing,
    )  # fmt: skip


@documented
def lightgbm_metric(
    distributions: Any = None,
    *,
    class_weight: Any = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    n_threads: int | None = None,
) -> Metric:
    """
    Return a metric for LightGBM: the mean of the loss that `lightgbm_objective` minimizes.

    It is the argument `feval` of ``lightgbm.train`` and ``lightgbm.cv``, and `eval_metric` of the
    estimators' ``fit``. It takes the scores that LightGBM gives beside an objective that is a
    function; beside one of LightGBM's own objectives it would be given probabilities, which cannot
    be told from scores.

    Parameters
    ----------
    {distributions}
    {boosting_options}
    {boosting_threads}

    Returns
    -------
    Metric
        A function ``(scores, dataset)`` or ``(labels, scores, sample_weight=None)`` that returns
        ``("cross_entropy", loss, False)``, the loss in nats. The mean divides by the sum of the
        weights. {boosting_object}

    Raises
    ------
    {boosting_errors}

    Examples
    --------
    >>> import numpy as np
    >>> from cysoftmax.boosting import lightgbm_metric
    >>> name, loss, larger_is_better = lightgbm_metric()(np.float32([1]), np.float64([[0, 0]]))
    >>> print(f"{{name}} {{loss:.4f}}")
    cross_entropy 0.6931
    """
    return Metric(
        "lightgbm", distributions, n_threads, class_weight=class_weight,
        ignore_index=ignore_index, label_smoothing=label_smoothing,
    )  # fmt: skip
