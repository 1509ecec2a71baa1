"""Every knob, in the order the data flows: one flat, frozen settings class per command.

A default is written here once; flags, `--help`, the reference pages and `settings.toml` are derived from it.
"""

from groundup.settings.base import (
    Device,
    Dtype,
    Family,
    Positive,
    Settings,
    Span,
    extra,
    flag,
    groups,
    knob,
    positional,
    presets,
    read_toml,
)
from groundup.settings.data import (
    Prepare,
    TextSettings,
    TokenizerDecode,
    TokenizerEncode,
    TokenizerShow,
    TokenizerTrain,
    TokenizeSettings,
)
from groundup.settings.exchange import Export, Import, Models
from groundup.settings.training import Decided, Pretrain
from groundup.settings.using import Demo, Evaluate, Generate, Info, Lesson, Report, Reproduce

__all__ = [
    "Decided",
    "Demo",
    "Device",
    "Dtype",
    "Evaluate",
    "Export",
    "Family",
    "Generate",
    "Import",
    "Info",
    "Lesson",
    "Models",
    "Positive",
    "Prepare",
    "Pretrain",
    "Report",
    "Reproduce",
    "Settings",
    "Span",
    "TextSettings",
    "TokenizeSettings",
    "TokenizerDecode",
    "TokenizerEncode",
    "TokenizerShow",
    "TokenizerTrain",
    "extra",
    "flag",
    "groups",
    "knob",
    "positional",
    "presets",
    "read_toml",
]
