"""What asv has measured, commit by commit, as plain numbers."""

import itertools
import math
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime

from asv.benchmarks import Benchmarks
from asv.results import iter_results

ALL, ONE = "all threads", "1 thread"
FAILED = math.inf  # worse than any number


@dataclass
class Commit:
    """A measured commit; `values` by (benchmark, threads, parameters), each as its repr."""

    hash: str
    date: datetime
    subject: str
    values: dict = field(default_factory=dict)


@dataclass
class History:
    """The measured commits, oldest first, and the machine."""

    commits: list
    machine: dict

    @classmethod
    def load(cls, conf, revisions):
        """Read asv's results of some commits, which `revisions` gives a number to order them by."""
        benchmarks = Benchmarks.load(conf)
        commits, machine = {}, {}
        for result in iter_results(conf.results_dir):
            if result.commit_hash not in revisions:
                continue
            if result.commit_hash not in commits:
                date = datetime.fromtimestamp(result.date / 1000, UTC)
                subject = subject_of(conf.repo, result.commit_hash)
                commits[result.commit_hash] = Commit(result.commit_hash, date, subject)
            machine = result.params
            threads = ONE if result.env_vars.get("OMP_NUM_THREADS") == "1" else ALL
            values = commits[result.commit_hash].values
            for name in result.get_result_keys(benchmarks):
                params = benchmarks[name]["params"]
                numbers = result.get_result_value(name, params)
                for chosen, number in zip(itertools.product(*params), numbers, strict=True):
                    if number is None:
                        values[name, threads, chosen] = FAILED
                    elif not math.isnan(number):  # which stands for what was not measured
                        values[name, threads, chosen] = number
        return cls(sorted(commits.values(), key=lambda c: revisions[c.hash]), machine)

    @property
    def latest(self):
        return self.commits[-1]

    def series(self, name, threads, *params):
        """Return a benchmark's number for each commit, None where there is none."""
        key = name, threads, tuple(map(repr, params))
        return [commit.values.get(key) for commit in self.commits]

    def value(self, name, threads, *params):
        """Return a benchmark's number for the latest commit, or None."""
        return self.series(name, threads, *params)[-1]

    def largest(self, name, *wanted):
        """Return the largest number of a benchmark over all parameters beside those wanted."""
        chosen = set(map(repr, wanted))
        return max(
            (
                number
                for (benchmark, _, params), number in self.latest.values.items()
                if benchmark == name and chosen <= set(params)
            ),
            default=None,
        )


def subject_of(repo, commit_hash):
    command = ["git", "-C", repo, "show", "-s", "--format=%s", commit_hash]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
