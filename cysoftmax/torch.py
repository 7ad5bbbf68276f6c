"""PyTorch's cross-entropy and softmax of CPU tensors, computed by cysoftmax.

* ``cross_entropy``, ``CrossEntropyLoss``: in place of those of torch.nn.functional and torch.nn.
* ``softmax``, ``log_softmax``: in place of those of torch.

``import cysoftmax`` does not import this module, nor PyTorch. Tensors are read where they are, with
any strides. Each function is an operator of torch.library, which torch.compile takes as it is and
which can be differentiated any number of times. A loss that is not traced goes around its operator,
whose dispatch would take longer than the loss of a small batch.
"""

from __future__ import annotations  # the documentation is made without PyTorch

from typing import Any

import torch  # type: ignore[import-not-found, unused-ignore]
from torch import Tensor
from torch.compiler import is_compiling  # type: ignore[import-not-found, unused-ignore]

from cysoftmax import _torch
from cysoftmax._torch_few import is_plain, is_traced, loss_of_few

__all__ = ["CrossEntropyLoss", "cross_entropy", "log_softmax", "softmax"]

_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def _check(name: str, tensor: Tensor, instead: str) -> None:
    """Raise an error unless `tensor` is a dense one on the CPU."""
    if not isinstance(tensor, Tensor):
        raise TypeError(
            f"{name} must be a tensor; got {type(tensor).__name__} (the functions of cysoftmax "
            f"itself take arrays)"
        )
    if not tensor.is_cpu or tensor.layout is not torch.strided:
        what = f"on {tensor.device}" if not tensor.is_cpu else f"of layout {tensor.layout}"
        raise TypeError(
            f"{name} must be a dense tensor on the CPU; got one {what} ({instead} takes it)"
        )
    if not is_compiling() and _torch.is_wrapped(tensor):
        raise TypeError(
            f"{name} must be a tensor outside of the transforms of torch.func; got one within "
            f"({instead} knows these)"
        )


def _check_dtype(input: Tensor) -> None:
    if input.dtype not in _FLOATS:
        raise TypeError(
            f"input must be float32, float64, float16 or bfloat16; got {input.dtype} "
            f"(.float() converts it)"
        )


def _check_numbers(reduction: str, label_smoothing: float) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none'; got {reduction!r}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must lie in [0, 1]; got {label_smoothing}")


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    z_loss: float = 0.0,
) -> Tensor:
    """
    Return the cross-entropy loss of logits, as torch.nn.functional.cross_entropy does.

    Parameters
    ----------
    input : Tensor of float32, float64, float16 or bfloat16
        Logits of shape (K,), (N, K) or (N, K, d1, d2, ...), with the K classes on axis 1, or on
        axis 0 if there is no other. Any strides; it is not copied.
    target : Tensor
        Class indices of any integer dtype, of the shape of `input` without the axis of the
        classes; or distributions of a floating dtype, of the shape of `input`.
    weight : Tensor of shape (K,), optional
        One weight for each class, without a gradient of its own.
    ignore_index : int, default -100
        The class index of rows that are ignored, whatever their logits are.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides the sum of the losses by the sum of the weights of the class indices, or by
        the number of distributions.
    label_smoothing : float, default 0.0
        The part of the target, from 0 to 1, that is spread evenly over the classes.
    z_loss : float, default 0.0
        ``z_loss * w * logsumexp(input)**2`` is added to the loss of each row, where w is the
        weight of its class index (1 without weights), or for a distribution the sum of
        ``weight * target``, after smoothing. torch.nn.functional.cross_entropy does not have it.

    Returns
    -------
    Tensor
        The loss in nats, of the dtype of `input`, with gradients of `input` and of distributions.
        It has no dimensions, or for "none" the shape of `input` without the axis of the classes.

    Raises
    ------
    TypeError
        If an argument is no dense tensor on the CPU, or is one that torch.func transforms, or its
        dtype is not one of the above.
    ValueError
        If a shape, a number or `reduction` is not one of the above; if `ignore_index` >= 0 is given
        with distributions; if a gradient of `weight` is wanted.
    IndexError
        If a class index is neither in [0, K) nor `ignore_index`.

    Notes
    -----
    If `input` needs a gradient, this is computed with the loss, and kept until it is asked for;
    but not for "none" or float16, whose gradients are computed by the backward call, with its
    factors. Accuracy is that of cysoftmax.cross_entropy_with_grad. With ``create_graph=True``, a
    second derivative is evaluated from the softmax, by PyTorch's operators.

    No more than torch.get_num_threads() threads are used.

    Examples
    --------
    >>> import torch
    >>> import cysoftmax.torch
    >>> logits = torch.tensor([[20.0, 0.0, -1.0]], requires_grad=True)
    >>> loss = cysoftmax.torch.cross_entropy(logits, torch.tensor([0]))
    >>> print(f"{loss.item():.4e}")
    2.8194e-09
    >>> loss.backward()
    >>> print(f"{logits.grad[0, 0].item():.4e}")
    -2.8194e-09
    """
    if not is_compiling():
        loss = loss_of_few(input, target, weight, ignore_index, reduction, label_smoothing, z_loss)
        if loss is not None:
            return loss
    instead = "torch.nn.functional.cross_entropy"
    plain = not is_compiling() and is_plain(input) and is_plain(target)
    if not plain:
        _check("input", input, instead)
        _check("target", target, instead)
    _check_dtype(input)
    if weight is not None:
        _check("weight", weight, instead)
        if weight.requires_grad and torch.is_grad_enabled():
            raise ValueError("weight must not require a gradient; got one that does (.detach())")
    _check_numbers(reduction, label_smoothing)
    if input.ndim == 0:
        raise ValueError("input must have at least one dimension; got a scalar")
    if target.ndim == input.ndim:
        if not target.is_floating_point():
            raise TypeError(
                f"target must be floating if it has the shape of input (distributions); "
                f"got {target.dtype}"
            )
        if ignore_index >= 0:
            raise ValueError(
                f"ignore_index must be negative unless target holds class indices; "
                f"got {ignore_index}"
            )
        if label_smoothing:
            # PyTorch adds the same to each row, whatever its sum is; cysoftmax keeps the sum.
            share = label_smoothing / input.shape[_torch.class_axis(input)]
            target, label_smoothing = target * (1 - label_smoothing) + share, 0.0
    options = ignore_index, reduction, label_smoothing, z_loss
    differentiable = torch.is_grad_enabled() and (input.requires_grad or target.requires_grad)
    if not plain or is_traced() or not (weight is None or is_plain(weight)):
        with_grad = differentiable and input.requires_grad and _torch.is_fused(input, reduction)
        return _torch.cross_entropy(input, target, weight, *options, with_grad)[0]
    if differentiable:
        return _torch.apply_loss(input, target, weight, options)
    return _torch.loss_and_grad(input, target, weight, options, grad=False)[0]


