"""Loss and gradients of logits that are a product, X @ W + bias, a chunk of rows at a time.

The products are NumPy's (or, for a sparse X, SciPy's); each chunk's loss and gradient are those of
_calls.pyx, written over the chunk. Here is what goes around these: which rows make a chunk, which
thread works on it, and how the gradients add up. Formulas: docs/derivation.md, section 16.
"""

from contextlib import contextmanager
from math import fsum

import numpy as np

from cysoftmax import _calls
from cysoftmax import _check_linear as check
from cysoftmax._check_linear import NAMES, fits_blas, inputs_apart, is_sparse
from cysoftmax._core import DefaultMode
from cysoftmax._threads import default_thread_count

# Figures below: float32, rows x features x classes, two cores shared with other programs.
#
# OpenBLAS keeps a product of at most this many multiplications on the calling thread (interface/
# gemm.c: SMP_THRESHOLD_MIN * GEMM_MULTITHREAD_THRESHOLD).
ON_ONE_THREAD = 2**18
# If W is so small that this many rows make such a product, W is narrow: its products are done in
# batches of these rows, by one call of NumPy, on several of our threads at once. 100000x50x10 took
# 10 ms in batches of 524 rows on one thread, 20 ms with a call for each batch; chunks of 4000 rows
# whose products BLAS shares out took 60 to 800 ms.
LEAST_BATCH_ROWS = 128
MOST_BATCHES = 16  # whose gradients of W wait to be added up
NARROW_ELEMENTS = 2**17  # of X and logits: a chunk, which stays in the L2 cache
MOST_STRIPS = 32  # rows that add up gradients of their own; not by threads, so bits are the same
# Otherwise a chunk's products use the threads of BLAS, and there is one chunk at a time. Each call
# of BLAS, and each softmax on two threads, ends with a wait for the slower one: the fewer the
# better. 4096x64x1000 took 57 ms as one chunk of 2**22 logits, 83 ms as two.
CHUNK_ELEMENTS = 2**22
# An array of the size of W is added once a chunk. At 256x32000 that is 3.5 ms; products of 512 rows
# take 176, and in any other shape of W the ratio is about the same: 2%.
LEAST_ROWS = 512
# What one of our threads turns into its gradient: a piece that stays in the L2 cache.
PIECE_ELEMENTS = 2**18
MOST_PIECE_ROWS = 4096  # over which a float32 sum loses at most 12 bits, and hardly ever 6


@contextmanager
def quiet():
    """Compute without warnings, and leave the modes and flags of floating point as they are."""
    with DefaultMode(), np.errstate(all="ignore"):
        yield


def multiply(a, b, out):
    """Compute ``a @ b`` into `out`, in any layout; neither overlaps `out`."""
    if isinstance(a, np.ndarray) and fits_blas(out):
        np.matmul(a, b, out=out)
    else:
        out[...] = a @ b


def rows_of_batch(n_features, n_classes):
    """Return the rows of a product that BLAS does on the calling thread; 0 if W is not narrow."""
    rows = ON_ONE_THREAD // (max(1, n_features) * n_classes)
    return rows if rows >= LEAST_BATCH_ROWS else 0


