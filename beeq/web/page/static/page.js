// What the page has beyond HTML. Nothing here is needed to use it.
"use strict";

// "/" goes to the search, Escape leaves it.
document.addEventListener("keydown", (event) => {
  const search = document.querySelector(".find input[type=search]");
  const isTyping = event.target.closest("input, textarea, select");
  if (!search || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && !isTyping) {
    event.preventDefault();
    search.select();
  } else if (event.key === "Escape" && event.target === search) {
    search.blur();
  }
});

// Live numbers: counts are written in their places; what would move rows is offered, and not done.
const shown = (count) => count.toLocaleString("en").replace(/,/g, "\u202f");

function tell(text) {
  const news = document.querySelector("[data-news]");
  if (!news) return;
  const line = news.querySelector("span");
  if (line.textContent !== text) line.textContent = text;
  news.hidden = text === "";
}

function write(place, count) {
  const text = shown(count);
  if (place.textContent !== text) place.textContent = text;
  place.dataset.is = count;
  const cell = place.closest("td");
  if (cell) cell.classList.toggle("zero", count === 0);
}

function writeOverview(queues, known) {
  const rows = new Map();
  for (const row of document.querySelectorAll("tr[data-queue]")) {
    rows.set(JSON.stringify([row.dataset.prefix, row.dataset.queue]), row);
  }
  for (const queue of queues) {
    const row = rows.get(JSON.stringify([queue.prefix, queue.segment]));
    if (row) for (const place of row.querySelectorAll("[data-count]")) write(place, queue[place.dataset.count]);
  }
  const added = Math.max(0, known - Number(document.body.dataset.queues));
  tell(added ? `${added} new ${added === 1 ? "queue" : "queues"}.` : "");
}

function writeQueue(queue, state) {
  for (const place of document.querySelectorAll(".tab [data-count]")) {
    if (place.dataset.begun === undefined) place.dataset.begun = place.dataset.is;
    write(place, queue[place.dataset.count]);
    if (place.dataset.count !== state) continue;
    const difference = queue[state] - Number(place.dataset.begun);
    if (difference) tell(difference > 0 ? `${shown(difference)} new.` : `${shown(-difference)} ${difference === -1 ? "has" : "have"} left.`);
    else tell("");
  }
}

function writeJob(job, before) {
  const now = { queued: ["waiting", "delayed", "nowhere"] }[job.state] || [job.state];
  if (!now.includes(before)) tell(job.state === "gone" ? "The job was removed." : `It is now ${job.state}.`);
  const place = document.querySelector("[data-progress]");
  if (place && job.progress) {
    place.hidden = false;
    place.querySelector("bdi").textContent = job.progress;
  }
}

function listen(address, body) {
  const source = new EventSource(address);
  source.onmessage = (event) => {
    const message = JSON.parse(event.data);
    if (message.away) tell("Redis does not answer: these numbers are old.");
    else if (message.job) writeJob(message.job, body.dataset.job);
    else if (body.dataset.job === undefined && body.dataset.state === undefined) writeOverview(message.queues, message.known);
    else if (body.dataset.state !== undefined && message.queues.length) writeQueue(message.queues[0], body.dataset.state);
  };
  // A page that nobody sees listens to nothing.
  onChange(() => {
    source.close();
    onChange(() => listen(address, body));
  });
}

function onChange(act) {
  document.addEventListener("visibilitychange", act, { once: true });
}

if (document.body.dataset.events && window.EventSource) {
  const begin = () => listen(document.body.dataset.events, document.body);
  if (document.hidden) onChange(begin);
  else begin();
}
