"""`groundup judge`: from files of answers to a table, a picture and an exit status; the judge is judged first."""

import importlib.util
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from groundup import cli
from groundup.checkpoint import consumers
from groundup.commands.judge import Result, _wish, run, show
from groundup.errors import DataError, GroundupError, SettingsError
from groundup.evaluate.judge import server as judge_server
from groundup.evaluate.judge.places import key_for
from groundup.evaluate.judge.scores import ANSWER
from groundup.settings import Judge

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluate"))
from judge_loopback import Asked, Handler, Loopback, right, says, serving, status  # noqa: E402


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_server, "LONGEST_PAUSE", 0.02)


PNG = b"\x89PNG\r\n\x1a\n"
OF_ITS_SERVER = ("fastapi", "uvicorn", "sse_starlette", "starlette_context", "pydantic_settings")
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"


def answers(path: Path, *, wrong: int, count: int = 10) -> Path:
    """Sums with a model's answers, of which every `wrong`th is wrong."""
    rows = [
        {"instruction": "Add.", "input": f"{n} + 1", "output": str(n + 1), ANSWER: str(n + 1 + (n % wrong == 0))}
        for n in range(count)
    ]
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def settings(server: Loopback, data: Path, **more) -> Judge:
    return Judge(data=data, judge=f"{server.address}/v1", timeout=20, **more)


def judged(server: Loopback, data: Path, **more) -> Result:
    return run(settings(server, data, **more))


