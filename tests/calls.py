"""Every call there is: each public function with each kind of target, what it takes and gives.

A property that every function has is tested once, over `CALLS`; `test_the_registry_is_complete`
fails when a function, an option or a result of the library is not here.
"""

from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
import pytest
from scipy import sparse

import cysoftmax

LOSS_OPTIONS = (
    "class_weight", "sample_weight", "ignore_index", "label_smoothing", "z_loss", "temperature",
    "where",
)  # fmt: skip
TARGETS = ("labels", "one-hot", "distribution", "CSR")


class Function(NamedTuple):
    """A public function that computes, by its name."""

    options: tuple  # that change the numbers
    whole: tuple  # the results of the shape of the logits, by name
    rows: tuple  # those with one number for each row
    seconds: tuple  # kinds of the second argument, "" for none
    reduces: bool = False  # has `reduction`


FUNCTIONS = {
    "softmax": Function(("temperature", "where"), ("p",), (), ("",)),
    "log_softmax": Function(("temperature", "where"), ("log_p",), (), ("",)),
    "logsumexp": Function(("where",), (), ("logsumexp",), ("",)),
    "cross_entropy": Function(LOSS_OPTIONS, (), ("loss",), TARGETS, True),
    "cross_entropy_grad": Function((*LOSS_OPTIONS, "scale"), ("grad",), (), TARGETS, True),
    "cross_entropy_with_grad": Function(
        (*LOSS_OPTIONS, "scale"), ("grad",), ("loss",), TARGETS, True
    ),
    "cross_entropy_grad_hess": Function(
        ("class_weight", "sample_weight", "ignore_index", "label_smoothing", "where"),
        ("grad", "hess"),
        (),
        TARGETS,
    ),
    "row_stats": Function(
        ("ignore_index", "temperature", "where"),
        (),
        cysoftmax.RowStats._fields,
        ("", *TARGETS),
    ),
    "softmax_vjp": Function((), ("vjp",), (), ("vector",)),
}
# These take more than logits and a target; each has tests of its own, such as test_linear.py. (So
# has OnlineSoftmax, which is no function.)
BEYOND_ONE_ARRAY = {"linear_cross_entropy"}
# These have nothing to compute.
COMPUTE_NOTHING = {"address_of", "get_include", "show_config"}
OPTIONS = sorted({option for function in FUNCTIONS.values() for option in function.options})


class Call(NamedTuple):
    """A function with a kind of its second argument. Called with inputs, gives results by name."""

    function: str
    second: str

    @property
    def about(self):
        return FUNCTIONS[self.function]

    @property
    def name(self):
        return self.function + (f" of {self.second}" if self.second else "")

    @property
    def logits(self):
        """The name of the first argument, as messages have it."""
        names = {"softmax": "x", "log_softmax": "x", "logsumexp": "x", "softmax_vjp": "p"}
        return names.get(self.function, "logits")

    @property
    def takes(self):
        """The options that this call may have."""
        if self.second == "labels":
            return self.about.options
        return tuple(name for name in self.about.options if name != "ignore_index")

    @property
    def out(self):
        """The names of the results that `out` is for: a pair of arrays if there are two."""
        if self.function == "row_stats":
            return ()
        return self.about.whole or self.about.rows

    @property
    def axes(self):
        """Axes of the classes that it may have, in two dimensions."""
        return (-1,) if self.second == "CSR" else (0, -1)

    @property
    def reductions(self):
        return ("mean", "sum", "none") if self.about.reduces else (None,)

    @property
    def of_rows(self):
        """What a call needs in order to give results for each row."""
        return {"reduction": "none"} if self.about.reduces else {}

    def keywords(self, reduction):
        return {} if reduction is None else {"reduction": reduction}

    def __call__(self, inputs, **more):
        """Call the function with inputs as of `inputs`, and what replaces or joins them."""
        given = inputs | more
        arguments = [given.pop(name) for name in ("logits", "second") if name in given]
        got = getattr(cysoftmax, self.function)(*arguments, **given)
        got = got._asdict() if hasattr(got, "_asdict") else {(self.out or ("",))[0]: got}
        return {name: result for name, result in got.items() if result is not None}


CALLS = [Call(name, second) for name, function in FUNCTIONS.items() for second in function.seconds]
BY_NAME = {call.name: call for call in CALLS}


# ---------------------------------------------------------------- inputs


def random(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape)


