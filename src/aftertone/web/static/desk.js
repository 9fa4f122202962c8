// Brings the pages of the desk to life: the player, actions without reload, undo, and what changes while one looks.
//
// The page is complete as the server sent it. When something changed, this module reads the same page again and puts
// in place the rows that differ: there is one rendering of a row, and it is the server's. No markup is ever made from
// strings here; names of callers are only ever set as text.

const $ = (selector, root = document) => root.querySelector(selector);
const list = $("#list");
const csrfToken = $('meta[name="csrf-token"]').content;
const locale = navigator.language.startsWith("en") ? navigator.language : "en-GB";
const MINUTE = 60_000;

// ---- Words -------------------------------------------------------------------------------------------------------

const format = (options) => new Intl.DateTimeFormat(locale, options);
const clock = format({ hour: "2-digit", minute: "2-digit" });
const weekday = format({ weekday: "long" });
const day = format({ day: "numeric", month: "short" });
const dayAndYear = format({ day: "numeric", month: "short", year: "numeric" });
const exact = format({ dateStyle: "full", timeStyle: "medium" });

function relative(then, now) {
  const age = now - then;
  if (age >= -MINUTE && age < MINUTE) return "just now";
  if (age >= 0 && age < 60 * MINUTE) return `${Math.floor(age / MINUTE)} min ago`;
  const midnight = new Date(now);
  midnight.setHours(0, 0, 0, 0);
  const yesterday = new Date(midnight);
  yesterday.setDate(midnight.getDate() - 1);
  const lastWeek = new Date(midnight);
  lastWeek.setDate(midnight.getDate() - 6);
  if (then >= midnight && age >= 0) return `today ${clock.format(then)}`;
  if (then >= yesterday && age >= 0) return `yesterday ${clock.format(then)}`;
  if (then >= lastWeek && age >= 0) return `${weekday.format(then)} ${clock.format(then)}`;
  return then.getFullYear() === now.getFullYear() ? `${day.format(then)}, ${clock.format(then)}` : dayAndYear.format(then);
}

// A clock that was not set says nothing of the day or the minute: no "today", no "5 min ago".
function guessed(then, now) {
  const date = then.getFullYear() === now.getFullYear() ? day : dayAndYear;
  return `about ${date.format(then)}, ${clock.format(then)}`;
}

function showTimes(root = document) {
  const now = new Date();
  for (const time of root.querySelectorAll("time.when")) {
    const then = new Date(time.dateTime);
    const unsure = "unsure" in time.dataset;
    time.textContent = unsure ? guessed(then, now) : relative(then, now);
    time.title = unsure ? `About ${exact.format(then)}: the clock of the machine was not set` : exact.format(then);
    const place = $(".exact", time.closest(".row"));
    if (place) place.textContent = `${unsure ? "About " : ""}${exact.format(then)}.`;
  }
}

