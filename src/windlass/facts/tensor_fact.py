"""Where one tensor of a checkpoint lies: the file, the bytes, and how to read them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TensorFact:
    """`nbytes` bytes at `offset` of `file` are the tensor `name`, row-major.

    `dtype` is the name safetensors uses (`BF16`, `F32`, ...); `file` is an absolute path; `offset` counts from the
    start of the file, header included.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    offset: int
    nbytes: int

    @property
    def end(self) -> int:
        """The first byte of the file after the tensor."""
        return self.offset + self.nbytes
