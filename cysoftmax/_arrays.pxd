# What _checks.pyx, _check_sparse.pyx and _calls.pyx need of arrays.

cimport numpy as cnp

cdef cnp.dtype FLOAT, DOUBLE        # float32 and float64

cdef bint is_half(cnp.dtype dtype) except -1
cdef cnp.dtype compute_dtype(cnp.dtype dtype)
cdef cnp.dtype native_order(cnp.dtype dtype)
cdef cnp.dtype readable_dtype(cnp.dtype dtype)
cdef tuple shape_of(cnp.ndarray x)
cdef tuple shape_without(cnp.ndarray x, int axis)
cdef cnp.ndarray as_array(value, name)
cdef int refuse_mask(value, name, cure) except -1
cdef cnp.ndarray native(cnp.ndarray array, cnp.dtype dtype)
cdef cnp.ndarray class_last(cnp.ndarray array, int axis)
cdef bint overlap(cnp.ndarray a, cnp.ndarray b) except -1
cdef copy_if_overlapping(array, out, bint by_row=*)
cdef cnp.ndarray workspace(cnp.ndarray like, cnp.dtype dtype, out)
cdef copy_to_out(cnp.ndarray work, out)
