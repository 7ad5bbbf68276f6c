"""Masks: which classes of a row take part."""

import bounds
import numpy as np
import pytest
import reference
from cases import (
    REAL,
    assert_formula,
    assert_same_bits,
    assert_same_results,
    one_hot,
    problem,
    results,
    softmaxes,
    some_labels,
    some_logits,
    some_mask,
)
from scipy import sparse

import cysoftmax

SHAPES = [(37, 3), (20, 10), (18, 33), (6, 130), (3, 1025), (2, 20_000)]


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("axis", [0, -1])
def test_a_mask_costs_no_accuracy(axis, dtype, isa):
    for n_classes in 3, 10, 33, 130, 1025:
        x = some_logits((19, n_classes), dtype)
        where = some_mask(x.shape)
        where[-1, 1] = True
        rows = reference.tempered(x, where=where)
        turned, mask = (np.moveaxis(a, -1, axis).copy() for a in (x, where))
        p = np.moveaxis(cysoftmax.softmax(turned, axis=axis, where=mask), axis, -1)
        assert reference.error_in_ulp(p, rows.e / rows.total) <= bounds.SOFTMAX.on(isa)
        log_p = np.moveaxis(cysoftmax.log_softmax(turned, axis=axis, where=mask), axis, -1)
        exact = (rows.d - rows.log_total)[where]
        assert reference.error_in_ulp(log_p[where], exact) <= bounds.LOG_SOFTMAX.on(isa)
        lse = cysoftmax.logsumexp(turned, axis=axis, where=mask)
        exact = rows.lse[:, 0]
        larger = np.maximum(np.abs(exact), np.max(np.where(where, np.abs(x), 0), axis=-1))
        assert np.max(np.abs(lse - exact) / reference.ulp(larger, dtype)) <= bounds.LOGSUMEXP.on(
            isa
        )


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", SHAPES)
def test_masked_entries_leave_no_trace(shape, dtype, isa):
    x, target, options = problem(shape, dtype)
    where = options["where"]
    clean = np.where(where, x, 0).astype(dtype)
    wants = results(clean, target, **options) | softmaxes(clean, where, 0.7)
    for junk in "all", np.nan, np.inf, -np.inf, np.finfo(dtype).max, np.finfo(dtype).min:
        if shape[1] > 2000 and junk != "all":
            break
        dirty = clean.copy()
        dirty[~where] = (
            np.resize([np.nan, np.inf, -np.inf, 1e30], np.sum(~where)) if junk == "all" else junk
        )
        for layout in np.ascontiguousarray, np.asfortranarray:
            given = layout(dirty)
            got = results(given, target, **options) | softmaxes(given, where, 0.7)
            assert_same_results(got, wants, junk)
        cysoftmax.softmax(dirty, where=where, temperature=0.7, out=dirty)
        assert_same_bits(dirty, wants["softmax"])
    assert (wants["grad"][~where] == 0).all()
    assert (wants["softmax"][~where] == 0).all()
    assert (wants["log_softmax"][~where] == -np.inf).all()


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", SHAPES[:-1])
@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
def test_masked_entries_are_zero_even_in_a_row_that_is_nan(spoilt, shape, dtype, isa):
    x, _, options = problem(shape, dtype)
    where = np.ones(shape, bool)
    where[:, 1] = False
    x[:, 1], x[:, 2] = 5, spoilt
    options |= {"where": where, "sample_weight": 1.0, "ignore_index": None}
    for logits in x, np.asfortranarray(x):
        got = results(logits, np.zeros(shape[0], int), reduction="none", **options)
        got |= softmaxes(logits, where)
        for name in "grad", "grad alone", "softmax":
            assert (got[name][:, 1] == 0).all(), name
            assert np.isnan(np.delete(got[name], 1, 1)).all(), name
        assert (got["log_softmax"][:, 1] == -np.inf).all()
        assert np.isnan(np.delete(got["log_softmax"], 1, 1)).all()
        assert np.isnan(got["loss"]).all()
        np.testing.assert_array_equal(got["logsumexp"], np.full(shape[0], spoilt))


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_of_false_is_empty(shape, dtype, isa):
    x = some_logits(shape, dtype)
    for junk in 1.0, np.nan, np.inf:
        x[0] = junk
        where = np.ones(shape, bool)
        where[0] = False
        for logits in x, np.asfortranarray(x):
            got = softmaxes(logits, where)
            assert_same_bits(got["softmax"][0], np.zeros(shape[1], dtype))
            assert (got["log_softmax"][0] == -np.inf).all()
            assert got["logsumexp"][0] == -np.inf
            for name, result in softmaxes(x[1:], None).items():
                assert_same_bits(got[name][1:], result, name)
    nothing = np.zeros(shape, bool)
    assert (cysoftmax.softmax(x, where=nothing) == 0).all()
    assert (cysoftmax.logsumexp(x, where=nothing) == -np.inf).all()


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [3, 40, 1100])
def test_a_row_of_minus_inf_where_it_counts_is_nan(n_classes, dtype, isa):
    x = some_logits((20, n_classes), dtype)
    where = np.ones_like(x, bool)
    where[:, 0] = False
    x[3, 1:] = -np.inf
    got = softmaxes(x, where) | results(x, np.ones(20, int), where=where, reduction="none")
    assert got["logsumexp"][3] == -np.inf
    assert np.isnan(got["loss"][3])
    for name in "softmax", "grad":
        assert got[name][3, 0] == 0
        assert np.isnan(got[name][3, 1:]).all()


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [4, 40, 1100])
@pytest.mark.parametrize("smoothing", [0, 0.1])
def test_a_label_on_a_masked_class_has_loss_inf(smoothing, n_classes, dtype, isa):
    x, where = some_logits((20, n_classes), dtype), np.ones((20, n_classes), bool)
    where[:, 2] = False
    x[:, 2] = np.nan
    labels = np.resize([2, 1, 0], 20)
    masked = labels == 2
    options = {"where": where, "label_smoothing": smoothing}
    matrix = one_hot(labels, n_classes)
    rows = reference.cross_entropy(x, matrix, **options)
    for target in labels, matrix, sparse.csr_array(matrix):
        got = results(x, target, reduction="none", **options)
        for name in "loss", "loss alone":
            np.testing.assert_array_equal(got[name] == np.inf, masked, name)
        for name in "grad", "grad alone":
            assert_formula(0, got[name], 0, rows.grad, rows.grad_size)
            assert (got[name][:, 2] == 0).all()
        assert results(x, target, **options)["loss"] == np.inf


