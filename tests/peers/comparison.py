"""What the comparisons share: the tolerance, the inputs, and the tables of docs/coming_from.md.

A table of three columns has a call of the peer, the call of cysoftmax that gives the same, and
the difference in convention, in which "not `call`" is a call that does not give the same. A
table of five columns has calls that differ, and what each of them gives.
"""

import itertools
import re
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import cysoftmax

RTOL = 1e-12
ATOL = 1e-14  # where the peer subtracts numbers near 1
PAGE = Path(__file__).parents[2] / "docs" / "coming_from.md"

rng = np.random.default_rng(0)


def agree(ours, theirs, atol=ATOL):
    """Assert the same shape and the same numbers, NaN and inf in the same places."""
    if isinstance(theirs, tuple):
        for pair in zip(ours, theirs, strict=True):
            agree(*pair, atol)
        return
    assert np.shape(ours) == np.shape(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=RTOL, atol=atol)


# ---------------------------------------------------------------- random and edge inputs


def with_minus_inf(x):
    """Put -inf into two thirds of the entries, but not of the first two classes."""
    x[:, 2:][rng.random(x[:, 2:].shape) < 2 / 3] = -np.inf
    return x


LOGITS = {
    "random": 3 * rng.standard_normal((40, 7)),
    "large": 1e8 * rng.standard_normal((40, 7)),
    "larger still": 1e300 * rng.uniform(-1, 1, (40, 7)),
    "equal": np.full((40, 7), 1e8),
    "far from zero": 1e6 + rng.standard_normal((40, 7)),
    "-inf": with_minus_inf(rng.standard_normal((40, 7))),
    "long rows": rng.standard_normal((3, 5000)),
    "one row": rng.standard_normal((1, 7)),
    "one class": rng.standard_normal((40, 1)),
    "no rows": np.zeros((0, 7)),
}


FINITE = {name: x for name, x in LOGITS.items() if np.isfinite(x).all()}


def some_labels(x):
    """A label for each row, none of them at -inf; the first is 1 if there are two classes."""
    scores = np.random.default_rng(1).random(x.shape) * (x > -np.inf)
    scores[:1, 1:2] = 1
    return scores.argmax(axis=1)


def some_class_weights(x):
    """Weights of which the first is 0, unless it is the only one."""
    weights = np.random.default_rng(2).uniform(0.5, 2, x.shape[1])
    weights[0] *= len(weights) == 1
    return weights


def some_sample_weights(x):
    """Weights of which every third is 0."""
    return np.random.default_rng(3).uniform(0.5, 2, len(x)) * (np.arange(len(x)) % 3 != 1)


def some_masses(x, total=None):
    """Distributions with zeros in them, which sum to `total` if that is given."""
    random = np.random.default_rng(4)
    masses = random.random(x.shape) * (random.random(x.shape) < 0.7)
    masses[:, 0] += 0.1
    return masses if total is None else total * masses / masses.sum(axis=1, keepdims=True)


def rounding_of_logits(x):
    """The error of a loss that is computed as logsumexp minus a logit, both of them rounded."""
    largest = np.abs(x, where=np.isfinite(x), out=np.zeros_like(x)).max(initial=0)
    return ATOL + 2 * np.finfo(float).eps * largest


# ---------------------------------------------------------------- the tables


def some_inputs():
    """The names that the page explains, as NumPy arrays."""
    random = np.random.default_rng(5)
    x, v = random.standard_normal((2, 6, 4))
    y = np.array([0, 1, 2, 3, 1, 0])
    y_padded = np.array([0, -100, 2, 3, -100, 0])
    masses = random.uniform(0.5, 2, (6, 4))
    m = random.random((6, 4)) < 0.6
    m[np.arange(6), y] = True
    m[:, 0] = True
    return {
        "x": x,
        "v": v,
        "y": y,
        "y_padded": y_padded,
        "masses": masses,
        "q": masses / masses.sum(axis=1, keepdims=True),
        "w": np.array([0.5, 2.0, 1.0, 3.0]),
        "s": np.array([1.0, 0.0, 2.0, 0.5, 1.0, 3.0]),
        "m": m,
        "r": np.array([True, False, True, True, False, True]),
        "images": random.standard_normal((2, 4, 4)),
        "pixels": random.integers(0, 4, (2, 4)),
    }


CONSTANTS = {"nan": np.nan, "inf": np.inf, "log": np.log, "np": np}


class Line(NamedTuple):
    """A line of a table: the cells of code without their backticks, and the last cell."""

    section: str
    number: int
    code: list[str]
    note: str


def all_lines():
    """Every line of every table of the page but for the headers."""
    section = ""
    numbered = enumerate(PAGE.read_text(encoding="utf-8").splitlines(), 1)
    for is_table, group in itertools.groupby(numbered, lambda line: line[1].startswith("|")):
        if not is_table:
            headings = [text for _, text in group if text.startswith("#")]
            section = headings[-1].strip("# ") if headings else section
            continue
        for number, text in itertools.islice(group, 2, None):
            *cells, note = (cell.strip() for cell in text.strip("|").split("|"))
            code = [re.fullmatch("`([^`]+)`", cell) for cell in cells]
            assert all(code), f"line {number}: each cell but the last is one piece of code"
            assert len(code) in (2, 4), f"line {number}: three or five columns"
            yield Line(section, number, [cell[1] for cell in code], note)


def lines_of(peer):
    """The lines of the section "From peer", as the parameters of a test."""
    found = [line for line in all_lines() if line.section == f"From {peer}"]
    assert found
    return [pytest.param(line, id=f"line {line.number}: {line.code[0]}") for line in found]


def outcome(code, names):
    """The value of an expression, or the class of the error about its arguments."""
    try:
        return eval(code, dict(names))
    except (ArithmeticError, IndexError, TypeError, ValueError) as error:
        return type(error)


def is_given(value, expected, to_numpy):
    """Whether a call gives what the page says, an array of one number being that number."""
    are_errors = isinstance(value, type), isinstance(expected, type)
    if any(are_errors):
        return all(are_errors) and issubclass(value, expected)
    return np.allclose(to_numpy(value), expected, rtol=RTOL, atol=1e-15, equal_nan=True)


def check_line(line, inputs, their_names, to_numpy=np.asarray):
    """Run the calls of a line and assert what the page says of them."""
    our_names = CONSTANTS | vars(cysoftmax) | inputs
    their_names = CONSTANTS | their_names
    with warnings.catch_warnings(action="ignore"):  # SciPy warns of what it gets wrong
        if len(line.code) == 4:
            theirs, they_give, ours, we_give = line.code
            assert is_given(outcome(theirs, their_names), eval(they_give, CONSTANTS), to_numpy)
            assert is_given(outcome(ours, our_names), eval(we_give, CONSTANTS), np.asarray)
            return
        theirs = eval(line.code[0], their_names)
        theirs = tuple(map(to_numpy, theirs)) if isinstance(theirs, tuple) else to_numpy(theirs)
        agree(eval(line.code[1], our_names), theirs)
        for wrong in re.findall("not `([^`]+)`", line.note):
            other = outcome(wrong, our_names)
            if not isinstance(other, type):
                with pytest.raises(AssertionError):
                    agree(other, theirs)
