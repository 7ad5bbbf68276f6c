"""The result of a row depends only on the row, to the last bit.

Each test makes the same call in two ways and compares bits: the order of summation is a
definition (16 lanes, fixed blocks, one tree), whatever the loop, the layout or the thread. What
holds here for the calls of calls.py need not be tested again for a function, a target or a dtype.
"""

import hashlib
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from calls import (
    BEYOND_ONE_ARRAY,
    BY_NAME,
    CALLS,
    COMPUTE_NOTHING,
    FUNCTIONS,
    LARGE,
    arrays_of,
    back,
    inputs,
    laid_out,
    made,
    moved,
    over_calls,
    room_for,
    rows_of,
)
from cases import (
    LAYOUTS,
    REAL,
    WRITEABLE,
    assert_same_bits,
    assert_same_results,
    dtype_of,
)

import cysoftmax
from cysoftmax import _core

# Both loops (sixteen rows at a time, row by row), whole and broken vecs, blocks and chunks.
WIDTHS = [(37, n) for n in (1, 2, 7, 10, 16, 17, 31, 32, 33, 48, 49, 64, 65, 112, 113)] + [
    (160, 50), (17, 192), (17, 193), (5, 1000), (3, 1023), (3, 1024), (3, 1025), (2, 5000),
]  # fmt: skip
# Tiles of few classes, strided tiles or rows of more, rows of more than a block.
SHAPES = [(20, 3), (19, 10), (5, 40), (3, 130), (2, 1030)]
# Where one array alone is laid out in another way than the others.
ONE_ARRAY = ["Fortran", "every other", "misaligned", "oddly strided", "byte-swapped"]
# Rows that threads share out, and rows that do not fit into a mebibyte of scratch.
LONG = [(2, 20_000), (1, 300_001)]

all_calls = over_calls()
large_calls = over_calls(combinations=LARGE)
calls_with_out = over_calls(lambda call: call.out)


@pytest.fixture
def problem(name, dtype, options):
    """A function that makes a call's inputs of a shape, and their results of each row."""
    call, dtype = BY_NAME[name], dtype_of(dtype)

    def of(shape):
        given = inputs(call, shape, dtype, options) | call.of_rows
        return call, given, call(given)

    return of


def test_the_registry_is_complete():
    computing = {name for name in cysoftmax.__all__ if name.islower()} - COMPUTE_NOTHING
    assert set(FUNCTIONS) == computing - BEYOND_ONE_ARRAY
    assert len({call.name for call in CALLS}) == len(CALLS)
    places = {"axis", "out", "n_threads", "keepdims", "reduction"}
    for call in CALLS:
        keywords = set(getattr(cysoftmax, call.function).__kwdefaults__)
        assert keywords - places == set(call.about.options), call.name
        assert ("reduction" in keywords) == call.about.reduces, call.name
        assert ("out" in keywords) == bool(call.out), call.name
        given = inputs(call, (5, 4), np.float64, "all")
        assert given.keys() - {"logits", "second"} == set(call.takes), call.name
        for results, shape in (call.about.whole, (5, 4)), (call.about.rows, (5,)):
            got = call(given | call.of_rows)
            for result in results:
                if result in got or call.second:
                    assert got[result].shape == shape, call.name
        assert got.keys() <= {*call.about.whole, *call.about.rows}, call.name


# ---------------------------------------------------------------- threads, other rows


def assert_threads_change_nothing(call, given, numbers=(2, 3, 7, None)):
    want = call(given, n_threads=1)
    for n_threads in numbers:
        assert_same_results(call(given, n_threads=n_threads), want, n_threads)


@large_calls
@pytest.mark.parametrize("shape", [(20_000, 10), (1500, 130), (40, 5000)])
def test_any_number_of_threads_gives_the_same_bits(name, dtype, options, shape):
    call = BY_NAME[name]
    given = inputs(call, shape, dtype_of(dtype), options)
    assert_threads_change_nothing(call, given | call.of_rows)
    for reduction in call.reductions[:-1] if shape[0] > 2000 else ():
        assert_threads_change_nothing(call, given | call.keywords(reduction), (2, 7))


