"""`windlass version`: what is installed, for a bug report."""

import json
import platform
import sys
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version

from windlass import __version__
from windlass.cli.output_flags import AsJson

EXAMPLES = ("windlass version", "windlass version --json")

_PACKAGES = ("torch", "transformers", "safetensors", "tokenizers", "huggingface_hub")


def version(as_json: AsJson = False) -> None:
    """Show the versions of Windlass and what it stands on."""
    versions = {"windlass": __version__, "python": platform.python_version()}
    versions |= {name: _installed(name) for name in _PACKAGES}
    if as_json:
        sys.stdout.write(json.dumps(versions) + "\n")
        return
    for name, number in versions.items():
        sys.stdout.write(f"{name:<16} {number}\n")


def _installed(package: str) -> str:
    """Read from the installed metadata: importing torch to learn its version takes a second."""
    try:
        return installed_version(package)
    except PackageNotFoundError:
        return "not installed"
