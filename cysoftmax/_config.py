"""`show_config`: how cysoftmax was built, and what it uses on this machine."""

import platform

import numpy as np

import cysoftmax
from cysoftmax import _core, _threads


def show_config(mode="stdout"):
    """Show how cysoftmax was built and what it uses on this machine.

    Parameters
    ----------
    mode : {"stdout", "dicts"}, default "stdout"
        Whether to print a table ("stdout") or to return nested dictionaries ("dicts").

    Returns
    -------
    dict or None
        With ``mode="dicts"``, a dictionary with the keys ``"cysoftmax"``, ``"instruction
        set"``, ``"threads"``, ``"build"`` and ``"machine"``. Each value is a dictionary of
        strings, numbers and lists.

    Raises
    ------
    ValueError
        If `mode` is neither "stdout" nor "dicts".

    Notes
    -----
    The instruction set is chosen when the package is imported: the best one that the machine
    has, or the one that the environment variable ``CYSOFTMAX_ISA`` names (``scalar``, ``avx2``,
    ``avx512`` or ``neon``). ``threads.default`` is the number of threads that a large call
    would use at this moment. ``threads.OMP_NUM_THREADS`` is None if OpenMP did not read that
    variable, as when it was set after OpenMP was loaded.

    Examples
    --------
    >>> import cysoftmax
    >>> sorted(cysoftmax.show_config("dicts"))
    ['build', 'cysoftmax', 'instruction set', 'machine', 'threads']
    """
    if mode not in ("stdout", "dicts"):
        raise ValueError(f"mode must be 'stdout' or 'dicts'; got {mode!r}")
    config = {
        "cysoftmax": {"version": cysoftmax.__version__, "numpy": np.__version__},
        "instruction set": {"in use": _core.active_isa(), "available": _core.available_isas()},
        "threads": {
            "default": _threads.default_thread_count(),
            "openmp": _threads.OPENMP or None,
            "survives fork": _threads.HANDLES_FORK,
            "OMP_NUM_THREADS": _threads.OMP_NUM_THREADS,
            "cgroup cpus": _threads.cgroup_cpus(),
        },
        "build": {"compiler": _threads.COMPILER, "cython": _core.CYTHON, "debug": _core.DEBUG},
        "machine": {"system": platform.system(), "architecture": platform.machine()},
    }
    if mode == "dicts":
        return config
    for section, entries in config.items():
        print(f"{section}:")
        for key, value in entries.items():
            text = ", ".join(value) if isinstance(value, list) else value
            print(f"  {key}: {'-' if text is None else text}")
    return None
