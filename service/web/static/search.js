// Keeps a search's page live: whenever something happened, the server-rendered part is fetched again.
"use strict";

const live = document.getElementById("live");
const SHORTEST_MS = 1000; // between two refreshes
const POLL_MS = 5000; // when the event stream is not available
let refreshing = false;
let wanted = false;
let last = 0;

async function refresh() {
  if (refreshing) {
    wanted = true;
    return;
  }
  refreshing = true;
  wanted = false;
  await new Promise((done) => setTimeout(done, Math.max(0, last + SHORTEST_MS - Date.now())));
  try {
    const answer = await fetch(live.dataset.fragment, { headers: { Accept: "text/html" } });
    if (answer.ok) {
      replace(await answer.text());
    }
  } catch {
    // The service is away; the stream reconnects and asks again.
  }
  last = Date.now();
  refreshing = false;
  if (wanted) {
    refresh();
  }
}

function replace(html) {
  // A reader's half-made choice in a form, or an opened section, must survive.
  const chosen = new Map([...live.querySelectorAll("form [id]")].map((field) => [field.id, field.value]));
  const opened = [...live.querySelectorAll("details[open]")].map((section) => section.id);
  live.innerHTML = html;
  for (const [id, value] of chosen) {
    const field = document.getElementById(id);
    if (field && (!field.options || [...field.options].some((option) => option.value === value))) {
      field.value = value;
    }
  }
  for (const id of opened) {
    document.getElementById(id)?.setAttribute("open", "");
  }
}

function isFinal() {
  return live.querySelector("[data-final]") !== null && live.querySelector("[data-pending]") === null;
}

function follow() {
  const stream = new EventSource(live.dataset.events);
  let timer = null;
  const changed = () => refresh().then(() => isFinal() && stream.close());
  for (const kind of live.dataset.kinds.split(" ")) {
    stream.addEventListener(kind, changed);
  }
  stream.onmessage = changed;
  stream.onopen = () => {
    clearInterval(timer);
    timer = null;
  };
  stream.onerror = () => {
    if (timer === null && !isFinal()) {
      timer = setInterval(() => (isFinal() ? clearInterval(timer) : refresh()), POLL_MS);
    }
  };
}

if (!isFinal()) {
  follow();
}
// How far a refinement has come is no event.
setInterval(() => live.querySelector("[data-refining]") && refresh(), POLL_MS);
