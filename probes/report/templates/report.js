"use strict";
(function () {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const templates = read("templates");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 900px)");
  const figures = [...document.querySelectorAll("figure")].map((element) => ({
    id: element.id,
    plot: document.getElementById(element.id + "-plot"),
    title: document.getElementById(element.id + "-title").textContent,
    spec: read(element.id + "-json"),
  }));
  const settings = { responsive: true, displayModeBar: false };

  function draw(scheme) {
    return Promise.all(figures.map(({ plot, spec }) => {
      const layout = { ...structuredClone(spec.layout), template: templates[scheme] };
      const data = structuredClone(spec.data);
      if (narrow.matches) data.forEach((trace) => { delete trace.texttemplate; }); // numbers would overlap
      return Plotly.react(plot, data, layout, settings);
    }));
  }

  const escape = (text) => text.replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]);

  async function download(id) {
    const { plot, title, spec } = figures.find((figure) => figure.id === id);
    const layout = structuredClone(spec.layout);
    layout.template = templates.light;
    layout.paper_bgcolor = "#ffffff";
    layout.title = { text: escape(title), x: 0.01, xanchor: "left", y: 0.99, yanchor: "top", font: { size: 16 } };
    layout.margin = { ...layout.margin, t: (layout.margin?.t ?? 40) + 36 };
    const height = (layout.height ?? 420) + 36;
    delete layout.height;
    const image = await Plotly.toImage({ data: structuredClone(spec.data), layout }, { format: "svg", width: plot.clientWidth, height });
    const svg = decodeURIComponent(image.slice(image.indexOf(",") + 1));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
    link.download = id + ".svg";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.svg");
    if (button) download(button.dataset.figure);
  });
  const scheme = () => (dark.matches ? "dark" : "light");
  for (const query of [dark, narrow]) query.addEventListener("change", () => draw(scheme()));
  window.addEventListener("beforeprint", () => draw("light"));
  window.addEventListener("afterprint", () => draw(scheme()));
  draw(scheme()).then(() => { document.documentElement.dataset.drawn = "true"; });
})();
