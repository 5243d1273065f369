"""Random networks against what they must compute, mutated files and archives, random calls of the operators."""

# By what is random, the module whose `faults` makes the case of a seed and tells its faults.
CASES = {
    "networks": "fuzzing.answers",
    "corruptions": "fuzzing.corrupted",
    "files": "fuzzing.hostile",
    "archives": "fuzzing.archives",
    "bundles": "fuzzing.bundles",
    "requests": "fuzzing.http_requests",
    "recipes": "fuzzing.recipes",
    "tables": "fuzzing.tables",
    "operators": "fuzzing.calls",
    "writers": "fuzzing.writers",
    "nir": "fuzzing.nir",
    "nir-reading": "fuzzing.nir_reading",
    "shapes": "fuzzing.shapes",
    "greedy": "fuzzing.greedy",
    "fused": "fuzzing.fused",
    "integers": "fuzzing.integers",
    "c": "fuzzing.in_c",
}
