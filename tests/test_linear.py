"""linear_cross_entropy beside its two steps: the logits, then their loss, gradient and products.

The fixture `way` takes a test each way through the code: `narrow` W, with chunks in strips, each on
one thread; and `wide` ones, whose products use the threads of BLAS, and whose softmax is done in
pieces.
"""

import tracemalloc

import numpy as np
import pytest
from cases import one_hot, some_labels, some_masses
from scipy import sparse

import cysoftmax
from cysoftmax import _linear
from cysoftmax import linear_cross_entropy as linear

N, F, K = 61, 5, 9
WRT = ("W", "bias", "X")
CHUNKS = [1, 7, N, None]
LABELS = some_labels((N,), K)
TARGETS = {
    "labels": LABELS,
    "uint8 labels": LABELS.astype(np.uint8),
    "one-hot": one_hot(LABELS, K, bool),
    "distribution": some_masses((N, K)),
    "CSR": sparse.csr_array(some_masses((N, K))),
}
rng = np.random.default_rng(3)
ROW_WEIGHTS = rng.uniform(0.2, 3, N) * (rng.random(N) < 0.8)
OPTIONS = {
    "class_weight": rng.uniform(0.2, 3, K).astype(np.float32).astype(float),
    "sample_weight": ROW_WEIGHTS,
    "label_smoothing": 0.1,
    "z_loss": 1e-2,
    "temperature": 0.7,
    "scale": rng.uniform(-2, 2, N),
}


@pytest.fixture(params=["narrow", "narrow, in batches", "wide"])
def way(request, monkeypatch):
    """Send calls one of the two ways, in strips or in pieces of few rows."""
    if request.param == "wide":
        monkeypatch.setattr(_linear, "LEAST_BATCH_ROWS", 2**60)
        monkeypatch.setattr(_linear, "PIECE_ELEMENTS", 4 * K)
    if request.param == "narrow, in batches":
        monkeypatch.setattr(_linear, "ON_ONE_THREAD", 3 * F * K)
        monkeypatch.setattr(_linear, "LEAST_BATCH_ROWS", 1)
        monkeypatch.setattr(_linear, "MOST_BATCHES", 2)
    return request.param


def arrays(dtype=np.float64, n=N, f=F, k=K):
    rng = np.random.default_rng(1)
    shapes = (n, f), (f, k), (k,)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def two_steps(X, W, target, bias=None, **options):
    logits = X @ W + (0 if bias is None else bias)
    loss, G = cysoftmax.cross_entropy_with_grad(np.asarray(logits), target, **options)
    return loss, X.T @ G, None if bias is None else G.sum(axis=0), G @ W.T


def assert_close(got, want, tolerance=1e-12):
    for result, expected in zip(got, want, strict=True):
        if expected is None:
            assert result is None
        else:
            size = np.max(np.abs(expected), initial=1e-300)
            np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance * size)


# ---------------------------------------------------------------- the same as two steps


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("options", [(), *[(name,) for name in OPTIONS], tuple(OPTIONS)])
@pytest.mark.parametrize("kind", TARGETS)
def test_each_option_and_target_gives_what_two_steps_give(way, kind, options, reduction):
    X, W, bias = arrays()
    given = {name: OPTIONS[name] for name in options} | {"reduction": reduction, "bias": bias}
    want = two_steps(X, W, TARGETS[kind], **given)
    for chunk_rows in CHUNKS:
        assert_close(linear(X, W, TARGETS[kind], wrt=WRT, chunk_rows=chunk_rows, **given), want)
        alone = linear(X, W, TARGETS[kind], wrt=(), chunk_rows=chunk_rows, **given)
        assert_close(alone, (want[0], None, None, None))


@pytest.mark.parametrize("chunk_rows", CHUNKS)
@pytest.mark.parametrize("ignored", [-1, int(LABELS[3])])
def test_ignored_rows_weigh_nothing(way, ignored, chunk_rows):
    X, W, bias = arrays()
    labels = np.where(np.arange(N) % 5, LABELS, ignored)
    given = OPTIONS | {"bias": bias, "ignore_index": ignored}
    want = two_steps(X, W, labels, **given)
    assert_close(linear(X, W, labels, wrt=WRT, chunk_rows=chunk_rows, **given), want)


