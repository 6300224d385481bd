"""Plan and run benchmarks; keep artefacts."""
