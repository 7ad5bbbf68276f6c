"""cysoftmax.dask gives what the functions give for the whole array, in threads and in processes."""

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")

import calls  # noqa: E402
import dask.array as da  # noqa: E402
import exact  # noqa: E402
from cases import REAL, REDUCTIONS, assert_same_bits, problem, some_labels, some_logits  # noqa: E402

import cysoftmax  # noqa: E402
import cysoftmax.dask as ours  # noqa: E402

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

SHAPE = 37, 50
ROWS_ONLY = [(37, 50), (16, 50), (10, 50)]
CLASSES, BOTH = (37, 13), (10, 13)
X = da.zeros((4, 6), chunks=(2, 3))
OPTIONS = problem(SHAPE, np.float64)[2]
SETS = [(), *[(name,) for name in OPTIONS], tuple(OPTIONS)]


@pytest.fixture(autouse=True)
def threads():
    with dask.config.set(scheduler="threads", num_workers=2):
        yield


@pytest.fixture(scope="module")
def client():
    """Two processes on this machine, reached by the loopback address."""
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1",
        dashboard_address="127.0.0.1:0", scheduler_kwargs={"dashboard": False},
    )  # fmt: skip
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client


def chunked(x, chunks):
    return da.from_array(x, chunks=chunks)


def both(x, target, **options):
    return dask.compute(*ours.cross_entropy_with_grad(x, target, **options))


def assert_alike(got, want, tolerance):
    """Assert that loss and gradient are alike, the latter of each row compared to its largest."""
    np.testing.assert_allclose(got[0], want.loss, tolerance)
    assert np.isfinite(want.grad).all()
    size = np.abs(want.grad).max(-1, keepdims=True)
    assert (np.abs(got[1] - want.grad) <= tolerance * size).all()


def outcome(call, *arguments, **options):
    """Return the class of the error of a call, or None and what it returns."""
    try:
        return None, call(*arguments, **options)
    except (TypeError, ValueError, IndexError) as error:
        return type(error), str(error)


# ---------------------------------------------------------------- the same as in one array


@pytest.mark.parametrize("chunks", [*ROWS_ONLY, CLASSES, BOTH])
@pytest.mark.parametrize("names", SETS, ids=" ".join)
@pytest.mark.parametrize("kind", ["labels", "masses"])
@pytest.mark.parametrize("dtype", REAL)
def test_each_option_gives_what_it_gives_in_one_array(dtype, kind, names, chunks):
    x, target, options = problem(SHAPE, dtype, kind)
    given = {name: options[name] for name in names if name in options}
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    for reduction in REDUCTIONS:
        want = cysoftmax.cross_entropy_with_grad(x, target, reduction=reduction, **given)
        got = both(chunked(x, chunks), target, reduction=reduction, **given)
        size = np.abs(want.grad).max()
        if chunks in ROWS_ONLY:
            assert_same_bits(got[0], want.loss)
            assert_same_bits(got[1], want.grad)
        np.testing.assert_allclose(got[0], want.loss, tolerance)
        np.testing.assert_allclose(got[1], want.grad, tolerance, tolerance * size)
        assert got[1].dtype == want.grad.dtype


def cut_at_random(rng, sizes):
    """Chunks of axes of these sizes, each cut at some places, some perhaps empty."""
    cuts = [np.sort(rng.integers(0, n + 1, rng.integers(0, 6))) for n in sizes]
    return tuple(tuple(np.diff([0, *cut, n]).tolist()) for cut, n in zip(cuts, sizes, strict=True))


def row_targets(rng, rows, n_classes):
    """Targets of each kind whose weights are rounded, by name."""
    shape = (*rows, n_classes)
    masses = rng.dirichlet(np.ones(n_classes), rows)
    small = masses * 2.0 ** rng.integers(-90, 1, (*rows, 1))
    empty = masses * (rng.random((*rows, 1)) < 0.7)
    in_part = masses.copy()
    half = rows[-1] // 2
    in_part[..., :half, :] = np.eye(n_classes)[rng.integers(0, n_classes, (*rows[:-1], half))]
    return {
        "labels": rng.integers(0, n_classes, rows),
        "masses": masses,
        "float32 masses": masses.astype(np.float32),
        "float16 masses": masses.astype(np.float16),
        "masses of many magnitudes": small,
        "masses and empty rows": empty,
        "one-hot in part": in_part,
        "counts": rng.integers(0, 99, shape),
        "bools": rng.random(shape) < 0.1,
        "negative masses": rng.uniform(-0.4, 1, shape),
    }


