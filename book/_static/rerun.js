// A chapter's form (dcil/lab/page/rerun_form.py): shows its inputs, and writes the lines that run the chapter with their values.
(function () {
  "use strict";
  const form = document.querySelector("form.rerun");
  if (!form) return;
  const chapter = form.getAttribute("data-chapter"); // form.dataset would be the field of that name
  const fields = Array.from(form.querySelectorAll("[name]"));
  const line = (tool) => form.querySelector(`[data-line="${tool}"]`);
  const value = (field) => field.value.trim() || "None";
  // As a shell reads it back: bare where nothing is special, else in quotes.
  const quote = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
  // papermill's -p knows numbers, True, False, None and bare text; lists and quoted text are YAML, for its -y.
  const option = (name, text) =>
    /^[[{"']/.test(text) ? `-y ${quote(`${name}: ${text}`)}` : `-p ${name} ${quote(text)}`;

  function write() {
    const wrong = fields.filter((field) => !field.validity.valid);
    const changed = fields.filter((field) => field.validity.valid && value(field) !== field.dataset.default);
    const given = changed.map((field) => `-p ${field.name} ${quote(value(field))}`).join(" ").replaceAll("$", "$$$$");
    const options = changed.map((field) => " " + option(field.name, value(field))).join("");
    line("make").textContent = `make chapter NAME=${chapter}${given && ` P=${quote(given)}`}`;
    line("papermill").textContent = `papermill book/${chapter}.ipynb out.ipynb${options}`;
    form.querySelector("output").textContent = wrong.map((f) => `${f.name}: ${f.validationMessage}`).join(" ");
  }

  for (const field of fields) field.previousElementSibling.hidden = true;
  for (const hidden of form.querySelectorAll("td [hidden][name], span[hidden]")) hidden.hidden = false;
  form.addEventListener("input", write);
  form.addEventListener("reset", () => setTimeout(write));
  form.addEventListener("submit", (event) => event.preventDefault());
  write();
})();
