// Draws the figures, sorts the table, and keeps both fresh while the study runs.
"use strict";
(() => {
  const POLL = 4000;
  const live = document.getElementById("live");
  const table = document.getElementById("trials");
  const state = { figures: {}, version: null, etag: null, sort: { column: 0, descending: true } };

  // Figures

  const css = (selector, property) => getComputedStyle(document.querySelector(selector))[property];
  const colors = () => ({
    text: css("body", "color"),
    muted: css(".muted", "color"),
    line: css(".card", "borderTopColor"),
    card: css(".card", "backgroundColor"),
  });

  function themed(layout) {
    const { text, muted, line, card } = colors();
    const result = structuredClone(layout);
    result.font = { ...result.font, color: text };
    result.hoverlabel = { bgcolor: card, bordercolor: line, font: { color: text }, align: "left" };
    for (const name of new Set([...Object.keys(result), "xaxis", "yaxis"])) {
      if (!/^[xy]axis\d*$/.test(name)) continue;
      result[name] = { ...result[name], gridcolor: line, linecolor: line, tickfont: { color: muted } };
    }
    for (const shape of result.shapes ?? []) if (shape.name === "axis") shape.line.color = muted;
    for (const note of result.annotations ?? []) {
      if (note.name === "tick") Object.assign(note, { bgcolor: card, font: { ...note.font, color: muted } });
    }
    return result;
  }

  async function draw(plot) {
    const answer = state.figures[plot.dataset.chart];
    if (!answer) return;
    const note = plot.closest(".card").querySelector(".note");
    note.hidden = !answer.note;
    note.textContent = answer.note ?? "";
    plot.style.minWidth = answer.figure ? `${answer.minWidth}px` : "";
    if (!answer.figure) {
      Plotly.purge(plot);
      const words = Object.assign(document.createElement("p"), { className: "words", textContent: answer.words });
      plot.replaceChildren(words);
      return;
    }
    plot.querySelector(".words")?.remove();
    await Plotly.react(plot, answer.figure.data, themed(answer.figure.layout), {
      responsive: true,
      displaylogo: false,
      modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
    });
  }

  const plots = () => [...document.querySelectorAll(".plot")];
  const drawAll = async () => {
    for (const plot of plots()) await draw(plot);
    document.body.dataset.drawn = state.version;
  };

  async function loadFigures(version) {
    const answer = await fetch("figures");
    if (!answer.ok) throw new Error(`figures: ${answer.status}`);
    state.figures = await answer.json();
    state.version = version;
    await drawAll();
  }

  // Table

  function compare(kind, descending) {
    return ([, a], [, b]) => {
      if (a === "" || b === "") return (a === "") - (b === ""); // what is missing is always last
      const [x, y] = [Number(a), Number(b)];
      const order = kind === "number" && !isNaN(x) && !isNaN(y) ? x - y : a.localeCompare(b, undefined, { numeric: true });
      return descending ? -order : order;
    };
  }

  function sort() {
    const { column, descending } = state.sort;
    const body = table.tBodies[0];
    const kind = table.tHead.rows[0].cells[column].dataset.kind;
    const keyed = [...body.rows].filter((row) => row.dataset.trial).map((row) => [row, row.cells[column].dataset.sort]);
    if (keyed.length) body.append(...keyed.sort(compare(kind, descending)).map(([row]) => row));
    for (const head of table.tHead.rows[0].cells) head.removeAttribute("aria-sort");
    table.tHead.rows[0].cells[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
  }

  function onSort(event) {
    const head = event.target.closest("th");
    if (!head) return;
    const same = state.sort.column === head.cellIndex;
    state.sort = { column: head.cellIndex, descending: same ? !state.sort.descending : false };
    sort();
  }

  function replaceRows(html) {
    const body = table.tBodies[0];
    const open = new Set([...body.querySelectorAll("details[open]")].map((item) => item.closest("tr").dataset.trial));
    body.innerHTML = html;
    for (const row of body.rows) if (open.has(row.dataset.trial)) row.querySelector("details")?.setAttribute("open", "");
    sort();
  }

  // Copy

  async function copy(button) {
    const text = button.dataset.copy;
    if (navigator.clipboard) {
      await navigator.clipboard.writeText(text);
    } else {
      // a page without https has no clipboard
      const area = Object.assign(document.createElement("textarea"), { value: text });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy as YAML"), 1500);
  }

  // Live

  function say(words, kind) {
    if (live.textContent !== words) live.textContent = words;
    live.className = `live ${kind}`;
  }

  async function refresh() {
    const answer = await fetch("data", { headers: state.etag ? { "If-None-Match": state.etag } : {}, cache: "no-store" });
    if (answer.status === 304) return;
    if (!answer.ok) throw new Error(`data: ${answer.status}`);
    const data = await answer.json();
    state.etag = answer.headers.get("ETag");
    live.dataset.terminal = String(data.terminal);
    const summary = document.getElementById("summary");
    if (summary && !summary.contains(document.activeElement)) summary.innerHTML = data.summary;
    if (table) {
      if (table.tHead.rows[0].cells.length !== data.columns) return location.reload();
      const [x, y] = [scrollX, scrollY];
      replaceRows(data.rows);
      scrollTo(x, y);
    }
    if (data.figures !== state.version) await loadFigures(data.figures);
  }

  const isOver = () => live.dataset.terminal === "true";

  async function turn() {
    try {
      if (!document.hidden) {
        if (state.version === null) await loadFigures(live.dataset.figures);
        await refresh();
        if (isOver()) say("", "");
        else say("Live", "on");
      }
    } catch (error) {
      say("No connection, trying again", "off");
    }
    // A finished study may be resumed with a larger budget, so it is looked at, too; seldom.
    setTimeout(turn, isOver() ? 15 * POLL : POLL);
  }

  table?.tHead.addEventListener("click", onSort);
  document.addEventListener("themechange", drawAll);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (button) copy(button);
  });
  turn();
})();
