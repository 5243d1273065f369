"""Transformers as PyTorch's exporters write them."""

from __future__ import annotations

import functools

import numpy as np
import onnxruntime
import pytest
from decoding import by_pieces, from_nothing

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")


@pytest.mark.slow
def test_a_decoder_fed_in_pieces_answers_as_the_whole(tmp_path, monkeypatch):
    import transformers_exports
    from transformers_trained import Decoder

    # As deep as it is trained each export takes ten seconds.
    shallow = functools.partial(Decoder, depth=2)
    monkeypatch.setattr(transformers_exports, "Decoder", shallow)
    network, tokens = shallow(), np.random.default_rng(0).integers(0, 256, (3, 20))
    torch.save(network.state_dict(), tmp_path / "decoder.pt")
    transformers_exports.decoder_with_past(tmp_path / "decoder.onnx", tmp_path / "decoder.pt", dynamo=True)
    session = onnxruntime.InferenceSession(tmp_path / "decoder.onnx", providers=["CPUExecutionProvider"])
    past = {given.name: given.shape for given in session.get_inputs()[1:]}
    logits = by_pieces(functools.partial(session.run, None), from_nothing(tokens, past), count=7)
    with torch.no_grad():
        whole = network(torch.from_numpy(tokens)).numpy()
    np.testing.assert_allclose(logits, whole, rtol=0, atol=1e-4)