@large_calls
@pytest.mark.parametrize("shape", [(2, 70_000), (1, 300_001)])
def test_any_number_of_threads_gives_long_rows_the_same_bits(name, dtype, options, shape):
    call = BY_NAME[name]
    given = inputs(call, shape, dtype_of(dtype), options)
    assert_threads_change_nothing(call, given | call.of_rows)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_million_classes_on_any_number_of_threads_give_the_same_bits(name):
    call = BY_NAME[name]
    assert_threads_change_nothing(call, inputs(call, (1, 1_000_003), np.float32))


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", [(100_003, 3), (40_003, 10), (5003, 100), (3, 200_000)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_loss_is_summed_in_one_order_on_any_number_of_threads(dtype, shape, reduction):
    call = BY_NAME["cross_entropy of labels"]
    assert_threads_change_nothing(call, inputs(call, shape, dtype) | {"reduction": reduction})


@all_calls
def test_a_row_alone_has_the_bits_it_has_in_a_batch(problem, isa):
    for shape in WIDTHS:
        call, given, want = problem(shape)
        n_rows = shape[0]
        for rows in 0, 1, n_rows // 2, n_rows - 1, slice(1, None), slice(n_rows // 2, None):
            few = {name: result[rows] for name, result in want.items()}
            assert_same_results(call(rows_of(given, rows)), few, f"{shape} {rows}")


@large_calls
def test_a_long_row_alone_has_the_bits_it_has_among_others(problem):
    call, given, want = problem((3, 120_000))
    for row in range(3):
        few = {name: result[row] for name, result in want.items()}
        assert_same_results(call(rows_of(given, row)), few)


# ---------------------------------------------------------------- layouts, axes


@all_calls
def test_any_layout_of_the_arrays_gives_the_same_bits(problem, isa):
    call, *_ = problem(SHAPES[0])
    for shape, (layout, lay_out), axis in product(SHAPES, LAYOUTS.items(), call.axes):
        call, given, want = problem(shape)
        changed = laid_out(moved(given, axis), lay_out)
        before = {name: changed[name].tobytes() for name in arrays_of(changed)}
        got = call(changed)
        assert_same_results(back(call, got, axis), want, f"{shape} {layout} {axis}")
        assert all(type(result) is np.ndarray for result in got.values())
        for name, array in before.items():
            assert changed[name].tobytes() == array, f"{name} was changed"
    for shape, layout in product(SHAPES, ONE_ARRAY):
        call, given, want = problem(shape)
        got = call(laid_out(given, LAYOUTS[layout], ["logits"]))
        assert_same_results(got, want, f"{shape} {layout} logits")


@over_calls(combinations=LARGE[:2])
def test_any_layout_of_one_array_gives_the_same_bits(problem, isa):
    for shape, layout in product(SHAPES, ONE_ARRAY):
        call, given, want = problem(shape)
        for array in arrays_of(given)[1:]:
            got = call(laid_out(given, LAYOUTS[layout], [array]))
            assert_same_results(got, want, f"{shape} {layout} {array}")


@large_calls
def test_any_layout_of_long_rows_gives_the_same_bits(problem):
    for shape in LONG:
        call, given, want = problem(shape)
        for layout in "reversed", "every third class", "misaligned", "byte-swapped":
            assert_same_results(call(laid_out(given, LAYOUTS[layout])), want, layout)
        assert_same_results(call(laid_out(given, LAYOUTS["reversed"], ["logits"])), want)
        if call.second != "CSR":
            got = back(call, call(moved(given, 0), n_threads=2), 0)
            assert_same_results(got, want, "axis 0")


AXES = [(5, 7), (19, 10), (40, 100), (3, 4, 5), (2, 3, 2, 5), (1, 6, 1), (2, 1, 2, 3, 1, 2, 2), (7,)]  # fmt: skip  # noqa: E501


@over_calls(lambda call: call.second != "CSR")
def test_any_axis_of_any_number_of_dimensions_gives_the_same_bits(problem, isa):
    for shape in [*AXES, *SHAPES[2:], (1,) * 31 + (3,)]:
        call, given, want = problem(shape)
        for axis in range(len(shape)) if len(shape) < 10 else (0, 30):
            for copied in False, True:
                turned = moved(given, axis, copied)
                for same in axis, axis - len(shape):
                    got = back(call, call(turned, axis=same), axis)
                    assert_same_results(got, want, f"{shape} {axis}")
        if len(shape) > 2:
            rows = {  # the rows one under another
                name: value.reshape(-1, *value.shape[len(shape) - 1 :])
                if isinstance(value, np.ndarray) and value.ndim >= len(shape) - 1
                else value
                for name, value in given.items()
            }
            flat = {name: r.reshape(-1, *r.shape[len(shape) - 1 :]) for name, r in want.items()}
            assert_same_results(call(rows), flat, shape)


