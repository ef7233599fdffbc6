"""What is set once for the whole process before a model is opened in it."""

import torch

from windlass.kernels.native.library import native_library
from windlass.kernels.native.plain import plain_library
from windlass.memory.process_memory import limit_malloc
from windlass.settings import num_threads


def set_up_process() -> None:
    """Threads, the heap, and the kernels in C: a compiler may run, so before the budget's memory is taken."""
    limit_malloc()
    torch.set_num_threads(num_threads())
    native_library()
    plain_library()
