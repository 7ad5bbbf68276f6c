"""What does a call cost before it computes anything, and an import?

A benchmark with a `setup` is called once per sample, and the clock alone would add a tenth of a
microsecond: these have `setup_cache` instead, so that asv repeats the call within a sample.
"""

from functools import partial

from asv_runner.benchmarks.mark import SkipNotImplemented

import cysoftmax
from benchmarks import cases

FUNCTIONS = [*cases.SCIPY, "show_config"]
CLASSES = [2, 10, 100]


def missing(name):
    raise SkipNotImplemented(f"this commit has no {name}")


class Call:
    """One row of few classes, float32, into an array where there is one to give."""

    params = (FUNCTIONS, CLASSES)
    param_names = ("function", "classes")
    warmup_time = 0.05
    rounds = 1
    repeat = (5, 20, 0.2)

    def setup_cache(self):
        return {
            (name, n_classes): self.prepared(name, n_classes)
            for name in FUNCTIONS
            for n_classes in CLASSES
        }

    def prepared(self, name, n_classes):
        if not hasattr(cysoftmax, name):
            return partial(missing, name)
        if name == "show_config":
            return partial(cysoftmax.show_config, "dicts")
        problem = cases.Problem("float32", (1, n_classes))
        call = cases.prepared(name, problem)
        cases.check(name, problem, call())
        return call

    def time_call(self, calls, function, classes):
        calls[function, classes]()


class Import:
    """`import cysoftmax` in a new process, when NumPy is there already."""

    rounds = 1
    repeat = (5, 10, 2.0)

    def timeraw_import(self):
        return "import cysoftmax", "import numpy"
