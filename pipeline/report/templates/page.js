// Draws the charts, in the chosen theme, and shows or hides networks.
const charts = JSON.parse(document.getElementById("charts").textContent);
const themes = JSON.parse(document.getElementById("themes").textContent);
const views = new Map();
const choice = document.getElementById("theme");
const system = matchMedia("(prefers-color-scheme: dark)");

function theme() {
  return choice.value === "auto" ? (system.matches ? "dark" : "light") : choice.value;
}

async function draw() {
  const drawn = theme();
  document.documentElement.dataset.theme = drawn;
  const colours = themes[drawn].range.category;
  document.querySelectorAll(".swatch").forEach((swatch, place) => {
    swatch.style.background = colours[place % colours.length];
  });
  for (const place of document.querySelectorAll("[data-chart]")) {
    const name = place.dataset.chart;
    views.get(name)?.finalize();
    const result = await vegaEmbed(place, structuredClone(charts[name]), {
      actions: false,
      ast: true, // expressions are interpreted: the page's policy forbids making code of them
      config: themes[drawn],
      mode: "vega-lite",
      renderer: "svg",
      tooltip: { theme: drawn },
    });
    place.querySelector("svg").setAttribute("aria-label", place.parentElement.querySelector("figcaption").textContent);
    views.set(name, result);
    show(result.view);
  }
  document.documentElement.dataset.drawn = drawn;
}

function shown() {
  return [...document.querySelectorAll("[data-network]")].filter((box) => box.checked).map((box) => Number(box.value));
}

function show(view) {
  if (document.querySelector("[data-network]") && "shown" in view.getState({ signals: () => true }).signals) {
    view.signal("shown", shown()).runAsync();
  }
}

choice.addEventListener("change", draw);
system.addEventListener("change", draw);
for (const box of document.querySelectorAll("[data-network]")) {
  box.addEventListener("change", () => views.forEach((result) => show(result.view)));
}
draw();
