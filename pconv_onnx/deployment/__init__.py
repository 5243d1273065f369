"""Deployment: folders with a spiking network that run where pconv-onnx is not installed."""

from pconv_onnx.deployment.deploying import TARGETS, Deployment, deploy
from pconv_onnx.deployment.nir.reading import NirReading, from_nir

__all__ = ["TARGETS", "Deployment", "NirReading", "deploy", "from_nir"]
