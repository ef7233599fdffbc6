"""The flags of a server: where it listens, who may ask, and how much."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from windlass.cli.numbers import counting, whole
from windlass.errors import UsageError
from windlass.jobs.service.limits import Limits
from windlass.server.doors.addresses import is_loopback
from windlass.server.doors.limits import ServerLimits
from windlass.settings import api_key
from windlass.units import format_size, parse_size

_DOOR, _LIMITS = "Door", "Limits"
_SERVER, _SERVICE = ServerLimits(), Limits()


@dataclass(frozen=True, slots=True)
class ServeFlags:
    """Raises UsageError for a door that anybody could walk through."""

    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", help="Where to listen; other machines reach no loopback.", rich_help_panel=_DOOR
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int, typer.Option(parser=whole, metavar="N", help="0 takes any that is free.", rich_help_panel=_DOOR)
    ] = 8000
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="A key that clients must send; may be given again. Better WINDLASS_API_KEY: others see arguments.",
            rich_help_panel=_DOOR,
        ),
    ] = None
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Let anybody in who reaches --host, without a key.", rich_help_panel=_DOOR),
    ] = False
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A host name that it is called by, behind a proxy say; may be given again.",
            rich_help_panel=_DOOR,
        ),
    ] = None  # fmt: skip
    served_model_name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What clients call the model; MODEL without its folders by default.",
            rich_help_panel=_DOOR,
        ),
    ] = None
    jobs: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Take batches, and keep them here over a restart.", rich_help_panel=_DOOR),
    ] = None
    max_num_seqs: Annotated[
        int,
        typer.Option(parser=counting, metavar="N", help="Sequences that run at once at most.", rich_help_panel=_LIMITS),
    ] = _SERVICE.max_num_seqs
    max_queue: Annotated[
        int,
        typer.Option(
            parser=counting, metavar="N", help="Questions that wait at most; then 429.", rich_help_panel=_LIMITS
        ),
    ] = _SERVICE.max_queue
    interactive_reserve: Annotated[
        int | None,
        typer.Option(
            parser=counting, metavar="TOKENS", help="Of keys and values, kept free of batches for people.",
            rich_help_panel=_LIMITS,
        ),
    ] = None  # fmt: skip
    max_requests_per_key: Annotated[
        int,
        typer.Option(
            parser=counting, metavar="N", help="Requests of one key in work at once; then 429.", rich_help_panel=_LIMITS
        ),
    ] = _SERVER.max_requests_per_key
    max_connections: Annotated[
        int,
        typer.Option(parser=counting, metavar="N", help="Connections at once, idle ones too.", rich_help_panel=_LIMITS),
    ] = _SERVER.max_connections
    max_body: Annotated[str, typer.Option(metavar="SIZE", help="Of a question; then 413.", rich_help_panel=_LIMITS)] = (
        format_size(_SERVER.max_body)
    )
    max_upload: Annotated[
        str, typer.Option(metavar="SIZE", help="Of a file of rows; then 413.", rich_help_panel=_LIMITS)
    ] = format_size(_SERVER.max_upload)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise UsageError(f"--port {self.port} is none; ports go from 0 to 65535")
        if any(not key.strip() or not key.isascii() for key in self.api_key or ()):
            raise UsageError("--api-key holds no key of plain letters; make one, as with `openssl rand -hex 16`")
        if not (is_loopback(self.host) or self.keys or self.insecure):
            raise UsageError(
                f"--host {self.host} lets other machines in, and there is no key; give --api-key, set "
                "WINDLASS_API_KEY, or let everybody in with --insecure"
            )
        parse_size(self.max_body)
        parse_size(self.max_upload)

    @property
    def keys(self) -> tuple[str, ...]:
        """Those of the flags, and that of the environment."""
        surrounding = api_key()
        return tuple(key.strip() for key in self.api_key or ()) + ((surrounding,) if surrounding else ())

    @property
    def limits(self) -> ServerLimits:
        """What one client may ask."""
        return ServerLimits(
            max_requests_per_key=self.max_requests_per_key,
            max_body=parse_size(self.max_body),
            max_upload=parse_size(self.max_upload),
            max_connections=self.max_connections,
        )

    def service_limits(self, max_model_len: int | None) -> Limits:
        """What all may."""
        return Limits(self.max_num_seqs, self.max_queue, max_model_len)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names that it answers to."""
        return (self.host, *(self.allowed_host or ()))