def test_sixty_four_dimensions_are_accepted():
    x = made((2, 3), np.dtype(float), 0)["logits"]
    high = x.reshape((1,) * 61 + (2, 1, 3))
    assert_same_bits(cysoftmax.softmax(high), cysoftmax.softmax(x).reshape(high.shape))
    assert cysoftmax.logsumexp(high, axis=0).shape == high.shape[1:]


@all_calls
def test_zero_strides_and_overlapping_rows_give_the_same_bits(problem, isa):
    for shape in (20, 3), (5, 40), (20, 1030):
        call, given, _ = problem(shape)
        for chosen in (slice(1), slice(None)), (slice(None), slice(1)), (slice(1), slice(1)):
            views, copies = dict(given), dict(given)
            for name, array in given.items():
                if isinstance(array, np.ndarray) and array.shape == shape:
                    views[name] = np.broadcast_to(array[chosen], shape)
                    copies[name] = views[name].copy()
            if given.get("ignore_index") is not None:
                views["second"] = np.broadcast_to(given["second"][:1], shape[:1])
                copies["second"] = views["second"].copy()
            for axis in call.axes:
                got, want = call(moved(views, axis, copied=False)), call(moved(copies, axis))
                assert_same_results(got, want, f"{shape} {chosen} {axis}")
    call, given, _ = problem((21, 40))
    windows = np.lib.stride_tricks.sliding_window_view(given["logits"].ravel()[:60], 40)
    assert_same_results(call(given, logits=windows), call(given, logits=windows.copy()))


# ---------------------------------------------------------------- where results go


@calls_with_out
def test_in_place_or_not_gives_the_same_bits(name, problem, isa):
    for shape in WIDTHS + [(7,)] * ("CSR" not in name):
        call, given, want = problem(shape)
        out, places = room_for(call, want)
        got = call(given, out=out)
        for name, place in places.items():
            assert got[name] is place
        assert_same_results(got, want, shape)
        for which, name in enumerate(call.about.whole):
            logits = given["logits"].copy()
            out, places = room_for(call, want)
            out = logits if len(places) == 1 else [logits if place is places[name] else place
                                                   for place in out]  # fmt: skip
            assert_same_results(call(given, logits=logits, out=out), want, f"{shape} {which}")
            assert_same_bits(logits, want[name], shape)


@calls_with_out
def test_out_may_have_any_layout_and_be_the_logits(problem, isa):
    call, *_ = problem(SHAPES[0])
    for shape, axis in product(SHAPES, call.axes):
        call, given, want = problem(shape)
        turned = moved(given, axis)
        plain = call(turned)
        assert_same_results(back(call, plain, axis), want, shape)
        for layout, lay_out in WRITEABLE.items():
            out, places = room_for(call, plain, lay_out)
            got = call(turned, out=out)
            for name, place in places.items():
                assert got[name] is place
                assert_same_bits(place.astype(plain[name].dtype), plain[name], f"{shape} {layout}")
            if call.about.whole:
                assert_in_place(call, turned, plain, lay_out, out)


def assert_in_place(call, given, want, lay_out, out):
    """Into the logits as they are laid out go the results; `out` is a place for the others."""
    logits, name = lay_out(given["logits"]), call.out[0]
    call(given, logits=logits, out=(logits, out[1]) if isinstance(out, tuple) else logits)
    assert_same_bits(logits.astype(want[name].dtype), want[name], "in place")


@over_calls(lambda call: call.out, LARGE)
def test_out_of_long_rows_may_have_any_layout_and_be_the_logits(problem):
    for shape, layout in product(LONG, ("C", "every third class", "misaligned")):
        call, given, want = problem(shape)
        lay_out = WRITEABLE.get(layout, np.copy)
        out, places = room_for(call, want, lay_out)
        call(given, out=out)
        for name, place in places.items():
            assert_same_bits(place, want[name], f"{layout} {name}")
        if call.about.whole:
            assert_in_place(call, given, want, lay_out, out)


