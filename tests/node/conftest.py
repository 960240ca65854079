"""Node programs with the unmodified SDKs of npm, which tests call.

The tests are skipped where Node is not installed. The packages of package.json are installed once,
into a folder of the user's cache.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from platformdirs import user_cache_path

from emulator import Emulator
from tests.node.process import FOLDER, Node


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The folder with the packages of package.json."""
    npm = shutil.which("npm")
    if shutil.which("node") is None or npm is None:
        pytest.skip("Node is not installed")
    manifest = (FOLDER / "package.json").read_bytes()
    folder = user_cache_path("local-iot-hub-tests") / hashlib.sha256(manifest).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if not (folder / ".installed").exists():
            (folder / "package.json").write_bytes(manifest)
            command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
            result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            if result.returncode and "CI" not in os.environ:
                pytest.skip(f"npm can't install the SDKs: {result.stderr[-500:]}")
            assert result.returncode == 0, result.stderr
            (folder / ".installed").touch()
    return folder / "node_modules"


@pytest.fixture(scope="session")
def node(node_modules: Path, emulator: Emulator) -> Iterator[Node]:
    """A process of Node that trusts the emulator."""
    process = Node(node_modules, emulator.ca_file)
    yield process
    uncaught = process.has("driver", "uncaught")
    process.close()
    assert not uncaught, process.wait("driver", "uncaught")
