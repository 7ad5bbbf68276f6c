"""What a call of a function of one row costs beyond its kernels: `make time-rows`.

row_calls.pyx, which is built for it, calls both from loops of C.
"""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
BUILT = ROOT / "build" / "row_calls"
SETUP = """
import sys
import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

root = sys.argv.pop(1)
folders = [f"{root}/src", f"{root}/cysoftmax/include", numpy.get_include()]
extension = Extension("row_calls", ["row_calls.pyx"], include_dirs=folders)
setup(ext_modules=cythonize(extension, include_path=[root]))
"""


def build():
    """Return the compiled module."""
    BUILT.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "benchmarks" / "row_calls.pyx", BUILT)
    command = [sys.executable, "-c", SETUP, ROOT, "--quiet", "build_ext", "--inplace"]
    subprocess.run(command, cwd=BUILT, check=True)
    (path,) = BUILT.glob("row_calls.*.so")
    spec = importlib.util.spec_from_file_location("row_calls", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main():
    from cysoftmax import _core

    module = build()
    x = np.random.default_rng(0).standard_normal(3000)
    print("nanoseconds                                     kernels  call  more  strided")
    for isa in _core.available_isas():
        _core.use_isa(isa)
        for dtype in np.float32, np.float64:
            for n in 10, 1000:
                found = module.times(x.astype(dtype), n, 200 if n < 1000 else 10)
                for name, (kernels, call, strided) in found.items():
                    print(
                        f"{isa:7} {np.dtype(dtype).name} {n:5}  {name:24}{kernels:8.0f}{call:6.0f}"
                        f"{call - kernels:6.0f}{strided:9.0f}"
                    )


if __name__ == "__main__":
    main()
