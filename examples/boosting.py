"""A multiclass objective for LightGBM, from `cysoftmax.cross_entropy_grad_hess`.

LightGBM stores its scores class by class: those of class 0 for all rows, then those of class 1, and
so on. With ``axis=0`` the objective reads this layout without a copy, and returns gradient and
Hessian in the same layout. The script trains on real handwritten digits, with this objective and
with LightGBM's own. It exits with an error if the accuracy on unseen digits is too low, or if the
predictions of the two differ by more than the tolerance below.
"""

import lightgbm
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import cysoftmax

SEED = 0  # of the split into training and test digits
N_CLASSES = 10
# LightGBM's own objective multiplies the diagonal p (1 - p) by this factor, which comes from the
# values of the leaves in J. H. Friedman, "Greedy function approximation: a gradient boosting
# machine" (2001), algorithm 6.
HESSIAN_FACTOR = N_CLASSES / (N_CLASSES - 1)
N_ROUNDS = 40
OPTIONS = {
    "num_class": N_CLASSES,
    "num_leaves": 15,
    "learning_rate": 0.2,
    "boost_from_average": False,  # LightGBM has it for its own objectives only
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,  # the data is too small for more
    "verbosity": -1,
}
MIN_TEST_ACCURACY = 0.95
TOLERANCE = 1e-6  # largest difference accepted in a probability: LightGBM stores float32 gradients


def multiclass(labels):
    """Return the objective for rows with these labels, a function that LightGBM can call."""
    out = tuple(np.empty((N_CLASSES, len(labels))) for _ in ("grad", "hess"))  # for all rounds

    def objective(scores, data):
        """Return gradient and Hessian; scores have shape (n_rows, n_classes), Fortran order."""
        grad, hess = cysoftmax.cross_entropy_grad_hess(
            scores.T, labels, axis=0, sample_weight=data.get_weight(), out=out
        )
        hess *= HESSIAN_FACTOR
        return grad.T, hess.T

    return objective


def fit(objective, pixels, labels, weight=None):
    """Return a booster trained with an objective, which is a name or a function."""
    data = lightgbm.Dataset(pixels, labels, weight=weight)
    return lightgbm.train(OPTIONS | {"objective": objective}, data, N_ROUNDS)


def evaluate(name, booster, pixels, labels):
    """Print accuracy and loss; return the accuracy and the probabilities."""
    scores = booster.predict(pixels, raw_score=True)
    stats = cysoftmax.row_stats(scores, labels)
    accuracy, loss = np.mean(stats.argmax == labels), stats.loss.mean()
    print(f"{name:24} test accuracy {accuracy:.4f}, loss {loss:.4f} ({len(labels)} digits)")
    return accuracy, cysoftmax.softmax(scores)


def main():
    """Train with both objectives and compare the predictions."""
    pixels, labels = load_digits(return_X_y=True)
    options = {"test_size": 0.25, "stratify": labels, "random_state": SEED}
    split = train_test_split(pixels, labels, **options)
    train, test = split[::2], split[1::2]  # (pixels, labels) of each

    print(f"LightGBM {lightgbm.__version__}: {N_ROUNDS} rounds on {len(train[1])} digits")
    _, theirs = evaluate("LightGBM's objective", fit("multiclass", *train), *test)
    accuracy, ours = evaluate("cross_entropy_grad_hess", fit(multiclass(train[1]), *train), *test)
    difference = np.abs(ours - theirs).max()
    print(f"largest difference of a probability: {difference:.1e} (tolerance {TOLERANCE:.0e})")
    if not difference <= TOLERANCE:  # true for NaN, too
        raise SystemExit("error: the predictions differ from those of LightGBM's objective")
    if accuracy < MIN_TEST_ACCURACY:
        raise SystemExit(f"error: test accuracy {accuracy:.4f} is below {MIN_TEST_ACCURACY}")


if __name__ == "__main__":
    main()
