"""Compare with other libraries on this machine: `python -m benchmarks.compare.run --help`."""

import argparse
import json
import math
import os
import platform
import time
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

import cysoftmax
from benchmarks import shapes, tasks, timing
from benchmarks.cases import Problem
from benchmarks.compare import peers, table
from benchmarks.compare.worker import Library

# (shape with the classes last, axis of the classes)
SHAPES = [(shape, -1) for shape in [*shapes.SHAPES.values(), (32768, 1000), (1_000_000, 3)]]
SHAPES.sort(key=lambda shape: math.prod(shape[0]))
SHAPES += [(shapes.SHAPES[elements], 0) for elements in shapes.AXIS_0]
SHAPES += [((2, 333, 500, 21), 1)]  # the pixels of two images
NAMES = {shapes.name_of(*shape): shape for shape in SHAPES}
# Where other targets, masks and the backward pass are compared: few, some and many classes.
OF_OPTIONS = ["32768x10", "1000000x3", "65536x100", "8192x1000", "2x21x333x500,axis=1"]
ON_ALL_SHAPES = ["cross_entropy_with_grad", "softmax", "cross_entropy", "logsumexp"]
SHARE = 0.01  # seconds of a turn, in which a short call is repeated
PAUSE = 0.003  # between two libraries: idle threads of most go on spinning for a while
ARRAYS = 6  # of the size of the logits, which a library may need at once


class Effort(NamedTuple):
    """What is compared, and for how long."""

    tasks: list[str]
    seconds: float  # this and the next one as in `timing.in_turns`
    turns: int
    too_slow: float  # seconds of a call


FULL = Effort(list(table.TITLES), seconds=1.0, turns=2, too_slow=1.0)
QUICK = Effort(["cross_entropy_with_grad"], seconds=0.3, turns=1, too_slow=0.5)


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
    for pool in ("OMP", "OPENBLAS", "NUMBA"):  # of the processes that are started from now on
        os.environ[f"{pool}_NUM_THREADS"] = str(n_threads)
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


def readied(task, problem, shape, libraries, effort):
    """Return the libraries that have chosen a way to do the task, and why others are left out."""
    ready, left_out = {}, {}
    dtype, n_bytes = problem.logits.dtype.name, problem.logits.nbytes
    for name, library in libraries.items():  # all of them prepare at the same time
        if fits(ARRAYS * n_bytes * (len(ready) + 1)):
            library.ask("prepare", task, dtype, *shape)
            ready[name] = library
        else:
            left_out[name] = "not enough memory"
    steps = [
        lambda library: library.answer(),
        lambda library: library.call("choose", effort.too_slow),  # one at a time
    ]
    for step, name in product(steps, list(ready)):
        if name not in left_out:
            try:
                step(ready[name])
            except tasks.UnsuitableError as reason:
                left_out[name] = str(reason)
                del ready[name]
    return ready, left_out


def compare(task, dtype, shape, problem, libraries, effort):
    """Return the times of the limits, ours, and each library's, taken in turns."""
    to = np.zeros_like(problem.logits)
    copy, read = timing.streaming_copy(), timing.streaming_read()
    here = {
        "copy": lambda: copy(to, problem.logits),
        "read": lambda: read(problem.logits),
        "cysoftmax": tasks.ours(task, problem),
    }
    ready, left_out = readied(task, problem, shape, libraries, effort)

    def turn(name):
        time.sleep(PAUSE)
        if name in here:
            return timing.one_turn(here[name], SHARE)
        if name in left_out:
            return []
        try:
            return ready[name].call("turn", SHARE)
        except tasks.UnsuitableError as reason:
            left_out[name] = str(reason)
            return []

    names = [*here, *ready]
    turns_of = [partial(turn, name) for name in names]
    found = zip(names, timing.in_turns(turns_of, effort.seconds, effort.turns), strict=True)
    found = {name: times for name, times in found if name not in left_out}
    return {
        "function": task,
        "dtype": dtype,
        "shape": shapes.name_of(*shape),
        "megabytes": problem.logits.nbytes / 1e6,
        "seconds": {name: rounded(min(times)) for name, times in found.items()},
        "median": {name: rounded(np.median(times)) for name, times in found.items()},
        "left out": left_out,
    }


def rounded(seconds):
    return float(f"{seconds:.4g}")


# ---------------------------------------------------------------- all of them


def chosen_tasks(shape, options, effort):
    """Return the tasks for one shape: what was asked for, or all that the shape is there for."""
    wanted = options.tasks or effort.tasks
    if options.shapes or shape in OF_OPTIONS:
        return wanted
    return [task for task in wanted if task in ON_ALL_SHAPES]


def merged(old, new):
    """Return new results, and those of the old ones that were not measured again.

    None of the old ones if they are of another machine, or of other versions of the libraries.
    """
    same = old["versions"].items() <= new["versions"].items()
    for key in old["machine"].keys() - {"load"}:
        same = same and old["machine"][key] == new["machine"].get(key)
    if not same:
        return new

    def key(result):
        return result["function"], result["dtype"], result["shape"]

    again = {key(result) for result in new["results"]}
    kept = [result for result in old["results"] if key(result) not in again]
    order = {
        (task, dtype, shape): i
        for i, (dtype, shape, task) in enumerate(product(shapes.DTYPES, NAMES, table.TITLES))
    }
    results = sorted([*kept, *new["results"]], key=lambda result: order[key(result)])
    return {**new, "results": results}


def arguments(argv):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare.run", description=__doc__.partition(":")[0]
    )
    parser.add_argument("--tasks", nargs="+", choices=table.TITLES, metavar="TASK",
                        help=f"some of {', '.join(table.TITLES)}")  # fmt: skip
    parser.add_argument("--shapes", nargs="+", choices=NAMES, metavar="SHAPE",
                        help=f"some of {', '.join(NAMES)}")  # fmt: skip
    parser.add_argument("--libraries", nargs="+", choices=peers.PEERS, metavar="LIBRARY",
                        help=f"some of {', '.join(peers.PEERS)}")  # fmt: skip
    parser.add_argument("--dtype", choices=shapes.DTYPES, help="one of the two only")
    parser.add_argument("--threads", type=int, help="at most so many, for all libraries")
    parser.add_argument("--quick", action="store_true", help="loss and gradient only, hasty")
    parser.add_argument("--json", type=Path, metavar="FILE",
                        help="also write the results there, beside other ones")  # fmt: skip
    return parser.parse_args(argv)


def main(argv=None):
    options = arguments(argv)
    n_threads = use_threads(options.threads)
    there, versions, missing = peers.installed(options.libraries)
    libraries = {name: Library(peer, n_threads) for name, peer in there.items()}
    results = {
        "machine": description(n_threads),
        "versions": {"cysoftmax": cysoftmax.__version__, **versions},
        "missing": missing,
        "results": [],
    }
    print("\n".join(table.head(results)), flush=True)
    effort = QUICK if options.quick else FULL
    for dtype in [options.dtype] if options.dtype else shapes.DTYPES:
        for name in options.shapes or NAMES:
            if todo := chosen_tasks(name, options, effort):
                problem = Problem(dtype, *NAMES[name])
            for task in todo:
                compared = compare(task, dtype, NAMES[name], problem, libraries, effort)
                results["results"].append(compared)
                print(".", end="", flush=True)
    for library in libraries.values():
        library.stop()
    print("\n" + "\n".join(table.lines(results)))
    if options.json:
        if options.json.exists():
            results = merged(json.loads(options.json.read_text()), results)
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
