"""Each line of docs/coming_from.md belongs to a peer, and its tests go through all its lines.

This needs no peer, so it runs with the ordinary tests.
"""

from pathlib import Path

import numpy as np
import pytest
from comparison import Line, all_lines, check_line

FILES = {
    "From PyTorch": "test_pytorch.py",
    "From SciPy": "test_scipy.py",
    "From scikit-learn": "test_sklearn.py",
    "From optax": "test_optax.py",
}


def check(*code, note=""):
    x = np.array([[1.0, 2.0, 4.0], [0.0, -1.0, 1.0]])
    check_line(Line("", 0, list(code), note), {"x": x}, {"x": x})


def test_a_line_that_is_right_passes():
    check("np.log(np.exp(x).sum(axis=1))", "logsumexp(x)", note="not `logsumexp(x, axis=0)`")
    check("x[0] - x[0]", "0", "cross_entropy(x, [0, 3])", "IndexError")


@pytest.mark.parametrize(
    ("code", "note"),
    [
        (("x", "softmax(x)"), ""),
        (("x.sum()", "logsumexp(x)"), ""),  # another shape
        (("x", "x + 1e-11"), ""),
        (("x", "x"), "not `x`"),
        (("x", "1", "softmax(x).sum(axis=1)", "1"), ""),
        (("x - x", "0", "softmax(x).sum(axis=1)", "2"), ""),
        (("x - x", "0", "softmax(x)", "IndexError"), ""),
        (("x - x", "0", "cross_entropy(x, [0, 3])", "TypeError"), ""),
        (("x - x", "0", "cross_entropy(x, [0, 3])", "nan"), ""),
    ],
)
def test_a_line_that_is_wrong_fails(code, note):
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(*code, note=note)


def test_a_call_that_does_not_exist_is_never_taken_for_one_that_differs():
    with pytest.raises(NameError):
        check("x", "x", note="not `no_such_function(x)`")


def test_each_line_is_in_the_section_of_a_peer():
    assert {line.section for line in all_lines()} == FILES.keys()


def test_the_file_of_each_peer_goes_through_its_lines():
    for section, file in FILES.items():
        text = (Path(__file__).parent / file).read_text(encoding="utf-8")
        assert f'lines_of("{section.removeprefix("From ")}")' in text
        assert "check_line(line, " in text
