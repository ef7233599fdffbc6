"""What a run measured: time, tokens, bytes and memory, each beside the limit it ran into."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from windlass.facts.forecast import Forecast, PhaseForecast
from windlass.facts.kept_promise import KeptPromise
from windlass.units import format_bytes, format_rate, format_seconds, format_size


@dataclass(frozen=True, slots=True)
class RunReport:
    """Measured truth of everything an engine has generated so far. Seconds are wall time; bytes are exact counts.

    `wait_seconds` is time the compute lane stood waiting for weights, `compute_seconds` the rest of the passes, of
    which `attention_seconds` and `attention_bytes` belong to decode attention. `disk_limit` is the disk's measured best
    rate in bytes/s, 0 when nothing streamed. `prefill_lanes` and `decode_lanes` say for how many seconds of the phase
    each order of work was busy (disk, upload, compute, download, host); `link_bytes` were carried to a device at
    `link_rate` bytes/s. `forecast` is for the work that was done, None where nobody made one.
    """

    load_seconds: float = 0.0
    prefill_tokens: int = 0
    prefill_seconds: float = 0.0
    prefill_passes: int = 0
    decode_tokens: int = 0
    decode_seconds: float = 0.0
    decode_passes: int = 0
    bytes_read: int = 0
    disk_rate: float = 0.0
    disk_limit: float = 0.0
    compute_seconds: float = 0.0
    wait_seconds: float = 0.0
    prefill_lanes: Mapping[str, float] = field(default_factory=dict)
    decode_lanes: Mapping[str, float] = field(default_factory=dict)
    link_bytes: int = 0
    link_rate: float = 0.0
    attention_seconds: float = 0.0
    attention_bytes: int = 0
    peak_memory: int = 0
    memory_budget: int = 0
    bound_by: str = "nothing"
    forecast: Forecast | None = None

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens per second."""
        return self.prefill_tokens / self.prefill_seconds if self.prefill_seconds else 0.0

    @property
    def decode_rate(self) -> float:
        """Generated tokens per second, over all sequences."""
        return self.decode_tokens / self.decode_seconds if self.decode_seconds else 0.0

    @property
    def seconds_per_pass(self) -> float:
        """Wall time of one decode pass over the whole model."""
        return self.decode_seconds / self.decode_passes if self.decode_passes else 0.0

    @property
    def promise(self) -> KeptPromise | None:
        """The forecast beside what was measured."""
        if self.forecast is None:
            return None
        prefill = PhaseForecast(self.prefill_tokens, self.prefill_passes, self.prefill_seconds, self.prefill_lanes)
        decode = PhaseForecast(self.decode_tokens, self.decode_passes, self.decode_seconds, self.decode_lanes)
        rates = {"disk": self.disk_rate, "upload": self.link_rate}
        return KeptPromise(self.forecast, Forecast(self.load_seconds, prefill, decode), rates)

    def as_dict(self) -> dict[str, object]:
        """Every field and derived rate, for `--json`."""
        promise = self.promise
        return asdict(self) | {
            "prefill_rate": self.prefill_rate,
            "decode_rate": self.decode_rate,
            "seconds_per_pass": self.seconds_per_pass,
            "promise": promise.as_dict() if promise else None,
        }

    def lines(self) -> list[str]:
        """The same for people, one fact a line."""
        lines = [
            f"prefill  {self.prefill_tokens} tokens in {format_seconds(self.prefill_seconds)}, "
            f"{self.prefill_rate:.1f} tok/s",
            f"decode   {self.decode_tokens} tokens in {format_seconds(self.decode_seconds)}, "
            f"{self.decode_rate:.2f} tok/s, {format_seconds(self.seconds_per_pass)} a pass",
        ]
        if self.bytes_read:
            limit = f" of {format_rate(self.disk_limit)} measured" if self.disk_limit else ""
            lines.append(f"disk     {format_bytes(self.bytes_read)} read at {format_rate(self.disk_rate)}{limit}")
        if self.link_bytes:
            lines.append(f"link     {format_bytes(self.link_bytes)} to the device")
            busy = ", ".join(f"{lane} {seconds:.2f} s" for lane, seconds in self.decode_lanes.items())
            lines.append(f"lanes    busy in decode: {busy}")
        lines.append(f"memory   {format_size(self.peak_memory)} at most, budget {format_size(self.memory_budget)}")
        lines.append(f"bound by {self.bound_by}")
        promise = self.promise
        return lines + (promise.lines() if promise else [])
