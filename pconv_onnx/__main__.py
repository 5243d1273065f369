"""`python -m pconv_onnx` is the command line."""

import sys

from pconv_onnx.cli import main

sys.exit(main())
