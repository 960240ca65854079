"""The gate: which caller passes, with which admission, and what it is charged."""

import math
from typing import Any

import pytest

from emulator.hub.access.certificates import ClientCertificate
from emulator.hub.access.operations import Operation, Throttle
from emulator.hub.access.policies import DEFAULT_RIGHTS, OF_THE_HUB, Policy, Right
from emulator.hub.access.throttles import Throttles
from emulator.hub.core.errors import InvalidProtocolVersion as Flaw
from emulator.hub.core.errors import (
    IotHubUnauthorized,
    IotHubUnauthorizedAccess,
    ThrottlingException,
)
from emulator.hub.gate import DeviceCaller, EventHubsCaller, ServiceCaller
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import Identity, IdentityKey
from emulator.hub.links.link import Admission
from tests.clock import START, ApartClock, ManualClock
from tests.hub import fakes
from tests.hub.fakes import (
    ANY,
    CA_SIGNED,
    DEVICE,
    MODULE,
    OTHER_KEYS,
    certificate,
    put,
    self_signed,
)
from tests.support import entity_token, jwt

SAS = {"symmetricKey": {"primaryKey": OTHER_KEYS.primary, "secondaryKey": OTHER_KEYS.secondary}}
OWN, OTHER = certificate(), certificate("other")
AUTH_METHOD = '{"scope":"%s","type":"%s","issuer":"%s","acceptingIpFilterRule":null}'
OF_DEVICES = [each for each in Operation if each.right == Right.DEVICE_CONNECT]
AGENT = IdentityKey("d", "$edgeAgent")
# The others are of the Device Provisioning Service.
AT_THE_GATE = [each for each in Operation if each.right & OF_THE_HUB]


@pytest.fixture
def hub(store: fakes.CountingStore, clock: ManualClock) -> IotHub:
    """A hub with the default policies, which throttles twins: one read or write in a minute."""
    policies = [Policy(name, rights, fakes.KEYS) for name, rights in DEFAULT_RIGHTS.items()]
    throttles = Throttles.parse(["twin-reads=1/min", "twin-updates=1/min"], clock=clock)
    return fakes.make_hub(store, clock, policies=policies, throttles=throttles)


def service(policy: str = "iothubowner", sr: str = "localhost", **token: Any) -> ServiceCaller:
    return ServiceCaller(fakes.token_text(sr, skn=policy, **token), "localhost", ("twins", "d"))


def device(key: IdentityKey = DEVICE, token: str | None = None, **members: Any) -> DeviceCaller:
    return DeviceCaller(key, token, "localhost:8883", **members)


def own_token(sr: str = "localhost/devices/d", key: str = OTHER_KEYS.primary, **rest: Any) -> str:
    return fakes.token_text(sr, key=key, **rest)


def refused(hub: IotHub, caller: Any, operation: Operation = Operation.SUBSCRIBE) -> bool:
    """Return whether the gate refuses the credentials of a caller."""
    try:
        hub.gate.enter(caller, operation)
    except IotHubUnauthorizedAccess:
        return True
    return False


# --- the rules


def test_each_throttle_has_an_operation_and_devices_and_services_share_none() -> None:
    assert {each.throttle for each in Operation} == {None, *Throttle}
    for each in Operation:
        assert bool(each.title) == (each.throttle is not None)
        assert each.right == Right.DEVICE_CONNECT or not each.right & Right.DEVICE_CONNECT


# --- services


@pytest.mark.parametrize("policy", DEFAULT_RIGHTS)
def test_a_service_can_do_what_a_right_of_its_policy_allows(hub: IotHub, policy: str) -> None:
    hub.gate.throttles = Throttles()
    for operation in Operation:
        allowed = bool(DEFAULT_RIGHTS[policy] & operation.right)
        assert refused(hub, service(policy), operation) is not allowed, operation


@pytest.mark.parametrize(
    "caller",
    [
        *(ServiceCaller(token, "localhost", ()) for token in (None, "", "Basic abc")),
        ServiceCaller(fakes.token_text("localhost"), "localhost", ()),  # signed without a policy
        *(service("unknown"), service("Service"), service(key=OTHER_KEYS.primary)),
        *(service(se=fakes.LATER[:-1]), service(sr="elsewhere"), service(sr="localhost/twins/e")),
    ],
)
def test_a_service_with_other_credentials_is_refused(hub: IotHub, caller: ServiceCaller) -> None:
    assert refused(hub, caller, Operation.QUERY)


