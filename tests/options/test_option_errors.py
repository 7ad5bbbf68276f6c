"""Errors of the options: each names the argument, what was expected and what came."""

import re
from itertools import product

import numpy as np
import pytest
from calls import FUNCTIONS, OPTIONS
from cases import LOSSES, assert_same_bits, one_hot, some_logits
from scipy import sparse

import cysoftmax

MASKED = np.ma.masked_array(np.ones(4), [False, True, False, False])

# Which functions take an option. All tests call them with logits of shape (3, 4).
TAKE = {
    option: [getattr(cysoftmax, name) for name, f in FUNCTIONS.items() if option in f.options]
    for option in OPTIONS
}
OF_LABELS = [getattr(cysoftmax, name) for name, f in FUNCTIONS.items() if "labels" in f.seconds]
WITH_OUT = [  # of the shape of the logits
    getattr(cysoftmax, name) for name, f in FUNCTIONS.items() if len(f.whole) == 1
]

NUMBERS = {
    "label_smoothing": [-0.1, -1e-300, 1.1, np.nextafter(1, 2), 2, np.inf, -np.inf, np.nan,
                        np.float32(1.5), np.array(-1.0)],
    "z_loss": [-1e-300, -1, np.inf, -np.inf, np.nan, np.float32(-2)],
    "temperature": [0, 0.0, -0.0, -1, -1e-300, np.inf, -np.inf, np.nan, np.int8(-3), 5e-324, 1e300,
                    np.nextafter(2.0**-60, 0), np.nextafter(2.0**60, np.inf), 2**61],
}  # fmt: skip
NO_NUMBERS = ["0.5", None, 1j, True, np.True_, {}, [0.5], (0.5,), np.array([0.5]), np.array(1j)]

# Options by name: values of a wrong shape, of a wrong value, and of a wrong kind or dtype;
# each with what the message must say came (one of the words with a | between).
WRONG_SHAPES = {
    "class_weight": [(3,), (5,), (1,), (0,), (1, 4), (4, 1), (3, 4), ()],
    "sample_weight": [(4,), (2,), (0,), (3, 1), (1, 3), (3, 4), (1, 1)],
    "scale": [(4,), (2,), (0,), (3, 1), (1, 3), (3, 4), (1, 1)],
    "where": [(3,), (5,), (2, 4), (3, 3), (4, 3), (1, 3, 4), (3, 4, 1), (2, 3, 4), (0,)],
}
WRONG_VALUES = {
    "class_weight": [([1, 2, -1, 1], "-1"), ([1, np.nan, 1, 1], "nan"), ([np.inf, 1, 1, 1], "inf"),
                     ([1, 1, 1, -np.inf], "-inf"), (np.array([1, 1, -5, 1], np.int8), "-5")],
    "sample_weight": [([1, -2, 1], "-2"), ([np.nan, 1, 1], "nan"), ([1, 1, np.inf], "inf"),
                      (-1.0, "-1"), (np.nan, "nan"), (np.float32([1, 1, -3]), "-3")],
}  # fmt: skip
WRONG_KINDS = {
    "class_weight": [(np.ones(4, bool), "bool"), (np.ones(4, complex), "complex128"),
                     (np.ones(4, object), "object"), (["a"] * 4, "U1"), ("abcd", "'abcd'"),
                     ("balanced", "'balanced'"), ({0: 1, 1: 2, 2: 1, 3: 1}, "a dict"),
                     (MASKED, "mask")],
    "sample_weight": [(np.ones(3, complex), "complex128"), (np.ones(3, "M8[s]"), "datetime64"),
                      (np.ones(3, object), "object"), (["a"] * 3, "U1"), ("a", "str|U1"),
                      (MASKED[:3], "mask")],
    "scale": [(np.ones(3, bool), "bool"), (np.ones(3, complex), "complex128"),
              (np.ones(3, object), "object"), (["a"] * 3, "U1"), (MASKED[:3], "mask")],
    "where": [(np.ones((3, 4), int), "int64"), (np.ones((3, 4)), "float64"), (1, "int"),
              (np.ones((3, 4), np.uint8), "uint8"), (np.ones((3, 4), object), "object"),
              ("yes", "str|U3"), ([0, 1, 1, 0], "int64"), (MASKED > 0, "mask")],
    "ignore_index": [(1.0, "float|1.0"), ("1", "str|'1'"), ([1], "list|[1]"), ((), "tuple|()"),
                     (np.float64(2), "float64|2.0"), (np.array([1, 2]), "ndarray|array"),
                     (1j, "complex|1j"), (True, "bool|True"), (np.False_, "bool|False")],
}  # fmt: skip


