"""The benchmarks: complete, checked, and able to see what they are there to see."""

import importlib
import inspect
import itertools
import json
import re
import sys
from functools import partial
from pathlib import Path

import bounds
import calls
import numpy as np
import pytest

import cysoftmax
from cysoftmax import _core

pytest.importorskip("asv_runner")
discovery = importlib.import_module("asv_runner.discovery")
pytestmark = pytest.mark.dashboard

ROOT = Path(__file__).parents[1]


@pytest.fixture
def suite(monkeypatch):
    """A function that imports a module of the benchmarks, anew in each test."""
    monkeypatch.syspath_prepend(str(ROOT))
    for name in [name for name in sys.modules if name.split(".")[0] == "benchmarks"]:
        monkeypatch.delitem(sys.modules, name)
    before = _core.active_isa()
    yield lambda name: importlib.import_module(f"benchmarks.{name}")
    _core.use_isa(before)


def speed_classes(suite):
    classes = [c for c in vars(suite("speed")).values() if inspect.isclass(c)]
    return [c for c in classes if not c.__name__.startswith("_")]


def results_of(cls, method):
    """Yield the results of a benchmark for all its parameters."""
    for params in itertools.product(*cls.params):
        benchmark = cls()
        if hasattr(benchmark, "setup"):
            try:
                benchmark.setup(*params)
            except NotImplementedError:
                continue
        yield params, getattr(benchmark, method)(*params)


# ---------------------------------------------------------------- completeness


def benchmark_names(suite):
    """Load all modules, as asv does, and return what it finds."""
    return [benchmark.name for benchmark in discovery.disc_benchmarks(str(ROOT / "benchmarks"))]


def test_the_suite_loads_while_each_public_function_has_a_benchmark(suite):
    assert len(benchmark_names(suite)) > 20


def test_the_benchmarks_know_each_function_that_the_tests_know(suite):
    assert set(suite("cases").SCIPY) == set(calls.FUNCTIONS)
    accuracy = suite("accuracy")
    assert set(accuracy.ERRORS) == set(bounds.BOUNDS)


def test_the_suite_refuses_to_load_when_a_public_function_has_no_benchmark(suite, monkeypatch):
    monkeypatch.setattr(cysoftmax, "hardmax", lambda x: x, raising=False)
    monkeypatch.setattr(cysoftmax, "__all__", [*cysoftmax.__all__, "hardmax"])
    with pytest.raises(ImportError, match=r"no benchmark in .* for hardmax"):
        benchmark_names(suite)


def test_the_suite_loads_with_an_older_library_and_skips_what_it_lacks(suite, monkeypatch):
    for name in ("softmax_vjp", "logsumexp"):
        monkeypatch.delattr(cysoftmax, name)
    present = [name for name in cysoftmax.__all__ if hasattr(cysoftmax, name)]
    monkeypatch.setattr(cysoftmax, "__all__", present)
    assert len(benchmark_names(suite)) > 20
    speed, overhead = suite("speed"), suite("overhead")
    for cls in (speed.SoftmaxVJP, speed.LogSumExp):
        with pytest.raises(NotImplementedError):
            cls().setup("float32", 10)
    speed.Softmax().setup("float32", 10)
    calls = overhead.Call().setup_cache()
    overhead.Call().time_call(calls, "softmax", 10)
    with pytest.raises(NotImplementedError):
        overhead.Call().time_call(calls, "softmax_vjp", 10)


def test_each_class_checks_and_calls_its_function(suite):
    for cls in speed_classes(suite):
        elements = cls.params[-1][0]
        params = [values[0] for values in cls.params[:-1]]
        benchmark = cls()
        try:
            benchmark.setup(*params, elements)
        except NotImplementedError:
            assert not hasattr(cysoftmax, cls.function)
            continue
        benchmark.time_call(*params, elements)


def test_each_benchmark_has_one_threshold_for_its_regressions(suite):
    lines = (ROOT / "asv.conf.json").read_text().splitlines()
    conf = json.loads("\n".join(line for line in lines if not line.lstrip().startswith("//")))
    for name in benchmark_names(suite):
        fitting = [p for p in conf["regressions_thresholds"] if re.match(p, name)]
        assert len(fitting) == 1, name


# ---------------------------------------------------------------- the check before the time


