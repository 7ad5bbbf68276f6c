"""How far from what is possible, and how far from SciPy? Ratios within one run, in turns.

A slower machine makes both sides slower, so these numbers stay comparable for years.
"""

import numpy as np

from benchmarks import cases, timing
from benchmarks.shapes import AXIS_0, DTYPES, SHAPES

LARGE = [elements for elements in SHAPES if elements > 1000]


class _Ratio:
    function = None
    axis = -1
    param_names = ("dtype", "elements")

    def setup(self, dtype, elements):
        self.call = cases.checked(self.function, dtype, elements, self.axis)


class _RatioToCopy(_Ratio):
    """Time over that of a streaming copy of the logits, on as many threads; 1 is the limit."""

    params = (DTYPES, LARGE)
    unit = "copies"

    def track_ratio(self, dtype, elements):
        logits = self.call.args[0]
        to, copy = np.zeros_like(logits), timing.streaming_copy()
        ours, limit = timing.shortest(self.call, lambda: copy(to, logits))
        np.testing.assert_array_equal(to, logits)
        return ours / limit


class _RatioToSciPy(_Ratio):
    """Time over that of the formula in SciPy and NumPy, which has one thread; below 1 is faster."""

    params = (DTYPES, list(SHAPES))
    unit = "of SciPy's time"

    def track_ratio(self, dtype, elements):
        problem = cases.Problem(dtype, SHAPES[elements], self.axis)
        ours, theirs = timing.shortest(self.call, problem.scipy_way(self.function), turns=1)
        return ours / theirs


class LossAndGradientToCopy(_RatioToCopy):
    function = "cross_entropy_with_grad"


class LossAndGradientToCopyAxis0(_RatioToCopy):
    function = "cross_entropy_with_grad"
    axis = 0
    params = (DTYPES, AXIS_0)


class SoftmaxToCopy(_RatioToCopy):
    function = "softmax"


class LossAndGradientToSciPy(_RatioToSciPy):
    function = "cross_entropy_with_grad"


class LossAndGradientToSciPyAxis0(_RatioToSciPy):
    function = "cross_entropy_with_grad"
    axis = 0
    params = (DTYPES, AXIS_0)


class SoftmaxToSciPy(_RatioToSciPy):
    function = "softmax"
