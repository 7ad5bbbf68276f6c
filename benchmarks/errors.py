"""Print the largest errors of each function, as Markdown: `python -m benchmarks.errors --help`.

One table has ours for each dtype and instruction set, beside the bound that the docstrings promise;
another, for each kind of rows, ours beside those of SciPy, PyTorch and JAX. Exact results are those
of tests/reference.py in long double, which tests/exact.py checks in mpmath. benchmarks/accuracy.py
has the part of this that each commit is measured by.
"""

import argparse
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np

import cysoftmax
from benchmarks import markdown
from benchmarks.accuracy import bounds, of_the_tests, reference
from cysoftmax import _core

LONG = reference.LONG
CLASSES = [2, 10, 100, 1000, 10_000]
N_LOGITS = 100_000  # of each kind of rows and number of classes
DTYPES = {"float32": 24, "float64": 53, "float16": 11, "bfloat16": 8}  # bits of a significand
BESIDE = ["float32", "float64"]  # the dtypes that other libraries are asked for
ORACLE_ROWS = 30  # of each kind, in mpmath


def dtype_of(name):
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def units(exact, dtype):
    """Return the unit in the last place of a dtype at exact results; denormals have the least."""
    bits = DTYPES[dtype.name]
    least = {"float16": -13, "float64": -1021}.get(dtype.name, -125)  # as frexp counts
    exponent = np.where(exact == 0, least, np.frexp(np.abs(exact).astype(LONG))[1])
    exponent = np.maximum(exponent, least)
    return np.ldexp(LONG(1), exponent - bits)


# ---------------------------------------------------------------- rows


class Rows(NamedTuple):
    """Logits, labels, and for a product with the Jacobian, probabilities and vectors."""

    x: np.ndarray
    labels: np.ndarray
    p: np.ndarray
    v: np.ndarray


def kinds_of_rows(dtype, n_classes, n_rows):
    """Yield a name and Rows for each kind, the rows that are hard in different ways."""
    rng = np.random.default_rng(n_classes)
    normal = rng.standard_normal((n_rows, n_classes))
    labels = rng.integers(0, n_classes, n_rows)
    confident = normal.copy()
    confident[np.arange(n_rows), labels] += rng.uniform(10, 60, n_rows)
    digits = 2.0 ** (1 - DTYPES[dtype.name])
    for name, x in {
        "normal": normal * 3,
        "confident": confident,
        "wide range": normal * 30,
        "far from 0": normal * 3 + 1e4,
        "tiny differences": 1 + normal * digits * 8,
    }.items():
        logits = x.astype(dtype)
        p = reference.softmax(logits).astype(dtype)
        yield name, Rows(logits, labels, p, rng.standard_normal(x.shape).astype(dtype))


# ---------------------------------------------------------------- exact results


def exact_results(rows):
    """Return for each quantity its exact value, and the size that its error is relative to."""
    d, e, rest, shift = reference.parts(rows.x)
    total, at = 1 + rest, rows.labels[:, None]
    log_p = d - np.log1p(rest)
    sums = (shift + np.log1p(rest))[:, 0]
    p = e / total
    grad = reference.gradients(rows.x, rows.labels)
    elsewhere = grad.copy()
    np.put_along_axis(elsewhere, at, 0, -1)
    others = np.where(e == 1, rest, total - e)  # no subtraction where it would cancel
    hess = p * others / total
    dot = np.sum(rows.p.astype(LONG) * rows.v, axis=-1, keepdims=True)
    product = rows.p.astype(LONG) * (rows.v.astype(LONG) - dot)
    largest = rows.p.astype(LONG) * np.maximum(np.abs(rows.v.astype(LONG)), np.abs(dot))
    loss = -np.take_along_axis(log_p, at, -1)[:, 0]
    entropy = np.sum(np.where(e == 0, 0, -log_p) * p, axis=-1)
    at_label = np.take_along_axis(grad, at, -1)[:, 0]
    return {
        "softmax": (p, p),
        "log_softmax": (log_p, log_p),
        "logsumexp": (sums, np.maximum(np.abs(sums), np.abs(shift[:, 0]))),
        "loss": (loss, loss),
        "gradient at the label": (at_label, at_label),
        "gradient elsewhere": (elsewhere, elsewhere),
        "Hessian's diagonal": (hess, hess),
        "softmax_vjp": (product, largest),
        "entropy": (entropy, entropy),
    }


BOUNDS = {
    "softmax": bounds.SOFTMAX,
    "log_softmax": bounds.LOG_SOFTMAX,
    "logsumexp": bounds.LOGSUMEXP,
    "loss": bounds.LOSS,
    "gradient at the label": bounds.GRAD_AT_LABEL,
    "gradient elsewhere": bounds.GRAD_OF_OTHERS,
    "Hessian's diagonal": bounds.HESS,
    "softmax_vjp": bounds.VJP,
    "entropy": bounds.ENTROPY,
}


