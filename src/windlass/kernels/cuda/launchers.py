"""Every kernel by the name under which it is launched: what is imported where there is a device and Triton."""

import subprocess

from triton.errors import TritonError

from windlass.kernels.cuda.decode_pages import decode_pages
from windlass.kernels.cuda.many_rows import many_rows
from windlass.kernels.cuda.one_row import one_row
from windlass.kernels.cuda.unpack_awq import unpack_awq
from windlass.kernels.cuda.unpack_blocks import unpack_blocks
from windlass.kernels.cuda.unpack_gguf import KERNELS, unpack_gguf

__all__ = [
    "FAILURES",
    "GGUF_TYPES",
    "decode_pages",
    "many_rows",
    "one_row",
    "unpack_awq",
    "unpack_blocks",
    "unpack_gguf",
]

FAILURES = (TritonError, RuntimeError, OSError, subprocess.SubprocessError)
"""What a kernel raises that this machine cannot compile or run: no compiler, or too little shared memory."""
GGUF_TYPES = frozenset(KERNELS)
