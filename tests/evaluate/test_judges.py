"""The places a judge can be: what Ollama and OpenAI's kind are sent, how they are read; a model of ours by hand."""

import json
import math
import sys
import time
from pathlib import Path

import pytest
import torch

from groundup import tokens
from groundup.checkpoint import folder
from groundup.errors import CheckpointError, GroundupError, SettingsError
from groundup.evaluate.judge.asking import Answered, prompt, scale
from groundup.evaluate.judge.local import Local, continuations, fingerprint
from groundup.evaluate.judge.places import Ollama, OpenAI, Wish, key_for, ollama_address, opened
from groundup.evaluate.judge.server import Failed, Gone, TooLong
from groundup.model import BigramConfig, ModelConfig, build

sys.path.insert(0, str(Path(__file__).parent))
from judge_loopback import Asked, Handler, Loopback, right, says, serving, status  # noqa: E402

HUNDRED = scale("100")
GOOD = prompt(Answered("What is 2 + 2?", "4", "4", ""), HUNDRED)
BAD = prompt(Answered("What is 2 + 2?", "4", "5", ""), HUNDRED)
SECRET = "key-of-a-test-0123456789"


def openai(server: Loopback, *, model: str = "", key: str = "") -> OpenAI:
    return OpenAI(f"{server.address}/v1", model, timeout=20, key=key, pause=0.01)


@pytest.fixture
def ollama_at(monkeypatch: pytest.MonkeyPatch):
    def make(server: Loopback, model: str = "llama3") -> Ollama:
        monkeypatch.setenv("OLLAMA_HOST", server.address)
        return Ollama(model, timeout=20, pause=0.01)

    return make


# Ollama


def test_ollama_is_asked_as_its_api_wants_it(ollama_at):
    with serving() as server:
        judge = ollama_at(server)
        assert judge.ask(GOOD, HUNDRED, 7).text == '{"score": 100}'
        assert judge.ask(BAD, HUNDRED, 7).text == '{"score": 0}'
        asked = server.questions[0]
    assert asked.path == "/api/chat" and asked.body["model"] == "llama3" and asked.body["stream"] is False
    assert asked.body["messages"] == [{"role": "user", "content": GOOD}]
    assert asked.body["format"] == HUNDRED.schema
    options = asked.body["options"]
    assert (options["temperature"], options["seed"], options["num_ctx"]) == (0, 7, 2048)
    assert judge.name == f"ollama:llama3 at {server.address}" and "abc" in judge.identity  # the digest of the weights


