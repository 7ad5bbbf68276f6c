"""An error leaves every array as it was, and so do labels that another thread changes meanwhile."""

import sys
import threading

import numpy as np
import pytest
from calls import BY_NAME, arrays_of, each_call, inputs, over_calls, room_for
from cases import assert_same_bits, assert_same_results, dtype_of, misaligned, strided
from scipy import sparse

from cysoftmax import _core

DOUBLE = [("float64", ()), ("float64", "all")]
SOME = [("float32", ()), ("float64", "all"), ("float16", ())]

WRONG = {
    "axis": {"axis": 2},
    "axis of None": {"axis": None},
    "n_threads of 0": {"n_threads": 0},
    "n_threads of 1.5": {"n_threads": 1.5},
    "n_threads of an array": {"n_threads": np.array([1, 2])},
    "n_threads below int64": {"n_threads": -(2**70)},
    "reduction": {"reduction": "avg"},
    "a negative weight of a class": {"class_weight": np.array([1, 1, -1, 1.0])},
    "a weight that is NaN": {"sample_weight": np.array([1, np.nan, 1])},
    "an ignore_index that is no integer": {"ignore_index": 1.0},
    "too much smoothing": {"label_smoothing": 1.5},
    "a negative z_loss": {"z_loss": -1},
    "no temperature": {"temperature": 0},
    "a mask of another shape": {"where": np.ones(3, bool)},
    "a scale that is no number": {"scale": "2"},
}


def places(call, given):
    """Yield each way to say where results go: fresh, of its own, misaligned, in place."""
    yield {}
    if not call.out:
        return
    want = call(given)
    for layout in np.copy, misaligned, lambda a: strided(a, 2):
        yield {"out": room_for(call, want, layout)[0]}
    logits = given["logits"].copy()
    if not call.about.whole:
        if logits.dtype.itemsize > 2:  # otherwise the results are of another dtype
            yield {"logits": logits, "out": None}  # below: its first column
    else:
        other = room_for(call, want)[0]
        yield {"logits": logits, "out": (logits, other[1]) if isinstance(other, tuple) else logits}


def assert_fails(call, given, error, message=None):
    """The call raises that, and every array is what it was."""
    if "out" in given and given["out"] is None:
        given = given | {"out": given["logits"][:, 0]}
    outs = given.get("out", ())
    outs = outs if isinstance(outs, tuple) else (outs,)
    arrays = [given[name] for name in arrays_of(given)] + [a for a in outs if a is not None]
    if sparse.issparse(given.get("second")):
        target = given["second"]
        arrays += [target.data, target.indices, target.indptr]
    before = [array.tobytes() for array in arrays]
    with pytest.raises(error, match=message):
        call(given)
    assert [array.tobytes() for array in arrays] == before


@each_call()
def test_a_wrong_argument_leaves_every_array_as_it_was(call):
    given = inputs(call, (3, 4), float) | call.of_rows
    taken = {*call.takes, "axis", "n_threads", *call.of_rows}
    for wrong in WRONG.values():
        if wrong.keys() <= taken:
            for place in places(call, given):
                assert_fails(call, given | place | wrong, (TypeError, ValueError, OverflowError))


@over_calls(lambda call: call.second == "labels", SOME)
@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_bad_label_leaves_every_array_as_it_was(name, dtype, options, n_threads, isa):
    call, dtype = BY_NAME[name], dtype_of(dtype)
    large = [(300, 500), (2, 80_000)] if isa == _core.available_isas()[0] else []
    for shape in [(3, 4), (40, 4), (5, 60), *large]:
        given = inputs(call, shape, dtype, options) | call.of_rows
        message = rf"^target must lie in \[0, {shape[1]}\).*; got {{}} at index \({shape[0] - 1},\)"
        for bad in -1, shape[1]:
            labels = given["second"].copy()
            labels[-1] = bad
            some = {"second": labels, "n_threads": n_threads}
            some |= {"ignore_index": -7} if "ignore_index" in given else {}
            for place in places(call, given):
                assert_fails(call, given | place | some, IndexError, message.format(bad))
            with pytest.raises(ValueError, match=r"^n_threads must be at least 1; got 0"):
                call(given | some | {"n_threads": 0})


@each_call()
def test_a_good_call_after_an_error_gives_what_it_gave_before(call):
    given = inputs(call, (3, 4), float, "all")
    want = call(given)
    for wrong in WRONG.values():
        with pytest.raises((TypeError, ValueError, OverflowError)):
            call(given | wrong)
    assert_same_results(call(given), want)


# ---------------------------------------------------------------- targets changed meanwhile


def changing(array, place, values):
    """Return a thread that writes the values there in turn, until it is told to end."""
    # One item in many places: a copy, which needs no GIL, writes all the values to it.
    many = np.lib.stride_tricks.as_strided(array[place:], (2**16,), (0,))
    flips, done = np.resize(values, many.shape), threading.Event()

    def flip():
        while not done.is_set():
            np.copyto(many, flips)

    return threading.Thread(target=flip), done


@pytest.mark.parametrize("shape", [(3000, 8), (400, 64), (1, 70_000)])
@pytest.mark.parametrize("n_threads", [1, 2])
@over_calls(lambda c: c.second in ("labels", "CSR"), DOUBLE)
def test_a_label_changed_during_the_call_never_leads_outside(
    name, dtype, options, n_threads, shape
):
    call = BY_NAME[name]
    given = inputs(call, shape, dtype, options) | call.of_rows
    labels = inputs(BY_NAME[f"{call.function} of labels"], shape, dtype)["second"].astype(np.int64)
    row, good = shape[0] // 2, int(labels[shape[0] // 2])
    given["second"] = labels
    if call.second == "CSR":
        parts = np.ones(shape[0]), labels, np.arange(shape[0] + 1)
        given["second"] = sparse.csr_array(parts, shape=shape)
        given["second"].indices = labels
    want = call(given)
    rooms = []  # the bad label's place is in here, too

    def inside(array):
        rooms.append(np.full(array.size + 64, 7, array.dtype))
        return rooms[-1][32:-32].reshape(array.shape)

    places = {"out": room_for(call, want, inside)[0]} if call.out else {}
    just_beyond = shape[1] * (shape[0] - row) + 3
    thread, done = changing(labels, row, [-(2**45), good, just_beyond, good])
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread.start()
    try:
        for attempt in range(40):
            try:
                got = call(given, n_threads=n_threads, **places if attempt % 2 else {})
            except IndexError as error:
                assert str(error).startswith(f"target must lie in [0, {shape[1]})")  # noqa: PT017
            else:
                assert_same_results(got, want)
            for room in rooms:
                assert (room[:32] == 7).all()
                assert (room[-32:] == 7).all()
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(interval)
    labels[row] = good
    assert_same_results(call(given), want)


@each_call()
def test_results_share_no_memory_with_inputs(call):
    given = inputs(call, (6, 5), float, "all") | call.of_rows
    for result in call(given).values():
        assert result.flags.writeable
        assert not any(np.may_share_memory(result, given[name]) for name in arrays_of(given))
        assert_same_bits(result, result.copy())
