"""Each numbered formula of docs/derivation.md, against the library.

A formula is written out here in NumPy as it stands on the page, in float64 or long double,
without help from the library. Where it claims a derivative, the other side of the comparison is
a central difference of a library function.
"""

import decimal
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import cysoftmax
from cysoftmax import OnlineSoftmax

DOCUMENT = Path(__file__).parents[1] / "docs" / "derivation.md"
LONG = np.longdouble
# float64 needs a wider type to be compared with.
DTYPES = [np.float32, np.float64][: 2 if np.finfo(LONG).eps < np.finfo(float).eps else 1]

rng = np.random.default_rng(5)
X = rng.normal(0, 2, (4, 6))  # logits
LABELS = np.array([3, 0, 5, 3])
Y = np.eye(6)[LABELS]  # a single one in each row
T = rng.uniform(0, 1, (4, 6)) * np.array([[0.5], [1], [2], [7]])  # masses far from one
V = rng.normal(0, 1, (4, 6))
P = np.exp(X) / np.exp(X).sum(-1, keepdims=True)  # formula (1)
K = X.shape[1]
ROW = 0  # the row of X that stands for any


def same(result, formula, tolerance=1e-14):
    """Assert that two results agree to a few roundings of float64."""
    np.testing.assert_allclose(result, formula, rtol=tolerance, atol=tolerance)


def derivative(f, x, step=1e-4):
    """Return df/dx, the entries of x along the last axis; the error is about 1e-11."""
    columns = []
    for j in np.ndindex(x.shape):
        h = np.zeros_like(x)
        h[j] = step
        near, far = f(x + h) - f(x - h), f(x + 2 * h) - f(x - 2 * h)
        columns.append((8 * near - far) / (12 * step))
    return np.moveaxis(np.array(columns), 0, -1).reshape(np.shape(columns[0]) + x.shape)


def same_derivative(difference, formula):
    np.testing.assert_allclose(difference, formula, rtol=0, atol=1e-9)


def relative_error(result, exact):
    return float(np.max(np.abs((LONG(result) - exact) / exact)))


def total_of(row):
    """Return S = sum exp(x), as the library has it."""
    return np.exp(cysoftmax.logsumexp(row))


def loss_of(row, target):
    return cysoftmax.cross_entropy(row, target, reduction="sum")


def split(e, dtype):
    """Return the coarse and the fine parts of e, each on a running sum of its own."""
    start = dtype(512)
    coarse = (start + e) - start
    return coarse, e - coarse


def spacing(dtype):
    """Return the distance g between numbers of the dtype from 512 to 1024."""
    return np.spacing(dtype(512))


# ---------------------------------------------------------------- 1. probabilities and loss


def test_each_exponential_is_divided_by_the_sum_of_all_in_its_row():
    """Formula (1)."""
    e = np.exp(X.astype(LONG))
    same(cysoftmax.softmax(X), e / e.sum(-1, keepdims=True))


def test_the_loss_is_the_mean_of_minus_the_logarithm_at_the_true_class():
    """Formula (2), and a term with y = 0 is zero, even where p = 0."""
    formula = -(Y * np.log(P)).sum() / len(X)
    same(cysoftmax.cross_entropy(X, Y), formula)
    same(cysoftmax.cross_entropy(X, LABELS), formula)
    x = np.array([[1.0, -np.inf, 2.0]])
    assert cysoftmax.softmax(x)[0, 1] == 0
    same(cysoftmax.cross_entropy(x, np.array([[0, 0, 1]])), np.log1p(np.exp(-1)))


# ---------------------------------------------------------------- 2. the softmax


def test_the_derivative_of_the_sum_is_one_exponential():
    """Formula (3)."""
    same_derivative(derivative(total_of, X[ROW]), np.exp(X[ROW]))


def test_a_probability_is_a_quotient_and_has_the_derivative_of_one():
    """Formula (4)."""
    e = np.exp(X[ROW])
    s = e.sum()
    of_numerator = np.diag(e)  # d exp(x_c) / d x_j
    of_denominator = e[None, :]  # d S / d x_j
    formula = (of_numerator * s - e[:, None] * of_denominator) / s**2
    same_derivative(derivative(cysoftmax.softmax, X[ROW]), formula)


