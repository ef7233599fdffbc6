"""What `windlass plan` is told of the work, of the machine, and of what has to be kept to."""

import shutil
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from windlass.cli.numbers import counting, real
from windlass.errors import UsageError
from windlass.facts.catalogue import machine_named
from windlass.facts.deadline import seconds_until
from windlass.facts.machine import Machine
from windlass.facts.weight_formats import SMALLER_FORMATS
from windlass.facts.workload import Workload
from windlass.planner.estimate import Limits
from windlass.units import parse_rate, parse_size

_WORK, _MACHINE, _LIMITS = "Work", "Machine", "Limits"
_DEFAULT = Workload()


@dataclass(frozen=True, slots=True)
class WorkFlags:
    """Prompts as numbers or as a file."""

    source: Annotated[
        str | None,
        typer.Option(
            "--input", "-i", metavar="FILE", help="Prompts as `batch` reads them; their tokens are counted.",
            rich_help_panel=_WORK,
        ),
    ] = None  # fmt: skip
    prompt_len: Annotated[
        int | None,
        typer.Option(
            parser=counting, metavar="N", help=f"Tokens in each prompt; {_DEFAULT.prompt_len} by default.",
            rich_help_panel=_WORK,
        ),
    ] = None  # fmt: skip
    gen_len: Annotated[
        int | None,
        typer.Option(
            parser=counting, metavar="N",
            help=f"Tokens generated for each prompt; {_DEFAULT.gen_len} by default, with -i for rows that do not say.",
            rich_help_panel=_WORK,
        ),
    ] = None  # fmt: skip
    num_prompts: Annotated[
        int | None,
        typer.Option(
            parser=counting, metavar="N", help=f"Prompts; {_DEFAULT.num_prompts} by default.", rich_help_panel=_WORK
        ),
    ] = None

    def __post_init__(self) -> None:
        """Numbers beside a file that holds them have no effect. Raises UsageError."""
        for flag, value in (("--prompt-len", self.prompt_len), ("--num-prompts", self.num_prompts)):
            if self.source is not None and value is not None:
                raise UsageError(f"{flag} {value} has no effect beside -i {self.source}, which says it; leave one out")

    def workload(self, longest: int) -> Workload:
        """Of the numbers; those that were not given are the usual ones, if the model's `longest` sequence allows.

        Where neither length is given and both do not fit, they share it as the usual ones do.
        """
        share = longest * _DEFAULT.gen_len // (_DEFAULT.prompt_len + _DEFAULT.gen_len)
        room = share if self.prompt_len is None else longest - self.prompt_len
        gen_len = self.gen_len or max(1, min(_DEFAULT.gen_len, room))
        prompt_len = self.prompt_len or max(1, min(_DEFAULT.prompt_len, longest - gen_len))
        return Workload(self.num_prompts or _DEFAULT.num_prompts, prompt_len, gen_len)


@dataclass(frozen=True, slots=True)
class MachineFlags:
    """Which machine; this one by default, as `windlass doctor` measured it."""

    machine: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="A device's name, as rtx3090 or t4, or the file of a profile; else this machine.",
            rich_help_panel=_MACHINE,
        ),
    ] = None  # fmt: skip
    bus: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Its link, as pcie4x8 or 25GB/s each way.", rich_help_panel=_MACHINE),
    ] = None
    disk_rate: Annotated[
        str | None, typer.Option(metavar="RATE", help="Its disk's rate, as 2GB/s.", rich_help_panel=_MACHINE)
    ] = None
    device: Annotated[
        str, typer.Option(metavar="NAME", help="auto, cuda, or cpu to leave a device out.", rich_help_panel=_MACHINE)
    ] = "auto"

    def __post_init__(self) -> None:
        """What makes no sense is refused before anything is read. Raises UsageError."""
        if self.disk_rate is not None:
            parse_rate(self.disk_rate)
        if self.device not in ("auto", "cpu", "cuda"):
            raise UsageError(f"--device {self.device!r} cannot be planned for; use auto, cuda or cpu")

    def found(self, here: Machine | None, host_memory: int | None) -> Machine | None:
        """The machine meant, given the profile of this one; None where this one is meant and was not measured."""
        rate = parse_rate(self.disk_rate) if self.disk_rate is not None else None
        named: Machine | None
        if self.machine is not None:
            named = machine_named(self.machine, host_memory=host_memory, bus=self.bus, disk_rate=rate, here=here)
        else:
            named = here and self._changed(here, rate)
        if named is not None and self.device == "cuda" and named.device is None:
            raise UsageError(f"--device cuda: {named.name} has none; name a machine that has one, as --machine rtx3090")
        return named

    def _changed(self, here: Machine, rate: float | None) -> Machine:
        if self.bus is not None:
            raise UsageError(
                f"--bus {self.bus} has no effect on this machine, whose link is measured; name a --machine"
            )
        if rate is None:
            return here
        return replace(here, disk=replace(here.disk, rate=rate, reason="its rate was given"))


