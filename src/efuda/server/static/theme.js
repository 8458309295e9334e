/* Dark or light, as the system says or as the person chose. Loaded first, so that nothing flashes. */
import { settings } from "./settings.js";

function apply() {
  const root = document.documentElement;
  if (settings.theme === "auto") root.removeAttribute("data-theme");
  else root.dataset.theme = settings.theme;
}

apply();
settings.watch((name) => name === "theme" && apply());
