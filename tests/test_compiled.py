"""Extension modules that others build: each in a folder of its own, against the package alone.

The examples of docs/compiled.md and examples/hmm, and a module in C that calls every function.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from row_functions import PAGE, examples, of_arrays

import cysoftmax

ROOT = Path(__file__).parents[1]
COMPILER, COMPILER_OF_CPP = shutil.which("cc"), shutil.which("c++")

pytest.importorskip("Cython")
pytest.importorskip("setuptools")
pytestmark = [
    pytest.mark.xdist_group("compiled"),
    pytest.mark.skipif(
        COMPILER is None or COMPILER_OF_CPP is None or os.name != "posix",
        reason="needs compilers of C and C++ with flags like gcc's",
    ),
]
needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")

STRICT = "-std=c99 -Wall -Wextra -Wpedantic -Werror"
STRICT_CPP = "-std=c++11 -Wall -Wextra -Wpedantic -Werror"
SETUP = """
import sys, cysoftmax
from setuptools import Extension, setup
name, source = sys.argv.pop(1), sys.argv.pop(1)
flags = sys.argv.pop(1).split()
include = sys.argv.pop(1) or cysoftmax.get_include()
setup(ext_modules=[Extension(name, [source], include_dirs=[include], extra_compile_args=flags)])
"""


def run(folder, *command, **environment):
    """Run Python in a folder, with the package where it is imported from here."""
    path = os.pathsep.join([str(Path(cysoftmax.__file__).parents[1]), str(folder)])
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def succeed(result):
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.strip()


def build_module(folder, source, flags, include=""):
    """Build a module of one file, in C or C++, in a folder."""
    (folder / "setup.py").write_text(SETUP)
    command = ["setup.py", Path(source).stem, source, flags, include, "build_ext", "--inplace"]
    return run(folder, *command)


# ---------------------------------------------------------------- the page


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A folder with the files of the page, and the modules that its setup.py builds."""
    folder = tmp_path_factory.mktemp("page")
    for name, text in examples().items():
        (folder / name).write_text(text)
    succeed(run(folder, "setup.py", "build_ext", "--inplace"))
    return folder


def test_the_page_has_an_example_for_each_language():
    assert {Path(name).suffix for name in examples()} == {".pyx", ".c", ".cpp", ".py"}
    assert PAGE.count("```") == 2 * (len(examples()) + 1)  # and the prototypes


def test_the_page_has_the_prototypes_of_the_header():
    header = Path(cysoftmax.get_include(), "cysoftmax.h").read_text()
    pattern = r"^    ((?:void|double) \(\*\w+_f64\)\([^;]*;)"
    members = [re.sub(r"\s+", " ", member) for member in re.findall(pattern, header, re.M)]
    (block,) = re.findall(r"^```text\n(.*?)^```$", PAGE, re.M | re.S)
    assert re.sub(r"\s+", " ", block).replace("; ", ";\n").split("\n") == [
        re.sub(r"\(\*(\w+)\)", r"\1", member) for member in members
    ] + [""]


def test_the_example_in_cython_gives_the_bits_of_arrays(page):
    succeed(
        run(
            page,
            "-c",
            """
import numpy as np, cysoftmax, losses
x = np.random.default_rng(0).standard_normal((20, 30), dtype=np.float32)
labels = np.arange(20)
want = cysoftmax.cross_entropy(x, labels, reduction="none")
assert np.array_equal(losses.losses(x, labels), want)
every_third = x[:, 29::-3]
labels = labels % every_third.shape[1]
want = cysoftmax.cross_entropy(every_third, labels, reduction="none")
assert np.array_equal(losses.losses(every_third, labels), want)
""",
        )
    )


def test_the_example_in_c_gives_the_bits_of_arrays(page):
    succeed(
        run(
            page,
            "-c",
            """
import numpy as np, cysoftmax, lse
x = np.random.default_rng(0).standard_normal(3000)
for row in x, x[::2], x[::-7], x[:0]:
    assert lse.lse(row) == cysoftmax.logsumexp(row)
try:
    lse.lse(x.astype(np.float32))
except TypeError as error:
    assert str(error) == "x must be a row of float64"
else:
    raise AssertionError
""",
        )
    )


def test_the_example_in_cpp_draws_with_the_probabilities_of_softmax(page):
    succeed(
        run(
            page,
            "-c",
            """
import numpy as np, draw
logits = [1.0, 2.0, -np.inf, 0.0]
drawn = np.bincount([draw.draw(logits, seed) for seed in range(10_000)], minlength=4) / 10_000
p = np.exp(logits) / np.exp(logits).sum()
assert drawn[2] == 0
assert np.abs(drawn - p).max() < 0.03
""",
        )
    )


