"""What the results say, as sections of cells: for the front page and for the terminal alike."""

import math
from dataclasses import dataclass
from urllib.parse import quote

from benchmarks.dashboard.history import ALL, FAILED, ONE
from benchmarks.shapes import AXIS_0, DTYPES, SHAPES

TO_COPY = "ratios.LossAndGradientToCopy{}.track_ratio"
TO_SCIPY = "ratios.LossAndGradientToSciPy{}.track_ratio"
ULP = "accuracy.Accuracy.track_max_ulp"
ROWS = "bits.Bits.track_rows_that_differ"
CALL = "overhead.Call.time_call"
IMPORT = "overhead.Import.timeraw_import"
SCRATCH = "memory.Memory.track_scratch"

SHAPES_SHOWN = [  # what is written, which class measures it, and its parameter
    *((f"{rows} × {n}", "", elements) for elements, (rows, n) in SHAPES.items()),
    *((f"{SHAPES[e][1]} × {SHAPES[e][0]}, axis 0", "Axis0", e) for e in AXIS_0),
]
BOTH = "cross_entropy_with_grad"
CHANGES = ["threads", "batch", "layout", "instruction set"]


@dataclass
class Cell:
    """A number as text, the graph behind it, how much of a bar it fills, and whether it is bad."""

    text: str
    link: str = ""
    share: float | None = None
    bad: bool = False


@dataclass
class Section:
    title: str
    note: str
    columns: list
    rows: list  # of [label, Cell, ...]
    folded: bool = False


def graph(benchmark, **params):
    """Return the address of asv's graph of a benchmark, with these parameters chosen."""
    chosen = "&".join(f"p-{quote(k)}={quote(repr(v))}" for k, v in params.items())
    return f"#{quote(benchmark)}?{chosen}"


def cell(number, form, link, share=None, bad=False):
    """Return a number as a cell; a dash that leads nowhere if there is none."""
    if number is None:
        return Cell("–")
    return (
        Cell("failed", link, bad=True) if number == FAILED else Cell(form(number), link, share, bad)
    )


def to_copy(ratio, link):
    """Return a ratio to the limit, its bar full where that is reached."""
    return cell(ratio, times, link, share=ratio and min(1, 1 / ratio))


def to_scipy(ratio, link):
    """Return how many times as fast as SciPy; slower is bad."""
    return cell(ratio, lambda r: times(1 / r), link, bad=bool(ratio and ratio > 1))


def times(number):
    return f"{number:.2f}" if number < 10 else f"{number:.0f}"


def seconds(number):
    """Return a time in the unit that suits it."""
    for unit, scale in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if number >= scale:
            return f"{number / scale:.3g} {unit}"
    return f"{number / 1e-9:.3g} ns"


def speed(history, threads):
    rows = []
    for label, suffix, elements in SHAPES_SHOWN:
        row = [label]
        for dtype in DTYPES:
            copy, scipy = TO_COPY.format(suffix), TO_SCIPY.format(suffix)
            params = {"elements": elements, "dtype": dtype}
            ratio = history.value(copy, threads, dtype, elements)
            row.append(to_copy(ratio, graph(copy, **params)))
            ratio = history.value(scipy, threads, dtype, elements)
            row.append(to_scipy(ratio, graph(scipy, **params)))
        rows.append(row)
    return Section(
        f"Loss and gradient, {threads}",
        "Copy: time as a multiple of a streaming copy of the logits on as many threads, which is "
        "the limit; a full bar is the limit reached. SciPy: how many times as fast as its formula "
        "on one thread.",
        [f"{dtype} {what}" for dtype in DTYPES for what in ("copy", "SciPy")],
        rows,
        folded=threads == ONE,
    )


def accuracy(history):
    functions = sorted({p[0] for (name, _, p) in history.latest.values if name == ULP})
    rows = []
    for function in (f.strip("'") for f in functions):
        link = graph(ULP, function=function)
        numbers = [history.largest(ULP, function, dtype) for dtype in DTYPES]
        rows.append([function, *(cell(n, times, link, n and min(1, n / 8)) for n in numbers)])
    return Section(
        "Largest error",
        "In units of the last place, against long double, over all instruction sets of the "
        "machine; a full bar is 8.",
        list(DTYPES),
        rows,
    )


def bits(history):
    rows = []
    for change in CHANGES:
        numbers = [history.largest(ROWS, change, dtype) for dtype in DTYPES]
        link = graph(ROWS, **{"what changes": change})
        rows.append([change, *(cell(n, "{:.0f}".format, link, bad=bool(n)) for n in numbers)])
    return Section(
        "Rows whose bits change",
        "When the threads, the rest of the batch, the memory layout or the instruction set change. "
        "Anything but 0 is a defect.",
        list(DTYPES),
        rows,
    )


def costs(history):
    rows = []
    for name in ("softmax", BOTH):
        link = graph(CALL, function=name, classes=10)
        rows.append([f"{name}, 1 × 10", cell(history.value(CALL, ALL, name, 10), seconds, link)])
    scratch, link = history.largest(SCRATCH, BOTH), graph(SCRATCH, function=BOTH)
    rows += [
        ["import", cell(history.value(IMPORT, ALL), seconds, graph(IMPORT))],
        [f"{BOTH}, most scratch", cell(scratch, "{:,.0f} bytes".format, link)],
    ]
    note = "Before anything is computed, and beside the arrays that are given."
    return Section("Small costs", note, [""], rows)


def sections(history):
    """Return all sections, the most asked for first."""
    return [
        speed(history, ALL),
        speed(history, ONE),
        accuracy(history),
        bits(history),
        costs(history),
    ]


def typical(history, benchmark):
    """Return the geometric mean over shapes and dtypes of a ratio, or None."""
    numbers = [
        history.value(benchmark.format(suffix), ALL, dtype, elements)
        for _, suffix, elements in SHAPES_SHOWN
        for dtype in DTYPES
    ]
    logs = [math.log(number) for number in numbers if number]
    return math.exp(sum(logs) / len(logs)) if logs else None


def headlines(history):
    """Return (what, Cell, explanation) for the few numbers that answer in one look."""
    copy = to_copy(typical(history, TO_COPY), graph(TO_COPY.format("")))
    scipy = to_scipy(typical(history, TO_SCIPY), graph(TO_SCIPY.format("")))
    ulp, changed = history.largest(ULP), history.largest(ROWS)
    rows = cell(changed, "{:.0f}".format, graph(ROWS), bad=bool(changed))
    return [
        ("Time over the limit", copy, "times that of a streaming copy"),
        ("Speed over SciPy", scipy, "times its formula, on one thread"),
        ("Largest error", cell(ulp, times, graph(ULP)), "units in the last place"),
        ("Rows whose bits change", rows, "with threads, batch, layout"),
    ]
