(function () {
  "use strict";
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  function colours() {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue("--" + name).trim();
    return { ink: of("ink"), muted: of("muted"), line: of("line"), sheet: of("sheet") };
  }

  function draw(figure) {
    const spec = JSON.parse(figure.dataset.plot);
    const image = figure.querySelector("img");
    let place = figure.querySelector(".plot");
    if (!place) {
      place = document.createElement("div");
      place.className = "plot";
      place.setAttribute("role", "img");
      place.setAttribute("aria-label", image.alt);
      image.after(place);
    }
    const c = colours();
    const data = spec.data.map((trace) =>
      trace.role ? { ...trace, line: { ...trace.line, color: c[trace.role] } } : trace);
    const axis = { color: c.muted, gridcolor: c.line, zeroline: false, fixedrange: true };
    const layout = {
      ...spec.layout,
      height: spec.height,
      autosize: true,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: c.ink },
      hoverlabel: { bgcolor: c.sheet, bordercolor: c.line, font: { color: c.ink } },
      xaxis: { ...axis, ...spec.layout.xaxis },
      yaxis: { ...axis, ...spec.layout.yaxis },
      shapes: (spec.layout.shapes || []).map((shape) =>
        ({ ...shape, line: { ...shape.line, color: c.muted } })),
    };
    figure.classList.add("plotted");
    Plotly.react(place, data, layout, { displayModeBar: false, responsive: true });
  }

  function visible(figure) {
    const details = figure.closest("details");
    return !details || details.open;
  }

  function drawAll() {
    document.querySelectorAll("figure[data-plot]").forEach((figure) => {
      if (visible(figure)) draw(figure);
    });
  }

  document.querySelectorAll("details").forEach((details) => {
    details.addEventListener("toggle", () => {
      if (details.open) details.querySelectorAll("figure[data-plot]").forEach(draw);
    });
  });
  dark.addEventListener("change", drawAll);
  drawAll();
})();
