"""A packed weight that stands in a module's parameter slot: a tensor to transformers, whose products unpack by tiles.

transformers' modules call `F.linear(x, self.weight)` and never look further. Whatever else is done with the weight is
served from numbers that are unpacked for it.

Legend: N outputs, K inputs; matrices are stacked by rows.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F

from windlass.kernels.packed_matrix import PackedMatrix
from windlass.kernels.packed_product import dense, prepared_linear, unpacked


class PackedWeight(torch.Tensor):
    """(N, K) in the compute dtype, whose bytes are those of some packed matrices, one above the other.

    Where it is `transposed` it stands for a parameter (K, N), which is multiplied from the right.
    """

    matrices: tuple[PackedMatrix, ...]
    transposed: bool
    products: tuple[Callable[[torch.Tensor], torch.Tensor], ...]

    @staticmethod
    def __new__(
        cls: type["PackedWeight"], matrices: Sequence[PackedMatrix], dtype: torch.dtype, transposed: bool = False
    ) -> "PackedWeight":
        """A tensor without numbers of its own."""
        shape = (sum(matrix.shape[0] for matrix in matrices), matrices[0].shape[1])
        shape = shape[::-1] if transposed else shape
        weight = torch.Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=matrices[0].device)
        weight.matrices, weight.transposed, weight.products = tuple(matrices), transposed, ()
        return weight

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Serves products and rows; the rest of torch sees unpacked numbers (`__torch_dispatch__`)."""
        kwargs = kwargs or {}
        if func is F.linear and _packed(args[1]) and not isinstance(args[0], PackedWeight):
            return args[1].linear(*args[:1], *args[2:], **kwargs)
        if func is F.embedding and _packed(args[1]):
            return args[1].rows(args[0])
        if func in _FROM_THE_RIGHT and _packed(args[-1], transposed=True) and not kwargs:
            *bias, x = args[:-1]
            return args[-1].linear(x, *bias)
        if func is torch.Tensor.__repr__:
            return args[0].told
        with torch._C.DisableTorchFunctionSubclass():  # what comes of unpacked numbers is a plain tensor
            return func(*args, **kwargs)

    @classmethod
    def _on_numbers(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Runs an operation on the unpacked numbers."""
        tree = torch.utils._pytree.tree_map
        return func(*tree(_unpacked, args), **tree(_unpacked, dict(kwargs or {})))

    # torch's annotation is that of an instance's method.
    __torch_dispatch__ = cast(Any, _on_numbers)

    @property
    def told(self) -> str:
        """What it is, without the numbers."""
        names = ", ".join(matrix.packing.name for matrix in self.matrices)
        return f"PackedWeight({tuple(self.shape)}, {self.dtype}, {names})"

    def linear(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """x (..., K) -> (..., N), as F.linear."""
        if not self.products:
            self.products = tuple(prepared_linear(matrix) for matrix in self.matrices)
        parts = [product(x) for product in self.products]
        out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return out if bias is None else out.add_(bias)

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        """ids (...) -> their rows (..., K), as F.embedding."""
        (matrix,) = self.matrices
        return matrix_rows(matrix, ids.flatten(), self.dtype).view(*ids.shape, -1)

    def moved(self, move: Callable[[torch.Tensor], torch.Tensor]) -> "PackedWeight":
        """The same weight with every part of its bytes where `move` puts it."""
        matrices = [
            PackedMatrix(m.packing, m.shape, {role: move(part) for role, part in m.parts.items()}, m.heads)
            for m in self.matrices
        ]
        return PackedWeight(matrices, self.dtype, self.transposed)

    def dense(self) -> torch.Tensor:
        """All numbers, in the shape of the parameter."""
        numbers = torch.cat([dense(matrix, self.dtype) for matrix in self.matrices])
        return numbers.T if self.transposed else numbers


def matrix_rows(matrix: PackedMatrix, ids: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """ids (n,) -> rows (n, K) of a matrix whose rows can be cut out one by one, or whose tiles are unpacked in turn."""
    if matrix.packing.row_step == 1 and not matrix.heads:
        parts = {role: part[ids] for role, part in matrix.parts.items()}
        picked = PackedMatrix(matrix.packing, (len(ids), matrix.shape[1]), parts)
        return unpacked(picked, 0, len(ids), dtype)
    out = torch.empty(len(ids), matrix.shape[1], dtype=dtype, device=ids.device)
    for start in range(0, matrix.shape[0], 1024):
        stop = min(start + 1024, matrix.shape[0])
        here = ((ids >= start) & (ids < stop)).nonzero()[:, 0]
        if len(here):
            out[here] = unpacked(matrix, start, stop, dtype)[ids[here] - start]
    return out


# x @ w and addmm(bias, x, w): the weight comes last, what it is multiplied with before it.
_FROM_THE_RIGHT = (torch.Tensor.__matmul__, torch.Tensor.matmul, torch.matmul, torch.addmm)


def _packed(argument: Any, transposed: bool = False) -> bool:
    return isinstance(argument, PackedWeight) and argument.transposed == transposed


def _unpacked(leaf: Any) -> Any:
    return leaf.dense() if isinstance(leaf, PackedWeight) else leaf
