"""Outputs larger than the caches are stored past them, in whole lines that rows may share.

Each test computes a large output at once and in parts that are too small for that, and compares
bits; and looks at what lies beside it.
"""

import itertools

import ml_dtypes
import numpy as np
import pytest
from cases import assert_same_bits

import cysoftmax

BYTES = 18 << 20  # more than half of the largest cache that the library believes in
PARTS = 10  # less than half of the smallest
GUARD = 64
CLASSES = [3, 10, 31, 70, 100, 257, 1000, 1024, 5001, 32000]


def loss_options(n_rows, n_classes, rng):
    """Yield a name and options of a loss: each of the ways in which a gradient is made."""
    labels = rng.integers(0, n_classes, n_rows)
    some = np.where(rng.random(n_rows) < 0.3, -1, labels)
    yield "labels", labels, {}
    yield "weights", labels, {"class_weight": rng.random(n_classes)}
    yield "ignored", some, {"ignore_index": -1}
    yield "smoothing", labels, {"label_smoothing": 0.1, "z_loss": 0.01}
    yield "temperature", labels, {"temperature": 3.0}


def logits(n_classes, dtype, offset=0):
    """Return rows of that many classes in BYTES, `offset` items after a multiple of 64 bytes."""
    n_rows = BYTES // (np.dtype(dtype).itemsize * n_classes)
    x = room(n_rows, n_classes, dtype, offset)
    x[...] = np.random.default_rng(n_classes).standard_normal(x.shape) * 4
    return x


