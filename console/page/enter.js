// Exchange the token of the URL, which works once, for a cookie. Then show the console.
"use strict";

async function enter() {
  const token = location.hash.slice(1);
  history.replaceState(null, "", "/enter");
  const answer = await fetch("/enter", { method: "POST", body: token });
  if (answer.ok) {
    location.replace("/");
    return;
  }
  document.getElementById("said").textContent =
    "This link was used before. Open the URL that gatort printed, or let an open page of the " +
    "console make a new link: “Open on another device”.";
}

enter().catch(() => {
  document.getElementById("said").textContent = "The console does not answer. Has the run ended?";
});
