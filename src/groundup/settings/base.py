"""What every settings class is made of: knobs, checks in words, TOML files, presets.

In: keyword arguments, a TOML file or the name of a preset. Out: a validated object, or an error that names the nearest
setting. Order: defaults < TOML file < flags.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from groundup.errors import SettingsError, nearest


def knob(
    default: Any, text: str, *, group: str = "", positional: bool = False, stdin: bool = False, **bounds: Any
) -> Any:
    """One setting: its default, its help text, the `--help` group it stands in, and bounds such as `gt=0`.

    `positional`: may be given without its flag. `stdin`: may be `-`, which reads standard input.
    """
    extra: dict[str, Any] = {"group": group, "positional": positional, "stdin": stdin}
    return Field(default, description=text, json_schema_extra=extra, **bounds)


# Settings whose word Python keeps for itself: the flag is the word, a TOML file may use either, and we write the name.
WORDS = {"from_model": "from"}
SPELLINGS = {"f32": "fp32", "f16": "fp16"}  # llama.cpp's words for number formats, and torch's


def in_torch(dtype: str) -> str:
    """A number format in torch's spelling.

    >>> in_torch("f16"), in_torch("bf16")
    ('fp16', 'bf16')
    """
    return SPELLINGS.get(dtype, dtype)


def in_llama_cpp(dtype: str) -> str:
    """A number format in llama.cpp's spelling.

    >>> in_llama_cpp("fp16"), in_llama_cpp("q8_0")
    ('f16', 'q8_0')
    """
    return next((ours for ours, theirs in SPELLINGS.items() if theirs == dtype), dtype)


Positive = Annotated[int, Field(gt=0)]
Device = Literal["auto", "cpu", "cuda", "mps"]
Dtype = Annotated[Literal["auto", "fp32", "bf16", "fp16", "f32", "f16"], AfterValidator(in_torch)]
Family = Literal["gpt2", "llama", "qwen3", "bigram"]
Span = Annotated[str, Field(pattern=r"^\d+(\.\d+)?[smh]?$")]  # "500" steps, "90s", "2m", "1.5h"


class Settings(BaseModel):
    """Base of all settings: immutable, no unknown names, every value checked.

    >>> from groundup.settings import Generate
    >>> Generate.create(model="runs/a", temperature=0.5).temperature
    0.5
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), defer_build=True)

    @classmethod
    def create(cls, *, config: Path | None = None, **flags: Any) -> Self:
        """Build from defaults < TOML file `config` < `flags`; raises SettingsError naming the setting and the value."""
        values = {spelled(name): value for name, value in (read_toml(config) if config else {}).items()}
        for name in [*values, *flags]:
            if name not in cls.model_fields:
                where = f" in {config}" if name in values else ""
                raise SettingsError(f"unknown setting '{name}'{where}", nearest(name, cls.model_fields))
        try:
            return cls(**{**cls.without_conflicts(values, flags), **flags})
        except ValidationError as error:
            raise SettingsError(*_explain(error, cls.model_fields)) from None

    @classmethod
    def without_conflicts(cls, file: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
        """The settings of a TOML file that can stand beside these flags: all, unless a class says otherwise."""
        return file

    def to_toml(self) -> str:
        """The settings as TOML, in declaration order; a setting that is None is left out."""
        import tomli_w

        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed, checked again; those that nobody gave stay so (`model_fields_set`)."""
        given = {name: value for name, value in self.model_dump().items() if name in self.model_fields_set}
        return type(self).create(**{**given, **changes})


def command_of(file: Path) -> str:
    """The command that made a run, from the first line of its settings.toml; the earliest runs were all of pretrain.

    >>> command_of(Path("no/such/settings.toml"))
    'pretrain'
    """
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            found = re.match(r"# groundup ([\w-]+)", lines.readline())
    except OSError:
        found = None
    return found[1] if found else "pretrain"


PRESETS = Path(__file__).parents[1] / "presets"


def presets() -> dict[str, str]:
    """The settings files that come with the package: name -> what it is for, its first line.

    >>> sorted(presets())[0]
    'cpu'
    """
    files = {path.stem: path.read_text(encoding="utf-8") for path in sorted(PRESETS.glob("*.toml"))}
    return {name: text.splitlines()[0].removeprefix("#").strip() for name, text in files.items()}


def read_toml(path: Path) -> dict[str, Any]:
    """Read a settings file, or the preset of that name; raises SettingsError with line and column if it is no TOML."""
    if not Path(path).exists() and (PRESETS / f"{path}.toml").exists():
        path = PRESETS / f"{path}.toml"
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(presets())
        fix = f"check the path after --config, or name one of: {known}"
        raise SettingsError(f"no settings file at {path}", fix) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"cannot read the settings file {path}: {error}", "give a readable UTF-8 TOML file"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}", "write one `name = value` per line") from None


def _explain(error: ValidationError, fields: Mapping[str, FieldInfo]) -> tuple[str, str]:
    """Turn the first complaint of pydantic into (what happened, what to do)."""
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    value, message = first.get("input"), first["msg"].removeprefix("Value error, ")
    if not name or first["type"] == "value_error":
        return message, "see --help"
    field = fields[name]
    choices = _choices(field.annotation) if first["type"] == "literal_error" else []
    if first["type"] == "string_pattern_mismatch":
        return f"'{name}' cannot be {value!r}", str(field.description)
    fix = nearest(str(value), choices) if choices else f"{message[0].lower()}{message[1:]}"
    return f"'{name}' cannot be {value!r}", f"{fix} ({field.description})" if not choices else fix


def _choices(annotation: Any) -> list[str]:
    """The words a Literal allows, also inside `Literal[...] | None`."""
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return [word for part in get_args(annotation) for word in _choices(part)]


def positional(cls: type[Settings]) -> list[str]:
    """Names of the settings that may be given without a flag."""
    return [name for name, field in cls.model_fields.items() if extra(field).get("positional")]


def flag(name: str) -> str:
    """The flag of a setting.

    >>> flag("max_tokens"), flag("from_model")
    ('--max-tokens', '--from')
    """
    return f"--{WORDS.get(name, name).replace('_', '-')}"


def spelled(word: str) -> str:
    """The name of the setting that a TOML file calls so.

    >>> spelled("from"), spelled("steps")
    ('from_model', 'steps')
    """
    return next((name for name, known in WORDS.items() if known == word), word)


def groups(cls: type[Settings]) -> list[str]:
    """The `--help` groups of a settings class, in flow order."""
    return list(dict.fromkeys(extra(field).get("group", "") for field in cls.model_fields.values()))


def extra(field: FieldInfo) -> dict[str, Any]:
    """What `knob` noted about a setting: `group`, `positional`, `stdin`."""
    noted = field.json_schema_extra
    return dict(noted) if isinstance(noted, dict) else {}
