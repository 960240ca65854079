"""Packages of npm that tests use; the tests are skipped where Node is not installed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock
from platformdirs import user_cache_path


def install(manifest: Path) -> Path:
    """Install the packages of a package.json, once, into a folder of the user's cache.

    Returns:
        The folder with the packages.
    """
    npm = shutil.which("npm")
    if shutil.which("node") is None or npm is None:
        pytest.skip("Node is not installed")
    content = manifest.read_bytes()
    folder = user_cache_path("local-iot-hub-tests") / hashlib.sha256(content).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if not (folder / ".installed").exists():
            (folder / "package.json").write_bytes(content)
            command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
            result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            if result.returncode and "CI" not in os.environ:
                pytest.skip(f"npm can't install {manifest}: {result.stderr[-500:]}")
            assert result.returncode == 0, result.stderr
            (folder / ".installed").touch()
    return folder / "node_modules"
