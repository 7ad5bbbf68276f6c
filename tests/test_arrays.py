"""Arrays: dtypes and shapes that the functions take, and what their results are.

Layouts, axes and where results go: test_bits.py and test_overlap.py.
"""

import numpy as np
import pytest
from calls import back, each_call, inputs, laid_out, moved, room_for
from cases import (
    INTEGER,
    LAYOUTS,
    REAL,
    assert_same_bits,
    assert_same_results,
    dtype_of,
    some_labels,
    some_logits,
    some_masses,
)
from scipy import special

import cysoftmax

DTYPES = ["float32", "float64", "float16", "bfloat16"]


# ---------------------------------------------------------------- dtypes


@pytest.mark.parametrize("dtype", DTYPES)
@each_call()
def test_results_have_the_dtype_of_the_logits_and_of_sixteen_bits_rows_have_float32(call, dtype):
    dtype = dtype_of(dtype)
    for name, result in call(inputs(call, (5, 4), dtype, "all") | call.of_rows).items():
        assert type(result) is np.ndarray
        if name == "argmax":
            assert result.dtype == np.intp
        elif name in call.about.whole or dtype.itemsize > 2:
            assert result.dtype == dtype
        else:
            assert result.dtype == np.float32
        assert result.dtype.isnative


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@each_call(lambda call: call.out and not call.about.whole)
def test_an_out_for_rows_of_sixteen_bits_must_be_float32(call, dtype):
    dtype = dtype_of(dtype)
    given = inputs(call, (6, 5), dtype, "all") | call.of_rows
    want = call(given)
    out, places = room_for(call, want)
    assert out.dtype == np.float32
    assert call(given, out=out)[call.out[0]] is out
    assert_same_results(places, want)
    for wrong in dtype, np.float64:
        out = np.full(6, 77, wrong)
        message = rf"^out must have dtype float32; got {np.dtype(wrong)}$"
        with pytest.raises(TypeError, match=message):
            call(given, out=out)
        assert (out == 77).all()


@pytest.mark.parametrize("dtype", INTEGER)
@each_call()
def test_integers_are_converted_to_float64(call, dtype):
    integers = np.random.default_rng(0).integers(0, 100, (6, 5)).astype(dtype)
    integers[0, 0] = np.iinfo(dtype).max
    integers[1, 1] = np.iinfo(dtype).min
    given = inputs(call, (6, 5), float, "all") | call.of_rows
    want = call(given, logits=integers.astype(np.float64))
    for layout in np.ascontiguousarray, np.asfortranarray:
        assert_same_results(call(given, logits=layout(integers)), want)
    if call.out:
        out = [np.empty_like(want[name]) for name in call.out]
        call(given, logits=integers, out=out if len(out) == 2 else out[0])
        for name, place in zip(call.out, out, strict=True):
            assert place.dtype == np.float64
            assert_same_bits(place, want[name])
        wrong = [np.full(place.shape, 7) for place in out]
        with pytest.raises(TypeError, match=r"^out.* must have dtype float64; got int64"):
            call(given, logits=integers, out=wrong if len(wrong) == 2 else wrong[0])
        assert all((place == 7).all() for place in wrong)


def test_small_unsigned_logits_do_not_wrap():
    x = np.array([0, 1, 200], np.uint8)
    want = special.softmax(x.astype(float))
    np.testing.assert_allclose(cysoftmax.softmax(x), want, rtol=1e-15)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_reduced_losses_are_python_floats_computed_in_float64(reduction, dtype):
    x = some_logits((50, 4), dtype)
    for target in some_labels(50, 4), some_masses(x.shape):
        loss = cysoftmax.cross_entropy(x, target, reduction=reduction)
        assert type(loss) is float
        both = cysoftmax.cross_entropy_with_grad(x, target, reduction=reduction)
        assert type(both.loss) is float
    x = np.array([[3e38, -3e38]], np.float32)
    assert cysoftmax.cross_entropy(x, [1], reduction=reduction) == 2 * float(x[0, 0])


def test_p_and_v_may_be_integers():
    p, v = np.array([[1, 0, 2]]), np.array([[3, 4, 5]])
    want = cysoftmax.softmax_vjp(p.astype(np.float64), v.astype(np.float64))
    assert_same_bits(cysoftmax.softmax_vjp(p, v), want)


