"""OnlineSoftmax: blocks of classes give what whole rows give."""

import copy
import functools
import pickle

import bounds
import exact
import numpy as np
import pytest
from cases import REAL, REDUCTIONS, assert_same_bits, some_labels, some_logits, some_mask

import cysoftmax
from cysoftmax import OnlineSoftmax, _core

ULPS = 4  # of a result of merged states
MARGINS = [0, 5, 12, 20, 36, 45, 60, 80]
SPECIAL = {
    "-inf among others": [0, -np.inf, 1, 2],
    "-inf in a whole block": [-np.inf, -np.inf, 1, 2],
    "-inf alone": [-np.inf] * 4,
    "+inf": [1, 2, np.inf, 0],
    "two +inf": [np.inf, 2, np.inf, 0],
    "both infinities": [-np.inf, -np.inf, np.inf, 0],
    "NaN": [np.nan, 2, 3, 0],
    "NaN and +inf": [np.nan, 2, np.inf, 0],
    "NaN and -inf": [-np.inf, np.nan, -np.inf, -np.inf],
    "far apart": [1e30, -1e30, 0, 1e30],
}


def left(states):
    return functools.reduce(OnlineSoftmax.merge, states)


def right(states):
    return functools.reduce(lambda a, b: b.merge(a), reversed(states))


