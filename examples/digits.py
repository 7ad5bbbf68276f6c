"""Softmax regression on real handwritten digits, trained with `cysoftmax` and L-BFGS.

The model is ``logits = pixels @ weights + bias``, from 64 pixels to 10 classes. The script trains
it, compares the final loss and gradient with those of SciPy and NumPy, times one loss and gradient,
and draws the result. It exits with an error if the accuracy on unseen digits is too low, or if the
results differ from those of SciPy or NumPy by more than the tolerance below.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure  # not pyplot, which may look for a display
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import cysoftmax

SEED = 0  # of the split into training and test digits, and of the large example
N_WEIGHTS, N_CLASSES = 64 * 10, 10
L2 = 1e-3  # the objective is the mean cross-entropy (nats) + L2 / 2 * sum(weights**2)
MIN_TEST_ACCURACY = 0.95
TOLERANCE = 1e-15  # largest absolute difference accepted, in the loss or a gradient entry
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#B4B4B4"  # distinct to colour-blind readers, too


def logits_of(params, pixels):
    """Return the logits, of shape (n_rows, 10); ``params`` are the weights, then the bias."""
    return pixels @ params[:N_WEIGHTS].reshape(-1, N_CLASSES) + params[N_WEIGHTS:]


def objective(params, pixels, labels, loss_with_grad=cysoftmax.cross_entropy_with_grad):
    """Return the mean loss plus the penalty, and its gradient with respect to ``params``."""
    loss, grad = loss_with_grad(logits_of(params, pixels), labels)
    weights = params[:N_WEIGHTS]
    loss += L2 / 2 * (weights @ weights)
    return loss, np.concatenate([(pixels.T @ grad).ravel() + L2 * weights, grad.sum(axis=0)])


def evaluate(params, pixels, labels):
    """Return the mean cross-entropy without the penalty, and the fraction of right answers."""
    logits = logits_of(params, pixels)
    return cysoftmax.cross_entropy(logits, labels), np.mean(logits.argmax(axis=1) == labels)


def fit(train, test, every=10):
    """Return the trained parameters, and the (train, test) losses after each iteration."""
    history = []

    def record(intermediate_result):  # the name by which SciPy passes its present result
        loss, accuracy = evaluate(intermediate_result.x, *train)
        history.append((loss, evaluate(intermediate_result.x, *test)[0]))
        if len(history) % every == 1:
            print(f"{len(history):9}{intermediate_result.fun:16.6f}{accuracy:17.4f}", flush=True)

    print("iteration  loss + penalty   train accuracy")
    start = np.zeros(N_WEIGHTS + N_CLASSES)
    result = minimize(objective, start, train, method="L-BFGS-B", jac=True, callback=record)
    print(f"stopped after {result.nit} iterations: {result.message}")
    return result.x, np.array(history)


def scipy_formula(logits, labels):
    """Return the mean cross-entropy and its gradient, computed with `scipy.special`."""
    loss = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean()
    return loss, (softmax(logits, axis=1) - np.eye(N_CLASSES)[labels]) / len(labels)


def numpy_formula(logits, labels):
    """Return the mean cross-entropy and its gradient, computed with NumPy alone.

    This is faster than `scipy_formula`: in place where possible, with one exp for each logit.
    """
    rows = np.arange(len(labels))
    shifted = logits - logits.max(axis=1, keepdims=True)
    grad = np.exp(shifted)
    total = grad.sum(axis=1, keepdims=True)
    grad /= total
    grad[rows, labels] -= 1.0
    grad /= len(labels)
    return (np.log(total[:, 0]) - shifted[rows, labels]).mean(), grad


def check(params, train):
    """Compare the objective and its gradient with both formulas; exit if they differ."""
    loss, grad = objective(params, *train)
    for name, formula in (("SciPy", scipy_formula), ("NumPy", numpy_formula)):
        other_loss, other_grad = objective(params, *train, formula)
        by_loss, by_grad = abs(loss - other_loss), np.abs(grad - other_grad).max()
        print(f"difference from {name}: loss {by_loss:.1e}, gradient {by_grad:.1e}", end=" ")
        print(f"(tolerance {TOLERANCE:.0e})")
        if not (by_loss <= TOLERANCE and by_grad <= TOLERANCE):  # true for NaN, too
            raise SystemExit(f"error: the loss or the gradient differs from {name}'s")


def time_loss_and_grad(logits, labels, n_calls):
    """Print the shortest time of one loss + gradient, with cysoftmax and with NumPy's formula.

    The two take turns. cysoftmax writes into an array that is used again, as in a training loop.
    """
    grad = np.zeros_like(logits)
    best = {
        lambda: cysoftmax.cross_entropy_with_grad(logits, labels, out=grad): np.inf,
        lambda: numpy_formula(logits, labels): np.inf,
    }
    np.testing.assert_allclose(*(function()[0] for function in best), rtol=1e-5)
    for _ in range(n_calls):
        for function in best:
            start = time.perf_counter()
            function()
            best[function] = min(best[function], time.perf_counter() - start)
    ours, theirs = best.values()
    size = f"{logits.shape[0]} x {logits.shape[1]} {logits.dtype} logits"
    print(f"one loss + gradient, {size}: {ours * 1e6:.0f} us;", end=" ")
    print(f"NumPy's formula {theirs * 1e6:.0f} us, {theirs / ours:.1f} times as long")


def draw_losses(figure, history):
    """Draw the train and test loss after each iteration."""
    ax = figure.subplots()
    ax.set_prop_cycle(color=(BLUE, ORANGE))
    ax.semilogy(range(1, len(history) + 1), history, label=("train", "test"))
    ax.set(xlabel="iteration", ylabel="cross-entropy (nats, log scale)")
    ax.set_yticks([], minor=True)
    ax.set_yticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"])
    ax.legend(frameon=False, reverse=True)  # in the order of the curves, from top to bottom
    ax.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Loss while training", weight="bold")


def draw_templates(figure, params):
    """Draw the weights of each class as an image, all on one scale symmetric about zero."""
    templates = params[:N_WEIGHTS].reshape(8, 8, N_CLASSES)
    limit = np.abs(templates).max()
    axes = figure.subplots(2, 5)
    for digit, ax in enumerate(axes.flat):
        image = ax.imshow(templates[:, :, digit], cmap="PuOr_r", vmin=-limit, vmax=limit)
        ax.set(title=str(digit), xticks=[], yticks=[])
    figure.suptitle("The learned template of each class", weight="bold")
    figure.colorbar(image, ax=axes, label="weight (positive: speaks for the digit)")


def draw_mistakes(figure, params, pixels, labels, count=6):
    """Draw the misclassified digits of largest loss, each above its ten probabilities."""
    logits = logits_of(params, pixels)
    wrong = np.flatnonzero(logits.argmax(axis=1) != labels)
    losses = cysoftmax.cross_entropy(logits[wrong], labels[wrong], reduction="none")
    axes = figure.subplots(2, count, height_ratios=(3, 2), sharey="row")
    for (above, below), row in zip(axes.T, wrong[np.argsort(-losses)], strict=False):
        true, p = labels[row], cysoftmax.softmax(logits[row])
        above.imshow(pixels[row].reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        above.set(title=f"true {true}, predicted {p.argmax()}", xticks=[], yticks=[])
        colours = {true: BLUE, p.argmax(): ORANGE}
        below.bar(range(N_CLASSES), p, color=[colours.get(k, GREY) for k in range(N_CLASSES)])
        below.set(ylim=(0, 1), xticks=range(N_CLASSES), yticks=(0, 0.5, 1), xlabel="digit")
        below.spines[["top", "right"]].set_visible(False)
    axes[1, 0].set_ylabel("probability")
    title = f"The {count} costliest of {len(wrong)} mistakes on {len(labels)} test digits"
    figure.suptitle(f"{title} (blue: true, orange: predicted, grey: others)", weight="bold")


def draw(path, params, history, test):
    """Write the picture to a file."""
    figure = Figure(figsize=(14, 9), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1, w_pad=0.1)
    top, bottom = figure.subfigures(2, 1)
    left, right = top.subfigures(1, 2, width_ratios=(3, 5))
    draw_losses(left, history)
    draw_templates(right, params)
    draw_mistakes(bottom, params, *test)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main(argv=None):
    """Train the model, check it, time one loss and gradient, and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("out/digits.png"), help="the picture")
    path = parser.parse_args(argv).output
    pixels, labels = load_digits(return_X_y=True)
    options = {"test_size": 0.25, "stratify": labels, "random_state": SEED}
    split = train_test_split(pixels / 16, labels, **options)
    train, test = tuple(split[::2]), tuple(split[1::2])  # (pixels, labels) of each

    params, history = fit(train, test)
    for name, part in (("train", train), ("test", test)):
        loss, accuracy = evaluate(params, *part)
        print(f"{name:5} loss {loss:.4f}, accuracy {accuracy:.4f} ({len(part[1])} digits)")
    check(params, train)
    time_loss_and_grad(logits_of(params, train[0]), train[1], n_calls=300)
    rng = np.random.default_rng(SEED)  # logits large enough for the arithmetic to dominate
    large = rng.standard_normal((4096, 1000), dtype=np.float32)
    time_loss_and_grad(large, rng.integers(0, 1000, len(large)), n_calls=20)
    draw(path, params, history, test)
    print(f"picture: {path}")
    if accuracy < MIN_TEST_ACCURACY:
        raise SystemExit(f"error: test accuracy {accuracy:.4f} is below {MIN_TEST_ACCURACY}")


if __name__ == "__main__":
    main()
