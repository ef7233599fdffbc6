// The answer while it is written. A pass of a large model may take minutes, so the wait is counted where one looks.

import { useEffect, useState } from "preact/hooks";
import { state } from "../server/watch";
import { seconds } from "../words/units";
import type { Answering } from "./answering";
import { AnswerText } from "./message";

export function Unfinished({ answer }: { answer: Answering }) {
  return (
    <article class="answer" aria-label="Model" aria-busy="true">
      <AnswerText text={answer.text} thought={answer.thought} />
      {answer.firstCame === null ? <Waiting since={answer.began} /> : <span class="caret" aria-hidden="true" />}
    </article>
  );
}

function Waiting({ since }: { since: number }) {
  const [now, setNow] = useState(performance.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(performance.now()), 250);
    return () => clearInterval(timer);
  }, []);
  const waited = Math.max(0, (now - since) / 1000);
  const pass = state.value?.pass?.seconds;
  return (
    <p class="waiting">
      Reading the question, {waited.toFixed(0)} s{pass && pass >= 1 ? `; the last pass took ${seconds(pass)}` : ""}
    </p>
  );
}
