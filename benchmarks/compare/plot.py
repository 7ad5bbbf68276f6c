"""Draw the results of a comparison: `python -m benchmarks.compare.plot RESULTS FOLDER`.

The same results give the same files, byte by byte, with one version of matplotlib.
"""

import json
import re
import sys
from functools import partial
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks.compare.table import READ_ONLY

DTYPES = ["float32", "float64"]
# Colours that colour-blind readers tell apart (Okabe and Ito), and a shape for each as well.
MARKS = {
    "cysoftmax": ("#D55E00", "D"),
    "by hand": ("#E69F00", "d"),
    "NumPy": ("#999999", "v"),
    "SciPy": ("#000000", "^"),
    "numba": ("#8C564B", "<"),
    "PyTorch": ("#CC79A7", "s"),
    "torch.compile": ("#6A3D9A", "p"),
    "JAX": ("#0072B2", "o"),
    "scikit-learn": ("#009E73", "P"),
    "ONNX Runtime": ("#56B4E9", "X"),
    "OpenVINO": ("#B8A800", "*"),
}
WORK = {  # function: what the picture calls it, colour, mark
    "cross_entropy_with_grad": ("loss and gradient", "#D55E00", "D"),
    "softmax": ("softmax", "#0072B2", "o"),
    "cross_entropy": ("loss alone", "#009E73", "s"),
    "logsumexp": ("logsumexp", "#CC79A7", "^"),
}
OPTIONS = {  # task: what the picture calls it
    "soft_targets": "distribution",
    "one_hot": "0/1 matrix",
    "label_smoothing": "label_smoothing",
    "masked_softmax": "softmax(where=)",
    "softmax_vjp": "softmax_vjp",
}
STYLE = {
    "svg.hashsalt": "cysoftmax",  # or the names of elements would be random
    "svg.fonttype": "none",  # text stays text
    "font.size": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
NO_DATE = {"Date": None, "Creator": None}
# In inches: on a phone the letters are half as large, and still legible.
WIDTH, HEAD, PANEL, FOOT = 7.2, 2.0, 3.0, 1.15


def drawn(results, function):
    """Return the results of a function whose ratio to the limit says something, by dtype.

    A single row of ten classes takes less time than it takes to start a second thread.
    """
    chosen = [r for r in results["results"] if r["function"] == function and r["megabytes"] > 0.1]
    return {dtype: [r for r in chosen if r["dtype"] == dtype] for dtype in DTYPES}


def panels_of(results, title, subtitle, n=2):
    """Return a figure and its axes, above each other, with room for legend and headlines."""
    machine = results["machine"]
    threads = f"threads: {machine['threads']}, {machine['instruction set']}, {machine['cpu']}"
    height = HEAD + FOOT + n * PANEL
    figure = Figure((WIDTH, height), facecolor="white")
    figure.suptitle(title, x=0.02, y=1 - 0.135 / height, ha="left", fontsize=16, fontweight="bold")
    figure.text(0.02, 1 - 0.504 / height, f"{subtitle}\n{threads}", va="top", linespacing=1.4)
    panels = figure.subplots(n, 1, sharex=True)
    figure.subplots_adjust(
        left=0.125, right=0.985, top=1 - HEAD / height, bottom=FOOT / height, hspace=0.12
    )
    return figure, panels


def finish(axes, group):
    """Write the shapes below, and draw what guides the eye behind the marks."""
    names = [re.sub(r"(?<=\d)x", "×", r["shape"]).replace(",", "\n") for r in group]
    axes.set_xticks(
        range(len(names)), names, rotation=38, ha="right", rotation_mode="anchor",
        fontsize=10.5, linespacing=0.85,
    )  # fmt: skip
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color="#DDDDDD")
    for i in range(1, len(names), 2):
        axes.axvspan(i - 0.5, i + 0.5, color="#F4F4F4", zorder=0, linewidth=0)


def share_legend(figure, axes, columns):
    """Put one legend for all panels between the headlines and the first panel."""
    found = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    place = 0.005, 1 - 1.09 / figure.get_figheight()
    figure.legend(
        found.values(), found, loc="upper left", bbox_to_anchor=place, ncols=columns,
        frameon=False, columnspacing=1.2, handletextpad=0.3, borderaxespad=0,
    )  # fmt: skip


def beside(i, n):
    """Return how far the i-th of n marks stands from the middle of its shape."""
    return 0.5 * (i / (n - 1) - 0.5) if n > 1 else 0.0


# ---------------------------------------------------------------- the pictures


