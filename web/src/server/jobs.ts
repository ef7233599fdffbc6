// Batch files: sent, begun, cancelled and fetched through the same interface that every OpenAI client uses.

import { ask, askWith } from "./request";
import type { Job } from "./shape";

const CHAT = "/v1/chat/completions";

/** Sends the file and begins a batch of it; its id. Raises Refusal, Unreachable. */
export async function begin(file: File): Promise<string> {
  const form = new FormData();
  form.append("purpose", "batch");
  form.append("file", file, file.name);
  const sent: { id: string } = await (await ask("v1/files", { method: "POST", body: form })).json();
  const body = { input_file_id: sent.id, endpoint: await endpointOf(file), completion_window: "24h" };
  const batch: { id: string } = await (await askWith("v1/batches", body)).json();
  return batch.id;
}

/** The endpoint that the first row names. A row that cannot be read is for the server to refuse. */
async function endpointOf(file: File): Promise<string> {
  const [first = ""] = (await file.slice(0, 1 << 20).text()).trimStart().split("\n", 1);
  try {
    const url: unknown = JSON.parse(first)?.url;
    return typeof url === "string" ? url : CHAT;
  } catch {
    return CHAT;
  }
}

export async function cancel(job: Job): Promise<void> {
  await ask(`v1/batches/${encodeURIComponent(job.id)}/cancel`, { method: "POST" });
}

/** Why a job failed as a whole; empty where the server does not say. */
export async function reasonOf(job: Job): Promise<string> {
  const response = await ask(`v1/batches/${encodeURIComponent(job.id)}`);
  const batch: { errors?: { data?: { message?: string }[] } | null } = await response.json();
  return batch.errors?.data?.[0]?.message ?? "";
}

/** A link could not carry the key, so the file is fetched and then saved. */
export async function fetchFile(id: string, name: string): Promise<void> {
  const response = await ask(`v1/files/${encodeURIComponent(id)}/content`);
  const address = URL.createObjectURL(await response.blob());
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  // Not at once: a browser may begin to save only after the click was handled.
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

export function isOver(job: Job): boolean {
  return ["completed", "cancelled", "expired", "failed"].includes(job.status);
}
