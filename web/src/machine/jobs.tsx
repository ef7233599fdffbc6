// Batch files: send one, see how far it is, stop it, fetch what came of it.

import { useEffect, useRef, useState } from "preact/hooks";
import { begin, cancel, fetchFile, isOver, reasonOf } from "../server/jobs";
import { wordsOf } from "../server/request";
import type { Job, JobStatus } from "../server/shape";
import { look } from "../server/watch";
import { count, many, percent, seconds, share, speed } from "../words/units";

const STATUS: Record<JobStatus, string> = {
  validating: "being checked",
  in_progress: "running",
  finalizing: "being finished",
  completed: "done",
  cancelling: "being cancelled",
  cancelled: "cancelled",
  expired: "expired",
  failed: "failed",
};

export function Jobs({ jobs, taken }: { jobs: Job[]; taken: boolean }) {
  const [said, say] = useState<{ words: string; bad: boolean } | null>(null);

  /** What was asked of the server, and what it said when that failed; the page looks again either way. */
  async function run(work: Promise<string | void>) {
    say(null);
    try {
      const words = await work;
      if (words) say({ words, bad: false });
    } catch (error) {
      say({ words: wordsOf(error), bad: true });
    }
    void look();
  }

  return (
    <section class="card jobs" aria-labelledby="jobs">
      <h2>
        <span id="jobs">Batch jobs</span>
        {taken && <Upload onFile={(file) => run(begin(file).then((id) => `${file.name} was sent and is ${id}.`))} />}
      </h2>
      {!taken && <p class="note">This server takes no batch files: windlass serve --jobs FOLDER does.</p>}
      {said && (
        <p class={said.bad ? "error" : "note"} role={said.bad ? "alert" : "status"}>
          {said.words}
        </p>
      )}
      {taken && !jobs.length && <p class="note">No job yet. A batch file has a request a line, in OpenAI's form.</p>}
      <ul>{jobs.map((job) => <JobRow key={job.id} job={job} run={run} />)}</ul>
    </section>
  );
}

function Upload({ onFile }: { onFile: (file: File) => Promise<void> }) {
  const field = useRef<HTMLInputElement>(null);
  const [sending, setSending] = useState(false);
  async function send() {
    const file = field.current?.files?.[0];
    if (!file) return;
    setSending(true);
    await onFile(file);
    setSending(false);
    if (field.current) field.current.value = "";
  }
  return (
    <label class="upload">
      {sending ? "Sending…" : "Send a batch file"}
      <input class="hidden" ref={field} type="file" accept=".jsonl,.ndjson,application/jsonl" disabled={sending} onChange={send} />
    </label>
  );
}

function JobRow({ job, run }: { job: Job; run: (work: Promise<string | void>) => Promise<void> }) {
  const done = job.completed + job.failed;
  return (
    <li class="job">
      <p class="job-head">
        <code>{job.id}</code>
        <span class={`status ${job.status}`}>{STATUS[job.status] ?? job.status}</span>
        <span class="job-doors">
          {!isOver(job) && job.status !== "cancelling" && (
            <Door label={`Cancel ${job.id}`} words="Cancel" onOpen={() => run(cancel(job))} />
          )}
          <FileDoor job={job} words="Answers" id={job.output_file_id} run={run} />
          <FileDoor job={job} words="Errors" id={job.error_file_id} run={run} />
        </span>
      </p>
      <progress max={Math.max(job.total, 1)} value={done} aria-label={`Progress of ${job.id}`} />
      <p class="note">{wordsOfJob(job, done)}</p>
      {job.status === "failed" && <Reason job={job} />}
    </li>
  );
}

function Reason({ job }: { job: Job }) {
  const [words, setWords] = useState("");
  useEffect(() => void reasonOf(job).catch(wordsOf).then(setWords), [job.id]);
  return words ? <p class="error">{words}</p> : null;
}

interface FileDoorProps {
  job: Job;
  words: string;
  id: string | null;
  run: (work: Promise<void>) => Promise<void>;
}

function FileDoor({ job, words, id, run }: FileDoorProps) {
  if (!id) return null;
  const name = `${job.id}-${words.toLowerCase()}.jsonl`;
  return <Door label={`${words} of ${job.id}`} words={words} onOpen={() => run(fetchFile(id, name))} />;
}

function Door({ label, words, onOpen }: { label: string; words: string; onOpen: () => void }) {
  return (
    <button type="button" class="quiet" aria-label={label} onClick={onOpen}>
      {words}
    </button>
  );
}

function wordsOfJob(job: Job, done: number): string {
  const running = job.status === "in_progress";
  return [
    `${count(done)} of ${many(job.total, "row")}, ${percent(share(done, job.total))}`,
    job.failed ? `${count(job.failed)} failed` : "",
    running && job.tokens_per_second ? `${speed(job.tokens_per_second)} tokens/s` : "",
    running && job.seconds_left !== null ? `${seconds(job.seconds_left)} left` : "",
  ]
    .filter(Boolean)
    .join(" · ");
}
