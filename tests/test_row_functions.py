"""The functions of one row for compiled code have the bits of those for arrays."""

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from cases import assert_same_bits
from row_functions import DTYPES, FUNCTIONS, NAMES, WITH_LABEL, WITH_OUTPUT, call, of_arrays

import cysoftmax

HEADER = Path(cysoftmax.get_include()) / "cysoftmax.h"
LENGTHS = [*range(1, 71), 112, 113, 193, 1023, 1024, 1025, 1500, 2047, 2048, 2049, 5000]
STRIDES = [(1, 1), (2, 1), (1, 3), (-1, 1), (1, -1), (3, -2), (-7, 5)]  # of input and output

every_function = pytest.mark.parametrize("name", FUNCTIONS)
every_kind = pytest.mark.parametrize("kind", DTYPES)


def laid_out(row, stride):
    """A row with the numbers of this one, `stride` numbers apart, between numbers that are NaN."""
    memory = np.full(row.size * abs(stride) + 8, np.nan, row.dtype)
    view = memory[4 : 4 + row.size * abs(stride) : abs(stride)]
    view = view[::-1] if stride < 0 else view
    view[...] = row
    return view


def second_of(name, x, seed=0):
    """The arguments of a function beside x: none, a label, or the vector of a VJP."""
    rng = np.random.default_rng(seed + x.size)
    if name in WITH_LABEL:
        return [int(rng.integers(x.size))]
    if name == "softmax_vjp":
        return [rng.standard_normal(x.size).astype(x.dtype)]
    return []


def check(name, x, second, strides=(1, 1), message=""):
    """Compare a call for the row x, laid out so, with that for an array."""
    want_number, want = of_arrays(name, x, *second)
    here = laid_out(x, strides[0])
    out = None
    if name in WITH_OUTPUT:
        out = laid_out(np.zeros_like(x), strides[1])
    if name == "softmax_vjp":
        second = [laid_out(second[0], strides[0])]
    number = call(name, here, *second, out=out)
    message = f"{name} {x.dtype} {x.size} {strides} {message}"
    assert (number is None) == (want_number is None)
    if number is not None:
        assert_same_bits(x.dtype.type(number), want_number, message)
    if out is not None:
        assert_same_bits(out, want, message)
        written = np.zeros(out.base.size, bool)
        start = (out.ctypes.data - out.base.ctypes.data) // out.itemsize
        written[start + np.arange(out.size) * strides[1]] = True
        assert np.isnan(out.base[~written]).all(), message


def logits_of(size, dtype, name="softmax"):
    x = 4 * np.random.default_rng(size).standard_normal(size)
    return (np.exp(x) / np.exp(x).sum() if name == "softmax_vjp" else x).astype(dtype)


@every_kind
@every_function
def test_a_row_has_the_bits_of_an_array(name, kind, isa):
    for size in LENGTHS:
        x = logits_of(size, DTYPES[kind], name)
        for strides in STRIDES if size < 20 or size > 1000 or size % 8 == 1 else STRIDES[:2]:
            check(name, x, second_of(name, x), strides)


def extreme_rows(dtype):
    """Rows of 4 numbers of every kind of special value, by name."""
    big, small = np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal
    far = -740 if dtype == np.float64 else -100
    return {
        "nan": [0, np.nan, 1, 2],
        "nothing but nan": [np.nan] * 4,
        "inf": [0, np.inf, 1, 2],
        "inf twice": [np.inf, 0, np.inf, -np.inf],
        "inf and nan": [0, np.inf, np.nan, 0],
        "minus inf": [-np.inf] * 4,
        "minus inf and nan": [-np.inf, np.nan, -np.inf, -np.inf],
        "masked": [0, -np.inf, 1, -np.inf],
        "zeros": [-0.0, 0.0, -0.0, -0.0],
        "confident": [20, 0, -1, -5],
        "very confident": [0, 80, 0, 0],
        "large": [1e8, 1e8, 0, 0],
        "largest": [big, -big, big, 0],
        "overflow": [-big, big, -big, -big],
        "underflow": [0, far, far - 3, 10 * far],
        "denormal": [small, 5 * small, 0, -small],
    }


@every_kind
@every_function
def test_special_values_give_what_they_give_in_an_array(name, kind, isa):
    dtype = DTYPES[kind]
    for case, values in extreme_rows(dtype).items():
        for size in (4, 40, 1025, 2500):
            x = np.full(size, -np.inf, dtype)
            x[: size - 4] = -300 if size > 4 else 0
            x[-4:] = values
            seconds = [[]]
            if name in WITH_LABEL:
                seconds = [[c % size] for c in (0, -1, -2, -3, -4)]
            if name == "softmax_vjp":
                v = np.resize(np.array(values, dtype), size)
                seconds = [[v], [np.ones(size, dtype)]]
            for second in seconds:
                for strides in STRIDES[:1] + STRIDES[-1:]:
                    check(name, x, second, strides, case)


