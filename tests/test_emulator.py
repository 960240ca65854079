"""`Emulator` as a block: what it offers inside, and what it leaves behind."""

from __future__ import annotations

import asyncio
import base64
import gc
import re
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

import emulator as package
from emulator import Emulator, Settings
from emulator.errors import StartError
from emulator.hub.core.errors import ArgumentInvalid
from emulator.settings import WELL_KNOWN_PRIMARY_KEY, WELL_KNOWN_SECONDARY_KEY
from emulator.testing.addresses import free_loopback_address
from tests.devices import METHODS, connect_device
from tests.processes import END_SECONDS, Console, posix_only
from tests.support import Service, trust, wait_until

METHOD = {"methodName": "reboot", "responseTimeoutInSeconds": 60}

no_other_loopback = pytest.mark.skipif(
    sys.platform == "darwin", reason="macOS has one loopback address"
)
no_count_of_files = pytest.mark.skipif(
    not Path("/dev/fd").is_dir(), reason="this system has no folder of open files"
)


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")


@pytest.fixture(scope="module")
def cert_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all: certificates take a third of a second to make."""
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def settings(cert_dir: Path) -> Settings:
    ports = dict.fromkeys(("mqtt_port", "https_port", "amqps_port", "amqp_port", "uploads_port"), 0)
    return Settings(host="127.0.0.1", **ports, cert_dir=cert_dir)  # type: ignore[arg-type]


def devices_of(emulator: Emulator) -> list[str]:
    """List a running emulator's devices, over the network."""
    with Service(emulator) as service:
        return [device["deviceId"] for device in service.request("GET", "/devices").json()]


def listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.fixture
def open_files(settings: Settings) -> Callable[[], int]:
    """Counts this process's open files and sockets."""
    # The first event loop of a process opens what libuv keeps for all later ones.
    with Emulator(settings):
        pass
    return count_open_files


def count_open_files() -> int:
    gc.collect()
    return sum(1 for _ in Path("/dev/fd").iterdir())


# --- the ways to run it


async def test_code_in_the_callers_event_loop_can_block(settings: Settings) -> None:
    before = threading.enumerate()
    async with Emulator(settings) as emulator:
        assert devices_of(emulator) == ["myDeviceId"]
        context = trust(emulator)
        string = emulator.register_device("kitchen")
        connect_device(string, emulator.mqtt_port, context).close()
        ports = [emulator.mqtt_port, emulator.https_port]
    assert not any(listens("127.0.0.1", port) for port in ports)
    assert threading.enumerate() == before
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_its_start_and_end_do_not_block_the_callers_event_loop(settings: Settings) -> None:
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.005)
            now = time.monotonic()
            longest, last = max(longest, now - last), now

    ticking = asyncio.ensure_future(tick())
    began = time.monotonic()
    async with Emulator(replace(settings, names=("slow",))):  # it makes certificates
        pass
    took = time.monotonic() - began
    ticking.cancel()
    assert longest < took / 2


