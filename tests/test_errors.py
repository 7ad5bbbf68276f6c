"""Errors: each names the argument, what was expected and what came, and changes no array."""

import re
from itertools import product

import calls
import numpy as np
import pytest
from calls import CALLS
from scipy import sparse

import cysoftmax
from cysoftmax import _checks

X = np.arange(12.0).reshape(3, 4)
LABELS = np.array([1, 3, 0])
MASSES = np.full((3, 4), 0.25)

SECOND = {"": (), "labels": (LABELS,), "vector": (MASSES,)}
# Each function with good arguments, and the name by which it knows its logits.
FUNCTIONS = {
    call.function: (getattr(cysoftmax, call.function), (X, *SECOND[call.second]), call.logits)
    for call in CALLS
    if call.second in SECOND
}
TARGETED = [call.function for call in CALLS if call.second == "labels"]
LOSSES = [name for name in TARGETED if calls.FUNCTIONS[name].reduces]
GRADIENTS = [name for name in FUNCTIONS if "scale" in calls.FUNCTIONS[name].options]
WITH_OUT = [call.function for call in CALLS if call.second in SECOND and len(call.out) == 1]


def as_bytes(array):
    return array.tobytes() if isinstance(array, np.ndarray) else None


def fails(error, message, function, *arguments, **options):
    """Check that the call raises exactly that, and leaves every array as it was."""
    arrays = [*arguments, *options.values()]
    before = [as_bytes(array) for array in arrays]
    with pytest.raises(error) as caught:
        function(*arguments, **options)
    assert caught.type is error or (error is ValueError and caught.type is np.exceptions.AxisError)
    assert str(caught.value) == message
    assert [as_bytes(array) for array in arrays] == before


def copies(name):
    """The function of that name, with good arguments of its own."""
    function, arguments, _ = FUNCTIONS[name]
    return function, [array.copy() for array in arguments]


# ---------------------------------------------------------------- arrays


@pytest.mark.parametrize("dtype", [bool, complex, object, "U2", "M8[s]", np.longdouble])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_logits_of_a_wrong_dtype_are_a_type_error(name, dtype):
    function, arguments, argument = FUNCTIONS[name]
    x = X.astype(int).astype(dtype) if dtype == "M8[s]" else X.astype(dtype)
    message = (
        f"{argument} must be float32, float64, float16, bfloat16 or integer; got dtype {x.dtype}"
    )
    fails(TypeError, message, function, x, *arguments[1:])


# What NumPy makes an array without dimensions of.
NO_SEQUENCES = [{}, {1.0}, frozenset(), {}.keys(), {1: 2}.values(), (i for i in ()), map(int, "1")]


@calls.each_call()
def test_a_set_a_dict_or_a_generator_is_a_type_error_as_any_array(call):
    given = calls.inputs(call, (6, 5), float, "all") | call.of_rows
    names = {"logits": call.logits, "second": "v" if call.second == "vector" else "target"}
    for name, value in product(calls.arrays_of(given), NO_SEQUENCES):
        expected = "an array or a list"
        if name == "class_weight" and isinstance(value, dict):
            expected = "one number for each class, in order"
        message = (
            rf"^{names.get(name, name)} must (be|hold) {expected}; got .*{type(value).__name__}"
        )
        with pytest.raises(TypeError, match=message):
            call(given | {name: value})


@calls.each_call()
def test_a_sparse_matrix_in_place_of_an_array_is_a_type_error_that_says_what_to_do(call):
    given = calls.inputs(call, (6, 5), float, "all") | call.of_rows
    names = {"logits": call.logits, "second": "v"}
    for name in calls.arrays_of(given):
        if name == "second" and call.second != "vector":
            continue  # a target may be sparse
        message = rf"^{names.get(name, name)} must be an array; got csr_array \(\.toarray\(\)"
        with pytest.raises(TypeError, match=message):
            call(given | {name: sparse.csr_array(np.ones((6, 5)))})


@calls.each_call()
def test_a_bfloat16_tensor_of_pytorch_is_a_type_error_that_says_what_to_do(call):
    class Tensor:  # as far as it matters
        dtype = "torch.bfloat16"

        def __array__(self, dtype=None, copy=None):
            raise TypeError("Got unsupported ScalarType BFloat16")

    given = calls.inputs(call, (6, 5), float, "all") | call.of_rows
    for name in calls.arrays_of(given):
        message = r" must be an array; got Tensor: .*BFloat16 \(\.float\(\) converts it\)$"
        with pytest.raises(TypeError, match=message):
            call(given | {name: Tensor()})


