"use strict";
// All of this is a convenience: the pages work without it.
const search = document.querySelector("input[name=q]");
const routes = [...document.querySelectorAll(".routes > li")];
const none = document.querySelector("[data-none]");

const filter = () => {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const route of routes) {
    const text = route.dataset.text;
    route.hidden = !words.every((word) => text.includes(word));
  }
  none.hidden = routes.some((route) => !route.hidden);
};
search?.addEventListener("input", filter);

for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.dataset.copy);
    const text = button.textContent;
    button.textContent = button.dataset.done;
    setTimeout(() => (button.textContent = text), 2000);
  });
}

for (const time of document.querySelectorAll("time[datetime]")) {
  const shown = { dateStyle: "medium", timeStyle: "short" };
  time.textContent = new Date(time.dateTime).toLocaleString(document.documentElement.lang, shown);
}
