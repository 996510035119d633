"""What a release does without us: one script, plain httpx, the same requests and the same computations.

No ledger, no retries, no report, no Prefect; it promotes nothing, and repeated it makes a second version. It is the
yardstick for what those cost.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from slipway.adapter import AdapterFile, Bundle, bundle_digest
from slipway.base_model import resolve_base
from slipway.configs import ConfigKind, config_directory
from slipway.evaluation import interleave
from slipway.gate import Verdict, decide
from slipway.grading import grade_case
from slipway.inspection import InspectionVerdict, inspect_bundle
from slipway.live_proof import FIXED_PROMPT, Observation, judge
from slipway.profiles import find_profile
from slipway.release import ReleasePlan, plan_release
from slipway.results import Arm, CaseResult
from slipway.results_io import read_results, write_results
from slipway.services.probe import PROMPTS_OF_SUITE
from slipway.suite import Case

__all__ = ["bare_release"]

FILES = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True, kw_only=True)
class _Server:
    """A serving deployment's LoRAX routes."""

    http: httpx.AsyncClient
    url: str
    max_new_tokens: int

    async def generate(self, prompt: str, adapter: str, **parameters: Any) -> tuple[dict[str, Any], float]:
        """One answer and its milliseconds."""
        named = {"adapter_id": adapter, "adapter_source": "pbase"} if adapter else {}
        body = {"inputs": prompt, "parameters": {"details": True, "do_sample": False, **named, **parameters}}
        reply = (await self.http.post(f"{self.url}/generate", json=body)).raise_for_status()
        return reply.json(), reply.elapsed.total_seconds() * 1000

    async def answer(self, case: Case, adapter: str) -> tuple[dict[str, Any], float]:
        """One case."""
        if not isinstance(case.prompt, str):
            raise TypeError("this script asks plain prompts only")
        return await self.generate(case.prompt, adapter, max_new_tokens=self.max_new_tokens)


async def bare_release(
    adapter: Path, *, name: str, champion: str, suite: str, gate: str, environment: dict[str, str], scratch: Path
) -> tuple[Verdict, dict[str, float]]:
    """Take one adapter to a verdict.

    Args:
        adapter: Its directory.
        name: Repository.
        champion: Adapter id of the champion to compare with.
        suite: Name of the suite.
        gate: Name of the gate file.
        environment: What the sandbox exports.
        scratch: An empty directory.

    Returns:
        The verdict, and the seconds of each step.
    """
    seconds: dict[str, float] = {}
    began = time.perf_counter()

    def done(step: str) -> None:
        nonlocal began
        now = time.perf_counter()
        seconds[step], began = now - began, now

    plan = plan_release(adapter=str(adapter), name=name, target="sandbox", suite=suite, gate=gate)
    bundle = _pull(adapter, scratch / "bundle")
    done("pull")
    base_model = _inspect(bundle, plan)
    done("inspect")
    gateway = environment["PREDIBASE_GATEWAY"]
    token = {"Authorization": f"Bearer {environment['PREDIBASE_API_TOKEN']}"}
    limits = httpx.Limits(max_connections=plan.target.max_concurrency)
    async with httpx.AsyncClient(timeout=60, limits=limits, headers=token) as http:
        candidate = await _upload(http, gateway, name, bundle)
        done("upload")
        url = await _attach(http, gateway, base_model)
        server = _Server(http=http, url=url, max_new_tokens=plan.target.max_new_tokens)
        done("serve")
        await _prove(server, plan, candidate)
        done("prove")
        results = await _evaluate(server, plan, {Arm.CANDIDATE: candidate, Arm.CHAMPION: champion, Arm.BASE: ""})
    write_results(scratch / "results.jsonl", results)
    done("evaluate")
    verdict = decide(read_results(scratch / "results.jsonl"), plan.gate, has_champion=True)
    done("gate")
    return verdict, seconds


def _pull(source: Path, directory: Path) -> Bundle:
    directory.mkdir()
    files = []
    for name in FILES:
        copy = Path(shutil.copy(source / name, directory / name))
        content = copy.read_bytes()
        files.append(AdapterFile(name=name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()))
    digest = bundle_digest(files)
    return Bundle(digest=digest, directory=directory, files=tuple(files), uri=str(source), resolved_revision=digest)


