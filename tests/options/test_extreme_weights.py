"""Weights, masses, scales and z-losses of any size: quotients that neither over- nor underflow,
and infinite entries of a gradient only where the dtype has no such number."""

from functools import lru_cache
from itertools import product

import bounds
import exact
import numpy as np
import pytest
from cases import REDUCTIONS, assert_same_bits, assert_same_results, dtype_of, one_hot, results
from scipy import sparse

import cysoftmax
from cysoftmax import _core

# Three rows: four classes, and what all other classes have. All numbers are exact in each dtype.
LOGITS = np.array([[1.0, 2, -1, 0.5, -2], [3, -8, 0, 1, -2], [-30, 0.25, -1, -90, -95]])
MASSES = np.array([[0, 0.625, 0.375, 0, 0], [1, 0, 0, 0, 0], [0.25, 0.25, 0, 0.25, 0]])
LABELS = np.array([1, 0, 3])
MASK = np.array([[1, 1, 1, 0, 1], [1, 1, 0, 1, 1], [1, 1, 0, 1, 1]], bool)

# Shapes and keywords, which decide how the classes are walked.
WAYS = {
    "rows": ((3, 5), {}),
    "tiles": ((36, 5), {}),
    "strided tiles": ((36, 5), {"axis": 0}),
    "longer rows": ((6, 150), {}),
    "deferred rows": ((3, 1500), {}),
}
LONG_WAYS = {
    "shared spans": ((3, 5000), {"n_threads": 2}),
    "spans": ((3, 300_000), {}),
    "strided spans": ((3, 300_000), {"axis": 0}),
}
# Numbers of float32 and float64, by the size of an item.
POWERS = {
    4: {"tiny": 2.0**-140, "small": 2.0**-80, "large": 2.0**80, "huge": 2.0**124},
    8: {"tiny": 2.0**-1060, "small": 2.0**-640, "large": 2.0**640, "huge": 2.0**1010},
}
# `mass` multiplies the target. Lists are repeated as far as there are rows or classes.
EXTREMES = {
    "nothing": {},
    "sample weights": {"sample_weight": [1e-310, 3e-310, 2e-310]},
    "the smallest sample weight": {"sample_weight": [5e-324]},
    "huge sample weights": {"sample_weight": [1.5e308, 5e307, 1.5e308]},
    "unlike sample weights": {"sample_weight": [1e-300, 1e300, 0]},
    "class weights": {"class_weight": ["tiny"]},
    "small class weights": {"class_weight": ["small", 0, "tiny"]},
    "huge class weights": {"class_weight": ["huge", 0.5, 1]},
    "one tiny class weight": {"class_weight": [1, "tiny", 1, 1, 1]},
    "masses": {"mass": "tiny"},
    "small masses": {"mass": "small"},
    "huge masses": {"mass": "huge"},
    "products": {"sample_weight": [1e-200], "class_weight": ["small"], "mass": "small"},
    "large products": {"sample_weight": [1e200], "class_weight": ["large"], "mass": "large"},
    "mixed products": {"sample_weight": [1e-250], "class_weight": ["large"], "mass": "large"},
    "scale": {"scale": [1e39]},
    "scales": {"scale": [1e39, -1e-39, 1e300]},
    "no scale": {"scale": [0, 1e300, 0], "sample_weight": [1e300]},
    "huge scale": {"scale": [1e300], "sample_weight": [1e250]},
    "tiny scale": {"scale": [1e-300], "sample_weight": [1e250], "class_weight": ["large"]},
    "huge z_loss": {"z_loss": 1e300, "sample_weight": [1e-310, 1, 0.5]},
    "huge z_loss and scales": {"z_loss": 1.5e308, "scale": [1e300, 1e-300, -1e-308]},
    "tiny z_loss": {"z_loss": 1e-310, "sample_weight": [1e-310]},
    "temperature": {"temperature": 2.0**-60, "scale": [1e35]},
    "huge temperature": {"temperature": 2.0**60, "scale": [1e-30], "sample_weight": [1e-290]},
    "temperature and z_loss": {"temperature": 2.0**-60, "z_loss": 1e300, "scale": [1e-300]},
}
# Together with each of those.
OTHERS = {
    "": {},
    "smoothed": {"label_smoothing": 0.25},
    "all smoothed": {"label_smoothing": 1.0},
    "hardly smoothed": {"label_smoothing": 1e-300},
    "masked": {"where": MASK},
    "all": {"label_smoothing": 0.125, "z_loss": 0.5, "temperature": 0.75, "where": MASK},
}
KINDS = ["labels", "one-hot", "distribution", "float64 distribution", "CSR"]
DTYPES = ["float32", "float64", "float16", "bfloat16"]


