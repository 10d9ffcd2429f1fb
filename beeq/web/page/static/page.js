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
