"""In what batches networks are run."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest


def batch_sizes(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> list[int]:
    """The sizes of the batches that a module runs from now on, of each run the largest over its inputs."""
    sizes: list[int] = []
    run = module.run_session

    def noted(runner: Any, feed: dict[str, np.ndarray], names: list[str] | None = None) -> list[np.ndarray]:
        sizes.append(max(len(array) for array in feed.values()))
        return run(runner, feed, names)

    monkeypatch.setattr(module, "run_session", noted)
    return sizes
