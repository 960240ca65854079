"""The blocks of the documentation: those in `sh` run as printed; a page names those that do not."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doc_page import ROOT, UNTIL_CTRL_C, blocks
from tests.npm import install
from tests.processes import clean_environment, posix_only

PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "examples" / "README.md"]

# Each block of another language is on a page that says that it was not run.
RUN_OR_SHOWN = ("sh", "python", "json", "toml", "text", "http", "")
NOT_RUN = re.compile(r"\bnot run\b", re.IGNORECASE)

NODE_PACKAGES = ROOT / "tests" / "node" / "package.json"
PORTS = (8883, 8443, 5671, 5672)
# A network of its own: localhost and its ports, whatever runs on this machine.
ALONE = ["unshare", "--map-root-user", "--net"]


def can_be_alone() -> bool:
    if shutil.which(ALONE[0]) is None:
        return False
    return subprocess.run([*ALONE, "true"], capture_output=True).returncode == 0


def check_localhost() -> None:
    """Skip the test where no network of its own is allowed, and localhost is not free either."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        pytest.skip("it needs a network of its own (unshare --net), or to be the only test: -n 0")
    for port in PORTS:
        try:
            socket.create_server(("0.0.0.0", port)).close()
        except OSError:
            pytest.skip(f"port {port} is in use")


def run(page: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the `sh` blocks of a page."""
    command = [sys.executable, "-m", "tests.doc_page", str(page), str(folder)]
    if shutil.which("node") and any("node " in block.text for block in blocks(page)):
        command += ["--modules", str(install(NODE_PACKAGES))]
    if can_be_alone():
        command = [*ALONE, *command, "--alone"]
    else:
        check_localhost()
    return subprocess.run(
        command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=110
    )


@posix_only
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(block.language == "sh" for block in blocks(page))],
    ids=lambda page: page.name,
)
def test_each_sh_block_of_a_page_runs_as_printed(page: Path, tmp_path: Path) -> None:
    result = run(page, tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    if left_out := re.findall(r"^left out: (.*)$", result.stdout, re.MULTILINE):
        pytest.skip(f"all but {', '.join(left_out)}")


CURL = 'curl --cacert "$SSL_CERT_FILE" -H "Authorization: $TOKEN" https://localhost:8443'
PYTHON = ".venv/bin/python"


@posix_only
@pytest.mark.parametrize(
    ("block", "error"),
    [
        ("false\ntrue", "It failed"),
        (f"{CURL}/nowhere", "It failed"),
        (f"{PYTHON} -m emulator status --hots x", "It failed"),
        (f"{PYTHON} -m emulator --hots 127.0.0.2  {UNTIL_CTRL_C}", "It ended without"),
        (f"{PYTHON} -c 'print(1)'  {UNTIL_CTRL_C}", "It has ended"),
    ],
)
def test_a_block_that_does_not_work_is_an_error(tmp_path: Path, block: str, error: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        f"# A page\n\n```sh\necho one\n```\n\n```sh\n{block}\n```\n\n```sh\nsleep 1\n```\n"
    )
    result = run(page, tmp_path)
    assert result.returncode == 1
    assert f"AssertionError: {error}" in result.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_says_which_blocks_do_not_run(page: Path) -> None:
    others = [each for each in blocks(page) if each.language not in RUN_OR_SHOWN]
    text = page.read_text(encoding="utf-8")
    assert not others or NOT_RUN.search(text), [each.line for each in others]
