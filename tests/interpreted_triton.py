"""Kernels for devices run on a device, or on the processor by Triton's interpreter (see conftest.py).

The interpreter multiplies bfloat16 as if its bits were whole numbers, and cuts where a device rounds to nearest. Here
it is taught better.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from triton import language as tl
from triton.runtime import interpreter

Builder = interpreter.InterpreterBuilder

DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
"""Where a kernel runs."""


@pytest.fixture(autouse=True)
def bfloat16_as_devices_do() -> Iterator[None]:
    """Products widen bfloat16 to float32, and float32 is rounded to the nearest bfloat16."""
    plain_product, plain_cast = Builder.create_dot, Builder.create_fp_trunc

    def product(self: Any, a: Any, b: Any, total: Any, precision: Any, imprecise: Any) -> Any:
        wide = [self.cast_impl(x, tl.float32) if x.dtype.scalar == tl.bfloat16 else x for x in (a, b)]
        return plain_product(self, *wide, total, precision, imprecise)

    def cast(self: Any, source: Any, target: Any) -> Any:
        if source.dtype.scalar == tl.float32 and target.scalar == tl.bfloat16:
            rounded = torch.from_numpy(source.data).bfloat16().view(torch.uint16).numpy()
            return interpreter.TensorHandle(rounded, target.scalar)
        return plain_cast(self, source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Builder, "create_dot", product)
        patch.setattr(Builder, "create_fp_trunc", cast)
        yield
