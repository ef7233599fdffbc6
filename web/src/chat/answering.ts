// The answer that is being written: one at a time, whatever conversation is looked at meanwhile.

import { signal } from "@preact/signals";
import { answerStream, type Piece } from "../server/answer_stream";
import { wordsOf } from "../server/request";
import { type Conversation, type Message, type Outcome, questionOf, withoutLastAnswer, withQuestion } from "./conversation";
import { find, put } from "./shelf";

export interface Answering {
  conversation: string;
  text: string;
  thought: string;
  /** Milliseconds on the page's clock. */
  began: number;
  firstCame: number | null;
  tokens: number | null;
  finish: string | null;
}

export const answering = signal<Answering | null>(null);

let abort = new AbortController();

export function send(conversation: Conversation, text: string): void {
  if (answering.value || !text.trim()) return;
  ask(withQuestion(conversation, text, Date.now()));
}

export function regenerate(conversation: Conversation): void {
  if (!answering.value) ask(withoutLastAnswer(conversation));
}

/** Ends the answer with what has come so far; the server frees its place. */
export function stop(): void {
  abort.abort();
}

async function ask(conversation: Conversation): Promise<void> {
  put(conversation);
  abort = new AbortController();
  begin(conversation.id);
  let error: string | undefined;
  try {
    for await (const piece of answerStream(questionOf(conversation), abort.signal)) take(piece);
  } catch (thrown) {
    if (!abort.signal.aborted) error = wordsOf(thrown);
  }
  settle(error);
}

function begin(conversation: string): void {
  const began = performance.now();
  answering.value = { conversation, text: "", thought: "", began, firstCame: null, tokens: null, finish: null };
}

function take(piece: Piece): void {
  const now = answering.value;
  if (!now) return;
  const came = piece.text || piece.thought;
  answering.value = {
    ...now,
    text: now.text + (piece.text ?? ""),
    thought: now.thought + (piece.thought ?? ""),
    firstCame: now.firstCame ?? (came ? performance.now() : null),
    tokens: piece.usage?.completion_tokens ?? now.tokens,
    finish: piece.finish ?? now.finish,
  };
}

function settle(error?: string): void {
  const done = answering.value;
  answering.value = null;
  const conversation = done && find(done.conversation);
  // It may have been deleted meanwhile.
  if (!done || !conversation) return;
  const message = messageOf(done, error);
  put({ ...conversation, messages: [...conversation.messages, message], changed: Date.now() });
}

function messageOf(done: Answering, error?: string): Message {
  const outcome: Outcome = {
    finish: error ? "failed" : abort.signal.aborted ? "stopped" : (done.finish ?? "stop"),
    seconds: (performance.now() - done.began) / 1000,
    firstToken: done.firstCame === null ? null : (done.firstCame - done.began) / 1000,
    tokens: done.tokens,
  };
  if (error) outcome.error = error;
  const message: Message = { role: "assistant", text: done.text, outcome };
  if (done.thought) message.thought = done.thought;
  return message;
}

/** A page that is left in the middle of an answer keeps what has come. */
export function keepOnLeaving(): void {
  window.addEventListener("pagehide", () => {
    if (answering.value) stop();
    settle();
  });
}