def test_ollama_counts_tokens(ollama_at):
    with serving(says(right), says(right, usage=False)) as server:
        judge = ollama_at(server)
        first, second = judge.ask(GOOD, HUNDRED, 1), judge.ask(GOOD, HUNDRED, 1)
    assert (first.read, first.written) == (len(GOOD) // 4, len('{"score": 100}') // 4)
    assert (second.read, second.written) == (None, None)


def test_ollama_gets_room_for_the_longest_question(ollama_at):
    with serving() as server:
        judge = ollama_at(server)
        judge.prepare(20_000)
        judge.ask(GOOD, HUNDRED, 1)
        room = server.questions[0].body["options"]["num_ctx"]
        assert room >= 20_000 // 2 and room % 1024 == 0
    full = json.dumps({"message": {"content": '{"score": 1}'}, "prompt_eval_count": 2048}).encode()
    with serving(lambda handler, asked: handler.send(200, full)) as server:
        with pytest.raises(TooLong, match="fills the context of 2,048 tokens"):
            ollama_at(server).ask(GOOD, HUNDRED, 1)


def test_a_model_that_ollama_lacks_is_named_with_those_it_has(ollama_at):
    with serving() as server:
        with pytest.raises(Gone, match="has no model 'phi3'; it has: llama3:latest, other:1b") as raised:
            ollama_at(server, "phi3")
        assert "ollama pull phi3" in raised.value.fix
        assert ollama_at(server, "other:1b").identity == "ollama other:1b def temperature 0"


def test_where_ollama_listens():
    hosts = {":11500": "http://127.0.0.1:11500", "0.0.0.0:80": "http://127.0.0.1:80", "http://box": "http://box"}
    assert {host: ollama_address(host) for host in hosts} == hosts


# OpenAI's kind


def test_openai_is_asked_as_its_api_wants_it():
    with serving() as server:
        judge = openai(server, key=SECRET)
        reply = judge.ask(GOOD, HUNDRED, 9)
        asked = server.questions[0]
        assert all(one.headers["Authorization"] == f"Bearer {SECRET}" for one in server.asked)
    assert (reply.text, reply.read, reply.written) == ('{"score": 100}', len(GOOD) // 4, 3)
    assert asked.path == "/v1/chat/completions" and asked.body["model"] == "tiny"
    assert (asked.body["temperature"], asked.body["seed"], asked.body["stream"]) == (0, 9, False)
    form = asked.body["response_format"]
    assert form["type"] == "json_schema" and form["json_schema"]["schema"] == HUNDRED.schema
    assert judge.name == f"tiny at {server.address}/v1" and SECRET not in judge.identity


def test_an_address_without_a_path_gets_the_usual_one():
    with serving() as server:
        OpenAI(server.address, "", timeout=5).ask(GOOD, HUNDRED, 1)
        assert server.questions[0].path == "/v1/chat/completions"


@pytest.mark.parametrize(
    ("code", "knows"),
    [(400, "json_object"), (422, "json_object"), (500, "json_object"), (400, None)],
)
def test_a_form_of_reply_that_the_server_refuses_is_left_out(code: int, knows: str | None):
    def picky(handler: Handler, asked: Asked) -> None:
        if asked.body.get("response_format", {}).get("type") != knows:
            return status(code, "response_format is not supported")(handler, asked)
        return says(right)(handler, asked)

    with serving(picky) as server:
        judge = openai(server)
        assert judge.ask(GOOD, HUNDRED, 1).text == '{"score": 100}'
        tries = len(server.questions)
        judge.ask(BAD, HUNDRED, 1)
        assert len(server.questions) == tries + 1  # it is remembered
        assert tries == (2 if knows else 3)


@pytest.mark.parametrize("name", ["max_tokens", "temperature", "seed"])
def test_what_the_server_names_is_left_out(name: str):
    def picky(handler: Handler, asked: Asked) -> None:
        if name in asked.body:
            return status(400, f"Unsupported parameter: '{name}'.")(handler, asked)
        return says(right)(handler, asked)

    with serving(picky) as server:
        judge = openai(server)
        assert judge.ask(GOOD, HUNDRED, 1).text == '{"score": 100}' and judge.left_out == {name}
        body = server.questions[-1].body
    assert body["response_format"]["type"] == "json_schema"
    assert ("max_completion_tokens" in body) == (name == "max_tokens")


def test_a_refusal_is_said_in_the_servers_words_and_not_repeated():
    with serving(status(400, "no such form")) as server:
        with pytest.raises(Failed, match="answers 400 .*: no such form"):
            openai(server).ask(GOOD, HUNDRED, 1)
        assert len(server.questions) == 3  # each form of a schema once


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (400, "This model's maximum context length is 256 tokens. However, you requested 900 tokens"),
        (400, "'max_tokens' is too large: 512. This model's maximum context length is 256 tokens"),
        (400, "the request exceeds the available context size, try increasing it"),
        (400, "Requested tokens (900) exceed context window of 256"),
        (413, "no"),
    ],
)
def test_a_question_that_is_too_long_is_told_from_a_judge_that_fails(code: int, words: str):
    with serving(status(code, words), says(right)) as server:
        judge = openai(server)
        with pytest.raises(TooLong, match="answers"):
            judge.ask(GOOD, HUNDRED, 1)
        assert judge.left_out == set() and judge.ask(GOOD, HUNDRED, 1).text
        assert [one.body["response_format"]["type"] for one in server.questions] == ["json_schema"] * 2


