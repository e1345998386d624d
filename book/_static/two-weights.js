// Two weights (dcil/lab/demos/two_weights.py): sliders that choose which of the values in the page are shown.
(function () {
  "use strict";
  const points = (xs, ys) => xs.map((x, i) => `${x},${ys[i]}`).join(" ");
  const text = (value, digits) => value.toFixed(digits).replace("-", "−");

  function start(demo) {
    const data = JSON.parse(demo.querySelector("script").textContent);
    const form = demo.querySelector("form");
    const { step, rate, period } = form.elements;

    function tell(slider, words) {
      slider.setAttribute("aria-valuetext", words);
      slider.nextElementSibling.textContent = words;
    }

    // What is drawn of a method's run at a step: attributes by the mark's name.
    function marks(run, at) {
      const now = Object.fromEntries(Object.entries(run).map(([name, column]) => [name, column[at]]));
      return {
        whole: { points: points(run.weight_1, run.weight_2) },
        past: { points: points(run.weight_1.slice(0, at + 1), run.weight_2) },
        reach: { x1: now.weight_1, y1: now.weight_2, x2: now.seen_1, y2: now.seen_2 },
        seen: { cx: now.seen_1, cy: now.seen_2 },
        here: { cx: now.weight_1, cy: now.weight_2 },
        loss: { points: points([...run.loss.keys()], run.loss) },
        now: { x1: at, x2: at },
      };
    }

    function draw() {
      const at = step.valueAsNumber;
      const values = { step: at };
      for (const [method, settings] of Object.entries(data.runs)) {
        const run = settings[rate.value][period.value];
        for (const [name, column] of Object.entries(run)) values[`${method}.${name}`] = column[at];
        for (const [mark, attributes] of Object.entries(marks(run, at))) {
          const node = demo.querySelector(`[data-method="${method}"] [data-draw="${mark}"]`);
          for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
        }
      }
      for (const node of demo.querySelectorAll("[data-shown]")) {
        node.textContent = text(values[node.dataset.shown], node.dataset.digits);
      }
      tell(step, String(at));
      tell(rate, String(data.rates[rate.value]));
      tell(period, data.periods[period.value] === 1 ? "1 step" : `${data.periods[period.value]} steps`);
    }

    form.hidden = false;
    form.addEventListener("input", draw);
    form.addEventListener("submit", (event) => event.preventDefault());
    draw();
  }

  for (const demo of document.querySelectorAll(".two-weights")) start(demo);
})();
