"""Loss, perplexity and gradient norm of logits that are far larger than a worker's memory.

Logits are written to a folder as .npy files, each with some rows and some classes. Workers read
them block by block: what goes from one to the other is what is known of each row, not logits. The
peak memory of each worker is printed, and checked against its limit.

    python examples/cluster.py --rows 32768 --classes 32768 --workers 2 --limit 600MiB
"""

import argparse
import resource
import tempfile
from pathlib import Path

import dask.array as da
import numpy as np
from dask.distributed import Client, LocalCluster, progress
from dask.utils import format_bytes, parse_bytes

import cysoftmax.dask

BLOCK = 1024, 4096  # rows and classes of a file: 16 MiB


def file_of(folder, block_id):
    """Return the file of a block."""
    return Path(folder, "block_{}_{}.npy".format(*block_id))


def write(block, folder, block_id):
    """Write a block of logits that a model could have made; return how many bytes these are."""
    rng = np.random.default_rng(block_id)
    logits = rng.standard_normal(block.shape, dtype=np.float32)
    np.save(file_of(folder, block_id), logits)
    return np.array([[logits.nbytes]])


def read(block, folder, block_id):
    """Read a block of logits."""
    return np.load(file_of(folder, block_id))


def squares(block):
    """Return the sum of the squares of a block, in float64 and without a copy of it."""
    return np.array([[np.einsum("ij,ij->", block, block, dtype=np.float64)]])


def peak_memory():
    """Return the largest number of bytes that this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(client, folder, shape, labels):
    """Return loss, perplexity and gradient norm of the logits in a folder."""
    plan = da.empty(shape, chunks=BLOCK, dtype=np.float32)
    logits = da.map_blocks(read, plan, folder=folder, dtype=np.float32, meta=plan._meta)
    loss, grad = cysoftmax.dask.cross_entropy_with_grad(logits, labels)
    per_block = da.map_blocks(squares, grad, chunks=(1, 1), dtype=np.float64, meta=plan._meta)
    both = client.compute([loss, per_block.sum()])
    progress(both, notebook=False)
    loss, norm = (float(future.result()) for future in both)
    return loss, np.exp(loss), np.sqrt(norm)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=32768)
    parser.add_argument("--classes", type=int, default=32768)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", default="600MiB", help="memory of a worker")
    parser.add_argument("--folder", help="where the logits are written; default: a temporary one")
    options = parser.parse_args()
    shape, limit = (options.rows, options.classes), parse_bytes(options.limit)
    labels = np.arange(options.rows) % options.classes
    cluster = LocalCluster(
        n_workers=options.workers, threads_per_worker=1, memory_limit=limit, host="127.0.0.1",
        dashboard_address="127.0.0.1:0", scheduler_kwargs={"dashboard": False},
    )  # fmt: skip
    with cluster, Client(cluster) as client, tempfile.TemporaryDirectory(dir=options.folder) as top:
        plan = da.empty(shape, chunks=BLOCK, dtype=np.float32)
        sizes = da.map_blocks(write, plan, folder=top, chunks=(1, 1), dtype=int, meta=plan._meta)
        written = client.compute(sizes.sum())
        progress(written, notebook=False)
        n_bytes = int(written.result())
        print(f"\n{format_bytes(n_bytes)} of logits, {n_bytes / limit:.1f} times a worker's limit")
        loss, perplexity, norm = measure(client, top, shape, labels)
        print(f"\nloss {loss:.6f}, perplexity {perplexity:.1f}, gradient norm {norm:.6e}")
        peaks = client.run(peak_memory)
    for worker, peak in zip(peaks, peaks.values(), strict=True):
        print(f"{worker}: at most {format_bytes(peak)}, {peak / limit:.0%} of the limit")
    if max(peaks.values()) > limit:
        raise SystemExit("a worker had more memory than its limit")


if __name__ == "__main__":
    main()
