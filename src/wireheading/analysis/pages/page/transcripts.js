"use strict";

// Texts of models reach the document by textContent alone: nothing here makes markup of a string.

const content = JSON.parse(document.getElementById("content").textContent);
const AXES = ["condition", "task", "model", "seed"];
const TEXTS = ["prompt", "response", "grade_text"]; // searched
const SHOWN = [...TEXTS, "gold"];
const NARROW = window.matchMedia("(max-width: 900px)");
const IN_CELL = 400, IN_ARTICLE = 4000; // characters that are laid out before more are asked for
const choices = document.getElementById("choices");
let needle = new RegExp("", "g");

const rows = content.runs.flatMap((run) =>
  run.round.map((round, index) => {
    const [grade, score] = [run.grade[index], run.score[index]];
    return {
      run, round, grade, score, index,
      held: run.held[index],
      item: run.item[index],
      condition: run.condition, task: run.task, model: run.model, seed: run.seed,
      evenly: run.evenly[index],
      furthest: run.furthest[index],
      gap: grade === null ? null : grade - score,
      prompt: content.texts[run.prompt[index]],
      gold: content.texts[run.gold[index]] ?? null,
      response: run.response[index],
      grade_text: run.grade_text[index],
      reward: run.reward[index],
      parse_status: run.parse_status[index],
      truncated: run.truncated[index],
    };
  }));

