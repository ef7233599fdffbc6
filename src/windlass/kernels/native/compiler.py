"""Compiles C for this very processor and keeps the result in the user's own cache, so that it happens once.

Only what we compiled is ever loaded: the folder and the file belong to the user alone, and the file's name ends in the
digest of its bytes, so that a damaged one is seen before a byte of it runs and is compiled again. Files appear by a
rename, so several processes may compile at once.
"""

import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from windlass.kernels.native.building import building

LOG = logging.getLogger("windlass")
FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-fPIC", "-fvisibility=hidden", "-w")
COMPILERS = ("cc", "gcc", "clang")
LONGEST_COMPILATION = 120.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Missing:
    """What is not there, and why: for `doctor`."""

    reason: str


@dataclass(frozen=True, slots=True)
class Compiler:
    """A command and the first line of what it says its version is."""

    command: tuple[str, ...]
    version: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a library comes from a source: flags of the compilation, and of the linking."""

    source: Path
    compiling: tuple[str, ...]
    linking: tuple[str, ...]

    def key(self, compiler: Compiler) -> str:
        """Changes with everything that the result depends on, the processor too."""
        sources = (path for path in sorted(self.source.parent.iterdir()) if path.suffix in (".c", ".h"))
        parts = (
            *(path.read_text() for path in sources),
            *self.compiling,
            *self.linking,
            *compiler.command,
            compiler.version,
        )
        return hashlib.sha256("\0".join([*parts, processor()]).encode()).hexdigest()[:24]


def find_compiler(asked: Sequence[str]) -> Compiler | Missing:
    """The command that is `asked` for, else the first that there is."""
    for command in [tuple(asked)] if asked else [(name,) for name in COMPILERS]:
        if shutil.which(command[0]) is None:
            continue
        said = _run([*command, "--version"])
        if isinstance(said, Missing):
            return said
        return Compiler(command, said.splitlines()[0] if said else "")
    return Missing(f"no C compiler: there is no {' or '.join(asked[:1] or COMPILERS)}; install gcc or set CC")


def native_flags() -> tuple[str, ...]:
    """What makes gcc and clang use all instructions of this processor."""
    return ("-march=native",) if platform.machine().lower() in ("x86_64", "amd64") else ("-mcpu=native",)


def compiled(recipe: Recipe, compiler: Compiler, folder: Path) -> Path | Missing:
    """The library in `folder`, compiled unless it is there whole."""
    try:
        refused = own(folder)
        if refused is not None:
            return refused
        name = f"{recipe.source.stem}-{recipe.key(compiler)}"
        for found in _whole(folder, name):
            return found
        return _compile(recipe, compiler, folder, name)
    except OSError as error:
        return Missing(f"{error.filename or folder} is not usable: {error.strerror}; set WINDLASS_CACHE to a folder")


def own(folder: Path) -> Missing | None:
    """Makes the folder, for the user alone; says why where it cannot be trusted."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not folder.is_dir() or folder.is_symlink() or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        return Missing(f"{folder} must be a folder of mode 700 that is yours alone; remove it, and it is made anew")
    return None


def processor() -> str:
    """What tells processors with different instructions apart."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    telling = ("model name", "flags", "Features", "CPU part")
    facts = sorted({line for line in lines if line.split(":")[0].strip() in telling})
    return "\n".join([platform.machine(), platform.processor(), *facts])


def _whole(folder: Path, name: str) -> Iterator[Path]:
    """Libraries of that name whose bytes are what their names say; others are removed."""
    for path in sorted(folder.glob(f"{name}-*.so")):
        if path.is_symlink() or path.stat().st_uid != os.geteuid() or path.stem != f"{name}-{_digest(path)}":
            path.unlink(missing_ok=True)
        else:
            yield path


def _compile(recipe: Recipe, compiler: Compiler, folder: Path, name: str) -> Path | Missing:
    _tell(folder)
    with building(folder) as scratch:
        middle, library = scratch / "object.o", scratch / "library.so"
        # In two steps: linking must not bring in another OpenMP than the one that torch has loaded.
        steps = (
            [*compiler.command, *FLAGS, *recipe.compiling, "-c", str(recipe.source), "-o", str(middle)],
            [*compiler.command, "-shared", *_undefined(), str(middle), "-lm", *recipe.linking, "-o", str(library)],
        )
        for step in steps:
            said = _run(step)
            if isinstance(said, Missing):
                return said
        target = folder / f"{name}-{_digest(library)}.so"
        os.replace(library, target)
    return target


@cache
def _tell(folder: Path) -> None:
    """Once, however many sources there are: a person who waits wants to know what for."""
    LOG.warning("compiling kernels for this processor, which takes some seconds, once; they are kept in %s", folder)


def _undefined() -> tuple[str, ...]:
    """Symbols that are found when the library is loaded are an error for macOS's linker unless it is told."""
    return ("-undefined", "dynamic_lookup") if sys.platform == "darwin" else ()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


def _run(command: Sequence[str]) -> str | Missing:
    """Standard output of a command that ends well."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, check=False,
            timeout=LONGEST_COMPILATION,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Missing(f"{shlex.join(command[:1])} took more than {LONGEST_COMPILATION:.0f} seconds")
    except OSError as error:
        return Missing(f"{shlex.join(command[:1])} cannot be run: {error.strerror}")
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no word why").splitlines()[0]
        return Missing(f"{shlex.join(command[:1])} failed: {said}")
    return done.stdout
