"use strict";

// Replaces each part of the page when it has changed. The server has escaped what clients chose,
// and the page's content security policy forbids scripts that are not this file.
const live = document.getElementById("live");
const source = new EventSource(document.body.dataset.events);
for (const part of ["overview", "plots", "clients", "ended", "refused"]) {
  source.addEventListener(part, (event) => {
    document.getElementById(part).innerHTML = JSON.parse(event.data);
  });
}
source.addEventListener("open", () => {
  live.textContent = "live";
  live.className = "badge good";
});
source.addEventListener("error", () => {
  live.textContent = "no connection";
  live.className = "badge bad";
});
