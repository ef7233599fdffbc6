// The state of the server, asked once a second while the page is seen; when the server is gone, ever more rarely.

import { effect, signal } from "@preact/signals";
import { keyWanted } from "./key";
import { ask, Unreachable, wordsOf } from "./request";
import type { State } from "./shape";

const EVERY = 1000;
const RAREST = 10_000;
const PATIENCE = 15_000;
const REMEMBERED = 120;

/** The last state that was told; it stays, and is shown as old, while the server does not answer. */
export const state = signal<State | null>(null);

/** Tokens a second, one number a state, the newest last. */
export const speeds = signal<number[]>([]);

export interface Trouble {
  words: string;
  /** Nobody answered, as against an answer that said no. */
  gone: boolean;
  /** When the page asks again, in milliseconds since 1970. */
  again: number;
}

export const trouble = signal<Trouble | null>(null);

let timer: ReturnType<typeof setTimeout> | undefined;
let asking = false;
let failures = 0;

export async function look(): Promise<void> {
  clearTimeout(timer);
  if (asking || document.hidden || keyWanted.value) return;
  asking = true;
  try {
    const response = await ask("windlass/state", { signal: AbortSignal.timeout(PATIENCE) });
    learn(await response.json());
  } catch (error) {
    lose(error);
  } finally {
    asking = false;
  }
  timer = setTimeout(look, pause());
}

function learn(told: State): void {
  state.value = told;
  const speed = isIdle(told) ? 0 : (told.speed?.tokens_per_second ?? 0);
  speeds.value = [...speeds.value, speed].slice(-REMEMBERED);
  trouble.value = null;
  failures = 0;
}

/** Rates are those of the last passes, which may be long over. */
export function isIdle(told: State): boolean {
  return told.queue?.running === 0;
}

function lose(error: unknown): void {
  if (keyWanted.value) return;
  failures += 1;
  const late = error instanceof DOMException;
  const words = late ? `The server has not answered for ${PATIENCE / 1000} s.` : wordsOf(error);
  trouble.value = { words, gone: late || error instanceof Unreachable, again: Date.now() + pause() };
}

function pause(): number {
  return failures ? Math.min(RAREST, EVERY * 2 ** (failures - 1)) : EVERY;
}

export function watch(): void {
  document.addEventListener("visibilitychange", look);
  // At once, and again when a key was given that may be the right one.
  effect(() => {
    if (!keyWanted.value) void look();
  });
}
