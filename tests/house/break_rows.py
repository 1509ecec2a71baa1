"""Breaks what working rows of docs/coverage.md rest on, one at a time, and sees their tests fail.

    python tests/house/break_rows.py --seed 1 --count 10

Each breakage is one changed line in a copy of the repository; the tests named beside it are tests of its rows. A row
whose tests all pass on broken code is a row that nobody asserts. Exit status 1 if there is one.
"""

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import capabilities
from survey import PACKAGE, ROOT


@dataclass(frozen=True)
class Break:
    """One line spoiled: `old` stands once in `file` (of the package) and becomes `new`; `tests` must notice."""

    rows: str
    what: str
    file: str
    old: str
    new: str
    tests: str  # as `file::test`, below tests/, one or more


SHOWN = "lessons/test_ladder.py::test_a_rung_shows_all_its_figures_as_they_are"  # [lesson] behind it

BREAKS = [
    Break("T09", "the error does not say which word is unknown", "tokens/simple.py",
          'f"unknown word {error.args[0]!r} at', 'f"unknown word at',
          "tokens/test_simple.py::test_the_books_first_word_tokenizer"),
    Break("T10", "an unknown word becomes the first word", "tokens/simple.py",
          "self._vocab.get(word, unknown)", "self._vocab.get(word, 0)",
          "tokens/test_simple.py::test_the_books_second_word_tokenizer"),
    Break("T11 L10", "padding counts in the loss", "losses/language.py",
          "return (each if weight is None else each * weight.flatten()).sum(), {}", "return each.sum(), {}",
          "losses/test_language.py::test_weight_zero_gives_no_loss_and_no_gradient"),
    Break("T15", "a word counts once, however often it occurs", "tokens/bpe.py",
          "counts[pair] += times[index]", "counts[pair] += 1",
          "tokens/test_bpe.py::test_first_merges_worked_by_hand tokens/test_fast.py::test_learning_equals_the_oracle"),
    Break("L01", "targets are the inputs themselves", "batches/batch.py",
          "tokens, targets = rows[:, :-1], rows[:, 1:]", "tokens, targets = rows[:, :-1], rows[:, :-1]",
          "batches/test_batch.py::test_targets_are_the_inputs_one_place_later"),
    Break("L02", "the last window is left out", "batches/windows.py",
          "return len(range(0, len(self.tokens) - self.length, self.stride))",
          "return len(range(1, len(self.tokens) - self.length, self.stride))",
          "batches/test_windows.py::test_windows_equal_the_plain_loop"),
    Break("L09", "the order does not listen to the seed", "batches/loader.py",
          "seed=self.seed) if self.shuffle else places", "seed=0) if self.shuffle else places",
          "batches/test_loader.py::test_seed_and_epoch_change_the_order"),
    Break("E01", "the tables of the book's networks are drawn too small", "model/gpt.py",
          "module.weight.normal_(0.0, 1.0, ", "module.weight.normal_(0.0, 0.02, ",
          "lessons/test_embeddings.py::test_the_library_table_holds_the_printed_rows"),
    Break("E03", "positions are not added", "model/gpt.py",
          "x = x + self.position_table(positions)", "x = x + 0 * self.position_table(positions)",
          "lessons/test_embeddings.py::test_places_are_added_alike_to_every_row_of_the_batch"),
    Break("E04", "rotary positions turn the wrong way in one half", "model/gpt.py",
          "first * cos - second * sin", "first * cos + second * sin",
          "model/test_gpt.py::test_with_rotary_positions_only_the_distance_counts"),
    Break("A02", "the stable softmax forgets to subtract the maximum", "lessons/book/attention_scores.py",
          "softmax_naive(scores - scores.amax(dim=-1, keepdim=True))", "softmax_naive(scores)",
          "lessons/test_attention_scores.py::test_only_the_stable_softmax_survives_large_scores"),
    Break("A04 A22", "the causal mask is flipped", "model/gpt.py",
          ".tril(keys - time)", ".triu(keys - time)",
          "model/test_gpt.py::test_attention_by_hand_equals_plain_loops"
          " model/test_gpt.py::test_fast_attention_equals_the_one_by_hand"),
    Break("A08", "striking out keeps the future instead of the past", "lessons/book/causal_mask.py",
          "weights * torch.ones_like(weights).tril()", "weights * torch.ones_like(weights).triu()",
          "lessons/test_causal_mask.py::test_struck_out_and_shared_anew"),
    Break("A09 A19", "each token sees the next one", "model/attend.py",
          "dtype=dtype).triu(1)", "dtype=dtype).triu(2)",
          "model/test_attend.py::test_causal model/test_gpt.py::test_nobody_sees_the_future"),
    Break("A10", "what dropout leaves is not scaled up", "model/dropout.py",
          ".mul_(65_536 / (65_536 - dropped))", "",
          "model/test_attend.py::test_dropout_rate_and_mean"),
    Break("A18", "scores are not scaled", "model/gpt.py",
          "scores = scores / math.sqrt(q.shape[3])", "scores = scores / 1.0",
          "lessons/test_one_head.py::test_scores_are_divided_by_the_root_of_the_head_size"),
    Break("M02", "the variance is the unbiased one", "lessons/book/feed_forward.py",
          "correction=0 if self.biased else 1", "correction=1",
          f"{SHOWN}[feed_forward]"),
    Break("M08", "a tied head is counted twice", "model/config.py",
          "(1 if config.tie else 2)", "2",
          "model/test_config.py::test_counts_equal_the_built_network"),
    Break("M12", "the shortcut's dropout listens to the embedding's rate", "model/gpt.py",
          "Dropout(config.dropout_shortcut,", "Dropout(config.dropout_embedding,",
          "model/test_gpt.py::test_each_dropout_acts_in_training_and_only_there"
          " model/test_gpt.py::test_dropout_hits_the_place_it_is_named_after"),
    Break("G01 G09", "the least likely token is chosen", "generate/sample.py",
          "return logits.argmax(dim=-1)", "return logits.argmin(dim=-1)",
          "generate/test_decode.py::test_by_hand_is_the_plain_loop"
          " generate/test_decode.py::test_top_k_1_is_greedy_at_any_temperature"),
    Break("G04", "the temperature is ignored", "generate/sample.py",
          " / max(temperature, COLDEST)", "",
          "generate/test_sample.py::test_temperatures_of_the_book"),
    Break("G06", "top-k keeps one more", "generate/sample.py",
          "logits.topk(k, dim=-1)", "logits.topk(k + 1, dim=-1)",
          "generate/test_sample.py::test_top_3_of_the_book"),
    Break("G07", "the end token does not end a text", "generate/decode.py",
          "over or new in ends", "over",
          "generate/test_decode.py::test_a_row_ends_with_the_end_id_and_the_others_go_on"),
    Break("G10", "top-p stops one token early", "generate/sample.py",
          "out = before >= p", "out = before + probability >= p",
          "generate/test_sample.py::test_top_p_is_the_smallest_set_that_reaches_p"),
    Break("P03", "perplexity to the base 2", "evaluate/likelihood.py",
          "return math.exp(loss)", "return 2**loss",
          "evaluate/test_likelihood.py::test_a_clueless_model_scores_the_logarithm_of_its_vocabulary"),
    Break("P05", "the optimizer never steps", "train/loop.py",
          "if not skipped:", "if skipped:",
          "train/test_loop.py::test_one_step_by_hand"),
    Break("P06", "epochs are counted in tokens", "report/curves.py",
          'return placed / run.epoch if axis == "epochs" and run.epoch else placed', "return placed",
          "report/test_curves.py::test_axes_by_hand"),
    Break("P08", "each micro-batch is divided by its own size", "train/loop.py",
          "share = value / total", "share = value / batch.count",
          "train/test_loop.py::test_accumulation_equals_the_big_batch"),
    Break("P11", "the warm-up is one step ahead", "optim.py",
          "(self.peak - self.initial) * step / self.warmup", "(self.peak - self.initial) * (step + 1) / self.warmup",
          "test_optim.py::test_the_book_warmup"),
    Break("P12", "a straight line instead of a cosine", "optim.py",
          "(1 + math.cos(math.pi * done)) / 2", "(1 - done)",
          "test_optim.py::test_the_book_cosine"),
    Break("P13", "gradients are never clipped", "optim.py",
          "    if norm > 0:\n", "    if norm < 0:\n",
          "test_optim.py::test_the_book_clipping train/test_loop.py::test_clipping_by_hand"),
    Break("C01", "one ham too many is kept", "text/labelled.py",
          'f"balance {seed}")[:least]}', 'f"balance {seed}")[: least + 1]}',
          "text/test_labelled.py::test_undersampling_takes_as_many_of_each"),
    Break("C02", "filler is judged instead of the last real token", "model/heads.py",
          "return states[torch.arange(batch, device=states.device), lengths - 1]", "return states[:, -1]",
          "model/test_heads.py::test_the_last_real_token_is_judged lessons/test_spam.py"
          "::test_rows_of_equal_length_and_the_last_real_token"),
    Break("C03", "the last norm stays frozen", "model/surgery.py",
          '"last-block": [trunk.blocks[-1], trunk.norm, head]', '"last-block": [trunk.blocks[-1], head]',
          "lessons/test_spam.py::test_only_what_is_chosen_learns"),
    Break("C04", "the least likely class counts as chosen", "losses/classes.py",
          "logits.detach().argmax(dim=1) == labels", "logits.detach().argmin(dim=1) == labels",
          "losses/test_classes.py::test_sum_by_hand"),
    Break("I01", "a twentieth less is learnt from", "text/conversations.py",
          "BOOK = (0.85, 0.10)", "BOOK = (0.80, 0.10)",
          "stages/test_instruct.py::test_the_books_parts"),
    Break("I02", "filler is learnt", "batches/rows.py",
          "learn = np.zeros((len(rows), longest), dtype=np.float32)",
          "learn = np.ones((len(rows), longest), dtype=np.float32)",
          "batches/test_rows.py::test_filling_up_changes_nothing"),
    Break("I03", "targets of rows are their inputs", "batches/rows.py",
          'fields = {"targets": tokens[:, 1:], "weight": weight}',
          'fields = {"targets": tokens[:, :-1], "weight": weight}',
          "batches/test_rows.py::test_two_rows_by_hand"),
    Break("I06", "the expected answer is kept as the model's", "evaluate/answers.py",
          'return fields | kind | {"model_response": answer}',
          'return fields | kind | {"model_response": fields.get("output", answer)}',
          "commands/test_respond.py::test_alpaca_comes_back_with_the_answers_beside"),
    Break("I08", "questions are written as answers", "text/conversations.py",
          '"output": answer["content"]}', '"output": question["content"]}',
          "text/test_conversations.py::test_alpaca_is_written_as_litgpt_and_axolotl_read_it"),
    Break("R05", "merging forgets alpha / rank", "model/adapted.py",
          "change = part.scale * (self.B[part.name] @ self.A[part.name])",
          "change = 1.0 * (self.B[part.name] @ self.A[part.name])",
          "model/test_lora.py::test_merging_is_the_same_network"),
    Break("X06", "accuracy takes every batch for a full one", "lessons/appendix/data_loaders.py",
          "return right / seen", "return right / (len(loader) * loader.batch_size)",
          "lessons/test_data_loaders.py::test_accuracy_counts_rows"),
]  # fmt: skip


