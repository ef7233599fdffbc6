"""`windlass doctor`: what this machine has and how fast it is, or what is known of another."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from windlass.cli.exits import files_removed
from windlass.cli.late import late, require_plotting
from windlass.cli.machine_flags import MachineFlags
from windlass.cli.measuring import Measuring
from windlass.cli.output_flags import AsJson
from windlass.errors import UsageError
from windlass.facts.catalogue import machine_named
from windlass.facts.machine import Machine
from windlass.facts.machine_file import machine_json
from windlass.facts.machine_store import kept_beside, kept_machine
from windlass.facts.machine_table import machine_lines
from windlass.units import parse_rate

EXAMPLES = (
    "windlass doctor",
    "windlass doctor ./model --offload-dir /mnt/nvme --plot roofline.png",
    "windlass doctor --machine rtx4090 --bus pcie4x8 --disk-rate 7GB/s",
)
_PICTURES = (".png", ".svg", ".pdf")


def doctor(
    flags: MachineFlags,
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER",
            help="Whose disk to measure: a model's, else that of the hub's cache, else of the current folder.",
            show_default=False,
        ),
    ] = None,
    offload_dir: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Measure this disk too.", show_default=False)
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again, whatever is kept from before.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw a roofline, as .png, .svg or .pdf.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what this machine has and how fast it is; it is measured once and kept."""
    if plot is not None:
        _check_picture(plot)
    if flags.machine is None:
        _refuse_without_machine(flags)
        machine, answer, lines = _this_machine(folder, offload_dir, fresh)
    else:
        machine = _other_machine(flags, folder, offload_dir, fresh)
        answer, lines = machine_json(machine), machine_lines(machine)
    if plot is not None:
        late("jobs.roofline_plot").draw_roofline(machine, plot)
        lines = [*lines, f"picture  {plot}"]
    sys.stdout.write(json.dumps(answer) + "\n" if as_json else "\n".join(lines) + "\n")


def _this_machine(
    folder: Path | None, offload_dir: Path | None, fresh: bool
) -> tuple[Machine, dict[str, object], list[str]]:
    job = late("jobs.checkup")
    folders = [folder or job.usual_folder()] + ([offload_dir] if offload_dir else [])
    with files_removed(), Measuring() as measuring:
        found = job.checkup(folders, fresh, measuring.on_progress)
    return found.machine, found.as_dict(), found.lines()


def _other_machine(flags: MachineFlags, folder: Path | None, offload_dir: Path | None, fresh: bool) -> Machine:
    """Beside this host if it was measured. Raises UsageError."""
    assert flags.machine is not None
    if offload_dir is not None or fresh:
        given = "--fresh" if fresh else "--offload-dir"
        raise UsageError(f"{given} measures this machine, and --machine {flags.machine} names another; leave one out")
    here = kept_machine(folder or Path.cwd()) or kept_beside()
    rate = parse_rate(flags.disk_rate) if flags.disk_rate else None
    return machine_named(flags.machine, bus=flags.bus, disk_rate=rate, here=here)


def _refuse_without_machine(flags: MachineFlags) -> None:
    for flag, value in (("--bus", flags.bus), ("--disk-rate", flags.disk_rate)):
        if value is not None:
            raise UsageError(f"{flag} {value} has no effect on a machine that is measured; name one with --machine")


def _check_picture(plot: Path) -> None:
    """Before anything is measured. Raises UsageError."""
    if plot.suffix.lower() not in _PICTURES:
        raise UsageError(f"--plot {plot} is no picture that can be drawn; end its name in {', '.join(_PICTURES)}")
    if not plot.absolute().parent.is_dir():
        raise UsageError(f"--plot {plot}: there is no folder {plot.absolute().parent}; make it first")
    require_plotting()