def oracle_error():
    """Return the largest error of the exact losses and gradients themselves, in ulp of float64."""
    exact = of_the_tests("exact")
    worst = 0.0
    for _, rows in kinds_of_rows(np.dtype("float64"), 10, ORACLE_ROWS):
        found = exact_results(rows)
        for i, label in enumerate(rows.labels):
            true = exact.row(rows.x[i], np.eye(10)[label], [1] * 10)
            pairs = [(found["loss"][0][i], true.loss)]
            pairs.append((found["gradient at the label"][0][i], true.grad[label]))
            for got, want in pairs:
                # A long double as two float64s, without another rounding.
                high = np.float64(got)
                error = exact.number(high) + exact.number(np.float64(got - high)) - want
                unit = units(np.array(got), np.dtype("float64"))
                worst = max(worst, abs(float(error)) / float(unit))
    return worst


# ---------------------------------------------------------------- the libraries


def split(grad, labels):
    """Return the entries of a gradient at the labels, and the gradient with 0 there."""
    at = labels[:, None]
    at_label = np.take_along_axis(grad, at, -1)[:, 0]
    elsewhere = grad.copy()
    np.put_along_axis(elsewhere, at, 0, -1)
    return {"gradient at the label": at_label, "gradient elsewhere": elsewhere}


def ours(rows):
    loss, grad = cysoftmax.cross_entropy_with_grad(rows.x, rows.labels, reduction="none")
    return {
        "softmax": cysoftmax.softmax(rows.x),
        "log_softmax": cysoftmax.log_softmax(rows.x),
        "logsumexp": cysoftmax.logsumexp(rows.x),
        "loss": loss,
        **split(grad, rows.labels),
        "Hessian's diagonal": cysoftmax.cross_entropy_grad_hess(rows.x, rows.labels).hess,
        "softmax_vjp": cysoftmax.softmax_vjp(rows.p, rows.v),
        "entropy": cysoftmax.row_stats(rows.x).entropy,
    }


def of_scipy(rows):
    from scipy import special, stats

    at = rows.labels[:, None]
    p, log_p = special.softmax(rows.x, axis=-1), special.log_softmax(rows.x, axis=-1)
    grad = p.copy()
    np.put_along_axis(grad, at, np.take_along_axis(p, at, -1) - 1, -1)
    return {
        "softmax": p,
        "log_softmax": log_p,
        "logsumexp": special.logsumexp(rows.x, axis=-1),
        "loss": -np.take_along_axis(log_p, at, -1)[:, 0],
        **split(grad, rows.labels),
        "Hessian's diagonal": p * (1 - p),
        "softmax_vjp": rows.p * (rows.v - np.sum(rows.p * rows.v, axis=-1, keepdims=True)),
        "entropy": stats.entropy(p, axis=-1),
    }


def of_pytorch(rows):
    import torch
    import torch.nn.functional as F  # noqa: N812

    x = torch.from_numpy(rows.x).requires_grad_()
    loss = F.cross_entropy(x, torch.from_numpy(rows.labels), reduction="none")
    loss.sum().backward()
    grad, x = x.grad.numpy(), x.detach()
    p, v = torch.from_numpy(rows.p), torch.from_numpy(rows.v)
    backward = torch.ops.aten._softmax_backward_data
    return {
        "softmax": F.softmax(x, dim=-1).numpy(),
        "log_softmax": F.log_softmax(x, dim=-1).numpy(),
        "logsumexp": torch.logsumexp(x, dim=-1).numpy(),
        "loss": loss.detach().numpy(),
        **split(grad, rows.labels),
        "softmax_vjp": backward(v, p, -1, x.dtype).numpy(),
        "entropy": torch.distributions.Categorical(logits=x).entropy().numpy(),
    }


def of_jax(rows):
    import jax
    import optax

    jax.config.update("jax_enable_x64", True)
    x, labels = jax.numpy.asarray(rows.x), jax.numpy.asarray(rows.labels)
    loss = optax.softmax_cross_entropy_with_integer_labels
    grad = jax.jit(jax.grad(lambda x: loss(x, labels).sum()))
    return {
        "softmax": np.asarray(jax.jit(jax.nn.softmax)(x)),
        "log_softmax": np.asarray(jax.jit(jax.nn.log_softmax)(x)),
        "logsumexp": np.asarray(jax.nn.logsumexp(x, axis=-1)),
        "loss": np.asarray(jax.jit(loss)(x, labels)),
        **split(np.asarray(grad(x)), rows.labels),
    }


