"""Arrays: dtypes, shapes, strides and memory that the functions read and write."""

import numpy as np
import pytest
from cases import read_only
from scipy import special

import cysoftmax

REAL = [np.float32, np.float64]
INTEGER = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]


def labels_of(x, axis=-1):
    """Labels for logits of that shape."""
    shape = np.moveaxis(np.empty(x.shape, bool), axis, -1).shape
    return np.arange(np.prod(shape[:-1], dtype=int)).reshape(shape[:-1]) * 7 % shape[-1]


def masses_of(x):
    """A distribution for logits of that shape, in one dtype whatever the logits are."""
    return np.random.default_rng(1).random(x.shape)


def vector_of(x):
    return np.random.default_rng(2).standard_normal(x.shape).astype(x.dtype)


# Each function of logits x that returns one array for them: of the shape of x, or of its rows.
WHOLE = {
    "softmax": cysoftmax.softmax,
    "log_softmax": cysoftmax.log_softmax,
    "grad_of_labels": lambda x, axis=-1, **kw: cysoftmax.cross_entropy_grad(
        x, labels_of(x, axis), axis=axis, reduction="sum", **kw
    ),
    "grad_of_masses": lambda x, axis=-1, **kw: cysoftmax.cross_entropy_grad(
        x, masses_of(x), axis=axis, reduction="sum", **kw
    ),
    "grad_with_loss": lambda x, axis=-1, **kw: cysoftmax.cross_entropy_with_grad(
        x, labels_of(x, axis), axis=axis, reduction="sum", **kw
    )[1],
    "vjp": lambda x, axis=-1, **kw: cysoftmax.softmax_vjp(
        x, np.random.default_rng(2).random(x.shape).astype(x.dtype), axis=axis, **kw
    ),
}
ROWS = {
    "logsumexp": cysoftmax.logsumexp,
    "loss_of_labels": lambda x, axis=-1, **kw: cysoftmax.cross_entropy(
        x, labels_of(x, axis), axis=axis, reduction="none", **kw
    ),
    "loss_of_masses": lambda x, axis=-1, **kw: cysoftmax.cross_entropy(
        x, masses_of(x), axis=axis, reduction="none", **kw
    ),
}
ALL = WHOLE | ROWS
OF_LOGITS = [name for name in ALL if name != "vjp"]