def test_a_file_is_judged_after_its_judge(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = answers(tmp_path / "after.json", wrong=5)
    with serving() as server:
        result = judged(server, data)
        assert len(server.questions) == 10 + 10 + 2  # expected, shuffled, and two wrong answers: eight are known
    assert result.check is not None and result.check.area == 1.0 and result.check.good == 10
    [row] = result.files
    assert (row.name, row.answers, row.scored, row.unusable) == ("after.json", 10, 10, 0)
    assert row.mean == 80.0 and row.median == 100.0 and row.low < 80 < row.high and result.ok
    assert (result.cost.asked, result.cost.known) == (22, 8) and result.cost.read > 0 and result.cost.uncounted == 0
    record = json.loads((tmp_path / "after-judged" / "scores.json").read_text(encoding="utf-8"))
    assert [one["score"] for one in record["answers"]] == [0.0 if n % 5 == 0 else 100.0 for n in range(10)]
    assert record["check"]["area"] == 1.0 and record["answers"][3]["question"] == "Add.\n3 + 1"
    assert result.picture is not None and result.picture.read_bytes().startswith(PNG)
    assert {path.name for path in result.out.iterdir()} == {"scores.json", "scores.png", "verdicts.jsonl"}
    said = capsys.readouterr()
    assert "ROC area 1.000" in said.err
    show(result)
    told = capsys.readouterr().out
    assert told.index("ROC area 1.000") < told.index("after.json: mean 80.00") and "22 questions" in told


def test_an_unfit_judge_scores_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = answers(tmp_path / "a.json", wrong=2)
    with serving(says('{"score": 50}')) as server:
        result = judged(server, data)
        assert result.check is not None and result.check.area == 0.5 and not result.ok
        assert not result.files and result.picture is None and len(server.questions) == 20
        show(result)
        assert "UNFIT" in capsys.readouterr().out
        words = ["judge", str(data), "--judge", f"{server.address}/v1"]
        assert cli.main(words) == 1 and "nothing was scored" in capsys.readouterr().out
        assert len(server.questions) == 20  # the check was kept
        assert cli.main([*words, "--anyway", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["files"][0]["mean"] == 50.0 and found["check"]["area"] == 0.5
        assert cli.main([*words, "--no-check", "--out", str(tmp_path / "other")]) == 0
        assert "not at all" in capsys.readouterr().out


def test_a_judging_that_was_cut_off_goes_on(tmp_path: Path):
    data = answers(tmp_path / "a.json", wrong=5)
    with serving(*[says(right)] * 7, status(500)) as server:
        with pytest.raises(GroundupError, match="repeat the command to go on"):
            run(settings(server, data))
    kept = (tmp_path / "a-judged" / "verdicts.jsonl").read_text(encoding="utf-8").splitlines()
    assert sum(json.loads(line)["value"] is not None for line in kept) == 7
    with serving() as server:  # at another address, which is another judge: nothing of the first may count
        assert run(settings(server, data)).cost.known == 8
        again = run(settings(server, data))
    assert (again.cost.asked, again.cost.known) == (0, 30) and again.files[0].mean == 80.0


def test_two_files_are_laid_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    after, before = answers(tmp_path / "after.json", wrong=5), answers(tmp_path / "before_$x.json", wrong=2)
    with serving() as server:
        result = judged(server, after, against=before, scale="rubric")
    assert [(row.name, row.mean) for row in result.files] == [("after.json", 4.2), ("before_$x.json", 3.0)]
    # after minus before: of ten, 0 is wrong in both, 5 only after, 2 4 6 8 only before
    assert result.difference is not None and result.difference[0] == pytest.approx((4 * 4 - 4) / 10)
    show(result)
    assert "difference   +1.20" in capsys.readouterr().out


def test_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    after, before = answers(tmp_path / "after.json", wrong=5), answers(tmp_path / "before.json", wrong=2, count=8)
    with serving() as server:
        result = judged(server, after, against=before, scale="pairwise", concurrency=3)
    pairs = result.pairs
    assert pairs is not None and result.check is not None and result.check.area == 1.0 and result.ok
    # eight questions: 5 is lost, 2 4 6 are won, 0 1 3 7 are the same
    assert (pairs.pairs, pairs.won, pairs.lost, pairs.tied, pairs.disagreed, pairs.unusable) == (8, 3, 1, 4, 0, 0)
    assert pairs.same == 4
    assert pairs.share == pytest.approx(5 / 8) and pairs.low < pairs.share < pairs.high and pairs.first_place == 0.5
    assert result.remarks == ["2 answers have no counterpart in the other file, and were left out"]
    assert result.picture is not None and result.picture.read_bytes().startswith(PNG)
    show(result)
    assert "3 won, 1 lost, 4 tied" in capsys.readouterr().out


def test_repeats_and_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = answers(tmp_path / "a.json", wrong=5)
    with serving() as server:
        result = judged(server, data, repeats=3, limit=4, check=False)
        assert {one.body["seed"] for one in server.questions} == {123, 124, 125} and len(server.questions) == 12
    repeats = result.files[0].repeats
    assert repeats is not None and (repeats.pairs, repeats.equal, repeats.alpha) == (12, 1.0, 1.0)
    show(result)
    assert "100% equal" in capsys.readouterr().out


def test_asked_again_it_is_asked_at_a_temperature_and_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = answers(tmp_path / "a.json", wrong=5)
    with serving() as server:
        result = judged(server, data, repeats=2, limit=4)
        assert {one.body["temperature"] for one in server.questions} == {0.7}
        show(result)
        told = capsys.readouterr().out
        assert "asked again at temperature 0.7" in told and "judged 2 times at temperature 0.7" in told
        once = judged(server, data, limit=4)
        assert server.questions[-1].body["temperature"] == 0 and once.cost.known == 3  # of the check a moment ago
        assert not once.remarks and once.temperature == 0


def test_a_judge_that_takes_no_temperature_is_said_to_even_when_all_is_known(tmp_path: Path, capsys):
    def picky(handler: Handler, asked: Asked) -> None:
        if "temperature" in asked.body:
            return status(400, "Unsupported parameter: 'temperature'.")(handler, asked)
        return says(right)(handler, asked)

    data = answers(tmp_path / "a.json", wrong=5)
    with serving(picky) as server:
        first, again = (judged(server, data, repeats=2) for _ in range(2))
    assert again.cost.asked == 0 and first.remarks == again.remarks and again.temperature is None
    assert again.remarks == ["the judge takes no temperature: asked again, it may say something else"]
    show(again)
    told = capsys.readouterr().out
    assert "at temperature" not in told and "20 verdicts known before" in told


def test_scores_of_another_judging_are_not_overwritten(tmp_path: Path):
    data, other = answers(tmp_path / "a.json", wrong=5), answers(tmp_path / "b.json", wrong=2)
    with serving() as server:
        judged(server, data)
        kept, asked = (tmp_path / "a-judged" / "scores.json").read_bytes(), len(server.questions)
        for wishes, words in (
            ({"scale": "rubric"}, "scale 100"),
            ({"against": other}, "names a.json"),
            ({"against": other, "scale": "pairwise"}, "scale 100, names a.json"),
            ({"data": other, "out": tmp_path / "a-judged"}, "names a.json"),
        ):
            with pytest.raises(SettingsError, match=f"holds other scores: .*{words}") as raised:
                run(settings(server, **{"data": data, **wishes}))
            assert "--out" in raised.value.fix
        with serving() as second, pytest.raises(SettingsError, match="holds other scores: judge tiny at"):
            judged(second, data)
        assert len(server.questions) == asked and (tmp_path / "a-judged" / "scores.json").read_bytes() == kept
        again = judged(server, data)
        assert again.cost.asked == 0 and again.check_known == 20
        assert judged(server, data, scale="rubric", out=tmp_path / "rubric").ok
    record = json.loads((tmp_path / "a-judged" / "scores.json").read_text(encoding="utf-8"))
    assert record["cost"]["known_read"] > 0 and record["cost"]["read"] == 0


def test_a_judge_that_was_unfit_leaves_its_place_to_another(tmp_path: Path):
    data = answers(tmp_path / "a.json", wrong=5)
    with serving(says('{"score": 50}')) as server:
        assert not judged(server, data).ok
    with serving() as server:
        assert judged(server, data).ok
    (tmp_path / "a-judged" / "scores.json").write_text("[", encoding="utf-8")
    with serving() as server, pytest.raises(SettingsError, match="holds other scores: judge unknown"):
        judged(server, data)


def test_turns_of_conversations_are_judged_only_where_nothing_else_is(tmp_path: Path):
    talk = [{"role": "user", "content": "Add 1 + 1."}, {"role": "assistant", "content": "2"}]
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"messages": talk}) + "\n", encoding="utf-8")
    with serving(says('{"score": 70}')) as server:
        result = judged(server, path, check=False)
    assert result.files[0].mean == 70.0
    assert result.remarks == ["a.jsonl has no 'model_response': the last turn of each conversation was judged"]


