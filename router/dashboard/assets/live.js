"use strict";
// Keeps a page up to date, filters its previews and copies what one needs. Without it the page shows the same.

const main = document.getElementById("main");
const live = document.getElementById("live");
const news = document.getElementById("news");
document.documentElement.classList.add("script");

// say has screen readers say something once they are done with what they say.
function say(text) {
  const line = document.createElement("p");
  line.textContent = text;
  news.append(line);
  setTimeout(() => line.remove(), 10000);
}

// Keep up to date: the stream tells the version of what the page shows; for another one the page is fetched again.

const patience = 15000; // ms until a stream that was refused is asked for again
let version = document.body.dataset.version;
let events = null;
let fetching = null;

function show(isLive) {
  live.className = isLive ? "live on" : "live off";
  live.textContent = isLive ? "Live" : "Not live";
}

function listen() {
  if (events || document.hidden) return;
  events = new EventSource(document.body.dataset.events);
  events.onopen = () => show(true);
  events.addEventListener("version", (event) => {
    if (event.data !== version) refresh(event.data);
  });
  events.onerror = () => {
    show(false);
    if (events.readyState !== EventSource.CLOSED) return; // it connects again by itself
    leave();
    setTimeout(() => refresh("").then(listen), patience);
  };
}

// leave gives the connection back: a browser has only a few for each host.
function leave() {
  if (events) events.close();
  events = null;
}

// refresh takes over what the page would show now. A version that comes while one is fetched is fetched next.
function refresh(wanted) {
  version = wanted;
  fetching = (fetching || Promise.resolve()).then(update).catch(() => show(false));
  return fetching;
}

async function update() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.getElementById("main");
  if (!fresh) return location.reload(); // whoever guards the dashboard has something to say
  const before = states();
  document.title = page.title;
  morph(document.getElementById("clock"), page.getElementById("clock"));
  morphChildren(main, fresh);
  if (page.body.dataset.version) version = page.body.dataset.version;
  filter();
  tell(before, states());
}

function states() {
  const all = new Map();
  for (const preview of main.querySelectorAll("[data-state]")) all.set(preview.id, preview.dataset);
  return new Map([...all].map(([id, data]) => [id, { name: data.name, state: data.state }]));
}

// tell has screen readers say what has turned, but not every number that has changed.
function tell(before, after) {
  const turns = [];
  for (const [id, now] of after) if (before.get(id)?.state !== now.state) turns.push(`${now.name} is ${now.state}`);
  for (const [id, was] of before) if (!after.has(id)) turns.push(`${was.name} is gone`);
  if (turns.length > 3) turns.splice(3, turns.length, `${turns.length - 3} more have changed`);
  if (turns.length > 0) say(turns.join(". "));
}

// morph makes a node like another one and keeps what is the same, so that focus and selection stay.

const kept = new Set(["hidden", "open"]); // attributes that are the reader's

function morph(node, fresh) {
  if (node.isEqualNode(fresh)) return;
  if (node.nodeType !== Node.ELEMENT_NODE || node.nodeName !== fresh.nodeName) return node.replaceWith(fresh);
  for (const name of node.getAttributeNames()) if (!kept.has(name) && !fresh.hasAttribute(name)) node.removeAttribute(name);
  for (const name of fresh.getAttributeNames()) if (!kept.has(name)) node.setAttribute(name, fresh.getAttribute(name));
  morphChildren(node, fresh);
}

function morphChildren(parent, fresh) {
  const known = new Map();
  for (const child of parent.children) if (child.id) known.set(child.id, child);
  let next = parent.firstChild;
  for (const child of [...fresh.childNodes]) {
    const same = child.id ? known.get(child.id) : next && !next.id ? next : null;
    if (!same) {
      parent.insertBefore(child, next);
      continue;
    }
    if (same === next) next = next.nextSibling;
    else parent.insertBefore(same, next);
    morph(same, child);
  }
  while (next) {
    const gone = next;
    next = next.nextSibling;
    gone.remove();
  }
}

// Filter.

function filter() {
  const input = document.getElementById("filter");
  if (!input) return;
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const body of main.querySelectorAll(".previews tbody")) {
    const group = body.querySelector(".group").textContent;
    let any = false;
    for (const row of body.querySelectorAll(".preview")) {
      const text = (group + " " + row.textContent).toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      if (!row.hidden) shown++, (any = true);
    }
    body.hidden = !any;
  }
  document.getElementById("none").hidden = shown > 0;
  return shown;
}

let pausing;
main.addEventListener("input", (event) => {
  if (event.target.id !== "filter") return;
  const shown = filter();
  clearTimeout(pausing);
  pausing = setTimeout(() => say(shown === 1 ? "1 preview" : `${shown} previews`), 600);
});

// Copy.

main.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = button.parentElement.querySelector("code, a");
  const copied = await copy(source, source.href || source.textContent);
  say(copied ? `Copied the ${button.dataset.copy}` : "It is selected: copy it by hand");
  if (!copied) return;
  const label = button.firstChild;
  label.textContent = "Copied";
  setTimeout(() => (label.textContent = "Copy"), 1500);
});

// copy selects the source where the browser keeps the clipboard from pages without TLS.
async function copy(source, text) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // not allowed here
    }
  }
  getSelection().selectAllChildren(source);
  return false;
}

if (document.body.dataset.events) {
  listen();
  document.addEventListener("visibilitychange", () => (document.hidden ? leave() : listen()));
} else if (document.body.dataset.reload) {
  setTimeout(() => location.reload(), 1000 * document.body.dataset.reload);
}