@pytest.mark.parametrize("name", ["softmax", "logsumexp", "cross_entropy_with_grad"])
def test_a_wrong_result_is_not_timed(suite, monkeypatch, name):
    right = getattr(cysoftmax, name)

    def wrong(*args, **options):
        result = right(*args, **options)
        array = result[1] if isinstance(result, tuple) else result
        array *= 1 + 1e-4
        return result

    monkeypatch.setattr(cysoftmax, name, wrong)
    with pytest.raises(AssertionError, match=name):
        suite("cases").checked(name, "float64", 10)


def test_a_row_that_is_wrong_only_in_its_repetition_is_not_timed(suite, monkeypatch):
    right = cysoftmax.softmax

    def wrong(x, *, axis, out):
        right(x, axis=axis, out=out)[-1, -1] *= 1 + 1e-6
        return out

    cases = suite("cases")
    shape = (1 << 18, 10)
    problem = cases.Problem("float64", shape)
    assert problem.period < shape[0]
    monkeypatch.setattr(cysoftmax, "softmax", wrong)
    with pytest.raises(AssertionError, match="the same row, another result"):
        cases.check("softmax", problem, cases.prepared("softmax", problem)())


def test_the_formula_of_each_option_has_the_derivative_it_says(suite):
    options, problem = suite("options"), suite("cases").Problem("float64", (4, 5))
    h = 1e-6
    for option in options.OPTIONS:
        if option == "scale":  # of the gradient only: no derivative
            continue
        formula = partial(options.formula, **options.keywords(option, problem))
        x, target = (
            problem.logits,
            options.target_of("labels" if option == "CSR" else option, problem),
        )
        _, grad = formula(x, target)
        for i, j in np.ndindex(x.shape):
            step = np.zeros_like(x)
            step[i, j] = h
            slope = (formula(x + step, target)[0] - formula(x - step, target)[0]) / (2 * h)
            assert grad[i, j] == pytest.approx(slope, abs=1e-8), option


SOME_SHAPES = [((4, 5), -1), ((1 << 18, 10), -1), ((3, 4, 7, 5), 1), ((6, 40), 0)]


@pytest.mark.parametrize(("shape", "axis"), SOME_SHAPES)
def test_each_option_is_checked_in_each_layout(suite, shape, axis):
    options, problem = suite("options"), suite("cases").Problem("float32", shape, axis)
    assert (problem.period < problem.n_rows) == (problem.logits.size > 1 << 20)
    for option in options.OPTIONS:
        if option == "CSR" and axis != -1:
            with pytest.raises(NotImplementedError, match="the classes last"):
                options.checked_call(option, problem)
            continue
        result = options.checked_call(option, problem)()
        wrong = (result.loss * 1.2, result.grad)
        with pytest.raises(AssertionError, match=option):
            options.check(option, problem, wrong)
        wrong = (result.loss, result.grad + 0.2 * np.abs(result.grad).max())
        with pytest.raises(AssertionError, match=option):
            options.check(option, problem, wrong)


def test_an_option_is_priced_beside_labels(suite, monkeypatch):
    options = suite("options")
    monkeypatch.setattr(options, "PRICED", {20: ((4, 5), -1)})
    for option in options.Options.params[0]:
        benchmark = options.Options()
        benchmark.setup(option, 20)
        assert 0 < benchmark.track_price(option, 20) < 1000


@pytest.mark.parametrize(("shape", "axis"), SOME_SHAPES)
def test_each_way_by_hand_gives_our_result(suite, shape, axis):
    tasks, problem = suite("tasks"), suite("cases").Problem("float32", shape, axis)
    peer = suite("compare.peers").ByHand()
    by_hand = [name for name in tasks.TASKS if hasattr(peer, name)]
    assert len(by_hand) == 7
    for name in by_hand:
        for call in tasks.checked_ways(name, problem, peer):
            tasks.check(name, problem, call())  # not the first: memory is used again


# ---------------------------------------------------------------- make price


@pytest.fixture
def price(suite, monkeypatch):
    """The program, with small shapes and no time."""
    price = suite("price")
    shapes = {"20x5": ((20, 5), -1), "2x5x3x4,axis=1": ((2, 3, 4, 5), 1)}
    monkeypatch.setattr(price, "NAMES", shapes)
    monkeypatch.setattr(price, "SECONDS", (0.0, 0.0))
    return price


