"""Content of configurations, for their tests: written by hand, and at random."""

from typing import Any

from hypothesis import strategies as st

Values = dict[str, Any]


def device_content(paths: Values) -> Values:
    return {"deviceContent": {f"properties.desired{path}": value for path, value in paths.items()}}


def edge_content(**modules: Any) -> Values:
    return {"modulesContent": {"$edgeAgent": {}, **modules}}


NAMES = st.sampled_from("abc")
LEAVES = st.sampled_from([0, 1, True, False, "x", [1], [{"a": 1}]])


def trees(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves, lambda below: st.dictionaries(NAMES, below, max_size=3), max_leaves=6
    )


PATHS = st.lists(NAMES, min_size=1, max_size=3).map(".".join)
SETTINGS = st.dictionaries(PATHS, trees(LEAVES | st.none()), min_size=1, max_size=3)
