"""How long does each function take? Results go into arrays that were used before.

`setup` is called before every sample, so what it makes is remembered in `cases`, and each sample
is one call. What takes less than 50 microseconds belongs into overhead.py.
"""

from benchmarks import accuracy, cases
from benchmarks.shapes import AXIS_0, DTYPES, SHAPES


class _Speed:
    function = None  # of the library
    axis = -1
    params = (DTYPES, list(SHAPES))
    param_names = ("dtype", "elements")
    warmup_time = 0.05
    rounds = 1
    repeat = (3, 30, 0.3)  # at least, at most, seconds

    def setup(self, dtype, elements):
        self.call = cases.checked(self.function, dtype, elements, self.axis)

    def time_call(self, dtype, elements):
        self.call()


class LossAndGradient(_Speed):
    """What a training step needs: both, from class indices, the mean over the rows."""

    function = "cross_entropy_with_grad"


class LossAndGradientAxis0(_Speed):
    """The same with the classes first, so that a row is a column of the array."""

    function = "cross_entropy_with_grad"
    axis = 0
    params = (DTYPES, AXIS_0)


class Loss(_Speed):
    """The loss alone: nothing is written."""

    function = "cross_entropy"


class Gradient(_Speed):
    """The gradient alone: no logarithms."""

    function = "cross_entropy_grad"


class GradientAndHessian(_Speed):
    """Gradient and diagonal of the Hessian, as gradient boosting wants them."""

    function = "cross_entropy_grad_hess"


class RowStats(_Speed):
    """Loss, entropy and largest probability of each row, in one read."""

    function = "row_stats"


class Softmax(_Speed):
    """Probabilities."""

    function = "softmax"


class SoftmaxAxis0(_Speed):
    """Probabilities with the classes first."""

    function = "softmax"
    axis = 0
    params = (DTYPES, AXIS_0)


class LogSoftmax(_Speed):
    """Their logarithms."""

    function = "log_softmax"


class LogSumExp(_Speed):
    """One number for each row: nothing large is written."""

    function = "logsumexp"


class SoftmaxVJP(_Speed):
    """Back through a softmax: two arrays are read, one is written."""

    function = "softmax_vjp"


class InstructionSets:
    """Loss and gradient on each instruction set of the machine."""

    function = "cross_entropy_with_grad"
    params = (accuracy.INSTRUCTION_SETS, DTYPES, [32768 * 10, 8192 * 1000])
    param_names = ("instruction set", "dtype", "elements")
    warmup_time, rounds, repeat = _Speed.warmup_time, _Speed.rounds, _Speed.repeat

    def setup(self, instruction_set, dtype, elements):
        accuracy.use(instruction_set)
        self.call = cases.checked(self.function, dtype, elements)

    def time_call(self, instruction_set, dtype, elements):
        self.call()
