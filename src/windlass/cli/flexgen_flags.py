"""FlexGen's flags, the expert's way to say where bytes live and how a block is cut."""

from dataclasses import dataclass
from typing import Annotated

import typer

from windlass.cli.budget_flags import BudgetFlags
from windlass.cli.numbers import counting
from windlass.errors import UsageError
from windlass.facts.flexgen_policy import GPU_BATCH_SIZE, NUM_GPU_BATCHES, FlexGenPolicy

_PANEL = "FlexGen's policy"


@dataclass(frozen=True, slots=True)
class FlexGenFlags:
    """As FlexGen's own command line has them."""

    percent: Annotated[
        tuple[int, int, int, int, int, int] | None,
        typer.Option(
            metavar="N N N N N N",
            help="Six whole numbers: percent of weights on the device and in host memory, of keys and values, of "
            "activations. What a pair leaves of 100 lies on disk. Without a device give the host's shares alone.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    gpu_batch_size: Annotated[
        int | None,
        typer.Option(
            parser=counting, metavar="N", help=f"Sequences decoded together; {GPU_BATCH_SIZE} beside other flags here.",
            rich_help_panel=_PANEL,
        ),
    ] = None  # fmt: skip
    num_gpu_batches: Annotated[
        int | None,
        typer.Option(
            parser=counting, metavar="N", help=f"Such batches in a block; {NUM_GPU_BATCHES} beside other flags here.",
            rich_help_panel=_PANEL,
        ),
    ] = None  # fmt: skip
    cpu_cache_compute: Annotated[
        bool,
        typer.Option(
            "--cpu-cache-compute", help="Attend on the CPU to what lies in host memory; always so here.",
            rich_help_panel=_PANEL,
        ),
    ] = False  # fmt: skip
    compress_weight: Annotated[
        bool, typer.Option("--compress-weight", help="Refused; see --quantization int4.", rich_help_panel=_PANEL)
    ] = False
    compress_cache: Annotated[
        bool, typer.Option("--compress-cache", help="Refused; see --kv-cache-dtype int4.", rich_help_panel=_PANEL)
    ] = False
    sep_layer: Annotated[
        bool | None,
        typer.Option(
            "--sep-layer/--no-sep-layer", help="No effect: tensors are placed one by one.", rich_help_panel=_PANEL
        ),
    ] = None
    overlap: Annotated[
        bool | None,
        typer.Option("--overlap/--no-overlap", help="No effect: everything overlaps.", rich_help_panel=_PANEL),
    ] = None

    def policy(self, budget: BudgetFlags) -> FlexGenPolicy | None:
        """The policy, or None where no flag was given. Raises UsageError, for flags that fight with `budget` too."""
        if self == FlexGenFlags():
            return None
        if budget.plan is not None:
            raise UsageError(
                f"--plan {budget.plan} says where every byte lies; FlexGen's flags say it again, leave one out"
            )
        for given, flag, theirs in (
            (budget.block_size, "--block-size", "--gpu-batch-size times --num-gpu-batches"),
            (budget.micro_batch_tokens, "--micro-batch-tokens", "--gpu-batch-size"),
        ):
            if given is not None:
                raise UsageError(f"{flag} {given} says again what {theirs} says in FlexGen's flags; leave one out")
        return FlexGenPolicy(
            percent=self.percent,
            gpu_batch_size=self.gpu_batch_size or GPU_BATCH_SIZE,
            num_gpu_batches=self.num_gpu_batches or NUM_GPU_BATCHES,
            cpu_cache_compute=self.cpu_cache_compute,
            compress_weight=self.compress_weight,
            compress_cache=self.compress_cache,
            sep_layer=self.sep_layer,
            overlap=self.overlap,
        )
