// Interactive twins of figures: drawn when a reader opens one. The library is loaded then, once, from the site itself.
(function () {
  "use strict";
  const address = new URL("../plotly/plotly.min.js", document.currentScript.src).href;
  let library = null;

  function load() {
    library ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = address;
      script.onload = () => resolve(window.Plotly);
      script.onerror = () => reject(new Error(address));
      document.head.append(script);
    });
    return library;
  }

  async function draw(event) {
    const place = event.target.querySelector("div.twin");
    if (!event.target.open || place.dataset.drawn) return;
    place.dataset.drawn = "yes";
    const spec = JSON.parse(place.querySelector("script").textContent);
    const note = place.querySelector("p");
    note.textContent = "One moment …";
    try {
      const plotly = await load();
      const canvas = document.createElement("div");
      place.append(canvas);
      await plotly.newPlot(canvas, spec.data, spec.layout, { responsive: true, displaylogo: false });
      note.remove();
    } catch (error) {
      note.textContent = "The interactive figure could not be drawn: " + error.message;
    }
  }

  for (const details of document.querySelectorAll("details.interactive")) details.addEventListener("toggle", draw);
})();