def some_logits(shape, dtype=np.float64, seed=0):
    return (3 * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def assert_same_bits(got, want):
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    bits = np.dtype(f"i{want.dtype.itemsize}")
    same = np.ascontiguousarray(got).view(bits) == np.ascontiguousarray(want).view(bits)
    assert same.all(), f"{(~same).sum()} of {same.size} differ, first at {np.argwhere(~same)[0]}"


# ---------------------------------------------------------------- dtypes


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("name", ALL)
def test_the_result_has_the_dtype_of_the_logits(name, dtype):
    result = ALL[name](some_logits((5, 4), dtype))
    assert type(result) is np.ndarray
    assert result.dtype == dtype
    assert result.dtype.isnative


@pytest.mark.parametrize("dtype", INTEGER)
@pytest.mark.parametrize("name", OF_LOGITS)
def test_integers_are_converted_to_float64(name, dtype):
    integers = np.random.default_rng(0).integers(0, 100, (6, 5)).astype(dtype)
    integers[0, 0] = np.iinfo(dtype).max
    integers[1, 1] = np.iinfo(dtype).min
    want = ALL[name](integers.astype(np.float64))
    assert want.dtype == np.float64
    assert_same_bits(ALL[name](integers), want)
    assert_same_bits(ALL[name](np.asfortranarray(integers)), want)


def test_small_unsigned_logits_do_not_wrap():
    x = np.array([0, 1, 200], np.uint8)
    want = special.softmax(x.astype(float))
    np.testing.assert_allclose(cysoftmax.softmax(x), want, rtol=1e-15)


@pytest.mark.parametrize("dtype", [bool, complex, object, "U1", "M8[s]", np.longdouble])
@pytest.mark.parametrize("name", OF_LOGITS)
def test_logits_that_are_not_real_numbers_are_a_type_error(name, dtype):
    x = np.zeros((2, 3)).astype(dtype)
    argument = "x" if name in ("softmax", "log_softmax", "logsumexp") else "logits"
    with pytest.raises(TypeError, match=rf"^{argument} must be .*; got dtype ") as error:
        ALL[name](x)
    assert str(x.dtype) in str(error.value)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_reduced_losses_are_python_floats_computed_in_float64(reduction, dtype):
    x = some_logits((50, 4), dtype)
    for target in labels_of(x), masses_of(x):
        loss = cysoftmax.cross_entropy(x, target, reduction=reduction)
        assert type(loss) is float
        both = cysoftmax.cross_entropy_with_grad(x, target, reduction=reduction)
        assert type(both.loss) is float
    x = np.array([[3e38, -3e38]], np.float32)
    assert cysoftmax.cross_entropy(x, [1], reduction=reduction) == 2 * float(x[0, 0])


# ---------------------------------------------------------------- shapes


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((7,), 0),
        ((7,), -1),
        ((5, 7), 0),
        ((5, 7), -2),
        ((40, 100), 0),
        ((3, 4, 5), 0),
        ((3, 4, 5), 1),
        ((3, 4, 5), -1),
        ((2, 3, 2, 5), 1),
        ((2, 3, 2, 5), -3),
        ((1, 6, 1), 1),
        ((2, 1, 2, 3, 1, 2, 2), 3),
        ((1,) * 31 + (3,), 31),
    ],
)
@pytest.mark.parametrize("name", ALL)
def test_any_number_of_dimensions_and_any_axis_are_accepted(name, shape, axis, dtype):
    x = some_logits(shape, dtype)
    if name == "vjp":
        v = vector_of(x)
        got = cysoftmax.softmax_vjp(x, v, axis=axis)
        rows, v = (np.moveaxis(a, axis, -1).reshape(-1, shape[axis]).copy() for a in (x, v))
        want = cysoftmax.softmax_vjp(rows, v)
    elif name.endswith("of_masses"):
        masses = masses_of(x)
        function = cysoftmax.cross_entropy_grad if name in WHOLE else cysoftmax.cross_entropy
        got = function(x, masses, axis=axis, reduction="none")
        rows, m = (np.moveaxis(a, axis, -1).reshape(-1, shape[axis]).copy() for a in (x, masses))
        want = function(rows, m, reduction="none")
    else:
        got = ALL[name](x, axis=axis)
        want = ALL[name](np.moveaxis(x, axis, -1).reshape(-1, shape[axis]).copy())
    moved = np.moveaxis(np.empty(shape, bool), axis, -1).shape
    if name in WHOLE:
        assert got.shape == shape
        assert_same_bits(got, np.moveaxis(want.reshape(moved), -1, axis))
    else:
        assert_same_bits(got, want.reshape(moved[:-1]))


def test_sixty_four_dimensions_are_accepted():
    x = some_logits((1,) * 61 + (2, 1, 3))
    assert_same_bits(cysoftmax.softmax(x), cysoftmax.softmax(x.reshape(2, 3)).reshape(x.shape))
    assert cysoftmax.logsumexp(x, axis=0).shape == x.shape[1:]


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("name", ROWS)
def test_the_rows_of_one_dimension_are_a_0d_array(name, dtype):
    x = some_logits(5, dtype)
    result = ROWS[name](x)
    assert type(result) is np.ndarray
    assert result.shape == ()
    assert result.dtype == dtype
    assert_same_bits(result, ROWS[name](x[None]).reshape(()))


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