@dataclass(frozen=True, slots=True)
class LimitFlags:
    """What the plan has to keep to."""

    host_memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Hard limit on the memory of the process.", rich_help_panel=_LIMITS),
    ] = None
    gpu_memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Hard limit on the device's.", rich_help_panel=_LIMITS)
    ] = None
    offload_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Where keys and values may go that fit no memory.", rich_help_panel=_LIMITS
        ),
    ] = None
    disk_room: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="The room there, in place of a folder.", rich_help_panel=_LIMITS),
    ] = None
    block_size: Annotated[
        int | None,
        typer.Option(
            parser=counting, metavar="N", help="Sequences in the model at once; the best by default.",
            rich_help_panel=_LIMITS,
        ),
    ] = None  # fmt: skip
    micro_batch_tokens: Annotated[
        int | None,
        typer.Option(
            parser=counting, metavar="N", help="Tokens a layer computes at a time; the best by default.",
            rich_help_panel=_LIMITS,
        ),
    ] = None  # fmt: skip
    finish_by: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="08:00 or 2026-12-01T08:00: the plan that needs least memory and is done by then.",
            rich_help_panel=_LIMITS,
        ),
    ] = None  # fmt: skip
    max_seconds: Annotated[
        float | None,
        typer.Option(parser=real, metavar="S", help="The same, as seconds from now.", rich_help_panel=_LIMITS),
    ] = None
    allow: Annotated[
        str,
        typer.Option(
            metavar="FORMATS", help=f"Formats of weights that may lose something: {', '.join(SMALLER_FORMATS)}.",
            rich_help_panel=_LIMITS,
        ),
    ] = ""  # fmt: skip

    def __post_init__(self) -> None:
        """Limits that make no sense, or say the same twice, are refused before anything is read. Raises UsageError."""
        for size in (self.host_memory, self.gpu_memory, self.disk_room):
            if size is not None:
                parse_size(size)
        if self.finish_by is not None and self.max_seconds is not None:
            raise UsageError("--finish-by and --max-seconds are two limits on the same time; leave one out")
        if self.max_seconds is not None and self.max_seconds <= 0:
            raise UsageError(f"--max-seconds must be above 0, got {self.max_seconds:g}; write it as 3600")
        if self.offload_dir is not None and self.disk_room is not None:
            raise UsageError("--offload-dir and --disk-room both say how much room there is; leave one out")
        if self.offload_dir is not None and not self.offload_dir.is_dir():
            raise UsageError(f"--offload-dir {self.offload_dir} is not a folder; make it, or name another one")
        for name in self.formats:
            if name not in SMALLER_FORMATS:
                raise UsageError(f"--allow {name!r} is no format that is known; use {' or '.join(SMALLER_FORMATS)}")

    @property
    def formats(self) -> tuple[str, ...]:
        """Formats of weights beside the checkpoint's own."""
        return tuple(filter(None, (name.strip() for name in self.allow.split(","))))

    def seconds(self, now: datetime) -> float | None:
        """How long the job may take from `now`. Raises UsageError."""
        return self.max_seconds if self.finish_by is None else seconds_until(self.finish_by, now)

    def limits(self, on_host: bool) -> Limits:
        """The limits on memory and sizes."""
        room = parse_size(self.disk_room) if self.disk_room is not None else 0
        return Limits(
            host_memory=parse_size(self.host_memory) if self.host_memory is not None else None,
            gpu_memory=parse_size(self.gpu_memory) if self.gpu_memory is not None else None,
            offload=shutil.disk_usage(self.offload_dir).free if self.offload_dir is not None else room,
            block_size=self.block_size or 0,
            micro_batch_tokens=self.micro_batch_tokens,
            on_host=on_host,
        )
