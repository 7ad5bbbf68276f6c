"""The operators of cysoftmax.torch: kernels, derivatives, and what makes them operators of PyTorch.

The arguments are checked in torch.py. A kernel reads and writes tensors as arrays, and the numbers
are computed by _calls. First derivatives are kernels, too; second ones are formulas in operators of
PyTorch and of this file, so that these can be differentiated again.
"""

import math
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found, unused-ignore]
from torch import Tensor

from cysoftmax import _calls, _torch_few
from cysoftmax._calls import make_options

_Array = np.ndarray[Any, Any]

# ignore_index, reduction, label_smoothing, z_loss: PyTorch's options of the loss, and one of ours.
_Options = tuple[int, str, float, float]

# Two bytes that cysoftmax reads as a bfloat16, without the package ml_dtypes. It knows that dtype
# by its name, which for a subclass of void is the name of the class and the number of bits.
_BFLOAT16 = np.dtype((type("bfloat", (np.void,), {}), 2))


is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor  # by a transform of torch.func


# ---------------------------------------------------------------- tensors and arrays


def _array(tensor: Tensor) -> _Array:
    """Return an array of the memory of a tensor."""
    if tensor.dtype is torch.bfloat16:
        return tensor.detach().view(torch.int16).numpy().view(_BFLOAT16)
    return tensor.numpy(force=True)  # this detaches it; nothing is copied on the CPU


def _tensor(array: _Array) -> Tensor:
    """Return a tensor of the memory of an array."""
    if array.dtype is _BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _room(tensor: Tensor) -> _Array | None:
    """Return an array for a result with the layout of torch.empty_like, None if it is NumPy's.

    NumPy's own arrays are preferred: large ones lie in huge pages, which cost less to hand out.
    """
    return None if tensor.is_contiguous() else _array(torch.empty_like(tensor))


