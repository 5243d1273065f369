"""Is a network right, is it good, what does it cost: verification, evaluation, statistics, benchmarks."""
