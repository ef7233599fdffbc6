// What a conversation is, and what the server is asked of it. Values only: nothing here is kept or shown.

import type { Question, Said } from "../server/answer_stream";

export interface Parameters {
  temperature: number | null;
  top_p: number | null;
  max_tokens: number | null;
  seed: number | null;
}

/** How an answer ended and what it took; seconds, null where it never came so far. */
export interface Outcome {
  /** `stop` and `length` are the server's words; `stopped` is the reader's wish, `failed` an error. */
  finish: string;
  seconds: number;
  firstToken: number | null;
  tokens: number | null;
  error?: string;
}

export interface Message {
  role: "user" | "assistant";
  text: string;
  thought?: string;
  outcome?: Outcome;
}

export interface Conversation {
  id: string;
  title: string;
  system: string;
  parameters: Parameters;
  messages: Message[];
  /** Milliseconds since 1970. */
  changed: number;
}

export const UNSET: Parameters = { temperature: null, top_p: null, max_tokens: null, seed: null };

const TITLE = 48;

export function newConversation(id: string, now: number, like?: Conversation): Conversation {
  const { system = "", parameters = UNSET } = like ?? {};
  return { id, title: "", system, parameters, messages: [], changed: now };
}

export function titleOf(conversation: Conversation): string {
  return conversation.title || "New conversation";
}

export function withQuestion(conversation: Conversation, text: string, now: number): Conversation {
  const title = conversation.title || shortened(text);
  return { ...conversation, title, messages: [...conversation.messages, { role: "user", text }], changed: now };
}

function shortened(text: string): string {
  const line = text.trim().split(/\s+/).join(" ");
  return line.length > TITLE ? `${line.slice(0, TITLE - 1)}…` : line;
}

/** Up to its last question, so that this can be asked again. */
export function withoutLastAnswer(conversation: Conversation): Conversation {
  const last = conversation.messages.findLastIndex((message) => message.role === "user");
  return { ...conversation, messages: conversation.messages.slice(0, last + 1) };
}

/**
 * A parameter that is not set is left to the server. A question to which nothing came is left out with its answer, since
 * many chat templates take only user and assistant by turns.
 */
export function questionOf(conversation: Conversation): Question {
  const system: Said[] = conversation.system.trim() ? [{ role: "system", content: conversation.system }] : [];
  const said = conversation.messages
    .filter((message, place, all) => (message.role === "user" ? wasAnswered(all, place) : message.text))
    .map((message): Said => ({ role: message.role, content: message.text }));
  const set = Object.entries(conversation.parameters).filter(([, value]) => value !== null);
  return { messages: [...system, ...said], ...Object.fromEntries(set) };
}

/** The last question is the one that is asked. */
function wasAnswered(messages: Message[], place: number): boolean {
  const next = messages[place + 1];
  return !next || (next.role === "assistant" && next.text !== "");
}