const number = (value) => (value === null ? "–" : value.toFixed(2));
const signed = (value) => (value === null ? "–" : (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(2));
const counted = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

function gapElement(name, gap) {
  const made = element(name, signed(gap), gap > 0 ? "gap above" : gap < 0 ? "gap below" : "gap");
  made.style.setProperty("--size", Math.abs(gap));
  return made;
}

const asText = (cell) => {
  const box = element("div", String(cell.getValue() ?? "–").slice(0, IN_CELL), "clamp");
  box.dir = "auto";
  return box;
};
const asNumber = (cell) => element("span", number(cell.getValue()));
const asGap = (cell) => gapElement("span", cell.getValue());
const asStatus = (cell) => element("span", cell.getValue(), ["readable", "not_asked"].includes(cell.getValue()) ? "" : "odd");
const asTruncated = (cell) => element("span", cell.getValue() ? "yes" : "no", cell.getValue() ? "odd" : "");

const numeric = { sorter: "number", sorterParams: { alignEmptyValues: "bottom" }, hozAlign: "right" };
const table = new Tabulator("#table", {
  data: rows,
  height: "100%",
  layout: "fitColumns",
  rowHeight: 62,
  selectableRows: 1,
  placeholder: "No round fits these choices.",
  initialSort: [{ column: "round", dir: "asc" }],
  // Columns that do not fit are left out, those with the largest numbers first.
  responsiveLayout: "hide",
  columnDefaults: { headerWordWrap: true, formatter: asText, responsive: 3 },
  columns: [
    { title: "condition", field: "condition", width: 96 },
    { title: "task", field: "task", width: 112 },
    { title: "model", field: "model", width: 110 },
    { title: "seed", field: "seed", width: 66, ...numeric },
    { title: "round", field: "round", width: 66, responsive: 0, ...numeric },
    { title: "prompt", field: "prompt", widthGrow: 3, minWidth: 150, responsive: 1 },
    { title: "response", field: "response", widthGrow: 3, minWidth: 130, responsive: 0 },
    { title: "grade text", field: "grade_text", minWidth: 64 },
    { title: "grade", field: "grade", formatter: asNumber, width: 64, responsive: 0, ...numeric },
    { title: "score", field: "score", formatter: asNumber, width: 64, responsive: 0, ...numeric },
    { title: "grade − score", field: "gap", formatter: asGap, width: 92, headerSortStartingDir: "desc", ...numeric },
    { title: "reward", field: "reward", formatter: asNumber, width: 72, ...numeric },
    { title: "parse status", field: "parse_status", formatter: asStatus, width: 96 },
    { title: "trun­cated", field: "truncated", formatter: asTruncated, width: 68 },
  ],
});

// Choosing

for (const axis of AXES) {
  const values = [...new Set(content.runs.map((run) => run[axis]))];
  choices.elements[axis].append(new Option("all", ""), ...values.map((value) => new Option(value, value)));
}

const GAPS = {
  above: (gap) => gap > 0,
  below: (gap) => gap < 0,
  either: (gap) => gap !== null && gap !== 0,
  none: (gap) => gap === 0,
  ungraded: (gap) => gap === null,
};

function choose(round) {
  const chosen = Object.fromEntries(new FormData(choices));
  needle = new RegExp(chosen.needle.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"), "gi");
  const least = Number(chosen.least);
  const fits = (row) =>
    AXES.every((axis) => chosen[axis] === "" || String(row[axis]) === chosen[axis]) &&
    (chosen.why === "held" ? row.held !== "" : row.held === "" && (chosen.why === "" || row[chosen.why])) &&
    (chosen.gap === "" || GAPS[chosen.gap](row.gap)) &&
    // Two grades of one decimal are told apart by their tenths, not by their last bits.
    (least === 0 || (row.gap !== null && Math.abs(row.gap) > least - 1e-9)) &&
    TEXTS.some((text) => (row[text] ?? "").search(needle) !== -1);
  for (const axis of AXES) {
    table[chosen[axis] === "" ? "showColumn" : "hideColumn"](axis);
  }
  table.setFilter(fits);
  table.redraw();
  const active = table.getRows("active");
  document.getElementById("count").textContent = counted(table.getDataCount("active"), "round");
  document.getElementById("round").hidden = active.length === 0;
  if (active.length > 0) {
    go(active.find((row) => row.getData().round === round) ?? happening(active));
  } else {
    tell();
  }
}

// Where something happened: the onset, or else the end of a single run; the first round of many.
function happening(active) {
  const runs = new Set(active.map((row) => row.getData().run));
  const [run] = runs;
  const found = active.find((row) => row.getData().held === "" && row.getData().round === run.onset);
  return runs.size > 1 || chosenHeld() ? active[0] : found ?? active.at(-1);
}

const chosenHeld = () => choices.elements.why.value === "held";

function jump(place) {
  const active = table.getRows("active");
  const ends = { start: active[0], end: active.at(-1) };
  const row = ends[place] ?? active.find((one) => one.getData().round === one.getData().run.onset);
  if (row) {
    go(row);
  }
}

// The address names what is chosen, so that it can be sent to others.

function tell() {
  const [row] = table.getSelectedData();
  const chosen = new URLSearchParams([...new FormData(choices)].filter(([name, value]) => value !== DEFAULTS[name]));
  if (row) {
    chosen.set("round", row.round);
  }
  history.replaceState(null, "", `#${chosen}`);
}

// Puts what an address names into the fields, and gives its round.
function told() {
  const named = new URLSearchParams(location.hash.slice(1));
  for (const [name, value] of Object.entries(DEFAULTS)) {
    const field = choices.elements[name];
    field.value = named.get(name) ?? value;
    if (field.value !== (named.get(name) ?? value)) {
      field.value = value; // The address names something that is not here.
    }
  }
  return named.has("round") ? Number(named.get("round")) : undefined;
}

// Reading

function go(row) {
  table.deselectRow();
  row.select();
  table.scrollToRow(row, "nearest", false);
}

function show(row) {
  const { run } = row;
  const article = document.getElementById("round");
  article.hidden = false;
  article.scrollTop = 0;
  const times = { "": `Round ${row.round}`, start: "Before training", end: "After training" };
  article.querySelector("h2").textContent = times[row.held];
  const why = row.held ? `held-out item ${row.item}` : [
    row.round === run.onset && "the onset", row.evenly && "evenly spaced", row.furthest && "a largest disagreement",
  ].filter(Boolean).join(" and ");
  article.querySelector(".run").textContent =
    `${run.condition} · ${run.task} · ${run.model} · seed ${run.seed} · of ${counted(run.rounds, "round")}, ${why}` +
    (run.status === "complete" ? "" : ` · run ${run.status} (${run.problem})`);
  const facts = [
    ["grade", element("dd", number(row.grade))],
    ["score", element("dd", number(row.score))],
    ["grade − score", gapElement("dd", row.gap)],
    ["reward", element("dd", number(row.reward))],
    ["parse status", element("dd", row.parse_status)],
    ["truncated", element("dd", row.truncated ? "yes" : "no")],
  ];
  article.querySelector("dl").replaceChildren(
    ...facts.map(([name, fact]) => {
      const pair = element("div", "");
      pair.append(element("dt", name), fact);
      return pair;
    }));
  const grader = { policy: "by the policy", base: "by the model as it was before training" }[run.grader];
  document.getElementById("grader").textContent = grader ? `${grader}, asked: ${run.grading_prompt}` : "";
  document.getElementById("common").hidden = row.held !== "" || run.opening + run.closing === "";
  for (const end of ["opening", "closing"]) {
    document.getElementById(end).textContent = run[end];
    document.getElementById(end).hidden = run[end] === "";
  }
  showOther(row);
  for (const text of SHOWN) {
    const pre = document.getElementById(text);
    const whole = row[text] ?? (text === "gold" ? "the items' file was not there" : "not asked");
    pre.textContent = whole.slice(0, IN_ARTICLE);
    pre.classList.toggle("absent", row[text] === null);
    if (whole.length > IN_ARTICLE) {
      const more = element("button", `show ${counted(whole.length - IN_ARTICLE, "more character")}`, "more");
      more.addEventListener("click", () => {
        pre.textContent = whole;
        highlightTexts(row);
      });
      pre.append(more);
    }
  }
  highlightTexts(row);
}

// The same held-out item at the other time.
function showOther(row) {
  const other = document.getElementById("other");
  other.hidden = row.held === "";
  if (row.held === "") {
    return;
  }
  const twin = rows.find((one) => one.run === row.run && one.item === row.item && ![row.held, ""].includes(one.held));
  other.querySelector("h3").textContent = row.held === "start" ? "Response after training" : "Response before training";
  document.getElementById("other_response").textContent = twin.response;
  other.querySelector("p").textContent =
    `grade ${number(twin.grade)} (“${twin.grade_text ?? "not asked"}”), score ${number(twin.score)}`;
}

function highlightTexts(row) {
  highlight(TEXTS.filter((text) => row[text]).map((text) => document.getElementById(text).firstChild));
}

function highlight(nodes) {
  const ranges = nodes.flatMap((node) =>
    [...node.data.matchAll(needle)].filter(([found]) => found !== "").map((found) => {
      const range = new Range();
      range.setStart(node, found.index);
      range.setEnd(node, found.index + found[0].length);
      return range;
    }));
  CSS.highlights.set("needle", new Highlight(...ranges));
}

// What the page says of itself

function note(list, text) {
  list.append(element("li", text));
}

const notes = document.getElementById("notes");
const shown = counted(rows.length, "round");
document.getElementById("scope").textContent =
  `${shown} of ${counted(content.runs.length, "run")}: what was asked, answered and graded`;
note(notes, `Of each run: ${content.evenly} evenly spaced rounds, its onset and the ${content.largest} with the largest ` +
  `|grade − score|, and ${content.pairs} held-out items before and after training. Disagreements are chosen for being extreme; for a fair impression choose the evenly spaced ones.`);
if (content.reduced) {
  note(notes, "The study has many runs, so fewer rounds of each are here than of a smaller study.");
}
if (content.text_limit !== null) {
  note(notes, `Texts of more than ${content.text_limit.toLocaleString("en")} characters are cut in the middle.`);
}
note(notes, `Everything, uncut: pandas.read_parquet("${content.files}")`);

const problems = document.getElementById("problems");
const missing = content.asked - content.runs.length;
if (missing > 0) {
  problems.hidden = false;
  problems.querySelector("summary").textContent = `${missing} of ${counted(content.asked, "run")} left out`;
  const list = problems.querySelector("ul");
  content.problems.forEach((problem) => note(list, problem));
  if (missing > content.problems.length) {
    note(list, `… and ${counted(missing - content.problems.length, "run")} more, not named here`);
  }
}

// Starting

const firstRun = content.runs.find((run) => run.condition === "selfgrade") ?? content.runs[0];
const DEFAULTS = {
  ...Object.fromEntries(AXES.map((axis) => [axis, firstRun ? String(firstRun[axis]) : ""])),
  why: "", gap: "", least: "0", needle: "",
};

function begin() {
  choose(told());
}

table.on("rowSelected", (row) => {
  show(row.getData());
  tell();
});
table.on("rowClick", () => {
  if (NARROW.matches) {
    document.getElementById("round").scrollIntoView();
  }
});
table.on("tableBuilt", () => {
  let pending;
  choices.addEventListener("input", () => {
    clearTimeout(pending);
    pending = setTimeout(() => choose(), 150);
  });
  choices.addEventListener("reset", () => setTimeout(() => {
    history.replaceState(null, "", "#");
    begin();
  }));
  choices.addEventListener("click", (event) => {
    if (event.target.matches(".jumps button")) {
      jump(event.target.value);
    }
  });
  window.addEventListener("hashchange", begin);
  choices.addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input, select")) {
      if (event.key === "Escape") {
        event.target.blur();
      }
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    const [current] = table.getSelectedRows();
    const forward = ["ArrowDown", "j"].includes(event.key);
    if (event.key === "/") {
      event.preventDefault();
      choices.elements.needle.focus();
    } else if (current && (forward || ["ArrowUp", "k"].includes(event.key))) {
      event.preventDefault();
      const next = forward ? current.getNextRow() : current.getPrevRow();
      if (next) {
        go(next);
      }
    }
  });
  begin();
});