@pytest.mark.parametrize("chunk_rows", CHUNKS)
def test_float32_gives_what_two_steps_give_to_its_digits(way, chunk_rows):
    X, W, bias = arrays(np.float32)
    got = linear(X, W, LABELS, bias=bias, wrt=WRT, chunk_rows=chunk_rows)
    assert [g.dtype for g in got[1:]] == [np.float32] * 3
    exact = two_steps(X.astype(float), W.astype(float), LABELS, bias=bias.astype(float))
    assert_close(got, exact, 1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_one_chunk_gives_the_bits_of_two_steps(dtype, order):
    X, W, bias = arrays(dtype)
    W = np.asarray(W, order=order)
    loss, G = cysoftmax.cross_entropy_with_grad(X @ W + bias, LABELS, sample_weight=ROW_WEIGHTS)
    got = linear(X, W, LABELS, bias=bias, sample_weight=ROW_WEIGHTS, wrt=WRT, chunk_rows=N)
    assert got.loss == loss
    assert (got.grad_W == np.matmul(X.T, G, out=np.empty_like(W))).all()
    assert (got.grad_X == G @ W.T).all()
    assert (got.grad_bias == G.sum(axis=0)).all()


def test_the_gradient_of_a_row_of_logits_has_its_bits_in_any_chunk(way):
    """With the identity for W, the gradient with respect to X is that of the logits."""
    logits = 3 * np.random.default_rng(0).standard_normal((N, K))
    given = {"class_weight": OPTIONS["class_weight"], "sample_weight": ROW_WEIGHTS}
    want = cysoftmax.cross_entropy_grad(logits, LABELS, **given)
    for chunk_rows in CHUNKS:
        got = linear(logits, np.eye(K), LABELS, wrt=("X",), chunk_rows=chunk_rows, **given)
        assert (got.grad_X == want).all()


@pytest.mark.parametrize(("n", "f", "k"), [(3000, 20, 30), (200, 3, 5000), (70_000, 2, 3)])
def test_threads_change_no_bit(n, f, k):
    X, W, bias = arrays(np.float32, n, f, k)
    labels = some_labels((n,), k)
    given = {"bias": bias, "wrt": WRT, "chunk_rows": 300 if k == 30 else None}
    want = linear(X, W, labels, n_threads=1, **given)
    for n_threads in 2, 3, 7, None:
        got = linear(X, W, labels, n_threads=n_threads, **given)
        assert got.loss == want.loss
        for result, expected in zip(got[1:], want[1:], strict=True):
            assert (result == expected).all()
    exact = two_steps(X.astype(float), W.astype(float), labels, bias.astype(float))
    assert_close(want, exact, 1e-4)


@pytest.mark.parametrize("size", [1e-310, 1e-160, 1e160, 1e307])
def test_weights_of_any_size_give_the_mean_of_moderate_ones(way, size):
    X, W, bias = arrays()
    weights = np.array([1.0, 3, 2, 4])[np.arange(N) % 4]
    want = linear(X, W, LABELS, bias=bias, sample_weight=weights, chunk_rows=N)
    got = linear(X, W, LABELS, bias=bias, sample_weight=size * weights, chunk_rows=7)
    assert_close(got, want, 1e-11 if size > 1e-300 else 1e-10)


def test_losses_too_large_for_a_sum_are_infinite_and_their_mean_is_not(way):
    X, W, _ = arrays()
    given = {"sample_weight": np.full(N, 1e308), "wrt": (), "chunk_rows": 1}
    assert linear(X, W, LABELS, reduction="sum", **given).loss == np.inf
    assert_close(linear(X, W, LABELS, **given), linear(X, W, LABELS, wrt=()))


@pytest.mark.parametrize("chunk_rows", [None, 300_000])
def test_a_float32_gradient_of_the_bias_over_many_rows_keeps_its_digits(chunk_rows):
    X, W, bias = arrays(np.float32, 300_000, 2, 3)
    labels = np.zeros(len(X), int)
    got = linear(X, W, labels, bias=bias, wrt=("bias",), chunk_rows=chunk_rows)
    exact = two_steps(X.astype(float), W.astype(float), labels, bias.astype(float))[2]
    np.testing.assert_allclose(got.grad_bias, exact, rtol=1e-6)


# ---------------------------------------------------------------- layouts


def every_other(a):
    return np.repeat(np.repeat(a, 2, axis=0), 3, axis=1)[::2, ::3]


LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "every other": every_other,
    "rows apart": lambda a: np.repeat(a, 2, axis=0)[::2],
    "negative": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "misaligned": lambda a: misaligned(a),
    "read-only": lambda a: np.broadcast_to(a, a.shape),
}


