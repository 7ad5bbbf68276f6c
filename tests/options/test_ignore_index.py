"""Rows that are ignored, by their label or in another way."""

import math

import numpy as np
import pytest
from cases import (
    LOSSES,
    REAL,
    assert_same_bits,
    assert_same_results,
    one_hot,
    results,
    some_labels,
    some_logits,
)
from scipy import sparse

from cysoftmax import cross_entropy, cross_entropy_grad, cross_entropy_with_grad

SHAPES = [(40, 5), (40, 50), (6, 1100), (3, 40_000)]


def ways_to_ignore(shape, some):
    """Yield targets and options with which the rows `some` are ignored, and those without."""
    labels = some_labels(shape[0], shape[1])
    ignored = labels.copy()
    ignored[some] = -7
    yield ignored, {"ignore_index": -7}
    matrix = one_hot(ignored, shape[1])
    yield matrix, {}
    yield sparse.csr_array(matrix), {}
    weight = np.ones(shape[0])
    weight[some] = 0
    where = np.ones(shape, bool)
    where[some] = False
    for target in labels, one_hot(labels, shape[1]), sparse.csr_array(one_hot(labels, shape[1])):
        yield target, {"sample_weight": weight}
        yield target, {"where": where}


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("z_loss", [0, 0.1])
def test_ignored_rows_leave_no_trace_of_their_logits(z_loss, shape, dtype, isa):
    some = [0, 2] if shape[0] < 10 else [0, 2, 3, 17, 39]
    others = np.delete(np.arange(shape[0]), some)
    clean = some_logits(shape, dtype)
    more = {"z_loss": z_loss, "label_smoothing": z_loss}
    wants = {
        mask: results(clean[others], some_labels(*shape)[others], where=mask, **more)
        for mask in (None, True)
    }
    for target, options in ways_to_ignore(shape, some):
        want = wants[True if "where" in options else None]
        for junk in np.nan, np.inf, -np.inf, np.finfo(dtype).max:
            if shape[1] > 2000 and junk != np.inf:
                continue
            x = clean.copy()
            x[some] = junk
            got = results(x, target, **options, **more)
            for name in "grad", "grad alone":
                assert_same_bits(got[name][some], np.zeros((len(some), shape[1]), dtype), name)
                got[name] = got[name][others]
            assert_same_results(got, want, f"{list(options)} {junk}")
        loss = cross_entropy(x, target, reduction="none", **options, **more)
        assert_same_bits(loss[some], np.zeros(len(some), dtype))
        if shape[1] > 1000:
            continue
        out = x.copy()  # in place and class-major: zeros overwrite what was there
        cross_entropy_grad(out, target, out=out, **options, **more)
        assert_same_bits(out[some], np.zeros((len(some), shape[1]), dtype))
        assert_same_bits(out[others], want["grad"])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64])
@pytest.mark.parametrize("n_classes", [5, 60])
def test_ignore_index_may_be_a_class(n_classes, dtype, isa):
    x, labels = some_logits((30, n_classes)), some_labels(30, n_classes).astype(dtype)
    labels[4] = 2
    kept = labels != 2
    loss, grad = cross_entropy_with_grad(x, labels, ignore_index=2)
    want = cross_entropy_with_grad(x[kept], labels[kept])
    assert loss == want.loss
    assert_same_bits(grad[kept], want.grad)
    assert_same_bits(grad[~kept], np.zeros((np.sum(~kept), n_classes)))


