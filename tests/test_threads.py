"""Threads: how many, and what they must survive. Where a process' state matters, in its own."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import threadpoolctl

import cysoftmax
from cysoftmax import _core, _threads

needs_openmp = pytest.mark.skipif(not _threads.OPENMP, reason="built without OpenMP")
needs_gomp = pytest.mark.skipif(
    not (_threads.OPENMP and _threads.COMPILER.startswith("gcc") and sys.platform == "linux"),
    reason="not built with gcc and its OpenMP",
)
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
COMPILER = shutil.which("cc") or shutil.which("gcc")


def run(code, **environment):
    """Run Python code in a process of its own; return what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


LARGE = "import numpy as np, cysoftmax as cs; x = np.ones((3000, 100)); "


@needs_openmp
def test_the_number_of_threads_is_asked_for_at_every_call():
    if _threads.default_thread_count() < 2:
        pytest.skip("one thread only here")
    with threadpoolctl.threadpool_limits(1, user_api="openmp"):
        assert _threads.default_thread_count() == 1
    assert _threads.default_thread_count() > 1


@needs_openmp
def test_omp_num_threads_is_obeyed():
    code = "from cysoftmax import _threads; print(_threads.default_thread_count())"
    assert run(code, OMP_NUM_THREADS="1") == "1"


@needs_openmp
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_the_affinity_mask_caps_the_threads():
    code = """
        import os
        from cysoftmax import _threads
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
        print(_threads.default_thread_count())
    """
    assert run(code) == "1"


needs_two_cpus = pytest.mark.skipif(
    _threads.default_thread_count() < 2, reason="one thread only here"
)
# Seen after the import, where the quota of the cgroup is one CPU.
WITH_QUOTA = """
    import os
    {before}
    import cysoftmax
    from cysoftmax import _threads
    _threads.cgroup_cpus = lambda: 1
    os.environ.update({after})
    shown = cysoftmax.show_config("dicts")["threads"]["OMP_NUM_THREADS"]
    print(_threads.default_thread_count(), shown)
"""
# OpenMP, loaded as another library would, and set after that.
LOADED = (
    "import ctypes; from os import environ; ctypes.CDLL('libgomp.so.1'); "
    "environ['OMP_NUM_THREADS'] = '7'"
)