@pytest.mark.parametrize("value", [None, "a", lambda: 0])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_logits_that_are_no_array_are_a_type_error(name, value):
    function, arguments, argument = FUNCTIONS[name]
    came = f"{type(value).__name__}, dtype {np.asarray(value).dtype}"
    message = f"{argument} must be float32, float64, float16, bfloat16 or integer; got {came}"
    fails(TypeError, message, function, value, *arguments[1:])


@pytest.mark.parametrize("value", [1.0, 7, np.float32(2), np.array(3.0)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_logits_without_dimensions_are_a_value_error(name, value):
    function, arguments, argument = FUNCTIONS[name]
    message = f"{argument} must have at least one dimension; got a scalar"
    fails(ValueError, message, function, value, *([value] if len(arguments) > 1 else []))


RAGGED = [[1.0, 2.0], [3.0]]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_ragged_logits_are_a_value_error(name):
    function, arguments, argument = FUNCTIONS[name]
    with pytest.raises(ValueError, match=rf"^{argument} must be an array; got list: "):
        function(RAGGED, *arguments[1:])


@pytest.mark.parametrize("name", TARGETED)
def test_a_ragged_target_is_a_value_error(name):
    with pytest.raises(ValueError, match=r"^target must be an array; got list: "):
        FUNCTIONS[name][0](X, RAGGED)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_array_of_another_device_is_an_error_that_names_the_argument(name):
    class Elsewhere:
        def __dlpack_device__(self):
            return 2, 0

        def __dlpack__(self, **options):
            raise BufferError("not on the CPU")

    function, arguments, argument = FUNCTIONS[name]
    with pytest.raises((TypeError, ValueError, BufferError), match=rf"\b{argument}\b"):
        function(Elsewhere(), *arguments[1:])


def test_a_v_of_another_dtype_is_a_type_error():
    for p, v in product([np.float32, np.float64], repeat=2):
        if p is not v:
            p, v = X.astype(p), MASSES.astype(v)
            message = f"v must have the dtype of p, {p.dtype}; got {v.dtype}"
            fails(TypeError, message, cysoftmax.softmax_vjp, p, v)


@pytest.mark.parametrize("dtype", [bool, complex, object, "U2", np.longdouble])
def test_a_v_of_a_wrong_dtype_is_a_type_error(dtype):
    v = MASSES.astype(dtype)
    with pytest.raises(TypeError, match=r"^v must .*; got ") as error:
        cysoftmax.softmax_vjp(X, v)
    assert str(v.dtype) in str(error.value)


def test_a_v_that_is_a_list_is_taken_in_the_dtype_of_p():
    result = cysoftmax.softmax_vjp(X.astype(np.float32), MASSES.tolist())
    assert result.dtype == np.float32


@calls.each_call()
def test_a_masked_array_is_a_type_error_as_any_argument(call):
    given = calls.inputs(call, (6, 5), float, "all") | call.of_rows
    names = {"logits": call.logits, "second": "v" if call.second == "vector" else "target"}
    for name in calls.arrays_of(given):
        for mask in False, given[name] == given[name]:
            message = rf"^{names.get(name, name)} must have no mask; got a masked array"
            with pytest.raises(TypeError, match=message):
                call(given | {name: np.ma.masked_array(given[name], mask)})
    numbers = {"axis": -1, "n_threads": 1} | {
        name: value for name, value in given.items() if isinstance(value, int | float)
    }
    for name, value in numbers.items():
        for mask in False, True:
            with pytest.raises(TypeError, match=rf"^{name} must (be|have no mask).*; got "):
                call(given | {name: np.ma.masked_array(value, mask)})


@calls.each_call(lambda call: call.out)
def test_a_masked_out_is_a_type_error(call):
    given = calls.inputs(call, (6, 5), float) | call.of_rows
    want = call(given)
    for masked in call.out:
        _, places = calls.room_for(call, want)
        out = [np.ma.masked_array(a) if name == masked else a for name, a in places.items()]
        with pytest.raises(TypeError, match=r"^out must have no mask; got a masked array"):
            call(given, out=out if len(out) == 2 else out[0])
        assert all((place == 77).all() for place in places.values())


@pytest.mark.parametrize("name", LOSSES)
def test_no_target_is_a_type_error(name):
    message = "target must be class indices or a distribution; got None"
    fails(TypeError, message, FUNCTIONS[name][0], X.copy(), None)


@pytest.mark.parametrize("shape", [(4, 3), (3,), (4,), (1, 4), (3, 1), (3, 4, 1)])
def test_a_v_of_another_shape_is_a_value_error(shape):
    message = f"v must have the shape of p, (3, 4); got {shape}"
    fails(ValueError, message, cysoftmax.softmax_vjp, X.copy(), np.zeros(shape))


def test_a_v_without_dimensions_is_a_value_error():
    with pytest.raises(ValueError, match=r"^v must have .*; got "):
        cysoftmax.softmax_vjp(X, 1.0)


# ---------------------------------------------------------------- targets


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, bool, complex, object, "U1"])
@pytest.mark.parametrize("name", TARGETED)
def test_labels_of_a_wrong_dtype_are_a_type_error(name, dtype):
    target = LABELS.astype(dtype)
    message = (
        "target must hold integers if it holds class indices (one dimension less than logits); "
        f"got dtype {target.dtype}{' (.astype(int) converts it)' * (target.dtype.kind == 'f')}"
    )
    fails(TypeError, message, FUNCTIONS[name][0], X.copy(), target)


