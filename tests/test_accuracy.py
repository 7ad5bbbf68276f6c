"""The bounds that the docstrings state, in ulp, for each instruction set.

Errors are measured against the exact result for the given logits: the rounding of x - max is
part of what the library has to answer for (it computes that difference in two parts), so
nothing is set apart here.
"""

import bounds
import numpy as np
import pytest
import reference
from cases import REAL
from scipy import special

import cysoftmax

SIZES = [1, 2, 3, 5, 8, 10, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 255, 1000]
LARGE = [1023, 1024, 1025, 5000, 32000]


def kinds_of_rows(rng, n_rows, n_classes, dtype):
    """Yield named batches of logits that are hard in different ways."""
    normal = rng.standard_normal((n_rows, n_classes))
    yield "usual", (normal * 3).astype(dtype)
    yield "wide", (normal * 30).astype(dtype)
    yield "far from zero", (normal * 3 + 1e4).astype(dtype)
    yield (
        "all but one equal",
        np.where(
            np.arange(n_classes) == 0,
            rng.uniform(0, 9, (n_rows, 1)),
            rng.uniform(-9, 9, (n_rows, 1)),
        ).astype(dtype),
    )
    yield "in steps", np.round(normal).astype(dtype)
    yield "tiny differences", (1 + normal * np.finfo(dtype).eps * 8).astype(dtype)