@needs_openmp
@needs_two_cpus
@pytest.mark.parametrize(
    ("at_start", "after", "threads"),
    [
        ({}, {}, "1 None"),
        ({"OMP_NUM_THREADS": "2"}, {}, "2 2"),
        ({"OMP_NUM_THREADS": " 2,1"}, {}, "2  2,1"),
        ({"OMP_NUM_THREADS": "2"}, {"OMP_NUM_THREADS": "1"}, "2 2"),
        ({}, {"OMP_NUM_THREADS": "2"}, "1 None"),
        ({"OMP_NUM_THREADS": ""}, {}, "1 None"),
        ({"OMP_NUM_THREADS": "many"}, {}, "1 None"),
    ],
)
def test_omp_num_threads_lifts_the_quota_if_openmp_reads_it(monkeypatch, at_start, after, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert run(WITH_QUOTA.format(before="", after=after), **at_start) == threads


@needs_openmp
@needs_two_cpus
@needs_gomp
@pytest.mark.skipif(
    os.path.isdir(os.path.join(os.path.dirname(cysoftmax.__file__), "..", "cysoftmax.libs")),
    reason="a wheel has a libgomp of its own, which reads the variable when it is imported",
)
def test_omp_num_threads_lifts_no_quota_if_it_was_set_after_openmp_was_loaded(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert run(WITH_QUOTA.format(before=LOADED, after={})) == "1 None"


def cgroup(tmp_path, files, mounts, membership):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    lines = ["21 1 0:20 / /proc rw,nosuid shared:5 - proc proc rw"]
    for root, folder, kind, options in mounts:
        lines.append(
            f"30 21 0:26 {root} {tmp_path / folder} rw,nosuid shared:9 - {kind} x {options}"
        )
    (tmp_path / "mounts").write_text("\n".join(lines) + "\n")
    (tmp_path / "membership").write_text(membership)
    return _threads.cgroup_cpus(str(tmp_path / "mounts"), str(tmp_path / "membership"))


def quota_v1(folder, quota):
    return {
        f"{folder}/cpu.cfs_quota_us": f"{quota}\n",
        f"{folder}/cpu.cfs_period_us": "100000\n",
    }


V2 = [("/", "fs", "cgroup2", "rw,nsdelegate")]
V1 = [
    ("/", "fs/memory", "cgroup", "rw,memory"),
    ("/", "fs/cpu,cpuacct", "cgroup", "rw,cpu,cpuacct"),
]
CONTAINER = [("/box/1", "fs/cpu,cpuacct", "cgroup", "rw,cpu,cpuacct")]


@pytest.mark.parametrize(
    ("files", "mounts", "membership", "cpus"),
    [
        ({"fs/cpu.max": "max 100000\n"}, V2, "0::/\n", None),
        ({"fs/cpu.max": "150000 100000\n"}, V2, "0::/\n", 2),
        ({"fs/cpu.max": "150000 100000\n"}, V2, "nonsense", 2),
        ({"fs/a/b/cpu.max": "max 1\n", "fs/a/cpu.max": "100000 100000\n"}, V2, "0::/a/b\n", 1),
        ({"fs/b/cpu.max": "100000 100000\n"}, V2, "0::/a/b\n", None),
        (quota_v1("fs/cpu,cpuacct/d", 250000), V1, "4:cpu,cpuacct:/d\n1:name=x:/e\n", 3),
        (quota_v1("fs/cpu,cpuacct/d", 250000), V1, "4:cpuacct,cpu:/d\n1:name=x:/e\n", 3),
        (quota_v1("fs/cpu,cpuacct/d", 250000), V1, "4:cpuacct,cpu:/e\n0::/d\n", None),
        (quota_v1("fs/cpu,cpuacct", -1), V1, "3:cpu:/\n", None),
        (quota_v1("fs/memory", 100000), V1, "3:cpu:/\n2:memory:/\n", None),
        (quota_v1("fs/cpu,cpuacct", 100000), CONTAINER, "3:cpuacct,cpu:/box/1\n", 1),
        (quota_v1("fs/cpu,cpuacct/d", 100000), CONTAINER, "3:cpuacct,cpu:/box/1/d\n", 1),
        (quota_v1("fs/cpu,cpuacct/d", 100000), V1 + V2, "3:cpuacct,cpu:/d\n0::/\n", 1),
        ({}, V2, "0::/nowhere\n", None),
        ({}, [], "nonsense", None),
    ],
)
def test_the_cgroup_quota_is_read(tmp_path, files, mounts, membership, cpus):
    assert cgroup(tmp_path, files, mounts, membership) == cpus


@pytest.mark.skipif(sys.platform != "linux", reason="cgroups are of Linux")
def test_the_cgroup_of_this_process_can_be_read():
    assert _threads.cgroup_cpus() is None or _threads.cgroup_cpus() >= 1


@needs_openmp
@needs_fork
def test_a_child_of_a_process_that_used_threads_can_use_them_too():
    code = (
        LARGE
        + """
import os
cs.softmax(x, n_threads=2)
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        cs.softmax(x, n_threads=2)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    cs.softmax(x, n_threads=2)
print("fine")
"""
    )
    assert run(code) == "fine"


# After the import, where a region of two threads runs in the child of a process that used two.
FORK = """
import ctypes, os, signal
ctypes.CDLL({library!r}, ctypes.RTLD_GLOBAL)
import numpy as np, cysoftmax as cs
x = np.ones((3000, 100))
cs.softmax(x, n_threads=2)
print(cs.show_config("dicts")["threads"]["survives fork"], flush=True)
pid = os.fork()
if pid == 0:
    signal.alarm(20)    # ends a child that hangs
    cs.softmax(x, n_threads=2)
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
KMPC = "void __kmpc_fork_call(void) {}"
GOMP = """
void GOMP_parallel(void (*body)(void *), void *data, unsigned n, unsigned flags) { body(data); }
"""
PAUSE = """
void abort(void);
int omp_in_parallel(void) { return 0; }
int omp_pause_resource_all(int kind) { abort(); return kind; }
"""


@needs_gomp
@needs_fork
@pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")
@pytest.mark.parametrize(
    ("exports", "survives"),
    [
        pytest.param(KMPC, True, id="libomp beside libgomp"),
        pytest.param(KMPC + PAUSE, True, id="libomp beside libgomp, with all of OpenMP"),
        pytest.param(KMPC + GOMP + PAUSE, True, id="libomp for libgomp"),
        pytest.param(GOMP, False, id="a libgomp without a pause"),
    ],
)
def test_what_our_regions_run_on_decides_about_forks(tmp_path, exports, survives):
    """A library is loaded before, whose symbols then come before those of libgomp."""
    (tmp_path / "library.c").write_text(exports)
    library = tmp_path / "library.so"
    subprocess.run(
        [COMPILER, "-shared", "-fPIC", tmp_path / "library.c", "-o", library], check=True
    )
    assert run(FORK.format(library=str(library))).split() == [str(survives), "7"]


@needs_fork
def test_importing_opens_no_parallel_region():
    code = """
        import os, threading
        import cysoftmax
        print(len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else 1)
    """
    assert run(code, OPENBLAS_NUM_THREADS="1") == "1"


def test_a_small_call_opens_no_parallel_region():
    code = """
        import os
        import numpy as np, cysoftmax as cs
        cs.cross_entropy_with_grad(np.ones((10, 10)), np.ones(10, int), n_threads=2)
        print(len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else 1)
    """
    assert run(code, OPENBLAS_NUM_THREADS="1") == "1"


def test_the_gil_is_released():
    x = np.ones((4000, 1000))
    go, ticks = threading.Event(), []

    def tick():
        go.wait()
        ticks.append(1)

    other = threading.Thread(target=tick)
    other.start()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # this thread is not made to give the GIL up
    try:
        go.set()
        cysoftmax.softmax(x, n_threads=1)
        assert ticks
    finally:
        sys.setswitchinterval(before)
        other.join()


def test_many_python_threads_may_call_at_once():
    x = np.random.default_rng(0).standard_normal((2000, 100)).astype(np.float32)
    expected = cysoftmax.softmax(x, n_threads=1)
    results = [None] * 8

    def work(i):
        results[i] = cysoftmax.softmax(x, n_threads=1 + i % 3)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for result in results:
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("name", _core.available_isas())
def test_the_environment_pins_the_instruction_set(name):
    code = "from cysoftmax import _core; print(_core.active_isa())"
    assert run(code, CYSOFTMAX_ISA=name) == name


@pytest.mark.parametrize("name", ["sse9", "neon" if "avx2" in _core.available_isas() else "avx2"])
def test_an_unknown_or_unavailable_instruction_set_is_an_error(name):
    result = subprocess.run(
        [sys.executable, "-c", "import cysoftmax"],
        env={**os.environ, "CYSOFTMAX_ISA": name},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    assert f"CYSOFTMAX_ISA must be one of {', '.join(_core.available_isas())}" in result.stderr
    assert repr(name) in result.stderr


def test_show_config_prints_what_it_returns(capsys):
    config = cysoftmax.show_config("dicts")
    assert cysoftmax.show_config() is None
    text = capsys.readouterr().out
    assert config["instruction set"]["in use"] in text
    assert all(f"{section}:" in text for section in config)
    with pytest.raises(ValueError, match="mode must be 'stdout' or 'dicts'; got 'json'"):
        cysoftmax.show_config("json")


@needs_openmp
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers here")
def test_a_signal_is_handled_after_the_call_when_its_results_are_complete():
    code = """
    import signal
    import numpy as np, cysoftmax as cs

    x = np.zeros((40_000, 1000), np.float32)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    found = []
    while True not in found and len(found) < 100:  # the signal may come before the call
        out = np.full_like(x, np.nan)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.003)
            cs.softmax(x, out=out)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            done = ~np.isnan(out)
            assert done.all() or not done.any()
            found.append(bool(done.all()))
    print(found[-1])
    """
    assert run(code) == "True"


@needs_gomp
@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="it needs address space")
def test_a_thread_that_cannot_be_started_ends_the_process_but_one_thread_needs_none():
    code = """
    import resource
    import numpy as np, cysoftmax as cs

    x = np.ones((3000, 100))
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + (3 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    print(cs.softmax(x, out=x, n_threads=N)[0, 0])
    """
    with pytest.raises(AssertionError, match="libgomp: Thread creation failed"):
        run(code.replace("N", "2"), OMP_STACKSIZE="8M")
    assert run(code.replace("N", "1")) == "0.01"
