// The conversation that is open, with its settings and the field for the next question.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { state } from "../server/watch";
import { answering, regenerate, stop } from "./answering";
import { Composer } from "./composer";
import { titleOf } from "./conversation";
import { Answer, Question } from "./message";
import { Settings } from "./settings";
import { keepingFailed, opened } from "./shelf";
import { Sidebar } from "./sidebar";
import { Unfinished } from "./unfinished";

/** How near to the end one reads, in pixels, to be taken along as the answer grows. */
const NEAR = 80;

export function Chat() {
  const [listed, setListed] = useState(false);
  useEffect(() => {
    const onKeyDown = (event: KeyboardEvent) => event.key === "Escape" && answering.value && stop();
    document.addEventListener("keydown", onKeyDown);
    return () => document.removeEventListener("keydown", onKeyDown);
  }, []);
  return (
    <main class={listed ? "chat listed" : "chat"}>
      <button type="button" class="lister" aria-expanded={listed} onClick={() => setListed(!listed)}>
        Conversations
      </button>
      <Sidebar onChoose={() => setListed(false)} />
      <section class="talk" aria-label="Conversation">
        <h1 class="hidden">{titleOf(opened.value)}</h1>
        <Messages />
        <div class="foot">
          {keepingFailed.value && (
            <p class="error" role="alert">
              {keepingFailed.value}
            </p>
          )}
          <Settings />
          <Composer />
        </div>
      </section>
    </main>
  );
}

function Messages() {
  const conversation = opened.value;
  const answer = answering.value?.conversation === conversation.id ? answering.value : null;
  const { messages } = conversation;
  const box = useFollowing(conversation.id, messages.length, answer?.text);
  const askAgain = answering.value ? null : () => regenerate(conversation);
  return (
    <div class="messages" ref={box} role="log" aria-label="Messages" aria-busy={answer !== null} tabIndex={0}>
      {!messages.length && <Welcome />}
      {messages.map((message, place) =>
        message.role === "user" ? (
          <Question key={place} text={message.text} />
        ) : (
          <Answer key={place} message={message} onRegenerate={place === messages.length - 1 ? askAgain : null} />
        ),
      )}
      {answer && <Unfinished answer={answer} />}
    </div>
  );
}

function Welcome() {
  const model = state.value?.model;
  return (
    <p class="welcome">
      {model ? `Ask ${model} something.` : "Ask something."} Enter sends, Shift and Enter begin a new line, Escape stops
      the answer. Conversations stay in this browser.
    </p>
  );
}

/** Keeps the end in sight for a reader who is there, and leaves a reader alone who has scrolled back. */
function useFollowing(conversation: string, messages: number, text: string | undefined) {
  const box = useRef<HTMLDivElement>(null);
  const following = useRef(true);
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const note = () => {
      following.current = element.scrollHeight - element.scrollTop - element.clientHeight < NEAR;
    };
    element.addEventListener("scroll", note, { passive: true });
    return () => element.removeEventListener("scroll", note);
  }, []);
  useLayoutEffect(() => {
    following.current = true;
  }, [conversation, messages]);
  useLayoutEffect(() => {
    const element = box.current;
    if (element && following.current) element.scrollTop = element.scrollHeight;
  }, [conversation, messages, text]);
  return box;
}