def _inspect(bundle: Bundle, plan: ReleasePlan) -> str:
    base_model, served = next(iter(plan.target.bases.items()))
    facts = resolve_base(served.facts or base_model, bases_directory=config_directory() / ConfigKind.BASE)
    base = replace(facts, id=base_model, aliases=(facts.id, *facts.aliases, *served.also_known_as))
    if inspect_bundle(bundle, base, find_profile()).verdict is not InspectionVerdict.SERVABLE:
        raise RuntimeError("the adapter cannot be served")
    return base_model


async def _upload(http: httpx.AsyncClient, gateway: str, repository: str, bundle: Bundle) -> str:
    if (await http.get(f"{gateway}/v2/repos/{repository}")).status_code == 404:
        body: dict[str, Any] = {"name": repository, "description": None, "existsOk": True}
        (await http.post(f"{gateway}/v2/repos", json=body)).raise_for_status()
    slot = (await http.post(f"{gateway}/v2/adapters/upload", json={"repo": repository})).raise_for_status().json()
    for name in FILES:
        content = (bundle.directory / name).read_bytes()
        (
            await http.put(slot["presignedUrls"][name], content=content, headers=slot["requiredHeaders"])
        ).raise_for_status()
    version = await http.put(f"{gateway}/v2/adapters/upload/", json={"uploadToken": slot["uploadToken"]})
    found = version.raise_for_status().json()
    return f"{found['repo']}/{found['tag']}"


async def _attach(http: httpx.AsyncClient, gateway: str, base_model: str) -> str:
    user = (await http.get(f"{gateway}/users/current")).raise_for_status().json()
    deployments = (await http.get(f"{gateway}/v2/deployments")).raise_for_status().json()["data"]
    name = next(item["name"] for item in deployments if item["type"] != "shared" and base_model in str(item["config"]))
    found = (await http.get(f"{gateway}/v2/deployments/{name}")).raise_for_status().json()["data"]
    if found["status"] not in {"ready", "standby"}:
        raise RuntimeError(f"{name} is {found['status']}")
    return f"{gateway}/{user['tenant']['shortCode']}/deployments/v2/llms/{name}"


async def _prove(server: _Server, plan: ReleasePlan, adapter: str) -> None:
    observations, cold_ms = [], 0.0
    for prompt in (FIXED_PROMPT, *plan.suite.sample_prompts()[:PROMPTS_OF_SUITE]):
        answers = []
        for arm in ("", adapter, ""):
            answer, latency_ms = await server.generate(prompt, arm, max_new_tokens=1, decoder_input_details=True)
            answers.append(answer["details"]["prefill"])
            cold_ms = cold_ms or (latency_ms if arm else 0.0)
        body = {"adapter_id": adapter, "adapter_source": "pbase", "input_ids": [token["id"] for token in answers[1]]}
        reference = await server.http.post(f"{server.url}{plan.target.reference_route}", json=body)
        base, under_adapter, again = ([token["logprob"] for token in prefill[1:]] for prefill in answers)
        observations.append(
            Observation(
                prompt=prompt,
                base=base,
                base_again=again,
                adapter=under_adapter,
                reference=reference.raise_for_status().json()["logprobs"],
            )
        )
    proof = judge(observations, adapter_id=adapter, answered_adapter_id=adapter, cold_ms=cold_ms, warm_ms=cold_ms)
    if not proof.is_live:
        raise RuntimeError(proof.reasons[0])


async def _evaluate(server: _Server, plan: ReleasePlan, arms: dict[Arm, str]) -> list[CaseResult]:
    cases = plan.suite.cases
    queue = iter(interleave(cases, list(arms)))
    results: dict[tuple[str, Arm], CaseResult] = {}
    for adapter in arms.values():
        await server.answer(cases[0], adapter)

    async def work() -> None:
        for case, arm in queue:
            answer, latency_ms = await server.answer(case, arms[arm])
            results[case.id, arm] = grade_case(
                case,
                arm=arm,
                adapter_id=arms[arm],
                output=answer["generated_text"],
                latency_ms=latency_ms,
                prompt_tokens=answer["details"]["prompt_tokens"],
                generated_tokens=answer["details"]["generated_tokens"],
            )

    async with asyncio.TaskGroup() as group:
        for _ in range(plan.target.max_concurrency):
            group.create_task(work())
    return [results[case.id, arm] for case in cases for arm in arms]
