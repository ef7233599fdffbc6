"""What a quantising job did: bytes, rates beside what bounds them, and the error that is left."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from windlass.units import format_bytes, format_rate, format_seconds


@dataclass(frozen=True, slots=True)
class QuantizeResult:
    """`weights` numbers were packed in `packed_tensors`, the rest was copied.

    `error` is the root of the squared error over the weights' own squares, weighted by importance if `calibrated`.
    `seconds` and `bytes_moved` are this run's: less than `bytes_in` where an earlier one had begun. `weights_moved`
    are those it packed and `pack_seconds` what one thread would have taken for them, the waiting left out.
    """

    model: str
    output: str
    to: str
    packer: str
    calibrated: bool
    packed_tensors: int
    kept_tensors: int
    weights: int
    bytes_in: int
    bytes_out: int
    bytes_moved: int
    weights_moved: int
    seconds: float
    pack_seconds: float
    threads: int
    error: float

    @property
    def weights_rate(self) -> float:
        """Weights packed a second, of this run."""
        return self.weights_moved / self.seconds if self.seconds else 0.0

    @property
    def packing_rate(self) -> float:
        """Weights a second that the threads would pack without ever waiting: the limit beside `weights_rate`."""
        return self.weights_moved * self.threads / self.pack_seconds if self.pack_seconds else 0.0

    @property
    def read_rate(self) -> float:
        """Bytes a second taken from the source."""
        return self.bytes_moved / self.seconds if self.seconds else 0.0

    def as_dict(self) -> Mapping[str, object]:
        """For `--json`."""
        rates = {"weights_rate": self.weights_rate, "packing_rate": self.packing_rate, "read_rate": self.read_rate}
        return asdict(self) | rates

    def lines(self) -> list[str]:
        """For people."""
        bits = 8 * self.bytes_out / max(1, self.bytes_in)
        lines = [
            f"packed   {self.packed_tensors} of {self.packed_tensors + self.kept_tensors} tensors as {self.to}: "
            f"{format_bytes(self.bytes_in)} became {format_bytes(self.bytes_out)}, {bits / 8:.2f} of it",
            f"error    {100 * self.error:.3g} % of the weights (root of the mean square"
            f"{', weighted by what columns are multiplied with' if self.calibrated else ''})",
        ]
        if self.seconds:
            lines.append(
                f"speed    {self.weights_rate / 1e6:.3g} million weights/s in {format_seconds(self.seconds)}; "
                f"{self.threads} threads pack {self.packing_rate / 1e6:.3g} ({self.packer}); "
                f"{format_rate(self.read_rate)} read"
            )
        return [*lines, f"model    {self.output}"]