def batches(dtype, sizes=SIZES, elements=40000):
    rng = np.random.default_rng(7)
    for n_classes in sizes:
        n_rows = max(2, min(1000, elements // n_classes))
        for kind, x in kinds_of_rows(rng, n_rows, n_classes, dtype):
            yield f"{kind}, {n_classes} classes", x


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("sizes", [SIZES, LARGE], ids=["small", "large"])
def test_softmax_is_within_its_bound_everywhere(isa, dtype, sizes):
    for name, x in batches(dtype, sizes):
        error = reference.error_in_ulp(cysoftmax.softmax(x), reference.softmax(x))
        assert error <= bounds.SOFTMAX.on(isa), name


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("sizes", [SIZES, LARGE], ids=["small", "large"])
def test_log_softmax_is_within_its_bound_everywhere(isa, dtype, sizes):
    for name, x in batches(dtype, sizes):
        error = reference.error_in_ulp(cysoftmax.log_softmax(x), reference.log_softmax(x))
        assert error <= bounds.LOG_SOFTMAX.on(isa), name


@pytest.mark.parametrize("dtype", REAL)
def test_logsumexp_is_within_its_bound_of_its_larger_part(isa, dtype):
    just_below_one = np.array([[-0.14133388547555184, -0.14119166371476707, -0.10475925091633159]])
    for name, x in [*batches(dtype, SIZES + LARGE), ("below 1", just_below_one.astype(dtype))]:
        exact = reference.logsumexp(x)
        larger = np.maximum(np.abs(exact), np.abs(x.max(-1)))
        error = np.abs(cysoftmax.logsumexp(x) - exact) / reference.ulp(larger, dtype)
        assert error.max() <= bounds.LOGSUMEXP.on(isa), name


@pytest.mark.parametrize("dtype", REAL)
def test_losses_and_gradients_are_within_their_bounds(isa, dtype):
    rng = np.random.default_rng(3)
    for name, x in batches(dtype, SIZES + LARGE):
        labels = rng.integers(0, x.shape[1], len(x))
        loss, grad = cysoftmax.cross_entropy_with_grad(x, labels, reduction="none")
        exact = reference.losses(x, labels)
        assert reference.error_in_ulp(loss, exact) <= bounds.LOSS.on(isa), name
        exact, at = reference.gradients(x, labels), labels[:, None]
        error = np.abs(grad - exact) / reference.ulp(exact, dtype)
        assert np.take_along_axis(error, at, -1).max() <= bounds.GRAD_AT_LABEL.on(isa), name
        np.put_along_axis(error, at, 0, -1)
        assert error.max() <= bounds.GRAD_OF_OTHERS.on(isa), name


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [2, 3, 10, 16, 17, 33, 100, 1000, 30000, 1_000_000])
def test_confident_rows_keep_full_relative_accuracy(isa, dtype, n_classes):
    rng = np.random.default_rng(n_classes)
    margins = np.linspace(5, 80, 16 if n_classes < 1e5 else 4)
    for others in (np.zeros(n_classes - 1), rng.uniform(-3, 0, n_classes - 1)):
        x = np.empty((len(margins), n_classes))
        x[:, 1:] = others
        x[:, 0] = margins + others.max()
        x = np.roll(x, n_classes // 2, axis=1).astype(dtype)
        labels = np.full(len(margins), n_classes // 2)
        loss, grad = cysoftmax.cross_entropy_with_grad(x, labels, reduction="none")
        assert reference.error_in_ulp(loss, reference.losses(x, labels)) <= bounds.LOSS.on(isa)
        exact = reference.gradients(x, labels)
        rows = np.arange(len(x))
        normal = np.abs(exact[rows, labels]) > np.finfo(dtype).tiny
        error = reference.error_in_ulp(grad[rows, labels][normal], exact[rows, labels][normal])
        assert error <= bounds.GRAD_AT_LABEL.on(isa)
        log_p, exact = cysoftmax.log_softmax(x)[rows, labels], reference.log_softmax(x)
        error = reference.error_in_ulp(log_p, exact[rows, labels])
        assert error <= bounds.LOG_SOFTMAX.on(isa)


def test_a_confident_row_has_the_loss_of_the_contract(isa):
    x = np.array([[20, 0, -1]], np.float32)
    loss, grad = cysoftmax.cross_entropy_with_grad(x, [0])
    assert loss == pytest.approx(2.8194096652e-9, rel=2e-7)
    assert grad[0, 0] == pytest.approx(-2.8194096652e-9, rel=2e-7)


def test_differences_are_taken_before_logarithms(isa):
    for big in (1e8, 1e30):
        loss = cysoftmax.cross_entropy(np.array([big, big], np.float32), 0)
        assert loss == np.log(2)


def test_the_mean_loss_of_many_rows_is_summed_in_double(isa):
    x = np.full((100_003, 3), 0.1, np.float32)
    assert cysoftmax.cross_entropy(x, np.zeros(len(x), int)) == pytest.approx(np.log(3), rel=3e-16)


@pytest.mark.parametrize("dtype", REAL)
def test_vjp_is_within_its_bound_of_its_larger_factor(isa, dtype):
    rng = np.random.default_rng(5)
    for name, x in batches(dtype, [1, 2, 3, 10, 17, 100, 1000, 5000]):
        for centre in (0, 1, 1e4):
            p = cysoftmax.softmax(x)
            v = (rng.standard_normal(x.shape) + centre).astype(dtype)
            exact_p, exact_v = p.astype(np.longdouble), v.astype(np.longdouble)
            s = np.sum(exact_p * exact_v, axis=-1, keepdims=True)
            unit = reference.ulp(exact_p * np.maximum(abs(exact_v), abs(s)), dtype)
            error = abs(cysoftmax.softmax_vjp(p, v) - exact_p * (exact_v - s)) / unit
            assert error.max() <= bounds.VJP.on(isa), name


@pytest.mark.parametrize("dtype", REAL)
def test_scipy_fed_float64_agrees(isa, dtype):
    for name, x in batches(dtype, [3, 10, 100, 1000], 5000):
        wide = x.astype(np.float64)
        rtol = 4 * np.finfo(dtype).eps
        atol = 1e-300 if dtype == np.float64 else 1e-44
        close = {"rtol": rtol + 1e-13, "atol": atol, "err_msg": name}
        np.testing.assert_allclose(cysoftmax.softmax(x), special.softmax(wide, -1), **close)
        close["atol"] = 1e-13
        np.testing.assert_allclose(cysoftmax.log_softmax(x), special.log_softmax(wide, -1), **close)
        # The maximum and the logarithm may cancel: see test_logsumexp above.
        sums = special.logsumexp(wide, -1)
        larger = np.maximum(np.abs(sums), np.abs(wide.max(-1)))
        assert np.all(np.abs(cysoftmax.logsumexp(x) - sums) <= close["rtol"] * larger), name


# Found by search: the largest logit, another, and one that is repeated so often, whose exps and
# whose sum are rounded to opposite sides. 2.6 and 2.5 ulp; 3.04 and 3.002 with `scalar`.
UNLUCKY = {
    np.float32: [
        ("0x1.f2804ap-3", "-0x1.6a7e86p-3", "-0x1.46a7c8p-5", 3653),
        ("0x1.d0e432p-3", "-0x1.8d508ep-3", "-0x1.473c88p-5", 53),
    ],
    np.float64: [
        ("0x1.f45dbf88ceb49p-3", "-0x1.1ec35b237e674p-5", "-0x1.76e9e7d55372cp-8", 502),
        ("0x1.c7e5691e05894p-1", "-0x1.d632605e49ff1p-3", "-0x1.e096914c1f3ccp-5", 1736),
        ("0x1.f37bf3ac277d1p-3", "-0x1.2bcde91729864p-5", "-0x1.574f965ab5714p-7", 502),
    ],
}


@pytest.mark.parametrize("dtype", REAL)
def test_softmax_is_within_its_bound_where_all_roundings_add_up(isa, dtype):
    for largest, other, repeated, times in UNLUCKY[dtype]:
        few = [float.fromhex(largest), float.fromhex(other)]
        x = np.array([few + [float.fromhex(repeated)] * times], dtype)
        error = reference.error_in_ulp(cysoftmax.softmax(x), reference.softmax(x))
        assert error <= bounds.SOFTMAX.on(isa)


# ---------------------------------------------------------------- exp
# The kernels' own tests measure exp alone (tests/test_kernels.c). Seen from here, the probability
# of x beside 0 is exp(x) to the last bit as soon as 1 + exp(x) is 1; nearer to 0 it is a quotient,
# with the bound of a softmax.

ALONE = {np.float32: -17.4, np.float64: -37.5}  # from here down 1 + exp(x) is 1
EXP = 1  # ulp


def exp_errors(x, maximum=0.0):
    """Return the largest errors of exp(x - maximum) seen alone, and in a quotient, in ulp."""
    dtype = x.dtype.type
    rows = np.empty((len(x), 2), dtype)
    rows[:, 0], rows[:, 1] = maximum, x
    p = cysoftmax.softmax(rows)[:, 1]
    if dtype is np.float64:
        d = x.astype(np.longdouble) - np.longdouble(maximum)
    else:  # what is left of float64 will do as the reference
        d = x.astype(np.float64) - maximum
    exact = np.exp(d)
    alone = d <= ALONE[dtype]
    exact = np.where(alone, exact, exact / (1 + exact))
    normal = exact >= np.finfo(dtype).tiny
    error = np.abs(p - exact) / np.spacing(exact.astype(dtype))
    return [float(np.max(error[normal & some], initial=0)) for some in (alone, ~alone)]


def assert_exp_is_within_its_bound(isa, x, maximum=0.0):
    alone, quotient = exp_errors(x, maximum)
    assert alone <= EXP
    assert quotient <= bounds.SOFTMAX.on(isa)


@pytest.mark.parametrize("dtype", REAL)
def test_exp_is_within_one_ulp(isa, dtype):
    rng = np.random.default_rng(0)
    low = np.log(np.finfo(dtype).tiny)
    for x in (
        rng.uniform(low, 0, 200_000),
        -np.exp(rng.uniform(-40, np.log(-low), 200_000)),
        np.log(0.75) + np.arange(np.ceil(low / np.log(2)), 1) * np.log(2),  # where n changes
    ):
        assert_exp_is_within_its_bound(isa, x.astype(dtype))


@pytest.mark.parametrize("dtype", REAL)
def test_exp_below_any_maximum_is_within_one_ulp(isa, dtype):
    rng = np.random.default_rng(1)
    limit = {np.float32: 256, np.float64: 2048}[dtype]
    maxima = [*rng.uniform(0, 1.2, 20), 3, 80.3, limit, np.nextafter(dtype(limit), 0), 1e4, 1e8]
    for maximum in [*maxima, *np.negative(maxima)]:
        maximum = float(dtype(maximum))
        below = np.concatenate([rng.uniform(0, 3, 20_000), rng.uniform(0, 80, 5000)])
        assert_exp_is_within_its_bound(isa, (maximum - below).astype(dtype), maximum)


@pytest.mark.exhaustive
def test_exp_is_within_one_ulp_for_every_float32_up_to_zero(isa):
    first, last = (np.float32(x).view(np.uint32) for x in (-0.0, -104))
    worst = [0, 0]
    for start in range(int(first), int(last) + 1, 1 << 22):
        bits = np.arange(start, min(start + (1 << 22), int(last) + 1), dtype=np.uint32)
        worst = np.maximum(worst, exp_errors(bits.view(np.float32)))
    print(f"{isa}: {worst[0]:.3f} ulp; in a quotient {worst[1]:.3f} ulp")
    assert worst[0] <= EXP
    assert worst[1] <= bounds.SOFTMAX.on(isa)
