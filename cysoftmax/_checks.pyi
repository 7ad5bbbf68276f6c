from typing import Any

from numpy.typing import NDArray

# What _dask.py needs; the other modules that use _checks are compiled.
def check_weights(array: Any, name: str) -> tuple[float, float, float]: ...
def check_class_weight(value: Any, x: Any, axis: int) -> tuple[NDArray[Any], int, bool]: ...
