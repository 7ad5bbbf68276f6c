"""An `out` that overlaps an argument gives what no overlap would have given."""

from itertools import product

import numpy as np
import pytest
import scipy.sparse
from calls import BY_NAME, CALLS, each_call, inputs, moved, over_calls, room_for
from cases import REAL, assert_same_bits, assert_same_results, dtype_of, some_labels, some_logits

import cysoftmax

# Two views of one square piece of memory, for an argument and for `out`.
OVERLAPS = {
    "a row down": lambda m: (m[:-1], m[1:]),
    "a row up": lambda m: (m[1:], m[:-1]),
    "a class right": lambda m: (m[:, :-1], m[:, 1:]),
    "a class left": lambda m: (m[:, 1:], m[:, :-1]),
    "a row and a class": lambda m: (m[:-1, 1:], m[1:, :-1]),
    "reversed rows": lambda m: (m, m[::-1]),
    "reversed classes": lambda m: (m[:, ::-1], m),
    "transposed": lambda m: (m, m.T),
    "transposed back": lambda m: (m.T, m),
    "one item on": lambda m: (
        m.ravel()[:-1][: m.size - len(m)].reshape(-1, len(m)),
        m.ravel()[1:][: m.size - len(m)].reshape(-1, len(m)),
    ),
    "half an item on": lambda m: (
        m.ravel()[: m.size - len(m)].reshape(-1, len(m)),
        m.ravel()
        .view(np.uint8)[m.itemsize // 2 :][: (m.size - len(m)) * m.itemsize]
        .view(m.dtype)
        .reshape(-1, len(m)),
    ),
    "one row is all": lambda m: (np.broadcast_to(m[3], m.shape), m),
    "one class is all": lambda m: (np.broadcast_to(m[:, 3:4], m.shape), m),
    "every other row": lambda m: (m[: len(m) // 2], m[::2][: len(m) // 2]),
    "windows": lambda m: (
        np.lib.stride_tricks.sliding_window_view(m[0], len(m) // 2),
        m[: len(m) - len(m) // 2 + 1, : len(m) // 2],
    ),
}


def overlapping(size, dtype):
    """Yield a name, and the two views of a memory of that size."""
    for name, views in OVERLAPS.items():
        memory = np.abs(some_logits((size, size))).astype(dtype)
        yield f"{name}, {size}", views(memory)


def places_of(call, out):
    """Each `out` of a call of which `out` is, or is one of the arrays."""
    if len(call.out) == 1:
        return [out]
    other = np.empty(out.shape, out.dtype)
    return [(out, other), (other, out)]


@over_calls(lambda call: call.about.whole)
def test_an_out_that_overlaps_the_logits(name, dtype, options, isa):
    call, dtype = BY_NAME[name], dtype_of(dtype)
    for axis, size, which in product(call.axes, (20, 40), range(len(call.out))):
        for overlap, (x, out) in overlapping(size, dtype):
            assert np.shares_memory(x, out)
            shape = x.shape if axis == -1 else x.shape[::-1]
            given = moved(inputs(call, shape, dtype, options), axis)
            want = call(given, logits=x.copy())
            place = places_of(call, out)[which]
            assert_same_results(call(given, logits=x, out=place), want, overlap)


@pytest.mark.parametrize("axis", [0, -1])
@each_call(lambda call: call.about.whole and call.second in ("distribution", "vector"))
def test_an_out_that_overlaps_the_second_argument_or_both(call, axis, isa):
    for size in 20, 40:
        for overlap, (second, out) in overlapping(size, float):
            x = some_logits(second.shape, seed=1)
            want = call({"logits": x, "second": second.copy(), "axis": axis})
            place = places_of(call, out)[0]
            got = call({"logits": x, "second": second, "axis": axis, "out": place})
            assert_same_results(got, want, overlap)
        for first, second in (0, 1), (1, 0), (0, 0):
            for overlap, views in overlapping(size, float):
                arguments = {"logits": views[first], "second": views[second], "axis": axis}
                copies = {key: arguments[key].copy() for key in ("logits", "second")}
                want = call(arguments | copies)
                place = places_of(call, views[1])[-1]
                assert_same_results(call(arguments, out=place), want, overlap)


@pytest.mark.parametrize("kept", ["the item", "the item in reverse", "another row", "all in one"])
@pytest.mark.parametrize("size", [16, 40])
@each_call(lambda call: call.about.whole and call.second == "labels")
def test_an_out_that_overlaps_the_labels(call, size, kept, isa):
    out = np.zeros((size, size))
    integers = out.view(np.int64)
    labels = {
        "the item": integers[:, 0],
        "the item in reverse": integers[::-1, 1],
        "another row": integers[1],
        "all in one": integers[0],
    }[kept]
    labels[...] = np.arange(size) * 7 % size
    given = {"logits": some_logits((size, size)), "second": labels.copy()}
    want = call(given)
    place = places_of(call, out)[0]
    assert_same_results(call(given, second=labels, out=place), want)


@pytest.mark.parametrize("size", [16, 40])
def test_an_out_that_overlaps_bad_labels_is_untouched(size):
    out = np.zeros((size, size))
    labels = out.view(np.int64)[:, 0]
    labels[-1] = -1
    before = out.copy()
    with pytest.raises(IndexError, match=rf"got -1 at index \({size - 1},\)"):
        cysoftmax.cross_entropy_grad(some_logits((size, size)), labels, out=out)
    assert_same_bits(out, before)


@pytest.mark.parametrize("dtype", REAL)
@each_call(lambda call: call.out and not call.about.whole)
def test_an_out_of_rows_that_overlaps_the_logits(call, dtype):
    for out in (0, slice(None)), (slice(None), 0), (slice(None, None, -1), 3):
        given = inputs(call, (20, 20), dtype, "all") | call.of_rows
        want = call(given)
        x = given["logits"].copy()
        call(given, logits=x, out=x[out])
        assert_same_bits(x[out], want[call.out[0]])


def test_an_out_of_losses_that_overlaps_the_target():
    call = BY_NAME["cross_entropy of distribution"]
    given = inputs(call, (20, 20), float) | call.of_rows
    want = call(given)["loss"]
    target = given["second"].copy()
    call(given, second=target, out=target[:, 0])
    assert_same_bits(target[:, 0], want)
    x, labels = given["logits"], np.arange(20)
    want = cysoftmax.cross_entropy(x, labels, reduction="none")
    for out in labels.view(float), labels.view(float)[::-1]:
        labels[...] = np.arange(20)
        cysoftmax.cross_entropy(x, labels, reduction="none", out=out)
        assert_same_bits(out, want)


@pytest.mark.parametrize("n_classes", [4, 40])
@pytest.mark.parametrize("option", ["class_weight", "sample_weight", "scale", "where"])
def test_an_out_that_overlaps_an_option(option, n_classes, isa):
    shape = 45, n_classes
    for call in CALLS:
        if call.second != "labels" or option not in call.takes or not call.out:
            continue
        given = inputs(call, shape, float, [option]) | call.of_rows
        value, want = given[option], call(given)
        for first in 0, 1, n_classes + 1:
            memory = np.zeros(2 * 45 * n_classes)
            shared = memory[first:].view(value.dtype)[: value.size].reshape(value.shape)
            shared[...] = value
            out, places = room_for(call, want)
            place = memory[: places[call.out[0]].size].reshape(places[call.out[0]].shape)
            out = (place, out[1]) if isinstance(out, tuple) else place
            assert_same_results(call(given, **{option: shared}, out=out), want, call.name)


def test_a_misaligned_out_may_overlap_too():
    memory = np.zeros(20 * 20 * 8 + 17, np.uint8)
    x = memory[:3200].view(float).reshape(20, 20)
    x[...] = some_logits((20, 20))
    want = cysoftmax.softmax(x.copy())
    out = memory[9:3209].view(float).reshape(20, 20)
    cysoftmax.softmax(x, out=out)
    assert_same_bits(out, want)


def test_the_two_outputs_may_alternate_in_memory():
    x, labels = some_logits((20, 5)), some_labels(20, 5)
    both = np.empty((20, 5, 2))
    got = cysoftmax.cross_entropy_grad_hess(x, labels, out=(both[..., 0], both[..., 1]))
    want = cysoftmax.cross_entropy_grad_hess(x, labels)
    assert_same_results(got._asdict(), want._asdict())


def test_out_in_the_memory_of_what_is_not_read_row_by_row_gives_what_no_overlap_would():
    rng = np.random.default_rng(0)
    n = 64
    x = rng.standard_normal((n, n)).astype(np.float32)
    labels = rng.permutation(n)
    weight = rng.uniform(0.5, 2, n).astype(np.float32)
    want = cysoftmax.cross_entropy(x, labels, class_weight=weight.copy(), reduction="none")
    got = cysoftmax.cross_entropy(x, labels, class_weight=weight, reduction="none", out=weight)
    assert got is weight
    np.testing.assert_array_equal(got, want)
    starts = np.r_[np.zeros(n - 1, int), 40, n]  # all entries are those of the last two rows
    classes = np.r_[np.arange(40), np.arange(n - 40)]
    target = scipy.sparse.csr_array((rng.random(n, np.float32), classes, starts), shape=(n, n))
    want = cysoftmax.cross_entropy(x, target.copy(), reduction="none")
    got = cysoftmax.cross_entropy(x, target, reduction="none", out=target.data)
    np.testing.assert_array_equal(got, want)