def room(n_rows, n_classes, dtype, offset, gap=0):
    """Return an array of -7 with so many items between its rows, and GUARD items around it."""
    size = n_rows * (n_classes + gap)
    items = np.full(size + 3 * GUARD, -7, dtype)
    begin = -(items.ctypes.data // items.itemsize) % (64 // items.itemsize) + GUARD + offset
    return items[begin : begin + size].reshape(n_rows, n_classes + gap)[:, :n_classes]


def untouched(out):
    """Whether all is -7 that lies in the memory of `room` besides `out`."""
    items = out
    while items.base is not None and isinstance(items.base, np.ndarray):
        items = items.base
    inside = out.copy()
    out[...] = -7
    alone = bool((items == -7).all())
    out[...] = inside
    return alone


def parts(n_rows):
    bounds = np.linspace(0, n_rows, PARTS + 1).astype(int)
    return [slice(*pair) for pair in itertools.pairwise(bounds)]


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("n_classes", CLASSES)
@pytest.mark.parametrize("function", [cysoftmax.softmax, cysoftmax.log_softmax])
def test_a_large_output_has_the_bits_of_small_ones(function, n_classes, dtype, n_threads):
    x = logits(n_classes, dtype, offset=2)
    out = room(*x.shape, dtype, offset=5)
    function(x, out=out, n_threads=n_threads)
    for rows in parts(len(x)):
        assert_same_bits(out[rows], function(x[rows]))
    assert untouched(out)


@pytest.mark.parametrize("n_classes", [10, 100, 1000])
def test_each_instruction_set_streams_what_it_computes(isa, n_classes):
    x = logits(n_classes, np.float32, offset=4)
    out = room(*x.shape, np.float32, offset=4)
    cysoftmax.softmax(x, out=out)
    for rows in parts(len(x)):
        assert_same_bits(out[rows], cysoftmax.softmax(x[rows]))
    assert untouched(out)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("n_classes", CLASSES)
def test_a_large_gradient_has_the_bits_of_small_ones(n_classes, dtype):
    x = logits(n_classes, dtype)
    rng = np.random.default_rng(0)
    for name, labels, options in loss_options(*x.shape, rng):
        out = room(*x.shape, dtype, offset=1)
        cysoftmax.cross_entropy_grad(x, labels, out=out, reduction="sum", n_threads=2, **options)
        for rows in parts(len(x)):
            expected = cysoftmax.cross_entropy_grad(
                x[rows], labels[rows], reduction="sum", **options
            )
            assert_same_bits(out[rows], expected)
        assert untouched(out), name


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("n_classes", [10, 100, 1000])
def test_a_mask_a_distribution_and_a_hessian_are_streamed_too(n_classes, dtype):
    x = logits(n_classes, dtype, offset=3)
    rng = np.random.default_rng(0)
    where = rng.random(x.shape) < 0.8
    where[:, 0] = True
    labels = np.zeros(len(x), int)
    target = cysoftmax.softmax(x / 2)
    out = room(*x.shape, dtype, offset=1)
    pair = out, room(*x.shape, dtype, offset=7)
    calls = [
        lambda s, **kw: cysoftmax.softmax(x[s], where=where[s], **kw),
        lambda s, **kw: cysoftmax.log_softmax(x[s], where=where[s], **kw),
        lambda s, **kw: cysoftmax.softmax_vjp(target[s], x[s], **kw),
        lambda s, **kw: cysoftmax.cross_entropy_grad(
            x[s], labels[s], where=where[s], reduction="sum", **kw
        ),
        lambda s, **kw: cysoftmax.cross_entropy_grad(x[s], target[s], reduction="sum", **kw),
    ]
    for call in calls:
        call(slice(None), out=out)
        for rows in parts(len(x)):
            assert_same_bits(out[rows], call(rows))
        assert untouched(out)
    cysoftmax.cross_entropy_grad_hess(x, target, out=pair)
    for rows in parts(len(x)):
        expected = cysoftmax.cross_entropy_grad_hess(x[rows], target[rows])
        for one, other in zip(pair, expected, strict=True):
            assert_same_bits(one[rows], other)
    assert untouched(pair[0])
    assert untouched(pair[1])


@pytest.mark.parametrize("n_classes", [10, 100, 1000, 5001])
@pytest.mark.parametrize("gap", [1, 6])
def test_rows_with_gaps_between_them_are_streamed_alone(n_classes, gap):
    x = logits(n_classes, np.float32)
    out = room(*x.shape, np.float32, offset=4, gap=gap)
    cysoftmax.softmax(x, out=out)
    for rows in parts(len(x)):
        assert_same_bits(np.ascontiguousarray(out[rows]), cysoftmax.softmax(x[rows]))
    assert untouched(out)


@pytest.mark.parametrize("n_classes", CLASSES)
@pytest.mark.parametrize("axis", [-1, 0])
def test_a_large_array_may_be_worked_on_in_place(n_classes, axis):
    x = logits(n_classes, np.float32)
    x = x if axis == -1 else np.ascontiguousarray(x.T)
    labels = np.arange(x.shape[1 + axis]) % n_classes
    expected = cysoftmax.cross_entropy_with_grad(x, labels, axis=axis)
    result = cysoftmax.cross_entropy_with_grad(x, labels, axis=axis, out=x)
    assert result.loss == expected.loss
    assert result.grad is x
    assert_same_bits(x, expected.grad)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [3, 10, 100, 1000, 1025])
def test_a_large_output_with_the_classes_first_has_the_bits_of_small_ones(
    n_classes, dtype, n_threads
):
    n_rows = BYTES // (np.dtype(dtype).itemsize * n_classes) + 5
    x = (np.random.default_rng(1).standard_normal((n_classes, n_rows)) * 4).astype(dtype)
    labels = np.arange(n_rows) * 7 % n_classes
    out = room(n_classes, n_rows, dtype, offset=3)
    cysoftmax.cross_entropy_grad(x, labels, axis=0, out=out, reduction="sum", n_threads=n_threads)
    for rows in parts(n_rows):
        expected = cysoftmax.cross_entropy_grad(
            x[:, rows].copy(), labels[rows], axis=0, reduction="sum"
        )
        assert_same_bits(np.ascontiguousarray(out[:, rows]), expected)
    assert untouched(out)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("n_classes", "pixels"), [(3, 64), (10, 50), (21, 6000), (70, 784), (300, 129)]
)
def test_a_large_batch_of_images_has_the_bits_of_its_pixels(n_classes, pixels, dtype, n_threads):
    n_images = BYTES // (np.dtype(dtype).itemsize * n_classes * pixels) + 1
    size = n_classes * pixels
    x = logits(size, dtype, offset=1)[:n_images].reshape(-1, n_classes, pixels)
    labels = np.arange(len(x) * pixels).reshape(-1, pixels) * 7 % n_classes
    out = room(len(x), size, dtype, offset=3)
    options = {"reduction": "sum", "n_threads": n_threads}
    loss, _ = cysoftmax.cross_entropy_with_grad(
        x, labels, axis=1, out=out.reshape(x.shape), **options
    )
    rows = np.ascontiguousarray(np.moveaxis(x, 1, -1)).reshape(-1, n_classes)
    expected, grad = cysoftmax.cross_entropy_with_grad(rows, labels.ravel(), **options)
    assert loss == expected
    grad = np.moveaxis(grad.reshape(len(x), pixels, n_classes), -1, 1)
    assert_same_bits(out.reshape(x.shape), np.ascontiguousarray(grad))
    assert untouched(out)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("pixels", [49, 784])