def misaligned(a):
    room = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    room[...] = a
    return room


@pytest.mark.parametrize("of_W", LAYOUTS)
@pytest.mark.parametrize("of_X", LAYOUTS)
def test_any_layout_of_the_inputs_gives_the_same(way, of_X, of_W):
    X, W, bias = arrays()
    want = two_steps(X, W, LABELS, bias)
    X, W = LAYOUTS[of_X](X), LAYOUTS[of_W](W)
    bias = every_other(bias[None])[0]
    for chunk_rows in 7, N:
        assert_close(linear(X, W, LABELS, bias=bias, wrt=WRT, chunk_rows=chunk_rows), want)


@pytest.mark.parametrize("chunk_rows", [7, N])
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "read-only"])
def test_results_may_go_into_arrays_of_any_layout(way, layout, chunk_rows):
    X, W, bias = arrays()
    want = two_steps(X, W, LABELS, bias)
    out = {"X": LAYOUTS[layout](77 + X), "W": LAYOUTS[layout](77 + W), "bias": bias + 77}
    got = linear(X, W, LABELS, bias=bias, wrt=WRT, out=out, chunk_rows=chunk_rows)
    assert got.grad_W is out["W"]
    assert got.grad_X is out["X"]
    assert got.grad_bias is out["bias"]
    assert_close(got, want)


def test_new_results_have_the_layout_of_the_inputs():
    X, W, bias = arrays()
    for order in "C", "F":
        X, W = np.asarray(X, order=order), np.asarray(W, order=order)
        got = linear(X, W, LABELS, bias=bias, wrt=WRT, chunk_rows=7)
        assert got.grad_X.strides == X.strides
        assert got.grad_W.strides == W.strides


def test_memory_mapped_features_are_read(tmp_path, way):
    X, W, _ = arrays()
    X.tofile(tmp_path / "X")
    mapped = np.memmap(tmp_path / "X", X.dtype, "r", shape=X.shape)
    got = linear(mapped, W, LABELS, wrt=WRT, chunk_rows=7)
    assert type(got.grad_X) is np.ndarray
    assert_close(got, two_steps(X, W, LABELS))


@pytest.mark.parametrize("matrix", [sparse.csr_array, sparse.csr_matrix])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("chunk_rows", CHUNKS)
@pytest.mark.parametrize("kind", TARGETS)
def test_sparse_features_give_what_dense_ones_give(way, kind, chunk_rows, order, matrix):
    X, W, bias = arrays()
    X[rng.random(X.shape) < 0.6] = 0
    W = np.asarray(W, order=order)
    want = two_steps(X, W, TARGETS[kind], bias, **OPTIONS)
    got = linear(matrix(X), W, TARGETS[kind], bias=bias, wrt=WRT, chunk_rows=chunk_rows, **OPTIONS)
    assert_close(got, want)
    assert all(type(gradient) is np.ndarray for gradient in got[1:])


# ---------------------------------------------------------------- overlapping arrays


