"""The LoRAX-compatible server as a process, over the shipped base model, driven by unmodified public clients."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Self

import httpx
import lorax
import numpy as np
import openai
import pytest
from lorax import errors as lorax_errors
from lorax.types import MergedAdapters
from safetensors.numpy import save_file

BASE_DIRECTORY = Path(__file__).parents[2] / "sandbox" / "base_model"
BASE_ID = "slipway/test-base"
PROMPT = "repeat: red blue\nanswer:"


class Server:
    """A server process; its address is ``url``."""

    def __init__(self, *options: str, log: Path) -> None:
        command = [sys.executable, "-m", "sandbox.lorax", "--model-dir", str(BASE_DIRECTORY), "--model-id", BASE_ID]
        with log.open("w") as stderr:
            self.process = subprocess.Popen(
                [*command, "--port", "0", *options], stdout=subprocess.PIPE, stderr=stderr, text=True
            )
        self.log = log

    @property
    def url(self) -> str:
        line = self.process.stdout.readline()
        assert re.fullmatch(r"ready http://127\.0\.0\.1:\d+\n", line), self.log.read_text()
        return line.split()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self.process.stdout.close()


def write_adapter(directory: Path, *, seed: int, rank: int = 8, size: float = 0.3) -> str:
    """Write a PEFT adapter with random weights on the attention's projections."""
    chance = np.random.default_rng(seed)
    tensors = {}
    for layer in range(2):
        for name in ("q_proj", "v_proj"):
            key = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{key}.lora_A.weight"] = chance.normal(size=(rank, 128)).astype(np.float32) * size
            tensors[f"{key}.lora_B.weight"] = chance.normal(size=(128, rank)).astype(np.float32) * size
    directory.mkdir()
    save_file(tensors, directory / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": BASE_ID,
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": ["q_proj", "v_proj"],
    }
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return str(directory)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """Local ids of two adapters of one rank and one of another."""
    home = tmp_path_factory.mktemp("adapters")
    return {
        "one": write_adapter(home / "adapter-one", seed=1),
        "two": write_adapter(home / "adapter-two", seed=2),
        "wide": write_adapter(home / "adapter-wide", seed=3, rank=16),
    }


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """Address of a server process; it must end with code 0 and say nothing on its way out."""
    log = tmp_path_factory.mktemp("server") / "stderr.log"
    with Server("--adapter-source", "local", log=log) as server:
        yield server.url
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
        assert "Traceback" not in log.read_text()


@pytest.fixture
def client(url):
    client = lorax.Client(url, timeout=20)
    yield client
    if client.session is not None:
        client.session.close()


@pytest.fixture
def openai_client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=20) as client:
        yield client


# --- lorax-client


def test_lorax_client_generates_on_base_and_adapter(client, adapters):
    base = client.generate(PROMPT, max_new_tokens=8)
    adapted = client.generate(PROMPT, max_new_tokens=8, adapter_id=adapters["one"], adapter_source="local")
    again = client.generate(PROMPT, max_new_tokens=8, adapter_id=adapters["one"])
    assert base.details.prompt_tokens == adapted.details.prompt_tokens > 0
    assert base.details.generated_tokens == len(base.details.tokens)
    assert [token.logprob for token in base.details.tokens] != [token.logprob for token in adapted.details.tokens]
    assert adapted == again


def test_lorax_client_sends_all_parameters(client, adapters):
    response = client.generate(
        PROMPT,
        adapter_id=adapters["one"],
        max_new_tokens=4,
        ignore_eos_token=True,
        repetition_penalty=1.1,
        return_full_text=True,
        seed=7,
        stop_sequences=["\n\n"],
        temperature=0.7,
        top_k=20,
        top_p=0.9,
        typical_p=0.9,
        truncate=100,
        watermark=False,
        decoder_input_details=True,
        return_k_alternatives=2,
    )
    assert response.generated_text.startswith(PROMPT)
    assert response.details.seed == 7
    assert len(response.details.prefill) == response.details.prompt_tokens
    assert response.details.prefill[0].logprob is None
    assert all(len(token.alternative_tokens) == 2 for token in response.details.tokens)