def test_the_example_for_ctypes_runs(page):
    succeed(run(page, "with_ctypes.py"))


def test_the_example_for_cffi_runs(page):
    pytest.importorskip("cffi")
    succeed(run(page, "with_cffi.py"))


# ---------------------------------------------------------------- every function, from C


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """A folder with the module that calls every function."""
    folder = tmp_path_factory.mktemp("driver")
    shutil.copy(ROOT / "tests" / "compiled" / "driver.c", folder)
    succeed(build_module(folder, "driver.c", "-pthread -Wall -Wextra -Werror"))
    return folder


def ask(driver, function, n, stride, **environment):
    code = f"import driver; print(driver.{function}({n}, {stride}))"
    return succeed(run(driver, "-c", code, **environment))


SIZES = [(10, 1), (10, 3), (1024, 1), (1000, 4), (2000, 2), (4000, 1)]
every_size = pytest.mark.parametrize(("n", "stride"), SIZES)


@every_size
def test_each_function_of_the_header_gives_the_bits_of_arrays(driver, n, stride):
    numbers = eval(ask(driver, "numbers", n, stride))  # bytes, as Python writes them
    for dtype, data in zip((np.float32, np.float64), numbers, strict=True):
        got = np.frombuffer(data, dtype)
        source = (np.arange(8000) * 7919 % 1000 / 64).astype(dtype)
        x, v, label, size = (
            source[: n * stride : stride],
            source[1:][::stride][:n],
            n // 2,
            n * stride,
        )
        rows = [got[k * size : (k + 1) * size : stride] for k in range(5)]
        loss, grad = of_arrays("cross_entropy_with_grad", x, label)
        p = of_arrays("softmax", x)[1]
        assert np.array_equal(rows[0], p)
        assert np.array_equal(rows[1], of_arrays("log_softmax", x)[1])
        assert np.array_equal(rows[2], grad)
        assert np.array_equal(rows[3], grad)
        assert np.array_equal(rows[4], of_arrays("softmax_vjp", p, v)[1])
        assert got[6 * size : 6 * size + 3].tolist() == [loss, of_arrays("logsumexp", x)[0], loss]


def test_a_number_is_rounded_in_the_default_mode(driver):
    code = "import driver; print(driver.flushed())"
    (got,) = np.frombuffer(eval(succeed(run(driver, "-c", code))), np.float32)
    assert got == of_arrays("logsumexp", np.array([0, -100, -103], np.float32))[0]
    assert 0 < got < np.finfo(np.float32).tiny


@every_size
def test_eight_threads_without_the_gil_get_the_same_bits(driver, n, stride):
    assert ask(driver, "differing", n, stride) == "0"


@needs_glibc
@every_size
def test_the_calls_take_the_stack_that_the_page_says(driver, n, stride):
    said = re.search(r"at most\s+(\d+) KiB of stack", PAGE)
    used = int(ask(driver, "stack_used", n, stride))
    assert 0 < used <= 1024 * int(said[1])


@needs_glibc
def test_the_calls_allocate_nothing(driver):
    counter = driver / "count_malloc.so"
    flags = ["-std=c11", "-O2", "-shared", "-fPIC"]
    subprocess.run([COMPILER, *flags, ROOT / "tests" / "count_malloc.c", "-o", counter], check=True)
    for n, stride in SIZES:
        calls, malloc = eval(ask(driver, "allocated", n, stride, LD_PRELOAD=str(counter)))
        assert calls == 0
        assert malloc >= 100


# ---------------------------------------------------------------- the header, the declarations

USE = """
#include <cysoftmax.h>
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "use", NULL, -1, NULL, NULL, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit_use(void) {
    if (cysoftmax_import() < 0) return NULL;
    return PyModule_Create(&module);
}
"""


