// The numbers that one looks at first: speed beside its forecast, who is served, who waits and how long.

import type { ComponentChildren } from "preact";
import type { Quantiles, Queue, State } from "../server/shape";
import { isIdle, speeds } from "../server/watch";
import { count, percent, seconds, share, speed } from "../words/units";
import { Sparkline } from "./sparkline";

export function Figures({ state }: { state: State }) {
  return (
    <div class="figures-grid">
      {state.speed && <SpeedFigure speed={state.speed} idle={isIdle(state)} />}
      {state.queue && <QueueFigure queue={state.queue} />}
      {state.queue && <PagesFigure queue={state.queue} />}
      {state.wait && <WaitFigure title="Wait for the first token" wait={state.wait.first_token} />}
      {state.wait && <WaitFigure title="Wait between tokens" wait={state.wait.between_tokens} />}
    </div>
  );
}

interface FigureProps {
  title: string;
  value: string;
  unit: string;
  children?: ComponentChildren;
}

function Figure({ title, value, unit, children }: FigureProps) {
  return (
    <section class="figure" aria-label={title}>
      <h3>{title}</h3>
      <p class="value">
        {value} <small>{unit}</small>
      </p>
      <p class="note">{children}</p>
    </section>
  );
}

function SpeedFigure({ speed: now, idle }: { speed: NonNullable<State["speed"]>; idle: boolean }) {
  const kept =
    now.forecast && now.tokens_per_second ? ` (${percent(now.tokens_per_second / now.forecast)} of it)` : "";
  return (
    <div class="with-line">
      <Figure title="Speed" value={speed(now.tokens_per_second)} unit={idle ? "tokens/s, when it last ran" : "tokens/s"}>
        {now.forecast === null ? "no forecast" : `forecast ${speed(now.forecast)}${kept}`}
        <br />
        {count(now.prompt_tokens)} read, {count(now.generated_tokens)} written
      </Figure>
      <Sparkline values={speeds.value} ceiling={now.forecast} label="Speed in the last two minutes" />
    </div>
  );
}

function QueueFigure({ queue }: { queue: Queue }) {
  return (
    <Figure title="Served now" value={count(queue.running)} unit={`of ${count(queue.places)} places`}>
      {count(queue.waiting)} waiting
      <br />
      queue holds {count(queue.capacity)}
    </Figure>
  );
}

function PagesFigure({ queue }: { queue: Queue }) {
  const used = percent(share(queue.pages_used, queue.pages));
  return (
    <Figure title="KV pages" value={count(queue.pages_used)} unit={`of ${count(queue.pages)}`}>
      {used} used
      <br />
      {count(queue.reserved_pages)} kept for chats
    </Figure>
  );
}

function WaitFigure({ title, wait }: { title: string; wait: Quantiles }) {
  return (
    <Figure title={title} value={seconds(wait.p50)} unit="median">
      p99 {seconds(wait.p99)}
    </Figure>
  );
}
