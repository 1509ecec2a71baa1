"""What stands beside a vocabulary: which tokens begin, end and fill a text, and how a chat is written.

In: tokenizer_config.json, special_tokens_map.json, generation_config.json, chat_template.jinja, and the post_processor
of a tokenizer.json. Out: a `Manner`. A tokenizer that puts more than a begin token around a text is refused by name.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundup.errors import TokenizerError
from groundup.tokens import files

# The names that are understood; the first one present counts. Any other special token is just a token with a name,
# unless a config gives it a role: <|im_end|> ends a sequence only where that is said.
ROLES: dict[str, tuple[str, ...]] = {
    "end_of_text": ("<|endoftext|>", "<|end_of_text|>"),
    "bos": ("<|bos|>", "<s>", "<bos>", "[BOS]", "<|begin_of_text|>"),
    "eos": ("<|eos|>", "</s>", "<eos>", "[EOS]"),
    "pad": ("<|pad|>", "<pad>", "[PAD]", "<|finetune_right_pad_id|>"),
    "unknown": ("<|unk|>", "<unk>", "[UNK]"),
}
KEYS = {"bos": "bos_token", "eos": "eos_token", "pad": "pad_token", "unknown": "unk_token"}  # in configs

TEMPLATE = "chat_template.jinja"
LONGEST_TEMPLATE = 1 << 20  # bytes; published ones have some ten thousand at most


@dataclass(frozen=True)
class Manner:
    """How the tokens are used.

    `names`: role to token, where a config says so; `adds_bos`: a text begins with the bos token; `ends`: ids that end
    generation besides eos and end of text; `chat_template`: Jinja, or None.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    adds_bos: bool = False
    chat_template: str | None = None
    ends: tuple[int, ...] = ()


def named(config: Mapping[str, Any]) -> dict[str, str]:
    """The tokens that a config gives a role.

    >>> named({"eos_token": {"content": "<|im_end|>"}, "pad_token": None})
    {'eos': '<|im_end|>'}
    """
    found: dict[str, str] = {}
    for role, key in KEYS.items():
        value = config.get(key)
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str) and value:
            found[role] = value
    return found


def of(document: Mapping[str, Any], config: Mapping[str, Any], ids: Mapping[str, int], source: str) -> Manner:
    """The manner of a tokenizer.json with this config; `ids` are those of its tokens.

    Raises TokenizerError where more than a begin token is put around a text, or a role names a token that is not there.
    """
    _check_types(config, source)
    names = named(config)
    first = _first(document.get("post_processor"), ids, source)
    if config.get("add_eos_token"):
        raise _refused(source, "add_eos_token = true (it puts a token behind every text)")
    wanted = config.get("add_bos_token")
    adds = first is not None if wanted is None else wanted
    if first is not None and adds and names.setdefault("bos", first) != first:
        raise _refused(source, f"a post_processor that adds {first!r} where bos_token is {names['bos']!r}")
    if adds and "bos" not in names and not any(name in ids for name in ROLES["bos"]):
        raise _refused(source, "add_bos_token = true without a bos_token")
    for role, name in names.items():
        if name not in ids:
            raise _refused(source, f"{KEYS[role]} {name!r}, which is no token here,")
    return Manner(names, adds, _template(config.get("chat_template"), source), _ends(config.get("eos_token_id"), ids))


def _check_types(config: Mapping[str, Any], source: str) -> None:
    """Raise TokenizerError for what the config says in another type than it should."""
    roles = dict.fromkeys(KEYS.values(), ((str, dict), "the text of a token"))
    switches = dict.fromkeys(("add_bos_token", "add_eos_token"), ((bool,), "true or false"))
    for key, (kinds, wanted) in (roles | switches | {"eos_token_id": ((int, list), "an id or a list of ids")}).items():
        value = config.get(key)
        wrong = value is not None and type(value) not in kinds
        if wrong or (isinstance(value, list) and any(type(id) is not int for id in value)):
            raise TokenizerError(f"{source}: {key} is {value!r:.80}", f"it should be {wanted}: correct the file")