@pytest.mark.parametrize(("suffix", "flags"), [(".c", STRICT), (".cpp", STRICT_CPP)])
def test_the_header_compiles_without_a_warning(tmp_path, suffix, flags):
    (tmp_path / f"use{suffix}").write_text(USE)
    command = ["-c", "import sysconfig; print(sysconfig.get_path('include'))"]
    python = succeed(run(tmp_path, *command))
    compiler = COMPILER if suffix == ".c" else COMPILER_OF_CPP
    headers = ["-isystem", python, "-I", cysoftmax.get_include()]
    flags = [*flags.split(), "-Wno-missing-field-initializers", *headers, "-fsyntax-only"]
    result = subprocess.run(
        [compiler, *flags, tmp_path / f"use{suffix}"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def change_header(text, pattern, by):
    text, found = re.subn(pattern, by, text, count=1, flags=re.M)
    assert found == 1
    return text


@pytest.mark.parametrize(
    ("pattern", "by", "message"),
    [
        (
            r"^#define CYSOFTMAX_ABI 1$",
            "#define CYSOFTMAX_ABI 2",
            "this module was compiled with a cysoftmax.h of ABI 2, but the cysoftmax that is "
            "installed has ABI 1: compile the module again, with the cysoftmax.h of that version",
        ),
        (
            r"^} cysoftmax_table;$",
            "void (*newer)(void); } cysoftmax_table;",
            r"this module was compiled with a cysoftmax.h whose table has 136 bytes, but the one "
            r"of the cysoftmax that is installed has 128: upgrade cysoftmax",
        ),
        (r"_row_functions\.TABLE", "_row_functions.NONE", "has no functions for compiled code"),
        (
            r'"cysoftmax\._row_functions\.TABLE"',
            '"cysoftmax_absent.TABLE"',
            "No module named 'cysoftmax_absent'|could not import module",
        ),
    ],
    ids=["other ABI", "newer header", "older library", "no library"],
)
def test_a_header_for_another_library_ends_the_import_with_a_sentence(
    tmp_path, pattern, by, message
):
    header = (Path(cysoftmax.get_include()) / "cysoftmax.h").read_text()
    (tmp_path / "cysoftmax.h").write_text(change_header(header, pattern, by))
    (tmp_path / "use.c").write_text(USE)
    succeed(build_module(tmp_path, "use.c", "-O0", str(tmp_path)))
    result = run(tmp_path, "-c", "import use")
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert re.match(r"(ImportError|ModuleNotFoundError): ", last), result.stderr
    assert re.search(message, last), last


def test_a_header_of_an_older_library_goes_on_working(tmp_path):
    """Its table is shorter."""
    header = (Path(cysoftmax.get_include()) / "cysoftmax.h").read_text()
    header = change_header(header, r"^    void \(\*softmax_vjp_f64\)[^;]*;\n", "")
    header = change_header(header, r"^#define cysoftmax_softmax_vjp_f64 .*\n", "")
    (tmp_path / "cysoftmax.h").write_text(header)
    (tmp_path / "use.c").write_text(USE)
    succeed(build_module(tmp_path, "use.c", "-O0", str(tmp_path)))
    succeed(run(tmp_path, "-c", "import use"))


CHANGED = """
cimport cysoftmax
from cysoftmax._row_functions cimport logsumexp_f64

def call():
    cdef double x = 1
    return logsumexp_f64(&x, 1, 1)
"""


def test_cython_says_which_signature_has_changed(tmp_path):
    """Against declarations of another version of the package."""
    package = tmp_path / "other" / "cysoftmax"
    package.mkdir(parents=True)
    here = Path(cysoftmax.__file__).parent
    for name in "__init__.py", "__init__.pxd", "_row_functions.pxd":
        shutil.copy(here / name, package)
    path = package / "_row_functions.pxd"
    path.write_text(
        change_header(
            path.read_text(),
            r"^cdef double logsumexp_f64\(const double \*x, ",
            "cdef double logsumexp_f64(const double *x, int more, ",
        )
    )
    text = CHANGED.replace("(&x, 1, 1)", "(&x, 0, 1, 1)")
    (tmp_path / "changed.pyx").write_text("# cython: language_level=3\n" + text)
    flags = ["-3", "-I", tmp_path / "other", "changed.pyx"]
    succeed(run(tmp_path, "-m", "cython", *flags, PYTHONPATH=""))
    succeed(build_module(tmp_path, "changed.c", "-O0"))
    result = run(tmp_path, "-c", "import changed")
    assert result.returncode == 1
    assert "logsumexp_f64 has wrong signature" in result.stderr


# ---------------------------------------------------------------- hidden Markov models


def test_the_hidden_markov_model_agrees_with_numpy_and_is_ten_times_as_fast_as_scipy(tmp_path):
    pytest.importorskip("scipy")
    folder = shutil.copytree(ROOT / "examples" / "hmm", tmp_path / "hmm")
    succeed(run(folder, "setup.py", "build_ext", "--inplace"))
    printed = succeed(run(folder, "demo.py", "--sequences", "8"))
    assert re.search(r"1 thread: +\d+\.\d\d ms, \d\d+ times as fast", printed), printed
    differences = re.findall(r"largest relative difference from \w+: (\S+)", printed)
    assert len(differences) == 2
    assert all(float(difference) <= 1e-13 for difference in differences)