def row_options(rng, rows, n_classes):
    """Sets of options that make rows differ in weight, by name."""
    class_weight, sample = rng.uniform(0.1, 3, n_classes), rng.uniform(0, 3, rows)
    some = rng.random((*rows, n_classes)) < 0.8
    some[..., 0] = True
    few = sample * (rng.random(rows) < 0.6)
    return {
        "plain": {},
        "class_weight": {"class_weight": class_weight},
        "sample_weight": {"sample_weight": sample},
        "where": {"where": some},
        "smooth": {"label_smoothing": 0.1, "z_loss": 0.01, "temperature": 0.7},
        "all": {
            "class_weight": class_weight, "sample_weight": few, "where": some,
            "label_smoothing": 0.1, "z_loss": 0.01, "temperature": 0.7,
        },
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    ("rows", "axis"), [((150,), 1), ((1030,), 1), ((9, 21), 1), ((2, 300), 2)], ids=str
)
def test_rows_cut_anywhere_give_the_bits_of_one_array(rows, axis, dtype, seed):
    rng = np.random.default_rng([*rows, seed])
    n_classes = 1100 if rows == (150,) and seed == 0 else int(rng.integers(2, 70))
    x = rng.normal(0, 3, (*rows, n_classes)).astype(dtype)
    chunks = [*cut_at_random(rng, rows)]
    chunks.insert(axis, (n_classes,))
    lazy = da.from_array(np.moveaxis(x, -1, axis), chunks=tuple(chunks))
    targets, sets = row_targets(rng, rows, n_classes), row_options(rng, rows, n_classes)
    wanted, graphs = [], []
    for kind, target in targets.items():
        labels = kind == "labels"
        if labels:
            sets["ignore_index"] = {"ignore_index": int(target.flat[0])}
        for name, given in sets.items():
            if name == "ignore_index" and not labels:
                continue
            want = cysoftmax.cross_entropy_with_grad(x, target, **given)
            wanted.append((f"{kind}, {name}", want.loss, want.grad))
            target_here = target if labels else np.moveaxis(target, -1, axis)
            if "where" in given:
                given = given | {"where": np.moveaxis(given["where"], -1, axis)}
            graphs.append(ours.cross_entropy_with_grad(lazy, target_here, axis=axis, **given))
    computed = dask.compute(*graphs, scheduler="sync")
    for (name, loss, grad), got in zip(wanted, computed, strict=True):
        assert_same_bits(got.loss, loss, name)
        assert_same_bits(got.grad, np.moveaxis(grad, -1, axis), name)


@pytest.mark.parametrize("chunks", [*ROWS_ONLY, CLASSES, BOTH])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32"])
def test_softmaxes_are_those_of_one_array(dtype, name, chunks):
    x, options = some_logits(SHAPE, np.dtype(dtype)), problem(SHAPE, np.float64)[2]
    few = {"where": options["where"]}
    if name != "logsumexp":
        few["temperature"] = 0.7
    for given in {}, few:
        want = getattr(cysoftmax, name)(x, **given)
        lazy = getattr(ours, name)(chunked(x, chunks), **given)
        assert (lazy.dtype, lazy.shape) == (want.dtype, want.shape)
        got = lazy.compute()
        if chunks in ROWS_ONLY:
            assert_same_bits(got, want)
        tolerance = {"float32": 1e-6, "float16": 2e-3}.get(dtype, 1e-14)
        np.testing.assert_allclose(got, want, tolerance)
    kept = ours.logsumexp(chunked(x, chunks), keepdims=True)
    assert kept.compute().shape == kept.shape == (37, 1)


