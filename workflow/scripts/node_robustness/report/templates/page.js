"use strict";
const all = (query, within = document) => [...within.querySelectorAll(query)];
const byId = id => document.getElementById(id);

/** An element with attributes and children; text is never read as markup. */
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "rect", "text", "g"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter(child => child !== null && child !== undefined));
  return element;
}

function button(text, press, attributes = {}) {
  const element = make("button", { type: "button", ...attributes }, text);
  element.addEventListener("click", press);
  return element;
}

function save(name, url) {
  make("a", { download: name, href: url }).click();
}

/* Charts. They are drawn when their topic opens. */
const tip = document.body.appendChild(make("div", { id: "tip", hidden: "" }));

function showTip(handler, event, item, value) {
  tip.hidden = value === null || value === undefined || value === "";
  if (tip.hidden) return;
  const rows = Object.entries(typeof value === "object" ? value : { "": value });
  tip.replaceChildren(make("dl", {}, ...rows.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, String(text))])));
  const box = tip.getBoundingClientRect();
  const place = (at, size, limit) => Math.max(4, at + 14 + size < limit ? at + 14 : at - 14 - size);
  tip.style.left = place(event.clientX, box.width, innerWidth) + "px";
  tip.style.top = place(event.clientY, box.height, innerHeight) + "px";
}

async function draw(element) {
  if (element.dataset.drawn) return;
  element.dataset.drawn = "yes";
  // The code that draws is read when the first chart is asked for.
  if (!window.vegaEmbed) document.head.append(make("script", {}, `(() => {${byId("drawing-code").textContent}})()`));
  const name = element.dataset.chart;
  const spec = JSON.parse(byId("spec-" + name).textContent);
  const options = { renderer: "svg", bind: "#menu-" + name, tooltip: showTip, actions: false, defaultStyle: false };
  try {
    const { view } = await vegaEmbed(element, spec, options);
    offer(name, spec, view);
  } catch (error) {
    element.textContent = "This chart cannot be drawn: " + error.message;
    console.error(error);
  }
}

/** Buttons that save the data and the picture of a chart. */
function offer(name, spec, view) {
  const tables = Object.values(spec.datasets ?? {});
  const buttons = tables.map((csv, i) => {
    const number = tables.length > 1 ? ` ${i + 1}` : "";
    const url = () => URL.createObjectURL(new Blob([csv], { type: "text/csv" }));
    return button(`Data${number} (CSV)`, () => save(name + number.replace(" ", "-") + ".csv", url()));
  });
  for (const type of ["svg", "png"]) {
    buttons.push(button(`Picture (${type.toUpperCase()})`, async () => {
      const url = view.background("white").toImageURL(type, 2);
      view.background("transparent");
      save(`${name}.${type}`, await url);
    }));
  }
  document.querySelector(`.saves[data-figure="${name}"]`).append(...buttons);
}

function drawLater(topic) {
  for (const element of all("[data-chart]", topic)) setTimeout(() => draw(element));
}

/* Topics. The address names the one that was opened last. */
const topics = all("details", byId("main"));
let opened = [];
for (const topic of topics) {
  topic.addEventListener("toggle", () => {
    if (!topic.open || opened.includes(topic)) return;
    drawLater(topic);
    if (!panels.has(here())) history.replaceState(null, "", "#" + topic.id);
  });
}
addEventListener("beforeprint", () => {
  opened = topics.filter(topic => !topic.open);
  for (const topic of opened) topic.open = true;
  all("[data-chart]").forEach(draw);
});
addEventListener("afterprint", () => {
  for (const topic of opened) topic.open = false;
  opened = [];
});

const seen = new IntersectionObserver(entries => {
  for (const { target, isIntersecting } of entries) {
    const link = document.querySelector(`nav a[href="#${target.id}"]`);
    if (isIntersecting) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}, { rootMargin: "-10% 0px -60% 0px" });
for (const topic of topics) seen.observe(topic);

/* The panel of a setting. The address names it, so the browser's way back closes it. */
const panel = byId("panel");
const panels = new Map(JSON.parse(byId("panels").textContent).map(known => [known.id, known]));
const fields = all(".field");
let before = "";

function here() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return "";
  }
}

function go(id) {
  history.pushState(null, "", id ? "#" + encodeURI(id) : location.pathname + location.search);
  follow();
}

/** Show what the address names. */
function follow() {
  const id = here();
  if (panels.has(id)) return showPanel(panels.get(id));
  before = id;
  if (panel.open) panel.close();
  const named = id && byId(id);
  const topic = named && named.closest("details");
  if (topic) topic.open = true;
  if (named) named.scrollIntoView();
}

function showPanel(setting) {
  byId("panel-title").textContent = setting.title;
  byId("panel-body").replaceChildren(...contents(setting));
  panel.scrollTop = 0;
  for (const field of fields) field.toggleAttribute("aria-current", field.dataset.setting === setting.id);
  const seen = fields.filter(isSeen).map(field => field.dataset.setting);
  const at = seen.indexOf(setting.id);
  for (const [id, other] of [["previous", seen[at - 1]], ["next", at < 0 ? undefined : seen[at + 1]]]) {
    byId(id).disabled = !other;
    byId(id).onclick = () => go(other);
  }
  if (!panel.open) panel.showModal();
  byId("panel-title").focus();
}

function hidePanel() {
  const last = here();
  panel.close();
  if (panels.has(last)) go(before);
  fields.find(field => field.dataset.setting === last)?.focus({ preventScroll: true });
}