def test_lorax_client_best_of_reports_the_loser(client):
    response = client.generate(PROMPT, max_new_tokens=6, best_of=2, do_sample=True, temperature=1.5)
    (loser,) = response.details.best_of_sequences
    assert response.details.seed != loser.seed


def test_lorax_client_streams_the_same_tokens(client, adapters):
    whole = client.generate(PROMPT, max_new_tokens=8, adapter_id=adapters["one"])
    steps = list(client.generate_stream(PROMPT, max_new_tokens=8, adapter_id=adapters["one"]))
    assert [step.token.id for step in steps] == [token.id for token in whole.details.tokens]
    assert [step.generated_text for step in steps[:-1]] == [None] * (len(steps) - 1)
    assert steps[-1].generated_text == whole.generated_text
    assert steps[-1].details.generated_tokens == whole.details.generated_tokens


async def test_lorax_async_client_generates_and_streams(url, adapters):
    client = lorax.AsyncClient(url, timeout=1)
    whole = await client.generate(PROMPT, max_new_tokens=6, adapter_id=adapters["two"])
    steps = [step async for step in client.generate_stream(PROMPT, max_new_tokens=6, adapter_id=adapters["two"])]
    assert steps[-1].generated_text == whole.generated_text


def test_lorax_client_merges_adapters(client, adapters):
    """Two equal halves of one adapter are that adapter: A and B are averaged separately."""
    twice = MergedAdapters(ids=[adapters["one"], adapters["one"]], weights=[0.5, 0.5], density=1.0)
    merged = client.generate(PROMPT, max_new_tokens=6, merged_adapters=twice)
    plain = client.generate(PROMPT, max_new_tokens=6, adapter_id=adapters["one"])
    assert [token.id for token in merged.details.tokens] == [token.id for token in plain.details.tokens]
    mixed = MergedAdapters(ids=[adapters["one"], adapters["two"]], weights=[0.5, 0.5], density=1.0)
    other = client.generate(PROMPT, max_new_tokens=6, merged_adapters=mixed)
    assert [token.logprob for token in other.details.tokens] != [token.logprob for token in plain.details.tokens]


def test_lorax_client_gets_json_under_a_schema(client):
    schema = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}
    response = client.generate(
        PROMPT,
        max_new_tokens=60,
        response_format={"type": "json_object", "schema": {**schema, "additionalProperties": False}},
    )
    assert json.loads(response.generated_text)["colour"] in {"red", "blue"}


@pytest.mark.parametrize(
    ("arguments", "expected", "text"),
    [
        ({"adapter_id": "/no/such/adapter"}, lorax_errors.GenerationError, "No local weights found"),
        (
            {"adapter_id": "x", "adapter_source": "hub", "stop_sequences": ["a"] * 5},
            lorax_errors.ValidationError,
            "`stop`",
        ),
        ({"max_new_tokens": 100_000}, lorax_errors.ValidationError, "`max_new_tokens` must be <="),
        ({"max_new_tokens": -1}, lorax_errors.UnprocessableEntityError, "max_new_tokens"),
    ],
)
def test_lorax_client_raises_the_class_of_the_failure(client, arguments, expected, text):
    with pytest.raises(expected, match=re.escape(text)):
        client.generate(PROMPT, **arguments)
    if expected is not lorax_errors.UnprocessableEntityError:
        with pytest.raises(expected, match=re.escape(text)):
            list(client.generate_stream(PROMPT, **arguments))


async def test_lorax_async_client_raises_the_class_of_the_failure(url):
    client = lorax.AsyncClient(url, timeout=1)
    with pytest.raises(lorax_errors.GenerationError, match="No local weights found"):
        await client.generate(PROMPT, adapter_id="/no/such/adapter")
    with pytest.raises(lorax_errors.GenerationError, match="No local weights found"):
        _ = [step async for step in client.generate_stream(PROMPT, adapter_id="/no/such/adapter")]


def test_merging_adapters_of_different_ranks_fails(client, adapters):
    merged = MergedAdapters(ids=[adapters["one"], adapters["wide"]], weights=[0.5, 0.5], density=1.0)
    with pytest.raises(lorax_errors.GenerationError, match="different ranks"):
        client.generate(PROMPT, merged_adapters=merged)


# --- openai


