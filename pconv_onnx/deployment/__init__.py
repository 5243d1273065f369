"""Spiking networks as folders that run where pconv-onnx is not installed."""

from pconv_onnx.deployment.deploying import TARGETS, Deployment, deploy

__all__ = ["TARGETS", "Deployment", "deploy"]
