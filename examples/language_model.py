"""A small language model in PyTorch, with `torch.nn.CrossEntropyLoss` and with `cysoftmax.torch`'s.

The model of Y. Bengio et al., "A neural probabilistic language model" (2003), learns to predict the
next word of Python's documentation. Two copies learn in turns, batch by batch, one with each loss.
The script prints and draws what both reach, the time of an epoch and that of the loss in it. It is
an error if losses or gradients of the same logits differ, or if the model does not learn.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from corpus import words_of_documentation
from matplotlib.figure import Figure
from torch import nn
from tqdm import tqdm

import cysoftmax.torch

SEED = 0  # of the models and of the order of the words
CONTEXT, EMBEDDING, HIDDEN, BATCH = 6, 48, 96, 1024
LOSSES = {"PyTorch": nn.CrossEntropyLoss(), "cysoftmax": cysoftmax.torch.CrossEntropyLoss()}
TOLERANCE = 4e-6  # PyTorch's gradients (of a row, in [-1, 1]) were up to 2.3e-6 from float64's
MIN_GAIN = 0.5  # nats
COLOURS = {"PyTorch": "#D55E00", "cysoftmax": "#0072B2"}


def make_model(n_words):
    """Return the model and its optimizer, the same at each call."""
    torch.manual_seed(SEED)
    layers = nn.Embedding(n_words, EMBEDDING), nn.Flatten(), nn.Linear(CONTEXT * EMBEDDING, HIDDEN)
    model = nn.Sequential(*layers, nn.Tanh(), nn.Linear(HIDDEN, n_words))
    return model, torch.optim.Adam(model.parameters(), lr=3e-3)


def batches(words):
    """Return pairs of contexts and next words, in a random order."""
    windows = torch.from_numpy(words).unfold(0, CONTEXT + 1, 1)
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(SEED))
    return [(windows[rows, :-1], windows[rows, -1]) for rows in order.split(BATCH)]


def loss_and_grad(name, logits, target):
    """Return a loss, its gradient with respect to the logits, and the seconds of both."""
    leaf, begin = logits.detach().requires_grad_(), time.perf_counter()
    loss = LOSSES[name](leaf, target)
    loss.backward()
    return loss.item(), leaf.grad, time.perf_counter() - begin


def train(name, model, optimizer, context, target):
    """Do a step; return loss, seconds, seconds of the loss, and how the other loss differs."""
    begin = time.perf_counter()
    optimizer.zero_grad()
    logits = model(context)
    loss, grad, of_loss = loss_and_grad(name, logits, target)
    logits.backward(grad)
    optimizer.step()
    seconds, (other,) = time.perf_counter() - begin, LOSSES.keys() - {name}
    other_loss, other_grad, _ = loss_and_grad(other, logits, target)
    by_grad = (grad - other_grad).abs().max().item() * len(target)
    return loss, seconds, of_loss, max(abs(loss / other_loss - 1), by_grad)


def perplexity(model, words):
    """Return the perplexity of words that the model was not trained on (in whole batches)."""
    with torch.no_grad():
        losses = [LOSSES["cysoftmax"](model(x), y).item() for x, y in batches(words)[:-1]]
    return np.exp(np.mean(losses))


def draw(path, steps, epochs):
    """Draw the losses of the steps, and the seconds of an epoch."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for (name, (total, of_loss)), width in zip(epochs.items(), (5, 1.5), strict=True):
        left.plot([loss for loss, *_ in steps[name]], COLOURS[name], lw=width)
        right.bar(name, total, color="#D0D0D0")
        bar = right.bar(name, of_loss, color=COLOURS[name])
        right.bar_label(bar, [f"{of_loss:.1f} of {total:.1f} s"], padding=4)
    left.legend(COLOURS, frameon=False, title="the loss of")
    left.set(xlabel="step", ylabel="nats", title="Training loss of each step")
    right.set(ylabel="seconds", title="Time of an epoch (coloured: loss and gradient)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main(argv=None):
    """Train two models in turns; check, print and draw the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="take a tenth of the words")
    parser.add_argument("--output", type=Path, default=Path("out/language_model.png"))
    args = parser.parse_args(argv)
    vocabulary, words, held_out = words_of_documentation()
    words = words[: len(words) // 10] if args.quick else words
    print(f"{len(words)} words, {len(held_out)} held out, a vocabulary of {len(vocabulary)}")
    models = {name: make_model(len(vocabulary)) for name in LOSSES}
    steps = {name: [] for name in LOSSES}
    for batch in tqdm(batches(words), "training", unit="step"):
        for name, model in models.items():
            steps[name].append(train(name, *model, *batch))
    # By the median of the steps: at some of them, other programs had the cores.
    epochs = {name: np.median(steps[name], axis=0)[1:3] * len(steps[name]) for name in LOSSES}
    for name, (total, of_loss) in epochs.items():
        print(f"{name:10} epoch {total:6.2f} s, {of_loss / total:.0%} of it the loss,", end=" ")
        print(f"held-out perplexity {perplexity(models[name][0], held_out):.2f}")
    difference = np.max(list(steps.values()), axis=(0, 1))[3]
    print(f"largest difference of a loss or gradient: {difference:.1e} ({TOLERANCE:.0e} allowed)")
    draw(args.output, steps, epochs)
    print(f"picture: {args.output}")
    if not difference <= TOLERANCE:  # true for NaN, too
        raise SystemExit("error: losses or gradients differ by more than rounding")
    if not steps["cysoftmax"][-1][0] <= steps["cysoftmax"][0][0] - MIN_GAIN:
        raise SystemExit("error: the model did not learn")


if __name__ == "__main__":
    main()
