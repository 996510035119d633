"""Target files: shipped ones load, addresses resolve, and the sandbox can never be a real tenant."""

from pathlib import Path

import pytest

from slipway.errors import ConfigFileError, ConfigurationError
from slipway.targets import DEFAULT_GATEWAY, Deployment, Target, TargetKind, load_target

TARGETS = Path(__file__).parents[2] / "configs" / "targets"
LOOPBACK = {"PREDIBASE_GATEWAY": "http://127.0.0.1:8931", "PREDIBASE_SERVING": "http://127.0.0.1:8931"}


def make_target(**values):
    return Target.model_validate({"kind": "predibase", "bases": {"qwen3-8b": {"facts": "Qwen/Qwen3-8B"}}, **values})


@pytest.mark.parametrize("path", sorted(TARGETS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_targets_load(path):
    assert load_target(path).bases


def test_a_misspelt_key_is_named_with_its_line(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text("kind: predibase\nbases: {b: {}}\nmax_concurency: 4\n", encoding="utf-8")
    with pytest.raises(ConfigFileError) as caught:
        load_target(path)
    assert caught.value.line == 3
    assert "max_concurrency" in str(caught.value)


def test_predibase_needs_no_address():
    resolved = make_target().resolve({})
    assert (resolved.gateway, resolved.serving) == (DEFAULT_GATEWAY, None)


@pytest.mark.parametrize("given", ["https://gate.test/v1", "https://gate.test/", "gate.test", "https://gate.test/v2/"])
def test_the_gateway_is_brought_into_one_form(given):
    """The SDK cuts /v1 and /v2, and a slash at the end breaks the v2 routes."""
    assert make_target().resolve({"PREDIBASE_GATEWAY": given}).gateway == "https://gate.test"


def test_the_sandbox_resolves_to_this_machine():
    resolved = make_target(kind="sandbox").resolve(LOOPBACK)
    assert resolved.gateway == "http://127.0.0.1:8931"


@pytest.mark.parametrize("variable", sorted(LOOPBACK))
def test_the_sandbox_refuses_to_leave_this_machine(variable):
    """A rehearsal must not deploy to a tenant that pays."""
    with pytest.raises(ConfigurationError, match="not on this machine"):
        make_target(kind="sandbox").resolve({**LOOPBACK, variable: "https://api.app.predibase.com"})


def test_the_sandbox_never_falls_back_to_the_real_gateway():
    with pytest.raises(ConfigurationError, match="PREDIBASE_GATEWAY is not set"):
        make_target(kind="sandbox").resolve({})


def test_a_lorax_target_takes_its_url_from_the_environment():
    target = make_target(kind="lorax")
    assert target.resolve({"LORAX_URL": "http://10.0.0.7:8080/"}).url == "http://10.0.0.7:8080"
    with pytest.raises(ConfigurationError, match="LORAX_URL"):
        target.resolve({})


def test_an_address_must_be_http():
    with pytest.raises(ConfigurationError, match="no http"):
        make_target().resolve({"PREDIBASE_GATEWAY": "ftp://gate.test"})


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "lorax", "gateway": "http://x"},
        {"kind": "predibase", "url": "http://x"},
        {"kind": "lorax", "handover": {"source": "s3"}},
        {"deployment": {"min_replicas": 2, "max_replicas": 1}},
        {"bases": {}},
    ],
)
def test_keys_that_do_not_fit_are_refused(values):
    with pytest.raises(ValueError, match=r"\w"):
        make_target(**values)


def test_a_base_is_found_by_every_name():
    target = make_target(bases={"qwen3-8b": {"facts": "Qwen/Qwen3-8B", "also_known_as": ["org/copy"]}})
    assert {target.served_base(name) for name in ("qwen3-8b", "Qwen/Qwen3-8B", "org/copy")} == {"qwen3-8b"}
    assert target.served_base("mistral") is None


def test_the_deployment_name_is_the_same_each_time():
    """It is what keeps a repeated release from creating a second deployment."""
    assert make_target().deployment_name("Qwen/Qwen3-8B") == "slipway-qwen-qwen3-8b"
    assert make_target(deployment={"name": "prod"}).deployment_name("Qwen/Qwen3-8B") == "prod"


def test_the_wire_config_leaves_unset_keys_out():
    config = Deployment(compute_sku="a10_24gb_100", region="us-east-1", cooldown_seconds=600).wire_config("qwen3-8b")
    assert config == {
        "baseModel": "qwen3-8b",
        "computeSpec": {"requests": {"inference": {"sku": "a10_24gb_100"}}, "region": "us-east-1"},
        "minReplicas": 0,
        "maxReplicas": 1,
        "cooldownTime": 600,
    }


def test_every_kind_has_a_shipped_target():
    assert {load_target(path).kind for path in TARGETS.glob("*.yaml")} == set(TargetKind)


def test_a_pattern_of_private_data_that_is_none_is_refused():
    assert make_target(redact=[r"\d{16}"]).redact == (r"\d{16}",)
    with pytest.raises(ValueError, match="cannot be compiled"):
        make_target(redact=["("])
