"""cysoftmax.torch passes PyTorch's own tests of the loss, the softmax and of operators."""

import doctest
import re
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")  # which PyTorch's own tests need

import cysoftmax  # noqa: E402
import cysoftmax.torch as ours  # noqa: E402

with warnings.catch_warnings(action="ignore"):
    from torch.testing._internal.common_methods_invocations import op_db
    from torch.testing._internal.common_modules import module_db

F = torch.nn.functional
pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
INTEGERS = [
    torch.int8, torch.int16, torch.int32, torch.int64,
    torch.uint8, torch.uint16, torch.uint32, torch.uint64,
]  # fmt: skip
REDUCTIONS = ["mean", "sum", "none"]
PAIRS = {
    "nn.functional.cross_entropy": ours.cross_entropy,
    "softmax": ours.softmax,
    "log_softmax": ours.log_softmax,
}
OPERATORS = torch.ops.cysoftmax

by_dtype = pytest.mark.parametrize("dtype", FLOATS, ids=str)
by_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)


def close(a, b, dtype=torch.float64):
    # PyTorch rounds intermediate results to 16 bits, which costs it a few digits.
    coarse = {torch.float16: 1e-2, torch.bfloat16: 6e-2}.get(dtype)
    torch.testing.assert_close(a, b, rtol=coarse, atol=coarse, equal_nan=True)


def backward(function, *inputs, seed=1, **options):
    """The result of a function, and the gradients of the inputs that have one."""
    result = function(*inputs, **options)
    wanted = [x for x in inputs if isinstance(x, torch.Tensor) and x.requires_grad]
    g = torch.randn(result.shape, generator=torch.Generator().manual_seed(seed)).to(result.dtype)
    return result.detach(), *torch.autograd.grad(result, wanted, g)