@pytest.mark.parametrize("dtype", [*REAL, np.int32])
@pytest.mark.parametrize("shape", [(0, 3), (4, 0, 3), (0, 2, 3)])
@pytest.mark.parametrize("name", ALL)
def test_arrays_without_rows_are_accepted(name, shape, dtype):
    x = np.empty(shape, np.float64 if name == "vjp" else dtype)
    result = ALL[name](x)
    assert result.shape == (shape if name in WHOLE else shape[:-1])
    assert result.dtype == (np.float64 if dtype is np.int32 or name == "vjp" else dtype)
    out = np.empty_like(result)
    assert ALL[name](x, out=out) is out


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


@pytest.mark.parametrize(
    "function",
    [
        cysoftmax.cross_entropy,
        cysoftmax.cross_entropy_grad,
        cysoftmax.cross_entropy_with_grad,
    ],
)
@pytest.mark.parametrize("shape", [(0,), (4, 0), (0, 0)])
def test_without_classes_cross_entropy_raises(shape, function):
    for target in np.empty(shape[:-1], int), np.empty(shape):
        for reduction in "mean", "sum", "none":
            with pytest.raises(ValueError, match=r"^logits must have at least one class"):
                function(np.empty(shape), target, reduction=reduction)


# ---------------------------------------------------------------- strides


def strided(x, step):
    memory = np.full(tuple(step * n for n in x.shape), np.nan, x.dtype)
    view = memory[(slice(None, None, step),) * x.ndim]
    view[...] = x
    return view


def misaligned(x):
    memory = bytearray(x.nbytes + 1)
    view = np.frombuffer(memory, x.dtype, offset=1).reshape(x.shape)
    view[...] = x
    assert x.size == 0 or not view.flags.aligned
    return view


def oddly_strided(x):
    """Strides that are no multiple of the size of an item."""
    record = np.dtype([("before", "i1"), ("number", x.dtype)])
    view = np.zeros(x.shape, record)["number"]
    view[...] = x
    assert view.strides[-1] % x.itemsize
    return view


LAYOUTS = {
    "f_order": np.asfortranarray,
    "reversed": lambda x: np.flip(np.flip(x).copy()),
    "reversed_rows": lambda x: x[::-1].copy()[::-1],
    "every_other": lambda x: strided(x, 2),
    "every_third": lambda x: strided(x, 3),
    "misaligned": misaligned,
    "oddly_strided": oddly_strided,
    "read_only": read_only,
    "byte_swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "byte_swapped_f_order": lambda x: np.asfortranarray(x.astype(x.dtype.newbyteorder())),
    "subclass": lambda x: x.view(type("Mine", (np.ndarray,), {})),
}
SHAPES = [(20, 3), (5, 40), (3, 1030), (3, 4, 5)]


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ALL)
def test_any_layout_of_the_logits_gives_the_same_bits(name, layout, dtype, isa):
    for shape in SHAPES:
        x = some_logits(shape, dtype)
        for axis in 0, -1:
            if name == "vjp" and layout.startswith("byte_swapped"):
                continue  # below
            got = ALL[name](LAYOUTS[layout](x), axis=axis)
            assert type(got) is np.ndarray
            assert_same_bits(got, ALL[name](x, axis=axis))


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("axis", [0, -1])
def test_any_layout_of_p_and_v_gives_the_same_bits(axis, layout, dtype, isa):
    for shape in SHAPES:
        p, v = some_logits(shape, dtype), some_logits(shape, dtype, 1)
        want = cysoftmax.softmax_vjp(p, v, axis=axis)
        change = LAYOUTS[layout]
        assert_same_bits(cysoftmax.softmax_vjp(change(p), change(v), axis=axis), want)


@pytest.mark.parametrize("swapped", ["p", "v"])
def test_p_and_v_may_differ_in_byte_order(swapped):
    p, v = some_logits((4, 5)), some_logits((4, 5), seed=1)
    want = cysoftmax.softmax_vjp(p, v)
    if swapped == "p":
        p = p.astype(p.dtype.newbyteorder())
    else:
        v = v.astype(v.dtype.newbyteorder())
    assert_same_bits(cysoftmax.softmax_vjp(p, v), want)


