"""softmax, log_softmax and logsumexp agree with SciPy's."""

import numpy as np
import pytest
from comparison import LOGITS, agree, check_line, lines_of, some_inputs, some_labels

import cysoftmax

scipy = pytest.importorskip("scipy")

special = scipy.special
pytestmark = pytest.mark.peers

by_logits = pytest.mark.parametrize("x", LOGITS.values(), ids=LOGITS.keys())


@pytest.mark.parametrize("line", lines_of("SciPy"))
def test_each_line_of_the_page_holds(line):
    inputs = some_inputs()
    inputs["Q"] = scipy.sparse.csr_array(inputs["masses"] * inputs["m"])
    check_line(line, inputs, inputs | {"scipy": scipy, "special": special})


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
@by_logits
def test_rows_agree(x, name):
    agree(getattr(cysoftmax, name)(x), getattr(special, name)(x, axis=1))


@pytest.mark.parametrize("axis", [-3, -2, -1, 0, 1, 2])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_any_axis_and_layout_agrees(name, axis):
    x = np.random.default_rng(0).standard_normal((5, 6, 7))
    for array in (x, np.asfortranarray(x), x[::-2, 1:, ::3], x.astype(int)):
        agree(getattr(cysoftmax, name)(array, axis=axis), getattr(special, name)(array, axis=axis))


@pytest.mark.parametrize("keepdims", [False, True])
def test_logsumexp_of_what_is_not_masked_agrees(keepdims):
    x = np.random.default_rng(0).standard_normal((5, 6, 7))
    x[0, 0, :3] = np.nan, np.inf, -np.inf
    where = np.random.default_rng(1).random(x.shape) < 0.5
    where[0, 0, :3] = False
    where[1, 1] = False
    ours = cysoftmax.logsumexp(x, keepdims=keepdims, where=where)
    agree(ours, special.logsumexp(x, axis=-1, keepdims=keepdims, b=where))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # SciPy's, about what is NaN
def test_special_logits_give_nan_and_inf_in_the_same_places():
    nan, inf = np.nan, np.inf
    x = np.array([[0, 1, 2], [0, nan, 1], [inf, inf, inf], [-inf, -inf, -inf], [0, -inf, 1]])
    agree(cysoftmax.softmax(x), special.softmax(x, axis=1))
    agree(cysoftmax.log_softmax(x), special.log_softmax(x, axis=1))
    agree(cysoftmax.logsumexp(x), special.logsumexp(x, axis=1))


@pytest.mark.parametrize("temperature", [1.0, 0.3])
@by_logits
def test_statistics_of_the_rows_agree(x, temperature):
    labels = some_labels(x)
    stats = cysoftmax.row_stats(x, labels, temperature=temperature)
    shift = x.max(axis=1, keepdims=True)
    d = (x - shift) / temperature  # the other way round, the quotients of large logits are rounded
    p = special.softmax(d, axis=1)
    rows = np.arange(len(x))
    agree(stats.logsumexp, shift[:, 0] / temperature + special.logsumexp(d, axis=1))
    agree(stats.loss, -special.log_softmax(d, axis=1)[rows, labels])
    agree(stats.entropy, scipy.stats.entropy(p, axis=1))
    agree(stats.argmax, x.argmax(axis=1))
    agree(stats.max_prob, p.max(axis=1))
    agree(stats.target_prob, p[rows, labels])
