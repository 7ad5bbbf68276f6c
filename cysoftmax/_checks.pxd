# The checks that _calls.pyx goes through.

cimport numpy as cnp

cdef tuple shape_of(cnp.ndarray x)
cdef tuple shape_without(cnp.ndarray x, int axis)
cdef cnp.dtype compute_dtype(cnp.dtype dtype)
cdef cnp.ndarray check_logits(value, name=*)
cdef int check_axis(axis, int ndim) except -1
cdef check_threads(n_threads)
cdef check_options(cnp.ndarray x, int axis, labels, given)
cdef check_target(value, cnp.ndarray x, int axis)
cdef check_scale(value, cnp.ndarray x, int axis)
cdef int check_out(out, tuple shape, cnp.dtype dtype) except -1
cdef cnp.ndarray class_last(cnp.ndarray array, int axis)
cdef cnp.ndarray workspace(cnp.ndarray like, out)
cdef copy_if_overlapping(array, out)
cdef copy_overlapping_options(options, out)
cdef copy_to_out(cnp.ndarray work, out)