def test_p_and_v_may_be_integers():
    p, v = np.array([[1, 0, 2]]), np.array([[3, 4, 5]])
    want = cysoftmax.softmax_vjp(p.astype(np.float64), v.astype(np.float64))
    assert_same_bits(cysoftmax.softmax_vjp(p, v), want)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("name", ALL)
def test_zero_strides_give_the_same_bits(name, dtype, isa):
    for shape in (20, 3), (5, 40), (20, 1030):
        for source in (1, shape[1]), (shape[0], 1), (1, 1):
            x = np.broadcast_to(some_logits(source, dtype), shape)
            for axis in 0, -1:
                assert_same_bits(ALL[name](x, axis=axis), ALL[name](x.copy(), axis=axis))


@pytest.mark.parametrize("name", ALL)
def test_overlapping_rows_of_logits_give_the_same_bits(name):
    x = np.lib.stride_tricks.sliding_window_view(some_logits(60), 40)
    assert_same_bits(ALL[name](x), ALL[name](x.copy()))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", OF_LOGITS)
def test_the_logits_are_left_as_they_were(name, layout):
    for shape in SHAPES:
        x = LAYOUTS[layout](some_logits(shape))
        ALL[name](x)
        assert_same_bits(np.asarray(x, np.float64), some_logits(shape))


def test_target_p_and_v_are_left_as_they_were():
    for shape in SHAPES:
        x, target = some_logits(shape), some_logits(shape, seed=1)
        cysoftmax.cross_entropy_with_grad(x, target)
        cysoftmax.softmax_vjp(x, target)
        labels = labels_of(x)
        cysoftmax.cross_entropy_with_grad(x, labels)
        assert_same_bits(x, some_logits(shape))
        assert_same_bits(target, some_logits(shape, seed=1))
        assert (labels == labels_of(x)).all()


@pytest.mark.slow
def test_more_than_two_to_the_31_elements_are_accepted():
    n_rows = 2**31 // 8 + 5
    row = np.float32([0, 1, 2, 3, 4, 5, 6, 7])
    x = np.broadcast_to(row, (n_rows, 8))
    labels = np.broadcast_to(np.int8(3), n_rows)
    want = cysoftmax.cross_entropy(row, 3)
    assert cysoftmax.cross_entropy(x, labels) == pytest.approx(want, rel=1e-14)
    total = cysoftmax.cross_entropy(x, labels, reduction="sum")
    assert total == pytest.approx(n_rows * want, rel=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("n_threads", [1, 2])
def test_one_row_of_more_than_two_to_the_31_classes_is_accepted(n_threads):
    n = 2**31 + 5
    x = np.zeros(n, np.float32)  # pages that are only read take no memory
    x[-1] = 30
    rest = np.log1p((n - 1) * np.exp(-30.0))
    loss = cysoftmax.cross_entropy(x, n - 1, n_threads=n_threads)
    assert loss == pytest.approx(rest, rel=1e-6)
    loss = cysoftmax.cross_entropy(x, n - 2, n_threads=n_threads)
    assert loss == pytest.approx(30 + rest, rel=1e-9)
    lse = cysoftmax.logsumexp(x, n_threads=n_threads)
    assert lse == pytest.approx(30 + rest, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("bad", [2**31 + 5, 2**32, -1])
def test_a_bad_label_of_more_than_two_to_the_31_classes_is_found(bad, n_threads):
    n = 2**31 + 5
    x = np.zeros(n, np.float32)
    with pytest.raises(IndexError, match=rf"^target must lie in \[0, {n}\); got {bad}$"):
        cysoftmax.cross_entropy(x, bad, n_threads=n_threads)


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
def test_whatever_can_become_an_array_is_accepted(kind):
    x, v = some_logits((6, 5)), some_logits((6, 5), seed=1)
    labels, masses = labels_of(x), masses_of(x)
    for function in cysoftmax.softmax, cysoftmax.log_softmax, cysoftmax.logsumexp:
        assert_same_bits(function(kind(x)), function(x))
    for target in labels, masses:
        want = cysoftmax.cross_entropy_with_grad(x, target)
        for got in (
            cysoftmax.cross_entropy_with_grad(kind(x), target),
            cysoftmax.cross_entropy_with_grad(x, kind(target)),
        ):
            assert got.loss == want.loss
            assert_same_bits(got.grad, want.grad)
    assert_same_bits(cysoftmax.softmax_vjp(kind(x), kind(v)), cysoftmax.softmax_vjp(x, v))


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


# ---------------------------------------------------------------- the layout of results


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1), (2, 0, 1)])
@pytest.mark.parametrize("name", ALL)
def test_fresh_results_have_the_memory_layout_of_the_logits(name, order, axis):
    x = some_logits((3, 4, 5)).transpose(order).copy().transpose(np.argsort(order))
    result = ALL[name](x, axis=axis)
    like = x if name in WHOLE else x[(slice(None),) * axis + (0,)]
    assert result.strides == np.empty_like(like, order="K").strides


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", OF_LOGITS)
def test_fresh_results_own_new_memory_in_order_k(name, layout):
    x = LAYOUTS[layout](some_logits((6, 5)))
    result = ALL[name](x)
    assert not np.may_share_memory(result, x)
    assert result.flags.writeable
    like = x if name in WHOLE else x[:, 0]
    assert result.strides == np.empty_like(like, np.float64, order="K").strides


