from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

from cysoftmax._checks import Options

CYTHON: str
DEBUG: bool

_Array = NDArray[Any]
_Values = NDArray[np.float64]
_Target = _Array | tuple[_Array, _Array, _Array]

def available_isas() -> list[str]: ...
def use_isa(name: str) -> None: ...
def active_isa() -> str: ...
def rowwise(
    what: int,
    x: _Array,
    out: _Array | None,
    result: _Array | None,
    options: Options | None,
    n_threads: int | None,
) -> None: ...
def vjp(p: _Array, v: _Array, out: _Array, n_threads: int | None) -> None: ...
def row_stats(
    x: _Array,
    target: _Target | None,
    stats: _Values,
    options: Options | None,
    n_threads: int | None,
) -> bool: ...
def check_labels(
    x: _Array, target: _Array, options: Options | None, n_threads: int | None
) -> bool: ...
def cross_entropy(
    x: _Array,
    target: _Target,
    out: _Array | None,
    result: _Array | None,
    variance: _Array | None,
    scale: float | _Values,
    mean: bool,
    want_loss: bool,
    options: Options | None,
    n_threads: int | None,
) -> float | None: ...

@disjoint_base
class DefaultMode:
    def __enter__(self) -> None: ...
    def __exit__(self, *error: object) -> None: ...

def exp_of(x: _Array) -> _Values: ...
