"""Compare with other libraries on this machine: `python -m benchmarks.compare.run --help`."""

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

import cysoftmax
from benchmarks import cases, shapes, tasks, timing
from benchmarks.compare import peers, table

# (rows, classes) and the axis of the classes
SHAPES = [(shape, -1) for shape in sorted([*shapes.SHAPES.values(), (32768, 1000)], key=np.prod)]
SHAPES += [(shapes.SHAPES[elements], 0) for elements in shapes.AXIS_0]
PAUSE = 0.003  # between two libraries: idle threads of most go on spinning for a while
ARRAYS = 6  # of the size of the logits, which a library may need at once


class Effort(NamedTuple):
    """What is compared, and for how long."""

    functions: list[str]
    seconds: float  # this and the next one as in `timing.shortest`
    turns: int
    too_slow: float  # seconds of a call


FULL = Effort(list(table.TITLES), seconds=1.0, turns=3, too_slow=2.0)
QUICK = Effort(["cross_entropy_with_grad"], seconds=0.3, turns=1, too_slow=0.5)
NAMES = {shapes.name_of(*shape): shape for shape in SHAPES}


def use_threads(n_threads):
    """Give every library so many threads, or as many as ours would use; return how many.

    Those that cannot be told a number take the CPUs that the process may use.
    """
    if n_threads is not None and n_threads < 1:
        raise SystemExit(f"error: --threads must be at least 1; got {n_threads}")
    offered = cysoftmax.show_config("dicts")["threads"]["default"]
    n_threads = offered if n_threads is None else min(n_threads, offered)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:n_threads])
    elif n_threads != os.cpu_count():
        raise SystemExit("error: only Linux can give all libraries fewer threads than CPUs")
    return n_threads


def from_proc(file, key):
    """Return the first value of a key that Linux tells in a file, or None."""
    path = Path("/proc", file)
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)


def description(n_threads):
    """Return what a reader must know of the machine."""
    return {
        "cpu": from_proc("cpuinfo", "model name") or platform.machine(),
        "cores": os.cpu_count(),
        "threads": n_threads,
        "instruction set": cysoftmax.show_config("dicts")["instruction set"]["in use"],
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else 0.0,
    }


def fits(n_bytes):
    """Return whether so much memory can still be had, as far as is known."""
    kilobytes = from_proc("meminfo", "MemAvailable")
    return kilobytes is None or n_bytes < 1024 * int(kilobytes.split()[0])


# ---------------------------------------------------------------- one comparison


def best_way(peer, function, problem, too_slow):
    """Return the call of the fastest way of a library, each of them checked before it is timed."""
    if not hasattr(peer, function):
        raise peers.UnsuitableError("has no such function here")
    if not fits(ARRAYS * problem.logits.nbytes):
        raise peers.UnsuitableError("not enough memory")
    calls, start = [], time.perf_counter()
    for call, as_ours in getattr(peer, function)(problem):
        tasks.check(function, problem, as_ours(call()))
        calls.append(call)
    if len(calls) == 1 and time.perf_counter() - start < too_slow:
        return calls[0]
    times = timing.shortest(*calls, seconds=0, turns=1)
    if min(times) > too_slow:
        raise peers.UnsuitableError(f"takes {min(times):.1f} s")
    return calls[np.argmin(times)]


def compare(function, dtype, shape, problem, libraries, effort):
    """Return the times of the limits, ours, and each library's, taken in turns."""
    ours = cases.prepared(function, problem)
    cases.check(function, problem, ours())
    to = np.zeros_like(problem.logits)
    copy, read = timing.streaming_copy(), timing.streaming_read()
    calls = {
        "copy": lambda: copy(to, problem.logits),
        "read": lambda: read(problem.logits),
        "cysoftmax": ours,
    }
    left_out = {}
    for name, peer in libraries.items():
        try:
            calls[name] = best_way(peer, function, problem, effort.too_slow)
        except peers.UnsuitableError as reason:
            left_out[name] = str(reason)
        except AssertionError as error:
            raise SystemExit(f"error: {name}, {function}, {dtype} {shape}: {error}") from error
    times = timing.shortest(
        *calls.values(), seconds=effort.seconds, turns=effort.turns, pause=PAUSE
    )
    return {
        "function": function,
        "dtype": dtype,
        "shape": shape,
        "megabytes": problem.logits.nbytes / 1e6,
        "seconds": {name: float(f"{t:.4g}") for name, t in zip(calls, times, strict=True)},
        "left out": left_out,
    }


# ---------------------------------------------------------------- all of them


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare.run", description=__doc__.partition(":")[0]
    )
    parser.add_argument("--shapes", nargs="+", choices=NAMES, default=list(NAMES), metavar="SHAPE")
    parser.add_argument("--dtype", choices=shapes.DTYPES, help="one of the two only")
    parser.add_argument("--threads", type=int, help="at most so many, for all libraries")
    parser.add_argument("--quick", action="store_true", help="loss and gradient only, hasty")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    options = parser.parse_args(argv)

    n_threads = use_threads(options.threads)
    libraries, versions, missing = peers.installed(n_threads)
    results = {
        "machine": description(n_threads),
        "versions": {"cysoftmax": cysoftmax.__version__, **versions},
        "missing": missing,
        "results": [],
    }
    print("\n".join(table.head(results)), flush=True)
    effort = QUICK if options.quick else FULL
    for dtype in [options.dtype] if options.dtype else shapes.DTYPES:
        for shape in options.shapes:
            problem = cases.Problem(dtype, *NAMES[shape])
            results["results"] += [
                compare(function, dtype, shape, problem, libraries, effort)
                for function in effort.functions
            ]
            print(".", end="", flush=True)
    print("\n" + "\n".join(table.lines(results)))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