# ---------------------------------------------------------------- shapes


@pytest.mark.parametrize("dtype", REAL)
@each_call(lambda call: call.about.rows and call.second != "CSR")
def test_the_rows_of_one_dimension_are_a_0d_array(call, dtype):
    given = inputs(call, (5,), dtype) | call.of_rows
    one = {key: value[None] if isinstance(value, np.ndarray) else value
           for key, value in given.items()}  # fmt: skip
    want = call(one)
    for name, result in call(given).items():
        assert type(result) is np.ndarray
        assert_same_bits(result, want[name][0])


@pytest.mark.parametrize("shape", [(5,), (4, 5), (3, 4, 5)])
def test_keepdims_keeps_the_axis_with_length_one(shape):
    x = some_logits(shape)
    for axis in range(-len(shape), len(shape)):
        want = np.expand_dims(cysoftmax.logsumexp(x, axis=axis), axis)
        assert_same_bits(cysoftmax.logsumexp(x, axis=axis, keepdims=True), want)
        out = np.empty_like(want)
        result = cysoftmax.logsumexp(x, axis=axis, keepdims=True, out=out)
        assert result is out
        assert_same_bits(out, want)


@pytest.mark.parametrize("dtype", [*DTYPES, "int32"])
@pytest.mark.parametrize("shape", [(0, 3), (4, 0, 3), (0, 2, 3)])
@each_call(lambda call: call.second != "CSR")
def test_arrays_without_rows_are_accepted(call, shape, dtype):
    dtype = dtype_of(dtype)
    rows = {
        "logits": np.empty(shape, dtype),
        "labels": np.empty(shape[:-1], int),
        "one-hot": np.empty(shape, bool),
        "distribution": np.empty(shape),
        "vector": np.empty(shape, dtype),
        "class_weight": np.ones(3),
        "sample_weight": np.empty(shape[:-1]),
        "where": np.empty(shape, bool),
        "scale": np.empty(shape[:-1]),
        "label_smoothing": 0.1,
        "z_loss": 0.1,
        "temperature": 2,
    }
    given = {"logits": rows["logits"]} | call.of_rows
    if call.second:
        given["second"] = rows[call.second]
    for options in {}, {name: rows[name] for name in call.takes if name in rows}:
        want = call(given | options)
        for name, result in want.items():
            assert result.shape == (shape if name in call.about.whole else shape[:-1])
            if name in call.about.whole:
                assert result.dtype == (np.float64 if dtype == np.int32 else dtype)
        if len(call.out) == 1:
            out = np.empty_like(want[call.out[0]])
            assert call(given | options, out=out)[call.out[0]] is out
        for reduction in call.reductions[:-1]:
            got = call(given | options, reduction=reduction)
            if "loss" in got:
                assert type(got["loss"]) is float
                assert got["loss"] == 0 if reduction == "sum" else np.isnan(got["loss"])


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize(("shape", "axis"), [((0,), 0), ((4, 0), 1), ((0, 4), 0), ((2, 0, 3), 1)])
def test_without_classes_softmax_is_empty_and_logsumexp_minus_inf(shape, axis, dtype):
    x = np.empty(shape, dtype)
    rows = shape[:axis] + shape[axis + 1 :]
    for function in cysoftmax.softmax, cysoftmax.log_softmax:
        result = function(x, axis=axis)
        assert result.shape == shape
        assert result.dtype == dtype
    assert cysoftmax.softmax_vjp(x, x, axis=axis).shape == shape
    want = np.full(rows, -np.inf, dtype)
    assert_same_bits(cysoftmax.logsumexp(x, axis=axis), want)
    out = np.zeros(rows, dtype)
    assert cysoftmax.logsumexp(x, axis=axis, out=out) is out
    assert_same_bits(out, want)
    kept = cysoftmax.logsumexp(x, axis=axis, keepdims=True)
    assert_same_bits(kept, np.expand_dims(want, axis))


@each_call(lambda call: call.second in ("labels", "distribution"))
@pytest.mark.parametrize("shape", [(0,), (4, 0), (0, 0)])
def test_without_classes_there_is_no_cross_entropy(shape, call):
    target = np.empty(shape[:-1], int) if call.second == "labels" else np.empty(shape)
    for reduction in call.reductions:
        with pytest.raises(ValueError, match=r"^logits must have at least one class"):
            call({"logits": np.empty(shape), "second": target} | call.keywords(reduction))


