"""Build the wheel, install it alone in a new environment, and run a hub there."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = "Scripts" if sys.platform == "win32" else "bin"
SECONDS = 60

# What only the tests and the tutorial need; no dependency of the emulator may bring it along.
UNWANTED = ("azure", "uamqp", "msrest", "pytest", "hypothesis", "paho", "requests", "tests")

# Runs a hub inside the new environment: the query needs its grammar, HTTPS its certificates.
PROGRAM = f"""
import http.client, importlib.util, pathlib, ssl, sys
from emulator import Emulator, Settings
from emulator.hub.query import parse

parse("SELECT * FROM devices")
settings = Settings(host="127.0.0.1", mqtt_port=0, https_port=0, cert_dir=pathlib.Path(sys.argv[1]))
with Emulator(settings) as hub:
    context = ssl.create_default_context(cafile=hub.ca_file)
    service = http.client.HTTPSConnection(hub.https_host, timeout={SECONDS}, context=context)
    service.request("GET", "/devices?api-version=2021-04-12")
    assert service.getresponse().status == 401
    service.close()
found = [name for name in {UNWANTED} if importlib.util.find_spec(name)]
assert not found, f"installed with the wheel: {{found}}"
"""


def main() -> None:
    """Run the check; an AssertionError or a failed command ends it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
        subprocess.run([*pip, "wheel", "--no-deps", "-w", folder, ROOT], check=True)
        [wheel] = folder.glob("*.whl")
        check_content(wheel)

        venv.create(folder / "venv", with_pip=True)
        scripts = folder / "venv" / SCRIPTS
        subprocess.run([scripts / "python", *pip[1:], "install", wheel], check=True)
        # Elsewhere than in the checkout, whose packages would hide the installed one.
        subprocess.run(
            [scripts / "python", "-c", PROGRAM, folder / "data"],
            cwd=folder,
            check=True,
            timeout=SECONDS,
        )
        check_command(scripts / "iothub-emulator", folder)
    print(f"The wheel runs a hub: {wheel.name}")


def check_content(wheel: Path) -> None:
    """Check that the wheel has the package, with its data, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"emulator"}, tops
    data = {"py.typed", "hub/query/query.lark", "http/admin/openapi.json"}
    data |= {"http/web/files/index.html"}
    assert {f"emulator/{name}" for name in data} <= set(names)


def check_command(command: Path, folder: Path) -> None:
    """Check that the installed command starts a hub, stops it, and misses the tutorial's scripts.

    Args:
        command: the console script.
        folder: where it runs.
    """
    options = ("--host", "127.0.0.1", "--mqtt-port", "0", "--https-port", "0", "--data-dir", "data")
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [command, *options], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as hub:
        deadline = threading.Timer(SECONDS, hub.kill)
        deadline.start()
        try:
            assert hub.stdout is not None
            lines = iter(hub.stdout.readline, "")
            assert "The hub is ready. Ctrl-C stops it.\n" in lines  # reads no further
            hub.terminate()
            hub.stdout.read()
            status = hub.wait()
            assert status == 0 or sys.platform == "win32", status
        finally:
            deadline.cancel()
            hub.kill()
    tutorial = subprocess.run(
        [command, "tutorial"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    [error] = tutorial.stderr.splitlines()
    assert tutorial.returncode == 1, tutorial
    assert "dmpatterns_getstarted_device.py is missing" in error, error


if __name__ == "__main__":
    main()