def logarithmic(axes, label):
    """Give an axes a scale of ratios."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(FixedLocator([0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
    axes.axhline(1, color="black", linewidth=1.2, label=label)


def mark_ratios(axes, group, names, to):
    """Draw the time of each library over that of one of them, or of a limit."""
    for k, name in enumerate(names):
        points = [
            (i + beside(k, len(names)), r["seconds"][name] / r["seconds"][to])
            for i, r in enumerate(group)
            if name in r["seconds"]
        ]
        colour, mark = MARKS[name]
        if points:
            axes.plot(
                *zip(*points, strict=True), mark, color=colour, label=name, markersize=9,
                markeredgecolor="white", markeredgewidth=0.7,
            )  # fmt: skip


def named_in(results):
    """Return the libraries that have times in some of the results, in the order of the marks."""
    return [name for name in MARKS if any(name in r["seconds"] for r in results)]


def over_the_copy(results, function):
    """Return the figure of every library's time over that of the streaming copy."""
    what = WORK[function][0]
    figure, panels = panels_of(
        results,
        f"{what[0].upper()}{what[1:]}: lower is faster",
        "Time over that of a copy of the logits, whose stores go past the caches",
    )
    groups = drawn(results, function)
    names = named_in([r for group in groups.values() for r in group])
    panels[0].sharey(panels[1])  # before anything is drawn: the limits then suit both
    for axes, (dtype, group) in zip(panels, groups.items(), strict=True):
        logarithmic(axes, "1: the limit")
        mark_ratios(axes, group, names, to="copy")
        axes.set_ylabel(f"{dtype}: time / copy")
        finish(axes, group)
    share_legend(figure, panels, 4)
    return figure


def over_ours(results):
    """Return the figure of other libraries' times over ours, for targets, masks and backward."""
    figure, panels = panels_of(
        results,
        "Other targets, masks, backward: higher is slower",
        "Time of others over that of cysoftmax, float32",
        len(OPTIONS),
    )
    groups = {task: drawn(results, task)[DTYPES[0]] for task in OPTIONS}
    names = named_in([r for group in groups.values() for r in group])
    for axes, (task, group) in zip(panels, groups.items(), strict=True):
        logarithmic(axes, "1: cysoftmax")
        mark_ratios(axes, group, names[1:], to="cysoftmax")
        axes.set_ylabel(OPTIONS[task])
        finish(axes, group)
    share_legend(figure, panels, 4)
    return figure


def roofline(results):
    """Return the figure of the gigabytes per second that each function reaches, and of the limits.

    Above what reads and writes, the roof being the copy; below what only reads.
    """
    figure, panels = panels_of(
        results,
        "Memory traffic of cysoftmax: higher is faster",
        "Filled, solid: float32; hollow, dotted: float64",
    )
    kinds = [
        ("copy", 2, [f for f in WORK if f not in READ_ONLY], "read + written"),
        ("read", 1, READ_ONLY, "read"),
    ]
    for axes, (limit, passes, functions, what) in zip(panels, kinds, strict=True):
        for k, function in enumerate(functions):
            label, colour, mark = WORK[function]
            for dtype, group in drawn(results, function).items():
                filled = dtype == DTYPES[0]
                places = [i + beside(k, len(functions)) / 1.5 for i in range(len(group))]
                traffic = [passes * r["megabytes"] / 1e3 for r in group]  # gigabytes
                axes.hlines(
                    [t / r["seconds"][limit] for t, r in zip(traffic, group, strict=True)],
                    [place - 0.16 for place in places], [place + 0.16 for place in places],
                    color="black", linestyle="-" if filled else ":",
                    label="limit: copy, read" if filled else None,
                )  # fmt: skip
                axes.plot(
                    places,
                    [t / r["seconds"]["cysoftmax"] for t, r in zip(traffic, group, strict=True)],
                    mark, color=colour, markersize=9, markeredgewidth=1.8,
                    markerfacecolor=colour if filled else "white", label=label if filled else None,
                )  # fmt: skip
        axes.set_ylim(bottom=0)
        axes.set_ylabel(f"GB/s {what}")
        finish(axes, group)
    share_legend(figure, panels, 3)
    return figure


PICTURES = {
    "compare.svg": partial(over_the_copy, function="cross_entropy_with_grad"),
    "compare_softmax.svg": partial(over_the_copy, function="softmax"),
    "compare_options.svg": over_ours,
    "roofline.svg": roofline,
}


def write(results, folder):
    """Write all pictures into a folder."""
    with mpl.rc_context({**mpl.rcParamsDefault, **STYLE}):
        for name, draw in PICTURES.items():
            draw(results).savefig(folder / name, metadata=NO_DATE)


def main():
    results, folder = map(Path, sys.argv[1:])
    write(json.loads(results.read_text()), folder)


if __name__ == "__main__":
    main()
