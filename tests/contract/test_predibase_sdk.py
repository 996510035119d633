"""The unmodified official ``predibase`` SDK, in an environment of its own, against the sandbox.

Run with ``pytest -m sdk``. The environment (600 MB) is made once, in ``$SLIPWAY_SDK_VENV`` or in pytest's cache.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

SDK = "predibase==2025.10.3"
JOURNEY = Path(__file__).with_name("predibase_sdk_journey.py")
BASE_DIRECTORY = Path(__file__).parents[2] / "sandbox" / "base_model"

pytestmark = [pytest.mark.sdk, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def sdk_python(request):
    """The Python of an environment with the SDK."""
    given = os.environ.get("SLIPWAY_SDK_VENV")
    environment = Path(given) if given else request.config.cache.mkdir("predibase-sdk") / "venv"
    python = environment / "bin" / "python"
    is_there = "import importlib.metadata as m, sys; sys.exit(m.version('predibase') != sys.argv[1])"
    version = SDK.partition("==")[2]
    if not python.exists() or subprocess.run([python, "-c", is_there, version], check=False).returncode:
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", SDK], check=True)
    return python


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A real PEFT adapter of the sandbox's base, with random weights large enough to change its words."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(3)
    base = AutoModelForCausalLM.from_pretrained(BASE_DIRECTORY)
    config = LoraConfig(
        r=8,
        lora_alpha=64,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
        init_lora_weights=False,
    )
    directory = tmp_path_factory.mktemp("adapter")
    get_peft_model(base, config).save_pretrained(directory)
    # PEFT writes where it loaded the base from; that is not what a registry knows it by.
    file = directory / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": "slipway/tiny-llama"}))
    return directory


@pytest.fixture(scope="module")
def seen(sdk_python, adapter, tmp_path_factory):
    """What the journey saw."""
    home = tmp_path_factory.mktemp("home")
    with subprocess.Popen(
        [sys.executable, "-m", "sandbox", "--home", home, "--no-train"], stdout=subprocess.PIPE, text=True
    ) as sandbox:
        try:
            environment = dict(os.environ)
            while (line := sandbox.stdout.readline()).startswith("export "):
                environment.update([shlex.split(line)[1].split("=", 1)])
            assert line == "ready\n"
            environment["HOME"] = str(home)  # the SDK reads and writes settings there
            journey = subprocess.run(
                [sdk_python, "-W", "ignore", JOURNEY, adapter],
                env=environment,
                cwd=home,
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
            assert journey.returncode == 0, journey.stderr
            return json.loads(journey.stdout)
        finally:
            sandbox.terminate()


def test_wrong_token_is_refused_at_the_start(seen):
    assert seen["wrong token"].startswith("ServerResponseError")
    assert "401" in seen["wrong token"]


def test_repositories(seen):
    assert seen["repo"] == ["journey", "of the SDK", True]
    assert "409" in seen["repo exists"]
    assert seen["repo exists ok"] is True
    assert seen["repos"] == ["journey"]


def test_upload_answered_502_after_the_commit_makes_one_version(seen):
    """The SDK repeats the last step by itself; a second version would be the sandbox's mistake."""
    assert seen["uploaded"] == ["journey", 1, "journey/1"]
    assert seen["adapter"] == ["journey/1", "slipway/tiny-llama", False]


def test_versions_are_archived_downloaded_and_missed(seen):
    assert seen["archived"] == [0, 1, True]
    assert seen["unarchived"] == 1
    assert seen["downloaded"] == {"adapter_config.json": True, "adapter_model.safetensors": True}
    assert seen["download missing"] == "RuntimeError: version 9 of repository 'journey' does not exist"
    assert "404" in seen["get missing"]


def test_deployments(seen):
    assert seen["deployment"] == ["journey", "ready", "private", "slipway/tiny-llama", 1]
    assert "409" in seen["taken"]
    assert seen["private"] == ["journey"]
    assert seen["shared"] == ["shared"]
    assert seen["updated"] == ["ready", 900, "slipway/tiny-llama", "changed"]
    assert seen["updated again"] == ["--max-best-of", "1"]
    assert seen["recommended"] == "slipway/tiny-llama"
    assert "unknown base model 'llama-70b'" in seen["unknown base"]
    assert seen["failed"] == ["errored", 0]


def test_generation_says_the_same_on_every_way(seen):
    text = seen["generated"]
    assert text != seen["generated by base"]
    assert seen["tokens"] == [True, 8]
    assert seen["streamed"] == text
    assert seen["streamed tokens"] == 8
    assert seen["generated by wrapper"] == text
    assert seen["generated async"] == [text, text]
    assert seen["completed"] == text
    assert seen["unknown adapter"].startswith("GenerationError")


def test_request_logs(seen):
    assert seen["logged"] == ["journey/1"]


def test_what_is_deleted_is_gone(seen):
    for what in ("deployment gone", "adapter gone", "repo gone"):
        assert "404" in seen[what]
