"""One journey through the official ``predibase`` SDK, run with the Python of an environment that has it.

Prints one JSON document with what it saw; ``test_predibase_sdk.py`` judges it. Configured by the environment:
``PREDIBASE_GATEWAY``, ``PREDIBASE_API_TOKEN``, ``PREDIBASE_SERVING`` and ``SLIPWAY_SANDBOX_BASE``, with the adapter's
directory as the only argument.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import sys
import tempfile
import zipfile
from pathlib import Path

import requests
from openai import OpenAI
from predibase import DeploymentConfig, Predibase, UpdateDeploymentConfig

PROMPT = "the"
GATEWAY, TOKEN = os.environ["PREDIBASE_GATEWAY"], os.environ["PREDIBASE_API_TOKEN"]
SERVING, BASE = os.environ["PREDIBASE_SERVING"], os.environ["SLIPWAY_SANDBOX_BASE"]

seen: dict[str, object] = {}


def refusal(call, *arguments, **options) -> str:
    """Return what a call raises."""
    try:
        call(*arguments, **options)
    except Exception as error:  # noqa: BLE001 - whatever the SDK makes of it
        return f"{type(error).__name__}: {error}"
    return "nothing raised"


def inject(**fault: object) -> None:
    requests.post(
        f"{GATEWAY}/sandbox/faults", json=fault, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10
    ).raise_for_status()


def registry(pb: Predibase, adapter_directory: str, scratch: Path) -> str:
    """Repositories and versions; returns the adapter's id."""
    created = pb.repos.create(name="journey", description="of the SDK")
    seen["repo"] = [created.name, created.description, created.uuid == pb.repos.get("journey").uuid]
    seen["repo exists"] = refusal(pb.repos.create, name="journey")
    seen["repo exists ok"] = pb.repos.create(name="journey", exists_ok=True).uuid == created.uuid
    seen["repos"] = [repo.name for repo in pb.repos.list()]
    inject(kind="commit-then-status", status=502, method="PUT", path="/v2/adapters/upload/")
    uploaded = pb.adapters.upload(adapter_directory, "journey")
    seen["uploaded"] = [uploaded.repo, uploaded.tag, uploaded.name]
    adapter = pb.adapters.get("journey/1")
    seen["adapter"] = [adapter.name, adapter.base_model, adapter.archived]
    pb.adapters.archive("journey/1")
    archived = pb.repos.get("journey")
    seen["archived"] = [len(archived.versions), len(archived.all_versions), pb.adapters.get("journey/1").archived]
    pb.adapters.unarchive("journey/1")
    seen["unarchived"] = len(pb.repos.get("journey").versions)
    pb.adapters.download("journey/1", str(scratch))
    with zipfile.ZipFile(scratch / "1.zip") as archive:
        seen["downloaded"] = {
            name: archive.read(name) == Path(adapter_directory, name).read_bytes() for name in archive.namelist()
        }
    seen["download missing"] = refusal(pb.adapters.download, "journey/9", str(scratch))
    seen["get missing"] = refusal(pb.adapters.get, "journey/9")
    return adapter.name


def deployments(pb: Predibase, adapter_id: str) -> None:
    """Create, list, update."""
    config = DeploymentConfig(
        base_model=BASE,
        min_replicas=0,
        cooldown_time=600,
        preloaded_adapters=[adapter_id],
        request_logging_enabled=True,
    )
    created = pb.deployments.create("journey", config=config)
    seen["deployment"] = [created.name, created.status, created.type, created.model, created.current_replicas]
    seen["taken"] = refusal(pb.deployments.create, "journey", config=config)
    seen["private"] = [each.name for each in pb.deployments.list(type="private")]
    seen["shared"] = [each.type for each in pb.deployments.list(type="shared")]
    pb.deployments.update("journey", config=UpdateDeploymentConfig(cooldown_time=900), description="changed")
    updated = pb.deployments.get("journey")
    seen["updated"] = [updated.status, updated.config.cooldown_time, updated.config.base_model, updated.description]
    pb.deployments.update(updated, config=UpdateDeploymentConfig(custom_args=["--max-best-of", "1"]))
    seen["updated again"] = pb.deployments.get("journey").config.custom_args
    seen["recommended"] = pb.deployments.get_recommended_config(BASE)["baseModel"]
    seen["unknown base"] = refusal(pb.deployments.create, "other", config={"base_model": "llama-70b"})
    failed = pb.deployments.create("failed", config={"base_model": BASE, "custom_args": {"--nonsense": ""}})
    seen["failed"] = [failed.status, failed.current_replicas]
    pb.deployments.delete("failed")


