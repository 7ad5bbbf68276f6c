// OpenMP's header; in a build without OpenMP, the functions that are used here, for one thread.

#ifndef CYSOFTMAX_OPENMP_H
#define CYSOFTMAX_OPENMP_H

#ifdef _OPENMP
#include <omp.h>
#define CYSOFTMAX_OPENMP _OPENMP // the year and month of the specification
#else
#define CYSOFTMAX_OPENMP 0
static inline int omp_get_thread_num(void) { return 0; }
static inline int omp_get_max_threads(void) { return 1; }
static inline int omp_get_num_procs(void) { return 1; }
static inline int omp_in_parallel(void) { return 0; }
#endif

#endif