def rows_of_chunk(n_features, n_classes, dense=True):
    """Return the number of rows of a chunk."""
    batch = dense * rows_of_batch(n_features, n_classes)
    if batch:
        return max(1, NARROW_ELEMENTS // (n_features + n_classes) // batch) * batch
    return max(CHUNK_ELEMENTS // n_classes, LEAST_ROWS)


def multiply_batches(a, b, out, n_rows):
    """Compute ``a @ b`` into `out` by batches of rows of a, each a product of its own."""
    end = len(a) // n_rows * n_rows
    if end:
        np.matmul(batches(a[:end], n_rows), b, out=batches(out[:end], n_rows))
    if end < len(a):
        np.matmul(a[end:], b, out=out[end:])


def batches(matrix, n_rows):
    """Return a view of a matrix, that number of rows at a time."""
    return matrix.reshape(len(matrix) // n_rows, n_rows, matrix.shape[1])


# ---------------------------------------------------------------- the work


class Sums:
    """Losses and gradients of chunks that are added up in their order."""

    def __init__(self, W, grad_W, several, batch):
        """`grad_W` is the array for the gradient of W; `several` products are added up."""
        self.losses, self.bias, self.W, self.begun = [], 0.0, grad_W, False
        self.batch, self.room = batch, None
        if several and not batch:
            self.room = np.empty_like(W)

    def add(self, loss, of_bias):
        self.losses.append(loss)
        if of_bias is not None:
            self.bias = self.bias + of_bias.astype(np.float64)

    def add_product(self, x, p):
        """Add ``x.T @ p`` to the gradient of W."""
        if self.batch:
            self.add_batches(x, p)
        elif not self.begun:
            multiply(x.T, p, self.W)
        elif self.room is None:  # SciPy makes an array for each product
            self.W += x.T @ p
        else:
            self.W += np.matmul(x.T, p, out=self.room)
        self.begun = True

    def add_batches(self, x, p):
        if not self.begun:
            self.W[...] = 0
        n_rows, most = self.batch, MOST_BATCHES * self.batch
        end = len(x) // n_rows * n_rows
        for k in range(0, end, most):
            some = batches(x[k : min(k + most, end)], n_rows).transpose(0, 2, 1)
            self.W += (some @ batches(p[k : min(k + most, end)], n_rows)).sum(axis=0)
        if end < len(x):
            self.W += x[end:].T @ p[end:]


def total(losses):
    try:
        return fsum(losses)
    except (OverflowError, ValueError):  # too large, or infinities of both signs
        return float(sum(losses))


class Work:
    """One call: its arrays, and how they are shared out."""

    def __init__(self, X, W, bias, grads, given, chunk_rows):
        self.X, self.W, self.bias, self.grads = X, W, bias, grads
        self.target, self.options, self.scale, self.divisor, n_threads = given
        self.n_threads = default_thread_count() if n_threads is None else n_threads
        self.n_rows, self.n_features = X.shape
        self.n_classes = W.shape[1]
        self.dense = isinstance(X, np.ndarray)
        self.batch = self.dense * rows_of_batch(self.n_features, self.n_classes)
        self.chunk_rows = min(
            chunk_rows or rows_of_chunk(self.n_features, self.n_classes, self.dense), self.n_rows
        )
        rows = min(max(1, PIECE_ELEMENTS // self.n_classes), MOST_PIECE_ROWS)
        self.piece_rows = rows // 16 * 16 or rows  # the core does sixteen short rows at a time

    def run(self):
        """Fill the gradients, and return the loss."""
        n_chunks = -(-self.n_rows // self.chunk_rows)
        n_strips = 1
        if self.batch:  # for less than half a millisecond of work, a thread is not worth while
            n_strips = max(1, min(MOST_STRIPS, n_chunks, self.n_rows // (8 * self.batch)))
        strip_rows = -(-n_chunks // n_strips) * self.chunk_rows
        n_tasks = n_strips if self.batch else -(-self.chunk_rows // self.piece_rows)
        self.n_threads = min(self.n_threads, n_tasks)
        if self.n_threads == 1:
            return self.run_strips(strip_rows)
        from concurrent.futures import ThreadPoolExecutor  # 10 ms, which not every import pays

        with ThreadPoolExecutor(self.n_threads - 1) as self.executor:
            return self.run_strips(strip_rows)

    def run_strips(self, n_rows):
        """Do strips of rows, each chunk by chunk; several strips at the same time."""
        begins = range(0, self.n_rows, n_rows)
        grad_W = self.grads.get("W")
        several = grad_W is not None and self.dense and self.chunk_rows < self.n_rows
        own = len(begins) > 1 and grad_W is not None
        strips = [
            (Sums(self.W, np.empty_like(self.W) if own else grad_W, several, self.batch), begin)
            for begin in begins
        ]

        def do_strip(sums, begin):
            room = None
            if self.dense:
                room = np.empty((self.chunk_rows, self.n_classes), self.W.dtype)
            end = min(begin + n_rows, self.n_rows)
            for first in range(begin, end, self.chunk_rows):
                self.do_chunk(sums, room, first, min(first + self.chunk_rows, end))

        if len(strips) == 1:
            do_strip(*strips[0])
        else:
            self.in_threads(do_strip, strips)
        return self.finish([sums for sums, _ in strips])

    def in_threads(self, function, tasks):
        """Call a function for each task, on all threads, and return the results in order.

        These threads sleep while they wait. A thread of GNU OpenMP would spin, for 15 ms or so, and
        keep BLAS from the core: 65536x64x1000 by 256 rows took 12.4 s with OpenMP, 1.1 s like
        this, and its products alone 1.2 s. Those of OpenBLAS wait by giving way (sched_yield).
        """
        n = min(self.n_threads, len(tasks))
        results = [None] * len(tasks)

        def share(k):
            with quiet():
                results[k::n] = [function(*task) for task in tasks[k::n]]

        others = [self.executor.submit(share, k) for k in range(1, n)]
        share(0)
        for other in others:
            other.result()
        return results

    def do_chunk(self, sums, room, begin, end):
        """Add the rows from `begin` to `end` to the sums."""
        x = self.X[begin:end]
        if not self.dense:
            p = np.ascontiguousarray(x @ self.W)
        else:
            x = x if fits_blas(x) else np.array(x, self.W.dtype, order="C")
            p = room[: end - begin]
            self.multiply_rows(x, self.W, p)
        n = self.piece_rows
        pieces = [(p[k : k + n], begin + k) for k in range(0, len(p), n)]
        if self.batch or len(pieces) == 1:
            done = [self.do_piece(*piece) for piece in pieces]
        else:
            done = self.in_threads(self.do_piece, pieces)
        for loss, of_bias in done:
            sums.add(loss, of_bias)
        if "W" in self.grads:
            sums.add_product(x, p)
        if "X" in self.grads:
            self.multiply_rows(p, self.W.T, self.grads["X"][begin:end])

    def multiply_rows(self, a, b, out):
        if self.batch and fits_blas(out):
            multiply_batches(a, b, out, self.batch)
        else:
            multiply(a, b, out)

    def do_piece(self, p, begin):
        """Write the gradient over logits without bias; return their loss, and the bias's part."""
        if self.bias is not None:
            p += self.bias
        loss = _calls.loss_of_chunk(
            p, begin, self.target, self.options, self.scale, self.divisor, bool(self.grads)
        )
        return loss, p.sum(axis=0) if "bias" in self.grads else None

    def finish(self, parts):
        """Add up the sums of strips; return the loss."""
        if "W" in self.grads:
            grad_W = self.grads["W"]
            if parts[0].W is not grad_W:
                grad_W[...] = parts[0].W
            for part in parts[1:]:
                grad_W += part.W
        if "bias" in self.grads:
            self.grads["bias"][...] = sum(part.bias for part in parts)
        return total([loss for part in parts for loss in part.losses])


def linear_cross_entropy(
    X, W, target, bias, options, reduction, scale, wrt, out, chunk_rows, n_threads
):
    """Return the loss, and the gradients with respect to W, the bias and X or None for each."""
    X, W = check.features(X), check.matrix(W, "W", 2)
    dtype = W.dtype.newbyteorder("=")
    if X.dtype.newbyteorder("=") != dtype:
        raise TypeError(f"W must have the dtype of X, {X.dtype}; got {W.dtype}")
    if X.shape[1] != W.shape[0]:
        fits = " (W.T would fit)" if X.shape[1] == W.shape[1] else ""
        raise ValueError(
            f"W must have shape ({X.shape[1]}, n_classes), as X says; got {W.shape}{fits}"
        )
    if W.shape[1] == 0:
        raise ValueError(f"W must have at least one class; got shape {W.shape}")
    bias = check.bias(bias, W)
    wrt = check.wrt(wrt)
    likes = {"W": W, "bias": bias, "X": np.empty((0, 0)) if is_sparse(X) else X}
    shapes = {"W": W.shape, "bias": W.shape[1:], "X": X.shape}
    wanted = {name: shapes[name] for name in NAMES if name in wrt and likes[name] is not None}
    outs = check.outs(out, wanted, dtype)
    chunk_rows = check.chunk_rows(chunk_rows)
    given = _calls.check_loss_of_chunks(
        (X.shape[0], W.shape[1]), dtype, target, options, reduction, scale, outs.values(), n_threads
    )
    grads = {
        name: outs[name] if name in outs else np.empty_like(likes[name], dtype, "K", False, shape)
        for name, shape in wanted.items()
    }
    if X.shape[0] == 0 or given[3][0] == 0:  # of a mean over nothing
        for array in grads.values():
            array[...] = 0
        loss = 0.0 if reduction == "sum" else np.nan
    else:
        with quiet():
            loss = Work(*inputs_apart(X, W, bias, outs), grads, given, chunk_rows).run()
    return loss, *(grads.get(name) for name in NAMES)
