"""The suite refuses to load while a public function has no benchmark."""

import cysoftmax
from benchmarks import linear, overhead, speed


def timed_functions():
    """Return the names of the functions that a benchmark calls."""
    classes = [value for value in vars(speed).values() if isinstance(value, type)]
    alone = {cls.function for cls in classes if not cls.__name__.startswith("_")}
    compute_nothing = {"address_of", "get_include", "show_config"}
    return alone & set(overhead.FUNCTIONS) | {linear.Problem.function} | compute_nothing


public = {name for name in cysoftmax.__all__ if not isinstance(getattr(cysoftmax, name), type)}
if missing := public - timed_functions():
    raise ImportError(f"no benchmark in speed.py and overhead.py for {', '.join(sorted(missing))}")
