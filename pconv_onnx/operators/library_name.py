"""What the native library is called on this system. setup.py, which builds it, runs this file by itself."""

import sys

# As each system calls its shared libraries; custom_ops/CMakeLists.txt has the same.
LIBRARY_NAME = {"win32": "pconv_ops.dll", "darwin": "libpconv_ops.dylib"}.get(sys.platform, "libpconv_ops.so")