def shuffled(states):
    """In pairs, and these in pairs, in a random order."""
    states = [states[i] for i in np.random.default_rng(3).permutation(len(states))]
    while len(states) > 1:
        merged = [a.merge(b) for a, b in zip(states[::2], states[1::2], strict=False)]
        states = merged + states[len(states) // 2 * 2 :]
    return states[0]


ORDERS = {"from the left": left, "from the right": right, "in a random tree": shuffled}


def split(x, n_blocks):
    return np.array_split(x, n_blocks, axis=-1)


def states_of(blocks, **options):
    return [OnlineSoftmax.of(block, **options) for block in blocks]


def online(x, labels, n_blocks, order=left, where=None, **options):
    """What the methods give for rows cut into blocks, by the names of the functions."""
    blocks = split(x, n_blocks)
    masks = [None] * n_blocks if where is None else split(where, n_blocks)
    temperature = options.pop("temperature", 1.0)
    state = order(
        [
            OnlineSoftmax.of(block, where=mask, temperature=temperature)
            for block, mask in zip(blocks, masks, strict=True)
        ]
    )
    pairs = list(zip(blocks, masks, strict=True))
    logit = np.take_along_axis(x, labels[..., None], -1)[..., 0]
    firsts = np.cumsum([0] + [block.shape[-1] for block in blocks])
    grads = [
        state.cross_entropy_grad(block, labels, first, where=mask, **options)
        for (block, mask), first in zip(pairs, firsts, strict=False)
    ]
    return {
        "logsumexp": state.logsumexp,
        "softmax": np.concatenate([state.softmax(b, where=m) for b, m in pairs], -1),
        "log_softmax": np.concatenate([state.log_softmax(b, where=m) for b, m in pairs], -1),
        "loss": state.cross_entropy(logit, **options),
        "grad": np.concatenate(grads, -1),
    }


def whole(x, labels, where=None, **options):
    temperature = options.get("temperature", 1.0)
    softmaxes = {"where": where, "temperature": temperature}
    return {
        "logsumexp": cysoftmax.row_stats(x, **softmaxes).logsumexp,
        "softmax": cysoftmax.softmax(x, **softmaxes),
        "log_softmax": cysoftmax.log_softmax(x, **softmaxes),
        "loss": cysoftmax.cross_entropy(x, labels, where=where, **options),
        "grad": cysoftmax.cross_entropy_grad(x, labels, where=where, **options),
    }


# ---------------------------------------------------------------- one block


@pytest.mark.parametrize("dtype", [*REAL, np.float16])
@pytest.mark.parametrize("shape", [(1,), (3, 1), (40, 5), (19, 33), (33, 1000), (2, 3, 1030)])
def test_one_block_has_the_bits_of_whole_rows(isa, shape, dtype):
    x, labels, where = some_logits(shape, dtype), some_labels(shape[:-1], shape[-1]), None
    for reduction in REDUCTIONS:
        options = {"temperature": 0.7, "reduction": reduction, "z_loss": 0.01}
        for where in None, some_mask(shape) | (labels[..., None] == np.arange(shape[-1])):
            got = online(x, labels, 1, where=where, **options)
            for name, want in whole(x, labels, where=where, **options).items():
                assert_same_bits(got[name], want, name)


def test_one_block_of_a_long_row_has_the_bits_of_the_row(isa):
    x, labels = some_logits((2, 300_000), np.float32), np.array([3, 299_999])
    for n_threads in 1, 2:
        state = OnlineSoftmax.of(x, n_threads=n_threads)
        assert_same_bits(state.softmax(x, n_threads=n_threads), cysoftmax.softmax(x))
        got = state.cross_entropy_grad(x, labels, n_threads=n_threads)
        assert_same_bits(got, cysoftmax.cross_entropy_grad(x, labels))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(130, 2), (130, 200), (5, 40), (3, 1100)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_extreme_sample_weights_give_the_bits_of_whole_rows(isa, dtype, shape, z_loss, masked):
    rng = np.random.default_rng(shape)
    x, labels = some_logits(shape, dtype), some_labels(shape[0], shape[1])
    where = rng.random(shape) < 0.8 if masked else None
    options = {"sample_weight": 2.0 ** rng.uniform(-600, 600, shape[0]), "z_loss": z_loss}
    state = OnlineSoftmax.of(x, where=where)
    target_logit = np.take_along_axis(x, labels[:, None], 1)[:, 0]
    for reduction in REDUCTIONS:
        given = {**options, "reduction": reduction}
        want = cysoftmax.cross_entropy_grad(x, labels, where=where, **given)
        assert_same_bits(state.cross_entropy_grad(x, labels, where=where, **given), want)
        if not masked:
            want = cysoftmax.cross_entropy(x, labels, **given)
            assert_same_bits(state.cross_entropy(target_logit, **given), want)


def test_labels_of_other_blocks_leave_what_a_row_weighs(isa):
    """Also where a block is masked in some rows, and rows of all kinds follow each other."""
    rng = np.random.default_rng(0)
    for n_rows, n_classes in (40, 3), (40, 50), (3, 300), (1, 40000):
        x = rng.normal(0, 2, (n_rows, 3 * n_classes))
        labels = rng.integers(0, 3 * n_classes, n_rows)
        where = rng.random(x.shape) < 0.7
        where[0, n_classes:] = where[-1, :n_classes] = False
        where[np.arange(n_rows), labels] = True
        options = {"ignore_index": int(labels[n_rows // 2]), "sample_weight": rng.random(n_rows)}
        for given in {}, {"where": where}, options, {"where": where, **options}:
            want = cysoftmax.cross_entropy_grad(x, labels, **given)
            mask, some = given.get("where"), {k: v for k, v in given.items() if k != "where"}
            parts = [slice(k * n_classes, (k + 1) * n_classes) for k in range(3)]
            masks = [None if mask is None else mask[:, part] for part in parts]
            state = functools.reduce(
                OnlineSoftmax.merge,
                (OnlineSoftmax.of(x[:, p], where=m) for p, m in zip(parts, masks, strict=True)),
            )
            for k, (part, m) in enumerate(zip(parts, masks, strict=True)):
                got = state.cross_entropy_grad(x[:, part], labels, k * n_classes, where=m, **some)
                np.testing.assert_allclose(got, want[:, part], 1e-13, 1e-17)
                assert (got[want[:, part] == 0] == 0).all()


@pytest.mark.parametrize("n_blocks", [1, 3])
def test_classes_may_lie_along_any_axis(isa, n_blocks):
    x, labels = some_logits((4, 5, 30), np.float32), some_labels((4, 5), 30)
    want = whole(x, labels)
    blocks = [np.moveaxis(block, -1, 1) for block in split(x, n_blocks)]
    state = left(states_of(blocks, axis=1))
    got = np.concatenate([state.softmax(block, axis=1) for block in blocks], 1)
    np.testing.assert_array_max_ulp(np.moveaxis(got, 1, -1), want["softmax"], ULPS)
    firsts = np.cumsum([0] + [block.shape[1] for block in blocks])
    grads = [
        state.cross_entropy_grad(block, labels, first, axis=1)
        for block, first in zip(blocks, firsts, strict=False)
    ]
    np.testing.assert_allclose(
        np.moveaxis(np.concatenate(grads, 1), 1, -1), want["grad"], 1e-6, 1e-9
    )


def test_results_are_written_to_out_in_place(isa):
    x, labels = some_logits((20, 50), np.float32), some_labels(20, 50)
    state = OnlineSoftmax.of(x)
    for method, arguments in (
        ("softmax", ()),
        ("log_softmax", ()),
        ("cross_entropy_grad", [labels]),
    ):
        want, place = getattr(state, method)(x, *arguments), x.copy()
        assert getattr(state, method)(place, *arguments, out=place) is place
        assert_same_bits(place, want)


# ---------------------------------------------------------------- many blocks


@functools.cache
def confident(dtype, rising=False):
    """Rows of 1000 classes and of each margin, the largest logit anywhere; and with more digits
    than any dtype, the sum of the other exps, and the largest class. If `rising`, each logit is a
    little larger than the one before, so that every merge from the left changes the maximum."""
    rng = np.random.default_rng(7)
    x = rng.normal(0, 2, (len(MARGINS), 1000))
    if rising:
        x = np.sort(rng.uniform(-3, 0, x.shape))
    largest = np.array([0, 999, 500, 142, 143, 857, 1, 998])
    if rising:
        largest[:] = 999
    x[np.arange(len(x)), largest] = np.where(MARGINS, x.max(-1) + MARGINS, x.max(-1) + 1e-3)
    x = x.astype(dtype)
    numbers = [[exact.number(v) for v in row] for row in x]
    exps = [
        [exact.MP.exp(v - row[top]) for v in row] for row, top in zip(numbers, largest, strict=True)
    ]
    rests = [
        exact.MP.fsum(e for c, e in enumerate(row) if c != top)
        for row, top in zip(exps, largest, strict=True)
    ]
    return x, exps, rests, largest


def assert_within(got, want, size, dtype, message):
    exact.assert_close(got, want, abs(size), np.dtype(dtype), ULPS, message)


@pytest.mark.parametrize("rising", [False, True])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("n_blocks", [1, 2, 7, 1000])
@pytest.mark.parametrize("dtype", REAL)
def test_merged_results_are_within_four_ulp(isa, dtype, n_blocks, order, rising):
    x, exps, rests, largest = confident(dtype, rising)
    other = (largest + 1) % 1000
    at_largest = online(x, largest, n_blocks, ORDERS[order], reduction="sum")
    logit = np.take_along_axis(x, largest[:, None], -1)[:, 0]
    state = ORDERS[order](states_of(split(x, n_blocks)))
    loss = state.cross_entropy(logit, reduction="none")
    log_p = at_largest["log_softmax"]
    assert_same_bits(state.max, logit)
    for r, rest in enumerate(rests):
        total, log_total = 1 + rest, exact.MP.log1p(rest)
        name = f"row {r}"
        assert_within(loss[r], log_total, log_total, dtype, name)
        lse = exact.number(logit[r]) + log_total
        size = max(abs(lse), abs(exact.number(logit[r])))
        assert_within(state.logsumexp[r], lse, size, dtype, name)
        p = exps[r][other[r]] / total
        assert_within(at_largest["softmax"][r, other[r]], p, p, dtype, name)
        assert_within(at_largest["grad"][r, other[r]], p, p, dtype, name)
        assert_within(at_largest["grad"][r, largest[r]], -rest / total, rest / total, dtype, name)
        assert_within(log_p[r, largest[r]], -log_total, log_total, dtype, name)
        want = exact.MP.log(exps[r][other[r]]) - log_total
        assert_within(log_p[r, other[r]], want, want, dtype, name)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 3e-4, 2.0**50])
@pytest.mark.parametrize("dtype", REAL)
def test_a_row_may_be_cut_at_every_class(isa, dtype, temperature):
    x = some_logits((3, 41), dtype) * (temperature if temperature > 1 else 1)
    x[1, 17] += 30 * temperature
    labels = np.array([0, 17, 40])
    want = whole(x, labels, temperature=temperature, reduction="none")
    for cut in range(42):
        a, b = x[:, :cut], x[:, cut:]
        state = OnlineSoftmax.of(a, temperature=temperature)
        state = state.merge(OnlineSoftmax.of(b, temperature=temperature))
        logit = np.take_along_axis(x, labels[:, None], -1)[:, 0]
        loss = state.cross_entropy(logit, reduction="none")
        np.testing.assert_array_max_ulp(loss, want["loss"], ULPS)
        for method in "softmax", "log_softmax":
            got = np.concatenate([getattr(state, method)(a), getattr(state, method)(b)], -1)
            np.testing.assert_array_max_ulp(got, want[method], ULPS)
        got = np.concatenate(
            [
                state.cross_entropy_grad(a, labels, reduction="none"),
                state.cross_entropy_grad(b, labels, cut, reduction="none"),
            ],
            -1,
        )
        np.testing.assert_array_max_ulp(got, want["grad"], ULPS)


def test_a_merge_does_not_depend_on_the_order_of_two_states(isa):
    x = np.concatenate([some_logits((50, 21)), np.repeat([[3.0]], 50, 0), np.zeros((50, 1))], 1)
    x[:10, 0] = 3  # equal maxima, too
    a, b = OnlineSoftmax.of(x[:, :9]), OnlineSoftmax.of(x[:, 9:])
    assert_same_bits(a.merge(b)._totals, b.merge(a)._totals)


def test_a_merge_of_many_rows_has_the_bits_of_one_row(isa):
    a, b = some_logits((37, 4), seed=1), some_logits((37, 3), seed=2)
    got = OnlineSoftmax.of(a).merge(OnlineSoftmax.of(b))._totals
    for r in range(37):
        one = OnlineSoftmax.of(a[r]).merge(OnlineSoftmax.of(b[r]))._totals
        assert_same_bits(got[:, r], one)


def test_merges_have_the_same_bits_on_each_instruction_set_with_fma():
    x = some_logits((40, 210))
    x[::3, 5] += 40
    found = {}
    for name in _core.available_isas():
        previous = _core.active_isa()
        _core.use_isa(name)
        found[name] = left(states_of(split(x, 7)))._totals
        _core.use_isa(previous)
    fused = [totals for name, totals in found.items() if name != "scalar"]
    for totals in fused[1:]:
        assert_same_bits(totals, fused[0])


def test_another_grouping_changes_hardly_anything(isa):
    x, *_ = confident(np.float64)
    a, b = left(states_of(split(x, 1000)))._totals, shuffled(states_of(split(x, 1000)))._totals
    rest = [(t[1] - 1) + t[2] for t in (a, b)]
    assert (np.abs(rest[0] - rest[1]) <= 2.0**-52 * rest[0]).all()


# ---------------------------------------------------------------- special values, masks


@pytest.mark.parametrize("n_blocks", [1, 2, 3, 4])
@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("dtype", REAL)
def test_special_values_give_what_they_give_in_a_whole_row(isa, dtype, name, n_blocks):
    x = np.repeat(np.array([SPECIAL[name]], dtype), 20, 0)
    x[1] = [0, 1, 2, 3]  # an ordinary row beside them
    labels = np.arange(20) % 4
    want = whole(x, labels, reduction="none")
    for order in ORDERS.values():
        got = online(x, labels, n_blocks, order, reduction="none")
        for key in want:
            np.testing.assert_allclose(got[key], want[key], 1e-6, err_msg=key)
    state = left(states_of(split(x, n_blocks)))
    np.testing.assert_array_equal(state.max, x.max(-1))


def test_the_state_of_no_classes_changes_nothing(isa):
    x = some_logits((5, 8), np.float32)
    state, nothing = OnlineSoftmax.of(x), OnlineSoftmax.of(x[:, :0])
    assert_same_bits(nothing.merge(state)._totals, state._totals)
    assert_same_bits(nothing.max, np.full(5, -np.inf, np.float32))
    assert_same_bits(nothing.logsumexp, np.full(5, -np.inf, np.float32))
    assert nothing.softmax(x[:, :0]).shape == (5, 0)


@pytest.mark.parametrize("n_blocks", [1, 2, 5])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_masked_rows_and_blocks_give_what_they_give_in_whole_rows(isa, reduction, n_blocks):
    x, labels = some_logits((40, 10)), some_labels(40, 10)
    where = some_mask((40, 10))  # the last row is masked throughout
    where[:-1] |= labels[:-1, None] == np.arange(10)
    where[3, :5] = labels[3] == np.arange(5)
    where[4, 5:] = labels[4] == np.arange(5, 10)
    x[~where] = np.nan
    got = online(x, labels, n_blocks, where=where, reduction=reduction)
    for name, want in whole(x, labels, where=where, reduction=reduction).items():
        np.testing.assert_allclose(got[name], want, 1e-14, 1e-16, err_msg=name)


# ---------------------------------------------------------------- loss and gradient


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_weights_and_ignored_labels_are_those_of_the_functions(isa, reduction):
    x, labels = some_logits((30, 12)), some_labels(30, 12)
    labels[::7] = -100
    weights = np.where(np.arange(30) % 5, 1.5, 0)
    kept = np.where(labels == -100, 0, weights)
    state = left(states_of(split(x, 3)))
    logit = np.take_along_axis(x, np.maximum(labels, 0)[:, None], -1)[:, 0]
    options = {"z_loss": 0.1, "reduction": reduction}
    given = options | {"sample_weight": weights, "ignore_index": -100}
    loss = state.cross_entropy(logit, sample_weight=kept, **options)
    np.testing.assert_allclose(loss, cysoftmax.cross_entropy(x, labels, **given), 1e-14)
    scale = np.linspace(-1, 2, 30)
    want = cysoftmax.cross_entropy_grad(x, labels, scale=scale, **given)
    for first, block in zip([0, 4, 8], split(x, 3), strict=True):
        got = state.cross_entropy_grad(block, labels, first_class=first, scale=scale, **given)
        np.testing.assert_allclose(got, want[:, first : first + 4], 1e-13, 1e-17)
    assert (want[::7] == 0).all()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint64])