def computed_in(dtype):
    return np.dtype(np.float64 if dtype.itemsize == 8 else np.float32)


def small_problem(dtype, kind, extreme, other):
    """Logits, masses and options of three rows with five classes, of which the last stands for
    all others."""
    real = computed_in(dtype)
    powers = POWERS[real.itemsize]
    given = OTHERS[other] | EXTREMES[extreme]
    mass, masses = given.pop("mass", None), MASSES
    if kind in ("labels", "one-hot"):
        masses = one_hot(LABELS, 5)
    elif mass is not None:
        wide = kind == "float64 distribution" and mass in ("tiny", "huge")
        masses = masses * POWERS[8 if wide else real.itemsize][mass]
    for name, size in ("class_weight", 5), ("sample_weight", 3), ("scale", 3):
        if name in given:
            numbers = [powers.get(number, number) for number in given[name]]
            given[name] = np.resize(np.array(numbers, np.float64), size)
    logits = LOGITS.astype(dtype)
    assert (logits == LOGITS).all()
    return logits, masses, given


def exact_rows(dtype, kind, extreme, other, n_others):
    """What the three rows give, in mpmath, and their scales."""
    _, masses, _ = small_problem(dtype, kind, extreme, other)
    return exact_rows_of(computed_in(dtype), masses.tobytes(), extreme, other, n_others)


# Some kinds of targets have the same masses, and some dtypes the same options.
@lru_cache(maxsize=10_000)
def exact_rows_of(real, masses, extreme, other, n_others):
    """The same for masses that are given as bytes, computed in a dtype."""
    masses = np.frombuffer(masses).reshape(MASSES.shape)
    _, _, given = small_problem(real, "labels", extreme, other)
    scales = given.pop("scale", np.ones(3))
    rows = []
    for r in range(3):
        of_row = {
            name: value[r] if name in ("sample_weight", "where") else value
            for name, value in given.items()
        }
        tiny = exact.limits(real).tiny
        rows.append(exact.row(LOGITS[r], masses[r], [1] * 4 + [n_others], **of_row, tiny=tiny))
    return rows, scales


def call_of(dtype, kind, extreme, other, shape, axis=-1):
    """The arguments of a call with the three rows repeated, and the last class, too."""
    n_rows, n_classes = shape
    x, masses, given = small_problem(dtype, kind, extreme, other)

    def of_classes(five):
        return np.concatenate([five, np.repeat(five[..., 4:], n_classes - 5, axis=-1)], axis=-1)

    def of_rows(three):
        return np.resize(three, (n_rows, *three.shape[1:]))

    x, target = of_rows(of_classes(x)), of_rows(of_classes(masses))
    for name, value in given.items():
        if name == "class_weight":
            given[name] = of_classes(value)
        elif name == "where":
            given[name] = of_rows(of_classes(value))
        elif name in ("sample_weight", "scale"):
            given[name] = of_rows(value)
    if kind == "CSR":
        return x, sparse.csr_array(target), given
    if kind != "float64 distribution":
        target = target.astype(bool if kind == "one-hot" else computed_in(dtype))
    if axis == 0:
        x, target = np.ascontiguousarray(x.T), np.ascontiguousarray(target.T)
        given |= {"where": given["where"].T} if "where" in given else {}
    return x, of_rows(LABELS) if kind == "labels" else target, given


