/** What stands in quotes, and how long a range is, names nothing. */
const bare = (expression: string): string => expression.replace(/"[^"]*"/g, '""').replace(/\[[^\]]*\]/g, '');

const OPERATORS = new Set(['and', 'or', 'unless', 'bool', 'on', 'ignoring', 'group_left', 'group_right', 'offset']);
const GROUPS = /\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)/g;
const MATCHERS = /\{([^}]*)\}/g;

/** The metrics that an expression of Prometheus reads. */
export const metricsIn = (expression: string): string[] => {
  const rest = bare(expression).replace(MATCHERS, ' ').replace(GROUPS, ' ');
  const words = [...rest.matchAll(/\b([a-z_:][\w:]*)\b(?!\s*\()/gi)].map(([, word = '']) => word);
  return [...new Set(words.filter((word) => !OPERATORS.has(word)))];
};

/** The labels that it tells series by. */
export const labelsIn = (expression: string): string[] => {
  const text = bare(expression);
  const grouped = [...text.matchAll(GROUPS)].flatMap(([, names = '']) => names.split(','));
  const matched = [...text.matchAll(MATCHERS)].flatMap(([, matchers = '']) =>
    matchers.split(',').map((matcher) => matcher.split(/[=!]/)[0] ?? ''),
  );
  return [...new Set([...grouped, ...matched].map((name) => name.trim()).filter((name) => name !== ''))];
};

/** What a text in Prometheus' format declares: each metric as queries name it, with the labels of its samples. */
export const readExposition = (text: string): ReadonlyMap<string, ReadonlySet<string>> => {
  const metrics = new Map<string, Set<string>>();
  for (const [, name = '', type] of text.matchAll(/^# TYPE (\S+) (\w+)$/gm)) {
    const suffixes = type === 'histogram' ? ['_bucket', '_sum', '_count'] : [''];
    for (const suffix of suffixes) metrics.set(name + suffix, new Set());
  }
  for (const [, name = '', labels = ''] of text.matchAll(/^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+$/gm)) {
    for (const [, label = ''] of labels.matchAll(/(\w+)="(?:[^"\\]|\\.)*"/g)) metrics.get(name)?.add(label);
  }
  return metrics;
};
