# What _calls.pyx calls once the arguments are checked, and the instruction set in use.

cimport numpy as cnp

from cysoftmax._kernels cimport Isa

cdef const Isa *active

cdef int rowwise(int what, cnp.ndarray x, out, result, options, n_threads, totals=*,
                 given=*) except -1
cdef int vjp(cnp.ndarray p, cnp.ndarray v, cnp.ndarray out, n_threads) except -1
cdef bint row_stats(cnp.ndarray x, target, cnp.ndarray stats, options, n_threads) except -1
cdef cross_entropy(int what, cnp.ndarray x, target, out, result, variance, scale, bint mean,
                   bint kept, options, n_threads, tuple divisor=*, given=*,
                   first_class=*)
cdef int merge(cnp.ndarray a, cnp.ndarray b, double temperature, cnp.ndarray out) except -1
cdef tuple total_weight(cnp.ndarray x, target, options, bint mean, n_threads, given=*,
                        first_class=*)
cdef cnp.ndarray weights_of_rows(cnp.ndarray x, target, options)
cdef tuple total_of_rows(cnp.ndarray numbers)
cdef tuple divisor_of_distributions(tuple weight, ptrdiff_t n_rows, ptrdiff_t itemsize)