# ---------------------------------------------------------------- what counts as an array


class WithArray:
    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array if dtype is None else self.array.astype(dtype)


class WithDlpack:
    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


@pytest.mark.parametrize("kind", [WithArray, WithDlpack, np.ndarray.tolist, memoryview])
@each_call(lambda call: call.second not in ("CSR", "one-hot"))
def test_whatever_can_become_an_array_is_accepted(call, kind):
    given = inputs(call, (6, 5), float)
    given = {name: np.copy(value) for name, value in given.items()}  # which DLPack can export
    want = call(given)
    for name in given:
        assert_same_results(call(given | {name: kind(given[name])}), want, name)


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
@pytest.mark.parametrize("kind", [WithArray, WithDlpack])
def test_what_becomes_an_array_keeps_its_dtype(kind, dtype):
    x = some_logits((6, 5)).astype(dtype)
    assert_same_bits(cysoftmax.softmax(kind(x)), cysoftmax.softmax(x))


def test_lists_of_numbers_are_logits_in_float64():
    result = cysoftmax.softmax([[0, 0], [1, 1]])
    assert_same_bits(result, np.full((2, 2), 0.5))


def test_an_empty_list_of_labels_is_accepted():
    assert cysoftmax.cross_entropy(np.empty((0, 3)), [], reduction="sum") == 0


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("axis", [0, 1])
def test_a_matrix_is_taken_as_an_array(axis):
    x = np.arange(15.0).reshape(3, 5)
    for function in (cysoftmax.softmax, cysoftmax.log_softmax, cysoftmax.logsumexp):
        result = function(np.matrix(x), axis=axis)
        assert type(result) is np.ndarray
        np.testing.assert_array_equal(result, function(x, axis=axis))
    target = np.zeros(x.shape[1 - axis], int)
    kwargs = {"axis": axis, "reduction": "none"}
    loss = cysoftmax.cross_entropy(np.matrix(x), target, **kwargs)
    np.testing.assert_array_equal(loss, cysoftmax.cross_entropy(x, target, **kwargs))
    out = np.matrix(np.zeros(np.sum(x, axis, keepdims=True).shape))
    assert cysoftmax.logsumexp(x, axis=axis, keepdims=True, out=out) is out
    np.testing.assert_array_equal(np.asarray(out).squeeze(), cysoftmax.logsumexp(x, axis=axis))


# ---------------------------------------------------------------- the layout of results


def assert_order_k(call, results, logits, axis):
    for name, result in results.items():
        like = logits if name in call.about.whole else logits[(slice(None),) * (axis % 3) + (0,)]
        assert result.strides == np.empty_like(like, result.dtype, order="K").strides, name


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1), (2, 0, 1)])
@each_call(lambda call: call.second != "CSR")
def test_fresh_results_have_the_memory_layout_of_the_logits(call, order):
    for axis in 0, 1, 2:
        shape = tuple(np.array((3, 4, 5))[[a for a in range(3) if a != axis] + [axis]])
        given = moved(inputs(call, shape, float), axis) | call.of_rows
        x = given["logits"].transpose(order).copy().transpose(np.argsort(order))
        want = call(given)
        got = call(given, logits=x)
        assert_order_k(call, got, x, axis)
        assert_same_results(back(call, got, axis), back(call, want, axis))


@pytest.mark.parametrize("dtype", DTYPES)
@each_call()
def test_fresh_results_own_new_memory_in_order_k(call, dtype):
    dtype = dtype_of(dtype)
    for layout in LAYOUTS.values():
        given = laid_out(inputs(call, (6, 5), dtype, "all"), layout) | call.of_rows
        for name, result in call(given).items():
            assert not np.may_share_memory(result, given["logits"])
            assert result.flags.writeable
            like = given["logits"] if name in call.about.whole else given["logits"][:, 0]
            assert result.strides == np.empty_like(like, result.dtype, order="K").strides


def test_integers_and_broadcast_logits_give_results_in_order_k():
    x = np.asfortranarray(np.arange(12).reshape(3, 4))
    assert cysoftmax.softmax(x).flags.f_contiguous
    x = np.broadcast_to(some_logits((3, 1, 5)), (3, 4, 5))
    assert cysoftmax.softmax(x).strides == np.empty_like(x).strides
