/* Calls every function of cysoftmax.h from threads that Python does not know, for
   tests/test_compiled.py, which builds this as an extension module. */
#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#include <cysoftmax.h>

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

enum { MOST = 4000, STACK = 1 << 16, PAINT = 0xa5, THREADS = 8 };

/* The results of all functions for rows of n numbers, whose numbers and those of the outputs are
   `stride` apart. */
typedef struct {
    ptrdiff_t n, stride;
    int rounds;
    float f[7 * MOST];
    double d[7 * MOST];
} results;

static float rows_f32[2 * MOST];
static double rows_f64[2 * MOST];

static void call_all(results *r) {
    const ptrdiff_t n = r->n, s = r->stride, label = n / 2, size = n * s;
    float *f = r->f;
    double *d = r->d;
    cysoftmax_softmax_f32(rows_f32, n, s, f, s);
    cysoftmax_log_softmax_f32(rows_f32, n, s, f + size, s);
    cysoftmax_cross_entropy_grad_f32(rows_f32, n, s, label, f + 2 * size, s);
    f[6 * size] = cysoftmax_cross_entropy_with_grad_f32(rows_f32, n, s, label, f + 3 * size, s);
    cysoftmax_softmax_vjp_f32(f, n, s, rows_f32 + 1, s, f + 4 * size, s);
    f[6 * size + 1] = cysoftmax_logsumexp_f32(rows_f32, n, s);
    f[6 * size + 2] = cysoftmax_cross_entropy_f32(rows_f32, n, s, label);
    cysoftmax_softmax_f64(rows_f64, n, s, d, s);
    cysoftmax_log_softmax_f64(rows_f64, n, s, d + size, s);
    cysoftmax_cross_entropy_grad_f64(rows_f64, n, s, label, d + 2 * size, s);
    d[6 * size] = cysoftmax_cross_entropy_with_grad_f64(rows_f64, n, s, label, d + 3 * size, s);
    cysoftmax_softmax_vjp_f64(d, n, s, rows_f64 + 1, s, d + 4 * size, s);
    d[6 * size + 1] = cysoftmax_logsumexp_f64(rows_f64, n, s);
    d[6 * size + 2] = cysoftmax_cross_entropy_f64(rows_f64, n, s, label);
}

static void *repeat(void *argument) {
    results *r = argument;
    for (int i = 0; i < r->rounds; i++) call_all(r);
    return NULL;
}

static int fill(PyObject *args, results *r) {
    if (!PyArg_ParseTuple(args, "nn", &r->n, &r->stride)) return -1;
    if (r->n < 1 || r->stride < 1 || r->n * r->stride > MOST) {
        PyErr_SetString(PyExc_ValueError, "no room for such rows");
        return -1;
    }
    r->rounds = 1;
    memset(r->f, 0, sizeof r->f);
    memset(r->d, 0, sizeof r->d);
    for (int i = 0; i < 2 * MOST; i++) rows_f32[i] = (float)(rows_f64[i] = i * 7919 % 1000 / 64.);
    return 0;
}

/* numbers(n, stride): what the functions write and return, float32 and float64, as bytes. */
static PyObject *numbers(PyObject *self, PyObject *args) {
    static results r;
    (void)self;
    if (fill(args, &r) < 0) return NULL;
    call_all(&r);
    return Py_BuildValue("y#y#", (char *)r.f, (Py_ssize_t)sizeof r.f, (char *)r.d,
                         (Py_ssize_t)sizeof r.d);
}

/* differing(n, stride): how many of eight threads, without the GIL and at the same time, get other
   numbers than this one. */
