"""What the build makes of flags and tools, and what a package tells an index and a user.

Most builds here are of a small project of one module, with the setup.py of this one.
"""

import email
import os
import re
import shutil
import subprocess
import sys
from modulefinder import ModuleFinder
from pathlib import Path

import pytest

import cysoftmax

ROOT = Path(__file__).parents[1]
COMPILER = shutil.which("cc") or shutil.which("gcc")
PACKAGE = Path(cysoftmax.__file__).parent
FILES = ["setup.py", "pyproject.toml", "README.md", "LICENSE"]

needs_compiler = pytest.mark.skipif(
    COMPILER is None or os.name != "posix", reason="needs a C compiler with flags like gcc's"
)

# Python does not fold these constants, and a compiler that may reorder sums or drop the sign of a
# zero does.
MODULE = '''
cdef extern from *:
    """
    #include "kernels.h"
    #ifdef _OPENMP
    #define OPENMP 1
    #else
    #define OPENMP 0
    #endif
    """
    enum: OPENMP

threads = bool(OPENMP)

def rounding_of(double x):
    return (x + 1e16) - 1e16

def plus_zero(double x):
    return x + 0.0
'''
CHECK = """
import math, sys
from cysoftmax import _core
assert _core.rounding_of(float(sys.argv[1])) == 0
assert math.copysign(1, _core.plus_zero(-0.0)) == 1
assert float("5e-324") * float(sys.argv[1]) > 0, "denormals are flushed"
print(_core.threads)
"""


@pytest.fixture
def project(tmp_path):
    """A folder with a project of one module, _core, and the setup.py and flags of this one."""
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path)
    for name in "flags.txt", "kernels.h":
        (tmp_path / "src").mkdir(exist_ok=True)
        shutil.copy(ROOT / "src" / name, tmp_path / "src")
    (tmp_path / "cysoftmax").mkdir()
    (tmp_path / "cysoftmax" / "__init__.py").write_text('__version__ = "1.2.3"\n')
    (tmp_path / "cysoftmax" / "_core.pyx").write_text(MODULE)
    text, found = re.subn(
        r"^SMALL = \([^)]*\)", "SMALL = ()", (tmp_path / "setup.py").read_text(), flags=re.M
    )
    assert found == 1
    (tmp_path / "setup.py").write_text(text)
    return tmp_path


def run(project, *command, **environment):
    """Run Python with these arguments in the project."""
    kept = {k: v for k, v in os.environ.items() if not re.match("PYTHON|CFLAGS|LD|CYSOFTMAX", k)}
    return subprocess.run(
        [sys.executable, *command],
        cwd=project,
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def build(project, **environment):
    return run(project, "setup.py", "build_ext", "--inplace", **environment)


def check(project):
    """Run CHECK with the module that was built; return what it says about threads."""
    result = run(project, "-c", CHECK, "1")
    assert result.returncode == 0, result.stderr
    return result.stdout.strip() == "True"


@needs_compiler
@pytest.mark.parametrize(
    "flags",
    [
        "-Ofast",
        "-ffast-math",
        "-funsafe-math-optimizations",
        "-fassociative-math -fno-signed-zeros -fno-trapping-math",
        "-ffinite-math-only -freciprocal-math",
    ],
)
def test_flags_of_the_user_do_not_change_the_arithmetic(project, flags):
    result = build(project, CFLAGS=flags, LDFLAGS=flags)
    assert result.returncode == 0, result.stderr
    assert flags in result.stdout
    check(project)


@needs_compiler
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="x87 is a part of x86")
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("-mfpmath=387", "rounds to 24 and 53 bits"),
        ("-fsingle-precision-constant", "without -fsingle-precision-constant"),
    ],
)
def test_other_arithmetic_is_refused(project, flags, message):
    result = build(project, CFLAGS=flags)
    assert result.returncode != 0
    assert message in result.stderr


@needs_compiler
@pytest.mark.parametrize(("wanted", "builds"), [("1", False), (None, True), ("0", True)])
def test_openmp_may_be_required(project, wanted, builds):
    compiler = project / "without-openmp"
    compiler.write_text(f'#!/bin/sh\ncase "$*" in *openmp*) exit 1;; esac\nexec {COMPILER} "$@"\n')
    compiler.chmod(0o755)
    environment = {} if wanted is None else {"CYSOFTMAX_OPENMP": wanted}
    result = build(project, CC=str(compiler), **environment)
    assert (result.returncode == 0) == builds, result.stderr
    if builds:
        assert not check(project)
        assert ("building for one thread" in result.stderr) == (wanted is None)
    else:
        assert "CYSOFTMAX_OPENMP=1 requires a compiler with OpenMP" in result.stderr


def test_a_wrong_wish_for_openmp_is_an_error(project):
    result = build(project, CYSOFTMAX_OPENMP="yes")
    assert result.returncode != 0
    assert "CYSOFTMAX_OPENMP must be 0, 1 or unset; got 'yes'" in result.stderr