function minutes(ms) {
  const seconds = Math.floor(ms / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

const say = (text) => { $("#say").textContent = text; };

// ---- The player --------------------------------------------------------------------------------------------------

const audio = new Audio();
audio.preload = "auto";
let current = null; // id of the message that is loaded
const heard = new Set(); // ids that playing has marked already

const rowOf = (id) => (id ? list.querySelector(`[data-id="${CSS.escape(id)}"]`) : null);

function prepare(row) {
  for (const noscript of row.querySelectorAll("noscript")) noscript.remove();
  for (const part of row.querySelectorAll("button.play, .player")) part.hidden = false;
  showTimes(row);
  paint(row);
}

function paint(row) {
  const button = $("button.play", row);
  if (!button) return;
  const loaded = row.dataset.id === current;
  const playing = loaded && !audio.paused;
  const total = Number(row.dataset.audio);
  const at = loaded ? Math.min(audio.currentTime * 1000, total) : 0;
  const seek = $('input[type="range"]', row);
  row.classList.toggle("playing", playing);
  button.setAttribute("aria-label", `${playing ? "Pause" : "Play"} message from ${row.dataset.who}`);
  seek.value = String(at);
  seek.style.setProperty("--at", `${(100 * at) / total}%`);
  seek.setAttribute("aria-valuetext", `${minutes(at)} of ${minutes(total)}`);
  $(".elapsed", row).textContent = minutes(at);
  $(".total", row).textContent = minutes(Math.max(1, Math.round(total / 1000)) * 1000);
}

const paintCurrent = () => { const row = rowOf(current); if (row) paint(row); };

function load(row) {
  if (current === row.dataset.id) return;
  const before = rowOf(current);
  audio.pause();
  current = row.dataset.id;
  audio.src = `/api/v1/messages/${current}/audio`;
  if (before) paint(before);
}

async function toggle(row) {
  if (row.dataset.id === current && !audio.paused) { audio.pause(); return; }
  load(row);
  $("details", row).open = true;
  try {
    await audio.play();
  } catch (error) {
    if (error.name !== "AbortError") tell("This message cannot be played here. Save the audio and try another player.");
  }
}

function seekTo(row, ms) {
  load(row);
  const to = Math.max(0, Math.min(ms, Number(row.dataset.audio))) / 1000;
  if (audio.readyState > 0) audio.currentTime = to;
  else audio.addEventListener("loadedmetadata", () => { audio.currentTime = to; }, { once: true });
  paint(row);
}

function secondsPlayed(until) {
  let sum = 0;
  for (let i = 0; i < audio.played.length; i += 1) {
    sum += Math.max(0, Math.min(audio.played.end(i), until) - Math.min(audio.played.start(i), until));
  }
  return sum;
}

// Heard means played: more than nine tenths of what was said. Opening a message marks nothing.
function noticeHeard() {
  const row = rowOf(current);
  if (!row || heard.has(current) || !row.classList.contains("new")) return;
  const length = Number(row.dataset.duration) / 1000;
  if (secondsPlayed(length) > 0.9 * length) {
    heard.add(current);
    act(current, "heard").then((done) => { if (!done) heard.delete(row.dataset.id); });
  }
}

for (const name of ["play", "pause", "seeked", "timeupdate", "ended", "loadedmetadata"]) audio.addEventListener(name, paintCurrent);
for (const name of ["timeupdate", "pause", "ended"]) audio.addEventListener(name, noticeHeard);
audio.addEventListener("error", () => { if (current) tell("The audio cannot be loaded. Is the machine still there?"); });

// ---- Actions and undo --------------------------------------------------------------------------------------------

const REQUESTS = {
  heard: ["POST", "/heard"],
  unheard: ["POST", "/unheard"],
  restore: ["POST", "/restore"],
  delete: ["DELETE", ""],
};
const DONE = { heard: "Marked as heard.", unheard: "Marked as new.", restore: "Restored." };

// Ask for an action; true when it is done and durable. `then` runs before the page is read again, so that an undo is
// there no later than the row is gone.
async function act(id, action, then = () => {}) {
  const [method, path] = REQUESTS[action];
  try {
    const answer = await fetch(`/api/v1/messages/${id}${path}`, { method, headers: { "X-CSRF-Token": csrfToken } });
    if (answer.ok) {
      then();
      await refresh();
      return true;
    }
    if (answer.status === 401) location.assign("/login");
    const problem = await answer.json();
    tell(`${problem.title}. ${problem.remedy ?? ""}`);
  } catch {
    tell("The machine cannot be reached. Nothing was changed.");
  }
  return false;
}

let toastTimer = 0;
let undo = null;

function tell(text, undoing = null) {
  const toast = $("#toast");
  const words = document.createElement("span");
  words.textContent = text;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "button";
  button.textContent = undoing ? "Undo" : "Close";
  button.addEventListener("click", () => { hideToast(); undoing?.(); });
  toast.replaceChildren(words, button);
  undo = undoing;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(hideToastUnlessUsed, 12_000);
}

function hideToast() {
  clearTimeout(toastTimer);
  undo = null;
  $("#toast").replaceChildren();
}

function hideToastUnlessUsed() {
  if ($("#toast").matches(":hover, :focus-within")) toastTimer = setTimeout(hideToastUnlessUsed, 3_000);
  else hideToast();
}

async function onAction(form) {
  const row = form.closest(".row");
  const { id, who } = row.dataset;
  const action = form.dataset.do;
  const neighbour = row.nextElementSibling ?? row.previousElementSibling;
  if (id === current && action === "delete") audio.pause();
  if (action === "unheard") heard.add(id); // marked new on purpose: what was played before does not undo that
  const done = await act(id, action, () => {
    if (action !== "delete") say(DONE[action]);
    else tell(`Message from ${who} is in the bin.`, async () => { if (await act(id, "restore")) focusOn(rowOf(id)); });
  });
  if (!done) return;
  if (!rowOf(id)) focusOn(neighbour && rowOf(neighbour.dataset.id));
}

function focusOn(row) {
  (row ? $("summary", row) : $("#heading")).focus();
}

// ---- What was said on the wire --------------------------------------------------------------------------------------

function element(name, className, text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = text; // peers wrote these words: they are text, never markup
  return made;
}

function rung(one) {
  const item = element("li", one.sent ? "sent" : "received");
  const fold = element("details");
  const line = element("summary");
  const way = element("span", "way", one.sent ? "\u2190" : "\u2192");
  way.setAttribute("role", "img");
  way.setAttribute("aria-label", one.sent ? "sent" : "received");
  line.append(element("span", "ms", `${one.offset_ms} ms`), " ", way, " ", element("bdi", "", one.label));
  const [from, to] = one.sent ? [one.local, one.remote] : [one.remote, one.local];
  fold.append(line, element("p", "path", `${one.transport} ${from} to ${to}`), element("pre", "", one.text));
  item.append(fold);
  return item;
}

// The link leads to a page; here, what is on that page is shown below the link instead, and hidden by the next click.
async function onSignalling(link) {
  const place = $(".signalling", link.closest(".panel"));
  if (!place.hidden) {
    place.hidden = true;
    link.setAttribute("aria-expanded", "false");
    return;
  }
  const address = `/api/v1/messages/${link.closest(".row").dataset.id}/signalling`;
  try {
    const answer = await fetch(address);
    if (answer.status === 404) {
      place.replaceChildren(element("p", "", "What the telephones said to each other was not kept of this call."));
    } else if (answer.ok) {
      const found = await answer.json();
      const ladder = element("ol", "ladder");
      ladder.append(...found.messages.map(rung));
      const save = element("a", "", "Save as a capture file");
      save.href = `${address}?format=pcap`;
      save.download = "";
      const below = element("p", "", found.left_out ? `${found.left_out} in the middle were not kept. ` : "");
      below.append(save);
      place.replaceChildren(ladder, below);
    } else {
      location.assign(link.href); // it says what is wrong
      return;
    }
    place.hidden = false;
    link.setAttribute("aria-expanded", "true");
  } catch {
    tell("The machine cannot be reached.");
  }
}

document.addEventListener("click", (event) => {
  const link = event.target.closest(".fold a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  onSignalling(link);
});

document.addEventListener("submit", (event) => {
  if (!event.target.matches("form[data-do]")) return;
  event.preventDefault();
  onAction(event.target);
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("button.play");
  if (button) toggle(button.closest(".row"));
});
document.addEventListener("input", (event) => {
  if (event.target.matches('.row input[type="range"]')) seekTo(event.target.closest(".row"), Number(event.target.value));
});
document.addEventListener("keydown", (event) => {
  if (undo && (event.ctrlKey || event.metaKey) && !event.shiftKey && event.key === "z") {
    event.preventDefault();
    const again = undo;
    hideToast();
    again();
  }
  if (event.target.matches?.('.row input[type="range"]')) {
    const step = { ArrowLeft: -5000, ArrowDown: -5000, ArrowRight: 5000, ArrowUp: 5000 }[event.key];
    if (step) {
      event.preventDefault();
      seekTo(event.target.closest(".row"), Number(event.target.value) + step);
    }
  }
});

// ---- What changes while one looks --------------------------------------------------------------------------------

function readPage() {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // it parses the page without making markup from strings, and runs no script
    request.open("GET", document.body.dataset.here);
    request.responseType = "document";
    request.setRequestHeader("Accept", "text/html");
    request.timeout = 10_000;
    request.onload = () => (request.status === 200 && request.response ? resolve(request) : reject(new Error(String(request.status))));
    request.onerror = request.ontimeout = () => reject(new Error("unreachable"));
    request.send();
  });
}

let reading = null;
let readAgain = false;

// One reading at a time; whoever asks during one gets another one after it, which is sure to be new enough.
function refresh() {
  if (reading) {
    readAgain = true;
    return reading;
  }
  reading = (async () => {
    do {
      readAgain = false;
      try {
        const request = await readPage();
        if (new URL(request.responseURL).pathname.startsWith("/login")) location.assign("/login");
        else replaceParts(request.response);
      } catch {
        showLive(false);
      }
    } while (readAgain);
    reading = null;
  })();
  return reading;
}

function replaceParts(fresh) {
  document.title = fresh.title;
  document.body.dataset.mark = fresh.body.dataset.mark;
  for (const id of ["banner", "boxes", "after", "tabs", "foot"]) {
    const have = document.getElementById(id);
    const next = fresh.getElementById(id);
    if (have.innerHTML === next.innerHTML) continue;
    const focused = have.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    have.replaceChildren(...[...next.childNodes].map((node) => document.importNode(node, true)));
    if (focused) have.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus();
  }
  replaceRows(fresh.getElementById("list"));
}

const known = new Set([...list.children].map((row) => row.dataset.id));

function replaceRows(fresh) {
  const active = document.activeElement?.closest(".row") ? document.activeElement : null;
  const focus = active && { id: active.closest(".row").dataset.id, key: active.dataset.key };
  const leftOver = new Map([...list.children].map((row) => [row.dataset.id, row]));
  let place = null;
  for (const next of fresh.children) {
    const have = leftOver.get(next.dataset.id);
    leftOver.delete(next.dataset.id);
    let row = have;
    if (!have || have.dataset.mark !== next.dataset.mark) {
      row = document.importNode(next, true);
      if (have) {
        $("details", row).open = $("details", have).open;
        have.replaceWith(row);
      }
    }
    const after = place ? place.nextElementSibling : list.firstElementChild;
    if (after !== row) list.insertBefore(row, after);
    if (row !== have) prepare(row);
    if (!known.has(row.dataset.id)) {
      known.add(row.dataset.id);
      row.classList.add("arrived");
      say(`New: ${row.dataset.who}, ${$(".length .unseen", row).textContent}.`);
    }
    place = row;
  }
  for (const gone of leftOver.values()) {
    if (gone.dataset.id === current) audio.pause();
    gone.remove();
  }
  if (focus && document.activeElement === document.body) {
    const row = rowOf(focus.id);
    if (row) ($(`[data-key="${CSS.escape(focus.key ?? "")}"]`, row) ?? $("summary", row)).focus();
  }
}

let position = Number(document.body.dataset.sequence);
let lostTimer = 0;

function showLive(isLive) {
  const live = $("#live");
  live.hidden = false;
  live.classList.toggle("lost", !isLive);
  $(".word", live).textContent = isLive ? "Live" : "Reconnecting…";
}

function listen() {
  const stream = new EventSource(`/api/v1/events?after=${position}`);
  stream.addEventListener("open", () => { clearTimeout(lostTimer); showLive(true); });
  stream.addEventListener("change", (event) => { position = Number(event.lastEventId); refresh(); });
  stream.addEventListener("reset", (event) => { position = Number(event.lastEventId); refresh(); });
  stream.addEventListener("status", (event) => {
    if (JSON.parse(event.data).mark !== document.body.dataset.mark) refresh();
  });
  stream.addEventListener("error", () => {
    clearTimeout(lostTimer);
    lostTimer = setTimeout(() => showLive(false), 1_000);
    if (stream.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
    setTimeout(() => { refresh(); listen(); }, 5_000);
  });
}

for (const row of list.children) prepare(row);
setInterval(showTimes, 30_000);
document.addEventListener("visibilitychange", () => { if (!document.hidden) { showTimes(); refresh(); } });
listen();
