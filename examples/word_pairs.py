"""Write the float16 logits of a language model on held-out text, for `evaluate.py`.

The model is made of counts: how often a word follows another in Python's documentation. The logits
are logarithms of probabilities.
"""

import argparse
from pathlib import Path

import numpy as np
from corpus import words_of_documentation

PAIRS = 0.6  # of a probability: the share that the last word decides; the rest is the frequency
BLOCK_ROWS = 1000


def main(argv=None):
    """Write the logits (n_rows, n_words) and the next words (n_rows,) into two files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logits", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--rows", type=int, default=100_000, help="the largest number of rows")
    args = parser.parse_args(argv)
    vocabulary, words, held_out = words_of_documentation()
    last, labels = held_out[:-1][: args.rows], held_out[1:][: args.rows]
    n_words = len(vocabulary)
    pairs = np.zeros((n_words, n_words), np.float32)
    np.add.at(pairs, (words[:-1], words[1:]), 1)
    frequency = (np.bincount(words, minlength=n_words) + 1) / (len(words) + n_words)
    pairs *= PAIRS / np.maximum(pairs.sum(axis=1, keepdims=True), 1)
    args.logits.parent.mkdir(parents=True, exist_ok=True)
    shape = len(labels), n_words
    logits = np.lib.format.open_memmap(args.logits, "w+", np.float16, shape)
    for begin in range(0, len(labels), BLOCK_ROWS):
        rows = slice(begin, begin + BLOCK_ROWS)
        logits[rows] = np.log(pairs[last[rows]] + (1 - PAIRS) * frequency)
    np.save(args.labels, labels)


if __name__ == "__main__":
    main()
