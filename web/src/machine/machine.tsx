// The machine at work: where the bytes are, how fast they move, and what that leaves to wait for.

import type { State } from "../server/shape";
import { isIdle, state } from "../server/watch";
import { count, seconds } from "../words/units";
import { Figures } from "./figures";
import { Gauge } from "./gauge";
import { Jobs } from "./jobs";
import { Lanes } from "./lanes";
import { TierBar } from "./tier";

export function Machine() {
  const now = state.value;
  return (
    <main class="machine">
      <h1 class="hidden">The machine at work</h1>
      {now ? <Shown state={now} /> : <p class="note">Asking the server…</p>}
    </main>
  );
}

function sentence(words: string): string {
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function Shown({ state: now }: { state: State }) {
  return (
    <>
      <section class="card binds" aria-labelledby="binds">
        <h2 id="binds">What binds now</h2>
        <p>{sentence(now.binds || "nothing runs")}</p>
        <p class="note">
          {now.model} · Windlass {now.version} · up {seconds(now.uptime)}
        </p>
      </section>
      <Figures state={now} />
      <div class="pair">
        <section class="card" aria-labelledby="memory">
          <h2 id="memory">Memory</h2>
          {now.tiers.length ? (
            now.tiers.map((tier) => <TierBar key={tier.name} tier={tier} />)
          ) : (
            <p class="note">Not known before the model is loaded.</p>
          )}
        </section>
        <section class="card" aria-labelledby="links">
          <h2 id="links">Links</h2>
          {now.links.length ? (
            now.links.map((link) => <Gauge key={link.name} link={link} idle={isIdle(now)} />)
          ) : (
            <p class="note">No link carries anything: all that is used stays where it is.</p>
          )}
        </section>
      </div>
      <section class="card" aria-labelledby="pass">
        <h2 id="pass">
          The last pass
          {now.pass && (
            <small>
              number {count(now.pass.number)}, {seconds(now.pass.seconds)}
            </small>
          )}
        </h2>
        {now.pass ? <Lanes pass={now.pass} /> : <p class="note">There was none yet.</p>}
      </section>
      <Jobs jobs={now.jobs} taken={now.takes_batches ?? true} />
    </>
  );
}
