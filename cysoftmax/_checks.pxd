# The checks that _calls.pyx calls.

cimport numpy as cnp

cdef class Options:
    cdef readonly object class_weight   # once checked: of the dtype that is computed in,
    cdef readonly int class_exponent    # and to be multiplied by 2 to this power
    cdef readonly object sample_weight  # float64, of the shape of the rows
    cdef readonly bint sample_may_be_0  # whether any was, when they were checked
    cdef readonly bint moderate         # all weights are of moderate size, and none is 0
    cdef readonly object ignore_index   # None unless a label can have this value
    cdef readonly object label_smoothing, z_loss, temperature
    cdef readonly object where          # bool, of the shape of the logits, class axis last

cdef cnp.ndarray check_logits(value, name=*)
cdef int check_axis(axis, int ndim) except -1
cdef check_threads(n_threads)
cdef int check_options(Options options, cnp.ndarray x, int axis, labels) except -1
cdef check_target(value, cnp.ndarray x, int axis)
cdef cnp.ndarray check_labels(value, cnp.ndarray x, int axis)
cdef check_scale(value, cnp.ndarray x, int axis)
cdef int check_out(out, tuple shape, cnp.dtype dtype) except -1
cdef int copy_overlapping_options(Options options, out) except -1
cdef Options options_of_rows(Options options, Py_ssize_t begin, Py_ssize_t end)
