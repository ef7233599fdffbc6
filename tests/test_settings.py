"""The environment: each variable, its default, and the refusal of a value that makes no sense."""

import io
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.errors import UsageError
from windlass.settings import c_compiler, cache_folder, num_threads, stderr_is_terminal, usable_cores, wants_native


def test_the_cache_lies_where_windlass_cache_says() -> None:
    environ = {"WINDLASS_CACHE": "/fast/windlass", "XDG_CACHE_HOME": "/var/cache"}
    assert cache_folder(environ) == Path("/fast/windlass")


def test_the_cache_folder_may_start_at_home_or_here() -> None:
    assert cache_folder({"WINDLASS_CACHE": "~/kept"}) == Path.home() / "kept"
    assert cache_folder({"WINDLASS_CACHE": "kept"}) == Path.cwd() / "kept"


def test_the_cache_follows_the_xdg_folder_when_it_is_absolute() -> None:
    assert cache_folder({"XDG_CACHE_HOME": "/var/cache"}) == Path("/var/cache/windlass")


@pytest.mark.parametrize("environ", [{}, {"WINDLASS_CACHE": ""}, {"XDG_CACHE_HOME": ""}, {"XDG_CACHE_HOME": "here"}])
def test_the_cache_is_in_the_home_folder_otherwise(environ: dict[str, str]) -> None:
    assert cache_folder(environ) == Path.home() / ".cache" / "windlass"


def test_the_real_environment_is_read_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDLASS_CACHE", "/elsewhere")
    monkeypatch.setenv("WINDLASS_NUM_THREADS", "3")
    assert (cache_folder(), num_threads()) == (Path("/elsewhere"), 3)


@given(st.integers(min_value=1, max_value=4096))
def test_any_positive_whole_number_of_threads_is_taken(threads: int) -> None:
    assert num_threads({"WINDLASS_NUM_THREADS": f" {threads} "}) == threads


@pytest.mark.parametrize("text", ["0", "-2", "two", "1.5", "1_0", "²"])
def test_any_other_number_of_threads_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match="WINDLASS_NUM_THREADS is .* set it to a whole number from 1 up"):
        num_threads({"WINDLASS_NUM_THREADS": text})


@pytest.mark.parametrize("environ", [{}, {"WINDLASS_NUM_THREADS": " "}])
def test_threads_are_the_usable_cores_otherwise(environ: dict[str, str]) -> None:
    assert num_threads(environ) == usable_cores() >= 1


def test_a_captured_standard_error_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert stderr_is_terminal() is False


@pytest.mark.parametrize(
    ("environ", "wanted"), [({}, True), ({"WINDLASS_NATIVE": "1"}, True), ({"WINDLASS_NATIVE": " 0 "}, False)]
)
def test_native_kernels_are_wanted_unless_the_variable_is_0(environ: dict[str, str], wanted: bool) -> None:
    assert wants_native(environ) is wanted


def test_the_c_compiler_may_come_with_arguments() -> None:
    assert c_compiler({"CC": "ccache gcc"}) == ("ccache", "gcc")
    assert c_compiler({}) == ()