def test_what_a_server_lists_of_a_model_is_part_of_who_judges():
    def listed(**facts: object) -> str:
        body = json.dumps({"data": [{"id": "m", **facts}]}).encode()
        with serving(greeting=lambda handler, asked: handler.send(200, body)) as server:
            return openai(server).identity.replace(server.address, "")

    assert listed(meta={"size": 1}) == listed(meta={"size": 1}, permission=["x"]) != listed(meta={"size": 2})
    assert listed(created=1_700_000_000) != listed(created=1_700_000_001)
    assert listed(created=int(time.time())) == listed(created=int(time.time()) - 100) == listed()  # a clock, no date


def test_a_temperature_is_asked_for_and_makes_another_judge(ollama_at, monkeypatch: pytest.MonkeyPatch):
    with serving() as server:
        warm, cold = (opened(Wish(judge=f"{server.address}/v1", temperature=degree)) for degree in (0.7, 0.0))
        monkeypatch.setenv("OLLAMA_HOST", server.address)
        other = opened(Wish(judge="ollama:llama3", temperature=0.7))
        for judge in (warm, cold, other):
            judge.ask(GOOD, HUNDRED, 1)
        bodies = [one.body for one in server.questions]
        assert [body.get("options", body)["temperature"] for body in bodies] == [0.7, 0.0, 0.7]
        assert warm.identity != cold.identity and other.identity != ollama_at(server).identity


@pytest.mark.parametrize(("code", "advice"), [(401, "--api-key-env"), (403, "--api-key-env"), (404, "the model")])
def test_what_no_question_escapes_ends_the_judging(code: int, advice: str):
    with serving(status(code, "no")) as server:
        with pytest.raises(Gone, match=f"answers {code}") as raised:
            openai(server).ask(GOOD, HUNDRED, 1)
        assert advice in raised.value.fix and len(server.questions) == 1


def test_the_model_is_found_or_must_be_named():
    two = json.dumps({"data": [{"id": "small"}, {"id": "large"}]}).encode()
    with serving(greeting=lambda handler, asked: handler.send(200, two)) as server:
        with pytest.raises(SettingsError, match="has 2 models: small, large"):
            openai(server)
        assert openai(server, model="large").ask(GOOD, HUNDRED, 1).text
        assert server.questions[0].body["model"] == "large"
    with serving(greeting=status(404)) as server:
        with pytest.raises(SettingsError, match="does not say which models it has"):
            openai(server)
        assert openai(server, model="any").ask(GOOD, HUNDRED, 1).text


@pytest.mark.parametrize(
    "document",
    [{}, {"choices": []}, {"choices": "x"}, {"choices": [3]}, {"choices": [{"message": {"content": None}}]}],
)
def test_an_answer_without_a_message(document: dict):
    body = json.dumps(document).encode()
    with serving(lambda handler, asked: handler.send(200, body)) as server:
        with pytest.raises(Failed, match="sends no message"):
            openai(server).ask(GOOD, HUNDRED, 1)


def test_content_in_parts_and_counts_that_lie():
    parts = [{"type": "text", "text": '{"score"'}, {"type": "text", "text": ": 3}"}, {"type": "image"}]
    usage = {"prompt_tokens": True, "completion_tokens": -4}
    body = json.dumps({"choices": [{"message": {"content": parts}}], "usage": usage}).encode()
    with serving(lambda handler, asked: handler.send(200, body)) as server:
        reply = openai(server).ask(GOOD, HUNDRED, 1)
    assert (reply.text, reply.read, reply.written) == ('{"score": 3}', None, None)


# keys


