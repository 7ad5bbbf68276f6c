"""The docstrings and the README promise the bounds of bounds.py, and no others."""

import re
from pathlib import Path

import bounds
import calls
import pytest

import cysoftmax

ROOT = Path(__file__).parents[1]
SCALAR = "({0.scalar} with the instruction set ``scalar``)"

# What each docstring says of accuracy, in its order.
SAID = {
    "softmax": [("the error is at most {0.fused} ulp " + SCALAR, bounds.SOFTMAX)],
    "log_softmax": [("at most {0.fused} ulp, even where the result is close", bounds.LOG_SOFTMAX)],
    "logsumexp": [("at most {0.fused} ulp of the larger of the result and", bounds.LOGSUMEXP)],
    "cross_entropy": [("{0.fused} ulp of the dtype of the logits", bounds.LOSS)],
    "cross_entropy_grad": [],
    "cross_entropy_with_grad": [
        ("the error is at most {0.fused} ulp at the class of an index", bounds.GRAD_AT_LABEL),
        ("and {0.fused} ulp at the other classes " + SCALAR, bounds.GRAD_OF_OTHERS),
    ],
    "cross_entropy_grad_hess": [("its error is at most {0.fused} ulp " + SCALAR, bounds.HESS)],
    "linear_cross_entropy": [],
    "row_stats": [
        ("the probability of a label is at most {0.fused} ulp " + SCALAR, bounds.LABEL_PROB),
        ("distribution at most {0.fused} ulp", bounds.TARGET_PROB),
    ],
    "softmax_vjp": [("at most {0.fused} ulp of ``p *", bounds.VJP)],
}
WITH_OPTIONS = [
    ("the error of the loss of a row is at most {0.fused} ulp", bounds.LOSS_WITH_OPTIONS),
    ("at most {0.fused} ulp of the largest of its three terms", bounds.GRAD_WITH_OPTIONS),
]


@pytest.mark.parametrize("name", sorted(set(cysoftmax.__all__) - calls.COMPUTE_NOTHING))
def test_a_docstring_says_the_bounds_of_the_table_and_no_others(name):
    text = " ".join((getattr(cysoftmax, name).__doc__ or "").split())
    said = list(SAID.get(name, []))
    if "With all options" in text:
        said += WITH_OPTIONS
    for words, bound in said:
        assert words.format(bound) in text
    words = " ".join(words.format(bound) for words, bound in said)
    numbers = r"(\d+(?:\.\d+)?) (?:ulp|units in the last place)"
    assert sorted(re.findall(numbers, text)) == sorted(re.findall(numbers, words))
    assert text.count("instruction set ``scalar``") == words.count("instruction set ``scalar``")


def test_each_function_that_computes_has_its_bounds():
    functions = {name for name in cysoftmax.__all__ if name.islower()}
    assert set(SAID) == functions - calls.COMPUTE_NOTHING


def test_the_readme_says_the_bounds_of_the_table():
    text = " ".join((ROOT / "README.md").read_text().split())
    said = re.findall(
        r"within (\d+) units in the last place of the exact result \((\d+) without fused "
        r"multiply-add\) .*? losses within (\d+) \((\d+) with options\)",
        text,
    )
    table = *bounds.SOFTMAX, bounds.LOSS.fused, bounds.LOSS_WITH_OPTIONS.fused
    assert said == [tuple(map(str, table))]
    assert len(re.findall(r"units in the last place|\bulp\b", text)) == 1


# ---------------------------------------------------------------- docs/accuracy.md


def rows_of_accuracy_page():
    text = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_about_accuracy_promises_the_bounds_of_the_table():
    said = {cells[0]: re.findall(r"\d+", " ".join(cells[1:])) for cells in rows_of_accuracy_page()}
    for words, bound in [
        ("a probability", bounds.SOFTMAX),
        ("a logarithm of a probability", bounds.LOG_SOFTMAX),
        ("the gradient at the label", bounds.GRAD_AT_LABEL),
        ("the gradient elsewhere", bounds.GRAD_OF_OTHERS),
    ]:
        assert said[words] == [str(bound.fused), str(bound.scalar)], words
    loss = bounds.LOSS.fused, bounds.LOSS_WITH_OPTIONS.fused
    assert said["the loss of a row"] == [str(n) for n in (*loss, *loss)]


def test_no_error_of_the_page_about_accuracy_is_beyond_its_bound():
    rows = rows_of_accuracy_page()
    heads = next(cells for cells in rows if cells[:3] == ["result", "dtype", "bound (scalar)"])
    measured = [cells for cells in rows if cells[1] in ("float32", "float64")]
    assert len(measured) == 18
    for name, dtype, promised, *errors in measured:
        fused, scalar = map(int, re.findall(r"\d+", promised))
        for isa, error in zip(heads[3:], errors, strict=True):
            assert float(error) <= (scalar if isa == "scalar" else fused), (name, dtype, isa)
    sixteen = [cells for cells in rows if cells[1] in ("float16", "bfloat16")]
    assert len(sixteen) == 18
    assert all(float(error) < 3 for cells in sixteen for error in cells[3:])
