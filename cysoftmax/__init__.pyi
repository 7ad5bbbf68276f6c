from collections.abc import Collection
from typing import Any, Generic, Literal, NamedTuple, Protocol, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import TypeVar

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

__version__: str

# The scalar type of bfloat16 is in the package ml_dtypes, which need not be installed.
_Real = NDArray[np.float16] | NDArray[np.float32] | NDArray[np.float64] | NDArray[Any]
_Reduction = Literal["mean", "sum", "none"]
_Loss = TypeVar("_Loss", bound=float | _Real, covariant=True, default=float | _Real)

# A tuple can be subscripted when the program runs, too.
class CrossEntropy(NamedTuple, Generic[_Loss]):
    loss: _Loss
    grad: _Real

class GradHess(NamedTuple):
    grad: _Real
    hess: _Real

class LinearCrossEntropy(NamedTuple):
    loss: float
    grad_W: _Real | None
    grad_bias: _Real | None
    grad_X: _Real | None

class RowStats(NamedTuple):
    logsumexp: _Real
    loss: _Real | None
    entropy: _Real
    argmax: NDArray[np.intp]
    max_prob: _Real
    target_prob: _Real | None

class OnlineSoftmax:
    @classmethod
    def of(
        cls,
        block: ArrayLike,
        /,
        *,
        axis: int = -1,
        temperature: float = 1.0,
        where: ArrayLike | None = None,
        n_threads: int | None = None,
    ) -> Self: ...
    def merge(self, other: OnlineSoftmax, /) -> Self: ...
    @property
    def max(self) -> _Real: ...
    @property
    def logsumexp(self) -> _Real: ...
    def softmax(
        self,
        block: ArrayLike,
        /,
        *,
        axis: int = -1,
        where: ArrayLike | None = None,
        out: _Real | None = None,
        n_threads: int | None = None,
    ) -> _Real: ...
    def log_softmax(
        self,
        block: ArrayLike,
        /,
        *,
        axis: int = -1,
        where: ArrayLike | None = None,
        out: _Real | None = None,
        n_threads: int | None = None,
    ) -> _Real: ...
    def cross_entropy(
        self,
        target_logit: ArrayLike,
        /,
        *,
        sample_weight: ArrayLike | None = None,
        z_loss: float = 0.0,
        reduction: _Reduction = "mean",
    ) -> float | _Real: ...
    def cross_entropy_grad(
        self,
        block: ArrayLike,
        target: ArrayLike,
        /,
        first_class: int = 0,
        *,
        axis: int = -1,
        sample_weight: ArrayLike | None = None,
        ignore_index: int | None = None,
        z_loss: float = 0.0,
        where: ArrayLike | None = None,
        reduction: _Reduction = "mean",
        scale: ArrayLike = 1.0,
        out: _Real | None = None,
        n_threads: int | None = None,
    ) -> _Real: ...

class _Sparse(Protocol):
    def tocsr(self) -> Any: ...

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
@overload
def cross_entropy(
    logits: ArrayLike,
    target: ArrayLike | _Sparse,
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
    reduction: Literal["mean", "sum"] = "mean",
    out: None = None,
    n_threads: int | None = None,
) -> float: ...
@overload
def cross_entropy(
    logits: ArrayLike,
    target: ArrayLike | _Sparse,
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
    reduction: Literal["none"],
    out: _Real | None = None,
    n_threads: int | None = None,
) -> _Real: ...
def cross_entropy_grad(
    logits: ArrayLike,
    target: ArrayLike | _Sparse,
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
    scale: ArrayLike = 1.0,
    out: _Real | None = None,
) -> _Real: ...
@overload
def cross_entropy_with_grad(
    logits: ArrayLike,
    target: ArrayLike | _Sparse,
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
    reduction: Literal["mean", "sum"] = "mean",
    n_threads: int | None = None,
    scale: ArrayLike = 1.0,
    out: _Real | None = None,
) -> CrossEntropy[float]: ...
@overload
def cross_entropy_with_grad(
    logits: ArrayLike,
    target: ArrayLike | _Sparse,
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
    reduction: Literal["none"],
    n_threads: int | None = None,
    scale: ArrayLike = 1.0,
    out: _Real | None = None,
) -> CrossEntropy[_Real]: ...
def cross_entropy_grad_hess(
    logits: ArrayLike,
    target: ArrayLike | _Sparse,
    /,
    *,
    axis: int = -1,
    class_weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    where: ArrayLike | None = None,
    out: tuple[_Real, _Real] | None = None,
    n_threads: int | None = None,
) -> GradHess: ...
def linear_cross_entropy(
    X: ArrayLike | _Sparse,
    W: ArrayLike,
    target: ArrayLike | _Sparse,
    /,
    *,
    bias: ArrayLike | None = None,
    class_weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    temperature: float = 1.0,
    reduction: Literal["mean", "sum"] = "mean",
    scale: ArrayLike = 1.0,
    wrt: Collection[Literal["W", "bias", "X"]] = ("W", "bias"),
    out: dict[str, _Real] | None = None,
    chunk_rows: int | None = None,
    n_threads: int | None = None,
) -> LinearCrossEntropy: ...
def row_stats(
    logits: ArrayLike,
    target: ArrayLike | _Sparse | None = None,
    /,
    *,
    axis: int = -1,
    ignore_index: int | None = None,
    where: ArrayLike | None = None,
    temperature: float = 1.0,
    n_threads: int | None = None,
) -> RowStats: ...
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
def get_include() -> str: ...
def address_of(name: str, /) -> int: ...