def test_keys_come_from_the_environment_and_go_where_they_belong(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("MY_KEY", "mine")
    assert key_for(Wish(judge="https://api.openai.com/v1")) == SECRET
    for elsewhere in ("https://example.org/v1", "http://127.0.0.1:8000/v1", "https://notopenai.com/v1"):
        assert key_for(Wish(judge=elsewhere)) == ""  # OpenAI's key is nobody else's business
    assert key_for(Wish(judge="https://example.org/v1", key="MY_KEY", named=True)) == "mine"
    assert key_for(Wish(judge="http://127.0.0.1:8000/v1", key="MY_KEY", named=True)) == "mine"
    with pytest.raises(SettingsError, match="MY_KEY would go to example.org unencrypted") as raised:
        key_for(Wish(judge="http://example.org/v1", key="MY_KEY", named=True))
    assert "mine" not in str(raised.value)
    assert key_for(Wish(judge="http://example.org/v1", key="", named=True)) == ""
    with pytest.raises(SettingsError, match="OTHER_KEY holds no key"):
        key_for(Wish(judge="https://example.org/v1", key="OTHER_KEY", named=True))
    monkeypatch.setenv("MY_KEY", "mine\nX-Other: 1")
    with pytest.raises(SettingsError, match="no key") as raised:
        key_for(Wish(judge="https://example.org/v1", key="MY_KEY", named=True))
    assert "mine" not in str(raised.value)


def test_a_key_that_the_server_repeats_is_blotted_out():
    echo = json.dumps({"error": {"message": f"Incorrect API key provided: {SECRET}"}}).encode()
    with serving(lambda handler, asked: handler.send(401, echo)) as server:
        with pytest.raises(Gone) as raised:
            openai(server, key=SECRET).ask(GOOD, HUNDRED, 1)
    assert SECRET not in str(raised.value) and "Incorrect API key provided: ***" in str(raised.value)
    with serving(says(f"{SECRET} said the judge")) as server:
        assert openai(server, key=SECRET).ask(GOOD, HUNDRED, 1).text == "*** said the judge"


# what is asked for


def test_names_and_addresses_that_are_none():
    with pytest.raises(SettingsError, match="names no model"):
        opened(Wish(judge="ollama:"))
    with pytest.raises(SettingsError, match="--name x goes with the address"):
        opened(Wish(judge="runs/a", model="x"))
    for address in ("http://", "ftp://host/v1", "http://host:99999/v1", "http://[x/v1"):
        with pytest.raises(SettingsError, match="is no address of a judge"):
            opened(Wish(judge=address))
    with pytest.raises(SettingsError, match="more than host, port and path") as raised:
        opened(Wish(judge="http://me:password@127.0.0.1:1/v1"))
    assert "password" not in str(raised.value)
    with pytest.raises(GroundupError, match="no-such-folder"):
        opened(Wish(judge="no-such-folder"))


# a model of ours

LETTERS = "".join(map(chr, range(32, 127))) + "\n"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bigram over characters: behind a space the digit d has weight d + 1, behind a quote A has three times B's."""
    path = tmp_path_factory.mktemp("models") / "table"
    tokenizer = tokens.train("chars", [LETTERS])
    model = build(BigramConfig(vocabulary=tokenizer.vocabulary, context=4096))
    model.table.weight.data.zero_()
    row = model.table.weight.data
    for digit in range(10):
        row[tokenizer.encode(" ")[0], tokenizer.encode(str(digit))[0]] = math.log(digit + 1)
    row[tokenizer.encode('"')[0], tokenizer.encode("A")[0]] = math.log(3)
    folder.save_model(path, model, tokenizer, card={})
    return path


def test_a_model_of_ours_gives_the_mean_under_its_probabilities(table: Path):
    judge = Local(table, threads=1)
    digits = scale("100", digits=True)
    reply = judge.ask(GOOD, digits, 1)
    # weights 1 .. 10 for 0 .. 9: the mean digit is (0*1 + 1*2 + ... + 9*10) / 55 = 330 / 55 = 6
    assert reply.value == pytest.approx(6 * 100 / 9, rel=1e-5)
    assert reply.text == '{"score": 9}' and reply.written == 0
    assert reply.read == len(GOOD) + 2 + len('{"score": ') + len(judge._tokenizer.start or [0])
    # 1 .. 5 have weights 2 .. 6: (1*2 + 2*3 + 3*4 + 4*5 + 5*6) / 20 = 3.5
    assert judge.ask(GOOD, scale("rubric", digits=True), 1).value == pytest.approx(3.5, rel=1e-5)
    pairs = judge.ask(GOOD, scale("pairwise", digits=True), 1)
    assert pairs.value == pytest.approx(0.75, rel=1e-5) and pairs.text == '{"better": "A"}'


def test_choices_of_several_tokens_are_scored_whole(table: Path):
    judge = Local(table, threads=1)
    shared, rests = continuations(judge._tokenizer, '{"score": ', ("1", "10", "12"))
    assert [len(rest) for rest in rests] == [0, 1, 1]  # "1" alone would be no choice: nothing is left to tell it by
    shared, rests = continuations(judge._tokenizer, '{"score": ', ("7", "10", "12"))
    ids = [*judge._prompt("x"), *shared]
    found = judge._log_p(ids, rests)
    weight = judge._model.table.weight.detach().double().log_softmax(-1)
    space, one = judge._tokenizer.encode(" 1")
    seven, zero, two = judge._tokenizer.encode("702")
    expected = [weight[space, seven], weight[space, one] + weight[one, zero], weight[space, one] + weight[one, two]]
    assert found.double().tolist() == pytest.approx([float(value) for value in expected], rel=1e-5)


def test_a_question_longer_than_the_context_fails_by_itself(table: Path):
    with pytest.raises(TooLong, match=r"has 5,\d+ tokens, and the judge reads 4,096"):
        Local(table, threads=1).ask("x" * 5_000, scale("rubric"), 1)


def test_a_model_with_a_template_is_asked_through_it(tmp_path: Path):
    """The logits of the whole conversation, rendered by the template, give the same probabilities."""
    turns = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    source = turns + "{% if add_generation_prompt %}<judge>{% endif %}"
    tokenizer = tokens.train("chars", [LETTERS]).with_template(source)
    config = ModelConfig(family="llama", vocabulary=tokenizer.vocabulary, context=64, width=16, layers=1, heads=2)
    model = build(config, seed=3)
    folder.save_model(tmp_path / "m", model, tokenizer, card={})
    judge = Local(tmp_path / "m", threads=1)
    text = "Good?"
    ids = [*tokenizer.start, *tokenizer.encode(f'<user>{text}\n<judge>{{"score": ')]
    with torch.no_grad():
        logits = model.eval()(torch.tensor([ids]))[0, -1].double()
    share = logits[[tokenizer.encode(str(n))[0] for n in range(1, 6)]].softmax(0)
    expected = sum(float(part) * n for n, part in enumerate(share, 1))
    assert judge.ask(text, scale("rubric"), 1).value == pytest.approx(expected, rel=1e-5)


def test_other_weights_are_another_judge(table: Path, tmp_path: Path):
    one, same = Local(table, threads=1), Local(table, threads=1)
    assert one.identity == same.identity
    one._model.table.weight.data[0, 0] += 1
    assert fingerprint(one._model) != fingerprint(same._model)
    half = build(BigramConfig(vocabulary=4, context=4), seed=1).to(torch.bfloat16)
    assert fingerprint(half) == fingerprint(half) != fingerprint(half.float())


def test_weights_that_are_not_finite_give_no_score(table: Path):
    judge = Local(table, threads=1)
    judge._model.table.weight.data.fill_(float("nan"))
    with pytest.raises(Failed, match="NaN or infinite"):
        judge.ask("x", scale("rubric"), 1)


def test_a_classifier_is_no_judge(tmp_path: Path):
    from groundup.model.heads import Classifier, HeadConfig

    tokenizer = tokens.train("chars", [LETTERS])
    config = ModelConfig(family="gpt2", vocabulary=tokenizer.vocabulary, context=8, width=8, layers=1, heads=2)
    made = Classifier(build(config, seed=1), HeadConfig(("a", "b")), seed=1)
    folder.save_model(tmp_path / "m", made, tokenizer, card={})
    with pytest.raises(CheckpointError, match="is a classifier"):
        Local(tmp_path / "m", threads=1)
