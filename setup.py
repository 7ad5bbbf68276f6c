"""Build the extension modules: Cython for the loops, plain C for the kernels."""

import os
import sys
import tempfile
from glob import glob
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEBUG = os.environ.get("CYSOFTMAX_DEBUG", "") not in ("", "0")

UNIX_FLAGS = [
    line for line in Path("src/flags.txt").read_text().splitlines() if not line.startswith("#")
]
MSVC_FLAGS = ["/std:c11", "/O2", "/fp:precise"]
# The second of "unix" is for Apple's clang, which brings no OpenMP of its own.
OPENMP_FLAGS = {
    "unix": [["-fopenmp"], ["-Xpreprocessor", "-fopenmp", "-lomp"]],
    "msvc": [["/openmp"]],
}

OPENMP_PROBE = """
#include <omp.h>
int main(void) { return omp_get_max_threads() > 0 ? 0 : 1; }
"""


class BuildWithOpenMP(build_ext):
    """Find out by compiling whether the compiler has OpenMP; build without it if not."""

    def build_extensions(self):
        kind = "msvc" if self.compiler.compiler_type == "msvc" else "unix"
        openmp = self.openmp_flags(kind)
        for extension in self.extensions:
            flags = UNIX_FLAGS if kind == "unix" else MSVC_FLAGS
            extension.extra_compile_args = [*flags, *(f for f in openmp if f != "-lomp")]
            extension.extra_link_args = [f for f in openmp if f != "-Xpreprocessor"]
        super().build_extensions()

    def openmp_flags(self, kind):
        """Return the flags with which a program that uses OpenMP compiles and links."""
        if os.environ.get("CYSOFTMAX_OPENMP", "1") == "0":
            return []
        for flags in OPENMP_FLAGS[kind]:
            with tempfile.TemporaryDirectory() as folder:
                source = Path(folder, "probe.c")
                source.write_text(OPENMP_PROBE)
                try:
                    objects = self.compiler.compile(
                        [str(source)],
                        output_dir=folder,
                        extra_postargs=[f for f in flags if f != "-lomp"],
                    )
                    self.compiler.link_executable(
                        objects,
                        str(Path(folder, "probe")),
                        extra_postargs=[f for f in flags if f != "-Xpreprocessor"],
                    )
                except Exception:  # each compiler has errors of its own
                    continue
                return flags
        print("cysoftmax: no OpenMP found; building for one thread", file=sys.stderr)
        return []


# The modules that need no kernels.
SMALL = ("_arrays", "_calls", "_check_sparse", "_checks", "_threads")


def extension(name, sources):
    return Extension(
        f"cysoftmax.{name}",
        [f"cysoftmax/{name}.pyx", *sources],
        include_dirs=["src", np.get_include()],
        depends=glob("src/*"),
        define_macros=[
            ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
            ("CYSOFTMAX_DEBUG", "1" if DEBUG else "0"),
        ],
    )


setup(
    ext_modules=cythonize(
        [
            extension("_core", sorted(glob("src/*.c"))),
            *(extension(name, []) for name in SMALL),
        ],
        compiler_directives={"boundscheck": DEBUG},
        build_dir="build/cython-debug" if DEBUG else "build/cython",
        force=DEBUG,
    ),
    cmdclass={"build_ext": BuildWithOpenMP},
)
