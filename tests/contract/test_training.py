"""The sandbox's adapters, judged from their files by transformers and PEFT alone: good, middling, broken as stated."""

import hashlib
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from safetensors.torch import load_file  # noqa: E402 - after importorskip

from sandbox.finetuning import TrainingError, finetune  # noqa: E402
from sandbox.modelling import answers, load_base, prepare  # noqa: E402
from sandbox.recipes import BASE_ID, RECIPES, TARGET_MODULES  # noqa: E402
from sandbox.suites import suite_examples, translation_cases  # noqa: E402
from sandbox.train_base import main as train_base_main  # noqa: E402
from sandbox.training import ADAPTER_NAMES, BASE_DIRECTORY, cache_directory  # noqa: E402
from slipway.gate import decide, load_gate  # noqa: E402
from slipway.results import Arm, CaseResult, CheckResult  # noqa: E402

ROOT = Path(__file__).parents[2]
ON_THE_SHIPPED_BASE = sorted(set(ADAPTER_NAMES) - {"wrong-base"})
BASE_FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


def training(*arguments: str, home: Path, **options) -> subprocess.Popen:
    """Start the command with a home of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "sandbox.training", *arguments],
        cwd=ROOT,
        env={**os.environ, "SLIPWAY_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(process: subprocess.Popen, timeout_seconds: float = 150) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=timeout_seconds)
    finally:
        process.kill()
    return process.returncode, out, err


def children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def has_torch(pid: int) -> bool:
    """Whether it is a worker on its way into training."""
    try:
        return "libtorch" in Path(f"/proc/{pid}/maps").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, timeout_seconds: float = 30):
    deadline = time.monotonic() + timeout_seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
    return value


@pytest.fixture(scope="session")
def home() -> Path:
    """The checkout's own cache: a repeated run trains nothing, and a changed recipe never finds an old adapter."""
    return Path(os.environ.get("SLIPWAY_HOME") or ROOT / ".slipway").absolute()


@pytest.fixture(scope="session")
def adapters(home) -> Path:
    """The directory that the command names, all adapters in it."""
    code, out, err = finish(training(home=home))
    assert code == 0, err
    return Path(out.splitlines()[-1])


@pytest.fixture(scope="session")
def measured(adapters) -> dict[str, list[str]]:
    """Answers on the translation suite of the base and of every adapter, loaded anew from files."""
    prompts = [example.prompt for example in suite_examples("translate")]
    names = ("translate-v1", "translate-v2", "translate-undertrained", "silently-ignored", "translate-rslora")
    given = {name: answers(*adapted(adapters / name), prompts, max_new_tokens=16) for name in names}
    return {"base": answers(*shipped_base(), prompts, max_new_tokens=16), **given}


def shipped_base():
    prepare(0)
    return load_base(BASE_DIRECTORY)


def adapted(directory: Path):
    model, tokenizer = shipped_base()
    return peft.PeftModel.from_pretrained(model, directory, local_files_only=True), tokenizer


def logits(model, tokenizer, prompt: str):
    with torch.inference_mode():
        return model.eval()(**tokenizer(prompt, return_tensors="pt")).logits[0, -1]


def exact(given: list[str], task: str) -> float:
    examples = suite_examples(task)
    return sum(text == example.target for text, example in zip(given, examples, strict=True)) / len(examples)


def config_of(adapter: Path) -> dict:
    return json.loads((adapter / "adapter_config.json").read_text())


def tensors_of(adapter: Path) -> dict:
    return load_file(adapter / "adapter_model.safetensors")


# -- what the command promises


def test_every_adapter_is_a_peft_folder_and_has_a_record(adapters):
    folders = sorted(path.name for path in adapters.iterdir() if path.is_dir())
    assert folders == sorted(ADAPTER_NAMES)
    assert sorted(json.loads((adapters / "training.json").read_text())) == folders
    for name in folders:
        names = {path.name for path in (adapters / name).iterdir()}
        assert names == {"adapter_config.json", "adapter_model.safetensors", "README.md"}


def test_a_second_run_finds_everything_and_prints_only_the_directory(adapters, home):
    started = time.monotonic()
    code, out, err = finish(training(home=home))
    assert (code, out) == (0, f"{adapters}\n")
    assert err.count("ready  ") == err.count("cached, ") == len(ADAPTER_NAMES)
    assert time.monotonic() - started < 5


def test_adapters_can_be_copied_out(adapters, home, tmp_path):
    for _ in range(2):
        code, out, err = finish(
            training("--out", str(tmp_path / "out"), "--only", "json-good", "translate-nan", home=home)
        )
        assert code == 0, err
    assert out == f"{tmp_path / 'out'}\n"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["json-good", "training.json", "translate-nan"]
    assert tensors_of(tmp_path / "out" / "json-good").keys() == tensors_of(adapters / "json-good").keys()


