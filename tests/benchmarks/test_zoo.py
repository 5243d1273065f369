"""Architectures through the whole pipeline; `make zoo` runs all of them, into docs/support.md."""

from __future__ import annotations

from pathlib import Path

import pytest
import zoo

PAGE = (Path(__file__).parents[2] / "docs" / "support.md").read_text()
# Of each family the export that takes most care.
CHOSEN = [
    pytest.param("shufflenet", "Caffe2", marks=pytest.mark.slow),
    ("ResNet", "TorchScript"),
    ("MobileNet-v2, ReLU6", "dynamo"),
    pytest.param("MobileNet-v3, HardSwish, squeeze-and-excite", "TorchScript", marks=pytest.mark.slow),
    ("ConvNeXt, GELU", "dynamo"),
    ("U-Net", "TorchScript"),
    ("feature pyramid, three outputs", "TorchScript"),
    ("one-stage detector, ReLU", "TorchScript"),
    ("temporal CNN", "TorchScript"),
    ("PointNet", "TorchScript"),
    ("graph convolutions", "dynamo"),
    ("ViT, ReLU", "TorchScript"),
    ("BERT, GELU", "dynamo"),
    ("LSTM", "TorchScript"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("network, exporter", CHOSEN)
def test_what_the_page_tells_of_a_network_is_so(network, exporter, tmp_path):
    ((row, path, data),) = zoo.networks(tmp_path, [network], [exporter])
    zoo.convert(row, path, data)
    assert row.wrong == []
    assert set(row.modes) == {"parallel", "folded", "serial"}
    (line,) = (line for line in PAGE.splitlines() if line.startswith(f"| {network} | {exporter} |"))
    assert line.startswith(f"| {' | '.join(map(str, zoo.counts(row)))} |")
