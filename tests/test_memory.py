"""Memory: a few rows for each thread, at most a mebibyte, and a number for each row.

That is all that a call needs beyond inputs and results. Every malloc of a process is counted,
NumPy's, the core's and that of all threads: in a process of its own, into which a counter is
preloaded. The same bytes every time, whatever the machine does.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import calls
import memory_of_calls
import pytest
from memory_of_calls import (
    LAYOUTS,
    all_cases,
    copied,
    long_bound,
    long_calls,
    tile_calls,
)

from cysoftmax import _threads

HERE = Path(__file__).parent
COMPILER = shutil.which("cc") or shutil.which("gcc")
CASES = {case.name: case for case in all_cases()}

pytestmark = [
    pytest.mark.xdist_group("memory"),
    pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="counts the malloc of glibc"),
    pytest.mark.skipif(COMPILER is None, reason="needs a C compiler"),
]


@pytest.fixture(scope="module")
def most_in_use(tmp_path_factory):
    """The bytes that each call of memory_of_calls.py had in use at most, by its name."""
    counter = tmp_path_factory.mktemp("counter") / "count_malloc.so"
    flags = ["-std=c11", "-O2", "-shared", "-fPIC"]
    subprocess.run([COMPILER, *flags, HERE / "count_malloc.c", "-o", counter], check=True)
    # Where variants of the build lie, and calls.py, which PYTHONSAFEPATH would not find.
    paths = [*filter(None, [os.environ.get("PYTHONPATH")]), str(HERE)]
    result = subprocess.run(
        [sys.executable, HERE / "memory_of_calls.py", counter],
        env={**os.environ, "LD_PRELOAD": str(counter), "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_each_function_that_computes_is_measured_in_each_layout_and_reduction():
    assert {function for function, _, _ in memory_of_calls.calls()} == set(calls.FUNCTIONS)
    assert {case.function for case in CASES.values()} == set(calls.FUNCTIONS)
    assert {case.layout for case in CASES.values()} == set(LAYOUTS)
    assert {case.reduction for case in CASES.values()} == {None, "mean", "sum", "none"}


def beyond(most_in_use, bounds):
    """Return the calls that had more bytes in use than their bound: both numbers, by name."""
    assert bounds
    return {
        name: (most_in_use[name], bound)
        for name, bound in bounds.items()
        if most_in_use[name] > bound
    }


def test_beyond_results_a_call_needs_a_few_rows_for_each_thread_and_a_number_for_each_row(
    most_in_use,
):
    assert not beyond(most_in_use, {name: case.bound for name, case in CASES.items()})


def test_in_place_nothing_of_the_size_of_the_logits_is_allocated(most_in_use):
    halves = {
        name: case.logits_bytes / 2 - 1 for name, case in CASES.items() if case.result == "in place"
    }
    assert not beyond(most_in_use, halves)


@pytest.mark.skipif(not _threads.OPENMP, reason="built without OpenMP")
def test_a_long_row_that_threads_share_out_needs_no_row_of_scratch(most_in_use):
    few = {
        name: case.result_bytes + case.row_bytes / 15 - 1
        for name, case in CASES.items()
        if case.shared
    }
    assert not beyond(most_in_use, few)


def test_beyond_results_a_thread_needs_a_mebibyte_however_long_rows_are(most_in_use):
    bounds = {name: long_bound(n_threads) for name, n_threads, _ in long_calls()}
    assert not beyond(most_in_use, bounds)


def test_beyond_results_a_thread_needs_a_mebibyte_for_rows_in_tiles(most_in_use):
    assert not beyond(most_in_use, {name: bound for name, bound, _ in tile_calls()})


# ---------------------------------------------------------------- what must be noticed


def test_what_numpy_allocates_is_counted(most_in_use):
    assert 1_000_000 <= most_in_use["a million bytes"] < 1_000_000 + 10_000


@pytest.mark.parametrize(("name", "size"), [(name, size) for name, _, size in copied()])
def test_a_copy_of_the_logits_is_counted(most_in_use, name, size):
    assert size <= most_in_use[name] < 1.1 * size


def test_a_copy_of_the_logits_would_not_fit_into_the_bound():
    for name, case in CASES.items():
        assert case.bound - case.result_bytes < case.logits_bytes, name