def test_the_price_of_each_option_is_printed_as_markdown(price, capsys):
    price.main([])
    lines = capsys.readouterr().out.splitlines()
    tables = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    heads, _, first, second = tables[:4]
    assert [head.strip() for head in heads[2:]] == list(price.OPTIONS.values())
    assert first[0].strip() == "20 x 5"
    assert second[0].strip() == "2 x 5 x 3 x 4, axis=1"
    assert all(float(cell) > 0 for cell in first[1:])
    csr = 2 + list(price.OPTIONS).index("CSR")
    assert [i for i, cell in enumerate(second) if not cell.strip()] == [csr]
    heads, _, *rows = tables[4:]
    assert heads.count(" / hand ") == len(price.BY_HAND)
    assert all(float(cell) > 0 for line in rows for cell in line[1:])


def test_the_prices_are_written_between_the_marks(price, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{price.BEGIN}\nold\n{price.END}\n\nafter\n")
    price.main(["--shapes", "20x5", "--write", str(page)])
    text = page.read_text()
    assert text.startswith(f"before\n\n{price.BEGIN}\nThreads: ")
    assert text.endswith(f"|\n{price.END}\n\nafter\n")
    assert "old" not in text
    with pytest.raises(SystemExit, match="there must be one"):
        price.replaced("no marks", [])


def test_the_page_about_performance_has_a_place_for_the_prices(price):
    price.replaced((ROOT / "docs/performance.md").read_text(encoding="utf-8"), [])


# ---------------------------------------------------------------- make accuracy


@pytest.fixture
def errors(suite, monkeypatch):
    """The program, with few rows of few classes."""
    errors = suite("errors")
    monkeypatch.setattr(errors, "CLASSES", [2, 10])
    monkeypatch.setattr(errors, "ORACLE_ROWS", 2)
    return errors


def test_the_largest_errors_are_written_between_the_marks(errors, tmp_path, capsys):
    page = tmp_path / "page.md"
    begin, end = errors.markdown.marks("accuracy")
    page.write_text(f"before\n\n{begin}\nold\n{end}\n\nafter\n")
    errors.main(["--logits", "200", "--write", str(page)])
    text = page.read_text()
    assert text.startswith(
        f"before\n\n{begin}\ncysoftmax {cysoftmax.__version__}; 600 rows of each"
    )
    assert text.endswith(f"|\n{end}\n\nafter\n")
    assert "old" not in text
    for quantity in errors.BOUNDS:
        for dtype in errors.DTYPES:
            assert text.count(f"\n| {quantity} | {dtype} |") == 1
    assert len(re.findall(r"\n\| loss \| confident \|", text)) == 2


def test_our_errors_are_within_the_bounds_and_those_of_confident_rows_in_scipy_are_not(errors):
    found = errors.measured(np.dtype("float32"), {"SciPy": errors.of_scipy}, 2000)
    for isa, of_isa in found.ours.items():
        assert of_isa.keys() == errors.BOUNDS.keys()
        assert all(of_isa[name] <= bound.on(isa) for name, bound in errors.BOUNDS.items())
    assert found.beside["confident"]["SciPy"]["loss"] > 1e6
    assert found.beside["tiny differences"]["SciPy"]["softmax"] < 10


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "softmax_vjp"])
def test_the_largest_error_is_that_of_a_broken_kernel(errors, monkeypatch, name):
    eps = 16 * np.finfo("float64").eps
    monkeypatch.setattr(cysoftmax, name, nudged(getattr(cysoftmax, name), eps))
    found = errors.measured(np.dtype("float64"), {}, 200)
    assert all(of_isa[name] > 6 for of_isa in found.ours.values())


def test_units_are_those_of_each_dtype(errors):
    for name, bits in errors.DTYPES.items():
        dtype = errors.dtype_of(name)
        x = np.array([1, 1.5, 2, 0.75, 0], dtype=np.longdouble)
        want = np.ldexp([1, 1, 2, 0.5, 0], 1 - bits)
        assert np.all(errors.units(x, dtype)[:4] == want[:4])
        if name != "bfloat16":  # whose denormals NumPy does not know
            assert errors.units(x, dtype)[4] == np.finfo(dtype).smallest_subnormal


def test_the_page_about_accuracy_has_a_place_for_the_errors(errors):
    text = (ROOT / "docs/accuracy.md").read_text(encoding="utf-8")
    errors.markdown.replaced("accuracy", text, [])


# ---------------------------------------------------------------- what must be noticed


