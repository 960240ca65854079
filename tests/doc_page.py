"""Runs the `sh` blocks of a page of the documentation as they are printed, in their order.

It is a program, `python -m tests.doc_page PAGE FOLDER`, which has localhost and its ports for
itself: see `tests/test_doc_blocks.py`. A reader of the page has, and so has this program:

- a folder with the files of the repository and `.venv`, and an empty home;
- a hub, started as README says, with its variables and the token of docs/connecting.md;
- one shell for all blocks. A block that fails ends the page. A status of 400 or more in curl is a
  failure too: the home has a `.curlrc`;
- for each block with the comment `# runs until Ctrl-C` a window of its own, which must still run
  at the end of the page. If the block starts a hub, the windows before it are closed, and the shell
  has the variables of the new hub;
- `hub.toml`, as a `toml` block shows it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tests.processes import ROOT, Console, clean_environment

UNTIL_CTRL_C = "# runs until Ctrl-C"
HUB = ".venv/bin/python -m emulator"
READY = "The hub is ready. Ctrl-C stops it."

# What the machine of a reader can have; a block that uses another one is left out.
TOOLS = ("curl", "openssl", "mosquitto_pub", "mosquitto_sub", "node")

# How long a block may take, and a window until it is ready.
SECONDS = 30.0


class Block(NamedTuple):
    """A block of a page: its language, its text, and the number of its first line."""

    language: str
    text: str
    line: int

    @property
    def runs_on(self) -> bool:
        return UNTIL_CTRL_C in self.text

    @property
    def starts_a_hub(self) -> bool:
        """Whether it is a command without a name, in a window of its own."""
        return (
            self.runs_on and re.search(rf"^{re.escape(HUB)}( +[-#]|$)", self.text, re.M) is not None
        )

    @property
    def missing(self) -> list[str]:
        """The tools that it needs and this machine does not have."""
        used = [each for each in TOOLS if re.search(rf"(^|\W){each} ", self.text)]
        return [each for each in used if shutil.which(each) is None]


def blocks(page: Path) -> list[Block]:
    """Find the blocks of a page."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(each[1], each[2], text[: each.start()].count("\n") + 2) for each in found]


def run(page: Path, folder: Path, modules: Path | None) -> None:
    """Run the blocks of a page in an empty folder; `modules` has the packages for Node."""
    home, work = folder / "home", folder / "work"
    _furnish(home, work, page)
    if modules is not None:
        (work / "node_modules").symlink_to(modules)
    environment = clean_environment(HOME=str(home), PATH=os.environ["PATH"], NODE_NO_WARNINGS="1")
    for name in [*environment]:
        if name.startswith(("XDG_", "PYTHON")):
            del environment[name]
    with ExitStack() as stack:
        shell = stack.enter_context(_Shell(work, environment))
        windows = _Windows(stack, work, environment, shell)
        windows.open(f"{HUB}  {UNTIL_CTRL_C}\n", hub=True)
        (token,) = (
            each for each in blocks(ROOT / "docs" / "connecting.md") if "TOKEN=" in each.text
        )
        shell.run(token.text)
        for block in blocks(page):
            if block.language != "sh":
                continue
            if block.missing:
                print(f"left out: {page.name}:{block.line}: {', '.join(block.missing)} is missing")
                continue
            print(f"{page.name}:{block.line}", flush=True)
            if block.runs_on:
                windows.open(block.text, hub=block.starts_a_hub)
            else:
                shell.run(block.text)
        windows.close()


def _furnish(home: Path, work: Path, page: Path) -> None:
    home.mkdir()
    work.mkdir()
    (home / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\nmax-time = 30\n")
    # No files of a reader who ran the blocks in this folder: some blocks replace no file.
    for each in (ROOT / "emulator", ROOT / "tests", *ROOT.glob("dmpatterns_*.py")):
        (work / each.name).symlink_to(each)
    # A copy: Node looks for packages where a file is, not where a link to it is.
    own = shutil.ignore_patterns(".*", "__pycache__")
    shutil.copytree(ROOT / "examples", work / "examples", ignore=own)
    (work / ".venv").symlink_to(sys.prefix)
    for block in blocks(page):
        if block.language == "toml":
            (work / "hub.toml").write_text(block.text, encoding="utf-8")


class _Shell:
    """A shell that runs one block after another: a `with` block."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._output = folder.parent / "output"
        self._numbers = iter(range(1000))
        with self._output.open("w") as output:
            self._process = subprocess.Popen(
                ["sh", "-e"],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                text=True,
                start_new_session=True,
            )

    def __enter__(self) -> _Shell:
        return self

    def __exit__(self, *_: object) -> None:
        _end_group(self._process.pid)
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()

    def run(self, text: str) -> None:
        """Run a block to its end."""
        number = next(self._numbers)
        file, done = (self._folder.parent / f"{number}.{kind}" for kind in ("sh", "done"))
        file.write_text(text, encoding="utf-8")
        assert self._process.stdin is not None
        self._process.stdin.write(
            f". {file} < /dev/null\nenv -0 > {done}.new; mv {done}.new {done}\n"
        )
        self._process.stdin.flush()
        deadline = time.monotonic() + SECONDS
        while not done.exists():
            failed, late = self._process.poll() is not None, time.monotonic() > deadline
            if failed or late:
                why = "failed" if failed else f"took {SECONDS} s"
                raise AssertionError(f"It {why}:\n{text}\n--- output\n{self._output.read_text()}")
            time.sleep(0.005)
        pairs = done.read_text().split("\0")
        self.variables = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        """What was exported."""


class _Windows:
    """The windows of the programs that run until Ctrl-C, which have the variables of the shell."""

    def __init__(
        self, stack: ExitStack, folder: Path, environment: dict[str, str], shell: _Shell
    ) -> None:
        self._stack = stack
        self._folder = folder
        self._environment = environment
        self._shell = shell
        self._open: list[tuple[Console, bool]] = []

    def open(self, text: str, *, hub: bool) -> None:
        """Start a program, and wait until it is ready: a hub says so, others say anything."""
        if hub:
            self.close()
        environment = {**self._environment, "PYTHONUNBUFFERED": "1"}
        if not hub:
            environment |= self._shell.variables
        # The shell itself outlives Ctrl-C, so that its status is that of the program.
        window = Console(
            *("-e", "-c", f"trap : INT\n{text}"),
            environment=environment,
            folder=self._folder,
            program="sh",
        )
        self._stack.enter_context(window)
        self._stack.callback(_end_group, window.pid)
        self._open.append((window, hub))
        window.wait_for(re.escape(READY) if hub else ".*", timeout=SECONDS)
        if hub:
            source = next(line for line in window.lines if line.startswith("  . "))
            self._shell.run(source.strip())

    def close(self) -> None:
        """Press Ctrl-C in each window."""
        while self._open:
            window, hub = self._open.pop()
            assert window.running, f"It has ended:\n{window.output}"
            status = window.press_ctrl_c()
            assert status == 0 if hub else status in (0, 130), f"{status}:\n{window.output}"


def _end_group(pid: int) -> None:
    """End a window with all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _bring_loopback_up() -> None:
    """Turn on the loopback interface of a new network namespace (netdevice(7))."""
    import fcntl
    import socket
    import struct

    with socket.socket() as any_socket:
        # SIOCSIFFLAGS; IFF_UP and IFF_RUNNING.
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 0x41))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("page", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--modules", type=Path)
    parser.add_argument("--alone", action="store_true", help="the network is a new namespace")
    options = parser.parse_args()
    if options.alone:
        _bring_loopback_up()
    run(options.page, options.folder, options.modules)