def _ends(value: Any, ids: Mapping[str, int]) -> tuple[int, ...]:
    """generation_config.json's eos_token_id: one id or a list; ids that no token has are left out."""
    found = value if isinstance(value, list) else [value]
    known = set(ids.values())
    return tuple(dict.fromkeys(id for id in found if type(id) is int and id in known))


def _first(part: Any, ids: Mapping[str, int], source: str) -> str | None:
    """The token that a post_processor puts before a text, or None."""
    before: str | None = None
    for one in _parts(part):
        kind = one.get("type")
        if kind == "ByteLevel":  # moves offsets only
            continue
        if kind != "TemplateProcessing":
            raise _refused(source, f"its post_processor {kind!r} (it may add tokens around a text)")
        names = [next(iter(item.values()))["id"] if "SpecialToken" in item else None for item in one["single"]]
        if names[-1:] != [None] or names.count(None) != 1 or len(names) > 2:
            added = ", ".join(repr(name) for name in names if name is not None)
            raise _refused(source, f"its post_processor (it puts {added or 'nothing but itself'} around a text)")
        if len(names) == 2:
            before = str(names[0])
            if one["special_tokens"][before]["ids"] != [ids.get(before)]:
                raise _refused(source, f"its post_processor (other ids for {before!r} than the vocabulary's)")
    return before


def _parts(part: Any) -> Iterator[Mapping[str, Any]]:
    """The members of a Sequence, or the part itself."""
    if part is not None:
        yield from part["processors"] if part["type"] == "Sequence" else [part]


def adding(bos: str, id: int) -> files.Json:
    """The post_processor that puts this token before a text, as the `tokenizers` library writes it."""
    token, text = {"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    pair = [token, text, {"SpecialToken": {"id": bos, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}]
    return {
        "type": "TemplateProcessing",
        "single": [token, text],
        "pair": pair,
        "special_tokens": {bos: {"id": bos, "ids": [id], "tokens": [bos]}},
    }


def _template(value: Any, source: str) -> str | None:
    """A template, or of a list of named ones the only one, else the default; the others are not kept."""
    if isinstance(value, list):
        templates = {str(entry["name"]): entry["template"] for entry in value}
        if len(templates) > 1 and "default" not in templates:
            names = ", ".join(templates)
            raise TokenizerError(
                f"{source}: {len(templates)} chat templates ({names:.80}), none of them named default",
                f"put the one that is meant into a file {TEMPLATE} beside it",
            )
        value = templates.get("default", next(iter(templates.values()), None))
    if value is None:
        return None
    if not isinstance(value, str):
        what = f"{source}: a chat_template that is a {type(value).__name__}, not text"
        raise TokenizerError(what, f"give Jinja text, or put it into a file {TEMPLATE} beside it")
    return check_template(value, source)


def check_template(text: str, source: str = "the chat template") -> str:
    """The text, unless it is longer than any template; raises TokenizerError."""
    if len(text) > LONGEST_TEMPLATE:
        raise TokenizerError(
            f"{source}: the chat template has {len(text):,} characters, more than {LONGEST_TEMPLATE:,}",
            "give a chat template: some thousand characters of Jinja",
        )
    return text


def read_config(folder: Path) -> files.Json:
    """What the files beside a tokenizer.json say, as one tokenizer_config.json; absent files say nothing.

    `eos_token_id` comes from generation_config.json, `chat_template` from chat_template.jinja before all else.
    """
    config: files.Json = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):  # the latter counts
        if path := files.beside(folder, name):
            config |= {key: value for key, value in files.read_json(path).items() if value is not None}
    if path := files.beside(folder, "generation_config.json"):
        config["eos_token_id"] = files.read_json(path).get("eos_token_id")
    if path := files.beside(folder, TEMPLATE):
        config["chat_template"] = files.read_text(path, most=4 * LONGEST_TEMPLATE)
    return config


def _refused(source: str, part: str) -> TokenizerError:
    advice = (
        "only a begin token may be put before a text, and nothing behind it; give another tokenizer, or edit the file"
    )
    return TokenizerError(f"{source}: {part} is not supported", advice)
