"""The documentation: its length, its links, its words, and what it lists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from emulator.hub.faults.fault import KINDS, LINKS, OPERATIONS
from emulator.hub.faults.requests import TYPES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
PAGES += [*sorted((ROOT / "docs").glob("*.md")), ROOT / "examples" / "README.md"]
SCRIPTS = sorted(ROOT.glob("dmpatterns_*.py"))

# The folders whose Python files are checked for words: docstrings, comments and strings.
CHECKED_FOLDERS = ("emulator", "tests", "examples")
# The folders whose modules all stand in the picture in docs/architecture.md.
PICTURED_FOLDERS = ("",)

README_LINES = 150

# Idioms that readers with another first language do not understand at first reading. Letter case
# counts: `is None` is code.
IDIOMS = {
    "is none": r"\b(?:is|are|was|were) none\b",
    "is no X": r"(?<![Tt]here\s)\b(?:is|are|was|were) no (?!longer\b|more\b)[a-z]",
    "likewise": r"\b[Ll]ikewise\b",
    "but for": r"\b[Bb]ut for\b",
    "nobody, somebody": r"\b(?:[Nn]o|[Ss]ome|[Aa]ny)body\b",
    "strangers": r"\b[Ss]trangers?\b",
    "who as a subject": r"(?:\A|\n\n|[.,;:!?(\"])[\s#*|>-]*[Ww]ho\b",
    "whoever": r"\b[Ww]hoever\b",
    "as it stands": r"\bas it stands\b",
    "hand in, hand out": r"\bhand(?:s|ed|ing)? (?:in|out)\b",
    "hear of": r"\bhear(?:s|d|ing)? (?:of|from)\b",
    "let go": r"\b[Ll]ets? go\b",
    "be born": r"\b(?:is|are|be|was) born\b",
    "has a door": r"\b(?:has|have) a door\b",
    "it is one line in": r"\b[Ii]t is one line in\b",
    "fractions in words": r"\ba (?:tenth|twentieth|fiftieth|hundredth)\b",
}
# A gap between two words can hold a line break and the mark of a comment.
_PATTERNS = {name: re.compile(pattern.replace(" ", r"[\s#]+")) for name, pattern in IDIOMS.items()}

# Texts that stand as the real service or a library writes them, or that are exact names.
EXCEPTIONS: tuple[str, ...] = ()


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def idioms(text: str, name: str) -> list[str]:
    """List the idioms in a text, each with the name of the text and a line number."""
    for exception in EXCEPTIONS:
        text = text.replace(exception, "")
    found = [(idiom, each) for idiom, regex in _PATTERNS.items() for each in regex.finditer(text)]
    lines = [text[: match.end()].count("\n") + 1 for _, match in found]
    return [
        f"{name}:{line}: {idiom}: {match[0].strip()!r}"
        for line, (idiom, match) in zip(lines, found, strict=True)
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The value is none.", 1),
        ("if value is None:", 0),
        ("a key that is\n# none", 1),
        ("It is no secret.", 1),
        ("There is no such key, and it is no longer used.", 0),
        ("The device, who sends", 1),
        ("Who is connected: the links", 1),
        ("the policy says which caller can connect", 0),
    ],
)
def test_idioms_are_found(text: str, found: int) -> None:
    assert len(idioms(text, "text")) == found


def test_idioms_are_located() -> None:
    assert idioms("a\nb, likewise", "x.md") == ["x.md:2: likewise: 'likewise'"]


def checked_files() -> list[Path]:
    modules = [path for folder in CHECKED_FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in (*PAGES, *SCRIPTS, *modules) if path != Path(__file__)]


@pytest.mark.parametrize("path", checked_files(), ids=name_of)
def test_a_file_is_in_plain_english(path: Path) -> None:
    assert idioms(path.read_text(encoding="utf-8"), name_of(path)) == []


@pytest.fixture(scope="module")
def help_text() -> str:
    command = [sys.executable, "-m", "emulator", "--help"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)
    return run.stdout


def test_the_help_text_is_in_plain_english(help_text: str) -> None:
    assert idioms(help_text, "--help") == []


def test_the_table_of_options_is_complete(help_text: str) -> None:
    page = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `--([a-z-]+).*?\| `([A-Z_]+)` \|", page, re.MULTILINE))
    assert set(documented) == set(re.findall(r"^  --([a-z-]+)", help_text, re.MULTILINE))
    for option, variable in documented.items():
        assert variable == f"IOTHUB_EMULATOR_{option.upper().replace('-', '_')}"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


# --- links


def prose(path: Path) -> str:
    """Read a page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)


def anchors(path: Path) -> set[str]:
    """List the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        file, _, anchor = target.partition("#")
        destination = page.parent / file if file else page
        if "://" not in target:
            assert destination.is_file(), target
            assert not anchor or anchor in anchors(destination), target


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=name_of)
def test_the_readme_links_to_each_page(page: Path) -> None:
    assert f"]({name_of(page)})" in (ROOT / "README.md").read_text(encoding="utf-8")


# --- the picture of the house


def test_each_module_is_in_the_picture() -> None:
    picture = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    modules = [
        path
        for folder in PICTURED_FOLDERS
        for path in (ROOT / "emulator" / folder).rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    ]
    assert [name_of(path) for path in modules if path.name not in picture] == []


def test_each_change_on_the_feed_is_documented() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    sources = [path.read_text() for path in (ROOT / "emulator" / "hub").rglob("*.py")]
    declared = re.compile(r"class ([A-Z]\w+)\(\w*Change, frozen=True\)")
    changes = {name for text in sources for name in declared.findall(text)}
    assert {"IdentityCreated", "TwinChanged", "JobEnded"} <= changes
    assert [name for name in sorted(changes) if f"`{name}`" not in page] == []


def test_each_kind_of_fault_is_documented() -> None:
    page = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z0-9-]+)` \|(.*\|.*)\|$", page, re.MULTILINE))
    for name, kind in KINDS.items():
        own = {*kind.members} - {"probability", "seed", "count"}
        assert [each for each in own if f"`{each}`" not in rows[name]] == [], name
        assert [each for each in kind.statuses if str(each) not in rows[name]] == [], name
    names = (*OPERATIONS, *LINKS, *TYPES)
    assert [each for each in names if f"`{each}`" not in page] == []