def test_integers_and_broadcast_logits_give_results_in_order_k():
    x = np.asfortranarray(np.arange(12).reshape(3, 4))
    assert cysoftmax.softmax(x).flags.f_contiguous
    x = np.broadcast_to(some_logits((3, 1, 5)), (3, 4, 5))
    assert cysoftmax.softmax(x).strides == np.empty_like(x).strides


# ---------------------------------------------------------------- out

OUT_LAYOUTS = {
    "c_order": np.ascontiguousarray,
    **{name: LAYOUTS[name] for name in LAYOUTS if name != "read_only"},
}


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("layout", OUT_LAYOUTS)
@pytest.mark.parametrize("name", ALL)
def test_out_may_have_any_layout(name, layout, dtype, isa):
    for shape in SHAPES:
        x = some_logits(shape, dtype)
        for axis in 0, -1:
            want = ALL[name](x, axis=axis)
            out = OUT_LAYOUTS[layout](np.full(want.shape, 7, dtype))
            assert ALL[name](x, axis=axis, out=out) is out
            assert_same_bits(np.asarray(out, dtype), want)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("name", ALL)
def test_nothing_beside_a_strided_out_is_written(name, dtype):
    for shape in (20, 3), (5, 40):
        x = some_logits(shape, dtype)
        want = ALL[name](x)
        for step in 1, 2, 3:
            memory = np.full(tuple(step * n + 2 for n in want.shape), 7, dtype)
            out = memory[(slice(1, -1, step),) * want.ndim]
            ALL[name](x, out=out)
            assert_same_bits(out, want)
            out[...] = 7
            assert (memory == 7).all()


@pytest.mark.parametrize("name", ALL)
def test_the_shape_of_out_must_be_exact(name):
    x = some_logits((4, 5))
    want = ALL[name](x)
    for shape in (*want.shape, 1), want.shape[:-1], (1, *want.shape), (1, 5), (4, 1), (5, 4), (3,):
        if shape == want.shape:
            continue
        out = np.full(shape, 7.0)
        with pytest.raises(ValueError, match=r"^out must have shape ") as error:
            ALL[name](x, out=out)
        assert str(want.shape) in str(error.value)
        assert str(shape) in str(error.value)
        assert (out == 7).all()


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("name", ALL)
def test_the_dtype_of_out_must_be_exact(name, dtype):
    x = some_logits((4, 5), dtype)
    shape = ALL[name](x).shape
    for wrong in np.float16, np.float32, np.float64, np.longdouble, np.int32, complex, object:
        if wrong is dtype:
            continue
        out = np.full(shape, 7).astype(wrong)
        with pytest.raises(TypeError, match=rf"^out must have dtype {np.dtype(dtype)}; got "):
            ALL[name](x, out=out)
        assert (out == 7).all()


