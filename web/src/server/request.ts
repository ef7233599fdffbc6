// Every request of the page goes through here: with the key, and with errors that say what to do next.

import { key, keyWanted } from "./key";

/** The server answered, with no. */
export class Refusal extends Error {
  constructor(
    message: string,
    readonly status: number,
    /** Seconds after which the server says to ask again. */
    readonly retryAfter: number | null = null,
  ) {
    super(message);
  }
}

/** Nobody answered. */
export class Unreachable extends Error {
  constructor() {
    super("The server does not answer. Is windlass serve still running?");
  }
}

/** A path relative to the page, so that the server may stand behind another one's prefix. Raises Refusal, Unreachable. */
export async function ask(path: string, options: RequestInit = {}): Promise<Response> {
  const headers = new Headers(options.headers);
  if (key.value) headers.set("Authorization", `Bearer ${key.value}`);
  const response = await reach(path, { ...options, headers });
  if (response.status === 401) keyWanted.value = true;
  if (!response.ok) throw await refusal(response);
  return response;
}

export function askWith(path: string, body: unknown, signal?: AbortSignal): Promise<Response> {
  const headers = { "Content-Type": "application/json" };
  return ask(path, { method: "POST", headers, body: JSON.stringify(body), signal: signal ?? null });
}

async function reach(path: string, options: RequestInit): Promise<Response> {
  try {
    return await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Unreachable();
  }
}

async function refusal(response: Response): Promise<Refusal> {
  const text = await response.text();
  const after = Number(response.headers.get("Retry-After") ?? Number.NaN);
  const message = messageOf(text) ?? `The server answered ${response.status} ${response.statusText}`.trim();
  return new Refusal(message, response.status, Number.isFinite(after) ? after : null);
}

/** The message of an error in OpenAI's shape. */
export function messageOf(text: string): string | null {
  try {
    const message: unknown = JSON.parse(text)?.error?.message;
    return typeof message === "string" && message ? message : null;
  } catch {
    return null;
  }
}

export function wordsOf(error: unknown): string {
  if (error instanceof Refusal && error.retryAfter !== null) {
    return `${error.message} (try again in ${error.retryAfter} s)`;
  }
  return error instanceof Error ? error.message : String(error);
}
