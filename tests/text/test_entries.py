"""What one entry says is in its messages, or the entry is refused by the name of the part that would be lost."""

from typing import Any

import pytest

from groundup.errors import DataError
from groundup.text.entries import messages_of

HI, HELLO = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
BRIEF = {"role": "system", "content": "Be brief."}
SHARED = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
FORMS = {
    "instruction": {"instruction": "Hi", "output": "Hello"},
    "messages": {"messages": [HI, HELLO]},
    "conversations": {"conversations": SHARED},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_system_text_of_the_entry_is_the_first_message(form: str):
    assert messages_of(FORMS[form] | {"system": "Be brief."}, "entry 0") == [BRIEF, HI, HELLO]
    for nothing in ("", None):
        assert messages_of(FORMS[form] | {"system": nothing}, "entry 0") == [HI, HELLO]


def test_two_system_messages_are_refused():
    with pytest.raises(DataError, match="entry 3 has 'system' and begins with a system message too"):
        messages_of({"system": "Be long.", "messages": [BRIEF, HI, HELLO]}, "entry 3")
    with pytest.raises(DataError, match="roles out of order: user after user .message 1."):  # as the file counts them
        messages_of({"system": "Be brief.", "messages": [HI, HI, HELLO]}, "entry 3")


@pytest.mark.parametrize(
    ("name", "value", "fix"),
    [
        ("tools", [{"type": "function"}], "system message"),
        ("tools", '[{"type": "function"}]', "system message"),
        ("functions", [{"name": "f"}], "system message"),
        ("reasoning_content", "Let me think.", "reasoning"),
        ("tool_calls", [{}], "calls of tools"),
        ("function_call", {"name": "f"}, "calls of tools"),
        ("history", [["a", "b"]], "messages"),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_parts_that_would_be_lost_are_refused_by_name(form: str, name: str, value: Any, fix: str):
    with pytest.raises(DataError, match=f"entry 3 has '{name}', which is not supported") as raised:
        messages_of(FORMS[form] | {name: value}, "entry 3")
    assert fix in raised.value.fix
    for nothing in (None, "", [], {}, "[]", " {} "):
        assert messages_of(FORMS[form] | {name: nothing}, "entry 3") == [HI, HELLO]
    with pytest.raises(DataError, match=f"message 1 in entry 3 has '{name}'"):
        messages_of({"messages": [HI, HELLO | {name: value}]}, "entry 3")


def test_the_name_of_a_speaker_is_refused_and_that_of_an_entry_is_not():
    with pytest.raises(DataError, match="message 0 in entry 3 has 'name'"):
        messages_of({"messages": [HI | {"name": "Ann"}, HELLO]}, "entry 3")
    assert messages_of({"name": "greeting", "id": 7, "messages": [HI | {"name": ""}, HELLO]}, "entry 3") == [HI, HELLO]


def test_two_forms_at_once_are_refused_unless_one_is_empty():
    """Tables with a column for each form leave the others empty."""
    both = FORMS["instruction"] | FORMS["messages"]
    with pytest.raises(DataError, match="entry 3 is written in several forms at once: 'instruction', 'messages'"):
        messages_of(both, "entry 3")
    with pytest.raises(DataError, match="'messages', 'conversations'"):
        messages_of(FORMS["messages"] | FORMS["conversations"], "entry 3")
    for nothing in ("", None):
        assert messages_of(FORMS["messages"] | {"instruction": nothing}, "entry 3") == [HI, HELLO]
        assert messages_of(FORMS["conversations"] | {"instruction": nothing, "messages": []}, "entry 3") == [HI, HELLO]
    with pytest.raises(DataError, match="'instruction' in entry 3 is empty"):
        messages_of({"instruction": "", "messages": []}, "entry 3")
