"""Print what options cost, as Markdown: `python -m benchmarks.price --help`.

One table has the time of each option over that of plain labels, another that of our function over
the same by hand, with our softmax and NumPy. All calls of a line take turns, in one process.
"""

import argparse
from functools import partial
from pathlib import Path

import cysoftmax
from benchmarks import markdown, options, shapes, tasks, timing
from benchmarks.cases import Problem
from benchmarks.compare.peers import ByHand, PyTorch
from benchmarks.markdown import table

# (shape with the classes last, axis of the classes)
SHAPES = [
    ((1_000_000, 3), -1),
    ((300_000, 10), -1),
    ((100_000, 32), -1),
    ((2, 333, 500, 21), 1),
    ((8192, 1000), -1),
]
NAMES = {shapes.name_of(*shape): shape for shape in SHAPES}
OPTIONS = {  # an option, and what heads its column
    "one-hot": "one-hot bool",
    "distribution": "distribution",
    "CSR": "CSR",
    "where": "where",
    "label_smoothing": "smoothing",
    "z_loss": "z_loss",
    "float16": "float16",
    "class_weight": "class weights",
    "sample_weight": "sample weights",
    "ignore 30 %": "ignore 30 %",
    "ignore none": "ignore none",
}
BY_HAND = {
    "soft_loss": "soft loss",
    "soft_gradient": "soft gradient",
    "masked_softmax": "softmax(where=)",
    "softmax_vjp": "softmax_vjp",
}
SECONDS = 13.0, 3.0  # for a line of the first table, and for a number of the second
BEGIN, END = markdown.marks("price")
replaced = partial(markdown.replaced, "price")


def option_prices(problem, seconds):
    """Return the time of labels, and of each option over it; None where there is no such call."""
    calls = {"labels": options.checked_call("labels", problem)}
    for option in OPTIONS:
        try:
            calls[option] = options.checked_call(option, problem)
        except NotImplementedError:
            continue
    times = timing.shortest(*calls.values(), seconds=seconds)
    found = dict(zip(calls, times, strict=True))
    return [found["labels"], *(ratio(found.get(option), found["labels"]) for option in OPTIONS)]


def task_prices(problem, peers, seconds):
    """Yield our time, and our time over that of the fastest way of each peer, for each task."""
    for task in BY_HAND:
        calls, owners = [tasks.ours(task, problem)], ["ours"]
        for name, peer in peers.items():
            ways = tasks.checked_ways(task, problem, peer)
            calls += ways
            owners += [name] * len(ways)
        times = timing.shortest(*calls, seconds=seconds)
        best = {}
        for owner, time in zip(owners, times, strict=True):
            best[owner] = min(time, best.get(owner, time))
        yield best["ours"], *(ratio(best["ours"], best[name]) for name in peers)


def ratio(a, b):
    return None if a is None else a / b


# ---------------------------------------------------------------- as Markdown


def milliseconds(seconds):
    return f"{1e3 * seconds:.3g}"


def times(number):
    return "" if number is None else f"{number:.2f}" if number < 10 else f"{number:.0f}"


def written(shape):
    lengths, *axis = shape.split(",")
    return ", ".join([lengths.replace("x", " x "), *axis])


def head_of_tasks(peer_names):
    def head(what, i):
        return f"{what}, ms" if i == 0 else f"/ {peer_names[i - 1]}"

    return [head(what, i) for what in BY_HAND.values() for i in range(len(peer_names) + 1)]


def measured(names, dtype, peers, share):
    """Return both tables as lines; `share` of the usual seconds is spent."""
    first, second = [], []
    for name in names:
        problem = Problem(dtype, *NAMES[name])
        labels, *ratios = option_prices(problem, SECONDS[0] * share)
        first.append([written(name), milliseconds(labels), *map(times, ratios)])
        cells = [written(name)]
        for ours, *ratios in task_prices(problem, peers, SECONDS[1] * share):
            cells += [milliseconds(ours), *map(times, ratios)]
        second.append(cells)
    return [
        f"Loss and gradient, {dtype}: milliseconds for labels, then each option's time over it.",
        "",
        *table(["classes last or on axis", "labels, ms", *OPTIONS.values()], first),
        "",
        f"{dtype}: milliseconds, then this time over that of the same by {' and '.join(peers)}.",
        "",
        *table(["classes last or on axis", *head_of_tasks(list(peers))], second),
    ]


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.price", description=__doc__.partition(":")[0]
    )
    parser.add_argument("--shapes", nargs="+", choices=NAMES, default=list(NAMES), metavar="SHAPE")
    parser.add_argument("--dtype", choices=shapes.DTYPES, default="float32")
    parser.add_argument("--share", type=float, default=1.0, help="of the usual time, such as 0.1")
    parser.add_argument("--peers", action="store_true", help="beside PyTorch, too")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables there, too")
    chosen = parser.parse_args(argv)

    n_threads = cysoftmax.show_config("dicts")["threads"]["default"]
    peers = {"hand": ByHand()}
    if chosen.peers:
        peers["PyTorch"] = PyTorch(n_threads)
    lines = measured(chosen.shapes, chosen.dtype, peers, chosen.share)
    isa = cysoftmax.show_config("dicts")["instruction set"]["in use"]
    lines.insert(0, f"Threads: {n_threads}; {isa}; cysoftmax {cysoftmax.__version__}.\n")
    print("\n".join(lines))
    if chosen.write:
        chosen.write.write_text(replaced(chosen.write.read_text(), lines))


if __name__ == "__main__":
    main()