@pytest.mark.parametrize("sr", ["localhost", "localhost/twins", "localhost/twins/d", "LOCALHOST:1"])
def test_a_service_authenticates_for_a_part_of_the_hub(hub: IotHub, sr: str) -> None:
    for key in (fakes.KEYS.primary, fakes.KEYS.secondary):
        caller = service(sr=sr, key=key)
        assert not refused(hub, caller, Operation.QUERY)
        assert not refused(hub, caller._replace(host="elsewhere"), Operation.QUERY)


def test_a_token_can_be_for_the_name_by_which_a_service_addressed_the_hub(hub: IotHub) -> None:
    caller = service(sr="container:8443")
    assert refused(hub, caller, Operation.QUERY)
    assert not refused(hub, caller._replace(host="container:443"), Operation.QUERY)


def test_a_token_is_judged_by_the_machines_time_and_expires_by_the_hubs(
    store: fakes.CountingStore,
) -> None:
    clock = ApartClock()
    policies = [Policy(name, rights, fakes.KEYS) for name, rights in DEFAULT_RIGHTS.items()]
    hub = fakes.make_hub(store, clock, policies=policies)
    put(hub, DEVICE, authentication=SAS)
    for ahead in (0, 5000):
        admission = hub.gate.enter(device(token=own_token()), Operation.CONNECT)
        assert admission is not None
        assert admission.expires - clock.now().timestamp() == 3600
        assert not refused(hub, service())
        assert clock.ahead == ahead
        clock.advance(5000)
    clock.change_time(3600)
    for caller in (device(token=own_token()), service()):
        assert refused(hub, caller)


def test_a_token_that_passed_before_expires_all_the_same(hub: IotHub, clock: ManualClock) -> None:
    caller = service()
    clock.advance(3599)
    assert not refused(hub, caller, Operation.QUERY)
    clock.advance(1)
    assert refused(hub, caller, Operation.QUERY)


# --- clients of Event Hubs

ENTITY = ("hub-events", "ConsumerGroups", "$Default", "Partitions", "0")


def reader(audience: str, policy: str = "service", key: str = fakes.KEYS.primary, **token: Any):
    now = token.pop("now", START.timestamp())
    return EventHubsCaller(entity_token(audience, key, policy, now, **token), ENTITY)


@pytest.mark.parametrize(
    "audience",
    [
        *("sb://any.host", "sb://any.host/", "sb://any.host:5671/hub-events", "SB://h/HUB-EVENTS/"),
        *("amqps://h/hub-events/consumergroups", f"sb://h/{'/'.join(ENTITY)}"),
    ],
)
@pytest.mark.parametrize("key", [fakes.KEYS.primary, fakes.KEYS.secondary])
def test_a_client_of_event_hubs_signs_with_the_text_of_a_key(
    hub: IotHub, audience: str, key: str
) -> None:
    assert hub.gate.check(reader(audience, key=key), Operation.READ_EVENTS) is None
    assert hub.gate.enter(reader(audience, key=key), Operation.READ_EVENTS) is None


@pytest.mark.parametrize(
    "caller",
    [
        EventHubsCaller(None, ENTITY),
        EventHubsCaller("", ENTITY),
        reader("sb://h/other"),
        reader("sb://h/hub-event"),
        reader(f"sb://h/{'/'.join(ENTITY)}/more"),
        reader("h/hub-events"),  # of the other kind
        reader("sb://h/hub-events", policy="device"),
        reader("sb://h/hub-events", policy="unknown"),
        reader("sb://h/hub-events", key=OTHER_KEYS.primary),
        reader("sb://h/hub-events", key=fakes.KEYS.primary + "x"),  # text behind the padding
        reader("sb://h/hub-events", lifetime=-1),
        EventHubsCaller(fakes.token_text("sb://h/hub-events", skn="service"), ENTITY),
        EventHubsCaller(fakes.token_text("localhost", skn="service"), ENTITY),
    ],
)
def test_other_credentials_for_event_hubs_are_refused(hub: IotHub, caller: EventHubsCaller) -> None:
    assert refused(hub, caller, Operation.READ_EVENTS)


