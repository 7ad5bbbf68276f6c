"""The stack: at most 16 KiB of it for a call, so that a thread of 64 KiB can compute anything.

Of a waiting thread, the stack below is filled with a pattern; the call then shows by what it
overwrote how deep it went.
"""

import ctypes
import os
import platform
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from calls import BY_NAME, LARGE, inputs, moved, over_calls

KIB = 1 << 10
PATTERN = 0xA5
# What lies below the address of a waiting thread's stack and belongs to its functions.
RED_ZONE = 128
# Each way of the core: tiles; rows; spans.
SHAPES = [(40, 10), (20, 700)]

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not os.path.exists("/proc/self/syscall"),
    reason="reads where a thread's stack is from Linux' /proc",
)


def stack_of(thread):
    """Wait until a thread waits for a lock; return the lowest address of its stack, and the one
    down to which it is in use."""
    pointer = None
    while pointer is None:
        time.sleep(1e-4)
        fields = Path(f"/proc/self/task/{thread.native_id}/syscall").read_text().split()
        # The fourth argument of futex is the time after which it returns: none, but for the GIL.
        if len(fields) == 9 and int(fields[4], 16) == 0:
            pointer = int(fields[-2], 16)
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(end, 16) for end in line.split()[0].split("-"))
        if low <= pointer < high:
            return low, pointer
    raise AssertionError("the thread's stack is mapped nowhere")


def depth(function):
    """How many bytes of stack calling a Python function takes."""
    go, done, end = (threading.Lock() for _ in range(3))
    for lock in (go, done, end):
        lock.acquire()
    errors = []

    def work():
        go.acquire()
        try:
            function()
        except Exception as error:
            errors.append(error)
        done.release()
        end.acquire()

    thread = threading.Thread(target=work)
    thread.start()
    low, pointer = stack_of(thread)
    n = pointer - RED_ZONE - low
    ctypes.memset(low, PATTERN, n)
    go.release()
    done.acquire()
    stack = np.frombuffer(ctypes.string_at(low, n), np.uint8)
    end.release()
    thread.join()
    if errors:
        raise errors[0]
    return n - int(np.argmax(stack != PATTERN))


@pytest.fixture
def small_stacks():
    """Threads that are started now have a stack of 256 KiB."""
    previous = threading.stack_size(256 * KIB)
    yield
    threading.stack_size(previous)


@over_calls(combinations=LARGE)
def test_a_call_takes_at_most_16_kib_of_stack(name, dtype, options, isa, small_stacks):
    call = BY_NAME[name]
    python = depth(lambda: np.maximum(1.0, 2.0))
    for shape in SHAPES:
        for axis in (-1,) if call.second == "CSR" else (-1, 0):
            given = moved(inputs(call, shape, dtype, options), axis)
            assert depth(partial(call, given, n_threads=1)) - python <= 16 * KIB


def test_threads_of_64_kib_compute_long_rows_and_report_bad_labels(tmp_path):
    """Workers, too. In a process of its own, because a stack that is too small ends it."""
    code = """
    import threading
    import numpy as np, cysoftmax
    from scipy import sparse

    x = np.random.default_rng(0).standard_normal((3, 400_000), dtype=np.float32)
    few = np.ascontiguousarray(x.reshape(-1, 10))
    one_hot = sparse.csr_array(np.eye(3, x.shape[1]))
    done = []

    def work():
        for logits, target in (x, [5, 6, 7]), (x, one_hot), (few, few > 2):
            cysoftmax.cross_entropy_with_grad(logits, target, n_threads=2)
            cysoftmax.cross_entropy_grad(logits.astype(float), target, n_threads=2)
            cysoftmax.row_stats(logits, target, n_threads=2)
        cysoftmax.cross_entropy_grad_hess(few, np.zeros(len(few), int), n_threads=2)
        cysoftmax.softmax(few, out=few, n_threads=2)
        try:
            cysoftmax.cross_entropy(few, np.full(len(few), 10))
        except IndexError as error:
            done.append(str(error))

    threading.stack_size(65536)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "10" in done[0], done
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "OMP_STACKSIZE": "64k"},
        check=True,
    )
