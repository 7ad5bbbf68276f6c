"""asv benchmarks: one class for each question. docs/benchmarking.md says how to read them."""
