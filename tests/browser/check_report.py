"""Open reports from disk in a real browser: nothing is fetched, nothing breaks, the filters work, nothing overflows.

Needs a chromium on the machine; see chromium.py. Run it with `make browser-check`; screenshots go to `screenshots/`.
"""

import asyncio
import json
import random
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from chromium import ARGUMENTS, find_chromium
from playwright.async_api import Browser, Page, async_playwright, expect

from slipway.gate import Gate, decide
from slipway.report import FindingLine, ReportData, render_html
from slipway.results import Arm, CaseResult, CheckResult

OUT = Path("screenshots")
WIDTHS = {"desktop": 1280, "phone": 390}
MANY = 2_000
OPENS_IN_SECONDS = 3.0
HOSTILE = "</script><img src=x onerror=alert(1)>\u202e\u200b refund " + "long" * 400
TALK = "the refund was issued on monday and reaches your card in five days please check the order number"
VOCABULARY = TALK.split()
TOO_WIDE = """() => {
  const page = document.documentElement;
  if (page.scrollWidth <= page.clientWidth) return "";
  const edge = page.clientWidth;
  const out = [...document.querySelectorAll("body *")].filter((node) => node.getBoundingClientRect().right > edge);
  return out.slice(0, 5).map((node) => node.outerHTML.slice(0, 120)).join(" / ") || "something";
}"""
"""What is wider than the window; empty where nothing is."""
TAGS = ("billing", "refund", "safety")


def results(count: int, loss: float, seed: int) -> list[CaseResult]:
    """Candidate, champion and base on ``count`` cases; the candidate loses the share ``loss`` of them."""
    rng = random.Random(seed)
    lines = []
    for index in range(count):
        said = [rng.choice(VOCABULARY) for _ in range(30)]
        for arm in Arm:
            passed = rng.random() > (loss if arm is Arm.CANDIDATE else 0.05 if arm is Arm.CHAMPION else 0.7)
            words = (
                said
                if arm is Arm.CHAMPION
                else [rng.choice(VOCABULARY) if rng.random() < 0.1 else word for word in said]
            )
            check = CheckResult(
                type="icontains", passed=passed, score=float(passed), reason="" if passed else "No 'refund'."
            )
            lines.append(
                CaseResult(
                    case=f"case-{index:04d}",
                    arm=arm,
                    adapter_id={Arm.CANDIDATE: "support/4", Arm.CHAMPION: "support/3"}.get(arm, ""),
                    output=" ".join(words),
                    passed=passed,
                    score=float(passed),
                    tags=(TAGS[index % 3],),
                    checks=(check,),
                    latency_ms=rng.lognormvariate(5.0, 0.4),
                    prompt_tokens=40,
                    generated_tokens=30,
                )
            )
    lines[0] = lines[0].but(output=HOSTILE, passed=False, score=0.0)
    lines[1] = lines[1].but(passed=True, score=1.0)
    lines[3] = CaseResult(case="case-0001", arm=Arm.CANDIDATE, tags=(TAGS[1],), error="503: overloaded")
    return lines


def data(outcome: str, lines: list[CaseResult]) -> ReportData:
    rules = {
        "max_missing": 0.1,
        "require": [{"metric": "pass_rate", "at_least": 0.8}],
        "against": {"champion": {"metric": "pass_rate", "margin": 0.1}},
    }
    verdict = decide(lines, Gate.model_validate(rules, strict=False)) if lines else None
    return ReportData(
        name="support",
        release_id="support-4",
        outcome=outcome,
        reasons=verdict.reasons if verdict else ("layers.0 holds NaN.", HOSTILE),
        started_at=datetime(2026, 1, 2, tzinfo=UTC),
        target="sandbox",
        adapter_uri="hf://acme/support",
        digest="sha256:" + "ab" * 32,
        champion_before="support/3",
        champion_after="support/3",
        findings=(FindingLine(severity="error", code="values.nan", message=HOSTILE),),
        verdict=verdict,
        results=lines,
        prompts={line.case: f"Question of {line.case}: {HOSTILE[:60]}" for line in lines},
        reproduce=("slipway release hf://acme/support --name support",),
    )