byId("close").addEventListener("click", hidePanel);
panel.addEventListener("cancel", event => { event.preventDefault(); hidePanel(); });
panel.addEventListener("click", event => { if (event.target === panel) hidePanel(); });
addEventListener("popstate", follow);

/* The grid: a field opens its panel by click, Enter and Space; the arrow keys move. */
const isSeen = field => field.offsetParent !== null;
const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

function neighbour(field, [down, right]) {
  let { cellIndex: column, parentElement: row } = field.closest("td");
  for (;;) {
    column += right;
    if (down) row = down > 0 ? row.nextElementSibling : row.previousElementSibling;
    const cell = row?.cells[column];
    if (!cell) return null;
    const next = cell.querySelector(".field");
    if (next && isSeen(next)) return next;
  }
}

for (const field of fields) {
  field.href = "#" + encodeURI(field.dataset.setting);
  field.addEventListener("click", event => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(field.dataset.setting);
  });
  field.addEventListener("keydown", event => {
    if (event.key === " ") {
      event.preventDefault();
      field.click();
    } else if (event.key in steps) {
      event.preventDefault();
      neighbour(field, steps[event.key])?.focus();
    }
  });
}

/* Fields that say nothing are shown on demand. */
const mute = fields.filter(field => "mute" in field.dataset);
const more = byId("all");
let words = [];

function refresh() {
  const whole = more?.getAttribute("aria-pressed") === "true";
  for (const field of fields) {
    field.hidden = !(whole || !("mute" in field.dataset)) || !fits(field.dataset.words);
  }
  for (const table of all("table.grid")) {
    const used = new Set();
    for (const row of table.tBodies[0].rows) {
      const shown = [...row.cells].filter(cell => cell.querySelector(".field:not([hidden])"));
      row.hidden = !shown.length;
      for (const cell of shown) used.add(cell.cellIndex);
    }
    for (const row of table.rows) for (const cell of [...row.cells].slice(1)) cell.hidden = !used.has(cell.cellIndex);
    table.closest(".scroll").hidden = !used.size;
  }
}

if (more && mute.length) {
  const name = () => {
    const whole = more.getAttribute("aria-pressed") === "true";
    more.textContent = whole ? "Only settings that say something" : `All ${fields.length} settings`;
  };
  more.hidden = false;
  more.addEventListener("click", () => {
    more.setAttribute("aria-pressed", String(more.getAttribute("aria-pressed") !== "true"));
    name();
    refresh();
  });
  name();
}

/* Search: words by their start and numbers as wholes, in the fields of the grid and in the rows of tables. */
function plain(text) {
  return text.toLowerCase().replace(/∞/g, "inf").replace(/\btau\b/g, "τ").replace(/\b(eps|epsilon)\b/g, "ε").replace(/\s*=\s*/g, "=");
}

function tokens(...texts) {
  return plain(texts.join(" ")).split(/[\s,:;()]+/).flatMap(token => [token, ...token.split("=")]);
}

function fits(known) {
  return words.every(word => known.split(" ").some(token => (/\d$/.test(word) ? token === word : token.startsWith(word))));
}

const rows = all("table.sortable").flatMap(table => {
  const heads = [...table.tHead.rows[0].cells].map(cell => cell.textContent);
  if (!heads.includes("Model")) return [];
  return [...table.tBodies[0].rows].map(row => {
    const texts = [...row.cells].map((cell, i) => `${heads[i]}=${cell.textContent} ${cell.textContent}`);
    return { row, texts };
  });
});
for (const field of fields) field.dataset.words = tokens(field.getAttribute("aria-label")).join(" ");

byId("search").addEventListener("input", event => {
  words = plain(event.target.value).split(/[\s,;]+/).filter(Boolean);
  refresh();
  let found = 0;
  for (const known of rows) {
    known.words ??= tokens(...known.texts).join(" ");
    known.row.hidden = !fits(known.words);
    found += !known.row.hidden;
  }
  const settings = fields.filter(field => !field.hidden).length;
  byId("found").textContent = words.length ? `${settings} of ${fields.length} settings, ${found} rows of tables` : "";
});
document.querySelector("search").hidden = false;

/* Tables sort by a click on a head; numbers as numbers, what is missing last. */
function numeric(text) {
  const time = text.match(/^(\d+):(\d\d):(\d\d)$/);
  if (time) return 3600 * time[1] + 60 * time[2] + +time[3];
  const number = text.match(/^([+−-]?[\d,]*\.?\d+(?:e[+-]?\d+)?)(?=$|[\s%])/);
  return number ? Number(number[1].replace(/,/g, "").replace("−", "-")) : NaN;
}

function sort(head) {
  const { tHead, tBodies: [body] } = head.closest("table");
  const way = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
  const text = row => row.cells[head.cellIndex].textContent.trim();
  const missing = row => ["", "–"].includes(text(row));
  const present = [...body.rows].filter(row => !missing(row));
  const numbers = present.every(row => !Number.isNaN(numeric(text(row))));
  const compare = numbers ? (a, b) => numeric(text(a)) - numeric(text(b)) : (a, b) => text(a).localeCompare(text(b));
  body.append(...present.sort((a, b) => way * compare(a, b)), ...[...body.rows].filter(missing));
}

for (const head of all(".sortable thead th")) {
  head.replaceChildren(button(head.textContent, () => sort(head)));
}
for (const cell of all(".sortable td")) if (cell.textContent.length > 60) cell.classList.add("long");

function start() {
  refresh();
  follow();
}