def test_a_token_for_event_hubs_opens_nothing_else(hub: IotHub) -> None:
    token = reader("sb://localhost").token
    assert refused(hub, ServiceCaller(token, "localhost", ()), Operation.QUERY)
    assert refused(hub, ServiceCaller(token, "sb:", ()), Operation.QUERY)


# --- services by bearer tokens of Entra ID


def part(value: object) -> str:
    return jwt(value).partition(".")[0]


def bearer(token: str, scheme: str = "Bearer", path: str = "twins/d") -> ServiceCaller:
    return ServiceCaller(f"{scheme} {token}", "localhost", tuple(path.split("/")), "GET")


@pytest.fixture
def open_hub(store: fakes.CountingStore, clock: ManualClock) -> IotHub:
    """A hub that accepts every bearer token with the right form."""
    return fakes.make_hub(store, clock, accepts_entra=True)


@pytest.mark.parametrize(
    "caller",
    [
        *(bearer(jwt(), scheme) for scheme in ("Bearer", "bearer", "BEARER", "Bearer ")),
        *(bearer(jwt(signature=each)) for each in ("", "A-_9")),
        bearer(jwt({"alg": "none"}, exp=0, aud="https://elsewhere.example")),
        bearer(jwt(upn="a@b.example", comment="ü" * 500)),
    ],
)
def test_a_bearer_token_has_the_rights_of_a_data_contributor(
    hub: IotHub, open_hub: IotHub, caller: ServiceCaller
) -> None:
    for operation in AT_THE_GATE:
        with pytest.raises(IotHubUnauthorized):
            hub.gate.enter(caller, operation)
        if operation not in (*OF_DEVICES, Operation.INVOKE_COMMAND):
            open_hub.gate.enter(caller, operation)
            continue
        with pytest.raises(IotHubUnauthorized):
            open_hub.gate.enter(caller, operation)


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"upn": "ann@example.com", "oid": "1"}, "ann@example.com"),
        ({"unique_name": "live.com#ann"}, "live.com#ann"),
        ({"appid": "9f", "oid": "2"}, "9f"),
        ({"oid": 7, "sub": "s"}, "s"),
        ({}, "unknown"),
    ],
)
def test_the_refusal_names_the_principal(hub: IotHub, claims: dict[str, Any], name: str) -> None:
    with pytest.raises(IotHubUnauthorized) as refusal:
        hub.gate.enter(bearer(jwt(**claims)), Operation.READ_TWIN)
    assert refusal.value.text == (
        f"Principal {name} is not authorized for GET on /twins/d due to no assigned permissions"
    )
    assert "--entra accept" in str(refusal.value.__cause__)


MALFORMED_TOKENS = [
    *("", "abc", "a.b", "a.b.c", "a.b.c.d"),
    *(f"{jwt()}.more", f" {jwt()} ", f"{jwt()}\n", f"{jwt()}="),
    *(jwt("text"), jwt([]), jwt({}), jwt({"alg": 1}), f"{part({'alg': 'x'})}.{part([1])}.s"),
    *(jwt().replace(".", ".."), f"x{jwt()}", f"{part({'alg': 'x'})}.{'W1' * 3000}.s", "é.é.é"),
    fakes.token_text("localhost", skn="iothubowner"),
]


@pytest.mark.parametrize("token", MALFORMED_TOKENS)
def test_a_bearer_token_of_another_form_is_refused_as_any_bad_token(
    hub: IotHub, open_hub: IotHub, token: str
) -> None:
    for each in (hub, open_hub):
        assert refused(each, bearer(token), Operation.READ_TWIN)


def test_a_command_of_a_digital_twin_is_refused_whatever_the_role(open_hub: IotHub) -> None:
    for path in ("digitaltwins/d/commands/c", "DigitalTwins/d/components/x/commands/c"):
        with pytest.raises(IotHubUnauthorized):
            open_hub.gate.enter(bearer(jwt(), path=path), Operation.INVOKE_COMMAND)
        open_hub.gate.enter(bearer(jwt(), path=path), Operation.READ_TWIN)
    open_hub.gate.enter(bearer(jwt(), path="twins/d/methods"), Operation.INVOKE_METHOD)


def test_no_device_authenticates_with_a_bearer_token(open_hub: IotHub) -> None:
    put(open_hub, DEVICE, authentication=SAS)
    for token in (jwt(), jwt(upn="d"), jwt(appid="d", roles=["owner"])):
        for operation in OF_DEVICES:
            assert refused(open_hub, device(token=f"Bearer {token}"), operation)