def test_openai_completion_takes_the_adapter_as_model(openai_client, client, adapters):
    native = client.generate(PROMPT, max_new_tokens=6, adapter_id=adapters["one"])
    completion = openai_client.completions.create(model=adapters["one"], prompt=PROMPT, max_tokens=6)
    assert (completion.id, completion.model, completion.created) == ("null", "null", 0)
    assert completion.choices[0].text == native.generated_text
    assert completion.usage.prompt_tokens == native.details.prompt_tokens
    assert completion.usage.completion_tokens == native.details.generated_tokens


def test_openai_completion_on_the_base_model(openai_client, client):
    native = client.generate(PROMPT, max_new_tokens=6)
    for model in ("", BASE_ID):
        completion = openai_client.completions.create(model=model, prompt=PROMPT, max_tokens=6, echo=True)
        assert completion.choices[0].text == PROMPT + native.generated_text


def test_openai_chat_is_sampled_unless_the_temperature_is_zero(openai_client):
    messages = [{"role": "user", "content": PROMPT}]
    greedy = [
        openai_client.chat.completions.create(model=BASE_ID, messages=messages, max_tokens=6, temperature=0)
        for _ in range(2)
    ]
    assert greedy[0].choices == greedy[1].choices
    assert (greedy[0].object, greedy[0].model) == ("text_completion", BASE_ID)
    assert greedy[0].choices[0].message.role == "assistant"
    assert greedy[0].system_fingerprint
    texts = {
        openai_client.chat.completions.create(
            model=BASE_ID, messages=messages, max_tokens=12, extra_body={"ignore_eos_token": True}
        )
        .choices[0]
        .message.content
        for _ in range(6)
    }
    assert len(texts) > 1


def test_openai_streams_end_and_carry_usage_where_lorax_has_it(openai_client):
    chunks = list(openai_client.completions.create(model=BASE_ID, prompt=PROMPT, max_tokens=9, stream=True))
    assert all(chunk.usage is not None for chunk in chunks)
    assert chunks[-1].usage.completion_tokens == len(chunks)
    assert (chunks[-1].choices[0].finish_reason, chunks[-1].choices[0].text) == ("stop", "")
    messages = [{"role": "user", "content": PROMPT}]
    chat = list(
        openai_client.chat.completions.create(
            model=BASE_ID, messages=messages, max_tokens=9, temperature=0, stream=True
        )
    )
    assert [chunk.usage is None for chunk in chat] == [True] * (len(chat) - 1) + [False]
    assert all(chunk.choices[0].delta.role == "assistant" for chunk in chat[:-1])
    assert (chat[-1].choices[0].finish_reason, chat[-1].choices[0].delta.content) == ("stop", None)


def test_openai_client_sees_a_missing_adapter_as_424(openai_client):
    with pytest.raises(openai.APIStatusError) as caught:
        openai_client.completions.create(model="/no/such/adapter", prompt=PROMPT)
    assert caught.value.status_code == 424
    assert "No local weights found" in caught.value.body
    with pytest.raises(openai.APIError) as streamed:
        list(openai_client.completions.create(model="/no/such/adapter", prompt=PROMPT, stream=True))
    assert "No local weights found" in str(streamed.value.body)


def test_openai_client_cannot_list_models(openai_client):
    with pytest.raises(openai.NotFoundError):
        openai_client.models.list()


def test_openai_chat_follows_a_json_schema(openai_client):
    schema = {
        "type": "object",
        "properties": {"n": {"enum": [1, 2]}},
        "required": ["n"],
        "additionalProperties": False,
    }
    answer = openai_client.chat.completions.create(
        model=BASE_ID,
        messages=[{"role": "user", "content": [{"type": "text", "text": PROMPT}]}],
        temperature=0,
        max_tokens=60,
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
    )
    assert json.loads(answer.choices[0].message.content)["n"] in {1, 2}


def test_openai_chat_calls_a_tool(openai_client):
    parameters = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}
    tool = {"type": "function", "function": {"name": "paint", "description": "", "parameters": parameters}}
    answer = openai_client.chat.completions.create(
        model=BASE_ID,
        messages=[{"role": "user", "content": PROMPT}],
        temperature=0,
        max_tokens=60,
        tools=[tool],
        tool_choice={"type": "function", "function": {"name": "paint"}},
        extra_body={"tool_prompt": "call:"},  # the base model's window is short
    )
    (call,) = answer.choices[0].message.tool_calls
    assert (call.id, call.function.name) == ("0", "paint")
    assert json.loads(call.function.arguments)["colour"] in {"red", "blue"}


