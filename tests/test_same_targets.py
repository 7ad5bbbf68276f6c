"""Targets that say the same thing give the same bits: index, 0/1 matrix, distribution, CSR.

In every combination of the options, and against the formula: tests/options/test_combinations.py.
"""

from itertools import product

import numpy as np
import pytest
from calls import BY_NAME, inputs, over_calls
from cases import (
    REAL,
    assert_same_bits,
    assert_same_results,
    dtype_of,
    one_hot,
    some_labels,
    some_logits,
)
from scipy import sparse

import cysoftmax
from cysoftmax import _core

SHAPES = [
    (n_rows, n_classes)
    for n_rows in (1, 5, 16, 35)
    for n_classes in (1, 2, 3, 7, 16, 17, 31, 32, 33, 48, 49, 64, 65, 112, 113)
] + [
    (15, 3),
    (17, 40),
    (64, 40),
    (200, 10),
    (160, 60),
    (48, 192),
    (48, 193),
    (3, 1024),
    (3, 1025),
    (2, 2500),
]
LONG = [(2, 70_000), (1, 300_001)]


def of_labels(call):
    return call.second == "labels"


def matrices(call, given, matrix, doubled):
    """Inputs with the same matrix in several ways. One-hot rows are computed as labels are; those
    that are twice as large, and weigh half, are not; unless twice a term may overflow."""
    logits = given["logits"]
    yield given | {"second": matrix}
    yield given | {"second": np.asfortranarray(matrix.astype(np.int32))}
    yield given | {"second": sparse.csr_matrix(matrix.astype(float))}
    if doubled and "sample_weight" in call.takes:
        twice = 2 * matrix.astype(logits.dtype if logits.dtype.isbuiltin == 1 else np.float32)
        half = 0.5 * np.asarray(given.get("sample_weight", np.ones(len(logits))))
        yield given | {"second": twice, "sample_weight": half}
        yield given | {"second": sparse.csr_array(twice.astype(float)), "sample_weight": half}


def assert_all_are_the_same(call, given, message, doubled=True, **more):
    """Labels, and all ways to say the same, give the same bits."""
    want = call(given, **more)
    logits, labels = given["logits"], given["second"]
    matrix = one_hot(labels, logits.shape[1], bool)
    if "ignore_index" in given:
        matrix &= (labels != given["ignore_index"])[:, None]
    same = {name: value for name, value in given.items() if name != "ignore_index"}
    for i, another in enumerate(matrices(call, same, matrix, doubled)):
        got = call(another, **more)
        assert_same_results(got, want, f"{message} {logits.shape} {i} {more}")


@over_calls(of_labels)
def test_index_matrix_distribution_and_sparse_rows_give_the_same_bits(name, dtype, options, isa):
    call, dtype = BY_NAME[name], dtype_of(dtype)
    for shape in SHAPES:
        given = inputs(call, shape, dtype, options)
        assert_all_are_the_same(call, given, isa, **call.of_rows)
    for shape, reduction in product(SHAPES[::6], call.reductions[:-1]):
        given = inputs(call, shape, dtype, options)
        assert_all_are_the_same(call, given, isa, **call.keywords(reduction))


@over_calls(of_labels)
def test_they_give_the_same_bits_in_long_rows(name, dtype, options):
    call, dtype = BY_NAME[name], dtype_of(dtype)
    for shape in LONG:
        given = inputs(call, shape, dtype, options)
        for n_threads in 1, 2:
            assert_all_are_the_same(call, given, "", n_threads=n_threads, **call.of_rows)


@over_calls(lambda call: call.second == "distribution")
def test_a_distribution_and_its_sparse_rows_give_the_same_bits(name, dtype, options, isa):
    call, dtype = BY_NAME[name], dtype_of(dtype)
    for shape in SHAPES[::5] + LONG[:1] * (isa == _core.available_isas()[0]):
        given = inputs(call, shape, dtype, options) | call.of_rows
        want = call(given)
        random = np.random.default_rng(0).random(shape) * given["second"]
        for target in given["second"], random:
            want = call(given, second=target)
            got = call(given, second=sparse.csr_array(target), n_threads=1)
            assert_same_results(got, want, shape)


@over_calls(of_labels)
def test_index_and_matrix_give_the_same_bits_for_either_axis(name, dtype, options, isa):
    call, dtype = BY_NAME[name], dtype_of(dtype)
    for n_classes in 3, 40, 1100:
        given = inputs(call, (20, n_classes), dtype, options) | call.of_rows | {"axis": 0}
        ignored = given.pop("ignore_index", -1)
        turned = {key: given[key].T.copy() for key in given.keys() & {"logits", "where"}}
        matrix = one_hot(given["second"], n_classes) * (given["second"] != ignored)[:, None]
        more = {"ignore_index": ignored} if ignored != -1 else {}
        want = call(given, **turned, **more)
        assert_same_results(call(given, **turned, second=matrix.T.copy()), want, n_classes)


@pytest.mark.parametrize("scale", [0.0, 0.3, 1e-30, -1.0, -2.5])
@pytest.mark.parametrize("dtype", REAL)
def test_index_and_one_hot_give_the_same_bits_for_every_scale(dtype, scale, isa):
    for n_rows, n_classes in (20, 5), (4, 50):
        logits = some_logits((n_rows, n_classes), dtype)
        labels = some_labels(n_rows, n_classes)
        logits[1, :2] = -np.inf
        labels[1] = 2
        logits[2, labels[2]] += 1000  # all others underflow
        want = cysoftmax.cross_entropy_grad(logits, labels, scale=scale)
        got = cysoftmax.cross_entropy_grad(logits, one_hot(labels, n_classes), scale=scale)
        assert_same_bits(got, want)


@over_calls(of_labels)
def test_index_and_matrices_give_the_same_special_values(name, dtype, options, isa):
    call, dtype = BY_NAME[name], dtype_of(dtype)
    big, small = np.finfo(np.float32).max, 1e-42
    if dtype != np.float32:
        big = {"float64": np.finfo(np.float64).max, "float16": 65504}.get(dtype.name, 3e38)
    rows = [
        [0, np.nan, 1, 2],
        [0, np.inf, 1, 2],
        [-np.inf] * 4,
        [0, -np.inf, 1, 2],
        [-np.inf, 0, -np.inf, -np.inf],
        [big, -big, 0, big],
        [0, -1e30, 1e30, 5],
        [small, 0, small, 0],
    ]
    with np.errstate(over="ignore"):
        for n_classes in 4, 40, 1100:
            logits = np.full((8, n_classes), -np.inf)
            logits[:, :4] = rows
            logits = logits.astype(dtype)
            given = inputs(call, logits.shape, dtype, options)
            given = {key: value for key, value in given.items() if key != "ignore_index"}
            for label in range(4):
                given |= {"logits": logits, "second": np.full(8, label)}
                for reduction in call.reductions if n_classes == 4 else call.reductions[-1:]:
                    more = call.keywords(reduction)
                    assert_all_are_the_same(call, given, label, dtype != np.float64, **more)
                for row in range(8 * (n_classes == 4)):  # alone, where nothing else spoils the mean
                    one = {key: value[row : row + 1]
                           if key in ("logits", "second", "sample_weight", "where", "scale")
                           else value for key, value in given.items()}  # fmt: skip
                    for reduction in call.reductions:
                        more = call.keywords(reduction)
                        assert_all_are_the_same(call, one, row, dtype != np.float64, **more)