def generation(pb: Predibase, adapter_id: str) -> None:
    """Generate and stream, with and without the adapter, sync and async, native and OpenAI."""
    options = {"adapter_id": adapter_id, "adapter_source": "pbase", "max_new_tokens": 8}
    client = pb.deployments.client("journey", force_bare_client=True, serving_url_override=SERVING)
    reply = client.generate(PROMPT, **options)
    seen["generated"] = reply.generated_text
    seen["tokens"] = [reply.details.prompt_tokens > 0, reply.details.generated_tokens]
    seen["generated by base"] = client.generate(PROMPT, max_new_tokens=8).generated_text
    events = list(client.generate_stream(PROMPT, **options))
    seen["streamed"] = events[-1].generated_text
    seen["streamed tokens"] = len(events)
    wrapped = pb.deployments.client("journey", serving_url_override=SERVING)
    seen["generated by wrapper"] = wrapped.generate(PROMPT, **options).generated_text

    async def generate() -> tuple[str, str]:
        client = pb.deployments.async_client("journey", serving_url=SERVING)
        reply = await client.generate(PROMPT, **options)
        last = [event async for event in client.generate_stream(PROMPT, **options)][-1]
        return reply.generated_text, last.generated_text

    seen["generated async"] = asyncio.run(generate())
    endpoint = pb.deployments.openai_compatible_endpoint("journey", SERVING)
    with OpenAI(base_url=endpoint, api_key=TOKEN) as openai:
        completion = openai.completions.create(model=adapter_id, prompt=PROMPT, max_tokens=8)
        seen["completed"] = completion.choices[0].text
    seen["unknown adapter"] = refusal(
        client.generate, PROMPT, adapter_id="journey/9", adapter_source="pbase", max_new_tokens=1
    )


def request_logs(pb: Predibase, adapter_id: str, scratch: Path) -> None:
    pb.deployments.download_request_logs("journey", str(scratch / "logs.zip"), adapter_id=adapter_id)
    with zipfile.ZipFile(scratch / "logs.zip") as archive:
        lines = archive.read("requests.jsonl").splitlines()
    seen["logged"] = sorted({json.loads(line)["adapterId"] for line in lines})


def removal(pb: Predibase) -> None:
    pb.deployments.delete("journey")
    seen["deployment gone"] = refusal(pb.deployments.get, "journey")
    pb.adapters.delete("journey/1")
    seen["adapter gone"] = refusal(pb.adapters.get, "journey/1")
    pb.repos.delete("journey")
    seen["repo gone"] = refusal(pb.repos.get, "journey")


def main() -> None:
    """Go all the way."""
    # The SDK prints what it does; standard output is for our report.
    with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as directory:
        seen["wrong token"] = refusal(Predibase, api_token="pb_wrong")
        pb = Predibase(api_token=TOKEN)
        adapter_id = registry(pb, sys.argv[1], Path(directory))
        deployments(pb, adapter_id)
        generation(pb, adapter_id)
        request_logs(pb, adapter_id, Path(directory))
        removal(pb)
    print(json.dumps(seen))  # noqa: T201 - the report


if __name__ == "__main__":
    main()
