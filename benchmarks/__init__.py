"""Benchmarks: QuickCache beside its peers, in one process and one run. See `docs/performance.md`."""
