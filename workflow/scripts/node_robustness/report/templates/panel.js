/* What the panel of a setting shows, from the data that the page has of it. */

const known = estimate => estimate.value !== null && estimate.value !== undefined;
const percent = value => (100 * value).toFixed(1).replace("-", "−") + " %";
const points = value => percent(value).replace("%", "points");
const number = value => (value === null ? "–" : String(Number(value.toPrecision(3))).replace("-", "−"));

function interval(estimate, write = percent) {
  if (!known(estimate)) return "–";
  const bounds = estimate.low === null ? "" : ` (${write(estimate.low)} to ${write(estimate.high)})`;
  return write(estimate.value) + bounds;
}

function table(heads, rows) {
  return make("table", {},
    make("thead", {}, make("tr", {}, ...heads.map(head => make("th", { scope: "col" }, head)))),
    make("tbody", {}, ...rows.map(([first, ...others]) => make("tr", {},
      make("th", { scope: "row" }, first), ...others.map(text => make("td", {}, String(text)))))));
}

/** Estimates as bars with their intervals, and in words. */
function bars(rows) {
  const shown = rows.filter(known);
  const ends = shown.flatMap(row => [row.value, row.low ?? row.value, row.high ?? row.value]);
  const [least, most] = [Math.max(-2, Math.min(0, ...ends)), Math.min(2, Math.max(1, ...ends))];
  const place = value => 100 * (Math.min(most, Math.max(least, value)) - least) / (most - least);
  const mark = (kind, from, to) => {
    const element = make("span", { class: kind });
    const [left, right] = [place(from), place(to)].sort((a, b) => a - b);
    Object.assign(element.style, { left: left + "%", width: right - left + "%" });
    return element;
  };
  return make("div", { class: "bars" }, ...rows.flatMap(row => [
    make("span", {}, row.name),
    make("span", { class: "track", "aria-hidden": "true" }, ...(known(row) ? [
      mark("value", 0, row.value), mark("axis", 0, 0), row.low === null ? null : mark("whisker", row.low, row.high),
    ] : []).filter(Boolean)),
    make("span", {}, interval(row)),
  ]));
}

/** Curves along t, each with its name at its end. */
function curves(found, name, title) {
  const shown = found.filter(curve => curve[name].some(value => value !== null));
  const values = shown.flatMap(curve => curve[name].filter(value => value !== null));
  if (!values.length) return null;
  const [least, most] = [Math.min(0, ...values), Math.max(0, ...values) || 1];
  const x = t => 44 + 185 * t;
  const y = value => 130 - 120 * (value - least) / (most - least || 1);
  const parts = [
    make("path", { d: `M${x(0)},${y(0)}H${x(1)}M${x(0)},10V130`, class: "axis" }),
    make("text", { x: 40, y: 14, "text-anchor": "end", fill: "currentColor" }, number(most)),
    make("text", { x: 40, y: 133, "text-anchor": "end", fill: "currentColor" }, number(least)),
    make("text", { x: x(0), y: 148, fill: "currentColor" }, "t = 0"),
    make("text", { x: x(1), y: 148, "text-anchor": "end", fill: "currentColor" }, "1"),
  ];
  const ends = [];
  for (const curve of shown) {
    const points = curve.t.map((t, i) => [x(t), curve[name][i]]).filter(([, value]) => value !== null);
    const end = points.at(-1);
    // Names of curves that end next to each other stand one above the other.
    let at = y(end[1]) + 4;
    while (ends.some(other => Math.abs(other - at) < 12)) at -= 12;
    ends.push(at);
    parts.push(
      make("path", { d: "M" + points.map(([at, value]) => `${at.toFixed(1)},${y(value).toFixed(1)}`).join("L"), class: "curve " + curve.group }),
      make("text", { x: 235, y: at, fill: "currentColor" }, curve.label));
  }
  return make("svg", { class: "plot", viewBox: "0 0 360 152", role: "img", "aria-label": title }, ...parts);
}

const section = (title, ...children) => [make("h3", {}, title), ...children.filter(Boolean)];

function seeds(rows) {
  return new Set(rows.map(row => row.seed)).size > 1;
}

