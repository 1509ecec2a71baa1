"""Settings of the stages that tune a model, and of the commands that use what they made.

In: flags, TOML. Out: `Tuning`, what all such stages share; `Classify`, `Instruct`; `Predict`, `Chat`, `Respond`,
`ShowBatch`, `Judge`.
"""

from pathlib import Path
from typing import Any, ClassVar, Literal

from groundup.settings.base import Device, Dtype, Positive, Settings, knob
from groundup.settings.training import GENTLY, Settled, Training

MODEL = "run folder, RUN/best, model folder, .gguf ... or name (`groundup models`)"
RATES = {"all": 1.0, "last-block": 1.0, "head": 20.0, "lora": 5.0}  # the fewer numbers learn, the larger their steps


class Tuning(Training):
    """What every stage shares that goes on from a model which has learnt already."""

    model: str = knob("", f"the model to tune: {MODEL}", group="Model", positional=True)
    context: Positive | None = knob(
        None, "tokens of a row at most, longer ones are cut; by default the model's own, at most 1,024", group="Model"
    )
    train: Literal["all", "last-block", "head", "lora"] = knob(
        "all", "what learns: every weight; the last block, final norm and head; the head; adapters", group="Model"
    )
    lora_rank: Positive = knob(16, "rank of the adapters of --train lora", group="Model")
    lora_alpha: float = knob(16.0, "their strength: what they add is scaled by alpha / rank", group="Model", gt=0)
    lora_dropout: float = knob(0.0, "dropout on what enters an adapter", group="Model", ge=0, lt=1)
    lora_targets: list[str] = knob(
        [], "matrices that get one: query key value out gate up down head; by default all in the blocks", group="Model"
    )
    data: list[str] = knob([], "files, or a name of the catalog (`groundup info --data`)", group="Text")
    validation: float = knob(0.1, "share of the rows kept for validation", group="Text", gt=0, lt=1)
    test: float = knob(0.1, "share of the rows kept for the test at the end", group="Text", ge=0, lt=1)
    protocol: Literal["own", "book"] = knob(
        "own", "book: divide the data as the book does, for its figures", group="Text"
    )
    batching: Literal["bucketed", "padded", "packed"] = knob(
        "bucketed",
        "bucketed: rows of like length together; padded: in any order, filled up to the longest of the batch; "
        "packed: whole rows side by side, each sees only itself",
        group="Batches",
    )
    batch: Positive = knob(8, "rows per step, over all ranks", group="Batches")

    alike: ClassVar[bool] = False

    @property
    def share_of_rate(self) -> float:
        """Share of a new network's learning rate that is the default."""
        return GENTLY * RATES[self.train]

    @property
    def without_effect(self) -> list[str]:
        """Settings of adapters that were given, where none are made.

        >>> Instruct(train="head", lora_rank=16).without_effect, Instruct(train="lora", lora_rank=16).without_effect
        (['lora_rank'], [])
        """
        given = [name for name in type(self).model_fields if name in self.model_fields_set]
        return [] if self.train == "lora" else [name for name in given if name.startswith("lora_")]


class Classify(Tuning):
    """Teach a model to tell classes of text apart, from a file of labels."""

    data: list[str] = knob(
        ["harbor-messages"],
        ".csv, .tsv, .jsonl or .parquet (also .gz, .zst), or a name: sms-spam, harbor-messages[:COUNT[:SEED]]",
        group="Text",
    )
    text_field: str = knob("text", "column or field that holds the text", group="Text")
    label_field: str = knob("label", "column or field that holds the class", group="Text")
    pair_field: str | None = knob(None, "column or field of a second text, read behind the first", group="Text")
    balance: Literal["none", "undersample", "weights"] = knob(
        "none",
        "undersample: as many rows of each class as the rarest has; weights: rare classes count more",
        group="Text",
    )
    test: float = knob(0.2, "share of the rows kept for the test at the end", group="Text", ge=0, lt=1)
    pooling: Literal["last", "first", "mean"] = knob(
        "last",
        "whose state is judged: the last real token (what transformers reads), the first, the mean",
        group="Model",
    )
    head_bias: bool = knob(False, "a bias in the head; transformers would ignore it", group="Model")
    epochs: float | None = knob(None, "passes over the rows; 5 if no budget is given", group="Training", gt=0)

    command: ClassVar[str] = "classify"
    usual_epochs: ClassVar[float | None] = 5

    def settle(self, **decided: Any) -> "DecidedClassify":
        """The same settings with nothing left open."""
        return DecidedClassify.create(**self.model_dump() | decided)


