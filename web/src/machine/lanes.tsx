// The last pass, a row a lane: who worked when, and who waited.

import type { Lane, Pass } from "../server/shape";
import { percent, seconds, share } from "../words/units";

/** Units across a lane, whatever its width on the screen. */
const WIDE = 1000;
const HIGH = 20;
const TICKS = [0, 0.25, 0.5, 0.75, 1];

export function Lanes({ pass }: { pass: Pass }) {
  return (
    <div class="lanes">
      {pass.lanes.map((lane) => (
        <LaneRow key={lane.name} lane={lane} length={pass.seconds} />
      ))}
      <div class="ticks" aria-hidden="true">
        {TICKS.map((tick) => (
          <span key={tick}>{tick ? seconds(tick * pass.seconds) : "0"}</span>
        ))}
      </div>
    </div>
  );
}

function LaneRow({ lane, length }: { lane: Lane; length: number }) {
  const busy = percent(share(busySeconds(lane), length));
  const x = (moment: number) => WIDE * share(moment, length);
  return (
    <div class="lane">
      <span>{lane.name}</span>
      <svg
        viewBox={`0 0 ${WIDE} ${HIGH}`}
        preserveAspectRatio="none"
        role="img"
        aria-label={`${lane.name}: busy ${busy} of the pass`}
      >
        {lane.spans.map(([start, end, what], place) => (
          <rect
            key={place}
            class={`lane-${lane.name}`}
            x={x(start)}
            y={0}
            width={Math.max(0.8, x(end) - x(start))}
            height={HIGH}
          >
            <title>{`${what}: ${seconds(end - start)}`}</title>
          </rect>
        ))}
      </svg>
      <span class="busy">{busy}</span>
    </div>
  );
}

/** Several spans of a lane may run at once; a moment counts once. */
function busySeconds(lane: Lane): number {
  let busy = 0;
  let reached = Number.NEGATIVE_INFINITY;
  for (const [start, end] of lane.spans.toSorted((a, b) => a[0] - b[0])) {
    busy += Math.max(0, end - Math.max(start, reached));
    reached = Math.max(reached, end);
  }
  return busy;
}