@every_kind
@every_function
def test_an_input_may_have_stride_0(name, kind, isa):
    for size in (1, 10, 3000):
        x = np.broadcast_to(np.array(0.25, DTYPES[kind]), size)
        second = second_of(name, x)
        out = np.empty(size, x.dtype) if name in WITH_OUTPUT else None
        number = call(name, x, *second, out=out)
        want_number, want = of_arrays(name, x.copy(), *second)
        assert (number, want_number) == (None, None) or number == want_number
        if out is not None:
            assert_same_bits(out, want)


@every_kind
@pytest.mark.parametrize("name", WITH_OUTPUT)
def test_an_output_may_be_an_input(name, kind, isa):
    for size in (1, 10, 100, 1024, 3000):
        for stride in (1, -1, 3):
            x = logits_of(size, DTYPES[kind], name)
            second = second_of(name, x)
            want_number, want = of_arrays(name, x, *second)
            row = laid_out(x, stride)
            assert call(name, row, *second, out=row) == want_number
            assert_same_bits(row, want)
            if name == "softmax_vjp":
                v = laid_out(second[0], stride)
                call(name, laid_out(x, 2), v, out=v)
                assert_same_bits(v, want)


@every_kind
@pytest.mark.parametrize("name", WITH_LABEL)
def test_a_label_out_of_range_gives_nan(name, kind, isa):
    for size in (0, 1, 10, 3000):
        for label in (-1, size, 2**40, sys.maxsize, -sys.maxsize - 1):
            for stride in (1, -2):
                x = logits_of(size, DTYPES[kind])
                out = laid_out(np.zeros_like(x), stride) if name in WITH_OUTPUT else None
                number = call(name, x, label, out=out)
                assert number is None or np.isnan(number)
                assert out is None or np.isnan(out).all()


@every_kind
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmax_vjp"])
def test_an_empty_row_writes_nothing(name, kind, isa):
    nothing = np.empty(0, DTYPES[kind])
    second = [nothing] if name == "softmax_vjp" else []
    call(name, nothing, *second, out=nothing)


@every_kind
def test_the_logsumexp_of_an_empty_row_is_minus_infinity(kind, isa):
    assert call("logsumexp", np.empty(0, DTYPES[kind])) == -np.inf


@every_kind
@every_function
def test_mode_and_flags_of_the_floating_point_unit_do_not_matter_and_stay(
    name, kind, isa, environment
):
    rows = [logits_of(size, DTYPES[kind], name) for size in (10, 3000)]
    rows += [np.array(row, DTYPES[kind]) for row in extreme_rows(DTYPES[kind]).values()]
    for x in rows:
        second = second_of(name, x)
        want_number, want = of_arrays(name, x, *second)
        if want_number is not None and 0 < abs(want_number) < np.finfo(x.dtype).tiny:
            continue  # ctypes makes a double of a float: the test with a module in C has this one
        for stride in (1, 2):
            row, out = laid_out(x, stride), np.empty_like(x) if name in WITH_OUTPUT else None
            for mode in (environment.flush, environment.upward):
                found = environment.get()
                environment.set(found[0] | mode, environment.inexact)
                before = environment.get()
                number = call(name, row, *second, out=out)
                after = environment.get()
                environment.set(*found)
                assert after == before
                if number is not None:
                    assert_same_bits(x.dtype.type(number), want_number)
                if out is not None:
                    assert_same_bits(out, want)


def test_eight_threads_may_call_at_the_same_time(isa):
    def work(seed):
        for size in (7, 100, 1500):
            for name in FUNCTIONS:
                for dtype in DTYPES.values():
                    x = logits_of(size + seed, dtype, name)
                    check(name, x, second_of(name, x, seed), (1 + seed % 3, 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(64)))


# ---------------------------------------------------------------- header, addresses


def test_header_and_addresses_have_the_same_functions():
    declared = re.findall(r"^    \w+ \(\*(\w+)\)\(", HEADER.read_text(), re.MULTILINE)
    macros = re.findall(r"^#define cysoftmax_(\w+) \(\*cysoftmax_functions->(\w+)\)$",
                        HEADER.read_text(), re.MULTILINE)  # fmt: skip
    assert declared == [name for name, _ in macros] == [name for _, name in macros]
    assert sorted(declared) == sorted(NAMES)
    assert len({cysoftmax.address_of(name) for name in NAMES}) == len(NAMES)


def test_cimport_has_the_same_functions():
    text = (HEADER.parents[1] / "__init__.pxd").read_text()
    assert sorted(re.findall(r"\w+_f(?:32|64)", text)) == sorted(NAMES)


@pytest.mark.parametrize("name", ["logsumexp", "softmax_f16", ""])
def test_a_name_without_a_function_is_a_value_error(name):
    message = f"name must be one of cross_entropy_f32, .*, softmax_vjp_f64; got {name!r}"
    with pytest.raises(ValueError, match=message):
        cysoftmax.address_of(name)


@pytest.mark.parametrize("name", [None, 1, b"softmax_f64"])
def test_a_name_that_is_no_string_is_a_type_error(name):
    with pytest.raises(TypeError, match=f"name must be a string; got {type(name).__name__}"):
        cysoftmax.address_of(name)
