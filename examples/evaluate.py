"""Perplexity, accuracy and calibration of a model, from a file of float16 logits of any size.

`cysoftmax.row_stats` gives the loss, the most probable class and its probability for each row, of
one block of the file at a time. The script prints the results and the peak of memory, draws how
often the model is right when it is so sure, and exits with an error if the evaluation needed more
memory than the limit below, or if the loss of its last rows is not that of SciPy.

It takes the names of two .npy files, logits (n_rows, n_classes) and labels (n_rows,). Without
them, `word_pairs.py` makes those of a model of the next word in Python's documentation.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.special import log_softmax
from tqdm import tqdm

import cysoftmax

BLOCK = 2**22  # bytes of logits that are in memory at a time
MOST_MEMORY = 2**25  # bytes, on top of what the imports need
N_BINS = 15
TOLERANCE = 1e-5  # relative, of a loss in float32


def peak_memory():
    """Return the most memory, in bytes, that this process ever had (Linux)."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def evaluate(logits_path, labels, block_bytes):
    """Return the loss of each row, whether the model is right, and how probable it says that is."""
    shape = np.load(logits_path, mmap_mode="r").shape
    if len(labels) != shape[0]:
        raise SystemExit(f"error: {shape[0]} rows of logits need as many labels; got {len(labels)}")
    n_rows = max(1, block_bytes // (2 * shape[1]))
    losses, sure = np.empty(shape[0], np.float32), np.empty(shape[0], np.float32)
    right = np.empty(shape[0], bool)
    with tqdm(total=shape[0], desc="evaluating", unit="row", unit_scale=True) as bar:
        for begin in range(0, shape[0], n_rows):
            rows = slice(begin, begin + n_rows)
            # The pages that were read stay in memory as long as the mapping: a new one each time.
            logits = np.load(logits_path, mmap_mode="r")[rows]
            stats = cysoftmax.row_stats(logits, labels[rows])
            losses[rows], sure[rows] = stats.loss, stats.max_prob
            right[rows] = stats.argmax == labels[rows]
            bar.update(len(logits))
    return losses, right, sure


def reliability(sure, right):
    """Return of each bin of probability: the rows in it, how sure they are, and how often right."""
    bins = np.minimum((sure * N_BINS).astype(int), N_BINS - 1)
    rows, sure, right = (np.bincount(bins, weights, N_BINS) for weights in (None, sure, right))
    with np.errstate(invalid="ignore"):  # an empty bin has NaN
        return rows, sure / rows, right / rows


def draw(path, rows, sure, right, error):
    """Draw how often the model is right when it is so sure, and how many rows there are."""
    figure = Figure(figsize=(6, 7), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    above.plot([0, 1], [0, 1], color="#808080", ls="--", label="perfect calibration")
    above.vlines(sure, sure, right, color="#D55E00", lw=3, label="error of calibration")
    above.plot(sure, right, "o", color="#0072B2", label="the model")
    above.set(ylabel="fraction of right answers", xlim=(0, 1), ylim=(0, 1))
    above.set_title(f"Reliability (expected calibration error {error:.3f})")
    above.legend(frameon=False)
    below.bar(np.arange(N_BINS) / N_BINS, rows, 0.95 / N_BINS, align="edge", color="#0072B2")
    below.set(xlabel="probability of the answer, as the model says", ylabel="rows")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main(argv=None):
    """Evaluate the files, or those that are made; check, print and draw the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="LOGITS.npy LABELS.npy")
    parser.add_argument("--rows", type=int, default=100_000, help="of the file that is made")
    parser.add_argument("--block", type=int, default=BLOCK, help="bytes of a block of logits")
    parser.add_argument("--output", type=Path, default=Path("out/evaluate.png"))
    args = parser.parse_args(argv)
    if len(args.files) not in (0, 2):
        parser.error("give the logits and the labels, or no file")
    folder = args.output.parent
    files = args.files or [folder / f"word_pairs_{name}.npy" for name in ("logits", "labels")]
    if not args.files:  # in a process of its own, whose memory is not counted
        maker = Path(__file__).with_name("word_pairs.py")
        command = [sys.executable, maker, *files, "--rows", str(args.rows)]
        subprocess.run(command, check=True)
    labels = np.load(files[1])
    before = peak_memory()
    losses, right, sure = evaluate(files[0], labels, args.block)
    memory = peak_memory() - before

    loss, size = losses.mean(dtype=np.float64), files[0].stat().st_size
    rows, said, were = reliability(sure, right)
    error = np.nansum(np.abs(said - were) * rows) / len(labels)
    print(f"perplexity {np.exp(loss):.2f} (loss {loss:.4f} nats), accuracy {right.mean():.4f}")
    print(f"mean probability {sure.mean():.4f}, expected calibration error {error:.4f}")
    print(f"memory: {memory / 2**20:.1f} MiB for a file of {size / 2**20:.1f} MiB", end=" ")
    print(f"(limit {MOST_MEMORY / 2**20:.0f} MiB)")
    draw(args.output, rows, said, were, error)
    print(f"picture: {args.output}")
    if memory > MOST_MEMORY:
        raise SystemExit("error: the evaluation needed more memory than the limit")
    last = np.load(files[0], mmap_mode="r")[-100:].astype(np.float64)
    by_scipy = -log_softmax(last, axis=1)[np.arange(len(last)), labels[-100:]]
    difference = np.abs(losses[-100:] / by_scipy - 1).max()
    if not difference <= TOLERANCE:  # true for NaN, too
        raise SystemExit(f"error: the losses differ from SciPy's by {difference:.1e}")


if __name__ == "__main__":
    main()
