import assert from 'node:assert/strict';

export interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (-?[\d.]+(?:e[+-]?\d+)?|NaN|[+-]Inf)$/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"(?:,|$)/y;

const labelsOf = (text: string): Record<string, string> => {
  const labels: Record<string, string> = {};
  LABEL.lastIndex = 0;
  while (LABEL.lastIndex < text.length) {
    const [whole, name = '', value = ''] = LABEL.exec(text) ?? [];
    assert.ok(whole, `not labels: ${text}`);
    labels[name] = value;
  }
  return labels;
};

/**
 * Reads Prometheus's text format 0.0.4 as strictly as Prometheus does: every sample belongs to a metric whose type is given
 * before it, and no series comes twice.
 */
export const parseMetrics = (text: string): Sample[] => {
  const types = new Map<string, string>();
  const series = new Set<string>();
  return text.split('\n').flatMap((line) => {
    const [, typed, type] = /^# TYPE (\S+) (counter|gauge|histogram)$/.exec(line) ?? [];
    if (typed !== undefined && type !== undefined) {
      assert.ok(!types.has(typed), `${typed} comes twice`);
      types.set(typed, type);
    }
    if (line === '' || line.startsWith('#')) return [];
    const [, name = '', labels = '', value] = SAMPLE.exec(line) ?? [];
    assert.ok(name, `not a sample: ${line}`);
    const family = types.has(name) ? name : name.replace(/_(bucket|sum|count)$/, '');
    assert.ok(types.has(family), `${name} has no type`);
    const key = `${name}{${labels}}`;
    assert.ok(!series.has(key), `${key} comes twice`);
    series.add(key);
    return [{ name, labels: labelsOf(labels), value: Number(value?.replace('Inf', 'Infinity')) }];
  });
};