class Instruct(Tuning):
    """Teach a model to answer, from instructions or conversations."""

    data: list[str] = knob(
        ["harbor-questions"],
        "JSON or JSONL: instruction/input/output (Alpaca), messages, or ShareGPT; or a name: instruction-data, "
        "harbor-questions[:COUNT[:SEED]]",
        group="Text",
    )
    template: str = knob(
        "auto",
        "how a conversation is written: alpaca, phi3, chatml, a .jinja file; auto: the model's own, else alpaca",
        group="Text",
    )
    learn: Literal["answers", "all", "marked"] = knob(
        "answers", "what the loss counts: the answers, every token, or the messages that the data marks", group="Text"
    )
    validation: float = knob(0.05, "share of the rows kept for validation", group="Text", gt=0, lt=1)
    epochs: float | None = knob(None, "passes over the rows; 2 if no budget is given", group="Training", gt=0)
    add_tokens: list[str] = knob(
        [], "special tokens to add to the tokenizer; those of the template are added anyway", group="Model"
    )
    sample_tokens: Positive = knob(100, "length of the samples", group="Watching")
    answers: int = knob(0, "at the end, write so many answers to the test rows into RUN/answers.json", ge=0)

    may_change_on_resume: ClassVar[frozenset[str]] = Training.may_change_on_resume | {"sample_tokens", "answers"}
    command: ClassVar[str] = "instruct"
    usual_epochs: ClassVar[float | None] = 2

    def settle(self, **decided: Any) -> "DecidedInstruct":
        """The same settings with nothing left open."""
        return DecidedInstruct.create(**self.model_dump() | decided)


class DecidedClassify(Settled, Classify):
    """Classification with nothing left open."""

    context: Positive


class DecidedInstruct(Settled, Instruct):
    """Instruction tuning with nothing left open."""

    context: Positive


class Predict(Settings):
    """Label texts with a classifier, and say how likely each class is."""

    model: str = knob("", "run of groundup classify, its best/, or a classifier's folder", positional=True)
    text: str | None = knob(None, "the text; - reads standard input", stdin=True)
    pair: str | None = knob(None, "its second text, for a classifier of pairs")
    file: Path | None = knob(
        None, "a file of texts: lines, or rows of .csv .tsv .jsonl .parquet; - reads lines", stdin=True
    )
    text_field: str = knob("text", "column or field that holds the text")
    pair_field: str | None = knob(None, "column or field of the second text")
    label_field: str | None = knob(None, "column or field of the true class: the accuracy is then printed")
    batch: Positive = knob(32, "texts per forward pass")
    out: Path | None = knob(None, "write one JSON object a line here")
    device: Device = knob("auto", "where to compute")
    dtype: Dtype = knob("auto", "bf16 where the hardware has it, else fp32")
    threads: Positive | None = knob(None, "CPU threads; by default all cores")


class Writing(Settings):
    """What the commands share that let a model answer."""

    model: str = knob("", MODEL, positional=True)
    template: str = knob("auto", "alpaca, phi3, chatml, a .jinja file; auto: the model's own")
    max_tokens: Positive = knob(256, "tokens of an answer at most")
    temperature: float = knob(0.0, "0 is greedy; below 1 safer, above 1 wilder", ge=0)
    top_k: int = knob(0, "keep only the k most likely tokens; 0 keeps all", ge=0)
    top_p: float = knob(1.0, "keep the smallest set of tokens with this probability", gt=0, le=1)
    seed: int | None = knob(None, "same seed, same answers", ge=0, lt=2**63)
    device: Device = knob("auto", "where to compute")
    dtype: Literal["auto", "fp32", "bf16", "int8"] = knob("auto", "auto: as stored in the folder")
    threads: Positive | None = knob(None, "CPU threads; by default all cores")


