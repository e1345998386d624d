// Words of the glossary open where they stand (dcil/lab/book/glossary.py): a click or Enter shows the definition, Escape
// or a click elsewhere closes it. Without this script, or in a browser without popovers, they stay links.
(function () {
  "use strict";
  const WORD = 'a[href*="glossary.html#term-"]';
  const address = new URL("glossary-words.js", document.currentScript.src).href;
  const article = document.querySelector("article");
  if (!article || !("popover" in HTMLElement.prototype)) return;
  let library = null;
  let box = null;
  let opener = null; // the link that the box stands below

  function load() {
    library ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = address;
      script.onload = () => resolve(window.glossaryWords);
      script.onerror = () => reject(new Error(address));
      document.head.append(script);
    });
    return library;
  }

  function build() {
    const made = document.createElement("div");
    made.className = "glossary-word";
    made.popover = "auto";
    made.tabIndex = -1;
    made.setAttribute("role", "dialog");
    made.setAttribute("aria-labelledby", "glossary-word");
    article.append(made);
    return made;
  }

  // Below the link, within the page.
  function place() {
    if (!box?.matches(":popover-open")) return;
    const at = opener.getBoundingClientRect();
    const room = document.documentElement.clientWidth - box.offsetWidth - 8;
    box.style.left = `${Math.max(8, Math.min(at.left, room)) + window.scrollX}px`;
    box.style.top = `${at.bottom + 6 + window.scrollY}px`;
  }

  async function open(link) {
    const entry = (await load())[link.hash.slice(1)];
    box ??= build();
    const title = document.createElement("b");
    title.id = "glossary-word";
    title.textContent = entry.word;
    const says = document.createElement("div");
    says.innerHTML = entry.says;
    for (const other of says.querySelectorAll("a[href]")) other.href = new URL(other.getAttribute("href"), link.href).href;
    const whole = document.createElement("a");
    whole.className = "whole";
    whole.href = link.href;
    whole.textContent = "in the glossary";
    const inside = box.contains(link);
    box.replaceChildren(title, says, whole);
    if (!inside) {
      opener = link;
      box.showPopover();
      place();
    }
    box.focus({ preventScroll: true });
    await window.MathJax?.typesetPromise?.([says]);
  }

  // The browser would close it, but the theme's search takes the key away.
  function leave(event) {
    if (event.key === "Escape" && box?.matches(":popover-open")) box.hidePopover();
  }

  document.addEventListener("keydown", leave, true);
  window.addEventListener("resize", place);
  for (const link of article.querySelectorAll(WORD)) link.setAttribute("aria-haspopup", "dialog");
  document.addEventListener("click", (event) => {
    const link = event.target.closest(WORD);
    if (!link || !article.contains(link) || link.classList.contains("whole")) return;
    if (event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    open(link).catch(() => location.assign(link.href));
  });
})();
