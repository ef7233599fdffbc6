// Where the bytes of one tier are: a bar as long as its budget, cut into what it holds.

import type { Part, PartKind, Tier } from "../server/shape";
import { percent, share, size } from "../words/units";

const NAMES: Record<PartKind, string> = {
  process: "Process",
  weights: "Weights",
  kv_cache: "KV cache",
  buffers: "Buffers",
  free: "Free",
};

const TIERS: Record<string, string> = { host: "Host memory", device: "Device memory", disk: "Disk" };

export function TierBar({ tier }: { tier: Tier }) {
  const name = TIERS[tier.name] ?? tier.name;
  const parts = tier.parts.filter((part) => part.bytes > 0);
  const held = parts.filter((part) => part.kind !== "free");
  const whole = Math.max(tier.budget, total(parts));
  const taken = total(held);
  return (
    <section class="tier" aria-label={name}>
      <h3>
        {name}
        <small>
          {size(taken)} of {size(tier.budget)}
        </small>
      </h3>
      <div
        class="bar"
        role="meter"
        aria-label={`${name} given away`}
        aria-valuemin={0}
        aria-valuemax={tier.budget}
        aria-valuenow={Math.min(taken, tier.budget)}
        aria-valuetext={`${size(taken)} of ${size(tier.budget)}`}
      >
        {held.map((part) => (
          <Segment key={part.kind} part={part} whole={whole} />
        ))}
      </div>
      <ul class="legend">
        {parts.map((part) => (
          <li key={part.kind}>
            <i class={`swatch ${part.kind}`} />
            {NAMES[part.kind] ?? part.kind}
            <b>{size(part.bytes)}</b>
            {part.kind === "kv_cache" && <small>{percent(share(part.used, part.bytes))} used</small>}
          </li>
        ))}
      </ul>
    </section>
  );
}

function total(parts: Part[]): number {
  return parts.reduce((sum, part) => sum + part.bytes, 0);
}

/** What is used of a part is solid, what is only set aside is pale. */
function Segment({ part, whole }: { part: Part; whole: number }) {
  const title = `${NAMES[part.kind] ?? part.kind}: ${size(part.bytes)}, of which ${size(part.used)} used`;
  return (
    <span class={`segment ${part.kind}`} style={{ width: `${100 * share(part.bytes, whole)}%` }} title={title}>
      <span style={{ width: `${100 * share(part.used, part.bytes)}%` }} />
    </span>
  );
}
