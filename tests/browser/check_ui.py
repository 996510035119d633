"""Look at releases in the Prefect UI with a real browser, and keep the screenshots.

Plays the rehearsal, opens the pages that people open, and checks what must be readable there. Needs a chromium on the
machine: CHROMIUM names it, else the usual names are tried. Run it with `make browser-check`; screenshots go to
`screenshots/`.
"""

import asyncio
import json
import sys
from pathlib import Path
from urllib.request import Request, urlopen

from chromium import ARGUMENTS, find_chromium
from playwright.async_api import Page, async_playwright

from slipway.cli.prefect_session import prepare_prefect
from slipway.ledger import Outcome

OUT = Path("screenshots")
PAGE_SECONDS = 30.0


def artifact_ids(ui: str) -> dict[str, str]:
    """The newest artifact of each key."""
    body = json.dumps({"sort": "UPDATED_DESC", "limit": 100}).encode()
    request = Request(f"{ui}/api/artifacts/filter", body, {"Content-Type": "application/json"})
    with urlopen(request, timeout=10) as reply:
        found = json.load(reply)
    newest: dict[str, str] = {}
    for artifact in found:
        newest.setdefault(artifact["key"], artifact["id"])
    return newest


async def look(page: Page, url: str, name: str, expected: list[str]) -> None:
    """Open a page, wait for each text, and take its picture."""
    await page.goto(url)
    for text in expected:
        await page.get_by_text(text).first.wait_for(timeout=PAGE_SECONDS * 1000)
    await page.wait_for_timeout(1500)  # the time line is drawn on a canvas after the texts are there
    await page.screenshot(path=OUT / f"{name}.png")
    print(f"ok  {name}: {', '.join(expected)}")


async def check(stage, acts, play) -> None:
    results = [await play(act, stage) for act in acts]
    wrong = [result.act.title for result in results if not result.is_as_expected]
    if wrong:
        sys.exit(f"error: these acts did not end as they must: {wrong}")
    await asyncio.sleep(3)  # task states reach the server through its event queue
    artifacts = artifact_ids(stage.ui)
    ended = {result.outcome.outcome: result.outcome for result in reversed(results[1:-1])}
    promoted, held, undecided, refused = (
        ended[kind] for kind in (Outcome.PROMOTED, Outcome.HELD, Outcome.INCONCLUSIVE, Outcome.REFUSED)
    )
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        try:
            page = await browser.new_page(viewport={"width": 1440, "height": 1000})
            await look(page, f"{stage.ui}/runs", "runs", ["Held", "Promoted", "RolledBack"])
            shown = ((promoted, "Promoted"), (held, "Held"), (undecided, "Inconclusive"), (refused, "Held"))
            for outcome, state in shown:
                name = outcome.outcome
                await look(page, outcome.run_url, f"run-{name}", [f"{outcome.release_id} to sandbox", state])
            await look(page, f"{promoted.run_url}?tab=Artifacts", "run-artifacts", ["release-translate"])
            await look(
                page,
                f"{stage.ui}/artifacts/key/release-translate",
                "artifact-versions",
                [f"rollback to {results[-1].outcome.release_id}"],
            )
            await look(
                page,
                f"{stage.ui}/artifacts/artifact/{artifacts['evaluation-translate']}",
                "artifact-evaluation",
                ["pass_rate at_least 0.8"],
            )
            await look(
                page,
                f"{stage.ui}/artifacts/artifact/{artifacts['findings-translate']}",
                "artifact-findings",
                ["what inspection found in"],
            )
            await look(page, f"{stage.ui}/v2/dashboard", "dashboard", ["Flow Runs"])
        finally:
            await browser.close()


def main() -> None:
    find_chromium()
    OUT.mkdir(exist_ok=True)
    prepare_prefect()
    from flows.rehearsal import ACTS, open_stage, play

    with open_stage(print) as stage:
        asyncio.run(check(stage, ACTS, play))
    print(f"screenshots are in {OUT}/")


if __name__ == "__main__":
    main()
