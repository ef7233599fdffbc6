// What was said, by either side.

import { count, seconds, speed } from "../words/units";
import type { Message, Outcome } from "./conversation";
import { Copy } from "./copy";
import { Markdown } from "./markdown";
import { partsOf } from "./thought";

export function Question({ text }: { text: string }) {
  return (
    <article class="question" aria-label="You">
      <p>{text}</p>
    </article>
  );
}

interface AnswerProps {
  message: Message;
  onRegenerate: (() => void) | null;
}

export function Answer({ message, onRegenerate }: AnswerProps) {
  const { outcome } = message;
  return (
    <article class="answer" aria-label="Model">
      <AnswerText text={message.text} thought={message.thought} />
      {outcome?.error && (
        <p class="error" role="alert">
          {outcome.error}
        </p>
      )}
      <footer>
        {message.text && <Copy text={partsOf(message.text).answer} label="Copy answer" />}
        {onRegenerate && (
          <button type="button" class="quiet" onClick={onRegenerate}>
            Regenerate
          </button>
        )}
        {outcome && <small class="figures">{wordsOf(outcome)}</small>}
      </footer>
    </article>
  );
}

export function AnswerText({ text, thought = "" }: { text: string; thought?: string | undefined }) {
  const parts = partsOf(text, thought);
  return (
    <>
      {parts.thought && (
        <details class="thought">
          <summary>Thought</summary>
          <Markdown text={parts.thought} />
        </details>
      )}
      {parts.answer && <Markdown text={parts.answer} />}
    </>
  );
}

/** `120 tokens in 14.2 s, 8.45 a second; the first after 1.20 s; ended at max_tokens` */
function wordsOf({ finish, seconds: took, firstToken, tokens }: Outcome): string {
  const between = firstToken === null ? 0 : took - firstToken;
  const rate = tokens && tokens > 1 && between > 0 ? `, ${speed((tokens - 1) / between)} a second` : "";
  return [
    tokens === null ? `${seconds(took)}` : `${count(tokens)} tokens in ${seconds(took)}${rate}`,
    firstToken === null ? "" : `first after ${seconds(firstToken)}`,
    { length: "ended at the limit of tokens", stopped: "stopped by you", failed: "broken off" }[finish] ?? "",
  ]
    .filter(Boolean)
    .join(" · ");
}
