"""OpenVINO: a model of one node or two, in float32."""

import numpy as np

from benchmarks.tasks import UnsuitableError


class OpenVINO:
    """Input and output of the model share the memory of arrays of ours."""

    package = "openvino"
    modules = ("openvino",)

    def __init__(self, n_threads):
        import openvino
        import openvino.opset13

        self.openvino, self.nodes = openvino, openvino.opset13
        self.core = openvino.Core()
        self.settings = {
            "INFERENCE_NUM_THREADS": n_threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",  # or bfloat16, where the CPU has it
        }

    def softmax(self, problem):
        x = self.parameter(problem.logits)
        yield self.bound(x, problem, [x], [problem.logits])

    def masked_softmax(self, problem):
        x, mask = self.parameter(problem.logits), self.parameter(problem.mask)
        hidden = self.nodes.constant(np.array(-np.inf, problem.logits.dtype))
        masked = self.nodes.select(mask, x, hidden)
        yield self.bound(masked, problem, [x, mask], [problem.logits, problem.mask])

    def parameter(self, array):
        return self.nodes.parameter(list(array.shape), array.dtype)

    def bound(self, node, problem, parameters, arrays):
        if problem.logits.dtype != np.float32:
            raise UnsuitableError("computes in float32")
        softmax = self.nodes.softmax(node, problem.axis)
        model = self.openvino.Model([softmax], parameters, "softmax")
        request = self.core.compile_model(model, "CPU", self.settings).create_infer_request()
        p = np.zeros_like(problem.logits)
        for i, array in enumerate(arrays):
            request.set_input_tensor(i, self.openvino.Tensor(array, shared_memory=True))
        request.set_output_tensor(self.openvino.Tensor(p, shared_memory=True))

        def call():
            request.infer()
            return p

        return call, np.asarray
