"""Calls whose memory is measured, and how much of it they may need: see test_memory.py.

As a script, in a process into which count_malloc.c was preloaded, prints as JSON how many bytes
each call had in use at most, beyond those before it. The functions are those of calls.py.
"""

import ctypes
import itertools
import json
import sys
from functools import partial
from typing import NamedTuple

import numpy as np
from calls import CALLS, inputs, moved

import cysoftmax
from cysoftmax import _threads

# A call of each function, by its name: of class indices, if of a target.
FUNCTIONS = {call.function: call for call in CALLS if call.second in ("", "labels", "vector")}
# name: shape of the array, its axis of classes, from class to class in memory (1: contiguous)
LAYOUTS = {
    "rows": ((200, 5000), -1, 1),
    "few classes": ((30_000, 30), -1, 1),
    "classes first": ((400, 2500), 0, 2500),
    "long classes first": ((10_000, 60), 0, 60),
    "every other class": ((60, 10_000), -1, 2),
    "one long row": ((1, 1_000_000), -1, 1),
}
KIB, MIB = 1 << 10, 1 << 20


class Case(NamedTuple):
    """A call: the function with its reduction, where its result goes, of which logits."""

    function: str
    reduction: str | None
    result: str  # "in place", "out" or "new"
    layout: str
    dtype: str
    n_threads: int
    options: bool = False

    @property
    def name(self):
        words = [str(part) for part in self[:5] if part]
        threads = f"{self.n_threads} thread{'s' * (self.n_threads > 1)}"
        return ", ".join([*words, threads] + ["options"] * self.options)

    @property
    def strided(self):
        return LAYOUTS[self.layout][2] > 1

    @property
    def n_classes(self):
        shape, axis, _ = LAYOUTS[self.layout]
        return shape[axis]

    @property
    def n_rows(self):
        return int(np.prod(LAYOUTS[self.layout][0])) // self.n_classes

    @property
    def logits_bytes(self):
        return self.n_rows * self.n_classes * np.dtype(self.dtype).itemsize

    @property
    def row_bytes(self):
        """Of a row in scratch: float16 is worked on in float32."""
        return self.n_classes * max(4, np.dtype(self.dtype).itemsize)

    @property
    def result_bytes(self):
        """Of the arrays that the call has to make, since it is given none."""
        about, given = FUNCTIONS[self.function].about, self.result != "new"
        whole = () if given else about.whole
        rows = () if given and not about.whole else about.rows
        itemsize = max(4, np.dtype(self.dtype).itemsize)
        numbers = sum(8 if name == "argmax" else itemsize for name in rows)
        return len(whole) * self.logits_bytes + numbers * self.n_rows

    @property
    def shared(self):
        """Whether the threads share a row out: then the exps wait in the result for their sum."""
        one_row = self.function in ("cross_entropy_grad_hess", "row_stats", "softmax_vjp")
        few_rows = _threads.OPENMP and self.n_rows < self.n_threads
        return few_rows and not (one_row or self.strided or self.options)

    @property
    def bound(self):
        """The bytes that the call may have in use at most."""
        numbers = 7 if self.function == "row_stats" else 1  # which has a float64 for each result
        of_rows = self.result_bytes + 8 * numbers * self.n_rows + 16 * KIB
        if self.shared:
            return of_rows + 240 * KIB  # what is summed of some spans, in rounds
        rows = 5 if self.options else 3 if self.strided or self.dtype == "float16" else 2
        tile = 16 * self.row_bytes  # sixteen side by side
        if self.strided and tile <= 512 * KIB:
            rows = 34 * max(1, min(8, 512 * KIB // tile))  # up to eight, and the next or outputs
            if self.options:  # masks and class weights, too
                rows = max(rows, (512 * KIB + tile) // self.row_bytes)
        elif self.n_classes <= 192:
            rows = 34 * max(1, min(8, 32 * KIB // tile))
        threads = min(self.n_threads, self.n_rows)
        return of_rows + threads * min(rows * self.row_bytes + 48 * KIB, MIB)


def all_cases():
    """Every function, place of the result and reduction on two threads, and with_grad on one."""
    for layout, dtype in itertools.product(LAYOUTS, ["float32", "float64", "float16"]):
        if dtype == "float16" and layout not in ("rows", "long classes first"):
            continue
        for n_threads in (1, 2):
            for function, reduction, result in calls():
                if dtype == "float32" or function in ("softmax", "cross_entropy_with_grad"):
                    yield Case(function, reduction, result, layout, dtype, n_threads)
        yield Case("cross_entropy_with_grad", "mean", "in place", layout, dtype, 2, True)


def calls():
    """Yield functions, their reductions, and where they may be told to put their results."""
    for name, call in FUNCTIONS.items():
        for reduction in call.reductions:
            if call.about.whole:
                places = ("in place", "out", "new")
            else:
                places = ("out",) if call.out and reduction in (None, "none") else ("new",)
            for result in places:
                yield name, reduction, result


# ---------------------------------------------------------------- what the script does


def arrays(case):
    """Return logits in the layout of a case, and a label for each row."""
    shape, axis, _ = LAYOUTS[case.layout]
    step = 2 if case.layout == "every other class" else 1
    x = np.zeros((*shape[:-1], shape[-1] * step), case.dtype)[..., ::step]
    x[...] = np.linspace(-3, 3, case.n_classes).astype(case.dtype).reshape([-1, 1][: -axis or 2])
    return x, np.arange(case.n_rows) % case.n_classes, axis


def prepared(case):
    """Return the call of a case as a function without arguments; all it is given exists then."""
    call = FUNCTIONS[case.function]
    x, labels, axis = arrays(case)
    given = {"logits": x, "axis": axis, "n_threads": case.n_threads}
    if call.second:
        given["second"] = labels if call.second == "labels" else np.ones_like(x)
    given |= call.keywords(case.reduction)
    if case.options:
        given |= some_options(case, x)
    if case.result != "new":
        like = x if call.about.whole else np.zeros(case.n_rows, np.result_type(x, np.float32))
        places = [np.zeros_like(like) for _ in call.out]
        if case.result == "in place":
            places[0] = x
        given["out"] = places if len(places) == 2 else places[0]
    return lambda: call(given)


def some_options(case, x):
    return {
        # of another dtype than is computed in, it would be converted: one number a class
        "class_weight": np.ones(case.n_classes, np.result_type(x.dtype, np.float32)),
        "sample_weight": np.ones(case.n_rows),
        "label_smoothing": 0.1,
        "z_loss": 1e-3,
        "temperature": 0.7,
        "where": np.ones(x.shape, bool),
    }


# Long rows by what they are: dtype, options, and whether their classes are strided.
LONG = {
    "contiguous": ("float32", (), False),
    "float64": ("float64", (), False),
    "strided": ("float32", (), True),
    "masked": ("float32", ("where",), False),
    "float16": ("float16", (), False),
    "all options": ("float32", "all", False),
    "float16, strided, all options": ("float16", "all", True),
}
LONG_SHAPE = 2, 1_000_000


def long_calls():
    """Yield calls of long rows: name, number of threads, and what prepares them."""
    alone = "cross_entropy", "cross_entropy_grad"  # which are parts of what is both
    some = [call for call in CALLS if call.second in ("", "labels") or call.function not in alone]
    for call, (kind, about), n_threads in itertools.product(some, LONG.items(), (1, 2)):
        dtype, options, strided = about
        if not options or (call.takes and (options == "all" or set(options) <= set(call.takes))):
            name = f"{call.name}, {kind}, {n_threads} thread{'s' * (n_threads > 1)}"
            yield name, n_threads, partial(long_call, call, dtype, options, strided, n_threads)


def long_call(call, dtype, options, strided, n_threads):
    """Return a call of long rows as a function without arguments."""
    given = inputs(call, LONG_SHAPE, dtype, options) | call.of_rows
    if strided:
        given["logits"] = np.repeat(given["logits"], 2, axis=1)[:, ::2]
    if "class_weight" in given:  # of the dtype of computation
        given["class_weight"] = given["class_weight"].astype(np.float32)
    return lambda: call(given, n_threads=n_threads)


def long_bound(n_threads):
    """The bytes that a call of long rows may have in use beside its results."""
    return n_threads * MIB + 16 * KIB  # the latter for numbers of rows and of blocks


# Rows that are taken sixteen at a time: shape, and the axis of the classes.
TILES = {
    "few classes": ((30_000, 30), -1),
    "classes first": ((20_000, 60), 0),
    "many classes first": ((400, 2500), 0),
}


def tile_calls():
    """Yield calls of rows in tiles: name, the bytes that they may need, and what prepares them.

    Every target, each option alone, and all of them at once.
    """
    for call, (layout, (shape, axis)), n_threads in itertools.product(CALLS, TILES.items(), (1, 2)):
        if axis not in call.axes:
            continue
        cases = [("float32", (name,)) for name in call.takes if layout == "few classes"]
        cases += [("float32", ()), ("float16", ())]
        cases += [(dtype, "all") for dtype in ("float32", "float64", "float16") if call.takes]
        for dtype, options in cases:
            words = options if isinstance(options, str) else ", ".join(options) or "no options"
            threads = f"{n_threads} thread{'s' * (n_threads > 1)}"
            name = f"{call.name}, {layout}, {dtype}, {words}, {threads}"
            numbers = 7 if call.function == "row_stats" else 1  # float64s of a row
            bound = n_threads * MIB + 8 * numbers * shape[0] + 16 * KIB  # beside the results
            yield name, bound, partial(tile_call, call, shape, axis, dtype, options, n_threads)


def tile_call(call, shape, axis, dtype, options, n_threads):
    """Return a call of rows in tiles as a function without arguments."""
    given = moved(inputs(call, shape, dtype, options), axis) | call.of_rows
    if "class_weight" in given:  # of the dtype of computation
        given["class_weight"] = given["class_weight"].astype(np.result_type(dtype, np.float32))
    return lambda: call(given, n_threads=n_threads)


def copied():
    """Yield calls that must copy the logits, by name, and the bytes of the copy."""
    x = np.zeros((200, 5000), np.float32)
    y = np.zeros(200, int)
    swapped, integers = x.astype(x.dtype.newbyteorder()), x.astype(int)
    yield "byte-swapped", lambda: cysoftmax.cross_entropy(swapped, y), x.nbytes
    yield "integers", lambda: cysoftmax.logsumexp(integers), 2 * x.nbytes
    yield "moved by a row", lambda: cysoftmax.softmax(x[1:], out=x[:-1]), x[1:].nbytes


def main(counter):
    counter = ctypes.CDLL(counter)
    counter.end_count.restype = ctypes.c_ssize_t

    def counted(call):
        counter.begin_count()
        result = call()
        return counter.end_count(), result

    cysoftmax.softmax(np.zeros((1000, 1000)))  # starts the threads
    counts = {case.name: counted(prepared(case))[0] for case in all_cases()}
    counts |= {name: counted(call)[0] for name, call, _ in copied()}
    counts["a million bytes"], _ = counted(lambda: np.empty(1_000_000, np.uint8).size)
    prepared_calls = [(name, prepare) for name, *_, prepare in [*long_calls(), *tile_calls()]]
    for name, prepare in prepared_calls:
        used, results = counted(prepare())
        counts[name] = used - sum(result.nbytes for result in results.values())
    print(json.dumps(counts))


if __name__ == "__main__":
    main(sys.argv[1])