def some(shape=(6, 5), dtype=torch.float64, labels=True, weighted=False, seed=0):
    """Logits, their target, and weights of the classes or None."""
    torch.manual_seed(seed)
    x = torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_()
    axis = min(1, len(shape) - 1)
    if labels:
        target = torch.randint(shape[axis], shape[:axis] + shape[axis + 1 :])
        target.view(-1)[1:][-1:] = -100
    else:
        target = torch.rand(shape, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.rand(shape[axis], dtype=torch.float64).to(dtype) if weighted else None
    return x, target, weight


# ---------------------------------------------------------------- PyTorch's own tests


def samples():
    for op in op_db:
        if op.name in PAIRS:
            for dtype in FLOATS:
                yield pytest.param(op, dtype, id=f"{op.name} {op.variant_test_name} {dtype}")


@pytest.mark.parametrize(("op", "dtype"), list(samples()))
def test_pytorchs_samples_give_pytorchs_results(op, dtype):
    found = list(op.sample_inputs("cpu", dtype, requires_grad=True))
    assert len(found) >= 6
    for sample in found:
        arguments = sample.input, *sample.args
        try:
            expected = backward(op.op, *arguments, **sample.kwargs)
        except RuntimeError as error:
            raise AssertionError(f"{sample} does not run on a CPU") from error
        close(backward(PAIRS[op.name], *arguments, **sample.kwargs), expected, dtype)


@pytest.mark.parametrize("name", PAIRS)
def test_pytorchs_error_inputs_are_errors(name):
    """PyTorch 2.13 lists none for these operators; the arguments below are refused by it."""
    op = next(op for op in op_db if op.name == name)
    listed = [] if op.error_inputs_func is None else list(op.error_inputs("cpu"))
    wrong = [(case.sample_input.input, case.sample_input.args, case.sample_input.kwargs)
             for case in listed]  # fmt: skip
    x, y = torch.randn(3, 4), torch.tensor([0, 1, 2])
    if name == "nn.functional.cross_entropy":
        q = torch.rand(3, 4)
        wrong += [
            (x, (torch.tensor([0, 1, 4]),), {}),
            (x, (torch.tensor([0, 1, -1]),), {}),
            (x, (y[:2],), {}),
            (x, (q[:, :3],), {}),
            (x, (y.float(),), {}),
            (x, (q > 0.5,), {}),
            (x, (q,), {"ignore_index": 1}),
            (x, (y,), {"reduction": "median"}),
            (x, (y,), {"label_smoothing": 1.5}),
            (x, (y,), {"weight": torch.ones(3)}),
            (x, (y,), {"weight": torch.ones(4, requires_grad=True)}),
            (x.requires_grad_(), (torch.tensor([0, 1, 4]),), {}),
            (x.long(), (y,), {}),
        ]
    else:
        wrong += [(x, (2,), {}), (x, (-3,), {}), (x.long(), (1,), {}), (x > 0, (1,), {})]
    for x, args, kwargs in wrong:
        with pytest.raises((RuntimeError, ValueError, TypeError, IndexError)):
            op.op(x, *args, **kwargs)
        with pytest.raises((ValueError, TypeError, IndexError), match=r"must|axis"):
            PAIRS[name](x, *args, **kwargs)


@by_dtype
def test_pytorchs_samples_of_the_module_give_its_results(dtype):
    (info,) = [m for m in module_db if m.module_cls is torch.nn.CrossEntropyLoss]
    found = info.module_inputs_func(info, "cpu", dtype, True, True)
    assert len(found) > 80
    for sample in found:
        arguments = sample.constructor_input
        module = ours.CrossEntropyLoss(*arguments.args, **arguments.kwargs)
        theirs = torch.nn.CrossEntropyLoss(*arguments.args, **arguments.kwargs)
        assert isinstance(module, torch.nn.CrossEntropyLoss)
        assert module.state_dict().keys() == theirs.state_dict().keys()
        x, target = sample.forward_input.args
        close(backward(module, x, target.detach()), backward(theirs, x, target.detach()), dtype)


# ---------------------------------------------------------------- derivatives


@by_reduction
@pytest.mark.parametrize("labels", [True, False], ids=["labels", "distributions"])
@pytest.mark.parametrize("shape", [(4,), (5, 4), (2, 4, 3)], ids=str)
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.2, "z_loss": 0.1}], ids=["", "all"])
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_derivatives_are_those_of_finite_differences(shape, labels, options, reduction, weighted):
    x, target, weight = some(shape, labels=labels, weighted=weighted)

    def loss(x, target):
        return ours.cross_entropy(x, target, weight, reduction=reduction, **options)

    batched = {"check_batched_grad": True}
    assert torch.autograd.gradcheck(loss, (x, target), **batched)
    assert torch.autograd.gradgradcheck(loss, (x, target), **batched)


@pytest.mark.parametrize("function", [ours.softmax, ours.log_softmax])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_derivatives_of_the_softmax_are_those_of_finite_differences(function, dim):
    x = some((3, 4, 2))[0]
    assert torch.autograd.gradcheck(function, (x, dim), check_batched_grad=True)
    assert torch.autograd.gradgradcheck(function, (x, dim), check_batched_grad=True)


@by_reduction
def test_second_derivatives_of_weights_below_0_are_pytorchs(reduction):
    x, target, _ = some()
    weight = torch.tensor([1.0, -2.0, 3.0, 0.0, 2.0], dtype=torch.float64)
    found = []
    for function in (ours.cross_entropy, F.cross_entropy):

        def loss(x, function=function):
            return function(x, target, weight, reduction=reduction).sum()  # fmt: skip

        found.append((loss(x), torch.autograd.functional.hessian(loss, x)))
    close(*found)


