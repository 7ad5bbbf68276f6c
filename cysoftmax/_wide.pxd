# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# Numbers with an exponent of their own: for weights, products and sums that a double cannot hold.
# Arithmetic alone; knows no row and no option.

from libc.math cimport frexp, isfinite, ldexp

cdef struct Wide:                   # part times 2 to the power of exponent
    double part
    int exponent

cdef enum:
    NO_EXPONENT = -1000000          # of zero: below that of any number


cdef inline Wide wide(double value, int exponent) noexcept nogil:
    """Return value 2^exponent with a part in [1/2, 1), unless it is 0, infinite or NaN."""
    cdef Wide w = Wide(value, 0)
    cdef int own
    if value != 0 and isfinite(value):
        w.part = frexp(value, &own)
        w.exponent = own + exponent
    return w


cdef inline double narrow(Wide w, int more) noexcept nogil:
    """Return w 2^more as a double, rounded once; infinite if it is too large."""
    return ldexp(w.part, w.exponent + more) if w.exponent + more != 0 else w.part


cdef inline Wide without_exponent(Wide w) noexcept nogil:
    """Return w with the exponent 0 if a double holds it, and products with it, as normal
    numbers."""
    return Wide(narrow(w, 0), 0) if -500 < w.exponent < 500 else w


cdef inline int exponent_of(Wide w) noexcept nogil:
    """Return the exponent of a number as `wide` has it; that of 0 is below all others."""
    return w.exponent if w.part != 0 else NO_EXPONENT


cdef inline Wide times(Wide a, Wide b) noexcept nogil:
    """Return a b."""
    return wide(a.part * b.part, a.exponent + b.exponent)


cdef inline Wide plus(Wide a, Wide b) noexcept nogil:
    """Return a + b, for numbers as `wide` has them."""
    cdef int exponent = max(exponent_of(a), exponent_of(b))
    if exponent == NO_EXPONENT or not isfinite(a.part + b.part):
        return wide(a.part + b.part, 0)
    return wide(ldexp(a.part, a.exponent - exponent) + ldexp(b.part, b.exponent - exponent),
                exponent)


cdef inline Wide over(Wide a, Wide b) noexcept nogil:
    """Return a / b."""
    return wide(a.part / b.part, a.exponent - b.exponent)