# --- proof against PEFT


def test_served_logprobs_agree_with_peft(url, adapters):
    """Prompt and answer are scored again from the ids in the details, by transformers and PEFT alone."""
    parameters = {"max_new_tokens": 12, "ignore_eos_token": True, "decoder_input_details": True}
    seen = {}
    for name in ("base", "one", "wide"):
        adapter = {} if name == "base" else {"adapter_id": adapters[name]}
        body = {"inputs": PROMPT, "parameters": {**parameters, **adapter}}
        details = httpx.post(f"{url}/generate", json=body, timeout=20).json()["details"]
        tokens = details["prefill"] + details["tokens"]
        ids = [token["id"] for token in tokens]
        answer = httpx.post(f"{url}/sandbox/reference", json={"input_ids": ids, **adapter}, timeout=60)
        seen[name] = [token["logprob"] for token in tokens[1:]]
        assert answer.json()["logprobs"] == pytest.approx(seen[name], abs=1e-4)
    assert seen["base"] != pytest.approx(seen["one"], abs=1e-2)


# --- the process


def test_interrupted_server_ends_running_streams_and_exits_quickly(tmp_path):
    with Server(log=tmp_path / "stderr.log") as server, httpx.Client(base_url=server.url, timeout=20) as client:
        body = {"inputs": PROMPT, "parameters": {"ignore_eos_token": True}}
        with client.stream("POST", "/generate_stream", json=body) as response:
            lines = response.iter_lines()
            assert next(lines).startswith("data:")
            began = time.monotonic()
            server.process.send_signal(signal.SIGINT)
            rest = [line for line in lines if line]
        assert server.process.wait(10) == 0
        assert time.monotonic() - began < 4
        last = json.loads(rest[-1].removeprefix("data:"))
        assert last["error_type"] == "generation"


def test_server_stops_with_its_parent_and_preloads(tmp_path, adapters):
    """A parent that is killed cannot stop its children; they have to notice."""
    pid_file = tmp_path / "pid"
    parent = textwrap.dedent(
        f"""
        import os, pathlib, subprocess, sys, time
        command = [sys.executable, "-m", "sandbox.lorax", "--model-dir", {str(BASE_DIRECTORY)!r}, "--model-id",
                   {BASE_ID!r}, "--port", "0", "--exit-with-parent", str(os.getpid()), "--adapter-source", "local",
                   "--preloaded-adapter-ids", {adapters["one"]!r}]
        child = subprocess.Popen(command)
        pathlib.Path({str(pid_file)!r}).write_text(str(child.pid))
        time.sleep(600)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    try:
        url = process.stdout.readline().split()[1]
        assert "sandbox_adapters_resident 1" in httpx.get(f"{url}/metrics").text
        for name, status in (("one", 200), ("two", 424)):
            body = {"inputs": PROMPT, "parameters": {"adapter_id": adapters[name], "max_new_tokens": 1}}
            assert httpx.post(f"{url}/generate", json=body).status_code == status
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()
    child = int(pid_file.read_text())
    deadline = time.monotonic() + 8
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(child)


def test_server_that_cannot_preload_does_not_start(tmp_path):
    log = tmp_path / "stderr.log"
    with Server("--adapter-source", "local", "--preloaded-adapter-ids", "/no/such/adapter", log=log) as server:
        assert server.process.wait(30) != 0
        assert server.process.stdout.read() == ""
    assert "No local weights found" in log.read_text()


@pytest.mark.parametrize("options", [["--port", "x"], ["--max-slots", "0"], ["--adapter-source", "ftp"]])
def test_wrong_command_line_is_refused_before_the_model_is_loaded(options):
    command = [sys.executable, "-m", "sandbox.lorax", "--model-dir", str(BASE_DIRECTORY), "--model-id", "x", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert options[0] in done.stderr


def is_running(pid: int) -> bool:
    """Whether a process lives; a dead one that nobody has reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return not Path("/proc").is_dir()
    return state != "Z"
