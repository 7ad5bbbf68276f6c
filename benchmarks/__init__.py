"""asv benchmarks: one class for each question."""
