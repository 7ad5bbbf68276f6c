from typing import Any

import numpy as np
from numpy.typing import NDArray

CYTHON: str
DEBUG: bool

_Array = NDArray[Any]
_Values = NDArray[np.float64]

def available_isas() -> list[str]: ...
def use_isa(name: str) -> None: ...
def active_isa() -> str: ...
def rowwise(
    what: int, x: _Array, out: _Array | None, result: _Array | None, n_threads: int | None
) -> None: ...
def vjp(p: _Array, v: _Array, out: _Array, n_threads: int | None) -> None: ...
def check_labels(x: _Array, target: _Array, n_threads: int | None) -> bool: ...
def cross_entropy(
    x: _Array,
    target: _Array,
    labels: bool,
    out: _Array | None,
    result: _Array | None,
    scale: float,
    mean: bool,
    want_loss: bool,
    n_threads: int | None,
) -> float | None: ...
def exp_of(x: _Array) -> _Values: ...
