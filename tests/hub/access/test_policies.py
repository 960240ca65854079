from emulator.hub.access.keys import SymmetricKeys
from emulator.hub.access.policies import DEFAULT_RIGHTS, Policy, Right


def test_the_default_policies_have_the_documented_rights():
    read, write = Right.REGISTRY_READ, Right.REGISTRY_WRITE
    service, device = Right.SERVICE_CONNECT, Right.DEVICE_CONNECT
    assert dict(DEFAULT_RIGHTS) == {
        "iothubowner": read | write | service | device,
        "service": service,
        "device": device,
        "registryRead": read,
        "registryReadWrite": read | write,
    }


def test_a_policy_allows_its_rights_and_one_of_several_is_enough():
    policy = Policy("registryRead", Right.REGISTRY_READ, SymmetricKeys.generate())
    assert policy.allows(Right.REGISTRY_READ)
    assert policy.allows(Right.REGISTRY_READ | Right.SERVICE_CONNECT)
    assert not policy.allows(Right.REGISTRY_WRITE | Right.SERVICE_CONNECT)
