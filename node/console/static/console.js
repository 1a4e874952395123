// Keeps the console's page up to date, and sends what its buttons say.
"use strict";

const meta = (name) => document.querySelector(`meta[name="${name}"]`).content;
const line = document.getElementById("line");
const main = document.getElementById("main");
let version = meta("version");
let wait = 1000;

function say(words) {
  line.textContent = words;
  line.hidden = !words;
}

// What had the focus inside is another element now: a keyboard goes on from its successor.
function put(element, inside) {
  const focused = element.contains(document.activeElement);
  element.innerHTML = inside;
  if (focused) element.querySelector("button, a, summary")?.focus();
}

function listen() {
  const stream = new EventSource(`/events?since=${version}`);
  stream.onmessage = (event) => {
    const found = JSON.parse(event.data);
    version = found.version;
    for (const [name, inside] of Object.entries(found.parts)) {
      const element = document.getElementById(name);
      if (element) put(element, inside);
    }
    if (main.classList.contains("old")) say("");
    main.classList.remove("old");
    wait = 1000;
  };
  stream.onerror = async () => {
    // The browser would ask again and again at the same version: this asks anew, ever more seldom.
    stream.close();
    main.classList.add("old");
    say(await reason());
    setTimeout(listen, wait);
    wait = Math.min(wait * 2, 30000);
  };
}

async function reason() {
  try {
    const answer = await fetch("/state", { cache: "no-store" });
    if (answer.status === 401) return "This page was signed out. Type: python -m node open";
    if (answer.ok && (await answer.json()).full) return "Too many pages are open on this console: close another.";
    return "The peer does not send anything at the moment …";
  } catch {
    return "The peer does not answer: it may have ended. Shown is what it told last.";
  }
}

async function post(button) {
  if (button.dataset.ask && !window.confirm(button.dataset.ask)) return;
  // Not disabled: whoever has no mouse would lose the place.
  if (button.ariaBusy === "true") return;
  button.ariaBusy = "true";
  try {
    const answer = await fetch(button.dataset.post, {
      method: "POST",
      headers: { "X-Baton-Token": meta("token") },
    });
    const found = await answer.json();
    say(found.message || "");
    if (button.dataset.post === "/signout" && answer.ok) window.location.reload();
  } catch {
    say("The peer does not answer.");
  } finally {
    button.ariaBusy = "false";
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-post]");
  if (button) post(button);
});

// A digit goes to the panel of that number, as the list at the top counts them.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input")) return;
  const link = document.querySelectorAll("nav a")[Number(event.key) - 1];
  if (!link || !/^[1-9]$/.test(event.key)) return;
  link.click();
  document.querySelector(link.getAttribute("href")).focus();
});

listen();
