// A word in the corner: what was done, or why not.
import { shown } from "./dom.js";

let clearing = null;

export function notice(what) {
  const box = document.getElementById("notice");
  const failed = what instanceof Error;
  box.className = failed ? "error" : "";
  box.textContent = shown(failed ? [what.message, what.hint].filter(Boolean).join(" — ") : what);
  clearTimeout(clearing);
  clearing = setTimeout(() => { box.textContent = ""; }, 12000);
}

// Runs what a button does: once at a time, and says how it went.
export async function deed(button, work) {
  button.disabled = true;
  try {
    notice(await work());
  } catch (error) {
    notice(error);
  } finally {
    button.disabled = false;
  }
}
