"""The flags every verb that loads a model shares: where it may live and how much it may take."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from windlass.cli.numbers import counting, whole
from windlass.errors import UsageError
from windlass.facts.cache_format import cache_format
from windlass.facts.choices import check_device, check_dtype, check_folder, check_quantization
from windlass.units import parse_size

_PANEL = "Budget"

ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="A folder, a GGUF file or a Hugging Face id.", show_default=False)
]

MaybeModelName = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="A folder, a GGUF file or a Hugging Face id; else the model in the box.",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class BudgetFlags:
    """Named and defaulted as the parameters of `LLM`, which takes them all."""

    host_memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Hard limit on the memory of the whole process, as 4GiB or 2500M. Without it: 0.9 of what is free.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    gpu_memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Hard limit on the memory of the device.", rich_help_panel=_PANEL),
    ] = None
    device: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="auto, cpu, cuda, cuda:0, or sim (sim:rate=8GB/s) to pretend one.",
            rich_help_panel=_PANEL,
        ),
    ] = "auto"  # fmt: skip
    dtype: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="auto (as the checkpoint), bfloat16, float16 or float32.", rich_help_panel=_PANEL
        ),
    ] = "auto"
    offload_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where keys and values may go that fit no memory; removed afterwards.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    quantization: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="int4 or int8: weights are packed while they load; where they stream, once, into the cache folder.",
            rich_help_panel=_PANEL,
        ),
    ] = None  # fmt: skip
    kv_cache_dtype: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Keys and values in auto (the dtype of the model), int8 or int4.",
            rich_help_panel=_PANEL,
        ),
    ] = "auto"  # fmt: skip
    max_model_len: Annotated[
        int | None,
        typer.Option(
            parser=counting, metavar="TOKENS", help="Longest prompt and answer together; the model's own by default.",
            rich_help_panel=_PANEL,
        ),
    ] = None  # fmt: skip
    block_size: Annotated[
        int | None,
        typer.Option(
            parser=counting, metavar="N", help="Sequences in the model at once; as many as fit by default.",
            rich_help_panel=_PANEL,
        ),
    ] = None  # fmt: skip
    micro_batch_tokens: Annotated[
        int | None,
        typer.Option(
            parser=counting, metavar="TOKENS", help="Tokens a layer computes at a time; from the budget by default.",
            rich_help_panel=_PANEL,
        ),
    ] = None  # fmt: skip
    unproven: Annotated[
        bool,
        typer.Option(
            "--unproven", help="Run an architecture whose tokens could not be proven right here.",
            rich_help_panel=_PANEL,
        ),
    ] = False  # fmt: skip
    revision: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Branch, tag or commit of a Hugging Face id.", rich_help_panel=_PANEL),
    ] = None
    plan: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Run by a plan that `windlass plan -o FILE` made; it must be for this model.",
            rich_help_panel=_PANEL,
        ),
    ] = None  # fmt: skip
    seed: Annotated[
        int, typer.Option(parser=whole, metavar="N", help="Seed of every random draw.", rich_help_panel=_PANEL)
    ] = 0

    def __post_init__(self) -> None:
        """What makes no sense on any machine is refused here, before torch is imported. Raises UsageError."""
        for size in (self.host_memory, self.gpu_memory):
            if size is not None:
                parse_size(size)
        check_device(self.device, self.gpu_memory is not None)
        check_dtype(self.dtype)
        check_quantization(self.quantization)
        cache_format(self.kv_cache_dtype)
        if self.offload_dir is not None:
            check_folder("--offload-dir", self.offload_dir.expanduser())
        for flag, value in (("--block-size", self.block_size), ("--micro-batch-tokens", self.micro_batch_tokens)):
            if self.plan is not None and value is not None:
                raise UsageError(
                    f"{flag} {value} has no effect beside --plan {self.plan}, which has its own; leave it out"
                )

    def as_arguments(self) -> dict[str, Any]:
        """Keyword arguments for `LLM`."""
        folder, plan = (str(path) if path else None for path in (self.offload_dir, self.plan))
        return asdict(self) | {"offload_dir": folder, "plan": plan}