@pytest.mark.parametrize("name", OF_LOGITS)
def test_the_out_of_integer_logits_is_float64(name):
    x = np.arange(20).reshape(4, 5)
    want = ALL[name](x)
    out = np.empty(want.shape)
    ALL[name](x, out=out)
    assert_same_bits(out, want)
    out = np.full(want.shape, 7)
    with pytest.raises(TypeError, match=r"^out must have dtype float64; got int64"):
        ALL[name](x, out=out)
    assert (out == 7).all()


@pytest.mark.parametrize("name", ALL)
def test_out_must_be_writeable(name):
    x = some_logits((4, 5))
    out = np.full(ALL[name](x).shape, 7.0)
    out.flags.writeable = False
    with pytest.raises(ValueError, match=r"^out must be writeable; got a read-only array"):
        ALL[name](x, out=out)
    assert (out == 7).all()


@pytest.mark.parametrize("name", ALL)
def test_out_must_be_an_array(name):
    x = some_logits((4, 5))
    for out in [[0.0] * 5] * 4, memoryview(np.zeros((4, 5))), 0.0, (np.zeros((4, 5)),):
        with pytest.raises(TypeError, match=rf"^out must be .*; got {type(out).__name__}"):
            ALL[name](x, out=out)


# ---------------------------------------------------------------- in place

PLACE_LAYOUTS = {
    "c_order": np.copy,
    **{name: LAYOUTS[name] for name in LAYOUTS if name != "read_only"},
}


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("layout", PLACE_LAYOUTS)
@pytest.mark.parametrize("name", [name for name in WHOLE if name != "vjp"])
def test_in_place_gives_the_bits_of_a_fresh_result(name, layout, dtype, isa):
    for shape in [*SHAPES, (40, 17), (17, 33), (7,)]:
        for axis in 0, -1:
            x = some_logits(shape, dtype)
            want = WHOLE[name](x, axis=axis)
            x = PLACE_LAYOUTS[layout](x) if x.ndim > 1 else x
            assert WHOLE[name](x, axis=axis, out=x) is x
            assert_same_bits(np.asarray(x, dtype), want)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("axis", [0, -1])
def test_in_place_of_p_of_v_and_of_both_gives_the_bits_of_a_fresh_result(axis, dtype, isa):
    for shape in SHAPES:
        p, v = some_logits(shape, dtype), some_logits(shape, dtype, 1)
        want = cysoftmax.softmax_vjp(p, v, axis=axis)
        for out in 0, 1:
            arrays = [p.copy(), v.copy()]
            cysoftmax.softmax_vjp(*arrays, axis=axis, out=arrays[out])
            assert_same_bits(arrays[out], want)
        want = cysoftmax.softmax_vjp(p, p, axis=axis)
        x = p.copy()
        cysoftmax.softmax_vjp(x, x, axis=axis, out=x)
        assert_same_bits(x, want)


@pytest.mark.parametrize("axis", [0, -1])
def test_in_place_of_the_target_gives_the_bits_of_a_fresh_result(axis):
    for shape in SHAPES:
        x, target = some_logits(shape), masses_of(np.empty(shape))
        want = cysoftmax.cross_entropy_grad(x, target, axis=axis)
        out = target.copy()
        cysoftmax.cross_entropy_grad(x, out, axis=axis, out=out)
        assert_same_bits(out, want)
        want = cysoftmax.cross_entropy_with_grad(target, target, axis=axis)
        got = cysoftmax.cross_entropy_with_grad(target, target, axis=axis, out=target)
        assert got.loss == want.loss
        assert_same_bits(target, want.grad)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("offset", [0, 1, 5])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "grad_of_labels", "vjp"])