def test_a_large_batch_of_images_may_have_two_outputs_or_be_worked_on_in_place(pixels, in_place):
    n_classes, n_images = 100, BYTES // (4 * 100 * pixels) + 1
    x = logits(n_classes * pixels, np.float32)
    x = np.resize(x, (n_images, n_classes, pixels))
    labels = np.arange(n_images * pixels).reshape(-1, pixels) % n_classes
    rows = np.moveaxis(x, 1, -1).copy()
    pair = cysoftmax.cross_entropy_grad_hess(x, labels, axis=1)
    for one, other in zip(pair, cysoftmax.cross_entropy_grad_hess(rows, labels), strict=True):
        assert_same_bits(one, np.moveaxis(other, -1, 1).copy())
    for function in cysoftmax.softmax, cysoftmax.log_softmax:
        y = x.copy()
        out = function(y, axis=1, out=y if in_place else np.zeros_like(y))
        assert_same_bits(out, np.moveaxis(function(rows), -1, 1).copy())


def places_of_vjp(p, v, offset):
    """Yield p, v and out: an array of its own, then over p, then over v."""
    own = room(len(p), p.size // len(p), p.dtype, offset=offset)
    yield p, v, own.reshape(p.shape)
    assert untouched(own)
    for over in 0, 1:
        pair = p.copy(), v.copy()
        yield *pair, pair[over]


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [5, 6, 31, 100, 1000, 1024, 1025])
def test_a_large_vjp_has_the_bits_of_small_ones(n_classes, dtype, n_threads):
    v = logits(n_classes, dtype, offset=1)
    p = cysoftmax.softmax(v / 2)
    expected = [cysoftmax.softmax_vjp(p[rows], v[rows]) for rows in parts(len(p))]
    for a, b, out in places_of_vjp(p, v, offset=3):
        cysoftmax.softmax_vjp(a, b, out=out, n_threads=n_threads)
        for rows, small in zip(parts(len(p)), expected, strict=True):
            assert_same_bits(out[rows], small)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("n_classes", "pixels"), [(3, 64), (21, 6000), (21, 16384), (40, 16384), (70, 784), (300, 129)]
)
def test_a_large_vjp_over_channels_has_the_bits_of_its_pixels(n_classes, pixels, dtype, n_threads):
    n_images = BYTES // (np.dtype(dtype).itemsize * n_classes * pixels) + 1
    v = np.random.default_rng(2).standard_normal((n_images, n_classes, pixels)).astype(dtype)
    p = cysoftmax.softmax(v / 2, axis=1)
    rows = [np.ascontiguousarray(np.moveaxis(a, 1, -1)).reshape(-1, n_classes) for a in (p, v)]
    small = cysoftmax.softmax_vjp(*rows).reshape(n_images, pixels, n_classes)
    expected = np.ascontiguousarray(np.moveaxis(small, -1, 1))
    for a, b, out in places_of_vjp(p, v, offset=5):
        cysoftmax.softmax_vjp(a, b, axis=1, out=out, n_threads=n_threads)
        assert_same_bits(out, expected)
