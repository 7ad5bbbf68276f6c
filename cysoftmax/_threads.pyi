OPENMP: int
COMPILER: str
HANDLES_FORK: bool
OMP_NUM_THREADS: str | None

def cgroup_cpus(mounts: str = ..., membership: str = ...) -> int | None: ...
def default_thread_count() -> int: ...