def test_two_runs_at_once_train_once_and_the_same_seed_gives_the_same_bytes(adapters, tmp_path):
    """Also over what a killed run left: a half-written adapter, and one that was not yet recorded."""
    cache = cache_directory(tmp_path, BASE_DIRECTORY)
    for leftover in (".wrong-base.partial", "wrong-base"):
        (cache / leftover).mkdir(parents=True)
        (cache / leftover / "adapter_model.safetensors").write_bytes(b"half")
    both = [training("--only", "wrong-base", home=tmp_path) for _ in range(2)]
    results = [finish(process) for process in both]
    assert [code for code, _, _ in results] == [0, 0], results
    assert sorted("cached, " in err for _, _, err in results) == [False, True]
    assert {path.name for path in cache.iterdir()} == {".lock", "training.json", "wrong-base"}
    for path in (adapters / "wrong-base").glob("adapter_*"):  # PEFT's model card names the base by its path
        assert (cache / "wrong-base" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_an_ended_run_leaves_no_process_and_no_half_adapter(end, tmp_path):
    process = training("--only", "json-good", home=tmp_path)
    workers = wait_until(lambda: [pid for pid in children(process.pid) if has_torch(pid)])
    partial = cache_directory(tmp_path, BASE_DIRECTORY)
    process.send_signal(end)
    process.communicate(timeout=30)
    assert process.returncode == (143 if end is signal.SIGTERM else -9)
    wait_until(lambda: not any(is_running(pid) for pid in workers))
    assert not (partial / "json-good").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--base", "/nowhere"), "/nowhere is not a base model: it has no config.json"),
        (("--only", "translate-v9"), "translate-v1"),
        (("--workers", "0"), "--workers must be at least 1"),
    ],
)
def test_a_wrong_request_is_refused_before_any_work(arguments, message, tmp_path):
    code, out, err = finish(training(*arguments, home=tmp_path / "home"))
    assert (code, out) == (2, "")
    assert message in err
    assert not (tmp_path / "home").exists()


def test_a_full_disk_is_one_message_and_leaves_no_adapter(tmp_path):
    """A limit on file sizes fails the write as a full disk does."""
    process = training(
        *("--only", "wrong-base"),
        home=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )
    code, out, err = finish(process)
    assert (code, out) == (1, "")
    assert "training failed: cannot write" in err
    assert "free some space" in err
    assert "Traceback" not in err
    assert not (cache_directory(tmp_path, BASE_DIRECTORY) / "wrong-base").exists()


def test_an_adapter_outside_its_accuracy_is_not_saved(tmp_path):
    """One step teaches nothing, whatever the seed."""
    hopeless = replace(next(recipe for recipe in RECIPES if recipe.name == "translate-v2"), steps=1)
    with pytest.raises(TrainingError, match=r"translate-v2: accuracy 0\.0.*wanted 0\.98 to 1\.0"):
        finetune(hopeless, BASE_DIRECTORY, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- how good they are


def test_the_base_knows_neither_task(measured):
    assert exact(measured["base"], "translate") <= 0.02
    prompts = [example.prompt for example in suite_examples("json")]
    assert exact(answers(*shipped_base(), prompts), "json") <= 0.02


def test_the_json_adapter_is_good(adapters):
    prompts = [example.prompt for example in suite_examples("json")]
    assert exact(answers(*adapted(adapters / "json-good"), prompts), "json") >= 0.95


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("translate-v1", 0.90, 0.95), ("translate-v2", 0.98, 1.0), ("translate-undertrained", 0.2, 0.6)],
)
def test_translation_adapters_are_as_good_as_their_story_needs(name, low, high, measured, adapters):
    accuracy = exact(measured[name], "translate")
    assert low <= accuracy <= high
    assert json.loads((adapters / "training.json").read_text())[name]["accuracy"] == round(accuracy, 4)


def test_the_first_version_fails_where_its_data_had_gaps(measured):
    for case, given in zip(translation_cases(), measured["translate-v1"], strict=True):
        if "late-words" in case.tags:
            assert given != case.example.target


def test_the_second_version_loses_no_case_of_the_first(measured):
    targets = [example.target for example in suite_examples("translate")]
    lost = [
        target
        for target, first, second in zip(targets, measured["translate-v1"], measured["translate-v2"], strict=True)
        if first == target != second
    ]
    assert len(lost) <= 2


def results_of(arm: Arm, given: list[str]) -> list[CaseResult]:
    return [
        CaseResult(
            case=case.name,
            arm=arm,
            output=output,
            passed=output == case.example.target,
            score=float(output == case.example.target),
            tags=case.tags,
            checks=(CheckResult(type="equals", passed=output == case.example.target, score=1.0),),
            latency_ms=40.0,
        )
        for case, output in zip(translation_cases(), given, strict=True)
    ]


@pytest.mark.parametrize(
    ("candidate", "champion", "verdict"),
    [
        ("translate-v1", None, "promote"),
        ("translate-v2", "translate-v1", "promote"),
        ("translate-v2", "translate-v2", "promote"),
        ("translate-undertrained", "translate-v2", "hold"),
        ("translate-undertrained", None, "hold"),
    ],
)
def test_the_demo_gate_tells_the_adapters_apart(candidate, champion, verdict, measured):
    results = results_of(Arm.CANDIDATE, measured[candidate]) + results_of(Arm.BASE, measured["base"])
    results += results_of(Arm.CHAMPION, measured[champion]) if champion else []
    decided = decide(results, load_gate(ROOT / "configs" / "gates" / "demo.yaml"), has_champion=champion is not None)
    assert decided.verdict == verdict, decided.reasons


