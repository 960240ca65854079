"""Programs that run while something is measured, and end with it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import psutil

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]

ROOT = Path(__file__).resolve().parent.parent

# Those that may be used at all; none where that can't be asked.
_CORES: list[int] = getattr(psutil.Process(), "cpu_affinity", list)()

# How long a program may take to say that it is ready, and to end.
_START_SECONDS = 60.0
_END_SECONDS = 5.0

# Of the files that a process may open, how many are no connections.
_OTHER_FILES = 100


# Servers have one core, and who measures has another. Left to the system, a server shares the core
# of its client at times, or not, and its round trips take two or three times as long or as short.
CLIENTS_CORE, SERVERS_CORE = 0, -1


class ProgramError(Exception):
    """A program didn't do what it was started for; the text is what it said."""


class Program:
    """A program as a `with` block, at the end of which neither it nor what it started runs.

    Ctrl-C doesn't reach it: whoever started it ends it.

    Args:
        log: the file of what it says on stderr.
        text: what it reads on stdin.
        core: which one it runs on, and what it starts.
    """

    def __init__(
        self,
        arguments: Sequence[str | Path],
        log: Path,
        text: str = "",
        *,
        core: int = SERVERS_CORE,
    ) -> None:
        self._log = log
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [str(each) for each in arguments],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
                env=_environment(),
                start_new_session=True,
            )
        try:
            _stay_on(core, self.pid)
            if self.process.stdin is not None:
                with contextlib.suppress(BrokenPipeError), self.process.stdin as stdin:
                    stdin.write(text)
        except BaseException:
            self.__exit__(None, None, None)
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def errors(self) -> str:
        """What it said on stderr, its last lines."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return "\n".join(lines[-20:])

    def line(self, beginning: str) -> str:
        """Wait for a line of its stdout that begins so; gives the rest of it.

        Raises:
            ProgramError: it ended before that, or took too long.
        """
        timer = threading.Timer(_START_SECONDS, self.process.kill)
        timer.daemon = True  # an interrupted start leaves it behind: nothing must wait for it
        try:
            timer.start()
            for line in self.process.stdout or ():
                if line.startswith(beginning):
                    return line.removeprefix(beginning).strip()
        finally:
            timer.cancel()
        raise ProgramError(self.errors or f"It ended without a word before {beginning!r}.")

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        left: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            left = psutil.Process(self.pid).children(recursive=True)
        self.process.terminate()
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_END_SECONDS)
        finally:  # also for who can't wait, and presses Ctrl-C again
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        _kill(left)  # usually none is left: it ended them


def _environment() -> dict[str, str]:
    """Let Python keep its bytecode, as it does unless it is told not to."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _stay_on(core: int, pid: int) -> None:
    """Have a process run on one core alone.

    Where there is but one core, or the system (macOS) doesn't let itself be told, nothing happens.
    """
    if len(_CORES) > 1:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).cpu_affinity([_CORES[core]])


def kill_children() -> None:
    """End what this process has started and left, if Ctrl-C came before its `with` block."""
    _kill(psutil.Process().children(recursive=True))


def _kill(processes: Sequence[psutil.Process]) -> None:
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()


def python(*arguments: str | Path) -> list[str | Path]:
    """Write the command that runs Python with these arguments."""
    return [sys.executable, *arguments]


def allow_files(connections: int) -> int:
    """Raise this process's limit on open files, as far as it goes; programs inherit it.

    Returns:
        for how many connections there is room, of those that are wanted.
    """
    if resource is None:
        return connections
    wanted = connections + _OTHER_FILES
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed < wanted:
        allowed = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
    return min(connections, allowed - _OTHER_FILES)