def nudged(function, eps):
    """The function with a kernel that is off by a few units in the last place."""

    def broken(*args, **options):
        result = function(*args, **options)
        arrays = result if isinstance(result, tuple) else (result,)
        for array in arrays:
            array *= 1 + eps
        return result

    return broken


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "name", ["softmax", "log_softmax", "logsumexp", "cross_entropy", "cross_entropy_grad"]
)
def test_an_inaccurate_kernel_raises_the_largest_error(suite, monkeypatch, name, dtype):
    accuracy = suite("accuracy").Accuracy
    monkeypatch.setattr(accuracy, "params", ([name], _core.available_isas(), [dtype], [10]))
    before = list(results_of(accuracy, "track_max_ulp"))
    assert len(before) == len(_core.available_isas())
    assert all(ulp <= bounds.BOUNDS[name].on(isa) for (_, isa, _, _), ulp in before)
    eps = 16 * np.finfo(dtype).eps
    monkeypatch.setattr(cysoftmax, name, nudged(getattr(cysoftmax, name), eps))
    after = [ulp for _, ulp in results_of(accuracy, "track_max_ulp")]
    assert min(after) > 8


def flips_a_bit_if(condition):
    """softmax, but for the last bit of the first row's first probability on a condition."""
    right = cysoftmax.softmax

    def broken(x, **options):
        p = right(x, **options)
        if condition(x, options):
            p[0, 0] = np.nextafter(p[0, 0], 2)
        return p

    return broken


BROKEN = {  # how, and in how many rows that shows
    "threads": (lambda x, options: (options.get("n_threads") or 1) > 1, 3),
    "batch": (lambda x, options: len(x) == 1, 20),
    "layout": (lambda x, options: not x.flags.c_contiguous, 4),
    "instruction set": (lambda x, options: _core.active_isa() == "avx2", 1),
}


@pytest.mark.parametrize("change", BROKEN)
def test_a_bit_that_depends_on_more_than_its_row_is_counted(suite, monkeypatch, change):
    if change == "instruction set" and not {"avx2", "avx512"} <= set(_core.available_isas()):
        pytest.skip("needs avx2 beside avx512")
    bits = suite("bits").Bits()
    assert bits.track_rows_that_differ(change, "float32", 1000) == 0
    condition, count = BROKEN[change]
    _core.use_isa("")
    monkeypatch.setattr(cysoftmax, "softmax", flips_a_bit_if(condition))
    assert bits.track_rows_that_differ(change, "float32", 1000) == count


def test_scratch_is_seen_in_bytes(suite, monkeypatch):
    memory = suite("memory").Memory()
    params = ("softmax", 32768 * 10)
    memory.setup(*params)
    before = memory.track_scratch(*params)
    right, size = cysoftmax.softmax, 32 << 20

    def greedy(x, **options):
        np.ones(size, np.uint8)
        return right(x, **options)

    monkeypatch.setattr(cysoftmax, "softmax", greedy)
    memory.setup(*params)
    assert memory.track_scratch(*params) - before == pytest.approx(size, rel=0.1)


# ---------------------------------------------------------------- ratios


@pytest.mark.parametrize("size", [1, 15, 16, 17, 1000, 100_003])
def test_the_streaming_copy_copies(suite, size):
    copy = suite("timing").streaming_copy()
    source = np.random.default_rng(0).integers(0, 255, size, np.uint8)
    to = np.zeros_like(source)
    copy(to, source)
    np.testing.assert_array_equal(to, source)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 1000, 100_003])
def test_the_streaming_read_reads_every_word(suite, size):
    words = np.random.default_rng(0).integers(0, 2**64, size, np.uint64)
    assert suite("timing").streaming_read()(words) == np.bitwise_xor.reduce(words)


def test_candidates_take_turns_and_the_first_turn_does_not_count(suite):
    called = []
    times = suite("timing").shortest(
        lambda: called.append("a"), lambda: called.append("b"), seconds=0, turns=2, share=0
    )
    assert called == ["a", "b"] * 3
    assert all(0 < seconds < 1 for seconds in times)


def test_ratios_are_about_one_for_the_same_work(suite, monkeypatch):
    ratios, cases = suite("ratios"), suite("cases")
    monkeypatch.setattr(
        cases, "SCIPY", {"softmax": lambda x, y, v, n: cysoftmax.softmax(x, out=out, n_threads=1)}
    )
    out = np.zeros((32768, 10), np.float32)
    logits = cases.Problem("float32", out.shape).logits
    benchmark = ratios.SoftmaxToSciPy()
    benchmark.call = partial(cysoftmax.softmax, logits, out=out, n_threads=1)
    assert 0.5 < benchmark.track_ratio("float32", 32768 * 10) < 2