def misfits(breaks: Iterable[Break]) -> list[str]:
    """What is wrong with the table itself: a line that is not there once, a test that is none of its rows."""
    known = {row.id: row for row in capabilities.rows()}
    found = []
    for one in breaks:
        times = (PACKAGE / one.file).read_text(encoding="utf-8").count(one.old)
        if times != 1:
            found.append(f"{one.rows}: {one.file} has {one.old!r} {times} times")
        for id in one.rows.split():
            if known[id].state != "works" or not asserting(known[id]) & {f"tests/{test}" for test in one.tests.split()}:
                found.append(f"{id}: none of {one.tests} is a test of this row")
    return found


def asserting(row: capabilities.Row) -> set[str]:
    """The tests of a row, among them those that climb the rungs its figures are shown on."""
    shown = {f"tests/{SHOWN}[{one['lesson']}]" for one in capabilities.figures_of(row) if one["status"] == "holds"}
    return shown | set(capabilities.tests_of(row))


def copy_of_all(folder: Path) -> Path:
    """What the tests need, copied; compiled files stay behind, or a change within the same second might go unseen."""
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run(folder: Path, tests: Iterable[str]) -> tuple[int, list[str]]:
    """pytest's exit status on tests of the copy, and the names of those that failed."""
    source = str(folder / "src")
    data = os.environ.get("GROUNDUP_DATA", str(ROOT.parent / "shared" / "data"))
    environment = os.environ | {"PYTHONPATH": source, "PYTHONDONTWRITEBYTECODE": "1", "GROUNDUP_DATA": data}
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += [f"tests/{test}" for test in tests]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=900, check=False
    )
    return done.returncode, sorted(set(re.findall(r"^(?:FAILED|ERROR) \S+::(\w+)", done.stdout, flags=re.MULTILINE)))


