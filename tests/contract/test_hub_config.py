"""The Hub's refusals, as its library reports them, told apart: a local server answers as the Hub does."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading

import pytest

ASK = """
import json, sys
from pathlib import Path
from slipway.base_model import resolve_base
from slipway.errors import SourceError
answers = {}
for name in sys.argv[1:]:
    try:
        base = resolve_base(name, bases_directory=Path("none"))
        answers[name] = [base.id, base.modules["lm_head"]]
    except SourceError as error:
        answers[name] = [error.message, error.fix]
print(json.dumps(answers))
"""

CONFIG = json.dumps(
    {
        "model_type": "llama",
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "vocab_size": 16,
    }
).encode()

ANSWERS = {
    "good": (200, {"ETag": '"1"', "X-Repo-Commit": "a" * 40, "Content-Type": "application/json"}),
    "gone": (404, {"X-Error-Code": "RepoNotFound"}),
    "private": (401, {"X-Error-Code": "RepoNotFound"}),
    "gated": (403, {"X-Error-Code": "GatedRepo"}),
    "old": (404, {"X-Error-Code": "RevisionNotFound"}),
    "bare": (404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": "a" * 40}),
    "broken": (418, {}),
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, *, with_body):
        status, headers = ANSWERS[self.path.split("/")[2]]
        body = CONFIG if status == 200 else b""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def hub():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def ask(*models, endpoint, home, **extra):
    """Ask in a process of its own: the library reads its environment when it is imported. Answers are by model."""
    theirs = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_TOKEN": "hf_canary", "HF_HUB_OFFLINE": "0"}
    environment = {**os.environ, **theirs, **extra}
    done = subprocess.run(
        [sys.executable, "-c", ASK, *models], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "hf_canary" not in done.stdout + done.stderr
    return json.loads(done.stdout)


REFUSED = [
    ("org/a--b", "is not named as the Hub names models", "--base"),
    ("org/gone", "not on the Hub, or not for this account", "HF_TOKEN"),
    ("org/private", "not on the Hub, or not for this account", "HF_TOKEN"),
    ("org/gated", "is gated", "Accept its terms"),
    ("org/old@v9", "org/old at v9 does not exist at that revision", "revision"),
    ("org/bare", "has no config.json on the Hub", ""),
    ("org/broken", "status 418", "--base"),
]


@pytest.fixture(scope="module")
def answers(hub, tmp_path_factory):
    models = [model for model, _, _ in REFUSED]
    return ask(*models, "org/good", endpoint=hub, home=tmp_path_factory.mktemp("hub"))


@pytest.mark.parametrize(("model", "words", "fix"), REFUSED)
def test_each_refusal_has_its_own_message(answers, model, words, fix):
    message, advice = answers[model]
    assert words in message
    assert fix in advice


def test_config_is_enough_for_the_shapes(answers):
    assert answers["org/good"] == ["org/good", [16, 8]]


def test_hub_that_is_not_reached_is_said_to_be(hub, tmp_path):
    """Offline stands for all failures to connect: the library repeats the others for half a minute."""
    found = ask("org/good", endpoint=hub, home=tmp_path, HF_HUB_OFFLINE="1")
    assert "is not reached" in found["org/good"][0]
