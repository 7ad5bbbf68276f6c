"""Does a result depend on anything but its row? The number of rows whose bits change: 0, always."""

import numpy as np
from asv_runner.benchmarks.mark import SkipNotImplemented

import cysoftmax
from benchmarks import cases
from benchmarks.accuracy import use
from benchmarks.shapes import DTYPES
from cysoftmax import _core

FUSED = ["avx2", "avx512", "neon"]  # scalar rounds twice in a multiply-add: bits of its own
N_LOGITS = 400_000  # enough work for several threads


def results(x, y, **options):
    """Return what the functions make of the rows of x, as arrays with the rows first."""
    for name in cases.SCIPY:
        if hasattr(cysoftmax, name):  # an older commit has fewer
            reduced = {"reduction": "none"} if name in cases.REDUCED else {}
            given = cases.arguments(name, x, y, x)
            result = getattr(cysoftmax, name)(*given, **reduced, **options)
            yield from result if isinstance(result, tuple) else (result,)


def rows_that_differ(ours, others):
    """Return in how many rows two sets of results differ in any bit."""
    count = 0
    for a, b in zip(ours, others, strict=True):
        as_bytes = [np.ascontiguousarray(r).view(np.uint8).reshape(len(r), -1) for r in (a, b)]
        count += int((as_bytes[0] != as_bytes[1]).any(axis=1).sum())
    return count


def threads(x, y, expected):
    return sum(rows_that_differ(results(x, y, n_threads=n), expected) for n in (2, 3, 7))


def batch(x, y, expected):
    """Some rows alone, and the batch without its first row."""
    count = rows_that_differ(results(x[1:], y[1:]), [r[1:] for r in expected])
    for i in range(0, len(x), max(1, len(x) // 20)):
        alone = slice(i, i + 1)
        count += rows_that_differ(results(x[alone], y[alone]), [r[alone] for r in expected])
    return count


def layout(x, y, expected):
    padded = np.zeros((len(x), x.shape[1] + 5), x.dtype)
    padded[:, 2:-3] = x
    backwards = np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1]
    others = [np.asfortranarray(x), padded[:, 2:-3], backwards, np.repeat(x, 3, axis=1)[:, ::3]]
    return sum(rows_that_differ(results(other, y), expected) for other in others)


def instruction_set(x, y, expected):
    names = [name for name in FUSED if name in _core.available_isas()]
    if len(names) < 2:
        raise SkipNotImplemented("only one instruction set with fused multiply-add here")
    count = 0
    for name in names:
        use(name)
        count += rows_that_differ(results(x, y), expected)
    return count


CHANGES = {
    "threads": threads,
    "batch": batch,
    "layout": layout,
    "instruction set": instruction_set,
}


class Bits:
    """Everything that must not matter, changed; the sum over all functions."""

    params = (list(CHANGES), DTYPES, [10, 100, 1000, 20_000])
    param_names = ("what changes", "dtype", "classes")
    unit = "rows"

    def track_rows_that_differ(self, what, dtype, classes):
        rng = np.random.default_rng(0)
        x = (rng.standard_normal((N_LOGITS // classes, classes)) * 9).astype(dtype)
        y = rng.integers(0, classes, len(x))
        return CHANGES[what](x, y, list(results(x, y, n_threads=1)))
