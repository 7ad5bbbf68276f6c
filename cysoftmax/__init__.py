"""Softmax, softmax cross-entropy and its gradient for NumPy arrays."""

from cysoftmax._api import (
    CrossEntropy,
    cross_entropy,
    cross_entropy_grad,
    cross_entropy_with_grad,
    log_softmax,
    logsumexp,
    softmax,
    softmax_vjp,
)
from cysoftmax._config import show_config

__all__ = [
    "CrossEntropy",
    "cross_entropy",
    "cross_entropy_grad",
    "cross_entropy_with_grad",
    "log_softmax",
    "logsumexp",
    "show_config",
    "softmax",
    "softmax_vjp",
]
