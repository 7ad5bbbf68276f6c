# cython: language_level=3
"""How many threads a call uses, and how OpenMP survives a fork.

The number is asked for at every call, so OMP_NUM_THREADS, ``omp_set_num_threads`` and
``threadpoolctl.threadpool_limits`` work. Nothing here opens a parallel region.
"""

import os

cdef extern from *:
    """
    #include "openmp.h"

    /* libgomp's threads do not survive a fork: a child's first parallel region would wait
       for them for ever (https://gcc.gnu.org/bugzilla/show_bug.cgi?id=60035). They are
       therefore ended before a fork; the next region starts new ones in about 0.1 ms. LLVM's
       libomp, which may be loaded in its place, has a handler of its own, and would deadlock
       with this one. */
    #if defined(_OPENMP) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
    #include <dlfcn.h>
    #include <pthread.h>
    /* What a region compiled by gcc calls. The library that has this address runs our regions;
       the process may have loaded others. */
    extern void GOMP_parallel(void (*)(void *), void *, unsigned, unsigned);
    static int (*cysoftmax_in_parallel)(void);
    static int (*cysoftmax_pause_all)(int);
    static void cysoftmax_before_fork(void) {
        if (!cysoftmax_in_parallel()) cysoftmax_pause_all(2);    /* omp_pause_hard */
    }
    static int cysoftmax_handle_fork(void) {
        Dl_info found;
        if (!dladdr((void *)GOMP_parallel, &found)) return 0;
        void *runtime = dlopen(found.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
        if (!runtime) return 0;
        if (dlsym(runtime, "__kmpc_fork_call")) return 1;    /* only libomp has it */
        *(void **)&cysoftmax_in_parallel = dlsym(runtime, "omp_in_parallel");
        *(void **)&cysoftmax_pause_all = dlsym(runtime, "omp_pause_resource_all");
        if (!cysoftmax_in_parallel || !cysoftmax_pause_all) return 0;    /* of gcc 8 or older */
        return pthread_atfork(cysoftmax_before_fork, NULL, NULL) == 0;
    }
    #elif defined(_OPENMP) && !defined(__clang__)
    static int cysoftmax_handle_fork(void) { return 0; }
    #else
    static int cysoftmax_handle_fork(void) { return 1; }
    #endif

    #if defined(__VERSION__) && defined(__clang__)
    #define CYSOFTMAX_COMPILER __VERSION__
    #elif defined(__VERSION__)
    #define CYSOFTMAX_COMPILER "gcc " __VERSION__
    #else
    #define CYSOFTMAX_COMPILER "unknown"
    #endif
    """
    const char *CYSOFTMAX_COMPILER
    bint cysoftmax_handle_fork() noexcept nogil


OPENMP = CYSOFTMAX_OPENMP    # the year and month of the specification, 0 without OpenMP
COMPILER = CYSOFTMAX_COMPILER.decode()
HANDLES_FORK = bool(cysoftmax_handle_fork())    # also True if nothing must be handled

# The elements that make it worth while to use one thread more: about 30 us of work. To hand
# work to a thread takes 2 to 5 us while it still spins after the last call, and 50 to 100 us
# if it sleeps.
cdef ptrdiff_t ELEMENTS_PER_THREAD = 65536


def cgroup_cpus(mounts="/proc/self/mountinfo", membership="/proc/self/cgroup"):
    """Return the CPUs that this process's cgroup may use, rounded up, or None for no limit.

    libgomp knows the affinity mask alone, not the quota of the cgroup. The quota is in
    ``cpu.max`` (version 2), or in ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us`` (version 1),
    of the group of the process and of each group above it; the smallest applies. The format of
    the two files is in proc_pid_mountinfo(5) and cgroups(7).
    """
    groups = {}    # the path of the group of each controller; "" is version 2
    for line in _lines(membership):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        groups |= dict.fromkeys(controllers.split(","), path)
    limits = []
    for line in _lines(mounts):
        mount, _, kind = line.partition(" - ")
        mount, kind = mount.split(" "), kind.split(" ")
        if kind[0] == "cgroup2":
            path = groups.get("", "/")
        elif kind[0] == "cgroup" and "cpu" in kind[-1].split(","):
            path = groups.get("cpu", "/")
        else:
            continue
        root, folder = mount[3:5]    # the group that is mounted, and where
        if root != "/" and f"{path}/".startswith(f"{root}/"):
            path = path[len(root):]
        while path not in ("", "/"):
            limits.append(_quota(folder + path))
            path = os.path.dirname(path)
        limits.append(_quota(folder))
    return min((limit for limit in limits if limit is not None), default=None)


def _lines(name):
    """Return the lines of a file; none if it cannot be read."""
    try:
        with open(name) as file:
            return file.read().splitlines()
    except (OSError, ValueError):
        return []


def _quota(folder):
    """Return the quota that one cgroup folder sets, in whole CPUs, or None."""
    try:
        with open(os.path.join(folder, "cpu.max")) as file:
            quota, period = file.read().split()
    except (OSError, ValueError):
        try:
            with open(os.path.join(folder, "cpu.cfs_quota_us")) as file:
                quota = file.read().strip()
            with open(os.path.join(folder, "cpu.cfs_period_us")) as file:
                period = file.read().strip()
        except OSError:
            return None
    try:
        quota, period = int(quota), int(period)     # "max" is no limit
    except ValueError:
        return None
    return max(1, -(-quota // period)) if quota > 0 and period > 0 else None


def _read_by_openmp():
    """Return OMP_NUM_THREADS if OpenMP has read it, which it does once, when it is loaded. It then
    offers the first number of the list."""
    value = os.environ.get("OMP_NUM_THREADS", "")
    try:
        return value if int(value.partition(",")[0]) == omp_get_max_threads() else None
    except ValueError:
        return None


OMP_NUM_THREADS = _read_by_openmp()

# CPUs; 0 for no limit, -1 while it was not read. Without the GIL, threads may read it at the same
# time: all find the same number.
cdef int quota = -1


cdef int default_threads() except -1:
    """Return the threads that OpenMP offers, limited by affinity mask and cgroup quota."""
    global quota
    if omp_in_parallel():
        return 1
    cdef int n = min(omp_get_max_threads(), omp_get_num_procs())
    if n > 1 and OMP_NUM_THREADS is None:
        if quota < 0:
            quota = cgroup_cpus() or 0
        if quota > 0:
            n = min(n, quota)
    return max(n, 1)


def default_thread_count():
    """Return how many threads a call with enough work would use now."""
    return default_threads()


cdef int thread_count(object n_threads, ptrdiff_t n_elements) except -1:
    """Return the number of threads for that work; ``n_threads`` is an upper bound or None."""
    cdef ptrdiff_t worth = n_elements // ELEMENTS_PER_THREAD
    if worth <= 1 or CYSOFTMAX_OPENMP == 0:
        return 1
    if n_threads is None:
        return <int>min(worth, <ptrdiff_t>default_threads())
    # More threads than CPUs can be useful, in a test for example, but there is a limit.
    return <int>min(worth, min(<ptrdiff_t>n_threads, <ptrdiff_t>max(64, 4 * omp_get_num_procs())))