@pytest.mark.parametrize("chunks", [(2, 8, 6), (2, 3, 6), (3, 8, 2), (1, 3, 2)])
def test_classes_may_lie_along_any_axis(chunks):
    x, labels = some_logits((3, 8, 6)), some_labels((3, 6), 8)
    want = cysoftmax.cross_entropy_with_grad(x, labels, axis=1)
    got = both(chunked(x, chunks), labels, axis=1)
    np.testing.assert_allclose(got[0], want.loss, 1e-14)
    np.testing.assert_allclose(got[1], want.grad, 1e-12, 1e-17)
    got = ours.softmax(chunked(x, chunks), axis=1).compute()
    np.testing.assert_allclose(got, cysoftmax.softmax(x, axis=1), 1e-14)


@pytest.mark.parametrize("chunks", [(10, 50), BOTH])
def test_targets_and_options_may_be_dask_arrays(chunks):
    x, target, options = problem(SHAPE, np.float64)
    lazy = {
        name: da.from_array(value, chunks=7) if isinstance(value, np.ndarray) else value
        for name, value in options.items()
    }
    got = both(chunked(x, chunks), da.from_array(target, chunks=5), **lazy)
    want = both(chunked(x, chunks), target, **options)
    for a, b in zip(got, want, strict=True):
        assert_same_bits(a, b)


