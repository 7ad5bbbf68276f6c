"""What tests share: logits, targets, options, memory layouts, and what the same bits are."""

import bounds
import numpy as np
import pytest
import reference

import cysoftmax
from cysoftmax import _core

REAL = [np.float32, np.float64]
SIGNED = [np.int8, np.int16, np.int32, np.int64]
UNSIGNED = [np.uint8, np.uint16, np.uint32, np.uint64]
INTEGER = SIGNED + UNSIGNED
REDUCTIONS = ["mean", "sum", "none"]
LOSSES = [
    cysoftmax.cross_entropy,
    cysoftmax.cross_entropy_grad,
    cysoftmax.cross_entropy_with_grad,
]


def dtype_of(name):
    """The dtype of that name; the test is skipped if it is that of a package not there."""
    if name == "bfloat16":
        return np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    return np.dtype(name)


def cast(array, dtype):
    with np.errstate(all="ignore"):
        return array.astype(dtype)


def some_logits(shape, dtype=np.float64, seed=0):
    return (3 * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def some_labels(shape, n_classes, seed=0):
    return np.random.default_rng(seed).integers(0, n_classes, shape)


def some_masses(shape, seed=0):
    """Distributions that do not sum to one, with zeros in them, exact in float32."""
    return np.random.default_rng(seed).integers(0, 4, shape) / 8


def one_hot(labels, n_classes, dtype=np.float64):
    return (np.asarray(labels)[..., None] == np.arange(n_classes)).astype(dtype)


def many_rows(shape):
    """Whether some rows may be ignored, in different ways, and others still are there."""
    return np.prod(shape[:-1]) > 4


def some_mask(shape, seed=0):
    """True for about 7 classes of 10, and in each row for one; but in the last of many rows."""
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < 0.7
    np.put_along_axis(mask, rng.integers(0, shape[-1], (*shape[:-1], 1)), True, -1)
    if many_rows(shape):
        mask.reshape(-1, shape[-1])[-1] = False
    return mask


def some_options(shape, seed=0):
    """All options at once for logits of that shape, but ignore_index, reduction and scale.

    The weights of classes are exact in float32. The second of many rows has no weight.
    """
    rng = np.random.default_rng(seed)
    sample_weight = rng.uniform(0.2, 3, shape[:-1])
    if many_rows(shape):
        sample_weight.reshape(-1)[1] = 0
    return {
        "class_weight": rng.uniform(0.2, 3, shape[-1]).astype(np.float32).astype(np.float64),
        "sample_weight": sample_weight,
        "label_smoothing": 0.1,
        "z_loss": 1e-2,
        "temperature": 0.7,
        "where": some_mask(shape, seed),
    }


def some_scale(shape, seed=0):
    return np.random.default_rng(seed).uniform(-2, 2, shape[:-1])


def problem(shape, dtype, kind="labels", seed=0):
    """Logits, a target that is labels, masses or sparse, and all options at once for them."""
    x, options = some_logits(shape, dtype, seed), some_options(shape, seed)
    if kind == "labels":
        target = some_labels(shape[:-1], shape[-1], seed)
        options["where"] |= one_hot(target, shape[-1], bool)
        if many_rows(shape):
            options["ignore_index"] = int(target.reshape(-1)[0])
            options["where"].reshape(-1, shape[-1])[-1] = False
    else:
        target = some_masses(shape, seed) * options["where"]
    return x, target, options | {"scale": some_scale(shape, seed)}


def results(x, target, *, scale=1.0, **options):
    """What the three functions of the loss give, by name."""
    both = cysoftmax.cross_entropy_with_grad(x, target, scale=scale, **options)
    return {
        "loss": both.loss,
        "grad": both.grad,
        "loss alone": cysoftmax.cross_entropy(x, target, **options),
        "grad alone": cysoftmax.cross_entropy_grad(x, target, scale=scale, **options),
    }


def softmaxes(x, where, temperature=1.0, **options):
    """What the three functions of logits alone give, by name."""
    return {
        "softmax": cysoftmax.softmax(x, where=where, temperature=temperature, **options),
        "log_softmax": cysoftmax.log_softmax(x, where=where, temperature=temperature, **options),
        "logsumexp": cysoftmax.logsumexp(x, where=where, **options),
    }


def assert_same_bits(got, want, message=""):
    """The same dtype, shape and bits; a NaN may be any NaN."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.dtype == want.dtype, message
    assert got.shape == want.shape, message
    same = got.tobytes() == want.tobytes()  # the usual case, and quick
    if not same:
        bits = np.dtype(f"i{want.dtype.itemsize}")
        same = np.ascontiguousarray(got).view(bits) == np.ascontiguousarray(want).view(bits)
        same |= np.isnan(got) & np.isnan(want)
        differ = np.argwhere(~same)
        assert len(differ) == 0, f"{message} {len(differ)} of {got.size} differ, first {differ[0]}"


def assert_same_results(got, want, message=""):
    """The same names, and under each the same bits."""
    assert got.keys() == want.keys(), message
    for name in want:
        assert_same_bits(got[name], want[name], f"{message} {name}:")


def assert_formula(got_loss, got_grad, loss, grad, size):
    """A loss and a gradient with options are within their bounds; `size` is that of the terms."""
    isa, dtype = _core.active_isa(), got_grad.dtype
    assert reference.error_in_ulp(got_loss, loss, dtype) <= bounds.LOSS_WITH_OPTIONS.on(isa)
    error = np.abs(got_grad - grad) / reference.ulp(size, dtype)
    assert np.max(error, initial=0) <= bounds.GRAD_WITH_OPTIONS.on(isa)


# ---------------------------------------------------------------- layouts


def strided(a, step):
    """Every `step`-th entry of a larger array, along each axis."""
    memory = np.zeros(tuple(step * n for n in a.shape), a.dtype)
    view = memory[(slice(None, None, step),) * a.ndim]
    view[...] = a
    return view


def misaligned(a):
    view = np.frombuffer(bytearray(a.nbytes + 1), np.uint8, offset=1)
    view = view.view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def oddly_strided(a):
    """Strides that are no multiple of the size of an item."""
    view = np.zeros(a.shape, np.dtype([("before", "i1"), ("number", a.dtype)]))["number"]
    view[...] = a
    return view


def padded(a):
    """Room beside each row, that begins off a vec's boundary."""
    memory = np.zeros((*a.shape[:-1], a.shape[-1] + 5), a.dtype)
    view = memory[..., 2:-3]
    view[...] = a
    return view


def off_boundary(a):
    view = np.zeros(a.size + 3, a.dtype)[1:-2].reshape(a.shape)
    view[...] = a
    return view


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def byte_swapped(a):
    return a.astype(a.dtype.newbyteorder()) if a.dtype.isbuiltin == 1 else a.copy()


class Subclass(np.ndarray):
    pass


# Each gives an array of its own with the same values. An array of one dimension or none is laid
# out as far as that goes; a dtype of ml_dtypes has one byte order.
WRITEABLE = {
    "Fortran": lambda a: a.copy(order="F"),
    "reversed": lambda a: np.flip(np.flip(a).copy()),
    "reversed rows": lambda a: a[::-1].copy()[::-1],
    "every other": lambda a: strided(a, 2),
    "every third class": lambda a: np.repeat(a, 3, axis=-1)[..., ::3],
    "every other row": lambda a: np.repeat(a, 2, axis=0)[::2],
    "padded rows": padded,
    "off a vec's boundary": off_boundary,
    "misaligned": misaligned,
    "oddly strided": oddly_strided,
    "byte-swapped": byte_swapped,
    "byte-swapped Fortran": lambda a: np.asfortranarray(byte_swapped(a)),
    "subclass": lambda a: a.copy().view(Subclass),
}
LAYOUTS = WRITEABLE | {"read-only": read_only}