@by_reduction
@by_dtype
def test_a_retained_graph_gives_the_same_gradient_again(reduction, dtype):
    x, target, _ = some(dtype=dtype)
    loss = ours.cross_entropy(x, target, reduction=reduction)
    g = torch.ones_like(loss)
    first, second = (torch.autograd.grad(loss, x, g, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    first.zero_()  # the caller's own
    assert torch.equal(second, torch.autograd.grad(loss, x, g)[0])


def test_float16_gradients_do_not_vanish_before_they_are_scaled():
    x = torch.zeros(4096, 16, dtype=torch.float16, requires_grad=True)
    loss = ours.cross_entropy(x, torch.zeros(4096, dtype=torch.int64))
    (grad,) = torch.autograd.grad(loss, x, torch.tensor(4096.0, dtype=torch.float16))
    assert torch.equal(grad[:, 1:], torch.full((4096, 15), 1 / 16, dtype=torch.float16))


def test_the_gradient_of_a_confident_row_is_not_rounded_to_zero():
    x = torch.tensor([[20.0, 0.0, -1.0]], requires_grad=True)
    loss, grad = backward(ours.cross_entropy, x, torch.tensor([0]), reduction="sum", seed=2)
    assert loss.item() == pytest.approx(2.8194096e-9, rel=1e-6)
    ratio = grad / torch.randn((), generator=torch.Generator().manual_seed(2))
    assert ratio[0, 0].item() == pytest.approx(-2.8194096e-9, rel=1e-6)


# ---------------------------------------------------------------- operators and torch.compile


@by_reduction
@pytest.mark.parametrize("labels", [True, False], ids=["labels", "distributions"])
@pytest.mark.parametrize("with_grad", [True, False])
def test_the_operators_of_the_loss_pass_opcheck(labels, reduction, with_grad):
    x, target, weight = some((3, 4, 2), labels=labels, weighted=True)
    options = weight, -100, reduction, 0.0, 0.1
    torch.library.opcheck(OPERATORS.cross_entropy, (x, target, *options, with_grad))
    strided = x.detach().transpose(0, 2).requires_grad_()
    strided_target = target.detach().transpose(0, -1).requires_grad_(not labels)
    torch.library.opcheck(OPERATORS.cross_entropy, (strided, strided_target, *options, with_grad))
    loss = ours.cross_entropy(x, target, weight, reduction=reduction)
    g = torch.ones_like(loss).requires_grad_()
    torch.library.opcheck(OPERATORS.cross_entropy_backward, (g, x, target, *options))


@pytest.mark.parametrize("dim", [0, 1])
def test_the_operators_of_the_softmax_pass_opcheck(dim):
    x, g, _ = some((4, 3), labels=False)
    for arguments in ((x, g), (x.detach().T.requires_grad_(), g.detach().T.requires_grad_())):
        x, g = arguments
        torch.library.opcheck(OPERATORS.softmax, (x, dim))
        torch.library.opcheck(OPERATORS.log_softmax, (x, dim))
        y = ours.log_softmax(x.detach(), dim)
        torch.library.opcheck(OPERATORS.softmax_backward, (g, y.exp().requires_grad_(), dim))
        torch.library.opcheck(OPERATORS.log_softmax_backward, (g, y.requires_grad_(), dim))


@by_dtype
@by_reduction
@pytest.mark.parametrize("labels", [True, False], ids=["labels", "distributions"])
def test_a_compiled_model_gives_the_same_numbers_without_a_graph_break(labels, reduction, dtype):
    torch._dynamo.reset()
    model = torch.nn.Linear(3, 5).to(dtype)
    criterion = ours.CrossEntropyLoss(reduction=reduction, label_smoothing=0.1)
    _, target, _ = some(dtype=dtype, labels=labels)
    target = target.detach()
    x = torch.randn(6, 3).to(dtype)

    def step(x):
        logits = model(x)
        loss = criterion(logits, target)
        return loss.sum() + ours.softmax(logits, 1).square().sum() - ours.log_softmax(
            logits, 1
        ).mean()  # fmt: skip

    explained = torch._dynamo.explain(step)(x)
    assert explained.graph_break_count == 0
    assert explained.graph_count == 1
    torch._dynamo.reset()
    # The graphs are those of torch.compile; the default backend adds a C++ compiler to it.
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    found = []
    for function in (step, compiled):
        value = function(x)
        found.append((value, *torch.autograd.grad(value, model.parameters())))
    close(found[1], found[0], dtype)
    with torch.no_grad():
        close(compiled(x), step(x), dtype)


def test_the_default_backend_compiles_a_training_step():
    torch._dynamo.reset()
    x, target, weight = some((64, 5), torch.float32, weighted=True)

    def loss(x):
        return ours.cross_entropy(2 * x, target, weight)

    compiled = torch.compile(loss, fullgraph=True)
    close(backward(compiled, x), backward(loss, x), torch.float32)


def test_tracers_find_the_operator_in_place_of_a_number():
    from torch.fx.experimental.proxy_tensor import make_fx

    x, target, _ = some()
    graph = make_fx(lambda x: ours.cross_entropy(x, target))(x)
    assert "torch.ops.cysoftmax.cross_entropy" in graph.code
    other = some(seed=3)[0]
    close(graph(other), ours.cross_entropy(other, target))


def test_functional_transforms_are_an_error_that_says_what_to_use():
    x, target, _ = some()
    with pytest.raises(TypeError, match=r"torch\.nn\.functional\.cross_entropy knows"):
        torch.func.grad(ours.cross_entropy)(x.detach(), target)
    with pytest.raises(TypeError, match=r"torch\.softmax knows"):
        torch.func.vmap(lambda row: ours.softmax(row, 0))(x.detach())


# ---------------------------------------------------------------- tensors of every kind


@by_dtype
@pytest.mark.parametrize("kind", INTEGERS, ids=str)
def test_labels_have_any_integer_dtype(dtype, kind):
    x, target, _ = some((6, 5), dtype)
    target[-1] = 2
    found = [backward(ours.cross_entropy, x, y, ignore_index=2) for y in (target, target.to(kind))]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert all(t.dtype is dtype for t in found[1])


@pytest.mark.parametrize("n_rows", [3, 64, 65, 500])
@pytest.mark.parametrize("ignore_index", [-100, 3, 300, 2**40])
@pytest.mark.parametrize("kind", INTEGERS, ids=str)
def test_ignored_labels_are_found_in_any_number_of_rows(n_rows, ignore_index, kind):
    x = some((n_rows, 5))[0]
    target = torch.arange(n_rows) % 5
    if ignore_index == -100 and kind.is_signed:
        target[1::3] = -100
    found = backward(ours.cross_entropy, x, target.to(kind), ignore_index=ignore_index)
    close(found, backward(F.cross_entropy, x, target, ignore_index=ignore_index))


LAYOUTS = {
    "transposed": lambda x: x.T.contiguous().T,
    "every other class": lambda x: x.repeat_interleave(2, 1)[:, ::2],
    "every other row": lambda x: x.repeat_interleave(2, 0)[::2],
    "expanded": lambda x: x[:1].expand(6, 5),
    "offset": lambda x: torch.cat([x.new_zeros(3), x.flatten()])[3:].view(6, 5),
    "channels last": lambda x: (
        x.view(1, 6, 5, 1).to(memory_format=torch.channels_last).view(6, 5)
    ),
}  # fmt: skip


@by_dtype
@by_reduction
@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides_change_no_bit(layout, dtype, reduction):
    x, target, _ = some((6, 5), dtype)
    x = LAYOUTS[layout](x.detach())
    found = [
        backward(ours.cross_entropy, y.requires_grad_(), target, reduction=reduction)
        for y in (x.detach(), x.clone(memory_format=torch.contiguous_format))
    ]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("shape", [(1, 10), (64, 10), (65, 10), (3, 20000)])
@pytest.mark.parametrize("kind", [torch.int64, torch.int32], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_batches_of_any_size_have_the_bits_of_arrays(reduction, dtype, kind, shape):
    """Those of up to 64 rows go their own way."""
    x, target, _ = some(shape, dtype)
    for ignore_index in -100, 3, 2**70, -(2**63):
        labels = target.clamp(min=0) if ignore_index != -100 else target
        given = {"reduction": reduction, "ignore_index": ignore_index}
        loss = ours.cross_entropy(x, labels.to(kind), **given)
        (grad,) = torch.autograd.grad(loss, x)
        want = cysoftmax.cross_entropy_with_grad(x.detach().numpy(), labels.numpy(), **given)
        assert loss.dtype is dtype
        assert loss.item() == torch.tensor(want.loss, dtype=dtype).item()
        np.testing.assert_array_equal(grad.numpy(), want.grad)


def test_numbers_that_do_not_lie_in_memory_as_they_are_are_read_all_the_same():
    x, target, _ = some((4, 5), torch.float32)
    target = target.clamp(min=0)
    for logits in torch._neg_view(-x.detach()), torch._efficientzerotensor((4, 5)):
        logits.requires_grad_()
        found = ours.cross_entropy(logits, target)
        close(found, F.cross_entropy(logits, target))
        close(torch.autograd.grad(found, logits), torch.autograd.grad(
            F.cross_entropy(logits, target), logits))  # fmt: skip


def test_bfloat16_is_cysoftmaxs_own():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x, target, _ = some((6, 5), torch.bfloat16)
    loss, grad = ours.cross_entropy(x, target), None
    (grad,) = torch.autograd.grad(loss, x)
    logits = x.detach().float().numpy().astype(ml_dtypes.bfloat16)
    expected = cysoftmax.cross_entropy_with_grad(logits, target.numpy(), ignore_index=-100)
    assert loss.item() == torch.tensor(expected.loss).bfloat16().item()
    np.testing.assert_array_equal(grad.float().numpy(), expected.grad.astype(np.float32))


def test_bfloat16_needs_no_ml_dtypes_and_numpy_alone_is_imported_without_the_module():
    code = """
import sys
sys.modules["ml_dtypes"] = None
import cysoftmax
assert "torch" not in sys.modules
import cysoftmax.torch, torch
x = torch.zeros(2, 4, dtype=torch.bfloat16, requires_grad=True)
cysoftmax.torch.cross_entropy(x, torch.tensor([0, 1]), reduction="sum").backward()
assert x.grad.tolist() == [[-0.75, 0.25, 0.25, 0.25], [0.25, -0.75, 0.25, 0.25]]
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@by_reduction
@pytest.mark.parametrize("labels", [True, False], ids=["labels", "distributions"])
def test_no_rows_give_pytorchs_loss(labels, reduction):
    x, target = torch.zeros(0, 4, requires_grad=True), torch.zeros(0, dtype=torch.int64)
    target = target if labels else torch.zeros(0, 4)
    close(*(backward(f, x, target, reduction=reduction) for f in (ours.cross_entropy,
                                                                 F.cross_entropy)))  # fmt: skip


@by_reduction
@pytest.mark.parametrize("signed", [False, True], ids=["", "signed"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_ignored_rows_have_no_gradient_and_are_not_read(reduction, signed, label_smoothing):
    x = torch.full((3, 4), torch.nan, dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([1.0, -1.0, 2.0, 3.0], dtype=torch.float64) if signed else None
    loss = ours.cross_entropy(
        x, torch.full((3,), -100), weight, reduction=reduction, label_smoothing=label_smoothing
    )
    assert torch.isnan(loss) if reduction == "mean" else not loss.any()
    total = loss.nansum() if reduction == "none" else loss
    (grad,) = torch.autograd.grad(total, x, create_graph=True)
    assert not grad.any()
    assert not torch.autograd.grad(grad.sum(), x)[0].any()


def test_tensors_elsewhere_are_an_error_that_says_what_to_use():
    x, y = torch.zeros(2, 3), torch.tensor([0, 1])
    meta = x.to("meta")
    cases = [
        lambda: ours.cross_entropy(meta, y),
        lambda: ours.cross_entropy(x, y.to("meta")),
        lambda: ours.cross_entropy(x, y, weight=x[0].to("meta")),
        lambda: ours.cross_entropy(x.to_sparse(), y),
        lambda: ours.CrossEntropyLoss()(meta, y),
    ]
    for call in cases:
        with pytest.raises(TypeError, match=r"on the CPU; got one .*torch\.nn\.functional"):
            call()
    for function, name in ((ours.softmax, "torch.softmax"), (ours.log_softmax, "torch.log_soft")):
        with pytest.raises(TypeError, match=rf"on the CPU; got one on meta \({name}"):
            function(meta, 1)
    with pytest.raises(TypeError, match="must be a tensor; got ndarray"):
        ours.cross_entropy(x.numpy(), y)


# ---------------------------------------------------------------- memory and threads


@by_dtype
@by_reduction
@pytest.mark.parametrize("strided", [False, True], ids=["", "strided"])
def test_the_logits_are_not_copied(dtype, reduction, strided):
    """Blocks of memory from NumPy and from PyTorch are counted, while the call lasts."""
    x = torch.randn(2000, 4000).to(dtype)
    x = (x[:, ::2] if strided else x).requires_grad_()
    target = torch.randint(2000, (2000,))
    size = x.numel() * x.element_size()

    def peak(call):
        call()
        tracemalloc.start()
        try:
            with torch.profiler.profile(profile_memory=True) as profile:
                call()
            _, arrays = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        tensors = sum(max(event.self_cpu_memory_usage, 0) for event in profile.events())
        return arrays + tensors

    with torch.no_grad():
        assert peak(lambda: ours.cross_entropy(x, target, reduction=reduction)) < 0.1 * size
    # The gradient, and nothing beside it.
    whole = peak(lambda: backward(ours.cross_entropy, x, target, reduction=reduction))
    assert size <= whole < 1.1 * size


def test_a_gradient_is_given_away_and_not_copied():
    x, target, _ = some((50, 5), torch.float32)
    loss = ours.cross_entropy(x, target)
    address = loss.grad_fn.ready.data_ptr()
    loss.backward()
    assert x.grad.data_ptr() == address


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_pytorchs_number_of_threads_is_the_number_of_threads(monkeypatch, n_threads):
    asked = []

    class Spy:
        def __getattr__(self, name):
            function = getattr(cysoftmax._calls, name)

            def call(*arguments):
                asked.append(arguments[-1])
                return function(*arguments)

            return call

    before = torch.get_num_threads()
    monkeypatch.setattr(ours._torch, "_calls", Spy())
    torch.set_num_threads(n_threads)
    try:
        for reduction in REDUCTIONS:
            backward(ours.cross_entropy, *some()[:2], reduction=reduction)
        with torch.no_grad():
            ours.cross_entropy(*some()[:2])
        for function in (ours.softmax, ours.log_softmax):
            backward(function, some()[0], 1)
    finally:
        torch.set_num_threads(before)
    assert len(asked) == 3 + 1 + 1 + 4
    assert set(asked) == {n_threads}


def test_a_model_learns_the_same_with_either_loss():
    torch.manual_seed(0)
    x, target = torch.randn(200, 8), torch.randint(3, (200,))
    losses = []
    for criterion in (ours.CrossEntropyLoss(), torch.nn.CrossEntropyLoss()):
        torch.manual_seed(1)
        model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for _ in range(50):
            optimizer.zero_grad()
            loss = criterion(model(x), target)
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] < 0.9 * np.log(3)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_examples_of_the_docstrings_and_of_the_page_run():
    assert doctest.testmod(ours).attempted >= 6
    assert doctest.testmod(ours).failed == 0
    page = (Path(__file__).parents[2] / "docs" / "frameworks.md").read_text(encoding="utf-8")
    section = page.partition("\n## PyTorch\n")[2].partition("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names = {}
    exec(code, names)
    assert names["model"].weight.grad.abs().max() > 0