def test_results_larger_than_the_caches_have_the_bits_of_small_ones(name, offset, dtype):
    n_rows, n_classes = 20 * 2**20 // (np.dtype(dtype).itemsize * 1001), 1001
    x = np.broadcast_to(some_logits((50, n_classes), dtype), (n_rows // 50, 50, n_classes))
    x = x.reshape(-1, n_classes)
    memory = np.full(x.size + 16, 7, dtype)
    out = memory[offset : offset + x.size].reshape(x.shape)
    if name == "vjp":
        v = np.broadcast_to(some_logits(n_classes, dtype, 1), x.shape)
        cysoftmax.softmax_vjp(x, v, out=out)
        want = cysoftmax.softmax_vjp(x[:50].copy(), v[:50])
    elif name == "grad_of_labels":
        cysoftmax.cross_entropy_grad(x, np.full(len(x), 3), reduction="sum", out=out)
        want = cysoftmax.cross_entropy_grad(x[:50].copy(), np.full(50, 3), reduction="sum")
    else:
        WHOLE[name](x, out=out)
        want = WHOLE[name](x[:50].copy())
    assert_same_bits(out, np.tile(want, (len(out) // 50, 1)))
    assert (memory[:offset] == 7).all()
    assert (memory[offset + x.size :] == 7).all()


# ---------------------------------------------------------------- partial overlap

# Two views of one square piece of memory, for the logits and for `out`.
OVERLAPS = {
    "a_row_down": lambda m: (m[:-1], m[1:]),
    "a_row_up": lambda m: (m[1:], m[:-1]),
    "a_class_right": lambda m: (m[:, :-1], m[:, 1:]),
    "a_class_left": lambda m: (m[:, 1:], m[:, :-1]),
    "a_row_and_a_class": lambda m: (m[:-1, 1:], m[1:, :-1]),
    "reversed_rows": lambda m: (m, m[::-1]),
    "reversed_classes": lambda m: (m[:, ::-1], m),
    "transposed": lambda m: (m, m.T),
    "transposed_back": lambda m: (m.T, m),
    "one_item_on": lambda m: (
        m.ravel()[:-1][: m.size - len(m)].reshape(-1, len(m)),
        m.ravel()[1:][: m.size - len(m)].reshape(-1, len(m)),
    ),
    "half_an_item_on": lambda m: (
        m.ravel()[: m.size - len(m)].reshape(-1, len(m)),
        m.ravel()
        .view(np.uint8)[m.itemsize // 2 :][: (m.size - len(m)) * m.itemsize]
        .view(m.dtype)
        .reshape(-1, len(m)),
    ),
    "one_row_is_all": lambda m: (np.broadcast_to(m[3], m.shape), m),
    "one_class_is_all": lambda m: (np.broadcast_to(m[:, 3:4], m.shape), m),
    "every_other_row": lambda m: (m[: len(m) // 2], m[::2][: len(m) // 2]),
    "windows": lambda m: (
        np.lib.stride_tricks.sliding_window_view(m[0], len(m) // 2),
        m[: len(m) - len(m) // 2 + 1, : len(m) // 2],
    ),
}


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("name", [name for name in WHOLE if name != "vjp"])
def test_out_that_overlaps_the_logits_gives_what_no_overlap_would(name, overlap, dtype, axis, isa):
    for size in 20, 40:
        x, out = OVERLAPS[overlap](some_logits((size, size), dtype))
        assert np.shares_memory(x, out)
        want = WHOLE[name](x.copy(), axis=axis)
        assert WHOLE[name](x, axis=axis, out=out) is out
        assert_same_bits(out, want)


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("function", [cysoftmax.cross_entropy_grad, cysoftmax.softmax_vjp])
def test_out_that_overlaps_the_second_argument_gives_what_no_overlap_would(
    function, overlap, axis, isa
):
    for size in 20, 40:
        second, out = OVERLAPS[overlap](np.abs(some_logits((size, size))))
        x = some_logits(second.shape, seed=1)
        want = function(x, second.copy(), axis=axis)
        assert function(x, second, axis=axis, out=out) is out
        assert_same_bits(out, want)


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("function", [cysoftmax.cross_entropy_grad, cysoftmax.softmax_vjp])
def test_out_that_overlaps_both_arguments_gives_what_no_overlap_would(function, overlap, axis):
    for size in 20, 40:
        for first, second in (0, 1), (1, 0), (0, 0):
            views = OVERLAPS[overlap](np.abs(some_logits((size, size))))
            want = function(views[first].copy(), views[second].copy(), axis=axis)
            function(views[first], views[second], axis=axis, out=views[1])
            assert_same_bits(views[1], want)


@pytest.mark.parametrize("kept", ["the_item", "the_item_in_reverse", "another_row", "all_in_one"])
@pytest.mark.parametrize("size", [16, 40])
@pytest.mark.parametrize("function", ["grad", "with_grad"])
def test_out_that_overlaps_the_labels_gives_what_no_overlap_would(function, size, kept, isa):
    out = np.zeros((size, size))
    integers = out.view(np.int64)
    labels = {
        "the_item": integers[:, 0],
        "the_item_in_reverse": integers[::-1, 1],
        "another_row": integers[1],
        "all_in_one": integers[0],
    }[kept]
    labels[...] = np.arange(size) * 7 % size
    x = some_logits((size, size))
    want = cysoftmax.cross_entropy_with_grad(x, labels.copy())
    if function == "grad":
        cysoftmax.cross_entropy_grad(x, labels, out=out)
    else:
        loss, _ = cysoftmax.cross_entropy_with_grad(x, labels, out=out)
        assert loss == want.loss
    assert_same_bits(out, want.grad)


@pytest.mark.parametrize("size", [16, 40])
def test_out_that_overlaps_bad_labels_is_untouched(size):
    out = np.zeros((size, size))
    labels = out.view(np.int64)[:, 0]
    labels[-1] = -1
    before = out.copy()
    with pytest.raises(IndexError, match=rf"got -1 at index \({size - 1},\)"):
        cysoftmax.cross_entropy_grad(some_logits((size, size)), labels, out=out)
    assert_same_bits(out, before)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("name", ROWS)
def test_an_out_of_rows_that_overlaps_the_logits_gives_what_no_overlap_would(name, dtype):
    for out in (0, slice(None)), (slice(None), 0), (slice(None, None, -1), 3):
        x = some_logits((20, 20), dtype)
        want = ROWS[name](x.copy())
        ROWS[name](x, out=x[out])
        assert_same_bits(x[out], want)


def test_an_out_of_losses_that_overlaps_the_target_gives_what_no_overlap_would():
    x, target = some_logits((20, 20)), masses_of(np.empty((20, 20)))
    want = cysoftmax.cross_entropy(x, target, reduction="none")
    cysoftmax.cross_entropy(x, target, reduction="none", out=target[:, 0])
    assert_same_bits(target[:, 0], want)
    labels = np.arange(20)
    want = cysoftmax.cross_entropy(x, labels, reduction="none")
    for out in labels.view(float), labels.view(float)[::-1]:
        labels[...] = np.arange(20)
        cysoftmax.cross_entropy(x, labels, reduction="none", out=out)
        assert_same_bits(out, want)


def test_a_misaligned_out_may_overlap_too():
    memory = np.zeros(20 * 20 * 8 + 17, np.uint8)
    x = memory[:3200].view(float).reshape(20, 20)
    x[...] = some_logits((20, 20))
    want = cysoftmax.softmax(x.copy())
    out = memory[9:3209].view(float).reshape(20, 20)
    cysoftmax.softmax(x, out=out)
    assert_same_bits(out, want)


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
