// The mask at each refresh (dcil/lab/demos/scrubber.py): a slider that chooses which of those in the page is shown.
(function () {
  "use strict";

  function start(demo) {
    const frames = JSON.parse(demo.querySelector("script").textContent);
    const form = demo.querySelector("form");
    const slider = form.elements.refresh;
    const weights = demo.querySelectorAll("svg.mask use");

    function draw() {
      const frame = frames[slider.value];
      const words = `${frame.refresh}, step ${frame.step}`;
      for (const node of demo.querySelectorAll("[data-shown]")) {
        node.textContent = frame[node.dataset.shown].toFixed(node.dataset.digits ?? 0);
      }
      weights.forEach((weight, i) => weight.setAttribute("href", `#mask-${frame.sides[i]}`));
      slider.setAttribute("aria-valuetext", words);
      slider.nextElementSibling.textContent = words;
    }

    form.hidden = false;
    form.addEventListener("input", draw);
    form.addEventListener("submit", (event) => event.preventDefault());
    draw();
  }

  for (const demo of document.querySelectorAll(".scrubber")) start(demo);
})();
