"""Words that do not belong in a file others will read: paths of one machine, package hosts, leftovers, secrets."""

import re
from pathlib import Path

import pytest

import survey

# Written with a bracket each, so that this file does not find itself.
FORBIDDEN = {
    "a path of one machine": re.compile(r"(?<![\w.])[/](root|home|work|Users)/\w|[C]:\\Users"),
    "a package host": re.compile(
        r"--(extra-)?index[-]url|--find[-]links|--trusted[-]host|pypi\.org[/]simple|files\.pythonhosted[.]org"
    ),
    "a note to oneself": re.compile(r"\b(TOD[O]|FIXM[E]|XX[X]|HAC[K])\b"),
    "a merge left half done": re.compile(r"^(<{7}|>{7}|={7})( |$)"),
    "a secret": re.compile(
        r"BEGIN [\w ]*PRIVATE[ ]KEY|\bhf_[A-Za-z]{30,}|\bsk-[A-Za-z0-9]{32,}|\bghp_[A-Za-z0-9]{30,}"
    ),
    "a debugger": re.compile(r"\bbreakpoint[(]\)|\bpdb[.]set_trace"),
}
LARGEST = 500_000  # bytes; data and weights do not belong in the repository


def texts() -> list[tuple[Path, str]]:
    files = survey.tracked()
    if not files:
        pytest.skip("not a git checkout: no list of tracked files")
    found = []
    for path in files:
        raw = path.read_bytes()
        if b"\0" not in raw[:8192]:
            found.append((path.relative_to(survey.ROOT), raw.decode("utf-8")))
    return found


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_forbidden_words(what: str):
    offenders = [
        f"{path}:{number}: {line.strip()[:100]}"
        for path, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if FORBIDDEN[what].search(line)
    ]
    assert not offenders, f"{what}:\n" + "\n".join(offenders)


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("a path of one machine", "open('/" + "home/ada/text.txt')"),
        ("a package host", "pip install --index" + "-url https://example.org"),
        ("a note to oneself", "# TO" + "DO: later"),
        ("a merge left half done", "<" * 7 + " HEAD"),
        ("a secret", "-----BEGIN RSA PRIVATE" + " KEY-----"),
        ("a debugger", "breakpoint" + "()"),
    ],
)
def test_forbidden_words_are_found(what: str, line: str):
    assert FORBIDDEN[what].search(line)
    assert not FORBIDDEN[what].search("a harmless line about homes, work and roots: see work/plan.md")


def test_no_data_or_weights():
    large = [
        f"{path.relative_to(survey.ROOT)}: {path.stat().st_size} bytes"
        for path in survey.tracked()
        if path.stat().st_size > LARGEST
    ]
    assert not large, "\n".join(large)


def test_text_files_end_with_a_newline_and_use_lf():
    offenders = [str(path) for path, text in texts() if text and (not text.endswith("\n") or "\r" in text)]
    assert not offenders, offenders


def test_the_licence_is_the_one_the_package_names():
    licence = (survey.ROOT / "LICENSE").read_text(encoding="utf-8")
    assert (
        "Apache License" in licence
        and "Version 2.0, January 2004" in licence
        and "END OF TERMS AND CONDITIONS" in licence
    )
    assert 'license = "Apache-2.0"' in (survey.ROOT / "pyproject.toml").read_text(encoding="utf-8")
