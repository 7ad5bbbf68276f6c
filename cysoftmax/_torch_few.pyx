# cython: language_level=3
"""The loss of a few rows, as cysoftmax.torch returns it, in compiled code.

Of one row of ten logits, PyTorch's own loss and gradient take 44 us, nearly all of them for its
graph, and so does any torch.autograd.Function. What is left to do beside that takes 5 us here, and
took 17 in Python. PyTorch is used by its names in Python, which `use` is given: nothing of it is
needed to compile this.
"""

cimport numpy as cnp
from cpython.object cimport Py_TYPE
from libc.stdint cimport int64_t, intptr_t

from cysoftmax cimport _core
from cysoftmax._what cimport GRAD, LOSS

cnp.import_array()

cdef enum:
    MOST_ROWS = 64                  # whose labels are looked at before they are read
    MOST_LOGITS = 1 << 14           # beyond, the arithmetic takes longer than what is saved

cdef object Tensor, Parameter, strided, float32, float64, int64
cdef object is_functorch_wrapped, is_grad_enabled, is_tracing, len_dispatch_stack
cdef object get_num_threads, empty_like, from_numpy
cdef object apply, derivatives


def use(torch, apply_few, derivatives_of_loss):
    """Note the names of PyTorch; the `apply` of the autograd function that has `forward` and
    `backward`; and what `backward` returns if the gradient is not ready."""
    global Tensor, Parameter, strided, float32, float64, int64
    global is_functorch_wrapped, is_grad_enabled, is_tracing, len_dispatch_stack
    global get_num_threads, empty_like, from_numpy, apply, derivatives
    Tensor, Parameter, strided = torch.Tensor, torch.nn.Parameter, torch.strided
    float32, float64, int64 = torch.float32, torch.float64, torch.int64
    is_functorch_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    is_grad_enabled, is_tracing = torch.is_grad_enabled, torch._C._is_tracing
    len_dispatch_stack = torch._C._len_torch_dispatch_stack
    get_num_threads, empty_like = torch.get_num_threads, torch.empty_like
    from_numpy, apply, derivatives = torch.from_numpy, apply_few, derivatives_of_loss


cpdef bint is_plain(tensor) except -1:
    """Return whether a value is a dense tensor on the CPU, whose numbers lie in its memory.

    They may not in subclasses of Tensor, such as those of torch.compile: operators know these.
    """
    return is_dense(tensor) and not is_functorch_wrapped(tensor)


cdef bint is_dense(tensor) except -1:
    """Return whether a value is of the class of dense tensors on the CPU."""
    cdef object kind = <object>Py_TYPE(tensor)
    return (
        (kind is Tensor or kind is Parameter) and tensor.is_cpu and tensor.layout is strided)


cpdef bint is_traced() except -1:
    """Return whether calls are noted, or changed, so that they must be those of operators."""
    return len_dispatch_stack() != 0 or is_tracing()


def loss_of_few(input, target, weight, ignore_index, reduction, label_smoothing, z_loss):
    """Return the loss of a few rows with labels that ask for no option, as a part of the graph; or
    None if it is another one, or one with a wrong argument."""
    if not (
        weight is None and (reduction == "mean" or reduction == "sum") and label_smoothing == 0
        and z_loss == 0 and type(ignore_index) is int and is_grad_enabled()
        and is_dense(input) and is_dense(target) and input.requires_grad
        and (input.dtype is float32 or input.dtype is float64) and target.dtype is int64
        and input.ndim == 2 and target.ndim == 1 and 0 < input.numel() <= MOST_LOGITS
        and input.is_contiguous() and not input.is_neg()
        and target.is_contiguous() and not target.is_neg() and not is_traced()
        and target.numel() == input.shape[0] <= MOST_ROWS
    ):
        return None
    try:
        memory_of(input)
        if holds(target, ignore_index):
            return None
    except RuntimeError:
        return None                 # a transform of torch.func has wrapped it
    try:
        return apply(input, target, None, (ignore_index, reduction, label_smoothing, z_loss))
    except IndexError:
        return None                 # a bad label, which is said in the words of PyTorch elsewhere


cdef bint holds(target, label) except -1:
    """Return whether a tensor of int64 side by side holds a label."""
    cdef const int64_t *labels = <const int64_t *>memory_of(target)
    cdef int64_t wanted
    cdef Py_ssize_t i
    try:
        wanted = label
    except OverflowError:
        return False
    for i in range(target.numel()):
        if labels[i] == wanted:
            return True
    return False


cdef void *memory_of(tensor) except NULL:
    """Return where the numbers of a tensor lie."""
    cdef void *memory = <void *><intptr_t>tensor.data_ptr()
    if memory == NULL:
        raise RuntimeError("a tensor without memory")   # there are such tensors of zeros
    return memory


cdef array_of(tensor, int ndim, cnp.npy_intp *shape, int dtype):
    """Return an array of the memory of a tensor, which must outlive it."""
    return cnp.PyArray_SimpleNewFromData(ndim, shape, dtype, memory_of(tensor))


def forward(ctx, input, target, weight, options):
    """Compute the loss, and keep its gradient for `backward`."""
    cdef int dtype = cnp.NPY_FLOAT if input.dtype is float32 else cnp.NPY_DOUBLE
    cdef cnp.npy_intp[2] shape
    cdef cnp.ndarray loss = cnp.PyArray_EMPTY(0, shape, dtype, 0)
    shape[0] = target.numel()
    shape[1] = input.numel() // shape[0]
    grad = empty_like(input)
    value = _core.cross_entropy(
        LOSS | GRAD, array_of(input, 2, shape, dtype),
        array_of(target, 1, shape, cnp.NPY_INT64), array_of(grad, 2, shape, dtype), None, None,
        1.0, options[1] == "mean", False, None, get_num_threads())
    if value is None:
        raise IndexError("target must lie in the range of the classes")
    if dtype == cnp.NPY_FLOAT:
        (<float *>cnp.PyArray_DATA(loss))[0] = value
    else:
        (<double *>cnp.PyArray_DATA(loss))[0] = value
    ctx.save_for_backward(input, target, None)
    ctx.options = options
    ctx.ready = grad
    return from_numpy(loss)


def backward(ctx, g):
    """Return the gradient of the loss times g.

    The first call gives the gradient away: it is multiplied in place, and a leaf may keep it.
    Another call, after retain_graph=True, computes it anew.
    """
    ready = ctx.ready
    ctx.ready = None
    if (
        ready is None or is_grad_enabled() or type(g) is not Tensor or is_functorch_wrapped(g)
        or is_traced() or ctx.needs_input_grad[1]
    ):
        return *derivatives(ctx, g, ready), None, None
    return ready if g.tolist() == 1 else ready.mul_(g), None, None, None
