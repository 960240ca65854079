import pytest

from emulator.net.router import Router

ROUTES = [
    ("GET", "/devices"),
    ("POST", "/devices"),
    ("POST", "/devices/query"),
    ("GET", "/devices/{id}"),
    ("PUT", "/devices/{id}"),
    ("GET", "/devices/{id}/messages/deviceBound"),
    ("DELETE", "/devices/{id}/messages/deviceBound/{lock}"),
]


@pytest.fixture
def router() -> Router[str]:
    """Leads to what was added."""
    made: Router[str] = Router()
    for verb, path in ROUTES:
        made.add(verb, path, f"{verb} {path}")
    return made


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        (["devices"], [({"GET", "POST"}, {})]),
        (["devices", ""], [({"GET", "POST"}, {})]),  # with a slash at its end
        (["DEVICES"], [({"GET", "POST"}, {})]),
        (["devices", "d"], [({"GET", "PUT"}, {"id": "d"})]),
        (["devices", "D", ""], [({"GET", "PUT"}, {"id": "D"})]),
        (["devices", "query"], [({"POST"}, {}), ({"GET", "PUT"}, {"id": "query"})]),
        (["devices", "a/b"], [({"GET", "PUT"}, {"id": "a/b"})]),
        (["devices", "d", "messages", "devicebound"], [({"GET"}, {"id": "d"})]),
        (
            ["devices", "d", "messages", "deviceBound", "L"],
            [({"DELETE"}, {"id": "d", "lock": "L"})],
        ),
        (["devices", "query", "messages", "deviceBound"], [({"GET"}, {"id": "query"})]),
        ([], []),
        ([""], []),
        (["device"], []),
        (["devices", "", ""], []),
        (["devices", "", "messages", "deviceBound"], []),
        (["devices", "d", "messages"], []),
        (["devices", "d", "x"], []),
        (["{id}"], []),
    ],
)
def test_what_is_at_a_path(
    router: Router[str], parts: list[str], found: list[tuple[set[str], dict[str, str]]]
) -> None:
    assert [(set(each.verbs), each.names) for each in router.find(parts)] == found


def test_each_verb_leads_where_it_was_said_to(router: Router[str]) -> None:
    for verb, path in ROUTES:
        [first, *_] = router.find(path.strip("/").split("/"))
        assert first.verbs[verb] == f"{verb} {path}"