@pytest.mark.parametrize("dtype", [complex, object, "U1", "M8[s]", "V8"])
@pytest.mark.parametrize("name", TARGETED)
def test_distributions_of_a_wrong_dtype_are_a_type_error(name, dtype):
    target = np.zeros((3, 4), dtype)
    message = (
        f"target must be bool, integer or float if it is a distribution; got dtype {target.dtype}"
    )
    fails(TypeError, message, FUNCTIONS[name][0], X.copy(), target)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [(shape, int) for shape in ((4,), (1,), (0,))]
    + list(product([(4, 3), (1, 4), (3, 1), (3, 5), (), (3, 4, 1), (1, 3)], [int, float])),
)
@pytest.mark.parametrize("name", TARGETED)
def test_a_target_of_a_wrong_shape_is_a_value_error(name, shape, dtype):
    message = (
        f"target must have shape (3,) (class indices) or (3, 4) (a distribution); got {shape}, "
        f"with axis=1{' (axis=0 would fit)' * (shape == (4,))}"
    )
    fails(ValueError, message, FUNCTIONS[name][0], X.copy(), np.zeros(shape, dtype))


@pytest.mark.parametrize("name", TARGETED)
def test_the_expected_shape_of_a_target_is_that_without_the_axis(name):
    x, target = np.zeros((2, 5, 3)), np.zeros((2, 5), int)
    message = (
        "target must have shape (2, 3) (class indices) or (2, 5, 3) (a distribution); got (2, 5), "
        "with axis=1 (axis=2 would fit)"
    )
    fails(ValueError, message, FUNCTIONS[name][0], x, target, axis=1)


@pytest.mark.parametrize("bad", [-1, 4, 12])
@pytest.mark.parametrize("name", TARGETED)
def test_a_label_out_of_range_is_an_index_error(name, bad):
    function, arguments = copies(name)
    arguments[1][1:] = bad, bad - 1
    message = f"target must lie in [0, 4); got {bad} at index (1,)"
    cure = " (ignore_index=-1 ignores such rows)" * (bad == -1)
    fails(IndexError, message + cure, function, *arguments)
    message = f"target must lie in [0, 4); got {bad}"
    fails(IndexError, message + cure, function, arguments[0][0], bad)


@pytest.mark.parametrize("label", [-1, -100])
@pytest.mark.parametrize("name", TARGETED)
def test_the_message_of_a_label_that_others_ignore_names_ignore_index(name, label):
    function, arguments = copies(name)
    arguments[1][2] = label
    message = f"target must lie in [0, 4); got {label} at index (2,)"
    cure = f" (ignore_index={label} ignores such rows)"
    fails(IndexError, message + cure, function, *arguments)
    if "ignore_index" in calls.FUNCTIONS[name].options:
        fails(IndexError, message, function, *arguments, ignore_index=-101 - label)


def test_a_label_that_becomes_good_while_its_error_is_raised_is_not_named():
    class Changing(np.ndarray):
        """Bad in every comparison of the whole array, and good when it is read alone."""

        def __lt__(self, other):
            return np.ones(self.shape, bool)

    labels = LABELS.view(Changing)
    with pytest.raises(IndexError, match=r"^target must lie in \[0, 4\); it was changed during"):
        _checks.raise_bad_label(labels, 4, None)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 0)])
