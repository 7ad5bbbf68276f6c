"""A library at work in a process of its own.

There it cannot crash the others, and its threads do not meet those of another OpenMP runtime.
"""

import contextlib
import multiprocessing
import time

from benchmarks import tasks, timing
from benchmarks.cases import Problem
from benchmarks.tasks import UnsuitableError

PATIENCE = 120.0  # seconds until a call, or the compilation before it, is given up


class Worker:
    """A library that prepares its calls for a task, chooses the fastest and times it."""

    def __init__(self, peer, n_threads):
        self.peer, self.key, self.problem = peer(n_threads), None, None

    def prepare(self, task, dtype, shape, axis):
        """Make the calls of all ways; each result is checked, so all that is compiled is ready."""
        if not hasattr(self.peer, task):
            raise UnsuitableError("has no such function here")
        self.calls = []  # gives back the memory of the task before
        if (dtype, shape, axis) != self.key:
            self.key, self.problem = (dtype, shape, axis), None
            self.problem = Problem(dtype, shape, axis)
        try:
            self.calls = tasks.checked_ways(task, self.problem, self.peer)
        except AssertionError as error:
            raise UnsuitableError(f"WRONG: {error}") from error

    def choose(self, too_slow):
        """Keep the fastest way."""
        best = [min(timing.one_turn(call, share=0.02)) for call in self.calls]
        if min(best) > too_slow:
            self.calls = []
            raise UnsuitableError(f"takes {min(best):.1f} s")
        self.calls = [self.calls[best.index(min(best))]]

    def turn(self, share):
        """Return the times of one turn, as `timing.one_turn` does."""
        return timing.one_turn(self.calls[0], share)


def serve(pipe, peer, n_threads):
    """Do what the other end of the pipe asks for, and send back the result or what was raised."""
    try:
        worker = Worker(peer, n_threads)
    except Exception as error:
        worker, broken = None, error
    while True:
        try:
            method, args = pipe.recv()
        except EOFError:
            return
        try:
            if worker is None:
                raise broken
            answer = getattr(worker, method)(*args)
        except UnsuitableError as reason:
            answer = reason
        except Exception as error:
            first_line = (str(error).splitlines() or [""])[0]
            answer = UnsuitableError(f"fails: {type(error).__name__}: {first_line[:80]}")
        pipe.send(answer)


class Library:
    """A Worker in a process of its own, which is started when it is needed.

    What it raises, a crash or endless work is an UnsuitableError. `ask` returns at once, so that
    several libraries can work at the same time; `answer` waits.
    """

    def __init__(self, peer, n_threads):
        self.peer, self.n_threads, self.process = peer, n_threads, None

    def start(self):
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        args = other, self.peer, self.n_threads
        self.process = context.Process(target=serve, args=args, daemon=True)
        self.process.start()
        other.close()  # or this process would not notice its end

    def ask(self, method, *args):
        if self.process is None:
            self.start()
        self.asked = time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # `answer` says so
            self.pipe.send((method, args))

    def answer(self):
        try:
            if not self.pipe.poll(max(0.0, self.asked + PATIENCE - time.monotonic())):
                self.stop()
                raise UnsuitableError(f"no result in {PATIENCE:.0f} s")
            result = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            self.stop()
            raise UnsuitableError(f"crashed with exit code {code}") from None
        if isinstance(result, UnsuitableError):
            raise result
        return result

    def call(self, method, *args):
        self.ask(method, *args)
        return self.answer()

    def stop(self):
        """End the process; the next question starts another one."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.pipe.close()
            self.process = None
