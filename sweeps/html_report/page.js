"use strict";
(() => {
  const panels = JSON.parse(document.getElementById("figures").textContent);
  // A finger on a figure scrolls the page, it does not zoom.
  const coarse = matchMedia("(pointer: coarse), (hover: none), (max-width: 600px)").matches;
  const off = new Set();
  let seeds = false;

  const colors = () => {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue(name).trim();
    return { ink: of("--ink"), soft: of("--soft"), grid: of("--grid"), line: of("--line"), card: of("--card") };
  };
  const theme = (layout) => {
    const { ink, soft, grid, line, card } = colors();
    const change = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", "font.color": ink,
      "hoverlabel.bgcolor": card, "hoverlabel.font.color": ink, "hoverlabel.align": "left",
      "modebar.color": soft, "modebar.activecolor": ink, "modebar.bgcolor": "rgba(0,0,0,0)",
    };
    for (const axis of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) {
      change[`${axis}.gridcolor`] = grid;
      change[`${axis}.linecolor`] = line;
      change[`${axis}.tickfont.color`] = soft;
      change[`${axis}.title.font.color`] = soft;
    }
    return change;
  };
  const put = (layout, change) => {
    for (const [path, value] of Object.entries(change)) {
      const keys = path.split(".");
      const last = keys.pop();
      keys.reduce((node, key) => (node[key] ??= {}), layout)[last] = value;
    }
    return layout;
  };
  const element = (panel) => document.getElementById(`figure-${panel.name}`);
  const seen = (trace) => !trace.meta || (!off.has(trace.meta.arm) && (seeds || trace.meta.role !== "seed"));
  const config = {
    responsive: true, displaylogo: false, displayModeBar: coarse ? false : "hover",
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]], showTips: false,
  };

  // Zooming one figure over the steps zooms all of them.
  const curves = panels.filter((panel) => panel.curves);
  let following = false;
  const follow = (from, event) => {
    if (following) return;
    let change = null;
    if (event["xaxis.autorange"]) change = { "xaxis.autorange": true };
    else if ("xaxis.range[0]" in event) change = { "xaxis.range": [event["xaxis.range[0]"], event["xaxis.range[1]"]] };
    if (!change) return;
    following = true;
    Promise.all(curves.filter((panel) => panel !== from).map((panel) => Plotly.relayout(element(panel), { ...change })))
      .finally(() => { following = false; });
  };

  const draw = async (panel) => {
    const { data, layout } = panel.figure;
    put(layout, theme(layout));
    layout.dragmode = coarse ? false : "zoom";
    await Plotly.newPlot(element(panel), data, layout, config);
    if (panel.curves) element(panel).on("plotly_relayout", (event) => follow(panel, event));
  };
  const update = () => {
    for (const button of document.querySelectorAll(".legend button")) {
      button.setAttribute("aria-pressed", String(button.dataset.arm === undefined ? seeds : !off.has(button.dataset.arm)));
    }
    for (const panel of curves) Plotly.restyle(element(panel), { visible: element(panel).data.map(seen) });
  };
  for (const button of document.querySelectorAll(".legend button")) {
    const arm = button.dataset.arm;
    button.addEventListener("click", () => {
      if (arm === undefined) seeds = !seeds;
      else if (!off.delete(arm)) off.add(arm);
      update();
    });
    if (arm === undefined) continue;
    button.addEventListener("dblclick", () => {
      for (const other of document.querySelectorAll(".legend button[data-arm]")) {
        if (other === button) off.delete(arm);
        else off.add(other.dataset.arm);
      }
      update();
    });
  }

  const compare = (one, other) => {
    if (one === "" || other === "") return (one === "") - (other === ""); // what is not there comes last
    const [a, b] = [Number(one), Number(other)];
    return Number.isNaN(a) || Number.isNaN(b) ? one.localeCompare(other) : a - b;
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const sort = () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const each of heads) each.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const key = (row) => row.cells[column].dataset.sort;
        const order = (a, b) => compare(key(a), key(b)) * (down && key(a) !== "" && key(b) !== "" ? -1 : 1);
        table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
      };
      head.tabIndex = 0;
      head.addEventListener("click", sort);
      head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
    });
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const panel of panels) Plotly.relayout(element(panel), theme(panel.figure.layout));
  });
  (async () => {
    for (const panel of panels) await draw(panel);
    document.body.dataset.drawnMs = String(Math.round(performance.now())); // since the page was asked for
  })();
})();
