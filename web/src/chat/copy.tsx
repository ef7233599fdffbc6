import { useState } from "preact/hooks";

const SHOWN = 1500;

/** A button that copies `text` and says that it did. */
export function Copy({ text, label }: { text: string; label: string }) {
  const [said, say] = useState("");
  async function copy() {
    say((await copied(text)) ? "Copied" : "Could not copy");
    setTimeout(() => say(""), SHOWN);
  }
  return (
    <button type="button" class="quiet" onClick={copy} aria-label={said || label}>
      <span aria-live="polite">{said || "Copy"}</span>
    </button>
  );
}

async function copied(text: string): Promise<boolean> {
  // A page on plain HTTP from another machine has no clipboard of its own.
  if (!navigator.clipboard) return copiedBySelection(text);
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copiedBySelection(text);
  }
}

function copiedBySelection(text: string): boolean {
  const before = document.activeElement;
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "hidden";
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  if (before instanceof HTMLElement) before.focus();
  return done;
}
