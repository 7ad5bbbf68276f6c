"""Sixteen rows at a time give each row the bits that it has alone.

One row alone is walked class by class (the way ROWS), many short or strided rows in tiles (the way
TILES): _plan.pxd. Each call of calls.py goes both ways here, with each option, whatever the rows
beside a row are: ignored, masked, NaN, infinite.
"""

from itertools import cycle, product

import numpy as np
import pytest
from calls import (
    BY_NAME,
    CALLS,
    back,
    inputs,
    is_whole,
    laid_out,
    moved,
    over_calls,
    room_for,
    rows_of,
)
from cases import LAYOUTS, WRITEABLE, assert_same_bits, assert_same_results, dtype_of
from scipy import sparse

from cysoftmax import cross_entropy_grad

DTYPES = ["float32", "float64", "float16", "bfloat16"]
# Numbers of classes, and whether some rows are `troubled`.
CLASSES = {
    1: True,
    2: False,
    3: True,
    5: False,
    10: True,
    16: False,
    17: True,
    33: False,
    100: True,
}
N_ROWS = 16 * 9 + 6  # more than the eight tiles of a block, and a broken one
IMAGES = {150: (3, 50), 30: (2, 15)}  # by the number of rows: the axes beside that of the classes
IGNORED = -100
PAIRS = [
    ("class_weight", "label_smoothing"),
    ("class_weight", "where"),
    ("label_smoothing", "where"),
    ("label_smoothing", "z_loss"),
    ("ignore_index", "sample_weight"),
    ("ignore_index", "where"),
    ("sample_weight", "scale"),
]
IN_LAYOUTS = ["reversed", "every other", "every third class", "every other row", "misaligned",
              "oddly strided", "byte-swapped", "padded rows"]  # fmt: skip
OUT_LAYOUTS = ["Fortran", "reversed", "every other", "oddly strided", "padded rows", "misaligned"]


def combinations(call):
    """Yield no option, each alone, some pairs, and all together, of those that a call takes."""
    yield ()
    yield from ((name,) for name in call.takes)
    yield from (pair for pair in PAIRS if set(pair) <= set(call.takes))
    if len(call.takes) > 2:
        yield "all"


# ---------------------------------------------------------------- rows unlike their neighbours


def spoil_logits(logits, rng):
    """Put NaN and infinities into some rows, three of them side by side."""
    n_rows, n_classes = logits.shape
    some = rng.permutation(n_rows)[: n_rows // 4]
    some = np.concatenate([some, [5, 6, 7]])
    values = [np.nan, np.inf, -np.inf, np.finfo(np.float64).max, -np.finfo(np.float64).max]
    for i, row in enumerate(some):
        value = values[i % len(values)]
        with np.errstate(over="ignore"):
            logits[row, rng.integers(n_classes)] = value
            if i % 7 == 0:
                logits[row] = value
            if i % 11 == 0:
                logits[row, rng.integers(n_classes)] = np.nan


def troubled(call, given, rng):
    """Return inputs some of whose rows are spoilt, ignored or masked, whole blocks of them too.

    Rows 16 to 31 and 10 more are ignored: their labels are ignored, or their targets are empty;
    some of those are spoilt, too. Rows 32 to 47 are masked, some labels are masked.
    """
    given = {name: value.copy() if isinstance(value, np.ndarray) else value
             for name, value in given.items()}  # fmt: skip
    n_rows = len(given["logits"])
    spoil_logits(given["logits"], rng)
    if "where" in given:
        given["where"][32:48] = False
        given["where"][rng.permutation(n_rows)[:5]] = False
        if call.second == "labels":
            given["where"][rng.permutation(n_rows)[:5], given["second"][:5]] = False
    if "sample_weight" in given:
        given["sample_weight"][:16] = 0
    ignored = np.concatenate([np.arange(16, 32), rng.permutation(n_rows)[:10]]) % n_rows
    if "ignore_index" in given:
        given["ignore_index"] = IGNORED
        given["second"][ignored] = IGNORED
    if call.second in ("one-hot", "distribution"):
        given["second"][ignored] = 0
    if call.second == "vector":
        spoil_logits(given["second"], rng)
    if call.second == "CSR":
        dense = given["second"].toarray()
        dense[ignored] = 0
        given["second"] = dense
    if "where" in given and call.second in ("one-hot", "distribution", "CSR"):
        given["second"] = given["second"] * given["where"]
    if call.second == "CSR":
        given["second"] = sparse.csr_array(given["second"])
    return given


def problem(call, n_rows, n_classes, dtype, options, trouble):
    given = inputs(call, (n_rows, n_classes), dtype, options) | call.of_rows
    if not trouble:
        return given
    return troubled(call, given, np.random.default_rng(n_classes))


# ---------------------------------------------------------------- each row alone


def each_alone(call, given):
    """Return the results of each row, computed alone; of sparse rows, as distributions."""
    if call.second == "CSR":
        call = BY_NAME[f"{call.function} of distribution"]
        given = given | {"second": given["second"].toarray()}
    n_rows = len(given["logits"])
    rows = [call(rows_of(given, row)) for row in range(n_rows)]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def as_images(call, given, shape):
    """Return the inputs as images of that shape, the classes on the second axis."""
    changed = {
        name: value.reshape(*shape, *value.shape[1:])
        if isinstance(value, np.ndarray) and len(value) == len(given["logits"])
        and name != "class_weight"
        else value
        for name, value in given.items()
    }  # fmt: skip
    return moved(changed, 1) | {"axis": 1}


def assert_rows_are_those(call, given, want, message, layouts, places):
    """Computed together, contiguous and strided, on 1, 2, 3 threads, all rows are as they should.

    And with all arrays in the next layout, the results in the next place, or in place.
    """
    n_rows = len(given["logits"])
    got = call(given, n_threads=1)
    assert_same_results(got, want, f"{message} contiguous")
    for axis in call.axes[:-1]:
        turned = moved(given, axis)
        assert_same_results(back(call, call(turned, n_threads=2), axis), want, f"{message} {axis}")
    if call.second != "CSR":
        got = call(as_images(call, given, IMAGES[n_rows]), n_threads=3)
        got = back(call, got, 1)
        flat = {name: result.reshape(want[name].shape) for name, result in got.items()}
        assert_same_results(flat, want, f"{message} images")
    layout = next(layouts)
    got = call(laid_out(given, LAYOUTS[layout]), n_threads=2)
    assert_same_results(got, want, f"{message} {layout}")
    if call.out:
        layout = next(places)
        assert_out_is(call, given, want, layout, f"{message} into {layout}")


def assert_out_is(call, given, want, layout, message):
    """The results are the same in an `out` in that layout; and in logits in that layout."""
    out, places = room_for(call, want, WRITEABLE[layout])
    call(given, out=out, n_threads=3)
    for name, place in places.items():
        assert_same_bits(place.astype(want[name].dtype), want[name], f"{message} {name}")
    if call.about.whole:
        logits, name = WRITEABLE[layout](given["logits"]), call.out[0]
        out = (logits, out[1]) if isinstance(out, tuple) else logits
        call(given, logits=logits, out=out, n_threads=1)
        assert_same_bits(logits.astype(want[name].dtype), want[name], f"{message} in place")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BY_NAME)