def _wide(tensor: Tensor) -> Tensor:
    """Return a tensor in the dtype that cysoftmax computes in."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def class_axis(input: Tensor) -> int:
    """Return the axis of the classes: 1, or 0 if there is no other."""
    return 1 if input.ndim > 1 else 0


def _for_tensors(message: str) -> str:
    """Return a message about arrays in the words of PyTorch."""
    for ours, theirs in (
        ("class_weight", "weight"),
        ("logits", "input"),
        (".astype(int) converts", ".long() converts"),
        ("axis=", "classes on axis "),
    ):
        message = message.replace(ours, theirs)
    return message


# ---------------------------------------------------------------- the loss and its gradient


def _evaluate(
    input: Tensor, target: Tensor, weight: Tensor | None, options: _Options, loss: bool, grad: bool,
    scale: Any,
) -> tuple[Any, _Array | None]:  # fmt: skip
    """Return the loss as cysoftmax does, and its gradient, each of them if it is wanted.

    PyTorch divides the mean over distributions by their number, cysoftmax by their weights.
    """
    ignore_index, reduction, label_smoothing, z_loss = options
    x, y, axis = _array(input), _array(target), class_axis(input)
    labels = y.ndim < x.ndim
    ignored = n_rows = checked = None
    # A call without options takes down to 60 percent of the time; to look for the label takes 1.
    if labels:
        is_there = ignore_index in y.ravel().tolist() if y.size <= 64 else (y == ignore_index).any()
        ignored = ignore_index if is_there else None
    elif reduction == "mean":
        n_rows = x.size / x.shape[axis] if x.size else math.nan
        reduction, scale = "sum", scale / n_rows
    if not (ignored is weight is None and label_smoothing == z_loss == 0):
        checked = make_options(
            class_weight=None if weight is None else _array(_wide(weight)),
            ignore_index=ignored,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
        )
    n_threads = torch.get_num_threads()
    if not grad:
        value = _calls.cross_entropy(x, y, axis, checked, reduction, None, n_threads)
        return value if n_rows is None else value / n_rows, None
    room = _room(input)
    if not loss:
        return None, _calls.cross_entropy_grad(
            x, y, axis, checked, reduction, scale, room, n_threads
        )
    value, gradient = _calls.cross_entropy_with_grad(
        x, y, axis, checked, reduction, scale, room, n_threads
    )
    return value if n_rows is None else value / n_rows, gradient


def _evaluate_signed(
    input: Tensor, target: Tensor, weight: Tensor, options: _Options, loss: bool, grad: bool,
    scale: Any,
) -> tuple[Any, _Array | None]:  # fmt: skip
    """Return what _evaluate does, of weights below 0, too, which PyTorch takes.

    The loss is linear in the weights: it is that of the weights above 0, less that of the others.
    """
    ignore_index, reduction, label_smoothing, z_loss = options
    one_by_one = "none" if reduction == "none" else "sum"
    summed = ignore_index, one_by_one, label_smoothing, z_loss
    (value, gradient), (less, minus) = (
        _evaluate(input, target, part.clamp(min=0), summed, loss, grad, scale)
        for part in (weight, -weight)
    )
    total = torch.ones((), dtype=torch.float64)
    if reduction == "mean" and target.ndim < input.ndim:
        labels = target.long()
        labels = labels[labels != ignore_index]
        total = weight.double()[labels].sum() if len(labels) else total.fill_(math.nan)
    elif reduction == "mean":
        total.fill_(input.numel() / input.shape[class_axis(input)] or math.nan)
    if gradient is not None and minus is not None:
        difference = _tensor(gradient).sub_(_tensor(minus))
        gradient = _array(difference if total.isnan() else difference.div_(total))
    if reduction == "mean" and loss:
        return ((value - less) / total).item(), gradient
    return np.asarray(value - less) if loss else None, gradient


def loss_and_grad(
    input: Tensor, target: Tensor, weight: Tensor | None, options: _Options, *, loss: bool = True,
    grad: bool = True, scale: Any = 1.0,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """Return the loss and its gradient as tensors, or None for what is not wanted."""
    signed = weight is not None and bool((weight < 0).any())
    try:
        evaluate = _evaluate_signed if signed else _evaluate
        value, gradient = evaluate(input, target, weight, options, loss, grad, scale)
    except (IndexError, TypeError, ValueError) as error:
        raise type(error)(_for_tensors(str(error))) from None
    loss_tensor = None
    if type(value) is float and input.dtype is torch.float32 and abs(value) < 1e38:
        loss_tensor = torch.from_numpy(np.array(value, np.float32))  # a third of scalar_tensor
    elif type(value) is float:
        loss_tensor = torch.scalar_tensor(value, dtype=input.dtype, device="cpu")
    elif value is not None:  # losses of rows: float32 if the logits have 16 bits
        loss_tensor = torch.from_numpy(value).to(input.dtype).contiguous()
    return loss_tensor, None if gradient is None else _tensor(gradient)


# ---------------------------------------------------------------- derivatives, as formulas


def _gradient_formula(
    g: Tensor, input: Tensor, target: Tensor, weight: Tensor | None, options: _Options
) -> Tensor:
    """Return the gradient of the loss times g in operators that autograd knows.

    This is ``b p - A``, (30) and (31) of docs/derivation.md.
    """
    ignore_index, reduction, label_smoothing, z_loss = options
    axis = class_axis(input)
    x, T = _wide(input), _wide(target)
    labels = target.ndim < input.ndim
    if labels:
        label = target.long().unsqueeze(axis)
        kept = label != ignore_index
        x = x.masked_fill(~kept, 0)  # ignored logits may be NaN
        T = torch.zeros_like(x).scatter(axis, label.where(kept, 0), kept.to(x.dtype))
    A = T
    if label_smoothing:
        A = (1 - label_smoothing) * T + label_smoothing * T.mean(axis, keepdim=True)
    if weight is not None:
        v = _wide(weight).view([-1] + [1] * (input.ndim - 1 - axis))
        T, A = v * T, v * A
    w = T.sum(axis, keepdim=True)
    p = softmax(x, axis)
    grad = A.sum(axis, keepdim=True) * p - A
    if z_loss:
        grad = grad + 2 * z_loss * w * torch.logsumexp(x, axis, keepdim=True) * p
    if reduction == "none":
        g = g.unsqueeze(axis)
    elif reduction == "mean":
        grad = grad / (w.sum() if labels else w.numel())
    return (g * grad).to(input.dtype)


def _target_gradient(
    g: Tensor, input: Tensor, target: Tensor, weight: Tensor | None, options: _Options
) -> Tensor:
    """Return the gradient of the loss with respect to distributions, times g."""
    _, reduction, _, z_loss = options
    axis = class_axis(input)
    x = _wide(input)
    grad = -log_softmax(x, axis)
    if z_loss:
        grad = grad + z_loss * torch.logsumexp(x, axis, keepdim=True).square()
    if weight is not None:
        grad = _wide(weight).view([-1] + [1] * (input.ndim - 1 - axis)) * grad
    if reduction == "none":
        g = g.unsqueeze(axis)
    elif reduction == "mean":
        grad = grad / (input.numel() // input.shape[axis])
    return (g * grad).to(target.dtype)


# ---------------------------------------------------------------- the operators of the loss


_SCHEMA = (
    "Tensor input, Tensor target, Tensor? weight, "
    "int ignore_index, str reduction, float label_smoothing, float z_loss"
)


def _forward(
    input: Tensor, target: Tensor, weight: Tensor | None, *others: Any
) -> tuple[Tensor | None, Tensor]:
    """Return the loss, and its gradient or, unless the last argument is True, an empty tensor."""
    *options, with_grad = others
    loss, grad = loss_and_grad(input, target, weight, (*options,), grad=with_grad)
    return loss, input.new_empty(0) if grad is None else grad


def _fake_forward(input: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    *_, reduction, _, _, with_grad = others
    axis = class_axis(input)
    rows = input.shape[:axis] + input.shape[axis + 1 :]
    loss = input.new_empty(rows if reduction == "none" else ())
    return loss, torch.empty_like(input) if with_grad else input.new_empty(0)


def _backward(
    g: Tensor, input: Tensor, target: Tensor, weight: Tensor | None, *options: Any
) -> Tensor | None:
    """Return the gradient of the loss times g, which is a number, or one for each row."""
    scale = g.item() if g.ndim == 0 and input.ndim > 1 else _array(_wide(g))
    return loss_and_grad(input, target, weight, options, loss=False, scale=scale)[1]


def _derivatives(ctx: Any, g: Tensor, ready: Tensor | None) -> tuple[Tensor | None, ...]:
    """Return the gradients of the input and of the target; `ready` is the first of them over g.

    `ready` is a number, not a formula: it will not do if the gradient is to be differentiated.
    """
    input, target, weight = ctx.saved_tensors[:3]
    grad_input = grad_target = None
    if ctx.needs_input_grad[0]:
        if ready is not None and not torch.is_grad_enabled():
            grad_input = ready * (g.unsqueeze(class_axis(ready)) if g.ndim else g)
        elif is_wrapped(g):  # many g at once: jacobians by torch.vmap
            grad_input = _gradient_formula(g, input, target, weight, ctx.options)
        else:
            grad_input = cross_entropy_backward(g, input, target, weight, *ctx.options)
    if ctx.needs_input_grad[1]:
        grad_target = _target_gradient(g, input, target, weight, ctx.options)
    return grad_input, grad_target


def _save_loss(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.options, ctx.with_grad = *inputs[:3], inputs[3:-1], inputs[-1]
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*tensors, output[1])


def _loss_backward(ctx: Any, g: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    ready = ctx.saved_tensors[3] if ctx.with_grad else None
    return *_derivatives(ctx, g, ready), *[None] * 6


def _save_gradient(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.options = inputs[4:]


def _gradient_backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
    """Return the products of v and the derivatives of the gradient, of which one is the Hessian."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        tensors = g, input, target, weight = ctx.saved_tensors
        gradient = _gradient_formula(g, input, target, weight, ctx.options)
        wanted = [t for t, needed in zip(tensors, ctx.needs_input_grad, strict=False) if needed]
        found = iter(torch.autograd.grad(gradient, wanted, v, create_graph=create_graph))
    return tuple(next(found) if needed else None for needed in ctx.needs_input_grad)


