"""Each call that `make compare` times gives what cysoftmax gives."""

import importlib.util

import pytest

cases = pytest.importorskip("benchmarks.cases")
tasks = pytest.importorskip("benchmarks.tasks")
peers = pytest.importorskip("benchmarks.compare.peers")
pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore"),  # of the libraries, JAX's about forks of torch.compile
]

TASKS = ["cross_entropy_with_grad", "softmax", "cross_entropy", "logsumexp"]
TASKS += ["soft_targets", "one_hot", "label_smoothing", "masked_softmax", "softmax_vjp"]
TASKS += ["soft_loss", "soft_gradient"]  # of `make price`
LAYOUTS = [((50, 33), -1), ((50, 33), 0), ((2, 5, 7, 6), 1)]


@pytest.mark.parametrize(("shape", "axis"), LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", peers.PEERS)
def test_each_way_of_a_library_gives_our_result(name, dtype, shape, axis):
    peer = peers.PEERS[name]
    if any(importlib.util.find_spec(module) is None for module in peer.modules):
        pytest.skip(f"{name} is not installed")
    library, problem = peer(2), cases.Problem(dtype, shape, axis)
    for task in TASKS:
        try:
            for call, as_ours in getattr(library, task, lambda problem: [])(problem):
                call()
                result = as_ours(call())  # not the first: memory is used again
                tasks.check(task, problem, result)
        except tasks.UnsuitableError:
            assert (name, dtype) == ("OpenVINO", "float64") or axis != -1
