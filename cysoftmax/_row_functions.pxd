# The functions of one row for compiled code: what `cimport cysoftmax` gives. Other packages are
# compiled against this file and __init__.pxd, so it declares these functions alone; a change of one
# needs another CYSOFTMAX_ABI in include/cysoftmax.h, which says what each of them does.

cdef void softmax_f32(const float *x, ptrdiff_t n, ptrdiff_t stride, float *out,
                      ptrdiff_t out_stride) noexcept nogil
cdef void softmax_f64(const double *x, ptrdiff_t n, ptrdiff_t stride, double *out,
                      ptrdiff_t out_stride) noexcept nogil

cdef void log_softmax_f32(const float *x, ptrdiff_t n, ptrdiff_t stride, float *out,
                          ptrdiff_t out_stride) noexcept nogil
cdef void log_softmax_f64(const double *x, ptrdiff_t n, ptrdiff_t stride, double *out,
                          ptrdiff_t out_stride) noexcept nogil

cdef float logsumexp_f32(const float *x, ptrdiff_t n, ptrdiff_t stride) noexcept nogil
cdef double logsumexp_f64(const double *x, ptrdiff_t n, ptrdiff_t stride) noexcept nogil

cdef float cross_entropy_f32(const float *x, ptrdiff_t n, ptrdiff_t stride,
                             ptrdiff_t label) noexcept nogil
cdef double cross_entropy_f64(const double *x, ptrdiff_t n, ptrdiff_t stride,
                              ptrdiff_t label) noexcept nogil

cdef void cross_entropy_grad_f32(const float *x, ptrdiff_t n, ptrdiff_t stride, ptrdiff_t label,
                                 float *grad, ptrdiff_t grad_stride) noexcept nogil
cdef void cross_entropy_grad_f64(const double *x, ptrdiff_t n, ptrdiff_t stride, ptrdiff_t label,
                                 double *grad, ptrdiff_t grad_stride) noexcept nogil

cdef float cross_entropy_with_grad_f32(const float *x, ptrdiff_t n, ptrdiff_t stride,
                                       ptrdiff_t label, float *grad,
                                       ptrdiff_t grad_stride) noexcept nogil
cdef double cross_entropy_with_grad_f64(const double *x, ptrdiff_t n, ptrdiff_t stride,
                                        ptrdiff_t label, double *grad,
                                        ptrdiff_t grad_stride) noexcept nogil

cdef void softmax_vjp_f32(const float *p, ptrdiff_t n, ptrdiff_t stride, const float *v,
                          ptrdiff_t v_stride, float *out, ptrdiff_t out_stride) noexcept nogil
cdef void softmax_vjp_f64(const double *p, ptrdiff_t n, ptrdiff_t stride, const double *v,
                          ptrdiff_t v_stride, double *out, ptrdiff_t out_stride) noexcept nogil