@calls_with_out
def test_nothing_beside_a_strided_out_is_written(problem):
    for shape in (20, 3), (5, 40), (2, 20_000):
        call, given, want = problem(shape)
        for step in 1, 2, 3:
            memories = []

            def inside(array, step=step, memories=memories):
                memory = np.full(tuple(step * n + 2 for n in array.shape), 7, array.dtype)
                memories.append(memory)
                return memory[(slice(1, -1, step),) * array.ndim]

            out, places = room_for(call, want, inside)
            call(given, out=out)
            for memory, (name, place) in zip(memories, places.items(), strict=True):
                assert_same_bits(place.copy(), want[name])
                place[...] = 7
                assert (memory == 7).all()


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("axis", [0, -1])
def test_in_place_of_the_second_argument_gives_the_bits_of_a_fresh_result(axis, dtype, isa):
    for shape in SHAPES:
        for name in ("softmax_vjp of vector", "cross_entropy_grad of distribution",
                     "cross_entropy_with_grad of distribution"):  # fmt: skip
            call = BY_NAME[name]
            given = moved(inputs(call, shape, dtype), axis)
            second = given["second"].astype(dtype)
            want = call(given, second=second)
            assert_same_results(call(given, second=second, out=second), want, name)
            assert_same_bits(second, want[call.out[0]])
            both = given["logits"].copy()
            want = call(given, second=both)
            assert_same_results(call(given, logits=both, second=both, out=both), want, name)
            assert_same_bits(both, want[call.out[0]])


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("offset", [0, 1, 5])
@pytest.mark.parametrize(
    "name", ["softmax", "log_softmax", "cross_entropy_grad of labels", "softmax_vjp of vector"]
)
def test_results_larger_than_the_caches_have_the_bits_of_small_ones(name, offset, dtype):
    call, n_classes = BY_NAME[name], 1001
    times = 20 * 2**20 // (np.dtype(dtype).itemsize * n_classes * 50)
    given = inputs(call, (50, n_classes), dtype) | call.of_rows
    large = laid_out(given, lambda a: np.tile(a, (times,) + (1,) * (a.ndim - 1)))
    size = large["logits"].size
    memory = np.full(size + 16, 7, dtype)
    out = memory[offset : offset + size].reshape(-1, n_classes)
    call(large, out=out)
    assert_same_bits(out, np.tile(call(given)[call.out[0]], (times, 1)))
    assert (memory[:offset] == 7).all()
    assert (memory[offset + size :] == 7).all()


# ---------------------------------------------------------------- what says nothing


PLAIN = [(dtype, ()) for dtype in ("float32", "float64", "float16")]


@over_calls(lambda call: call.takes, PLAIN)
def test_options_that_say_nothing_change_no_bit(problem, isa):
    for shape in (20, 7), (19, 40), (3, 1030):
        call, given, _ = problem(shape)
        for reduction in call.reductions:
            given |= call.keywords(reduction)
            want = call(given)
            for option, neutral in nothing(shape).items():
                if option in call.takes:
                    assert_same_results(call(given, **{option: neutral}), want, option)


def nothing(shape):
    """Each option, with a value that asks for nothing."""
    return {
        "class_weight": np.ones(shape[1]),
        "sample_weight": np.ones(shape[0]),
        "ignore_index": -1,
        "label_smoothing": 0,
        "z_loss": 0,
        "temperature": 1,
        "where": np.ones(shape, bool),
        "scale": np.ones(shape[0]),
    }


@over_calls(lambda call: call.takes, PLAIN[::2])
def test_options_that_say_nothing_change_no_bit_of_long_rows(problem):
    for shape in LONG:
        call, given, want = problem(shape)
        some = {option: value for option, value in nothing(shape).items() if option in call.takes}
        for option, neutral in some.items():
            assert_same_results(call(given, **{option: neutral}), want, option)
        strided = np.repeat(given["logits"], 2, axis=1)[:, ::2]
        assert_same_results(call(given, **some | {"logits": strided}), want, "all, strided")


@over_calls(lambda call: call.takes, LARGE[:1])
def test_each_option_alone_gives_the_same_bits_in_any_layout_and_in_place(name, dtype, options):
    call = BY_NAME[name]
    for shape, option in product([*SHAPES, LONG[1]], call.takes):
        given = inputs(call, shape, dtype, (option,)) | call.of_rows
        want = call(given, n_threads=1)
        strided = laid_out(given, LAYOUTS["every third class"])
        assert_same_results(call(strided, n_threads=2), want, f"{shape} {option}")
        if call.about.whole:
            for layout in np.copy, LAYOUTS["every third class"]:
                out, _ = room_for(call, want)
                assert_in_place(call, given, want, layout, out)


