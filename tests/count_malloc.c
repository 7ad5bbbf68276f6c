/* Counts the bytes that malloc has given out, when it is preloaded: see test_memory.py. It stands
 * in for the functions of glibc, whose own it calls by their other names.
 */
#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stddef.h>

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t count, size_t n);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t alignment, size_t n);
void __libc_free(void *p);

static _Atomic ptrdiff_t in_use, peak;
static ptrdiff_t at_begin;

static void *counted(void *p) {
    ptrdiff_t bytes = (ptrdiff_t)malloc_usable_size(p);
    ptrdiff_t now = atomic_fetch_add(&in_use, bytes) + bytes, before = atomic_load(&peak);
    while (now > before && !atomic_compare_exchange_weak(&peak, &before, now)) {
    }
    return p;
}

void *malloc(size_t n) { return counted(__libc_malloc(n)); }

void *calloc(size_t count, size_t n) { return counted(__libc_calloc(count, n)); }

void *memalign(size_t alignment, size_t n) { return counted(__libc_memalign(alignment, n)); }

void *aligned_alloc(size_t alignment, size_t n) { return memalign(alignment, n); }

int posix_memalign(void **p, size_t alignment, size_t n) {
    *p = memalign(alignment, n);
    return *p == NULL ? ENOMEM : 0;
}

/* The old block counts until the new one is there, as if all were copied. */
void *realloc(void *p, size_t n) {
    ptrdiff_t old = (ptrdiff_t)malloc_usable_size(p);
    void *q = __libc_realloc(p, n);
    if (q != NULL || n == 0) {
        counted(q);
        atomic_fetch_sub(&in_use, old);
    }
    return q;
}

void free(void *p) {
    atomic_fetch_sub(&in_use, (ptrdiff_t)malloc_usable_size(p));
    __libc_free(p);
}

void begin_count(void) {
    at_begin = atomic_load(&in_use);
    atomic_store(&peak, at_begin);
}

/* The most bytes that were in use since, beyond those at the beginning. */
ptrdiff_t end_count(void) { return atomic_load(&peak) - at_begin; }
