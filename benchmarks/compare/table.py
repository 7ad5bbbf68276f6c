"""The results of a comparison as text."""

TITLES = {
    "cross_entropy_with_grad": "loss and gradient (cross_entropy_with_grad)",
    "softmax": "softmax",
    "cross_entropy": "the loss alone (cross_entropy)",
    "logsumexp": "logsumexp",
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


def lines(results):
    """Yield a table for each function and dtype, and below it what was left out, and why."""
    kinds = dict.fromkeys((r["function"], r["dtype"]) for r in results["results"])
    for function, dtype in sorted(kinds, key=lambda kind: list(TITLES).index(kind[0])):
        group = [r for r in results["results"] if (r["function"], r["dtype"]) == (function, dtype)]
        limits = ["copy", "read"] if function in READ_ONLY else ["copy"]
        libraries = [name for name in results["versions"] if name != "cysoftmax"]
        libraries = [name for name in libraries if any(name in r["seconds"] for r in group)]
        yield f"\n{TITLES[function]}, {dtype}: milliseconds, ours over the limit, others over ours"
        heads = [*limits, "cysoftmax", *(f"/ {limit}" for limit in limits), *libraries]
        yield f"{'':20}" + "".join(f"{head:>14}" for head in heads)
        for result in group:
            yield f"{result['shape']:20}" + "".join(
                f"{cell:>14}" for cell in cells(result["seconds"], limits, libraries)
            )
        yield from remarks(group)


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
    """Yield a line for each library that was left out somewhere, and each reason."""
    shapes = {}
    for result in group:
        for name, reason in result["left out"].items():
            shapes.setdefault((name, reason), []).append(result["shape"])
    for (name, reason), where in shapes.items():
        yield f"  {name}: {reason} ({'all' if len(where) == len(group) > 1 else ', '.join(where)})"