# --- devices and modules by their tokens


@pytest.mark.parametrize(
    ("key", "token", "scope"),
    [
        (DEVICE, own_token(), "device"),
        (DEVICE, own_token(key=OTHER_KEYS.secondary), "device"),
        (DEVICE, own_token("localhost"), "device"),
        (MODULE, own_token("localhost/devices/d/modules/m"), "module"),
        (DEVICE, fakes.token_text("localhost/devices/d", skn="device"), "hub"),
        (MODULE, fakes.token_text("localhost", skn="iothubowner"), "hub"),
    ],
)
def test_a_device_is_admitted_by_a_token(
    hub: IotHub, store: fakes.CountingStore, key: IdentityKey, token: str, scope: str
) -> None:
    put(hub, DEVICE, authentication=SAS)
    put(hub, MODULE, authentication=SAS)
    admission = hub.gate.enter(device(key, token, model_id="dtmi:x;1"), Operation.CONNECT)
    assert admission == Admission(
        key,
        expires=int(fakes.LATER),
        generation_id=fakes.stored(store, Identity, key).generation_id,
        auth_method=AUTH_METHOD % (scope, "sas", "iothub"),
        model_id="dtmi:x;1",
    )


@pytest.mark.parametrize(
    ("caller", "cause"),
    [
        (device(), "no SAS token"),
        (device(token=""), "not a SAS token"),
        (device(token=own_token(key=fakes.KEYS.primary)), "signed with neither"),
        (device(token=own_token(se="1")), "expired"),
        (device(token=own_token("localhost/devices/e")), "not for 'devices/d'"),
        (device(token=own_token(), certificate=OWN), "a certificate, but the identity has keys"),
        (device(certificate=certificate("own", "d", by_authority=True)), "no SAS token"),
        (device(token=own_token(skn="device")), "signed with neither"),
        *((device(token=fakes.token_text("localhost", skn=n)), "") for n in ("service", "unknown")),
        *((device(key, own_token("localhost")), "") for key in (MODULE, IdentityKey("D"))),
    ],
)
def test_a_device_with_another_token_is_refused(
    hub: IotHub, caller: DeviceCaller, cause: str
) -> None:
    put(hub, DEVICE, authentication=SAS)
    with pytest.raises(IotHubUnauthorizedAccess) as refusal:
        hub.gate.enter(caller, Operation.CONNECT)
    assert refusal.value.text == "Unauthorized"
    assert cause in str(refusal.value.__cause__)


def test_a_device_acts_for_itself_on_every_route(hub: IotHub) -> None:
    other = IdentityKey("e")
    put(hub, DEVICE, authentication=SAS)
    put(hub, other)
    for operation in OF_DEVICES:
        hub.gate.throttles = Throttles()
        assert hub.gate.enter(device(token=own_token("localhost")), operation).key == DEVICE
        assert refused(hub, device(other, own_token("localhost")), operation)


# --- devices and modules by their certificates


@pytest.mark.parametrize("password", [None, ""])
def test_a_certificate_admits_without_a_password_and_does_not_expire(
    hub: IotHub, password: str | None
) -> None:
    put(hub, DEVICE, authentication=self_signed(OWN.sha1))
    admission = hub.gate.enter(device(token=password, certificate=OWN), Operation.CONNECT)
    assert (admission.key, admission.expires) == (DEVICE, math.inf)
    assert admission.auth_method == AUTH_METHOD % ("device", "x509Certificate", "external")


def test_a_certificate_of_a_ca_admits_the_identity_that_it_names(hub: IotHub) -> None:
    put(hub, DEVICE, authentication=CA_SIGNED, capabilities={"iotEdge": True})
    put(hub, MODULE, authentication=CA_SIGNED)
    for key in (DEVICE, MODULE, AGENT):
        for name in ("d", "d/m", "d/$edgeAgent", "m", "e"):
            shown = certificate("any", name, by_authority=True)
            # Nothing admits a module of the IoT Edge runtime.
            admitted = name == str(key) != str(AGENT)
            assert refused(hub, device(key, certificate=shown)) is not admitted
        assert refused(hub, device(key, certificate=certificate("any", str(key))))