@pytest.mark.parametrize("chunk_rows", [1, 7, N])
def test_a_gradient_may_take_the_place_of_its_input(way, chunk_rows):
    X, W, bias = arrays()
    want = two_steps(X, W, LABELS, bias)
    out = {"X": X, "W": W, "bias": bias}
    got = linear(X, W, LABELS, bias=bias, wrt=WRT, out=out, chunk_rows=chunk_rows)
    assert got.grad_X is X
    assert_close(got, want)


@pytest.mark.parametrize("name", ["X", "W", "bias"])
@pytest.mark.parametrize("chunk_rows", [1, 7, N])
def test_an_out_that_overlaps_inputs_changes_no_result(way, chunk_rows, name):
    """Everything lies in one array, so that the output overlaps all of it but by one row."""
    X, W, bias = arrays(n=N, f=K)
    masses = TARGETS["distribution"]
    want = two_steps(X, W, masses, bias, sample_weight=ROW_WEIGHTS)
    shape = {"X": X, "W": W, "bias": bias}[name].shape
    for victim in ("X", "W", "bias", "target", "sample_weight"):
        given = {"X": X, "W": W, "bias": bias, "target": masses, "sample_weight": ROW_WEIGHTS}
        size = max(given[victim].size, int(np.prod(shape))) + K
        room = np.zeros(size)
        inside = room[K : K + given[victim].size].reshape(given[victim].shape)
        inside[...] = given[victim]
        given[victim] = inside
        out = {name: room[: int(np.prod(shape))].reshape(shape)}
        got = linear(
            given["X"], given["W"], given["target"], bias=given["bias"], wrt=WRT, out=out,
            sample_weight=given["sample_weight"], chunk_rows=chunk_rows,
        )  # fmt: skip
        assert_close(got, want)


def test_sparse_features_whose_entries_are_the_output_are_copied():
    X = sparse.csr_array(arrays()[0])
    W = arrays()[1]
    want = two_steps(X.toarray(), W, LABELS)
    out = {"X": X.data.reshape(N, F)}
    assert_close(linear(X, W, LABELS, wrt=WRT, out=out, chunk_rows=7), want)


# ---------------------------------------------------------------- what wrt names; nothing


def test_only_what_wrt_names_is_returned():
    X, W, bias = arrays()
    for wrt in [(), ("W",), ("bias",), ("X",), ("bias", "W"), ["X", "W"], {"W"}, WRT]:
        got = linear(X, W, LABELS, bias=bias, wrt=wrt)
        for name in WRT:
            assert (getattr(got, f"grad_{name}") is None) == (name not in wrt)
    default = linear(X, W, LABELS, bias=bias)
    assert default.grad_X is None
    assert default.grad_W.shape == W.shape
    assert default.grad_bias.shape == bias.shape
    assert linear(X, W, LABELS).grad_bias is None  # there is no bias


def test_without_rows_the_mean_is_nan_and_gradients_are_zero():
    X, W, bias = arrays(n=0)
    for empty in X, sparse.csr_array((0, F)):
        got = linear(empty, W, LABELS[:0], bias=bias, wrt=WRT)
        assert np.isnan(got.loss)
        assert not got.grad_W.any()
        assert not got.grad_bias.any()
        assert got.grad_X.shape == (0, F)
        assert linear(empty, W, LABELS[:0], reduction="sum").loss == 0


@pytest.mark.parametrize("chunk_rows", CHUNKS)
def test_if_all_rows_are_ignored_the_mean_is_nan_and_gradients_are_zero(way, chunk_rows):
    X, W, bias = arrays()
    X[0] = np.nan
    out = {"W": np.full_like(W, 77)}
    given = {"bias": bias, "wrt": WRT, "out": out, "chunk_rows": chunk_rows}
    for weights in {"ignore_index": 3}, {"sample_weight": np.zeros(N)}:
        got = linear(X, W, np.full(N, 3), **given, **weights)
        assert np.isnan(got.loss)
        assert not any(gradient.any() for gradient in got[1:])


def test_without_features_the_logits_are_the_bias(way):
    X, W, bias = arrays(f=0)
    assert_close(linear(X, W, LABELS, bias=bias, wrt=WRT), two_steps(X, W, LABELS, bias))


