from typing import Any

from numpy.typing import NDArray

# These functions check their arguments, so they accept any type; __init__.pyi has the valid types.
_Array = NDArray[Any]

def make_options(
    *,
    class_weight: Any = None,
    sample_weight: Any = None,
    ignore_index: Any = None,
    label_smoothing: Any = 0.0,
    z_loss: Any = 0.0,
    temperature: Any = 1.0,
    where: Any = None,
) -> Any: ...
def softmax(
    logits: Any, axis: Any, temperature: Any, where: Any, out: Any, n_threads: Any
) -> _Array: ...
def log_softmax(
    logits: Any, axis: Any, temperature: Any, where: Any, out: Any, n_threads: Any
) -> _Array: ...
def logsumexp(
    logits: Any, axis: Any, keepdims: Any, where: Any, out: Any, n_threads: Any
) -> _Array: ...
def cross_entropy(
    logits: Any,
    target: Any,
    axis: Any,
    options: Any,
    reduction: Any,
    out: Any,
    n_threads: Any,
) -> float | _Array: ...
def cross_entropy_grad(
    logits: Any,
    target: Any,
    axis: Any,
    options: Any,
    reduction: Any,
    scale: Any,
    out: Any,
    n_threads: Any,
) -> _Array: ...
def cross_entropy_with_grad(
    logits: Any,
    target: Any,
    axis: Any,
    options: Any,
    reduction: Any,
    scale: Any,
    out: Any,
    n_threads: Any,
) -> tuple[float | _Array, _Array]: ...
def cross_entropy_grad_hess(
    logits: Any,
    target: Any,
    axis: Any,
    options: Any,
    out: Any,
    n_threads: Any,
) -> tuple[_Array, _Array]: ...
def row_stats(
    logits: Any, target: Any, axis: Any, options: Any, n_threads: Any
) -> tuple[_Array, _Array | None, _Array, _Array, _Array, _Array | None]: ...
def totals_of_block(
    block: Any, axis: Any, temperature: Any, where: Any, n_threads: Any
) -> tuple[_Array, Any, float]: ...
def merge_totals(a: Any, b: Any, temperature: Any) -> _Array: ...
def softmax_of_block(
    log: Any,
    totals: Any,
    dtype: Any,
    block: Any,
    axis: Any,
    temperature: Any,
    where: Any,
    out: Any,
    n_threads: Any,
) -> _Array: ...
def logsumexp_of_totals(totals: Any, dtype: Any, temperature: Any) -> _Array: ...
def loss_of_labels(
    totals: Any,
    dtype: Any,
    temperature: Any,
    logits: Any,
    sample_weight: Any,
    z_loss: Any,
    reduction: Any,
) -> float | _Array: ...
def grad_of_labels(
    totals: Any,
    dtype: Any,
    temperature: Any,
    block: Any,
    target: Any,
    first_class: Any,
    axis: Any,
    sample_weight: Any,
    ignore_index: Any,
    z_loss: Any,
    where: Any,
    reduction: Any,
    scale: Any,
    out: Any,
    n_threads: Any,
) -> _Array: ...
def loss_of_block(
    grad: Any,
    given: Any,
    dtype: Any,
    block: Any,
    axis: Any,
    target: Any,
    options: Any,
    scale: Any,
    divisor: Any,
    losses: Any,
    out: Any,
    n_threads: Any,
) -> float | _Array: ...
def softmax_vjp(
    probabilities: Any, vectors: Any, axis: Any, out: Any, n_threads: Any
) -> _Array: ...
def check_loss_of_chunks(
    shape: Any,
    dtype: Any,
    target: Any,
    options: Any,
    reduction: Any,
    scale: Any,
    outs: Any,
    n_threads: Any,
) -> tuple[Any, Any, Any, Any, Any]: ...
def loss_of_chunk(
    logits: Any,
    begin: Any,
    target: Any,
    options: Any,
    scale: Any,
    divisor: Any,
    with_grad: Any,
) -> float: ...
def losses_and_grad(
    with_loss: Any,
    with_grad: Any,
    logits: Any,
    target: Any,
    axis: Any,
    options: Any,
    scale: Any,
    divisor: Any,
    n_threads: Any,
) -> tuple[_Array | None, _Array | None]: ...
def weights_of_targets(shape: Any, dtype: Any, target: Any, axis: Any, options: Any) -> _Array: ...
def total_of_rows(numbers: Any) -> tuple[float, int]: ...
def weight_and_divisor(
    numbers: Any, plain_masses: bool, dtype: Any
) -> tuple[tuple[float, int], tuple[float, int]]: ...
def apart(array: Any, outs: Any) -> Any: ...
def convert(value: Any, name: str) -> _Array: ...
