# What `cimport cysoftmax` gives: functions of one row, to be called without the GIL.

from cysoftmax._row_functions cimport (
    cross_entropy_f32, cross_entropy_f64, cross_entropy_grad_f32, cross_entropy_grad_f64,
    cross_entropy_with_grad_f32, cross_entropy_with_grad_f64, log_softmax_f32, log_softmax_f64,
    logsumexp_f32, logsumexp_f64, softmax_f32, softmax_f64, softmax_vjp_f32, softmax_vjp_f64)
