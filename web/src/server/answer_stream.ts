// One question to /v1/chat/completions, and its answer piece by piece.

import { EventReader } from "./events";
import { ask, askWith, messageOf, Refusal, Unreachable } from "./request";

export interface Said {
  role: "system" | "user" | "assistant";
  content: string;
}

export interface Question {
  messages: Said[];
  temperature?: number;
  top_p?: number;
  max_tokens?: number;
  seed?: number;
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
}

export interface Piece {
  text?: string;
  /** What a reasoning model says before its answer, where the server tells the two apart. */
  thought?: string;
  finish?: string;
  usage?: Usage;
}

interface Chunk {
  choices?: { delta?: { content?: string | null; reasoning_content?: string | null }; finish_reason?: string | null }[];
  usage?: Usage | null;
  error?: unknown;
}

/** Raises Refusal, Unreachable, and what `signal` aborts with. */
export async function* answerStream(question: Question, signal: AbortSignal): AsyncGenerator<Piece> {
  const model = await servedModel(signal);
  const body = { model, ...question, stream: true, stream_options: { include_usage: true } };
  const response = await askWith("v1/chat/completions", body, signal);
  for await (const data of dataOf(response, signal)) {
    if (data === "[DONE]") return;
    yield pieceOf(data);
  }
  throw new Refusal("The answer broke off: the server closed the connection before its end.", response.status);
}

/** Asked each time, since another server with another model may have taken the place of the last one. */
async function servedModel(signal: AbortSignal): Promise<string> {
  const response = await ask("v1/models", { signal });
  const models: { data?: { id: string }[] } = await response.json();
  const first = models.data?.[0];
  if (!first) throw new Refusal("The server names no model at /v1/models.", response.status);
  return first.id;
}

async function* dataOf(response: Response, signal: AbortSignal): AsyncGenerator<string> {
  if (!response.body) return;
  const bytes = response.body.getReader();
  const decoder = new TextDecoder();
  const events = new EventReader();
  while (true) {
    const { done, value } = await next(bytes, signal);
    if (done) return;
    for (const event of events.feed(decoder.decode(value, { stream: true }))) {
      if (event.name === "error") throw new Refusal(messageOf(event.data) ?? event.data, response.status);
      yield event.data;
    }
  }
}

async function next(bytes: ReadableStreamDefaultReader<Uint8Array>, signal: AbortSignal) {
  try {
    return await bytes.read();
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Unreachable();
  }
}

function pieceOf(data: string): Piece {
  const chunk: Chunk = JSON.parse(data);
  if (chunk.error) throw new Refusal(messageOf(data) ?? "The server failed inside the answer.", 200);
  const piece: Piece = {};
  const choice = chunk.choices?.[0];
  if (choice?.delta?.content) piece.text = choice.delta.content;
  if (choice?.delta?.reasoning_content) piece.thought = choice.delta.reasoning_content;
  if (choice?.finish_reason) piece.finish = choice.finish_reason;
  if (chunk.usage) piece.usage = chunk.usage;
  return piece;
}
