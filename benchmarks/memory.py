"""How much memory does a call need beside its arguments and results?"""

import ctypes
from pathlib import Path

from asv_runner.benchmarks.mark import SkipNotImplemented

from benchmarks import cases
from benchmarks.shapes import SHAPES

FUNCTIONS = ["cross_entropy_with_grad", "cross_entropy", "softmax", "logsumexp", "softmax_vjp"]


def process_bytes(name):
    """Return a number of this process that Linux keeps, such as VmRSS."""
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise KeyError(name)


class Memory:
    """The peak of the whole process, and what a call adds to it for its own use."""

    params = (FUNCTIONS, [32768 * 10, 8192 * 1000, 1024 * 32000])
    param_names = ("function", "elements")

    def setup(self, function, elements):
        self.call = cases.prepared(function, cases.Problem("float32", SHAPES[elements]))

    def peakmem_call(self, function, elements):
        self.call()

    def track_scratch(self, function, elements):
        """In whole pages, the least of a few calls; the very first one starts the threads."""
        clear, libc = Path("/proc/self/clear_refs"), ctypes.CDLL(None)
        if not clear.exists() or not hasattr(libc, "malloc_trim"):
            raise SkipNotImplemented("only glibc on Linux tells the peak of a part of a process")
        self.call()
        return min(self.added_by_a_call(clear, libc) for _ in range(3))

    def added_by_a_call(self, clear, libc):
        libc.malloc_trim(0)  # or the call would take what an earlier one gave back
        clear.write_text("5")  # sets the peak back to what is in use now
        before = process_bytes("VmRSS")
        self.call()
        return process_bytes("VmHWM") - before

    track_scratch.unit = "bytes"