def test_a_mask_is_broadcast(isa):
    x, labels = some_logits((3, 4, 5)), some_labels((3, 4), 5)
    rng = np.random.default_rng(0)
    for shape in (5,), (1, 5), (4, 5), (4, 1), (3, 1, 1), (3, 1, 5), (1, 1, 1), ():
        where = rng.random(shape) < 0.7
        whole = np.broadcast_to(where, x.shape).copy()
        assert_same_results(softmaxes(x, where), softmaxes(x, whole), shape)
        got = results(x, labels, where=where, label_smoothing=0.1)
        assert_same_results(got, results(x, labels, where=whole, label_smoothing=0.1), shape)
    assert_same_results(softmaxes(x, [True, False, True, True, False]),
                        softmaxes(x, np.array([True, False, True, True, False])))  # fmt: skip


@pytest.mark.parametrize("dtype", REAL)
def test_a_mask_gives_what_the_other_classes_alone_would(dtype, isa):
    for n_classes in 3, 10, 33, 130:
        x, labels = some_logits((20, n_classes), dtype), np.zeros(20, int)
        for n_left in {1, 2, n_classes // 2, n_classes - 1}:
            where = np.arange(n_classes) < n_left
            options = {"label_smoothing": 0.2, "z_loss": 0.1, "reduction": "none"}
            got = results(x, labels, where=where, **options) | softmaxes(x, where)
            few = np.ascontiguousarray(x[:, :n_left])
            want = results(few, labels, **options) | softmaxes(few, None)
            for name in want:
                left = got[name][:, :n_left] if got[name].ndim == 2 else got[name]
                scale = 1 + np.abs(want[name])
                close = np.abs(left - want[name]) <= 8 * np.finfo(dtype).eps * scale
                assert close.all(), name