async def open_page(browser: Browser, path: Path, width: int, scheme: str, problems: list[str]) -> Page:
    """Open a report, and note whatever the browser complains of or fetches."""
    context = await browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = await context.new_page()
    page.on("console", lambda message: problems.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
    page.on("request", lambda request: request.url == path.as_uri() or problems.append(f"fetched {request.url}"))
    await page.goto(path.as_uri())
    wide = await page.evaluate(TOO_WIDE)
    assert not wide, f"{path.name} overflows at {width} px: {wide}"
    return page


async def shown(page: Page) -> list[str]:
    return await page.locator("#list article h3").all_inner_texts()


async def check_filters(page: Page, lines: list[CaseResult]) -> None:
    """The filters show what the results say."""
    of = {(line.case, line.arm): line for line in lines}
    names = sorted({line.case for line in lines})
    failed = [name for name in names if of[name, Arm.CANDIDATE].passed is False]
    regressed = [name for name in failed if of[name, Arm.CHAMPION].passed]
    assert await shown(page) == regressed[:20], "the page opens with the regressions"
    assert await page.locator("#list article img").count() == 0
    assert "[U+202E][U+200B]" in await page.locator("#list article pre").nth(1).inner_text()
    await page.get_by_role("button", name="Failed").click()
    assert await shown(page) == failed[:20]
    await page.get_by_role("button", name="Missing").click()
    assert await shown(page) == ["case-0001"]
    assert "503: overloaded" in await page.locator("#list").inner_text()
    await page.get_by_role("button", name="All").click()
    assert await shown(page) == names[:20]
    await page.get_by_role("button", name="Next").click()
    assert await shown(page) == names[20:40]
    await page.get_by_label("tag").select_option("refund")
    refunds = [name for name in names if "refund" in of[name, Arm.CANDIDATE].tags]
    assert await shown(page) == refunds[:20]
    await page.get_by_label("text").fill("QUESTION of case-0004")
    await expect(page.locator("#list article")).to_have_count(1)
    assert await shown(page) == ["case-0004"]
    await page.get_by_label("text").fill("nobody says this")
    await page.get_by_text("No case is like that.").wait_for()
    await page.locator("#rates a[data-tag=safety]").click()
    safe = [name for name in names if "safety" in of[name, Arm.CANDIDATE].tags]
    assert await shown(page) == safe[:20]
    await page.evaluate("location.hash = '#case=case-0007'")
    await expect(page.locator("#list article")).to_have_count(1)
    assert await shown(page) == ["case-0007"]
    await page.evaluate("location.hash = '#case=50% off'")
    await page.get_by_text("No case is like that.").wait_for()
    assert "The address names 50% off." in await page.locator("#count").inner_text()


async def check_copy(page: Page) -> None:
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.get_by_role("button", name="Copy").first.click()
    await page.get_by_text("Copied").wait_for()
    assert await page.evaluate("navigator.clipboard.readText()") == "slipway release hf://acme/support --name support"


async def check(directory: Path) -> None:
    cases = {"held": results(60, 0.4, 1), "refused": [], "many": results(MANY, 0.1, 2)}
    paths = {}
    for name, lines in cases.items():
        paths[name] = directory / f"{name}.html"
        outcome = name if name == "refused" else "held"
        paths[name].write_text(render_html(data(outcome, lines)), encoding="utf-8")
    problems: list[str] = []
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        try:
            for name in ("held", "refused"):
                for (device, width), scheme in zip(WIDTHS.items(), ("light", "dark"), strict=True):
                    page = await open_page(browser, paths[name], width, scheme, problems)
                    await page.screenshot(path=OUT / f"report-{name}-{device}.png")
                    print(f"ok  report-{name} at {width} px, {scheme}")
            page = await open_page(browser, paths["held"], WIDTHS["desktop"], "light", problems)
            await check_filters(page, cases["held"])
            await check_copy(page)
            print("ok  filters, pages, search, addresses and copying")
            page = await open_page(browser, paths["many"], WIDTHS["phone"], "light", problems)
            timing = await page.evaluate("JSON.stringify(performance.getEntriesByType('navigation')[0])")
            seconds = json.loads(timing)["duration"] / 1000
            assert seconds < OPENS_IN_SECONDS, f"{MANY} cases take {seconds:.1f} s to open"
            print(f"ok  {MANY} cases open in {seconds:.2f} s")
            context = await browser.new_context(java_script_enabled=False)
            page = await context.new_page()
            await page.goto(paths["held"].as_uri())
            assert await page.locator("#list article").count() > 0
            assert await page.locator("#gate svg").count() > 0
            print("ok  without scripts")
        finally:
            await browser.close()
    assert not problems, problems


def main() -> None:
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(check(Path(directory)))


if __name__ == "__main__":
    main()