def failing(folder: Path, one: Break) -> list[str]:
    """Spoil the line, run its tests, mend it: the names of the tests that failed."""
    file = folder / "src" / "groundup" / one.file
    text = file.read_text(encoding="utf-8")
    try:
        file.write_text(text.replace(one.old, one.new), encoding="utf-8", newline="\n")
        return run(folder, one.tests.split())[1]
    finally:
        file.write_text(text, encoding="utf-8", newline="\n")


def unnoticed(one: Break, failed: Iterable[str]) -> list[str]:
    """The rows of a breakage none of whose own tests is among those that failed."""
    known = {row.id: row for row in capabilities.rows()}
    names = {id: {re.sub(r".*::|\[.*", "", test) for test in asserting(known[id])} for id in one.rows.split()}
    return [id for id, own in names.items() if not own & set(failed)]


def main() -> int:
    """Break some rows, picked at random, and print what noticed."""
    parser = argparse.ArgumentParser(description="break what rows rest on, and see their tests fail")
    parser.add_argument("--seed", type=int, default=0, help="which are picked")
    parser.add_argument("--count", type=int, default=10, help=f"how many, of {len(BREAKS)}")
    chosen = parser.parse_args()
    if wrong := misfits(BREAKS):
        sys.exit("\n".join(wrong))
    picked = random.Random(chosen.seed).sample(BREAKS, min(chosen.count, len(BREAKS)))
    missed: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = copy_of_all(Path(name))
        status, failed = run(folder, sorted({test for one in picked for test in one.tests.split()}))
        if status:
            sys.exit(f"the tests must pass before anything is broken, but: {failed or f'status {status}'}")
        print("| row | broken on purpose | tests that fail |\n|---|---|---|")
        for one in picked:
            failed = failing(folder, one)
            missed += unnoticed(one, failed)
            print(f"| {one.rows.replace(' ', ', ')} | {one.what} | {', '.join(failed) or '**none**'} |", flush=True)
    rows = [id for one in picked for id in one.rows.split()]
    print(f"{len(picked)} breakages of {len(rows)} rows; unnoticed: {' '.join(missed) or 'none'}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
