"""Deployment: folders with a spiking network that run where pconv-onnx is not installed."""

from pconv_onnx.deployment.deploying import TARGETS, Deployment, deploy

__all__ = ["TARGETS", "Deployment", "deploy"]
