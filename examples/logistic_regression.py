"""Softmax regression with `cysoftmax.linear_cross_entropy` and SciPy's L-BFGS, beside scikit-learn.

Three problems: handwritten digits, many rows of few features, and passages of programs as weights
of their words (a sparse matrix), whose package is to be told. Both libraries minimize

    mean cross-entropy (nats) + L2 / 2 * sum(weights**2)

from zero, by SciPy's L-BFGS with the same tolerances. The script prints the wall time of each fit,
and how far its loss, computed by SciPy in float64, is above the lowest, that of a longer fit. It
exits with an error if that is more than the tolerance below.
"""

import argparse
import time
import warnings

import numpy as np
from corpus import passages_of_programs
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.datasets import load_digits
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

import cysoftmax

SEED = 0  # of the rows that are made up
L2 = 1e-3
GRADIENT = 3e-6  # a fit ends when no entry of the gradient is larger
TOLERANCE = 1e-6  # largest difference accepted between the losses, in nats
N_PACKAGES = 20


def fit(X, labels, tolerance=None):
    """Return the weights (n_features, n_classes), the bias and a note, by cysoftmax and SciPy."""
    shape = X.shape[1], labels.max() + 1
    n_weights = shape[0] * shape[1]
    grads = {"W": np.empty(shape, X.dtype), "bias": np.empty(shape[1], X.dtype)}
    seconds = []  # of each call

    def objective(params):
        W, bias = np.split(params.astype(X.dtype, copy=False), [n_weights])
        begin = time.perf_counter()
        loss = cysoftmax.linear_cross_entropy(X, W.reshape(shape), labels, bias=bias, out=grads)[0]
        seconds.append(time.perf_counter() - begin)
        gradient = np.concatenate([grads["W"].ravel(), grads["bias"]], dtype=np.float64)
        weights = params[:n_weights]
        gradient[:n_weights] += L2 * weights
        return loss + L2 / 2 * (weights @ weights), gradient

    # The last two are those with which scikit-learn calls the same function.
    options = {"gtol": tolerance or GRADIENT, "ftol": 64 * np.finfo(float).eps, "maxls": 50}
    start = np.zeros(n_weights + shape[1])
    params = minimize(objective, start, method="L-BFGS-B", jac=True, options=options).x
    note = f"{sum(seconds):7.3f} s of it in {len(seconds)} calls"
    return params[:n_weights].reshape(shape), params[n_weights:], note


def fit_sklearn(X, labels):
    """Return the weights, the bias and a note, by scikit-learn."""
    model = LogisticRegression(C=1 / (len(labels) * L2), tol=GRADIENT, max_iter=15000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the line search, at the last digits of float32
        model.fit(X, labels)
    return model.coef_.T, model.intercept_, f"in {model.n_iter_[0]} steps"


WAYS = {"cysoftmax": fit, "scikit-learn": fit_sklearn}


def loss_of(X, labels, W, bias):
    """Return what is minimized, by SciPy in float64."""
    log_p = log_softmax(X @ W.astype(np.float64) + bias, axis=1)
    return -log_p[np.arange(len(labels)), labels].mean() + L2 / 2 * np.square(W, dtype=float).sum()


# Idle threads of BLAS spin, and keep the other threads of both libraries from the cores.
@threadpool_limits.wrap(limits=1, user_api="blas")
def compare(name, X, labels, repeats):
    """Fit in each way and dtype, in turns; print times and losses, and check these."""
    print(f"{name}: {X.shape[0]} x {X.shape[1]}, {labels.max() + 1} classes", flush=True)
    cases = [(dtype, way) for dtype in ("float64", "float32") for way in WAYS]
    seconds, notes = dict.fromkeys(cases, np.inf), {}
    losses = {"optimum": loss_of(X, labels, *fit(X, labels, GRADIENT / 30)[:2])}
    for dtype, way in cases * repeats:
        data, begin = X.astype(dtype), time.perf_counter()
        *model, notes[dtype, way] = WAYS[way](data, labels)
        seconds[dtype, way] = min(seconds[dtype, way], time.perf_counter() - begin)
        losses[dtype, way] = loss_of(X, labels, *model)
    lowest = min(losses.values())
    for case in cases:
        above = losses[case] - lowest
        print(f"  {case[0]} {case[1]:12} {seconds[case]:8.3f} s", end=" ")
        print(f"loss {lowest:.6f} + {above:.0e}, {notes[case]}", flush=True)
        if not above <= TOLERANCE:  # true for NaN, too
            raise SystemExit(f"error: {name}: a loss is {above:.1e} too high")


def main(argv=None):
    """Compare the fits of the three problems."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fortieth of the large problems")
    parser.add_argument("--repeats", type=int, default=1, help="fits of which the fastest counts")
    args = parser.parse_args(argv)
    step = 40 if args.quick else 1
    pixels, labels = load_digits(return_X_y=True)
    compare("digits", pixels / 16, labels, args.repeats)
    rng = np.random.default_rng(SEED)
    labels = rng.integers(0, 10, 200_000 // step)
    rows = rng.standard_normal((len(labels), 50)) + 0.5 * rng.standard_normal((10, 50))[labels]
    compare("many rows", rows, labels, args.repeats)
    passages, labels, _ = passages_of_programs(N_PACKAGES)
    words = TfidfVectorizer(min_df=5).fit_transform(passages[::step])
    each = words.nnz / words.shape[0]
    compare(f"passages of {each:.0f} words", words, labels[::step], args.repeats)


if __name__ == "__main__":
    main()
