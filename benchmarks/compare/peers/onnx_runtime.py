"""ONNX Runtime: a model of one node or two."""

import numpy as np


class ONNXRuntime:
    """Input and output of the model are bound to arrays of ours."""

    package = "onnxruntime"
    modules = ("onnxruntime", "onnx")

    def __init__(self, n_threads):
        import onnx
        import onnxruntime

        self.helper, self.numpy_helper = onnx.helper, onnx.numpy_helper
        self.runtime = onnxruntime
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = n_threads
        # Its threads spin while a model runs, but not on into the next library's turn.
        self.options.add_session_config_entry("session.force_spinning_stop", "1")
        self.options.inter_op_num_threads = 1

    def softmax(self, problem):
        node = self.helper.make_node("Softmax", ["x"], ["p"], axis=problem.axis)
        yield self.bound([node], problem, x=problem.logits)

    def masked_softmax(self, problem):
        nodes = [
            self.helper.make_node("Where", ["mask", "x", "hidden"], ["masked"]),
            self.helper.make_node("Softmax", ["masked"], ["p"], axis=problem.axis),
        ]
        yield self.bound(nodes, problem, x=problem.logits, mask=problem.mask)

    def bound(self, nodes, problem, **inputs):
        """Return the call of a model that writes `p`, and what makes our result of its own."""
        p = np.zeros_like(problem.logits)
        hidden = self.numpy_helper.from_array(np.array(-np.inf, p.dtype), "hidden")
        graph = self.helper.make_graph(
            nodes, "softmax", [self.info(name, array) for name, array in inputs.items()],
            [self.info("p", p)], [hidden] if len(nodes) > 1 else [],
        )  # fmt: skip
        opsets = [self.helper.make_opsetid("", 13)]
        model = self.helper.make_model(graph, opset_imports=opsets, ir_version=8)
        session = self.runtime.InferenceSession(
            model.SerializeToString(), self.options, providers=["CPUExecutionProvider"]
        )
        binding = session.io_binding()
        # Named with dtype and address, so that nothing is copied into memory of the runtime's own.
        for name, a in inputs.items():
            binding.bind_input(name, "cpu", 0, a.dtype.type, a.shape, a.ctypes.data)
        binding.bind_output("p", "cpu", 0, p.dtype.type, p.shape, p.ctypes.data)

        def call():
            session.run_with_iobinding(binding)
            return p if inputs else None  # the arrays live as long as the call, then

        return call, np.asarray

    def info(self, name, array):
        dtype = self.helper.np_dtype_to_tensor_dtype(array.dtype)
        return self.helper.make_tensor_value_info(name, dtype, array.shape)
