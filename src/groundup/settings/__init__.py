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
from groundup.settings.training import Decided, Pretrain, Settled, Training
from groundup.settings.tuning import (
    Chat,
    Classify,
    Instruct,
    Judge,
    Predict,
    Respond,
    ShowBatch,
    Tuning,
    Writing,
)
from groundup.settings.using import Demo, Evaluate, Generate, Info, Lesson, Report, Reproduce

__all__ = [
    "Chat",
    "Classify",
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
    "Instruct",
    "Judge",
    "Lesson",
    "Models",
    "Positive",
    "Predict",
    "Prepare",
    "Pretrain",
    "Report",
    "Reproduce",
    "Respond",
    "Settings",
    "Settled",
    "ShowBatch",
    "Span",
    "TextSettings",
    "TokenizeSettings",
    "TokenizerDecode",
    "TokenizerEncode",
    "TokenizerShow",
    "TokenizerTrain",
    "Training",
    "Tuning",
    "Writing",
    "extra",
    "flag",
    "groups",
    "knob",
    "positional",
    "presets",
    "read_toml",
]
