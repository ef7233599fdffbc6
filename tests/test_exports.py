"""The public surface: exactly these names, sorted, and none of them costs an import of torch before it is used."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import windlass
from windlass import errors

SOURCE = Path(windlass.__file__).parent.parent


def test_the_public_names_are_these_and_sorted() -> None:
    error_names = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    others = {"LLM", "SamplingParams", "StructuredOutputsParams", "RequestOutput", "CompletionOutput", "__version__"}
    assert windlass.__all__ == sorted(error_names | others)
    assert dir(windlass) == windlass.__all__


@pytest.mark.parametrize("name", windlass.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    value = getattr(windlass, name)
    assert name == "__version__" or value.__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    name = "Llm"
    with pytest.raises(AttributeError, match="module 'windlass' has no attribute 'Llm'"):
        getattr(windlass, name)


def test_importing_the_package_loads_no_torch() -> None:
    program = "import sys, windlass; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    command = [sys.executable, "-W", "error", "-c", program]
    ran = subprocess.run(command, env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=False)
    assert (ran.stdout.strip(), ran.stderr) == ("[]", "")
