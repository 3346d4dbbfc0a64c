"""Memory for a large result: asking Linux for large pages.

The system hands out fresh memory in pages of 4 KiB and clears each at its first use. For a tensor of
64 MiB that takes longer than rounding its numbers. Pages of 2 MiB cost a tenth.
"""

import ctypes
import mmap
import sys

import torch
from torch import Tensor

# From this size on glibc takes memory from the system for every tensor and gives it back with it.
_ALWAYS_FRESH_BYTES = 1 << 25
_MADV_HUGEPAGE = 14


def empty_like(x: Tensor) -> Tensor:
    """torch.empty_like, contiguous; large tensors on Linux ask for large pages, if the system has them."""
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    if sys.platform == "linux" and y.device.type == "cpu" and y.nbytes >= _ALWAYS_FRESH_BYTES:
        start = -(-y.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (y.data_ptr() + y.nbytes - start) // mmap.PAGESIZE * mmap.PAGESIZE
        # A wish, not a need: the answer is not looked at.
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_HUGEPAGE)
    return y