def test_a_larger_logit_raises_its_own_probability():
    """Formula (5)."""
    jacobian = derivative(cysoftmax.softmax, X[ROW])
    same_derivative(np.diag(jacobian), P[ROW] * (1 - P[ROW]))
    assert np.all(np.diag(jacobian) > 0)


def test_a_larger_logit_lowers_all_the_other_probabilities():
    """Formula (6)."""
    jacobian = derivative(cysoftmax.softmax, X[ROW])
    for c in range(K):
        for j in set(range(K)) - {c}:
            same_derivative(jacobian[c, j], -P[ROW, c] * P[ROW, j])
            assert jacobian[c, j] < 0


# ---------------------------------------------------------------- 3. the loss


def test_the_chain_rule_gives_a_sum_over_the_classes():
    """Formula (7), its right side with differences of softmax."""
    jacobian = derivative(cysoftmax.softmax, X[ROW])
    for y in np.vstack([np.eye(K), T[:1]]):
        formula = [-(y / P[ROW] * jacobian[:, j]).sum() for j in range(K)]
        same_derivative(derivative(lambda x, y=y: loss_of(x, y), X[ROW]), formula)


def test_the_factors_p_cancel():
    """Formula (8): both of its right sides, for a target y in each class."""
    p = P[ROW]
    for y in np.eye(K):
        difference = derivative(lambda x, y=y: loss_of(x, y), X[ROW])
        for j in range(K):
            others = [c for c in range(K) if c != j]
            inserted = -y[j] / p[j] * p[j] * (1 - p[j])
            inserted += sum(y[c] / p[c] * p[c] * p[j] for c in others)
            same_derivative(difference[j], inserted)
            same_derivative(difference[j], -y[j] * (1 - p[j]) + p[j] * y[others].sum())


def test_the_sum_becomes_one_over_all_classes():
    """Formula (9), with a sum of y that is not one, so that it is seen."""
    y = 3 * Y[ROW]
    difference = derivative(lambda x: loss_of(x, y), X[ROW])
    same_derivative(difference, P[ROW] * y.sum() - y)


def test_the_gradient_is_the_error_of_the_prediction():
    """Formula (10), against the loss of all rows and against the library's gradient."""
    formula = (P - Y) / len(X)
    same_derivative(derivative(lambda x: cysoftmax.cross_entropy(x, LABELS), X), formula)
    for target in (LABELS, Y):
        same(cysoftmax.cross_entropy_grad(X, target), formula)
        same(cysoftmax.cross_entropy_with_grad(X, target).grad, formula)


# ---------------------------------------------------------------- 4. other targets


def test_the_loss_of_any_target_is_mass_times_log_sum_minus_target_times_logit():
    """Formula (11), each of its two forms."""
    result = cysoftmax.cross_entropy(X, T, reduction="none")
    log_sum = np.log(np.exp(X).sum(-1))
    same(result, -(T * np.log(P)).sum(-1))
    same(result, T.sum(-1) * log_sum - (T * X).sum(-1), 1e-13)


def test_the_gradient_of_any_target_is_mass_times_p_minus_target():
    """Formula (12): its entries sum to zero; p - T is not the gradient."""
    formula = T.sum(-1, keepdims=True) * P - T
    result = cysoftmax.cross_entropy_grad(X, T, reduction="sum")
    same(result, formula)
    same(result.sum(-1), 0)
    same_derivative(derivative(lambda x: loss_of(x, T), X), formula)
    assert np.all(np.abs(result - (P - T)).max(-1) > 0.01)


def test_the_mean_divides_by_the_total_mass():
    """Formula (13)."""
    mass = T.sum(-1, keepdims=True)
    loss, grad = cysoftmax.cross_entropy_with_grad(X, T)
    same(loss, -(T * np.log(P)).sum() / mass.sum())
    same(grad, (mass * P - T) / mass.sum())
    same_derivative(derivative(lambda x: cysoftmax.cross_entropy(x, T), X), grad)


# ---------------------------------------------------------------- 5. the Jacobian


def test_the_jacobian_is_symmetric():
    """Formula (14)."""
    jacobian = derivative(cysoftmax.softmax, X[ROW])
    same_derivative(jacobian, np.diag(P[ROW]) - np.outer(P[ROW], P[ROW]))
    same_derivative(jacobian, jacobian.T)