class _Loss(torch.autograd.Function):
    """The operator of the loss without its dispatch, for tensors that can be read."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, target: Tensor, weight: Tensor | None, options: tuple[Any, ...]
    ) -> Tensor | None:
        with_grad = input.requires_grad and is_fused(input, options[1])
        loss, grad = loss_and_grad(input, target, weight, options, grad=with_grad)
        ctx.save_for_backward(input, target, weight)
        ctx.options = options
        ctx.ready = grad
        return loss

    backward = staticmethod(_torch_few.backward)


class _LossOfFew(_Loss):
    forward = staticmethod(_torch_few.forward)


# Without what Function.apply does for torch.func, where tensors cannot be read.
apply_loss = super(torch.autograd.Function, _Loss).apply
_torch_few.use(torch, super(torch.autograd.Function, _LossOfFew).apply, _derivatives)


def is_fused(input: Tensor, reduction: str) -> bool:
    """Return whether the gradient is computed with the loss, before g, its factor, is known.

    A factor for each row is cheaper as an argument than as a product. The gradient of float16
    logits over their number may vanish; a factor that prevents it must come first.
    """
    return reduction != "none" and input.dtype is not torch.float16


# ---------------------------------------------------------------- softmax


def _softmax_kernel(input: Tensor, dim: int) -> Tensor:
    n_threads = torch.get_num_threads()
    return _tensor(_calls.softmax(_array(input), dim, 1.0, None, _room(input), n_threads))


def _softmax_backward_kernel(g: Tensor, p: Tensor, dim: int) -> Tensor:
    n_threads = torch.get_num_threads()
    return _tensor(_calls.softmax_vjp(_array(p), _array(g), dim, _room(p), n_threads))


def _log_softmax_kernel(input: Tensor, dim: int) -> Tensor:
    n_threads = torch.get_num_threads()
    return _tensor(_calls.log_softmax(_array(input), dim, 1.0, None, _room(input), n_threads))


def _log_softmax_backward_kernel(g: Tensor, y: Tensor, dim: int) -> Tensor:
    """``g - exp(y) sum(g)``: the gradient, with the sign changed, of the cross-entropy of logits y
    and a target g. The softmax of y = log_softmax(x) is that of x."""
    if not y.numel():  # cross_entropy refuses to have no classes
        return torch.empty_like(y)
    n_threads = torch.get_num_threads()
    return _tensor(
        _calls.cross_entropy_grad(_array(y), _array(g), dim, None, "sum", -1.0, _room(y), n_threads)
    )


def _save_output(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(output)
    ctx.dim = inputs[1]


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.dim = inputs[2]


def _vjp(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
    (p,) = ctx.saved_tensors
    if is_wrapped(g):
        return p * (g - (p * g).sum(ctx.dim, keepdim=True)), None
    return softmax_backward(g, p, ctx.dim), None


def _vjp_backward(ctx: Any, v: Tensor) -> tuple[Tensor, Tensor, None]:
    """Return the gradients of g and p through ``p * (g - sum(p * g))``; its Jacobian is symmetric
    in g."""
    g, p = ctx.saved_tensors
    mean, other = ((p * t).sum(ctx.dim, keepdim=True) for t in (g, v))
    return p * (v - other), v * (g - mean) - g * other, None


def _log_vjp(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
    (y,) = ctx.saved_tensors
    if is_wrapped(g):
        return g - y.exp() * g.sum(ctx.dim, keepdim=True), None
    return log_softmax_backward(g, y, ctx.dim), None


def _log_vjp_backward(ctx: Any, v: Tensor) -> tuple[Tensor, Tensor, None]:
    """Return the gradients of g and y through ``g - exp(y) sum(g)``."""
    g, y = ctx.saved_tensors
    pv = y.exp() * v
    total = g.sum(ctx.dim, keepdim=True)
    return v - pv.sum(ctx.dim, keepdim=True), -pv * total, None


# ---------------------------------------------------------------- their registration


def _operator(name: str, schema: str, kernel: Any, fake: Any, backward: Any, save: Any) -> Any:
    operator = torch.library.custom_op(f"cysoftmax::{name}", kernel, mutates_args=(), schema=schema)
    operator.register_fake(fake)
    operator.register_autograd(backward, setup_context=save)
    return operator


def _like_the_first(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x)


def _like_the_second(_: Tensor, x: Tensor, *__: Any) -> Tensor:
    return torch.empty_like(x)


cross_entropy = _operator(
    "cross_entropy", f"({_SCHEMA}, bool with_grad) -> (Tensor, Tensor)",
    _forward, _fake_forward, _loss_backward, _save_loss,
)  # fmt: skip
cross_entropy_backward = _operator(
    "cross_entropy_backward", f"(Tensor g, {_SCHEMA}) -> Tensor",
    _backward, _like_the_second, _gradient_backward, _save_gradient,
)  # fmt: skip
softmax = _operator(
    "softmax", "(Tensor input, int dim) -> Tensor",
    _softmax_kernel, _like_the_first, _vjp, _save_output,
)  # fmt: skip
softmax_backward = _operator(
    "softmax_backward", "(Tensor g, Tensor p, int dim) -> Tensor",
    _softmax_backward_kernel, _like_the_second, _vjp_backward, _save_inputs,
)  # fmt: skip
log_softmax = _operator(
    "log_softmax", "(Tensor input, int dim) -> Tensor",
    _log_softmax_kernel, _like_the_first, _log_vjp, _save_output,
)  # fmt: skip
log_softmax_backward = _operator(
    "log_softmax_backward", "(Tensor g, Tensor y, int dim) -> Tensor",
    _log_softmax_backward_kernel, _like_the_second, _log_vjp_backward, _save_inputs,
)  # fmt: skip