@pytest.mark.parametrize(
    ("dtype", "label", "ignore_index"),
    [
        (np.uint8, 156, -100),
        (np.uint8, 44, 300),
        (np.int8, -1, 255),
        (np.uint16, 2**16 - 1, -1),
        (np.uint32, 2**32 - 1, -1),
        (np.uint64, 2**64 - 1, -1),
        (np.int64, -1, 2**64 - 1),
        (np.int32, 5, 2**32 + 5),
        (np.int64, 5, 2**64 + 5),
        (np.uint64, 5, 2**70),
        (np.int64, 5, -(2**70)),
    ],
)
def test_no_ignore_index_wraps_into_the_labels(dtype, label, ignore_index, isa):
    x = some_logits((20, 4))
    labels = np.zeros(20, dtype)
    want = cross_entropy(x, labels)
    assert cross_entropy(x, labels, ignore_index=ignore_index) == want
    labels[3] = label
    for function in LOSSES:
        with pytest.raises(IndexError, match=rf"^target must lie in \[0, 4\).*; got {label} at"):
            function(x, labels, ignore_index=ignore_index)
    if np.iinfo(dtype).min <= ignore_index <= np.iinfo(dtype).max:
        pytest.fail("this pair cannot show anything")


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint64])
def test_the_ends_of_a_dtype_may_be_ignored(dtype, isa):
    x = some_logits((20, 4))
    for end in {np.iinfo(dtype).min, np.iinfo(dtype).max} - {0}:
        labels = np.zeros(20, dtype)
        labels[3] = end
        want = cross_entropy(np.delete(x, 3, 0), np.zeros(19, int))
        assert cross_entropy(x, labels, ignore_index=end) == want
        assert cross_entropy(x[3], labels[3], ignore_index=end, reduction="sum") == 0


def test_a_label_that_is_not_ignored_is_still_checked(isa):
    x = some_logits((20, 4))
    labels = np.zeros(20, int)
    labels[[2, 5]] = -100, -101
    weight, where = np.ones(20), np.ones((20, 4), bool)
    weight[5], where[5] = 0, False
    for function in LOSSES:
        for more in {}, {"sample_weight": weight}, {"where": where}:
            with pytest.raises(IndexError, match=r"^target must lie in \[0, 4\).* got -101 .*\(5,"):
                function(x, labels, ignore_index=-100, **more)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", [(3, 4), (20, 4), (20, 60), (2, 20_000)])
def test_the_mean_over_ignored_rows_is_nan_with_gradient_zero(shape, dtype, isa):
    x = np.full(shape, np.nan, dtype)
    for target, options in ways_to_ignore(shape, slice(None)):
        for more in {}, {"label_smoothing": 0.1, "z_loss": 0.1, "temperature": 2}:
            got = results(x, target, **options, **more)
            assert type(got["loss"]) is float
            assert math.isnan(got["loss"])
            assert math.isnan(got["loss alone"])
            assert_same_bits(got["grad"], np.zeros_like(x))
            assert_same_bits(got["grad alone"], np.zeros_like(x))
            got = results(x, target, reduction="sum", **options, **more)
            assert got["loss"] == got["loss alone"] == 0
            assert_same_bits(got["grad"], np.zeros_like(x))


@pytest.mark.parametrize("n_classes", [3, 40, 1100])
def test_the_mean_of_rows_without_weight_is_nan_with_gradient_zero(n_classes, isa):
    x, labels, weight = some_logits((20, n_classes)), np.zeros(20, int), np.ones(n_classes)
    weight[0] = 0
    for target in labels, one_hot(labels, n_classes):
        for more in {}, {"label_smoothing": 0.1}:
            got = results(x, target, class_weight=weight, **more)
            assert math.isnan(got["loss"])
            assert math.isnan(got["loss alone"])
            assert (got["grad"] == 0).all()
            assert_same_bits(got["grad alone"], got["grad"])


def test_no_rows_have_no_mean_with_all_options():
    for shape in (0, 4), (3, 0, 4):
        for kind in "labels", "masses":
            x, target = np.empty(shape), np.empty(shape if kind == "masses" else shape[:-1], int)
            options = {
                "class_weight": np.ones(4),
                "sample_weight": np.empty(shape[:-1]),
                "where": np.empty(shape, bool),
                "label_smoothing": 0.1,
                "z_loss": 0.1,
                "temperature": 2,
                "scale": np.empty(shape[:-1]),
            }
            loss, grad = cross_entropy_with_grad(x, target, **options)
            assert math.isnan(loss)
            assert grad.shape == shape
            assert results(x, target, reduction="sum", **options)["loss"] == 0
            assert results(x, target, reduction="none", **options)["loss"].shape == shape[:-1]
    assert math.isnan(cross_entropy(np.empty((0, 4)), sparse.csr_array((0, 4))))
