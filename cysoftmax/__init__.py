"""Softmax, softmax cross-entropy and its gradient for NumPy arrays.

* ``softmax``, ``log_softmax``, ``logsumexp``: along any axis.
* ``cross_entropy``, ``cross_entropy_grad``, ``cross_entropy_with_grad``: the loss, its
  gradient, or both in one pass.
* ``cross_entropy_grad_hess``: the gradient and the diagonal of the Hessian, for boosting.
* ``linear_cross_entropy``: loss and gradients of logits ``X @ W + bias`` that never are all in
  memory.
* ``row_stats``: statistics of each row, such as loss, entropy and the largest probability.
* ``softmax_vjp``: the product of the softmax Jacobian and a vector.
* ``OnlineSoftmax``: what is known of rows of which only some classes have been seen.
* ``show_config``: the instruction set and the threads in use.
* ``get_include``, ``address_of``: functions of one row for C, C++, ctypes, cffi and numba;
  ``cimport cysoftmax`` has them for Cython.
"""

try:
    # Compiled code imports most of these; programs that freeze applications read Python alone.
    from cysoftmax import (  # noqa: F401
        _arrays,
        _calls,
        _check_sparse,
        _checks,
        _core,
        _row_functions,
        _threads,
    )
except ImportError:
    from importlib.util import find_spec

    if find_spec("cysoftmax._core"):
        raise
    raise ImportError(
        f"cysoftmax in {__path__[0]} is not built for this Python; build it first: make build, "
        "or pip install ."
    ) from None

from cysoftmax._api import (
    CrossEntropy,
    GradHess,
    LinearCrossEntropy,
    RowStats,
    cross_entropy,
    cross_entropy_grad,
    cross_entropy_grad_hess,
    cross_entropy_with_grad,
    linear_cross_entropy,
    log_softmax,
    logsumexp,
    row_stats,
    softmax,
    softmax_vjp,
)
from cysoftmax._compiled import address_of, get_include
from cysoftmax._config import show_config
from cysoftmax._online import OnlineSoftmax

__version__ = "0.1.0"

__all__ = [
    "CrossEntropy",
    "GradHess",
    "LinearCrossEntropy",
    "OnlineSoftmax",
    "RowStats",
    "address_of",
    "cross_entropy",
    "cross_entropy_grad",
    "cross_entropy_grad_hess",
    "cross_entropy_with_grad",
    "get_include",
    "linear_cross_entropy",
    "log_softmax",
    "logsumexp",
    "row_stats",
    "show_config",
    "softmax",
    "softmax_vjp",
]
