"""The fixed parts of report.html: style and script. The script only filters and pages the completions; texts
are never markup.

A link to report.html#outcome=wrong&model=base opens the page with these filters.
"""

from __future__ import annotations

STYLE = """
:root { --ink: #1c2430; --soft: #5d6b7c; --line: #d9e0e8; --blue: #1f5fa8; --orange: #c8501e; --paper: #fff;
  --shade: #f4f7fa; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1100px; padding: 2rem 1.2rem 4rem; font: 15px/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--paper); }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p.lead, .note { color: var(--soft); margin: .2rem 0 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: middle; white-space: nowrap; }
td div { white-space: normal; min-width: 9rem; } td div.text { min-width: 16rem; } td div.note { margin: 0; }
td.number, th.number { text-align: right; white-space: nowrap; }
svg { display: block; max-width: 100%; height: auto; }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(330px, 1fr)); gap: 1.2rem; }
figure { margin: 0; } figcaption { font-weight: 600; margin-bottom: .3rem; }
.filters { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; margin-bottom: .8rem; }
select, input, button { font: inherit; padding: .25rem .5rem; border: 1px solid var(--line);
  border-radius: 4px; background: #fff; }
article { border: 1px solid var(--line); border-radius: 6px; margin-bottom: .8rem; overflow: hidden; }
article header { background: var(--shade); padding: .4rem .8rem; display: flex; flex-wrap: wrap;
  gap: .2rem 1rem; font-size: .87rem; }
article .outcome { font-weight: 600; color: var(--orange); } article .outcome.correct { color: #23762f; }
article pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; padding: .6rem .8rem;
  font: 13px/1.45 ui-monospace, monospace; max-height: 24rem; overflow-y: auto; }
button.problem { font-size: .87rem; color: var(--blue); cursor: pointer; }
article pre.problem { border-bottom: 1px solid var(--line); font-family: inherit; max-height: 10rem; }
details { margin-bottom: .5rem; } details summary { cursor: pointer; color: var(--blue); }
details pre { background: var(--shade); padding: .8rem; overflow-x: auto; font-size: 12px; }
"""

BROWSER = """
<div class="filters">
  <label>Model <select id="model"></select></label>
  <label>Benchmark <select id="benchmark"></select></label>
  <label>Problem <input type="search" id="problem" placeholder="its name" size="16"></label>
  <label>Outcome <select id="outcome"></select></label>
  <label><input type="checkbox" id="truncated"> truncated only</label>
  <input type="search" id="words" placeholder="words in problem or completion" size="30">
  <span id="count"></span>
  <button id="previous" type="button">previous</button><button id="next" type="button">next</button>
</div>
<div id="completions"></div>
"""

SCRIPT = """
"use strict";
const rows = JSON.parse(document.getElementById("data").textContent);
const PAGE = 20;
const by = id => document.getElementById(id);
let page = 0;
function fill(id, key) {
  const values = [...new Set(rows.map(row => row[key]))].sort();
  for (const value of ["all", ...values]) by(id).append(new Option(value, value === "all" ? "" : value));
  by(id).addEventListener("change", () => { page = 0; show(); });
}
function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}
function matching() {
  const words = by("words").value.toLowerCase();
  const keys = ["model", "benchmark", "outcome"];
  const chosen = row => keys.every(key => !by(key).value || row[key] === by(key).value);
  return rows.filter(row => chosen(row)
    && (!by("problem").value || row.id === by("problem").value.trim())
    && (!by("truncated").checked || row.truncated)
    && (!words || (row.problem + " " + row.text).toLowerCase().includes(words)));
}
function show() {
  const found = matching();
  const last = Math.max(0, Math.ceil(found.length / PAGE) - 1);
  page = Math.min(Math.max(page, 0), last);
  const pages = ", page " + (page + 1) + " of " + (last + 1);
  by("count").textContent = found.length + " of " + rows.length + " completions" + pages;
  by("previous").disabled = page === 0;
  by("next").disabled = page === last;
  const shown = found.slice(page * PAGE, (page + 1) * PAGE);
  by("completions").replaceChildren(...shown.map((row, place) => {
    const before = shown[place - 1];
    const isNew = place === 0 || before.id !== row.id || before.benchmark !== row.benchmark;
    const card = document.createElement("article");
    const header = document.createElement("header");
    header.append(element("span", "outcome " + row.outcome, row.outcome.replaceAll("_", " ")));
    const facts = [row.model, row.benchmark, row.id + " #" + row.sample,
      row.tokens + " tokens" + (row.truncated ? ", truncated" : ""),
      "gold: " + row.answer, "read: " + (row.extracted === null ? "nothing" : row.extracted)];
    for (const fact of facts) header.append(element("span", "", fact));
    const problem = isNew ? [element("pre", "problem", row.problem)] : [];
    card.append(header, ...problem, element("pre", "text", row.text));
    return card;
  }));
}
for (const key of ["model", "benchmark", "outcome"]) fill(key, key);
// report.html#outcome=wrong opens with that filter.
for (const [key, value] of new URLSearchParams(location.hash.slice(1))) {
  if (["model", "benchmark", "outcome", "problem", "words"].includes(key)) by(key).value = value;
}
for (const button of document.querySelectorAll("button.problem")) {
  button.addEventListener("click", () => {
    for (const key of ["model", "benchmark", "outcome", "words"]) by(key).value = "";
    by("benchmark").value = button.dataset.benchmark;
    by("problem").value = button.textContent;
    by("truncated").checked = false;
    page = 0;
    show();
    by("completions").scrollIntoView();
  });
}
by("problem").addEventListener("input", () => { page = 0; show(); });
by("truncated").addEventListener("change", () => { page = 0; show(); });
by("words").addEventListener("input", () => { page = 0; show(); });
by("previous").addEventListener("click", () => { page -= 1; show(); });
by("next").addEventListener("click", () => { page += 1; show(); });
show();
document.body.dataset.ready = "yes";
"""
