"""The page ships inside the package, whole and by itself; that it is what `web/` gives, `make test-web` tests."""

import re
import runpy
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from windlass.server import page_files

PAGE = Path(str(files("windlass.server").joinpath("page")))
INDEX = (PAGE / "index.html").read_text()


def test_the_page_names_its_own_files_and_no_others() -> None:
    named = {address.removeprefix("./") for address in re.findall(r'(?:src|href)="([^"]+)"', INDEX)}
    lying = {str(path.relative_to(PAGE)) for path in PAGE.rglob("*") if path.is_file()}
    assert named | {"index.html"} == lying


@pytest.mark.parametrize("inline", [r"<script(?![^>]*\bsrc=)", r"<style", r"\son\w+=", r"\sstyle="])
def test_nothing_stands_in_the_page_that_its_security_policy_would_stop(inline: str) -> None:
    assert not re.search(inline, INDEX)


def test_the_style_sheet_loads_nothing() -> None:
    assert not re.search(r"url\(|@import", (PAGE / "assets/page.css").read_text())


def test_the_page_is_small() -> None:
    assert sum(path.stat().st_size for path in PAGE.rglob("*") if path.is_file()) < 200_000


def test_the_page_is_found_where_importlib_resources_is_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in Python 3.10."""
    monkeypatch.setitem(sys.modules, "importlib.resources.abc", None)
    found = runpy.run_path(page_files.__file__)["built_page"]()
    assert found == {str(path.relative_to(PAGE)): path.read_bytes() for path in PAGE.rglob("*") if path.is_file()}