static PyObject *differing(PyObject *self, PyObject *args) {
    static results want, got[THREADS];
    pthread_t threads[THREADS];
    long differ = 0;
    int started = 0;
    (void)self;
    if (fill(args, &want) < 0) return NULL;
    call_all(&want);
    PyThreadState *state = PyEval_SaveThread();
    for (; started < THREADS; started++) {
        got[started].n = want.n;
        got[started].stride = want.stride;
        got[started].rounds = 300;
        memset(got[started].f, 0, sizeof want.f);
        memset(got[started].d, 0, sizeof want.d);
        if (pthread_create(&threads[started], NULL, repeat, &got[started])) break;
    }
    for (int i = 0; i < started; i++) {
        pthread_join(threads[i], NULL);
        differ +=
            memcmp(got[i].f, want.f, sizeof want.f) || memcmp(got[i].d, want.d, sizeof want.d);
    }
    PyEval_RestoreThread(state);
    return PyLong_FromLong(started < THREADS ? -1 : differ);
}

/* How many bytes of a stack of 64 KiB a thread has written. */
static long bytes_of_stack(results *r) {
    static unsigned char stack[STACK] __attribute__((aligned(4096)));
    pthread_attr_t attributes;
    pthread_t thread;
    long unused = 0;
    memset(stack, PAINT, STACK);
    pthread_attr_init(&attributes);
    if (pthread_attr_setstack(&attributes, stack, STACK)) return -1;
    if (pthread_create(&thread, &attributes, repeat, r)) return -1;
    pthread_join(thread, NULL);
    while (unused < STACK && stack[unused] == PAINT) unused++;
    return STACK - unused;
}

/* stack_used(n, stride): how much stack the calls take, beyond that of a thread without them. */
static PyObject *stack_used(PyObject *self, PyObject *args) {
    static results r;
    long empty, used;
    (void)self;
    if (fill(args, &r) < 0) return NULL;
    call_all(&r); /* what is linked at the first call */
    r.rounds = 0;
    empty = bytes_of_stack(&r);
    r.rounds = 1;
    used = bytes_of_stack(&r);
    return PyLong_FromLong(empty < 0 || used < 0 ? -1 : used - empty);
}

/* allocated(n, stride): the most bytes of malloc that the calls have in use, as counted by
   tests/count_malloc.c, which must be preloaded; and those of a malloc of 100 bytes. */
static PyObject *allocated(PyObject *self, PyObject *args) {
    static results r;
    void (*begin)(void) = (void (*)(void))dlsym(RTLD_DEFAULT, "begin_count");
    ptrdiff_t (*end)(void) = (ptrdiff_t (*)(void))dlsym(RTLD_DEFAULT, "end_count");
    ptrdiff_t calls;
    void *volatile bytes; /* or the compiler leaves malloc out */
    (void)self;
    if (fill(args, &r) < 0) return NULL;
    if (!begin || !end) return PyErr_Format(PyExc_RuntimeError, "the counter is not preloaded");
    begin();
    call_all(&r);
    calls = end();
    begin();
    bytes = malloc(100);
    free(bytes);
    return Py_BuildValue("nn", calls, end());
}

/* flushed(): a logsumexp that is a denormal float, as bytes, computed in a mode that flushes
   denormals to 0, where this machine has one. */
static PyObject *flushed(PyObject *self, PyObject *unused) {
    static const float x[3] = {0, -100, -103};
    float result;
    (void)self;
    (void)unused;
#if defined(__x86_64__)
    const unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040);
    result = cysoftmax_logsumexp_f32(x, 3, 1);
    _mm_setcsr(mode);
#else
    result = cysoftmax_logsumexp_f32(x, 3, 1);
#endif
    return Py_BuildValue("y#", (char *)&result, (Py_ssize_t)sizeof result);
}

static PyMethodDef methods[] = {
    {"flushed", flushed, METH_NOARGS, NULL},      {"numbers", numbers, METH_VARARGS, NULL},
    {"differing", differing, METH_VARARGS, NULL}, {"stack_used", stack_used, METH_VARARGS, NULL},
    {"allocated", allocated, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL},
};
static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "driver", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_driver(void) {
    if (cysoftmax_import() < 0) return NULL;
    return PyModule_Create(&module);
}