def peers():
    """Return the other libraries that are installed, by name and version."""
    found = {}
    for name, package, function in [
        ("SciPy", "scipy", of_scipy),
        ("PyTorch", "torch", of_pytorch),
        ("JAX", "jax", of_jax),
    ]:
        try:
            version = metadata.version(package).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue
        found[f"{name} {version}"] = function
    return found


# ---------------------------------------------------------------- measuring


def errors_in_ulp(results, exact, dtype):
    """Return for each quantity the largest error in units of the last place."""
    found = {}
    for name, result in results.items():
        want, size = exact[name]
        # One number a row of 16-bit logits is float32.
        unit = units(size, result.dtype if dtype.itemsize == 2 else dtype)
        error = np.abs(result.astype(LONG) - want) / unit
        found[name] = float(np.max(error))
    return found


def worse(found, errors):
    """Note the errors that are larger than those found so far. A NaN stays."""
    for name, error in errors.items():
        found[name] = float(np.maximum(error, found.get(name, 0.0)))


class Found(NamedTuple):
    """Largest errors by quantity: of ours by instruction set, of all libraries by kind of rows."""

    ours: dict
    beside: dict
    n_rows: int


def measured(dtype, others, n_logits=N_LOGITS):
    """Return what was Found for a dtype, by all instruction sets and, for ours, all kinds."""
    found, beside, count = {}, {}, 0
    for n_classes in CLASSES:
        for kind, rows in kinds_of_rows(dtype, n_classes, max(2, n_logits // n_classes)):
            count += len(rows.x)
            exact = exact_results(rows)
            of_kind = beside.setdefault(kind, {})
            for isa in _core.available_isas():
                _core.use_isa(isa)
                errors = errors_in_ulp(ours(rows), exact, dtype)
                worse(found.setdefault(isa, {}), errors)
                worse(of_kind.setdefault("cysoftmax", {}), errors)
            for name, function in others.items():
                with np.errstate(all="ignore"):
                    errors = errors_in_ulp(function(rows), exact, dtype)
                worse(of_kind.setdefault(name, {}), errors)
    return Found(found, beside, count)


# ---------------------------------------------------------------- as Markdown


def written(error):
    """Return an error as text; a large one with a power of ten."""
    if error is None:
        return ""
    if not np.isfinite(error):
        return "NaN" if np.isnan(error) else "infinite"
    if error < 1000:
        return f"{error:.1f}" if error < 10 else f"{error:.0f}"
    digits, exponent = f"{error:.0e}".split("e")
    return f"{digits}e{int(exponent)}"


def tables(found):
    """Return both tables as lines."""
    isas = _core.available_isas()
    first = []
    for quantity, bound in BOUNDS.items():
        for dtype, of_dtype in found.items():
            promised = [f"{bound.fused} ({bound.scalar})"] if dtype in BESIDE else [""]
            errors = [written(of_dtype.ours[isa].get(quantity)) for isa in isas]
            first.append([quantity, dtype, *promised, *errors])
    lines = markdown.table(["result", "dtype", "bound (scalar)", *isas], first)
    for dtype in BESIDE:
        kinds = found[dtype].beside
        libraries = list(next(iter(kinds.values())))
        rows = [
            [quantity, kind, *(written(of_kind[name].get(quantity)) for name in libraries)]
            for quantity in BOUNDS
            for kind, of_kind in kinds.items()
        ]
        lines += ["", f"{dtype}, each kind of rows:", ""]
        lines += markdown.table(["result", "rows", *libraries], rows)
    return lines


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.errors", description=__doc__.partition(":")[0]
    )
    parser.add_argument("--logits", type=int, default=N_LOGITS, help="of each kind of rows")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables there, too")
    chosen = parser.parse_args(argv)
    if np.finfo(LONG).nmant < 63:
        raise SystemExit("error: a long double must have 64 bits here; it has those of a double")

    before = _core.active_isa()
    others = peers()
    found = {
        name: measured(dtype_of(name), others if name in BESIDE else {}, chosen.logits)
        for name in DTYPES
    }
    _core.use_isa(before)
    n_rows = found["float32"].n_rows
    lines = [
        f"cysoftmax {cysoftmax.__version__}; {n_rows:,} rows of each dtype: "
        f"{n_rows // len(found['float32'].beside):,} of each kind, of "
        f"{', '.join(f'{n:,}' for n in CLASSES)} classes. The exact results were themselves wrong "
        f"by at most {oracle_error():.4f} ulp of float64, compared with mpmath.",
        "",
        *tables(found),
    ]
    print("\n".join(lines))
    if chosen.write:
        chosen.write.write_text(markdown.replaced("accuracy", chosen.write.read_text(), lines))


if __name__ == "__main__":
    main()
