"""The other libraries, each at its best: one small module for each.

A method has the name of a task of `tasks` and yields ways to do it with that library: a call
without arguments, into memory already touched where the library can be given any, and how to make
of what it returns what our function returns. The fastest way is the one that counts. A library is
imported when its class is called, and works on the number of threads it is given.
"""

import importlib.metadata
import importlib.util

from benchmarks.compare.peers.by_hand import ByHand
from benchmarks.compare.peers.jax_compiled import JAX
from benchmarks.compare.peers.numba_loops import Numba
from benchmarks.compare.peers.numpy_formula import NumPy
from benchmarks.compare.peers.onnx_runtime import ONNXRuntime
from benchmarks.compare.peers.openvino_model import OpenVINO
from benchmarks.compare.peers.pytorch import PyTorch
from benchmarks.compare.peers.scikit_learn import ScikitLearn
from benchmarks.compare.peers.scipy_formula import SciPy
from benchmarks.compare.peers.torch_compiled import TorchCompile

PEERS = {
    "by hand": ByHand,
    "NumPy": NumPy,
    "SciPy": SciPy,
    "numba": Numba,
    "PyTorch": PyTorch,
    "torch.compile": TorchCompile,
    "JAX": JAX,
    "scikit-learn": ScikitLearn,
    "ONNX Runtime": ONNXRuntime,
    "OpenVINO": OpenVINO,
}


def installed(chosen=None):
    """Return the libraries that are there, their versions, and the names of the missing ones."""
    there, versions, missing = {}, {}, []
    for name in chosen or PEERS:
        peer = PEERS[name]
        if any(importlib.util.find_spec(module) is None for module in peer.modules):
            missing.append(name)
        else:
            there[name] = peer
            known = getattr(peer, "version", None)
            versions[name] = known or importlib.metadata.version(peer.package)
    return there, versions, missing