def check(dtype, kind, extreme, other, way, reduction):
    """Compare losses and gradients with the exact ones."""
    shape, keywords = (WAYS | LONG_WAYS)[way]
    isa = _core.active_isa()
    x, target, given = call_of(dtype, kind, extreme, other, shape, keywords.get("axis", -1))
    got = results(x, target, **given, **keywords, reduction=reduction)
    rows, scales = exact_rows(dtype, kind, extreme, other, shape[1] - 4)
    message = f"{way}, {extreme}, {other}, {reduction}"
    loss, grad, size = exact.reduced(rows, reduction, scales)
    eps = exact.limits(computed_in(dtype)).eps
    for r in range(3 if reduction == "none" else 0):
        exact.assert_close(got["loss"][r], loss[r], loss[r], got["loss"].dtype,
                           bounds.LOSS_WITH_OPTIONS.on(isa), message)  # fmt: skip
    if reduction != "none":
        loss *= 1 if reduction == "mean" else shape[0] // 3
        ulps = bounds.LOSS_WITH_OPTIONS.on(isa) * float(eps / exact.limits(np.dtype(float)).eps)
        exact.assert_close(got["loss"], loss, loss, np.dtype(float), ulps, message)
    divisor = shape[0] // 3 if reduction == "mean" else 1
    grads = np.moveaxis(got["grad"], keywords.get("axis", -1), -1)
    for r, c in np.ndindex(3, 5):
        want, most = grad[r][c] / divisor, size[r][c] / divisor
        exact.assert_close(grads[r, c], want, most, dtype,
                           bounds.GRAD_WITH_OPTIONS.on(isa), f"{message}, {r}, {c}")  # fmt: skip
        if want == 0:
            assert grads[r, c] == 0, message
    assert_same_bits(grads[:, 5:], np.broadcast_to(grads[:, 4:5], grads[:, 5:].shape), message)
    assert_same_bits(grads, np.resize(grads[:3], grads.shape), message)
    assert_same_bits(got["loss alone"], got["loss"], message)
    assert_same_bits(got["grad alone"], got["grad"], message)


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_weights_give_the_exact_loss_and_gradient(dtype, kind, other):
    for number, extreme in enumerate(EXTREMES):
        for more, way in enumerate(WAYS):
            if kind != "CSR" or "strided" not in way:
                reduction = REDUCTIONS[(number + more) % 3]
                check(dtype_of(dtype), kind, extreme, other, way, reduction)