def test_the_product_of_the_jacobian_with_a_vector_needs_no_matrix():
    """Formula (15): the same for J v and for J^T v, each made of differences."""
    result = cysoftmax.softmax_vjp(P, V)
    same(result, P * (V - (P * V).sum(-1, keepdims=True)))
    for x, v, product in zip(X, V, result, strict=True):
        along_v = derivative(lambda s, x=x, v=v: cysoftmax.softmax(x + s * v), np.zeros(()))
        same_derivative(along_v, product)
        of_function = derivative(lambda x, v=v: cysoftmax.softmax(x) @ v, x)
        same_derivative(of_function, product)


def test_the_hessian_is_the_jacobian_times_the_mass():
    """Formula (16): H from differences of the gradient, and H v along one direction."""
    for x, p, t, v in zip(X, P, T, V, strict=True):

        def gradient(x, t=t):
            return cysoftmax.cross_entropy_grad(x, t, reduction="sum")

        same_derivative(derivative(gradient, x), t.sum() * (np.diag(p) - np.outer(p, p)))
        along_v = derivative(lambda s, x=x, v=v, g=gradient: g(x + s * v), np.zeros(()))
        same_derivative(along_v, t.sum() * cysoftmax.softmax_vjp(p, v))


# ---------------------------------------------------------------- 7. the shift


@pytest.mark.parametrize("dtype", DTYPES)
def test_adding_a_number_to_all_logits_changes_nothing(isa, dtype):
    """Formula (17): up to 1e8, where every exponential would overflow or vanish."""
    x = np.array([[0, 8, -16, 24, 8], [-40, -40, -48, 0, -8]], dtype)  # x + t is exact
    e = np.exp(x.astype(LONG))
    formula = e / e.sum(-1, keepdims=True)
    for t in (0, 8, -800, 8000, 1e8, -1e8):
        shifted = x + dtype(t)
        assert np.array_equal(shifted - dtype(t), x)
        result = cysoftmax.softmax(shifted)
        assert relative_error(result, formula) < 4 * np.finfo(dtype).eps
        assert np.array_equal(result, cysoftmax.softmax(x))


# ---------------------------------------------------------------- 8. logarithms


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_maximum_is_subtracted_before_the_logarithm_is(isa, dtype):
    """Formula (18): float32 [1e8, 1e8] gives log 2, where lse - x gives 0."""
    x = np.array([1e8, 1e8], dtype)
    same(cysoftmax.cross_entropy(x, 0), np.log(2))
    assert relative_error(cysoftmax.log_softmax(x), -np.log(LONG(2))) < np.finfo(dtype).eps
    if dtype is np.float32:
        assert cysoftmax.logsumexp(x) - x[0] == 0
    x = (np.array([3, -5, 0, 2.5, -70]) + 4096).astype(dtype)
    d = x.astype(LONG) - x.max()
    formula = d - np.log(np.exp(d).sum())
    assert relative_error(cysoftmax.log_softmax(x), formula) < 2 * np.finfo(dtype).eps
    for y in range(len(x)):
        assert relative_error(cysoftmax.cross_entropy(x, y), -formula[y]) < np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_maximum_is_subtracted_under_a_distribution_too(isa, dtype):
    """Formula (19), at 1e8."""
    x = np.array([1e8, 1e8, 1e8 - 16, 1e8 - 8], dtype)
    t = np.array([0.25, 0.5, 0.125, 2], dtype)
    d = x.astype(LONG) - x.max()
    formula = t.sum() * np.log(np.exp(d).sum()) - (t * d).sum()
    assert relative_error(loss_of(x, t), formula) < np.finfo(dtype).eps


# ---------------------------------------------------------------- 9. confident rows


def confident_rows(dtype):
    """Return rows whose maximum leads by up to 40, with that maximum's class."""
    generator = np.random.default_rng(11)
    x = generator.normal(0, 1, (60, 37))
    y = generator.integers(0, 37, 60)
    x[np.arange(60), y] = x.max(-1) + np.linspace(0.5, 40, 60)
    return x.astype(dtype), y


