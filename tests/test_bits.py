"""The result of a row depends only on the row, to the last bit.

Each test computes the same rows in two ways and compares bits: the order of summation is a
definition (16 lanes, fixed blocks, one tree), whatever the loop, the layout or the thread.
"""

import hashlib

import numpy as np
import pytest

import cysoftmax
from cysoftmax import _core

DTYPES = [np.float32, np.float64]
FUNCTIONS = {
    "softmax": cysoftmax.softmax,
    "log_softmax": cysoftmax.log_softmax,
    "logsumexp": cysoftmax.logsumexp,
    "loss": lambda x, **kw: cysoftmax.cross_entropy(x, labels_of(x), reduction="none", **kw),
    "grad": lambda x, **kw: cysoftmax.cross_entropy_grad(x, labels_of(x), reduction="sum", **kw),
    "vjp": lambda x, **kw: cysoftmax.softmax_vjp(x, np.ascontiguousarray(x[..., ::-1]), **kw),
}
# Both loops (sixteen rows at a time, row by row), whole and broken vecs, blocks and chunks.
SHAPES = [(63, n) for n in (1, 2, 7, 10, 16, 17, 31, 32, 33, 48, 49, 64, 65, 112, 113, 1000)] + [
    (300, 10), (160, 50), (63, 192), (63, 193), (5, 1023), (5, 1024), (5, 1025), (3, 5000),
]  # fmt: skip
# Those that the committed bits are of.
COMMITTED = [(37, n) for n in (1, 2, 7, 10, 16, 17, 31, 32, 33, 64, 65, 127, 129, 130, 1000)] + [
    (5, 1023), (5, 1024), (5, 1025), (3, 5000),
]  # fmt: skip


def labels_of(x):
    """Return labels that are the same for the same row at the same place."""
    return np.arange(np.prod(x.shape[:-1], dtype=int)).reshape(x.shape[:-1]) * 7 % x.shape[-1]


def logits(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * 9).astype(dtype)


def same_bits(a, b):
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    differ = a.view(np.uint8) != b.view(np.uint8)
    assert not differ.any(), f"{differ.any(-1).sum() if differ.ndim else 1} of {a.size} differ"


@pytest.fixture(params=FUNCTIONS)
def function(request):
    return FUNCTIONS[request.param]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(40_000, 10), (3000, 100), (1200, 333), (30, 20_000), (3, 300_000), (1, 1_000_003)])  # fmt: skip  # noqa: E501
