"use strict";
const table = JSON.parse(document.getElementById("table").textContent);
const VERDICT = column("verdict"), REMARK = column("verdict_remark");
const given = table.rows.map(row => [row[VERDICT], row[REMARK]]);  // as in cohort.csv when this page was made
const main = document.querySelector("main"), heads = [...document.querySelectorAll("nav .line button")];
const cards = [...main.children];
const progress = document.getElementById("progress"), select = document.getElementById("filter");
let current = null, sorted = -1, ascending = true, trouble = "";

function column(name) {
  if (!table.columns.includes(name)) { table.columns.push(name); table.rows.forEach(row => row.push("")); }
  return table.columns.indexOf(name);
}
function rowOf(card) { return table.rows[card.dataset.line]; }
function isChanged(card) {
  const row = rowOf(card), [verdict, remark] = given[card.dataset.line];
  return row[VERDICT] !== verdict || row[REMARK] !== remark;
}

// What the browser keeps. Some keep nothing for a file on the disk; then the page says so.
function recall(card) {
  if (!card.dataset.key) return;
  try {
    const kept = JSON.parse(localStorage.getItem(card.dataset.key));
    if (kept) { [rowOf(card)[VERDICT], rowOf(card)[REMARK]] = kept; keep(card); }
  } catch (error) { trouble = "This browser keeps nothing: download before you close the page!"; }
}
function keep(card) {
  try {
    if (isChanged(card)) localStorage.setItem(card.dataset.key,
                                              JSON.stringify([rowOf(card)[VERDICT], rowOf(card)[REMARK]]));
    else localStorage.removeItem(card.dataset.key);
  } catch (error) { trouble = "This browser keeps nothing: download before you close the page!"; }
}

function show(card) {
  const row = rowOf(card), cell = card.querySelector(".verdict");
  card.dataset.verdict = cell.textContent = cell.dataset.value = row[VERDICT];
  for (const button of card.querySelectorAll(".judge button"))
    button.setAttribute("aria-pressed", button.dataset.verdict === row[VERDICT]);
  const remark = card.querySelector("textarea");
  if (remark && remark.value !== row[REMARK]) remark.value = row[REMARK];
}
function report() {
  const open = cards.filter(card => card.dataset.key);
  const count = word => open.filter(card => rowOf(card)[VERDICT] === word).length;
  const [accept, reject, unsure] = ["accept", "reject", "unsure"].map(count);
  const here = open.filter(isChanged).length;
  progress.textContent = `${accept + reject + unsure} of ${open.length} judged: ${accept} accepted, `
    + `${reject} rejected, ${unsure} unsure. ` + (here ? `${here} not in cohort.csv yet. ` : "") + trouble;
  document.getElementById("forget").disabled = !here;
}

function choose(card) {
  if (current) current.classList.remove("current");
  current = card;
  card.classList.add("current");
}
function go(step) {
  const shown = [...main.children].filter(card => !card.hidden), place = shown.indexOf(current);
  const next = shown[place < 0 ? 0 : place + step];
  if (next) { choose(next); next.scrollIntoView({block: "start"}); }
}
function start() {
  if (current) current.classList.remove("current");
  current = null;
  go(0);
}
function judge(card, verdict) {
  if (!card) return;
  if (!card.dataset.key) { go(1); return; }  // failed: nothing to judge
  if (card.querySelector(".lost")) return;
  rowOf(card)[VERDICT] = verdict;
  keep(card); show(card); report();
  if (verdict === "accept") go(1);
  else if (verdict) card.querySelector("textarea").focus();
}

function sortBy(number) {
  ascending = sorted === number ? !ascending : true;
  sorted = number;
  const value = card => card.firstChild.children[number].dataset.value;
  const compare = (a, b) => a.localeCompare(b, "en", {numeric: true});
  const isNumber = cards.every(card => !Number.isNaN(Number(value(card))));
  cards.sort((one, other) => {
    const a = value(one), b = value(other);
    if (a === "" || b === "") return (a === "") - (b === "");  // empty cells come last
    return (isNumber ? a - b : compare(a, b)) * (ascending ? 1 : -1);
  });
  main.append(...cards);
  heads.forEach(head => head.removeAttribute("aria-sort"));
  heads[number].setAttribute("aria-sort", ascending ? "ascending" : "descending");
  start();
}
function filter() {
  for (const card of cards) {
    const verdict = rowOf(card)[VERDICT], is = [card.dataset.mark, verdict];
    if (card.dataset.key && !verdict) is.push("open");
    card.hidden = select.value !== "all" && !is.includes(select.value);
  }
  start();
}

function csv() {  // as Python's csv module writes it
  const cell = text => /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  return [table.columns, ...table.rows].map(row => row.map(cell).join(",") + "\n").join("");
}
function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv()], {type: "text/csv"}));
  link.download = "cohort.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
function forget() {
  if (!confirm("Go back to the verdicts in cohort.csv?")) return;
  for (const card of cards.filter(isChanged)) {
    [rowOf(card)[VERDICT], rowOf(card)[REMARK]] = given[card.dataset.line];
    keep(card); show(card);
  }
  report();
}

main.addEventListener("error", event => {  // a picture that is not beside the page: nobody judges what he cannot see
  const lost = document.createElement("p");
  lost.className = "warning lost";
  lost.textContent = `The picture ${event.target.getAttribute("src").split("?")[0]} is not beside this page, or damaged. Open `
    + "the page in its own folder, or make one to carry along: the same command of run_preprocess.py with --qc-inline.";
  event.target.replaceWith(lost);
}, true);
main.addEventListener("click", event => {
  const card = event.target.closest("article"), button = event.target.closest(".judge button");
  if (!card) return;
  choose(card);
  if (button) judge(card, button.dataset.verdict);
});
main.addEventListener("input", event => {
  const card = event.target.closest("article");
  rowOf(card)[REMARK] = event.target.value;
  keep(card); report();
});
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.tagName === "TEXTAREA") {
    if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); event.target.blur(); go(1); }
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const act = {j: () => go(1), k: () => go(-1), 1: () => judge(current, "accept"), 2: () => judge(current, "reject"),
               3: () => judge(current, "unsure"), 0: () => judge(current, ""),
               r: () => current && current.dataset.key && current.querySelector("textarea").focus()}[event.key];
  if (act) { event.preventDefault(); act(); }
});
heads.forEach((head, number) => head.addEventListener("click", () => sortBy(number)));
select.addEventListener("change", () => { filter(); select.blur(); });
document.getElementById("download").addEventListener("click", download);
document.getElementById("forget").addEventListener("click", forget);
for (const card of cards) { recall(card); show(card); }
report();
if (cards.length) choose(cards[0]);