@pytest.mark.parametrize("name", TARGETED)
def test_logits_without_classes_are_a_value_error(name, shape):
    message = f"logits must have at least one class; got shape {shape}"
    fails(ValueError, message, FUNCTIONS[name][0], np.empty(shape), np.empty(shape[:-1], int))


# ---------------------------------------------------------------- options


@pytest.mark.parametrize("axis", [2, -3, 100, -(2**40), 2**70])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_axis_out_of_range_is_a_value_error(name, axis):
    function, arguments = copies(name)
    message = f"axis must lie in [-2, 2); got {axis}"
    fails(ValueError, message, function, *arguments, axis=axis)
    with pytest.raises(np.exceptions.AxisError):
        function(*arguments, axis=axis)


NO_AXES = [None, (0,), (0, 1), (), 1.0, "1", [0], np.array([0, 1]), True, np.True_, np.array(True)]


@pytest.mark.parametrize("axis", NO_AXES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_axis_that_is_no_integer_is_a_type_error(name, axis):
    function, arguments = copies(name)
    fails(TypeError, f"axis must be an integer; got {axis!r}", function, *arguments, axis=axis)


@pytest.mark.parametrize("reduction", ["avg", "Mean", "", b"mean", None, 0, True, ("mean",)])
@pytest.mark.parametrize("name", LOSSES)
def test_a_wrong_reduction_is_a_value_error(name, reduction):
    function, arguments = copies(name)
    message = f"reduction must be 'mean', 'sum' or 'none'; got {reduction!r}"
    fails(ValueError, message, function, *arguments, reduction=reduction)


@pytest.mark.parametrize("scale", ["2", None, 1j, True, np.True_, np.array(1j), np.array("2")])
@pytest.mark.parametrize("name", GRADIENTS)
def test_a_scale_that_is_no_real_number_is_a_type_error(name, scale):
    function, arguments = copies(name)
    came = type(scale[()] if isinstance(scale, np.ndarray) else scale).__name__
    message = f"scale must be a real number; got {came}"
    fails(TypeError, message, function, *arguments, scale=scale)


@pytest.mark.parametrize("n_threads", [0, -1, -(2**70), np.int8(-5), np.array(0)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_fewer_threads_than_one_are_a_value_error(name, n_threads):
    function, arguments = copies(name)
    message = f"n_threads must be at least 1; got {n_threads}"
    fails(ValueError, message, function, *arguments, n_threads=n_threads)


@pytest.mark.parametrize(
    "n_threads", [1.5, 2.0, "2", True, False, np.True_, np.float64(2), [2], (), {}, 1j]
)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_threads_that_are_no_integer_are_a_type_error(name, n_threads):
    function, arguments = copies(name)
    message = f"n_threads must be None or an integer; got {type(n_threads).__name__}"
    fails(TypeError, message, function, *arguments, n_threads=n_threads)


@pytest.mark.parametrize("n_threads", [np.array([1, 2]), np.array(1.5), np.array([])])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_threads_in_an_array_that_is_no_integer_are_a_type_error(name, n_threads):
    function, arguments = copies(name)
    message = "n_threads must be None or an integer; got ndarray"
    fails(TypeError, message, function, *arguments, n_threads=n_threads)


@pytest.mark.parametrize("n_threads", [0, -1])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_wrong_threads_are_an_error_without_rows_too(name, n_threads):
    function, arguments = copies(name)
    message = f"n_threads must be at least 1; got {n_threads}"
    fails(ValueError, message, function, *(a[:0] for a in arguments), n_threads=n_threads)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_n_threads_may_be_any_integer_of_one_or_more(name):
    function, arguments = copies(name)
    for n_threads in 1, 2, 1000, 2**70, np.int64(2), np.uint8(3), np.array(2):
        function(*arguments, n_threads=n_threads)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_logits_and_target_are_positional_and_options_are_not(name):
    function, arguments, argument = FUNCTIONS[name]
    with pytest.raises(TypeError):
        function(*arguments, -1)
    with pytest.raises(TypeError):
        function(**{argument: arguments[0]})
    with pytest.raises(TypeError, match="nonsense"):
        function(*arguments, nonsense=1)


@pytest.mark.parametrize("mode", ["json", None, 1, "dict", ""])
def test_a_wrong_mode_of_show_config_is_a_value_error(mode):
    message = f"mode must be 'stdout' or 'dicts'; got {mode!r}"
    fails(ValueError, message, cysoftmax.show_config, mode)


# ---------------------------------------------------------------- out


def options_for_out(name):
    return {"reduction": "none"} if name == "cross_entropy" else {}


def shape_of_out(name):
    return (3, 4) if calls.FUNCTIONS[name].whole else (3,)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_an_out_for_a_reduced_loss_is_a_value_error(reduction):
    for out in np.zeros(3), np.zeros(()), np.zeros((3, 4)):
        message = f"out is for reduction='none'; got reduction={reduction!r}"
        arguments = (X.copy(), LABELS.copy())
        fails(
            ValueError, message, cysoftmax.cross_entropy, *arguments, reduction=reduction, out=out
        )


def test_an_out_for_the_mean_is_a_value_error_by_default():
    message = "out is for reduction='none'; got reduction='mean'"
    fails(ValueError, message, cysoftmax.cross_entropy, X.copy(), LABELS.copy(), out=np.zeros(3))


@pytest.mark.parametrize("name", WITH_OUT)
def test_an_out_of_a_wrong_shape_is_a_value_error(name):
    expected = shape_of_out(name)
    for shape in (4, 3), (3, 1), (1, 3), (1, 4), (3, 4, 1), (1, 3, 4), (4,), (3,), (12,), ():
        if shape == expected:
            continue
        function, arguments = copies(name)
        message = f"out must have shape {expected}; got {shape}"
        options = options_for_out(name)
        fails(ValueError, message, function, *arguments, out=np.full(shape, 7.0), **options)


def test_an_out_without_the_kept_axis_is_a_value_error():
    message = "out must have shape (3, 1); got (3,)"
    fails(ValueError, message, cysoftmax.logsumexp, X.copy(), keepdims=True, out=np.zeros(3))
    message = "out must have shape (3,); got (3, 1)"
    fails(ValueError, message, cysoftmax.logsumexp, X.copy(), out=np.zeros((3, 1)))


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.longdouble, int, bool, complex, object]
)
@pytest.mark.parametrize("name", WITH_OUT)
def test_an_out_of_a_wrong_dtype_is_a_type_error(name, dtype):
    function, arguments = copies(name)
    out = np.zeros(shape_of_out(name), dtype)
    message = f"out must have dtype float64; got {out.dtype}"
    fails(TypeError, message, function, *arguments, out=out, **options_for_out(name))


@pytest.mark.parametrize("name", WITH_OUT)
def test_an_out_that_is_read_only_is_a_value_error(name):
    function, arguments = copies(name)
    out = np.zeros(shape_of_out(name))
    out.flags.writeable = False
    message = "out must be writeable; got a read-only array"
    fails(ValueError, message, function, *arguments, out=out, **options_for_out(name))


@pytest.mark.parametrize("out", [[0.0], (0.0,), 0.0, np.float64(0), "out", False, memoryview(b"")])
@pytest.mark.parametrize("name", WITH_OUT)
def test_an_out_that_is_no_array_is_a_type_error(name, out):
    function, arguments = copies(name)
    message = f"out must be an ndarray; got {type(out).__name__}"
    fails(TypeError, message, function, *arguments, out=out, **options_for_out(name))


# ---------------------------------------------------------------- scratch


# From 2**57 rows on, 64 bits do not hold all products of sizes and numbers of threads.
@pytest.mark.parametrize("n_threads", [1, 4])
@pytest.mark.parametrize("exponent", [44, 50, 57, 59])
def test_scratch_that_cannot_be_had_is_a_memory_error(exponent, n_threads):
    x = np.broadcast_to(np.float32(0), (2**exponent, 2))
    labels = np.broadcast_to(np.int8(0), 2**exponent)
    with pytest.raises(MemoryError, match="each row"):
        cysoftmax.cross_entropy(x, labels, n_threads=n_threads)


# ---------------------------------------------------------------- options


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_option_that_a_function_does_not_take_is_a_type_error(name):
    for option in set(calls.OPTIONS) - set(calls.FUNCTIONS[name].options):
        function, arguments = copies(name)
        with pytest.raises(TypeError, match=re.escape(repr(option))):
            function(*arguments, **{option: None})
