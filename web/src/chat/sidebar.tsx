// The conversations of this browser: open, begin, rename, delete.

import { useEffect, useRef, useState } from "preact/hooks";
import { answering, stop } from "./answering";
import { type Conversation, titleOf } from "./conversation";
import { begin, conversations, openId, put, remove } from "./shelf";

export function Sidebar({ onChoose }: { onChoose: () => void }) {
  return (
    <nav class="sidebar" aria-label="Conversations">
      <button
        type="button"
        onClick={() => {
          begin();
          onChoose();
        }}
      >
        New conversation
      </button>
      <ul>
        {conversations.value.map((one) => (
          <Entry key={one.id} conversation={one} onChoose={onChoose} />
        ))}
      </ul>
    </nav>
  );
}

function Entry({ conversation, onChoose }: { conversation: Conversation; onChoose: () => void }) {
  const [renaming, setRenaming] = useState(false);
  const [deleting, setDeleting] = useState(false);
  const { id } = conversation;
  const title = titleOf(conversation);

  if (renaming) return <Renaming conversation={conversation} onDone={() => setRenaming(false)} />;
  if (deleting) return <Deleting id={id} onDone={() => setDeleting(false)} />;
  return (
    <li class={id === openId.value ? "open" : undefined}>
      <button
        type="button"
        class="title"
        aria-current={id === openId.value}
        onClick={() => {
          openId.value = id;
          onChoose();
        }}
      >
        {title}
      </button>
      <button type="button" class="quiet" aria-label={`Rename ${title}`} onClick={() => setRenaming(true)}>
        Rename
      </button>
      <button type="button" class="quiet" aria-label={`Delete ${title}`} onClick={() => setDeleting(true)}>
        Delete
      </button>
    </li>
  );
}

function Renaming({ conversation, onDone }: { conversation: Conversation; onDone: () => void }) {
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.select(), []);
  function submit(event: Event) {
    event.preventDefault();
    const title = field.current?.value.trim();
    if (title) put({ ...conversation, title });
    onDone();
  }
  return (
    <li>
      <form onSubmit={submit} onKeyDown={(event) => event.key === "Escape" && onDone()}>
        <input ref={field} aria-label="Title" value={conversation.title} />
        <button type="submit" class="quiet">
          Keep
        </button>
      </form>
    </li>
  );
}

/** What stands where a button was pressed takes the focus, so that the keyboard goes on from there. */
const focus = (element: HTMLElement | null) => element?.focus();

function Deleting({ id, onDone }: { id: string; onDone: () => void }) {
  function yes() {
    if (answering.value?.conversation === id) stop();
    remove(id);
  }
  return (
    <li class="deleting">
      <span>Delete it?</span>
      <button type="button" class="quiet danger" onClick={yes} ref={focus}>
        Yes, delete
      </button>
      <button type="button" class="quiet" onClick={onDone}>
        No
      </button>
    </li>
  );
}