function ofRobustness({ robust, networks, masked, weak, images, level }) {
  const names = { clean: "Clean", paper: "P, paper’s", corrected: "C, corrected", strongest: "R, strongest" };
  const found = Object.entries(names).map(([key, name]) => ({ name, ...robust[key] }));
  return section("Robust accuracy",
    bars(found),
    make("p", {}, `Masked gradient M = P − C: ${interval(masked, points)}.`),
    make("p", {}, `Weak search W = C − R: ${interval(weak, points)}.`),
    make("p", { class: "soft" }, `${images.toLocaleString("en")} images, ${level}; exact 95 % intervals, not corrected for the number of settings; the verdict is.`),
    networks.length ? table(["Seed", "P", "C", "R"], networks.map(one => [one.seed, ...["paper", "corrected", "strongest"].map(key => interval(one[key]))])) : null);
}

function ofAttacks({ deciding }) {
  if (!deciding.length) return [];
  return section("Attacks that decided",
    table(["Attack", "Images tried", "Broken", "Only by it"], deciding.map(({ attack, tried, broken, alone }) => [attack, tried ?? "–", broken ?? "–", alone])),
    make("p", { class: "soft" }, "Expensive attacks do not try images that cheaper ones broke."));
}

function ofChecks({ checks }) {
  if (!checks.length) return [];
  const several = seeds(checks);
  const open = checks.filter(check => check.outcome !== "passed");
  return section("Checks",
    table(["Check", "Outcome", "Value", "Passes if", "Needed"], checks.map(check => [
      several ? `${check.name} (seed ${check.seed})` : check.name, check.outcome, check.value === null ? "–" : number(check.value), check.passes_if, check.needed ? "yes" : "no"])),
    make("p", { class: "soft" }, "Robustness survives only if all needed checks pass."),
    open.length ? make("p", { class: "soft" }, "Of those that did not pass: " + [...new Set(open.map(check => check.failure))].join(" ")) : null);
}

function ofExamples({ examples }) {
  return examples.length ? section("Adversarial examples", ...examples.flatMap(({ attack, pictures }) => [
    make("p", { class: "soft" }, attack),
    make("div", { class: "examples" }, ...pictures.map(({ part, url, caption }) => make("div", {},
      make("img", { src: url, alt: `${part}: ${caption}` }), make("div", {}, caption)))),
  ])) : [];
}

function ofTrajectory({ trajectory }) {
  if (!trajectory.length) return [];
  const [several, networks] = [new Set(trajectory.map(curve => curve.attack)).size > 1, seeds(trajectory)];
  const found = trajectory.map(curve => ({
    ...curve,
    label: [curve.group === "noise" ? "noise" : "adversarial", several ? curve.attack : "", networks ? `seed ${curve.seed}` : ""].filter(Boolean).join(", "),
  }));
  return section("Along the ODE",
    make("p", { class: "soft" }, "Distance from the clean state, relative to its size; median over images."),
    curves(found, "distance", "Distance from the clean state along t"),
    make("p", { class: "soft" }, "Margin of the clean decision as the head reads it; median over images."),
    curves(found, "margin", "Margin of the clean decision along t"));
}

function ofShares({ shares }) {
  const names = { strong: "adversarial examples", noise: "noise of the same size", swapped: "difference of another image" };
  const groups = Map.groupBy(shares, row => [names[row.perturbation] ?? row.perturbation, row.attack, row.seed].join("|"));
  const [several, networks] = [new Set(shares.map(row => row.attack)).size > 1, seeds(shares)];
  return shares.length ? section("Shares of the lost margin", ...[...groups.values()].flatMap(own => {
    const { perturbation, attack, seed, images } = own[0];
    const title = [names[perturbation] ?? perturbation, several ? attack : "", networks ? `seed ${seed}` : "", `${images} images`].filter(Boolean).join(", ");
    const rows = own.map(row => ({ ...row, name: row.player === "part" ? `t ${number(row.start)} to ${number(row.end)}` : row.player }));
    return [make("p", { class: "soft" }, title), rows.some(known) ? bars(rows) : make("p", {}, "Not defined: the margin that is lost cannot be told from none.")];
  })) : [];
}

function ofClaims({ claims }) {
  return claims.length ? section("What the claims say here", ...claims.flatMap(({ about, claim, reason }) => [
    make("p", {}, make("b", {}, `${about}: ${claim}. `), reason),
  ])) : [];
}

function contents(setting) {
  return [
    make("p", {}, make("span", { class: "word", "data-verdict": setting.verdict }, `${setting.sign} ${setting.verdict}`), ` on ${setting.dataset}`),
    make("p", {}, setting.reason),
    ...ofRobustness(setting), ...ofAttacks(setting), ...ofChecks(setting), ...ofExamples(setting),
    ...ofTrajectory(setting), ...ofShares(setting), ...ofClaims(setting),
    ...section("Files", make("ul", { class: "files" }, ...setting.files.map(path => make("li", {}, path)))),
  ];
}
