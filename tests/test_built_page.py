"""The page ships inside the package, whole and by itself; that it is what `web/` gives, `make test-web` tests."""

import re
from importlib.resources import files
from pathlib import Path

import pytest

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