def test_any_number_of_threads_gives_the_same_bits(function, dtype, shape):
    x = logits(shape, dtype)
    one = function(x, n_threads=1)
    for n_threads in (2, 3, 7, None):
        same_bits(function(x, n_threads=n_threads), one)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(100_003, 3), (40_003, 10), (5003, 100), (3, 200_000)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_loss_is_summed_in_one_order_on_any_number_of_threads(dtype, shape, reduction):
    x = logits(shape, dtype)
    y = labels_of(x)
    one = cysoftmax.cross_entropy(x, y, reduction=reduction, n_threads=1)
    for n_threads in (2, 3, 7, None):
        assert cysoftmax.cross_entropy(x, y, reduction=reduction, n_threads=n_threads) == one


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "vjp"])
def test_a_row_alone_has_the_bits_it_has_in_a_batch(isa, name, dtype, shape):
    function = FUNCTIONS[name]
    x = logits(shape, dtype)
    batch = function(x)
    for i in (0, 1, len(x) // 2, len(x) - 1):
        same_bits(function(x[i]), batch[i])
        same_bits(function(x[i:]), batch[i:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_loss_and_gradient_alone_have_the_bits_they_have_in_a_batch(isa, dtype, shape):
    x = logits(shape, dtype)
    y = labels_of(x)
    loss, grad = cysoftmax.cross_entropy_with_grad(x, y, reduction="none")
    same_bits(cysoftmax.cross_entropy(x, y, reduction="none"), loss)
    same_bits(cysoftmax.cross_entropy_grad(x, y, reduction="none"), grad)
    for i in (0, len(x) - 1):
        one = cysoftmax.cross_entropy_with_grad(x[i], y[i], reduction="none")
        same_bits(one.loss, loss[i])
        same_bits(one.grad, grad[i])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "grad", "vjp"])
def test_in_place_or_not_gives_the_same_bits(isa, name, dtype, shape):
    x = logits(shape, dtype)
    fresh = FUNCTIONS[name](x)
    given = np.full_like(x, 77)
    FUNCTIONS[name](x, out=given)
    same_bits(given, fresh)
    if name != "vjp":  # whose two inputs are the same memory here
        FUNCTIONS[name](x, out=x)
        same_bits(x, fresh)


def layouts(x):
    """Yield views with the values of x in other places of memory."""
    yield "Fortran", np.asfortranarray(x)
    yield "every third class", np.repeat(x, 3, axis=-1)[..., ::3]
    yield "every second row", np.repeat(x, 2, axis=0)[::2]
    yield "negative strides", np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1]
    room = np.zeros(x.size + 3, x.dtype)[1:-2].reshape(x.shape)
    room[...] = x
    yield "off a vec's boundary", room
    padded = np.zeros((x.shape[0], x.shape[1] + 5), x.dtype)
    padded[:, 2:-3] = x
    yield "padded rows", padded[:, 2:-3]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_any_layout_gives_the_same_bits(isa, function, dtype, shape):
    x = logits(shape, dtype)
    expected = function(x)
    for name, view in layouts(x):
        np.testing.assert_array_equal(view, x, err_msg=name)
        same_bits(function(view), expected)
    given = np.asfortranarray(np.zeros_like(x)) if expected.shape == x.shape else None
    if given is not None:
        same_bits(function(x, out=given), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_any_axis_gives_the_same_bits(isa, name, dtype):
    x = logits((6, 5, 21), dtype)
    expected = FUNCTIONS[name](x)
    for axis in (0, 1, 2):
        moved = np.moveaxis(x, -1, axis)
        result = FUNCTIONS[name](moved, axis=axis)
        same_bits(np.moveaxis(result, axis, -1) if result.ndim == 3 else result, expected)
        result = FUNCTIONS[name](np.ascontiguousarray(moved), axis=axis - 3)
        same_bits(np.moveaxis(result, axis, -1) if result.ndim == 3 else result, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_broadcast_rows_and_classes_give_the_same_bits(isa, function, dtype):
    row = logits((1, 33), dtype)
    rows = np.broadcast_to(row, (20, 33))
    same_bits(function(rows), function(rows.copy()))
    classes = np.broadcast_to(logits((20, 1), dtype), (20, 33))
    same_bits(function(classes), function(classes.copy()))


def sweep(dtype):
    """Return the results of all functions on a fixed set of inputs, made of integers only."""
    results = []
    for n_rows, n_classes in COMMITTED:
        k = np.arange(n_rows * n_classes, dtype=np.uint64)
        for _ in range(3):  # a few rounds of a 64-bit mixing function
            k = (k ^ (k >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)
        x = ((k >> np.uint64(44)).astype(np.float64) / 2**15 - 16).astype(dtype)
        x = x.reshape(n_rows, n_classes)
        results += [function(x) for function in FUNCTIONS.values()]
    return results


# Of sweep(), with fused multiply-add: AVX2, AVX-512 and NEON alike. A change of these is a
# change of the definition in src/exp.inc: say so in CHANGELOG.md.
HASHES = {
    np.float32: "f4937fceab2a87374fa9863b138436cb7e68a21f5ed7ca854e5a1188b83ca72a",
    np.float64: "aae147e723da29393bc496e5c3be44be386a0eb3b9b22199e4680450921253c9",
}


def digest(results):
    return hashlib.sha256(b"".join(np.ascontiguousarray(r).tobytes() for r in results)).hexdigest()


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_fused_instruction_sets_give_the_committed_bits(isa, dtype):
    if isa == "scalar":
        pytest.skip("rounds twice in a multiply-add: bits of its own")
    assert digest(sweep(dtype)) == HASHES[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
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
