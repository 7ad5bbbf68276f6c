"""Build the module hmm: python setup.py build_ext --inplace

Cython finds the declarations of cysoftmax where Python finds the package; nothing is linked. The
flags of OpenMP are those of GCC and Clang. Without them everything runs, on one thread.
"""

from Cython.Build import cythonize
from setuptools import Extension, setup

OPENMP = ["-fopenmp"]

setup(
    name="hmm",
    ext_modules=cythonize(
        [Extension("hmm", ["hmm.pyx"], extra_compile_args=OPENMP, extra_link_args=OPENMP)]
    ),
)
