cdef int thread_count(object n_threads, ptrdiff_t n_elements) except -1

cdef extern from "openmp.h" nogil:
    enum:
        CYSOFTMAX_OPENMP
    int thread_num "omp_get_thread_num"() noexcept
    int omp_get_max_threads() noexcept
    int omp_get_num_procs() noexcept
    bint omp_in_parallel() noexcept
