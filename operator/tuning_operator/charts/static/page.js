// Draws the figures, sorts the table, and keeps both fresh while the study runs.
"use strict";
(() => {
  const POLL = 4000;
  const ENDED = 410; // the link, see server.py
  const POLL_OF_A_FINISHED_STUDY = 60000; // it may be resumed with a larger budget
  const live = document.getElementById("live");
  const summary = document.getElementById("summary");
  const table = document.getElementById("trials");
  const heads = table ? [...table.tHead.rows[0].cells] : [];
  const state = { figures: {}, version: null, etag: live.dataset.version, hasEnded: false, sort: { column: 0, descending: true } };

  async function ask(file, options) {
    const answer = await fetch(file, options);
    state.hasEnded = answer.status === ENDED;
    if (!answer.ok && answer.status !== 304) throw new Error(`${file}: ${answer.status}`);
    return answer;
  }

  // Figures

  // NB: what is not named here is not there, whatever an upgrade of Plotly adds. Its own set has a button that opens a page of
  // Plotly's and gives it the figure, which no Content-Security-Policy forbids.
  const BUTTONS = [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]];
  const HEIGHT_OF_BUTTONS = 30;
  const CONFIG = {
    responsive: true,
    displaylogo: false,
    modeBarButtons: BUTTONS,
    showSendToCloud: false,
    plotlyServerURL: "",
  };

  // Plotly is the last of the deferred scripts: it is read and run while the figures are on their way.
  const hasPlotly = new Promise((resolve) => document.addEventListener("DOMContentLoaded", resolve));
  const css = (selector, property) => getComputedStyle(document.querySelector(selector))[property];
  const colorsOfTheme = () => ({
    text: css("body", "color"),
    muted: css(".card .muted", "color"),
    line: css(".card", "borderTopColor"),
    card: css(".card", "backgroundColor"),
  });

  function themed(layout, { text, muted, line, card }) {
    const result = structuredClone(layout);
    result.font = { ...result.font, color: text };
    result.modebar = { bgcolor: "transparent", color: muted, activecolor: text };
    result.uirevision = "kept"; // what a reader has zoomed or hidden outlives the next trial
    result.hoverlabel = { bgcolor: card, bordercolor: line, font: { color: text }, align: "left" };
    for (const name of new Set([...Object.keys(result), "xaxis", "yaxis"])) {
      if (!/^[xy]axis\d*$/.test(name)) continue;
      const axis = result[name] ?? {};
      const title = { ...axis.title, font: { color: muted, size: 12 } };
      const uirevision = axis.title?.text ?? name; // an axis of something else begins as a whole
      result[name] = { ...axis, title, uirevision, gridcolor: line, linecolor: line, tickfont: { color: muted } };
    }
    for (const shape of result.shapes ?? []) if (shape.name === "axis") shape.line.color = muted;
    for (const note of result.annotations ?? []) {
      if (note.name === "tick") Object.assign(note, { bgcolor: card, font: { ...note.font, color: muted } });
    }
    return result;
  }

  // Alone, a chart has buttons in a row of their own, above its legend.
  function withButtons(layout) {
    const top = (layout.margin?.t ?? layout.template.layout.margin.t) + HEIGHT_OF_BUTTONS;
    return { ...layout, margin: { ...layout.margin, t: top } };
  }

  // NB: Plotly forgets a zoom where the range beneath it has changed, as it does with each trial: beneath a zoom it stays.
  const given = new WeakMap();
  function withZoomsOf(plot, layout) {
    const before = given.get(plot) ?? {};
    for (const [name, axis] of Object.entries(layout)) {
      const [was, is] = [before[name]?.range, plot.layout?.[name]?.range];
      if (!/^[xy]axis\d*$/.test(name) || !axis.range || !was || !is || axis.uirevision !== before[name].uirevision) continue;
      if (is.some((end, at) => end !== was[at])) axis.range = was;
    }
    given.set(plot, structuredClone(layout));
    return layout;
  }

  function say(plot, answer) {
    const note = plot.closest(".card").querySelector(".note");
    note.hidden = !answer.note;
    note.textContent = answer.note ?? "";
    plot.classList.toggle("in-words", !answer.figure);
    plot.style.minWidth = answer.figure ? `${answer.minWidth}px` : "";
    plot.style.minHeight = answer.figure && answer.minHeight ? `${answer.minHeight}px` : "";
  }

  async function draw(plot, colors) {
    const answer = state.figures[plot.dataset.chart];
    if (!answer) return;
    say(plot, answer);
    if (!answer.figure) {
      Plotly.purge(plot);
      plot.replaceChildren(Object.assign(document.createElement("p"), { className: "words", textContent: answer.words }));
      return;
    }
    plot.querySelector(".words")?.remove();
    const isAlone = Boolean(plot.closest(".single"));
    const layout = withZoomsOf(plot, themed(answer.figure.layout, colors));
    const config = { ...CONFIG, displayModeBar: isAlone };
    await Plotly.react(plot, answer.figure.data, isAlone ? withButtons(layout) : layout, config);
  }

  // Charts that have nothing to show share a card.
  function gatherBlanks() {
    const blank = document.querySelector(".blank");
    if (!blank) return;
    const cards = [...document.querySelectorAll(".plot")].map((plot) => [plot.closest(".card"), plot.querySelector(".words")]);
    const inWords = cards.filter(([, words]) => words);
    const isShared = inWords.length > 1;
    blank.hidden = !isShared;
    for (const [card, words] of cards) card.hidden = isShared && Boolean(words);
    const names = new Map(); // by what is said in their place
    for (const [card, { textContent }] of inWords) {
      names.set(textContent, [...(names.get(textContent) ?? []), card.querySelector("h3").textContent]);
    }
    const lines = [...names].map(([words, titles]) => {
      const line = document.createElement("div");
      const title = Object.assign(document.createElement("dt"), { textContent: titles.join(", ") });
      line.append(title, Object.assign(document.createElement("dd"), { textContent: words }));
      return line;
    });
    blank.querySelector("dl").replaceChildren(...(isShared ? lines : []));
  }

  async function drawAll() {
    await hasPlotly;
    const colors = colorsOfTheme();
    for (const plot of document.querySelectorAll(".plot")) await draw(plot, colors);
    gatherBlanks();
    document.body.dataset.drawn = state.version;
  }

  async function loadFigures(version) {
    const answer = await ask("figures");
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

  // Moves only the rows that are out of place: a row that is moved loses the text that a reader has selected in it.
  function sort() {
    const { column, descending } = state.sort;
    const rows = table.tBodies[0].rows;
    const keyed = [...rows].filter((row) => row.dataset.trial).map((row) => [row, row.cells[column].dataset.sort]);
    keyed.sort(compare(heads[column].dataset.kind, descending)).forEach(([row], place) => {
      if (rows[place] !== row) rows[place].before(row);
    });
    for (const head of heads) head.removeAttribute("aria-sort");
    heads[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
  }

  function onSort(event) {
    const column = heads.indexOf(event.target.closest("th"));
    if (column < 0) return;
    state.sort = { column, descending: state.sort.column === column && !state.sort.descending };
    sort();
  }

  const markup = new WeakMap();
  for (const row of table?.tBodies[0].rows ?? []) markup.set(row, row.outerHTML);

  // Rows that say the same stay as they are, with what is open, selected or focused in them.
  function replaceRows(html) {
    const fresh = document.createElement("template");
    fresh.innerHTML = html;
    const body = table.tBodies[0];
    const known = new Map([...body.rows].map((row) => [row.dataset.trial, row]));
    for (const row of [...fresh.content.children]) {
      const old = known.get(row.dataset.trial);
      known.delete(row.dataset.trial);
      markup.set(row, row.outerHTML);
      if (!old) body.append(row);
      else if (markup.get(old) !== markup.get(row)) old.replaceWith(row);
    }
    for (const gone of known.values()) gone.remove();
    sort();
  }

  // All rows, once they can be seen; the first are there from the start.
  const brief = document.querySelector(".table-card.brief");
  const showAll = () => brief?.classList.remove("brief");
  if (brief) {
    new IntersectionObserver((entries, observer) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      showAll();
    }).observe(brief);
    addEventListener("beforeprint", showAll);
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

  function tell(words, kind) {
    if (live.textContent !== words) live.textContent = words;
    live.className = `live ${kind}`;
  }

  function replaceSummary(html) {
    const hadFocus = summary.contains(document.activeElement);
    const isOpen = summary.querySelector("details[data-kept]")?.open;
    summary.innerHTML = html;
    if (isOpen) summary.querySelector("details[data-kept]")?.setAttribute("open", "");
    if (hadFocus) summary.querySelector("[data-copy]")?.focus();
  }

  const hasSameColumns = (params) => {
    const shown = heads.filter((head) => "param" in head.dataset).map((head) => head.dataset.param);
    return JSON.stringify(shown) === JSON.stringify(params);
  };

  async function refresh() {
    const answer = await ask("data", { headers: state.etag ? { "If-None-Match": state.etag } : {}, cache: "no-store" });
    if (answer.status === 304) return;
    const data = await answer.json();
    if (table && !hasSameColumns(data.params)) return location.reload();
    state.etag = answer.headers.get("ETag");
    live.dataset.terminal = String(data.terminal);
    if (summary) {
      document.title = `${data.title} – TuningStudy`;
      replaceSummary(data.summary);
      replaceRows(data.rows);
    }
    if (data.figures !== state.version) await loadFigures(data.figures);
  }

  const isOver = () => live.dataset.terminal === "true";

  async function turn() {
    try {
      if (!document.hidden) {
        if (state.version === null) await loadFigures(live.dataset.figures);
        await refresh();
        if (isOver()) tell("Finished", "");
        else tell("Live", "on");
      }
    } catch {
      if (state.hasEnded) return tell("This link has ended: reload to see how to get another", "off");
      tell("No connection, trying again", "off");
    }
    setTimeout(turn, isOver() ? POLL_OF_A_FINISHED_STUDY : POLL);
  }

  table?.tHead.addEventListener("click", onSort);
  document.addEventListener("themechange", drawAll);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (button) copy(button);
  });
  const enclosed = document.getElementById("figures"); // a report: one file that asks nobody
  if (enclosed) {
    state.figures = JSON.parse(enclosed.textContent);
    state.version = "enclosed";
    drawAll();
  } else {
    turn();
  }
})();
