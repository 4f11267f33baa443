"use strict";
(() => {
  const root = document.documentElement;
  const failures = [];
  const fail = (what) => { failures.push(String(what)); root.dataset.errors = failures.join(" | "); };
  addEventListener("error", (event) => fail(event.message));
  addEventListener("unhandledrejection", (event) => fail(event.reason));

  const theme = () => {
    const style = getComputedStyle(root);
    const pick = (name) => style.getPropertyValue(name).trim();
    const axis = { gridcolor: pick("--grid"), zerolinecolor: pick("--grid"), linecolor: pick("--line"),
                   tickcolor: pick("--line"), automargin: true };
    return { axis, ink: pick("--ink"), soft: pick("--soft"), panel: pick("--panel"), line: pick("--line") };
  };
  const themed = (layout) => {
    const look = theme();
    const merged = { ...layout, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: look.soft },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: look.line, activecolor: look.soft },
      hoverlabel: { bgcolor: look.panel, bordercolor: look.line, align: "left", font: { color: look.ink, size: 13 } } };
    for (const key of Object.keys(layout).filter((name) => /^[xy]axis\d*$/.test(name))) {
      merged[key] = { ...look.axis, ...layout[key] };
    }
    return merged;
  };
  const config = { responsive: true, displaylogo: false, displayModeBar: "hover",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"] };

  const places = [...document.querySelectorAll(".plot")];
  const figures = places.map((place) => JSON.parse(document.getElementById(place.dataset.figure).textContent));
  const draw = () => Promise.all(places.map((place, i) =>
    Plotly.react(place, figures[i].data, themed(figures[i].layout), config)));
  const start = () => draw().then(() => { root.dataset.plots = String(places.length); }, fail);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  root.dataset.errors = "";
  start();
})();
