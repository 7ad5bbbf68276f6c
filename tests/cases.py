"""What the tests of the options share: logits, targets, options, and what is the same."""

import numpy as np

import cysoftmax

REAL = [np.float32, np.float64]
REDUCTIONS = ["mean", "sum", "none"]
LOSSES = [
    cysoftmax.cross_entropy,
    cysoftmax.cross_entropy_grad,
    cysoftmax.cross_entropy_with_grad,
]


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


def results(x, target, *, scale=1.0, **options):
    """What the three functions of the loss give, by name."""
    both = cysoftmax.cross_entropy_with_grad(x, target, scale=scale, **options)
    return {
        "loss": both.loss,
        "grad": both.grad,
        "loss alone": cysoftmax.cross_entropy(x, target, **options),
        "grad alone": cysoftmax.cross_entropy_grad(x, target, scale=scale, **options),
    }


def assert_same_bits(got, want, message=""):
    """The same dtype, shape and bits, but that a NaN may be any NaN."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.dtype == want.dtype, message
    assert got.shape == want.shape, message
    bits = np.dtype(f"i{want.dtype.itemsize}")
    same = np.ascontiguousarray(got).view(bits) == np.ascontiguousarray(want).view(bits)
    same |= np.isnan(got) & np.isnan(want)
    differ = np.argwhere(~same)
    assert len(differ) == 0, f"{message} {len(differ)} of {got.size} differ, first {differ[0]}"


def assert_same_results(got, want, message=""):
    for name in want:
        assert_same_bits(got[name], want[name], f"{message} {name}:")


# ---------------------------------------------------------------- layouts


def every_other(a):
    memory = np.zeros(tuple(2 * n for n in a.shape), a.dtype)
    memory[(slice(None, None, 2),) * a.ndim] = a
    return memory[(slice(None, None, 2),) * a.ndim]


def misaligned(a):
    view = np.frombuffer(bytearray(a.nbytes + 1), np.uint8, offset=1)
    view = view.view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def oddly_strided(a):
    view = np.zeros(a.shape, np.dtype([("before", "i1"), ("number", a.dtype)]))["number"]
    view[...] = a
    return view


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a
