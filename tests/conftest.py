"""What every test stands on: no network, no cache of a person's own, the same random numbers each time."""

import os
import random
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
THREADS = 2
KERNELS = ROOT / ".pytest_cache" / "kernels"
"""Where compiled kernels are kept between sessions."""
KEPT_OF_A_SOURCE = 4

# huggingface_hub reads this when first imported, so it is set before any test module is.
os.environ["HF_HUB_OFFLINE"] = "1"

# Triton is for Linux; elsewhere there is nothing of it to test.
collect_ignore_glob = [] if find_spec("triton") else ["test_cuda_*.py"]

# No deadline: how long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("windlass", derandomize=True, deadline=None, database=None, max_examples=60)
hypothesis.settings.load_profile("windlass")


def pytest_configure(config: pytest.Config) -> None:
    """Kernels for devices run in Triton's interpreter, unless a device is what is tested.

    Triton asks for this when it is imported, so it is set before any test module is.
    """
    if config.option.markexpr != "gpu":
        os.environ["TRITON_INTERPRET"] = "1"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked gpu is skipped, with the reason, where there is none."""
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device, and torch sees none")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data kept outside the repository: $WINDLASS_SHARED, else `shared` beside the repository."""
    folder = Path(os.environ.get("WINDLASS_SHARED") or ROOT.parent / "shared").resolve()
    if not folder.is_dir():
        pytest.skip(f"there is no folder {folder}; set WINDLASS_SHARED to the folder of shared data")
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Verdicts and measurements go to a folder of this session, and none are found from an earlier one.

    Only compiled kernels are: their names change with the sources, the compiler and the processor, and what was damaged
    is seen and compiled again.
    """
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("WINDLASS_CACHE", str(folder))
        (folder / "native").mkdir(mode=0o700)
        copy_kernels(KERNELS, folder / "native")
        yield folder
        KERNELS.mkdir(parents=True, exist_ok=True)
        copy_kernels(folder / "native", KERNELS)
        for source in {path.name.split("-")[0] for path in KERNELS.glob("*.so")}:
            for path in sorted(KERNELS.glob(f"{source}-*.so"), key=changed)[:-KEPT_OF_A_SOURCE]:
                path.unlink(missing_ok=True)


def changed(path: Path) -> float:
    """When a file was written; long ago, where another session has just removed it."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def copy_kernels(source: Path, target: Path) -> None:
    """Those that are not there yet; by a rename, since several sessions may do so at once."""
    for path in source.glob("*.so"):
        if not (target / path.name).exists():
            with suppress(FileNotFoundError):  # another session may have removed it
                copy = shutil.copy2(path, target / f"{path.name}.{os.getpid()}")
                os.replace(copy, target / path.name)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Every test starts from the same seeds and threads; torch is touched only where a test has loaded it."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
        sys.modules["torch"].set_num_threads(THREADS)
