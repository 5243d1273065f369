"""`python -m pconv_onnx` is the command line."""

import sys

from pconv_onnx.cli.main import main

sys.exit(main())