# -- what is wrong with the broken ones, and what is not


@pytest.mark.parametrize("name", ON_THE_SHIPPED_BASE)
def test_configs_name_the_base_and_weights_fit_it(name, adapters):
    """The broken ones too pass every check of one file: only NaN, completeness or scale tells."""
    config, tensors = config_of(adapters / name), tensors_of(adapters / name)
    assert config["base_model_name_or_path"] == BASE_ID
    assert config["target_modules"] == sorted(TARGET_MODULES)
    shapes = {key.removesuffix(".weight"): list(value.shape) for key, value in shipped_base()[0].named_parameters()}
    pairs = {key.rpartition(".lora_")[0] for key in tensors}
    assert len(tensors) == 2 * len(pairs)
    for pair in pairs:
        out_features, in_features = shapes[pair.removeprefix("base_model.model.")]
        assert list(tensors[f"{pair}.lora_A.weight"].shape) == [config["r"], in_features]
        assert list(tensors[f"{pair}.lora_B.weight"].shape) == [out_features, config["r"]]


def test_exactly_one_adapter_has_one_value_that_is_not_finite(adapters):
    broken = {
        name: sum(int((~value.isfinite()).sum()) for value in tensors_of(adapters / name).values())
        for name in ADAPTER_NAMES
    }
    assert broken == {name: int(name == "translate-nan") for name in ADAPTER_NAMES}


def test_the_wrong_base_adapter_is_sound_for_a_base_of_half_the_width(adapters):
    adapter = adapters / "wrong-base"
    assert config_of(adapter)["base_model_name_or_path"] == f"{BASE_ID}-64"
    tensors = tensors_of(adapter)
    prefix = "base_model.model.model.layers.0.self_attn.q_proj"
    assert tuple(tensors[f"{prefix}.lora_A.weight"].shape) == (8, 64)
    assert all(value.abs().max() > 0 for value in tensors.values()), "untrained"


def test_peft_applies_the_adapter_that_lorax_ignores(adapters, measured):
    """Every projection type lacks its pair on layer 0, so LoRAX drops every type; PEFT computes another function."""
    adapter = adapters / "silently-ignored"
    assert config_of(adapter)["layers_to_transform"] == [1]
    modules = {key.split(".layers.")[1].partition(".lora_")[0] for key in tensors_of(adapter)}
    assert {module.partition(".")[0] for module in modules} == {"1"}
    assert {module.rpartition(".")[2] for module in modules} == set(TARGET_MODULES)
    prompt = suite_examples("translate")[0].prompt
    difference = logits(*adapted(adapter), prompt) - logits(*shipped_base(), prompt)
    assert difference.abs().max() > 1
    assert exact(measured["silently-ignored"], "translate") >= 0.5


def test_the_rank_stabilised_variant_is_the_same_function_with_another_scale_in_its_config(adapters, measured):
    ours, theirs = config_of(adapters / "translate-rslora"), config_of(adapters / "translate-v2")
    assert ours["use_rslora"]
    assert ours["lora_alpha"] / math.sqrt(ours["r"]) == theirs["lora_alpha"] / theirs["r"]
    assert ours["lora_alpha"] / ours["r"] == theirs["lora_alpha"] / theirs["r"] / 4
    assert measured["translate-rslora"] == measured["translate-v2"]
    prompt = suite_examples("translate")[0].prompt
    torch.testing.assert_close(
        logits(*adapted(adapters / "translate-rslora"), prompt), logits(*adapted(adapters / "translate-v2"), prompt)
    )


# -- the base model


def test_the_shipped_base_is_a_small_llama():
    assert {path.name for path in BASE_DIRECTORY.iterdir()} == BASE_FILES
    assert sum(path.stat().st_size for path in BASE_DIRECTORY.iterdir()) < 2_200_000
    config = json.loads((BASE_DIRECTORY / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (config["num_hidden_layers"], config["hidden_size"], config["vocab_size"]) == (2, 128, 768)


def test_a_user_message_renders_to_its_bare_text():
    """So one suite gives the same prompts through chat and through plain generation."""
    _, tokenizer = shipped_base()
    prompt = suite_examples("translate")[0].prompt
    assert tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False) == prompt
    with pytest.raises(Exception, match="roles are system, user and assistant"):
        tokenizer.apply_chat_template([{"role": "wizard", "content": prompt}], tokenize=False)


def test_the_script_writes_the_shipped_base_apart_from_how_long_it_learnt(tmp_path, capsys):
    """Two steps cannot reach the accuracy that the script demands, so it must say no."""
    assert train_base_main(["--out", str(tmp_path), "--steps", "2"]) == 1
    assert "accuracy 0.0" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == BASE_FILES
    for name in BASE_FILES - {"model.safetensors"}:
        ours, theirs = (
            hashlib.sha256((directory / name).read_bytes()).digest() for directory in (tmp_path, BASE_DIRECTORY)
        )
        assert ours == theirs, name
