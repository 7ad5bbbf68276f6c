"""The comparison with other libraries: what it prints, draws, refuses and leaves out."""

import importlib
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import cysoftmax

pytest.importorskip("asv_runner")
pytestmark = pytest.mark.dashboard

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))
cases, tasks = (importlib.import_module(f"benchmarks.{name}") for name in ("cases", "tasks"))
peers, plot, run, table, worker = (
    importlib.import_module(f"benchmarks.compare.{name}")
    for name in ("peers", "plot", "run", "table", "worker")
)

HASTE = run.Effort(["softmax"], seconds=0, turns=1, too_slow=2.0)

MACHINE = {"cpu": "A CPU", "cores": 4, "threads": 2, "instruction set": "avx2", "load": 0.2}


def results_of(functions=("softmax",), shapes=("8192x1000",), dtypes=("float32",)):
    """What a run might have measured."""
    return {
        "machine": MACHINE.copy(),
        "versions": {"cysoftmax": "1.0", "PyTorch": "2.13.0", "JAX": "0.10.2"},
        "missing": ["ONNX Runtime"],
        "results": [
            {
                "function": function,
                "dtype": dtype,
                "shape": shape,
                "megabytes": 32.768,
                "seconds": {"copy": 2e-3, "read": 1e-3, "cysoftmax": 3e-3, "PyTorch": 0.0123},
                "median": {"copy": 2e-3, "read": 1e-3, "cysoftmax": 4e-3, "PyTorch": 0.016},
                "left out": {"JAX": "takes 2.5 s"},
            }
            for function in functions
            for dtype in dtypes
            for shape in shapes
        ],
    }


class Peer:
    """A library that gives softmax in some ways."""

    def __init__(self, *ways):
        self.ways = ways

    def __call__(self, n_threads):
        return self

    def softmax(self, problem):
        for way in self.ways:
            yield partial(way, problem.logits), np.asarray


class Here:
    """A library that works in this process; otherwise as `worker.Library`."""

    def __init__(self, peer):
        self.worker = worker.Worker(peer, 1)

    def ask(self, method, *args):
        self.answer = partial(getattr(self.worker, method), *args)

    def call(self, method, *args):
        self.ask(method, *args)
        return self.answer()


def right(x):
    return cysoftmax.softmax(x)


def compare(library, shape=(4, 10), effort=HASTE):
    problem = cases.Problem("float32", shape)
    return run.compare("softmax", "float32", (shape, -1), problem, {"Peer": library}, effort)


# ---------------------------------------------------------------- text


def test_the_median_can_be_told_instead(tmp_path, monkeypatch, capsys):
    assert list(table.lines(results_of(), "median"))[2].split()[2:5] == ["4", "2.00", "4"]
    (tmp_path / "results.json").write_text(json.dumps(results_of()))
    monkeypatch.setattr(sys, "argv", ["table", str(tmp_path / "results.json"), "median"])
    table.main()
    assert "2.00" in capsys.readouterr().out


def test_a_table_has_milliseconds_then_ratios():
    text = [line.split() for line in table.lines(results_of())]
    assert text[1] == ["copy", "cysoftmax", "/", "copy", "PyTorch"]
    assert text[2] == ["8192x1000", "2", "3", "1.50", "4.1", "x"]
    assert " ".join(text[3]) == "JAX: takes 2.5 s (8192x1000)"
    assert len(text) == 4


def test_what_only_reads_is_held_against_a_read_as_well():
    text = list(table.lines(results_of(["logsumexp"])))
    assert text[2].split()[:6] == ["8192x1000", "2", "1", "3", "1.50", "3.00"]


def test_each_function_and_dtype_has_a_table():
    results = results_of(run.FULL.tasks, ["1x10", "8192x1000"], ["float32", "float64"])
    text = "\n".join(table.lines(results))
    n_tables = 2 * len(table.TITLES)
    assert text.count("milliseconds") == n_tables
    assert text.count("\n8192x1000") == text.count("\n1x10") == n_tables
    assert text.count("JAX: takes 2.5 s (all)") == n_tables


def test_times_of_a_busy_machine_come_with_a_warning():
    results = results_of()
    assert not any("busy" in line for line in table.head(results))
    results["machine"]["load"] = 1.7
    assert "others keep 1.7 cores busy: do not believe the times" in table.head(results)


@pytest.mark.parametrize(
    ("number", "text"), [(1234.5, "1234"), (99.96, "100"), (12.34, "12.3"), (0.00012, "0.00012")]
)
def test_numbers_have_three_digits_and_no_exponent(number, text):
    assert table.significant(number) == text


# ---------------------------------------------------------------- what is refused and left out


def off(x):
    return right(x) * np.float32(1 + 1e-3)


def nan(x):
    p = right(x)
    p[-1, -1] = np.nan
    return p


def off_in_one_row(x):
    p = right(x)
    p[-1] = p[-1, ::-1].copy()
    return p