def test_a_list_of_numbers_is_an_array():
    X, W, bias = arrays()
    want = two_steps(X, W, LABELS, bias)
    got = linear(X.tolist(), W.tolist(), LABELS.tolist(), bias=bias.tolist(), wrt=WRT)
    assert_close(got, want)


@pytest.mark.filterwarnings("error")
def test_infinite_and_nan_features_warn_of_nothing(way):
    X, W, _ = arrays()
    X[0, 0], X[1, 1] = np.nan, np.inf
    got = linear(X, W, LABELS, wrt=WRT, chunk_rows=7)
    assert np.isnan(got.loss)
    assert np.isfinite(got.grad_X[2:]).all()
    with np.errstate(all="raise"):
        linear(np.full((N, F), 1e300), 1e300 * W, LABELS, chunk_rows=7)


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("wrt", [(), ("W", "bias"), WRT])
@pytest.mark.parametrize(("n", "f", "k"), [(4000, 30, 300), (60_000, 20, 10), (700, 300, 3000)])
@pytest.mark.parametrize("sparse_X", [False, True])
def test_besides_results_there_are_a_chunk_of_logits_and_one_array_of_weights(
    n, f, k, sparse_X, wrt
):
    X, W, bias = arrays(np.float32, n, f, k)
    X = sparse.random_array((n, f), density=0.05, format="csr", dtype=X.dtype) if sparse_X else X
    labels = some_labels((n,), k)
    chunk_rows = 100 if n > 700 else 350
    linear(X, W, labels, bias=bias, chunk_rows=chunk_rows)  # imports what it needs
    tracemalloc.start()
    try:
        got = linear(X, W, labels, bias=bias, wrt=wrt, chunk_rows=chunk_rows, n_threads=2)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    results = sum(gradient.nbytes for gradient in got[1:] if gradient is not None)
    narrow = not sparse_X and _linear.rows_of_batch(f, k)
    chunk = (2 if narrow else 1) * 4 * chunk_rows * k
    of_W = W.nbytes * ("W" in wrt) * (2 * _linear.MOST_STRIPS if narrow else 1)
    rest = 200_000  # objects of Python, a chunk of a sparse X
    assert most - results <= chunk + of_W + rest
    if not narrow:
        assert chunk + of_W + rest < 4 * n * k or n == 700


# ---------------------------------------------------------------- errors


def untouched():
    X, W, bias = arrays()
    return {"X": np.full_like(X, 77), "W": np.full_like(W, 77), "bias": np.full_like(bias, 77)}


