"""The largest error of each result, in units in the last place (ulp) of the dtype.

The one table of what the docstrings promise: tests and benchmarks measure against it, and
test_bounds.py holds the docstrings and the README to it. Imports nothing of the library.
"""

from typing import NamedTuple


class Bound(NamedTuple):
    fused: int  # on the instruction sets with fused multiply-add
    scalar: int  # on `scalar`, which rounds twice in a multiply-add

    def on(self, isa):
        return self.scalar if isa == "scalar" else self.fused


# Errors are relative to the exact result where nothing else is said.
SOFTMAX = Bound(3, 4)
LOG_SOFTMAX = Bound(4, 4)
LOGSUMEXP = Bound(3, 3)  # of the larger of the result and the largest logit
LOSS = Bound(4, 4)  # of a row, without options, from class indices
GRAD_AT_LABEL = Bound(4, 4)  # the entry for an index, before scale / N
GRAD_OF_OTHERS = SOFTMAX
LOSS_WITH_OPTIONS = Bound(6, 6)
GRAD_WITH_OPTIONS = Bound(6, 6)  # of the largest of the terms that an entry is made of
HESS = Bound(6, 7)
ENTROPY = TARGET_PROB = Bound(6, 6)  # the latter of a distribution
MAX_PROB = LABEL_PROB = SOFTMAX
VJP = Bound(3, 3)  # of p * max(|v|, |sum(p * v)|)

# Of a public function, for class indices and without options: what a benchmark measures.
BOUNDS = {
    "softmax": SOFTMAX,
    "log_softmax": LOG_SOFTMAX,
    "logsumexp": LOGSUMEXP,
    "cross_entropy": LOSS,
    "cross_entropy_grad": GRAD_AT_LABEL,
    "cross_entropy_grad_hess": HESS,
    "softmax_vjp": VJP,
}
