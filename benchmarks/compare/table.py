"""The results of a comparison as text: `python -m benchmarks.compare.table RESULTS` prints them.

With `median` after the file the times are medians instead of the shortest ones.
"""

import json
import sys
from pathlib import Path

TITLES = {
    "cross_entropy_with_grad": "loss and gradient (cross_entropy_with_grad)",
    "softmax": "softmax",
    "cross_entropy": "the loss alone (cross_entropy)",
    "logsumexp": "logsumexp",
    "soft_targets": "loss and gradient of a distribution",
    "one_hot": "loss and gradient of a 0/1 matrix",
    "label_smoothing": "loss and gradient of labels, with label_smoothing",
    "masked_softmax": "softmax with a mask (where)",
    "softmax_vjp": "back through a softmax (softmax_vjp)",
}
READ_ONLY = ("cross_entropy", "logsumexp")  # next to nothing is written: a read is their limit

BUSY = 0.5  # cores: a call on all of them then waits for the one that is taken


def head(results):
    """Yield what is compared, where."""
    machine = results["machine"]
    yield (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['instruction set']}; "
        f"threads for each library: {machine['threads']}"
    )
    yield ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    if machine["load"] > BUSY:
        yield f"others keep {machine['load']:.1f} cores busy: do not believe the times"
    for name in results["missing"]:
        yield f"{name} is not installed, and left out"


def lines(results, statistic="seconds"):
    """Yield a table for each function and dtype, and below it what was left out, and why.

    The statistic is "seconds", the shortest times, or "median".
    """
    kinds = dict.fromkeys((r["function"], r["dtype"]) for r in results["results"])
    for function, dtype in sorted(kinds, key=lambda kind: list(TITLES).index(kind[0])):
        group = [r for r in results["results"] if (r["function"], r["dtype"]) == (function, dtype)]
        limits = ["copy", "read"] if function in READ_ONLY else ["copy"]
        libraries = [name for name in results["versions"] if name != "cysoftmax"]
        libraries = [name for name in libraries if any(name in r["seconds"] for r in group)]
        yield f"\n{TITLES[function]}, {dtype}: milliseconds, ours over the limit, others over ours"
        heads = [*limits, "cysoftmax", *(f"/ {limit}" for limit in limits), *libraries]
        yield line("", heads, heads)
        for result in group:
            yield line(result["shape"], cells(result[statistic], limits, libraries), heads)
        yield from remarks(group)


def line(first, others, heads):
    """Return a line of a table, its columns as wide as their heads and the usual numbers."""
    widths = [max(10, len(head) + 2) for head in heads]
    return f"{first:20}" + "".join(f"{x:>{w}}" for x, w in zip(others, widths, strict=True))


def cells(seconds, limits, libraries):
    """Yield the numbers of one line."""
    ours = seconds["cysoftmax"]
    for name in (*limits, "cysoftmax"):
        yield significant(1e3 * seconds[name])
    for name in limits:
        yield f"{ours / seconds[name]:.2f}"
    for name in libraries:
        yield f"{significant(seconds[name] / ours)} x" if name in seconds else "-"


def significant(x):
    """Return a positive number with three digits, never with an exponent."""
    return f"{x:.0f}" if x >= 100 else f"{x:.3g}" if x >= 1e-3 else f"{x:.5f}"


def remarks(group):
    """Yield a line for each reason to leave out libraries, and the shapes where they are."""
    shapes = {}
    for result in group:
        for name, reason in result["left out"].items():
            shapes.setdefault((name, reason), []).append(result["shape"])
    names = {}
    for (name, reason), where in shapes.items():
        where = "all" if len(where) == len(group) > 1 else ", ".join(where)
        names.setdefault((reason, where), []).append(name)
    for (reason, where), them in names.items():
        yield f"  {', '.join(them)}: {reason} ({where})"


def main():
    file, *statistic = sys.argv[1:]
    results = json.loads(Path(file).read_text())
    print("\n".join([*head(results), *lines(results, *statistic)]))


if __name__ == "__main__":
    main()
