"""Memory-mapped logits and outputs: what the library asks for beside the pages of the files."""

import subprocess
import sys

import numpy as np
import pytest
from cases import assert_same_bits, some_labels

import cysoftmax

# Loss and gradient from one file to another, in a process that may ask for 16 MiB more, where each
# file has 64 MiB. The limit holds for private memory; pages of a shared file do not count.
SCRIPT = """
import resource, sys
import numpy as np
import cysoftmax

x = np.memmap(sys.argv[1], np.float32, "r", shape=(2048, 8192))
grad = np.memmap(sys.argv[2], np.float32, "w+", shape=x.shape)
labels = np.load(sys.argv[3])
cysoftmax.cross_entropy_with_grad(x[:2], labels[:2], n_threads=2)  # threads, and their stacks
with open("/proc/self/status") as status:
    private = next(int(line.split()[1]) for line in status if line.startswith("VmData:"))
limit = private * 1024 + 2**24
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    np.empty(x.shape, x.dtype)
except MemoryError:
    print("limited")
loss, got = cysoftmax.cross_entropy_with_grad(x, labels, out=grad, n_threads=2)
assert got is grad
grad.flush()
print(repr(loss))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_loss_and_gradient_from_file_to_file_need_no_memory_for_them(tmp_path):
    rng, shape = np.random.default_rng(0), (2048, 8192)
    x, labels = rng.standard_normal(shape, dtype=np.float32), some_labels(2048, 8192)
    x.tofile(tmp_path / "x")
    np.save(tmp_path / "labels.npy", labels)
    files = [str(tmp_path / name) for name in ("x", "grad", "labels.npy")]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    limited, loss = done.stdout.split()
    want = cysoftmax.cross_entropy_with_grad(x, labels)
    assert limited == "limited"
    assert float(loss) == want.loss
    assert_same_bits(np.fromfile(tmp_path / "grad", np.float32).reshape(shape), want.grad)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("mode", ["r", "c"])
def test_a_mapped_array_gives_what_one_in_memory_gives(tmp_path, mode, order):
    x, labels = np.random.default_rng(1).standard_normal((40, 60)), some_labels(40, 60)
    x.ravel(order).tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", x.dtype, mode, shape=x.shape, order=order)
    out = np.memmap(tmp_path / "out", x.dtype, "w+", shape=x.shape)
    assert_same_bits(cysoftmax.softmax(mapped, out=out), cysoftmax.softmax(x))
    want = cysoftmax.cross_entropy_with_grad(x, labels)
    got = cysoftmax.cross_entropy_with_grad(mapped, labels)
    assert got.loss == want.loss
    assert_same_bits(got.grad, want.grad)
    assert type(got.grad) is np.ndarray
