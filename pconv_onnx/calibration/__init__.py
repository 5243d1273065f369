"""Calibration: a ReLU network becomes a quantised one, without training and without PyTorch."""

from pconv_onnx.calibration.calibrating import RANDOM, Calibration, calibrate, calibrate_each, outline
from pconv_onnx.calibration.subjects import places

__all__ = ["RANDOM", "Calibration", "calibrate", "calibrate_each", "outline", "places"]
