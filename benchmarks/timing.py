"""Times to be compared with each other: in turns, in one process; copy and read as limits."""

import ctypes
import shutil
import subprocess
import tempfile
import time
from functools import cache, partial
from pathlib import Path

from asv_runner.benchmarks.mark import SkipNotImplemented

from benchmarks.cases import public

SOURCE = Path(__file__).with_name("streaming_copy.c")


def one_turn(call, share):
    """Return the times of a call that is repeated for a share of a second, at least once."""
    times, turn_ends, now = [], time.perf_counter() + share, 0.0
    while now < turn_ends:
        start = time.perf_counter()
        call()
        now = time.perf_counter()
        times.append(now - start)
    return times


def in_turns(turns_of, seconds, turns):
    """Return a list of times for each of several functions that return those of one turn.

    They take turns, so that all meet the same machine, for so many seconds and at least so many
    turns. The first turn only warms up.
    """
    times = [[] for _ in turns_of]
    end, done = time.perf_counter() + seconds, -1
    while done < turns or time.perf_counter() < end:
        for one, turn in zip(times, turns_of, strict=True):
            of_this_turn = turn()
            if done >= 0:
                one += of_this_turn
        done += 1
    return times


def shortest(*calls, seconds=0.4, turns=3, share=0.01):
    """Return the shortest time of each call, of those that `in_turns` has.

    A short call is called again within its turn, for a share of a second.
    """
    turns_of = [partial(one_turn, call, share) for call in calls]
    return [min(times) for times in in_turns(turns_of, seconds, turns)]


@cache
def limits():
    """Return the library of the limits, and the number of threads that cysoftmax would use."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise SkipNotImplemented("no C compiler for the streaming copy")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "streaming_copy.so")
        flags = ["-O2", "-fopenmp", "-shared", "-fPIC"]
        subprocess.run([compiler, *flags, SOURCE, "-o", library], check=True)
        return ctypes.CDLL(library), public("show_config")("dicts")["threads"]["default"]


def streaming_copy():
    """Return ``copy(to, from)``, which stores past the caches on as many threads as the library."""
    library, n_threads = limits()
    function = library.streaming_copy
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    function.restype = None

    def copy(to, source):
        assert to.nbytes == source.nbytes
        assert (to.ctypes.data | source.ctypes.data) % 16 == 0
        function(to.ctypes.data, source.ctypes.data, source.nbytes, n_threads)

    return copy


def streaming_read():
    """Return ``read(array)``: the exclusive or of all its 64-bit words, on as many threads."""
    library, n_threads = limits()
    function = library.streaming_read
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    function.restype = ctypes.c_uint64

    def read(array):
        assert array.ctypes.data % 16 == 0
        return function(array.ctypes.data, array.nbytes, n_threads)

    return read