def test_the_key_of_openai_goes_to_openai_without_being_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-a-test-0123456789")
    at_openai, elsewhere = "https://api.openai.com/v1", "https://example.org/v1"
    assert key_for(_wish(Judge(judge=at_openai))) == "key-of-a-test-0123456789"
    assert key_for(_wish(Judge(judge=elsewhere))) == ""
    assert key_for(_wish(Judge(judge=at_openai, api_key_env=""))) == ""
    monkeypatch.setenv("JUDGE_KEY", "another")
    assert key_for(_wish(Judge(judge=at_openai, api_key_env="JUDGE_KEY"))) == "another"


def test_answers_that_no_judge_can_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with serving(says("I would rather not.")) as server:
        result = judged(server, answers(tmp_path / "a.json", wrong=5), check=False)
    assert not result.ok and result.files[0].scored == 0 and result.files[0].unusable == 10
    assert json.loads((result.out / "scores.json").read_text(encoding="utf-8"))["files"][0]["mean"] is None
    show(result)
    assert "no usable score" in capsys.readouterr().out


def test_entries_without_an_answer_are_counted(tmp_path: Path):
    path = answers(tmp_path / "a.json", wrong=5)
    rows = json.loads(path.read_text(encoding="utf-8"))
    del rows[1]["model_response"]
    path.write_text(json.dumps(rows), encoding="utf-8")
    with serving() as server:
        result = judged(server, path, check=False)
    assert result.files[0].answers == 9 and result.remarks == ["1 of 10 entries of a.json have no answer, and no score"]


def test_a_rubric_of_ones_own(tmp_path: Path):
    (tmp_path / "r.txt").write_text("5: a number\n1: none\n", encoding="utf-8")
    with serving() as server:
        judged(server, answers(tmp_path / "a.json", wrong=5), scale="rubric", rubric=tmp_path / "r.txt", check=False)
        assert all("5: a number\n1: none" in one.prompt for one in server.questions)