async def test_a_task_that_is_cancelled_during_the_start_leaves_no_hub(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, starting = set(threading.enumerate()), threading.Event()

    async def start(*_: object) -> None:
        starting.set()
        await asyncio.sleep(60)

    async def enter() -> None:
        async with Emulator(settings):
            pytest.fail("it started")

    monkeypatch.setattr("emulator.http.server.HttpServer.start", start)
    entering = asyncio.ensure_future(enter())
    assert await asyncio.to_thread(starting.wait, 30)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering

    def names() -> set[str]:
        return {each.name for each in set(threading.enumerate()) - before}

    wait_until(lambda: "emulator" not in names(), seconds=5)


async def test_it_can_run_in_the_callers_event_loop(settings: Settings) -> None:
    before = threading.enumerate()
    async with Emulator(settings).in_this_loop() as emulator:
        assert threading.enumerate() == before
        emulator.register_device("kitchen")
        assert await asyncio.to_thread(devices_of, emulator) == ["myDeviceId", "kitchen"]
        ports = [emulator.mqtt_port, emulator.https_port]
    assert not any(listens("127.0.0.1", port) for port in ports)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_it_runs_in_a_thread_of_its_own(settings: Settings) -> None:
    before = threading.enumerate()
    with Emulator(settings) as emulator:
        assert devices_of(emulator) == ["myDeviceId"]
        ports = [emulator.mqtt_port, emulator.https_port]
    assert not any(listens("127.0.0.1", port) for port in ports)
    assert threading.enumerate() == before


def test_an_error_in_the_block_stops_it_and_passes_on(settings: Settings) -> None:
    emulator = Emulator(settings)
    ports = []

    def fail() -> None:
        with emulator:
            ports.append(emulator.https_port)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not listens("127.0.0.1", *ports)


@no_other_loopback
def test_several_run_side_by_side_on_addresses_of_their_own(settings: Settings) -> None:
    with Emulator(settings) as one:
        ports = {"mqtt_port": one.mqtt_port, "https_port": one.https_port}
        with (
            Emulator(replace(settings, host="127.0.0.2", devices=("two",), **ports)) as two,
            Emulator(replace(settings, host="127.0.0.3", devices=("three",), **ports)) as three,
        ):
            found = [devices_of(each) for each in (one, two, three)]
            assert found == [["myDeviceId"], ["two"], ["three"]]
            # They share a folder, so its CA is that of all.
            string = two.device_connection_string("two")
            with connect_device(string, two.mqtt_port, trust(three)):
                assert len({one.mqtt_port, two.mqtt_port, three.mqtt_port}) == 1


@needs_ipv6
def test_localhost_is_both_families_on_one_port(settings: Settings) -> None:
    with Emulator(replace(settings, host="localhost")) as emulator:
        context = trust(emulator)
        for port in (emulator.mqtt_port, emulator.https_port):
            for address in ("127.0.0.1", "::1"):
                with (
                    socket.create_connection((address, port), timeout=5) as connection,
                    context.wrap_socket(connection, server_hostname="localhost") as tls,
                ):
                    assert tls.getpeercert()


@needs_ipv6
def test_an_ipv6_address_stands_in_brackets(settings: Settings) -> None:
    with Emulator(replace(settings, host="::1")) as emulator:
        assert emulator.https_host == f"[::1]:{emulator.https_port}"
        assert devices_of(emulator) == ["myDeviceId"]


def test_devices_are_registered_from_any_thread(settings: Settings) -> None:
    with Emulator(settings) as emulator, ThreadPoolExecutor(8) as threads:
        context = trust(emulator)
        names = [f"device-{n}" for n in range(40)]
        connection_strings = list(threads.map(emulator.register_device, names))
        assert sorted(devices_of(emulator)) == sorted(["myDeviceId", *names])
        connect_device(connection_strings[7], emulator.mqtt_port, context).close()


# --- a start that fails


def taken_port(stack: ExitStack) -> int:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    return int(listener.getsockname()[1])


def below_a_file(folder: Path) -> Path:
    file = folder / "file"
    file.touch()
    return file / "folder"


def no_file(folder: Path) -> dict[str, object]:
    """Settings whose file of the hub is something else."""
    (folder / "hub-127.0.0.1.sqlite").mkdir()
    return {"data_dir": folder}


OTHER_ADDRESS = r"Settings\((host='127.0.0.2'|(mqtt|https)_port=\.\.\.)\)"

# The wrong settings of each failure, and what the error must say.
FAILURES: dict[str, Callable[[ExitStack, Path], tuple[dict[str, object], str]]] = {
    "the devices' port is in use": lambda stack, _: (
        {"mqtt_port": (port := taken_port(stack))},
        f"Port {port} is in use on 127.0.0.1.*{OTHER_ADDRESS}",
    ),
    "the services' port is in use": lambda stack, _: (
        {"https_port": (port := taken_port(stack))},
        f"Port {port} is in use on 127.0.0.1.*{OTHER_ADDRESS}",
    ),
    "the address is another machine's": lambda *_: (
        {"host": "192.0.2.1"},
        r"192.0.2.1 is not an address of this machine.*Settings\(host=\.\.\.\)",
    ),
    "a device id is not valid": lambda *_: ({"devices": ("a/b",)}, "a/b"),
    "a device's key is not base64": lambda *_: (
        {"keys": {"myDeviceId": "k3y!" * 11}},
        "Invalid device key",
    ),
    "a policy's key is too short": lambda *_: (
        {"keys": {"iothubowner": "azN5"}},
        "Invalid device key length",
    ),
    "the folder of the certificates can't be made": lambda _, folder: (
        {"cert_dir": below_a_file(folder)},
        r"Settings\(cert_dir=\.\.\.\)",
    ),
    "the data folder can't be made": lambda _, folder: (
        {"data_dir": below_a_file(folder)},
        r"Can't keep the hub in .*Settings\(data_dir=\.\.\.\)",
    ),
    "the file of the hub is a folder": lambda _, folder: (
        no_file(folder),
        r"Can't keep the hub in .*Settings\(data_dir=\.\.\.\)",
    ),
}


@pytest.fixture(params=FAILURES.values(), ids=FAILURES.keys())
def failure(
    request: pytest.FixtureRequest, settings: Settings, tmp_path: Path
) -> Iterator[tuple[Settings, str]]:
    with ExitStack() as stack:
        wrong, named = request.param(stack, tmp_path)
        yield replace(settings, **wrong), named


@no_count_of_files
def test_a_failed_start_is_raised_in_the_callers_thread_and_leaves_nothing(
    failure: tuple[Settings, str], open_files: Callable[[], int]
) -> None:
    settings, named = failure
    files, threads = open_files(), threading.active_count()
    with pytest.raises(StartError, match=named) as error, Emulator(settings):
        pytest.fail("it started")
    assert "\n" not in str(error.value)
    assert "--" not in str(error.value)
    assert "k3y!" not in str(error.value)
    assert "azN5" not in str(error.value)
    del error
    # What an earlier test left behind can end meanwhile.
    wait_until(lambda: open_files() <= files and threading.active_count() <= threads, seconds=5)


async def test_a_failed_start_is_raised_in_the_callers_event_loop(
    failure: tuple[Settings, str],
) -> None:
    settings, named = failure
    with pytest.raises(StartError, match=named):
        async with Emulator(settings):
            pytest.fail("it started")
    with pytest.raises(StartError, match=named):
        async with Emulator(settings).in_this_loop():
            pytest.fail("it started")
    assert asyncio.all_tasks() == {asyncio.current_task()}


# --- the end


class Burden:
    """What an emulator has to end: a device, an open call, and callers that stay connected."""

    def __init__(self, emulator: Emulator, context: ssl.SSLContext) -> None:
        self._stack = ExitStack()
        service = self._stack.enter_context(Service(emulator))
        threads = self._stack.enter_context(ThreadPoolExecutor())
        string, port = emulator.device_connection_string("myDeviceId"), emulator.mqtt_port
        self.device = self._stack.enter_context(connect_device(string, port, context, METHODS))
        path = "/twins/myDeviceId/methods"
        self.call = threads.submit(service.request, "POST", path, json=METHOD)
        self.device.expect_method("reboot")

        # A connection that is kept open for another request.
        idle = self._stack.enter_context(Service(emulator))
        assert idle.request("GET", "/devices").status_code == 200
        # Some that never begin TLS, or never end their handshake.
        for port in (emulator.mqtt_port, emulator.https_port):
            for hello in (b"", b"\x16\x03"):
                plain = socket.create_connection((emulator.host_name, port), timeout=5)
                self._stack.enter_context(plain).sendall(hello)
        # One that the emulator has ended, and whose caller takes no notice.
        plain = socket.create_connection((emulator.host_name, emulator.https_port), timeout=5)
        deaf = self._stack.enter_context(
            context.wrap_socket(plain, server_hostname=emulator.host_name)
        )
        deaf.sendall(b"GET /nowhere HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n")
        assert deaf.recv(8).startswith(b"HTTP/1.1")

    def let_go(self) -> None:
        """Close all that is still open on this side."""
        self._stack.close()


@no_count_of_files
def test_it_stops_at_once_with_open_connections_and_leaves_nothing(
    settings: Settings, open_files: Callable[[], int]
) -> None:
    files, threads = open_files(), threading.active_count()
    with Emulator(settings) as emulator:
        burden = Burden(emulator, trust(emulator))
        began = time.monotonic()
    assert time.monotonic() - began < END_SECONDS
    answer = burden.call.result()
    assert (answer.status_code, answer.headers["iothub-errorcode"]) == (503, "ServiceUnavailable")
    burden.device.expect_closed()
    burden.let_go()
    del emulator, burden, answer
    assert open_files() <= files
    assert threading.active_count() <= threads


async def test_it_stops_at_once_in_the_callers_event_loop_too(settings: Settings) -> None:
    async with Emulator(settings).in_this_loop() as emulator:
        burden = await asyncio.to_thread(Burden, emulator, trust(emulator))
        began = time.monotonic()
    assert time.monotonic() - began < END_SECONDS
    answer = await asyncio.to_thread(burden.call.result)
    assert (answer.status_code, answer.headers["iothub-errorcode"]) == (503, "ServiceUnavailable")
    await asyncio.to_thread(burden.device.expect_closed)
    burden.let_go()
    # asyncio itself holds on to a connection that never began TLS, until its peer goes.
    deadline = time.monotonic() + 5
    while asyncio.all_tasks() != {asyncio.current_task()}:
        assert time.monotonic() < deadline, asyncio.all_tasks()
        await asyncio.sleep(0.02)


# --- Ctrl-C during the start

INTERRUPTED_PROGRAM = """
import sys, threading
from pathlib import Path
from emulator import Emulator, Settings

ports = dict.fromkeys(("mqtt_port", "https_port", "amqps_port", "amqp_port", "uploads_port"), 0)
settings = Settings(host="127.0.0.1", cert_dir=Path(sys.argv[1]), **ports)
before = threading.active_count()
try:
    with Emulator(settings):
        print("started")
except KeyboardInterrupt:
    print("interrupted", threading.active_count() - before)
"""

# What slows the start, and how many threads are left when the block ends.
SLOW_STARTS = {
    "waits": (
        """
import asyncio, emulator.http.server as server

async def start(*_):
    print("starting", flush=True)
    await asyncio.sleep(60)

server.HttpServer.start = start
""",
        0,
    ),
    "blocks its thread": (
        """
import time, emulator.net.certificates as certificates

def prepare(*_, **__):
    print("starting", flush=True)
    time.sleep(60)

certificates.prepare = prepare
""",
        1,  # it ends with its process
    ),
}


@posix_only
@pytest.mark.parametrize("slow", SLOW_STARTS)
def test_ctrl_c_ends_a_block_that_is_still_starting(cert_dir: Path, slow: str) -> None:
    slowed, left = SLOW_STARTS[slow]
    with Console("-c", slowed + INTERRUPTED_PROGRAM, cert_dir) as console:
        console.wait_for("starting")
        began = time.monotonic()
        assert console.press_ctrl_c() == 0
        assert time.monotonic() - began < 2 * END_SECONDS
    assert console.lines == ["starting", f"interrupted {left}"]
    assert console.errors == []


# --- what it offers

CHANGES: dict[str, tuple[object, ...]] = {
    "reset": (),
    "snapshot": ("file",),
    "restore": ("file",),
    "follow": (print,),
}
OFFERS = sorted(
    {name for name in vars(Emulator) if name[0] != "_"}
    - {"in_this_loop", "patch_environment", *CHANGES}
)
ARGUMENTS = {
    "policy_connection_string": "service",
    "device_connection_string": "myDeviceId",
    "environment": "myDeviceId",
    "register_device": "another",
}


def offer(emulator: Emulator, name: str) -> object:
    """Return the value of a property, or what a method returns."""
    found = getattr(emulator, name)
    return found(ARGUMENTS[name]) if name in ARGUMENTS else found


@pytest.fixture(scope="module")
def not_running(settings: Settings) -> tuple[Emulator, Emulator]:
    """An emulator before its start, and one after its end."""
    with Emulator(settings) as ended:
        pass
    return Emulator(settings), ended


@pytest.mark.parametrize("name", OFFERS)
def test_before_and_after_its_block_it_offers_nothing(
    not_running: tuple[Emulator, Emulator], name: str
) -> None:
    with ThreadPoolExecutor(1) as thread:
        for emulator in not_running:
            with pytest.raises(RuntimeError, match="The emulator is not running"):
                offer(emulator, name)
            with pytest.raises(RuntimeError, match="The emulator is not running"):
                thread.submit(offer, emulator, name).result()


@pytest.mark.parametrize("name", CHANGES)
def test_before_and_after_its_block_it_changes_nothing(
    not_running: tuple[Emulator, Emulator], name: str
) -> None:
    for emulator in not_running:
        with pytest.raises(RuntimeError, match="The emulator is not running"):
            getattr(emulator, name)(*CHANGES[name])


@pytest.mark.parametrize("name", OFFERS)
def test_inside_its_block_every_thread_has_what_it_offers(settings: Settings, name: str) -> None:
    with Emulator(replace(settings, http_port=0)) as emulator, ThreadPoolExecutor(1) as thread:
        assert thread.submit(offer, emulator, name).result()


async def test_a_start_that_fails_leaves_it_as_it_was(settings: Settings, tmp_path: Path) -> None:
    emulator = Emulator(replace(settings, cert_dir=below_a_file(tmp_path)))
    with pytest.raises(StartError):
        async with emulator:
            pytest.fail("it started")
    with pytest.raises(RuntimeError, match="The emulator is not running"):
        _ = emulator.mqtt_port


PROXIES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


@pytest.mark.parametrize("proxy", PROXIES)
def test_where_no_host_has_a_proxy_the_environment_says_nothing_of_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv(proxy, "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("no_proxy", raising=False)
    with Emulator(settings) as it:
        assert not {"NO_PROXY", "no_proxy"} & it.environment("myDeviceId").keys()


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ({}, "127.0.0.1"),
        ({"NO_PROXY": "example.com"}, "example.com,127.0.0.1"),
        ({"no_proxy": "a, b,", "NO_PROXY": "a"}, "a,b,127.0.0.1"),
        ({"no_proxy": "127.0.0.1"}, "127.0.0.1"),
    ],
)
def test_with_a_proxy_the_environment_keeps_it_away_from_the_hub(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    proxy: str,
    listed: dict[str, str],
    expected: str,
) -> None:
    for name in (*PROXIES, "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in listed.items():
        monkeypatch.setenv(name, value)
    with Emulator(settings) as it:
        assert not {"NO_PROXY", "no_proxy"} & it.environment("myDeviceId").keys()
        monkeypatch.setenv(proxy, "http://127.0.0.1:1")
        environment = it.environment("myDeviceId")
    hosts = [environment[name].split(",") for name in ("NO_PROXY", "no_proxy")]
    assert [sorted(each) for each in hosts] == [sorted(expected.split(","))] * 2


@pytest.mark.parametrize(
    ("taken", "port", "plain"),
    [
        ([], None, "UseDevelopmentEmulator=true;"),
        ([5672], None, ""),
        ([5672, 5671], "https_port", ""),
    ],
)
def test_a_client_of_event_hubs_uses_plain_amqp_if_the_hub_has_it(
    settings: Settings, taken: list[int], port: str | None, plain: str
) -> None:
    host = free_loopback_address()
    with ExitStack() as stack:
        for each in taken:
            stack.enter_context(socket.create_server((host, each)))
        of_amqp = {"amqps_port": None, "amqp_port": None}
        it = stack.enter_context(Emulator(replace(settings, host=host, **of_amqp)))
        where = f"{host}:{getattr(it, port)}" if port else host
        assert it.event_hubs_connection_string == (
            f"Endpoint=sb://{where};SharedAccessKeyName=service;"
            f"SharedAccessKey={WELL_KNOWN_PRIMARY_KEY};{plain}EntityPath=iothub-ehub-emulator"
        )


def test_a_port_that_a_user_chose_stands_in_the_string_for_event_hubs(settings: Settings) -> None:
    with Emulator(replace(settings, amqp_port=0)) as it:
        assert f"Endpoint=sb://127.0.0.1:{it.amqp_port};" in it.event_hubs_connection_string


def test_it_tells_how_to_reach_it(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for proxy in PROXIES:
        monkeypatch.delenv(proxy, raising=False)
    with Emulator(replace(settings, keys={"service": "c2VydmljZSBrZXkgc2VydmljZSBrZXk="})) as it:
        key = WELL_KNOWN_PRIMARY_KEY
        https = f"127.0.0.1:{it.https_port}"
        assert (it.https_host, it.mqtt_host) == (https, f"127.0.0.1:{it.mqtt_port}")
        device = f"HostName=127.0.0.1;DeviceId=myDeviceId;SharedAccessKey={key}"
        owner = f"HostName={https};SharedAccessKeyName=iothubowner;SharedAccessKey={key}"
        dps = f"HostName={https};SharedAccessKeyName=provisioningserviceowner;SharedAccessKey={key}"
        assert it.environment("myDeviceId") == {
            "SSL_CERT_FILE": str(it.ca_bundle),
            "REQUESTS_CA_BUNDLE": str(it.ca_bundle),
            "NODE_EXTRA_CA_CERTS": str(it.ca_bundle),
            "IOTHUB_DEVICE_CONNECTION_STRING": device,
            "IOTHUB_CONNECTION_STRING": owner,
            "EVENTHUB_CONNECTION_STRING": it.event_hubs_connection_string,
            "IOTHUB_DEVICE_ID": "myDeviceId",
            "PROVISIONING_HOST": "127.0.0.1",
            "PROVISIONING_IDSCOPE": "0ne00010CA1",
            "PROVISIONING_CONNECTION_STRING": dps,
        }
        assert (it.dps_id_scope, it.dps_connection_string) == ("0ne00010CA1", dps)
        assert it.policy_connection_string("service").endswith(
            ";SharedAccessKeyName=service;SharedAccessKey=c2VydmljZSBrZXkgc2VydmljZSBrZXk="
        )
        with pytest.raises(ArgumentInvalid, match=r"Unknown policy: 'owner'\. Use iothubowner, "):
            it.policy_connection_string("owner")


@pytest.mark.parametrize(
    ("names", "host"),
    [
        (("localhost",), "localhost"),
        (("LocalHost", "127.0.0.5"), "LocalHost"),
        (("hub.example", "localhost"), "hub.example"),
        (("[::1]",), "[::1]"),
        (("iot_hub",), "iot_hub"),
    ],
)
def test_the_names_are_in_the_certificate_and_the_first_one_in_the_strings(
    settings: Settings, tmp_path: Path, names: tuple[str, ...], host: str
) -> None:
    with Emulator(replace(settings, names=names, cert_dir=tmp_path)) as emulator:
        assert emulator.https_host == f"{host}:{emulator.https_port}"
        assert emulator.device_connection_string("myDeviceId").startswith(
            f"HostName={host.strip('[]')};"
        )
        assert emulator.service_connection_string.startswith(f"HostName={emulator.https_host};")
        context = ssl.create_default_context(cafile=emulator.ca_file)
        for port in (emulator.mqtt_port, emulator.https_port):
            for name in (*names, "localhost", "127.0.0.1"):
                with (
                    socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
                    context.wrap_socket(plain, server_hostname=name.strip("[]")),
                ):
                    pass


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_hub_on_every_address_has_the_name_that_it_is_given(host: str) -> None:
    assert Settings(host=host).host_name == socket.gethostname()
    assert Settings(host=host, names=("hub",)).host_name == "hub"
    # A name does not make the keys public, or the hub local.
    assert not Settings(host=host, names=("localhost",)).on_loopback


@pytest.mark.parametrize("name", ["", "a b", "hub:8443", "https://hub", "127.0.0.256", "*"])
def test_an_invalid_name_is_one_line_at_the_start(settings: Settings, name: str) -> None:
    said = f"Invalid host {name!r}: use a host name or an IP address."
    with (
        pytest.raises(StartError, match=re.escape(said)),
        Emulator(replace(settings, names=(name,))),
    ):
        pass


@pytest.mark.parametrize("port", ["mqtt_port", "https_port"])
def test_a_start_that_fails_makes_no_new_ca(settings: Settings, tmp_path: Path, port: str) -> None:
    settings = replace(settings, cert_dir=tmp_path)
    with Emulator(settings) as running:
        ca = running.ca_file.read_bytes()
        second = replace(settings, names=("hub",), **{port: getattr(running, port)})
        with pytest.raises(StartError, match="is in use"), Emulator(second):
            pass
        assert running.ca_file.read_bytes() == ca
    with Emulator(replace(settings, names=("hub",))) as running:
        assert running.ca_file.read_bytes() != ca


@pytest.mark.parametrize("port", ["mqtt_port", "https_port"])
@pytest.mark.parametrize(
    "cipher",
    [
        *("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384"),
        *("ECDHE-RSA-AES128-SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"),
    ],
)
def test_each_port_speaks_tls_with_rsa_and_with_elliptic_curves(
    settings: Settings, port: str, cipher: str
) -> None:
    with Emulator(settings) as emulator:
        context = trust(emulator)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(cipher)
        with (
            socket.create_connection(("127.0.0.1", getattr(emulator, port)), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
        ):
            assert tls.cipher()[0] == cipher  # type: ignore[index]


@pytest.mark.parametrize(
    ("host", "on_loopback"),
    [
        *((host, True) for host in ("localhost", "127.0.0.1", "127.8.9.10", "::1")),
        *((host, False) for host in ("0.0.0.0", "::", "192.168.1.7", "::ffff:192.168.1.7")),
        *((host, False) for host in ("hub.example.com", "localhost.example.com")),
    ],
)
def test_well_known_keys_are_for_loopback_alone(host: str, on_loopback: bool) -> None:
    settings = Settings(host=host)
    assert settings.on_loopback is on_loopback
    well_known = (WELL_KNOWN_PRIMARY_KEY, WELL_KNOWN_SECONDARY_KEY)
    assert (settings.key_pair("iothubowner") == well_known) is on_loopback
    assert (settings.key_pair("myDeviceId") == well_known) is on_loopback


def test_keys_off_loopback_are_random_each_time_unless_they_are_given() -> None:
    settings = Settings(host="0.0.0.0", keys={"myDeviceId": "Z2l2ZW4="})
    keys = [key for _ in range(20) for key in settings.key_pair("iothubowner")]
    assert len(set(keys)) == 40
    assert {len(base64.b64decode(key)) for key in keys} == {32}
    assert settings.key_pair("myDeviceId") == ("Z2l2ZW4=", "Z2l2ZW4=")
    assert "Z2l2ZW4=" not in repr(settings)


def test_the_package_has_its_names_and_no_others() -> None:
    assert {getattr(package, name).__name__ for name in package.__all__} == set(package.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        package.nothing  # noqa: B018
