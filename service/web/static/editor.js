// Keeps the fault marks honest while the spec is edited, and jumps to a fault's line.
"use strict";

const text = document.getElementById("spec");
const gutter = document.getElementById("gutter");

text.addEventListener("input", () => gutter.replaceChildren(), { once: true });

for (const link of document.querySelectorAll("[data-line]")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    const before = text.value.split("\n").slice(0, Number(link.dataset.line) - 1);
    const start = before.reduce((sum, line) => sum + line.length + 1, 0);
    text.focus();
    text.setSelectionRange(start, start + text.value.slice(start).split("\n")[0].length);
  });
}
