"""What docs/scaling.md computes with: the cost of an element, of a block and of a merge.

python -m benchmarks.scaling
"""

import time

import numpy as np

import cysoftmax
from cysoftmax import OnlineSoftmax

SECONDS = 3  # for each line


def least(calls):
    """Return the least time of each call, in turns."""
    times, end = [np.inf] * len(calls), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        for i, call in enumerate(calls):
            begin = time.perf_counter()
            call()
            times[i] = min(times[i], time.perf_counter() - begin)
    return times


def problem(shape):
    logits = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return logits, np.arange(shape[0]) % shape[1], np.empty_like(logits)


def print_threads(shape):
    """Print the time of loss and gradient on one and two threads, and of a copy."""
    x, labels, out = problem(shape)
    calls = [
        lambda n=n: cysoftmax.cross_entropy_with_grad(x, labels, out=out, n_threads=n)
        for n in (1, 2)
    ]
    one, two, copy = (1e9 * t / x.size for t in least([*calls, lambda: np.copyto(out, x)]))
    print(f"{shape}: {one:.2f} ns on one thread, {two:.2f} on two; a copy {copy:.2f}")


def print_block(n_rows, n_classes):
    """Print what a block of classes costs on one thread, and what whole rows of it would."""
    x, labels, out = problem((n_rows, n_classes))
    state, other = OnlineSoftmax.of(x), OnlineSoftmax.of(x[:, ::-1])
    elsewhere = np.random.default_rng(1).integers(
        0, 8 * n_classes, n_rows
    )  # of eight blocks of the same size
    of, grad, grad_elsewhere, whole_grad, whole, merge = least(
        [
            lambda: OnlineSoftmax.of(x, n_threads=1),
            lambda: state.cross_entropy_grad(x, labels, out=out, n_threads=1),
            lambda: state.cross_entropy_grad(x, elsewhere, out=out, n_threads=1),
            lambda: cysoftmax.cross_entropy_grad(x, labels, out=out, n_threads=1),
            lambda: cysoftmax.cross_entropy_with_grad(x, labels, out=out, n_threads=1),
            lambda: state.merge(other),
        ]
    )
    ratios = f"{grad / whole_grad:.2f}, {grad_elsewhere / whole_grad:.2f}"
    of, grad, whole = (1e9 * t / x.size for t in (of, grad, whole))
    merge *= 1e9 / n_rows
    print(
        f"{n_rows} x {n_classes}: state {of:.2f} ns, gradient {grad:.2f}; whole rows {whole:.2f}; "
        f"a merge {merge:.0f} ns a row; gradient over that of labels {ratios} (most elsewhere)"
    )


if __name__ == "__main__":
    for shape in (1024, 1000), (256, 8000), (8192, 1000), (1024, 32000):
        print_threads(shape)
    for n_rows, n_classes in (65536, 10), (65536, 100), (4096, 1000), (2048, 4000), (2048, 16000):
        print_block(n_rows, n_classes)
