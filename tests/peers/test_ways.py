"""Each call that `make compare` times gives what cysoftmax gives."""

import importlib.util

import pytest

cases = pytest.importorskip("benchmarks.cases")
tasks = pytest.importorskip("benchmarks.tasks")
peers = pytest.importorskip("benchmarks.compare.peers")
pytestmark = pytest.mark.peers

FUNCTIONS = ["cross_entropy_with_grad", "softmax", "cross_entropy", "logsumexp"]


@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("name", peers.PEERS)
def test_each_way_of_a_library_gives_our_result(name, function, dtype, axis):
    peer = peers.PEERS[name]
    if any(importlib.util.find_spec(module) is None for module in peer.modules):
        pytest.skip(f"{name} is not installed")
    if not hasattr(peer, function) or (name == "scikit-learn" and axis == 0):
        return
    problem = cases.Problem(dtype, (50, 33), axis)
    for call, as_ours in getattr(peer(2), function)(problem):
        call()
        tasks.check(function, problem, as_ours(call()))  # not the first: memory is used again
