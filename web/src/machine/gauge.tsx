// How fast a link carries bytes, beside the fastest that was ever measured on it. Without that there is nothing to draw.

import type { Link } from "../server/shape";
import { percent, rate, share } from "../words/units";

export function Gauge({ link, idle }: { link: Link; idle: boolean }) {
  const now = link.rate ?? 0;
  const name = link.name.charAt(0).toUpperCase() + link.name.slice(1);
  const words = link.limit ? `${rate(now)} of ${rate(link.limit)}` : rate(now);
  const part = link.limit ? share(now, link.limit) : 0;
  return (
    <section class={idle ? "gauge idle" : "gauge"} aria-label={name}>
      <h3>
        {name}
        <small>{words}</small>
      </h3>
      {link.limit !== null && (
        <div
          class="bar"
          role="meter"
          aria-label={`${name}, rate`}
          aria-valuemin={0}
          aria-valuemax={link.limit}
          aria-valuenow={Math.min(now, link.limit)}
          aria-valuetext={words}
        >
          <span class={`segment lane-${link.lane}`} style={{ width: `${100 * part}%` }} />
        </div>
      )}
      <p class="note">
        {link.limit ? percent(part) : "limit not measured; windlass doctor measures it"}
        {idle && now > 0 && " · idle, so it was in the last passes"}
      </p>
    </section>
  );
}
