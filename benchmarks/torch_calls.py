"""Forward and backward of a loss in PyTorch, and in cysoftmax.torch: what docs/frameworks.md says.

python -m benchmarks.torch_calls ROWS CLASSES    (in the venv of the peers; two threads)
"""

import sys

from benchmarks.timing import shortest


def main(n_rows=1, n_classes=10):
    import torch  # here, because asv imports this module without PyTorch

    import cysoftmax.torch

    torch.set_num_threads(2)
    logits = torch.randn(n_rows, n_classes, requires_grad=True)
    labels = torch.randint(n_classes, (n_rows,))

    def forward(loss):
        return lambda: loss(logits, labels)

    def both(loss):
        def call():
            loss(logits, labels).backward()
            logits.grad = None

        return call

    losses = torch.nn.functional.cross_entropy, cysoftmax.torch.cross_entropy
    calls = [way(loss) for way in (forward, both) for loss in losses]
    theirs_forward, ours_forward, theirs, ours = (1e6 * t for t in shortest(*calls, seconds=6))
    print(
        f"{n_rows} x {n_classes}: PyTorch {theirs:.1f} us ({theirs_forward:.1f} of it forward), "
        f"cysoftmax {ours:.1f} us ({ours_forward:.1f}); {theirs / ours:.2f} times as fast"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