def too_few_rows(x):
    return right(x)[1:]


@pytest.mark.parametrize("wrong", [off, nan, off_in_one_row, too_few_rows])
@pytest.mark.parametrize("shape", [(4, 10), (1 << 18, 10)])
def test_a_library_that_gives_wrong_numbers_is_left_out_before_it_is_timed(
    monkeypatch, wrong, shape
):
    library = Here(Peer(right, wrong))
    monkeypatch.setattr(library.worker, "choose", lambda *_: pytest.fail("it was timed"))
    result = compare(library, shape)
    assert result["left out"]["Peer"].startswith("WRONG: the result ")
    assert "Peer" not in result["seconds"]


@pytest.mark.parametrize("name", ["the loss", "the gradient"])
def test_the_error_says_which_of_two_results_is_wrong(name):
    problem = cases.Problem("float64", (4, 10))
    loss, grad = cysoftmax.cross_entropy_with_grad(problem.logits, problem.labels)
    result = (loss * 1.001, grad) if name == "the loss" else (loss, grad + 1e-9)
    with pytest.raises(AssertionError, match=f"{name} is off by up to"):
        tasks.check("cross_entropy_with_grad", problem, result)
    tasks.check("cross_entropy_with_grad", problem, (loss, grad))


def test_a_library_that_is_not_installed_is_named(monkeypatch):
    class Missing:
        modules = ("numpy", "no_such_module")

    monkeypatch.setattr(peers, "PEERS", {"NumPy": peers.NumPy, "Missing": Missing})
    there, versions, missing = peers.installed()
    assert list(there) == ["NumPy"]
    assert versions == {"NumPy": np.__version__}
    assert missing == ["Missing"]
    assert "ONNX Runtime is not installed, and left out" in table.head(results_of())


def test_a_library_without_the_function_is_left_out():
    result = compare(Here(lambda n_threads: object()))
    assert result["left out"] == {"Peer": "has no such function here"}


def test_a_library_that_is_too_slow_is_left_out():
    result = compare(Here(Peer(right)), effort=HASTE._replace(too_slow=1e-9))
    assert result["left out"] == {"Peer": "takes 0.0 s"}
    assert set(result["seconds"]) == {"copy", "read", "cysoftmax"}


def test_a_library_without_memory_is_left_out(monkeypatch):
    monkeypatch.setattr(run, "fits", lambda n_bytes: n_bytes < run.ARRAYS * 160)
    assert compare(Here(Peer(right)))["left out"] == {"Peer": "not enough memory"}
    assert "Peer" in compare(Here(Peer(right)), (3, 10))["seconds"]


def test_the_fastest_way_of_a_library_counts():
    def slow(x):
        time.sleep(0.005)
        return right(x)

    for ways in ((slow, right), (right, slow)):
        library = worker.Worker(Peer(*ways), 1)
        library.prepare("softmax", "float32", (4, 10), -1)
        library.choose(2.0)
        assert library.calls[0].func is right


# ---------------------------------------------------------------- a process of its own


class Troubled:
    """Crashes, raises an error, or works without end, at its first call or at a later one."""

    def __init__(self, n_threads):
        self.calls = 0

    def later(self, x):
        """The first call is checked, the second one chosen, and so the third one is timed."""
        self.calls += 1
        if self.calls > 2:
            os.abort()
        time.sleep(0.03)  # longer than a turn
        return right(x)

    def softmax(self, problem):
        yield partial(self.later, problem.logits), np.asarray

    def cross_entropy(self, problem):
        yield os.abort, np.asarray

    def logsumexp(self, problem):
        raise RuntimeError("the first line\nthe second one")

    def log_softmax(self, problem):
        yield partial(time.sleep, 60), np.asarray


class Broken:
    def __init__(self, n_threads):
        raise ImportError("no such symbol")


@pytest.fixture
def troubled():
    library = worker.Library(Troubled, 1)
    yield library
    library.stop()


def prepare(library, task):
    library.call("prepare", task, "float32", (4, 10), -1)


def test_a_library_that_crashes_raises_and_is_started_again(troubled):
    for _ in range(2):
        with pytest.raises(tasks.UnsuitableError, match="crashed with exit code -6"):
            prepare(troubled, "cross_entropy")
    prepare(troubled, "softmax")
    troubled.call("choose", 1.0)


def test_a_library_that_crashes_while_it_is_timed_is_left_out(troubled):
    problem, shape = cases.Problem("float32", (4, 10)), ((4, 10), -1)
    libraries = {"Troubled": troubled, "NumPy": worker.Library(peers.NumPy, 1)}
    effort = HASTE._replace(turns=3)
    result = run.compare("softmax", "float32", shape, problem, libraries, effort)
    libraries["NumPy"].stop()
    assert result["left out"] == {"Troubled": "crashed with exit code -6"}
    assert set(result["seconds"]) == {"copy", "read", "cysoftmax", "NumPy"}


