"""The words and options of the commands, beside those of the real extension; and what is wrong."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from emulator.cli.az import options as o
from emulator.cli.az.command import Command
from emulator.cli.az.families import commands_of
from emulator.cli.az.main import parser_of
from emulator.cli.commands import AZ_COMMANDS
from tests.cli.az.conftest import Run

COMMANDS = {each.words: each for word in AZ_COMMANDS for each in commands_of(word)}
COMMON = {flag for each in o.COMMON for flag in each.flags}

# Of all that create or update an enrollment.
SHARED = (
    "--certificate-path --cp | --secondary-certificate-path --scp | --primary-key --pk | "
    "--secondary-key --sk | --initial-twin-tags --tags | --initial-twin-properties --props | "
    "--provisioning-status --ps | --reprovision-policy --rp | --allocation-policy --ap | "
    "--iot-hubs --ih | --webhook-url --wh | --api-version --av | --edge-enabled --ee | "
    "--iot-hub-host-name --hn"
)
# Of an individual enrollment.
SINGLE = f"--endorsement-key --ek | --device-id -d | --device-information --info | {SHARED}"
GROUP_ID = "--enrollment-id --eid --group-id --gid"
CA_NAMES = "--root-ca-name --ca-name --cn | --secondary-root-ca-name --secondary-ca-name --scn"
REMOVES = "--remove-certificate --rc | --remove-secondary-certificate --rsc"

# The options of each command in azure-iot-cli-extension 0.25.0: _params.py, iothub/params.py and
# the signatures of the functions in commands.py and iothub/command_map.py, commit a42f57ae. Those
# of every command are left out: --hub-name, --login, --resource-group, --auth-type.
REAL = {
    "c2d-message abandon": "--device-id -d | --etag -e",
    "c2d-message complete": "--device-id -d | --etag -e",
    "c2d-message purge": "--device-id -d",
    "c2d-message receive": "--device-id -d | --lock-timeout --lt | --abandon | --complete | "
    "--reject",
    "c2d-message reject": "--device-id -d | --etag -e",
    "c2d-message send": "--device-id -d | --data --da | --data-file-path --dfp | "
    "--message-id --mid | --correlation-id --cid | --user-id --uid | --content-encoding --ce | "
    "--content-type --ct | --expiry-time-utc --expiry | --properties --props -p | --ack | "
    "--wait -w | --yes -y | --repair -r",
    "simulate": "--device-id -d | --receive-settle --rs | --data --da | --msg-count --mc | "
    "--msg-interval --mi | --protocol --proto | --properties --props -p | --symmetric-key --key | "
    "--certificate-file-path --cp | --key-file-path --kp | --passphrase --pass | "
    "--method-response-code --mrc | --method-response-payload --mrp | "
    "--init-reported-properties --irp | --model-id --dtmi",
    "configuration create": "--config-id -c | --content -k | --custom-labels --cl | "
    "--custom-metric-queries --cmq | --target-condition --tc -t | --priority --pri | "
    "--labels --lab | --metrics -m",
    "configuration delete": "--config-id -c | --etag -e",
    "configuration list": "--top",
    "configuration show": "--config-id -c",
    "configuration show-metric": "--config-id -c | --metric-id -m | --metric-type --mt",
    "configuration update": "--config-id -c | --etag -e | --set | --remove | --add",
    "device-identity connection-string show": "--device-id -d | --key-type --kt",
    "device-identity create": "--device-id -d | --edge-enabled --ee | --auth-method --am | "
    "--primary-key --pk | --secondary-key --sk | --primary-thumbprint --ptp | "
    "--secondary-thumbprint --stp | --status --sta | --status-reason --star | --valid-days --vd | "
    "--output-dir --od | --device-scope",
    "device-identity delete": "--device-id -d | --etag -e",
    "device-identity export": "--blob-container-uri --bcu | --blob-container --bc | "
    "--storage-account --sa | --include-keys --ik | --storage-authentication-type --sat | "
    "--identity",
    "device-identity import": "--input-blob-container-uri --ibcu | --input-blob-container --ibc | "
    "--input-storage-account --isa | --output-blob-container-uri --obcu | "
    "--output-blob-container --obc | --output-storage-account --osa | "
    "--storage-authentication-type --sat | --identity",
    "device-identity list": "--top | --edge-enabled --ee",
    "device-identity renew-key": "--device-id -d | --key-type --kt | --include-modules --im | "
    "--no-progress | --etag -e",
    "device-identity show": "--device-id -d",
    "device-identity update": "--device-id -d | --etag -e | --edge-enabled --ee | --status --sta | "
    "--status-reason --star | --auth-method --am | --primary-thumbprint --ptp | "
    "--secondary-thumbprint --stp | --primary-key --pk | --secondary-key --sk | "
    "--set | --remove | --add",
    "device-twin list": "--top | --edge-enabled --ee",
    "device-twin replace": "--device-id -d | --json -j | --etag -e",
    "device-twin show": "--device-id -d",
    "device-twin update": "--device-id -d | --etag -e | --desired | --tags | --set | --remove | "
    "--add",
    "digital-twin invoke-command": "--device-id -d | --command-name --cn | --component-path | "
    "--payload | --connect-timeout --cto | --response-timeout --rto",
    "digital-twin show": "--device-id -d",
    "digital-twin update": "--device-id -d | --json-patch --patch | --etag -e",
    "generate-sas-token": "--device-id -d | --policy-name --pn | --key-type --kt | --duration --du "
    "| --module-id -m | --connection-string --cs",
    "invoke-device-method": "--device-id -d | --method-name --mn | --method-payload --mp | "
    "--timeout --to",
    "invoke-module-method": "--device-id -d | --module-id -m | --method-name --mn | "
    "--method-payload --mp | --timeout --to",
    "job cancel": "--job-id",
    "job create": "--job-id | --job-type --jt | --start-time --start | --query-condition -q | "
    "--twin-patch --patch | --method-name --mn | --method-payload --mp | "
    "--method-connect-timeout --mct | --method-response-timeout --mrt | --ttl | --wait -w | "
    "--poll-interval --interval | --poll-duration --duration",
    "job list": "--job-type --jt | --job-status --js | --top",
    "job show": "--job-id",
    "module-identity connection-string show": "--device-id -d | --module-id -m | --key-type --kt",
    "module-identity create": "--device-id -d | --module-id -m | --auth-method --am | "
    "--primary-key --pk | --secondary-key --sk | --primary-thumbprint --ptp | "
    "--secondary-thumbprint --stp | --valid-days --vd | --output-dir --od",
    "module-identity delete": "--device-id -d | --module-id -m | --etag -e",
    "module-identity list": "--device-id -d | --top",
    "module-identity renew-key": "--device-id -d | --module-id -m | --key-type --kt | "
    "--no-progress | --etag -e",
    "module-identity show": "--device-id -d | --module-id -m",
    "module-identity update": "--device-id -d | --module-id -m | --etag -e | --set | --remove | "
    "--add",
    "module-twin replace": "--device-id -d | --module-id -m | --json -j | --etag -e",
    "module-twin show": "--device-id -d | --module-id -m",
    "module-twin update": "--device-id -d | --module-id -m | --etag -e | --desired | --tags | "
    "--set | --remove | --add",
    "monitor-events": "--device-id -d | --interface -i | --module-id -m | "
    "--consumer-group --cg -c | --timeout --to -t | --enqueued-time --et -e | --yes -y | "
    "--properties --props -p | --repair -r | --content-type --ct | "
    "--device-query -q | --message-count --mc",
    "monitor-feedback": "--device-id -d | --yes -y | --wait-on-msg -w | --repair -r",
    "query": "--query-command -q | --top",
    # azure-cli 2.66, not the extension: command_modules/iot/_params.py and custom.py.
    "certificate create": "--name -n | --path -p | --verified -v",
    "certificate delete": "--name -n | --etag -e",
    "certificate generate-verification-code": "--name -n | --etag -e",
    "certificate list": "--hub-name",
    "certificate show": "--name -n",
    "certificate update": "--name -n | --path -p | --verified -v | --etag -e",
    "certificate verify": "--name -n | --path -p | --etag -e",
    # The extension: operations/dps.py and dps/commands_device_registration.py. --dps-name is that
    # of every command.
    "enrollment create": f"--enrollment-id --eid | --attestation-type --at | {SINGLE}",
    "enrollment delete": "--enrollment-id --eid | --etag -e",
    "enrollment list": "--top",
    "enrollment registration delete": "--enrollment-id --eid | --etag -e",
    "enrollment registration show": "--enrollment-id --eid",
    "enrollment show": "--enrollment-id --eid | --show-keys --keys",
    "enrollment update": f"--enrollment-id --eid | --etag -e | {REMOVES} | {SINGLE}",
    "enrollment-group compute-device-key": f"{GROUP_ID} | --registration-id --rid | "
    "--symmetric-key --key",
    "enrollment-group create": f"{GROUP_ID} | {CA_NAMES} | {SHARED}",
    "enrollment-group delete": f"{GROUP_ID} | --etag -e",
    "enrollment-group list": "--top",
    "enrollment-group registration delete": "--registration-id --rid | --etag -e",
    "enrollment-group registration list": f"{GROUP_ID} | --top",
    "enrollment-group registration show": "--registration-id --rid",
    "enrollment-group show": f"{GROUP_ID} | --show-keys --keys",
    "enrollment-group update": f"{GROUP_ID} | --etag -e | {REMOVES} | {CA_NAMES} | {SHARED}",
    "registration create": "--registration-id --rid | --enrollment-group-id --group-id --gid | "
    "--symmetric-key --key | --compute-key --ck | --certificate-file-path --cp | "
    "--key-file-path --kp | --passphrase --pass | --payload | --id-scope --scope",
}
# What is missing here: these ask Azure for a storage account; are deprecated; are for HTTP only;
# are for lists, of which the documents here have one; or name the hub.
MISSING = {
    *("--blob-container", "--storage-account", "--input-blob-container", "--input-storage-account"),
    *("--output-blob-container", "--output-storage-account", "--storage-authentication-type"),
    *("--receive-settle", "--add", "--hub-name", "--iot-hub-host-name"),
}
# What is here alone.
ADDED = {
    "simulate": {"--count"},
    "module-identity update": {
        *("--auth-method", "--primary-key", "--secondary-key"),
        *("--primary-thumbprint", "--secondary-thumbprint"),
    },
}


def flags_of(command: Command) -> list[set[str]]:
    return [set(each.flags) for each in (*command.options, *o.COMMON)]


def test_the_commands_are_those_of_az() -> None:
    assert set(COMMANDS) == set(REAL)


@pytest.mark.parametrize("words", REAL)
def test_the_options_are_those_of_az(words: str) -> None:
    real = [set(each.split()) for each in REAL[words].split(" | ")]
    here = flags_of(COMMANDS[words])
    assert [each for each in real if not each & MISSING and each not in here] == []
    known = set().union(*real) | COMMON | ADDED.get(words, set())
    assert [each for each in here if not each & known] == []


def widest(text: str) -> int:
    """Return the width of a text where the program has its short name: its path can be long."""
    short = re.sub(r"\S*python[\d.]* -m emulator", "iothub-emulator", text)
    return max(map(len, short.splitlines()))


OWN = {each.words: each for word in ("clock", "fault") for each in commands_of(word)}


@pytest.mark.parametrize("words", [*COMMANDS, *OWN])
def test_each_help_has_an_example_that_parses(words: str) -> None:
    parser = parser_of({**COMMANDS, **OWN}[words])
    text = parser.format_help()
    assert widest(text) < 80
    found = re.search(r"example:\n  (.*)", text, re.DOTALL)
    assert found
    arguments = shlex.split(found[1].replace("\\\n", ""))
    rest = arguments[arguments.index(words.split()[0]) + len(words.split()) :]
    # Files of the example do not exist.
    rest = ["{}" if each.endswith(".json") else each for each in rest]
    rest = [str(Path(__file__)) if each.endswith(".pem") else each for each in rest]
    parser.parse_args(rest)


@pytest.mark.parametrize("word", [*AZ_COMMANDS, "clock", "fault"])
def test_each_family_has_help(word: str, run_command: Run) -> None:
    result = run_command(word, "--help")
    assert (result.status, result.errors) == (0, [])
    assert widest(result.output) < 80
    assert "example:\n" in result.output


# What is wrong in the use of a command, and the line that says so.
ID = ("-d", "x")
WRONG_USE: dict[str, tuple[tuple[str, ...], str]] = {
    "half a command": (
        ("device-twin",),
        r"The command device-twin is incomplete\. Use show, update, replace, list\. "
        r"--help shows the commands\.",
    ),
    "a misspelt word": (
        ("device-twin", "shwo"),
        r"Unknown command 'device-twin shwo'\. Use show\. --help shows the commands\.",
    ),
    "no device": (("device-twin", "show"), r"--device-id/-d is missing\. .*"),
    "an unknown option": (
        ("device-twin", "show", *ID, "--device"),
        r"argument --device-id/-d: expected one argument\. .*|--device-id/-d needs a value\. .*",
    ),
    "another unknown option": (
        ("device-twin", "show", *ID, "--tag", "x"),
        r"Unknown option --tag\.( Use .*)? --help .*",
    ),
    "no JSON": (
        ("device-twin", "update", *ID, "--tags", "{a:1}"),
        r"argument --tags: Neither JSON nor a file: '\{a:1\}'\. In a shell, quote it: .*",
    ),
    "JSON that is not an object": (
        ("device-twin", "update", *ID, "--tags", "[1]"),
        r"argument --tags: Not a JSON object: '\[1\]'\. .*",
    ),
    "a number that JSON does not have": (
        ("invoke-device-method", *ID, "--mn", "m", "--mp", "NaN"),
        r"argument --method-payload/--mp: Neither JSON nor a file: 'NaN'\. .*",
    ),
    "nothing to change": (
        ("device-twin", "update", *ID),
        r"Nothing to change\. Use --desired, --tags, --set or --remove\. .*",
    ),
    "a pair without a value": (
        ("device-twin", "update", *ID, "--set", "tags.a"),
        r"argument --set: Not a pair: 'tags\.a'\. Use name=value\. .*",
    ),
    "a path without names": (
        ("device-twin", "update", *ID, "--set", "tags..a=1"),
        r"Invalid path 'tags\.\.a'\. Use names with dots, such as tags\.floor\. .*",
    ),
    "a choice": (
        ("device-identity", "create", *ID, "--sta", "off"),
        r"argument --status/--sta: invalid choice: 'off' \(choose from .*",
    ),
    "neither true nor false": (
        ("device-identity", "create", *ID, "--ee", "maybe"),
        r"argument --edge-enabled/--ee: Invalid value 'maybe': use true or false\. .*",
    ),
    "one key of two": (
        ("device-identity", "create", *ID, "--pk", "YWJj"),
        r"--primary-key and --secondary-key belong together\. .*",
    ),
    "a thumbprint without its method": (
        ("device-identity", "create", *ID, "--ptp", "AB"),
        r"--primary-thumbprint and --secondary-thumbprint do not fit\. They need "
        r"--auth-method x509_thumbprint\. .*",
    ),
    "a method without its thumbprint": (
        ("device-identity", "create", *ID, "--am", "x509_thumbprint"),
        r"--primary-thumbprint is missing\. x509_thumbprint needs it\. .*",
    ),
    "a validity without a folder": (
        ("device-identity", "create", *ID, "--vd", "9"),
        r"--valid-days needs --output-dir, for the certificate and its key\. .*",
    ),
    "two that swap": (
        ("device-identity", "renew-key", "-d", "a", "b", "--kt", "swap"),
        r"--key-type swap takes one id\. .*",
    ),
    "a number out of range": (
        ("invoke-device-method", *ID, "--mn", "m", "--to", "4"),
        r"argument --timeout/--to: Invalid number '4': use from 5 to 300\. .*",
    ),
    "no rows": (
        ("query", "-q", "select * from devices", "--top", "0"),
        r"argument --top: Invalid number '0': use from 1 up\. .*",
    ),
    "a JMESPath query": (
        ("device-twin", "show", *ID, "--query", "a["),
        r"Invalid --query: .*\. --help shows the options\.",
    ),
    "a job without its patch": (
        ("job", "create", "--job-id", "j", "--jt", "scheduleUpdateTwin", "-q", "*"),
        r"--twin-patch is missing\. scheduleUpdateTwin needs it\. .*",
    ),
    "a job without its method": (
        ("job", "create", "--job-id", "j", "--jt", "scheduleDeviceMethod", "-q", "*"),
        r"--method-name is missing\. scheduleDeviceMethod needs it\. .*",
    ),
    "content of nothing": (
        ("configuration", "create", "-c", "c", "-k", "{}"),
        r"--content has no deviceContent or moduleContent\. .*",
    ),
    "metrics without queries": (
        ("configuration", "create", "-c", "c", "-k", '{"deviceContent": {}}', "-m", '{"a": 1}'),
        r"--metrics has no queries\. .*",
    ),
    "feedback that is not asked for": (
        ("c2d-message", "send", *ID, "--wait"),
        r"--wait needs --ack: positive, negative or full\. .*",
    ),
    "a time in the past": (
        ("c2d-message", "send", *ID, "--expiry", "1"),
        r"--expiry-time-utc is in the past: use ms since 1970\. .*",
    ),
    "a file that is missing": (
        ("c2d-message", "send", *ID, "--dfp", "/none/x"),
        r"argument --data-file-path/--dfp: Can't read /none/x: No such file or directory\. .*",
    ),
    "a file without an end": (
        ("c2d-message", "send", *ID, "--dfp", "/dev/zero"),
        r"argument --data-file-path/--dfp: Can't read /dev/zero: it is larger than 4 MB, which .*",
    ),
    "two ends of one message": (
        ("c2d-message", "receive", *ID, "--complete", "--reject"),
        r"--complete and --reject contradict each other\. Use one\. .*",
    ),
    "properties that are not pairs": (
        ("c2d-message", "send", *ID, "--props", "a"),
        r"argument --properties/--props/-p: Not a pair: 'a'\. Use name=value\. .*",
    ),
    "half a certificate": (
        ("simulate", *ID, "--cp", "x"),
        r"--certificate-file-path and --key-file-path belong together\. .*",
    ),
    "one key for many": (
        ("simulate", *ID, "--count", "2", "--key", "YWJj"),
        r"--count has no use for the key or the certificate of one device\. .*",
    ),
    "a negative interval": (
        ("simulate", *ID, "--mi", "-1"),
        r"argument --msg-interval/--mi: Invalid number '-1': use seconds, from 0 up\. .*",
    ),
    "the token of a module alone": (
        ("generate-sas-token", "-m", "x"),
        r"--module-id needs --device-id\. .*",
    ),
    "another policy": (
        ("generate-sas-token", "--pn", "device"),
        r"--policy-name device: the connection string is that of iothubowner\. Use --login .*",
    ),
    "a connection string of nothing": (
        ("generate-sas-token", "--cs", "a=b"),
        r"Invalid --connection-string\. Use that of a service, a device or a module\. .*",
    ),
}


@pytest.mark.parametrize("name", WRONG_USE)
def test_wrong_use_is_one_line_and_status_2(name: str, az: Run) -> None:
    arguments, said = WRONG_USE[name]
    result = az(*arguments)
    assert (result.status, result.output, len(result.errors)) == (2, "", 1), result
    assert re.fullmatch(f"emulator: (?:{said})", result.errors[0]), result.errors[0]


# What names something: with an empty one, a path would lead to something else.
NAMING = [
    (words, option)
    for words, command in COMMANDS.items()
    for option in command.options
    if re.search(r"-(id|name)$|^--(etag|name)$", option.flags[0])
    and "default" not in option.settings
]


@pytest.mark.parametrize(
    ("words", "option"), NAMING, ids=[f"{words} {each.flags[0]}" for words, each in NAMING]
)
def test_an_empty_name_is_refused(words: str, option: o.Option, az: Run) -> None:
    result = az(*words.split(), option.flags[0], "")
    assert (result.status, result.output, len(result.errors)) == (2, "", 1)
    flags = re.escape("/".join(option.flags))
    assert re.match(f"emulator: argument {flags}: The value is empty", result.errors[0])


@pytest.mark.parametrize(
    ("words", "option"), NAMING, ids=[f"{words} {each.flags[0]}" for words, each in NAMING]
)
def test_a_name_that_is_not_utf_8_is_refused(words: str, option: o.Option, az: Run) -> None:
    result = az(*words.split(), option.flags[0], "a\udcffb")  # as Python reads the byte 0xFF
    assert (result.status, result.output, len(result.errors)) == (2, "", 1)
    if option.flags[0] == "--etag":
        assert "Invalid etag 'a\\udcffb'" in result.errors[0]
    else:
        assert "The value is not UTF-8: 'a\\udcffb'" in result.errors[0]


@pytest.mark.parametrize("etag", ["\u65e5", "a\r\nX: b", "\x7f"])
def test_an_etag_that_no_header_can_hold_is_refused(etag: str, az: Run) -> None:
    result = az("device-identity", "delete", *ID, "--etag", etag)
    assert (result.status, result.output, len(result.errors)) == (2, "", 1)
    assert "argument --etag/-e: Invalid etag " in result.errors[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ("c2d-message", "send", *ID, "--data", "\udcff"),
        ("c2d-message", "send", *ID, "--props", "a=\udcff"),
        ("simulate", *ID, "--props", "\udcff=a"),
        ("simulate", *ID, "--passphrase", "\udcff"),
        ("query", "-q", "\udcff"),
    ],
)
def test_a_text_that_is_not_utf_8_is_refused(arguments: tuple[str, ...], az: Run) -> None:
    result = az(*arguments)
    assert (result.status, result.output, len(result.errors)) == (2, "", 1)
    assert "The value is not UTF-8: " in result.errors[0]


def test_an_empty_name_is_looked_for() -> None:
    assert len(NAMING) > 50
    assert {words for words, each in NAMING if each.flags[0] == "--module-id"} >= {
        "module-identity delete",
        "module-identity renew-key",
        "invoke-module-method",
    }


@pytest.mark.parametrize("option", ["--login", "--host", "--data-dir"])
def test_an_empty_hub_is_refused(option: str, run_command: Run) -> None:
    result = run_command("device-identity", "list", option, "")
    assert (result.status, result.output, len(result.errors)) == (2, "", 1)
    assert "The value is empty" in result.errors[0]


@pytest.mark.parametrize("depth", [101, 5000, 200_000])
def test_json_that_is_nested_deep_is_one_line(depth: int, az: Run, tmp_path: Path) -> None:
    text = '{"a":' * depth + "1" + "}" * depth
    result = az("device-twin", "update", *ID, "--tags", text)
    assert (result.status, len(result.errors)) == (2, 1)
    assert "argument --tags: Invalid JSON: it is nested deeper than 100 levels" in result.errors[0]
    file = tmp_path / "deep.json"
    file.write_text(text, encoding="utf-8")
    result = az("device-twin", "update", *ID, "--tags", str(file))
    assert (result.status, len(result.errors)) == (2, 1)
    assert result.errors[0].startswith(f"emulator: argument --tags: No JSON in {file}: it is nest")


@pytest.mark.parametrize(
    "arguments",
    [
        ("device-identity", "show", "-d", "\x1b[31m\x9b"),
        ("device-identity", "show", "-d", "x", "\x1b[31m\x9b"),
        ("device-identity", "show", "--\x1b[31m\x9b"),
        ("device-identity", "show", "-d", "x", "--query", "\x1b[31m\x9b"),
        ("device-identity", "\x1b[31m\x9b"),
        ("query", "-q", "SELECT \x1b[31m\x9b"),
        ("snapshot", "/none/\x1b[31m\x9b"),
    ],
)
def test_an_error_cannot_write_to_the_terminal(arguments: tuple[str, ...], az: Run) -> None:
    result = az(*arguments)
    assert result.status
    assert len(result.errors) == 1
    assert result.errors[0].isprintable()
    assert "x1b" in result.errors[0]


def test_json_comes_from_files_too(tmp_path: Path, az: Run) -> None:
    file = tmp_path / "patch.json"
    file.write_text("{", encoding="utf-8")
    result = az("device-twin", "update", *ID, "--tags", str(file))
    assert result.status == 2
    assert result.errors[0].startswith(f"emulator: argument --tags: No JSON in {file}: ")
    file.write_text('{"a": 1}', encoding="utf-8")
    for name in (str(file), f"@{file}"):
        assert az("device-twin", "update", *ID, "--tags", name).status == 3