@pytest.mark.parametrize(
    ("wishes", "error", "message"),
    [
        ({"data": None}, SettingsError, "no answers were given"),
        ({"scale": "pairwise"}, SettingsError, "compares two files"),
        ({"against": "a.json"}, SettingsError, "was given twice"),
        ({"rubric": "r.txt"}, SettingsError, "goes with --scale rubric, not 100"),
        ({"rubric": "none.txt", "scale": "rubric"}, DataError, "cannot read the rubric .*none.txt: No such file"),
        ({"out": "a.json"}, SettingsError, "is a file"),
        ({"check": True, "check_size": 1}, SettingsError, "cannot be checked by 1 answer"),
        ({"check": True, "check_size": 1, "judge": "http://127.0.0.1:1/v1"}, SettingsError, "by 1 answer"),
        ({"data": "bare.json"}, DataError, "none of 1 entries has 'model_response'"),
        ({"against": "else.json", "scale": "pairwise"}, DataError, "share no question"),
        ({"judge": "http://127.0.0.1:1/v1"}, GroundupError, "no judge answers at http://127.0.0.1:1/v1"),
        ({"judge": "no-such-model"}, GroundupError, "no-such-model"),
        ({"judge": "ollama:"}, SettingsError, "names no model"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_left(tmp_path: Path, wishes: dict, error: type, message: str):
    answers(tmp_path / "a.json", wrong=5)
    (tmp_path / "r.txt").write_text("5 good 1 bad", encoding="utf-8")
    (tmp_path / "bare.json").write_text('[{"instruction": "x", "output": "y"}]', encoding="utf-8")
    other = '[{"instruction": "x", "output": "y", "model_response": "z"}]'
    (tmp_path / "else.json").write_text(other, encoding="utf-8")
    before = sorted(tmp_path.iterdir())
    paths = {name: value for name, value in wishes.items() if name in {"data", "against", "rubric", "out"}}
    given = {name: value and tmp_path / value for name, value in paths.items()} | {
        name: value for name, value in wishes.items() if name not in paths
    }
    with serving() as server:
        defaults = {"data": tmp_path / "a.json", "judge": f"{server.address}/v1", "check": False}
        with pytest.raises(error, match=message):
            run(Judge.create(**{**defaults, **given}))
    assert sorted(tmp_path.iterdir()) == before


def test_a_key_is_sent_and_written_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("JUDGE_KEY", "key-of-a-test-0123456789")
    data = answers(tmp_path / "a.json", wrong=5)
    with serving() as server:
        words = ["judge", str(data), "--judge", f"{server.address}/v1", "--api-key-env", "JUDGE_KEY"]
        assert cli.main(words) == 0
        assert all(one.headers["Authorization"] == "Bearer key-of-a-test-0123456789" for one in server.asked)
    said = capsys.readouterr()
    files = b"".join(path.read_bytes() for path in (tmp_path / "a-judged").iterdir())
    assert "key-of-a-test" not in said.out + said.err and b"key-of-a-test" not in files


# a server of llama.cpp


@contextmanager
def llama_cpp(model: Path, folder: Path) -> Iterator[str]:
    """llama-cpp-python's own server on a free port."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--port", str(port), "--n_ctx", "2048"]
    log = folder / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            _wait(process, f"http://127.0.0.1:{port}/v1/models", log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen, address: str, log: Path) -> None:
    for _ in range(240):
        if process.poll() is not None:
            pytest.fail(f"llama_cpp.server does not start: {log.read_text(encoding='utf-8', errors='replace')[-300:]}")
        try:
            with urllib.request.urlopen(address, timeout=1):
                return
        except OSError:
            time.sleep(0.25)
    pytest.fail("llama_cpp.server is silent")


@pytest.mark.slow
def test_a_server_of_llama_cpp(data_dir: Path, tmp_path: Path):
    """SmolLM2 is no good judge; that it is asked, read, counted and told so is what is tested."""
    places = [Path(os.environ.get("GROUNDUP_SMOLLM2", "")), *data_dir.rglob(SMOLLM2)]
    model = next((path for path in places if path.is_file()), None)
    there = consumers.available("llama_cpp") and all(importlib.util.find_spec(name) for name in OF_ITS_SERVER)
    if model is None or not there:
        pytest.skip(f"needs llama-cpp-python[server], and {SMOLLM2} (GROUNDUP_SMOLLM2)")
    rows = json.loads((data_dir / "instruction" / "instruction-data.json").read_text(encoding="utf-8"))[:5]
    data = tmp_path / "a.json"
    data.write_text(json.dumps([row | {"model_response": row["output"]} for row in rows]), encoding="utf-8")
    with llama_cpp(model, tmp_path) as address:
        result = run(Judge(data=data, judge=address, anyway=True, timeout=120))
    assert result.check is not None and result.check.good == result.check.bad == 5
    assert 0 <= result.check.low <= result.check.area <= result.check.high <= 1
    assert result.cost.read > 100 * result.cost.asked / 2 and result.cost.uncounted == 0
    assert result.check.unusable <= 2 and result.files[0].scored >= 4
