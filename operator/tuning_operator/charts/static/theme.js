// Runs before the page is painted, so that a chosen theme does not flash. Without a choice the system's holds.
"use strict";
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const remembered = () => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null; // storage is forbidden: the choice holds until the page is left
    }
  };
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const tell = () => document.dispatchEvent(new Event("themechange"));
  if (["light", "dark"].includes(remembered())) root.dataset.theme = remembered();
  system.addEventListener("change", tell);
  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      try {
        localStorage.setItem("theme", root.dataset.theme);
      } catch {
        // as above
      }
      tell();
    });
  });
})();