def test_rows_in_tiles_have_the_bits_that_each_has_alone(name, dtype):
    call, dtype = BY_NAME[name], dtype_of(dtype)
    layouts, places = cycle(IN_LAYOUTS), cycle(OUT_LAYOUTS)
    for options, (n_classes, trouble) in product(combinations(call), CLASSES.items()):
        given = problem(call, N_ROWS, n_classes, dtype, options, trouble)
        want = each_alone(call, given)
        message = f"{options} {n_classes} classes:"
        assert_rows_are_those(call, given, want, message, layouts, places)


@over_calls()
def test_they_have_them_on_each_instruction_set(name, dtype, options, isa):
    call, dtype = BY_NAME[name], dtype_of(dtype)
    layouts, places = cycle(IN_LAYOUTS), cycle(OUT_LAYOUTS)
    for n_classes, trouble in product((2, 3, 16, 17, 40), (False, True)):
        given = problem(call, 30, n_classes, dtype, options, trouble)
        want = each_alone(call, given)
        assert_rows_are_those(call, given, want, n_classes, layouts, places)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [call.name for call in CALLS if call.about.whole])
def test_nothing_is_written_around_the_rows(name, dtype, isa):
    call, dtype = BY_NAME[name], dtype_of(dtype)
    for n_rows, n_classes in product((16, 30, 128, N_ROWS), (1, 2, 3, 4, 5, 7, 16, 17)):
        given = inputs(call, (n_rows, n_classes), dtype) | call.of_rows
        want = call(given)
        for before in 0, 1, 3:
            memory = {key: np.full(before + want[key].size + 16, 77, dtype) for key in call.out}
            places = {key: array[before:-16].reshape(n_rows, n_classes)
                      for key, array in memory.items()}  # fmt: skip
            out = tuple(places.values())
            call(given, out=out if len(out) == 2 else out[0])
            for key, array in memory.items():
                assert_same_bits(places[key], want[key], f"{n_rows} x {n_classes} {key}")
                around = np.concatenate([array[:before], array[-16:]])
                assert (around == 77).all(), f"{n_rows} x {n_classes} {key} {around}"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_zeros_have_the_same_sign_where_weights_vanish(dtype, isa):
    x, labels = np.zeros((20, 3), dtype), np.zeros(20, int)
    x[10:, 0] = 2000  # p is 1
    for scale, smoothing, z_loss, weight in product(
        (1.0, 0.0, -0.0, -1.0, -1e-50, -1e-320), (0, 1e-300, 1e-50, 0.1, 1), (0, 0.1), (1, 0)
    ):
        options = {"scale": scale, "label_smoothing": smoothing, "z_loss": z_loss}
        for target in labels, labels[:, None] == np.arange(3):
            got = cross_entropy_grad(
                x, target, reduction="sum", sample_weight=np.full(20, weight), **options
            )
            for row in 0, 15:
                want = cross_entropy_grad(x[row], target[row], sample_weight=weight,
                                          reduction="sum", **options)  # fmt: skip
                assert_same_bits(got[row], want, f"{options} {weight}")


