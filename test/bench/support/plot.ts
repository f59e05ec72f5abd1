import type { CurvePoint } from './scenario.ts';

const WIDTH = 640;
const HEIGHT = 360;
const MARGIN = { left: 60, right: 20, top: 30, bottom: 50 };
const LINES = [
  { read: ({ p50 }: CurvePoint) => p50, name: 'p50', colour: '#2a7' },
  { read: ({ p95 }: CurvePoint) => p95, name: 'p95', colour: '#27c' },
  { read: ({ p99 }: CurvePoint) => p99, name: 'p99', colour: '#c42' },
];
/** Of latency, in milliseconds: the axis is logarithmic. */
const DECADES = [0.1, 1, 10, 100, 1000, 10_000];

/** An SVG of the percentiles of latency over the offered load. */
export const toPlot = (curve: readonly CurvePoint[]): string => {
  const most = Math.max(...curve.map(({ offered }) => offered));
  const [low = 0, high = 0] = [Math.log10(DECADES[0] as number), Math.log10(DECADES.at(-1) as number)];
  const x = (offered: number) => MARGIN.left + (offered / most) * (WIDTH - MARGIN.left - MARGIN.right);
  const y = (ms: number) => {
    const share = (Math.log10(Math.max(ms, DECADES[0] as number)) - low) / (high - low);
    return HEIGHT - MARGIN.bottom - share * (HEIGHT - MARGIN.top - MARGIN.bottom);
  };
  const horizontal = DECADES.map(
    (ms) => `<line x1="${MARGIN.left}" x2="${WIDTH - MARGIN.right}" y1="${y(ms)}" y2="${y(ms)}" stroke="#ddd"/>
<text x="${MARGIN.left - 6}" y="${y(ms) + 4}" text-anchor="end">${ms}</text>`,
  );
  const vertical = [0, 0.25, 0.5, 0.75, 1].map(
    (share) =>
      `<text x="${x(most * share)}" y="${HEIGHT - MARGIN.bottom + 18}" text-anchor="middle">${Math.round(most * share)}</text>`,
  );
  const lines = LINES.map(({ read, name, colour }, i) => {
    const points = curve.map((point) => `${x(point.offered).toFixed(1)},${y(read(point)).toFixed(1)}`).join(' ');
    return `<polyline points="${points}" fill="none" stroke="${colour}" stroke-width="2"/>
<text x="${MARGIN.left + 10 + i * 50}" y="${MARGIN.top - 10}" fill="${colour}">${name}</text>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12">
<rect width="${WIDTH}" height="${HEIGHT}" fill="#fff"/>
${[...horizontal, ...vertical, ...lines].join('\n')}
<text x="${WIDTH / 2}" y="${HEIGHT - 12}" text-anchor="middle">offered calls a second</text>
<text x="14" y="${HEIGHT / 2}" transform="rotate(-90 14 ${HEIGHT / 2})" text-anchor="middle">milliseconds</text>
</svg>
`;
};