def test_labels_of_other_blocks_subtract_nothing(dtype):
    x = some_logits((4, 6))
    state = OnlineSoftmax.of(x)
    labels = np.array([0, 3, 5, 2], dtype)
    got = state.cross_entropy_grad(x[:, 2:4], labels, 2, reduction="sum")
    want = cysoftmax.softmax(x)[:, 2:4]
    np.testing.assert_allclose(got[[0, 2]], want[[0, 2]], 1e-15)
    assert got[1, 1] < 0
    assert got[3, 0] < 0


# ---------------------------------------------------------------- pickling, errors


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_a_state_can_be_pickled(dtype, protocol):
    x = some_logits((5, 8), dtype)
    state = OnlineSoftmax.of(x, temperature=0.5)
    again = pickle.loads(pickle.dumps(state, protocol))
    assert_same_bits(again.softmax(x), state.softmax(x))
    assert_same_bits(again.merge(again)._totals, state.merge(state)._totals)
    assert_same_bits(copy.copy(state).softmax(x), state.softmax(x))


def test_numbers_of_a_state_travel_out_of_band():
    state, buffers = OnlineSoftmax.of(some_logits((1000, 8))), []
    data = pickle.dumps(state, 5, buffer_callback=buffers.append)
    assert len(data) < 1000
    assert sum(b.raw().nbytes for b in buffers) == 32 * 1000
    assert_same_bits(pickle.loads(data, buffers=buffers).max, state.max)