@lru_cache(maxsize=256)
def made(shape, dtype, seed):
    """Arrays that calls with logits of that shape and dtype have for their inputs, read-only."""
    n_classes, rows = shape[-1], shape[:-1]
    rng = np.random.default_rng(seed)
    logits = 3 * random(shape, seed)
    by_row = logits.reshape(-1, n_classes)
    by_row[len(by_row) // 2, n_classes // 3] += 30  # a confident row
    labels = rng.integers(0, n_classes, rows)
    labels.reshape(-1)[len(by_row) // 2] = n_classes // 3
    where = rng.random(shape) < 0.7
    np.put_along_axis(where, labels[..., None], True, -1)
    sample_weight = rng.uniform(0.2, 3, rows)
    if len(by_row) > 4:  # some rows are left out, in three ways, and others still are there
        where.reshape(by_row.shape)[-1] = False
        sample_weight.reshape(-1)[1] = 0
    masses = rng.integers(0, 4, shape) / 8 * where
    with np.errstate(all="ignore"):
        arrays = {
            "logits": logits.astype(dtype),
            "vector": random(shape, seed + 1).astype(dtype),
            "labels": labels,
            "one-hot": labels[..., None] == np.arange(n_classes),
            "distribution": masses,
            # Those of classes are exact in float32.
            "class_weight": rng.uniform(0.2, 3, n_classes).astype(np.float32).astype(np.float64),
            "sample_weight": sample_weight,
            "where": where,
            "scale": rng.uniform(-2, 2, rows),
        }
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


@lru_cache(maxsize=256)
def sparse_rows(shape, seed):
    return sparse.csr_array(made(shape, np.dtype(float), seed)["distribution"])


NUMBERS = {"label_smoothing": 0.1, "z_loss": 1e-2, "temperature": 0.7}


def inputs(call, shape, dtype, options=(), seed=0):
    """Return all arguments of a call but those that say where and how, the classes last.

    `options` are names, of which those are chosen that the call takes; "all" are all of them.
    """
    arrays = made(tuple(shape), np.dtype(dtype), seed)
    given = {"logits": arrays["logits"]}
    if call.second == "CSR":
        given["second"] = sparse_rows(tuple(shape), seed)
    elif call.second:
        given["second"] = arrays[call.second]
    for name in call.takes:
        if name == "ignore_index" and (options == "all" or name in options):
            many = arrays["labels"].size > 4
            given[name] = int(arrays["labels"].reshape(-1)[0]) if many else -1
        elif options == "all" or name in options:
            given[name] = NUMBERS.get(name, arrays.get(name))
    return given


def is_whole(name, array, given):
    """Whether an input is an array with an entry for each logit."""
    return isinstance(array, np.ndarray) and array.shape == given["logits"].shape


def moved(given, axis, copied=True):
    """Return the inputs with the classes on another axis, as arrays of their own or as views."""
    turned = {
        name: np.moveaxis(value, -1, axis) if is_whole(name, value, given) else value
        for name, value in given.items()
    }
    if copied:
        turned = {
            name: value.copy() if is_whole(name, value, turned) else value
            for name, value in turned.items()
        }
    return turned | {"axis": axis}


def laid_out(given, layout, names=None):
    """Return the inputs of those names, or all, as `layout` lays arrays out."""
    return {
        name: layout(value)
        if isinstance(value, np.ndarray) and (names is None or name in names)
        else value
        for name, value in given.items()
    }


def arrays_of(given):
    return [name for name, value in given.items() if isinstance(value, np.ndarray)]


def rows_of(given, chosen):
    """Return the inputs of some rows, of two-dimensional logits; of an integer, of one row."""
    few = {}
    for name, value in given.items():
        if isinstance(value, sparse.sparray):
            few[name] = value[[chosen]].toarray()[0] if isinstance(chosen, int) else value[chosen]
        elif name in ("logits", "second", "sample_weight", "where", "scale"):
            few[name] = value[chosen]
        else:
            few[name] = value
    return few


def back(call, results, axis):
    """Return results with the classes last."""
    return {
        name: np.moveaxis(result, axis, -1) if name in call.about.whole else result
        for name, result in results.items()
    }


def room_for(call, want, layout=np.copy, fill=77):
    """Return an `out` for those results, and its arrays by the names of the results."""
    places = {
        name: layout(np.full(np.shape(want[name]), fill, np.asarray(want[name]).dtype))
        for name in call.out
    }
    return (tuple(places.values()) if len(places) == 2 else places[call.out[0]]), places


# What a test over the registry goes through: both native dtypes with and without options, those
# of sixteen bits each with one of the two. Where arrays are large, a half of that.
ALL = [(dtype, options) for dtype in ("float32", "float64") for options in ((), "all")]
ALL += [("float16", ()), ("bfloat16", "all")]
LARGE = [("float32", ()), ("float32", "all"), ("float64", ()), ("float16", "all")]


def over_calls(only=lambda call: True, combinations=ALL):
    """Parametrize a test by a call's `name`, `dtype` and `options` (all of them, or none)."""
    some = [
        pytest.param(
            call.name, dtype, options, id=f"{call.name}, {dtype}{', options' * bool(options)}"
        )
        for call, (dtype, options) in product(CALLS, combinations)
        if only(call) and (call.takes or dtype == "bfloat16" or not options)
    ]
    return pytest.mark.parametrize(("name", "dtype", "options"), some)


def each_call(only=lambda call: True):
    """Parametrize a test by a `call`."""
    some = [call for call in CALLS if only(call)]
    return pytest.mark.parametrize("call", some, ids=[call.name for call in some])