def test_a_module_has_its_own_thumbprints(hub: IotHub) -> None:
    put(hub, DEVICE, authentication=self_signed(OWN.sha1))
    put(hub, MODULE, authentication=self_signed(OTHER.sha1))
    for key, own, other in ((DEVICE, OWN, OTHER), (MODULE, OTHER, OWN)):
        assert not refused(hub, device(key, certificate=own))
        assert refused(hub, device(key, certificate=other))


@pytest.mark.parametrize("authentication", [self_signed(OWN.sha1), CA_SIGNED])
@pytest.mark.parametrize("policy", [None, "device", "iothubowner"])
@pytest.mark.parametrize("shown", [None, certificate(common_name="d", by_authority=True)])
def test_no_token_admits_an_x509_device_alone_or_beside_its_certificate(
    hub: IotHub, authentication: Any, policy: str | None, shown: ClientCertificate | None
) -> None:
    put(hub, DEVICE, authentication=authentication)
    assert refused(
        hub, device(DEVICE, fakes.token_text("localhost", skn=policy), certificate=shown)
    )


def test_a_disabled_device_and_its_modules_are_refused(hub: IotHub) -> None:
    callers = [device(certificate=OWN), device(MODULE, certificate=OWN)]
    assert [refused(hub, caller) for caller in callers] == [True, True]
    put(hub, DEVICE, authentication=self_signed(OWN.sha1))
    put(hub, MODULE, authentication=self_signed(OWN.sha1))
    assert [refused(hub, caller) for caller in callers] == [False, False]
    put(hub, DEVICE, ANY, authentication=self_signed(OWN.sha1), status="disabled")
    assert [refused(hub, caller) for caller in callers] == [True, True]


# --- charges


def test_a_request_is_charged_to_its_own_throttle(hub: IotHub, clock: ManualClock) -> None:
    hub.gate.enter(service(), Operation.READ_TWIN)
    for _ in range(2):
        hub.gate.enter(service(), Operation.QUERY)
        with pytest.raises(ThrottlingException, match="Operation type: TwinRead"):
            hub.gate.enter(service(), Operation.READ_TWIN)
    hub.gate.enter(service(), Operation.UPDATE_TWIN)
    clock.advance(60)
    hub.gate.enter(service(), Operation.READ_TWIN)


def test_a_request_that_is_refused_is_not_charged(hub: IotHub) -> None:
    put(hub, DEVICE, authentication=SAS)
    flaw = Flaw()
    for _ in range(3):
        assert refused(hub, service("registryRead"), Operation.READ_TWIN)
        assert refused(hub, device(), Operation.READ_OWN_TWIN)
        for caller in (service(), device(token=own_token())):
            with pytest.raises(Flaw):
                hub.gate.enter(caller, Operation.READ_TWIN, flaw=flaw)
    hub.gate.enter(service(), Operation.READ_TWIN)
    # The order of refusals: the caller, the request itself, the throttle.
    with pytest.raises(Flaw):
        hub.gate.enter(service(), Operation.READ_TWIN, flaw=flaw)
    with pytest.raises(IotHubUnauthorizedAccess):
        hub.gate.enter(service("registryRead"), Operation.READ_TWIN, flaw=flaw)


def test_a_direct_method_is_charged_by_its_size(hub: IotHub, clock: ManualClock) -> None:
    hub.gate.throttles = Throttles.parse(["methods=3/s"], clock=clock)
    hub.gate.enter(service(), Operation.INVOKE_METHOD, size=5000)
    hub.gate.enter(service(), Operation.INVOKE_METHOD, size=1)
    with pytest.raises(ThrottlingException):
        hub.gate.enter(service(), Operation.INVOKE_METHOD, size=1)


def test_every_operation_with_a_throttle_is_charged(hub: IotHub, clock: ManualClock) -> None:
    throttles = [f"{throttle}=1/min" for throttle in Throttle]
    put(hub, DEVICE, authentication=SAS)
    admission = hub.gate.enter(device(token=own_token()), Operation.CONNECT)
    callers: list[Any] = [admission, device(token=own_token()), service()]
    for operation in AT_THE_GATE:
        for caller in callers[:2] if operation in OF_DEVICES else callers[2:]:
            hub.gate.throttles = Throttles.parse(throttles, clock=clock)
            hub.gate.enter(caller, operation)
            if operation.throttle is None:
                hub.gate.enter(caller, operation)
            else:
                with pytest.raises(ThrottlingException, match=operation.title):
                    hub.gate.enter(caller, operation)
