cdef int thread_count(object n_threads, ptrdiff_t n_elements) except -1

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    #define cysoftmax_thread_num() omp_get_thread_num()
    #else
    #define cysoftmax_thread_num() 0
    #endif
    """
    int thread_num "cysoftmax_thread_num"() noexcept nogil
