"use strict";
// Shows the cases that the page carries as JSON; slipway/report/cases.py describes its layout. Text only ever enters
// the page as text nodes, so nothing that a model has said can become markup.
(() => {
  const PAGE = 20;
  const STATES = ["✗ failed", "✓ passed", "? missing", "– not asked", "~ graded"];
  const FAILED = 0, MISSING = 2;
  const REGRESSION = 1, GAIN = 2;
  const LONG = 700;
  const byId = (id) => document.getElementById(id);

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) if (value !== undefined) made.setAttribute(key, value);
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  for (const button of document.querySelectorAll(".copy")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const source = button.previousElementSibling;
      try {
        await navigator.clipboard.writeText(source.textContent);
        button.textContent = "Copied";
      } catch {  // no permission, or an old browser: select it, and one key press copies
        getSelection().selectAllChildren(source);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }

  const source = byId("cases-data");
  if (!source) return;
  const { arms, tags, texts, checks: said, cases } = JSON.parse(source.textContent);
  const candidate = (item) => item[4].find((answer) => answer[0] === 0);
  const KINDS = [
    ["all", "All", () => true],
    ["regressions", "Regressions", (item) => item[2] === REGRESSION],
    ["gains", "Gains", (item) => item[2] === GAIN],
    ["failed", "Failed", (item) => candidate(item)?.[1] === FAILED],
    ["missing", "Missing", (item) => item[4].some((answer) => answer[1] === MISSING)],
    ["unasked", "Not asked", (item) => item[4].some((answer) => answer[1] === 3)],
  ].map(([name, label, test]) => ({ name, label, test, count: cases.filter(test).length }));

  const haystacks = new Map();
  function haystack(item) {
    if (!haystacks.has(item)) {
      const parts = [item[0], ...item[3].map((at) => texts[at])];
      for (const answer of item[4]) parts.push(texts[answer[2]], texts[answer[4]], ...answer[5].map((at) => texts[said[at][3]]));
      haystacks.set(item, parts.join("\n").toLowerCase());
    }
    return haystacks.get(item);
  }

  let kind = KINDS.find((choice) => choice.name === "regressions" && choice.count) ?? KINDS[0];
  let page = 0;
  let only = null;  // the one case that the address names
  let found = [];

  function search() {
    const tag = tags.indexOf(byId("tag").value);
    const words = byId("find").value.trim().toLowerCase();
    found = cases.filter((item) => only === null
      ? kind.test(item) && (tag < 0 || item[1].includes(tag)) && (!words || haystack(item).includes(words))
      : item[0] === only);
    page = 0;
    show();
  }

  function marked(text, ranges) {
    if (!ranges.length) return [text];
    const letters = Array.from(text);  // ranges count characters, strings halves of some
    const parts = [];
    let at = 0;
    for (let next = 0; next < ranges.length; next += 2) {
      parts.push(letters.slice(at, ranges[next]).join(""));
      parts.push(element("mark", {}, letters.slice(ranges[next], ranges[next + 1]).join("")));
      at = ranges[next + 1];
    }
    parts.push(letters.slice(at).join(""));
    return parts;
  }

  function checkLine([type, passed, score, reason, metric, weight]) {
    const [state, words] = passed === null ? ["skip", "– not applied"] : passed ? ["ok", "✓ passed"] : ["no", "✗ failed"];
    const graded = passed !== null && score !== null && score !== passed ? ` ${score}` : "";
    const weighed = weight !== 1 ? ` × ${weight}` : "";
    return element("li", { class: state }, element("b", {}, words + graded), " ", element("code", {}, texts[type]), weighed,
      texts[metric] ? element("span", { class: "metric" }, " ", texts[metric]) : null,
      texts[reason] ? element("span", { class: "reason", dir: "auto" }, " ", texts[reason]) : null);
  }

  function measures([score, latency, prompted, generated, cost, finish, redacted]) {
    const known = [];
    if (score !== null && score !== 0 && score !== 1) known.push(`score ${score}`);
    if (latency !== null) known.push(latency >= 10000 ? `${(latency / 1000).toFixed(1)} s` : `${latency.toFixed(latency >= 100 ? 0 : 1)} ms`);
    if (prompted !== null || generated !== null) known.push(`${prompted ?? "?"} → ${generated ?? "?"} tokens`);
    if (cost !== null) known.push(cost && cost < 0.001 ? `${Number((cost * 1e6).toPrecision(3))} µ$` : `$${Number(cost.toPrecision(3))}`);
    if (texts[finish]) known.push(texts[finish]);
    if (redacted) known.push("masked");
    return known.join(" · ");
  }

  function answerSection([arm, state, output, ranges, error, lines, numbers]) {
    const checks = lines.map((at) => said[at]);
    const section = element("section", {}, element("h4", {},
      element("span", { class: arms[arm] }, arms[arm]), element("span", { class: `state s${state}` }, STATES[state])));
    if (texts[error]) {
      section.append(element("p", { class: "error", dir: "auto" }, texts[error]));
      return section;
    }
    const text = texts[output];
    const long = text.length > LONG;
    section.append(element("pre", { dir: "auto", class: long ? "long" : undefined, tabindex: long ? "0" : undefined },
      ...(text ? marked(text, ranges) : [element("i", {}, "(empty)")])));
    const open = checks.filter((check) => check[1] !== 1);
    const passed = checks.filter((check) => check[1] === 1);
    if (open.length) section.append(element("ul", { class: "checks" }, ...open.map(checkLine)));
    if (passed.length) {
      section.append(element("details", {}, element("summary", {}, `${passed.length} ${passed.length === 1 ? "check" : "checks"} passed`),
        element("ul", { class: "checks" }, ...passed.map(checkLine))));
    }
    const line = measures(numbers);
    if (line) section.append(element("p", { class: "measures" }, line));
    return section;
  }

  function caseArticle([id, tagged, change, prompt, answers]) {
    const badges = element("p", { class: "badges" });
    if (change === REGRESSION) badges.append(element("span", { class: "badge bad" }, "▼ regression"), " ");
    if (change === GAIN) badges.append(element("span", { class: "badge good" }, "▲ gain"), " ");
    for (const tag of tagged) badges.append(element("span", { class: "badge" }, tags[tag]), " ");
    const asked = element("div", { class: "prompt" });
    for (let at = 0; at < prompt.length; at += 2) {
      if (texts[prompt[at]]) asked.append(element("h4", {}, texts[prompt[at]]));
      const text = texts[prompt[at + 1]];
      asked.append(element("pre", { dir: "auto", tabindex: text.length > LONG ? "0" : undefined }, text));
    }
    return element("article", { class: "case" },
      element("h3", { dir: "auto" }, element("a", { href: `#case=${encodeURIComponent(id)}` }, id)), badges,
      prompt.length ? asked : null,
      element("div", { class: "answers" }, ...answers.map(answerSection)));
  }

  function show() {
    const start = page * PAGE;
    const shown = found.slice(start, start + PAGE);
    byId("list").replaceChildren(...(shown.length ? shown.map(caseArticle)
      : [element("p", { class: "nothing" }, "No case is like that.")]));
    const last = start + shown.length;
    const count = found.length === 1 ? "1 case" : `${found.length.toLocaleString("en")} cases`;
    byId("count").textContent = only === null ? `${count}${found.length > PAGE ? `, ${start + 1} to ${last} shown` : ""}`
      : `${found.length ? "One case, as the address says." : `The address names ${only}.`} Choose any filter to see the others.`;
    byId("pages").hidden = found.length <= PAGE;
    byId("place").textContent = `${page + 1} of ${Math.max(1, Math.ceil(found.length / PAGE))}`;
    byId("previous").disabled = page === 0;
    byId("next").disabled = last >= found.length;
    for (const button of document.querySelectorAll(".choices button")) {
      button.setAttribute("aria-pressed", String(only === null && button.dataset.show === kind.name));
    }
  }

  function choose(name) {
    kind = KINDS.find((choice) => choice.name === name) ?? KINDS[0];
    leave();
    search();
  }

  function leave() {
    only = null;
    if (location.hash.startsWith("#case=")) history.replaceState(null, "", "#cases");
  }

  function turn(step) {
    page += step;
    show();
    byId("cases").scrollIntoView();
  }

  function followAddress() {
    if (!location.hash.startsWith("#case=")) return;
    only = location.hash.slice(6).replace(/%(?![0-9a-f]{2})/gi, "%25");  // typed by hand, with a % of its own
    try { only = decodeURIComponent(only); } catch { /* no letters: no case is called so */ }
    search();
    byId("cases").scrollIntoView();
  }

  for (const choice of KINDS) {
    if (!choice.count && choice.name !== "all" && choice.name !== "regressions") continue;
    const button = element("button", { type: "button", "data-show": choice.name }, choice.label,
      element("span", { class: "n" }, choice.count.toLocaleString("en")));
    button.addEventListener("click", () => choose(choice.name));
    document.querySelector(".choices").append(button);
  }
  for (const tag of tags) byId("tag").append(element("option", {}, tag));
  byId("tag").closest("label").hidden = !tags.length;
  byId("tag").addEventListener("change", () => { leave(); search(); });
  let waiting = 0;
  byId("find").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { leave(); search(); }, 120);
  });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("previous").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
  for (const link of document.querySelectorAll("a[data-tag]")) {
    link.addEventListener("click", () => { byId("tag").value = link.dataset.tag; byId("find").value = ""; choose("all"); });
  }
  addEventListener("hashchange", followAddress);
  byId("filters").hidden = false;
  search();
  followAddress();
})();
