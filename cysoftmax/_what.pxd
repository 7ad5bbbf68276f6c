# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# What a call is to compute: bits of `what`. No functions, so that _calls.pyx compiles none.

cdef enum:                  # what is wanted
    SOFTMAX = 1
    LOG_SOFTMAX = 2
    LOGSUMEXP = 4
    LOSS = 8
    GRAD = 16
    VJP = 32
    MASS = 64               # of the weights of the rows, their sum alone
    VARIANCE = 128          # the diagonal of the Hessian
    STATS = 256