# ---------------------------------------------------------------- sums and means over rows


def widened(given, n_classes):
    """Return the inputs with masked classes behind the others, enough that rows go one by one.

    Up to 64 classes, nothing is added to a sum by them, and its bits stay.
    """
    n_rows, n = given["logits"].shape
    wide = dict(given)
    wide["where"] = np.ones((n_rows, n), bool) if "where" not in given else given["where"]
    for name in "logits", "second", "where":
        if is_whole(name, wide[name], given):
            more = np.full((n_rows, n_classes), np.zeros((), wide[name].dtype))
            more[:, :n] = wide[name]
            wide[name] = more
    if sparse.issparse(given["second"]):
        wide["second"] = sparse.csr_array(given["second"])
        wide["second"].resize(n_rows, n_classes)
    if "class_weight" in given:
        wide["class_weight"] = np.append(given["class_weight"], np.ones(n_classes - n))
    return wide


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [call.name for call in CALLS if call.about.reduces])
def test_sums_and_means_over_rows_in_tiles_are_those_over_single_rows(name, dtype):
    call, dtype = BY_NAME[name], dtype_of(dtype)
    for options, n_classes in product(combinations(call), (2, 3, 10, 17)):
        # Differences of logits alone, without a factor, are summed with less digits.
        if "label_smoothing" in options and not {"class_weight", "where"} & set(options):
            options = (*options, "where")
        for trouble in False, "labels":
            given = inputs(call, (N_ROWS, n_classes), dtype, options)
            if trouble:
                logits = given["logits"]
                given = troubled(call, given, np.random.default_rng(n_classes))
                given["logits"] = logits
            for reduction in "mean", "sum":
                given["reduction"] = reduction
                want = call(widened(given, 200))
                if "grad" in want:
                    want["grad"] = want["grad"][:, :n_classes].copy()
                message = f"{options} {n_classes} {reduction}"
                for n_threads in 1, 3:
                    got = call(given, n_threads=n_threads)
                    assert_same_results(got, want, message)
                for axis in call.axes[:-1]:
                    got = back(call, call(moved(given, axis), n_threads=2), axis)
                    assert_same_results(got, want, message)


# ---------------------------------------------------------------- at random


def some_case(rng):
    """Return a call with inputs at random, and what they are, in words."""
    call = CALLS[rng.integers(len(CALLS))]
    dtype = DTYPES[rng.integers(len(DTYPES))]
    n_classes = int(rng.choice([rng.integers(1, 20), rng.integers(1, 120)]))
    n_rows = 30 if rng.random() < 0.5 else N_ROWS
    names = [name for name in call.takes if rng.random() < rng.choice([0.2, 0.6])]
    given = inputs(call, (n_rows, n_classes), dtype_of(dtype), names, int(rng.integers(50)))
    given |= call.of_rows
    if rng.random() < 0.7:
        given = troubled(call, given, rng)
    if "label_smoothing" in given:
        given["label_smoothing"] = float(rng.choice([1e-9, 0.3, 1]))
    if "temperature" in given:
        given["temperature"] = float(rng.choice([1e-3, 0.3, 3, 1e3]))
    if "z_loss" in given:
        given["z_loss"] = float(rng.choice([1e-9, 0.1, 10]))
    if "scale" in given and rng.random() < 0.5:
        given["scale"] = np.full(n_rows, rng.choice([0, -1, 1e-30, 1e30]))
    if "class_weight" in given and rng.random() < 0.3:
        given["class_weight"] = given["class_weight"] * (rng.random(n_classes) < 0.5)
    if call.second == "distribution" and rng.random() < 0.5:
        given["second"] = given["second"].astype(rng.choice(["f4", "f2", "f8"]))
    return call, given, f"{call.name}, {dtype}, {names}, {n_rows} x {n_classes}"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_random_calls_in_tiles_have_the_bits_of_single_rows(seed, isa):
    """Every array in a layout of its own."""
    rng = np.random.default_rng(seed)
    layouts = [np.copy, *LAYOUTS.values()]
    out_layouts = list(WRITEABLE)
    for i in range(100):
        call, given, message = some_case(rng)
        want = each_alone(call, given)
        axis = int(rng.choice(call.axes))
        turned = moved(given, axis)
        for name, value in turned.items():
            if isinstance(value, np.ndarray) and value.ndim:
                turned[name] = layouts[rng.integers(len(layouts))](value)
        turned["n_threads"] = int(rng.integers(1, 4))
        got = back(call, call(turned), axis)
        assert_same_results(got, want, f"seed {seed}, {i}: {message}, axis {axis}")
        if call.out and axis == call.axes[-1]:
            layout = out_layouts[rng.integers(len(out_layouts))]
            assert_out_is(call, given, want, layout, f"seed {seed}, {i}: {message}, {layout}")