@pytest.mark.parametrize("chunks", [(10, 50), BOTH])
def test_the_other_functions_are_those_of_one_array(chunks):
    x, labels = some_logits(SHAPE, np.float32), some_labels(37, 50)
    X, where = chunked(x, chunks), problem(SHAPE, np.float64)[2]["where"]
    pairs = [
        (ours.row_stats(X), cysoftmax.row_stats(x)),
        (
            ours.row_stats(X, labels, temperature=2.0, ignore_index=int(labels[0])),
            cysoftmax.row_stats(x, labels, temperature=2.0, ignore_index=int(labels[0])),
        ),
        (
            ours.cross_entropy_grad_hess(X, labels, where=where, sample_weight=np.arange(37)),
            cysoftmax.cross_entropy_grad_hess(x, labels, where=where, sample_weight=np.arange(37)),
        ),
        ([ours.softmax_vjp(X, x)], [cysoftmax.softmax_vjp(x, x)]),
    ]
    for got, want in pairs:
        for a, b in zip(got, want, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                assert_same_bits(a.compute(), b)


@pytest.mark.parametrize("margin", [5, 20, 36, 45, 80])
@pytest.mark.parametrize("dtype", REAL)
def test_confident_rows_cut_anywhere_keep_their_digits(dtype, margin):
    x = np.random.default_rng(1).normal(0, 1, (6, 60)).astype(dtype)
    labels = np.array([0, 59, 30, 9, 10, 11])
    x[np.arange(6), labels] += margin
    loss, grad = both(chunked(x, (4, 10)), labels, reduction="none")
    for r, label in enumerate(labels):
        rest = exact.MP.fsum(
            exact.MP.exp(exact.number(v) - exact.number(x[r, label]))
            for c, v in enumerate(x[r])
            if c != label
        )
        want = exact.MP.log1p(rest)
        exact.assert_close(loss[r], want, want, np.dtype(dtype), 6, "loss")
        want = rest / (1 + rest)
        exact.assert_close(-grad[r, label], want, want, np.dtype(dtype), 6, "gradient")


def test_special_rows_are_those_of_one_array():
    inf, nan = np.inf, np.nan
    x = np.array(
        [[0, 1, 2, 3], [-inf, -inf, 1, 2], [-inf] * 4, [nan, 0, 1, 2], [0, inf, 1, 2]], float
    )
    labels = np.array([0, 2, 1, 3, 3])
    want = cysoftmax.cross_entropy_with_grad(x, labels, reduction="none")
    got = both(chunked(x, (2, 2)), labels, reduction="none")
    np.testing.assert_allclose(got[0], want.loss, 1e-14)
    np.testing.assert_allclose(got[1], want.grad, 1e-14)
    np.testing.assert_allclose(ours.softmax(chunked(x, (2, 1))).compute(), cysoftmax.softmax(x))


def test_a_mean_over_ignored_rows_is_nan_and_its_gradient_zero():
    x, labels = some_logits((4, 6)), np.full(4, -1)
    for chunks in (2, 6), (2, 2):
        loss, grad = both(chunked(x, chunks), labels, ignore_index=-1)
        assert np.isnan(loss)
        assert (grad == 0).all()


@pytest.mark.parametrize("kind", ["labels", "masses"])
def test_a_chunk_may_have_no_classes(kind):
    x, target, options = problem((6, 7), np.float64, kind)
    lazy = chunked(x, ((3, 0, 3), (3, 0, 4)))
    for names in (), ("where",), ("label_smoothing",), ("class_weight",), tuple(options):
        given = {name: options[name] for name in names if name in options}
        want = cysoftmax.cross_entropy_with_grad(x, target, **given)
        assert_alike(both(lazy, target, **given), want, 1e-12)
    np.testing.assert_allclose(ours.softmax(lazy).compute(), cysoftmax.softmax(x), 1e-14)


@pytest.mark.parametrize("chunks", [(2,), (7,)])
def test_logits_may_be_one_row(chunks):
    x = some_logits((7,))
    for given in {}, {"where": np.ones(7, bool)}, {"class_weight": np.arange(7)}:
        want = cysoftmax.cross_entropy_with_grad(x, 5, **given)
        for label in 5, da.from_array(np.array(5)):
            assert_alike(both(chunked(x, chunks), label, **given), want, 1e-13)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", ">i4", "uint32", "uint64"])
def test_labels_may_have_any_integer_dtype(dtype):
    x, labels = some_logits((6, 300)), np.array([0, 5, 2, 100, 1, 127], dtype)
    some = {"where": np.ones((6, 300), bool), "class_weight": np.arange(300) / 7}
    for given in (
        {}, {"label_smoothing": 0.1}, some, {**some, "ignore_index": 5}, {"ignore_index": -1},
        {"ignore_index": 2**64 - 1},
    ):  # fmt: skip
        want = cysoftmax.cross_entropy_with_grad(x, labels, **given)
        assert_alike(both(chunked(x, (3, 100)), labels, **given), want, 1e-12)


def test_labels_beyond_int64_are_ignored_or_out_of_range():
    x, labels = some_logits((4, 6)), np.array([0, 5, 2**64 - 1, 2], np.uint64)
    for given in {}, {"where": np.ones((4, 6), bool)}:
        want = cysoftmax.cross_entropy_with_grad(x, labels, ignore_index=2**64 - 1, **given)
        got = both(chunked(x, (2, 3)), labels, ignore_index=2**64 - 1, **given)
        assert_alike(got, want, 1e-13)
        with pytest.raises(IndexError, match="got 18446744073709551615"):
            both(chunked(x, (2, 3)), labels, ignore_index=-1, **given)


# ---------------------------------------------------------------- errors of the functions

MASKED = np.ma.masked_array(np.ones(4, int), [0, 1, 0, 0])
MASKS = np.ma.masked_array(np.ones((4, 6), bool), np.eye(4, 6, dtype=bool))
WRONG = {  # arguments that the functions refuse, for logits of shape (4, 6)
    "masked labels": {"target": MASKED},
    "masked masses": {"target": MASKS},
    "masked sample_weight": {"sample_weight": MASKED},
    "masked where": {"where": MASKS},
    "masked scale": {"scale": MASKED},
    "masked class_weight": {"class_weight": np.ma.masked_array(np.ones(6), np.eye(6)[0])},
    "ignore_index 1.5": {"ignore_index": 1.5},
    "ignore_index True": {"ignore_index": True},
    "ignore_index and masses": {"ignore_index": 1, "target": np.ones((4, 6))},
    "scale '2'": {"scale": "2"},
    "complex scale": {"scale": 2j},
    "complex scales": {"scale": np.full(4, 2j)},
    "bool class_weight": {"class_weight": np.ones(6, bool)},
    "complex class_weight": {"class_weight": np.ones(6) * 1j},
    "complex sample_weight": {"sample_weight": np.full(4, 2j)},
    "class_weight by name": {"class_weight": "balanced"},
    "integer where": {"where": np.ones((4, 6), int)},
    "float labels": {"target": np.zeros(4)},
    "complex masses": {"target": np.ones((4, 6)) * 1j},
    "no target": {"target": None},
    "label_smoothing 2": {"label_smoothing": 2.0},
    "z_loss '1'": {"z_loss": "1"},
    "axis True": {"axis": True},
    "axis 1.5": {"axis": 1.5},
    "n_threads 0": {"n_threads": 0},
    "reduction None": {"reduction": None},
    "complex logits": {"x": np.ones((4, 6)) * 1j},
    "bool logits": {"x": np.ones((4, 6), bool)},
    "masked logits": {"x": np.ma.masked_array(np.ones((4, 6)), np.eye(4, 6))},
    "no classes": {"x": np.ones((4, 0))},
}


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("chunks", [(2, 6), (2, 3)])
@pytest.mark.parametrize("name", WRONG)
def test_the_error_is_that_of_the_function_when_the_graph_is_made(name, chunks, lazy):
    given = {"x": np.ones((4, 6)), "target": np.zeros(4, int), **WRONG[name]}
    x, target = given.pop("x"), given.pop("target")
    kind, message = outcome(cysoftmax.cross_entropy_grad, x, target, **given)
    assert kind is not None
    if lazy:
        target = da.from_array(target) if isinstance(target, np.ndarray) else target
        given = {k: da.from_array(v) if isinstance(v, np.ndarray) else v for k, v in given.items()}
    got = outcome(ours.cross_entropy_grad, chunked(x, chunks[: 2 * x.ndim]), target, **given)
    assert got[0] == kind
    if "masked" not in name:
        assert got[1] == message


def masked(block):
    return np.ma.masked_array(block, block == 1)


@pytest.mark.parametrize("chunks", [(4, 6), (2, 3)])
def test_masked_chunks_are_found_when_they_are_computed(chunks):
    ones = da.ones(4, dtype=int, chunks=2)
    hidden = da.map_blocks(masked, ones, dtype=int, meta=np.empty(0, int))
    for target, given in (hidden, {}), (ones, {"sample_weight": hidden}):
        loss = ours.cross_entropy(X.rechunk(chunks), target, **given)
        with pytest.raises(TypeError, match="must have no mask"):
            loss.compute()


def test_vectors_must_have_shape_and_dtype_of_the_probabilities():
    for v in np.ones(6), np.ones((4, 6), np.float32), np.ones((1, 6)):
        kind, message = outcome(cysoftmax.softmax_vjp, np.ones((4, 6)), v)
        assert outcome(ours.softmax_vjp, X, v) == (kind, message)
    p = some_logits((2, 3), np.float32)
    got = ours.softmax_vjp(chunked(p, (1, 3)), p.tolist()).compute()
    assert_same_bits(got, cysoftmax.softmax_vjp(p, p.tolist()))


def test_the_other_functions_raise_their_errors_when_the_graph_is_made():
    for name, given in (
        ("softmax", {"temperature": "1"}),
        ("log_softmax", {"where": np.ones((4, 6), int)}),
        ("logsumexp", {"n_threads": 1.5}),
        ("row_stats", {"ignore_index": 1.5}),
    ):
        want = outcome(getattr(cysoftmax, name), np.ones((4, 6)), **given)
        assert want[0] is not None
        assert outcome(getattr(ours, name), X, **given) == want
    given = {"class_weight": np.ones(5)}
    want = outcome(cysoftmax.cross_entropy_grad_hess, np.ones((4, 6)), np.zeros(4, int), **given)
    got = outcome(ours.cross_entropy_grad_hess, X, np.zeros(4, int), **given)
    assert got == want


@pytest.mark.parametrize("chunks", [(2, 6), (2, 3)])
def test_the_index_of_a_label_is_said_to_be_one_within_a_chunk(chunks):
    with pytest.raises(IndexError, match=r"got 9 at index \(1,\); the index is .* within a chunk"):
        ours.cross_entropy(X.rechunk(chunks), [0, 1, 2, 9]).compute()


# ---------------------------------------------------------------- weights of any size


# ---------------------------------------------------------------- weights of any size

FEW_ROWS, FEW_CLASSES = (3, 8), (3, 4)
CLASS_WEIGHTS = {
    "some small": [1.0] * 4 + [1e-10] * 4,
    "all small": [2.0**-31] * 8,
    "some large": [1.0] * 4 + [1e280] * 4,
    "some zero": [0.0] * 4 + [1.0] * 4,
    "beyond float32": [1e-44 * k for k in range(1, 9)],
    "far beyond float32": [1e-60 * k for k in range(1, 9)],
    "beyond normal numbers": [1e-320] * 8,
    "some tiny": [1.0] * 4 + [1e-45] * 4,
    "some almost zero": [1.0] * 4 + [1e-300] * 4,
    "farthest apart": [2.0**699] * 4 + [2.0**-301] * 4,
    "largest": [1e305] * 8,
    "sum beyond float32": [2.0**24, 0.3, 0.3, 0.3] * 2,
    "integers": [2**40, 1, 2, 3, 4, 5, 6, 7],
}


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("kind", ["labels", "masses"])
@pytest.mark.parametrize("name", CLASS_WEIGHTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_class_weights_may_have_any_size(dtype, name, kind, lazy):
    x, target, options = problem((6, 8), np.dtype(dtype), kind)
    weights = np.array(CLASS_WEIGHTS[name])
    tolerance = 2e-5 if dtype == "float32" else 1e-12
    more = {"z_loss": 0.1, "temperature": 0.7, "sample_weight": options["sample_weight"]}
    for chunks in FEW_ROWS, FEW_CLASSES:
        weight = chunked(weights, 3) if lazy else weights
        for reduction in REDUCTIONS:
            for given in {}, {"label_smoothing": 0.1}, more:
                given = {**given, "reduction": reduction}
                kind_of_error, want = outcome(
                    cysoftmax.cross_entropy_with_grad, x, target, class_weight=weights, **given
                )
                got = outcome(both, chunked(x, chunks), target, class_weight=weight, **given)
                assert got[0] == kind_of_error
                if kind_of_error is None:
                    assert_alike(got[1], want, tolerance)


def test_class_weights_are_added_in_float64():
    x, weight = np.array([[40, 0, 0, 1]], np.float32), [2.0**24, 0.3, 0.3, 0.3]
    given = {"class_weight": weight, "label_smoothing": 0.1, "reduction": "sum"}
    want = cysoftmax.cross_entropy_with_grad(x, [0], **given)
    got = both(chunked(x, (1, 2)), [0], **given)
    np.testing.assert_allclose(got[0], want.loss, 1e-6)
    np.testing.assert_allclose(got[1], want.grad, 1e-6)


def test_complex_class_weights_are_refused():
    for weight in np.ones(6) * 1j, chunked(np.ones(6) * 1j, 3), np.ones(6, bool):
        for chunks in (4, 6), (2, 3):
            with pytest.raises(TypeError, match="class_weight must have an integer or float dtype"):
                ours.cross_entropy(X.rechunk(chunks), [0] * 4, class_weight=weight)


def test_a_chunk_of_weights_far_below_the_others_is_refused():
    x, weight = some_logits((6, 8)), [1e-300] * 4 + [1e280] * 4
    with pytest.raises(ValueError, match=r"class_weight must have in each chunk .* 2\*\*-1000"):
        both(chunked(x, FEW_CLASSES), [0] * 6, class_weight=weight)


@pytest.mark.parametrize("weight", [1e308, 1e-320, 1e-300, 1e-10])
@pytest.mark.parametrize("chunks", [FEW_ROWS, FEW_CLASSES])
@pytest.mark.parametrize("kind", ["labels", "masses"])
def test_a_mean_may_have_sample_weights_of_any_size(kind, chunks, weight):
    x, target, _ = problem((6, 8), np.float64, kind)
    given = {"sample_weight": weight * np.array([1.0, 0.5, 1, 0, 1, 1])}
    want = cysoftmax.cross_entropy_with_grad(x, target, **given)
    assert_alike(both(chunked(x, chunks), target, **given), want, 1e-12)


# ---------------------------------------------------------------- tasks


def counted(monkeypatch, name):
    """Count the calls of a function of the tasks."""
    from cysoftmax import _calls

    calls, found = [], getattr(_calls, name)

    def count(*arguments, **more):
        calls.append(name)
        return found(*arguments, **more)

    monkeypatch.setattr(_calls, name, count)
    return calls


def test_loss_and_gradient_together_compute_nothing_twice(monkeypatch):
    x, labels = some_logits((40, 30)), some_labels(40, 30)
    whole = counted(monkeypatch, "losses_and_grad")
    both(chunked(x, (10, 30)), labels)
    assert len(whole) == 4
    states, grads = counted(monkeypatch, "totals_of_block"), counted(monkeypatch, "loss_of_block")
    both(chunked(x, (10, 10)), labels)
    assert (len(states), len(grads)) == (12, 12)


def test_nothing_is_computed_before_it_is_asked_for(monkeypatch):
    x = da.zeros((10**7, 10**5), chunks=(10**4, 10**4))
    labels = da.zeros(10**7, dtype=int, chunks=10**4)
    loss, grad = ours.cross_entropy_with_grad(x, labels)
    assert grad.shape == x.shape
    assert loss.shape == ()
    assert grad[:2, :3].shape == (2, 3)


def test_a_task_uses_one_thread_unless_told_otherwise(monkeypatch):
    from cysoftmax import _calls

    found, given = _calls.losses_and_grad, []

    def look(*arguments):
        given.append(arguments[-1])
        return found(*arguments)

    monkeypatch.setattr(_calls, "losses_and_grad", look)
    X = chunked(some_logits((4, 6)), (2, 6))
    ours.cross_entropy(X, [0, 1, 2, 3]).compute()
    ours.cross_entropy(X, [0, 1, 2, 3], n_threads=2).compute()
    assert given == [1, 1, 2, 2]


# ---------------------------------------------------------------- processes


def test_processes_give_the_bits_of_threads(client):
    x, target, options = problem(SHAPE, np.float32)
    for chunks in (10, 50), BOTH:
        lazy = ours.cross_entropy_with_grad(chunked(x, chunks), target, **options)
        want = dask.compute(*lazy)
        for a, b in zip(client.compute(list(lazy), sync=True), want, strict=True):
            assert_same_bits(a, b)


def make(block_info, scale):
    """Logits that are made where they are needed."""
    where = block_info[None]["array-location"]
    rng = np.random.default_rng([begin for begin, _ in where])
    return (scale * rng.standard_normal([end - begin for begin, end in where])).astype(np.float32)


def made(shape, chunks):
    return da.map_blocks(
        make, chunks=da.core.normalize_chunks(chunks, shape), dtype=np.float32, scale=2.0,
        meta=np.empty((0, 0), np.float32),
    )  # fmt: skip


def received(client):
    """The bytes that workers received from others, by the names of the tasks that made them."""
    logs = client.run(lambda dask_worker: [m["keys"] for m in dask_worker.transfer_incoming_log])
    total = {}
    for keys in (keys for log in logs.values() for keys in log):
        for key, size in keys.items():
            name = re.sub("-[0-9a-f]{32}$", "", key[0] if isinstance(key, tuple) else key)
            total[name] = total.get(name, 0) + size
    return total


@pytest.mark.parametrize("with_grad", [False, True])
def test_a_task_needs_a_few_numbers_of_each_row_from_others(client, with_grad):
    shape, chunks = (2000, 8000), (500, 1000)
    x, labels = made(shape, chunks), some_labels(2000, 8000)
    loss, grad = ours.cross_entropy_with_grad(x, da.from_array(labels, chunks=500))
    tasks = len(dask.optimize(loss)[0].dask)
    assert tasks < 4 * 8 * 4  # of blocks of rows and of classes: a few for each
    client.restart()
    got = client.compute([loss, abs(grad).sum()] if with_grad else [loss], sync=True)
    want = cysoftmax.cross_entropy_with_grad(x.compute(), labels)
    np.testing.assert_allclose(got[0], want.loss, 1e-6)
    if with_grad:
        np.testing.assert_allclose(got[1], np.abs(want.grad).sum(), 1e-5)
    moved = received(client)
    chunks_moved = moved.pop("make", 0)  # by dask's choice, if it takes them for cheap to move
    assert with_grad or chunks_moved == 0
    n = 2000 * 8  # rows times chunks of classes
    assert moved.get("state_and_dots", 0) <= 48 * n
    assert moved.get("weigh_labels", 0) <= 48 * n
    assert moved.get("merge_with_loss", 0) <= 40 * n * with_grad
    assert sum(moved.values()) <= (48 + 48 + 8 + 40 * with_grad) * n + 10**5


def die_once(block, flag):
    """Return a block; the first time, end the process instead."""
    try:
        with open(flag, "x"):
            os._exit(1)
    except FileExistsError:
        return block


@pytest.mark.parametrize("chunks", [(500, 400), (500, 100)])
def test_a_worker_that_dies_changes_no_bit(client, chunks, tmp_path):
    x, labels = made((2000, 400), chunks), some_labels(2000, 400)
    want = dask.compute(*ours.cross_entropy_with_grad(x, labels))
    dying = da.map_blocks(die_once, x, flag=str(tmp_path / "dead"), dtype=x.dtype, meta=x._meta)
    got = client.compute(list(ours.cross_entropy_with_grad(dying, labels)), sync=True)
    assert (tmp_path / "dead").exists()
    for a, b in zip(got, want, strict=True):
        assert_same_bits(a, b)


# ---------------------------------------------------------------- the module, the example


ERRORS = [
    (TypeError, "x must be a dask array; got ndarray", lambda: ours.softmax(np.zeros((2, 3)))),
    (ValueError, "logits must have known chunks", lambda: ours.cross_entropy(X[X[:, 0] > 1], [0])),
    (ValueError, r"target must have shape \(4,\)", lambda: ours.cross_entropy(X, [0, 1])),
    (
        ValueError,
        r"where must broadcast to the shape of the logits, \(4, 6\); got shape \(5,\)",
        lambda: ours.softmax(X, where=np.ones(5, bool)),
    ),
    (
        ValueError,
        r"sample_weight must broadcast to the shape of the rows, \(4,\); got shape \(3,\)",
        lambda: ours.cross_entropy(X, [0] * 4, sample_weight=[1, 2, 3]),
    ),
    (
        ValueError,
        r"class_weight must have shape \(6,\)",
        lambda: ours.cross_entropy(X, [0] * 4, class_weight=[1, 2]),
    ),
    (
        ValueError,
        "sample_weight must be finite and >= 0; got -1",
        lambda: ours.cross_entropy(X, [0] * 4, sample_weight=[1, -1, 1, 1]).compute(),
    ),
    (
        ValueError,
        "class_weight must be finite and >= 0; got nan",
        lambda: ours.cross_entropy(X, [0] * 4, class_weight=[1, np.nan, *[1] * 4]).compute(),
    ),
    (
        ValueError,
        "reduction must be .* got 'all'",
        lambda: ours.cross_entropy(X, [0] * 4, reduction="all"),
    ),
    (ValueError, "temperature must lie", lambda: ours.cross_entropy(X, [0] * 4, temperature=0.0)),
    (np.exceptions.AxisError, "axis must lie", lambda: ours.softmax(X, axis=2)),
    (
        TypeError,
        "target must not be sparse",
        lambda: ours.cross_entropy(X, calls.sparse.csr_array((4, 6))),
    ),
    (
        IndexError,
        r"target must lie in \[0, 6\); got 6",
        lambda: ours.cross_entropy(X, [0, 1, 6, 2]).compute(),
    ),
    (
        IndexError,
        r"target must lie in \[0, 6\); got -1",
        lambda: ours.cross_entropy(X.rechunk((2, 6)), [0, 1, -1, 2]).compute(),
    ),
    (
        TypeError,
        "target must hold integers",
        lambda: ours.cross_entropy(X, [0.0, 1, 2, 3]).compute(),
    ),
]


@pytest.mark.parametrize(("kind", "message", "call"), ERRORS, ids=[e[1][:40] for e in ERRORS])
def test_an_error_says_what_is_wrong(kind, message, call):
    with pytest.raises(kind, match=message):
        call()


def test_the_docstrings_run_as_written():
    assert doctest.testmod(ours).failed == 0


def test_the_example_stays_within_the_memory_of_its_workers(tmp_path):
    path = Path(__file__).parents[2] / "examples" / "cluster.py"
    assert len(path.read_text().splitlines()) <= 120
    shape = ["--rows", "2048", "--classes", "8192", "--folder", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(path), *shape], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "64.00 MiB of logits" in done.stdout
    numbers = re.search(r"loss (\S+), perplexity (\S+), gradient norm (\S+)", done.stdout)
    assert abs(float(numbers[1]) - np.log(8192) - 0.5) < 0.05  # of normal numbers
    assert abs(float(numbers[3]) - 2048**-0.5) < 1e-3  # -1 at each label, nearly
    assert done.stdout.count("of the limit") == 2
    assert not list(tmp_path.iterdir())