def sums(x, y):
    """Return exp(x - shift), and per row the sums over the classes but y and over all."""
    e = np.exp(x.astype(LONG) - x.max(-1, keepdims=True))
    rest = np.array([np.delete(row, c).sum() for row, c in zip(e, y, strict=True)])
    return e, rest, e.sum(-1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_loss_of_the_maximum_is_log1p_of_the_rest(isa, dtype):
    """Formula (20): all digits, where minus the log of p has none left."""
    x, y = confident_rows(dtype)
    _, rest, _ = sums(x, y)
    formula = np.log1p(rest)
    rows = np.arange(len(y))
    assert relative_error(cysoftmax.cross_entropy(x, y, reduction="none"), formula) < (
        2 * np.finfo(dtype).eps
    )
    assert relative_error(cysoftmax.log_softmax(x)[rows, y], -formula) < 2 * np.finfo(dtype).eps
    assert np.any(-np.log(cysoftmax.softmax(x)[rows, y]) == 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_at_the_target_is_minus_rest_over_total(isa, dtype):
    """Formula (21): whether or not the target is the maximum; float32 [20, 0, -1]."""
    x, largest = confident_rows(dtype)
    for y in (largest, (largest + 1) % x.shape[1]):
        _, rest, total = sums(x, y)
        grad = cysoftmax.cross_entropy_grad(x, y, reduction="none")
        error = relative_error(grad[np.arange(len(y)), y], -rest / total)
        assert error < 2 * np.finfo(dtype).eps
    x = np.array([20, 0, -1], dtype)
    loss, grad = cysoftmax.cross_entropy_with_grad(x, 0)
    assert loss == pytest.approx(2.8194097e-9, rel=1e-7)
    assert grad[0] == pytest.approx(-2.8194097e-9, rel=1e-7)
    if dtype is np.float32:
        p = cysoftmax.softmax(x)[0]
        assert np.log(p) == cysoftmax.logsumexp(x) - x[0] == p - 1 == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("share", [0.5, 0.75, 1])
def test_a_class_with_half_of_the_mass_keeps_its_digits(isa, dtype, share):
    """Formula (22): for all of the mass in one class, the digits that a p - T would lose."""
    x, y = confident_rows(dtype)
    _, rest, total = sums(x, y)
    rows, mass = np.arange(len(y)), 4
    t = np.zeros_like(x)
    t[rows, (y + 1) % x.shape[1]] = (1 - share) * mass
    t[rows, y] = share * mass
    formula = (mass - t[rows, y].astype(LONG)) - mass * rest / total
    grad = cysoftmax.cross_entropy_grad(x, t, reduction="none")[rows, y]
    size = mass * (1 - share) + mass * rest / total  # of the two terms, should they cancel
    assert np.max(np.abs(grad - formula) / size) < 2 * np.finfo(dtype).eps


# ---------------------------------------------------------------- 10. the sum


@pytest.mark.parametrize("dtype", DTYPES)
def test_coarse_parts_add_up_exactly_in_any_order(isa, dtype):
    """Formula (23). With logits a hair below the maximum, the loss shows that nothing is lost:
    it is right to float64 precision, from exponentials in the logits' dtype."""
    e = np.random.default_rng(2).uniform(0, 1, 1024).astype(dtype)
    e[:512] **= 9
    e[3] = 1
    coarse, fine = split(e, dtype)
    g = spacing(dtype)
    assert g == (2.0**-14 if dtype is np.float32 else 2.0**-43)
    assert np.all(coarse / g == np.rint(coarse / g))
    assert np.all(np.abs(fine) <= g / 2)
    assert (coarse[3], fine[3]) == (1, 0)
    exact = sum(map(Fraction, coarse.tolist()))
    for order in (slice(None), slice(None, None, -1), np.argsort(e)):
        assert Fraction(float(np.cumsum(coarse[order])[-1])) == exact
    assert exact + sum(map(Fraction, fine.tolist())) == sum(map(Fraction, e.tolist()))

    x = np.full(1000, 1 - np.finfo(dtype).epsneg, dtype)
    x[600] = 1
    formula = np.log(np.exp(x.astype(LONG) - 1).sum())
    assert relative_error(cysoftmax.cross_entropy(x, 600), formula) < 1e-14


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [20, 1000, 5000])
@pytest.mark.parametrize("place", [0, 13, -1])
def test_the_maximum_comes_out_of_the_sum_without_a_trace(isa, dtype, n, place):
    """Formula (24): every other term would be absorbed by a 1, wherever that stands."""
    log_u = np.log(np.finfo(dtype).epsneg)
    x = np.random.default_rng(n).uniform(log_u - 3, log_u - 0.1, n).astype(dtype)
    x[place] = 0
    e = np.exp(x.astype(LONG))
    assert np.all(np.delete(1 + e.astype(dtype), place) == 1)
    coarse, fine = split(e.astype(dtype), dtype)
    formula = (coarse.astype(LONG).sum() - 1) + fine.astype(LONG).sum()
    assert relative_error(formula, np.delete(e, place).sum()) < np.finfo(dtype).eps
    y = np.arange(n)[place]
    assert relative_error(cysoftmax.cross_entropy(x, y), np.log1p(formula)) < (
        2 * np.finfo(dtype).eps
    )
    grad = cysoftmax.cross_entropy_grad(x, y)
    assert relative_error(grad[y], -formula / (1 + formula)) < 2 * np.finfo(dtype).eps


# ---------------------------------------------------------------- 11. the difference


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_difference_and_its_rounding_error_are_exact(isa, dtype):
    """Formula (25): in fractions, then in the probability and the loss of the smaller logit."""
    generator = np.random.default_rng(3)
    m = generator.uniform(8.5, 10, 50).astype(dtype)
    x = generator.uniform(-1, 0, 50).astype(dtype)
    x[0], m[0] = -0.3, 10.1
    d = x - m
    z = d - x
    r = (x - (d - z)) - (m + z)
    for numbers in zip(x, m, d, r, strict=True):
        a, b, difference, error = (Fraction(float(number)) for number in numbers)
        assert a - b == difference + error
    for shift in (m, x):  # logits below a maximum of either sign
        logits = shift - generator.exponential(3, 50).astype(dtype)
        d = logits - shift
        r3 = np.maximum(-shift, logits) - (d - np.minimum(-shift, logits))
        for numbers in zip(logits, shift, d, r3, strict=True):
            a, b, difference, error = (Fraction(float(number)) for number in numbers)
            assert a - b == difference + error
    d = x - m
    u = np.finfo(dtype).epsneg
    assert 6 * u < np.abs(r).max() <= 8 * u

    rows = np.stack([m, x], -1)
    exact = x.astype(LONG) - m
    e = np.exp(d.astype(LONG)) * np.exp(r.astype(LONG))
    assert relative_error(cysoftmax.softmax(rows)[:, 1], e / (1 + e)) < 4 * u
    losses = [cysoftmax.cross_entropy(row, 1) for row in rows]
    np.testing.assert_allclose(losses, (np.log1p(e) - exact).astype(float), rtol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_left_beside_a_multiple_of_log_two_needs_no_difference(dtype):
    """Formula (26), in fractions: for a maximum of either sign, up to where logits count."""
    generator = np.random.default_rng(4)
    digits, limit, reach = (15, 256, 115) if dtype == np.float32 else (41, 2048, 842)
    m = (limit * generator.uniform(-1, 1, 4000) ** 3).astype(dtype)
    x = (m - reach * generator.uniform(0, 1, 4000) ** 2).astype(dtype)
    m[10:14] = np.nextafter(dtype(limit), dtype(0)) * np.array([1, -1, 1, -1], dtype)
    x[10:14] = m[10:14] - np.array([0.3, 0.3, reach, reach], dtype)
    x[0] = m[0]
    x[1:9], m[1:9] = 10.0 ** -np.arange(1, 9), 0.25  # with digits that the result has no room for
    n = np.round((x.astype(LONG) - m) / LONG(np.log(2)))
    log_two = Fraction(decimal.Context(prec=60).ln(2))
    coarse = Fraction(round(log_two * 2**digits), 2**digits)
    fine = dtype(float(log_two - coarse))
    unit = dtype(2.0 ** (1 - digits))
    m1 = np.round(m / unit) * unit
    m2 = m - m1
    multiple = n.astype(dtype) * dtype(float(coarse)) + m1
    r = (x - multiple) - (n.astype(dtype) * fine + m2)
    assert r[0] == 0
    u = np.finfo(dtype).epsneg
    for numbers in zip(x, m, n, m1, multiple, r, strict=True):
        x1, shift, k, shift1, sum1, left = (Fraction(float(number)) for number in numbers)
        assert sum1 == k * coarse + shift1
        assert abs(left - (x1 - shift - k * log_two)) <= Fraction(5, 8) * Fraction(float(u))


# ---------------------------------------------------------------- 12. the order


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [160, 2048])
def test_exchanging_the_operands_of_the_tree_leaves_every_bit(isa, dtype, n):
    """Formula (27): c -> c xor k, k < 16, exchanges operands; c -> c xor 16, terms of a lane.

    The loss is log1p(rest) with a small rest, so that it shows every bit of the sum.
    """
    x = np.random.default_rng(n).normal(0, 3, (30, n)).astype(dtype)
    x[:, 0] = 60
    c = np.arange(n)

    def losses(order):
        """Return the losses of what was class 0 under another numbering, a float64 each."""
        return [loss_of(np.ascontiguousarray(row[order]), np.argmin(order)) for row in x]

    for k in range(1, 16):
        assert losses(c ^ k) == losses(c)
    assert losses(c ^ 16) != losses(c)
    across = np.where(c % 4 < 2, c ^ 1, c)  # pairs of lanes that no step of the tree adds
    assert losses(across) != losses(c)


# ---------------------------------------------------------------- 13. options

EPSILON, Z, TAU = 0.15, 0.02, 1.7
OMEGA = rng.uniform(0.2, 3, K)  # weights of the classes
S_ROW = rng.uniform(0.2, 3, 4)  # and of the rows
A = OMEGA * ((1 - EPSILON) * T + EPSILON / K * T.sum(-1, keepdims=True))
W = S_ROW * (OMEGA * T).sum(-1)
OPTIONS = {
    "class_weight": OMEGA,
    "sample_weight": S_ROW,
    "label_smoothing": EPSILON,
    "z_loss": Z,
    "temperature": TAU,
}


def with_all_options(x):
    """Return d, the exps, their sums, Lambda, and s, a and w with an axis for the classes."""
    m = x.max(-1, keepdims=True)
    d = (x - m) / TAU
    e = np.exp(d)
    total = e.sum(-1, keepdims=True)
    lse = m / TAU + np.log(total)
    return d, e, total, lse, S_ROW[:, None], A.sum(-1, keepdims=True), W[:, None]


def test_smoothing_and_class_weights_make_another_target():
    """Formula (28): A as a target of its own, without the options."""
    options = {"class_weight": OMEGA, "label_smoothing": EPSILON, "reduction": "none"}
    loss, grad = cysoftmax.cross_entropy_with_grad(X, T, **options)
    want = cysoftmax.cross_entropy_with_grad(X, A, reduction="none")
    same(loss, want.loss)
    same(grad, want.grad)
    mean = cysoftmax.cross_entropy(X, T, class_weight=OMEGA, label_smoothing=EPSILON)
    same(mean, loss.sum() / (OMEGA * T).sum())


def test_the_loss_with_all_options():
    """Formula (29)."""
    d, _, total, lse, s, a, w = with_all_options(X)
    formula = s * (a * np.log(total) - (A * d).sum(-1, keepdims=True)) + w * Z * lse**2
    same(cysoftmax.cross_entropy(X, T, reduction="none", **OPTIONS), formula[:, 0])


def test_the_gradient_with_all_options():
    """Formula (30), which is also the derivative of the loss."""
    _, e, total, lse, s, a, w = with_all_options(X)
    b = s * a + 2 * w * Z * lse
    formula = (b * e / total - s * A) / TAU
    same(cysoftmax.cross_entropy_grad(X, T, reduction="sum", **OPTIONS), formula)
    difference = derivative(lambda x: cysoftmax.cross_entropy(x, T, reduction="sum", **OPTIONS), X)
    same_derivative(difference, formula)


def test_the_gradient_of_a_confident_row_with_smoothing_and_z_loss():
    """Formula (31): b - s A from the other classes, so that a hardly smoothed target keeps its
    digits."""
    epsilon, z = 1e-9, 1e-10
    x = np.array([20.0, 0.0, -1.0])
    e = np.exp(x.astype(LONG) - 20)
    total, lse = e.sum(), 20 + np.log1p(e[1:].sum())
    extra = 2 * LONG(epsilon) / 3 + 2 * LONG(z) * lse  # b - A at the target
    exact = extra - (1 + 2 * LONG(z) * lse) * e[1:].sum() / total
    grad = cysoftmax.cross_entropy_grad(x, 0, label_smoothing=epsilon, z_loss=z)
    assert relative_error(grad[0], exact) < 1e-14


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_quotient_in_two_parts_costs_no_digits(isa, dtype):
    """Formula (32): a rounded quotient would be off by up to u |d| in the exponential."""
    u = np.finfo(dtype).epsneg
    x = np.linspace(0, -80 * TAU, 97).astype(dtype)
    e = np.exp(x.astype(LONG) / LONG(TAU))
    assert relative_error(cysoftmax.softmax(x, temperature=TAU), e / e.sum()) < 6 * u
    rounded = np.exp((x / dtype(TAU)).astype(LONG))
    assert relative_error(rounded, e) > 20 * u


# ---------------------------------------------------------------- 14. second derivative, entropy


def test_the_diagonal_of_the_hessian():
    """Formula (33), which is also the derivative of the gradient."""
    e = np.exp(X - X.max(-1, keepdims=True))
    total = e.sum(-1, keepdims=True)
    mass = T.sum(-1, keepdims=True)
    hess = cysoftmax.cross_entropy_grad_hess(X, T).hess
    same(hess, mass * e / total * (total - e) / total, 1e-13)
    jacobian = derivative(
        lambda x: cysoftmax.cross_entropy_grad(x, T[ROW], reduction="sum"), X[ROW]
    )
    same_derivative(np.diagonal(jacobian), hess[ROW])


def test_the_entropy():
    """Formula (34)."""
    d = X - X.max(-1, keepdims=True)
    e = np.exp(d)
    total = e.sum(-1)
    entropy = cysoftmax.row_stats(X).entropy
    same(entropy, np.log(total) - (e * d).sum(-1) / total)
    same(entropy, -(P * np.log(P)).sum(-1))


# ---------------------------------------------------------------- 15. extreme weights


@pytest.mark.parametrize(("j", "k"), [(-1060, 3), (1010, -3), (500, -900), (0, -1040), (3, 1000)])
def test_loss_and_gradient_are_proportional_to_weight_and_target(isa, j, k):
    """Formula (35), for each row if a float64 can hold the result, and for the mean."""
    target = np.round(16 * T) / 16  # with few digits, which a denormal has room for
    s = np.array([0.5, 1.25, 3, 0.75])

    def results(j, k, reduction):
        options = OPTIONS | {"sample_weight": s * 2.0**j, "reduction": reduction}
        return cysoftmax.cross_entropy_with_grad(X, target * 2.0**k, **options)

    for got, want in zip(results(j, k, "mean"), results(0, 0, "mean"), strict=True):
        same(got, want)
    for got, want in zip(results(j, k, "none"), results(0, 0, "none"), strict=True):
        if abs(j + k) < 1000:
            same(got / 2.0 ** (j + k), want)


@pytest.mark.parametrize("size", [1e-310, 1e-160, 1e160, 1e307])
def test_the_share_of_a_row_in_a_mean_has_no_extreme_intermediate(isa, size):
    """Formula (36), in rational numbers; the row's own gradient is (p - y)."""
    weights = size * np.array([1.0, 3, 2, 4])
    scale = 1e300 if size < 1 else 1e-300
    grad = cysoftmax.cross_entropy_grad(X, LABELS, sample_weight=weights, scale=scale)
    total = sum(Fraction(w) for w in weights)
    shares = [float(Fraction(scale) * Fraction(w) / total) for w in weights]
    np.testing.assert_allclose(grad, np.array(shares)[:, None] * (P - Y), rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_last_product_of_a_gradient_is_exact_or_infinite(isa, dtype):
    """Formula (37): finite entries of a scaled gradient have the digits of the unscaled one."""
    x, target = np.array([[9, 0, -60]], dtype), np.array([[0.25, 0.75, 0]], dtype)
    small = cysoftmax.cross_entropy_grad(x, target).astype(LONG)
    for exponent in 100, 127, 135, 190, 1023:
        got = cysoftmax.cross_entropy_grad(x, target, scale=2.0**exponent)
        with np.errstate(over="ignore"):
            assert (got == (small * LONG(2) ** exponent).astype(dtype)).all()


# ---------------------------------------------------------------- 16. a product


FEATURES = rng.normal(0, 1, (4, 3))
WEIGHTS = rng.normal(0, 1, (3, 6))
BIAS = rng.normal(0, 1, 6)
LOGITS = np.einsum("ij,jc->ic", FEATURES, WEIGHTS) + BIAS  # formula (38)
LINEAR = {"class_weight": rng.uniform(0.5, 2, 6), "z_loss": 0.01, "label_smoothing": 0.1}


def linear(X=FEATURES, W=WEIGHTS, b=BIAS, **more):
    return cysoftmax.linear_cross_entropy(X, W, T, bias=b, wrt=("W", "bias", "X"), **LINEAR | more)


def test_logits_are_a_product_of_features_and_weights_and_a_bias():
    """Formula (38)."""
    for reduction in "mean", "sum":
        want = cysoftmax.cross_entropy(LOGITS, T, reduction=reduction, **LINEAR)
        same(linear(reduction=reduction).loss, want)


def test_the_gradient_of_the_weights_is_a_sum_over_the_rows():
    """Formula (39)."""
    G = cysoftmax.cross_entropy_grad(LOGITS, T, **LINEAR)
    same(linear().grad_W, np.einsum("ij,ic->jc", FEATURES, G))
    same_derivative(derivative(lambda W: linear(W=W).loss, WEIGHTS), linear().grad_W)


def test_the_gradient_of_the_bias_is_that_of_the_logits_summed():
    """Formula (40)."""
    same(linear().grad_bias, cysoftmax.cross_entropy_grad(LOGITS, T, **LINEAR).sum(axis=0))
    same_derivative(derivative(lambda b: linear(b=b).loss, BIAS), linear().grad_bias)


def test_the_gradient_of_the_features_is_a_sum_over_the_classes():
    """Formula (41)."""
    G = cysoftmax.cross_entropy_grad(LOGITS, T, **LINEAR)
    same(linear().grad_X, np.einsum("ic,jc->ij", G, WEIGHTS))
    same_derivative(derivative(lambda X: linear(X=X).loss, FEATURES), linear().grad_X)


def test_the_sums_may_be_taken_chunk_by_chunk():
    """Formula (42), with the divisor of a mean that is known beforehand."""
    divisor = (T * LINEAR["class_weight"]).sum()
    loss, of_W, of_bias = 0, np.zeros_like(WEIGHTS), np.zeros_like(BIAS)
    for some in slice(0, 3), slice(3, 4):
        part = cysoftmax.cross_entropy_with_grad(LOGITS[some], T[some], reduction="sum", **LINEAR)
        loss += part.loss / divisor
        of_W += FEATURES[some].T @ part.grad / divisor
        of_bias += part.grad.sum(axis=0) / divisor
    for chunk_rows in 1, 3, None:
        got = linear(chunk_rows=chunk_rows)
        same(got.loss, loss)
        same(got.grad_W, of_W)
        same(got.grad_bias, of_bias)


# ---------------------------------------------------------------- 17. blocks of classes


def test_maxima_and_sums_of_two_blocks_give_those_of_both(isa):
    """Formula (43)."""
    for tau in 1.0, 0.3:
        a, b = X[:, :2], X[:, 2:]
        of_a, of_b = (OnlineSoftmax.of(x, temperature=tau) for x in (a, b))
        m_a, m_b = a.max(-1), b.max(-1)
        S_a, S_b = (np.exp((x - x.max(-1, keepdims=True)) / tau).sum(-1) for x in (a, b))
        m = np.maximum(m_a, m_b)
        S = S_a * np.exp((m_a - m) / tau) + S_b * np.exp((m_b - m) / tau)
        merged = of_a.merge(of_b)
        same(merged.max, m)
        same(merged.logsumexp, m / tau + np.log(S))


def test_the_factor_of_a_merge_has_more_digits_than_a_double(isa):
    """Formula (44): classes of which none but the maximum and one other counts have the rest f."""
    for d in -np.geomspace(1e-9, 700, 60):
        merged = OnlineSoftmax.of([0.0]).merge(OnlineSoftmax.of([d]))
        coarse, fine, low = (decimal.Decimal(float(v)) for v in merged._totals[1:])
        with decimal.localcontext() as context:
            context.prec = 60
            f = decimal.Decimal(float(d)).exp()
            assert abs(coarse - 1 + fine + low - f) <= f * decimal.Decimal(2) ** -66


# ---------------------------------------------------------------- the document itself


def test_every_formula_has_one_test_and_every_test_a_formula():
    defined = re.findall(r"\\tag\{(\d+)\}", DOCUMENT.read_text(encoding="utf-8"))
    named = [
        number
        for name, test in globals().items()
        if name.startswith("test_")
        for number in re.findall(r"Formula \((\d+)\)", test.__doc__ or "")
    ]
    assert defined == [str(number + 1) for number in range(len(defined))]
    assert sorted(named, key=int) == defined