@pytest.mark.parametrize(
    ("name", "version", "needs"),
    [
        ("Cython", "3.0.12", "cython>=3.3"),
        ("numpy", "1.26.4", "numpy>=2.0"),
        ("setuptools", "76.1.0", "setuptools>=77"),
    ],
)
def test_an_older_tool_than_a_build_needs_is_refused(project, name, version, needs):
    tools = project / "tools" / f"{name}-{version}.dist-info"
    tools.mkdir(parents=True)
    (tools / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    result = build(project, PYTHONPATH=str(tools.parent))
    assert result.returncode != 0
    assert f"building cysoftmax needs {needs}; got {version}" in result.stderr


@needs_compiler
@pytest.mark.skipif(sys.platform != "linux", reason="looks for the symbol table of ELF")
def test_a_wheel_has_no_symbols_and_a_build_in_place_keeps_them(project):
    def has_symbols(folder):
        (module,) = folder.rglob("*.so")
        return b".symtab" in module.read_bytes()

    assert build(project).returncode == 0
    assert has_symbols(project / "cysoftmax")
    result = run(project, "setup.py", "build")
    assert result.returncode == 0, result.stderr
    assert not has_symbols(project / "build")


@needs_compiler
def test_other_flags_build_anew(project):
    def changed(**environment):
        before = {path: path.stat().st_mtime_ns for path in project.glob("cysoftmax/*.so")}
        result = build(project, **environment)
        assert result.returncode == 0, result.stderr
        return before != {path: path.stat().st_mtime_ns for path in project.glob("cysoftmax/*.so")}

    assert changed(CYSOFTMAX_OPENMP="0")
    assert not check(project)
    assert not changed(CYSOFTMAX_OPENMP="0")
    assert changed(CYSOFTMAX_OPENMP="0", CFLAGS="-O1")


def metadata_of(project, address):
    text = (project / "setup.py").read_text()
    text, found = re.subn(r'^ADDRESS = ".*"$', f'ADDRESS = "{address}"', text, flags=re.M)
    assert found == 1
    (project / "setup.py").write_text(text)
    result = run(project, "setup.py", "--quiet", "egg_info")
    assert result.returncode == 0, result.stderr
    return email.message_from_string(
        (project / "cysoftmax.egg-info" / "PKG-INFO").read_text(encoding="utf-8")
    )


def links(page):
    """Return the pictures and the other links of a page in Markdown."""
    found = re.findall(r"(!?)\[[^]]*\]\(([^)]*)\)", page)
    return [target for mark, target in found if mark], [t for mark, t in found if not mark]


def test_the_page_of_an_index_has_absolute_links(project):
    address = "https://example.org/someone/cysoftmax"
    metadata = metadata_of(project, address)
    pictures, others = links(metadata.get_payload())
    read_pictures, read_others = links((ROOT / "README.md").read_text(encoding="utf-8"))
    assert pictures == [f"{address}/raw/HEAD/{name}" for name in read_pictures]
    assert others == [f"{address}/blob/HEAD/{name}" for name in read_others]
    urls = dict(line.split(", ") for line in metadata.get_all("Project-URL"))
    assert urls["Source"] == address
    assert all(url.startswith(address) for url in urls.values())


def test_the_page_of_an_index_has_no_broken_links_without_an_address(project):
    metadata = metadata_of(project, "")
    assert links(metadata.get_payload()) == ([], [])
    assert "docs/derivation.md derives" in metadata.get_payload()
    assert metadata["Project-URL"] is None
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata["Author"]
    assert "Programming Language :: Python :: 3.11" in metadata.get_all("Classifier")


def test_the_links_of_the_readme_lead_to_files():
    pictures, others = links((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(pictures) >= 1
    assert len(others) >= 5
    for target in pictures + others:
        assert (ROOT / target.partition("#")[0]).is_file()


def test_python_code_imports_every_extension_module(tmp_path):
    """Programs that freeze applications see no imports of compiled code."""
    (tmp_path / "program.py").write_text("import cysoftmax, cysoftmax.torch\n")
    (tmp_path / "cysoftmax").symlink_to(PACKAGE)
    finder = ModuleFinder([str(tmp_path)])  # and not the modules of others
    finder.run_script(str(tmp_path / "program.py"))
    compiled = {f"cysoftmax.{path.stem}" for path in (ROOT / "cysoftmax").glob("*.pyx")}
    assert len(compiled) > 1
    assert compiled <= finder.modules.keys()


def test_an_unbuilt_package_says_how_to_build_it(tmp_path):
    (tmp_path / "cysoftmax").mkdir()
    for path in PACKAGE.glob("*.py"):
        shutil.copy(path, tmp_path / "cysoftmax")
    result = run(tmp_path, "-c", "import cysoftmax", PYTHONPATH=str(tmp_path))
    assert result.returncode != 0
    assert "build it first: make build" in result.stderr
    assert str(tmp_path) in result.stderr
    assert "circular" not in result.stderr


# mypy must refuse the lines that end in "# wrong", and no other.
TYPED = """
from typing import Literal

import numpy as np
from cysoftmax import CrossEntropy, cross_entropy, cross_entropy_with_grad

x, y = np.zeros((3, 4)), np.zeros(3, int)
loss: float = cross_entropy(x, y)
loss = cross_entropy(x, y, reduction="sum") + cross_entropy_with_grad(x, y).loss
loss, grad = cross_entropy_with_grad(x, y, reduction="mean", out=x)
each = cross_entropy(x, y, reduction="none", out=x[:, 0])[1:]
each = cross_entropy_with_grad(x, y, reduction="none").loss[1:]
loss = cross_entropy(x, y, reduction="none")  # wrong
each = cross_entropy(x, y, out=x[:, 0])  # wrong

def either(reduction: Literal["mean", "none"]) -> CrossEntropy:
    loss: float = cross_entropy(x, y, reduction=reduction)  # wrong
    return cross_entropy_with_grad(x, y, reduction=reduction)
"""


def test_the_stubs_know_the_type_of_a_loss(tmp_path):
    api = pytest.importorskip("mypy.api", reason="needs mypy")
    (tmp_path / "typed.py").write_text(TYPED)
    (tmp_path / "cysoftmax").symlink_to(PACKAGE)
    found, _, _ = api.run(["--strict", "--no-incremental", str(tmp_path / "typed.py")])
    errors = {int(line) for line in re.findall(r"typed\.py:(\d+): error", found)}
    lines = enumerate(TYPED.splitlines(), start=1)
    assert errors == {number for number, line in lines if line.endswith("# wrong")}, found
