// Conversations stay in this browser, one entry each, so that two tabs do not overwrite each other's.

import { computed, signal } from "@preact/signals";
import { type Conversation, newConversation } from "./conversation";

const PREFIX = "windlass.conversation.";

export const conversations = signal<Conversation[]>(readAll());
export const openId = signal(conversations.value[0]?.id ?? freshId());

/** Why the last change could not be kept. */
export const keepingFailed = signal<string | null>(null);

/** The one that is shown. It is kept only once something was said in it. */
export const opened = computed(
  () => conversations.value.find((one) => one.id === openId.value) ?? newConversation(openId.value, Date.now()),
);

export function put(conversation: Conversation): void {
  const others = conversations.value.filter((one) => one.id !== conversation.id);
  conversations.value = newestFirst([conversation, ...others]);
  write(conversation);
}

/** What is in the browser's store gives way to what happens here only by this. */
function write(conversation: Conversation): void {
  try {
    localStorage.setItem(PREFIX + conversation.id, JSON.stringify(conversation));
    keepingFailed.value = null;
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    keepingFailed.value = "This browser has no room left for conversations: delete one to keep this one.";
  }
}

export function remove(id: string): void {
  localStorage.removeItem(PREFIX + id);
  conversations.value = conversations.value.filter((one) => one.id !== id);
  if (openId.value === id) openId.value = conversations.value[0]?.id ?? freshId();
}

/** Another conversation, asked with what this one is asked with. */
export function begin(): void {
  if (!opened.value.messages.length) return;
  const conversation = newConversation(freshId(), Date.now(), opened.value);
  put(conversation);
  openId.value = conversation.id;
}

export function find(id: string): Conversation | undefined {
  return conversations.value.find((one) => one.id === id);
}

/** Another tab's changes are taken over as they come. */
export function listen(): void {
  window.addEventListener("storage", (event) => {
    if (event.key === null || event.key.startsWith(PREFIX)) conversations.value = readAll();
  });
}

function readAll(): Conversation[] {
  const keys = Object.keys(localStorage).filter((key) => key.startsWith(PREFIX));
  return newestFirst(keys.map(read).filter((one) => one !== null));
}

function read(key: string): Conversation | null {
  try {
    const one: Conversation = JSON.parse(localStorage.getItem(key) ?? "null");
    return Array.isArray(one?.messages) ? { ...newConversation(one.id, one.changed), ...one } : null;
  } catch {
    return null;
  }
}

function newestFirst(all: Conversation[]): Conversation[] {
  return all.toSorted((a, b) => b.changed - a.changed);
}

/** Not crypto.randomUUID, which a page on plain HTTP from another machine does not have. */
function freshId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