def arguments_of(function):
    """Good arguments of the function, of its own."""
    x = some_logits((3, 4))
    return [x, np.array([1, 3, 0])] if function in OF_LABELS else [x]


def outs_of(function):
    """What may be given as `out`, besides nothing: an array of its own, and the logits."""
    if function in WITH_OUT:
        return [None, np.full((3, 4), 7.0), "the logits"]
    return [None]


def fails(error, message, function, **options):
    """The call raises that with a message that matches, and changes no array given."""
    for out in outs_of(function):
        arguments = arguments_of(function)
        given = options | ({} if out is None else {"out": out})
        if isinstance(out, str):
            given["out"] = arguments[0]
        arrays = [a for a in (*arguments, *given.values()) if type(a) is np.ndarray]
        before = [a.copy() for a in arrays]
        with pytest.raises(error, match=message) as caught:
            function(*arguments, **given)
        assert caught.type is error
        for array, was in zip(arrays, before, strict=True):
            assert array.tobytes() == was.tobytes()


def cases(table):
    """Each option, function and wrong value of the table."""
    return [
        pytest.param(name, function, *(value if isinstance(value, tuple) else (value,)),
                     id=f"{name}-{function.__name__}-{number}")
        for name, values in table.items()
        for function in TAKE[name]
        for number, value in enumerate(values)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "function", "value"), cases({n: [(v,) for v in vs] for n, vs in NUMBERS.items()})
)
def test_a_number_out_of_range_is_a_value_error(name, function, value):
    came = re.escape(str(value)) if not isinstance(value, np.ndarray) else r"-1"
    fails(ValueError, rf"^{name} must .*; got .*{came}", function, **{name: value})


def test_the_error_names_the_range_of_temperatures():
    message = r"^temperature must lie in \[2\*\*-60, 2\*\*60\]; got 1e-300$"
    for function in TAKE["temperature"]:
        fails(ValueError, message, function, temperature=1e-300)


@pytest.mark.parametrize(
    ("name", "function", "value"),
    cases({name: [(value,) for value in NO_NUMBERS] for name in NUMBERS}),
)
def test_what_is_no_number_is_a_type_error(name, function, value):
    value_of = value[()] if isinstance(value, np.ndarray) else value
    came = type(value_of).__name__
    fails(TypeError, rf"^{name} must be .*; got .*{came}", function, **{name: value})


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_beyond_float64_is_a_value_error(name):
    for function in TAKE[name]:
        fails(ValueError, rf"^{name} must be ", function, **{name: 10**400})


@pytest.mark.parametrize(
    ("name", "function", "shape"),
    cases({name: [(shape,) for shape in shapes] for name, shapes in WRONG_SHAPES.items()}),
)
def test_an_array_of_a_wrong_shape_is_a_value_error(name, function, shape):
    value = np.ones(shape, bool if name == "where" else float)
    came = re.escape(str(shape))
    fails(ValueError, rf"^{name} must .*; got .*{came}", function, **{name: value})


@pytest.mark.parametrize(("name", "function", "value", "came"), cases(WRONG_VALUES))
def test_a_weight_that_is_negative_or_not_finite_is_a_value_error(name, function, value, came):
    message = rf"^{name} must .*; got .*{came}"
    fails(ValueError, message, function, **{name: value})
    if name == "class_weight" and function in LOSSES:
        fails(ValueError, message, function, **{name: value}, label_smoothing=0.1)


@pytest.mark.skipif(np.finfo(np.longdouble).max <= 1e308, reason="long doubles are doubles")
@pytest.mark.parametrize("name", ["class_weight", "sample_weight"])
def test_weights_beyond_float64_are_a_value_error(name):
    n = {"class_weight": 3, "sample_weight": 5}[name]
    weights = np.full(n, np.longdouble("1e4000"))
    message = rf"^{name} must be finite and >= 0; got inf at index"
    with pytest.raises(ValueError, match=message):
        cysoftmax.cross_entropy(np.zeros((5, 3)), [0] * 5, **{name: weights})


@pytest.mark.parametrize(("name", "function", "value", "came"), cases(WRONG_KINDS))
def test_an_option_of_a_wrong_kind_is_a_type_error(name, function, value, came):
    came = "|".join(re.escape(word) for word in came.split("|"))
    fails(TypeError, rf"^{name} must .*; got .*({came})", function, **{name: value})


@pytest.mark.parametrize("name", ["class_weight", "sample_weight", "where", "scale"])
def test_a_ragged_option_is_a_value_error(name):
    for function in TAKE[name]:
        fails(ValueError, rf"^{name} must be an array; got list: ", function,
              **{name: [[1.0, 2.0], [3.0]]})  # fmt: skip


