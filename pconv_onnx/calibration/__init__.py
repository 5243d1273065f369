"""Calibration: a ReLU network becomes a quantised one, without training and without PyTorch."""

from pconv_onnx.basics.choices import METHODS
from pconv_onnx.calibration.calibrating import RANDOM, Calibration, calibrate, outline

__all__ = ["METHODS", "RANDOM", "Calibration", "calibrate", "outline"]
