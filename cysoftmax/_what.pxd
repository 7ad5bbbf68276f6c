# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# What a call computes: the bits of Job.what. No functions, so that a module which needs only
# these (_calls.pyx) compiles none of the core.

cdef enum:
    SOFTMAX = 1
    LOG_SOFTMAX = 2
    LOGSUMEXP = 4
    LOSS = 8
    GRAD = 16
    VJP = 32
    VARIANCE = 64           # the diagonal of the Hessian
    STATS = 128             # see store_stats in _write.pxd
    TOTALS = 256            # see store_totals in _given.pxd
