// Where a question is written. Enter sends, Shift-Enter begins a line, Escape stops the answer.

import { useEffect, useRef } from "preact/hooks";
import { answering, send, stop } from "./answering";
import { opened, openId } from "./shelf";

export function Composer() {
  const field = useRef<HTMLTextAreaElement>(null);
  const busy = answering.value !== null;
  useEffect(() => {
    // On a phone the focus would bring up the keyboard over what one came to read.
    if (matchMedia("(hover: hover)").matches) field.current?.focus();
  }, [openId.value]);

  function submit(event?: Event) {
    event?.preventDefault();
    const box = field.current;
    if (!box || answering.value || !box.value.trim()) return;
    send(opened.value, box.value);
    box.value = "";
    fit(box);
  }

  function onKeyDown(event: KeyboardEvent) {
    // Enter while a word is being composed chooses the word.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
  }

  return (
    <form class="composer" onSubmit={submit}>
      <label class="hidden" for="question">
        Question
      </label>
      <textarea
        id="question"
        ref={field}
        rows={1}
        placeholder="Ask something"
        onKeyDown={onKeyDown}
        onInput={(event) => fit(event.currentTarget)}
      />
      {busy ? (
        <button type="button" onClick={stop}>
          Stop
        </button>
      ) : (
        <button type="submit" class="main">
          Send
        </button>
      )}
    </form>
  );
}

/** As high as what is written in it; the style sheet sets the limit. */
function fit(box: HTMLTextAreaElement): void {
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
}
