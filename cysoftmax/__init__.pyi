from typing import Any, Literal, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

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

__version__: str

_Real = NDArray[np.float32] | NDArray[np.float64]
_Reduction = Literal["mean", "sum", "none"]

class CrossEntropy(NamedTuple):
    loss: float | _Real
    grad: _Real

def softmax(
    x: ArrayLike,
    /,
    *,
    axis: int = -1,
    temperature: float = 1.0,
    where: ArrayLike | None = None,
    out: _Real | None = None,
    n_threads: int | None = None,
) -> _Real: ...
def log_softmax(
    x: ArrayLike,
    /,
    *,
    axis: int = -1,
    temperature: float = 1.0,
    where: ArrayLike | None = None,
    out: _Real | None = None,
    n_threads: int | None = None,
) -> _Real: ...
def logsumexp(
    x: ArrayLike,
    /,
    *,
    axis: int = -1,
    keepdims: bool = False,
    where: ArrayLike | None = None,
    out: _Real | None = None,
    n_threads: int | None = None,
) -> _Real: ...
def cross_entropy(
    logits: ArrayLike,
    target: ArrayLike,
    /,
    *,
    axis: int = -1,
    class_weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    temperature: float = 1.0,
    where: ArrayLike | None = None,
    reduction: _Reduction = "mean",
    out: _Real | None = None,
    n_threads: int | None = None,
) -> float | _Real: ...
def cross_entropy_grad(
    logits: ArrayLike,
    target: ArrayLike,
    /,
    *,
    axis: int = -1,
    class_weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    temperature: float = 1.0,
    where: ArrayLike | None = None,
    reduction: _Reduction = "mean",
    n_threads: int | None = None,
    scale: float = 1.0,
    out: _Real | None = None,
) -> _Real: ...
def cross_entropy_with_grad(
    logits: ArrayLike,
    target: ArrayLike,
    /,
    *,
    axis: int = -1,
    class_weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    temperature: float = 1.0,
    where: ArrayLike | None = None,
    reduction: _Reduction = "mean",
    n_threads: int | None = None,
    scale: float = 1.0,
    out: _Real | None = None,
) -> CrossEntropy: ...
def softmax_vjp(
    p: ArrayLike,
    v: ArrayLike,
    /,
    *,
    axis: int = -1,
    out: _Real | None = None,
    n_threads: int | None = None,
) -> _Real: ...
@overload
def show_config(mode: Literal["stdout"] = "stdout") -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> dict[str, dict[str, Any]]: ...