BAD = {
    "label": ({"target": np.where(np.arange(N) == N - 1, K, LABELS)}, IndexError, r"\(60,\)"),
    "-1": ({"target": np.where(np.arange(N) == N - 1, -1, LABELS)}, IndexError, "ignore_index"),
    "float labels": ({"target": LABELS.astype(float)}, TypeError, "astype"),
    "target": ({"target": LABELS[1:]}, ValueError, "target must have shape"),
    "sparse target": ({"target": TARGETS["CSR"].tocsc()}, TypeError, "tocsr"),
    "X of integers": ({"X": np.ones((N, F), int)}, TypeError, "X must be float32 or float64"),
    "X of float16": ({"X": np.ones((N, F), np.float16)}, TypeError, "X must be float32"),
    "X of float32": ({"X": np.ones((N, F), np.float32)}, TypeError, "W must have the dtype of X"),
    "X of 1 dimension": ({"X": np.ones(F)}, ValueError, "X must have 2 dimensions"),
    "X of other features": ({"X": np.ones((N, F + 1))}, ValueError, r"W must have shape \("),
    "X as CSC": ({"X": sparse.csc_array(np.ones((N, F)))}, TypeError, r"X .*tocsr"),
    "sparse X of integers": ({"X": sparse.csr_array(np.ones((N, F), int))}, TypeError, "X's data"),
    "masked X": ({"X": np.ma.ones((N, F))}, TypeError, "X must have no mask"),
    "W of 1 dimension": ({"W": np.ones(F)}, ValueError, "W must have 2 dimensions"),
    "W without classes": ({"W": np.ones((F, 0))}, ValueError, "W must have at least one class"),
    "bias dtype": ({"bias": np.ones(K, np.float32)}, TypeError, "bias must have the dtype of W"),
    "bias shape": ({"bias": np.ones(K + 1)}, ValueError, "bias must have shape"),
    "class_weight": ({"class_weight": np.ones(K + 1)}, ValueError, "class_weight"),
    "sample_weight": ({"sample_weight": -np.ones(N)}, ValueError, "sample_weight"),
    "scale": ({"scale": np.ones(N + 1)}, ValueError, "scale"),
    "reduction": ({"reduction": "none"}, ValueError, "'mean' or 'sum'; got 'none'"),
    "wrt": ({"wrt": ("W", "V")}, ValueError, "got 'V'"),
    "wrt as a str": ({"wrt": "W"}, TypeError, "wrt must be a tuple"),
    "chunk_rows": ({"chunk_rows": 0}, ValueError, "chunk_rows must be at least 1; got 0"),
    "chunk_rows as a bool": ({"chunk_rows": True}, TypeError, "chunk_rows .*bool"),
    "n_threads": ({"n_threads": 0}, ValueError, "n_threads must be at least 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_an_error_names_its_argument_and_leaves_the_outputs_untouched(way, name):
    given, kind, message = BAD[name]
    X, W, bias = arrays()
    out = untouched()
    given = {"X": X, "W": W, "target": LABELS, "bias": bias, "wrt": WRT, "chunk_rows": 7} | given
    if name != "wrt":
        given["out"] = {key: out[key] for key in out if key in given["wrt"]}
    with pytest.raises(kind, match=message):
        linear(given.pop("X"), given.pop("W"), given.pop("target"), **given)
    assert all((array == 77).all() for array in out.values())


BAD_OUT = {
    "no dict": (np.zeros((F, K)), TypeError, "out must be a dict"),
    "a name that is not wanted": ({"X": np.zeros((N, F))}, ValueError, "got 'X'"),
    "a list": ({"W": [0.0]}, TypeError, r"out\['W'\] must be an ndarray; got list"),
    "masked": ({"W": np.ma.zeros((F, K))}, TypeError, "MaskedArray"),
    "dtype": ({"W": np.zeros((F, K), np.float32)}, TypeError, "dtype float64; got float32"),
    "shape": ({"W": np.zeros((K, F))}, ValueError, r"shape \(5, 9\); got \(9, 5\)"),
    "read-only": ({"W": np.broadcast_to(0.0, (F, K))}, ValueError, "writeable"),
}


@pytest.mark.parametrize("name", BAD_OUT)
def test_a_wrong_out_is_an_error(name):
    out, kind, message = BAD_OUT[name]
    X, W, bias = arrays()
    with pytest.raises(kind, match=message):
        linear(X, W, LABELS, bias=bias, out=out)


def test_outs_that_overlap_are_an_error():
    X, W, bias = arrays()
    room = np.full(F * K + K, 77.0)
    out = {"W": room[: F * K].reshape(F, K), "bias": room[F * K - 1 : -1]}
    with pytest.raises(ValueError, match="do not overlap"):
        linear(X, W, LABELS, bias=bias, out=out)
    assert (room == 77).all()


def test_an_error_on_another_thread_is_raised(monkeypatch):
    X, W, _ = arrays(n=40_000)
    right, calls = _linear._calls.loss_of_chunk, []

    def wrong(p, begin, *args):
        calls.append(begin)
        if begin > 20_000:
            raise IndexError("target must lie in [0, 9); it was changed during the call")
        return right(p, begin, *args)

    monkeypatch.setattr(_linear._calls, "loss_of_chunk", wrong)
    with pytest.raises(IndexError, match="changed during the call"):
        linear(X, W, some_labels((40_000,), K), n_threads=2)
    assert calls