def test_an_error_of_a_library_is_a_reason(troubled):
    with pytest.raises(tasks.UnsuitableError, match=r"^fails: RuntimeError: the first line$"):
        prepare(troubled, "logsumexp")
    broken = worker.Library(Broken, 1)
    with pytest.raises(tasks.UnsuitableError, match=r"^fails: ImportError: no such symbol$"):
        prepare(broken, "softmax")
    broken.stop()


def test_a_library_that_works_without_end_is_stopped(troubled, monkeypatch):
    prepare(troubled, "softmax")
    monkeypatch.setattr(worker, "PATIENCE", 0.2)
    with pytest.raises(tasks.UnsuitableError, match="no result in 0 s"):
        prepare(troubled, "log_softmax")
    assert troubled.process is None


# ---------------------------------------------------------------- a run


def test_a_part_of_the_results_replaces_that_part():
    old = results_of(["softmax", "logsumexp"], ["1x10", "8192x1000"])
    new = results_of(["softmax"], ["8192x1000"])
    new["results"][0]["megabytes"] = 1.0
    both = run.merged(old, new)
    assert [r["function"] for r in both["results"]] == ["softmax", "logsumexp"] * 2
    assert [r["megabytes"] for r in both["results"]] == [32.768, 32.768, 1.0, 32.768]
    new["versions"]["JAX"] = "0.11"
    assert run.merged(old, new) == new
    new = results_of(["softmax"])
    new["machine"]["threads"] = 1
    assert run.merged(old, new) == new


def test_options_are_compared_at_some_shapes_or_at_those_that_are_asked_for():
    options = run.arguments([])
    assert run.chosen_tasks("1x10", options, run.FULL) == run.ON_ALL_SHAPES
    assert run.chosen_tasks("8192x1000", options, run.FULL) == list(table.TITLES)
    options = run.arguments(["--tasks", "one_hot", "--shapes", "1x10"])
    assert run.chosen_tasks("1x10", options, run.FULL) == ["one_hot"]
    assert set(run.OF_OPTIONS) < set(run.NAMES)
    assert set(table.TITLES) == {*run.ON_ALL_SHAPES, *plot.OPTIONS}


def test_each_shape_of_the_benchmarks_is_compared():
    shapes = importlib.import_module("benchmarks.shapes").SHAPES.values()
    assert {(shape, -1) for shape in shapes} | {((8192, 1000), 0)} < set(run.SHAPES)
    assert {"1x10", "32768x1000", "1000x8192,axis=0", "2x21x333x500,axis=1"} < set(run.NAMES)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_a_run_prints_what_it_writes(tmp_path):
    command = ["benchmarks.compare.run", "--shapes", "1x10", "--dtype", "float64", "--quick"]
    command += ["--threads", "1", "--json", tmp_path / "results.json"]
    result = subprocess.run(
        [sys.executable, "-m", *command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["machine"]["threads"] == 1
    assert set(peers.PEERS) == {*results["versions"], *results["missing"]} - {"cysoftmax"}
    assert {"cysoftmax", "NumPy", "SciPy"} <= set(results["results"][0]["seconds"])
    for line in (*table.head(results), *table.lines(results)):
        assert line in result.stdout


# ---------------------------------------------------------------- pictures


@pytest.fixture
def complete():
    return results_of(run.FULL.tasks, run.NAMES, plot.DTYPES)


def test_the_same_results_give_the_same_pictures(complete, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(complete))
    folders = [tmp_path / "here", tmp_path / "elsewhere"]
    for folder in folders:
        folder.mkdir()
    plot.write(complete, folders[0])
    subprocess.run(
        [sys.executable, "-m", "benchmarks.compare.plot", tmp_path / "results.json", folders[1]],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7"},
        check=True,
    )
    for name in plot.PICTURES:
        here, elsewhere = ((folder / name).read_bytes() for folder in folders)
        assert here == elsewhere
        assert b"dc:date" not in here


def test_the_pictures_name_shapes_and_libraries(complete, tmp_path):
    plot.write(complete, tmp_path)
    text = (tmp_path / "compare.svg").read_text(encoding="utf-8")
    for words in ("PyTorch", "cysoftmax", "8192×1000", "lower is faster", "the limit", "A CPU"):
        assert words in text
    assert "SciPy" not in text  # it has no times here
    roofline = (tmp_path / "roofline.svg").read_text(encoding="utf-8")
    for words in ("higher is faster", "GB/s", "logsumexp", "float64"):
        assert words in roofline


def test_every_library_has_a_mark_of_its_own():
    assert set(plot.MARKS) == {"cysoftmax", *peers.PEERS}
    assert len({colour for colour, _ in plot.MARKS.values()}) == len(plot.MARKS)
    assert len({mark for _, mark in plot.MARKS.values()}) == len(plot.MARKS)
