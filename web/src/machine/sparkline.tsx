// The last two minutes of a number, so that a change is seen and not only a value.

const WIDE = 120;
const HIGH = 28;

export function Sparkline({ values, ceiling, label }: { values: number[]; ceiling: number | null; label: string }) {
  const top = Math.max(ceiling ?? 0, ...values) || 1;
  const y = (value: number) => HIGH - 1 - (value / top) * (HIGH - 2);
  const first = WIDE - values.length;
  const points = values.map((value, place) => `${first + place},${y(value).toFixed(1)}`).join(" ");
  return (
    <svg class="sparkline" viewBox={`0 0 ${WIDE} ${HIGH}`} preserveAspectRatio="none" role="img" aria-label={label}>
      {ceiling !== null && <line x1={0} x2={WIDE} y1={y(ceiling)} y2={y(ceiling)} />}
      <polyline points={points} />
    </svg>
  );
}
