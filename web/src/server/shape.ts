// What the server says of itself at /windlass/state. Bytes and seconds; null where it does not know.

export type PartKind = "process" | "weights" | "kv_cache" | "buffers" | "free";

export interface Part {
  kind: PartKind;
  bytes: number;
  used: number;
}

export interface Tier {
  name: string;
  budget: number;
  parts: Part[];
}

export interface Link {
  name: string;
  lane: string;
  rate: number | null;
  limit: number | null;
}

export type Span = [start: number, end: number, what: string];

export interface Lane {
  name: string;
  spans: Span[];
}

export interface Pass {
  number: number;
  seconds: number;
  lanes: Lane[];
}

export interface Queue {
  running: number;
  places: number;
  waiting: number;
  capacity: number;
  pages_used: number;
  pages: number;
  reserved_pages: number;
}

export interface Quantiles {
  p50: number | null;
  p99: number | null;
}

export type JobStatus =
  | "validating"
  | "in_progress"
  | "finalizing"
  | "completed"
  | "cancelling"
  | "cancelled"
  | "expired"
  | "failed";

export interface Job {
  id: string;
  status: JobStatus;
  total: number;
  completed: number;
  failed: number;
  tokens_per_second: number | null;
  seconds_left: number | null;
  input_file_id: string;
  output_file_id: string | null;
  error_file_id: string | null;
}

export interface State {
  model: string;
  state: "loading" | "ready" | "failed" | "closed";
  failure?: string | null;
  version: string;
  uptime: number;
  tiers: Tier[];
  links: Link[];
  pass: Pass | null;
  binds: string | null;
  queue: Queue | null;
  speed: {
    tokens_per_second: number | null;
    forecast: number | null;
    prompt_tokens: number;
    generated_tokens: number;
  } | null;
  wait: { first_token: Quantiles; between_tokens: Quantiles } | null;
  takes_batches?: boolean;
  jobs: Job[];
}