@pytest.mark.parametrize("way", LONG_WAYS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_weights_of_long_rows_give_the_exact_loss_and_gradient(dtype, kind, way):
    if kind == "CSR" and "strided" in way:
        pytest.skip("a sparse target has its classes last")
    for number, extreme in enumerate(EXTREMES):
        if way == "shared spans" or number % 5 == KINDS.index(kind):
            other, reduction = list(OTHERS)[number % len(OTHERS)], REDUCTIONS[number % 2]
            check(dtype_of(dtype), kind, extreme, other, way, reduction)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_instruction_set_keeps_extreme_weights(dtype, kind, isa):
    for number, extreme in enumerate(EXTREMES):
        for other in "", "all":
            way, reduction = list(WAYS)[number % 2], REDUCTIONS[number % 3]
            check(dtype_of(dtype), kind, extreme, other, way, reduction)


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_targets_with_extreme_weights_have_the_same_bits(dtype, other, isa):
    for extreme in EXTREMES:
        for n_classes, reduction in (5, "mean"), (150, "none"):
            x, labels, given = call_of(
                dtype_of(dtype), "labels", extreme, other, (36, n_classes)
            )  # fmt: skip
            matrix = one_hot(labels, n_classes)
            want = results(x, labels, reduction=reduction, **given)
            for target in matrix.astype(bool), matrix.astype(np.float32), sparse.csr_array(matrix):
                got = results(x, target, reduction=reduction, **given)
                assert_same_results(got, want, f"{extreme} {n_classes}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_extreme_result_depends_on_the_way(dtype, kind):
    """Rows alone, in tiles, strided, and long rows on one thread, on two, and cut into spans."""
    for number, extreme in enumerate(EXTREMES):
        other = list(OTHERS)[number % len(OTHERS)]
        for n_rows, n_classes in (36, 5), (36, 150), (3, 5000), (3, 150_000):
            # Some kind and dtype gets long rows with each of the extremes.
            turn = number - KINDS.index(kind) - 5 * DTYPES.index(dtype)
            if n_classes > 10_000 and turn % 10:
                continue
            x, target, given = call_of(dtype_of(dtype), kind, extreme, other, (n_rows, n_classes))
            want = results(x, target, **given, reduction="none", n_threads=1)
            message = f"{extreme} {other} {n_classes}"
            got = results(x, target, **given, reduction="none", n_threads=2)
            assert_same_results(got, want, message)
            three = {name: value[:3] if name in ("sample_weight", "scale", "where") else value
                     for name, value in given.items()}  # fmt: skip
            got = results(x[:3], target[:3], **three, reduction="none")
            assert_same_results(got, {name: value[:3] for name, value in want.items()}, message)
            means = results(x, target, **given), results(x, target, **given, n_threads=1)
            assert_same_results(*means, message)
            if kind == "CSR":
                continue
            for layout in np.asfortranarray, np.copy:
                out = layout(x)
                got = cysoftmax.cross_entropy_grad(
                    out, layout(target), out=out, reduction="none", **given
                )
                assert_same_bits(got, want["grad"], message)


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_weights_give_the_exact_hessian(dtype, kind, axis, isa):
    dtype = dtype_of(dtype)
    if kind == "CSR" and axis == 0:
        pytest.skip("a sparse target has its classes last")
    own = [name for name, given in EXTREMES.items()
           if given.keys() <= {"sample_weight", "class_weight", "mass"}]  # fmt: skip
    for extreme, other in product(own, ("", "smoothed", "masked")):
        for n_rows, n_classes in (3, 5), (36, 5), (3, 150):
            x, target, given = call_of(dtype, kind, extreme, other, (n_rows, n_classes), axis)
            grad, hess = cysoftmax.cross_entropy_grad_hess(x, target, axis=axis, **given)
            message = f"{extreme} {other} {n_classes}"
            assert_same_bits(
                grad, cysoftmax.cross_entropy_grad(x, target, axis=axis, reduction="sum", **given)
            )
            rows, _ = exact_rows(dtype, kind, extreme, other, n_classes - 4)
            hess = np.moveaxis(hess, axis, -1)
            assert_same_bits(hess, np.resize(hess[:3], hess.shape), message)
            for r, c in np.ndindex(3, 5):
                want = rows[r].hess[c]
                size = max(want, exact.limits(computed_in(dtype)).tiny * rows[r].mass)
                exact.assert_close(
                    hess[r, c], want, size, dtype, bounds.HESS.on(isa), f"{message} {r} {c}"
                )


@pytest.mark.parametrize("kind", KINDS[2:])
@pytest.mark.parametrize("dtype", DTYPES)
def test_statistics_keep_extreme_masses(dtype, kind, isa):
    dtype = dtype_of(dtype)
    for mass in "masses", "small masses", "huge masses":
        for n_rows, n_classes in (3, 5), (36, 5), (3, 150), (3, 20_000):
            x, target, _ = call_of(dtype, kind, mass, "", (n_rows, n_classes))
            stats = cysoftmax.row_stats(x, target)
            p = cysoftmax.softmax(x.astype(np.float64))[:, :4]
            rows, _ = exact_rows(dtype, kind, mass, "", n_classes - 4)
            _, masses, _ = small_problem(dtype, kind, mass, "")
            for r in range(3):
                exact.assert_close(stats.loss[r], rows[r].loss, rows[r].loss, stats.loss.dtype,
                                   bounds.LOSS_WITH_OPTIONS.on(isa), mass)  # fmt: skip
                prob = sum(exact.number(masses[r, c]) * exact.number(p[r, c]) for c in range(4))
                exact.assert_close(stats.target_prob[r], prob, prob, stats.target_prob.dtype,
                                   bounds.TARGET_PROB.on(isa), mass)  # fmt: skip


# ---------------------------------------------------------------- single cases


def test_a_total_weight_of_a_denormal_is_a_weight(isa):
    want = [[-0.7310585786300049, 0.7310585786300049]]
    for target, weight in ([0], 1e-310), ([[1e-310, 0]], 1), ([[1e-200, 0]], 1e-110):
        loss, grad = cysoftmax.cross_entropy_with_grad([[1.0, 2]], target, sample_weight=weight)
        np.testing.assert_allclose(grad, want, rtol=1e-15)
        assert loss == pytest.approx(1.3132616875182228, rel=1e-15)
    grad = cysoftmax.cross_entropy_grad(np.float32([[1, 2]]), np.float32([[4e-41, 6e-41]]))
    share = float(np.float32(4e-41)) / (float(np.float32(4e-41)) + float(np.float32(6e-41)))
    np.testing.assert_allclose(grad, [[0.2689414 - share, share - 0.2689414]], rtol=1e-6)


def test_a_gradient_too_large_is_infinite_entry_by_entry(isa):
    def grad(x, target, **options):
        return cysoftmax.cross_entropy_grad(x, target, **options).tolist()

    assert grad(np.float32([[0, 0]]), [[0.5, 0.5]], scale=1e39) == [[0, 0]]
    smoothed = grad(np.float32([[0, 1]]), [0], label_smoothing=0.1, scale=1e39)
    assert smoothed == [[-np.inf, np.inf]]
    assert grad(np.array([[1.5e308, 0]]), [0], z_loss=1.0) == [[np.inf, 0]]
    tiny = grad(np.float32([[0, -200, -50]]), [0], scale=1e39)[0]
    assert tiny == [pytest.approx(-1.9287498e17), 0, pytest.approx(1.9287498e17)]
    some = cysoftmax.cross_entropy_grad(np.float32([[1, 2, -1]]), [[0.2, 0.5, 0.3]], scale=1e39)
    want = np.exp([1, 2, -1]) / np.exp([1, 2, -1]).sum() - [0.2, 0.5, 0.3]
    np.testing.assert_allclose(some, 1e39 * want[None], rtol=1e-6)


def test_a_sum_of_losses_beyond_the_largest_number_has_a_mean(isa):
    for n_rows in 4, 100:
        x = np.tile([[1e308, 0.0]], (n_rows, 1))
        assert cysoftmax.cross_entropy(x, np.ones(n_rows, int)) == pytest.approx(1e308)
        assert cysoftmax.cross_entropy(x, np.ones(n_rows, int), reduction="sum") == np.inf
        loss = cysoftmax.cross_entropy_with_grad(x, np.eye(2)[np.ones(n_rows, int)]).loss
        assert loss == pytest.approx(1e308)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_rows", [3, 40])
def test_a_tiny_temperature_costs_the_entropy_no_digits(n_rows, dtype, isa):
    far = {"float32": [-60, -84, -87], "float64": [-600, -700, -708]}[dtype]
    for temperature in 2.0**-60, 1e-8, 1e-4, 0.3, 1e4, 2.0**60:
        for n_classes in 4, 40, 1100:
            x = np.full((n_rows, n_classes), -np.inf)
            x[:, :4] = [0, *far]
            x = (x * temperature).astype(dtype)
            entropy = cysoftmax.row_stats(x, temperature=temperature).entropy
            d = [exact.number(v) / exact.number(temperature) for v in x[0, :4]]
            exps = [exact.MP.exp(v) for v in d]
            rest = exact.MP.fsum(exps[1:])
            want = exact.MP.log1p(rest) - exact.MP.fdot(exps, d) / (1 + rest)
            for got in entropy[0], entropy[-1]:
                exact.assert_close(got, want, want, x.dtype, bounds.ENTROPY.on(isa), temperature)