def test_a_state_is_not_made_by_its_class():
    with pytest.raises(TypeError, match=r"made by OnlineSoftmax.of\(block\)"):
        OnlineSoftmax()
    assert "(3,), float32" in repr(OnlineSoftmax.of(np.zeros((3, 2), np.float32)))


STATE = OnlineSoftmax.of(np.zeros((3, 2), np.float32))
ERRORS = [
    (TypeError, "other must be an OnlineSoftmax; got int", lambda: STATE.merge(3)),
    (
        TypeError,
        "other must be of dtype float32; got float64",
        lambda: STATE.merge(OnlineSoftmax.of(np.zeros((3, 2)))),
    ),
    (
        ValueError,
        r"other must have rows of shape \(3,\); got \(2,\)",
        lambda: STATE.merge(OnlineSoftmax.of(np.zeros((2, 2), np.float32))),
    ),
    (
        ValueError,
        "other must have temperature 1.0; got 2.0",
        lambda: STATE.merge(OnlineSoftmax.of(np.zeros((3, 2), np.float32), temperature=2)),
    ),
    (TypeError, "block must be float32, .* got .*bool", lambda: OnlineSoftmax.of(np.ones(3, bool))),
    (TypeError, "block must have the dtype of .* float32", lambda: STATE.softmax(np.zeros((3, 2)))),
    (
        ValueError,
        r"block must have rows of shape \(3,\)",
        lambda: STATE.softmax(np.zeros((2, 2), np.float32)),
    ),
    (
        ValueError,
        r"target_logit must have shape \(3,\); got \(2,\)",
        lambda: STATE.cross_entropy(np.zeros(2, np.float32)),
    ),
    (
        TypeError,
        "target_logit must have dtype float32; got float64",
        lambda: STATE.cross_entropy(np.zeros(3)),
    ),
    (
        ValueError,
        "reduction must be 'mean', 'sum' or 'none'; got 'all'",
        lambda: STATE.cross_entropy([0.0] * 3, reduction="all"),
    ),
    (
        IndexError,
        r"target must be >= 0; got -1 at index \(1,\)",
        lambda: STATE.cross_entropy_grad(np.zeros((3, 2), np.float32), [0, -1, 1]),
    ),
    (
        TypeError,
        "target must hold integers; got dtype float64",
        lambda: STATE.cross_entropy_grad(np.zeros((3, 2), np.float32), [0.0, 1.0, 1.0]),
    ),
    (
        ValueError,
        r"target must have shape \(3,\); got \(2,\)",
        lambda: STATE.cross_entropy_grad(np.zeros((3, 2), np.float32), [0, 1]),
    ),
    (
        ValueError,
        r"first_class must lie in \[0, 2\*\*63\); got -1",
        lambda: STATE.cross_entropy_grad(np.zeros((3, 2), np.float32), [0, 1, 1], -1),
    ),
    (
        TypeError,
        "first_class must be an integer; got 4.0",
        lambda: STATE.cross_entropy_grad(np.zeros((3, 2), np.float32), [0, 1, 1], 4.0),
    ),
    (
        ValueError,  # an AxisError
        r"axis must lie in \[-2, 2\); got 5",
        lambda: STATE.cross_entropy_grad(np.zeros((3, 2), np.float32), [0, 1, 1], axis=5),
    ),
    (
        TypeError,
        "ignore_index must be None or an integer; got 1.5",
        lambda: STATE.cross_entropy_grad(np.zeros((3, 2), np.float32), [0, 1, 1], ignore_index=1.5),
    ),
]


@pytest.mark.parametrize(("kind", "message", "call"), ERRORS, ids=[e[1][:40] for e in ERRORS])
def test_an_error_says_what_is_wrong(kind, message, call):
    with pytest.raises(kind, match=message):
        call()


def test_integers_are_float64_as_blocks_and_as_logits_of_labels():
    block = np.array([[1, 5], [7, 2]])
    state = OnlineSoftmax.of(block)
    assert state.cross_entropy(block[:, 0]) == cysoftmax.cross_entropy(block, [0, 0])
    swapped = block[:, 0].astype(">f8")
    assert state.cross_entropy(swapped) == cysoftmax.cross_entropy(block, [0, 0])


def test_the_mean_of_no_rows_is_nan():
    state = OnlineSoftmax.of(np.zeros((0, 3)))
    assert np.isnan(state.cross_entropy(np.zeros(0)))
    assert state.cross_entropy(np.zeros(0), reduction="sum") == 0


def test_the_bound_is_that_of_the_functions():
    assert max(bounds.LOSS.fused, bounds.LOG_SOFTMAX.fused, bounds.SOFTMAX.scalar) == ULPS
