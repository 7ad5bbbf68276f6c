"""A multiclass objective for LightGBM, from `cysoftmax.cross_entropy_grad_hess`.

LightGBM keeps its scores class-major: those of class 0 for all rows, then those of class 1, and
so on. The objective reads them as they lie, through ``axis=0``, and hands back gradient and
Hessian in the same layout. The script trains on real handwritten digits with this objective and
with LightGBM's own, and exits with an error when the accuracy on unseen digits or the agreement of
the two misses the constants below.
"""

import lightgbm
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import cysoftmax

SEED = 0  # of the split
N_CLASSES = 10
# LightGBM's own objective takes this multiple of the diagonal p (1 - p); it is what J. H. Friedman,
# "Greedy function approximation: a gradient boosting machine" (2001), algorithm 6, has in a leaf.
HESSIAN_FACTOR = N_CLASSES / (N_CLASSES - 1)
N_ROUNDS = 40
OPTIONS = {
    "num_class": N_CLASSES,
    "num_leaves": 15,
    "learning_rate": 0.2,
    "boost_from_average": False,  # which LightGBM can do for its own objectives only
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,  # so little data has no work for more
    "verbosity": -1,
}
MIN_TEST_ACCURACY = 0.95
TOLERANCE = 1e-6  # largest difference accepted in a probability: LightGBM stores float32 gradients


def multiclass(labels):
    """Return the objective for rows with these labels: a function as LightGBM calls it."""
    out = tuple(np.empty((N_CLASSES, len(labels))) for _ in ("grad", "hess"))  # for all rounds

    def objective(scores, data):
        """Gradient and Hessian; scores have shape (n_rows, n_classes), in Fortran order."""
        grad, hess = cysoftmax.cross_entropy_grad_hess(
            scores.T, labels, axis=0, sample_weight=data.get_weight(), out=out
        )
        hess *= HESSIAN_FACTOR
        return grad.T, hess.T

    return objective


def fit(objective, pixels, labels, weight=None):
    """Return a booster trained with an objective: a name or a function."""
    data = lightgbm.Dataset(pixels, labels, weight=weight)
    return lightgbm.train(OPTIONS | {"objective": objective}, data, N_ROUNDS)


def evaluate(name, booster, pixels, labels):
    """Print accuracy and loss; return the former, and the probabilities."""
    scores = booster.predict(pixels, raw_score=True)
    stats = cysoftmax.row_stats(scores, labels)
    accuracy, loss = np.mean(stats.argmax == labels), stats.loss.mean()
    print(f"{name:24} test accuracy {accuracy:.4f}, loss {loss:.4f} ({len(labels)} digits)")
    return accuracy, cysoftmax.softmax(scores)


def main():
    """Train with both objectives, compare."""
    pixels, labels = load_digits(return_X_y=True)
    options = {"test_size": 0.25, "stratify": labels, "random_state": SEED}
    split = train_test_split(pixels, labels, **options)
    train, test = split[::2], split[1::2]  # (pixels, labels) of each

    print(f"LightGBM {lightgbm.__version__}: {N_ROUNDS} rounds on {len(train[1])} digits")
    _, theirs = evaluate("LightGBM's objective", fit("multiclass", *train), *test)
    accuracy, ours = evaluate("cross_entropy_grad_hess", fit(multiclass(train[1]), *train), *test)
    difference = np.abs(ours - theirs).max()
    print(f"largest difference of a probability: {difference:.1e} (tolerance {TOLERANCE:.0e})")
    if not difference <= TOLERANCE:  # nan is a difference too
        raise SystemExit("error: the predictions differ from those of LightGBM's objective")
    if accuracy < MIN_TEST_ACCURACY:
        raise SystemExit(f"error: test accuracy {accuracy:.4f} is below {MIN_TEST_ACCURACY}")


if __name__ == "__main__":
    main()