@pytest.mark.parametrize("name", ["class_weight", "sample_weight", "where", "scale"])
def test_a_sparse_option_is_a_type_error(name):
    for function in TAKE[name]:
        with pytest.raises((TypeError, ValueError), match=rf"^{name} must "):
            function(*arguments_of(function), **{name: sparse.csr_array(np.ones((3, 4)))})


@pytest.mark.parametrize("function", TAKE["ignore_index"])
@pytest.mark.parametrize("target", [one_hot([1, 3, 0], 4), one_hot([1, 3, 0], 4, bool),
                                    sparse.csr_array(np.eye(3, 4))])  # fmt: skip
@pytest.mark.parametrize("ignore_index", [-100, 0, 2**70])
def test_ignore_index_has_no_meaning_for_distributions(ignore_index, target, function):
    x = some_logits((3, 4))
    message = r"^ignore_index .*class indices.*; got " + str(ignore_index)
    with pytest.raises(ValueError, match=message):
        function(x, target, ignore_index=ignore_index)
    assert_same_bits(x, some_logits((3, 4)))


@pytest.mark.parametrize("function", TAKE["ignore_index"])
@pytest.mark.parametrize("ignore_index", [-100, 4, 0, 2**70])
def test_a_label_that_is_not_the_ignored_one_is_an_index_error(ignore_index, function):
    for n_rows, n_classes in (20, 4), (20, 40), (3, 70_000):
        x, labels = some_logits((n_rows, n_classes)), np.zeros(n_rows, int)
        labels[1], labels[2] = ignore_index if abs(ignore_index) < 2**60 else 0, n_classes + 1
        given = {"out": np.full_like(x, 7)} if function in WITH_OUT else {}
        if function in TAKE["label_smoothing"]:
            given["label_smoothing"] = 0.1
        message = rf"^target must lie in \[0, {n_classes}\).*; got {n_classes + 1} at index \(2,\)"
        with pytest.raises(IndexError, match=message):
            function(x, labels, ignore_index=ignore_index, **given)
        if "out" in given:
            assert (given["out"] == 7).all()


@pytest.mark.parametrize("function", LOSSES)
def test_options_are_checked_without_rows_too(function):
    x, labels = np.empty((0, 4)), np.empty(0, int)
    for name, value in {"class_weight": np.ones(3), "label_smoothing": 2, "z_loss": -1,
                        "temperature": 0, "where": np.ones(3, bool)}.items():  # fmt: skip
        with pytest.raises(ValueError, match=rf"^{name} must "):
            function(x, labels, **{name: value})


@pytest.mark.parametrize("axis", [0, 1])
def test_the_expected_shape_is_that_without_the_axis(axis):
    x = np.zeros((2, 3, 4))
    rows = {0: (3, 4), 1: (2, 4)}[axis]
    labels, n_classes = np.zeros(rows, int), x.shape[axis]
    expected = re.escape(str(rows))
    for name in "sample_weight", "scale":
        with pytest.raises(ValueError, match=rf"^{name} must .*{expected}.*; got .*\(7,\)"):
            cysoftmax.cross_entropy_grad(x, labels, axis=axis, **{name: np.ones(7)})
    with pytest.raises(ValueError, match=rf"^class_weight must .*\({n_classes},\).*; got .*\(4,\)"):
        cysoftmax.cross_entropy_grad(x, labels, axis=axis, class_weight=np.ones(4))
    with pytest.raises(ValueError, match=r"^where must .*\(2, 3, 4\).*; got .*\(3,\)"):
        cysoftmax.cross_entropy_grad(x, labels, axis=axis, where=np.ones(3, bool))


# ---------------------------------------------------------------- good arguments


def test_the_ends_of_each_range_are_accepted():
    x, labels = some_logits((3, 4)), [1, 3, 0]
    good = {
        "class_weight": [np.zeros(4), [-0.0, 1, 1, 1], [1e300] * 4],
        "sample_weight": [0, np.zeros(3), [-0.0, 1, 1], 1e300, np.zeros(3, bool), True],
        "ignore_index": [0, 3, -(2**63), 2**64, -(10**30), np.int8(2), np.array(2), None],
        "label_smoothing": [0, 1, -0.0, np.float16(0.5), np.array(1), 5e-324],
        "z_loss": [0, -0.0, 1e300, 5e-324, np.array(0.5)],
        "temperature": [2.0**-60, 2.0**60, 2**60, np.float32(2), 3, np.array(0.5)],
        "where": [True, False, np.True_, np.zeros((3, 4), bool), [True] * 4, None],
        "scale": [np.full(3, np.nan), np.full(3, np.inf), [0, -1, 2], np.ones(1), -1, np.array(2)],
    }
    for name, values in good.items():
        for value, function in product(values, TAKE[name]):
            function(x, *[labels] * (function in OF_LABELS), **{name: value})
