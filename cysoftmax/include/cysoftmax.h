/* The functions of cysoftmax for one row, for extension modules of Python in C and C++.

   docs/compiled.md has examples. A module calls cysoftmax_import() once, when it is imported, in
   each source file that includes this header; after that, the functions may be called from any
   thread, without the GIL. cysoftmax.get_include() is the folder of this file. */

#ifndef CYSOFTMAX_H
#define CYSOFTMAX_H

#include <Python.h>
#include <stddef.h>

/* Changed when a function of the table changes its meaning or its arguments. New functions are put
   at the end of the table instead, which makes it longer. */
#define CYSOFTMAX_ABI 1

#ifdef __cplusplus
extern "C" {
#endif

/* A row is n numbers, `stride` numbers apart, from x on: any stride, 0 and negative ones included.
   An output may be an input, with the stride of that; otherwise they must not overlap. The results
   have the bits of the functions for arrays. Nothing is allocated, no error is raised, and the mode
   and the flags of the floating-point unit stay as they are.

   A label outside of 0 ... n - 1 gives NaN: as the loss, and in the whole gradient. Of an empty row
   the logsumexp is -inf. */
typedef struct {
    int abi;        /* CYSOFTMAX_ABI of the library */
    size_t n_bytes; /* of this table there */

    /* out = exp(x) / sum(exp(x)) */
    void (*softmax_f32)(const float *x, ptrdiff_t n, ptrdiff_t stride, float *out,
                        ptrdiff_t out_stride);
    void (*softmax_f64)(const double *x, ptrdiff_t n, ptrdiff_t stride, double *out,
                        ptrdiff_t out_stride);
    /* out = log(softmax(x)) */
    void (*log_softmax_f32)(const float *x, ptrdiff_t n, ptrdiff_t stride, float *out,
                            ptrdiff_t out_stride);
    void (*log_softmax_f64)(const double *x, ptrdiff_t n, ptrdiff_t stride, double *out,
                            ptrdiff_t out_stride);
    /* Return log(sum(exp(x))). */
    float (*logsumexp_f32)(const float *x, ptrdiff_t n, ptrdiff_t stride);
    double (*logsumexp_f64)(const double *x, ptrdiff_t n, ptrdiff_t stride);
    /* Return the loss -log(softmax(x)[label]), in nats. */
    float (*cross_entropy_f32)(const float *x, ptrdiff_t n, ptrdiff_t stride, ptrdiff_t label);
    double (*cross_entropy_f64)(const double *x, ptrdiff_t n, ptrdiff_t stride, ptrdiff_t label);
    /* grad = the gradient of that loss: softmax(x), less 1 at the label */
    void (*cross_entropy_grad_f32)(const float *x, ptrdiff_t n, ptrdiff_t stride, ptrdiff_t label,
                                   float *grad, ptrdiff_t grad_stride);
    void (*cross_entropy_grad_f64)(const double *x, ptrdiff_t n, ptrdiff_t stride, ptrdiff_t label,
                                   double *grad, ptrdiff_t grad_stride);
    /* Do both: return the loss. */
    float (*cross_entropy_with_grad_f32)(const float *x, ptrdiff_t n, ptrdiff_t stride,
                                         ptrdiff_t label, float *grad, ptrdiff_t grad_stride);
    double (*cross_entropy_with_grad_f64)(const double *x, ptrdiff_t n, ptrdiff_t stride,
                                          ptrdiff_t label, double *grad, ptrdiff_t grad_stride);
    /* out = p (v - sum(p v)): the product of the Jacobian of softmax, at the probabilities p, and
       the vector v */
    void (*softmax_vjp_f32)(const float *p, ptrdiff_t n, ptrdiff_t stride, const float *v,
                            ptrdiff_t v_stride, float *out, ptrdiff_t out_stride);
    void (*softmax_vjp_f64)(const double *p, ptrdiff_t n, ptrdiff_t stride, const double *v,
                            ptrdiff_t v_stride, double *out, ptrdiff_t out_stride);
} cysoftmax_table;

/* The table of the library, once cysoftmax_import() has found it. */
static const cysoftmax_table *cysoftmax_functions = NULL;

/* Find the library. Return 0; or -1 with an ImportError set, if there is none, or if it is one for
   which another cysoftmax.h was made. */
static inline int cysoftmax_import(void) {
    const cysoftmax_table *found =
        (const cysoftmax_table *)PyCapsule_Import("cysoftmax._row_functions.TABLE", 0);
    if (found == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_ImportError))
            PyErr_SetString(PyExc_ImportError,
                            "this module was compiled with cysoftmax.h, but the cysoftmax that is "
                            "installed has no functions for compiled code: upgrade cysoftmax");
        return -1;
    }
    if (found->abi != CYSOFTMAX_ABI) {
        PyErr_Format(PyExc_ImportError,
                     "this module was compiled with a cysoftmax.h of ABI %d, but the cysoftmax "
                     "that is installed has ABI %d: compile the module again, with the "
                     "cysoftmax.h of that version",
                     CYSOFTMAX_ABI, found->abi);
        return -1;
    }
    if (found->n_bytes < sizeof(cysoftmax_table)) {
        PyErr_Format(PyExc_ImportError,
                     "this module was compiled with a cysoftmax.h whose table has %zu bytes, but "
                     "the one of the cysoftmax that is installed has %zu: upgrade cysoftmax",
                     sizeof(cysoftmax_table), found->n_bytes);
        return -1;
    }
    cysoftmax_functions = found;
    return 0;
}

#define cysoftmax_softmax_f32 (*cysoftmax_functions->softmax_f32)
#define cysoftmax_softmax_f64 (*cysoftmax_functions->softmax_f64)
#define cysoftmax_log_softmax_f32 (*cysoftmax_functions->log_softmax_f32)
#define cysoftmax_log_softmax_f64 (*cysoftmax_functions->log_softmax_f64)
#define cysoftmax_logsumexp_f32 (*cysoftmax_functions->logsumexp_f32)
#define cysoftmax_logsumexp_f64 (*cysoftmax_functions->logsumexp_f64)
#define cysoftmax_cross_entropy_f32 (*cysoftmax_functions->cross_entropy_f32)
#define cysoftmax_cross_entropy_f64 (*cysoftmax_functions->cross_entropy_f64)
#define cysoftmax_cross_entropy_grad_f32 (*cysoftmax_functions->cross_entropy_grad_f32)
#define cysoftmax_cross_entropy_grad_f64 (*cysoftmax_functions->cross_entropy_grad_f64)
#define cysoftmax_cross_entropy_with_grad_f32 (*cysoftmax_functions->cross_entropy_with_grad_f32)
#define cysoftmax_cross_entropy_with_grad_f64 (*cysoftmax_functions->cross_entropy_with_grad_f64)
#define cysoftmax_softmax_vjp_f32 (*cysoftmax_functions->softmax_vjp_f32)
#define cysoftmax_softmax_vjp_f64 (*cysoftmax_functions->softmax_vjp_f64)

#ifdef __cplusplus
}
#endif

#endif