class CrossEntropyLoss(torch.nn.CrossEntropyLoss):
    """
    The module of `cross_entropy`, in place of torch.nn.CrossEntropyLoss.

    Parameters
    ----------
    weight, ignore_index, reduction, label_smoothing, z_loss
        As of `cross_entropy`.
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        *,
        z_loss: float = 0.0,
    ) -> None:
        _check_numbers(reduction, label_smoothing)  # PyTorch's third argument is another
        super().__init__(
            weight=weight,
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )
        self.z_loss = z_loss

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits and their target, tensors as `cross_entropy` takes them."""
        return cross_entropy(
            input, target, self.weight, self.ignore_index, self.reduction, self.label_smoothing,
            z_loss=self.z_loss,
        )  # fmt: skip


def softmax(input: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """
    Return the softmax along an axis, as torch.softmax does.

    Parameters
    ----------
    input : Tensor of float32, float64, float16 or bfloat16
        Logits, of any shape and any strides. They are not copied.
    dim : int
        The axis of the classes.
    dtype : torch.dtype, optional
        The dtype to which `input` is converted first.

    Returns
    -------
    Tensor
        Probabilities of the shape and dtype of `input`.

    Raises
    ------
    TypeError
        If `input` is no dense tensor on the CPU, or is one that torch.func transforms, or has
        another dtype.
    IndexError
        If there is no axis `dim`.
    """
    return _rowwise(_torch.softmax, input, dim, dtype, "torch.softmax")


def log_softmax(input: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """
    Return the logarithm of the softmax along an axis, as torch.log_softmax does.

    Parameters
    ----------
    input : Tensor of float32, float64, float16 or bfloat16
        Logits, of any shape and any strides. They are not copied.
    dim : int
        The axis of the classes.
    dtype : torch.dtype, optional
        The dtype to which `input` is converted first.

    Returns
    -------
    Tensor
        Logarithms of probabilities, in nats, of the shape and dtype of `input`.

    Raises
    ------
    TypeError
        If `input` is no dense tensor on the CPU, or is one that torch.func transforms, or has
        another dtype.
    IndexError
        If there is no axis `dim`.
    """
    return _rowwise(_torch.log_softmax, input, dim, dtype, "torch.log_softmax")


def _rowwise(
    operator: Any, input: Tensor, dim: int, dtype: torch.dtype | None, instead: str
) -> Tensor:
    _check("input", input, instead)
    if dtype is not None:
        input = input.to(dtype)
    _check_dtype(input)
    if input.ndim == 0:  # one class, which PyTorch takes for an axis
        return operator(input.reshape(1), dim).reshape(())
    return operator(input, dim)