# ---------------------------------------------------------------- loss and gradient


@over_calls(lambda c: c.function == "cross_entropy_with_grad")
def test_loss_and_gradient_together_are_what_they_are_alone(name, dtype, options, isa):
    both, dtype = BY_NAME[name], dtype_of(dtype)
    for shape in WIDTHS + [(2, 70_000)] * (isa == _core.available_isas()[0]):
        for reduction in both.reductions:
            want = both(inputs(both, shape, dtype, options) | both.keywords(reduction))
            for function in "cross_entropy", "cross_entropy_grad":
                alone = BY_NAME[f"{function} of {both.second}"]
                got = alone(inputs(alone, shape, dtype, options) | both.keywords(reduction))
                for result in got:
                    assert_same_bits(got[result], want[result], f"{shape} {function} {reduction}")


# ---------------------------------------------------------------- instruction sets


@pytest.fixture
def fused_isas():
    """The names of the instruction sets that multiply and add with one rounding."""
    before = _core.active_isa()
    yield [name for name in _core.available_isas() if name != "scalar"]
    _core.use_isa(before)


@all_calls
def test_all_fused_instruction_sets_give_the_same_bits(problem, fused_isas):
    for shape in [*WIDTHS, (300, 10), (2, 40_000), (1, 120_001)]:
        want = None
        for isa in fused_isas:
            _core.use_isa(isa)
            call, given, got = problem(shape)
            strided = call(laid_out(given, LAYOUTS["every other"], ["logits"]))
            want = want or got
            assert_same_results(got, want, f"{shape} {isa}")
            assert_same_results(strided, want, f"{shape} {isa}, strided")


# What the committed bits are of: functions of logits, and shapes.
COMMITTED = [(37, n) for n in (1, 2, 7, 10, 16, 17, 31, 32, 33, 64, 65, 127, 129, 130, 1000)] + [
    (5, 1023), (5, 1024), (5, 1025), (3, 5000),
]  # fmt: skip


def results_of(x):
    labels = np.arange(len(x)) * 7 % x.shape[1]
    return [
        cysoftmax.softmax(x),
        cysoftmax.log_softmax(x),
        cysoftmax.logsumexp(x),
        cysoftmax.cross_entropy(x, labels, reduction="none"),
        cysoftmax.cross_entropy_grad(x, labels, reduction="sum"),
        cysoftmax.softmax_vjp(x, np.ascontiguousarray(x[:, ::-1])),
    ]


def sweep(dtype):
    """Return results on a fixed set of inputs, made of integers only."""
    results = []
    for n_rows, n_classes in COMMITTED:
        k = np.arange(n_rows * n_classes, dtype=np.uint64)
        for _ in range(3):  # a few rounds of a 64-bit mixing function
            k = (k ^ (k >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)
        x = ((k >> np.uint64(44)).astype(np.float64) / 2**15 - 16).astype(dtype)
        results += results_of(x.reshape(n_rows, n_classes))
    return results


# Names and hashes of the results of all instruction sets with fused multiply-add.
BITS = dict(
    line.split()
    for line in Path(__file__).with_name("bits.txt").read_text().splitlines()
    if not line.startswith("#")
)


def digest(results):
    return hashlib.sha256(b"".join(np.ascontiguousarray(r).tobytes() for r in results)).hexdigest()


@pytest.mark.parametrize("dtype", REAL)
def test_all_fused_instruction_sets_give_the_committed_bits(isa, dtype):
    if isa == "scalar":
        pytest.skip("rounds twice in a multiply-add: bits of its own")
    assert digest(sweep(dtype)) == BITS[np.dtype(dtype).name]


@pytest.mark.parametrize("dtype", REAL)
def test_scalar_is_close_to_the_fused_instruction_sets(dtype):
    before = _core.active_isa()
    try:
        _core.use_isa("scalar")
        scalar = sweep(dtype)
        _core.use_isa("")
        best = sweep(dtype)
    finally:
        _core.use_isa(before)
    for a, b in zip(scalar, best, strict=True):
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(a, b, rtol=8 * eps, atol=8 * eps * np.abs(b).max())