class Chat(Writing):
    """Talk with a model in the terminal."""

    system: str | None = knob(None, "what the model is told first")
    temperature: float = knob(0.7, "0 is greedy; below 1 safer, above 1 wilder", ge=0)


class Respond(Writing):
    """Write a model's answers to a file of instructions or conversations."""

    data: str = knob("", "instructions or conversations, as for groundup instruct")
    out: Path | None = knob(None, "the file of answers; a run cut off goes on where it was")
    limit: Positive | None = knob(None, "only the first so many")
    batch: Positive = knob(16, "answers written side by side")


class ShowBatch(Settings):
    """Show what a training step sees: every token, and whether it is learnt, ignored, special or padding."""

    stage: Literal["pretrain", "instruct", "classify", "reward", "dpo"] = knob(
        "instruct", "pretrain, instruct, classify, reward or dpo", positional=True
    )
    data: list[str] = knob([], "as for the stage")
    model: str = knob("", f"whose tokenizer and template: {MODEL}")
    tokenizer: str | None = knob(None, "for pretrain: gpt2, a tokenizer.json ... where there is no model")
    template: str = knob("auto", "not for pretrain, classify: alpaca, phi3, chatml, a .jinja file, auto")
    add_tokens: list[str] = knob([], "not for pretrain, classify: special tokens to add to the tokenizer")
    learn: Literal["answers", "all", "marked"] = knob("answers", "for instruct: what the loss counts")
    batching: Literal["bucketed", "padded", "packed"] = knob("bucketed", "how rows share a batch")
    text_field: str = knob("text", "for classify: column or field that holds the text")
    label_field: str = knob("label", "for classify: column or field that holds the class")
    context: Positive | None = knob(None, "tokens of a row at most; by default the model's own, at most 1,024")
    batch: Positive = knob(4, "rows of the batch")
    rows: Positive = knob(4, "rows to show")
    seed: int = knob(1337, "seed of the order", ge=0, lt=2**63)
    html: Path | None = knob(None, "write the same as a page")


class Judge(Settings):
    """Let a language model score answers, after judging the judge."""

    data: Path | None = knob(None, "answers as groundup respond writes them", positional=True)
    against: Path | None = knob(None, "a second file of answers to the same questions: for --scale pairwise, or beside")
    judge: str = knob(
        "ollama:llama3",
        "ollama:MODEL, the address of an OpenAI-compatible server (http://host:port/v1), or a model of ours",
    )
    name: str = knob("", "the model that an OpenAI-compatible server is asked for")
    scale: Literal["100", "rubric", "pairwise"] = knob(
        "100", "0 to 100 against the reference; 1 to 5 by a rubric; which of two is better, asked both ways"
    )
    rubric: Path | None = knob(None, "a text file that says what 1 to 5 stand for")
    limit: Positive | None = knob(None, "only the first so many answers")
    repeats: Positive = knob(1, "ask so many times, and say how far the scores agree")
    check: bool = knob(True, "first judge the judge: its scores of references against shuffled answers")
    check_size: Positive = knob(100, "references and shuffled answers of that check")
    anyway: bool = knob(False, "use a judge that the check found unfit")
    out: Path | None = knob(None, "folder for scores, cache and picture; by default beside the answers")
    concurrency: Positive = knob(1, "requests at once")
    timeout: float = knob(120.0, "seconds to wait for one answer", gt=0)
    api_key_env: str = knob(
        "", "environment variable that holds the key, where a server wants one; OPENAI_API_KEY for openai.com alone"
    )
    seed: int = knob(123, "seed of the check and of the judge", ge=0, lt=2**63)
    threads: Positive | None = knob(None, "CPU threads of a model of ours; by default all cores")
