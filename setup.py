"""Build the extension modules: Cython for the loops, plain C for the kernels."""

import os
import re
import sys
import tempfile
import tomllib
from glob import glob
from importlib import metadata
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# The public address of the repository, such as https://github.com/OWNER/cysoftmax; "" while there
# is none. Fill it in before the first upload: an index shows README.md without the repository, so
# its links and pictures, and the project's, are made from this.
ADDRESS = ""

DEBUG = os.environ.get("CYSOFTMAX_DEBUG", "") not in ("", "0")

UNIX_FLAGS = [
    line for line in Path("src/flags.txt").read_text().splitlines() if not line.startswith("#")
]
MSVC_FLAGS = ["/std:c11", "/O2", "/fp:precise"]
# To compile and to link with. The second of "unix" is for Apple's clang, which brings no OpenMP of
# its own.
OPENMP_FLAGS = {
    "unix": [(["-fopenmp"], ["-fopenmp"]), (["-Xpreprocessor", "-fopenmp"], ["-lomp"])],
    "msvc": [(["/openmp"], [])],
}

# Leaves symbols out, which are five sixths of a wheel.
STRIP = ["-Wl,-s"]

PROBE = "int main(void) { return 0; }"
OPENMP_PROBE = """
#include <omp.h>
int main(void) { return omp_get_max_threads() > 0 ? 0 : 1; }
"""


def check_requirements():
    """End with a message unless a build has what pyproject.toml requires, which pip does not check
    without build isolation. Cython before 3.3 has bugs in prange."""

    def numbers(version):
        return [int(n) for n in re.findall(r"\d+", version)[:2]]

    for text in tomllib.loads(Path("pyproject.toml").read_text())["build-system"]["requires"]:
        name, least = text.split(">=")
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            found = "none"
        if numbers(found) < numbers(least):
            sys.exit(f"building cysoftmax needs {text}; got {found}")


def page(readme):
    """Return README.md for the page of an index: relative links and pictures lead to ADDRESS, or
    become plain text while there is none."""

    def absolute(match):
        picture, text, target = match.groups()
        if ADDRESS:
            return f"{picture}[{text}]({ADDRESS}/{'raw' if picture else 'blob'}/HEAD/{target})"
        return "" if picture else text

    return re.sub(r"(!?)\[([^]]*)\]\((?!https?:|#)([^)]*)\)", absolute, readme)


class Build(build_ext):
    """Find out by compiling what the compiler and the linker have, then build with it."""

    def finalize_options(self):
        super().finalize_options()
        # As many extension modules at a time as there are cores, which pip offers no option for.
        self.parallel = self.parallel or True

    def run(self):
        # Debuggers and profilers read symbols of what is built in place. (super().run() clears
        # `inplace` until the end.)
        self.symbols = DEBUG or self.inplace or self.editable_mode
        super().run()

    def build_extensions(self):
        check_requirements()
        import numpy as np
        from Cython.Build import cythonize

        kind = "msvc" if self.compiler.compiler_type == "msvc" else "unix"
        flags = UNIX_FLAGS if kind == "unix" else MSVC_FLAGS
        openmp_compile, openmp_link = self.openmp_flags(kind)
        # Flags of the user, such as CFLAGS, come before these, in links, too: there -Ofast adds
        # code that flushes denormals.
        link = [*(flags if kind == "unix" else []), *openmp_link]
        if kind == "unix" and not self.symbols and self.links(PROBE, [], STRIP):
            link += STRIP
        modules = cythonize(
            self.extensions,
            compiler_directives={"boundscheck": DEBUG},
            build_dir="build/cython-debug" if DEBUG else "build/cython",
            force=DEBUG,
        )
        # What is older than this file is built anew: the times of sources say nothing of flags.
        stamp = Path(self.build_temp, "flags").resolve()
        tools = [getattr(self.compiler, name, "") for name in ("compiler_so", "linker_so")]
        commands = repr((tools, flags, openmp_compile, link, DEBUG))
        if not stamp.exists() or stamp.read_text() != commands:
            stamp.parent.mkdir(parents=True, exist_ok=True)
            stamp.write_text(commands)
        for extension, module in zip(self.extensions, modules, strict=True):
            extension.sources = module.sources
            extension.depends.append(str(stamp))
            extension.include_dirs.append(np.get_include())
            extension.extra_compile_args = [*flags, *openmp_compile]
            extension.extra_link_args = link
        super().build_extensions()

    def openmp_flags(self, kind):
        """Return the flags with which a program that uses OpenMP compiles, and links.

        CYSOFTMAX_OPENMP=1 requires OpenMP, 0 builds without it; unset, it is used if it is there.
        """
        wanted = os.environ.get("CYSOFTMAX_OPENMP", "")
        if wanted not in ("", "0", "1"):
            sys.exit(f"CYSOFTMAX_OPENMP must be 0, 1 or unset; got {wanted!r}")
        if wanted == "0":
            return [], []
        for flags in OPENMP_FLAGS[kind]:
            if self.links(OPENMP_PROBE, *flags):
                return flags
        if wanted:
            sys.exit("CYSOFTMAX_OPENMP=1 requires a compiler with OpenMP; this one has none")
        print("cysoftmax: no OpenMP found; building for one thread", file=sys.stderr)
        return [], []

    def links(self, program, compile_flags, link_flags):
        """Return whether a program compiles and links with these flags."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.c")
            source.write_text(program)
            try:
                objects = self.compiler.compile(
                    [str(source)], output_dir=folder, extra_postargs=compile_flags
                )
                self.compiler.link_executable(
                    objects, str(Path(folder, "probe")), extra_postargs=link_flags
                )
            except Exception:  # each compiler has errors of its own
                return False
            return True


# The modules that contain no kernels.
SMALL = (
    "_arrays",
    "_calls",
    "_check_sparse",
    "_checks",
    "_row_functions",
    "_threads",
    "_torch_few",
)


def extension(name, sources):
    return Extension(
        f"cysoftmax.{name}",
        [f"cysoftmax/{name}.pyx", *sources],
        include_dirs=["src", "cysoftmax/include"],
        depends=glob("src/*") + glob("cysoftmax/include/*"),
        define_macros=[
            ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
            ("CYSOFTMAX_DEBUG", "1" if DEBUG else "0"),
        ],
    )


setup(
    ext_modules=[
        extension("_core", sorted(glob("src/*.c"))),
        *(extension(name, []) for name in SMALL),
    ],
    cmdclass={"build_ext": Build},
    long_description=page(Path("README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
    project_urls={
        "Source": ADDRESS,
        "Issues": f"{ADDRESS}/issues",
        "Changelog": f"{ADDRESS}/blob/HEAD/CHANGELOG.md",
    }
    if ADDRESS
    else {},
)
